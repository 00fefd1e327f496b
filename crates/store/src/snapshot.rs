//! Snapshots: directories that hold what one layer adds, and the mounts that stack them.
//!
//! Nothing is ever attached to the host's tree: every mount is a descriptor, and dissolves when the last copy of it closes.
//!
//! Overlay is mounted with `index=off,metacopy=off,redirect_dir=off,xino=off`. With these the kernel marks a directory opaque only
//! where it really replaced one below, so that layers can be stacked on others than those they were made on. `volatile` spares
//! steps their `fsync` calls: what they wrote becomes durable through the store's own sync, see the crate's documentation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fstree::Root;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use sys::mount::{AttrChange, Attrs, DetachedMount, Overlay};
use sys::userns::{FileOwner, IdMapping};

use crate::error::{OpenError, StoreError};
use crate::mapped::{MappedDirs, SnapshotDirs};
use crate::tar_layer::{LayerForm, TarLayers, TarWriter};
use crate::trash::Trash;

/// A mount that is attached nowhere; it ends when its last descriptor closes.
pub type MountFd = DetachedMount;

/// How trees of several layers are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverKind {
    /// The best that works here: overlay, else whole copies.
    Auto,
    /// Overlay, or fail at open.
    Overlay,
    /// Whole copies, which every file system can have.
    Native,
}

const OPTIONS: &[(&str, &str)] = &[
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "off"),
    ("xino", "off"),
];
/// The same in a user namespace, where redirections are neither made nor followed and `off` is refused.
const NESTED_OPTIONS: &[(&str, &str)] = &[
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "nofollow"),
    ("xino", "off"),
];

fn options() -> &'static [(&'static str, &'static str)] {
    if sys::userns::is_nested() {
        NESTED_OPTIONS
    } else {
        OPTIONS
    }
}

/// The directory of snapshots; mounts them.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) root: PathBuf,
    pub(crate) dir: OwnedFd,
    pub(crate) trash: Trash,
    pub(crate) empty: OwnedFd,
    /// Trees are whole copies.
    pub(crate) native: bool,
    /// Held while the tree of a stack is copied.
    pub(crate) copying: Mutex<()>,
    volatile: AtomicBool,
    mapped: MappedDirs,
    tar_layers: TarLayers,
    /// Whether layers that come from elsewhere are kept as their tar.
    keeps_tars: bool,
}

