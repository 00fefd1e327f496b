//! Errors of registries.
//!
//! The texts are the reference's: scripts and test suites look for them.

use std::time::Duration;

use oci::Digest;

use crate::connection::ConnectionError;
use crate::credentials::CredentialError;

/// A cause of any type: an error of another library, or a sentence.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What was being done, and the error that ended it.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}", oci::error::chain(source.as_ref()))]
pub(crate) struct Wrapped {
    doing: String,
    source: Cause,
}

impl Wrapped {
    pub(crate) fn cause(doing: impl Into<String>, source: impl Into<Cause>) -> Cause {
        Box::new(Self {
            doing: doing.into(),
            source: source.into(),
        })
    }
}

/// Why a registry operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name does not exist on any host.
    #[error("{name}: not found")]
    NotFound {
        /// The reference, or the address of the request.
        name: String,
    },
    /// A blob or manifest address answered 404.
    #[error("content at {url} not found: not found")]
    ContentNotFound {
        /// The address without its query.
        url: String,
    },
    /// The registry refused the authorization.
    #[error(
        "{doing} access denied, repository does not exist or may require authorization: {message}authorization failed"
    )]
    AccessDenied {
        /// `pull` or `push`.
        doing: &'static str,
        /// The registry's message, empty or `server message: …: `.
        message: String,
    },
    /// Authorization failed; becomes `AccessDenied` where the operation is known.
    #[error("{message}authorization failed")]
    InvalidAuthorization {
        /// The registry's message, empty or `server message: …: `.
        message: String,
    },
    /// No token could be fetched for a host.
    #[error("failed to authorize: {source}")]
    Authorize {
        /// The error of the token server, or of the request to it.
        source: Box<Error>,
    },
    /// A token request failed.
    #[error("failed to fetch {kind} token: {source}")]
    Token {
        /// `anonymous` or `oauth`.
        kind: &'static str,
        /// The error of the token server, or of the request to it.
        source: Box<Error>,
    },
    /// The response of the token server cannot be used.
    #[error("{}", oci::error::chain(source.as_ref()))]
    TokenAnswer {
        /// The error of the parser, or a sentence.
        source: Cause,
    },
    /// The client that holds the credentials did not answer.
    #[error("failed to get credentials for {host}: {source}")]
    Credentials {
        /// The host that asked for a login.
        host: String,
        /// The error of the holder.
        source: CredentialError,
    },
    /// The challenge could not be met.
    #[error("failed to find supported auth scheme: not implemented")]
    NoScheme,
    /// The host answered with a status that is no success.
    #[error("unexpected status from {method} request to {url}: {status} {reason}{}", api_errors(.errors))]
    Status {
        /// The request's method.
        method: http::Method,
        /// The address without its query.
        url: String,
        /// The status code.
        status: u16,
        /// The standard phrase of the code.
        reason: &'static str,
        /// The errors in the body.
        errors: Vec<ApiError>,
        /// How long the host asked to wait.
        retry_after: Option<Duration>,
    },
    /// The request got no response.
    #[error("failed to do request: {method} \"{url}\": {source}")]
    Transport {
        /// The request's method, written as Go writes it.
        method: String,
        /// The address without its query.
        url: String,
        /// The error of the connection.
        source: ConnectionError,
    },
    /// The host did not answer in time.
    #[error("{host} did not answer within {}s: {method} \"{url}\"", waited.as_secs())]
    Silent {
        /// The host of the request.
        host: String,
        /// The request's method, written as Go writes it.
        method: String,
        /// The address without its query.
        url: String,
        /// The limit that passed.
        waited: Duration,
    },
    /// The host sends, or takes, bytes too slowly.
    #[error("{host} is too slow: {source} of {url}")]
    Slow {
        /// The host of the transfer.
        host: String,
        /// The address without its query.
        url: String,
        /// The bytes, and the time in which they came.
        source: crate::waiting::Stalled,
    },
    /// The stream broke and could not be resumed.
    #[error("failed to read {digest} from {url}: {source}")]
    Read {
        /// The digest of the blob.
        digest: Digest,
        /// The address without its query.
        url: String,
        /// The error of the connection.
        source: ConnectionError,
    },
    /// The bytes are not those of the digest.
    #[error("content of {url} has digest {actual}, expected {expected}: failed precondition")]
    DigestMismatch {
        /// The address without its query.
        url: String,
        /// The digest of the descriptor.
        expected: Digest,
        /// The digest of the received bytes.
        actual: Digest,
    },
    /// The bytes are not as many as the descriptor says.
    #[error("content of {url} has {actual} bytes, expected {expected}: failed precondition")]
    SizeMismatch {
        /// The address without its query.
        url: String,
        /// The size in the descriptor, or the limit.
        expected: u64,
        /// Received bytes; `expected + 1` stands for any greater number.
        actual: u64,
    },
    /// The header with a digest holds something else.
    #[error("\"{text}\" in header not a valid digest")]
    BadDigest {
        /// The header's value.
        text: String,
    },
    /// A manifest is larger than [`crate::MAX_MANIFEST_SIZE`].
    #[error("rejecting {size} byte manifest for {name}: not found")]
    ManifestTooLarge {
        /// The size in bytes.
        size: u64,
        /// The reference of the manifest.
        name: String,
    },
    /// A manifest of schema 1, which the reference refuses as well.
    #[error(
        "support Docker Image manifest version 2, schema 1 has been removed. More information at https://docs.docker.com/go/deprecated-image-specs/"
    )]
    Schema1,
    /// No host of the namespace can do this.
    #[error("no {doing} hosts: not found")]
    NoHosts {
        /// `resolve`, `pull` or `push`.
        doing: &'static str,
    },
    /// A redirect or upload location cannot be followed.
    #[error("unable to parse location {location}: {}", oci::error::chain(source.as_ref()))]
    Location {
        /// The location that the host named, without query.
        location: String,
        /// The error of the parser, or a sentence.
        source: Cause,
    },
    /// The name is not one of a repository.
    #[error("invalid reference format: {name}")]
    BadName {
        /// The name as it was given.
        name: String,
    },
    /// A certificate, key or folder of the configuration cannot be used.
    #[error("failed to load TLS configuration of {host}: {}", oci::error::chain(source.as_ref()))]
    Tls {
        /// The configured host.
        host: String,
        /// The error, with the file's name.
        source: Cause,
    },
    /// The bytes to push could not be read.
    #[error("failed to read {digest} for the upload: {source}")]
    Source {
        /// The digest of the blob.
        digest: Digest,
        /// The system's error.
        source: std::io::Error,
    },
    /// A document of the registry cannot be read.
    #[error("failed to decode {what}: {}", oci::error::chain(source.as_ref()))]
    Decode {
        /// The kind of document, as `referrers index`.
        what: &'static str,
        /// The error of the parser.
        source: Cause,
    },
}

