//! Addresses of git repositories: URLs of four protocols, and `user@host:path`, with `#ref:subdir` behind.

use gostd::path::join_root;
use gostd::url::unescape_lossy;

use crate::error::SourceError;

/// A parsed address. Credentials stay inside `remote` and out of everything that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitUrl {
    /// What git is given: the address without what stands behind `#` or `?`.
    pub(crate) remote: String,
    /// The same without user and password where the protocol is http, which is how git gets it.
    pub(crate) address: String,
    /// Host, with port where given.
    pub(crate) host: String,
    /// Path as written.
    pub(crate) path: String,
    user: Option<String>,
    scheme: String,
    is_scp: bool,
    pub(crate) reference: String,
    pub(crate) subdir: String,
}

const PROTOCOLS: [&str; 4] = ["http", "https", "ssh", "git"];

/// Whether an address names its protocol, or implies ssh.
pub(crate) fn is_transport(text: &str) -> bool {
    match protocol(text) {
        Some(protocol) => PROTOCOLS.contains(&protocol.to_ascii_lowercase().as_str()),
        None => scp(text).is_some(),
    }
}

fn protocol(text: &str) -> Option<&str> {
    let (protocol, _) = text.split_once("://")?;
    (!protocol.is_empty() && protocol.bytes().all(|b| b.is_ascii_alphanumeric()))
        .then_some(protocol)
}

