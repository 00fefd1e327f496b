//! The traits of sources, and the table of schemes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use oci::{Digest, Platform};
use store::{BlobProvider, ImmutableRef};

use crate::context::Context;
use crate::error::SourceError;

/// What names an instance's content.
#[derive(Debug, Clone)]
pub struct CacheKey {
    /// The key, in BuildKit's form: a digest, a commit with suffixes, or `session:<name>:<digest>`.
    pub key: String,
    /// What the source was pinned to, for provenance: a digest or commit.
    pub pin: String,
    /// Whether this is the last key there is.
    pub is_last: bool,
    /// Who can fetch the lazy layers of the snapshot; to be attached when a cached result is loaded.
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

/// One kind of root.
pub trait Source: fmt::Debug + Send + Sync {
    /// The schemes it reads, without `://`.
    fn schemes(&self) -> &'static [&'static str];

    /// Reads an identifier (what stands behind `://`) and its attributes. Nothing is contacted.
    fn resolve(
        &self,
        scheme: &str,
        reference: &str,
        attrs: &BTreeMap<String, String>,
        platform: Option<&Platform>,
    ) -> Result<Arc<dyn SourceInstance>, SourceError>;
}

/// What is fixed about a source, for those who want to know without having its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Facts {
    /// Nothing before it is read.
    #[default]
    None,
    /// Of a download.
    Http {
        /// The content.
        digest: Digest,
        /// The name the file gets.
        filename: String,
        /// When it was changed, in seconds since 1970, if the server says.
        modified: Option<i64>,
    },
    /// Of a repository.
    Git {
        /// The object that the reference names.
        object: String,
        /// The full name of the reference, or a commit.
        reference: String,
        /// The commit, if the object is a tag.
        commit: String,
        /// The commit object's bytes, if they were asked for.
        commit_object: Vec<u8>,
        /// The tag object's bytes, if they were asked for and there is one.
        tag_object: Vec<u8>,
    },
}

/// One root of one graph.
#[async_trait]
pub trait SourceInstance: fmt::Debug + Send + Sync {
    /// Returns key number `index`; index 0 exists always.
    async fn cache_key(&self, ctx: &Context, index: usize) -> Result<CacheKey, SourceError>;

    /// Returns what is fixed about it; objects of repositories if they are asked for.
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
    /// No sources.
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

    /// Reads `scheme://reference`.
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
