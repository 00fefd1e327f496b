//! A document that others wrote: checked, and taken apart without recursion.
//!
//! ```text
//! {"a": [1, "x"]}      Object 0..15 ─┬─ Text  "a"
//!                                    └─ List ─┬─ Number 1
//!                                             └─ Text  "x"          one after the other in a list of nodes
//! ```
//!
//! Every value is one node of sixteen bytes that points into the bytes, and says where the next one after it is: a value
//! that nobody asks for costs nothing more.

use std::borrow::Cow;

use super::DecodeError;

/// As in Go.
const MAX_DEPTH: usize = 10_000;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    False,
    True,
    Number,
    Text,
    List,
    Object,
}

impl Kind {
    /// What it is called in errors, as Go calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::False | Self::True => "bool",
            Self::Number => "number",
            Self::Text => "string",
            Self::List => "array",
            Self::Object => "object",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) kind: Kind,
    start: u32,
    end: u32,
    /// Index of the node behind this value and all that is in it.
    next: u32,
}

/// A document whose syntax is right.
#[derive(Debug)]
pub(super) struct Document<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
}

impl<'a> Document<'a> {
    /// Checks and takes apart. With `to_the_end`, nothing but blanks may follow the value.
    pub(super) fn parse(
        bytes: &'a [u8],
        max_values: usize,
        to_the_end: bool,
    ) -> Result<Self, DecodeError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(DecodeError::Size);
        }
        let mut parser = Parser {
            bytes,
            at: 0,
            nodes: Vec::new(),
            open: Vec::new(),
            max_values,
        };
        parser.value()?;
        if to_the_end {
            parser.blanks();
            if parser.at < bytes.len() {
                return Err(parser.unexpected("after top-level value"));
            }
        }
        Ok(Self {
            bytes,
            nodes: parser.nodes,
        })
    }

    /// The members of the object that the document is, in order; `None` if it is no object.
    pub(super) fn top_members(&self) -> Option<impl Iterator<Item = (usize, usize)>> {
        self.node(0)
            .filter(|node| node.kind == Kind::Object)
            .map(|_| self.members(0))
    }

    pub(super) fn node(&self, at: usize) -> Option<Node> {
        self.nodes.get(at).copied()
    }

    pub(super) fn kind(&self, at: usize) -> Kind {
        self.node(at).map_or(Kind::Null, |node| node.kind)
    }

    /// The bytes of a value, without the blanks around it.
    pub(super) fn raw(&self, at: usize) -> &'a [u8] {
        let node = self.node(at);
        let range = node.map(|node| node.start as usize..node.end as usize);
        range
            .and_then(|range| self.bytes.get(range))
            .unwrap_or_default()
    }

    /// The elements of a list.
    pub(super) fn elements(&self, list: usize) -> impl Iterator<Item = usize> {
        let end = self.end(list);
        let mut at = list + 1;
        std::iter::from_fn(move || {
            let element = at;
            if element >= end {
                return None;
            }
            at = self.end(element);
            Some(element)
        })
    }

    /// The members of an object: name and value.
    pub(super) fn members(&self, object: usize) -> impl Iterator<Item = (usize, usize)> {
        let end = self.end(object);
        let mut at = object + 1;
        std::iter::from_fn(move || {
            let member = (at, at + 1);
            if member.1 >= end {
                return None;
            }
            at = self.end(member.1);
            Some(member)
        })
    }

    fn end(&self, at: usize) -> usize {
        self.node(at).map_or(usize::MAX, |node| node.next as usize)
    }

    /// A text, with what is no Unicode in it replaced.
    pub(super) fn text(&self, at: usize) -> Cow<'a, str> {
        let raw = self.raw(at);
        let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
        unquote(inner)
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    /// Objects and lists that were begun.
    open: Vec<usize>,
    max_values: usize,
}

