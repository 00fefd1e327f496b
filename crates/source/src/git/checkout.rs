//! Checks a commit out into a new record of the store.

use std::path::{Path, PathBuf};

use fstree::dir::Times;
use fstree::{Descent, Dir, Root};
use store::{ImmutableRef, RecordType, RefOptions};

use crate::context::Context;
use crate::error::SourceError;
use crate::git::GitInstance;
use crate::git::error::GitRefusal;
use crate::git::fetch::BareRepository;
use crate::git::resolve::ResolvedRef;
use crate::git::url::is_commit;
use crate::git::workdir::AttachedMount;
use crate::scratch::unique;

impl GitInstance {
    pub(crate) async fn fetch_and_check_out(
        &self,
        ctx: &Context,
        resolved: &ResolvedRef,
        object: &str,
    ) -> Result<ImmutableRef, SourceError> {
        let repository = self.fetch(ctx, resolved, object).await?;
        let inner = &self.source.inner;
        let remote = self.id.display_remote();
        let description = format!("git snapshot for {remote}#{}", repository.reference);
        let options = RefOptions {
            description,
            record_type: RecordType::GitCheckout,
            ..RefOptions::default()
        };
        let record = inner.store.new_mutable(None, options)?;
        let attached = AttachedMount::new(record.mount()?, &inner.config.scratch)?;
        let top = attached.path().to_owned();
        let doing = format!("failed to checkout remote {remote}");
        // The object of the key by its own name: a reference may have moved since.
        let name = object;

        let mut tree = top.clone();
        let mut git_dir = repository.dir.clone();
        if self.id.keep_git_dir && self.id.subdir.is_empty() {
            git_dir = top.join(".git");
            self.clone_into(&repository, &top, &git_dir, name).await?;
        } else {
            if !self.id.subdir.is_empty() {
                tree = top.join(unique(".checkout"));
                std::fs::create_dir(&tree)
                    .map_err(|e| SourceError::io("create temporary checkout dir", e))?;
            }
            let git = repository.git.work_tree(&tree);
            git.run(&doing, &["checkout", "--no-overlay", name, "--", "."])
                .await?;
        }
        if !self.id.skip_submodules {
            let git = repository.git.git_dir(&git_dir).work_tree(&tree);
            let doing = format!("failed to update submodules for {remote}");
            git.run(
                &doing,
                &["submodule", "update", "--init", "--recursive", "--depth=1"],
            )
            .await?;
        }
        let mut time = None;
        if self.id.mtime == "commit" {
            let doing = format!("failed to get commit time for {remote}");
            let text = repository
                .git
                .run(
                    &doing,
                    &["log", "-1", "--format=%ct", &format!("{name}^{{commit}}")],
                )
                .await?;
            let seconds: i64 = text
                .trim()
                .parse() // "Not a number" is all that the dropped error says.
                .map_err(|_| GitRefusal::CommitTime {
                    text: text.to_owned(),
                })?;
            time = Some(seconds);
        }
        drop(attached);
        let root = record.root()?;
        let staged = (tree != top).then(|| PathBuf::from(tree.file_name().unwrap_or_default()));
        let subdir = self.id.subdir.clone();
        task::blocking("git checkout", move || {
            finish(&root, staged.as_deref(), &subdir, time)
        })
        .await?;
        Ok(task::blocking("commit a git checkout", move || record.commit()).await?)
    }

