//! Errors of sessions and their calls.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use oci::error::chain;
use oci::{ErrorKind, SessionId};

/// Why a transfer is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// The lists of files take too much memory.
    #[error(
        "the files that this session lists take more than {} MiB of memory: leave out what the build does not need, with .dockerignore",
        limit >> 20
    )]
    Memory {
        /// Limit in bytes.
        limit: u64,
    },
    /// The transfers take too much space on disk.
    #[error(
        "this session sends more than the {} MB that it may: leave out what the build does not need with .dockerignore, or raise `context.maxSize` of the daemon",
        limit / 1_000_000
    )]
    Written {
        /// Limit in bytes.
        limit: u64,
    },
}

/// gRPC's status codes that callers distinguish.
pub mod code {
    /// The caller has left.
    pub const CANCELLED: i32 = 1;
    /// No other code applies.
    pub const UNKNOWN: i32 = 2;
    /// The request is invalid.
    pub const INVALID_ARGUMENT: i32 = 3;
    /// The time limit has passed.
    pub const DEADLINE_EXCEEDED: i32 = 4;
    /// The requested thing does not exist.
    pub const NOT_FOUND: i32 = 5;
    /// The thing to be created exists already.
    pub const ALREADY_EXISTS: i32 = 6;
    /// The caller lacks the right.
    pub const PERMISSION_DENIED: i32 = 7;
    /// The client does not have this service.
    pub const UNIMPLEMENTED: i32 = 12;
    /// An invariant is broken.
    pub const INTERNAL: i32 = 13;
    /// The connection is lost.
    pub const UNAVAILABLE: i32 = 14;
    /// The caller has not logged in.
    pub const UNAUTHENTICATED: i32 = 16;
}

/// Why a call of a client failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The client did not list the method when it connected.
    #[error("method {method} not supported by the client")]
    Unsupported {
        /// Path of the gRPC method.
        method: &'static str,
    },
    /// The client serves no local folders.
    #[error("no local sources enabled")]
    NoLocalSources,
    /// The client answered with an error.
    #[error("{message}")]
    Status {
        /// gRPC's status code.
        code: i32,
        /// The client's sentence.
        message: String,
        /// An encoded `google.rpc.Status` with typed details, or nothing.
        details: Bytes,
    },
    /// The session ended before the call did.
    #[error("session {id} ended")]
    Ended {
        /// Id of the session.
        id: SessionId,
    },
    /// The client did not start to send in time.
    #[error(
        "unexpected answer of the client to {method}: the client did not begin to send within {seconds} seconds"
    )]
    NotBegun {
        /// Path of the gRPC method.
        method: &'static str,
        /// Time limit in seconds.
        seconds: u64,
    },
    /// The client stopped sending.
    #[error(
        "unexpected answer of the client to {method}: the client stopped sending: nothing came for {seconds} seconds"
    )]
    Stalled {
        /// Path of the gRPC method.
        method: &'static str,
        /// Seconds without data.
        seconds: u64,
    },
    /// The client exceeded a limit of its session.
    #[error("unexpected answer of the client to {method}: {source}")]
    Limit {
        /// Path of the gRPC method.
        method: &'static str,
        /// The exceeded limit.
        source: LimitError,
    },
    /// The client broke the protocol.
    #[error("unexpected answer of the client to {method}: {}", chain(source.as_ref()))]
    Protocol {
        /// Path of the gRPC method.
        method: &'static str,
        /// The broken rule, or the error of the decoder.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Bytes for the client cannot be read on this side.
    #[error("cannot read {what} for the client: {source}")]
    Read {
        /// Description of the bytes, for people.
        what: String,
        /// The error of the read.
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

    /// gRPC's status code for this error.
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

    /// Whether the client lacks the service or the requested thing.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.code(), code::UNIMPLEMENTED | code::NOT_FOUND)
    }
}

/// Why no session answered a call.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The group names no session.
    #[error("no active sessions")]
    NoSessions,
    /// The session did not connect in time, or has ended.
    #[error("no active session for {id}: context deadline exceeded")]
    NotActive {
        /// Id of the session.
        id: SessionId,
    },
    /// Another session has the id.
    #[error("session {id} already exists")]
    AlreadyExists {
        /// Id of the session.
        id: SessionId,
    },
    /// All sessions of the group failed; this is the error of the last one.
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
                // A full disk of the client is not an error of this machine.
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
