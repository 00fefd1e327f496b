//! Cache of content digests of trees, in memory.

use std::sync::Arc;

use fstree::hash::TreeHashes;
use parking_lot::Mutex;

/// Trees whose digests are kept in memory.
const MAX_TREES: usize = 12;

/// Digests of recently used trees, the latest last.
#[derive(Debug, Default)]
pub(crate) struct HashMemory(Mutex<Vec<(String, Arc<TreeHashes>)>>);

impl HashMemory {
    pub(crate) fn get(&self, key: &str) -> Option<Arc<TreeHashes>> {
        let mut trees = self.0.lock();
        let at = trees.iter().position(|(k, _)| k == key)?;
        let recent = trees.remove(at);
        let tree = recent.1.clone();
        trees.push(recent);
        Some(tree)
    }

    /// Adds the digests of a tree unless there are some; returns those that are kept, and those that were evicted.
    pub(crate) fn put(
        &self,
        key: &str,
        tree: Arc<TreeHashes>,
    ) -> (Arc<TreeHashes>, Option<(String, Arc<TreeHashes>)>) {
        let mut trees = self.0.lock();
        if let Some((_, known)) = trees.iter().find(|(k, _)| k == key) {
            return (known.clone(), None);
        }
        let evicted = if trees.len() >= MAX_TREES {
            Some(trees.remove(0))
        } else {
            None
        };
        trees.push((key.to_owned(), tree.clone()));
        (tree, evicted)
    }

    pub(crate) fn forget(&self, key: &str) {
        self.0.lock().retain(|(k, _)| k != key);
    }

    pub(crate) fn all(&self) -> Vec<(String, Arc<TreeHashes>)> {
        self.0.lock().clone()
    }
}
