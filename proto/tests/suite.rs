//! What messages may take.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use parking_lot::Mutex;
use proto::weigh::{Field, Holds, Shape, budget, weigh};

/// Bytes of one kind of part in a message.
const FILL: usize = 48 << 10;
/// How deep parts are put into parts.
const DEEP: usize = 3;

/// The allocator counts for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn data(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// The ways a message can be filled with one field: with the smallest parts, with texts, with one long text.
fn fillings(field: &Field) -> Vec<Vec<u8>> {
    let smallest = data(field.number, b"");
    let mut out = vec![smallest.repeat(FILL / smallest.len())];
    match field.holds {
        Holds::Number => {
            let mut one = Vec::new();
            varint(field.number << 3, &mut one);
            one.push(1);
            out.push(one.repeat(FILL / one.len()));
            out.push(data(field.number, &vec![1; FILL]));
        }
        Holds::Bytes => {
            out.push(data(field.number, b"x").repeat(FILL / 4));
            out.push(data(field.number, &vec![b'x'; FILL]));
        }
        Holds::Message(inner) if is_map(inner) => {
            // Each with a key of its own, or all but one go.
            let entries = (0..FILL / 12).flat_map(|n: usize| {
                let key = match inner.fields[0].holds {
                    Holds::Bytes => data(1, format!("{n:06}").as_bytes()),
                    Holds::Number | Holds::Message(_) => {
                        let mut key = vec![1 << 3];
                        varint(n as u64, &mut key);
                        key
                    }
                };
                data(field.number, &key)
            });
            out.push(entries.collect());
        }
        Holds::Message(_) => {}
    }
    out
}

fn is_map(shape: &Shape) -> bool {
    shape.name.ends_with("Entry") && shape.fields.len() == 2
}

/// Fills every field of a message, and every field of what it holds.
fn attacks(shape: &'static Shape, deep: usize, out: &mut Vec<(String, Vec<u8>)>) {
    for field in shape.fields {
        let name = |rest: &str| format!("{}.{}", field.name, rest);
        for (n, filled) in fillings(field).into_iter().enumerate() {
            out.push((name(&n.to_string()), filled));
        }
        if let Holds::Message(inner) = field.holds
            && deep > 0
        {
            let mut inner_ones = Vec::new();
            attacks(inner, deep - 1, &mut inner_ones);
            out.extend(
                inner_ones
                    .into_iter()
                    .map(|(rest, bytes)| (name(&rest), data(field.number, &bytes))),
            );
        }
    }
}

#[test]
fn no_message_of_the_api_takes_more_than_its_budget_however_it_is_filled() {
    let _alone = ALONE.lock();
    let (mut refused, mut taken, mut tried) = (0, 0, 0);
    for (shape, decode) in proto::shapes::ALL {
        // What a message of the control surface holds is tried with the message that holds it, too; deep ones repeat that.
        let deep = if shape.name.ends_with("Request") || shape.name.ends_with("Response") {
            DEEP
        } else {
            1
        };
        let mut all = Vec::new();
        attacks(shape, deep, &mut all);
        for (what, bytes) in all {
            tried += 1;
            let before = sys::memory::allocated();
            match decode(&bytes) {
                Err(_) => refused += 1,
                Ok(message) => {
                    let held = sys::memory::allocated().saturating_sub(before);
                    let most = budget(bytes.len());
                    assert!(
                        held <= most,
                        "{}.{what}: {} bytes became {held}, at most {most} are allowed",
                        shape.name,
                        bytes.len()
                    );
                    taken += 1;
                    drop(message);
                }
            }
        }
    }
    // The table reaches the messages, and the limit tells them apart.
    assert!(
        tried > 1_000 && refused > 100 && taken > 100,
        "{tried} {refused} {taken}"
    );
}

#[test]
fn what_a_message_is_said_to_take_is_at_least_what_it_takes() {
    let _alone = ALONE.lock();
    for (shape, decode) in proto::shapes::ALL {
        let mut all = Vec::new();
        attacks(shape, 0, &mut all);
        for (what, bytes) in all {
            let said = weigh(shape, &bytes, usize::MAX).unwrap();
            let before = sys::memory::allocated();
            let Ok(message) = decode(&bytes) else {
                continue;
            };
            let held = sys::memory::allocated().saturating_sub(before);
            // Some for the allocator's own rounding.
            assert!(
                held <= said + said / 2 + 4096,
                "{}.{what}: {held} > {said}",
                shape.name
            );
            drop(message);
        }
    }
}

#[test]
fn a_large_message_of_an_honest_client_is_taken() {
    let _alone = ALONE.lock();
    // As long as messages may be: steps of some 300 bytes, each with a name, capabilities and its place in the file.
    let mut definition = proto::pb::Definition::default();
    let mut source = proto::pb::Source::default();
    while definition.def.len() < 26_000 {
        let n = definition.def.len();
        let digest = format!("sha256:{n:064}");
        definition.def.push(format!("{n:300}").into_bytes());
        let metadata = proto::pb::OpMetadata {
            description: [(
                "llb.customname".to_owned(),
                format!("[stage-0 {n}/26000] RUN step {n}"),
            )]
            .into(),
            caps: [
                ("exec.meta.base".to_owned(), true),
                ("exec.mount.bind".to_owned(), true),
            ]
            .into(),
            ..Default::default()
        };
        definition.metadata.insert(digest.clone(), metadata);
        let at = |line| Some(proto::pb::Position { line, character: 0 });
        let line = i32::try_from(n).unwrap();
        let locations = vec![proto::pb::Location {
            source_index: 0,
            ranges: vec![proto::pb::Range {
                start: at(line),
                end: at(line),
            }],
        }];
        source
            .locations
            .insert(digest, proto::pb::Locations { locations });
    }
    definition.source = Some(source);
    let bytes = prost::Message::encode_to_vec(&definition);
    assert!(
        bytes.len() > proto::MAX_MESSAGE * 8 / 10 && bytes.len() < proto::MAX_MESSAGE,
        "{}",
        bytes.len()
    );
    let back: proto::pb::Definition = proto::weigh::decode(&bytes).unwrap();
    assert_eq!(back, definition);
}
