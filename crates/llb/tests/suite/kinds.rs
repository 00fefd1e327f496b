//! Errors say what kind they are, and definitions of strangers are refused for the right reason.

use std::error::Error;
use std::sync::Arc;

use llb::build::{BuildError, encode};
use llb::definition::{DefinitionError, MAX_BYTES, MAX_OPS};
use llb::source_id::SourceIdError;
use llb::validate::{InvalidOp, MAX_INPUTS};
use llb::{Graph, pb};
use oci::{Digest, ErrorKind};

fn source(identifier: &str) -> pb::Op {
    pb::Op {
        op: Some(pb::op::Op::Source(pb::SourceOp {
            identifier: identifier.to_owned(),
            ..pb::SourceOp::default()
        })),
        ..pb::Op::default()
    }
}

fn bytes(op: &pb::Op) -> Vec<u8> {
    encode::op(op.clone()).to_vec()
}

fn input(of: &[u8], index: i64) -> pb::Input {
    pb::Input {
        digest: Digest::sha256(of).to_string(),
        index,
    }
}

fn head(inputs: Vec<pb::Input>) -> pb::Op {
    pb::Op {
        inputs,
        ..pb::Op::default()
    }
}

fn load(def: Vec<Vec<u8>>) -> Result<Graph, DefinitionError> {
    Graph::load(&pb::Definition {
        def,
        ..pb::Definition::default()
    })
}

