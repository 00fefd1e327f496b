//! The daemon's certificate authority for the hosts that steps speak TLS with.
//!
//! The authority is made when the daemon starts, is in no file, and ends with the daemon. All certificates have one key: whoever has it
//! is this process anyway. A certificate is valid for a day; the newest [`MAX_CERTIFICATES`] are kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use time::OffsetDateTime;

use crate::error::ProxyError;
use crate::trust;

/// As BuildKit's, so that who looks for it in a bundle finds it.
const NAME: &str = "BuildKit exec proxy";
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// For clocks that differ a little.
const EARLIER: Duration = Duration::from_secs(3600);
/// How long before its end a certificate is made anew.
const REFRESH: Duration = Duration::from_secs(3600);
/// Certificates that are kept.
const MAX_CERTIFICATES: usize = 1024;

#[derive(Debug)]
struct CachedConfig {
    config: Arc<ServerConfig>,
    until: Instant,
    /// The value of [`Certificates::uses`] when it was last used.
    used: u64,
}

#[derive(Debug, Default)]
struct Certificates {
    by_host: HashMap<String, CachedConfig>,
    uses: u64,
}

/// The authority, and the certificates that it made.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    leaf_key: KeyPair,
    signing: Arc<dyn rustls::sign::SigningKey>,
    certificates: Mutex<Certificates>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn between(params: &mut CertificateParams, lifetime: Duration) {
    let now = OffsetDateTime::from(task::clock::wall());
    params.not_before = now - EARLIER;
    params.not_after = now + lifetime;
}

fn distinguished_name(name: &str) -> DistinguishedName {
    let mut out = DistinguishedName::new();
    out.push(DnType::CommonName, name);
    out
}

impl Authority {
    pub(crate) fn new() -> Result<Self, ProxyError> {
        let failed = ProxyError::Authority;
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        between(&mut params, AUTHORITY_LIFETIME);
        params.distinguished_name = distinguished_name(NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).map_err(failed)?.der().clone();
        let leaf_key = KeyPair::generate().map_err(failed)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let signing =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(ProxyError::Tls)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
            leaf_key,
            signing,
            certificates: Mutex::default(),
        })
    }

    /// The authority's certificate.
    pub(crate) fn pem(&self) -> Vec<u8> {
        trust::pem(&self.certificate)
    }

    #[cfg(test)]
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// How TLS is spoken in the place of a host, which is a name or an address.
    pub(crate) fn server(&self, host: &str) -> Result<Arc<ServerConfig>, ProxyError> {
        self.server_at(host, task::clock::monotonic())
    }

    fn server_at(&self, host: &str, now: Instant) -> Result<Arc<ServerConfig>, ProxyError> {
        let mut certificates = self.certificates.lock();
        certificates.uses += 1;
        let uses = certificates.uses;
        if let Some(entry) = certificates.by_host.get_mut(host)
            && now < entry.until
        {
            entry.used = uses;
            return Ok(Arc::clone(&entry.config));
        }
        let config = self.config(self.sign(host)?)?;
        let entry = CachedConfig {
            config: Arc::clone(&config),
            until: now + (LIFETIME - REFRESH),
            used: uses,
        };
        certificates.by_host.insert(host.to_owned(), entry);
        if certificates.by_host.len() > MAX_CERTIFICATES {
            let oldest = certificates
                .by_host
                .iter()
                .min_by_key(|(_, entry)| entry.used);
            if let Some(oldest) = oldest.map(|(host, _)| host.clone()) {
                certificates.by_host.remove(&oldest);
            }
        }
        Ok(config)
    }

    fn config(
        &self,
        certificate: CertificateDer<'static>,
    ) -> Result<Arc<ServerConfig>, ProxyError> {
        let chain = vec![certificate, self.certificate.clone()];
        let key = CertifiedKey::new(chain, Arc::clone(&self.signing));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ProxyError::Tls)?;
        let mut config = builder
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Nothing of one step's connection is of use to another's.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn sign(&self, host: &str) -> Result<CertificateDer<'static>, ProxyError> {
        let mut params =
            CertificateParams::new([host.to_owned()]).map_err(ProxyError::Authority)?;
        between(&mut params, LIFETIME);
        // A common name has at most 64 bytes; what counts is the alternative name.
        params.distinguished_name = distinguished_name(host.get(..64).unwrap_or(host));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = params.signed_by(&self.leaf_key, &self.issuer);
        Ok(signed.map_err(ProxyError::Authority)?.der().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_for_a_day_and_made_anew_before_it_ends() {
        let authority = Authority::new().unwrap();
        let now = task::clock::monotonic();
        let first = authority.server_at("example.com", now).unwrap();
        let later = now + LIFETIME - REFRESH - Duration::from_secs(1);
        let again = authority.server_at("example.com", later).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let end = now + LIFETIME - REFRESH;
        let anew = authority.server_at("example.com", end).unwrap();
        assert!(!Arc::ptr_eq(&first, &anew));
        assert_eq!(authority.certificates.lock().by_host.len(), 1);
    }

    #[test]
    fn the_certificates_that_were_used_last_are_kept() {
        let authority = Authority::new().unwrap();
        let used = authority.server("used.example").unwrap();
        for number in 0..MAX_CERTIFICATES {
            authority.server(&format!("h{number}.example")).unwrap();
            authority.server("used.example").unwrap();
        }
        let certificates = authority.certificates.lock().by_host.len();
        assert_eq!(certificates, MAX_CERTIFICATES);
        let again = authority.server("used.example").unwrap();
        assert!(Arc::ptr_eq(&used, &again));
    }

    #[test]
    fn hosts_of_every_length_and_addresses_have_certificates() {
        let authority = Authority::new().unwrap();
        let long = format!("{}.example", "a".repeat(60));
        for host in ["a.example", "10.0.0.1", "2001:db8::1", &long] {
            authority.server(host).unwrap();
        }
        assert!(authority.server("\u{e9}.example").is_err());
        assert!(
            authority
                .pem()
                .starts_with(b"-----BEGIN CERTIFICATE-----\n")
        );
    }
}
