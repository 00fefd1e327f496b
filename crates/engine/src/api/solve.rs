//! One build: what is asked for, who is asked meanwhile, and what it gives.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::bridge::{ResolveOpts, SourceMeta};
use frontend::{Bridge, Frontend};
use llb::pb;

use super::{Detail, Failure};

/// One build.
#[derive(Clone, Default)]
pub struct SolveRequest {
    /// The client's name for the build.
    pub build: String,
    /// The session that asked.
    pub session: String,
    /// What to solve, if there is no frontend.
    pub definition: Option<Arc<pb::Definition>>,
    /// Which frontend, such as `dockerfile.v0`; empty for none.
    pub frontend: String,
    /// The frontend that runs in the client. Set when there is neither `definition` nor `frontend`.
    pub client_frontend: Option<Arc<dyn Frontend>>,
    /// Options of the frontend.
    pub frontend_opts: BTreeMap<String, String>,
    /// Definitions handed over to the frontend.
    pub frontend_inputs: BTreeMap<String, Arc<pb::Definition>>,
    /// What to do with the result, in order; the position is the exporter's number for the session.
    pub exporters: Vec<ExporterSpec>,
    /// Whether to ask the session for further exporters when the result is there.
    pub session_exporters: bool,
    /// Remote caches to write.
    pub cache_exports: Vec<CacheSpec>,
    /// Remote caches to read.
    pub cache_imports: Vec<CacheSpec>,
    /// Entitlements that the client grants, such as `network.host`.
    pub entitlements: Vec<String>,
    /// An encoded `moby.buildkit.v1.sourcepolicy.Policy`.
    pub source_policy: Option<Bytes>,
    /// The session that is asked for a verdict on each source; empty for none.
    pub source_policy_session: String,
    /// Asks that session. Set when there is one.
    pub policy_verifier: Option<Arc<dyn PolicyVerifier>>,
    /// Lets the client look into the result while its session chooses exporters.
    pub result_host: Option<Arc<dyn ResultHost>>,
    /// Whether the build is one of the client's own, not to be recorded.
    pub internal: bool,
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
            .field("frontend", &self.frontend)
            .field("frontend_opts", &self.frontend_opts.keys())
            .field("exporters", &self.exporters)
            .finish_non_exhaustive()
    }
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