pub(crate) fn open_dir_at(dir: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

impl Snapshots {
    /// Opens the directories under `root`, which exist, and checks that overlay works here.
    pub(crate) fn open(
        root: &Path,
        kind: DriverKind,
        layers: LayerForm,
    ) -> Result<Self, OpenError> {
        let io = |what, path: PathBuf| move |source| OpenError::Io { what, path, source };
        let open = |name: &str| {
            let path = root.join(name);
            sys::path::open_dir(path.as_path()).map_err(io("open", path))
        };
        let mut out = Self {
            root: root.join("snapshots"),
            dir: open("snapshots")?,
            trash: {
                let path = root.join("trash");
                Trash::open(path.clone()).map_err(io("open", path))?
            },
            empty: open("empty")?,
            volatile: AtomicBool::new(true),
            mapped: MappedDirs::default(),
            tar_layers: TarLayers::default(),
            keeps_tars: false,
            native: kind == DriverKind::Native,
            copying: Mutex::new(()),
        };
        if !out.native
            && let Err(error) = out.probe(None)
        {
            if kind == DriverKind::Overlay {
                return Err(OpenError::NoOverlay(error));
            }
            tracing::warn!(
                %error,
                "no overlay can be mounted here: each step gets a whole copy of what it stands on (snapshotter native), which takes time and space"
            );
            out.native = true;
        }
        out.keeps_tars = match layers {
            LayerForm::Folder => false,
            // Copies are made of folders; layers that an earlier daemon kept as tars are read all the same.
            LayerForm::Auto if out.native => false,
            LayerForm::Tar => {
                out.probe_tar_layer().map_err(OpenError::NoTarLayers)?;
                true
            }
            LayerForm::Auto => match out.probe_tar_layer() {
                Ok(()) => true,
                Err(error) => {
                    tracing::info!(%error, "layers are unpacked: this kernel cannot mount them where their tar lies");
                    false
                }
            },
        };
        out.drop_views(root).map_err(io("open", root.to_owned()))?;
        Ok(out)
    }

    /// Mounts a tar layer for a trial. Overlays in a user namespace have marks that such a layer does not carry.
    fn probe_tar_layer(&self) -> io::Result<()> {
        if sys::userns::is_nested() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "in a user namespace",
            ));
        }
        let name = format!("probe-{}", crate::id::RefId::random());
        rustix::fs::mkdirat(&self.dir, &name, Mode::from_raw_mode(0o700))?;
        let tried = open_dir_at(&self.dir, &name)
            .and_then(|dir| crate::tar_layer::probe(&dir, &self.empty));
        let gone = self.trash.take(&self.dir, &name);
        tried?;
        gone
    }

    /// Whether layers that come from elsewhere are kept as their tar.
    pub(crate) fn keeps_tars(&self) -> bool {
        self.keeps_tars
    }

    /// Makes the directory of a new tar layer, which is empty.
    pub(crate) fn create_tar_layer(&self, id: &str) -> Result<TarWriter, StoreError> {
        let made = rustix::fs::mkdirat(&self.dir, id, Mode::from_raw_mode(0o700));
        made.map_err(io::Error::from)
            .and_then(|()| open_dir_at(&self.dir, id))
            .map(TarWriter::new)
            .map_err(|e| StoreError::io("create snapshot", self.root.join(id), e))
    }

    /// Makes of the directory of a tar layer that of a folder.
    pub(crate) fn make_folder(&self, id: &str) -> Result<(), StoreError> {
        open_dir_at(&self.dir, id)
            .and_then(|dir| Self::fill(&dir))
            .map_err(|e| StoreError::io("create snapshot", self.root.join(id), e))
    }

    /// Whether a snapshot has its files, in either form.
    pub(crate) fn is_whole(&self, id: &str) -> bool {
        open_dir_at(&self.dir, &format!("{id}/fs")).is_ok()
            || open_dir_at(&self.dir, id).is_ok_and(crate::tar_layer::is_whole)
    }

    /// Bytes on disk of a snapshot's files. Slow for a folder.
    pub(crate) fn disk_size(&self, id: &str) -> Result<i64, StoreError> {
        let fail = |e| StoreError::io("measure", self.root.join(id), e);
        let dir = open_dir_at(&self.dir, id).map_err(fail)?;
        if crate::tar_layer::is_whole(&dir) {
            return crate::tar_layer::disk_size(&dir).map_err(fail);
        }
        let root =
            Root::from_fd(self.upper(id)?).map_err(|e| StoreError::layer("measure", id, e))?;
        crate::patch::disk_size(&root).map_err(fail)
    }

    /// Checks that an overlay can be mounted here.
    pub(crate) fn probe(&self, ids: Option<&IdMapping>) -> io::Result<()> {
        let name = format!("probe-{}", crate::id::RefId::random());
        self.create_dirs(&name)?;
        let mounted = self.dirs(ids).and_then(|dirs| {
            let empty = dirs
                .as_ref()
                .map_or(self.empty.as_fd(), |dirs| dirs.empty.as_fd());
            self.mount_rw_io(&name, &[empty], ids).map(drop)
        });
        let gone = self.trash.take(&self.dir, &name);
        mounted?;
        gone
    }

    /// Makes the directories of a new snapshot.
    pub(crate) fn create(&self, id: &str) -> Result<(), StoreError> {
        self.create_dirs(id)
            .map_err(|e| StoreError::io("create snapshot", self.root.join(id), e))
    }

    fn create_dirs(&self, id: &str) -> io::Result<()> {
        let mode = Mode::from_raw_mode(0o700);
        rustix::fs::mkdirat(&self.dir, id, mode)?;
        Self::fill(&open_dir_at(&self.dir, id)?)
    }

    /// Makes what a folder's directory has in it.
    fn fill(dir: &OwnedFd) -> io::Result<()> {
        // The root of an image, whatever the daemon's mask is.
        let shown = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(dir, "fs", shown)?;
        rustix::fs::chmodat(dir, "fs", shown, rustix::fs::AtFlags::empty())?;
        rustix::fs::mkdirat(dir, "work", Mode::from_raw_mode(0o700))?;
        Ok(())
    }

    /// The directories to open layers in; none for those that the host sees.
    fn dirs(&self, ids: Option<&IdMapping>) -> io::Result<Option<Arc<SnapshotDirs>>> {
        ids.map(|ids| self.mapped.get(&self.dir, &self.empty, ids))
            .transpose()
    }

    /// The same as [`Self::upper`], as `ids` show it; `dirs` are the directories of these ids.
    fn upper_in(
        &self,
        id: &str,
        dirs: Option<&SnapshotDirs>,
        ids: Option<&IdMapping>,
    ) -> Result<OwnedFd, StoreError> {
        let (Some(dirs), Some(ids)) = (dirs, ids) else {
            return self.upper(id);
        };
        let opened = match open_dir_at(&dirs.snapshots, &format!("{id}/fs")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.tar_root(id, Some(ids)),
            opened => opened,
        };
        opened.map_err(|e| StoreError::io("open snapshot", self.root.join(id), e))
    }

    fn tar_root(&self, id: &str, ids: Option<&IdMapping>) -> io::Result<OwnedFd> {
        self.tar_layers.root(id, open_dir_at(&self.dir, id)?, ids)
    }

    /// Opens the directory that holds a snapshot's own files, as they lie (whiteouts and all).
    pub(crate) fn upper(&self, id: &str) -> Result<OwnedFd, StoreError> {
        let opened = match open_dir_at(&self.dir, &format!("{id}/fs")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.tar_root(id, None),
            opened => opened,
        };
        opened.map_err(|e| StoreError::io("open snapshot", self.root.join(id), e))
    }

    /// The path of a snapshot's own files, for messages and for code that wants a path.
    pub(crate) fn upper_path(&self, id: &str) -> PathBuf {
        self.root.join(id).join("fs")
    }

    /// Moves a snapshot to the trash; it is off the disk once that is emptied.
    pub(crate) fn remove(&self, id: &str) -> Result<(), StoreError> {
        self.tar_layers.forget(id);
        self.trash
            .take(&self.dir, id)
            .map_err(|e| StoreError::io("remove snapshot", self.root.join(id), e))
    }

    /// Drops overlay's work directory, which a finished layer does not need.
    pub(crate) fn drop_work(&self, id: &str) {
        // An error is harmless: the directory is deleted with the snapshot.
        let _gone = open_dir_at(&self.dir, id).and_then(|dir| self.trash.take(&dir, "work"));
    }

    /// Where dropped directories go.
    pub(crate) fn trash(&self) -> &Trash {
        &self.trash
    }

    /// Names of all snapshot directories.
    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            if let Ok(name) = entry?.file_name().into_string() {
                out.push(name);
            }
        }
        Ok(out)
    }

    /// Mounts a stack of layers read-only; `layers` are snapshot ids, base first. `plain` says that a single layer holds no
    /// whiteouts and may be shown as it lies.
    pub(crate) fn view(&self, layers: &[String], plain: bool) -> Result<MountFd, StoreError> {
        self.view_for(layers, plain, None)
    }

    /// The same with the ids of a user namespace.
    pub(crate) fn view_for(
        &self,
        layers: &[String],
        plain: bool,
        ids: Option<&IdMapping>,
    ) -> Result<MountFd, StoreError> {
        let mount = match layers {
            [] => self.bind(self.empty.as_fd(), true, ids),
            [one] if plain => self.bind(self.upper(one)?.as_fd(), true, ids),
            _ if self.native => self.bind(self.whole(layers)?.as_fd(), true, ids),
            _ => {
                let mapped = self
                    .dirs(ids)
                    .map_err(|e| StoreError::io("mount with mapped ids", &self.root, e))?;
                let mut dirs = Vec::with_capacity(layers.len() + 1);
                for id in layers.iter().rev() {
                    dirs.push(self.upper_in(id, mapped.as_deref(), ids)?);
                }
                let mut lower: Vec<BorrowedFd<'_>> = dirs.iter().map(AsFd::as_fd).collect();
                if lower.len() == 1 {
                    let empty = mapped.as_ref().map_or(&self.empty, |dirs| &dirs.empty);
                    lower.push(empty.as_fd());
                }
                sys::mount::overlay(&Overlay {
                    lower: &lower,
                    upper: None,
                    volatile: false,
                    options: options(),
                    attrs: Attrs {
                        readonly: true,
                        ..Attrs::default()
                    },
                })
            }
        };
        mount.map_err(|e| StoreError::io("mount", &self.root, e))
    }

    /// Mounts a snapshot read-write on top of `layers`, base first, with a layer that is nobody's on top of them where one is given. On
    /// nothing, the snapshot's directory itself is the tree.
    pub(crate) fn mount_rw(
        &self,
        id: &str,
        layers: &[String],
        cover: Option<&MountFd>,
        ids: Option<&IdMapping>,
    ) -> Result<MountFd, StoreError> {
        let fail = |e| StoreError::io("mount", self.root.join(id), e);
        if layers.is_empty() {
            return self.bind(self.upper(id)?.as_fd(), false, ids).map_err(fail);
        }
        if self.native {
            if cover.is_some() {
                return Err(fail(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "files below a step cannot be covered with the snapshotter native",
                )));
            }
            let tree = self.writable(id, layers)?;
            return self.bind(tree.as_fd(), false, ids).map_err(fail);
        }
        // Of a mutable that was kept by a daemon without overlay.
        self.settle(id, layers)?;
        let mapped = self.dirs(ids).map_err(fail)?;
        let mut dirs = Vec::with_capacity(layers.len());
        for layer in layers.iter().rev() {
            dirs.push(self.upper_in(layer, mapped.as_deref(), ids)?);
        }
        let dirs = dirs.iter().map(AsFd::as_fd);
        let lower: Vec<BorrowedFd<'_>> = cover.map(AsFd::as_fd).into_iter().chain(dirs).collect();
        self.mount_rw_io(id, &lower, ids).map_err(fail)
    }

    fn mount_rw_io(
        &self,
        id: &str,
        lower: &[BorrowedFd<'_>],
        ids: Option<&IdMapping>,
    ) -> io::Result<MountFd> {
        let dir = open_dir_at(&self.dir, id)?;
        let upper = open_dir_at(&dir, "fs")?;
        // A volatile work directory that was mounted before refuses to be mounted again; a fresh one is always fine.
        let work = if let Ok(work) = open_dir_at(&dir, "work")
            && open_dir_at(&work, "work").is_err()
        {
            work
        } else {
            self.trash.take(&dir, "work")?;
            rustix::fs::mkdirat(&dir, "work", Mode::from_raw_mode(0o700))?;
            open_dir_at(&dir, "work")?
        };
        let (upper, work) = match self.dirs(ids)? {
            None => (upper, work),
            Some(mapped) => {
                let dir = open_dir_at(&mapped.snapshots, id)?;
                (open_dir_at(&dir, "fs")?, open_dir_at(&dir, "work")?)
            }
        };
        // Overlay works with the rights of whoever mounts it, and root can own nothing where ids are mapped.
        let _owner = ids
            .map(|ids| FileOwner::assume(ids.range().base))
            .transpose()?;
        let mut spec = Overlay {
            lower,
            upper: Some((upper.as_fd(), work.as_fd())),
            volatile: self.volatile.load(Ordering::Relaxed),
            options: options(),
            attrs: Attrs::default(),
        };
        match sys::mount::overlay(&spec) {
            Err(_) if spec.volatile => {
                spec.volatile = false;
                let mount = sys::mount::overlay(&spec)?;
                self.volatile.store(false, Ordering::Relaxed);
                Ok(mount)
            }
            made => made,
        }
    }

    fn bind(
        &self,
        dir: BorrowedFd<'_>,
        readonly: bool,
        ids: Option<&IdMapping>,
    ) -> io::Result<MountFd> {
        let mount = sys::mount::open_tree_clone(dir, false)?;
        let set = Attrs {
            readonly,
            ..Attrs::default()
        };
        sys::mount::mount_setattr(
            &mount,
            AttrChange {
                set,
                private: true,
                ..AttrChange::default()
            },
        )?;
        if let Some(ids) = ids {
            sys::mount::map_ids(&mount, ids, false)?;
        }
        Ok(mount)
    }

    /// Makes another mount of the same tree.
    pub(crate) fn again(mount: &MountFd) -> io::Result<MountFd> {
        sys::mount::open_tree_clone(mount, false)
    }
}
