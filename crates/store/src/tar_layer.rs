//! Layers that are kept as their tar, and mounted where it lies.
//!
//! ```text
//!   snapshots/<id>/tar      the uncompressed layer, byte for byte what its diff id names
//!   snapshots/<id>/index    an EROFS image of metadata whose files lie in the tar
//! ```
//!
//! Both are written once and never changed. The kernel mounts them without a loop device (Linux 6.12), and the mount is a descriptor like
//! all mounts here: it is made when the layer is first needed and shared by whatever stacks it. The mounts that were used last are kept for
//! the next step; any other ends with the last stack that has it.
//!
//! Where the kernel cannot do it, or what is stacked on it would not work, layers are unpacked into folders as before: [`probe`] tries all
//! that is done with such a mount once, when the store is opened.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use erofs::{Attributes, Image, Limits, Tree};
use fstree::Root;
use layer::index::{IndexError, IndexOptions, Indexed};
use oci::Digest;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};
use sys::mount::{Attrs, DetachedMount, Overlay};
use sys::userns::{IdMapping, IdRange};

/// How layers that come from elsewhere are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerForm {
    /// As their tar if the kernel can mount it, else unpacked.
    #[default]
    Auto,
    /// As their tar, or fail at open.
    Tar,
    /// Unpacked.
    Folder,
}

const TAR: &str = "tar";
const INDEX: &str = "index";
/// Mounts that are kept for the next who needs them. Whoever has one in use keeps it beside these.
const MAX_IDLE_MOUNTS: usize = 256;
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// A mount with the ids of a user namespace.
type MappedMount = (IdRange, Arc<DetachedMount>);

/// The mounts of tar layers.
#[derive(Debug, Default)]
pub(crate) struct TarLayers {
    mounts: Mutex<Mounts>,
}

#[derive(Debug, Default)]
struct Mounts {
    by_id: HashMap<String, Mounted>,
    /// Counts the uses, to tell which mount was used last.
    uses: u64,
}

#[derive(Debug)]
struct Mounted {
    mount: Arc<DetachedMount>,
    /// The same with the ids of a user namespace. A daemon has one for all its steps.
    mapped: Option<MappedMount>,
    last_use: u64,
}

impl TarLayers {
    /// The root of a layer's tree, as `ids` show it. `snapshot` is the layer's directory.
    pub(crate) fn root(
        &self,
        id: &str,
        snapshot: impl AsFd,
        ids: Option<&IdMapping>,
    ) -> io::Result<OwnedFd> {
        let range = ids.map(IdMapping::range);
        let cached = self.cached(id);
        let as_asked = cached.as_ref().and_then(|(mount, mapped)| match range {
            None => Some(mount),
            Some(range) => mapped
                .as_ref()
                .filter(|(of, _)| *of == range)
                .map(|(_, mapped)| mapped),
        });
        if let Some(mount) = as_asked {
            return mount.try_clone();
        }
        // Not under the lock: another who needs the same mounts it a second time, which does no harm.
        let mount = match cached {
            Some((mount, _)) => mount,
            None => Arc::new(mount_files(snapshot)?),
        };
        let mapped = match (ids, range) {
            (Some(ids), Some(range)) => Some((range, Arc::new(crate::mapped::map(&*mount, ids)?))),
            _ => None,
        };
        let root = mapped
            .as_ref()
            .map_or(&mount, |(_, mapped)| mapped)
            .try_clone()?;
        let dropped = self.keep(id, mount, mapped);
        drop(dropped);
        Ok(root)
    }

    fn cached(&self, id: &str) -> Option<(Arc<DetachedMount>, Option<MappedMount>)> {
        let mut mounts = self.mounts.lock();
        mounts.uses += 1;
        let uses = mounts.uses;
        let mounted = mounts.by_id.get_mut(id)?;
        mounted.last_use = uses;
        Some((Arc::clone(&mounted.mount), mounted.mapped.clone()))
    }

    /// Keeps a mount. Returns those that it replaces: they are dissolved by the caller, after the lock.
    fn keep(
        &self,
        id: &str,
        mount: Arc<DetachedMount>,
        mapped: Option<MappedMount>,
    ) -> Vec<Mounted> {
        let mut mounts = self.mounts.lock();
        let mut dropped = Vec::new();
        if mounts.by_id.len() >= MAX_IDLE_MOUNTS {
            let oldest = mounts
                .by_id
                .iter()
                .min_by_key(|(_, mounted)| mounted.last_use);
            let oldest = oldest.map(|(id, _)| id.clone());
            dropped.extend(oldest.and_then(|id| mounts.by_id.remove(&id)));
        }
        let last_use = mounts.uses;
        let mounted = Mounted {
            mount,
            mapped,
            last_use,
        };
        dropped.extend(mounts.by_id.insert(id.to_owned(), mounted));
        dropped
    }

    /// Lets go of a layer that is removed.
    pub(crate) fn forget(&self, id: &str) {
        let mounted = self.mounts.lock().by_id.remove(id);
        drop(mounted);
    }
}

