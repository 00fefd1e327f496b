//! Proxies of the daemon's environment, which a step's requests leave through.
//!
//! The rules are those of Go's `http.ProxyFromEnvironment`, which BuildKit uses: `HTTP_PROXY` for http, `HTTPS_PROXY` for https, the
//! small writing where the capital one is empty, `NO_PROXY` for who is reached directly.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::uri::{Authority, Uri};

use crate::allow::Network;
use crate::target::Target;

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Https,
    Socks5,
}

/// A proxy. `Debug` shows no credentials.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) protocol: Protocol,
    pub(crate) host: String,
    pub(crate) port: u16,
    user: Option<(String, String)>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("protocol", &self.protocol)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Direct {
    Everything,
    /// With the dot before it; whether the name itself counts as well.
    Domain {
        below: String,
        itself: bool,
        port: Option<u16>,
    },
    Network(Network, Option<u16>),
}

/// The proxies that requests leave through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstreams {
    http: Option<Upstream>,
    https: Option<Upstream>,
    direct: Vec<Direct>,
}

/// A variable that names no proxy. Its value may hold credentials and is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {variable} in buildkitd environment")]
pub struct InvalidUpstream {
    variable: &'static str,
}

impl Upstreams {
    /// Requests leave directly.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the environment, of which `variable` gives the values.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidUpstream> {
        let value = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                let value = variable(name)?;
                (!value.is_empty()).then_some((name, value))
            })
        };
        let upstream = |names| match value(names) {
            None => Ok(None),
            Some((variable, value)) => match Upstream::parse(&value) {
                Some(upstream) => Ok(Some(upstream)),
                None => Err(InvalidUpstream { variable }),
            },
        };
        let no_proxy = value(["NO_PROXY", "no_proxy"]);
        Ok(Self {
            http: upstream(["HTTP_PROXY", "http_proxy"])?,
            https: upstream(["HTTPS_PROXY", "https_proxy"])?,
            direct: no_proxy.map_or_else(Vec::new, |(_, list)| direct(&list)),
        })
    }

    /// The proxy of a request; none if it leaves directly.
    pub(crate) fn of(&self, target: &Target) -> Option<&Upstream> {
        let upstream = if target.is_secure() {
            &self.https
        } else {
            &self.http
        };
        upstream.as_ref().filter(|_| !self.is_direct(target))
    }

    fn is_direct(&self, target: &Target) -> bool {
        let host = target.host();
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let at = |port: &Option<u16>| port.is_none_or(|port| port == target.port());
        self.direct.iter().any(|direct| match direct {
            Direct::Everything => true,
            Direct::Domain {
                below,
                itself,
                port,
            } => {
                let own = below.get(1..).unwrap_or_default();
                at(port) && (host.ends_with(below.as_str()) || (*itself && host == own))
            }
            Direct::Network(network, port) => {
                at(port) && address.is_some_and(|address| network.contains(address))
            }
        })
    }
}

/// Reads `NO_PROXY`; what cannot be understood is left out, as Go does.
fn direct(list: &str) -> Vec<Direct> {
    let read = |entry: &str| {
        let entry = entry.trim().to_ascii_lowercase();
        if entry == "*" {
            return Some(Direct::Everything);
        }
        if let Some(network) = Network::parse(&entry) {
            return Some(Direct::Network(network, None));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port.parse().ok()?)),
            None => (entry, None),
        };
        if let Some(network) = Network::parse(&host) {
            return Some(Direct::Network(network, port));
        }
        let host = host.strip_prefix('*').unwrap_or(&host);
        if host.is_empty() {
            return None;
        }
        let (below, itself) = if host.starts_with('.') {
            (host.to_owned(), false)
        } else {
            (format!(".{host}"), true)
        };
        Some(Direct::Domain {
            below,
            itself,
            port,
        })
    };
    list.split(',').filter_map(read).collect()
}

