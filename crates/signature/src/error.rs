//! Why a signature does not count.

use oci::ErrorKind;

use crate::openpgp::OpenPgpError;
use crate::ssh::SshError;

/// Why an object is not what somebody signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Nobody signed it.
    #[error("git object is not signed")]
    NotSigned,
    /// It is signed in a format that is not read, such as X.509.
    #[error("invalid signature format")]
    Format,
    /// The OpenPGP signature does not count.
    #[error(transparent)]
    OpenPgp(#[from] OpenPgpError),
    /// The SSH signature does not count.
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