/// `user@host:path[?query][#fragment]`
fn scp(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (user, rest) = text.split_once('@')?;
    let (host, rest) = rest.split_once(':')?;
    let word = |s: &str, more: &str| {
        !s.is_empty()
            && s.chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if !word(user, "-_") || !word(host, "-.") || text.contains('\n') {
        return None;
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let path = rest.split_once('?').map_or(rest, |(path, _)| path);
    Some((user, host, path, fragment))
}

impl GitUrl {
    /// Parses an address that names or implies its protocol.
    pub(crate) fn parse(text: &str) -> Result<Self, SourceError> {
        let bad = |reason: &str| SourceError::Reference {
            reference: oci::address::redact(text),
            reason: reason.to_owned(),
        };
        if let Some(protocol) = protocol(text) {
            let scheme = protocol.to_ascii_lowercase();
            if !PROTOCOLS.contains(&scheme.as_str()) {
                return Err(bad("invalid protocol"));
            }
            let rest = text.get(protocol.len() + 3..).unwrap_or_default();
            let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
            let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
            let (authority, path) = match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            let (user, host) = match authority.rsplit_once('@') {
                Some((user, host)) => (Some(user.to_owned()), host),
                None => (None, authority),
            };
            let clean = |s: &str| !s.chars().any(|c| c.is_control() || c == ' ');
            if host.is_empty() || host.starts_with('-') || !clean(rest) {
                return Err(bad("invalid url"));
            }
            let (reference, subdir) = options(fragment);
            let (host, path) = (host.to_owned(), path.to_owned());
            return Ok(Self {
                remote: format!("{scheme}://{rest}"),
                address: match scheme.as_str() {
                    "http" | "https" => format!("{scheme}://{host}{path}"),
                    _ => format!("{scheme}://{rest}"),
                },
                host,
                path,
                user,
                scheme,
                is_scp: false,
                reference,
                subdir,
            });
        }
        let (user, host, path, fragment) = scp(text).ok_or_else(|| bad("unknown protocol"))?;
        let (reference, subdir) = options(fragment);
        Ok(Self {
            remote: format!("{user}@{host}:{path}"),
            address: format!("{user}@{host}:{path}"),
            host: host.to_owned(),
            path: path.to_owned(),
            user: Some(user.to_owned()),
            scheme: "ssh".into(),
            is_scp: true,
            reference,
            subdir,
        })
    }

    /// The address of `path` (in canonical form) on the same host by the same means.
    pub(crate) fn with_path(&self, path: &str) -> String {
        let path = join_root(path);
        let user = self
            .user
            .as_ref()
            .map(|u| format!("{u}@"))
            .unwrap_or_default();
        if self.is_scp {
            let path = if self.path.starts_with('/') {
                path.as_str()
            } else {
                path.trim_start_matches('/')
            };
            return format!("{user}{}:{path}", self.host);
        }
        format!("{}://{user}{}{path}", self.scheme, self.host)
    }

    /// User and password of an http address as `user:password`, unescaped; none if there are none.
    pub(crate) fn login(&self) -> Option<Vec<u8>> {
        let user = self.user.as_ref().filter(|u| !u.is_empty())?;
        if !matches!(self.scheme.as_str(), "http" | "https") {
            return None;
        }
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let mut out = unescape_lossy(name).into_owned();
        out.push(b':');
        out.extend_from_slice(&unescape_lossy(password));
        Some(out)
    }

    /// The path in the form in which two of them can be compared.
    pub(crate) fn canonical_path(&self) -> String {
        let path = join_root(&self.path);
        path.strip_suffix(".git").unwrap_or(&path).to_owned()
    }
}

/// Whether a text may name a reference: nothing that git reads as an option, a pattern or an expression.
/// git-check-ref-format(1).
pub(crate) fn is_ref_name(text: &str) -> bool {
    let bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    !text.starts_with(['-', '/'])
        && !text.ends_with(['/', '.'])
        && !text.chars().any(bad)
        && !["..", "@{", "//", "/."]
            .iter()
            .any(|part| text.contains(part))
        && text != "@"
}

/// Whether a text may be the beginning of a commit's name.
pub(crate) fn is_short_commit(text: &str) -> bool {
    (4..40).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn options(fragment: &str) -> (String, String) {
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    (
        reference.to_owned(),
        join_root(subdir).trim_start_matches('/').to_owned(),
    )
}

/// Whether a text is the full name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::{GitUrl, is_ref_name, is_transport};

    #[test]
    fn credentials_are_no_part_of_the_address_that_git_gets() {
        for (text, address, login) in [
            ("https://u:p%40x@h/r.git", "https://h/r.git", Some("u:p@x")),
            ("https://token@h/r", "https://h/r", Some("token:")),
            ("https://h/r", "https://h/r", None),
            ("ssh://git@h/r", "ssh://git@h/r", None),
            ("git@h:r", "git@h:r", None),
        ] {
            let url = GitUrl::parse(text).unwrap();
            assert_eq!(url.address, address, "{text}");
            assert_eq!(url.login().as_deref(), login.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn what_git_would_read_as_an_option_or_an_expression_names_no_reference() {
        for good in [
            "main",
            "v1.0",
            "a/b",
            "refs/pull/1/head",
            "fix-#1",
            "ä",
            "HEAD",
        ] {
            assert!(is_ref_name(good), "{good}");
        }
        for bad in [
            "-x",
            "--upload-pack=x",
            "a b",
            "a..b",
            "a^",
            "a~1",
            "a:b",
            "*",
            "a?",
            "[a]",
            "a\\b",
            "a@{1}",
            "@",
            "a//b",
            "/a",
            "a/",
            "a/.b",
            "a.",
            "a\nb",
            "a\u{7f}",
        ] {
            assert!(!is_ref_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        for (text, remote, host, path, reference, subdir) in [
            (
                "https://github.com/a/b.git#v1:x/../y",
                "https://github.com/a/b.git",
                "github.com",
                "/a/b.git",
                "v1",
                "y",
            ),
            (
                "HTTPS://u:p@h:8443/r?x=1#:/d",
                "https://u:p@h:8443/r",
                "h:8443",
                "/r",
                "",
                "d",
            ),
            (
                "git@github.com:a/b.git#main",
                "git@github.com:a/b.git",
                "github.com",
                "a/b.git",
                "main",
                "",
            ),
            ("ssh://git@h/r", "ssh://git@h/r", "h", "/r", "", ""),
        ] {
            let url = GitUrl::parse(text).unwrap();
            assert_eq!(
                (url.remote.as_str(), url.host.as_str(), url.path.as_str()),
                (remote, host, path),
                "{text}"
            );
            assert_eq!(
                (url.reference.as_str(), url.subdir.as_str()),
                (reference, subdir),
                "{text}"
            );
        }
        for bad in [
            "file:///etc",
            "ext::sh -c x",
            "https://",
            "https://-oProxy/x",
            "a b@c:d",
            "plain/path",
        ] {
            assert!(GitUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(
            is_transport("git@h:x")
                && !is_transport("github.com/a/b")
                && !is_transport("file:///x")
        );
        assert_eq!(
            GitUrl::parse("git@h:a/b.git").unwrap().with_path("/a/b"),
            "git@h:a/b"
        );
    }
}
