//! Where keys and results are kept.
//!
//! Keys form a graph. A *root key* has the id [`root_key`](crate::root_key)`(digest, output)`; any other has a random
//! id and is found over links: from the key of an input, by (input index, output index, digest of the op, selector), to
//! the key of the op's output. Results hang on keys. A key without results and without links to others is dropped, and
//! so are, then, the keys that only led to it.

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use oci::Digest;

use crate::domain::Domain;
use crate::domain::error::KeyStoreError;
use crate::domain::op::OpCtx;

/// The label on the way from the key of an input to the key of an output.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    /// Which input.
    pub input: usize,
    /// Which output.
    pub output: usize,
    /// Digest of the op's cache map.
    pub digest: Digest,
    /// What of the input is read.
    pub selector: Option<Digest>,
}

/// A result as the key store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoredResult {
    /// What the result storage calls it.
    pub id: String,
    /// When it was made.
    pub created_at: SystemTime,
}

/// Keeps keys, links and the names of results. BuildKit's `CacheKeyStorage`, with one call more for a transaction.
pub trait KeyStore: Send + Sync + fmt::Debug {
    /// Whether a key has results or leads to others.
    fn exists(&self, key: &str) -> Result<bool, KeyStoreError>;
    /// All keys.
    fn keys(&self) -> Result<Vec<String>, KeyStoreError>;
    /// The results of a key.
    fn results(&self, key: &str) -> Result<Vec<StoredResult>, KeyStoreError>;
    /// One result of a key.
    fn load(&self, key: &str, result: &str) -> Result<Option<StoredResult>, KeyStoreError>;
    /// Hangs a result on a key.
    fn add_result(&self, key: &str, result: &StoredResult) -> Result<(), KeyStoreError>;
    /// Takes a result from all keys and drops keys that are of no use without it.
    fn release(&self, result: &str) -> Result<(), KeyStoreError>;
    /// The keys that a result hangs on.
    fn keys_of_result(&self, result: &str) -> Result<Vec<String>, KeyStoreError>;
    /// Adds a way from `key` to `target`.
    fn add_link(&self, key: &str, link: &Link, target: &str) -> Result<(), KeyStoreError>;
    /// Where a link leads.
    fn links(&self, key: &str, link: &Link) -> Result<Vec<String>, KeyStoreError>;
    /// Whether a way exists.
    fn has_link(&self, key: &str, link: &Link, target: &str) -> Result<bool, KeyStoreError>;
    /// The ways that lead to `key`: the key they come from, and the link with its digest replaced by
    /// `root_key(digest, output)` and its output by 0.
    fn backlinks(&self, key: &str) -> Result<Vec<(String, Link)>, KeyStoreError>;

    /// Hangs a result on a key and adds the ways to it, in one transaction where there are such.
    fn save(
        &self,
        key: &str,
        result: &StoredResult,
        links: &[(String, Link, String)],
    ) -> Result<(), KeyStoreError> {
        self.add_result(key, result)?;
        for (from, link, to) in links {
            self.add_link(from, link, to)?;
        }
        Ok(())
    }
}

/// Turns results into names and names into results.
#[async_trait]
pub trait ResultStorage<D: Domain>: Send + Sync {
    /// Whether a result can still be loaded. Asked for every key that is found: should be quick.
    fn exists(&self, id: &str) -> bool;
    /// Whether there is anything in a result that a cache could keep; the empty tree has no layers.
    fn has_layers(&self, _id: &str) -> bool {
        true
    }
    /// Gives a result a name under which it survives.
    fn save(
        &self,
        result: &D::Result,
        created_at: SystemTime,
    ) -> Result<StoredResult, KeyStoreError>;
    /// Returns the result with the name. `ctx` has the options of cache maps of the vertex and all below it.
    async fn load(&self, result: &StoredResult, ctx: &OpCtx<D>)
    -> Result<D::Result, KeyStoreError>;
    /// Returns the result and those of keys that it implies (a remote cache's parent layers), by key id; the result of
    /// `key` itself must be among them. Only storages whose results are not here yet have more than one.
    async fn load_with_parents(
        &self,
        key: &str,
        result: &StoredResult,
        ctx: &OpCtx<D>,
    ) -> Result<Vec<(String, D::Result)>, KeyStoreError> {
        let own = self.load(result, ctx).await?;
        Ok(vec![(key.to_owned(), own)])
    }
}
