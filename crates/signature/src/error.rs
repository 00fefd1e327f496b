//! Why a signature is refused.

use oci::ErrorKind;

use crate::openpgp::OpenPgpError;
use crate::ssh::SshError;

/// A git object has no valid signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The object has no signature.
    #[error("git object is not signed")]
    NotSigned,
    /// The signature is of a format that is not supported, such as X.509.
    #[error("invalid signature format")]
    Format,
    /// The OpenPGP signature is refused.
    #[error(transparent)]
    OpenPgp(#[from] OpenPgpError),
    /// The SSH signature is refused.
    #[error(transparent)]
    Ssh(#[from] SshError),
}

impl SignatureError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotSigned => ErrorKind::Denied,
            Self::Format => ErrorKind::Unsupported,
            Self::OpenPgp(error) => error.kind(),
            Self::Ssh(error) => error.kind(),
        }
    }
}
