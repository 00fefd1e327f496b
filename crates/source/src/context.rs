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
    /// What the builds have found out already.
    pub memories: Vec<Arc<Memory>>,
}

/// What sources found out for one build. What an address gave once, it gives for the rest of the build.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>);

impl Memory {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory").field(&self.0.lock().len()).finish()
    }
}

impl Context {
    /// A context of no build in particular.
    #[must_use]
    pub fn new(sessions: Group, progress: Writer) -> Self {
        Self {
            sessions,
            progress,
            memories: Vec::new(),
        }
    }

    pub(crate) fn recall<T: Any + Send + Sync>(&self, key: &str) -> Option<Arc<T>> {
        let found = |memory: &Arc<Memory>| memory.0.lock().get(key).cloned();
        Arc::downcast(self.memories.iter().find_map(found)?).ok()
    }

    pub(crate) fn remember<T: Any + Send + Sync>(&self, key: &str, value: &Arc<T>) {
        for memory in &self.memories {
            let mut known = memory.0.lock();
            let slot = known.entry(key.to_owned());
            slot.or_insert_with(|| Arc::clone(value) as Arc<dyn Any + Send + Sync>);
        }
    }
}