    /// Makes a repository with one commit, which names nothing of this machine.
    async fn clone_into(
        &self,
        from: &BareRepository,
        top: &Path,
        git_dir: &Path,
        name: &str,
    ) -> Result<(), SourceError> {
        let remote = self.id.display_remote();
        let doing = format!("failed to checkout remote {remote}");
        let git = from.git.work_tree(top).git_dir(git_dir);
        let mut init = vec!["init"];
        if name.len() == 64 {
            init.push("--object-format=sha256");
        }
        git.run(&doing, &init).await?;
        // By protocol: clones of local paths take short cuts that have leaked files of the host.
        let origin = format!("file://{}", from.dir.display());
        git.run(
            &format!("failed to set remote origin to {remote}"),
            &["remote", "add", "--", "origin", &remote],
        )
        .await?;
        let full_name = &from.full_name;
        let mut args = vec!["fetch", "-u", "--depth=1"];
        let refspec = if is_commit(full_name) {
            let temporary = format!("refs/buildkit/{}", unique("commit"));
            from.git
                .run(&doing, &["update-ref", "--", &temporary, full_name])
                .await?;
            temporary
        } else if self.id.fetch_by_commit {
            format!("{name}:{full_name}")
        } else {
            format!("{full_name}:{full_name}")
        };
        if full_name.starts_with("refs/heads/") {
            // A tag of the branch's name would come along with the commit.
            args.push("--no-tags");
        }
        args.extend(["--", &origin, &refspec]);
        git.run(&doing, &args).await?;
        git.run(&doing, &["checkout", "FETCH_HEAD"]).await?;
        git.run(
            &format!("failed to expire reflog for remote {remote}"),
            &["reflog", "expire", "--all", "--expire=now"],
        )
        .await?;
        // Through the tree's own root: git may have put a link in the place of `.git`.
        let tree = Root::open(top).map_err(|e| SourceError::path("open the checkout", e))?;
        tree.remove_all(".git/FETCH_HEAD")
            .map_err(|e| SourceError::path("remove FETCH_HEAD", e))
    }
}

/// Moves a folder of the repository to the top, and sets times, inside the record's tree.
fn finish(
    root: &Root,
    staged: Option<&Path>,
    subdir: &str,
    time: Option<i64>,
) -> Result<(), SourceError> {
    let path = |what: &str| {
        let what = what.to_owned();
        move |e| SourceError::path(what, e)
    };
    if let Some(staged) = staged {
        let mut folder = staged.to_owned();
        // Every part must be a real folder: a link in the repository could lead elsewhere (GHSA-4vrq-3vrq-g6gg).
        for part in subdir.split('/') {
            folder.push(part);
            let meta = root
                .lstat(&folder)
                .map_err(path(&format!("lstat {part:?}")))?;
            if !meta.is_dir() {
                let refusal = GitRefusal::SubdirNotDirectory {
                    subdir: subdir.to_owned(),
                    part: part.to_owned(),
                };
                return Err(refusal.into());
            }
        }
        let from = root.dir(&folder).map_err(path("open subdir"))?;
        let to = root.dir("/").map_err(path("open the checkout"))?;
        let list = from
            .entries()
            .map_err(|e| SourceError::io("read subdir", e))?;
        for entry in list {
            from.rename(&entry.name, &to, &entry.name)
                .map_err(|e| SourceError::io("move the checkout", e))?;
        }
        root.remove_all(staged)
            .map_err(path("remove the temporary checkout"))?;
    }
    if let Some(seconds) = time {
        let top = root.dir("/").map_err(path("open the checkout"))?;
        set_times(top, Times::both(seconds.saturating_mul(1_000_000_000)))
            .map_err(|e| SourceError::io("normalize mtimes", e))?;
    }
    Ok(())
}

/// Sets the times of all entries, of folders after their entries.
fn set_times(top: Dir, times: Times) -> std::io::Result<()> {
    let mut levels = vec![top.entries()?.into_iter()];
    let mut descent = Descent::new(top);
    while let Some(entries) = levels.last_mut() {
        let Some(entry) = entries.next() else {
            levels.pop();
            descent.dir().set_own_times(times)?;
            descent.up()?;
            continue;
        };
        if descent.dir().stat(&entry.name)?.is_dir() {
            descent.down(&entry.name)?;
            levels.push(descent.dir().entries()?.into_iter());
        } else {
            descent.dir().set_times(&entry.name, times)?;
        }
    }
    Ok(())
}
