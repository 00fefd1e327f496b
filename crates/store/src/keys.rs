//! The solver's cache keys and the names of results, in the same database as the results themselves.
//!
//! All writes are lazy: they join the transaction that the next commit of a record completes, or the keeper's timer. A result
//! is the name of a record, so that deleting the record takes the keys that led only to it along, in one transaction.
//! The empty tree has the empty name.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use oci::Digest;
use rusqlite::{Connection, OptionalExtension, params};
use solver::{
    Domain, KeyLink, KeyStore, KeyStoreError, OpCtx, ResultStorage, StoredResult, root_key,
};

use crate::error::StoreError;
use crate::id::RefId;
use crate::key_rows::{index, put_link, put_result, release, stored, strings};
use crate::refs::ImmutableRef;
use crate::store::Store;

/// The result of an op: a record, or the empty tree.
pub type StoreResult = Option<ImmutableRef>;

/// The store as the solver's key store and result storage.
#[derive(Debug, Clone)]
struct SolverKeys {
    store: Arc<Store>,
}

impl Store {
    /// Returns where the solver keeps its keys.
    pub fn key_store(self: &Arc<Self>) -> Arc<dyn KeyStore> {
        Arc::new(SolverKeys {
            store: self.clone(),
        })
    }

    /// Returns where the solver keeps its results.
    pub fn result_storage<D: Domain<Result = StoreResult>>(
        self: &Arc<Self>,
    ) -> Arc<dyn ResultStorage<D>> {
        Arc::new(SolverKeys {
            store: self.clone(),
        })
    }
}

impl SolverKeys {
    fn read<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, KeyStoreError> {
        self.store.db().read(f).map_err(KeyStoreError::new)
    }

    fn later<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, KeyStoreError> {
        self.store.later(f).map_err(KeyStoreError::new)
    }
}

impl KeyStore for SolverKeys {
    fn exists(&self, key: &str) -> Result<bool, KeyStoreError> {
        self.read(|c| {
            let mut s = c.prepare_cached(
                "SELECT EXISTS(SELECT 1 FROM key_results WHERE key = ?1) OR EXISTS(SELECT 1 FROM key_links WHERE key = ?1)",
            )?;
            Ok(s.query_row([key], |r| r.get(0))?)
        })
    }

    fn keys(&self) -> Result<Vec<String>, KeyStoreError> {
        self.read(|c| {
            let mut s =
                c.prepare_cached("SELECT key FROM key_results UNION SELECT key FROM key_links")?;
            Ok(s.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?)
        })
    }

    fn results(&self, key: &str) -> Result<Vec<StoredResult>, KeyStoreError> {
        self.read(|c| {
            let mut s = c.prepare_cached(
                "SELECT result, created FROM key_results WHERE key = ?1 ORDER BY result",
            )?;
            Ok(s.query_map([key], stored)?.collect::<Result<_, _>>()?)
        })
    }

    fn load(&self, key: &str, result: &str) -> Result<Option<StoredResult>, KeyStoreError> {
        self.read(|c| {
            let mut s = c.prepare_cached(
                "SELECT result, created FROM key_results WHERE key = ?1 AND result = ?2",
            )?;
            Ok(s.query_row([key, result], stored).optional()?)
        })
    }

    fn add_result(&self, key: &str, result: &StoredResult) -> Result<(), KeyStoreError> {
        self.later(|c| put_result(c, key, result))
    }

    fn release(&self, result: &str) -> Result<(), KeyStoreError> {
        self.later(|c| release(c, result))
    }

    fn keys_of_result(&self, result: &str) -> Result<Vec<String>, KeyStoreError> {
        self.read(|c| {
            strings(
                c,
                "SELECT key FROM key_results WHERE result = ?1 ORDER BY key",
                result,
            )
        })
    }

    fn add_link(&self, key: &str, link: &KeyLink, target: &str) -> Result<(), KeyStoreError> {
        self.later(|c| put_link(c, key, link, target))
    }

