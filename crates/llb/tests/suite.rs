//! Definitions from anywhere: what is refused, what comes back, and that nothing panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "suite/git.rs"]
mod git;
#[path = "suite/kinds.rs"]
mod kinds;
#[path = "suite/ops.rs"]
mod ops;
#[path = "suite/sources.rs"]
mod sources;
#[path = "suite/states.rs"]
mod states;

use llb::build::exec::{Mount, MountContent, Run, Sharing};
use llb::build::{
    Constraints, CopyInfo, FileChain, LocalOpts, MarshalOptions, State, diff, local, marshal, merge,
};
use llb::definition::DefinitionError;
use llb::source_id::SourceId;
use llb::validate::InvalidOp;
use llb::{Graph, pb};
use oci::Digest;
use proptest::prelude::*;
use prost::Message as _;

fn named(name: &str) -> Constraints {
    Constraints::named(name)
}

fn context() -> State {
    let opts = LocalOpts {
        session_id: "s".into(),
        ..LocalOpts::default()
    };
    local("context", &opts, named("context"))
}

fn definition(state: &State) -> pb::Definition {
    marshal(state.output(), &MarshalOptions::default()).unwrap()
}

fn with_ops(ops: &[pb::Op]) -> pb::Definition {
    pb::Definition {
        def: ops
            .iter()
            .map(|op| llb::build::encode::op(op.clone()).to_vec())
            .collect(),
        ..pb::Definition::default()
    }
}

fn digest_of(op: &pb::Op) -> String {
    Digest::sha256(llb::build::encode::op(op.clone())).to_string()
}

fn source_op() -> pb::Op {
    let source = pb::SourceOp {
        identifier: "local://x".into(),
        ..pb::SourceOp::default()
    };
    pb::Op {
        op: Some(pb::op::Op::Source(source)),
        ..pb::Op::default()
    }
}

fn on(op: &pb::Op, index: i64) -> pb::Op {
    pb::Op {
        inputs: vec![pb::Input {
            digest: digest_of(op),
            index,
        }],
        ..pb::Op::default()
    }
}

