//! Git repositories as sources, and the texts that name them.
//!
//! ```text
//! https://host/path.git?ref=v1&subdir=x#ref:subdir     URL form; http(s) only counts with the `.git` suffix
//! git@host:path?…#ref:subdir                           scp form, always ssh
//! github.com/owner/repo#ref:subdir                     for build contexts only
//! ```

use std::collections::BTreeMap;

use super::source::source;
use super::state::State;
use super::vertex::Constraints;
use gostd::path;
use gostd::url::{path_unescape, query_unescape};

/// A text that names a git repository, split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitUrl {
    /// `http`, `https`, `ssh` or `git`.
    pub scheme: String,
    /// Host with port.
    pub host: String,
    /// Path on the host, percent-decoded.
    pub path: String,
    /// Query pairs in order; a key alone has an empty value.
    pub query: Vec<(String, String)>,
    /// Ref of the fragment.
    pub reference: String,
    /// Subdirectory of the fragment.
    pub subdir: String,
    /// The URL without query and fragment: what git is given.
    pub remote: String,
}

/// Why a text names no git repository.
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
    #[error("parse {text:?}: {what}")]
    Malformed {
        /// The text.
        text: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl GitUrl {
    /// Parses the URL or scp form.
    pub fn parse(text: &str) -> Result<Self, GitUrlError> {
        let malformed = |what| GitUrlError::Malformed {
            text: text.to_owned(),
            what,
        };
        if let Some((scheme, rest)) = split_scheme(text) {
            let scheme = scheme.to_ascii_lowercase();
            if !["http", "https", "ssh", "git"].contains(&scheme.as_str()) {
                return Err(GitUrlError::InvalidProtocol(scheme));
            }
            if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
                return Err(malformed("net/url: invalid control character in URL"));
            }
            let (rest, fragment) = cut(rest, '#');
            let (rest, query) = cut(rest, '?');
            let (authority, path) = match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            let host = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
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
                remote: format!("{scheme}://{rest}"),
                scheme,
                host: host.to_owned(),
                path,
                query: parse_query(query),
                reference,
                subdir,
            });
        }
        let (host, path, rest) = split_scp(text).ok_or(GitUrlError::UnknownProtocol)?;
        let (before, fragment) = cut(rest, '#');
        let query = before.strip_prefix('?').unwrap_or(before);
        let (reference, subdir) = split_fragment(fragment);
        let without = text.len() - rest.len();
        Ok(Self {
            scheme: "ssh".into(),
            host: host.to_owned(),
            path: path.to_owned(),
            query: parse_query(query),
            reference,
            subdir,
            remote: text.get(..without).unwrap_or(text).to_owned(),
        })
    }

    /// Whether git would take `text` as it is: a known scheme, or the scp form.
    pub fn is_transport(text: &str) -> bool {
        match split_scheme(text) {
            Some((scheme, _)) => {
                ["http", "https", "ssh", "git"].contains(&scheme.to_ascii_lowercase().as_str())
            }
            None => split_scp(text).is_some(),
        }
    }
}

/// `scheme://rest` with a scheme of letters and digits.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    (!scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
        .then_some((scheme, rest))
}

/// `user@host:path` and what follows the path (`?…` or `#…`).
fn split_scp(text: &str) -> Option<(&str, &str, &str)> {
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
    Some((host, path, tail))
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

/// What a Dockerfile or a build context says about a git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitRef {
    /// The URL for git.
    pub remote: String,
    /// Branch, tag or commit.
    pub reference: String,
    /// Commit it must be.
    pub checksum: String,
    /// Directory inside.
    pub subdir: String,
    /// The text could as well be a local path.
    pub like_local: bool,
    /// Keep `.git`.
    pub keep_git_dir: Option<bool>,
    /// Fetch submodules.
    pub submodules: Option<bool>,
    /// `checkout` or `commit`.
    pub mtime: String,
    /// Fetch `checksum` without asking what the ref is.
    pub fetch_by_commit: bool,
}

impl GitRef {
    /// Parses `text`. `None` if it names no git repository; an error if it does and its query is wrong.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
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

    fn load_query(&mut self, query: &[(String, String)]) -> Result<(), String> {
        let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in query {
            values.entry(key).or_default().push(value);
        }
        let (mut tag, mut branch) = (String::new(), String::new());
        for (key, values) in values {
            let [value] = values.as_slice() else {
                return Err(format!("query {key:?} has multiple values"));
            };
            let flag = || match *value {
                "" => Ok(true),
                other => gostd::strconv::parse_bool(other)
                    .map_err(|_| format!("invalid {key} value: {other:?}")),
            };
            if value.is_empty() && !["submodules", "keep-git-dir", "fetch-by-commit"].contains(&key)
            {
                return Err(format!("query {key:?} has no value"));
            }
            match key {
                "ref" => {
                    if !self.reference.is_empty() && self.reference != *value {
                        return Err(format!("ref conflicts: {:?} vs {value:?}", self.reference));
                    }
                    self.reference = (*value).to_owned();
                }
                "tag" => tag = (*value).to_owned(),
                "branch" => branch = (*value).to_owned(),
                "subdir" => {
                    if !self.subdir.is_empty() && self.subdir != *value {
                        return Err(format!("subdir conflicts: {:?} vs {value:?}", self.subdir));
                    }
                    self.subdir = (*value).to_owned();
                }
                "checksum" | "commit" => self.checksum = (*value).to_owned(),
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "submodules" => self.submodules = Some(flag()?),
                "mtime" => match *value {
                    "checkout" | "commit" => self.mtime = (*value).to_owned(),
                    other => {
                        return Err(format!(
                            "invalid mtime value: {other:?} (must be \"checkout\" or \"commit\")"
                        ));
                    }
                },
                "fetch-by-commit" => self.fetch_by_commit = flag()?,
                other => return Err(format!("unexpected query {other:?}")),
            }
        }
        let mut qualified = |name: &str, prefix: &str| -> Result<(), String> {
            let full = if name.starts_with(prefix) {
                name.to_owned()
            } else {
                format!("{prefix}{name}")
            };
            if !self.reference.is_empty() && self.reference != full {
                return Err(format!("ref conflicts: {:?} vs {full:?}", self.reference));
            }
            self.reference = full;
            Ok(())
        };
        if !tag.is_empty() {
            qualified(&tag, "refs/tags/")?;
        }
        if !branch.is_empty() {
            if !tag.is_empty() {
                return Err("branch conflicts with tag".into());
            }
            qualified(&branch, "refs/heads/")?;
        }
        Ok(())
    }
}

