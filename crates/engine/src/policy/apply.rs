//! Policies on whole definitions, and the client's verdict on single sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use frontend::bridge::{ResolveOpts, SourceMeta};
use futures::future::BoxFuture;
use futures::stream::TryStreamExt as _;
use llb::pb;
use prost::Message as _;

use super::{Policy, Work, digest, evaluate, failed, normalized};
use crate::api::{Detail, Failure, PolicyQuestion, PolicyVerdict, PolicyVerifier};
use crate::build::Build;

/// Questions and rewrites that one source may cost.
const MOST_QUESTIONS: usize = 10;
/// Sources that a client is asked about at the same time.
const AT_ONCE: usize = 64;
const BUNDLE: &str = "git.bundle";
const LAYOUT_SESSION: &str = "oci.session";
const LAYOUT_STORE: &str = "oci.store";

/// Who decides on the sources of a build.
#[derive(Clone)]
pub(crate) struct Judge {
    build: Arc<Build>,
    policies: Vec<Arc<Policy>>,
    verifier: Option<Arc<dyn PolicyVerifier>>,
    work: Work,
}

impl Judge {
    /// The build's own policies with those of a request; none if nobody has a say.
    pub(crate) fn new(build: &Arc<Build>, more: &[Arc<Policy>]) -> Option<Self> {
        let policies: Vec<_> = build.policies.iter().chain(more).cloned().collect();
        let verifier = build.verifier.clone();
        (verifier.is_some() || !policies.is_empty()).then(|| Self {
            build: Arc::clone(build),
            policies,
            verifier,
            work: Work::default(),
        })
    }

    /// Does a piece of the work where it holds nobody up; it ends soon after the future is dropped.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let stopper = self.work.stopper();
        let judge = self.clone();
        let done = self.build.engine.judging.run(move || work(&judge)).await;
        stopper.done();
        done
    }

    /// Decides on a source: it is allowed, perhaps rewritten, or an error says why not.
    pub(crate) async fn source(
        &self,
        source: &mut pb::SourceOp,
        platform: Option<&pb::Platform>,
    ) -> Result<(), Failure> {
        let mut left = MOST_QUESTIONS;
        self.one(source, platform, &mut left).await?;
        let Some(before) = bundle(source)? else {
            return Ok(());
        };
        let mut after = before.clone();
        self.one(&mut after, platform, &mut left)
            .await
            .map_err(in_bundle)?;
        take_bundle(source, &before, after);
        Ok(())
    }

    /// Decides on a source where no client has a say.
    fn by_rules(&self, source: &mut pb::SourceOp) -> Result<(), Failure> {
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

    fn one<'a>(
        &'a self,
        source: &'a mut pb::SourceOp,
        platform: Option<&'a pb::Platform>,
        left: &'a mut usize,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let mut own = std::mem::take(source);
            *source = self
                .apart(move |judge| judge.apply(&mut own).map(|()| own))
                .await?;
            let Some(verifier) = &self.verifier else {
                return Ok(());
            };
            let mut known = SourceMeta {
                op: source.clone(),
                ..SourceMeta::default()
            };
            loop {
                *left = left
                    .checked_sub(1)
                    .ok_or_else(|| failed("too many policy requests"))?;
                let question = PolicyQuestion {
                    platform: platform.cloned(),
                    source: known.clone(),
                };
                match verifier.check(question).await? {
                    PolicyVerdict::Allow => return Ok(()),
                    PolicyVerdict::Convert(None) => {
                        return Err(failed("convert action requires updated source"));
                    }
                    PolicyVerdict::Convert(Some(other)) => {
                        *source = other;
                        // As often as questions are left.
                        return self.one(source, platform, left).await;
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
                        source: asked,
                        opts,
                    } => {
                        known = self.resolve(source, asked, *opts).await?;
                    }
                }
            }
        })
    }

    /// What the client wants to know of the source before it decides.
    async fn resolve(
        &self,
        source: &pb::SourceOp,
        asked: pb::SourceOp,
        opts: ResolveOpts,
    ) -> Result<SourceMeta, Failure> {
        if asked.identifier != source.identifier {
            return Err(failed(format!(
                "policy requested different source identifier: {:?} != {:?}",
                asked.identifier, source.identifier
            )));
        }
        if asked.attrs != source.attrs {
            return Err(failed("policy requested different source attrs"));
        }
        crate::resolve::judged(&self.build, asked, opts)
            .await
            .map_err(|mut e| {
                e.message = format!(
                    "error resolving source metadata from policy request: {}",
                    e.message
                );
                e
            })
    }
}

