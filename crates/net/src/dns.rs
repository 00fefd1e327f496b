//! Messages of DNS as far as the forwarder reads them: the header and the question (RFC 1035, section 4).

use std::ops::Range;

const HEADER_BYTES: usize = 12;
const MAX_NAME_BYTES: usize = 255;
/// Bits of the third byte of the header.
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
/// A bit of the fourth byte of the header.
const RECURSION_AVAILABLE: u8 = 0x80;
const CLASS_INTERNET: u16 = 1;
/// Transfers of whole zones, which answer with many messages.
const ZONE_TRANSFER_TYPES: [u16; 2] = [251, 252];

/// A response code of RFC 1035.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The query cannot be read.
    Format = 1,
    /// No resolver answers it.
    ServerFailure = 2,
    /// There is no such name.
    NoName = 3,
    /// The message asks for another operation than a query.
    NotImplemented = 4,
    /// The forwarder does not answer such a query for steps.
    Refused = 5,
}

/// A query that may be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    bytes: &'a [u8],
    /// The bytes of the message that hold name, type and class.
    question: Range<usize>,
}

/// Why a message of a client is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It is not a query. It gets no answer, or two servers could answer each other for ever.
    Ignore,
    /// It is answered with this message.
    Answer(Vec<u8>),
}

impl<'a> Query<'a> {
    /// Reads a message of a client.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Unfit> {
        let &[_, _, first, _, ..] = bytes else {
            return Err(Unfit::Ignore);
        };
        if bytes.len() < HEADER_BYTES || first & RESPONSE != 0 {
            return Err(Unfit::Ignore);
        }
        let refuse = |code| Unfit::Answer(answer(bytes, HEADER_BYTES..HEADER_BYTES, code));
        if first & OPCODE != 0 {
            return Err(refuse(Code::NotImplemented));
        }
        let question = question(bytes).ok_or_else(|| refuse(Code::Format))?;
        let query = Self { bytes, question };
        let (kind, class) = query.kind().ok_or_else(|| refuse(Code::Format))?;
        if class != CLASS_INTERNET || ZONE_TRANSFER_TYPES.contains(&kind) {
            return Err(Unfit::Answer(query.answer(Code::Refused)));
        }
        // RFC 6761 reserves it, so no resolver has to be asked. Our own check of the network asks for such a name.
        if query.ends_with(b"\x07invalid\0") {
            return Err(Unfit::Answer(query.answer(Code::NoName)));
        }
        Ok(query)
    }

    /// The id by which the client recognises the answer.
    pub(crate) fn id(&self) -> [u8; 2] {
        id(self.bytes)
    }

    /// The message with another id.
    pub(crate) fn with_id(&self, id: [u8; 2]) -> Vec<u8> {
        with_id(self.bytes, id)
    }

    /// An answer without records, with this code.
    pub(crate) fn answer(&self, code: Code) -> Vec<u8> {
        answer(self.bytes, self.question.clone(), code)
    }

    /// An answer that has the client ask again over TCP.
    pub(crate) fn too_long(&self) -> Vec<u8> {
        let mut bytes = answer(self.bytes, self.question.clone(), Code::Format);
        if let [_, _, first, second, ..] = bytes.as_mut_slice() {
            *first |= TRUNCATED;
            *second = RECURSION_AVAILABLE;
        }
        bytes
    }

    /// Whether `response` answers this query as it was sent with `expected_id`. A forged answer has to guess that id.
    pub(crate) fn is_answered_by(&self, response: &[u8], expected_id: [u8; 2]) -> bool {
        let same_question = match question(response) {
            Some(range) => response
                .get(range)
                .is_some_and(|question| question.eq_ignore_ascii_case(self.question())),
            // A server that could not read the query has none to repeat.
            None => response.len() == HEADER_BYTES && response_code(response) != 0,
        };
        let is_response = response.get(2).is_some_and(|flags| flags & RESPONSE != 0);
        is_response && id(response) == expected_id && same_question
    }

    fn question(&self) -> &[u8] {
        self.bytes.get(self.question.clone()).unwrap_or_default()
    }

    fn kind(&self) -> Option<(u16, u16)> {
        match *self.question() {
            [.., a, b, c, d] => Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))),
            _ => None,
        }
    }

    fn ends_with(&self, name: &[u8]) -> bool {
        let question = self.question();
        let end = question.len().saturating_sub(4);
        let tail = end
            .checked_sub(name.len())
            .and_then(|at| question.get(at..end));
        tail.is_some_and(|tail| tail.eq_ignore_ascii_case(name))
    }
}

