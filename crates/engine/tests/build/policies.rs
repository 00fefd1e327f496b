//! Decisions of clients on sources.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use engine::api::{
    Backend, Detail, Failure, FailureKind, PolicyQuestion, PolicyVerdict, PolicyVerifier,
    SolveInput, SolveRequest,
};
use frontend::bridge::{ImageResolveOpts, ResolveOpts};
use frontend::{Bridge, Frontend, FrontendError, FrontendRequest, FrontendResult};
use llb::{pb, sourcepolicy as wire};
use parking_lot::Mutex;
use prost::Message as _;

use crate::{engine, request};

/// Gives scripted verdicts and records the questions; further questions are allowed.
#[derive(Default)]
struct Verifier {
    verdicts: Mutex<VecDeque<PolicyVerdict>>,
    questions: Mutex<Vec<String>>,
}

#[async_trait]
impl PolicyVerifier for Verifier {
    async fn check(&self, question: PolicyQuestion) -> Result<PolicyVerdict, Failure> {
        let platform = question
            .platform
            .map(|p| p.architecture)
            .unwrap_or_default();
        let line = format!("{} {platform}", question.source.op.identifier);
        self.questions.lock().push(line.trim_end().to_owned());
        let verdict = self.verdicts.lock().pop_front();
        Ok(verdict.unwrap_or(PolicyVerdict::Allow))
    }
}

fn verifier(verdicts: impl IntoIterator<Item = PolicyVerdict>) -> Arc<Verifier> {
    Arc::new(Verifier {
        verdicts: Mutex::new(verdicts.into_iter().collect()),
        questions: Mutex::default(),
    })
}

fn source(identifier: &str) -> pb::SourceOp {
    pb::SourceOp {
        identifier: identifier.into(),
        ..pb::SourceOp::default()
    }
}

/// A definition of one source.
fn definition(source: pb::SourceOp) -> Arc<pb::Definition> {
    let op = pb::Op {
        op: Some(pb::op::Op::Source(source)),
        platform: Some(pb::Platform {
            architecture: "riscv64".into(),
            os: "linux".into(),
            ..pb::Platform::default()
        }),
        ..pb::Op::default()
    };
    let op = op.encode_to_vec();
    let head = pb::Op {
        inputs: vec![pb::Input {
            digest: oci::Digest::sha256(&op).to_string(),
            index: 0,
        }],
        ..pb::Op::default()
    };
    Arc::new(pb::Definition {
        def: vec![op, head.encode_to_vec()],
        ..pb::Definition::default()
    })
}

/// Solves a source under a client's verdicts; returns the questions and the failure. No source of these tests can be read.
async fn decide(source: pb::SourceOp, verifier: &Arc<Verifier>) -> (Vec<String>, Failure) {
    let dir = tempfile::tempdir().unwrap();
    let request = SolveRequest {
        policy_verifier: Some(Arc::clone(verifier) as _),
        ..request("one", definition(source))
    };
    let failure = engine(&dir).solve(request).await.unwrap_err();
    let questions = verifier.questions.lock().clone();
    (questions, failure)
}

const IN_POLICY: &str = "failed to load LLB: error evaluating the source policy: ";

#[tokio::test]
async fn a_source_that_is_allowed_goes_on_and_one_that_is_denied_says_why() {
    let (questions, failure) = decide(source("unknown://x"), &verifier([])).await;
    assert_eq!(questions, ["unknown://x riscv64"]);
    assert!(!failure.message().contains("policy"), "{failure}");

    let reasons = Detail::Raw {
        type_url: "reasons".into(),
        value: Bytes::from_static(b"no"),
    };
    let deny = PolicyVerdict::Deny {
        action: "DENY".into(),
        details: Some(reasons.clone()),
    };
    let (questions, failure) = decide(source("https://h.example/x"), &verifier([deny])).await;
    assert_eq!(questions.len(), 1);
    assert_eq!(
        failure.message(),
        format!("{IN_POLICY}source \"https://h.example/x\" not allowed by policy: action DENY")
    );
    assert_eq!(failure.details, [reasons]);
    assert_eq!(failure.kind, FailureKind::Unknown);
}

#[tokio::test]
async fn a_converted_source_is_decided_on_again_by_its_full_name() {
    let convert = |to: &str| PolicyVerdict::Convert(Some(source(to)));
    let verifier = verifier([convert("docker-image://other"), convert("unknown://last")]);
    let (questions, failure) = decide(source("docker-image://alpine:3"), &verifier).await;
    assert_eq!(
        questions,
        [
            "docker-image://docker.io/library/alpine:3 riscv64",
            "docker-image://docker.io/library/other riscv64",
            "unknown://last riscv64"
        ]
    );
    assert!(failure.message().contains("unknown"), "{failure}");

    let none = self::verifier([PolicyVerdict::Convert(None)]);
    let (_, failure) = decide(source("unknown://x"), &none).await;
    assert_eq!(
        failure.message(),
        format!("{IN_POLICY}convert action requires updated source")
    );
}

