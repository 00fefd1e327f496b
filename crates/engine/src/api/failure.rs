//! The failure of a call, in types of the domain.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use attest::IncompleteMaterial;
use bytes::Bytes;
use frontend::BridgeError;
use llb::pb;
use oci::{Digest, ErrorKind};

/// The class of a failure, by which clients' programs decide. `control` turns each into the gRPC code of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailureKind {
    /// No class fits, or clients expect none: a step that failed, a bad Dockerfile.
    #[default]
    Unknown,
    /// The build was cancelled.
    Canceled,
    /// The request is wrong.
    InvalidArgument,
    /// A deadline passed.
    DeadlineExceeded,
    /// The named thing does not exist.
    NotFound,
    /// The thing to be created exists already.
    AlreadyExists,
    /// The caller lacks the right.
    PermissionDenied,
    /// The disk or another resource is used up.
    ResourceExhausted,
    /// The daemon does not do this.
    Unimplemented,
    /// An invariant of the daemon is broken.
    Internal,
    /// The daemon is stopping.
    Unavailable,
}

impl FailureKind {
    /// The class with which a call other than `Solve` fails for an error of this kind.
    #[must_use]
    pub fn of_call(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Failed | ErrorKind::Hostile | ErrorKind::System => Self::Unknown,
            ErrorKind::Invalid => Self::InvalidArgument,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Exists => Self::AlreadyExists,
            ErrorKind::Denied => Self::PermissionDenied,
            ErrorKind::Exhausted => Self::ResourceExhausted,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::TimedOut => Self::DeadlineExceeded,
            ErrorKind::Cancelled => Self::Canceled,
            ErrorKind::Unsupported => Self::Unimplemented,
            ErrorKind::Bug => Self::Internal,
        }
    }

    /// The class with which a build fails for an error of this kind.
    ///
    /// The reference answers most of them as unknown (`grpcerrors.Code`: only errors that carry a code, and those of a system
    /// that is used up, have another), and its clients print every other code before the sentence.
    #[must_use]
    pub fn of_build(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Failed
            | ErrorKind::Invalid
            | ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::Denied
            | ErrorKind::Hostile
            | ErrorKind::Unavailable
            | ErrorKind::TimedOut
            | ErrorKind::System => Self::Unknown,
            ErrorKind::Exhausted => Self::ResourceExhausted,
            ErrorKind::Cancelled => Self::Canceled,
            ErrorKind::Unsupported => Self::Unimplemented,
            ErrorKind::Bug => Self::Internal,
        }
    }

    /// The kind of error that stands for a class, where only the class is known.
    fn cause(self) -> ErrorKind {
        match self {
            Self::Unknown => ErrorKind::Failed,
            Self::Canceled => ErrorKind::Cancelled,
            Self::InvalidArgument => ErrorKind::Invalid,
            Self::DeadlineExceeded => ErrorKind::TimedOut,
            Self::NotFound => ErrorKind::NotFound,
            Self::AlreadyExists => ErrorKind::Exists,
            Self::PermissionDenied => ErrorKind::Denied,
            Self::ResourceExhausted => ErrorKind::Exhausted,
            Self::Unimplemented => ErrorKind::Unsupported,
            Self::Internal => ErrorKind::Bug,
            Self::Unavailable => ErrorKind::Unavailable,
        }
    }
}

/// The failure of a call: the error with all its causes, and facts that clients print or act on.
///
/// The sentence is rendered where it leaves: as a client's status, as a line of the log, in a record.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", oci::error::chain(source.as_ref()))]
pub struct Failure {
    /// The class that the client's program sees.
    pub kind: FailureKind,
    /// The kind of error on this side: it decides who has to look at it, and the level in the log.
    pub cause: ErrorKind,
    /// The error, shared by all who wait for the same result.
    source: Arc<dyn Error + Send + Sync>,
    /// The facts, from the outermost to the innermost.
    pub details: Vec<Detail>,
}

/// An error with what was being done when it came.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", oci::error::chain(source.as_ref()))]
struct During {
    what: String,
    source: Arc<dyn Error + Send + Sync>,
}

