//! The interface between a frontend and the build that it runs in.
//!
//! ```text
//!   control/engine ──► Frontend::solve(bridge, request) ──► FrontendResult
//!                          │      ▲
//!                          ▼      │ Ref (lazy; read_file and evaluate run it)
//!                       Bridge::solve / resolve_source / warn
//! ```
//!
//! A [`Ref`] belongs to the engine. A frontend holds it, reads files through it and puts it into its result; `as_any`
//! gives the engine its own type back.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use llb::pb;
use oci::{Digest, ErrorKind, Platform, SessionId};

use crate::error::{BridgeError, FrontendError};
use crate::gateway::{Container, ContainerRequest};
pub use crate::reference::{FileRange, FileStat, Ref};

/// A program from build options to results: the built-in Dockerfile frontend, one from an image, or one in a client.
#[async_trait]
pub trait Frontend: Send + Sync {
    /// Runs the frontend to its result. Dropping the future cancels it.
    async fn solve(
        &self,
        bridge: Arc<dyn Bridge>,
        request: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError>;
}

/// The request that a frontend answers.
#[derive(Debug, Clone, Default)]
pub struct FrontendRequest {
    /// Options of the build as sent, such as `filename`, `target`, `build-arg:NAME`.
    pub opts: BTreeMap<String, String>,
    /// Definitions that the client hands over instead of sources, by name.
    pub inputs: BTreeMap<String, Arc<pb::Definition>>,
    /// The session of the client; local sources are read from it.
    pub session_id: SessionId,
}

/// The build that a frontend belongs to.
#[async_trait]
pub trait Bridge: Send + Sync {
    /// The workers of the daemon, first the default one.
    fn workers(&self) -> Vec<WorkerInfo>;

    /// Solves a definition or runs a frontend. With `evaluate` unset nothing is executed until a ref is used.
    async fn solve(&self, request: SolveRequest) -> Result<FrontendResult, BridgeError>;

    /// Resolves a source to what is fixed about it (digest, config, commit), applying source policies.
    async fn resolve_source(
        &self,
        source: pb::SourceOp,
        opts: ResolveOpts,
    ) -> Result<SourceMeta, BridgeError>;

    /// Shows the user a warning at vertex `vertex`.
    async fn warn(&self, vertex: &Digest, warning: Warning) -> Result<(), BridgeError>;

    /// Makes a container over refs of the build.
    async fn new_container(
        &self,
        request: ContainerRequest,
    ) -> Result<Arc<dyn Container>, BridgeError> {
        drop(request);
        Err(BridgeError::new(
            ErrorKind::Unsupported,
            "containers of frontends are not supported here",
        ))
    }

    /// The ref with the id that an error of this build names, such as a mount of a failed step.
    fn kept(&self, id: &str) -> Option<Arc<dyn Ref>> {
        let _ = id;
        None
    }
}

/// A solve within a build, as a frontend requests it.
#[derive(Debug, Clone, Default)]
pub struct SolveRequest {
    /// What to solve.
    pub input: SolveInput,
    /// Remote caches to import for this solve.
    pub cache_imports: Vec<CacheImport>,
    /// Compute all refs of the result before answering.
    pub evaluate: bool,
    /// Encoded `moby.buildkit.v1.sourcepolicy.Policy` messages.
    pub source_policies: Vec<Bytes>,
}

impl SolveRequest {
    /// Solves a definition, lazily and with nothing else.
    #[must_use]
    pub fn of_definition(definition: impl Into<Arc<pb::Definition>>) -> Self {
        Self {
            input: SolveInput::Definition(definition.into()),
            ..Self::default()
        }
    }
}

/// The input of a nested solve.
#[derive(Debug, Clone)]
pub enum SolveInput {
    /// A definition; an empty one gives an empty result.
    Definition(Arc<pb::Definition>),
    /// A frontend of the daemon.
    Frontend(FrontendCall),
}

impl Default for SolveInput {
    fn default() -> Self {
        Self::Definition(Arc::default())
    }
}

/// A call of a frontend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FrontendCall {
    /// Name of the frontend, such as `dockerfile.v0`; empty in the call of a request that names none.
    pub frontend: String,
    /// Options of the frontend.
    pub opts: BTreeMap<String, String>,
    /// Definitions that it takes instead of sources, by name.
    pub inputs: BTreeMap<String, Arc<pb::Definition>>,
}

