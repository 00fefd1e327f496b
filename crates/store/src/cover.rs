//! A layer that gives one file other contents, and shows everything else as it is below.
//!
//! It lies in memory, on top of the layers that a mutable stands on and below its own. So whoever writes the file writes a copy of it
//! into the mutable's layer, and may replace it and the folders above it as any other; whoever only reads it leaves nothing behind. Of
//! several layers with one directory the topmost decides what the directory looks like, so the directories towards the file are
//! copies of those below: owner, mode, times and extended attributes.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use fstree::{Dir, Meta, Root, Times};
use sys::mount::{Attrs, DetachedMount};

/// Makes the layer. `path` has no links in it, as [`Root::resolve`] gives it; what stands there in `below` is a regular file.
pub(crate) fn make(below: &Root, path: &Path, contents: &[u8]) -> io::Result<DetachedMount> {
    let mount = sys::mount::new_mount(c"tmpfs", &[("mode", "0755")], Attrs::default())?;
    let tree = Root::from_fd(mount.try_clone()?).map_err(io::Error::other)?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let parents: Vec<PathBuf> = relative
        .ancestors()
        .skip(1)
        .filter(|parent| !parent.as_os_str().is_empty())
        .map(Path::to_path_buf)
        .collect();
    for parent in parents.iter().rev() {
        let (dir, name) = tree.named("mkdir", parent).map_err(io::Error::other)?;
        dir.create_dir(&name, 0o700)?;
    }
    let (dir, name) = tree.named("create", relative).map_err(io::Error::other)?;
    let mut file = dir.create_file(&name, 0o600)?;
    file.write_all(contents)?;
    drop(file);
    // From the file upwards, for what is made in a directory changes its times.
    for place in std::iter::once(relative).chain(parents.iter().map(PathBuf::as_path)) {
        let (original, name) = below.named("stat", place).map_err(io::Error::other)?;
        let (copy, _) = tree.named("stat", place).map_err(io::Error::other)?;
        imitate(&original, &copy, &name)?;
    }
    let meta = below.stat("/").map_err(io::Error::other)?;
    own_root(&mount, &meta)?;
    Ok(mount)
}

/// Gives the entry `name` of `copy` the metadata of the one in `original`.
fn imitate(original: &Dir, copy: &Dir, name: &OsStr) -> io::Result<()> {
    let meta = original.stat(name)?;
    copy.chown(name, meta.uid, meta.gid)?;
    copy.chmod(name, meta.mode & 0o7777)?;
    for (key, value) in original.xattrs(name)? {
        // A file system in memory may not have all that one on disk has.
        if let Err(error) = copy.set_xattr(name, &key, &value) {
            tracing::debug!(%error, key, "an attribute is not shown during a step");
        }
    }
    copy.set_times(name, Times::both(meta.mtime))
}

fn own_root(mount: &DetachedMount, meta: &Meta) -> io::Result<()> {
    let root = mount.as_fd();
    sys::file::chown_fd(root, meta.uid, meta.gid)?;
    sys::file::chmod_fd(root, meta.mode & 0o7777)?;
    sys::file::utimens_fd(root, Some(meta.mtime), Some(meta.mtime))
}
