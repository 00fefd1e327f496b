//! The mounts of an exec op: which refs they need, what of them becomes an output, and what is released.
//!
//! | mount                                        | in the container              | output                |
//! |----------------------------------------------|-------------------------------|-----------------------|
//! | bind, output wanted, read-only, not the root | the input                     | the input             |
//! | bind, output wanted                          | a new mutable over the input  | that mutable          |
//! | bind, no output, writable, not the root      | a new mutable, thrown away    | –                     |
//! | bind, no output, read-only                   | the input                     | –                     |
//! | cache                                        | a retained mutable, by id     | the input, if wanted  |
//! | tmpfs, secret, ssh                           | made for the container        | –                     |
//!
//! Facts of `frontend/gateway/container/container.go` `PrepareMounts`. Cache mounts attach after the container's own
//! set-up (P6) and are resolved once, to a descriptor (P3).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use executor::{IdMapping, Mount, MountSource};
use llb::pb;
use solver::OpCtx;
use store::{ImmutableRef, MountFd, MutableRef, RefOptions};

use super::key::{NO_INPUT, NO_OUTPUT};
use crate::cache_mounts::{CacheMount, Request};
use crate::trust::{Bundle, TrustError};
use crate::{BuildDomain, OpFailure, Parts, Ref};

/// What is mounted at one place. `Debug` shows no secret.
enum PreparedMount {
    /// An input as it is; `None` is scratch.
    Input(Option<ImmutableRef>),
    /// A mutable of this step; taken out when it is committed.
    Mutable(Option<MutableRef>),
    /// A cache mount, shared with whoever has it open.
    Cache(Arc<CacheMount>),
    /// An empty tmpfs.
    Tmpfs(Option<u64>),
    /// A secret's bytes.
    Secret {
        /// The bytes.
        contents: Vec<u8>,
        /// Permissions and owner.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A forwarded agent's socket, held open; the guard ends the forwarding.
    Ssh(crate::callers::SshSocket),
}

impl fmt::Debug for PreparedMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input(_) => "Input",
            Self::Mutable(_) => "Mutable",
            Self::Cache(_) => "Cache",
            Self::Tmpfs(_) => "Tmpfs",
            Self::Secret { .. } => "Secret",
            Self::Ssh(_) => "Ssh",
        })
    }
}

/// The mounts of one step, until it is over.
#[derive(Debug)]
pub struct Prepared {
    mounts: Vec<Entry>,
    /// Index into `mounts` for each output, or the ref that is passed through.
    outputs: Vec<OutputSlot>,
    root: usize,
    /// The container cannot write to its root.
    pub readonly_root: bool,
    /// What the step sees of the system's certificates, on the proxy network.
    bundle: Option<Bundle>,
    /// The container's user namespace. What it can write to has one kind of mount, for it and for those who look into it.
    ids: Option<Arc<IdMapping>>,
}

#[derive(Debug)]
struct Entry {
    position: usize,
    dest: String,
    selector: String,
    readonly: bool,
    what: PreparedMount,
}

#[derive(Debug)]
enum OutputSlot {
    Mount(usize),
    Through(Ref),
}

/// Checks the paths of an op, of which everything that is made for it would be made in vain.
pub(crate) fn check(mounts: &[pb::Mount], cwd: &str) -> Result<(), OpFailure> {
    let check = || {
        executor::check_path("working directory", cwd)?;
        executor::check_mount_count(mounts.len())?;
        for mount in mounts {
            executor::check_path("mount destination", &mount.dest)?;
            executor::check_path("mount selector", &mount.selector)?;
        }
        Ok(())
    };
    check().map_err(|error| OpFailure::Bounds(Box::new(error)))
}

