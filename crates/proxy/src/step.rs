//! What the proxies of all steps have in common, and what each has of its own.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::RequestPolicy;
use crate::addresses::Reach;
use crate::allow::AllowList;
use crate::authority::Authority;
use crate::capture::Capture;
use crate::egress::Egress;
use crate::error::ProxyError;
use crate::upstream::Upstreams;

/// What one step may request, and where its requests are recorded.
#[derive(Debug, Clone)]
pub struct StepRules {
    /// The addresses that it may reach.
    pub reach: Reach,
    /// Who decides on its requests, all of them one after the other.
    pub policies: Vec<Arc<dyn RequestPolicy>>,
    /// The record of its requests.
    pub capture: Arc<Capture>,
}

/// The proxy of one step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) daemon: Arc<DaemonProxy>,
    pub(crate) egress: Arc<dyn Egress>,
    pub(crate) rules: StepRules,
    pub(crate) upstreams: Upstreams,
}

/// What the proxies of all steps have in common.
pub(crate) struct DaemonProxy {
    /// Made for the first step: its key needs randomness of the processor, which takes tens of milliseconds to gather.
    authority: OnceLock<Authority>,
    pub(crate) allow: AllowList,
    roots: Option<Vec<CertificateDer<'static>>>,
    /// Made with the first request: reading the host's authorities takes some milliseconds.
    tls: OnceLock<Arc<ClientConfig>>,
}

impl fmt::Debug for DaemonProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaemonProxy")
            .field("allow", &self.allow)
            .finish_non_exhaustive()
    }
}

impl DaemonProxy {
    pub(crate) fn new(allow: AllowList, roots: Option<Vec<CertificateDer<'static>>>) -> Self {
        Self {
            authority: OnceLock::new(),
            allow,
            roots,
            tls: OnceLock::new(),
        }
    }

    /// Who signs the certificates that steps are shown.
    pub(crate) fn authority(&self) -> Result<&Authority, ProxyError> {
        if let Some(authority) = self.authority.get() {
            return Ok(authority);
        }
        let authority = Authority::new()?;
        Ok(self.authority.get_or_init(|| authority))
    }

    /// How TLS is spoken with servers.
    pub(crate) fn tls(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let mut roots = RootCertStore::empty();
        match &self.roots {
            Some(certificates) => {
                roots.add_parsable_certificates(certificates.iter().cloned());
            }
            None => {
                let native = rustls_native_certs::load_native_certs();
                for error in &native.errors {
                    tracing::debug!(%error, "certificates of the host cannot be read");
                }
                roots.add_parsable_certificates(native.certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}