    fn links(&self, key: &str, link: &KeyLink) -> Result<Vec<String>, KeyStoreError> {
        self.read(|c| {
            let mut s = c.prepare_cached(
                "SELECT target FROM key_links WHERE key = ?1 AND input = ?2 AND output = ?3 AND digest = ?4 AND selector = ?5
                 ORDER BY target",
            )?;
            let selector = link.selector.as_ref().map_or("", Digest::as_str);
            let args = params![key, index(link.input), index(link.output), link.digest.as_str(), selector];
            Ok(s.query_map(args, |r| r.get(0))?.collect::<Result<_, _>>()?)
        })
    }

    fn has_link(&self, key: &str, link: &KeyLink, target: &str) -> Result<bool, KeyStoreError> {
        self.read(|c| {
            let mut s = c.prepare_cached(
                "SELECT 1 FROM key_links WHERE key = ?1 AND input = ?2 AND output = ?3 AND digest = ?4 AND selector = ?5
                 AND target = ?6",
            )?;
            let selector = link.selector.as_ref().map_or("", Digest::as_str);
            Ok(s.exists(params![key, index(link.input), index(link.output), link.digest.as_str(), selector, target])?)
        })
    }

    fn backlinks(&self, key: &str) -> Result<Vec<(String, KeyLink)>, KeyStoreError> {
        self.read(|c| {
            let mut s = c.prepare_cached(
                "SELECT key, input, output, digest, selector FROM key_links WHERE target = ?1
                 ORDER BY key, input, output, digest, selector",
            )?;
            let mut rows = s.query([key])?;
            let mut out = Vec::new();
            while let Some(r) = rows.next()? {
                let (input, output): (i64, i64) = (r.get(1)?, r.get(2)?);
                let (digest, selector): (String, String) = (r.get(3)?, r.get(4)?);
                // Digests of keys may be of algorithms that name nothing we hash with, such as `random:`.
                let digest = root_key(&Digest::key(&digest), output);
                let selector = (!selector.is_empty()).then(|| Digest::key(&selector));
                out.push((
                    r.get(0)?,
                    KeyLink {
                        input: usize::try_from(input).unwrap_or(0),
                        output: 0,
                        digest,
                        selector,
                    },
                ));
            }
            Ok(out)
        })
    }

    fn save(
        &self,
        key: &str,
        result: &StoredResult,
        links: &[(String, KeyLink, String)],
    ) -> Result<(), KeyStoreError> {
        self.later(|c| {
            put_result(c, key, result)?;
            links
                .iter()
                .try_for_each(|(from, link, to)| put_link(c, from, link, to))
        })
    }
}

#[async_trait]
impl<D: Domain<Result = StoreResult>> ResultStorage<D> for SolverKeys {
    fn exists(&self, id: &str) -> bool {
        id.is_empty() || RefId::parse(id).is_ok_and(|id| self.store.exists(&id).unwrap_or(false))
    }

    fn has_layers(&self, id: &str) -> bool {
        !id.is_empty()
    }

    fn save(
        &self,
        result: &StoreResult,
        created_at: SystemTime,
    ) -> Result<StoredResult, KeyStoreError> {
        let id = result
            .as_ref()
            .map(|r| r.id().to_string())
            .unwrap_or_default();
        Ok(StoredResult { id, created_at })
    }

    /// A lazy layer that nobody can fetch any more is an error: the op that made it runs again, and brings a provider.
    async fn load(
        &self,
        result: &StoredResult,
        _ctx: &OpCtx<D>,
    ) -> Result<StoreResult, KeyStoreError> {
        if result.id.is_empty() {
            return Ok(None);
        }
        let (store, name) = (Arc::clone(&self.store), result.id.clone());
        let load = move || {
            let reference = store.get(&RefId::parse(&name)?)?;
            if !reference.is_reachable() {
                return Err(StoreError::Unfit {
                    id: reference.id().clone(),
                    why: "is lazy and nobody can fetch it",
                });
            }
            Ok(Some(reference))
        };
        task::blocking("load a result", load)
            .await
            .map_err(KeyStoreError::new)
    }
}
