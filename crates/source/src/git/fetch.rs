//! Brings commits into the bare repository that is kept for a remote.

use std::io::Write as _;
use std::path::PathBuf;

use oci::Digest;
use store::{MutableRef, RefOptions, StoreError};

use crate::context::Context;
use crate::error::SourceError;
use crate::git::auth::GitAuth;
use crate::git::cli::GitCli;
use crate::git::error::GitRefusal;
use crate::git::resolve::ResolvedRef;
use crate::git::url::is_commit;
use crate::git::workdir::AttachedMount;
use crate::git::{GitInstance, META_REMOTE};
use crate::scratch::unique;
use crate::session_credentials::AgentSocket;

/// The bare repository of a remote, ready to work in.
#[derive(Debug)]
pub(crate) struct BareRepository {
    pub(crate) git: GitCli,
    pub(crate) dir: PathBuf,
    /// The user's reference, or the default branch.
    pub(crate) reference: String,
    /// The reference by its full name, or a commit.
    pub(crate) full_name: String,
    _attached: AttachedMount,
    _record: MutableRef,
    _helpers: Helpers,
    _lock: tokio::sync::OwnedMutexGuard<()>,
}

/// Files and sockets that git needs while it runs.
#[derive(Debug, Default)]
pub(crate) struct Helpers {
    known_hosts: Option<TemporaryFile>,
    _socket: Option<AgentSocket>,
}

#[derive(Debug)]
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

/// The outcome of an attempt to fetch.
enum FetchAttempt {
    Done(Box<BareRepository>),
    /// The references of the kept repository stand in the way; a new repository has none.
    Conflict(SourceError),
}

impl GitInstance {
    /// git with the credentials of this source.
    pub(crate) async fn git(&self, ctx: &Context) -> Result<(GitCli, Helpers), SourceError> {
        let config = self.source.inner.config.clone();
        let mut helpers = Helpers::default();
        if !self.id.known_hosts.is_empty() {
            std::fs::create_dir_all(&config.scratch)
                .map_err(|e| SourceError::io("make the git scratch folder", e))?;
            let path = config.scratch.join(unique("known_hosts"));
            let write_result = std::fs::File::create_new(&path)
                .and_then(|mut f| f.write_all(self.id.known_hosts.as_bytes()));
            helpers.known_hosts = Some(TemporaryFile(path));
            write_result.map_err(|e| SourceError::io("write known hosts", e))?;
        }
        let mut socket = None;
        if !self.id.ssh_socket.is_empty() {
            let forwarded =
                AgentSocket::open(&ctx.sessions, &self.id.ssh_socket, &config.scratch).await?;
            socket = Some(forwarded.path().to_owned());
            helpers._socket = Some(forwarded);
        }
        let known_hosts = helpers.known_hosts.as_ref().map(|f| f.0.clone());
        let git = GitCli::new(
            config,
            ctx.progress.clone(),
            GitAuth::ask(&self.id, ctx).await,
            self.id.advice,
        )
        .ssh(socket, known_hosts);
        Ok((git, helpers))
    }

    /// Fetches the object of the key, and checks it against the checksum.
    pub(crate) async fn fetch(
        &self,
        ctx: &Context,
        resolved: &ResolvedRef,
        object: &str,
    ) -> Result<BareRepository, SourceError> {
        let repository = match self.try_fetch(ctx, resolved, object, false).await? {
            FetchAttempt::Done(repository) => repository,
            FetchAttempt::Conflict(_) => match self.try_fetch(ctx, resolved, object, true).await? {
                FetchAttempt::Done(repository) => repository,
                FetchAttempt::Conflict(error) => return Err(error),
            },
        };
        let expected = &self.id.checksum;
        if !expected.is_empty() {
            let name = if self.id.fetch_by_commit {
                expected
            } else {
                &repository.full_name
            };
            let doing = format!(
                "failed to rev-parse {name} for {}",
                self.id.display_remote()
            );
            let object = repository.git.run(&doing, &["rev-parse", name]).await?;
            let object = object.trim();
            if !object.starts_with(expected) {
                let peeled = repository
                    .git
                    .run(&doing, &["rev-parse", &format!("{name}^{{}}")])
                    .await
                    .unwrap_or_default();
                let peeled = peeled.trim();
                if !peeled.starts_with(expected) || peeled.is_empty() {
                    let actual = if peeled.is_empty() || peeled == object {
                        object.to_owned()
                    } else {
                        format!("{object} or {peeled}")
                    };
                    return Err(GitRefusal::Checksum {
                        expected: expected.clone(),
                        actual,
                    }
                    .into());
                }
            }
        }
        Ok(*repository)
    }

