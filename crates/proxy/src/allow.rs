//! The hosts that steps may reach.
//!
//! | pattern | matches |
//! |---|---|
//! | `deb.debian.org` | this host, at every port |
//! | `*.debian.org` | every host below it, not `debian.org` itself |
//! | `10.0.0.5`, `[2001:db8::1]` | this address |
//! | `10.0.0.0/8`, `2001:db8::/32` | every address of the network, where a request names an address |
//! | `pypi.org:443` | the host at this port only |
//! | `*` | everything |

use std::net::IpAddr;

use crate::target::Target;

/// Patterns in one list.
const MAX_PATTERNS: usize = 10_000;

/// The hosts that steps may reach; without patterns, all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Option<Vec<Pattern>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    Name(String),
    /// With the dot before it.
    Below(String),
    Network(Network),
}

/// Addresses with a common beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads `ADDRESS/LENGTH`, or one address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let base: IpAddr = address
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .ok()?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        (prefix <= longest).then_some(Self { base, prefix })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, bits: u32| {
            let rest = bits - u32::from(self.prefix).min(bits);
            // Shifting by the whole width is no shift at all.
            a.checked_shr(rest).unwrap_or(0) == b.checked_shr(rest).unwrap_or(0)
        };
        match (self.base, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// A pattern that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It cannot be understood.
    #[error(
        "invalid host pattern `{0}` in the allow-list of the proxy network: write a host (`pypi.org`), all hosts below one (`*.debian.org`), an address or a network (`10.0.0.0/8`), with a port if only that is meant (`pypi.org:443`)"
    )]
    Pattern(String),
    /// There are too many.
    #[error(
        "the allow-list of the proxy network has {0} patterns: at most {MAX_PATTERNS} are accepted"
    )]
    Many(usize),
}

impl AllowList {
    /// Everything is allowed.
    #[must_use]
    pub fn everything() -> Self {
        Self(None)
    }

    /// Reads patterns. An empty list allows nothing.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidPattern> {
        let patterns = patterns
            .into_iter()
            .map(Pattern::parse)
            .collect::<Result<Vec<_>, _>>()?;
        if patterns.len() > MAX_PATTERNS {
            return Err(InvalidPattern::Many(patterns.len()));
        }
        Ok(Self(Some(patterns)))
    }

    /// Whether a request may go to its target.
    pub(crate) fn allows(&self, target: &Target) -> bool {
        let Some(patterns) = &self.0 else { return true };
        patterns
            .iter()
            .any(|pattern| pattern.matches(target.host(), target.port()))
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = || InvalidPattern::Pattern(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        if lower == "*" {
            return Ok(Self {
                host: Host::Any,
                port: None,
            });
        }
        if let Some(network) = Network::parse(&lower) {
            return Ok(Self {
                host: Host::Network(network),
                port: None,
            });
        }
        let (host, port) = match lower.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse::<u16>().map_err(|_| invalid())?)),
            None => (lower.as_str(), None),
        };
        let host = if host == "*" {
            Host::Any
        } else if let Some(network) = Network::parse(host) {
            Host::Network(network)
        } else if let Some(below) = host.strip_prefix("*.") {
            Host::Below(format!(".{}", name(below).ok_or_else(invalid)?))
        } else {
            Host::Name(name(host).ok_or_else(invalid)?.to_owned())
        };
        Ok(Self { host, port })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|own| own != port) {
            return false;
        }
        match &self.host {
            Host::Any => true,
            Host::Name(own) => own == host,
            Host::Below(own) => host.len() > own.len() && host.ends_with(own.as_str()),
            Host::Network(network) => host.parse().is_ok_and(|address| network.contains(address)),
        }
    }
}

/// A host name: labels of letters, digits, hyphens and underscores.
fn name(text: &str) -> Option<&str> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    (!text.is_empty() && text.len() <= 253 && text.split('.').all(label)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(patterns: &[&str], url: &str) -> bool {
        let list = AllowList::parse(patterns.iter().copied()).unwrap();
        list.allows(&Target::parse(url).unwrap())
    }

    #[test]
    fn a_host_is_allowed_by_its_name_by_one_above_it_or_by_its_address() {
        for (pattern, url, allowed) in [
            ("pypi.org", "https://pypi.org/simple/", true),
            ("PyPI.org", "https://pypi.ORG/simple/", true),
            ("pypi.org", "https://pypi.org./simple/", true),
            ("pypi.org", "https://pypi.org:8443/", true),
            ("pypi.org", "https://evil-pypi.org/", false),
            ("pypi.org", "https://pypi.org.evil.example/", false),
            ("pypi.org:443", "https://pypi.org/", true),
            ("pypi.org:443", "http://pypi.org/", false),
            ("*.debian.org", "http://deb.debian.org/", true),
            ("*.debian.org", "http://debian.org/", false),
            ("*.debian.org", "http://notdebian.org/", false),
            ("*.debian.org:80", "http://deb.debian.org:8080/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            // A name is not looked up to be allowed.
            ("127.0.0.0/8", "http://localhost/", false),
            ("[2001:db8::1]", "http://[2001:db8::1]:8080/", true),
            ("2001:db8::/32", "http://[2001:db8:7::1]/", true),
            ("2001:db8::/32", "http://[2001:db9::1]/", false),
            ("[2001:db8::1]:80", "https://[2001:db8::1]/", false),
            ("0.0.0.0/0", "http://203.0.113.7/", true),
            ("*", "http://anything.example/", true),
        ] {
            assert_eq!(allows(&[pattern], url), allowed, "{pattern} {url}");
        }
        assert!(!allows(&[], "http://a.example/"), "an empty list is a list");
        assert!(allows(&["b.example", "a.example"], "http://a.example/"));
        let all = AllowList::everything();
        assert!(all.allows(&Target::parse("http://a.example/").unwrap()));
    }

    #[test]
    fn a_pattern_that_names_no_host_is_refused_with_examples() {
        for pattern in [
            "",
            "*.",
            "*.*.org",
            "a*.org",
            "https://pypi.org",
            "pypi.org/simple",
            "pypi.org:port",
            "10.0.0.0/33",
            "a..b",
            "é.example",
            "pypi.org:",
        ] {
            let error = AllowList::parse([pattern]).unwrap_err();
            assert_eq!(error, InvalidPattern::Pattern(pattern.to_owned()));
            assert!(error.to_string().contains("*.debian.org"), "{error}");
        }
        let many = vec!["a.example"; MAX_PATTERNS + 1];
        assert_eq!(
            AllowList::parse(many),
            Err(InvalidPattern::Many(MAX_PATTERNS + 1))
        );
    }
}