/// Makes what the mounts of an op need.
pub async fn prepare(
    parts: &Parts,
    ctx: &OpCtx<BuildDomain>,
    mounts: &[pb::Mount],
    cwd: &str,
    args: &[String],
    inputs: &[Ref],
) -> Result<Prepared, OpFailure> {
    check(mounts, cwd)?;
    let mut prepared = Prepared {
        mounts: Vec::new(),
        outputs: Vec::new(),
        root: usize::MAX,
        readonly_root: false,
        bundle: None,
        ids: None,
    };
    let mut outputs: Vec<(i64, OutputSlot)> = Vec::new();
    let mut own = HashMap::new();
    let builds = crate::domain::cache_mounts(ctx);
    let mutable = |mount: &pb::Mount, input: Option<&ImmutableRef>| {
        let description = format!("mount {} from exec {}", mount.dest, args.join(" "));
        parts.store.new_mutable(
            input,
            RefOptions {
                description,
                ..RefOptions::default()
            },
        )
    };
    for (position, mount) in mounts.iter().enumerate() {
        let kind = pb::MountType::try_from(mount.mount_type)
            // prost's error holds the same number and no reason.
            .map_err(|_| OpFailure::UnknownMountType(mount.mount_type))?;
        let is_root = mount.dest == "/";
        if is_root && kind != pb::MountType::Bind {
            return Err(OpFailure::RootMount {
                kind: kind.as_str_name().into(),
            });
        }
        let input = if mount.input == NO_INPUT {
            None
        } else {
            usize::try_from(mount.input)
                .ok()
                .and_then(|i| inputs.get(i))
                .ok_or(OpFailure::MissingInput(mount.input))?
                .as_ref()
        };
        let wants_output = mount.output != NO_OUTPUT;
        let at = prepared.mounts.len();
        let what = match kind {
            pb::MountType::Bind
                if wants_output && mount.readonly && input.is_some() && !is_root =>
            {
                outputs.push((mount.output, OutputSlot::Through(input.cloned())));
                PreparedMount::Input(input.cloned())
            }
            pb::MountType::Bind if wants_output => {
                outputs.push((mount.output, OutputSlot::Mount(at)));
                PreparedMount::Mutable(Some(mutable(mount, input)?))
            }
            // The root needs a mutable even when it is read-only: mount points are made in it.
            pb::MountType::Bind if is_root || !mount.readonly || input.is_none() => {
                PreparedMount::Mutable(Some(mutable(mount, input)?))
            }
            pb::MountType::Bind => PreparedMount::Input(input.cloned()),
            pb::MountType::Cache => {
                if wants_output && input.is_some() {
                    outputs.push((mount.output, OutputSlot::Through(input.cloned())));
                }
                PreparedMount::Cache(
                    parts
                        .cache_mounts
                        .open(
                            &mut own,
                            &Request {
                                mount,
                                input,
                                args,
                                builds: &builds,
                            },
                        )
                        .await?,
                )
            }
            pb::MountType::Tmpfs => {
                let size = mount
                    .tmpfs_opt
                    .as_ref()
                    .and_then(|o| u64::try_from(o.size).ok())
                    .filter(|s| *s > 0);
                PreparedMount::Tmpfs(size)
            }
            pb::MountType::Secret => {
                let options = mount
                    .secret_opt
                    .as_ref()
                    .ok_or(OpFailure::MountOptions { kind: "secret" })?;
                if options.id.is_empty() {
                    return Err(OpFailure::SecretMountId);
                }
                match crate::callers::secret(parts, ctx, &options.id).await? {
                    Some(contents) => PreparedMount::Secret {
                        contents,
                        mode: options.mode & 0o777,
                        uid: options.uid,
                        gid: options.gid,
                    },
                    None if options.optional => continue,
                    None => {
                        return Err(OpFailure::SecretNotFound {
                            id: options.id.clone(),
                        });
                    }
                }
            }
            pb::MountType::Ssh => {
                let options = mount
                    .ssh_opt
                    .as_ref()
                    .ok_or(OpFailure::MountOptions { kind: "SSH" })?;
                match crate::callers::ssh(parts, ctx, options).await? {
                    Some(socket) => PreparedMount::Ssh(socket),
                    None => continue,
                }
            }
        };
        if is_root {
            prepared.root = at;
            prepared.readonly_root = mount.readonly;
        }
        let dest = if mount.dest.starts_with('/') {
            mount.dest.clone()
        } else {
            gostd::path::join_root(&format!("{cwd}/{}", mount.dest))
        };
        prepared.mounts.push(Entry {
            position,
            dest,
            selector: mount.selector.clone(),
            readonly: mount.readonly,
            what,
        });
    }
    if prepared.root == usize::MAX {
        return Err(OpFailure::NoRoot);
    }
    // The result of output n is the n-th of the op's results, whatever the order of the mounts.
    outputs.sort_by_key(|(index, _)| *index);
    prepared.outputs = outputs.into_iter().map(|(_, slot)| slot).collect();
    Ok(prepared)
}

