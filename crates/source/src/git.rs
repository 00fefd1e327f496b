//! `git://`: a commit of a repository, checked out.
//!
//! The key is the commit's name with suffixes for what else shapes the tree:
//!
//! | part                  | in                                    |
//! |-----------------------|---------------------------------------|
//! | commit (of a tag: the commit it points at, unless `.git` is kept) | always |
//! | `.git` and `#<ref>`   | if the repository's folder is kept    |
//! | `:<subdir>`           | if a folder of the repository is used |
//! | `(skip-submodules)`   | if they are left out                  |
//! | `(mtime=<how>)`       | if times are not those of the checkout |
//! | `(bundle)`            | if the tree is a bundle               |
//!
//! One bare repository is kept for each remote and fetched into; checkouts are records of their own, kept by key.

mod auth;
mod bundle;
mod checkout;
mod cli;
mod error;
mod fetch;
mod objects;
mod redirect;
mod resolve;
mod runner;
pub(crate) mod url;
mod workdir;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use llb::source_id::BlobSource as BlobId;
use oci::Platform;
use parking_lot::Mutex;
use store::{ImmutableRef, Store};

use crate::blob::BlobSource;
use crate::context::Context;
use crate::error::{SourceError, cause};
use crate::git::error::GitRefusal;
use crate::git::objects::{RefObjects, RequiredGitSignature};
use crate::git::resolve::ResolvedRef;
use crate::git::url::{is_commit, is_ref_name};
use crate::manager::{CacheKey, Facts, Source, SourceInstance};

pub use cli::GitConfig;
pub use runner::{GitCall, GitOutput, GitRunner, HostGit, SHELL};

/// Metadata key of a bare repository: its remote.
const META_REMOTE: &str = "git.remote";
/// Metadata key of a checkout: its cache key and folder.
const META_SNAPSHOT: &str = "git.snapshot";

/// The source of `git://`.
#[derive(Debug, Clone)]
pub struct GitSource {
    inner: Arc<GitSourceInner>,
}

#[derive(Debug)]
struct GitSourceInner {
    store: Arc<Store>,
    config: Arc<GitConfig>,
    locks: NameLocks,
    /// Fetches bundles.
    blobs: Option<BlobSource>,
}

