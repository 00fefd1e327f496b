//! Resolves a reference to a commit, without fetching it.

use std::sync::Arc;

use crate::context::Context;
use crate::error::SourceError;
use crate::git::GitInstance;
use crate::git::bundle::ScratchFolder;
use crate::git::cli::GitCli;
use crate::git::error::GitRefusal;
use crate::git::url::{is_commit, is_ref_name, is_short_commit};

/// A reference as the remote has it.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedRef {
    /// The full name of the reference, or a commit.
    pub(crate) reference: String,
    /// The name of the object that it points at: a commit or an annotated tag.
    pub(crate) object: String,
    /// The commit behind an annotated tag.
    pub(crate) commit: Option<String>,
}

impl GitInstance {
    pub(crate) async fn resolve_now(&self, ctx: &Context) -> Result<ResolvedRef, SourceError> {
        let id = &self.id;
        if !id.checksum.bytes().all(|b| b.is_ascii_hexdigit()) {
            let checksum = id.checksum.clone();
            return Err(GitRefusal::MalformedChecksum { checksum }.into());
        }
        if is_commit(&id.reference) {
            if !id.reference.starts_with(&id.checksum) {
                return Err(GitRefusal::Checksum {
                    expected: id.checksum.clone(),
                    actual: id.reference.clone(),
                }
                .into());
            }
            return Ok(ResolvedRef {
                reference: id.reference.clone(),
                object: id.reference.clone(),
                commit: None,
            });
        }
        if id.bundle.is_some() && !id.names_branch() {
            return Ok(ResolvedRef {
                reference: id.checksum.clone(),
                object: id.checksum.clone(),
                commit: None,
            });
        }
        if id.fetch_by_commit {
            if id.checksum.is_empty() {
                return Err(GitRefusal::FetchByCommitOfNothing.into());
            }
            if !is_commit(&id.checksum) {
                let checksum = id.checksum.clone();
                return Err(GitRefusal::FetchByShortCommit { checksum }.into());
            }
            let reference = match id.reference.as_str() {
                "" => id.checksum.clone(),
                full if full.starts_with("refs/") => full.to_owned(),
                branch => format!("refs/heads/{branch}"),
            };
            return Ok(ResolvedRef {
                reference,
                object: id.checksum.clone(),
                commit: None,
            });
        }
        let staged = self.staged(ctx).await?;
        let remote = staged.map_or(id.address.as_str(), |staged| staged.url.as_str());
        // With other credentials in its address, a host may show another repository.
        let authority = staged.map_or(id.remote.as_str(), |staged| staged.url.as_str());
        let memory_key = format!("git:{authority}#{}", id.reference);
        if let Some(resolved) = ctx.recall::<ResolvedRef>(&memory_key) {
            return self.checked((*resolved).clone());
        }
        let _lock = self.source.inner.locks.lock(&id.remote).await;
        if let Some(resolved) = ctx.recall::<ResolvedRef>(&memory_key) {
            return self.checked((*resolved).clone());
        }
        let (git, _helpers) = self.git(ctx).await?;
        let git = match staged {
            Some(staged) => git.beside(staged.folder()),
            None => git,
        };
        let reference = if id.reference.is_empty() {
            self.default_branch(&git).await?
        } else {
            id.reference.clone()
        };
        let doing = format!("failed to fetch remote {}", id.display_remote());
        let peeled = format!("{reference}^{{}}");
        let listing = git
            .run(&doing, &["ls-remote", "--", remote, &reference, &peeled])
            .await?;
        let chosen = match self.choose(&reference, &listing) {
            Err(error) if is_short_commit(&reference) => {
                let commit = self.find_commit(&git, remote, &reference).await?;
                commit.ok_or(error)
            }
            chosen => chosen,
        };
        let resolved = self.checked(chosen?)?;
        ctx.remember(&memory_key, &Arc::new(resolved.clone()));
        Ok(resolved)
    }

    /// Refuses an object that is not the one of the attribute `git.checksum`.
    fn checked(&self, resolved: ResolvedRef) -> Result<ResolvedRef, SourceError> {
        let ResolvedRef { object, commit, .. } = &resolved;
        let expected = &self.id.checksum;
        let is_match = object.starts_with(expected)
            || commit.as_ref().is_some_and(|c| c.starts_with(expected));
        if expected.is_empty() || is_match {
            return Ok(resolved);
        }
        let actual = commit
            .as_ref()
            .map_or_else(|| object.clone(), |c| format!("{object} or {c}"));
        Err(GitRefusal::Checksum {
            expected: expected.clone(),
            actual,
        }
        .into())
    }

