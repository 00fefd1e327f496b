//! Why there is no proxy.

use std::io;

use oci::ErrorKind;

use crate::allow::InvalidPattern;
use crate::upstream::InvalidUpstream;

/// Why the proxy of steps could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// A pattern of the allow-list cannot be used.
    #[error(transparent)]
    Allow(#[from] InvalidPattern),
    /// A proxy variable of the daemon's environment cannot be used.
    #[error(transparent)]
    Upstream(#[from] InvalidUpstream),
    /// The certificate authority could not be made.
    #[error("cannot make the certificate authority of the proxy network: {0}")]
    Authority(#[source] rcgen::Error),
    /// The parameters of TLS were refused by the library.
    #[error("cannot set up TLS for the proxy network: {0}")]
    Tls(#[source] rustls::Error),
    /// A system call failed: for random numbers, a listener and the like.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl ProxyError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Allow(_) | Self::Upstream(_) => ErrorKind::Invalid,
            Self::Authority(_) | Self::Tls(_) | Self::System { .. } => ErrorKind::Unavailable,
        }
    }
}