    /// Opens the kept repository of the remote, or makes one.
    async fn open_bare(
        &self,
        git: &GitCli,
        is_sha256: bool,
        reset: bool,
    ) -> Result<(MutableRef, AttachedMount), SourceError> {
        let inner = &self.source.inner;
        let remote = self.id.display_remote();
        // Repositories of an older version hold the address with its password: they are deleted.
        for id in inner
            .store
            .find_meta(META_REMOTE, self.id.remote.as_bytes())?
        {
            inner.store.clear_meta(&id, META_REMOTE)?;
            if let Ok(record) = inner.store.get_mutable(&id) {
                record.set_retain(false)?;
            }
        }
        let name = Digest::sha256(&self.id.remote);
        let name = name.as_str().as_bytes();
        for id in inner.store.find_meta(META_REMOTE, name)? {
            if reset {
                inner.store.clear_meta(&id, META_REMOTE)?;
                continue;
            }
            match inner.store.get_mutable(&id) {
                Ok(record) => {
                    let attached = AttachedMount::new(record.mount()?, &inner.config.scratch)?;
                    return Ok((record, attached));
                }
                Err(StoreError::Locked { .. }) => {
                    tracing::warn!(remote = %remote, id = %id, "git repository is in use")
                }
                Err(error) => return Err(error.into()),
            }
        }
        let description = format!("shared git repo for {remote}");
        let record = inner.store.new_mutable(
            None,
            RefOptions {
                description,
                retain: true,
                ..RefOptions::default()
            },
        )?;
        let attached = AttachedMount::new(record.mount()?, &inner.config.scratch)?;
        let bare = git.git_dir(attached.path());
        let mut init = vec!["init", "--bare"];
        if is_sha256 {
            init.push("--object-format=sha256");
        }
        let initialised = async {
            bare.run("failed to init repo", &init).await?;
            bare.run(
                "failed add origin repo",
                &["remote", "add", "--", "origin", &self.id.address],
            )
            .await
        };
        if let Err(error) = initialised.await {
            record.set_retain(false)?;
            return Err(error);
        }
        record.set_meta(META_REMOTE, name)?;
        Ok((record, attached))
    }

    async fn try_fetch(
        &self,
        ctx: &Context,
        resolved: &ResolvedRef,
        object: &str,
        reset: bool,
    ) -> Result<FetchAttempt, SourceError> {
        let lock = self.source.inner.locks.lock(&self.id.remote).await;
        let (git, helpers) = self.git(ctx).await?;
        let (record, attached) = self.open_bare(&git, object.len() == 64, reset).await?;
        let dir = attached.path().to_owned();
        let git = git.git_dir(&dir);
        let staged = self.staged(ctx).await?;
        let git = match staged {
            Some(staged) => git.beside(staged.folder()),
            None => git,
        };
        let origin = match staged {
            // DIFFERS: a bundle is always what is fetched from; BuildKit asks the remote when it knows the commit already.
            Some(staged) => staged.url.clone(),
            None => "origin".to_owned(),
        };
        let full_name = resolved.reference.clone();
        let reference = match self.id.reference.as_str() {
            _ if self.id.bundle.is_some() && !self.id.names_branch() => self.id.checksum.clone(),
            "" => {
                let branch = full_name.strip_prefix("refs/heads/");
                branch.unwrap_or(&full_name).to_owned()
            }
            name => name.to_owned(),
        };
        let target = if self.id.fetch_by_commit {
            self.id.checksum.clone()
        } else {
            full_name.clone()
        };
        let commit_expression = format!("{target}^{{commit}}");
        let has_commit = is_commit(&target)
            && git
                .run("cat-file", &["cat-file", "-e", "--", &commit_expression])
                .await
                .is_ok();
        if !has_commit
            && let Err(error) = self
                .fetch_into(&git, (&origin, &dir), &full_name, &target, object)
                .await
        {
            let text = if let SourceError::Git { stderr, .. } = &error {
                stderr.as_str()
            } else {
                ""
            };
            let clobbers =
                text.contains("rejected") && text.contains("(would clobber existing tag)");
            let blocked = text.contains("some local refs could not be updated;")
                && (text.contains("(unable to update local ref)")
                    || text.contains("refname conflict"));
            return if clobbers || blocked {
                Ok(FetchAttempt::Conflict(error))
            } else {
                Err(error)
            };
        }
        let repository = BareRepository {
            git,
            dir,
            reference,
            full_name,
            _attached: attached,
            _record: record,
            _helpers: helpers,
            _lock: lock,
        };
        Ok(FetchAttempt::Done(Box::new(repository)))
    }

    async fn fetch_into(
        &self,
        git: &GitCli,
        (origin, dir): (&str, &std::path::Path),
        full_name: &str,
        target: &str,
        object: &str,
    ) -> Result<(), SourceError> {
        let doing = format!("failed to fetch remote {}", self.id.display_remote());
        // A git that was killed leaves its lock.
        let _gone = std::fs::remove_file(dir.join("shallow.lock"));
        let is_shallow = || dir.join("shallow").symlink_metadata().is_ok();
        // The limit on silence sees progress as a sign of life.
        let mut args = vec!["fetch", "--progress"];
        if self.id.fetch_by_commit || !is_commit(target) {
            args.extend(["--depth=1", "--no-tags"]);
        } else {
            args.push("--tags");
            if is_shallow() {
                args.push("--unshallow");
            }
        }
        // The full name on both sides: a branch and a tag may have the same short name.
        let refspec = format!("{target}:{full_name}");
        if is_commit(full_name) {
            args.extend(["--", origin, full_name]);
        } else {
            args.extend(["--force", "--", origin, &refspec]);
        }
        git.run(&doing, &args).await?;
        let fetched_object = git.run(&doing, &["rev-parse", target]).await?;
        if fetched_object.trim() == object {
            return Ok(());
        }
        // The reference has moved since the key was made. The commit of the key counts.
        if git.run(&doing, &["cat-file", "-e", object]).await.is_err() {
            let mut args = vec!["fetch", "--tags"];
            if is_shallow() {
                args.push("--unshallow");
            }
            args.extend(["--", origin, object]);
            git.run(&doing, &args).await?;
            git.run(&doing, &["reflog", "expire", "--all", "--expire=now"])
                .await?;
            if git.run(&doing, &["cat-file", "-e", object]).await.is_err() {
                return Err(GitRefusal::CommitGone {
                    reference: full_name.to_owned(),
                    commit: object.to_owned(),
                }
                .into());
            }
        }
        if !is_commit(full_name) {
            let update = ["update-ref", "--no-deref", "--", full_name, object];
            git.run(&doing, &update).await?;
        }
        Ok(())
    }
}
