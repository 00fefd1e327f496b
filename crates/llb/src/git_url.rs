//! Addresses of git repositories: the one parser for all that name one.
//!
//! ```text
//! https://host/path.git?ref=v1&subdir=x#ref:subdir     URL form; http(s) only counts with the `.git` suffix
//! git@host:path?…#ref:subdir                           scp form, always ssh
//! github.com/owner/repo#ref:subdir                     for build contexts only
//! ```
//!
//! Facts: BuildKit's `util/gitutil` ([`GitUrl`]) and `frontend/dockerfile/dfgitutil` ([`GitRef`]). Answers of theirs are recorded in
//! `crates/llb/tests/data/git.json`.

use std::collections::BTreeMap;

use gostd::path;
use gostd::strconv::{ParseBoolError, parse_bool, quote};
use gostd::url::{path_unescape, query_unescape, unescape_lossy};
use oci::ErrorKind;

/// The protocols that git may be given.
const PROTOCOLS: [&str; 4] = ["http", "https", "ssh", "git"];

/// The address of a git repository, split. Credentials stay in `user` and `remote`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitUrl {
    /// `http`, `https`, `ssh` or `git`.
    pub scheme: String,
    /// User and password as written, `user:password`; none where there is no `@`.
    pub user: Option<String>,
    /// Host with port.
    pub host: String,
    /// Path on the host, percent-decoded.
    pub path: String,
    /// Query pairs in order; a key alone has an empty value.
    pub query: Vec<(String, String)>,
    /// Ref of the fragment; empty when it has none.
    pub reference: String,
    /// Subdirectory of the fragment, relative and clean; empty for the root.
    pub subdir: String,
    /// The address without query and fragment: what git is given.
    pub remote: String,
    /// The scp form, `user@host:path`.
    pub is_scp: bool,
    /// Path as written.
    raw_path: String,
}

/// Why a text is not the address of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GitUrlError {
    /// No scheme and not the scp form.
    #[error("unknown protocol")]
    UnknownProtocol,
    /// A scheme that is not git's.
    #[error("{0}: invalid protocol")]
    InvalidProtocol(String),
    /// The text is no URL.
    #[error("parse {}: {what}", quote(text))]
    Malformed {
        /// The text without user and password.
        text: String,
        /// The rule of URLs that the text breaks.
        what: &'static str,
    },
}

impl GitUrlError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownProtocol | Self::InvalidProtocol(_) | Self::Malformed { .. } => {
                ErrorKind::Invalid
            }
        }
    }
}

/// Why the query of a git address is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GitRefError {
    /// A key stands twice.
    #[error("query {} has multiple values", quote(.0))]
    MultipleValues(String),
    /// A key that needs a value has none.
    #[error("query {} has no value", quote(.0))]
    NoValue(String),
    /// The key does not exist.
    #[error("unexpected query {}", quote(.0))]
    Unexpected(String),
    /// Two parts of the address have different values.
    #[error("{what} conflicts: {} vs {}", quote(first), quote(second))]
    Conflict {
        /// `ref` or `subdir`.
        what: &'static str,
        /// Value in the fragment or the earlier key.
        first: String,
        /// Value in the later key.
        second: String,
    },
    /// A yes-or-no key has another value.
    // BuildKit's words, which leave out those of the cause.
    #[error("invalid {key} value: {}", quote(&source.0))]
    NotBoolean {
        /// Name of the key.
        key: &'static str,
        /// Why the value is not a boolean.
        source: ParseBoolError,
    },
    /// `mtime` has another value.
    #[error("invalid mtime value: {} (must be \"checkout\" or \"commit\")", quote(.0))]
    Mtime(String),
    /// `tag` and `branch`.
    #[error("branch conflicts with tag")]
    BranchAndTag,
}

impl GitRefError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::MultipleValues(_)
            | Self::NoValue(_)
            | Self::Unexpected(_)
            | Self::Conflict { .. }
            | Self::NotBoolean { .. }
            | Self::Mtime(_)
            | Self::BranchAndTag => ErrorKind::Invalid,
        }
    }
}

