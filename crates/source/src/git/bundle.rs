//! Bundles: a repository's commits in one file, in place of the remote, or as the tree of the source.
//!
//! ```text
//!  git.bundle:         blob ─► file ─► a bare repository of its own ─► what would be fetched from the remote is fetched from there
//!  git.checkoutbundle: kept repository ─► one commit in a repository of its own ─► `bundle`, the one file of the tree
//! ```
//!
//! Facts: `source/git/bundle.go` of BuildKit v0.34.2.

use std::path::{Path, PathBuf};

use llb::pb;
use llb::source_id::{BlobSource as BlobId, SourceId};
use store::{ImmutableRef, RefOptions};

use crate::context::Context;
use crate::error::SourceError;
use crate::git::auth::GitAuth;
use crate::git::cli::GitCli;
use crate::git::error::GitRefusal;
use crate::git::resolve::ResolvedRef;
use crate::git::url::is_commit;
use crate::git::{GitIdentifier, GitInstance};
use crate::scratch::unique;

/// The one file in the tree of `git.checkoutbundle`.
const BUNDLE_FILE: &str = "bundle";
/// The file that git writes a bundle to, in a scratch folder.
const GIT_OUTPUT_FILE: &str = "out.bundle";
/// The reference in a bundle when the user named none.
const DEFAULT_TIP: &str = "refs/heads/main";

/// A folder below the scratch folder, deleted on drop.
#[derive(Debug)]
pub(super) struct ScratchFolder(PathBuf);

impl ScratchFolder {
    pub(super) fn new(below: &Path) -> Result<Self, SourceError> {
        let path = below.join(unique("bundle"));
        std::fs::create_dir_all(&path)
            .map_err(|e| SourceError::io("make a folder for a git bundle", e))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // Not `std`'s: whoever made the bundle decides how deep the folders are.
        let _gone = fstree::remove::remove_dir_all(&self.0);
    }
}

/// A bundle's commits in a bare repository, as long as this lives.
#[derive(Debug)]
pub(crate) struct UnpackedBundle {
    /// Where git fetches from.
    pub(crate) url: String,
    scratch: ScratchFolder,
}

impl UnpackedBundle {
    /// The folder that a call of git needs to fetch from it.
    pub(super) fn folder(&self) -> &Path {
        self.scratch.path()
    }
}

/// Parses `scheme://reference@digest`, the value of `git.bundle`.
pub(super) fn locator(text: &str, session: &str, store: &str) -> Result<BlobId, GitRefusal> {
    let locator = text.to_owned();
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    if scheme.is_empty() {
        return Err(GitRefusal::BundleWithoutScheme { locator });
    }
    if !["docker-image+blob", "oci-layout+blob"].contains(&scheme) {
        let scheme = scheme.to_owned();
        return Err(GitRefusal::BundleScheme { scheme });
    }
    let op = pb::SourceOp {
        identifier: text.to_owned(),
        ..pb::SourceOp::default()
    };
    match SourceId::parse(&op, None) {
        Ok(SourceId::Blob(mut id)) if id.digest.algorithm() == "sha256" => {
            id.session_id = session.into();
            id.store_id = if store.is_empty() {
                id.locator.clone()
            } else {
                store.to_owned()
            };
            Ok(id)
        }
        Ok(_) => Err(GitRefusal::BundleAlgorithm { locator }),
        Err(source) => Err(GitRefusal::BundleLocator { locator, source }),
    }
}

impl GitIdentifier {
    /// Refuses attributes about bundles that contradict others.
    pub(super) fn check_bundles(&self) -> Result<(), GitRefusal> {
        if self.bundle.is_some() {
            if self.checksum.is_empty() {
                return Err(GitRefusal::BundleWithoutChecksum);
            }
            if is_commit(&self.reference) && !self.reference.starts_with(&self.checksum) {
                return Err(GitRefusal::Checksum {
                    expected: self.checksum.clone(),
                    actual: self.reference.clone(),
                });
            }
            if !self.names_branch() && !is_commit(&self.checksum) {
                let checksum = self.checksum.clone();
                return Err(GitRefusal::BundleOfShortCommit { checksum });
            }
        }
        if self.checkout_bundle && self.keep_git_dir {
            let attribute = "git.keepgitdir";
            return Err(GitRefusal::CheckoutBundleWith { attribute });
        }
        if self.checkout_bundle && !self.subdir.is_empty() {
            let attribute = "git.subdir";
            return Err(GitRefusal::CheckoutBundleWith { attribute });
        }
        Ok(())
    }

