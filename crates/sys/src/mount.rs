//! The mount API on descriptors: fsopen(2) and its relatives, overlay mounts, and mounts attached nowhere.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::mount::{
    self as rx, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use crate::raw;

/// A mount that is attached nowhere. It is dissolved when the descriptor closes, unless it was attached with [`move_mount`].
///
/// The descriptor is the root directory of the mount (O_PATH): files are opened relative to it, and [`move_mount`] attaches it, also in
/// another mount namespace.
#[derive(Debug)]
pub struct DetachedMount(OwnedFd);

impl DetachedMount {
    /// Another descriptor of the same mount. The mount stays as long as this one, the first, is open or it is attached.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl AsFd for DetachedMount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for DetachedMount {
    /// Takes a descriptor that the caller knows to be the root of a detached mount.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<DetachedMount> for OwnedFd {
    fn from(mount: DetachedMount) -> Self {
        mount.0
    }
}

/// Flags of a mount point, `MOUNT_ATTR_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attrs {
    /// No writes through this mount.
    pub readonly: bool,
    /// Set-user-ID bits and file capabilities have no effect.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

impl Attrs {
    fn bits(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::empty();
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.readonly);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.nosuid);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.nodev);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.noexec);
        flags
    }
}

/// What an overlay is stacked from.
#[derive(Debug)]
pub struct Overlay<'a> {
    /// Lower directories, the topmost first. At least one, at most 500.
    pub lower: &'a [BorrowedFd<'a>],
    /// The upper and the work directory; without them the overlay is read-only.
    pub upper: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    /// `volatile`: the upper is not synced, which is right for an upper that is thrown away after a crash. Linux 5.10.
    pub volatile: bool,
    /// Further options as key and value; an empty value sets a flag.
    pub options: &'a [(&'a str, &'a str)],
    /// Flags of the mount point.
    pub attrs: Attrs,
}

/// Makes a detached overlay mount of directories given as descriptors. Linux 6.5 for `lowerdir+`; older kernels get one string.
///
/// Marks are in [`crate::userns::overlay_xattrs`]: in a user namespace it is mounted with `userxattr` (Linux 5.11).
pub fn overlay(spec: &Overlay<'_>) -> io::Result<DetachedMount> {
    match overlay_layers(spec) {
        // A kernel before 6.5 does not know `lowerdir+`. A bad layer fails again below, with its own error.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            overlay_string(spec).map_err(|_second| error)
        }
        result => result,
    }
}

fn overlay_layers(spec: &Overlay<'_>) -> io::Result<DetachedMount> {
    let fs = fsopen(c"overlay")?;
    for dir in spec.lower {
        set_dir(&fs, "lowerdir+", *dir)?;
    }
    if let Some((upper, work)) = spec.upper {
        set_dir(&fs, "upperdir", upper)?;
        set_dir(&fs, "workdir", work)?;
    }
    overlay_finish(&fs, spec)
}

fn overlay_string(spec: &Overlay<'_>) -> io::Result<DetachedMount> {
    let fs = fsopen(c"overlay")?;
    let lower: Vec<String> = spec.lower.iter().map(|dir| fd_path(*dir)).collect();
    rx::fsconfig_set_string(&fs, "lowerdir", lower.join(":"))?;
    if let Some((upper, work)) = spec.upper {
        rx::fsconfig_set_string(&fs, "upperdir", fd_path(upper))?;
        rx::fsconfig_set_string(&fs, "workdir", fd_path(work))?;
    }
    overlay_finish(&fs, spec)
}

fn overlay_finish(fs: &OwnedFd, spec: &Overlay<'_>) -> io::Result<DetachedMount> {
    if spec.volatile && spec.upper.is_some() {
        rx::fsconfig_set_flag(fs, "volatile")?;
    }
    if crate::userns::is_nested() {
        rx::fsconfig_set_flag(fs, "userxattr")?;
    }
    for (key, value) in spec.options {
        if value.is_empty() {
            rx::fsconfig_set_flag(fs, *key)?;
        } else {
            rx::fsconfig_set_string(fs, *key, *value)?;
        }
    }
    let mut attrs = spec.attrs;
    if spec.upper.is_none() {
        attrs.readonly = true;
    }
    fsmount(fs, attrs)
}

/// Gives overlay a directory: as a descriptor (Linux 6.13), or as the name that leads to it.
fn set_dir(fs: &OwnedFd, key: &str, dir: BorrowedFd<'_>) -> io::Result<()> {
    if rx::fsconfig_set_fd(fs, key, dir).is_ok() {
        return Ok(());
    }
    Ok(rx::fsconfig_set_string(fs, key, fd_path(dir))?)
}

/// The name under which procfs shows a descriptor of this process.
pub fn fd_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens a filesystem context. fsopen(2), Linux 5.2.
pub fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    Ok(rx::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?)
}

/// Creates the superblock of a context and a detached mount of it. fsconfig(2) and fsmount(2), Linux 5.2.
fn fsmount(fs: &OwnedFd, attrs: Attrs) -> io::Result<DetachedMount> {
    rx::fsconfig_create(fs)?;
    Ok(DetachedMount(rx::fsmount(
        fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attrs.bits(),
    )?))
}

