//! The context in which a source works: sessions, progress, and what the build has resolved so far.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use oci::SessionId;
use parking_lot::Mutex;
use progress::Writer;
use session::Group;

/// The builds that use the source, and the vertex that shows its progress.
#[derive(Debug, Clone)]
pub struct Context {
    /// The clients that may answer, in order of preference.
    pub sessions: Group,
    /// Progress of the vertex.
    pub progress: Writer,
    /// What each of the builds has resolved so far.
    pub resolved_sources: Vec<Arc<ResolvedSources>>,
}

/// What the sources of one build resolved to: within a build an address always resolves to the same.
#[derive(Default)]
pub struct ResolvedSources {
    /// Values of any type, by a key that the source chooses.
    results: Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>,
    /// The session of the build, and its main context; both empty when they are not known.
    build: (SessionId, String),
}

impl ResolvedSources {
    /// Makes an empty memory for a build whose context is not known.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes an empty memory for the build of `session` whose main context is `context`: an address, or a name.
    #[must_use]
    pub fn of(session: impl Into<SessionId>, context: &str) -> Arc<Self> {
        Arc::new(Self {
            results: Mutex::default(),
            build: (session.into(), context.to_owned()),
        })
    }

    /// The main context of the build, if it is that of `session`.
    pub(crate) fn context_of(&self, session: &SessionId) -> Option<&str> {
        let (build_session, context) = &self.build;
        (build_session == session && !context.is_empty()).then_some(context)
    }
}

impl fmt::Debug for ResolvedSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResolvedSources")
            .field(&self.results.lock().len())
            .finish()
    }
}

impl Context {
    /// A context without a build: nothing is remembered.
    #[must_use]
    pub fn new(sessions: Group, progress: Writer) -> Self {
        Self {
            sessions,
            progress,
            resolved_sources: Vec::new(),
        }
    }

    /// Shows on the vertex that a host keeps the daemon waiting, for as long as it does.
    pub(crate) fn wait_observer(&self) -> registry::WaitObserver {
        let progress = self.progress.clone();
        registry::WaitObserver::new(move |host| {
            Box::new(progress.status(format!("waiting for {host}"), "waiting"))
        })
    }

    pub(crate) fn recall<T: Any + Send + Sync>(&self, key: &str) -> Option<Arc<T>> {
        let look_up = |sources: &Arc<ResolvedSources>| sources.results.lock().get(key).cloned();
        Arc::downcast(self.resolved_sources.iter().find_map(look_up)?).ok()
    }

    pub(crate) fn remember<T: Any + Send + Sync>(&self, key: &str, value: &Arc<T>) {
        for sources in &self.resolved_sources {
            let mut results = sources.results.lock();
            let slot = results.entry(key.to_owned());
            slot.or_insert_with(|| Arc::clone(value) as Arc<dyn Any + Send + Sync>);
        }
    }
}