    /// Whether the reference is a name, which can move to another commit.
    pub(super) fn names_branch(&self) -> bool {
        !self.reference.is_empty() && !is_commit(&self.reference)
    }
}

/// The reference of the commit in a bundle: the user's, as a branch unless it begins with `refs/tags/`.
fn tip(reference: &str) -> String {
    if reference.is_empty() || is_commit(reference) {
        return DEFAULT_TIP.to_owned();
    }
    if reference.starts_with("refs/tags/") {
        return reference.to_owned();
    }
    let name = reference.strip_prefix("refs/").unwrap_or(reference);
    format!("refs/heads/{}", name.strip_prefix("heads/").unwrap_or(name))
}

/// Opens the bundle that git wrote in a folder. A link in its place is not followed.
fn open_git_output(below: &Path) -> std::io::Result<std::fs::File> {
    let folder = fstree::Root::open(below).map_err(std::io::Error::other)?;
    folder
        .open_file(GIT_OUTPUT_FILE)
        .map_err(std::io::Error::other)
}

/// Makes a bare repository.
async fn init(git: &GitCli, is_sha256: bool) -> Result<(), SourceError> {
    let mut args = vec!["init", "--bare"];
    if is_sha256 {
        args.push("--object-format=sha256");
    }
    git.run("failed to init temp bare repo", &args).await?;
    Ok(())
}

impl GitInstance {
    /// The commits of the bundle, if the source has one. It is unpacked once.
    pub(super) async fn staged(
        &self,
        ctx: &Context,
    ) -> Result<Option<&UnpackedBundle>, SourceError> {
        let Some(bundle) = &self.id.bundle else {
            return Ok(None);
        };
        self.staged
            .get_or_try_init(|| self.stage(bundle, ctx))
            .await
            .map(Some)
    }

    async fn stage(&self, bundle: &BlobId, ctx: &Context) -> Result<UnpackedBundle, SourceError> {
        let inner = &self.source.inner;
        let blobs = inner.blobs.as_ref().ok_or(SourceError::NotBuilt {
            feature: "git bundles without a source of blobs",
        })?;
        let scratch = ScratchFolder::new(&inner.config.scratch)?;
        let path = scratch.0.join("bundle.pack");
        let file = std::fs::File::create_new(&path)
            .map_err(|e| SourceError::io("create a git bundle", e))?;
        drop(blobs.download(bundle, file, ctx).await?);

        let bundle_name = format!("{}@{}", bundle.locator, bundle.digest);
        let repository = scratch.0.join("repo.git");
        std::fs::create_dir(&repository)
            .map_err(|e| SourceError::io("make a folder for a git bundle", e))?;
        // No credentials: these calls contact no remote.
        let git = GitCli::new(
            inner.config.clone(),
            ctx.progress.clone(),
            GitAuth::none(),
            self.id.advice,
        )
        .beside(&scratch.0);
        let file = path.to_string_lossy().into_owned();
        let doing = format!("failed to inspect git bundle {bundle_name}");
        let listing = git.run(&doing, &["ls-remote", "--", &file]).await?;
        let first_object = listing.split('\t').next().unwrap_or_default();
        if !is_commit(first_object) {
            return Err(GitRefusal::EmptyBundle { doing }.into());
        }
        let git = git.git_dir(&repository);
        init(&git, first_object.len() == 64).await?;
        let doing = format!("failed to import git bundle {bundle_name} into temp");
        git.run(&doing, &["fetch", "--", &file, "+refs/*:refs/*"])
            .await?;
        let commit_expression = format!("{}^{{commit}}", self.id.checksum);
        if git
            .run("cat-file", &["cat-file", "-e", &commit_expression])
            .await
            .is_err()
        {
            return Err(GitRefusal::CommitNotInBundle {
                commit: self.id.checksum.clone(),
                bundle: bundle_name,
            }
            .into());
        }
        Ok(UnpackedBundle {
            url: format!("file://{}", repository.display()),
            scratch,
        })
    }