#[test]
fn malformed_definitions_are_refused_with_buildkits_words() {
    let source = source_op();
    let exec = |exec: pb::ExecOp| pb::Op {
        op: Some(pb::op::Op::Exec(exec)),
        ..on(&source, 0)
    };
    let meta = || {
        Some(pb::Meta {
            args: vec!["x".into()],
            ..pb::Meta::default()
        })
    };
    let root = |input| pb::Mount {
        dest: "/".into(),
        input,
        ..pb::Mount::default()
    };
    let cases: Vec<(&str, Vec<pb::Op>)> = vec![
        ("invalid empty definition", vec![]),
        ("invalid LLB with 1 vertexes", vec![source.clone()]),
        (
            "invalid LLB with no inputs on last vertex",
            vec![source.clone(), pb::Op::default()],
        ),
        (
            "invalid input 0 output index -1",
            vec![source.clone(), on(&source, -1)],
        ),
        ("invalid source op with 1 inputs", {
            let bad = pb::Op {
                inputs: on(&source, 0).inputs,
                ..source_op()
            };
            vec![source.clone(), bad.clone(), on(&bad, 0)]
        }),
        (
            "invalid exec op with no meta",
            vec![
                source.clone(),
                exec(pb::ExecOp::default()),
                on(&exec(pb::ExecOp::default()), 0),
            ],
        ),
        ("invalid exec op with no rootfs", {
            let mounts = vec![pb::Mount {
                dest: "/x".into(),
                ..pb::Mount::default()
            }];
            let bad = exec(pb::ExecOp {
                meta: meta(),
                mounts,
                ..pb::ExecOp::default()
            });
            vec![source.clone(), bad.clone(), on(&bad, 0)]
        }),
        ("invalid mount input index 5", {
            let bad = exec(pb::ExecOp {
                meta: meta(),
                mounts: vec![root(5)],
                ..pb::ExecOp::default()
            });
            vec![source.clone(), bad.clone(), on(&bad, 0)]
        }),
        ("invalid file op with no actions", {
            let bad = pb::Op {
                op: Some(pb::op::Op::File(pb::FileOp::default())),
                ..on(&source, 0)
            };
            vec![source.clone(), bad.clone(), on(&bad, 0)]
        }),
        ("invalid merge op with 2 inner inputs and 1 outer inputs", {
            let inputs = vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 0 }];
            let bad = pb::Op {
                op: Some(pb::op::Op::Merge(pb::MergeOp { inputs })),
                ..on(&source, 0)
            };
            vec![source.clone(), bad.clone(), on(&bad, 0)]
        }),
        ("invalid diff op with nil lower or upper input", {
            let bad = pb::Op {
                op: Some(pb::op::Op::Diff(pb::DiffOp::default())),
                ..on(&source, 0)
            };
            vec![source.clone(), bad.clone(), on(&bad, 0)]
        }),
    ];
    for (want, ops) in cases {
        assert_eq!(Graph::load(&with_ops(&ops)).unwrap_err().to_string(), want);
    }
    let missing = vec![source.clone(), on(&exec(pb::ExecOp::default()), 0)];
    let error = Graph::load(&with_ops(&missing)).unwrap_err();
    assert!(
        matches!(error, DefinitionError::MissingInput { .. }),
        "{error}"
    );
    let mut bad_source = with_ops(&[source.clone(), on(&source, 0)]);
    let locations = vec![pb::Location {
        source_index: 3,
        ranges: vec![],
    }];
    bad_source.source = Some(pb::Source {
        locations: [(digest_of(&source), pb::Locations { locations })].into(),
        infos: vec![],
    });
    assert!(matches!(
        Graph::load(&bad_source),
        Err(DefinitionError::SourceIndex { index: 3, .. })
    ));
    assert!(matches!(
        llb::validate::op(&exec(pb::ExecOp::default())),
        Err(InvalidOp::Missing { kind: "exec", .. })
    ));
}

#[test]
fn states_come_back_as_graphs_with_inputs_before_users() {
    let base = context();
    let run = Run::new(&base, vec!["make".into()], named("run"));
    let mut cache = Mount::new("/cache", &State::scratch());
    cache.content = MountContent::Cache {
        id: "c".into(),
        sharing: Sharing::Locked,
    };
    let (root, mounts) = run.mount(cache).mount(Mount::new("/a", &base)).outputs();
    let built = base.with_output(root);
    let side = base.with_output(mounts.get(1).cloned());
    let copied = FileChain::new()
        .copy(&side, "x", "y", CopyInfo::default())
        .mkdir("d", 0o755, true, None, None);
    let all = merge(
        &[
            &copied.on(&built, named("copy")),
            &diff(&base, &built, Constraints::new()),
        ],
        Constraints::new(),
    );
    let definition = definition(&all);
    let graph = Graph::load(&definition).unwrap();
    for (at, node) in graph.nodes.iter().enumerate() {
        assert_eq!(node.digest, Digest::sha256(&node.raw));
        assert!(node.inputs.iter().all(|input| input.node < at));
    }
    let names: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "context",
            "run",
            "copy",
            "diff (context) -> (run)",
            "merge (copy, diff (context) -> (run))"
        ]
    );
    // Output 0 is the root, 1 the mount `/a`; the cache mount has none.
    assert_eq!(
        graph.nodes[2]
            .inputs
            .iter()
            .map(|input| input.output)
            .collect::<Vec<_>>(),
        [0, 1]
    );
    // A definition that becomes a state again is the same definition.
    let again = llb::build::state_from_definition(&definition).unwrap();
    assert_eq!(
        marshal(again.output(), &MarshalOptions::default()).unwrap(),
        definition
    );
}

