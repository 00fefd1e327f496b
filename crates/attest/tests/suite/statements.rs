//! The steps of a definition as documents have them, and statements about results.

use attest::{Statement, Subject, SubjectKind, SubjectSpec, build_config};
use llb::pb;
use oci::Digest;
use serde_json::{Value, json};

use super::documents::{digest, exec, with_attrs};
use super::{definition, head};

/// The op of the only step, as the document has it.
fn step(op: &pb::Op) -> Value {
    let config = build_config(&definition(&[op.clone(), head(op)])).unwrap();
    serde_json::to_value(&config.steps).unwrap()["llbDefinition"][0]["op"].clone()
}

fn file(action: pb::file_action::Action) -> pb::Op {
    let action = pb::FileAction {
        input: 0,
        secondary_input: -1,
        output: 0,
        action: Some(action),
    };
    pb::Op {
        op: Some(pb::op::Op::File(pb::FileOp {
            actions: vec![action],
        })),
        ..pb::Op::default()
    }
}

#[test]
fn steps_are_written_with_the_fields_of_their_messages_and_none_that_is_empty() {
    use pb::file_action::Action;
    let by_name = pb::UserOpt {
        user: Some(pb::user_opt::User::ByName(pb::NamedUserOpt {
            name: "app".into(),
            input: 1,
        })),
    };
    let by_id = pb::UserOpt {
        user: Some(pb::user_opt::User::ById(7)),
    };
    let owner = Some(pb::ChownOpt {
        user: Some(by_name),
        group: Some(by_id),
    });
    let owned = json!({
        "user": { "User": { "byName": { "name": "app", "input": 1 } } },
        "group": { "User": { "byId": 7 } },
    });
    let action = |name: &str, value: Value| {
        json!({ "Op": { "file": { "actions": [
            { "input": 0, "secondaryInput": -1, "output": 0, "Action": { name: value } },
        ] } } })
    };
    let plain = |op| pb::Op {
        op: Some(op),
        ..pb::Op::default()
    };
    let cases: Vec<(pb::Op, Value)> = vec![
        (
            file(Action::Copy(pb::FileActionCopy {
                src: "/a".into(),
                dest: "/b".into(),
                owner: owner.clone(),
                mode: -1,
                follow_symlink: true,
                timestamp: -1,
                include_patterns: vec!["*.rs".into()],
                ..pb::FileActionCopy::default()
            })),
            action(
                "copy",
                json!({ "src": "/a", "dest": "/b", "owner": owned, "mode": -1, "followSymlink": true,
                        "timestamp": -1, "include_patterns": ["*.rs"] }),
            ),
        ),
        (
            file(Action::Mkfile(pb::FileActionMkFile {
                path: "/f".into(),
                mode: 0o644,
                data: b"hi".to_vec(),
                ..pb::FileActionMkFile::default()
            })),
            action(
                "mkfile",
                json!({ "path": "/f", "mode": 420, "data": "aGk=" }),
            ),
        ),
        (
            file(Action::Mkdir(pb::FileActionMkDir {
                path: "/d".into(),
                make_parents: true,
                ..pb::FileActionMkDir::default()
            })),
            action("mkdir", json!({ "path": "/d", "makeParents": true })),
        ),
        (
            file(Action::Rm(pb::FileActionRm {
                path: "/x".into(),
                allow_not_found: true,
                allow_wildcard: false,
            })),
            action("rm", json!({ "path": "/x", "allowNotFound": true })),
        ),
        (
            file(Action::Symlink(pb::FileActionSymlink {
                oldpath: "/o".into(),
                newpath: "/n".into(),
                ..pb::FileActionSymlink::default()
            })),
            action("symlink", json!({ "oldpath": "/o", "newpath": "/n" })),
        ),
        (
            plain(pb::op::Op::Merge(pb::MergeOp {
                inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }],
            })),
            json!({ "Op": { "merge": { "inputs": [{}, { "input": 1 }] } } }),
        ),
        (
            plain(pb::op::Op::Diff(pb::DiffOp {
                lower: Some(pb::LowerDiffInput { input: -1 }),
                upper: Some(pb::UpperDiffInput { input: 1 }),
            })),
            json!({ "Op": { "diff": { "lower": { "input": -1 }, "upper": { "input": 1 } } } }),
        ),
        (
            with_attrs(
                "local://context",
                [
                    ("local.session", "s1"),
                    ("local.unique", "u"),
                    ("local.sharedkeyhint", "context"),
                ],
            ),
            json!({ "Op": { "source": {
                "identifier": "local://context", "attrs": { "local.sharedkeyhint": "context" } } } }),
        ),
        (
            exec(|exec| {
                exec.meta = Some(pb::Meta {
                    args: vec!["sh".into()],
                    env: vec!["A=https://u:p@h/x".into()],
                    cwd: "/".into(),
                    extra_hosts: vec![pb::HostIp {
                        host: "h".into(),
                        ip: "1.2.3.4".into(),
                    }],
                    ulimit: vec![pb::Ulimit {
                        name: "nofile".into(),
                        soft: 1,
                        hard: 2,
                    }],
                    valid_exit_codes: vec![0, 3],
                    ..pb::Meta::default()
                });
                exec.network = pb::NetMode::Host.into();
                exec.mounts = vec![pb::Mount {
                    input: -1,
                    dest: "/cache".into(),
                    output: -1,
                    mount_type: pb::MountType::Cache.into(),
                    cache_opt: Some(pb::CacheOpt {
                        id: "c".into(),
                        sharing: pb::CacheSharingOpt::Locked.into(),
                    }),
                    ..pb::Mount::default()
                }];
                exec.cdi_devices = vec![pb::CdiDevice {
                    name: "gpu".into(),
                    optional: true,
                }];
            }),
            json!({ "Op": { "exec": {
                "meta": {
                    "args": ["sh"], "env": ["A=https://xxxxx:xxxxx@h/x"], "cwd": "/",
                    "extraHosts": [{ "Host": "h", "IP": "1.2.3.4" }],
                    "ulimit": [{ "Name": "nofile", "Soft": 1, "Hard": 2 }],
                    "validExitCodes": [0, 3],
                },
                "mounts": [{ "input": -1, "dest": "/cache", "output": -1,
                             "mountType": pb::MountType::Cache as i32,
                             "cacheOpt": { "ID": "c", "sharing": pb::CacheSharingOpt::Locked as i32 } }],
                "network": pb::NetMode::Host as i32,
                "cdiDevices": [{ "name": "gpu", "optional": true }],
            } } }),
        ),
    ];
    for (op, want) in cases {
        assert_eq!(step(&op), want);
    }
}

