//! Why a source could not be read.

use std::io;
use std::sync::Arc;

use oci::ErrorKind;
use oci::{Digest, DigestError};
use store::StoreError;

/// A cause of any type: an error of another library, or a sentence.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Makes a cause of an error, or of the sentence where there is no error.
pub(crate) fn cause(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Cause {
    Arc::from(error.into())
}

/// Why a source failed. Cheap to clone: one failure may reach many waiters.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The identifier has no scheme.
    #[error("failed to parse {identifier}: invalid")]
    Identifier {
        /// The whole identifier.
        identifier: String,
    },
    /// No source reads the scheme.
    #[error("unknown scheme {scheme}: not found")]
    Scheme {
        /// The part before `://`.
        scheme: String,
    },
    /// The identifier's reference is malformed.
    #[error("{reference}: {}", oci::error::chain(source.as_ref()))]
    Reference {
        /// The reference, without credentials.
        reference: String,
        /// The error of the parser, or a sentence.
        source: Cause,
    },
    /// An attribute has a value that it cannot have.
    #[error("{}", oci::error::chain(source.as_ref()))]
    Attribute {
        /// The attribute's key.
        name: &'static str,
        /// The error of the parser, or a sentence.
        source: Cause,
    },
    /// A digest is malformed.
    #[error("invalid {what} {text}: {source}")]
    Digest {
        /// The field that it stands in, as `http checksum`.
        what: &'static str,
        /// The text that is not a digest.
        text: String,
        /// The error of the parser.
        source: DigestError,
    },
    /// The registry failed, or refused the request.
    #[error(transparent)]
    Registry(#[from] Arc<registry::Error>),
    /// The image is not for the platform.
    #[error("no match for platform in manifest{}: not found", digest.as_ref().map(|d| format!(" {d}")).unwrap_or_default())]
    Platform {
        /// The root document, if it names its platforms.
        digest: Option<Digest>,
    },
    /// The reference names another digest than the attribute `image.checksum`.
    #[error("image digest {actual} for {reference} does not match expected checksum {expected}")]
    ImageChecksum {
        /// The reference of the image.
        reference: String,
        /// The digest in the attribute.
        expected: Digest,
        /// The digest of the content.
        actual: Digest,
    },
    /// The layer limit is greater than the number of layers.
    #[error("layer limit {limit} is greater than the number of layers in the image {layers}")]
    LayerLimit {
        /// The attribute's value.
        limit: usize,
        /// How many layers the image has.
        layers: usize,
    },
    /// A document of an image cannot be read.
    #[error("{what} {digest}: {}", oci::error::chain(source.as_ref()))]
    Document {
        /// `index`, `manifest`, `config` and the like.
        what: &'static str,
        /// The digest by which the document was fetched.
        digest: Digest,
        /// The error of the parser, or a sentence.
        source: Cause,
    },
    /// A downloaded file has another digest than the attribute `http.checksum`.
    #[error("digest mismatch for {url}: {actual} (expected: {expected})")]
    HttpDigest {
        /// The address, without credentials.
        url: String,
        /// The digest in the attribute.
        expected: Digest,
        /// The digest of the content.
        actual: Digest,
    },
    /// A server answered with a status that is no success.
    #[error("invalid response status {status}")]
    HttpStatus {
        /// The HTTP status code.
        status: u16,
    },
    /// A request to a server got no response.
    #[error("{method} \"{url}\": {}", oci::error::chain(source.as_ref()))]
    Http {
        /// The method, as Go writes it.
        method: &'static str,
        /// The address, without credentials.
        url: String,
        /// The error of the connection, or a sentence.
        source: Cause,
    },
    /// git ended with an error.
    #[error("{context}: git stderr:\n{stderr}: exit status {status}")]
    Git {
        /// The operation that git was called for.
        context: String,
        /// Its standard error, without progress.
        stderr: String,
        /// Its exit code.
        status: String,
    },
    /// The attributes of a git source contradict each other, or git's output cannot be used.
    #[error("{}", oci::error::chain(source.as_ref()))]
    GitAnswer {
        /// The error of the git source.
        source: Cause,
    },
    /// A git object is malformed, or its content is not that of its name.
    #[error("{doing}: {source}")]
    GitObject {
        /// The operation on the object.
        doing: String,
        /// The error of the parser.
        source: signature::git::ObjectError,
    },
    /// The git object has no signature by one of the keys.
    #[error(transparent)]
    Signature(Arc<signature::SignatureError>),
    /// The attributes demand a signed tag, and the reference names none.
    #[error("signed tag required but no signed tag found")]
    NoSignedTag,
    /// The downloaded file has no signature by one of the keys.
    #[error("failed to verify pgp signature: {source}")]
    HttpSignature {
        /// The error of the verification.
        source: Arc<signature::openpgp::OpenPgpError>,
    },
    /// The client does not answer, or is gone.
    #[error("{}", oci::error::chain(source.as_ref()))]
    Session {
        /// The error of the call, or of the group of sessions.
        source: Cause,
    },
    /// The client could not be asked for the secret of an address.
    #[error("failed to retrieve HTTP auth secret {name}: {source}")]
    Secret {
        /// The secret's id.
        name: String,
        /// The error of the session.
        source: Box<Self>,
    },
    /// No session has the secret.
    #[error("secret {name}: not found")]
    NoSecret {
        /// The secret's id.
        name: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file operation failed.
    #[error("failed to {what}: {source}")]
    Io {
        /// The operation and its object, as in `create README`.
        what: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// Not built.
    #[error("{feature} is not supported")]
    NotBuilt {
        /// The feature in the user's words.
        feature: &'static str,
    },
}

impl SourceError {
    /// A file operation that failed.
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            source: Arc::new(source.into()),
        }
    }

    pub(crate) fn path(what: impl Into<String>, source: fstree::PathError) -> Self {
        Self::Io {
            what: what.into(),
            source: Arc::new(io::Error::new(source.source.kind(), source)),
        }
    }

    pub(crate) fn session(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Session {
            source: cause(error),
        }
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Identifier { .. }
            | Self::Scheme { .. }
            | Self::Reference { .. }
            | Self::Attribute { .. }
            | Self::Digest { .. }
            | Self::LayerLimit { .. } => ErrorKind::Invalid,
            Self::Registry(error) => error.kind(),
            Self::Platform { .. } => ErrorKind::NotFound,
            Self::ImageChecksum { .. } | Self::Document { .. } | Self::HttpDigest { .. } => {
                ErrorKind::Hostile
            }
            Self::HttpStatus { status } => match status {
                401 | 403 => ErrorKind::Denied,
                404 | 410 => ErrorKind::NotFound,
                429 | 500..=599 => ErrorKind::Unavailable,
                _ => ErrorKind::Failed,
            },
            Self::Http { .. } => ErrorKind::Unavailable,
            Self::Git { .. } | Self::GitAnswer { .. } => ErrorKind::Failed,
            Self::GitObject { source, .. } => source.kind(),
            Self::Signature(error) => error.kind(),
            Self::NoSignedTag => ErrorKind::Denied,
            Self::HttpSignature { source } => source.kind(),
            Self::Session { source } => session::kind_of(source.as_ref()),
            Self::Secret { source, .. } => source.kind(),
            Self::NoSecret { .. } => ErrorKind::NotFound,
            Self::Store(error) => error.kind(),
            Self::Io { source, .. } => ErrorKind::of_host(source),
            Self::NotBuilt { .. } => ErrorKind::Unsupported,
        }
    }
}

impl From<signature::SignatureError> for SourceError {
    fn from(error: signature::SignatureError) -> Self {
        Self::Signature(Arc::new(error))
    }
}

impl From<registry::Error> for SourceError {
    fn from(error: registry::Error) -> Self {
        Self::Registry(Arc::new(error))
    }
}
