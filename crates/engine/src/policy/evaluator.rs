//! Decisions on single sources: by rules and by a question to the client.

use std::collections::BTreeMap;
use std::sync::Arc;

use frontend::bridge::{ResolveOpts, SourceMeta};
use futures::future::BoxFuture;
use llb::pb;

use super::{Policy, Work, evaluate, failed, normalized};
use crate::api::{Detail, Failure, PolicyQuestion, PolicyVerdict, PolicyVerifier};
use crate::resolve::{SourceResolver, requested_platform};

/// Number of questions to the client about one source and its rewrites.
const MAX_QUESTIONS: usize = 10;
const BUNDLE_ATTR: &str = "git.bundle";
const LAYOUT_SESSION_ATTR: &str = "oci.session";
const LAYOUT_STORE_ATTR: &str = "oci.store";

/// The policies of one build, and how its sources are resolved under them.
pub(crate) struct SourcePolicies {
    policies: Vec<Arc<Policy>>,
    verifier: Option<Arc<dyn PolicyVerifier>>,
    resolver: Arc<SourceResolver>,
    /// Threads on which rules are matched.
    pool: task::Pool,
}

impl SourcePolicies {
    /// Policies of a build's request, and the client that decides on each source, if it offers to.
    pub(crate) fn new(
        policies: Vec<Arc<Policy>>,
        verifier: Option<Arc<dyn PolicyVerifier>>,
        resolver: SourceResolver,
        pool: task::Pool,
    ) -> Arc<Self> {
        Arc::new(Self {
            policies,
            verifier,
            resolver: Arc::new(resolver),
            pool,
        })
    }

    /// Whether there is a policy or a client that may refuse or change a source.
    pub(crate) fn can_refuse(&self) -> bool {
        self.verifier.is_some() || !self.policies.is_empty()
    }

    /// An evaluator for the policies of the build and of a request; none if there are no policies and no client to ask.
    pub(crate) fn evaluator(&self, request_policies: &[Arc<Policy>]) -> Option<PolicyEvaluator> {
        let policies: Vec<_> = self
            .policies
            .iter()
            .chain(request_policies)
            .cloned()
            .collect();
        let verifier = self.verifier.clone();
        (verifier.is_some() || !policies.is_empty()).then(|| PolicyEvaluator {
            policies,
            verifier,
            resolver: Arc::clone(&self.resolver),
            pool: self.pool.clone(),
            work: Work::default(),
        })
    }

    /// Resolves a source that policies allow, shown as a vertex.
    pub(crate) async fn resolve(
        &self,
        mut op: pb::SourceOp,
        opts: ResolveOpts,
    ) -> Result<SourceMeta, Failure> {
        let policies = Policy::decode_all(&opts.source_policies).await?;
        if let Some(evaluator) = self.evaluator(&policies) {
            let platform = requested_platform(&opts).map(|p| pb::Platform {
                os: p.os,
                architecture: p.architecture,
                variant: p.variant,
                os_version: p.os_version,
                os_features: p.os_features,
            });
            let scope = self.resolver.scope();
            let allowed = scope.alive(evaluator.source(&mut op, platform.as_ref()));
            let context = "could not resolve image due to policy";
            allowed.await.map_err(|e| e.during(context))?;
        }
        self.resolver.resolve(op, opts).await
    }
}

/// Decides on the sources of one definition, or on one source.
#[derive(Clone)]
pub(crate) struct PolicyEvaluator {
    policies: Vec<Arc<Policy>>,
    verifier: Option<Arc<dyn PolicyVerifier>>,
    /// Resolves sources for clients that need metadata before they decide.
    resolver: Arc<SourceResolver>,
    pool: task::Pool,
    work: Work,
}

impl PolicyEvaluator {
    /// Whether a client decides on each source.
    pub(super) fn asks_client(&self) -> bool {
        self.verifier.is_some()
    }

