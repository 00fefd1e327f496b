//! The traits of sources, and the table of schemes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use oci::{Digest, Platform};
use store::{BlobProvider, ImmutableRef};

use crate::context::Context;
use crate::error::SourceError;

/// A cache key of a source, and what goes with it.
#[derive(Debug, Clone)]
pub struct CacheKey {
    /// The key, in BuildKit's form: a digest, a commit with suffixes, or `session:<name>:<digest>`.
    pub key: String,
    /// What the source was pinned to, for provenance: a digest or commit.
    pub pin: String,
    /// Whether the source has no further keys.
    pub is_last: bool,
    /// Providers of the snapshot's lazy layers, by blob: a result that is loaded from the cache needs them.
    pub layers: Vec<(Digest, Arc<dyn BlobProvider>)>,
}

impl CacheKey {
    /// A last key without lazy layers.
    pub fn new(key: impl Into<String>, pin: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            pin: pin.into(),
            is_last: true,
            layers: Vec::new(),
        }
    }
}

/// One kind of source; it reads the identifiers of its schemes.
pub trait Source: fmt::Debug + Send + Sync {
    /// The schemes that it reads, without `://`.
    fn schemes(&self) -> &'static [&'static str];

    /// Parses the part of an identifier after `://` and its attributes. No host is contacted.
    fn resolve(
        &self,
        scheme: &str,
        reference: &str,
        attrs: &BTreeMap<String, String>,
        platform: Option<&Platform>,
    ) -> Result<Arc<dyn SourceInstance>, SourceError>;
}

/// What a source resolves to, known without its files: for source policies and metadata requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Facts {
    /// Nothing is known before the source is read.
    #[default]
    None,
    /// A download.
    Http {
        /// The digest of the content.
        digest: Digest,
        /// The name the file gets.
        filename: String,
        /// `Last-Modified` in seconds since 1970, if the server sends it.
        modified: Option<i64>,
    },
    /// A git repository.
    Git {
        /// The object that the reference names.
        object: String,
        /// The full name of the reference, or a commit.
        reference: String,
        /// The commit, if the object is a tag.
        commit: String,
        /// The commit object's bytes; empty unless requested.
        commit_object: Vec<u8>,
        /// The tag object's bytes; empty unless requested, or without a tag.
        tag_object: Vec<u8>,
    },
}

/// One source of one definition.
#[async_trait]
pub trait SourceInstance: fmt::Debug + Send + Sync {
    /// Returns key number `index`; index 0 exists always.
    async fn cache_key(&self, ctx: &Context, index: usize) -> Result<CacheKey, SourceError>;

    /// Returns what the source resolves to; with `objects`, the objects of a repository as well.
    async fn facts(&self, _ctx: &Context, _objects: bool) -> Result<Facts, SourceError> {
        Ok(Facts::None)
    }

    /// Makes the snapshot; `None` stands for the empty tree (an image without layers).
    async fn snapshot(&self, ctx: &Context) -> Result<Option<ImmutableRef>, SourceError>;
}

/// The sources of a daemon, by scheme.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    by_scheme: HashMap<&'static str, Arc<dyn Source>>,
}

impl Sources {
    /// A table without sources.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source for all its schemes.
    pub fn register(&mut self, source: Arc<dyn Source>) {
        for scheme in source.schemes() {
            self.by_scheme.insert(scheme, source.clone());
        }
    }

    /// Parses `scheme://reference` with the source of the scheme.
    pub fn resolve(
        &self,
        identifier: &str,
        attrs: &BTreeMap<String, String>,
        platform: Option<&Platform>,
    ) -> Result<Arc<dyn SourceInstance>, SourceError> {
        let (scheme, reference) =
            identifier
                .split_once("://")
                .ok_or_else(|| SourceError::Identifier {
                    identifier: identifier.to_owned(),
                })?;
        let source = self
            .by_scheme
            .get(scheme)
            .ok_or_else(|| SourceError::Scheme {
                scheme: scheme.to_owned(),
            })?;
        source.resolve(scheme, reference, attrs, platform)
    }
}