impl GitUrl {
    /// Parses the URL or scp form.
    pub fn parse(text: &str) -> Result<Self, GitUrlError> {
        let malformed = |what| GitUrlError::Malformed {
            text: oci::address::redact(text),
            what,
        };
        if let Some((scheme, rest)) = split_scheme(text) {
            let scheme = scheme.to_ascii_lowercase();
            if !PROTOCOLS.contains(&scheme.as_str()) {
                return Err(GitUrlError::InvalidProtocol(scheme));
            }
            let (rest, fragment) = cut(rest, '#');
            if rest.bytes().any(|b| b < 0x20 || b == 0x7f) {
                return Err(malformed("net/url: invalid control character in URL"));
            }
            // Go keeps a question mark with nothing behind it.
            let with_mark = rest.strip_suffix('?').filter(|rest| !rest.contains('?'));
            let remote = match with_mark.map_or_else(|| cut(rest, '?').0, |_| rest) {
                "" => format!("{scheme}:"),
                rest => format!("{scheme}://{rest}"),
            };
            let (rest, query) = cut(rest, '?');
            let (authority, path) = match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            let (user, host) = match authority.rsplit_once('@') {
                Some((user, host)) => (Some(user.to_owned()), host),
                None => (None, authority),
            };
            let raw_path = path.to_owned();
            if host.contains(' ') {
                return Err(malformed("invalid character \" \" in host name"));
            }
            if let Some((_, port)) = host.rsplit_once(':')
                && !host.ends_with(']')
                && !port.bytes().all(|b| b.is_ascii_digit())
            {
                return Err(malformed("invalid port after host"));
            }
            let path = path_unescape(path)
                .ok()
                .and_then(utf8)
                .ok_or_else(|| malformed("invalid URL escape"))?;
            let fragment = path_unescape(fragment)
                .ok()
                .and_then(utf8)
                .ok_or_else(|| malformed("invalid URL escape"))?;
            let (reference, subdir) = split_fragment(&fragment);
            return Ok(Self {
                remote,
                scheme,
                user,
                host: host.to_owned(),
                path,
                query: parse_query(query),
                reference,
                subdir,
                is_scp: false,
                raw_path,
            });
        }
        let (user, host, path, rest) = split_scp(text).ok_or(GitUrlError::UnknownProtocol)?;
        let (before, fragment) = cut(rest, '#');
        let query = before.strip_prefix('?').unwrap_or(before);
        let (reference, subdir) = split_fragment(fragment);
        let without = text.len() - rest.len();
        Ok(Self {
            scheme: "ssh".into(),
            user: Some(user.to_owned()),
            host: host.to_owned(),
            path: path.to_owned(),
            query: parse_query(query),
            reference,
            subdir,
            remote: text.get(..without).unwrap_or(text).to_owned(),
            is_scp: true,
            raw_path: path.to_owned(),
        })
    }

    /// Whether git would take `text` as it is: a known scheme, or the scp form.
    pub fn is_transport(text: &str) -> bool {
        match split_scheme(text) {
            Some((scheme, _)) => PROTOCOLS.contains(&scheme.to_ascii_lowercase().as_str()),
            None => split_scp(text).is_some(),
        }
    }

    /// `text` as an address that names its protocol: `https` where it names none.
    #[must_use]
    pub fn with_transport(text: &str) -> String {
        if Self::is_transport(text) {
            text.to_owned()
        } else {
            format!("https://{text}")
        }
    }

    /// The remote without user and password where the protocol is http, which is how git gets it.
    #[must_use]
    pub fn address(&self) -> String {
        if self.is_http() {
            format!("{}://{}{}", self.scheme, self.host, self.raw_path)
        } else {
            self.remote.clone()
        }
    }

    /// User and password of an http address as `user:password`, unescaped; none if there are none.
    #[must_use]
    pub fn login(&self) -> Option<Vec<u8>> {
        let user = self.user.as_ref().filter(|user| !user.is_empty())?;
        if !self.is_http() {
            return None;
        }
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let mut out = unescape_lossy(name).into_owned();
        out.push(b':');
        out.extend_from_slice(&unescape_lossy(password));
        Some(out)
    }