#[tokio::test]
async fn questions_to_a_client_that_never_decides_are_bounded() {
    let convert = |n: usize| PolicyVerdict::Convert(Some(source(&format!("unknown://{n}"))));
    let verifier = verifier((0..100).map(convert));
    let (questions, failure) = decide(source("unknown://x"), &verifier).await;
    assert_eq!(questions.len(), 10);
    assert_eq!(
        failure.message(),
        format!("{IN_POLICY}too many policy requests")
    );
}

#[tokio::test]
async fn a_client_may_request_metadata_of_the_source_in_question_only() {
    let resolve = |source| PolicyVerdict::Resolve {
        source,
        opts: Box::default(),
    };
    let first_verifier = verifier([resolve(source("unknown://y"))]);
    let (_, failure) = decide(source("unknown://x"), &first_verifier).await;
    assert_eq!(
        failure.message(),
        format!(
            "{IN_POLICY}policy requested different source identifier: \"unknown://y\" != \"unknown://x\""
        )
    );
    let mut changed = source("unknown://x");
    changed.attrs.insert("k".into(), "v".into());
    let (_, failure) = decide(source("unknown://x"), &verifier([resolve(changed)])).await;
    assert_eq!(
        failure.message(),
        format!("{IN_POLICY}policy requested different source attrs")
    );
    // A source without metadata gives none, and the client is asked again.
    let twice = verifier([resolve(source("unknown://x"))]);
    let (questions, _) = decide(source("unknown://x"), &twice).await;
    assert_eq!(questions.len(), 2);
}

#[tokio::test]
async fn the_bundle_of_a_repository_is_a_source_of_its_own() {
    let digest = oci::Digest::sha256(b"bundle");
    let with = |bundle: String| {
        let mut git = source("git://h.example/r.git");
        git.attrs = BTreeMap::from([
            ("git.bundle".to_owned(), bundle),
            ("git.checksum".to_owned(), "a".repeat(40)),
        ]);
        git
    };
    let bundle = format!("docker-image+blob://docker.io/library/b@{digest}");
    let deny = PolicyVerdict::Deny {
        action: "DENY".into(),
        details: None,
    };
    let verifier = verifier([PolicyVerdict::Allow, deny]);
    let (questions, failure) = decide(with(bundle.clone()), &verifier).await;
    assert_eq!(
        questions,
        [
            "git://h.example/r.git riscv64".to_owned(),
            format!("{bundle} riscv64")
        ]
    );
    assert_eq!(
        failure.message(),
        format!(
            "{IN_POLICY}error evaluating git bundle source policy: source {bundle:?} not allowed by policy: action DENY"
        )
    );
    for (bundle, want) in [
        (
            "no scheme",
            "failed to parse git.bundle locator \"no scheme\": missing scheme",
        ),
        (
            "ftp://x",
            "git.bundle locator scheme \"ftp\" is not supported",
        ),
    ] {
        let (_, failure) = decide(with(bundle.into()), &self::verifier([])).await;
        assert_eq!(failure.message(), format!("{IN_POLICY}{want}"));
    }
}

/// A frontend that resolves an image, as one that reads its config does.
struct Resolves(Vec<Bytes>);

#[async_trait]
impl Frontend for Resolves {
    async fn solve(
        &self,
        bridge: Arc<dyn Bridge>,
        _: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        let opts = ResolveOpts {
            image: Some(ImageResolveOpts::default()),
            source_policies: self.0.clone(),
            ..ResolveOpts::default()
        };
        bridge
            .resolve_source(source("docker-image://alpine"), opts)
            .await?;
        Ok(FrontendResult::default())
    }
}

/// A policy of one rule on all images.
fn policy(action: wire::PolicyAction, to: &str) -> Bytes {
    let rule = wire::Rule {
        action: action.into(),
        selector: Some(wire::Selector {
            identifier: "docker-image://*".into(),
            match_type: wire::MatchType::Wildcard.into(),
            constraints: Vec::new(),
        }),
        updates: Some(wire::Update {
            identifier: to.into(),
            ..wire::Update::default()
        }),
    };
    let policy = wire::Policy {
        version: 1,
        rules: vec![rule],
    };
    policy.encode_to_vec().into()
}

#[tokio::test]
async fn sources_that_a_frontend_resolves_are_decided_on_by_the_policies_of_the_build_and_its_own()
{
    use wire::PolicyAction::{Convert, Deny};
    const RESOLVING: &str = "could not resolve image due to policy: ";
    let denied = "source \"docker-image://docker.io/library/alpine\" denied by policy: source denied by policy";
    for (of_build, of_frontend, want) in [
        (
            Some(policy(Deny, "")),
            vec![],
            format!("{RESOLVING}{denied}"),
        ),
        (None, vec![policy(Deny, "")], format!("{RESOLVING}{denied}")),
        (Some(policy(Convert, "unknown://x")), vec![], String::new()),
        (
            None,
            vec![Bytes::from_static(b"\xff")],
            "invalid policy: ".to_owned(),
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let request = SolveRequest {
            input: SolveInput::ClientFrontend(Arc::new(Resolves(of_frontend))),
            source_policy: of_build,
            ..request("one", Arc::default())
        };
        let answer = engine(&dir).solve(request).await;
        let message = answer.map_or_else(|failure| failure.message(), |_| String::new());
        assert_eq!(message.is_empty(), want.is_empty(), "{message}");
        assert!(message.starts_with(&want), "{message}\n{want}");
    }
}