/// One entry of a registry's error body.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// The machine-readable code, as `MANIFEST_UNKNOWN`.
    pub code: String,
    /// The message, for people.
    pub message: String,
}

fn api_errors(errors: &[ApiError]) -> String {
    let mut out = String::new();
    for e in errors {
        let code = e.code.to_lowercase().replace('_', " ");
        out.push('\n');
        out.push_str(&code);
        if !e.message.is_empty() {
            out.push_str(": ");
            out.push_str(&e.message);
        }
    }
    out
}

impl Error {
    /// Whether the thing asked for does not exist.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "few variants say that something is absent"
    )]
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::ContentNotFound { .. } => true,
            Self::Status { status, .. } => *status == 404,
            _ => false,
        }
    }

    /// Whether the same operation may succeed a moment later.
    #[expect(clippy::wildcard_enum_match_arm, reason = "few variants may pass")]
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                *status == 429 || *status == 408 || (500..600).contains(status)
            }
            Self::Transport { source, .. } => source.is_transient(),
            Self::Authorize { source } | Self::Token { source, .. } => source.is_transient(),
            Self::Read { .. } | Self::Silent { .. } | Self::Slow { .. } => true,
            _ => false,
        }
    }

    /// Whether a host did not answer or send in time. Such a request is tried once more only.
    #[expect(clippy::wildcard_enum_match_arm, reason = "two variants say so")]
    pub(crate) fn is_silence(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Slow { .. } => true,
            Self::Authorize { source } | Self::Token { source, .. } => source.is_silence(),
            _ => false,
        }
    }

    /// The host that failed, where the error says which.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most variants name no address"
    )]
    pub(crate) fn host(&self) -> Option<String> {
        match self {
            Self::Silent { host, .. } | Self::Slow { host, .. } => Some(host.clone()),
            Self::Status { url, .. }
            | Self::Transport { url, .. }
            | Self::Read { url, .. }
            | Self::ContentNotFound { url } => {
                let url = reqwest::Url::parse(url).ok()?;
                Some(crate::address::host_of(&url))
            }
            Self::Authorize { source } | Self::Token { source, .. } => source.host(),
            _ => None,
        }
    }

    /// How long the host asked to wait before the next try.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only a status carries the header"
    )]
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Authorize { source } | Self::Token { source, .. } => source.retry_after(),
            _ => None,
        }
    }

    /// Puts "pull access denied" or "push access denied" before a refused authorization.
    #[expect(clippy::wildcard_enum_match_arm, reason = "one variant is rewritten")]
    pub(crate) fn denied(self, doing: &'static str) -> Self {
        match self {
            Self::InvalidAuthorization { message } => Self::AccessDenied { doing, message },
            error => error,
        }
    }
}

impl Error {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        let mut error = self;
        while let Self::Authorize { source } | Self::Token { source, .. } = error {
            error = source;
        }
        match error {
            Self::NotFound { .. }
            | Self::ContentNotFound { .. }
            | Self::ManifestTooLarge { .. }
            | Self::NoHosts { .. } => ErrorKind::NotFound,
            Self::AccessDenied { .. }
            | Self::InvalidAuthorization { .. }
            | Self::Credentials { .. } => ErrorKind::Denied,
            Self::Status { status, .. } => match status {
                401 | 403 => ErrorKind::Denied,
                404 => ErrorKind::NotFound,
                408 => ErrorKind::TimedOut,
                429 | 500..=599 => ErrorKind::Unavailable,
                _ => ErrorKind::Failed,
            },
            Self::Transport { .. } | Self::Read { .. } => ErrorKind::Unavailable,
            Self::Silent { .. } | Self::Slow { .. } => ErrorKind::TimedOut,
            Self::TokenAnswer { .. }
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::BadDigest { .. }
            | Self::Location { .. }
            | Self::Decode { .. } => ErrorKind::Hostile,
            Self::NoScheme => ErrorKind::Denied,
            Self::Schema1 | Self::BadName { .. } | Self::Tls { .. } => ErrorKind::Invalid,
            Self::Source { source, .. } => ErrorKind::of_host(source),
            Self::Authorize { .. } | Self::Token { .. } => ErrorKind::Failed,
        }
    }
}
