//! Decisions of a client on sources, asked for over its session.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test refuses whatever it does not expect"
)]

use engine::api::frontend::bridge::SourceMeta;
use engine::api::{PolicyQuestion, PolicyVerdict, PolicyVerifier as _};
use proto::policysession::check_policy_response::Result as Answer;
use proto::policysession::{
    CheckPolicyRequest, CheckPolicyResponse, DecisionResponse, DenyMessage,
};
use services::policysession::policy_verifier_server::{PolicyVerifier, PolicyVerifierServer};

use super::*;
use crate::policy::SessionVerifier;

/// A client that answers by the identifier of the source.
struct Decisions;

fn decision(action: i32, messages: &[&str], update: Option<&str>) -> Answer {
    let messages = messages.iter().map(|text| DenyMessage {
        message: (*text).to_owned(),
    });
    Answer::Decision(DecisionResponse {
        action,
        deny_messages: messages.collect(),
        update: update.map(source),
    })
}

fn source(identifier: &str) -> pb::SourceOp {
    pb::SourceOp {
        identifier: identifier.into(),
        ..Default::default()
    }
}

fn request(identifier: &str) -> gateway::ResolveSourceMetaRequest {
    gateway::ResolveSourceMetaRequest {
        source: Some(source(identifier)),
        resolve_mode: "local".into(),
        log_name: "resolving".into(),
        platform: Some(pb::Platform {
            os: "linux".into(),
            architecture: "arm64".into(),
            ..Default::default()
        }),
        image: Some(gateway::ResolveSourceImageRequest {
            no_config: true,
            attestation_chain: true,
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl PolicyVerifier for Decisions {
    async fn check_policy(
        &self,
        call: Request<CheckPolicyRequest>,
    ) -> Result<Response<CheckPolicyResponse>, Status> {
        let check = call.into_inner();
        let identifier = check
            .source
            .and_then(|meta| meta.source)
            .unwrap()
            .identifier;
        let checksum = |algo| gateway::ResolveSourceHttpRequest {
            checksum_request: Some(gateway::ChecksumRequest {
                algo,
                suffix: b"x".to_vec(),
            }),
        };
        let result = match identifier.as_str() {
            "allow" => Some(decision(0, &[], None)),
            "deny" => Some(decision(1, &["not today", "nor tomorrow"], None)),
            "deny silently" => Some(decision(1, &[], None)),
            "convert" => Some(decision(2, &[], Some("other"))),
            "convert to nothing" => Some(decision(2, &[], None)),
            "unknown action" => Some(decision(77, &["why"], None)),
            "resolve nothing" => Some(Answer::Request(Default::default())),
            "resolve http" => Some(Answer::Request(gateway::ResolveSourceMetaRequest {
                http: Some(checksum(1)),
                ..request("https://x")
            })),
            "unknown checksum" => Some(Answer::Request(gateway::ResolveSourceMetaRequest {
                http: Some(checksum(9)),
                ..request("https://x")
            })),
            "fail" => return Err(Status::permission_denied("ask somebody else")),
            "no answer" => None,
            identifier => Some(Answer::Request(request(identifier))),
        };
        Ok(Response::new(CheckPolicyResponse { result }))
    }
}

fn question(identifier: &str) -> PolicyQuestion {
    PolicyQuestion {
        platform: None,
        source: SourceMeta {
            op: source(identifier),
            ..SourceMeta::default()
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_decision_of_a_client_is_a_verdict_or_a_failure_that_says_what_is_wrong_with_it() {
    let (channel, sessions, _) = daemon().await;
    let server = Server::builder()
        .add_service(PolicyVerifierServer::new(Decisions))
        .add_service(HealthServer::new(HealthService::default()));
    let _session = open_session(&channel, "s", &[method::CHECK_POLICY], server).await;
    let verifier = SessionVerifier::new(sessions, "s".into());
    let verdict = async |identifier: &str| verifier.check(question(identifier)).await;

    assert!(matches!(verdict("allow").await, Ok(PolicyVerdict::Allow)));
    for (identifier, action, reasons) in [
        (
            "deny",
            "DENY",
            Some(r#"[{"message":"not today"},{"message":"nor tomorrow"}]"#),
        ),
        ("deny silently", "DENY", None),
        ("unknown action", "77", Some(r#"[{"message":"why"}]"#)),
    ] {
        let Ok(PolicyVerdict::Deny {
            action: word,
            details,
        }) = verdict(identifier).await
        else {
            panic!("{identifier} is denied");
        };
        assert_eq!(word, action);
        let details = details.map(|detail| match detail {
            Detail::Raw { type_url, value } => {
                assert_eq!(
                    type_url,
                    "github.com/moby/buildkit/policysession.DecisionResponse+json"
                );
                String::from_utf8(value.to_vec()).unwrap()
            }
            other => panic!("no {other:?}"),
        });
        let want = reasons.map(|list| format!(r#"{{"action":"DENY","denyMessages":{list}}}"#));
        assert_eq!(details, want, "{identifier}");
    }
    for (identifier, update) in [("convert", Some("other")), ("convert to nothing", None)] {
        let Ok(PolicyVerdict::Convert(op)) = verdict(identifier).await else {
            panic!("{identifier} converts");
        };
        assert_eq!(op.map(|op| op.identifier).as_deref(), update);
    }
    for (identifier, text) in [
        ("resolve nothing", "policy requested no source"),
        ("unknown checksum", "unsupported checksum algorithm 9"),
        ("no answer", "no decision in policy response"),
        ("fail", "ask somebody else"),
    ] {
        let failure = verdict(identifier).await.unwrap_err();
        assert!(failure.message().contains(text), "{identifier}: {failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_must_know_more_is_answered_by_the_scheme_of_the_source() {
    let (channel, sessions, _) = daemon().await;
    let server = Server::builder()
        .add_service(PolicyVerifierServer::new(Decisions))
        .add_service(HealthServer::new(HealthService::default()));
    let _session = open_session(&channel, "s", &[method::CHECK_POLICY], server).await;
    let verifier = SessionVerifier::new(sessions, "s".into());
    let resolve = async |identifier: &str| match verifier.check(question(identifier)).await {
        Ok(PolicyVerdict::Resolve { source, opts }) => (source.identifier, opts),
        other => panic!("{identifier}: {other:?}"),
    };

    let (identifier, opts) = resolve("docker-image://x").await;
    assert_eq!(identifier, "docker-image://x");
    assert_eq!(opts.log_name, "resolving");
    assert!(opts.oci_layout.is_none() && opts.http_checksum.is_none());
    let image = opts.image.unwrap();
    assert_eq!(image.resolve_mode, "local");
    assert_eq!(image.platform.unwrap().architecture, "arm64");

    let (_, opts) = resolve("oci-layout://x").await;
    assert!(opts.image.is_none());
    assert_eq!(opts.oci_layout.unwrap().platform.unwrap().os, "linux");

    let (_, opts) = resolve("git://x").await;
    assert!(opts.image.is_none() && opts.oci_layout.is_none());

    let (_, opts) = resolve("resolve http").await;
    let checksum = opts.http_checksum.unwrap();
    assert_eq!(
        (checksum.algorithm.as_str(), &checksum.suffix[..]),
        ("sha384", &b"x"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_decisions_is_an_error_of_the_question() {
    let (channel, sessions, _) = daemon().await;
    let server = Server::builder().add_service(HealthServer::new(HealthService::default()));
    let _session = open_session(&channel, "mute", &[], server).await;
    let verifier = SessionVerifier::new(sessions, "mute".into());
    let failure = verifier.check(question("allow")).await.unwrap_err();
    assert!(failure.message().contains("CheckPolicy"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_never_connects_is_waited_for_and_then_missed() {
    let verifier = SessionVerifier::new(SessionManager::new(), "nobody".into());
    let failure = verifier.check(question("allow")).await.unwrap_err();
    assert!(failure.message().contains("nobody"), "{failure}");
}