impl Parser<'_> {
    fn value(&mut self) -> Result<(), DecodeError> {
        loop {
            self.blanks();
            match self.peek()? {
                b'{' => {
                    self.begin(Kind::Object)?;
                    self.blanks();
                    if self.peek()? != b'}' {
                        self.key("looking for beginning of object key string")?;
                        continue;
                    }
                    self.finish();
                }
                b'[' => {
                    self.begin(Kind::List)?;
                    self.blanks();
                    if self.peek()? != b']' {
                        continue;
                    }
                    self.finish();
                }
                b'"' => self.string()?,
                b'n' => self.literal(Kind::Null, b"null")?,
                b't' => self.literal(Kind::True, b"true")?,
                b'f' => self.literal(Kind::False, b"false")?,
                b'-' | b'0'..=b'9' => self.number()?,
                _ => return Err(self.unexpected("looking for beginning of value")),
            }
            // What may follow a value depends on what it is in.
            loop {
                let Some(top) = self.open.last().and_then(|top| self.nodes.get(*top)) else {
                    return Ok(());
                };
                let is_object = top.kind == Kind::Object;
                self.blanks();
                match (self.peek()?, is_object) {
                    (b',', true) => {
                        self.at += 1;
                        self.blanks();
                        self.key("looking for beginning of object key string")?;
                        break;
                    }
                    (b',', false) => {
                        self.at += 1;
                        break;
                    }
                    (b'}', true) | (b']', false) => self.finish(),
                    (_, true) => return Err(self.unexpected("after object key:value pair")),
                    (_, false) => return Err(self.unexpected("after array element")),
                }
            }
        }
    }

    fn peek(&self) -> Result<u8, DecodeError> {
        self.bytes.get(self.at).copied().ok_or(DecodeError::End)
    }

    /// As [`Self::peek`] inside a word, a number or an escape: a document that ends there is for Go one in which a blank is
    /// in the way.
    fn peek_inside(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(b' ')
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn push(&mut self, kind: Kind, start: usize) -> Result<(), DecodeError> {
        if self.nodes.len() >= self.max_values {
            return Err(DecodeError::Values(self.max_values));
        }
        // A conversion to 32 bits fails for one reason, which the variant names.
        let place = |at: usize| u32::try_from(at).map_err(|_| DecodeError::Size);
        self.nodes.push(Node {
            kind,
            start: place(start)?,
            end: place(self.at)?,
            next: place(self.nodes.len() + 1)?,
        });
        Ok(())
    }

    fn begin(&mut self, kind: Kind) -> Result<(), DecodeError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(DecodeError::Depth);
        }
        self.open.push(self.nodes.len());
        self.push(kind, self.at)?;
        self.at += 1;
        Ok(())
    }

    fn finish(&mut self) {
        self.at += 1;
        let count = self.nodes.len();
        if let Some(node) = self.open.pop().and_then(|top| self.nodes.get_mut(top)) {
            node.end = u32::try_from(self.at).unwrap_or(u32::MAX);
            node.next = u32::try_from(count).unwrap_or(u32::MAX);
        }
    }

    fn key(&mut self, place: &'static str) -> Result<(), DecodeError> {
        if self.peek()? != b'"' {
            return Err(self.unexpected(place));
        }
        self.string()?;
        self.blanks();
        if self.peek()? != b':' {
            return Err(self.unexpected("after object key"));
        }
        self.at += 1;
        Ok(())
    }

    fn literal(&mut self, kind: Kind, text: &'static [u8]) -> Result<(), DecodeError> {
        let start = self.at;
        for byte in text {
            if self.peek_inside() != *byte {
                let (text, byte) = (String::from_utf8_lossy(text), char::from(*byte));
                return Err(self.unexpected(format!("in literal {text} (expecting {byte:?})")));
            }
            self.at += 1;
        }
        self.push(kind, start)
    }

    fn string(&mut self) -> Result<(), DecodeError> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    self.at += 1;
                    match self.peek_inside() {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            for _ in 0..4 {
                                self.at += 1;
                                if !self.peek_inside().is_ascii_hexdigit() {
                                    return Err(
                                        self.unexpected("in \\u hexadecimal character escape")
                                    );
                                }
                            }
                        }
                        _ => return Err(self.unexpected("in string escape code")),
                    }
                }
                0..0x20 => return Err(self.unexpected("in string literal")),
                _ => {}
            }
            self.at += 1;
        }
        self.at += 1;
        self.push(Kind::Text, start)
    }

    fn number(&mut self) -> Result<(), DecodeError> {
        let start = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek_inside() == b'0' {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        self.push(Kind::Number, start)
    }

    fn digits(&mut self, place: &'static str) -> Result<(), DecodeError> {
        if !self.peek_inside().is_ascii_digit() {
            return Err(self.unexpected(place));
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn unexpected(&self, place: impl Into<Cow<'static, str>>) -> DecodeError {
        DecodeError::Syntax {
            found: char::from(self.peek_inside()),
            place: place.into(),
            offset: self.at,
        }
    }
}

/// What stands between the quotes of a text whose syntax is right.
fn unquote(mut rest: &[u8]) -> Cow<'_, str> {
    if !rest.contains(&b'\\')
        && let Ok(text) = std::str::from_utf8(rest)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(rest.len());
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        let (plain, escape) = rest.split_at(at);
        push_replaced(&mut out, plain);
        let length = match escape.get(1) {
            Some(b'u') => {
                let (c, length) = unicode_escape(escape);
                out.push(c);
                length
            }
            Some(byte) => {
                out.push(match byte {
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    other => char::from(*other),
                });
                2
            }
            None => 1,
        };
        rest = escape.get(length..).unwrap_or_default();
    }
    push_replaced(&mut out, rest);
    Cow::Owned(out)
}

/// Reads `\uXXXX`, two of them if they are one character; returns how long it is.
fn unicode_escape(escape: &[u8]) -> (char, usize) {
    let unit = |at: usize| -> Option<u32> {
        let digits = escape.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let first = unit(0).unwrap_or(0xfffd);
    if let Some(c) = char::from_u32(first) {
        return (c, 6);
    }
    if let Some(second) = unit(6)
        && (0xd800..0xdc00).contains(&first)
        && (0xdc00..0xe000).contains(&second)
        && let Some(c) = char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    {
        return (c, 12);
    }
    (char::REPLACEMENT_CHARACTER, 6)
}

/// Every byte that is no UTF-8 becomes U+FFFD, as in Go.
fn push_replaced(out: &mut String, mut bytes: &[u8]) {
    loop {
        match std::str::from_utf8(bytes) {
            Ok(text) => return out.push_str(text),
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                out.push_str(std::str::from_utf8(valid).unwrap_or_default());
                let wrong = error.error_len().unwrap_or(rest.len());
                out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, wrong));
                bytes = rest.get(wrong..).unwrap_or_default();
            }
        }
    }
}