/// The blob that a git source comes in, as a source of its own.
fn bundle(source: &pb::SourceOp) -> Result<Option<pb::SourceOp>, Failure> {
    let locator = source.attrs.get(BUNDLE).filter(|l| !l.is_empty());
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
            if let Some(session) = source.attrs.get(LAYOUT_SESSION) {
                attrs.insert(LAYOUT_SESSION.to_owned(), session.clone());
            }
            let implied = reference.split(['@', ':']).next().unwrap_or_default();
            let store = source.attrs.get(LAYOUT_STORE).filter(|s| !s.is_empty());
            attrs.insert(
                LAYOUT_STORE.to_owned(),
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

fn in_bundle(mut failure: Failure) -> Failure {
    failure.message = format!(
        "error evaluating git bundle source policy: {}",
        failure.message
    );
    failure
}

/// Puts a bundle that was judged back into its source.
fn take_bundle(source: &mut pb::SourceOp, before: &pb::SourceOp, after: pb::SourceOp) {
    if after == *before {
        return;
    }
    for key in [LAYOUT_SESSION, LAYOUT_STORE] {
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
    source.attrs.insert(BUNDLE.into(), after.identifier);
}

/// An op of a definition, and whether it was changed.
type Judged = (pb::Op, bool);

/// Decides on all sources of a definition. What was rewritten is encoded anew, with all that stands on it; the rest stays
/// as received.
pub(crate) async fn rewrite(
    judge: &Judge,
    definition: &Arc<pb::Definition>,
) -> Result<Arc<pb::Definition>, Failure> {
    let in_policy = |mut e: Failure| {
        e.message = format!("error evaluating the source policy: {}", e.message);
        e
    };
    let given = Arc::clone(definition);
    let mut ops: Vec<Judged> = judge
        .apart(move |judge| {
            let ops = llb::definition::ops(&given).map_err(|e| failed(e.to_string()))?;
            let mut judged = Vec::with_capacity(ops.len());
            for mut op in ops {
                let mut changed = false;
                if judge.verifier.is_none()
                    && let Some(pb::op::Op::Source(source)) = &mut op.op
                {
                    let before = source.clone();
                    judge.by_rules(source).map_err(in_policy)?;
                    changed = *source != before;
                }
                judged.push((op, changed));
            }
            Ok(judged)
        })
        .await?;
    if judge.verifier.is_some() {
        let sources = ops.iter_mut().filter_map(|(op, changed)| {
            let pb::Op { op, platform, .. } = op;
            match op {
                Some(pb::op::Op::Source(source)) => Some((source, platform.as_ref(), changed)),
                _ => None,
            }
        });
        futures::stream::iter(sources.map(Ok))
            .try_for_each_concurrent(AT_ONCE, |(source, platform, changed)| async move {
                let before = source.clone();
                judge.source(source, platform).await?;
                *changed = *source != before;
                Ok::<_, Failure>(())
            })
            .await
            .map_err(in_policy)?;
    }
    if !ops.iter().any(|(_, changed)| *changed) {
        return Ok(Arc::clone(definition));
    }
    let given = Arc::clone(definition);
    judge
        .apart(move |_| Ok(Arc::new(encode(&given, ops))))
        .await
}

/// The definition with ops that were changed.
fn encode(definition: &pb::Definition, ops: Vec<Judged>) -> pb::Definition {
    let mut out = definition.clone();
    // Clients put what is read before what reads it.
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    for (slot, (mut op, mut changed)) in out.def.iter_mut().zip(ops) {
        for input in &mut op.inputs {
            if let Some(new) = renamed.get(&input.digest) {
                input.digest.clone_from(new);
                changed = true;
            }
        }
        if !changed {
            continue;
        }
        let old = digest(slot.as_ref());
        let encoded = op.encode_to_vec();
        let new = digest(&encoded);
        *slot = encoded;
        if let Some(metadata) = out.metadata.remove(&old) {
            out.metadata.insert(new.clone(), metadata);
        }
        if let Some(source) = &mut out.source
            && let Some(places) = source.locations.remove(&old)
        {
            source.locations.insert(new.clone(), places);
        }
        renamed.insert(old, new);
    }
    out
}
