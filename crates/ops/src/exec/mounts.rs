//! The mounts of an exec op: their refs, which of them become outputs, and their release.
//!
//! | mount                                        | in the container              | output                |
//! |----------------------------------------------|-------------------------------|-----------------------|
//! | bind, with an output, read-only, not the root | the input                    | the input             |
//! | bind, with an output                         | a new mutable over the input  | that mutable          |
//! | bind, no output, writable, not the root      | a new mutable, discarded      | –                     |
//! | bind, no output, read-only                   | the input                     | –                     |
//! | cache                                        | a retained mutable, by id     | the input, if wanted  |
//! | tmpfs, secret, ssh                           | created for the container     | –                     |
//!
//! Facts from `frontend/gateway/container/container.go` `PrepareMounts`. Cache mounts attach after the container's own
//! set-up (P6) and are resolved once, to a descriptor (P3).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use executor::{IdMapping, Mount, MountSource};
use llb::pb;
use solver::OpCtx;
use store::{ImmutableRef, MountFd, MutableRef, RefOptions};

use super::key::{NO_INPUT, NO_OUTPUT};
use crate::cache_mounts::{CacheMount, CacheMountRequest};
use crate::trust::{Bundle, TrustError};
use crate::{BuildDomain, OpFailure, Parts, Ref};

/// The content of one mount. `Debug` shows no secret.
enum PreparedMount {
    /// An unchanged input; `None` is scratch.
    Input(Option<ImmutableRef>),
    /// A mutable ref of this step; taken when it is committed.
    Mutable(Option<MutableRef>),
    /// A cache mount, which other steps may share.
    Cache(Arc<CacheMount>),
    /// An empty tmpfs, with its size limit in bytes.
    Tmpfs(Option<u64>),
    /// A secret as a file.
    Secret {
        /// Bytes of the file.
        contents: Vec<u8>,
        /// Permission bits of the file.
        mode: u32,
        /// User id of the owner.
        uid: u32,
        /// Group id of the owner.
        gid: u32,
    },
    /// The socket of a forwarded agent; dropping it ends the forwarding.
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

/// The mounts of one step, until they are committed or dropped.
#[derive(Debug)]
pub struct PreparedMounts {
    mounts: Vec<StepMount>,
    /// For each output an index into `mounts`, or the ref that is passed through.
    outputs: Vec<OutputSlot>,
    root: usize,
    /// Whether the container's root is read-only.
    pub readonly_root: bool,
    /// The system's certificates as the step sees them on the proxy network.
    bundle: Option<Bundle>,
    /// The container's user namespace. Mounts that it can write to are mapped the same way for the container and for readers outside.
    ids: Option<Arc<IdMapping>>,
}

#[derive(Debug)]
struct StepMount {
    position: usize,
    dest: String,
    selector: String,
    readonly: bool,
    content: PreparedMount,
}

#[derive(Debug)]
enum OutputSlot {
    Mount(usize),
    Through(Ref),
}

/// Checks the paths of an op before anything is prepared for it.
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

/// Prepares the mounts of an op.
pub async fn prepare(
    parts: &Parts,
    ctx: &OpCtx<BuildDomain>,
    mounts: &[pb::Mount],
    cwd: &str,
    args: &[String],
    inputs: &[Ref],
) -> Result<PreparedMounts, OpFailure> {
    check(mounts, cwd)?;
    let mut prepared = PreparedMounts {
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
            // prost's error holds the same number and no cause.
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
        let content = match kind {
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
            // Even a read-only root needs a mutable ref, because mount points are created in it.
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
                            &CacheMountRequest {
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
        prepared.mounts.push(StepMount {
            position,
            dest,
            selector: mount.selector.clone(),
            readonly: mount.readonly,
            content,
        });
    }
    if prepared.root == usize::MAX {
        return Err(OpFailure::NoRoot);
    }
    // The n-th result belongs to output n, whatever the order of the mounts.
    outputs.sort_by_key(|(index, _)| *index);
    prepared.outputs = outputs.into_iter().map(|(_, slot)| slot).collect();
    Ok(prepared)
}

impl PreparedMounts {
    /// Sets the user namespace of the container for which everything is opened.
    #[must_use]
    pub fn with_ids(mut self, ids: Option<Arc<IdMapping>>) -> Self {
        self.ids = ids;
        self
    }

    fn root_ref(&self) -> Option<&MutableRef> {
        match &self.mounts.get(self.root)?.content {
            PreparedMount::Mutable(root) => root.as_ref(),
            PreparedMount::Input(_)
            | PreparedMount::Cache(_)
            | PreparedMount::Tmpfs(_)
            | PreparedMount::Secret { .. }
            | PreparedMount::Ssh(_) => None,
        }
    }

    /// Makes the step trust a proxy's certificate, before anything is opened; returns the step's complete bundle.
    pub async fn with_certificate(
        mut self,
        certificate: Vec<u8>,
    ) -> Result<(Self, Vec<u8>), OpFailure> {
        task::blocking("show certificates", move || {
            let root = self.root_ref().ok_or(OpFailure::NoRoot)?;
            let bundle = Bundle::add(root, &certificate, self.ids.as_deref());
            let (bundle, contents) = bundle.map_err(|e| OpFailure::Trust(Box::new(e)))?;
            self.bundle = Some(bundle);
            Ok((self, contents))
        })
        .await
    }

    /// Removes the proxy's certificate from the files of the step, after its end.
    pub(crate) async fn without_certificate(self) -> (Self, Result<(), TrustError>) {
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

    /// The user namespace for the container's spec.
    pub fn ids(&self) -> Option<Arc<IdMapping>> {
        self.ids.clone()
    }

    /// Opens all mounts: those of the container, its root, and the size of `/dev/shm` if the op sets one.
    pub async fn open(&self) -> Result<(Vec<Mount>, MountFd, Option<u64>), OpFailure> {
        let ids = self.ids.as_deref();
        let mut mounts: Vec<Mount> = Vec::with_capacity(self.mounts.len());
        let mut root = None;
        let mut shm_size = None;
        for (at, entry) in self.mounts.iter().enumerate() {
            let mut selector = entry.selector.clone();
            let source = match &entry.content {
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
                    MountSource::Place(socket.open_path()?)
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
        // Parents come before the mounts below them.
        mounts.sort_by(|a, b| a.dest.cmp(&b.dest));
        Ok((mounts, root.ok_or(OpFailure::NoRoot)?, shm_size))
    }

    /// Opens the tree of the mount at `position` in the op's list, to be read from outside. Owners in it are those
    /// of the host: see [`Self::ids`].
    pub fn tree(&self, position: usize) -> Result<Option<fstree::Root>, OpFailure> {
        let Some(entry) = self.mounts.iter().find(|e| e.position == position) else {
            return Ok(None);
        };
        let ids = self.ids.as_deref();
        let mount = match &entry.content {
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
                                .and_then(|entry| match &mut entry.content {
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

    /// After a failure: commits the step's files, so that clients can look at them. Returns a ref for each mount before
    /// and after the step.
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
                if let PreparedMount::Mutable(mutable) = &mut entry.content
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