    /// The address of another path on the same host by the same means.
    #[must_use]
    pub fn with_path_of(&self, other: &Self) -> String {
        let path = path::join_root(&other.raw_path);
        let user = match &self.user {
            Some(user) => format!("{user}@"),
            None => String::new(),
        };
        if self.is_scp {
            let path = if self.raw_path.starts_with('/') {
                path.as_str()
            } else {
                path.trim_start_matches('/')
            };
            return format!("{user}{}:{path}", self.host);
        }
        format!("{}://{user}{}{path}", self.scheme, self.host)
    }

    /// Whether both name the same repository, by whatever protocol and user.
    #[must_use]
    pub fn same_repository(&self, other: &Self) -> bool {
        let repository = |url: &Self| {
            let path = path::join_root(&url.path);
            path.strip_suffix(".git").unwrap_or(&path).to_owned()
        };
        self.host.eq_ignore_ascii_case(&other.host) && repository(self) == repository(other)
    }

    fn is_http(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https")
    }
}

/// `scheme://rest` with a scheme of letters and digits.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    (!scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
        .then_some((scheme, rest))
}

/// User, host and path of `user@host:path`, and what follows the path (`?…` or `#…`).
fn split_scp(text: &str) -> Option<(&str, &str, &str, &str)> {
    if text.contains('\n') {
        return None;
    }
    let (user, rest) = text.split_once('@')?;
    let (host, rest) = rest.split_once(':')?;
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if user.is_empty() || !user.bytes().all(|b| word(b) || b == b'_') {
        return None;
    }
    if host.is_empty() || !host.bytes().all(|b| word(b) || b == b'.') {
        return None;
    }
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (path, tail) = rest.split_at(end);
    Some((user, host, path, tail))
}

fn cut(text: &str, at: char) -> (&str, &str) {
    text.split_once(at).unwrap_or((text, ""))
}

fn split_fragment(fragment: &str) -> (String, String) {
    let (reference, subdir) = cut(fragment, ':');
    let subdir = path::join(&["/", subdir]);
    (
        reference.to_owned(),
        subdir.trim_start_matches('/').to_owned(),
    )
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .filter_map(|pair| {
            let (key, value) = cut(pair, '=');
            let [key, value] = [key, value].map(|text| query_unescape(text).ok().and_then(utf8));
            Some((key?, value?))
        })
        .collect()
}

fn utf8(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok()
}

/// A git repository as a Dockerfile or a build context refers to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitRef {
    /// URL that is passed to git.
    pub remote: String,
    /// Branch, tag or commit.
    pub reference: String,
    /// Commit that the reference must resolve to; empty for any.
    pub checksum: String,
    /// Subdirectory of the repository; empty for the root.
    pub subdir: String,
    /// Whether the text could also be a local path.
    pub like_local: bool,
    /// Whether `.git` is kept.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched.
    pub submodules: Option<bool>,
    /// Modification time of files: `checkout` or `commit`.
    pub mtime: String,
    /// Whether `checksum` is fetched without resolving the reference first.
    pub fetch_by_commit: bool,
}

