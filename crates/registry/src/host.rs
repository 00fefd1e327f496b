//! The hosts of a namespace, and the protocol and TLS settings of each.
//!
//! | host                                   | scheme                                            |
//! |----------------------------------------|---------------------------------------------------|
//! | `http = true`, or loopback and unset   | http                                              |
//! | `insecure = true`                      | https, certificate unchecked                      |
//! | both                                   | https unchecked, then http if that is no TLS port |
//! | any other                              | https with the system's authorities and `ca`      |

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::{Config, HostConfig};
use crate::connection::ConnectionError;
use crate::error::{Cause, Error, Wrapped};
use crate::waiting::CONNECT_TIMEOUT;

/// One address a namespace is served from.
#[derive(Debug)]
pub(crate) struct Host {
    /// `host[:port]` as in the URL.
    pub(crate) authority: String,
    /// `/v2` or `/v2/<prefix>`.
    pub(crate) path: String,
    pub(crate) role: Role,
    security: Security,
    /// Whether the host turned out to speak no TLS; only set with [`Security::TlsOrPlain`].
    fell_back: AtomicBool,
    pub(crate) client: reqwest::Client,
}

/// What a host is for its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A mirror: asked before the namespace's own host, and only read from.
    Mirror,
    /// The namespace's own host.
    Own,
}

/// How the connections to a host are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    /// TLS always.
    Tls,
    /// By TLS without a check of the certificate; plain HTTP if the host speaks no TLS.
    TlsOrPlain,
    /// Plain HTTP.
    Plain,
}

impl Host {
    pub(crate) fn scheme(&self) -> &'static str {
        match self.security {
            Security::Tls => "https",
            Security::Plain => "http",
            Security::TlsOrPlain if self.fell_back.load(Ordering::Relaxed) => "http",
            Security::TlsOrPlain => "https",
        }
    }

    /// Switches the host to plain http after it spoke no TLS; false if it may not, or did so before.
    pub(crate) fn fall_back(&self) -> bool {
        self.security == Security::TlsOrPlain && !self.fell_back.swap(true, Ordering::Relaxed)
    }

    /// Whether the configuration lets what comes from this host go over plain http.
    pub(crate) fn may_be_plain(&self) -> bool {
        self.security != Security::Tls
    }

    /// Whether an address is on the origin that the host's authorization belongs to.
    pub(crate) fn is_origin_of(&self, url: &reqwest::Url) -> bool {
        reqwest::Url::parse(&format!("{}://{}/", self.scheme(), self.authority))
            .is_ok_and(|base| base.origin() == url.origin())
    }

    /// Whether the host serves a namespace under another name, so that it must be told which one.
    pub(crate) fn is_proxy_of(&self, namespace: &str) -> bool {
        namespace != self.authority
            && !(namespace == "docker.io" && self.authority == "registry-1.docker.io")
    }

    pub(crate) fn has_port(&self) -> bool {
        split_port(&self.authority).1.is_some()
    }
}

/// The hosts to try for `namespace`, in order; the last one is the namespace's own.
pub(crate) fn hosts_of(config: &Config, namespace: &str) -> Result<Vec<Arc<Host>>, Error> {
    let defaults = HostConfig::default();
    let settings = config.hosts.get(namespace);
    let mut out = Vec::new();
    for mirror in settings.map(|s| s.mirrors.as_slice()).unwrap_or_default() {
        let (authority, prefix) = mirror_parts(mirror);
        let mirror_settings = config.hosts.get(&authority).unwrap_or(&defaults);
        let path = if prefix.is_empty() {
            "/v2".to_owned()
        } else {
            format!("/v2/{prefix}")
        };
        out.push(Arc::new(build(
            config,
            mirror_settings,
            authority,
            path,
            Role::Mirror,
        )?));
    }
    let authority = if namespace == "docker.io" {
        "registry-1.docker.io"
    } else {
        namespace
    };
    out.push(Arc::new(build(
        config,
        settings.unwrap_or(&defaults),
        authority.to_owned(),
        "/v2".to_owned(),
        Role::Own,
    )?));
    Ok(out)
}

fn build(
    config: &Config,
    settings: &HostConfig,
    authority: String,
    path: String,
    role: Role,
) -> Result<Host, Error> {
    let plain = settings
        .plain_http
        .unwrap_or_else(|| is_loopback(&authority));
    let insecure = settings.insecure.unwrap_or(false);
    let client = http_client(config, settings, &authority, insecure)?;
    Ok(Host {
        authority,
        path,
        role,
        security: match (plain, insecure) {
            (false, _) => Security::Tls,
            (true, true) => Security::TlsOrPlain,
            (true, false) => Security::Plain,
        },
        fell_back: AtomicBool::new(false),
        client,
    })
}