/// Whether another server may know more: this one failed, does not know how, or will not.
pub(crate) fn is_failure(response: &[u8]) -> bool {
    let code = response_code(response);
    [Code::ServerFailure, Code::NotImplemented, Code::Refused]
        .iter()
        .any(|failure| *failure as u8 == code)
}

/// The message with another id.
pub(crate) fn with_id(bytes: &[u8], id: [u8; 2]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let [first, second, ..] = bytes.as_mut_slice() {
        [*first, *second] = id;
    }
    bytes
}

/// A query of our own: the address of `rbuild.invalid`, which the forwarder answers itself.
pub(crate) fn probe(id: [u8; 2]) -> Vec<u8> {
    let mut bytes = id.to_vec();
    bytes.extend([RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(b"\x06rbuild\x07invalid\0");
    bytes.extend([0, 1, 0, 1]);
    bytes
}

fn id(bytes: &[u8]) -> [u8; 2] {
    match *bytes {
        [first, second, ..] => [first, second],
        _ => [0; 2],
    }
}

fn response_code(bytes: &[u8]) -> u8 {
    bytes.get(3).copied().unwrap_or_default() & 0x0f
}

/// The bytes of the only question of a message. `None` if there is not exactly one, or it cannot be read.
fn question(bytes: &[u8]) -> Option<Range<usize>> {
    if bytes.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*bytes.get(at)?);
        // The two upper bits are of pointers, which lead nowhere from the first name.
        if length > 63 {
            return None;
        }
        at += 1 + length;
        if at - HEADER_BYTES > MAX_NAME_BYTES {
            return None;
        }
        if length == 0 {
            break;
        }
    }
    let end = at + 4;
    bytes.get(HEADER_BYTES..end)?;
    Some(HEADER_BYTES..end)
}

