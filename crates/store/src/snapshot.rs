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
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use sys::mount::{AttrChange, Attrs, DetachedMount, Overlay};

use crate::error::{OpenError, StoreError};

/// A mount attached nowhere; it is gone when its last descriptor closes.
pub type MountFd = DetachedMount;

/// How trees of several layers come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverKind {
    /// Overlay if the kernel lets us, else an error at open.
    Auto,
    /// Overlay, or fail at open.
    Overlay,
}

const OPTIONS: &[(&str, &str)] = &[
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "off"),
    ("xino", "off"),
];

/// Directory of snapshots and the knowledge of how to mount them.
#[derive(Debug)]
pub(crate) struct Snapshots {
    root: PathBuf,
    dir: OwnedFd,
    trash: OwnedFd,
    empty: OwnedFd,
    volatile: AtomicBool,
}

fn open_dir_at(dir: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

impl Snapshots {
    /// Opens the directories under `root`, which exist, and checks that overlay works here.
    pub(crate) fn open(root: &Path, kind: DriverKind) -> Result<Self, OpenError> {
        let io = |what, path: PathBuf| move |source| OpenError::Io { what, path, source };
        let open = |name: &str| {
            let path = root.join(name);
            sys::path::open_dir(path.as_path()).map_err(io("open", path))
        };
        let out = Self {
            root: root.join("snapshots"),
            dir: open("snapshots")?,
            trash: open("trash")?,
            empty: open("empty")?,
            volatile: AtomicBool::new(true),
        };
        match kind {
            // DIFFERS: BuildKit falls back to a driver that copies whole trees; not built here.
            DriverKind::Auto | DriverKind::Overlay => out.probe().map_err(OpenError::NoOverlay)?,
        }
        Ok(out)
    }

    fn probe(&self) -> io::Result<()> {
        let name = format!("probe-{}", crate::id::RefId::random());
        self.create_dirs(&name)?;
        let made = self.mount_rw_io(&name, &[self.empty.as_fd()]).map(drop);
        let gone = rustix::fs::renameat(&self.dir, name.as_str(), &self.trash, name.as_str());
        made?;
        Ok(gone?)
    }

    /// Makes the directories of a new snapshot.
    pub(crate) fn create(&self, id: &str) -> Result<(), StoreError> {
        self.create_dirs(id)
            .map_err(|e| StoreError::io("create snapshot", self.root.join(id), e))
    }

    fn create_dirs(&self, id: &str) -> io::Result<()> {
        let mode = Mode::from_raw_mode(0o700);
        rustix::fs::mkdirat(&self.dir, id, mode)?;
        let dir = open_dir_at(&self.dir, id)?;
        rustix::fs::mkdirat(&dir, "fs", Mode::from_raw_mode(0o755))?;
        rustix::fs::mkdirat(&dir, "work", mode)?;
        Ok(())
    }

    /// Opens the directory that holds a snapshot's own files, as they lie (whiteouts and all).
    pub(crate) fn upper(&self, id: &str) -> Result<OwnedFd, StoreError> {
        open_dir_at(&self.dir, &format!("{id}/fs"))
            .map_err(|e| StoreError::io("open snapshot", self.root.join(id), e))
    }

    /// The path of a snapshot's own files, for messages and for code that wants a path.
    pub(crate) fn upper_path(&self, id: &str) -> PathBuf {
        self.root.join(id).join("fs")
    }

    /// Drops a snapshot: out of sight at once, off the disk by [`Self::empty_trash`].
    pub(crate) fn remove(&self, id: &str) -> Result<(), StoreError> {
        match rustix::fs::renameat(&self.dir, id, &self.trash, id) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            // Something of that name is in the trash already.
            Err(_) => rustix::fs::renameat(
                &self.dir,
                id,
                &self.trash,
                crate::id::RefId::random().as_str(),
            )
            .map_err(|e| StoreError::io("remove snapshot", self.root.join(id), e)),
        }
    }

    /// Drops overlay's scratch directory, which a finished layer needs no more.
    pub(crate) fn drop_work(&self, id: &str) {
        // Work holds nothing of worth; what cannot be removed now goes with the snapshot.
        let _gone = open_dir_at(&self.dir, id).and_then(|dir| {
            let name = format!("{id}-work");
            Ok(rustix::fs::renameat(
                &dir,
                "work",
                &self.trash,
                name.as_str(),
            )?)
        });
    }

    /// Deletes what is in the trash. Slow; not for the reactor.
    pub(crate) fn empty_trash(&self, trash: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(trash)? {
            let path = entry?.path();
            let gone = if path.is_dir() && !path.is_symlink() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            if let Err(e) = gone {
                tracing::warn!(path = %path.display(), error = %e, "cannot empty trash");
            }
        }
        Ok(())
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
        let made = match layers {
            [] => self.bind(self.empty.as_fd(), true),
            [one] if plain => self.bind(self.upper(one)?.as_fd(), true),
            _ => {
                let mut dirs = Vec::with_capacity(layers.len() + 1);
                for id in layers.iter().rev() {
                    dirs.push(self.upper(id)?);
                }
                let mut lower: Vec<BorrowedFd<'_>> = dirs.iter().map(AsFd::as_fd).collect();
                if lower.len() == 1 {
                    lower.push(self.empty.as_fd());
                }
                sys::mount::overlay(&Overlay {
                    lower: &lower,
                    upper: None,
                    volatile: false,
                    options: OPTIONS,
                    attrs: Attrs {
                        readonly: true,
                        ..Attrs::default()
                    },
                })
            }
        };
        made.map_err(|e| StoreError::io("mount", &self.root, e))
    }

    /// Mounts a snapshot read-write on top of `layers`, base first. On nothing, the snapshot's directory itself is the tree.
    pub(crate) fn mount_rw(&self, id: &str, layers: &[String]) -> Result<MountFd, StoreError> {
        let fail = |e| StoreError::io("mount", self.root.join(id), e);
        if layers.is_empty() {
            return self.bind(self.upper(id)?.as_fd(), false).map_err(fail);
        }
        let mut dirs = Vec::with_capacity(layers.len());
        for layer in layers.iter().rev() {
            dirs.push(self.upper(layer)?);
        }
        let lower: Vec<BorrowedFd<'_>> = dirs.iter().map(AsFd::as_fd).collect();
        self.mount_rw_io(id, &lower).map_err(fail)
    }

    fn mount_rw_io(&self, id: &str, lower: &[BorrowedFd<'_>]) -> io::Result<MountFd> {
        let dir = open_dir_at(&self.dir, id)?;
        let upper = open_dir_at(&dir, "fs")?;
        // A volatile work directory that was mounted before refuses to be mounted again; a fresh one is always fine.
        let work = if let Ok(work) = open_dir_at(&dir, "work")
            && open_dir_at(&work, "work").is_err()
        {
            work
        } else {
            let old = format!("{id}-{}", crate::id::RefId::random());
            match rustix::fs::renameat(&dir, "work", &self.trash, old.as_str()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
            rustix::fs::mkdirat(&dir, "work", Mode::from_raw_mode(0o700))?;
            open_dir_at(&dir, "work")?
        };
        let mut spec = Overlay {
            lower,
            upper: Some((upper.as_fd(), work.as_fd())),
            volatile: self.volatile.load(Ordering::Relaxed),
            options: OPTIONS,
            attrs: Attrs::default(),
        };
        match sys::mount::overlay(&spec) {
            Err(_) if spec.volatile => {
                spec.volatile = false;
                let made = sys::mount::overlay(&spec)?;
                self.volatile.store(false, Ordering::Relaxed);
                Ok(made)
            }
            made => made,
        }
    }

    fn bind(&self, dir: BorrowedFd<'_>, readonly: bool) -> io::Result<MountFd> {
        let made = sys::mount::open_tree_clone(dir, false)?;
        let set = Attrs {
            readonly,
            ..Attrs::default()
        };
        sys::mount::mount_setattr(
            &made,
            AttrChange {
                set,
                private: true,
                ..AttrChange::default()
            },
        )?;
        Ok(made)
    }

    /// Makes another mount of the same tree.
    pub(crate) fn again(mount: &MountFd) -> io::Result<MountFd> {
        sys::mount::open_tree_clone(mount, false)
    }
}
