//! What `buildkitd.toml` says about registries.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Settings of the client and of every host that has its own.
#[derive(Debug, Clone)]
pub struct Config {
    /// Settings by host, as written in the file (`docker.io`, `registry.example:5000`).
    pub hosts: BTreeMap<String, HostConfig>,
    /// The `User-Agent` of every request.
    pub user_agent: String,
    /// Concurrent transfers for each namespace; manifests and configs get one more.
    pub max_parallelism: usize,
}

/// Settings of one host.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// Hosts asked first for pulls, each `host[:port][/path]`.
    pub mirrors: Vec<String>,
    /// Whether plain http is spoken; unset means only with a loopback host.
    pub plain_http: Option<bool>,
    /// Whether the certificate goes unchecked.
    pub insecure: Option<bool>,
    /// PEM files with certificate authorities trusted on top of the system's.
    pub ca: Vec<PathBuf>,
    /// Client certificates.
    pub keypairs: Vec<KeyPair>,
    /// Folders with `*.crt` authorities and `*.cert`/`*.key` pairs.
    pub tls_config_dirs: Vec<PathBuf>,
}

/// A client certificate and its key, both PEM files.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Config {
    /// A configuration with no host of its own settings.
    #[must_use]
    pub fn new(user_agent: impl Into<String>) -> Self {
        Self {
            hosts: BTreeMap::new(),
            user_agent: user_agent.into(),
            max_parallelism: 4,
        }
    }
}