fn http_client(
    config: &Config,
    settings: &HostConfig,
    authority: &str,
    insecure: bool,
) -> Result<reqwest::Client, Error> {
    let tls = |source: Cause| Error::Tls {
        host: authority.to_owned(),
        source,
    };
    // HTTP/1.1: one connection for each transfer is faster for blobs than one window shared by all.
    let mut builder = reqwest::Client::builder()
        .user_agent(config.user_agent.clone())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(60))
        .pool_idle_timeout(Duration::from_secs(120))
        .pool_max_idle_per_host(4);
    if is_loopback(authority) {
        builder = builder.no_proxy();
    }
    if insecure {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    let mut ca = settings.ca.clone();
    let mut pairs: Vec<_> = settings
        .keypairs
        .iter()
        .map(|p| (p.cert.clone(), p.key.clone()))
        .collect();
    for dir in &settings.tls_config_dirs {
        // A folder that is missing or not readable is no error, as with the reference.
        let Ok(entries) = std::fs::read_dir(dir) else {
            continue;
        };
        let mut names: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        names.sort();
        for file in names {
            match file.extension().and_then(|e| e.to_str()) {
                Some("crt") => ca.push(file),
                Some("cert") => pairs.push((file.clone(), file.with_extension("key"))),
                _ => {}
            }
        }
    }
    let read = |path: &Path| {
        std::fs::read(path).map_err(|e| {
            tls(Wrapped::cause(
                format!("failed to read {}", path.display()),
                e,
            ))
        })
    };
    let mut authorities = Vec::new();
    for file in &ca {
        let bundle = reqwest::Certificate::from_pem_bundle(&read(file)?)
            .map_err(|e| tls(Wrapped::cause(file.display().to_string(), e)))?;
        authorities.extend(bundle);
    }
    if !authorities.is_empty() && !insecure {
        builder = builder.tls_certs_merge(authorities);
    }
    // rustls presents one client identity: the first pair.
    if let Some((cert, key)) = pairs.first() {
        let mut pem = read(key)?;
        pem.push(b'\n');
        pem.extend(read(cert)?);
        let identity = reqwest::Identity::from_pem(&pem).map_err(|e| {
            let doing = format!("failed to load keypair for {}", cert.display());
            tls(Wrapped::cause(doing, e))
        })?;
        builder = builder.identity(identity);
    }
    builder
        .build()
        .map_err(|e| tls(Box::new(ConnectionError::from(e))))
}

/// Whether a host is this machine: its default is plain http.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = split_port(authority).0;
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    if authority.starts_with('[') {
        return match authority.split_once("]:") {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn mirror_parts(mirror: &str) -> (String, String) {
    let address = mirror
        .split_once("://")
        .map_or(mirror, |(_, address)| address);
    let (authority, path) = address.split_once('/').unwrap_or((address, ""));
    (authority.to_owned(), path.trim_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::{hosts_of, is_loopback, mirror_parts, split_port};
    use crate::config::{Config, HostConfig};

    #[test]
    fn loopback_is_recognized_with_and_without_a_port() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:80",
            "127.9.9.9",
            "::1",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "docker.io",
            "localhost.example:5000",
            "10.0.0.1:5000",
            "[::2]:1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_mirror_may_have_a_scheme_and_a_path() {
        assert_eq!(
            mirror_parts("mirror:5000"),
            ("mirror:5000".into(), String::new())
        );
        assert_eq!(
            mirror_parts("https://mirror/a/b/"),
            ("mirror".into(), "a/b".into())
        );
        assert_eq!(mirror_parts("mirror/a"), ("mirror".into(), "a".into()));
    }

    #[test]
    fn a_namespace_is_served_by_its_mirrors_and_then_by_its_own_host() {
        let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut config = Config::new("t");
        let hub = HostConfig {
            mirrors: vec!["mirror:5000/hub".into(), "localhost:1".into()],
            ..HostConfig::default()
        };
        config.hosts.insert("docker.io".into(), hub);
        let plain = HostConfig {
            plain_http: Some(true),
            ..HostConfig::default()
        };
        config.hosts.insert("mirror:5000".into(), plain);
        let hosts_shown = |namespace: &str| {
            let hosts = hosts_of(&config, namespace).unwrap();
            let describe = |host: &std::sync::Arc<super::Host>| {
                format!(
                    "{}://{}{} push={} ns={}",
                    host.scheme(),
                    host.authority,
                    host.path,
                    host.role == super::Role::Own,
                    host.is_proxy_of(namespace)
                )
            };
            hosts.iter().map(describe).collect::<Vec<_>>()
        };
        assert_eq!(
            hosts_shown("docker.io"),
            [
                "http://mirror:5000/v2/hub push=false ns=true",
                "http://localhost:1/v2 push=false ns=true",
                "https://registry-1.docker.io/v2 push=true ns=false",
            ]
        );
        assert_eq!(
            hosts_shown("r.example:5000"),
            ["https://r.example:5000/v2 push=true ns=false"]
        );
        assert_eq!(
            hosts_shown("[::1]:5000"),
            ["http://[::1]:5000/v2 push=true ns=false"]
        );
    }

    #[test]
    fn a_host_falls_back_from_tls_once_and_only_where_it_may() {
        let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
        for (plain_http, insecure, falls) in [
            (None, None, false),
            (None, Some(true), false),
            (Some(true), None, false),
            (Some(true), Some(true), true),
        ] {
            let mut config = Config::new("t");
            let settings = HostConfig {
                plain_http,
                insecure,
                ..HostConfig::default()
            };
            config.hosts.insert("r.example".into(), settings);
            let hosts = hosts_of(&config, "r.example").unwrap();
            let host = hosts.first().unwrap();
            let before = host.scheme();
            assert_eq!(host.fall_back(), falls, "{plain_http:?} {insecure:?}");
            assert!(!host.fall_back(), "the second time is no news");
            assert_eq!(before != host.scheme(), falls);
        }
    }

    #[test]
    fn ports_are_told_from_addresses() {
        for (authority, host, port) in [
            ("r.example", "r.example", None),
            ("r.example:5000", "r.example", Some("5000")),
            ("[::1]", "[::1]", None),
            ("[::1]:5000", "[::1", Some("5000")),
            ("::1", "::1", None),
        ] {
            assert_eq!(split_port(authority), (host, port), "{authority}");
        }
    }
}