/// A remote cache to import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheImport {
    /// `registry`, `local`, `gha`, ….
    pub kind: String,
    /// Attributes of that kind.
    pub attrs: BTreeMap<String, String>,
}

/// The result of a frontend or of a nested solve.
#[derive(Debug, Clone, Default)]
pub struct FrontendResult {
    /// The single result. `None` together with empty `refs` is the empty (scratch) result.
    pub single: Option<Arc<dyn Ref>>,
    /// Results by platform id or any name the frontend chose.
    pub refs: BTreeMap<String, Option<Arc<dyn Ref>>>,
    /// Values for exporters and clients, such as `containerimage.config`.
    pub metadata: BTreeMap<String, Bytes>,
    /// Attestations by the key of the ref they speak about.
    pub attestations: BTreeMap<String, Vec<Attestation>>,
    /// Further trees that an SBOM covers, by platform id. Only the built-in frontend sets them.
    pub scan: BTreeMap<String, ScanTargets>,
}

/// Trees beside the result that an SBOM covers: stages and build contexts.
#[derive(Debug, Clone, Default)]
pub struct ScanTargets {
    /// Definitions of the trees by name; an empty one is an empty tree.
    pub extras: BTreeMap<String, Arc<pb::Definition>>,
    /// Whether a part of the result was built without cache.
    pub ignore_cache: bool,
}

impl FrontendResult {
    /// The single ref, or an error when the result is a map.
    pub fn single_ref(&self) -> Result<Option<&Arc<dyn Ref>>, BridgeError> {
        if self.single.is_none() && !self.refs.is_empty() {
            return Err(BridgeError::message("invalid map result"));
        }
        Ok(self.single.as_ref())
    }
}

/// An attestation of a frontend about a ref.
#[derive(Debug, Clone, Default)]
pub struct Attestation {
    /// 0 in-toto statement, 1 bundle of statements (the gateway's numbers).
    pub kind: i32,
    /// Where the content is, if computed by the build.
    pub content: Option<Arc<dyn Ref>>,
    /// Path of the content inside `content`.
    pub path: String,
    /// in-toto predicate type.
    pub predicate_type: String,
    /// in-toto subjects: kind, name, digests.
    pub subjects: Vec<(i32, String, Vec<String>)>,
    /// Further values, such as `reason`.
    pub metadata: BTreeMap<String, Bytes>,
}

/// A worker as frontends see it.
#[derive(Debug, Clone, Default)]
pub struct WorkerInfo {
    /// Id of the worker, unique in the daemon.
    pub id: String,
    /// Labels of the worker, such as `org.mobyproject.buildkit.worker.executor`.
    pub labels: BTreeMap<String, String>,
    /// Platforms it builds for, first its own.
    pub platforms: Vec<Platform>,
}

/// How to resolve a source.
#[derive(Debug, Clone, Default)]
pub struct ResolveOpts {
    /// Name of the vertex shown while resolving; empty shows a default.
    pub log_name: String,
    /// Options for `docker-image://`.
    pub image: Option<ImageResolveOpts>,
    /// Options for `oci-layout://`.
    pub oci_layout: Option<OciLayoutResolveOpts>,
    /// For `git://`: return the commit and tag objects too.
    pub git_return_object: bool,
    /// For `http://`: also return a digest of the content followed by a suffix.
    pub http_checksum: Option<HttpChecksum>,
    /// Encoded source policies of this request.
    pub source_policies: Vec<Bytes>,
}