#[test]
fn definitions_are_refused_as_wrong_or_as_hostile() {
    let leaf = bytes(&source("local://x"));
    let end = bytes(&head(vec![input(&leaf, 0)]));
    let wide = pb::Op {
        inputs: vec![input(&leaf, 0); MAX_INPUTS + 1],
        op: Some(pb::op::Op::Merge(pb::MergeOp::default())),
        ..pb::Op::default()
    };
    let wide = bytes(&wide);
    let wide_end = bytes(&head(vec![input(&wide, 0)]));
    let stranger = bytes(&head(vec![input(b"stranger", 0)]));
    let cases: Vec<(&str, Vec<Vec<u8>>, ErrorKind)> = vec![
        ("nothing", vec![], ErrorKind::Invalid),
        ("one op", vec![leaf.clone()], ErrorKind::Invalid),
        (
            "no end",
            vec![leaf.clone(), leaf.clone()],
            ErrorKind::Invalid,
        ),
        (
            "an unknown input",
            vec![leaf.clone(), stranger],
            ErrorKind::Invalid,
        ),
        (
            "no message",
            vec![vec![0xff; 9], end.clone()],
            ErrorKind::Hostile,
        ),
        (
            "a wide op",
            vec![leaf.clone(), wide, wide_end],
            ErrorKind::Hostile,
        ),
        (
            "too many ops",
            vec![Vec::new(); MAX_OPS + 1],
            ErrorKind::Hostile,
        ),
    ];
    for (name, def, kind) in cases {
        let error = load(def).expect_err(name);
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
    assert!(load(vec![leaf, end]).is_ok());
    let large = DefinitionError::TooLarge {
        ops: 1,
        bytes: MAX_BYTES + 1,
    };
    assert_eq!(large.kind(), ErrorKind::Hostile);
}

#[test]
fn an_op_that_is_given_twice_is_one_vertex() {
    let leaf = bytes(&source("local://x"));
    let other = bytes(&source("local://y"));
    let merged = pb::Op {
        inputs: vec![input(&leaf, 0), input(&other, 0), input(&leaf, 0)],
        op: Some(pb::op::Op::Merge(pb::MergeOp {
            inputs: (0..3).map(|input| pb::MergeInput { input }).collect(),
        })),
        ..pb::Op::default()
    };
    let merged = bytes(&merged);
    let end = bytes(&head(vec![input(&merged, 0)]));
    let graph =
        load(vec![leaf.clone(), other, leaf, merged, end]).expect("the definition is well formed");
    assert_eq!(graph.nodes.len(), 3);
    let inputs = &graph.nodes[graph.root.node].inputs;
    assert_eq!(inputs[0], inputs[2]);
    assert_ne!(inputs[0], inputs[1]);
}

#[test]
fn a_vertex_is_named_by_its_bytes_as_they_came() {
    // The same op with an unknown field behind it is another vertex.
    let leaf = bytes(&source("local://x"));
    let mut longer = leaf.clone();
    longer.extend([0xf8, 0x07, 0x01]);
    let end = bytes(&head(vec![input(&longer, 0)]));
    let graph = load(vec![leaf.clone(), longer.clone(), end]).expect("it is well formed");
    let root = &graph.nodes[graph.root.node];
    assert_eq!(root.digest, Digest::sha256(&longer));
    assert_eq!(&root.raw[..], &longer[..]);
    assert_ne!(root.digest, Digest::sha256(&leaf));
    // What nothing needs is no part of the graph.
    assert!(graph.nodes.len() <= 2);
}

#[test]
fn an_end_may_name_another_output() {
    let leaf = bytes(&source("local://x"));
    let graph = load(vec![leaf.clone(), bytes(&head(vec![input(&leaf, 7)]))]);
    assert_eq!(graph.expect("it is well formed").root.output, 7);
    let error = load(vec![leaf.clone(), bytes(&head(vec![input(&leaf, -2)]))]);
    assert_eq!(
        error.expect_err("no output is negative").to_string(),
        "invalid input 0 output index -2"
    );
}

#[test]
fn places_point_into_files_that_are_there() {
    let leaf = bytes(&source("local://x"));
    let digest = Digest::sha256(&leaf).to_string();
    let load = |index: i32, files: usize| {
        let location = pb::Location {
            source_index: index,
            ranges: Vec::new(),
        };
        let locations = pb::Locations {
            locations: vec![location],
        };
        Graph::load(&pb::Definition {
            def: vec![leaf.clone(), bytes(&head(vec![input(&leaf, 0)]))],
            source: Some(pb::Source {
                locations: [(digest.clone(), locations)].into(),
                infos: vec![pb::SourceInfo::default(); files],
            }),
            ..pb::Definition::default()
        })
    };
    assert!(load(0, 1).is_ok());
    assert!(load(2, 3).is_ok());
    for (index, files) in [(0, 0), (1, 1), (-1, 1), (i32::MAX, 2), (i32::MIN, 2)] {
        let error = load(index, files).expect_err("it points nowhere");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(
            error
                .to_string()
                .starts_with(&format!("invalid source index {index}")),
            "{error}"
        );
    }
}

#[test]
fn kinds_of_builders_errors_follow_from_their_causes() {
    let reference = "A/B".parse::<oci::Reference>().expect_err("it is none");
    let too_wide = Arc::new(DefinitionError::Op {
        vertex: Digest::sha256("x"),
        source: InvalidOp::TooManyInputs { count: 9 },
    });
    for (error, kind, has_cause) in [
        (BuildError::NoArgs, ErrorKind::Invalid, false),
        (BuildError::NoDir, ErrorKind::Invalid, false),
        (BuildError::NoAction, ErrorKind::Invalid, false),
        (BuildError::TmpfsSource, ErrorKind::Invalid, false),
        (BuildError::Unset, ErrorKind::Bug, false),
        (BuildError::TooLarge, ErrorKind::Hostile, false),
        (BuildError::Reference(reference), ErrorKind::Invalid, true),
        (BuildError::Definition(too_wide), ErrorKind::Hostile, true),
        (
            BuildError::Definition(Arc::new(DefinitionError::Empty)),
            ErrorKind::Invalid,
            true,
        ),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.source().is_some(), has_cause, "{error}");
    }
}

#[test]
fn a_text_in_a_message_is_quoted_as_go_quotes_it() {
    for (error, want) in [
        (
            SourceIdError::Reference("a\u{7f}\"é".into()),
            "invalid reference \"a\\x7f\\\"é\"",
        ),
        (
            SourceIdError::GitRef("-\u{1b}\n".into()),
            "invalid git ref \"-\\x1b\\n\"",
        ),
    ] {
        assert_eq!(error.to_string(), want);
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
