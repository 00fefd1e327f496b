//! From a reference to a commit, without fetching it.

use std::sync::Arc;

use crate::context::Context;
use crate::error::SourceError;
use crate::git::Instance;
use crate::git::cli::Git;
use crate::git::url::is_commit;

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

fn answer(reason: String) -> SourceError {
    SourceError::GitAnswer { reason }
}

impl Instance {
    pub(crate) async fn resolve_now(&self, ctx: &Context) -> Result<Resolved, SourceError> {
        let id = &self.id;
        if !id.checksum.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(answer(format!(
                "invalid checksum {} for Git URL, expected hex commit hash",
                id.checksum
            )));
        }
        if is_commit(&id.reference) {
            if !id.reference.starts_with(&id.checksum) {
                return Err(answer(format!(
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
                return Err(answer(
                    "fetch-by-commit requires a checksum or a commit SHA ref".into(),
                ));
            }
            if !is_commit(&id.checksum) {
                return Err(answer(format!(
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
        let remote = staged.map_or(id.remote.as_str(), |staged| staged.url.as_str());
        let memory = format!("git:{remote}#{}", id.reference);
        if let Some(known) = ctx.recall::<Resolved>(&memory) {
            return self.checked((*known).clone());
        }
        let _alone = self.source.inner.locks.lock(&id.remote).await;
        if let Some(known) = ctx.recall::<Resolved>(&memory) {
            return self.checked((*known).clone());
        }
        let (git, _helpers) = self.git(ctx).await?;
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
        let resolved = self.checked(self.choose(&reference, &listed)?)?;
        ctx.remember(&memory, &Arc::new(resolved.clone()));
        Ok(resolved)
    }

    /// Compares with the checksum that is asked for.
    fn checked(&self, resolved: Resolved) -> Result<Resolved, SourceError> {
        let Resolved { object, commit, .. } = &resolved;
        let want = &self.id.checksum;
        let fits = object.starts_with(want) || commit.as_ref().is_some_and(|c| c.starts_with(want));
        if want.is_empty() || fits {
            return Ok(resolved);
        }
        let got = commit
            .as_ref()
            .map_or_else(|| object.clone(), |c| format!("{object} or {c}"));
        Err(answer(format!(
            "expected checksum to match {want}, got {got}"
        )))
    }

    /// Chooses as git checkout does: a full name, then a branch, then a tag.
    fn choose(&self, reference: &str, listed: &str) -> Result<Resolved, SourceError> {
        let find = |name: &str| {
            listed
                .lines()
                .filter_map(|l| l.split_once('\t'))
                .find(|(_, n)| *n == name)
                .map(|(sha, _)| sha.to_owned())
        };
        let below = |prefix: &str| {
            format!(
                "{prefix}{}",
                reference.strip_prefix(prefix).unwrap_or(reference)
            )
        };
        let (full, head, tag) = (below("refs/"), below("refs/heads/"), below("refs/tags/"));
        let mut commit = None;
        let (object, used) = if let Some(sha) = find(&full) {
            (sha, full)
        } else if let Some(sha) = find(&head) {
            (sha, head)
        } else if let Some(sha) = find(&tag) {
            commit = find(&format!("{tag}^{{}}"));
            (sha, tag)
        } else {
            return Err(answer(format!(
                "repository does not contain ref {reference}, output: {listed:?}"
            )));
        };
        // A tag named in full is matched by its full name; what it points at counts as well.
        if used.starts_with("refs/tags/") && commit.is_none() {
            commit = find(&format!("{used}^{{}}"));
        }
        if !is_commit(&object) {
            return Err(answer(format!("invalid commit sha {object:?}")));
        }
        Ok(Resolved {
            reference: used,
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
                &["ls-remote", "--symref", "--", &self.id.remote, "HEAD"],
            )
            .await?;
        let branch = listed
            .split_once("refs/heads/")
            .map(|(_, rest)| rest.split(char::is_whitespace).next().unwrap_or_default())
            .filter(|b| !b.is_empty())
            .ok_or_else(|| {
                answer(format!(
                    "could not find default branch for repository: {shown}"
                ))
            })?;
        if branch.starts_with('-') {
            return Err(answer(format!("invalid git ref {branch:?}")));
        }
        Ok(branch.to_owned())
    }
}
