//! Detects nested builds that wait for each other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use oci::Digest;
use parking_lot::Mutex;

use crate::failure::NestedBuildError;

/// Nested builds and the ones that each waits for. One that waits for itself would never end.
#[derive(Debug, Default)]
pub(crate) struct NestedBuilds(Mutex<HashMap<Digest, Arc<[Digest]>>>);

/// A nested build in progress.
pub(crate) struct Ongoing<'a> {
    all: &'a NestedBuilds,
    vertex: Digest,
}

impl NestedBuilds {
    /// Records that `vertex` waits for the vertices `within`, unless one of them waits for `vertex`.
    pub(crate) fn enter(
        &self,
        vertex: &Digest,
        within: Vec<Digest>,
    ) -> Result<Ongoing<'_>, NestedBuildError> {
        let mut waiting = self.0.lock();
        let mut visited = HashSet::new();
        let mut open: Vec<Digest> = within.clone();
        while let Some(next) = open.pop() {
            if next == *vertex {
                return Err(NestedBuildError::Circular);
            }
            if let Some(further) = waiting.get(&next)
                && visited.insert(next)
            {
                open.extend(further.iter().cloned());
            }
        }
        waiting.insert(vertex.clone(), within.into());
        Ok(Ongoing {
            all: self,
            vertex: vertex.clone(),
        })
    }
}

impl Drop for Ongoing<'_> {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.vertex);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    #[test]
    fn a_build_that_waits_for_itself_directly_or_indirectly_is_refused() {
        let all = NestedBuilds::default();
        let names = |names: &[&str]| names.iter().map(|name| digest(name)).collect::<Vec<_>>();
        assert!(all.enter(&digest("a"), names(&["a"])).is_err());
        let first = all.enter(&digest("a"), names(&["b", "x"])).unwrap();
        let _second = all.enter(&digest("b"), names(&["c"])).unwrap();
        assert!(all.enter(&digest("c"), names(&["y", "a"])).is_err());
        let _other = all.enter(&digest("z"), names(&["a"])).unwrap();
        drop(first);
        assert!(all.enter(&digest("c"), names(&["y", "a"])).is_ok());
    }
}