impl Prepared {
    /// Has all that is opened from here on made for a container with this user namespace.
    #[must_use]
    pub fn with_ids(mut self, ids: Option<Arc<IdMapping>>) -> Self {
        self.ids = ids;
        self
    }

    fn root_ref(&self) -> Option<&MutableRef> {
        match &self.mounts.get(self.root)?.what {
            PreparedMount::Mutable(root) => root.as_ref(),
            PreparedMount::Input(_)
            | PreparedMount::Cache(_)
            | PreparedMount::Tmpfs(_)
            | PreparedMount::Secret { .. }
            | PreparedMount::Ssh(_) => None,
        }
    }

    /// Has the step trust a proxy's certificate, before anything is opened; returns all that it trusts.
    pub async fn trusting(mut self, certificate: Vec<u8>) -> Result<(Self, Vec<u8>), OpFailure> {
        task::blocking("show certificates", move || {
            let root = self.root_ref().ok_or(OpFailure::NoRoot)?;
            let shown = Bundle::show(root, &certificate, self.ids.as_deref());
            let (bundle, contents) = shown.map_err(|e| OpFailure::Trust(Box::new(e)))?;
            self.bundle = Some(bundle);
            Ok((self, contents))
        })
        .await
    }

    /// Takes the proxy's certificate out of what the step wrote, when it has ended.
    pub(crate) async fn distrust(self) -> (Self, Result<(), TrustError>) {
        if self.bundle.is_none() {
            return (self, Ok(()));
        }
        task::blocking("remove a certificate", move || {
            let removed = match (&self.bundle, self.root_ref()) {
                (Some(bundle), Some(root)) => bundle.remove(root),
                _ => Ok(()),
            };
            (self, removed)
        })
        .await
    }

    /// The container's user namespace, for its spec.
    pub fn ids(&self) -> Option<Arc<IdMapping>> {
        self.ids.clone()
    }

    /// Opens all mounts: the container's, its root, and the size of `/dev/shm` where the op sets one.
    pub async fn open(&self) -> Result<(Vec<Mount>, MountFd, Option<u64>), OpFailure> {
        let ids = self.ids.as_deref();
        let mut mounts: Vec<Mount> = Vec::with_capacity(self.mounts.len());
        let mut root = None;
        let mut shm_size = None;
        for (at, entry) in self.mounts.iter().enumerate() {
            let mut selector = entry.selector.clone();
            let source = match &entry.what {
                PreparedMount::Input(Some(reference)) => {
                    MountSource::Mount(reference.mount_for(ids)?)
                }
                PreparedMount::Input(None) => {
                    return Err(OpFailure::NoMountInput {
                        dest: entry.dest.clone(),
                    });
                }
                PreparedMount::Mutable(Some(mutable)) => {
                    MountSource::Mount(mutable.mount_for(ids)?)
                }
                PreparedMount::Mutable(None) => {
                    return Err(OpFailure::NoMountInput {
                        dest: entry.dest.clone(),
                    });
                }
                PreparedMount::Cache(cache) => MountSource::Mount(cache.mount(ids)?),
                PreparedMount::Tmpfs(size) => {
                    if entry.dest == "/dev/shm" {
                        shm_size = *size;
                        continue;
                    }
                    MountSource::Tmpfs { size: *size }
                }
                PreparedMount::Secret {
                    contents,
                    mode,
                    uid,
                    gid,
                } => MountSource::File {
                    contents: contents.clone(),
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                },
                PreparedMount::Ssh(socket) => {
                    selector.clear();
                    MountSource::Place(socket.place()?)
                }
            };
            if at == self.root {
                match source {
                    MountSource::Mount(mount) => root = Some(mount),
                    MountSource::Place(_)
                    | MountSource::Tmpfs { .. }
                    | MountSource::File { .. } => {
                        return Err(OpFailure::NoRoot);
                    }
                }
                continue;
            }
            mounts.push(Mount {
                dest: entry.dest.clone(),
                source,
                selector,
                readonly: entry.readonly,
            });
        }
        // Parents first.
        mounts.sort_by(|a, b| a.dest.cmp(&b.dest));
        Ok((mounts, root.ok_or(OpFailure::NoRoot)?, shm_size))
    }