/// An answer without records to `query`, with the question repeated.
fn answer(query: &[u8], question: Range<usize>, code: Code) -> Vec<u8> {
    let mut bytes = id(query).to_vec();
    let query_flags = query.get(2).copied().unwrap_or_default();
    bytes.push(RESPONSE | (query_flags & (OPCODE | RECURSION_DESIRED)));
    bytes.push(RECURSION_AVAILABLE | code as u8);
    let question = query.get(question).unwrap_or_default();
    bytes.extend([0, u8::from(!question.is_empty())]);
    bytes.extend([0; 6]);
    bytes.extend(question);
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A query for an address.
    pub(crate) fn ask(id: u16, name: &str) -> Vec<u8> {
        ask_for(id, name, 1, 1)
    }

    fn ask_for(id: u16, name: &str, kind: u16, class: u16) -> Vec<u8> {
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        bytes
    }

    /// What an honest server answers: the question, and one address.
    pub(crate) fn reply(query: &[u8], address: [u8; 4]) -> Vec<u8> {
        let mut bytes = query.to_vec();
        bytes[2] |= RESPONSE;
        bytes[3] = RECURSION_AVAILABLE;
        bytes[7] = 1;
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        bytes.extend(address);
        bytes
    }

    fn code_of(unfit: Result<Query<'_>, Unfit>) -> Option<u8> {
        match unfit {
            Ok(query) => panic!("{query:?} would be forwarded"),
            Err(Unfit::Ignore) => None,
            Err(Unfit::Answer(bytes)) => {
                assert_ne!(bytes[2] & RESPONSE, 0);
                Some(bytes[3] & 0x0f)
            }
        }
    }

    #[test]
    fn a_query_is_forwarded_under_a_number_of_ours() {
        let bytes = ask(0x1234, "example.com");
        let query = Query::parse(&bytes).unwrap();
        assert_eq!(query.id(), [0x12, 0x34]);
        let sent_query = query.with_id([9, 8]);
        assert_eq!(sent_query[..2], [9, 8]);
        assert_eq!(sent_query[2..], bytes[2..]);
        assert!(query.is_answered_by(&reply(&sent_query, [1, 2, 3, 4]), [9, 8]));
    }

    #[test]
    fn an_answer_to_something_else_is_not_taken() {
        let bytes = ask(1, "example.com");
        let query = Query::parse(&bytes).unwrap();
        let good = reply(&bytes, [1, 2, 3, 4]);
        assert!(query.is_answered_by(&good, [0, 1]));
        let upper = reply(&ask(1, "EXAMPLE.com"), [1, 2, 3, 4]);
        assert!(query.is_answered_by(&upper, [0, 1]));
        assert!(!query.is_answered_by(&good, [0, 2]), "another number");
        assert!(!query.is_answered_by(&bytes, [0, 1]), "no response");
        for foreign_answer in [
            ask(1, "example.org"),
            ask_for(1, "example.com", 28, 1),
            ask_for(1, "example.com", 1, 3),
        ] {
            assert!(!query.is_answered_by(&reply(&foreign_answer, [6; 4]), [0, 1]));
        }
        for length in 0..bytes.len() {
            assert!(!query.is_answered_by(&good[..length], [0, 1]), "{length}");
        }
        // A server that says only that it understood nothing.
        let mut header = good[..HEADER_BYTES].to_vec();
        header[3] = 1;
        header[5] = 0;
        assert!(query.is_answered_by(&header, [0, 1]));
    }

    #[test]
    fn what_is_no_query_for_a_name_gets_a_code_or_nothing() {
        let good = ask(7, "example.com");
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        assert_eq!(code_of(Query::parse(&[])), None);
        assert_eq!(code_of(Query::parse(&good[..11])), None);
        assert_eq!(code_of(Query::parse(&with(2, 0x81))), None, "a response");
        assert_eq!(code_of(Query::parse(&with(2, 0x28))), Some(4), "an update");
        assert_eq!(code_of(Query::parse(&with(5, 0))), Some(1), "no question");
        assert_eq!(code_of(Query::parse(&with(5, 2))), Some(1), "two questions");
        assert_eq!(code_of(Query::parse(&with(12, 0xc0))), Some(1), "a pointer");
        assert_eq!(code_of(Query::parse(&with(12, 0x40))), Some(1));
        for length in HEADER_BYTES..good.len() {
            assert_eq!(code_of(Query::parse(&good[..length])), Some(1), "{length}");
        }
        let label = "a".repeat(63);
        let long = ask(7, &[label.as_str(); 4].join("."));
        assert_eq!(code_of(Query::parse(&long)), Some(1), "a name of 257 bytes");
        for (kind, class) in [(252, 1), (251, 1), (16, 3), (1, 0)] {
            let bytes = ask_for(7, "example.com", kind, class);
            assert_eq!(code_of(Query::parse(&bytes)), Some(5), "{kind} {class}");
        }
    }

    #[test]
    fn names_that_cannot_be_are_answered_here() {
        for name in ["rbuild.invalid", "INVALID", "a.b.Invalid"] {
            assert_eq!(code_of(Query::parse(&ask(7, name))), Some(3), "{name}");
        }
        assert_eq!(code_of(Query::parse(&probe([1, 2]))), Some(3));
        for name in ["invalid.example", "notinvalid", "xinvalid.com"] {
            assert!(Query::parse(&ask(7, name)).is_ok(), "{name}");
        }
    }

    #[test]
    fn answers_of_our_own_repeat_number_and_question() {
        let bytes = ask(0xabcd, "example.com");
        let query = Query::parse(&bytes).unwrap();
        let failure = query.answer(Code::ServerFailure);
        assert!(query.is_answered_by(&failure, [0xab, 0xcd]));
        assert!(is_failure(&failure));
        assert_eq!(failure.len(), bytes.len());
        let again = query.too_long();
        assert!(query.is_answered_by(&again, [0xab, 0xcd]));
        assert_eq!((again[2] & TRUNCATED, again[3] & 0x0f), (TRUNCATED, 0));
        assert!(!is_failure(&again));
        assert!(
            !is_failure(&query.answer(Code::NoName)),
            "no name is an answer"
        );
    }
}