/// Makes a detached mount of a filesystem that needs no source; it shows its kind as one. An empty value sets a flag.
pub fn new_mount(kind: &CStr, options: &[(&str, &str)], attrs: Attrs) -> io::Result<DetachedMount> {
    let fs = fsopen(kind)?;
    rx::fsconfig_set_string(&fs, "source", kind)?;
    for (key, value) in options {
        if value.is_empty() {
            rx::fsconfig_set_flag(&fs, *key)?;
        } else {
            rx::fsconfig_set_string(&fs, *key, *value)?;
        }
    }
    fsmount(&fs, attrs)
}

/// Mounts an EROFS image and its devices, which are ordinary files, where they lie: no loop device. Read-only. The files may not change
/// while they are mounted. `devices` in the order of the image's table. Linux 6.12 with `CONFIG_EROFS_FS_BACKED_BY_FILE`: else ENOTBLK;
/// without EROFS ENODEV, with an image that it does not take EINVAL, EUCLEAN or EOPNOTSUPP.
pub fn erofs(image: BorrowedFd<'_>, devices: &[BorrowedFd<'_>]) -> io::Result<DetachedMount> {
    let fs = fsopen(c"erofs")?;
    rx::fsconfig_set_string(&fs, "source", fd_path(image))?;
    for device in devices {
        rx::fsconfig_set_string(&fs, "device", fd_path(*device))?;
    }
    let attrs = Attrs {
        readonly: true,
        ..Attrs::default()
    };
    fsmount(&fs, attrs)
}

/// Clones the mount at `fd` (a directory or a file) into one attached nowhere: a bind mount without a place. open_tree(2), Linux 5.2.
///
/// `recursive` takes the mounts below along. Cloning out of a mount that is itself detached needs Linux 6.15 (EINVAL before).
pub fn open_tree_clone(fd: impl AsFd, recursive: bool) -> io::Result<DetachedMount> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(DetachedMount(rx::open_tree(fd, c"", flags)?))
}

/// Attaches a mount at the directory or file that `target` is. move_mount(2), Linux 5.2.
pub fn move_mount(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rx::move_mount(mount, c"", target, c"", flags)?)
}

/// What [`mount_setattr`] changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttrChange {
    /// Flags to set.
    pub set: Attrs,
    /// Flags to clear.
    pub clear: Attrs,
    /// Make the mounts private: events neither leave nor enter.
    pub private: bool,
    /// Make the mounts slaves: events enter, none leaves.
    pub slave: bool,
    /// Also the mounts below.
    pub recursive: bool,
}

#[repr(C)]
struct RawAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes flags and propagation of the mount at `fd`. mount_setattr(2), Linux 5.12.
pub fn mount_setattr(fd: impl AsFd, change: AttrChange) -> io::Result<()> {
    let attr = RawAttr {
        set: u64::from(change.set.bits().bits()),
        clear: u64::from(change.clear.bits().bits()),
        propagation: match (change.private, change.slave) {
            (true, _) => libc::MS_PRIVATE,
            (false, true) => libc::MS_SLAVE,
            (false, false) => 0,
        },
        userns_fd: 0,
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if change.recursive {
        flags |= AT_RECURSIVE;
    }
    let size = size_of::<RawAttr>();
    // SAFETY: `attr` lives through the call, has the layout of struct mount_attr version 0 and its size is passed; the path is a static C string.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size,
        )
    };
    raw::check(ret).map(drop)
}

const AT_RECURSIVE: libc::c_int = 0x8000;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Shows the ids of a mount's files as the user namespace maps them: what lies as 0 is the host's id for its 0. For a mount that is
/// attached nowhere, once in its life. mount_setattr(2) with MOUNT_ATTR_IDMAP, Linux 5.12; the filesystem must support it (EINVAL).
pub fn map_ids(mount: impl AsFd, namespace: impl AsFd, recursive: bool) -> io::Result<()> {
    let attr = RawAttr {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_fd().as_raw_fd().cast_unsigned()),
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: `attr` lives through the call, has the layout of struct mount_attr version 0 and its size is passed; the path is a static C
    // string and both descriptors are open for the whole call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<RawAttr>(),
        )
    };
    raw::check(ret).map(drop)
}

/// Makes the current directory the root and puts the old root on top of it, so that [`umount_detach`] of `.` drops the old one.
/// pivot_root(2) with both arguments `.`.
pub fn pivot_root_here() -> io::Result<()> {
    Ok(rustix::process::pivot_root(c".", c".")?)
}

/// Detaches the mount at `path` now; it ends when its last user does. umount2(2) with MNT_DETACH.
pub fn umount_detach(path: &CStr) -> io::Result<()> {
    Ok(rx::unmount(
        path,
        UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    )?)
}

/// Unmounts `path`; fails when it is busy. umount2(2).
pub fn umount(path: &CStr) -> io::Result<()> {
    Ok(rx::unmount(path, UnmountFlags::NOFOLLOW)?)
}
