//! A container's folder for an OCI runtime: its mounts attached to names of ours, and taken away again.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde_json::{Value, json};
use sys::mount::{self, Attrs, DetachedMount};
use sys::{file, path};

use crate::error::{StartError, errno};
use crate::mount::{Mount, MountSource};
use crate::stubs::{self, Kind, Stubs};

/// The name of the folder in memory, below a container's folder.
pub(super) const FILES_DIR: &str = "files";

/// A folder below the runtime's root directory. Dropping it unmounts and removes everything in it.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) dir: PathBuf,
    /// Attached mounts, in order.
    attached: Vec<PathBuf>,
    /// Mount points that were made in the root.
    stubs: Vec<Stubs>,
    root: Option<OwnedFd>,
}

impl Bundle {
    pub(super) fn new(dir: PathBuf) -> io::Result<Self> {
        let private = |path: &Path| {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(path)?;
            // One that is there may be an older version's.
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        };
        let bundles = dir.parent().unwrap_or(Path::new("/"));
        private(bundles.parent().unwrap_or(bundles))?;
        private(bundles)?;
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let mut bundle = Self {
            dir,
            attached: Vec::new(),
            stubs: Vec::new(),
            root: None,
        };
        let memory = mount::new_mount(
            c"tmpfs",
            &[("mode", "0700")],
            Attrs {
                nosuid: true,
                nodev: true,
                noexec: true,
                readonly: false,
            },
        )?;
        bundle.attach(&memory, FILES_DIR, true)?;
        Ok(bundle)
    }

    /// The folder in memory for what is written for the container: root's alone, and gone with it.
    pub(super) fn files(&self) -> PathBuf {
        self.dir.join(FILES_DIR)
    }

    fn attach(
        &mut self,
        mount: &DetachedMount,
        name: &str,
        directory: bool,
    ) -> io::Result<PathBuf> {
        let place = self.dir.join(name);
        if directory {
            fs::create_dir(&place)?;
        } else {
            drop(fs::File::create_new(&place)?);
        }
        mount::move_mount(mount, &path::open_host_path(&place)?)?;
        self.attached.push(place.clone());
        Ok(place)
    }

    pub(super) fn attach_root(&mut self, rootfs: &DetachedMount) -> io::Result<PathBuf> {
        self.root = Some(rootfs.try_clone()?);
        self.attach(rootfs, "rootfs", true)
    }

    /// Writes a file of the container's own; returns its name.
    pub(super) fn file(
        &self,
        name: &str,
        contents: &[u8],
        mode: u32,
        owner: (u32, u32),
    ) -> io::Result<PathBuf> {
        let place = self.files().join(name);
        fs::write(&place, contents)?;
        let source = fs::File::open(&place)?;
        file::chown_fd(&source, owner.0, owner.1)?;
        file::chmod_fd(&source, mode & 0o7777)?;
        Ok(place)
    }

    /// Attaches a mount's source to a name, and makes its mount point, so that the runtime need not; returns its entry in the document.
    pub(super) fn mount(&mut self, index: usize, mount: Mount) -> Result<Value, StartError> {
        let dest = gostd::path::join_root(&mount.dest);
        let failed = StartError::mount(&dest);
        let access = if mount.readonly { "ro" } else { "rw" };
        let (source, directory) = match mount.source {
            MountSource::Tmpfs { size } => {
                let mut options = vec!["nosuid".to_owned(), access.to_owned()];
                options.extend(size.map(|size| format!("size={size}")));
                self.point(&dest, Kind::Directory).map_err(failed)?;
                return Ok(
                    json!({"destination": dest, "type": "tmpfs", "source": "tmpfs", "options": options}),
                );
            }
            MountSource::File {
                contents,
                mode,
                uid,
                gid,
            } => (
                self.file(&format!("secret{index}"), &contents, mode, (uid, gid))
                    .map_err(failed)?,
                false,
            ),
            MountSource::Mount(source) => self.select(index, &source, &mount.selector, &dest)?,
            MountSource::Place(place) => {
                let source = crate::launcher::detach(&place).map_err(failed)?;
                self.select(index, &source, &mount.selector, &dest)?
            }
        };
        self.point(
            &dest,
            if directory {
                Kind::Directory
            } else {
                Kind::File
            },
        )
        .map_err(failed)?;
        Ok(
            json!({"destination": dest, "type": "bind", "source": source, "options": ["rbind", access]}),
        )
    }

    /// Resolves the selector once, in the attached mount, and attaches what it finds.
    fn select(
        &mut self,
        index: usize,
        source: &DetachedMount,
        selector: &str,
        dest: &str,
    ) -> Result<(PathBuf, bool), StartError> {
        let failed = StartError::mount(dest);
        let is_dir = |fd: &OwnedFd| {
            rustix::fs::fstat(fd)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        };
        let tree = source.try_clone().map_err(failed)?;
        let name = self
            .attach(source, &format!("mount{index}"), is_dir(&tree))
            .map_err(failed)?;
        let names = gostd::path::names_below_root(selector);
        if names.is_empty() {
            return Ok((name, is_dir(&tree)));
        }
        let missing = |error: io::Error| StartError::Selector {
            dest: dest.to_owned(),
            selector: selector.to_owned(),
            errno: errno(&error),
        };
        let selected = path::open_path(&tree, names.join("/")).map_err(missing)?;
        let part = mount::open_tree_clone(&selected, true).map_err(failed)?;
        Ok((
            self.attach(&part, &format!("part{index}"), is_dir(&selected))
                .map_err(failed)?,
            is_dir(&selected),
        ))
    }

    /// Makes a mount point in the root and remembers it.
    pub(super) fn point(&mut self, dest: &str, kind: Kind) -> io::Result<()> {
        if let Some(root) = &self.root {
            let place = stubs::find_or_make(root, dest, kind, None)?;
            self.stubs.extend(place.stubs);
        }
        Ok(())
    }

    /// Keeps of the mount points those that are removed when the container has ended.
    pub(super) fn keep_parents(&mut self, dests: &[String], recursive: bool) {
        self.stubs = stubs::to_remove(std::mem::take(&mut self.stubs), dests, recursive);
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Some(root) = &self.root {
            stubs::remove(root.as_fd(), &self.stubs);
        }
        for place in self.attached.iter().rev() {
            let Ok(name) = std::ffi::CString::new(place.as_os_str().as_encoded_bytes()) else {
                continue;
            };
            if let Err(error) = mount::umount_detach(&name) {
                tracing::warn!(%error, place = %place.display(), "mount of a container stays");
                // A folder with something still mounted in it must not be emptied: that would delete the mount's files.
                return;
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "folder of a container stays");
        }
    }
}