/// A further digest of a download.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpChecksum {
    /// `sha256`, `sha384` or `sha512`.
    pub algorithm: String,
    /// Bytes appended to the content before digesting.
    pub suffix: Bytes,
}

/// How to resolve an image. The booleans are independent options of the wire's `ResolveSourceImageRequest`.
#[derive(Debug, Clone, Default)]
pub struct ImageResolveOpts {
    /// Platform whose manifest is taken from an index; none for the worker's.
    pub platform: Option<Platform>,
    /// `default`, `pull` or `local`.
    pub resolve_mode: String,
    /// Whether only the digest is needed, not the config.
    pub no_config: bool,
    /// Whether attestation manifests are resolved too.
    pub attestation_chain: bool,
    /// Predicate types whose statements are resolved too.
    pub resolve_attestations: Vec<String>,
}

/// How to resolve an image in a client's OCI layout.
#[derive(Debug, Clone, Default)]
pub struct OciLayoutResolveOpts {
    /// Platform whose manifest is taken from an index; none for the worker's.
    pub platform: Option<Platform>,
    /// The session that serves the store.
    pub session_id: SessionId,
    /// The name of the store in that session.
    pub store_id: String,
}

/// Metadata of a resolved source.
#[derive(Debug, Clone, Default)]
pub struct SourceMeta {
    /// The source, changed by policy if one applied.
    pub op: pb::SourceOp,
    /// Set for images.
    pub image: Option<ImageMeta>,
    /// Set for git repositories.
    pub git: Option<GitMeta>,
    /// Set for downloads.
    pub http: Option<HttpMeta>,
}

/// A resolved image.
#[derive(Debug, Clone)]
pub struct ImageMeta {
    /// Digest of what the reference names (an index or a manifest).
    pub digest: Digest,
    /// The image config as stored.
    pub config: Bytes,
    /// Attestations of the image, if they were requested and the reference names an index.
    pub attestations: Option<AttestationChain>,
}

/// The attestations of an image, and the signatures of those.
#[derive(Debug, Clone)]
pub struct AttestationChain {
    /// The index that the reference names.
    pub root: Digest,
    /// The image's manifest.
    pub image_manifest: Digest,
    /// The manifest of the image's attestations.
    pub attestation_manifest: Option<Digest>,
    /// Manifests with signatures of the attestation manifest.
    pub signature_manifests: Vec<Digest>,
    /// The manifests and blobs that were read, by digest.
    pub blobs: BTreeMap<String, (oci::Descriptor, Bytes)>,
}

/// A resolved git source.
#[derive(Debug, Clone, Default)]
pub struct GitMeta {
    /// Object the ref names.
    pub checksum: String,
    /// Full name of the ref.
    pub reference: String,
    /// Commit, if the object is a tag.
    pub commit_checksum: String,
    /// Raw commit object.
    pub commit_object: Bytes,
    /// Raw tag object.
    pub tag_object: Bytes,
}

/// A resolved http source.
#[derive(Debug, Clone)]
pub struct HttpMeta {
    /// Digest of the content.
    pub digest: Digest,
    /// Name of the file that the download becomes.
    pub filename: String,
    /// Last-Modified in seconds since the epoch.
    pub last_modified: Option<i64>,
    /// The requested further digest, and the suffix that it covers.
    pub checksum: Option<(String, Bytes)>,
}

/// A warning for the user.
#[derive(Debug, Clone, Default)]
pub struct Warning {
    /// Importance; 1 is usual.
    pub level: i64,
    /// The warning in one line.
    pub short: Bytes,
    /// Further lines of explanation.
    pub detail: Vec<Bytes>,
    /// Address of documentation.
    pub url: String,
    /// The file that the warning is about.
    pub source_info: Option<pb::SourceInfo>,
    /// Lines of that file.
    pub ranges: Vec<pb::Range>,
}