    /// Runs work on the policies' threads instead of the runtime's. It stops soon after the future is dropped.
    pub(super) async fn in_pool<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let stopper = self.work.stopper();
        let evaluator = self.clone();
        let outcome = self.pool.run(move || work(&evaluator)).await;
        stopper.done();
        outcome
    }

    /// Decides on a source: it is allowed, perhaps rewritten, or the error says why it is refused.
    pub(crate) async fn source(
        &self,
        source: &mut pb::SourceOp,
        platform: Option<&pb::Platform>,
    ) -> Result<(), Failure> {
        let mut questions_left = MAX_QUESTIONS;
        self.decide(source, platform, &mut questions_left).await?;
        let Some(before) = bundle(source)? else {
            return Ok(());
        };
        let mut after = before.clone();
        self.decide(&mut after, platform, &mut questions_left)
            .await
            .map_err(in_bundle)?;
        take_bundle(source, &before, after);
        Ok(())
    }

    /// Decides on a source by rules only.
    pub(super) fn by_rules(&self, source: &mut pb::SourceOp) -> Result<(), Failure> {
        self.apply(source)?;
        let Some(before) = bundle(source)? else {
            return Ok(());
        };
        let mut after = before.clone();
        self.apply(&mut after).map_err(in_bundle)?;
        take_bundle(source, &before, after);
        Ok(())
    }

    fn apply(&self, source: &mut pb::SourceOp) -> Result<(), Failure> {
        source.identifier = normalized(&source.identifier);
        evaluate(&self.policies, source, &self.work)
    }

    fn decide<'a>(
        &'a self,
        source: &'a mut pb::SourceOp,
        platform: Option<&'a pb::Platform>,
        questions_left: &'a mut usize,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let mut current = std::mem::take(source);
            *source = self
                .in_pool(move |evaluator| evaluator.apply(&mut current).map(|()| current))
                .await?;
            let Some(verifier) = &self.verifier else {
                return Ok(());
            };
            let mut source_meta = SourceMeta {
                op: source.clone(),
                ..SourceMeta::default()
            };
            loop {
                *questions_left = questions_left
                    .checked_sub(1)
                    .ok_or_else(|| failed("too many policy requests"))?;
                let question = PolicyQuestion {
                    platform: platform.cloned(),
                    source: source_meta.clone(),
                };
                match verifier.check(question).await? {
                    PolicyVerdict::Allow => return Ok(()),
                    PolicyVerdict::Convert(None) => {
                        return Err(failed("convert action requires updated source"));
                    }
                    PolicyVerdict::Convert(Some(replacement)) => {
                        *source = replacement;
                        // The depth of this recursion is bounded by `questions_left`.
                        return self.decide(source, platform, questions_left).await;
                    }
                    PolicyVerdict::Deny { action, details } => {
                        let name = &source.identifier;
                        let message =
                            format!("source {name:?} not allowed by policy: action {action}");
                        let mut failure = failed(message);
                        failure.details.extend::<Option<Detail>>(details);
                        return Err(failure);
                    }
                    PolicyVerdict::Resolve {
                        source: requested,
                        opts,
                    } => {
                        source_meta = self.resolve(source, requested, *opts).await?;
                    }
                }
            }
        })
    }

    /// Resolves the metadata that the client needs before it decides. The client may request the source in question only.
    async fn resolve(
        &self,
        source: &pb::SourceOp,
        requested: pb::SourceOp,
        opts: ResolveOpts,
    ) -> Result<SourceMeta, Failure> {
        if requested.identifier != source.identifier {
            return Err(failed(format!(
                "policy requested different source identifier: {:?} != {:?}",
                requested.identifier, source.identifier
            )));
        }
        if requested.attrs != source.attrs {
            return Err(failed("policy requested different source attrs"));
        }
        let context = "error resolving source metadata from policy request";
        let resolved = self.resolver.resolve(requested, opts).await;
        resolved.map_err(|e| e.during(context))
    }
}

/// The blob that contains a git source (`git.bundle`), as a source of its own.
fn bundle(source: &pb::SourceOp) -> Result<Option<pb::SourceOp>, Failure> {
    let locator = source.attrs.get(BUNDLE_ATTR).filter(|l| !l.is_empty());
    let Some(locator) = locator.filter(|_| source.identifier.starts_with("git://")) else {
        return Ok(None);
    };
    let (scheme, reference) = locator.split_once("://").ok_or_else(|| {
        failed(format!(
            "failed to parse git.bundle locator {locator:?}: missing scheme"
        ))
    })?;
    let mut attrs = BTreeMap::new();
    match scheme {
        "docker-image+blob" => {}
        "oci-layout+blob" => {
            if let Some(session) = source.attrs.get(LAYOUT_SESSION_ATTR) {
                attrs.insert(LAYOUT_SESSION_ATTR.to_owned(), session.clone());
            }
            let implied = reference.split(['@', ':']).next().unwrap_or_default();
            let store = source
                .attrs
                .get(LAYOUT_STORE_ATTR)
                .filter(|s| !s.is_empty());
            attrs.insert(
                LAYOUT_STORE_ATTR.to_owned(),
                store.map_or_else(|| implied.to_owned(), Clone::clone),
            );
        }
        other => {
            return Err(failed(format!(
                "git.bundle locator scheme {other:?} is not supported"
            )));
        }
    }
    Ok(Some(pb::SourceOp {
        identifier: locator.clone(),
        attrs,
    }))
}

fn in_bundle(failure: Failure) -> Failure {
    failure.during("error evaluating git bundle source policy")
}

/// Puts a bundle that policies may have rewritten back into its source.
fn take_bundle(source: &mut pb::SourceOp, before: &pb::SourceOp, after: pb::SourceOp) {
    if after == *before {
        return;
    }
    for key in [LAYOUT_SESSION_ATTR, LAYOUT_STORE_ATTR] {
        match after.attrs.get(key) {
            Some(value) if before.attrs.get(key) != Some(value) => {
                source.attrs.insert(key.into(), value.clone());
            }
            Some(_) => {}
            None => {
                source.attrs.remove(key);
            }
        }
    }
    source.attrs.insert(BUNDLE_ATTR.into(), after.identifier);
}