/// How to check a repository out.
#[derive(Debug, Clone, Default)]
pub struct GitOpts {
    /// Branch, tag or commit.
    pub reference: String,
    /// Directory inside.
    pub subdir: String,
    /// Keep `.git`.
    pub keep_git_dir: bool,
    /// Commit it must be.
    pub checksum: String,
    /// Leave submodules out.
    pub skip_submodules: bool,
    /// `checkout` or `commit`, empty for the default.
    pub mtime: String,
    /// Show git's advice.
    pub advice: bool,
    /// Fetch `checksum` without asking what the ref is.
    pub fetch_by_commit: bool,
    /// Known hosts for ssh.
    pub known_ssh_hosts: String,
}

impl From<&GitRef> for GitOpts {
    fn from(git: &GitRef) -> Self {
        Self {
            reference: git.reference.clone(),
            subdir: git.subdir.clone(),
            keep_git_dir: git.keep_git_dir == Some(true),
            checksum: git.checksum.clone(),
            skip_submodules: git.submodules == Some(false),
            mtime: git.mtime.clone(),
            advice: false,
            fetch_by_commit: git.fetch_by_commit,
            known_ssh_hosts: String::new(),
        }
    }
}

/// A git repository.
pub fn git(remote: &str, opts: &GitOpts, mut constraints: Constraints) -> State {
    let mut url = remote.to_owned();
    let mut parsed = GitUrl::parse(remote);
    if parsed == Err(GitUrlError::UnknownProtocol) {
        url = format!("https://{remote}");
        parsed = GitUrl::parse(&url);
    }
    let id = match &parsed {
        Ok(parsed) => {
            url.clone_from(&parsed.remote);
            let mut id = format!("{}{}", parsed.host, path::join(&["/", &parsed.path]));
            if !opts.reference.is_empty() || !opts.subdir.is_empty() {
                id.push('#');
                id.push_str(&opts.reference);
                if !opts.subdir.is_empty() {
                    id.push(':');
                    id.push_str(&opts.subdir);
                }
            }
            id
        }
        // The source fails with a better message later.
        Err(_) => url.clone(),
    };
    let mut attrs: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |key: &str, value: &str, cap: &str| {
        attrs.insert(key.to_owned(), value.to_owned());
        if !cap.is_empty() {
            constraints.cap(cap);
        }
    };
    if opts.keep_git_dir {
        set("git.keepgitdir", "true", "source.git.keepgitdir");
    }
    if !url.is_empty() {
        set("git.fullurl", &url, "source.git.fullurl");
    }
    set("git.authtokensecret", "GIT_AUTH_TOKEN", "");
    set("git.authheadersecret", "GIT_AUTH_HEADER", "");
    if parsed.as_ref().is_ok_and(|url| url.scheme == "ssh") {
        // DIFFERS: BuildKit's frontend scans the host's keys over the network here, best effort; we do no I/O and leave
        // known hosts to the source.
        if !opts.known_ssh_hosts.is_empty() {
            set("git.knownsshhosts", &opts.known_ssh_hosts, "");
        }
        set("git.mountsshsock", "default", "source.git.mountsshsock");
        constraints.cap("source.git.knownsshhosts");
    }
    let mut set = |key: &str, value: &str, cap: &str| {
        attrs.insert(key.to_owned(), value.to_owned());
        constraints.cap(cap);
    };
    if !opts.checksum.is_empty() {
        set("git.checksum", &opts.checksum, "source.git.checksum");
    }
    if opts.skip_submodules {
        set("git.skipsubmodules", "true", "source.git.skipsubmodules");
    }
    if !opts.mtime.is_empty() {
        set("git.mtime", &opts.mtime, "source.git.mtime");
    }
    if opts.fetch_by_commit {
        set("git.fetchbycommit", "true", "source.git.fetchbycommit");
    }
    if opts.advice {
        attrs.insert("git.advice".into(), "true".into());
    }
    constraints.cap("source.git");
    source(&format!("git://{id}"), attrs, constraints)
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
            let got = GitRef::parse(text).unwrap();
            let got = got.as_ref().map(|git| {
                (
                    git.remote.as_str(),
                    git.reference.as_str(),
                    git.subdir.as_str(),
                )
            });
            assert_eq!(got, want, "{text}");
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
            assert_eq!(GitRef::parse(text).unwrap_err(), want, "{text}");
        }
    }
}
