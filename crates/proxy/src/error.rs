//! Why there is no proxy.

use std::io;

use oci::ErrorKind;

use crate::allow::InvalidPattern;
use crate::upstream::InvalidUpstream;

/// Why a proxy could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// A pattern of the allow-list.
    #[error(transparent)]
    Allow(#[from] InvalidPattern),
    /// A variable of the daemon's environment.
    #[error(transparent)]
    Upstream(#[from] InvalidUpstream),
    /// The certificate authority.
    #[error("cannot make the certificate authority of the proxy network: {0}")]
    Authority(#[source] rcgen::Error),
    /// The parameters of TLS.
    #[error("cannot set up TLS for the proxy network: {0}")]
    Tls(#[source] rustls::Error),
    /// The system gave no random numbers, no listener …
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