impl Failure {
    /// A failure of a kind, without facts. `error` is the error, or a sentence where there is none.
    #[must_use]
    pub fn new(kind: FailureKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            cause: kind.cause(),
            source: Arc::from(error.into()),
            details: Vec::new(),
        }
    }

    /// The failure of a call, from its error and the kind of that.
    #[must_use]
    pub fn of_call(cause: ErrorKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            cause,
            ..Self::new(FailureKind::of_call(cause), error)
        }
    }

    /// The failure of a build, from its error and the kind of that.
    #[must_use]
    pub fn of_build(cause: ErrorKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            cause,
            ..Self::new(FailureKind::of_build(cause), error)
        }
    }

    /// The failure behind an error of a frontend's bridge: the engine's own one, unless the bridge made the error itself.
    #[must_use]
    pub fn of_bridge(error: &BridgeError) -> Self {
        match error.inner().downcast_ref::<Self>() {
            Some(failure) => failure.clone(),
            None => Self::of_call(error.kind(), error.clone()),
        }
    }

    /// A feature that is not built; the sentence names it.
    #[must_use]
    pub fn not_built(feature: &str) -> Self {
        Self::new(
            FailureKind::Unimplemented,
            format!("{feature} is not supported by this daemon"),
        )
    }

    /// The sentence with all causes, as clients show it.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The error, for those who look for its type among the causes.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.source
    }

    /// Puts what was being done before the sentence: `what: sentence`.
    #[must_use]
    pub fn during(mut self, what: impl Into<String>) -> Self {
        self.source = Arc::new(During {
            what: what.into(),
            source: self.source,
        });
        self
    }

    /// The same class and facts with another error, which contains the former one or replaces it.
    #[must_use]
    pub fn with_error(mut self, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Arc::from(error.into());
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, detail: Detail) -> Self {
        self.details.push(detail);
        self
    }
}

impl From<Failure> for BridgeError {
    /// Frontends have to tell apart that a file or its owner is missing; clients of the API see less.
    fn from(failure: Failure) -> Self {
        let kind = if failure.kind == FailureKind::Unknown {
            failure.cause
        } else {
            failure.kind.cause()
        };
        Self::new(kind, failure)
    }
}

/// A fact on a failure.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Detail {
    /// The vertex that failed.
    Vertex {
        /// Digest of the op as the client sent it.
        digest: Digest,
    },
    /// The place in the user's files; clients print these lines.
    Source {
        /// The file, with its text.
        info: pb::SourceInfo,
        /// Lines of that file, from the innermost construct outwards.
        ranges: Vec<pb::Range>,
    },
    /// The op that failed and what it worked on.
    Solve {
        /// Refs of the inputs, usable in later requests of the build.
        inputs: Vec<String>,
        /// Refs of the mounts as the step left them.
        mounts: Vec<String>,
        /// The op, as the client sent it.
        op: Option<Box<pb::Op>>,
        /// The vertex's description from the definition's metadata.
        description: BTreeMap<String, String>,
        /// Index of the file action that failed, in the op.
        file_action: Option<i64>,
        /// Index of the input whose content could not be digested.
        content_input: Option<i64>,
    },
    /// The exit code of a process.
    Exit {
        /// Exit code as the kernel gives it; 128 and the signal's number for a killed process.
        code: u32,
    },
    /// The frontend that failed.
    Frontend {
        /// Name as requested, such as `dockerfile.v0`.
        name: String,
        /// Reference of the image that the frontend came from; empty for the built-in one.
        source: String,
    },
    /// A capability that the build asks for and the frontend lacks.
    FrontendCap {
        /// Capability as written in the request.
        name: String,
    },
    /// A subrequest that the frontend lacks.
    Subrequest {
        /// Value of the option `requestid`.
        name: String,
    },
    /// A feature that the requested compatibility version lacks.
    CompatibilityFeature {
        /// Compatibility version of the request.
        version: i64,
        /// Name of the feature.
        feature: String,
    },
    /// Sources and requests without a digest, in a build that demands provenance with all materials.
    IncompleteMaterials {
        /// One entry per source or request of a step.
        materials: Vec<IncompleteMaterial>,
    },
    /// A detail of a client's own error, passed on as it came.
    Raw {
        /// Type URL of the `google.protobuf.Any`.
        type_url: String,
        /// Encoded message.
        value: Bytes,
    },
}