    /// Makes a tree that holds the commit as a bundle.
    pub(super) async fn check_out_bundle(
        &self,
        ctx: &Context,
        resolved: &ResolvedRef,
        object: &str,
    ) -> Result<ImmutableRef, SourceError> {
        let repository = self.fetch(ctx, resolved, object).await?;
        let inner = &self.source.inner;
        let commit = if is_commit(&self.id.checksum) {
            self.id.checksum.as_str()
        } else {
            object
        };
        let scratch = ScratchFolder::new(&inner.config.scratch)?;
        let dir = scratch.0.join("repo.git");
        std::fs::create_dir(&dir)
            .map_err(|e| SourceError::io("make a folder for a git bundle", e))?;
        let git = repository.git.git_dir(&dir).beside(&scratch.0);
        init(&git, object.len() == 64).await?;
        let from = format!("file://{}", repository.dir.display());
        let doing = format!("failed to fetch commit {commit} from shared repo for bundle creation");
        git.run(&doing, &["fetch", "--", &from, commit]).await?;
        let tip = tip(&repository.reference);
        let doing = format!("failed to create target ref for bundle {commit}");
        git.run(&doing, &["update-ref", &tip, commit]).await?;
        let path = scratch.0.join(GIT_OUTPUT_FILE);
        let path = path.to_string_lossy().into_owned();
        let doing = format!("failed to create git bundle for {commit}");
        git.run(&doing, &["bundle", "create", &path, &tip]).await?;

        let remote = self.id.display_remote();
        let options = RefOptions {
            description: format!("git bundle checkout for {remote}#{}", repository.reference),
            ..RefOptions::default()
        };
        let record = inner.store.new_mutable(None, options)?;
        let root = record.root()?;
        let below = scratch.0.clone();
        task::blocking("git bundle", move || {
            let copy = || -> std::io::Result<()> {
                let mut to = root
                    .create(BUNDLE_FILE, 0o644)
                    .map_err(std::io::Error::other)?;
                std::io::copy(&mut open_git_output(&below)?, &mut to)?;
                Ok(())
            };
            copy().map_err(|e| SourceError::io("write a git bundle", e))
        })
        .await?;
        drop(scratch);
        Ok(record.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_a_bundle_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(dir.path().join("secret"), "CANARY").unwrap();
        for target in ["/etc/passwd", "../secret", "/proc/self/environ"] {
            std::os::unix::fs::symlink(target, below.join(GIT_OUTPUT_FILE)).unwrap();
            assert!(open_git_output(&below).is_err(), "{target}");
            std::fs::remove_file(below.join(GIT_OUTPUT_FILE)).unwrap();
        }
        std::fs::write(below.join(GIT_OUTPUT_FILE), "bundle").unwrap();
        assert!(open_git_output(&below).is_ok());
    }

    #[test]
    fn locators_and_tips_are_those_of_the_reference() {
        let digest = oci::Digest::sha256(b"x");
        let good = format!("oci-layout+blob://not/real@{digest}");
        let id = locator(&good, "s", "").unwrap();
        assert_eq!(
            (id.store_id.as_str(), id.session_id.as_str()),
            ("not/real", "s")
        );
        assert_eq!(locator(&good, "", "mine").unwrap().store_id, "mine");
        for text in [
            "x",
            "https://a/b",
            "docker-image+blob://a/b:tag",
            "docker-image+blob://a",
        ] {
            assert!(locator(text, "", "").is_err(), "{text}");
        }
        let commit = "0123456789012345678901234567890123456789";
        for (reference, expected_tip) in [
            ("", "refs/heads/main"),
            (commit, "refs/heads/main"),
            ("master", "refs/heads/master"),
            ("refs/heads/a/b", "refs/heads/a/b"),
            ("refs/tags/v1", "refs/tags/v1"),
            ("v1", "refs/heads/v1"),
        ] {
            assert_eq!(tip(reference), expected_tip, "{reference}");
        }
    }
}
