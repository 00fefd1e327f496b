//! Environments: an immutable chain; a key has the position at which it was last set.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// An environment. Cloning is cheap; a change creates a new one.
#[derive(Clone, Default)]
pub struct Env(Option<Arc<Link>>);

struct Link {
    key: Arc<str>,
    /// `None` deletes the key.
    value: Option<Arc<str>>,
    parent: Env,
    /// Length of the chain up to this link.
    length: usize,
    /// Values of all keys at this link; computed on first use, and only at each [`LINKS_BEFORE_INDEX`]th link.
    index: OnceLock<Box<Index>>,
}

/// Values of keys; `None` for deleted ones.
type Index = HashMap<Arc<str>, Option<Arc<str>>>;

/// Number of links that a look-up follows before it uses an index.
const LINKS_BEFORE_INDEX: usize = 256;

impl Env {
    /// Sets `key`, which moves it to the end.
    #[must_use]
    pub fn set(&self, key: &str, value: &str) -> Self {
        self.with(key, Some(value.into()))
    }

    /// Removes `key`.
    #[must_use]
    pub fn unset(&self, key: &str) -> Self {
        self.with(key, None)
    }

    fn with(&self, key: &str, value: Option<Arc<str>>) -> Self {
        Self(Some(Arc::new(Link {
            key: key.into(),
            value,
            parent: self.clone(),
            length: 1 + self.0.as_ref().map_or(0, |link| link.length),
            index: OnceLock::new(),
        })))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        for link in self.links() {
            if &*link.key == key {
                return link.value.as_deref();
            }
            if link.length.is_multiple_of(LINKS_BEFORE_INDEX) {
                return link.indexed().get(key)?.as_deref();
            }
        }
        None
    }

    /// All pairs, each at the position where its key was last set.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let mut keys: HashSet<&str> = HashSet::new();
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for link in self.links() {
            if keys.insert(&link.key)
                && let Some(value) = &link.value
            {
                pairs.push((&link.key, value));
            }
        }
        pairs.reverse();
        pairs
    }

    /// The keys, in the order of [`Env::pairs`].
    pub fn keys(&self) -> Vec<&str> {
        self.pairs().into_iter().map(|(key, _)| key).collect()
    }

    /// `KEY=value` texts.
    pub fn to_vec(&self) -> Vec<String> {
        self.pairs()
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    }

    /// The keys as a set.
    pub fn key_set(&self) -> BTreeSet<String> {
        self.keys().into_iter().map(str::to_owned).collect()
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        std::iter::successors(self.0.as_deref(), |link| link.parent.0.as_deref())
    }
}

impl Link {
    fn indexed(&self) -> &Index {
        self.index.get_or_init(|| {
            let mut index = Index::new();
            for link in std::iter::successors(Some(self), |link| link.parent.0.as_deref()) {
                let value = || link.value.clone();
                index.entry(Arc::clone(&link.key)).or_insert_with(value);
            }
            Box::new(index)
        })
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.to_vec()).finish()
    }
}

impl Drop for Link {
    // A chain is as long as its Dockerfile, so it is dropped without recursion.
    fn drop(&mut self) {
        let mut next = self.parent.0.take();
        while let Some(link) = next {
            match Arc::into_inner(link) {
                Some(mut link) => next = link.parent.0.take(),
                None => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Env;

    #[test]
    fn setting_a_key_again_moves_it_to_the_end() {
        let env = Env::default().set("A", "1").set("B", "2").set("A", "3");
        assert_eq!(env.to_vec(), ["B=2", "A=3"]);
        assert_eq!(env.unset("B").to_vec(), ["A=3"]);
        assert_eq!(env.unset("A").get("A"), None);
    }

    #[test]
    fn long_chains_are_dropped_without_recursion() {
        let mut env = Env::default();
        for i in 0..200_000 {
            env = env.set("K", &i.to_string());
        }
        assert_eq!(env.get("K"), Some("199999"));
    }
}
