//! The traits of exporters, and the table of their names.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use oci::{Descriptor, Digest};
use progress::Writer;
use store::{CompressionSpec, ImmutableRef, LayerBlob, Lease};

use crate::error::ExportError;
use crate::platforms::{PlatformEntry, platforms_of};

/// The results of a build, ready to be exported.
#[derive(Clone, Default)]
pub struct ExportSource {
    /// Results by platform id; `None` is an empty tree.
    pub refs: BTreeMap<String, Option<ImmutableRef>>,
    /// The result of a build that has one; `None` is an empty tree.
    pub single: Option<ImmutableRef>,
    /// The frontend's metadata: `containerimage.config[/<id>]`, `refs.platforms` and so on.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// Makes the attestations, if there are any.
    pub attester: Option<Arc<dyn Attester>>,
}

impl fmt::Debug for ExportSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportSource")
            .field("refs", &self.refs)
            .field("single", &self.single)
            .field("metadata", &self.metadata.keys())
            .field("attested", &self.attester.is_some())
            .finish()
    }
}

impl ExportSource {
    /// Whether there is a result for each of several platforms.
    #[must_use]
    pub fn is_map(&self) -> bool {
        !self.refs.is_empty()
    }

    /// The platforms of the results.
    pub fn platforms(&self) -> Result<Vec<PlatformEntry>, ExportError> {
        platforms_of(&self.metadata)
    }

    /// The result for a platform id; a map of one answers for any.
    pub fn find(&self, id: &str) -> Result<Option<&ImmutableRef>, ExportError> {
        if !self.is_map() {
            return Ok(self.single.as_ref());
        }
        match self.refs.get(id) {
            Some(reference) => Ok(reference.as_ref()),
            None if self.refs.len() == 1 => Ok(self.refs.values().next().and_then(Option::as_ref)),
            None => Err(ExportError::NoRef { id: id.to_owned() }),
        }
    }

    /// Metadata for a platform, else that for all.
    #[must_use]
    pub fn meta(&self, key: &str, id: Option<&str>) -> Option<&[u8]> {
        let of_platform = id.and_then(|id| self.metadata.get(&format!("{key}/{id}")));
        of_platform
            .or_else(|| self.metadata.get(key))
            .map(Vec::as_slice)
    }

    /// The results that are not empty.
    pub(crate) fn results(&self) -> impl Iterator<Item = &ImmutableRef> {
        self.single.iter().chain(self.refs.values().flatten())
    }
}

/// An in-toto statement.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The type of what it states, as `https://slsa.dev/provenance/v1`.
    pub predicate_type: String,
    /// The name of its file, where files are exported.
    pub file: String,
    /// The whole statement as JSON.
    pub bytes: Vec<u8>,
}

/// What a statement describes.
#[derive(Debug, Clone, Copy)]
pub enum About<'a> {
    /// An image.
    Image {
        /// The platform of the manifest.
        platform: &'a PlatformEntry,
        /// The descriptor of its manifest.
        manifest: &'a Descriptor,
        /// The names the image will have.
        names: &'a [String],
        /// The layers, base first.
        layers: &'a [LayerBlob],
    },
    /// Files, by path.
    Files(&'a [(String, Digest)]),
}

/// Makes attestations for what is exported.
#[async_trait]
pub trait Attester: Send + Sync {
    /// Whether there is a statement for a platform; with `in_images`, statements that only images carry count as well.
    fn attests(&self, platform_id: &str, in_images: bool) -> bool;

    /// The statements about the result of a platform: for an image all of them, for files those that are not for images
    /// only.
    async fn statements(
        &self,
        platform_id: &str,
        about: About<'_>,
    ) -> Result<Vec<Statement>, ExportError>;
}

/// Makes the cache records that are embedded in a config.
#[async_trait]
pub trait InlineCache: Send + Sync {
    /// The records for a platform id, if any.
    async fn entry(&self, platform_id: Option<&str>) -> Result<Option<Vec<u8>>, ExportError>;
}

/// What an exporter may use while it works for a build.
#[derive(Clone)]
pub struct ExportContext {
    /// The clients, the one that asked for the export first.
    pub sessions: session::Group,
    /// Progress of the exporter's vertex.
    pub progress: Writer,
    /// Cache records to embed.
    pub inline_cache: Option<Arc<dyn InlineCache>>,
}

impl fmt::Debug for ExportContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportContext")
            .field("inline_cache", &self.inline_cache.is_some())
            .finish_non_exhaustive()
    }
}

/// The part of an export that runs after every exporter has made its result: pushes.
#[async_trait]
pub trait Finalize: Send {
    /// Runs once; dropping it undone leaves what was pushed so far.
    async fn run(self: Box<Self>, ctx: &ExportContext) -> Result<(), ExportError>;
}

/// The outcome of an export.
#[derive(Default)]
pub struct Exported {
    /// The entries of the response to the client, as `containerimage.digest`.
    pub response: BTreeMap<String, String>,
    /// The root document, for the build record.
    pub descriptor: Option<Descriptor>,
    /// Protects the documents until the build record does.
    pub lease: Option<Lease>,
    /// The pushes, which run after all exporters of the build.
    pub finalize: Option<Box<dyn Finalize>>,
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exported")
            .field("response", &self.response)
            .field("descriptor", &self.descriptor)
            .finish_non_exhaustive()
    }
}

/// One kind of output.
pub trait Exporter: fmt::Debug + Send + Sync {
    /// The value of `type` that selects it: `image`, `oci`, `docker`, `local`, `tar`.
    fn kind(&self) -> &'static str;

    /// Reads the attributes of one output of a request; `id` is the output's index in it.
    fn resolve(
        &self,
        id: usize,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError>;
}

/// One output of one build.
#[async_trait]
pub trait ExporterInstance: fmt::Debug + Send + Sync {
    /// The index of this output in the request, from 0.
    fn id(&self) -> usize;

    /// The value of `type` in the request.
    fn kind(&self) -> &'static str;

    /// The name of its vertex, as `exporting to image`.
    fn name(&self) -> String;

    /// The attributes as they were given.
    fn attrs(&self) -> &BTreeMap<String, String>;

    /// How layers are to be compressed; `None` if the exporter makes no layers.
    fn compression(&self) -> Option<CompressionSpec>;

    /// Exports a result. Dropping the future stops it; what the client has by then stays with it.
    async fn export(
        &self,
        ctx: &ExportContext,
        source: &ExportSource,
    ) -> Result<Exported, ExportError>;
}

/// The exporters of a daemon, by name.
#[derive(Debug, Default, Clone)]
pub struct Exporters {
    by_kind: HashMap<&'static str, Arc<dyn Exporter>>,
}

impl Exporters {
    /// A table without exporters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an exporter under its kind, in place of one that had it.
    pub fn register(&mut self, exporter: Arc<dyn Exporter>) {
        self.by_kind.insert(exporter.kind(), exporter);
    }

    /// Reads the attributes for the exporter of a kind.
    pub fn resolve(
        &self,
        kind: &str,
        id: usize,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError> {
        let exporter = self.by_kind.get(kind).ok_or_else(|| ExportError::Kind {
            kind: kind.to_owned(),
        })?;
        exporter.resolve(id, attrs)
    }
}