#[test]
fn long_chains_need_no_stack() {
    let mut state = context();
    for i in 0..20_000 {
        state = FileChain::new()
            .mkdir(&format!("/{i}"), 0o755, false, None, None)
            .on(&state, Constraints::new());
    }
    let definition = definition(&state);
    let graph = Graph::load(&definition).unwrap();
    assert_eq!(graph.nodes.len(), 20_001);
    drop(llb::build::state_from_definition(&definition).unwrap());
}

#[test]
fn sources_are_understood_or_refused() {
    let parse = |id: &str, attrs: &[(&str, &str)]| {
        let attrs = attrs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        SourceId::parse(
            &pb::SourceOp {
                identifier: id.to_owned(),
                attrs,
            },
            None,
        )
    };
    let sha = format!("sha256:{}", "ab".repeat(32));
    let Ok(SourceId::Image(image)) =
        parse(&format!("docker-image://docker.io/library/a:b@{sha}"), &[])
    else {
        panic!()
    };
    assert_eq!(
        (image.locator.as_str(), image.digest().unwrap().as_str()),
        ("docker.io/library/a", sha.as_str())
    );
    assert_eq!(image.reference(), format!("docker.io/library/a:b@{sha}"));
    let Ok(SourceId::Local(local)) = parse(
        "local://ctx",
        &[("local.session", "fe:s1"), ("local.followpaths", "[\"a\"]")],
    ) else {
        panic!()
    };
    assert_eq!(
        (
            local.name.as_str(),
            local.session_id.as_str(),
            local.follow_paths.len()
        ),
        ("fe-ctx", "s1", 1)
    );
    let Ok(SourceId::Git(git)) = parse(
        "git://github.com/o/r.git#v1:sub",
        &[("git.fullurl", "https://u:p@github.com/o/r.git")],
    ) else {
        panic!()
    };
    assert_eq!(
        (
            git.remote.as_str(),
            git.reference.as_str(),
            git.subdir.as_str()
        ),
        ("https://u:p@github.com/o/r.git", "v1", "sub")
    );
    let Ok(SourceId::Http(http)) = parse("https://x/y", &[("http.perm", "0644")]) else {
        panic!()
    };
    assert_eq!((http.url.as_str(), http.file.perm), ("https://x/y", 0o644));
    for (id, attrs, want) in [
        ("nothing", vec![], "failed to parse nothing: invalid"),
        ("ftp://x", vec![], "unknown scheme ftp: not found"),
        (
            "docker-image://docker.io/library/a",
            vec![],
            "object required",
        ),
        (
            "docker-image://docker.io/../../a:b",
            vec![],
            "invalid reference \"docker.io/../../a:b\"",
        ),
        (
            "docker-image://x/a:b",
            vec![("image.layerlimit", "0")],
            "invalid layer limit 0",
        ),
        (
            "git://h/r.git#--upload-pack=x",
            vec![],
            "invalid git ref \"--upload-pack=x\"",
        ),
        (
            "git://h/r.git",
            vec![("git.fullurl", "https://evil/r.git")],
            "git.fullurl does not match source identifier",
        ),
    ] {
        assert_eq!(parse(id, &attrs).unwrap_err().to_string(), want);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(ops in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
        drop(Graph::load(&pb::Definition { def: ops, ..pb::Definition::default() }));
    }

    #[test]
    fn flipped_bytes_are_answered(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let state = FileChain::new().copy(&context(), "a", "b", CopyInfo::default()).on(&State::scratch(), Constraints::new());
        let mut bytes = definition(&state).encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(definition) = pb::Definition::decode(&bytes[..]) {
            drop(Graph::load(&definition));
        }
    }

    #[test]
    fn any_source_text_is_answered(text in "\\PC{0,60}", key in "[a-z.]{0,20}", value in "\\PC{0,20}") {
        for scheme in ["", "docker-image://", "git://", "oci-layout://", "local://", "https://", "docker-image+blob://"] {
            let source = pb::SourceOp { identifier: format!("{scheme}{text}"), attrs: [(key.clone(), value.clone())].into() };
            drop(SourceId::parse(&source, None));
        }
        drop(llb::git_url::GitRef::parse(&text));
    }
}
