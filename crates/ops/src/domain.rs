//! The solver's types in this program.

mod loader;

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
pub use loader::{LoaderSlot, NestedLoader};

/// A result: a ref, or nothing at all for scratch.
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
    /// Returns what a source was pinned to, once its key is known; empty for every other op and before that.
    fn pin(&self) -> String {
        String::new()
    }

    /// Returns what a step of the proxy network asked for, once it has run; none for every other op, and for what was in the cache.
    fn requests(&self) -> Option<Arc<proxy::Capture>> {
        None
    }

    /// Returns what a step used, once it has run; none for every other op, and for what was in the cache.
    fn samples(&self) -> Option<Arc<executor::Samples>> {
        None
    }
}

/// What the engine puts into a vertex for its op.
#[derive(Debug, Clone, Default)]
pub struct OpSys {
    /// The op, its platform in normal form.
    pub op: Arc<pb::Op>,
    /// What the definition says about it.
    pub metadata: pb::OpMetadata,
    /// The rights of its build.
    pub rights: BuildRights,
    /// How many builds are around the one that has it; 0 for what a client wants.
    pub nesting: usize,
    /// Whether it is a step of the proxy network.
    pub proxied: bool,
}

/// The rights of the build that a vertex belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildRights {
    /// Asked for by the client and allowed by the daemon.
    pub entitlements: Entitlements,
}

/// The value of a job in the solver: what the engine makes a job with, and ops find again.
#[derive(Debug)]
pub struct JobValue {
    /// Where the build's progress goes.
    pub hub: Arc<Hub>,
    /// What the build's sources found out.
    pub resolved_sources: Arc<ResolvedSources>,
    /// What the build sees of cache mounts.
    pub cache_mounts: Arc<BuildCacheMounts>,
    /// Loads definitions that its steps made.
    pub nested: Arc<LoaderSlot>,
    /// Who decides on requests of its steps on the proxy network; set once the build has begun, and none where everything is allowed.
    pub request_policy: Arc<RequestPolicySlot>,
}

/// A policy that comes after the job that it is of, and goes before.
pub type RequestPolicySlot = parking_lot::Mutex<Option<Arc<dyn proxy::RequestPolicy>>>;

/// What the sources of the builds resolved to, for the builds that want a vertex.
pub(crate) fn resolved_sources(ctx: &OpCtx<BuildDomain>) -> Vec<Arc<ResolvedSources>> {
    let jobs = ctx.job_values();
    jobs.iter()
        .map(|job| Arc::clone(&job.resolved_sources))
        .collect()
}

/// What the builds that want a vertex see of cache mounts.
pub(crate) fn cache_mounts(ctx: &OpCtx<BuildDomain>) -> Vec<Arc<BuildCacheMounts>> {
    let jobs = ctx.job_values();
    jobs.iter()
        .map(|job| Arc::clone(&job.cache_mounts))
        .collect()
}

/// Who decides on the requests of a step that the builds want.
pub(crate) fn request_policies(ctx: &OpCtx<BuildDomain>) -> Vec<Arc<dyn proxy::RequestPolicy>> {
    let jobs = ctx.job_values();
    jobs.iter()
        .filter_map(|job| job.request_policy.lock().clone())
        .collect()
}

/// Who can fetch a lazy layer: left in the cache maps of sources, found when a result that has the layer is loaded.
#[derive(Debug, Clone)]
pub struct LayerHint {
    /// Digest of the layer's blob.
    pub layer: Digest,
    /// Fetches it.
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

    /// Reports nothing: for work that belongs to no vertex.
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
        }
    }

    #[tokio::test]
    async fn what_a_sink_is_told_reaches_every_job_that_it_was_attached_to_also_what_was_said_before()
     {
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
    fn a_sink_without_a_vertex_takes_everything_and_shows_nothing() {
        let sink = ProgressSink::null();
        sink.attach(&job(&Hub::new()));
        sink.started(true);
        sink.log(2, b"x");
        sink.completed(None, true);
    }
}
