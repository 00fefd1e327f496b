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
        /// What was given.
        identifier: String,
    },
    /// Nobody reads the scheme.
    #[error("unknown scheme {scheme}: not found")]
    Scheme {
        /// What was given.
        scheme: String,
    },
    /// The identifier's reference is malformed.
    #[error("{reference}: {}", oci::error::chain(source.as_ref()))]
    Reference {
        /// What was given, without credentials.
        reference: String,
        /// What is wrong with it.
        source: Cause,
    },
    /// An attribute has a value that it cannot have.
    #[error("{}", oci::error::chain(source.as_ref()))]
    Attribute {
        /// The attribute.
        name: &'static str,
        /// What is wrong with it.
        source: Cause,
    },
    /// A digest is malformed.
    #[error("invalid {what} {text}: {source}")]
    Digest {
        /// What it is the digest of.
        what: &'static str,
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] Arc<registry::Error>),
    /// The image is not for the platform.
    #[error("no match for platform in manifest{}: not found", digest.as_ref().map(|d| format!(" {d}")).unwrap_or_default())]
    Platform {
        /// The index, where known.
        digest: Option<Digest>,
    },
    /// The digest found is not the one demanded.
    #[error("image digest {actual} for {reference} does not match expected checksum {expected}")]
    ImageChecksum {
        /// The image.
        reference: String,
        /// The digest demanded.
        expected: Digest,
        /// The digest found.
        actual: Digest,
    },
    /// More layers are asked for than there are.
    #[error("layer limit {limit} is greater than the number of layers in the image {layers}")]
    LayerLimit {
        /// What was asked for.
        limit: usize,
        /// What there is.
        layers: usize,
    },
    /// A document of an image cannot be read.
    #[error("{what} {digest}: {}", oci::error::chain(source.as_ref()))]
    Document {
        /// Which sort of document.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        source: Cause,
    },
    /// A downloaded file is not the one demanded.
    #[error("digest mismatch for {url}: {actual} (expected: {expected})")]
    HttpDigest {
        /// The address, without credentials.
        url: String,
        /// The digest demanded.
        expected: Digest,
        /// The digest found.
        actual: Digest,
    },
    /// A server answered with a status that does not fit.
    #[error("invalid response status {status}")]
    HttpStatus {
        /// The status.
        status: u16,
    },
    /// A server could not be asked.
    #[error("{method} \"{url}\": {}", oci::error::chain(source.as_ref()))]
    Http {
        /// The method, as Go writes it.
        method: &'static str,
        /// The address, without credentials.
        url: String,
        /// Why.
        source: Cause,
    },
    /// git failed.
    #[error("{context}: git stderr:\n{stderr}: exit status {status}")]
    Git {
        /// What was being done.
        context: String,
        /// What it wrote.
        stderr: String,
        /// How it ended.
        status: String,
    },
    /// git's answer does not fit.
    #[error("{}", oci::error::chain(source.as_ref()))]
    GitAnswer {
        /// Why.
        source: Cause,
    },
    /// An object of git is none, or is another one.
    #[error("{doing}: {source}")]
    GitObject {
        /// What was being done.
        doing: String,
        /// What is wrong with it.
        source: signature::git::ObjectError,
    },
    /// None of the keys signed the object of git.
    #[error(transparent)]
    Signature(Arc<signature::SignatureError>),
    /// A signed tag is demanded, and there is no tag.
    #[error("signed tag required but no signed tag found")]
    NoSignedTag,
    /// None of the keys signed the downloaded file.
    #[error("failed to verify pgp signature: {source}")]
    HttpSignature {
        /// Why.
        source: Arc<signature::openpgp::OpenPgpError>,
    },
    /// The client has to answer and cannot.
    #[error("{}", oci::error::chain(source.as_ref()))]
    Session {
        /// Why.
        source: Cause,
    },
    /// A secret that an address needs cannot be had.
    #[error("failed to retrieve HTTP auth secret {name}: {source}")]
    Secret {
        /// The secret's id.
        name: String,
        /// Why.
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
        /// What was tried.
        what: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Not built.
    #[error("{feature} is not supported")]
    NotBuilt {
        /// What was asked for.
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
