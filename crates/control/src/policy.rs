//! Asks a client's session for decisions on sources (`PolicyVerifier`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::api::frontend::bridge::{ImageResolveOpts, OciLayoutResolveOpts, ResolveOpts};
use engine::api::{Detail, Failure, FailureKind, PolicyQuestion, PolicyVerdict, PolicyVerifier};
use prost::Message as _;
use proto::{gateway, policysession as wire, sourcepolicy};
use serde_json::json;
use session::SessionManager;

use crate::convert;
use crate::errors::encoded;

/// The type of the error detail that carries the client's messages of a refusal.
const DECISION_DETAIL_URL: &str = "github.com/moby/buildkit/policysession.DecisionResponse+json";
/// How long a question waits for the session to connect.
const SESSION_WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks one session for its decisions.
pub(crate) struct SessionVerifier {
    sessions: Arc<SessionManager>,
    id: String,
}

impl SessionVerifier {
    /// A verifier that asks the session `id`.
    pub(crate) fn new(sessions: Arc<SessionManager>, id: String) -> Self {
        Self { sessions, id }
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(FailureKind::Unknown, error)
}

#[async_trait]
impl PolicyVerifier for SessionVerifier {
    async fn check(&self, question: PolicyQuestion) -> Result<PolicyVerdict, Failure> {
        let request = wire::CheckPolicyRequest {
            platform: question.platform,
            source: Some(crate::gateway::source_meta(question.source)),
            ..Default::default()
        };
        let session = self
            .sessions
            .wait(&self.id, SESSION_WAIT_TIMEOUT)
            .await
            .map_err(failed)?;
        let answer = session
            .check_policy(encoded(&request))
            .await
            .map_err(failed)?;
        let answer = wire::CheckPolicyResponse::decode(answer).map_err(failed)?;
        match answer.result {
            Some(wire::check_policy_response::Result::Decision(decision)) => Ok(verdict(decision)),
            Some(wire::check_policy_response::Result::Request(request)) => resolve(request),
            None => Err(failed("no decision in policy response")),
        }
    }
}

fn verdict(decision: wire::DecisionResponse) -> PolicyVerdict {
    let action = sourcepolicy::PolicyAction::try_from(decision.action);
    match action {
        Ok(sourcepolicy::PolicyAction::Allow) => PolicyVerdict::Allow,
        Ok(sourcepolicy::PolicyAction::Convert) => PolicyVerdict::Convert(decision.update),
        Ok(sourcepolicy::PolicyAction::Deny) | Err(_) => {
            let action = action.map_or_else(
                |_| decision.action.to_string(),
                |known| known.as_str_name().to_owned(),
            );
            let messages: Vec<_> = decision
                .deny_messages
                .into_iter()
                .map(|m| json!({ "message": m.message }))
                .collect();
            let details = (!messages.is_empty()).then(|| Detail::Raw {
                type_url: DECISION_DETAIL_URL.into(),
                value: json!({ "action": "DENY", "denyMessages": messages })
                    .to_string()
                    .into_bytes()
                    .into(),
            });
            PolicyVerdict::Deny { action, details }
        }
    }
}

fn resolve(request: gateway::ResolveSourceMetaRequest) -> Result<PolicyVerdict, Failure> {
    let source = request
        .source
        .ok_or_else(|| failed("policy requested no source"))?;
    let http_checksum = crate::gateway::http_checksum(request.http)
        .map_err(|n| failed(format!("unsupported checksum algorithm {n}")))?;
    let platform = request.platform.map(convert::from_platform);
    let image = request.image.unwrap_or_default();
    let is = |scheme: &str| source.identifier.starts_with(scheme);
    let opts = ResolveOpts {
        log_name: request.log_name,
        image: is("docker-image://").then(|| ImageResolveOpts {
            platform: platform.clone(),
            resolve_mode: request.resolve_mode,
            no_config: image.no_config,
            attestation_chain: image.attestation_chain,
            resolve_attestations: image.resolve_attestations,
        }),
        oci_layout: is("oci-layout://").then(|| OciLayoutResolveOpts {
            platform,
            ..Default::default()
        }),
        git_return_object: request.git.is_some_and(|g| g.return_object),
        http_checksum,
        ..ResolveOpts::default()
    };
    Ok(PolicyVerdict::Resolve {
        source,
        opts: Box::new(opts),
    })
}