    /// Opens the tree that is mounted by the mount at `position` of the op's list, to look into it from outside. Owners in it are those
    /// of the host: see [`Self::ids`].
    pub fn tree(&self, position: usize) -> Result<Option<fstree::Root>, OpFailure> {
        let Some(entry) = self.mounts.iter().find(|e| e.position == position) else {
            return Ok(None);
        };
        let ids = self.ids.as_deref();
        let mount = match &entry.what {
            PreparedMount::Input(Some(reference)) => reference.mount_for(ids)?,
            PreparedMount::Mutable(Some(mutable)) => mutable.mount_for(ids)?,
            PreparedMount::Cache(cache) => cache.mount(ids)?,
            PreparedMount::Input(None)
            | PreparedMount::Mutable(None)
            | PreparedMount::Tmpfs(_)
            | PreparedMount::Secret { .. }
            | PreparedMount::Ssh(_) => return Ok(None),
        };
        let root = fstree::Root::from_fd(mount.into());
        Ok(Some(root.map_err(|e| OpFailure::Tree(Box::new(e)))?))
    }

    /// Commits the outputs, in the order of their indexes.
    pub async fn commit(mut self) -> Result<Vec<Ref>, OpFailure> {
        task::blocking("commit", move || {
            let mut results = Vec::with_capacity(self.outputs.len());
            for slot in std::mem::take(&mut self.outputs) {
                match slot {
                    OutputSlot::Through(reference) => results.push(reference),
                    OutputSlot::Mount(at) => {
                        let mutable =
                            self.mounts
                                .get_mut(at)
                                .and_then(|entry| match &mut entry.what {
                                    PreparedMount::Mutable(mutable) => mutable.take(),
                                    PreparedMount::Input(_)
                                    | PreparedMount::Cache(_)
                                    | PreparedMount::Tmpfs(_)
                                    | PreparedMount::Secret { .. }
                                    | PreparedMount::Ssh(_) => None,
                                });
                        results.push(Some(mutable.ok_or(OpFailure::MissingOutput(at))?.commit()?));
                    }
                }
            }
            Ok(results)
        })
        .await
    }

    /// After a failure: commits what the step wrote, so that it can be looked at. Returns a ref for each mount as it
    /// was and as the step left it.
    pub async fn keep(mut self, mounts: &[pb::Mount], inputs: &[Ref]) -> (Vec<Ref>, Vec<Ref>) {
        let before: Vec<Ref> = mounts
            .iter()
            .map(|m| {
                usize::try_from(m.input)
                    .ok()
                    .and_then(|i| inputs.get(i))
                    .cloned()
                    .flatten()
            })
            .collect();
        let mut after = before.clone();
        let after = task::blocking("commit", move || {
            for entry in &mut self.mounts {
                if let PreparedMount::Mutable(mutable) = &mut entry.what
                    && let Some(mutable) = mutable.take()
                    && let Ok(reference) = mutable.commit_passing()
                    && let Some(place) = after.get_mut(entry.position)
                {
                    *place = Some(reference);
                }
            }
            after
        })
        .await;
        (before, after)
    }
}
