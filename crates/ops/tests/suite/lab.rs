//! Exec ops over a real store, with a scripted executor: shared by tests of exec ops.

#![allow(clippy::unwrap_used, reason = "helpers of a test may panic")]

use std::sync::Arc;

use llb::pb;
use oci::Digest;
use ops::exec::ExecOp;
use ops::{BuildDomain, BuildRights, OpFailure, OpSys, Parts, ProgressSink, Ref};
use parking_lot::Mutex;
use progress::{Event, Hub, VertexProgress};
use session::{Registration, SessionManager};
use solver::{Op, OpCtx, OpError, Vertex};
use store::{ImmutableRef, RefOptions, Store};
use testkit::executor::{ScriptedExecutor, Step};
use testkit::session::MemorySession;

/// A store, a script and clients. Needs root, for the overlay mounts of the store.
pub(crate) struct Lab {
    pub(crate) parts: Arc<Parts>,
    pub(crate) executor: Arc<ScriptedExecutor>,
    pub(crate) sessions: Arc<SessionManager>,
    pub(crate) rights: BuildRights,
    pub(crate) platform: Option<pb::Platform>,
    /// Limits that steps request.
    pub(crate) resources: executor::Resources,
    pub(crate) base: ImmutableRef,
    hub: Arc<Hub>,
    registrations: Mutex<Vec<(String, Registration)>>,
    _dir: tempfile::TempDir,
}

impl Lab {
    /// A lab whose executor follows `script`.
    pub(crate) fn new(script: impl IntoIterator<Item = Step>) -> Self {
        Self::with_parallelism(0, script)
    }

    /// As `new`, with at most `max_parallelism` steps at a time; 0 for any number.
    pub(crate) fn with_parallelism(
        max_parallelism: usize,
        script: impl IntoIterator<Item = Step>,
    ) -> Self {
        let limits = ops::StepLimits {
            max_parallelism,
            ..ops::StepLimits::default()
        };
        Self::with_limits(limits, script)
    }

    /// As `new`, on a daemon with these limits.
    pub(crate) fn with_limits(
        limits: ops::StepLimits,
        script: impl IntoIterator<Item = Step>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(store::Config::new(dir.path())).unwrap();
        let executor = ScriptedExecutor::new(script);
        let sessions = SessionManager::new();
        let base = layer(&store, None, &["base"]);
        let parts = Parts::new(
            store,
            Arc::clone(&executor) as _,
            Arc::new(source::Sources::new()),
            Arc::clone(&sessions),
            ops::StepLimits {
                platforms: vec![oci::Platform::host()],
                ..limits
            },
        );
        Self {
            parts,
            executor,
            sessions,
            rights: BuildRights::default(),
            platform: None,
            resources: executor::Resources::default(),
            base,
            hub: Hub::new(),
            registrations: Mutex::default(),
            _dir: dir,
        }
    }

    /// Connects a client, whose services steps use from now on.
    pub(crate) fn connect(&self, id: &str, session: MemorySession) -> Arc<MemorySession> {
        let (session, registration) = session.connect(&self.sessions);
        self.registrations.lock().push((id.into(), registration));
        session
    }

    fn context(&self) -> OpCtx<BuildDomain> {
        let digest = Digest::sha256(b"step");
        let vertex = progress::Vertex::new(digest.clone(), "step", Vec::new());
        let progress = VertexProgress::new(vertex);
        progress.attach(&self.hub);
        let vertex = Vertex::new(digest, "step", Arc::new(OpSys::default()));
        let sessions = self.registrations.lock();
        let ids = sessions.iter().map(|(id, _)| id.clone()).collect();
        let sink = ProgressSink::new(progress);
        OpCtx::detached(Arc::new(vertex), Arc::new(sink), ids)
    }

