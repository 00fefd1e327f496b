//! What a source may use while it works for a build.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use progress::Writer;
use session::Group;

/// The builds that want the source, and where to tell them how it goes.
#[derive(Debug, Clone)]
pub struct Context {
    /// The clients that may answer, in order of preference.
    pub sessions: Group,
    /// Progress of the vertex.
    pub progress: Writer,
    /// What the builds have resolved already.
    pub resolved_sources: Vec<Arc<ResolvedSources>>,
}

/// What the sources of one build resolved to. What an address gave once, it gives for the rest of the build.
#[derive(Default)]
pub struct ResolvedSources {
    /// What was resolved, by the resolving source's own key.
    results: Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>,
    /// The session of the build, and what its main context is; empty when nobody said.
    build: (String, String),
}

impl ResolvedSources {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Remembers nothing yet, for the build of `session` whose main context is `context`: an address, or a name.
    #[must_use]
    pub fn of(session: &str, context: &str) -> Arc<Self> {
        Arc::new(Self {
            results: Mutex::default(),
            build: (session.to_owned(), context.to_owned()),
        })
    }

    /// The main context of the build, if it is that of `session`.
    pub(crate) fn context_of(&self, session: &str) -> Option<&str> {
        let (own_session, context) = &self.build;
        (own_session == session && !context.is_empty()).then_some(context)
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
    /// A context of no build in particular.
    #[must_use]
    pub fn new(sessions: Group, progress: Writer) -> Self {
        Self {
            sessions,
            progress,
            resolved_sources: Vec::new(),
        }
    }

    /// Shows on the vertex that a host has kept us waiting, for as long as it does.
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
