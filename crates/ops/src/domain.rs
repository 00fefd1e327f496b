//! The solver's type parameters in this program.

mod loader;
mod slot;

use std::sync::Arc;

use bytes::Bytes;
use executor::Entitlements;
use llb::pb;
use oci::Digest;
use progress::{Hub, VertexProgress, Writer, WriterSource};
use solver::{Domain, Op, OpCtx};
use source::ResolvedSources;
use store::{BlobProvider, ImmutableRef};

use crate::cache_mounts::BuildCacheMounts;
use crate::trace::StepTrace;
pub use loader::{LoaderSlot, NestedLoader};
pub use slot::Slot;

/// A result: a ref, or none for scratch.
pub type Ref = Option<ImmutableRef>;

/// The domain that builds are solved in: vertices are LLB ops, results are refs of the store.
#[derive(Debug)]
pub enum BuildDomain {}

impl Domain for BuildDomain {
    type Result = Ref;
    type System = OpSys;
    type Op = dyn BuildOp;
    type Job = JobValue;
    type Sink = ProgressSink;
    type Hint = LayerHint;
}

/// The op of a vertex.
pub trait BuildOp: Op<BuildDomain> {
    /// Returns the pin of a source once its key is computed; empty before that and for every other op.
    fn pin(&self) -> String {
        String::new()
    }

    /// Returns the requests of a step on the proxy network once it has run; none for every other op and for cached results.
    fn requests(&self) -> Option<Arc<proxy::Capture>> {
        None
    }

    /// Returns what a step used, once it has run; none for every other op, and for what was in the cache.
    fn samples(&self) -> Option<Arc<executor::Samples>> {
        None
    }
}

/// Data that the engine stores in a vertex for its op.
#[derive(Debug, Clone, Default)]
pub struct OpSys {
    /// The op, with its platform normalised.
    pub op: Arc<pb::Op>,
    /// The metadata of the op in the definition.
    pub metadata: pb::OpMetadata,
    /// The rights of the build.
    pub rights: BuildRights,
    /// Number of builds around this one; 0 for a client's build.
    pub nesting: usize,
    /// Whether the op is a step on the proxy network.
    pub proxied: bool,
}

/// The rights of the build that a vertex belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildRights {
    /// Entitlements that the client requested and the daemon allows.
    pub entitlements: Entitlements,
}

/// The value of a job in the solver: the engine creates a job with it, and ops read it.
#[derive(Debug)]
pub struct JobValue {
    /// The hub of the build's progress.
    pub hub: Arc<Hub>,
    /// Digests and revisions to which the build's sources were resolved.
    pub resolved_sources: Arc<ResolvedSources>,
    /// The generations of cache mounts that the build uses.
    pub cache_mounts: Arc<BuildCacheMounts>,
    /// Loads definitions that the build's steps produce.
    pub nested: Arc<LoaderSlot>,
    /// Decides on requests of the build's steps on the proxy network; empty where every request is allowed.
    pub request_policy: Arc<RequestPolicySlot>,
    /// Where its steps stand in its trace; none for a build that has none.
    pub trace: Option<Arc<StepTrace>>,
}

/// The slot of a build's policy for requests of steps. It is filled once the build has its policies, and emptied at its end.
pub type RequestPolicySlot = Slot<Arc<dyn proxy::RequestPolicy>>;

/// Resolved sources of the builds that want a vertex.
pub(crate) fn resolved_sources(ctx: &OpCtx<BuildDomain>) -> Vec<Arc<ResolvedSources>> {
    let jobs = ctx.job_values();
    jobs.iter()
        .map(|job| Arc::clone(&job.resolved_sources))
        .collect()
}

/// Generations of cache mounts of the builds that want a vertex.
pub(crate) fn cache_mounts(ctx: &OpCtx<BuildDomain>) -> Vec<Arc<BuildCacheMounts>> {
    let jobs = ctx.job_values();
    jobs.iter()
        .map(|job| Arc::clone(&job.cache_mounts))
        .collect()
}

/// Policies for the requests of a step, of the builds that want it.
pub(crate) fn request_policies(ctx: &OpCtx<BuildDomain>) -> Vec<Arc<dyn proxy::RequestPolicy>> {
    let jobs = ctx.job_values();
    jobs.iter()
        .filter_map(|job| job.request_policy.get())
        .collect()
}

/// The provider of a lazy layer: a hint in the cache maps of sources, found when a result with the layer is loaded.
#[derive(Debug, Clone)]
pub struct LayerHint {
    /// Digest of the layer's blob.
    pub layer: Digest,
    /// Downloads the layer.
    pub provider: Arc<dyn BlobProvider>,
}

/// The progress of a vertex.
#[derive(Debug)]
pub struct ProgressSink(Option<VertexProgress>);

impl ProgressSink {
    /// Reports to the builds that want the vertex of `progress`.
    pub fn new(progress: VertexProgress) -> Self {
        Self(Some(progress))
    }

    /// A sink that drops everything, for work outside of any vertex.
    pub fn null() -> Self {
        Self(None)
    }
}

impl WriterSource for ProgressSink {
    fn writer(&self) -> Writer {
        let progress = self.0.as_ref();
        progress.map_or_else(Writer::null, VertexProgress::writer)
    }
}

impl solver::VertexSink<JobValue> for ProgressSink {
    fn attach(&self, job: &JobValue) {
        if let Some(progress) = &self.0 {
            progress.attach(&job.hub);
        }
    }

    fn started(&self, cached: bool) {
        match &self.0 {
            Some(progress) if cached => progress.start_cached(),
            Some(progress) => progress.start(),
            None => {}
        }
    }

    fn completed(&self, error: Option<&str>, _cached: bool) {
        if let Some(progress) = &self.0 {
            progress.complete(error);
        }
    }

    fn log(&self, stream: i64, data: &[u8]) {
        self.writer().log(stream, Bytes::copy_from_slice(data));
    }
}

#[cfg(test)]
mod tests {
    use progress::Event;
    use solver::VertexSink as _;

    use super::*;

    fn job(hub: &Arc<Hub>) -> JobValue {
        JobValue {
            hub: Arc::clone(hub),
            resolved_sources: ResolvedSources::of("", ""),
            cache_mounts: Arc::default(),
            nested: Arc::default(),
            request_policy: Arc::default(),
            trace: None,
        }
    }

    #[tokio::test]
    async fn a_sink_reports_to_every_attached_job_including_past_progress() {
        let progress = progress::Vertex::new(Digest::sha256(b"v"), "v", Vec::new());
        let sink = ProgressSink::new(VertexProgress::new(progress));
        let (early, late) = (Hub::new(), Hub::new());
        sink.attach(&job(&early));
        sink.started(false);
        sink.log(1, b"out");
        sink.completed(Some("exit code: 1"), false);
        sink.attach(&job(&late));
        for hub in [early, late] {
            hub.close();
            let mut events = hub.subscribe();
            let (mut logs, mut errors) = (Vec::new(), Vec::new());
            while let Some(event) = events.next().await {
                match event {
                    Event::Log(log) => logs.extend_from_slice(&log.msg),
                    Event::Vertex(vertex) => errors.push(vertex.error),
                    Event::Status(_) | Event::Warning(_) => {}
                }
            }
            assert_eq!(logs, b"out");
            assert_eq!(errors.last().map(String::as_str), Some("exit code: 1"));
        }
    }

    #[test]
    fn a_sink_without_a_vertex_drops_all_progress() {
        let sink = ProgressSink::null();
        sink.attach(&job(&Hub::new()));
        sink.started(true);
        sink.log(2, b"x");
        sink.completed(None, true);
    }
}