#[test]
fn a_statement_is_about_what_is_exported_and_what_the_frontend_names() {
    let (own, raw) = (digest("own"), digest("raw"));
    let exported = [Subject::new("image", &own), Subject::new("other", &own)];
    let spec = |kind, name: &str, digests: &[&Digest]| SubjectSpec {
        kind,
        name: name.into(),
        digests: digests.iter().map(|d| (*d).clone()).collect(),
    };
    type Subjects<'a> = Vec<(&'a str, &'a Digest)>;
    let cases: [(Vec<SubjectSpec>, Subjects<'_>); 4] = [
        (vec![], vec![("image", &own), ("other", &own)]),
        (
            vec![spec(SubjectKind::SelfResult, "alias", &[&raw])],
            vec![
                ("image", &own),
                ("alias", &own),
                ("other", &own),
                ("alias", &own),
            ],
        ),
        (vec![spec(SubjectKind::Raw, "", &[&raw])], vec![("_", &raw)]),
        (
            vec![
                spec(SubjectKind::Raw, "file", &[&raw]),
                spec(SubjectKind::SelfResult, "", &[]),
            ],
            vec![("file", &raw), ("image", &own), ("other", &own)],
        ),
    ];
    for (specs, want) in cases {
        let statement = Statement::new("type", b"{}", &specs, &exported).unwrap();
        let json: Value = serde_json::from_slice(&statement.compact()).unwrap();
        let want: Vec<Value> = want
            .iter()
            .map(|(name, digest)| json!({ "name": name, "digest": { "sha256": digest.hex() } }))
            .collect();
        assert_eq!(json["subject"], Value::Array(want), "{specs:?}");
    }
}

#[test]
fn a_predicate_keeps_its_order_and_its_numbers_and_one_that_is_no_json_is_refused() {
    for (predicate, want) in [
        (
            &br#"{"z":1,"a":{"y":[1.5,-2,18446744073709551615],"b":null}}"#[..],
            r#"{"z":1,"a":{"y":[1.5,-2,18446744073709551615],"b":null}}"#,
        ),
        (b"  [ true , \"x\" ] ", r#"[true,"x"]"#),
        (b"\"\xff\"", "\"\u{fffd}\""),
        (b"", "null"),
    ] {
        let statement = Statement::new("type", predicate, &[], &[]).unwrap();
        let text = String::from_utf8(statement.compact()).unwrap();
        let (_, predicate) = text.split_once("\"predicate\":").unwrap();
        assert_eq!(predicate.strip_suffix('}').unwrap(), want);
        // For people it is the same with blanks.
        let pretty: Value = serde_json::from_slice(&statement.pretty()).unwrap();
        assert_eq!(pretty, serde_json::from_str::<Value>(&text).unwrap());
    }
    for predicate in [&b"{"[..], b"{} {}", b"nul", b"[1,]"] {
        let error = Statement::new("type", predicate, &[], &[]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("failed to marshal attestation: "),
            "{error}"
        );
    }
}
