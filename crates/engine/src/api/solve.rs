//! One build: the request, the clients' services that it calls, and the response.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::bridge::{ResolveOpts, SourceMeta};
use frontend::{Bridge, Frontend};
use llb::pb;

use super::{BuildRef, Detail, Failure, SessionId, TraceContext};

/// A request for one build.
#[derive(Clone, Default)]
pub struct SolveRequest {
    /// The client's name for the build.
    pub build: BuildRef,
    /// The session of the client that requests the build.
    pub session: SessionId,
    /// What to solve.
    pub input: SolveInput,
    /// Options of the frontend.
    pub frontend_opts: BTreeMap<String, String>,
    /// Definitions handed over to the frontend.
    pub frontend_inputs: BTreeMap<String, Arc<pb::Definition>>,
    /// Exporters of the result, in order; the position is the exporter's number for the session.
    pub exporters: Vec<ExporterSpec>,
    /// Set if the session is to name further exporters when the result exists: lets the client look into the result while it
    /// while it chooses.
    pub session_exporters: Option<Arc<dyn ResultHost>>,
    /// Remote caches to write.
    pub cache_exports: Vec<CacheSpec>,
    /// Remote caches to read.
    pub cache_imports: Vec<CacheSpec>,
    /// Entitlements that the client grants, such as `network.host`.
    pub entitlements: Vec<String>,
    /// An encoded `moby.buildkit.v1.sourcepolicy.Policy`.
    pub source_policy: Option<Bytes>,
    /// The client's service that decides on each source, if it offers one.
    pub policy_verifier: Option<Arc<dyn PolicyVerifier>>,
    /// The span of the client that the build is a part of.
    pub trace: Option<TraceContext>,
    /// Whether the build gets a record that others can list.
    pub recording: Recording,
    /// BuildKit's compatibility version; zero is the current one.
    pub compatibility_version: i64,
    /// Whether steps reach the network through a proxy of the client only.
    pub proxy_network: bool,
}

impl fmt::Debug for SolveRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Options may hold credentials: only names are shown.
        f.debug_struct("SolveRequest")
            .field("build", &self.build)
            .field("session", &self.session)
            .field("input", &self.input)
            .field("frontend_opts", &self.frontend_opts.keys())
            .field("exporters", &self.exporters)
            .finish_non_exhaustive()
    }
}

/// The input of a build: exactly one of these.
#[derive(Clone)]
pub enum SolveInput {
    /// A definition; an empty one gives an empty result.
    Definition(Arc<pb::Definition>),
    /// A frontend of the daemon by name, such as `dockerfile.v0`.
    Frontend(String),
    /// A frontend that runs in the client.
    ClientFrontend(Arc<dyn Frontend>),
}

impl SolveInput {
    /// The name of the daemon's frontend; empty for anything else.
    #[must_use]
    pub fn frontend_name(&self) -> &str {
        match self {
            Self::Frontend(name) => name,
            Self::Definition(_) | Self::ClientFrontend(_) => "",
        }
    }
}

impl Default for SolveInput {
    fn default() -> Self {
        Self::Definition(Arc::default())
    }
}

impl fmt::Debug for SolveInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Definition(definition) => {
                let ops = definition.def.len();
                f.debug_struct("Definition").field("ops", &ops).finish()
            }
            Self::Frontend(name) => f.debug_tuple("Frontend").field(name).finish(),
            Self::ClientFrontend(_) => f.write_str("ClientFrontend"),
        }
    }
}

/// Whether a build is listed for others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recording {
    /// It has a record, and listeners are told of it.
    #[default]
    Recorded,
    /// It is one of the client's own, such as a look at options: no listener is told of it.
    Internal,
}

/// The client's service that decides on sources (`PolicyVerifier` of the session).
#[async_trait]
pub trait PolicyVerifier: Send + Sync {
    /// Asks about one source.
    async fn check(&self, question: PolicyQuestion) -> Result<PolicyVerdict, Failure>;
}

/// A source to be decided on, with the metadata resolved so far.
#[derive(Debug, Clone)]
pub struct PolicyQuestion {
    /// Platform that the source is resolved for.
    pub platform: Option<pb::Platform>,
    /// The source with its metadata.
    pub source: SourceMeta,
}

/// A client's decision on a source.
#[derive(Debug, Clone)]
pub enum PolicyVerdict {
    /// It may be used.
    Allow,
    /// The source is replaced by another, which is decided on again.
    Convert(Option<pb::SourceOp>),
    /// It may not be used.
    Deny {
        /// Name of the action, for the error.
        action: String,
        /// Reasons, as a detail of the failure.
        details: Option<Detail>,
    },
    /// The client needs more metadata before it decides.
    Resolve {
        /// The source to resolve; it must be the one in question.
        source: pb::SourceOp,
        /// Which metadata to resolve.
        opts: Box<ResolveOpts>,
    },
}

/// Makes the refs of a result readable for the client, each under a name.
pub trait ResultHost: Send + Sync {
    /// Returns the names in the order of `refs`, and a guard that keeps them valid.
    fn host(
        &self,
        bridge: Arc<dyn Bridge>,
        refs: Vec<Arc<dyn frontend::Ref>>,
    ) -> (Vec<String>, Box<dyn std::any::Any + Send>);
}

/// An exporter and its attributes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExporterSpec {
    /// `image`, `oci`, `docker`, `local`, `tar`, ….
    pub kind: String,
    /// Attributes of that kind.
    pub attrs: BTreeMap<String, String>,
}

impl fmt::Debug for ExporterSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExporterSpec")
            .field("kind", &self.kind)
            .field("attrs", &self.attrs.keys())
            .finish()
    }
}

/// A remote cache and its attributes, which may hold credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CacheSpec {
    /// `registry`, `inline`, `local`, `gha`, `s3`, `azblob`, ….
    pub kind: String,
    /// Attributes of that kind; they may hold credentials.
    pub attrs: BTreeMap<String, String>,
}

impl fmt::Debug for CacheSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheSpec")
            .field("kind", &self.kind)
            .field("attrs", &self.attrs.keys())
            .finish()
    }
}

/// The result of a build for its client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SolveResponse {
    /// Answers of the exporters, such as `containerimage.digest`.
    pub exporter_response: BTreeMap<String, String>,
}