impl Upstream {
    /// An address with a scheme, or `host[:port]` of an HTTP proxy.
    fn parse(value: &str) -> Option<Self> {
        let with_scheme;
        let value = if value.contains("://") {
            value
        } else {
            with_scheme = format!("http://{value}");
            &with_scheme
        };
        let uri: Uri = value.parse().ok()?;
        let authority = uri.authority()?;
        let (protocol, default) = match uri.scheme_str()? {
            "http" => (Protocol::Http, 80),
            "https" => (Protocol::Https, 443),
            "socks5" | "socks5h" => (Protocol::Socks5, 1080),
            _ => return None,
        };
        let host = authority.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return None;
        }
        Some(Self {
            protocol,
            host: host.to_owned(),
            port: port(authority, default)?,
            user: user(authority),
        })
    }

    /// The value of `Proxy-Authorization`.
    pub(crate) fn authorization(&self) -> Option<String> {
        let (user, password) = self.user.as_ref()?;
        Some(format!(
            "Basic {}",
            STANDARD.encode(format!("{user}:{password}"))
        ))
    }

    /// User and password.
    pub(crate) fn login(&self) -> Option<(&str, &str)> {
        let (user, password) = self.user.as_ref()?;
        Some((user, password))
    }
}

fn port(authority: &Authority, default: u16) -> Option<u16> {
    let text = authority.as_str();
    let place = text.rsplit_once('@').map_or(text, |(_, place)| place);
    match place.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse().ok(),
        _ => Some(default),
    }
}

fn user(authority: &Authority) -> Option<(String, String)> {
    let (login, _) = authority.as_str().rsplit_once('@')?;
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    Some((decoded(user), decoded(password)))
}

/// `%40` is an `@`.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let byte = (*first == b'%')
            .then(|| std::str::from_utf8(more.get(..2)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = more.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(variables: &[(&str, &str)]) -> Result<Upstreams, InvalidUpstream> {
        Upstreams::from_environment(|name| {
            let same = variables.iter().find(|(own, _)| *own == name);
            same.map(|(_, value)| (*value).to_owned())
        })
    }

    fn host(upstreams: &Upstreams, url: &str) -> Option<String> {
        let target = Target::parse(url).unwrap();
        upstreams.of(&target).map(|upstream| upstream.host.clone())
    }

    #[test]
    fn the_scheme_decides_which_proxy_and_capital_variables_come_first() {
        let of = upstreams(&[
            ("HTTP_PROXY", "http://u:p%40@plain:3128"),
            ("http_proxy", "http://other:1"),
            ("HTTPS_PROXY", ""),
            ("https_proxy", "secure"),
        ])
        .unwrap();
        assert_eq!(host(&of, "http://a.example/").as_deref(), Some("plain"));
        assert_eq!(host(&of, "https://a.example/").as_deref(), Some("secure"));
        let plain = of.http.unwrap();
        assert_eq!((plain.port, plain.protocol), (3128, Protocol::Http));
        assert_eq!(plain.login(), Some(("u", "p@")));
        assert_eq!(plain.authorization().unwrap(), "Basic dTpwQA==");
        assert!(!format!("{plain:?}").contains("p@"));
        assert_eq!(host(&Upstreams::none(), "http://a.example/"), None);
    }

    #[test]
    fn who_is_named_by_no_proxy_is_reached_directly() {
        for (list, url, direct) in [
            ("example.com", "http://example.com/", true),
            ("example.com", "http://a.example.com/", true),
            (".example.com", "http://example.com/", false),
            (".example.com", "http://a.example.com/", true),
            ("*.example.com", "http://a.example.com/", true),
            ("example.com:8080", "http://example.com/", false),
            ("example.com:80", "http://example.com/", true),
            ("ample.com", "http://example.com/", false),
            ("10.0.0.0/8", "http://10.1.1.1/", true),
            ("10.0.0.1", "http://10.0.0.2/", false),
            ("a, *", "http://b.example/", true),
            ("", "http://localhost:8080/", true),
            ("", "http://127.0.0.1/", true),
            (", ,x:y", "http://b.example/", false),
        ] {
            let of = upstreams(&[("HTTP_PROXY", "p:1"), ("NO_PROXY", list)]).unwrap();
            assert_eq!(host(&of, url).is_none(), direct, "{list:?} {url}");
        }
    }

    #[test]
    fn a_variable_that_names_no_proxy_is_an_error_that_shows_no_value() {
        for value in [
            "ftp://secret@h",
            "http://",
            "http://secret@:x",
            "http://h:port",
            "\u{1}",
        ] {
            let error = upstreams(&[("https_proxy", value)]).unwrap_err();
            assert_eq!(
                error.to_string(),
                "invalid https_proxy in buildkitd environment"
            );
        }
    }
}
