//! Builds of definitions that steps produce.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use engine::api::{Backend, SolveInput, SolveRequest};
use frontend::{Bridge, Frontend, FrontendError, FrontendRequest, FrontendResult};
use llb::build::{FileChain, MissingPath, RmPath};
use llb::{pb, sourcepolicy};
use oci::Digest;
use ops::MAX_NESTED_BUILDS;
use progress::Event;
use prost::Message as _;

use crate::{definition, engine, request};

const FILE: &str = "buildkit.llb.definition";

/// The op that builds the definition in its first input.
fn build_op() -> pb::BuildOp {
    pb::BuildOp {
        builder: -1,
        inputs: [(FILE.to_owned(), pb::BuildInput { input: 0 })].into(),
        ..pb::BuildOp::default()
    }
}

/// A definition that writes `contents` into a file and builds the definition in it.
fn around(file: &str, contents: &[u8], op: pb::BuildOp) -> Arc<pb::Definition> {
    let chain = FileChain::new().mkfile(&format!("/{file}"), 0o644, contents);
    let mut outer = (*definition(chain)).clone();
    let terminal = outer.def.pop().unwrap();
    let inputs = pb::Op::decode(&terminal[..]).unwrap().inputs;
    let op = pb::Op {
        inputs,
        op: Some(pb::op::Op::Build(op)),
        ..pb::Op::default()
    };
    let op = op.encode_to_vec();
    let terminal = pb::Op {
        inputs: vec![pb::Input {
            digest: Digest::sha256(&op).to_string(),
            index: 0,
        }],
        ..pb::Op::default()
    };
    outer.def.extend([op, terminal.encode_to_vec()]);
    Arc::new(outer)
}

fn nested(inner: &pb::Definition) -> Arc<pb::Definition> {
    around(FILE, &inner.encode_to_vec(), build_op())
}

fn hello() -> Arc<pb::Definition> {
    definition(FileChain::new().mkfile("/hello", 0o644, "world"))
}

/// A frontend that reads one file of its result.
struct Reader(Arc<pb::Definition>);

#[async_trait]
impl Frontend for Reader {
    async fn solve(
        &self,
        bridge: Arc<dyn Bridge>,
        _: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        let request = frontend::SolveRequest::of_definition(Arc::clone(&self.0));
        let mut result = bridge.solve(request).await?;
        let tree = result.single_ref()?.cloned().unwrap();
        let text = tree.read_file("hello", None).await?;
        result.metadata.insert("frontend.text".into(), text);
        Ok(result)
    }
}

#[tokio::test]
async fn a_definition_of_a_step_is_built_and_shown_in_its_place_and_cached_with_it() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let twice = nested(&nested(&hello()));
    let ask = |build: &str| SolveRequest {
        build: build.into(),
        input: SolveInput::ClientFrontend(Arc::new(Reader(Arc::clone(&twice)))),
        ..SolveRequest::default()
    };
    let expected_response = BTreeMap::from([("frontend.text".to_owned(), "world".to_owned())]);
    for (build, is_cached) in [("one", false), ("two", true)] {
        let answer = engine.solve(ask(build)).await.unwrap();
        assert_eq!(answer.exporter_response, expected_response);
        let mut status = engine.status(&build.into()).await.unwrap();
        let mut steps = BTreeMap::new();
        while let Some(event) = status.next().await {
            if let Event::Vertex(vertex) = event
                && vertex.completed.is_some()
            {
                steps.insert(vertex.name, vertex.cached);
            }
        }
        assert_eq!(steps.get("build"), Some(&is_cached), "{steps:?}");
        let inner = steps.get("mkfile /hello").copied();
        assert_eq!(inner, (!is_cached).then_some(false), "{steps:?}");
    }
}

#[tokio::test]
async fn another_file_may_hold_the_definition() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let op = pb::BuildOp {
        attrs: [("llbbuild.filename".to_owned(), "other".to_owned())].into(),
        ..build_op()
    };
    let with_other_file = around("other", &hello().encode_to_vec(), op);
    engine.solve(request("one", with_other_file)).await.unwrap();
}

#[tokio::test]
async fn malformed_nested_definitions_are_refused_with_the_reason() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let good = hello().encode_to_vec();
    let op = |change: fn(&mut pb::BuildOp)| {
        let mut op = build_op();
        change(&mut op);
        op
    };
    let mut deep = hello();
    for _ in 0..=MAX_NESTED_BUILDS {
        deep = nested(&deep);
    }
    let failing = definition(FileChain::new().rm("/none", RmPath::Literal, MissingPath::Fails));
    for (nested_definition, reason) in [
        (
            around(FILE, &good, op(|op| op.builder = 0)),
            "only LLB builder is currently allowed",
        ),
        (
            around(FILE, &good, op(|op| op.inputs.clear())),
            "no llb definition input buildkit.llb.definition found",
        ),
        (
            around("other", &good, build_op()),
            "open buildkit.llb.definition: no such file or directory",
        ),
        (
            around(FILE, b"\xff\xff", build_op()),
            "buildkit.llb.definition holds no definition: ",
        ),
        (around(FILE, b"", build_op()), "failed to load LLB"),
        (nested(&failing), "no such file or directory"),
        (deep, "more than 16 builds are within each other"),
    ] {
        let failure = engine
            .solve(request("one", nested_definition))
            .await
            .unwrap_err();
        assert!(failure.message().contains(reason), "{reason}: {failure}");
    }
}

#[tokio::test]
async fn policies_and_rights_of_the_build_hold_within_it() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let single = |op: pb::op::Op| {
        let op = pb::Op {
            op: Some(op),
            ..pb::Op::default()
        };
        let op = op.encode_to_vec();
        let terminal = pb::Op {
            inputs: vec![pb::Input {
                digest: Digest::sha256(&op).to_string(),
                index: 0,
            }],
            ..pb::Op::default()
        };
        pb::Definition {
            def: vec![op, terminal.encode_to_vec()],
            ..pb::Definition::default()
        }
    };
    let denied = "docker-image://docker.io/library/denied:latest";
    let source = single(pb::op::Op::Source(pb::SourceOp {
        identifier: denied.to_owned(),
        ..pb::SourceOp::default()
    }));
    let policy = sourcepolicy::Policy {
        rules: vec![sourcepolicy::Rule {
            action: sourcepolicy::PolicyAction::Deny.into(),
            selector: Some(sourcepolicy::Selector {
                identifier: denied.to_owned(),
                ..sourcepolicy::Selector::default()
            }),
            ..sourcepolicy::Rule::default()
        }],
        ..sourcepolicy::Policy::default()
    };
    let mut ask = request("one", nested(&source));
    ask.source_policy = Some(policy.encode_to_vec().into());
    let failure = engine.solve(ask).await.unwrap_err();
    let message = failure.message();
    assert!(
        message.contains("error evaluating the source policy"),
        "{message}"
    );
    assert!(message.contains(denied), "{message}");

    let step = single(pb::op::Op::Exec(pb::ExecOp {
        network: pb::NetMode::Host.into(),
        meta: Some(pb::Meta {
            args: vec!["true".to_owned()],
            cwd: "/".to_owned(),
            ..pb::Meta::default()
        }),
        mounts: vec![pb::Mount {
            dest: "/".to_owned(),
            input: -1,
            ..pb::Mount::default()
        }],
        ..pb::ExecOp::default()
    }));
    let failure = engine
        .solve(request("two", nested(&step)))
        .await
        .unwrap_err();
    assert!(
        failure.message().contains("network.host is not allowed"),
        "{failure}"
    );
}
