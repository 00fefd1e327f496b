//! Git repositories as sources.

use std::collections::BTreeMap;

use super::source::source;
use super::state::State;
use super::vertex::Constraints;
use crate::git_url::{GitRef, GitUrl, GitUrlError};
use gostd::path;

/// Options of a git checkout.
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