fn open_file(snapshot: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(snapshot, name, flags, Mode::empty())?.into())
}

fn create_file(snapshot: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(snapshot, name, flags, Mode::from_raw_mode(0o600))?.into())
}

fn mount_files(snapshot: impl AsFd) -> io::Result<DetachedMount> {
    let (index, tar) = (open_file(&snapshot, INDEX)?, open_file(&snapshot, TAR)?);
    sys::mount::erofs(index.as_fd(), &[tar.as_fd()])
}

/// Whether the directory holds both files of a layer.
pub(crate) fn is_whole(snapshot: impl AsFd) -> bool {
    [TAR, INDEX].into_iter().all(|name| {
        rustix::fs::statat(&snapshot, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
        })
    })
}

/// Bytes on disk of both files.
pub(crate) fn disk_size(snapshot: impl AsFd) -> io::Result<i64> {
    let mut size = 0_i64;
    for name in [TAR, INDEX] {
        let stat = rustix::fs::statat(&snapshot, name, AtFlags::SYMLINK_NOFOLLOW)?;
        size = size.saturating_add(stat.st_blocks.saturating_mul(512));
    }
    Ok(size)
}

/// A layer in the making.
#[derive(Debug)]
pub(crate) struct TarWriter {
    snapshot: OwnedFd,
}

impl TarWriter {
    /// Writes into a snapshot's directory.
    pub(crate) fn new(snapshot: OwnedFd) -> Self {
        Self { snapshot }
    }

    /// Writes the tar of a layer, compressed or not, and its index. The tar is whole, too, when the index cannot be made. Blocks.
    pub(crate) fn write(
        &self,
        stream: &mut (dyn Read + Send),
        below: &Vec<Root>,
        now: i64,
    ) -> Result<Digest, IndexError> {
        let options = IndexOptions {
            below,
            root: Attributes {
                permissions: 0o755,
                seconds: now,
                ..Attributes::default()
            },
            now,
            limit: None,
            limits: Limits::default(),
        };
        let file = create_file(&self.snapshot, TAR).map_err(IndexError::Write)?;
        let mut tar = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        let indexed = layer::index::index(stream, &mut tar, &options);
        let flushed = tar.flush().map_err(IndexError::Write);
        let indexed = indexed?;
        flushed?;
        self.write_index(&indexed)?;
        Ok(indexed.applied.diff_id)
    }

    fn write_index(&self, indexed: &Indexed) -> Result<(), IndexError> {
        let file = create_file(&self.snapshot, INDEX).map_err(IndexError::Write)?;
        let written = indexed.write(BufWriter::with_capacity(WRITE_BUFFER_BYTES, file));
        written.map(drop).map_err(IndexError::Index)
    }

    /// Takes the tar back, of a layer that has to be unpacked.
    pub(crate) fn into_tar(self) -> io::Result<File> {
        let tar = open_file(&self.snapshot, TAR)?;
        rustix::fs::unlinkat(&self.snapshot, TAR, AtFlags::empty())?;
        Ok(tar)
    }
}

/// Tries what is done with tar layers, in an empty directory of its own: mounted, bound, stacked and searched.
pub(crate) fn probe(snapshot: &OwnedFd, empty: &OwnedFd) -> io::Result<()> {
    let root = Attributes {
        permissions: 0o755,
        ..Attributes::default()
    };
    let tree = Tree::new(root, Limits::default()).map_err(io::Error::other)?;
    let options = erofs::WriteOptions {
        block_size: erofs::BlockSize::TAR,
        devices: &[erofs::Device { size: 512 }],
    };
    create_file(snapshot, TAR)?.write_all(&[0; 512])?;
    erofs::write(&tree, options, create_file(snapshot, INDEX)?).map_err(io::Error::other)?;
    let mount = mount_files(snapshot)?;
    // Linux 6.15: a mount that is attached nowhere can be copied.
    sys::mount::open_tree_clone(&mount, false)?;
    sys::mount::overlay(&Overlay {
        lower: &[mount.as_fd(), empty.as_fd()],
        upper: None,
        volatile: false,
        options: &[],
        attrs: Attrs {
            readonly: true,
            ..Attrs::default()
        },
    })?;
    Ok(())
}

/// What is wrong with the files of a layer: the index, and with `diff_id` the tar's digest. For a check while nobody uses them.
pub(crate) fn problem(snapshot: impl AsFd, diff_id: Option<&Digest>) -> Option<String> {
    let checked = open_file(&snapshot, INDEX)
        .map_err(|error| error.to_string())
        .and_then(|index| {
            let image = Image::open(index).map_err(|error| error.to_string())?;
            image.check().map_err(|error| error.to_string())
        });
    if let Err(problem) = checked {
        return Some(problem);
    }
    let diff_id = diff_id?;
    match open_file(&snapshot, TAR).and_then(oci::Digester::of_reader) {
        Ok((digest, _)) if digest == *diff_id => None,
        Ok((digest, _)) => Some(format!("its tar has the digest {digest}, not {diff_id}")),
        Err(error) => Some(error.to_string()),
    }
}
