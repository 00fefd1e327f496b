//! Why a client could not be asked, or did not answer.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use oci::ErrorKind;
use oci::error::chain;

/// Why a transfer may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// Lists of files that take too much memory.
    #[error(
        "the files that this session lists take more than {} MiB of memory: leave out what the build does not need, with .dockerignore",
        limit >> 20
    )]
    Memory {
        /// The bound in bytes.
        limit: u64,
    },
    /// Too much on disk.
    #[error(
        "this session sends more than the {} MB that it may: leave out what the build does not need with .dockerignore, or raise `context.maxSize` of the daemon",
        limit / 1_000_000
    )]
    Written {
        /// The bound in bytes.
        limit: u64,
    },
}

/// gRPC's numbers, as far as callers tell them apart.
pub mod code {
    /// The caller went away.
    pub const CANCELLED: i32 = 1;
    /// No better number is known.
    pub const UNKNOWN: i32 = 2;
    /// The request makes no sense.
    pub const INVALID_ARGUMENT: i32 = 3;
    /// It took too long.
    pub const DEADLINE_EXCEEDED: i32 = 4;
    /// What was asked for is not there.
    pub const NOT_FOUND: i32 = 5;
    /// What was to be made is there already.
    pub const ALREADY_EXISTS: i32 = 6;
    /// The caller may not do this.
    pub const PERMISSION_DENIED: i32 = 7;
    /// The client does not have this service.
    pub const UNIMPLEMENTED: i32 = 12;
    /// A broken invariant.
    pub const INTERNAL: i32 = 13;
    /// The connection is gone.
    pub const UNAVAILABLE: i32 = 14;
    /// The caller has not logged in.
    pub const UNAUTHENTICATED: i32 = 16;
}

/// Why one call of a client failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The client did not list the method when it connected.
    #[error("method {method} not supported by the client")]
    Unsupported {
        /// The method.
        method: &'static str,
    },
    /// The client serves no local folders.
    #[error("no local sources enabled")]
    NoLocalSources,
    /// The client answered with an error.
    #[error("{message}")]
    Status {
        /// gRPC's number.
        code: i32,
        /// The client's sentence.
        message: String,
        /// An encoded `google.rpc.Status` with typed details, or nothing.
        details: Bytes,
    },
    /// The session ended before the call did.
    #[error("session {id} ended")]
    Ended {
        /// The session.
        id: String,
    },
    /// The client did not begin to send in time.
    #[error(
        "unexpected answer of the client to {method}: the client did not begin to send within {seconds} seconds"
    )]
    NotBegun {
        /// What was called.
        method: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The client stopped sending.
    #[error(
        "unexpected answer of the client to {method}: the client stopped sending: nothing came for {seconds} seconds"
    )]
    Stalled {
        /// What was called.
        method: &'static str,
        /// How long nothing came.
        seconds: u64,
    },
    /// The client sends more than it may.
    #[error("unexpected answer of the client to {method}: {source}")]
    Limit {
        /// What was called.
        method: &'static str,
        /// Which bound.
        source: LimitError,
    },
    /// The client broke the rules of the protocol.
    #[error("unexpected answer of the client to {method}: {}", chain(source.as_ref()))]
    Protocol {
        /// What was called.
        method: &'static str,
        /// Which rule.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Bytes for the client cannot be read here.
    #[error("cannot read {what} for the client: {source}")]
    Read {
        /// Whose bytes they are.
        what: String,
        /// Why.
        source: Arc<io::Error>,
    },
}

impl CallError {
    /// The client broke a rule of the protocol: a sentence, or the error of what reads its answers.
    pub fn protocol(
        method: &'static str,
        rule: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Protocol {
            method,
            source: Arc::from(rule.into()),
        }
    }

    /// Bytes that were to be sent to the client cannot be read.
    pub fn read(what: impl Into<String>, source: io::Error) -> Self {
        Self::Read {
            what: what.into(),
            source: Arc::new(source),
        }
    }

    /// gRPC's number for this error.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Unsupported { .. } | Self::NoLocalSources => code::UNIMPLEMENTED,
            Self::Status { code, .. } => *code,
            Self::Ended { .. } => code::UNAVAILABLE,
            Self::NotBegun { .. }
            | Self::Stalled { .. }
            | Self::Limit { .. }
            | Self::Protocol { .. }
            | Self::Read { .. } => code::INTERNAL,
        }
    }

    /// Whether the client does not have what was asked for: no such service, or no such thing.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.code(), code::UNIMPLEMENTED | code::NOT_FOUND)
    }
}

/// Why no session answered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The group names no session.
    #[error("no active sessions")]
    NoSessions,
    /// The session did not appear in time, or is gone.
    #[error("no active session for {id}: context deadline exceeded")]
    NotActive {
        /// The session.
        id: String,
    },
    /// The id is taken.
    #[error("session {id} already exists")]
    AlreadyExists {
        /// The session.
        id: String,
    },
    /// All sessions of the group were asked; this is what the last one said.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl CallError {
    /// What kind of error it is. A client that lacks a service does not have what was asked for.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsupported { .. } | Self::NoLocalSources => ErrorKind::NotFound,
            Self::Status { code, .. } => match code {
                1 => ErrorKind::Cancelled,
                3 => ErrorKind::Invalid,
                4 => ErrorKind::TimedOut,
                5 | 12 => ErrorKind::NotFound,
                6 => ErrorKind::Exists,
                7 | 16 => ErrorKind::Denied,
                14 => ErrorKind::Unavailable,
                // A client whose disk is full is none of our disks.
                _ => ErrorKind::Failed,
            },
            Self::Ended { .. } => ErrorKind::Unavailable,
            Self::NotBegun { .. } | Self::Stalled { .. } => ErrorKind::TimedOut,
            Self::Limit { .. } => ErrorKind::Denied,
            Self::Protocol { .. } => ErrorKind::Hostile,
            Self::Read { source, .. } => ErrorKind::of_host(source),
        }
    }
}

impl SessionError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSessions | Self::NotActive { .. } => ErrorKind::Unavailable,
            Self::AlreadyExists { .. } => ErrorKind::Exists,
            Self::Call(error) => error.kind(),
        }
    }
}