impl GitRef {
    /// Parses `text`. `None` if it names no git repository; an error if it does and its query is wrong.
    pub fn parse(text: &str) -> Result<Option<Self>, GitRefError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let mut out = Self::default();
        let url = if text.starts_with("github.com/") {
            out.like_local = true;
            match GitUrl::parse(&format!("https://{text}")) {
                Ok(mut url) => {
                    url.remote = url.remote.trim_start_matches("https://").to_owned();
                    url
                }
                Err(_) => return Ok(None),
            }
        } else {
            match GitUrl::parse(text) {
                Ok(url) => url,
                Err(_) => return Ok(None),
            }
        };
        if !out.like_local
            && ["http", "https"].contains(&url.scheme.as_str())
            && !url.path.ends_with(".git")
        {
            return Ok(None);
        }
        out.remote = url.remote;
        out.reference = url.reference;
        out.subdir = url.subdir;
        out.load_query(&url.query)?;
        Ok(Some(out))
    }

    fn load_query(&mut self, query: &[(String, String)]) -> Result<(), GitRefError> {
        let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in query {
            values.entry(key).or_default().push(value);
        }
        let (mut tag, mut branch) = ("", "");
        for (key, values) in values {
            let [value] = values.as_slice() else {
                return Err(GitRefError::MultipleValues(key.to_owned()));
            };
            let value = *value;
            let flag = |key| match value {
                "" => Ok(true),
                _ => parse_bool(value).map_err(|source| GitRefError::NotBoolean { key, source }),
            };
            if value.is_empty() && !["submodules", "keep-git-dir", "fetch-by-commit"].contains(&key)
            {
                return Err(GitRefError::NoValue(key.to_owned()));
            }
            match key {
                "ref" => agree("ref", &mut self.reference, value)?,
                "tag" => tag = value,
                "branch" => branch = value,
                "subdir" => agree("subdir", &mut self.subdir, value)?,
                "checksum" | "commit" => self.checksum = value.to_owned(),
                "keep-git-dir" => self.keep_git_dir = Some(flag("keep-git-dir")?),
                "submodules" => self.submodules = Some(flag("submodules")?),
                "mtime" => match value {
                    "checkout" | "commit" => self.mtime = value.to_owned(),
                    _ => return Err(GitRefError::Mtime(value.to_owned())),
                },
                "fetch-by-commit" => self.fetch_by_commit = flag("fetch-by-commit")?,
                _ => return Err(GitRefError::Unexpected(key.to_owned())),
            }
        }
        let mut qualified = |name: &str, prefix: &str| {
            let name = name.strip_prefix(prefix).unwrap_or(name);
            agree("ref", &mut self.reference, &format!("{prefix}{name}"))
        };
        if !tag.is_empty() {
            qualified(tag, "refs/tags/")?;
        }
        if !branch.is_empty() {
            if !tag.is_empty() {
                return Err(GitRefError::BranchAndTag);
            }
            qualified(branch, "refs/heads/")?;
        }
        Ok(())
    }
}

/// Sets a value that may be given twice, but not with different values.
fn agree(what: &'static str, field: &mut String, value: &str) -> Result<(), GitRefError> {
    if !field.is_empty() && field != value {
        return Err(GitRefError::Conflict {
            what,
            first: field.clone(),
            second: value.to_owned(),
        });
    }
    value.clone_into(field);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_apart_from_git_repositories() {
        for (text, want) in [
            ("https://example.com/", None),
            ("https://example.com/foo", None),
            (
                "https://example.com/foo.git",
                Some(("https://example.com/foo.git", "", "")),
            ),
            (
                "https://example.com/foo.git#release/1.2:a/../b",
                Some(("https://example.com/foo.git", "release/1.2", "b")),
            ),
            ("https://example.com/foo.git/", None),
            (
                "git://example.com/foo",
                Some(("git://example.com/foo", "", "")),
            ),
            (
                "github.com/moby/buildkit#master",
                Some(("github.com/moby/buildkit", "master", "")),
            ),
            ("custom.xyz/moby/buildkit.git", None),
            (
                "git@github.com:moby/buildkit.git?branch=x",
                Some(("git@github.com:moby/buildkit.git", "refs/heads/x", "")),
            ),
            (
                "https://example.com/foo.git?tag=v1",
                Some(("https://example.com/foo.git", "refs/tags/v1", "")),
            ),
            ("./foo.git", None),
            ("a/b", None),
            ("ftp://x/y.git", None),
        ] {
            let parsed = GitRef::parse(text).unwrap();
            let parsed = parsed.as_ref().map(|git| {
                (
                    git.remote.as_str(),
                    git.reference.as_str(),
                    git.subdir.as_str(),
                )
            });
            assert_eq!(parsed, want, "{text}");
        }
        for (text, want) in [
            (
                "https://example.com/foo.git?bad=1",
                "unexpected query \"bad\"",
            ),
            (
                "https://example.com/foo.git?ref=a&ref=b",
                "query \"ref\" has multiple values",
            ),
            (
                "https://example.com/foo.git?ref=a#b",
                "ref conflicts: \"b\" vs \"a\"",
            ),
        ] {
            assert_eq!(GitRef::parse(text).unwrap_err().to_string(), want, "{text}");
        }
    }
}