    /// Ends the progress of the steps and returns their log: `1:text` for output and `2:text` for errors.
    pub(crate) async fn log(&self) -> String {
        self.hub.close();
        let mut events = self.hub.subscribe();
        let mut text = String::new();
        while let Some(event) = events.next().await {
            if let Event::Log(log) = event {
                text += &format!("{}:{}", log.stream, String::from_utf8_lossy(&log.msg));
            }
        }
        text
    }

    /// Runs an op over these inputs.
    pub(crate) async fn run_with(
        &self,
        op: pb::ExecOp,
        inputs: Vec<Ref>,
    ) -> Result<Vec<Ref>, OpError> {
        let op = ExecOp::new(
            Arc::clone(&self.parts),
            op,
            self.platform.clone(),
            self.rights.clone(),
            self.resources.clone(),
            inputs.len(),
        );
        op.exec(&self.context(), inputs).await
    }

    /// Runs an op over the base.
    pub(crate) async fn run(&self, op: pb::ExecOp) -> Result<Vec<Ref>, OpError> {
        self.run_with(op, vec![Some(self.base.clone())]).await
    }

    /// Runs an op that fails over the base; returns the error's sentence.
    pub(crate) async fn error(&self, op: pb::ExecOp) -> String {
        self.run(op).await.unwrap_err().to_string()
    }

    /// Number of records in the store.
    pub(crate) fn records(&self) -> usize {
        let usage = self.parts.store.disk_usage(&[], std::time::Duration::ZERO);
        usage.unwrap().len()
    }
}

/// A ref with empty files.
pub(crate) fn layer(
    store: &Arc<Store>,
    parent: Option<&ImmutableRef>,
    files: &[&str],
) -> ImmutableRef {
    let mutable = store.new_mutable(parent, RefOptions::default()).unwrap();
    let root = mutable.root().unwrap();
    for file in files {
        root.create(*file, 0o644).unwrap();
    }
    drop(root);
    mutable.commit().unwrap()
}

/// The names at the root of a result.
pub(crate) fn names(result: &Ref) -> Vec<String> {
    let root = result.as_ref().unwrap().root().unwrap();
    let entries = root.dir("/").unwrap().entries().unwrap();
    let mut names: Vec<String> = entries
        .iter()
        .map(|entry| entry.name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The failure inside what an op returned.
pub(crate) fn failure(error: &OpError) -> &OpFailure {
    error.find().unwrap()
}

/// A mount without an input or an output.
pub(crate) fn mount(dest: &str, kind: pb::MountType) -> pb::Mount {
    pb::Mount {
        input: -1,
        output: -1,
        dest: dest.into(),
        mount_type: kind.into(),
        ..pb::Mount::default()
    }
}

/// The root: input 0, output 0.
pub(crate) fn root() -> pb::Mount {
    pb::Mount {
        input: 0,
        output: 0,
        ..mount("/", pb::MountType::Bind)
    }
}

/// A cache mount without an input.
pub(crate) fn cache(dest: &str, id: &str, sharing: pb::CacheSharingOpt) -> pb::Mount {
    pb::Mount {
        cache_opt: Some(pb::CacheOpt {
            id: id.into(),
            sharing: sharing.into(),
        }),
        ..mount(dest, pb::MountType::Cache)
    }
}

/// A step `/do it` in `/work` with these mounts after its root.
pub(crate) fn step(mounts: impl IntoIterator<Item = pb::Mount>) -> pb::ExecOp {
    pb::ExecOp {
        meta: Some(pb::Meta {
            args: vec!["/do".into(), "it".into()],
            cwd: "/work".into(),
            ..pb::Meta::default()
        }),
        mounts: std::iter::once(root()).chain(mounts).collect(),
        ..pb::ExecOp::default()
    }
}

/// As `step`, without mounts and with a changed `meta`.
pub(crate) fn step_with(change: impl FnOnce(&mut pb::Meta)) -> pb::ExecOp {
    let mut op = step([]);
    change(op.meta.as_mut().unwrap());
    op
}
