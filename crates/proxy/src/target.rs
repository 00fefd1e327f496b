//! Where a request goes: its address, read strictly.

use http::uri::{Authority, PathAndQuery, Scheme, Uri};

/// The address of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    secure: bool,
    /// Lower case, without brackets and without a dot at the end.
    host: String,
    port: u16,
    /// `user:password@` as it was sent, or empty. It never leaves this type but redacted.
    credentials: String,
    path: PathAndQuery,
}

/// Why a request has no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidTarget {
    #[error("the request names no host")]
    NoHost,
    #[error("the request names a host that cannot be one")]
    Host,
    #[error("only http and https can be asked for")]
    Scheme,
    #[error("CONNECT needs a host and a port")]
    Connect,
    #[error("the address cannot be read")]
    Syntax,
}

impl Target {
    /// Reads an absolute address.
    pub(crate) fn parse(url: &str) -> Result<Self, InvalidTarget> {
        let uri: Uri = url.parse().map_err(|_| InvalidTarget::Syntax)?;
        Self::absolute(&uri)
    }

    /// Takes a request's address in absolute form.
    pub(crate) fn absolute(uri: &Uri) -> Result<Self, InvalidTarget> {
        let scheme = uri.scheme().ok_or(InvalidTarget::NoHost)?;
        let secure = if *scheme == Scheme::HTTP {
            false
        } else if *scheme == Scheme::HTTPS {
            true
        } else {
            return Err(InvalidTarget::Scheme);
        };
        let authority = uri.authority().ok_or(InvalidTarget::NoHost)?;
        Self::new(secure, authority, uri.path_and_query().cloned())
    }

    /// The target of `CONNECT`.
    pub(crate) fn connect(uri: &Uri) -> Result<Self, InvalidTarget> {
        let authority = uri.authority().ok_or(InvalidTarget::Connect)?;
        if uri.scheme().is_some() || authority.port_u16().is_none() {
            return Err(InvalidTarget::Connect);
        }
        Self::new(true, authority, None)
    }

    /// The target of a path at a host.
    pub(crate) fn new(
        secure: bool,
        authority: &Authority,
        path: Option<PathAndQuery>,
    ) -> Result<Self, InvalidTarget> {
        let text = authority.as_str();
        let (credentials, place) = match text.rsplit_once('@') {
            Some((credentials, place)) => (format!("{credentials}@"), place),
            None => (String::new(), text),
        };
        // `Authority` takes any text where the port belongs.
        if let Some((_, port)) = place.rsplit_once(':')
            && !port.ends_with(']')
            && port.parse::<u16>().is_err()
        {
            return Err(InvalidTarget::Host);
        }
        let host = authority.host().to_ascii_lowercase();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.strip_suffix('.').unwrap_or(host);
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(fits) {
            return Err(InvalidTarget::Host);
        }
        let path = match path {
            Some(path) if path.path().starts_with('/') => path,
            None => PathAndQuery::from_static("/"),
            // `http://host?query`, or `OPTIONS *`.
            Some(path) => match path.query() {
                Some(query) => format!("/?{query}")
                    .parse()
                    .map_err(|_| InvalidTarget::Syntax)?,
                None => PathAndQuery::from_static("/"),
            },
        };
        let default = if secure { 443 } else { 80 };
        Ok(Self {
            secure,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(default),
            credentials,
            path,
        })
    }

    /// The same host with another path.
    pub(crate) fn with_path(&self, path: PathAndQuery) -> Result<Self, InvalidTarget> {
        let authority: Authority = self
            .authority(true)
            .parse()
            .map_err(|_| InvalidTarget::Host)?;
        Self::new(self.secure, &authority, Some(path))
    }

    /// Whether TLS is spoken.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host, in lower case and without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn path(&self) -> &PathAndQuery {
        &self.path
    }

    /// Whether a `Host` header names this target.
    pub(crate) fn is_named_by(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        Self::new(self.secure, &authority, None).is_ok_and(|other| {
            other.credentials.is_empty() && other.host == self.host && other.port == self.port
        })
    }

    /// Host and port; the port also where it is the scheme's own, if `port` says so.
    pub(crate) fn authority(&self, port: bool) -> String {
        let default = if self.secure { 443 } else { 80 };
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if port || self.port != default {
            format!("{host}:{}", self.port)
        } else {
            host
        }
    }

    /// The address as it is shown and decided upon: without the scheme's own port, and with its credentials replaced.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        oci::address::redact(&format!(
            "{scheme}://{}{}{}",
            self.credentials,
            self.authority(false),
            self.path
        ))
    }

    /// The address for an upstream proxy, without credentials.
    pub(crate) fn absolute_uri(&self) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(if self.secure { "https" } else { "http" })
            .authority(self.authority(false))
            .path_and_query(self.path.clone())
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_the_port_of_their_scheme_and_without_credentials() {
        for (url, shown) in [
            ("http://example.com:80/file", "http://example.com/file"),
            (
                "https://example.com:443/file?a=b",
                "https://example.com/file?a=b",
            ),
            (
                "https://example.com:8443/file",
                "https://example.com:8443/file",
            ),
            (
                "https://user:pass@Example.com:443/",
                "https://xxxxx:xxxxx@example.com/",
            ),
            ("https://token@example.com/", "https://xxxxx@example.com/"),
            (
                "https://[2001:db8::1]:443/file",
                "https://[2001:db8::1]/file",
            ),
            (
                "https://[2001:db8::1]:8443/file",
                "https://[2001:db8::1]:8443/file",
            ),
            ("http://example.com", "http://example.com/"),
            ("http://example.com?q=1", "http://example.com/?q=1"),
        ] {
            assert_eq!(Target::parse(url).unwrap().url(), shown, "{url}");
        }
    }

    #[test]
    fn what_names_no_host_or_another_scheme_is_refused() {
        for (url, error) in [
            ("ftp://example.com/", InvalidTarget::Scheme),
            ("/path", InvalidTarget::NoHost),
            ("http://exa%41mple.com/", InvalidTarget::Host),
            ("http://example.com:99999/", InvalidTarget::Host),
            ("http://example.com:x/", InvalidTarget::Host),
        ] {
            let result = Target::parse(url).map(|target| target.url());
            assert!(
                result == Err(error) || result == Err(InvalidTarget::Syntax),
                "{url}: {result:?}"
            );
        }
        for uri in ["example.com", "http://example.com:443/"] {
            assert!(Target::connect(&uri.parse().unwrap()).is_err(), "{uri}");
        }
    }

    #[test]
    fn a_host_header_names_the_tunnel_it_came_by_or_is_another() {
        let tunnel = Target::connect(&"example.com:443".parse().unwrap()).unwrap();
        for host in [
            "example.com",
            "example.com:443",
            "EXAMPLE.com",
            "example.com.",
        ] {
            assert!(tunnel.is_named_by(host), "{host}");
        }
        for host in ["", "evil.example", "example.com:80", "u@example.com", "a b"] {
            assert!(!tunnel.is_named_by(host), "{host}");
        }
    }
}
