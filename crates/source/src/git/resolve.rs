//! From a reference to a commit, without fetching it.

use std::sync::Arc;

use crate::context::Context;
use crate::error::{SourceError, cause};
use crate::git::GitInstance;
use crate::git::bundle::Scratch;
use crate::git::cli::Git;
use crate::git::url::{is_commit, is_ref_name, is_short_commit};

/// What a reference stands for at a remote.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// The full name of the reference, or a commit.
    pub(crate) reference: String,
    /// What it points at: a commit, or an annotated tag.
    pub(crate) object: String,
    /// The commit behind an annotated tag.
    pub(crate) commit: Option<String>,
}

fn unfit_answer(reason: String) -> SourceError {
    SourceError::GitAnswer {
        source: cause(reason),
    }
}

impl GitInstance {
    pub(crate) async fn resolve_now(&self, ctx: &Context) -> Result<Resolved, SourceError> {
        let id = &self.id;
        if !id.checksum.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unfit_answer(format!(
                "invalid checksum {} for Git URL, expected hex commit hash",
                id.checksum
            )));
        }
        if is_commit(&id.reference) {
            if !id.reference.starts_with(&id.checksum) {
                return Err(unfit_answer(format!(
                    "expected checksum to match {}, got {}",
                    id.checksum, id.reference
                )));
            }
            return Ok(Resolved {
                reference: id.reference.clone(),
                object: id.reference.clone(),
                commit: None,
            });
        }
        if id.bundle.is_some() && !id.names_branch() {
            return Ok(Resolved {
                reference: id.checksum.clone(),
                object: id.checksum.clone(),
                commit: None,
            });
        }
        if id.fetch_by_commit {
            if id.checksum.is_empty() {
                return Err(unfit_answer(
                    "fetch-by-commit requires a checksum or a commit SHA ref".into(),
                ));
            }
            if !is_commit(&id.checksum) {
                return Err(unfit_answer(format!(
                    "fetch-by-commit requires a full commit SHA checksum, got {:?}",
                    id.checksum
                )));
            }
            let reference = match id.reference.as_str() {
                "" => id.checksum.clone(),
                full if full.starts_with("refs/") => full.to_owned(),
                branch => format!("refs/heads/{branch}"),
            };
            return Ok(Resolved {
                reference,
                object: id.checksum.clone(),
                commit: None,
            });
        }
        let staged = self.staged(ctx).await?;
        let remote = staged.map_or(id.address.as_str(), |staged| staged.url.as_str());
        // Who has other credentials may be shown something else.
        let authority = staged.map_or(id.remote.as_str(), |staged| staged.url.as_str());
        let memory = format!("git:{authority}#{}", id.reference);
        if let Some(resolved) = ctx.recall::<Resolved>(&memory) {
            return self.checked((*resolved).clone());
        }
        let _alone = self.source.inner.locks.lock(&id.remote).await;
        if let Some(resolved) = ctx.recall::<Resolved>(&memory) {
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
        let doing = format!("failed to fetch remote {}", id.shown());
        let peeled = format!("{reference}^{{}}");
        let listed = git
            .run(&doing, &["ls-remote", "--", remote, &reference, &peeled])
            .await?;
        let chosen = match self.choose(&reference, &listed) {
            Err(error) if is_short_commit(&reference) => {
                let commit = self.find_commit(&git, remote, &reference).await?;
                commit.ok_or(error)
            }
            chosen => chosen,
        };
        let resolved = self.checked(chosen?)?;
        ctx.remember(&memory, &Arc::new(resolved.clone()));
        Ok(resolved)
    }

    /// Compares with the checksum that is asked for.
    fn checked(&self, resolved: Resolved) -> Result<Resolved, SourceError> {
        let Resolved { object, commit, .. } = &resolved;
        let expected = &self.id.checksum;
        let fits = object.starts_with(expected)
            || commit.as_ref().is_some_and(|c| c.starts_with(expected));
        if expected.is_empty() || fits {
            return Ok(resolved);
        }
        let actual = commit
            .as_ref()
            .map_or_else(|| object.clone(), |c| format!("{object} or {c}"));
        Err(unfit_answer(format!(
            "expected checksum to match {expected}, got {actual}"
        )))
    }

    /// Finds the commit whose name begins with `short`: nobody but git can tell, with all commits at hand.
    ///
    /// DIFFERS: the reference takes full names only.
    async fn find_commit(
        &self,
        git: &Git,
        remote: &str,
        short: &str,
    ) -> Result<Option<Resolved>, SourceError> {
        let shown = self.id.shown();
        let scratch = Scratch::new(&self.source.inner.config.scratch)?;
        let dir = scratch.path().join("commits.git");
        std::fs::create_dir(&dir)
            .map_err(|e| SourceError::io("make a folder for a git repository", e))?;
        let git = git.git_dir(&dir);
        let doing = format!("failed to look for commit {short} of {shown}");
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
        Ok(Some(Resolved {
            reference: commit.clone(),
            object: commit,
            commit: None,
        }))
    }

    /// Chooses as git reads a name: a full name, then a tag, then a branch (gitrevisions(7)).
    ///
    /// DIFFERS: the reference takes the branch when a tag has its name.
    fn choose(&self, reference: &str, refs: &str) -> Result<Resolved, SourceError> {
        let find = |name: &str| {
            refs.lines()
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
            return Err(unfit_answer(format!(
                "repository does not contain ref {reference}, output: {refs:?}"
            )));
        };
        // A tag named in full is matched by its full name; what it points at counts as well.
        if name.starts_with("refs/tags/") && commit.is_none() {
            commit = find(&format!("{name}^{{}}"));
        }
        if !is_commit(&object) {
            return Err(unfit_answer(format!("invalid commit sha {object:?}")));
        }
        Ok(Resolved {
            reference: name,
            object,
            commit,
        })
    }

    pub(crate) async fn default_branch(&self, git: &Git) -> Result<String, SourceError> {
        let shown = self.id.shown();
        let doing = format!("error fetching default branch for repository {shown}");
        let listed = git
            .run(
                &doing,
                &["ls-remote", "--symref", "--", &self.id.address, "HEAD"],
            )
            .await?;
        let branch = listed
            .split_once("refs/heads/")
            .map(|(_, rest)| rest.split(char::is_whitespace).next().unwrap_or_default())
            .filter(|b| !b.is_empty())
            .ok_or_else(|| {
                unfit_answer(format!(
                    "could not find default branch for repository: {shown}"
                ))
            })?;
        if !is_ref_name(branch) {
            return Err(unfit_answer(format!("invalid git ref {branch:?}")));
        }
        Ok(branch.to_owned())
    }
}