    /// Finds the commit whose name begins with `short`. For that git needs all commits, which it fetches without their trees.
    ///
    /// DIFFERS: the reference takes full names only.
    async fn find_commit(
        &self,
        git: &GitCli,
        remote: &str,
        short: &str,
    ) -> Result<Option<ResolvedRef>, SourceError> {
        let display_remote = self.id.display_remote();
        let scratch = ScratchFolder::new(&self.source.inner.config.scratch)?;
        let dir = scratch.path().join("commits.git");
        std::fs::create_dir(&dir)
            .map_err(|e| SourceError::io("make a folder for a git repository", e))?;
        let git = git.git_dir(&dir);
        let doing = format!("failed to look for commit {short} of {display_remote}");
        git.run(&doing, &["init", "--bare"]).await?;
        git.run(&doing, &["remote", "add", "--", "origin", remote])
            .await?;
        // A folder of files behind a plain web server cannot leave anything out: git would ask itself for what is missing, for ever.
        // Such a server exchanges no packets.
        let packets = dir.join("packets");
        git.packets(&packets)
            .run(&doing, &["ls-remote", "--", "origin", "HEAD"])
            .await?;
        if !packets.exists() {
            return Ok(None);
        }
        // Commits without their trees, where the server can leave them out.
        let fetch = [
            "fetch",
            "--filter=tree:0",
            "--no-tags",
            "--",
            "origin",
            "+refs/heads/*:refs/heads/*",
            "+refs/tags/*:refs/tags/*",
        ];
        git.run(&doing, &fetch).await?;
        let object = format!("{short}^{{commit}}");
        let parsed = git
            .run(&doing, &["rev-parse", "--verify", "--quiet", &object])
            .await;
        let commit = match parsed {
            Ok(commit) => commit.trim().to_owned(),
            Err(SourceError::Git { stderr, .. }) if !stderr.contains("ambiguous") => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if !is_commit(&commit) || !commit.starts_with(short) {
            return Ok(None);
        }
        Ok(Some(ResolvedRef {
            reference: commit.clone(),
            object: commit,
            commit: None,
        }))
    }

    /// Finds a name in the listing of a remote in git's order: full name, tag, branch (gitrevisions(7)).
    ///
    /// DIFFERS: the reference takes the branch when a tag has its name.
    fn choose(&self, reference: &str, listing: &str) -> Result<ResolvedRef, SourceError> {
        let find = |name: &str| {
            listing
                .lines()
                .filter_map(|l| l.split_once('\t'))
                .find(|(_, n)| *n == name)
                .map(|(sha, _)| sha.to_owned())
        };
        let prefixed = |prefix: &str| {
            format!(
                "{prefix}{}",
                reference.strip_prefix(prefix).unwrap_or(reference)
            )
        };
        let (full, head, tag) = (
            prefixed("refs/"),
            prefixed("refs/heads/"),
            prefixed("refs/tags/"),
        );
        let mut commit = None;
        let (object, name) = if let Some(sha) = find(&full) {
            (sha, full)
        } else if let Some(sha) = find(&tag) {
            commit = find(&format!("{tag}^{{}}"));
            (sha, tag)
        } else if let Some(sha) = find(&head) {
            (sha, head)
        } else {
            return Err(GitRefusal::NoReference {
                reference: reference.to_owned(),
                listing: listing.to_owned(),
            }
            .into());
        };
        // A tag named in full is matched by its full name; what it points at counts as well.
        if name.starts_with("refs/tags/") && commit.is_none() {
            commit = find(&format!("{name}^{{}}"));
        }
        if !is_commit(&object) {
            return Err(GitRefusal::MalformedCommit { object }.into());
        }
        Ok(ResolvedRef {
            reference: name,
            object,
            commit,
        })
    }

    pub(crate) async fn default_branch(&self, git: &GitCli) -> Result<String, SourceError> {
        let remote = self.id.display_remote();
        let doing = format!("error fetching default branch for repository {remote}");
        let listing = git
            .run(
                &doing,
                &["ls-remote", "--symref", "--", &self.id.address, "HEAD"],
            )
            .await?;
        let branch = listing
            .split_once("refs/heads/")
            .map(|(_, rest)| rest.split(char::is_whitespace).next().unwrap_or_default())
            .filter(|b| !b.is_empty())
            .ok_or(GitRefusal::NoDefaultBranch { remote })?;
        if !is_ref_name(branch) {
            let reference = branch.to_owned();
            return Err(GitRefusal::MalformedReference { reference }.into());
        }
        Ok(branch.to_owned())
    }
}