/// Locks by name, of remotes and of checkouts.
#[derive(Debug, Default)]
struct NameLocks(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl NameLocks {
    /// Waits for the name. The lock is held across awaits on purpose: git processes must not meet in one repository.
    async fn lock(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut all = self.0.lock();
            all.retain(|_, lock| Arc::strong_count(lock) > 1);
            all.entry(name.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }
}

impl GitSource {
    /// Makes the source; without `blobs` it refuses bundles.
    #[must_use]
    pub fn new(store: Arc<Store>, config: GitConfig, blobs: Option<BlobSource>) -> Self {
        Self {
            inner: Arc::new(GitSourceInner {
                store,
                config: Arc::new(config),
                locks: NameLocks::default(),
                blobs,
            }),
        }
    }
}

/// An identifier and its attributes, parsed. Each flag is the attribute of its name.
#[derive(Clone, Default)]
struct GitIdentifier {
    /// The remote with the credentials of its address: bare repositories are kept by its digest.
    remote: String,
    /// The remote without credentials, as git gets it.
    address: String,
    /// `user:password` of the address.
    user: Option<Vec<u8>>,
    host: String,
    reference: String,
    subdir: String,
    checksum: String,
    keep_git_dir: bool,
    auth_token_secret: String,
    auth_header_secret: String,
    ssh_socket: String,
    known_hosts: String,
    skip_submodules: bool,
    mtime: String,
    advice: bool,
    fetch_by_commit: bool,
    bundle: Option<BlobId>,
    checkout_bundle: bool,
    verify: Option<RequiredGitSignature>,
}

impl std::fmt::Debug for GitIdentifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitIdentifier")
            .field("remote", &self.display_remote())
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

impl GitIdentifier {
    fn parse(reference: &str, attrs: &BTreeMap<String, String>) -> Result<Self, SourceError> {
        let url = url::parse(reference)?;
        let mut out = Self {
            remote: url.remote.clone(),
            address: url.address(),
            user: url.login(),
            host: url.host.clone(),
            reference: url.reference.clone(),
            subdir: url.subdir.clone(),
            ..Self::default()
        };
        let (mut bundle, mut bundle_session, mut bundle_store) = ("", "", "");
        for (name, value) in attrs {
            let flag = value == "true";
            match name.as_str() {
                "git.keepgitdir" => out.keep_git_dir = flag,
                "git.fullurl" => {
                    let attribute = |reason: &str| SourceError::Attribute {
                        name: "git.fullurl",
                        source: cause(reason),
                    };
                    // BuildKit's words, without a cause.
                    let full =
                        url::parse(value).map_err(|_| attribute("failed to parse git.fullurl"))?;
                    if !full.same_repository(&url) {
                        return Err(attribute("git.fullurl does not match source identifier"));
                    }
                    let full_url = url::parse(&full.with_path_of(&url))?;
                    (out.address, out.user) = (full_url.address(), full_url.login());
                    out.remote = full_url.remote;
                    out.host = full.host;
                }
                "git.authheadersecret" => out.auth_header_secret = value.clone(),
                "git.authtokensecret" => out.auth_token_secret = value.clone(),
                "git.knownsshhosts" => out.known_hosts = value.clone(),
                "git.mountsshsock" => out.ssh_socket = value.clone(),
                "git.checksum" => out.checksum = value.clone(),
                "git.skipsubmodules" => out.skip_submodules = flag,
                "git.mtime" => out.mtime = value.clone(),
                "git.advice" => out.advice = flag,
                "git.fetchbycommit" => out.fetch_by_commit = flag,
                "git.bundle" => bundle = value,
                "git.checkoutbundle" => out.checkout_bundle = flag,
                "oci.session" => bundle_session = value,
                "oci.store" => bundle_store = value,
                _ => {
                    if let Some(name) = name.strip_prefix("git.sig.") {
                        RequiredGitSignature::set(&mut out.verify, name, value);
                    }
                }
            }
        }
        if !bundle.is_empty() {
            out.bundle = Some(bundle::locator(bundle, bundle_session, bundle_store)?);
        }
        out.check_bundles()?;
        if !out.reference.is_empty() && !is_ref_name(&out.reference) {
            let reference = out.reference;
            return Err(GitRefusal::MalformedReference { reference }.into());
        }
        Ok(out)
    }

    fn key(&self, commit: &str, reference: &str) -> String {
        let mut key = commit.to_owned();
        if self.keep_git_dir {
            key.push_str(".git");
            if !reference.is_empty() {
                key.push('#');
                key.push_str(reference);
            }
        }
        if !self.subdir.is_empty() {
            key.push(':');
            key.push_str(&self.subdir);
        }
        if self.skip_submodules {
            key.push_str("(skip-submodules)");
        }
        if !self.mtime.is_empty() && self.mtime != "checkout" {
            key.push_str(&format!("(mtime={})", self.mtime));
        }
        if self.checkout_bundle {
            key.push_str("(bundle)");
        }
        key
    }

    /// The remote without credentials, for messages.
    fn display_remote(&self) -> String {
        oci::address::redact(&self.remote)
    }
}

impl Source for GitSource {
    fn schemes(&self) -> &'static [&'static str] {
        &["git"]
    }

    fn resolve(
        &self,
        _scheme: &str,
        reference: &str,
        attrs: &BTreeMap<String, String>,
        _platform: Option<&Platform>,
    ) -> Result<Arc<dyn SourceInstance>, SourceError> {
        let id = GitIdentifier::parse(reference, attrs)?;
        Ok(Arc::new(GitInstance {
            source: self.clone(),
            id,
            resolved: tokio::sync::OnceCell::new(),
            staged: tokio::sync::OnceCell::new(),
            objects: tokio::sync::OnceCell::new(),
        }))
    }
}

#[derive(Debug)]
struct GitInstance {
    source: GitSource,
    id: GitIdentifier,
    /// The commit that the key names; the checkout must be of the same.
    resolved: tokio::sync::OnceCell<ResolvedRef>,
    /// The bundle's commits, where the source has one.
    staged: tokio::sync::OnceCell<bundle::UnpackedBundle>,
    /// The commit and the tag, read when a caller or a signature needs them.
    objects: tokio::sync::OnceCell<Arc<RefObjects>>,
}

impl GitInstance {
    async fn resolved(&self, ctx: &Context) -> Result<&ResolvedRef, SourceError> {
        self.resolved
            .get_or_try_init(|| self.resolve_now(ctx))
            .await
    }

    /// The key and the object to check out.
    fn key_of(&self, resolved: &ResolvedRef) -> (String, String) {
        if is_commit(&resolved.reference) {
            return (
                self.id.key(&resolved.reference, &resolved.reference),
                resolved.reference.clone(),
            );
        }
        let key_object = match &resolved.commit {
            Some(commit) if !self.id.keep_git_dir => commit,
            _ => &resolved.object,
        };
        (
            self.id.key(key_object, &resolved.reference),
            resolved.object.clone(),
        )
    }
}

#[async_trait]
impl SourceInstance for GitInstance {
    async fn cache_key(&self, ctx: &Context, _index: usize) -> Result<CacheKey, SourceError> {
        let resolved = self.resolved(ctx).await?;
        self.check_signature(ctx, resolved).await?;
        let (key, pin) = self.key_of(resolved);
        Ok(CacheKey::new(key, pin))
    }

    async fn facts(&self, ctx: &Context, objects: bool) -> Result<Facts, SourceError> {
        let resolved = self.resolved(ctx).await?;
        self.check_signature(ctx, resolved).await?;
        let mut commit = resolved.commit.clone().unwrap_or_default();
        let (mut commit_object, mut tag_object) = (Vec::new(), Vec::new());
        if objects {
            let objects = self.objects(ctx, resolved).await?;
            commit_object.clone_from(&objects.commit.content);
            if let Some(tag) = &objects.tag {
                tag_object.clone_from(&tag.content);
                commit.clone_from(&objects.commit.id);
            }
        }
        Ok(Facts::Git {
            object: resolved.object.clone(),
            reference: resolved.reference.clone(),
            commit,
            commit_object,
            tag_object,
        })
    }

    async fn snapshot(&self, ctx: &Context) -> Result<Option<ImmutableRef>, SourceError> {
        let resolved = self.resolved(ctx).await?;
        let (key, object) = self.key_of(resolved);
        let name = format!("{key}:{}", self.id.subdir);
        let inner = &self.source.inner;
        let _lock = inner.locks.lock(&name).await;
        for id in inner.store.find_meta(META_SNAPSHOT, name.as_bytes())? {
            if let Ok(checkout) = inner.store.get(&id) {
                return Ok(Some(checkout));
            }
        }
        let checkout = if self.id.checkout_bundle {
            self.check_out_bundle(ctx, resolved, &object).await?
        } else {
            self.fetch_and_check_out(ctx, resolved, &object).await?
        };
        checkout.set_meta(META_SNAPSHOT, name.as_bytes())?;
        Ok(Some(checkout))
    }
}

#[cfg(test)]
mod tests {
    use super::GitIdentifier;
    use std::collections::BTreeMap;

    #[test]
    fn keys_have_the_suffixes_of_the_reference() {
        let attrs = |list: &[(&str, &str)]| {
            list.iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let id = GitIdentifier::parse(
            "github.com/a/b.git#main:sub",
            &attrs(&[
                ("git.keepgitdir", "true"),
                ("git.mtime", "commit"),
                ("git.skipsubmodules", "true"),
            ]),
        )
        .unwrap();
        assert_eq!(id.remote, "https://github.com/a/b.git");
        assert_eq!(
            id.key("abc", "refs/heads/main"),
            "abc.git#refs/heads/main:sub(skip-submodules)(mtime=commit)"
        );
        let id = GitIdentifier::parse(
            "github.com/a/b.git",
            &attrs(&[("git.fullurl", "git@github.com:a/b.git")]),
        )
        .unwrap();
        assert_eq!(id.remote, "git@github.com:a/b.git");
        for (reference, list) in [
            ("github.com/a/b#-evil", vec![]),
            (
                "github.com/a/b",
                vec![("git.fullurl", "https://evil.example/a/b")],
            ),
            ("github.com/a/b", vec![("git.bundle", "x")]),
        ] {
            assert!(
                GitIdentifier::parse(reference, &attrs(&list)).is_err(),
                "{reference}"
            );
        }
    }

    #[test]
    fn attributes_that_make_no_sense_together_say_which() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let digest = oci::Digest::sha256("x");
        let bundle = format!("docker-image+blob://h.example/a@{digest}");
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 8] = [
            (
                "h.example/a",
                &[("git.bundle", &bundle)],
                "git.bundle requires git.checksum to be set",
            ),
            (
                "h.example/a",
                &[("git.bundle", &bundle), ("git.checksum", "abcd")],
                "git.bundle without a branch or tag requires a full commit SHA checksum, got \"abcd\"",
            ),
            (
                &format!("h.example/a#{commit}"),
                &[("git.bundle", &bundle), ("git.checksum", "ffff")],
                &format!("expected checksum to match ffff, got {commit}"),
            ),
            (
                "h.example/a",
                &[
                    ("git.bundle", "https://h.example/x"),
                    ("git.checksum", commit),
                ],
                "git.bundle locator scheme \"https\" is not supported",
            ),
            (
                "h.example/a",
                &[("git.checkoutbundle", "true"), ("git.keepgitdir", "true")],
                "git.checkoutbundle is incompatible with git.keepgitdir",
            ),
            (
                "h.example/a#main:sub",
                &[("git.checkoutbundle", "true")],
                "git.checkoutbundle is incompatible with git.subdir",
            ),
            (
                "h.example/a",
                &[("git.fullurl", "https://")],
                "failed to parse git.fullurl",
            ),
            (
                "h.example/a",
                &[("git.fullurl", "https://h.example/b")],
                "git.fullurl does not match source identifier",
            ),
        ];
        for (reference, list, words) in cases {
            let attrs = list
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            let error = GitIdentifier::parse(reference, &attrs).unwrap_err();
            assert!(error.to_string().starts_with(words), "{words}: {error}");
        }
    }

    #[test]
    fn nothing_of_a_login_is_in_a_key_or_in_what_is_shown() {
        let attrs = BTreeMap::from([(
            "git.fullurl".to_owned(),
            "https://me:hunter2@h.example/a.git".to_owned(),
        )]);
        let id = GitIdentifier::parse("h.example/a.git#main", &attrs).unwrap();
        assert_eq!(id.address, "https://h.example/a.git");
        assert_eq!(id.user.as_deref(), Some(&b"me:hunter2"[..]));
        for text in [
            id.display_remote(),
            format!("{id:?}"),
            id.key("abc", "refs/heads/main"),
        ] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
