//! The stores of keys and results.
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

/// The label of a link from the key of an input to the key of an output.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyLink {
    /// Index of the input.
    pub input: usize,
    /// Index of the output.
    pub output: usize,
    /// Digest of the op's cache map.
    pub digest: Digest,
    /// Digest of the part of the input that is read; none for all of it.
    pub selector: Option<Digest>,
}

/// A result in a key store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoredResult {
    /// Id in the result storage.
    pub id: String,
    /// When the result was created.
    pub created_at: SystemTime,
}

/// Stores keys, links and ids of results. BuildKit's `CacheKeyStorage`, and one more call for a transaction.
pub trait KeyStore: Send + Sync + fmt::Debug {
    /// Whether a key has results or leads to others.
    fn exists(&self, key: &str) -> Result<bool, KeyStoreError>;
    /// The ids of all keys.
    fn keys(&self) -> Result<Vec<String>, KeyStoreError>;
    /// The results of a key.
    fn results(&self, key: &str) -> Result<Vec<StoredResult>, KeyStoreError>;
    /// One result of a key; none if it is not there.
    fn load(&self, key: &str, result: &str) -> Result<Option<StoredResult>, KeyStoreError>;
    /// Adds a result to a key.
    fn add_result(&self, key: &str, result: &StoredResult) -> Result<(), KeyStoreError>;
    /// Removes a result from all keys, and removes keys that are useless without it.
    fn release(&self, result: &str) -> Result<(), KeyStoreError>;
    /// The keys that have a result.
    fn keys_of_result(&self, result: &str) -> Result<Vec<String>, KeyStoreError>;
    /// Adds a link from `key` to `target`.
    fn add_link(&self, key: &str, link: &KeyLink, target: &str) -> Result<(), KeyStoreError>;
    /// The targets of a link.
    fn links(&self, key: &str, link: &KeyLink) -> Result<Vec<String>, KeyStoreError>;
    /// Whether a link exists.
    fn has_link(&self, key: &str, link: &KeyLink, target: &str) -> Result<bool, KeyStoreError>;
    /// The links that lead to `key`: the key at their start, and the link with its digest replaced by
    /// `root_key(digest, output)` and its output by 0.
    fn backlinks(&self, key: &str) -> Result<Vec<(String, KeyLink)>, KeyStoreError>;

    /// Adds a result to a key together with links to it, in one transaction if the store has transactions.
    fn save(
        &self,
        key: &str,
        result: &StoredResult,
        links: &[(String, KeyLink, String)],
    ) -> Result<(), KeyStoreError> {
        self.add_result(key, result)?;
        for (from, link, to) in links {
            self.add_link(from, link, to)?;
        }
        Ok(())
    }
}

/// Stores results under ids and loads them.
#[async_trait]
pub trait ResultStorage<D: Domain>: Send + Sync {
    /// Whether a result can still be loaded. Called for every key that is found, so it should be quick.
    fn exists(&self, id: &str) -> bool;
    /// Whether a result has layers that a cache could store; the empty tree has none.
    fn has_layers(&self, _id: &str) -> bool {
        true
    }
    /// Stores a result under an id.
    fn save(
        &self,
        result: &D::Result,
        created_at: SystemTime,
    ) -> Result<StoredResult, KeyStoreError>;
    /// Loads the result with an id. `ctx` has the hints of the vertex and of all below it.
    async fn load(&self, result: &StoredResult, ctx: &OpCtx<D>)
    -> Result<D::Result, KeyStoreError>;
    /// Loads the result and those of keys that it implies (a remote cache's parent layers), by key id; the result of
    /// `key` itself must be among them. Only storages of remote results return more than one.
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
