//! Ops as protobuf's JSON, in which error details carry them.
//!
//! The encoded message is read field by field along a table of names. What the table does not name is left out. Readers of
//! protobuf's JSON take enums as numbers and fields by the names of the proto file, so that is what is written.
//!
//! `attest::op_json` writes ops as well, and cannot share this: provenance has them as Go's `encoding/json` writes the generated
//! structs. There each oneof is wrapped in an object (`Op`, `Action`, `User`), `byID` is `byId`, inputs are left out, fields
//! keep their order, zeros are dropped where the wire carries them, and credentials are masked. Here a oneof is a field of its
//! message, everything on the wire is written as it is, and the order of fields has no meaning.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Messages below this depth are left out.
const MAX_DEPTH: usize = 16;

type Message = [Field];

struct Field(u64, &'static str, Kind, Count);

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bytes,
    Signed,
    Unsigned,
    Flag,
    Of(&'static Message),
    /// Entries of a map from texts: what its values are.
    Map(&'static Kind),
}

#[derive(Clone, Copy, PartialEq)]
enum Count {
    One,
    Many,
}

use Count::{Many, One};
use Kind::{Bytes, Flag, Of, Signed, Text, Unsigned};

const TEXT_MAP: Kind = Kind::Map(&Text);

static OP: &Message = &[
    Field(1, "inputs", Of(INPUT), Many),
    Field(2, "exec", Of(EXEC), One),
    Field(3, "source", Of(SOURCE), One),
    Field(4, "file", Of(FILE), One),
    Field(5, "build", Of(BUILD), One),
    Field(6, "merge", Of(MERGE), One),
    Field(7, "diff", Of(DIFF), One),
    Field(8, "passthrough", Of(PASSTHROUGH), One),
    Field(10, "platform", Of(PLATFORM), One),
    Field(
        11,
        "constraints",
        Of(&[Field(1, "filter", Text, Many)]),
        One,
    ),
];
static INPUT: &Message = &[
    Field(1, "digest", Text, One),
    Field(2, "index", Signed, One),
];
static PLATFORM: &Message = &[
    Field(1, "Architecture", Text, One),
    Field(2, "OS", Text, One),
    Field(3, "Variant", Text, One),
    Field(4, "OSVersion", Text, One),
    Field(5, "OSFeatures", Text, Many),
];
static EXEC: &Message = &[
    Field(1, "meta", Of(META), One),
    Field(2, "mounts", Of(MOUNT), Many),
    Field(3, "network", Signed, One),
    Field(4, "security", Signed, One),
    Field(
        5,
        "secretenv",
        Of(&[
            Field(1, "ID", Text, One),
            Field(2, "name", Text, One),
            Field(3, "optional", Flag, One),
        ]),
        Many,
    ),
    Field(
        6,
        "cdiDevices",
        Of(&[Field(1, "name", Text, One), Field(2, "optional", Flag, One)]),
        Many,
    ),
];
static META: &Message = &[
    Field(1, "args", Text, Many),
    Field(2, "env", Text, Many),
    Field(3, "cwd", Text, One),
    Field(4, "user", Text, One),
    Field(
        5,
        "proxy_env",
        Of(&[
            Field(1, "http_proxy", Text, One),
            Field(2, "https_proxy", Text, One),
            Field(3, "ftp_proxy", Text, One),
            Field(4, "no_proxy", Text, One),
            Field(5, "all_proxy", Text, One),
        ]),
        One,
    ),
    Field(
        6,
        "extraHosts",
        Of(&[Field(1, "Host", Text, One), Field(2, "IP", Text, One)]),
        Many,
    ),
    Field(7, "hostname", Text, One),
    Field(
        9,
        "ulimit",
        Of(&[
            Field(1, "Name", Text, One),
            Field(2, "Soft", Signed, One),
            Field(3, "Hard", Signed, One),
        ]),
        Many,
    ),
    Field(10, "cgroupParent", Text, One),
    Field(11, "removeMountStubsRecursive", Flag, One),
    Field(12, "validExitCodes", Signed, Many),
];
static MOUNT: &Message = &[
    Field(1, "input", Signed, One),
    Field(2, "selector", Text, One),
    Field(3, "dest", Text, One),
    Field(4, "output", Signed, One),
    Field(5, "readonly", Flag, One),
    Field(6, "mountType", Signed, One),
    Field(19, "TmpfsOpt", Of(&[Field(1, "size", Signed, One)]), One),
    Field(
        20,
        "cacheOpt",
        Of(&[Field(1, "ID", Text, One), Field(2, "sharing", Signed, One)]),
        One,
    ),
    Field(21, "secretOpt", Of(FILE_OPT), One),
    Field(22, "SSHOpt", Of(FILE_OPT), One),
    Field(23, "resultID", Text, One),
    Field(24, "contentCache", Signed, One),
];
static FILE_OPT: &Message = &[
    Field(1, "ID", Text, One),
    Field(2, "uid", Unsigned, One),
    Field(3, "gid", Unsigned, One),
    Field(4, "mode", Unsigned, One),
    Field(5, "optional", Flag, One),
];
static SOURCE: &Message = &[
    Field(1, "identifier", Text, One),
    Field(2, "attrs", TEXT_MAP, Many),
];
static BUILD: &Message = &[
    Field(1, "builder", Signed, One),
    Field(2, "inputs", Kind::Map(&Of(ONE_INPUT)), Many),
    Field(3, "def", Of(&[Field(1, "def", Bytes, Many)]), One),
    Field(4, "attrs", TEXT_MAP, Many),
];
static ONE_INPUT: &Message = &[Field(1, "input", Signed, One)];
static MERGE: &Message = &[Field(1, "inputs", Of(ONE_INPUT), Many)];
static DIFF: &Message = &[
    Field(1, "lower", Of(ONE_INPUT), One),
    Field(2, "upper", Of(ONE_INPUT), One),
];
static PASSTHROUGH: &Message = &[Field(1, "id", Text, One), Field(2, "outputs", Signed, Many)];
static FILE: &Message = &[Field(2, "actions", Of(ACTION), Many)];
static ACTION: &Message = &[
    Field(1, "input", Signed, One),
    Field(2, "secondaryInput", Signed, One),
    Field(3, "output", Signed, One),
    Field(4, "copy", Of(COPY), One),
    Field(
        5,
        "mkfile",
        Of(&[
            Field(1, "path", Text, One),
            Field(2, "mode", Signed, One),
            Field(3, "data", Bytes, One),
            Field(4, "owner", Of(OWNER), One),
            Field(5, "timestamp", Signed, One),
        ]),
        One,
    ),
    Field(
        6,
        "mkdir",
        Of(&[
            Field(1, "path", Text, One),
            Field(2, "mode", Signed, One),
            Field(3, "makeParents", Flag, One),
            Field(4, "owner", Of(OWNER), One),
            Field(5, "timestamp", Signed, One),
        ]),
        One,
    ),
    Field(
        7,
        "rm",
        Of(&[
            Field(1, "path", Text, One),
            Field(2, "allowNotFound", Flag, One),
            Field(3, "allowWildcard", Flag, One),
        ]),
        One,
    ),
    Field(
        8,
        "symlink",
        Of(&[
            Field(1, "oldpath", Text, One),
            Field(2, "newpath", Text, One),
            Field(3, "owner", Of(OWNER), One),
            Field(4, "timestamp", Signed, One),
        ]),
        One,
    ),
];
static COPY: &Message = &[
    Field(1, "src", Text, One),
    Field(2, "dest", Text, One),
    Field(3, "owner", Of(OWNER), One),
    Field(4, "mode", Signed, One),
    Field(5, "followSymlink", Flag, One),
    Field(6, "dirCopyContents", Flag, One),
    Field(7, "attemptUnpackDockerCompatibility", Flag, One),
    Field(8, "createDestPath", Flag, One),
    Field(9, "allowWildcard", Flag, One),
    Field(10, "allowEmptyWildcard", Flag, One),
    Field(11, "timestamp", Signed, One),
    Field(12, "include_patterns", Text, Many),
    Field(13, "exclude_patterns", Text, Many),
    Field(14, "alwaysReplaceExistingDestPaths", Flag, One),
    Field(15, "modeStr", Text, One),
    Field(16, "required_paths", Text, Many),
];
static OWNER: &Message = &[
    Field(1, "user", Of(USER), One),
    Field(2, "group", Of(USER), One),
];
static USER: &Message = &[
    Field(
        1,
        "byName",
        Of(&[Field(1, "name", Text, One), Field(2, "input", Signed, One)]),
        One,
    ),
    Field(2, "byID", Unsigned, One),
];

/// An encoded op as JSON.
pub(crate) fn op(encoded: &[u8]) -> Value {
    message(OP, encoded, MAX_DEPTH)
}

/// One field as it lies on the wire.
enum Wire<'a> {
    Number(u64),
    Data(&'a [u8]),
    Other,
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let key = varint(bytes)?;
    let mut skip = |length: usize| {
        let (data, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(data)
    };
    let wire = match key & 7 {
        0 => Wire::Number(varint(bytes)?),
        1 => skip(8).map(|_| Wire::Other)?,
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (data, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Data(data)
        }
        5 => skip(4).map(|_| Wire::Other)?,
        _ => return None,
    };
    Some((key >> 3, wire))
}

fn message(table: &Message, mut bytes: &[u8], depth: usize) -> Value {
    let mut object = Map::new();
    if depth == 0 {
        return Value::Object(object);
    }
    while let Some((number, wire)) = field(&mut bytes) {
        let Some(Field(_, name, kind, count)) = table.iter().find(|f| f.0 == number) else {
            continue;
        };
        if let Kind::Map(of) = kind {
            if let (Wire::Data(entry), Value::Object(map)) = (
                wire,
                object
                    .entry(*name)
                    .or_insert_with(|| Value::Object(Map::new())),
            ) {
                let (key, value_json) = map_entry(of, entry, depth - 1);
                map.insert(key, value_json);
            }
            continue;
        }
        if *count == One {
            object.insert((*name).into(), value(kind, &wire, depth - 1));
            continue;
        }
        let Value::Array(list) = object
            .entry(*name)
            .or_insert_with(|| Value::Array(Vec::new()))
        else {
            continue;
        };
        match (kind, &wire) {
            // Numbers of a list lie packed together.
            (Signed | Unsigned | Flag, Wire::Data(packed)) => {
                let mut packed = *packed;
                while let Some(number) = varint(&mut packed) {
                    list.push(value(kind, &Wire::Number(number), depth - 1));
                }
            }
            _ => list.push(value(kind, &wire, depth - 1)),
        }
    }
    Value::Object(object)
}

fn map_entry(of: &Kind, mut bytes: &[u8], depth: usize) -> (String, Value) {
    let mut key = String::new();
    let mut value_json = value(of, &Wire::Data(&[]), depth);
    while let Some((number, wire)) = field(&mut bytes) {
        match (number, &wire) {
            (1, Wire::Data(text)) => key = String::from_utf8_lossy(text).into_owned(),
            (2, _) => value_json = value(of, &wire, depth),
            _ => {}
        }
    }
    (key, value_json)
}

fn value(kind: &Kind, wire: &Wire<'_>, depth: usize) -> Value {
    match (kind, wire) {
        (Signed, Wire::Number(n)) => json!(n.cast_signed()),
        (Unsigned, Wire::Number(n)) => json!(n),
        (Flag, Wire::Number(n)) => json!(*n != 0),
        (Text, Wire::Data(text)) => json!(String::from_utf8_lossy(text)),
        (Bytes, Wire::Data(data)) => json!(STANDARD.encode(data)),
        (Of(table), Wire::Data(data)) => message(table, data, depth),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use llb::pb;
    use prost::Message as _;

    use super::*;

    #[test]
    fn an_op_is_written_by_the_names_of_its_fields() {
        let mount = pb::Mount {
            input: -1,
            dest: "/".into(),
            output: 1,
            ..Default::default()
        };
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec!["a".into(), "b".into()],
                valid_exit_codes: vec![0, -3],
                ..Default::default()
            }),
            mounts: vec![mount],
            ..Default::default()
        };
        let encoded = pb::Op {
            op: Some(pb::op::Op::Exec(exec)),
            ..Default::default()
        }
        .encode_to_vec();
        assert_eq!(
            op(&encoded),
            json!({"exec": {
                "meta": {"args": ["a", "b"], "validExitCodes": [0, -3]},
                "mounts": [{"input": -1, "dest": "/", "output": 1}],
            }})
        );
        let source = pb::SourceOp {
            identifier: "x".into(),
            attrs: [("k".to_owned(), "v".to_owned())].into(),
        };
        let encoded = pb::Op {
            op: Some(pb::op::Op::Source(source)),
            ..Default::default()
        }
        .encode_to_vec();
        assert_eq!(
            op(&encoded),
            json!({"source": {"identifier": "x", "attrs": {"k": "v"}}})
        );
        // Garbage ends it.
        assert_eq!(op(&[0xff, 0xff]), json!({}));
    }

    fn file_op(action: pb::file_action::Action) -> Vec<u8> {
        let action = pb::FileAction {
            input: 0,
            secondary_input: -1,
            action: Some(action),
            ..Default::default()
        };
        pb::Op {
            op: Some(pb::op::Op::File(pb::FileOp {
                actions: vec![action],
            })),
            ..Default::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn a_oneof_is_a_field_of_its_message_and_bytes_are_base64() {
        use pb::file_action::Action;
        let owner = pb::ChownOpt {
            user: Some(pb::UserOpt {
                user: Some(pb::user_opt::User::ByName(pb::NamedUserOpt {
                    name: "app".into(),
                    input: 1,
                })),
            }),
            group: Some(pb::UserOpt {
                user: Some(pb::user_opt::User::ById(7)),
            }),
        };
        let owned = json!({"user": {"byName": {"name": "app", "input": 1}}, "group": {"byID": 7}});
        let cases = [
            (
                Action::Mkfile(pb::FileActionMkFile {
                    path: "/a".into(),
                    mode: 0o644,
                    data: vec![0, 255],
                    owner: Some(owner.clone()),
                    timestamp: -1,
                }),
                json!({"mkfile": {"path": "/a", "mode": 420, "data": "AP8=", "owner": owned, "timestamp": -1}}),
            ),
            (
                Action::Symlink(pb::FileActionSymlink {
                    oldpath: "/a".into(),
                    newpath: "/b".into(),
                    ..Default::default()
                }),
                json!({"symlink": {"oldpath": "/a", "newpath": "/b"}}),
            ),
            (
                Action::Rm(pb::FileActionRm {
                    path: "/a".into(),
                    allow_not_found: true,
                    ..Default::default()
                }),
                json!({"rm": {"path": "/a", "allowNotFound": true}}),
            ),
            (
                Action::Copy(pb::FileActionCopy {
                    src: "/s".into(),
                    include_patterns: vec!["*.rs".into(), "b".into()],
                    mode: -1,
                    ..Default::default()
                }),
                json!({"copy": {"src": "/s", "mode": -1, "include_patterns": ["*.rs", "b"]}}),
            ),
        ];
        for (action, mut want) in cases {
            want["secondaryInput"] = json!(-1);
            assert_eq!(op(&file_op(action)), json!({"file": {"actions": [want]}}));
        }
    }

    #[test]
    fn an_op_that_is_cut_off_is_written_as_far_as_it_goes() {
        let encoded = file_op(pb::file_action::Action::Mkdir(pb::FileActionMkDir {
            path: "/a/b".into(),
            mode: 0o755,
            make_parents: true,
            ..Default::default()
        }));
        let whole = op(&encoded);
        for length in 0..encoded.len() {
            let part = op(encoded.get(..length).unwrap());
            assert!(part.is_object() && part != whole, "{length}: {part}");
        }
    }

    /// A field with a length and these bytes.
    fn nested(number: u8, inner: &[u8]) -> Vec<u8> {
        let length = u8::try_from(inner.len()).unwrap();
        [&[number << 3 | 2, length], inner].concat()
    }

    #[test]
    fn messages_of_the_wrong_form_neither_panic_nor_nest_without_end() {
        // An exec op (2) whose meta (1) is a number, and whose mounts (2) hold a field of a type that there is not (6).
        let wrong = [0x12, 0x05, 0x08, 0x01, 0x12, 0x01, 0x0e];
        assert_eq!(op(&wrong), json!({"exec": {"meta": null, "mounts": [{}]}}));
        // Fields without a name are skipped in every form: a number, eight bytes, four bytes.
        let unnamed = [
            &[0xf8, 0x07, 0x01][..],
            &[0xf9, 0x07, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xfd, 0x07, 0, 0, 0, 0],
            &nested(1, &nested(1, b"d")),
        ]
        .concat();
        assert_eq!(op(&unnamed), json!({"inputs": [{"digest": "d"}]}));
        // A length beyond the end, and one that does not fit into memory.
        assert_eq!(op(&[0x0a, 0x7f, 0x01]), json!({}));
        let endless = [&[0x0a][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(op(&endless), json!({}));
        // An entry of a map without key or value, and one in the wrong form.
        let attrs = nested(3, &[nested(2, &[]), vec![0x10, 0x01]].concat());
        assert_eq!(op(&attrs), json!({"source": {"attrs": {"": ""}}}));
        // What is no UTF-8 is shown with replacements.
        let text = nested(3, &nested(1, &[0xff]));
        assert_eq!(op(&text), json!({"source": {"identifier": "\u{fffd}"}}));
    }

    #[test]
    fn numbers_of_a_list_are_read_packed_and_one_by_one() {
        let packed = nested(8, &nested(2, &[1, 2, 0x80, 0x01]));
        let single = nested(8, &[0x10, 1, 0x10, 2]);
        assert_eq!(
            op(&packed),
            json!({"passthrough": {"outputs": [1, 2, 128]}})
        );
        assert_eq!(op(&single), json!({"passthrough": {"outputs": [1, 2]}}));
    }
}
