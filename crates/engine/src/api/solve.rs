//! One build: what is asked for, who is asked meanwhile, and what it gives.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::bridge::{ResolveOpts, SourceMeta};
use frontend::{Bridge, Frontend};
use llb::pb;

use super::{BuildRef, Detail, Failure, SessionId, TraceContext};

/// One build.
#[derive(Clone, Default)]
pub struct SolveRequest {
    /// The client's name for the build.
    pub build: BuildRef,
    /// The session that asked.
    pub session: SessionId,
    /// What to solve.
    pub input: SolveInput,
    /// Options of the frontend.
    pub frontend_opts: BTreeMap<String, String>,
    /// Definitions handed over to the frontend.
    pub frontend_inputs: BTreeMap<String, Arc<pb::Definition>>,
    /// What to do with the result, in order; the position is the exporter's number for the session.
    pub exporters: Vec<ExporterSpec>,
    /// Set if the session is to be asked for further exporters when the result is there: lets the client look into the result
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
    /// A client that is asked for a verdict on each source, if one is.
    pub policy_verifier: Option<Arc<dyn PolicyVerifier>>,
    /// The span of the client that the build is a part of.
    pub trace: Option<TraceContext>,
    /// Whether others are told of the build.
    pub recording: Recording,
    /// Which behaviour is wanted; zero is the current one.
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

/// What is solved: exactly one of these.
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

/// Whether others are told of a build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recording {
    /// It has a record, and listeners hear of it.
    #[default]
    Recorded,
    /// It is one of the client's own, such as a look at options: no listener hears of it.
    Internal,
}

/// Asks a client for a verdict on sources.
#[async_trait]
pub trait PolicyVerifier: Send + Sync {
    /// Asks about one source.
    async fn check(&self, question: PolicyQuestion) -> Result<PolicyVerdict, Failure>;
}

/// A source to be judged, and what is known of it.
#[derive(Debug, Clone)]
pub struct PolicyQuestion {
    /// The platform that it is wanted for.
    pub platform: Option<pb::Platform>,
    /// The source.
    pub source: SourceMeta,
}

/// What a client says of a source.
#[derive(Debug, Clone)]
pub enum PolicyVerdict {
    /// It may be used.
    Allow,
    /// Another is to be used instead.
    Convert(Option<pb::SourceOp>),
    /// It may not be used.
    Deny {
        /// The word for the verdict.
        action: String,
        /// The reasons, as a fact on the failure.
        details: Option<Detail>,
    },
    /// More must be known first.
    Resolve {
        /// The source to resolve; the same one.
        source: pb::SourceOp,
        /// How.
        opts: Box<ResolveOpts>,
    },
}

/// Gives names to the refs of a result, under which the client may read their files.
pub trait ResultHost: Send + Sync {
    /// Returns the names in order, and what keeps them valid.
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
    /// Its attributes.
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
    /// Its attributes.
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

/// What a build gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SolveResponse {
    /// What the exporters say, such as `containerimage.digest`.
    pub exporter_response: BTreeMap<String, String>,
}
