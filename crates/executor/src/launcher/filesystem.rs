//! The tree a container sees.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags};
use sys::mount::{self, AttrChange, Attrs, DetachedMount};
use sys::{file, path};

use super::init::{RESTRICTED_ATTRS, ReceivedFds, make_readonly, step};
use super::message::{ContainerPlan, DevicePlan, SourcePlan};
use super::mounts::attach_mount;
use super::nested::{self, Kernel};
use super::setup::{FILES_PLACE, ROOT_PLACE};
use crate::access::{MASKED_PATHS, READONLY_PATHS};
use crate::error::{StartError, errno};
use crate::stubs::{self, Kind, Stubs};

/// `f_type` of procfs.
pub(super) const PROCFS_MAGIC: i64 = 0x9fa0;
/// `f_type` of devpts.
pub(super) const DEVPTS_MAGIC: i64 = 0x1cd1;

/// The `f_type` of the filesystem that `fd` is on.
pub(super) fn filesystem_type(fd: impl AsFd) -> io::Result<i64> {
    #[allow(
        clippy::unnecessary_cast,
        reason = "the C libraries disagree on the type"
    )]
    Ok(rustix::fs::fstatfs(fd)?.f_type as i64)
}

/// Character devices every container has.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const DEVICE_LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
    ("/proc/kcore", "core"),
];

/// Builds the tree and makes it the root. Mount points that were made in it are added to `stubs`, also where it fails.
pub(super) fn build(
    plan: &ContainerPlan,
    cwd: &str,
    owner: (u32, u32),
    fds: &mut ReceivedFds,
    stubs: &mut Vec<Stubs>,
    when_built: impl FnOnce() -> Result<(), StartError>,
) -> Result<(), StartError> {
    rustix::system::sethostname(plan.hostname.as_bytes())
        .map_err(|errno| step("sethostname")(errno.into()))?;
    let mut files = Files::new(plan, fds)?;
    let kernel = Kernel::new(plan);
    let rootfs = DetachedMount::from(fds.take(plan.rootfs)?);
    let root = pivot(rootfs, plan).map_err(step("pivot_root"))?;
    let missing = |error: io::Error| StartError::WorkingDir {
        path: cwd.to_owned(),
        errno: errno(&error),
    };
    stubs::find_or_make(&root, cwd, Kind::Directory, Some(owner)).map_err(missing)?;

    attach(&root, "/proc", kernel.proc, "proc")?;
    devices(&root, plan, &files.nodes)?;
    attach(&root, "/sys", kernel.sys, "sysfs")?;
    attach(&root, "/sys/fs/cgroup", kernel.cgroup, "cgroup")?;
    for (name, group) in &plan.cgroups {
        let group = DetachedMount::from(fds.take(*group)?);
        attach(
            &root,
            &format!("/sys/fs/cgroup/{name}"),
            Ok(group),
            "cgroup",
        )?;
    }
    if plan.confined {
        confine(&root).map_err(step("masked paths"))?;
    }

    for (dest, fd) in [
        ("/etc/resolv.conf", &files.resolv_conf),
        ("/etc/hosts", &files.hosts),
    ] {
        if plan.mounts.iter().any(|mount| mount.dest == dest) {
            continue;
        }
        let failed = StartError::mount(dest);
        let place = stubs::find_or_make(&root, dest, Kind::File, None).map_err(failed)?;
        stubs.extend(place.stubs);
        mount::move_mount(fd, &place.fd).map_err(failed)?;
    }
    for mount in &plan.mounts {
        attach_mount(&root, plan, mount, (&mut files, fds), stubs)?;
    }
    if plan.waits {
        when_built()?;
    }
    if plan.readonly_root {
        make_readonly(&root, false).map_err(step("read-only root"))?;
    }
    Ok(())
}

/// The container's own small files and, where nodes do not work elsewhere, its devices. They are made on a filesystem of their own while
/// that is attached, and cloned out of it.
pub(super) struct Files {
    hosts: DetachedMount,
    resolv_conf: DetachedMount,
    secrets: Vec<(usize, DetachedMount)>,
    /// In the order of [`DEVICES`] and the plan's; none in place of one that the host has not.
    nodes: Vec<Option<DetachedMount>>,
}

impl Files {
    /// The file made from a descriptor's bytes, once.
    pub(super) fn take_secret(&mut self, fd: usize) -> Option<DetachedMount> {
        let index = self.secrets.iter().position(|(number, _)| *number == fd)?;
        Some(self.secrets.swap_remove(index).1)
    }

    fn new(plan: &ContainerPlan, fds: &mut ReceivedFds) -> Result<Self, StartError> {
        let make = || -> io::Result<OwnedFd> {
            let tmpfs = mount::new_mount(
                c"tmpfs",
                &[("mode", "0700")],
                Attrs {
                    nodev: false,
                    ..RESTRICTED_ATTRS
                },
            )?;
            mount::move_mount(&tmpfs, &path::open_host_path(FILES_PLACE)?)?;
            Ok(tmpfs.into())
        };
        let dir = make().map_err(step("files"))?;
        let fixed = |name: &str, text: &str| {
            drop(write(&dir, name, &mut text.as_bytes(), 0o644)?);
            clone_out(
                &dir,
                name,
                Attrs {
                    readonly: true,
                    ..RESTRICTED_ATTRS
                },
            )
        };
        let hosts = fixed("hosts", &plan.hosts).map_err(step("hosts"))?;
        let resolv_conf = fixed("resolv.conf", &plan.resolv_conf).map_err(step("resolv.conf"))?;
        let mut secrets = Vec::new();
        for mount_plan in &plan.mounts {
            let SourcePlan::File { fd, mode, uid, gid } = &mount_plan.source else {
                continue;
            };
            let mut contents = File::from(fds.take(*fd)?);
            let name = format!("secret{fd}");
            let make = |contents: &mut File| {
                file::chown_fd(&write(&dir, &name, contents, *mode & 0o7777)?, *uid, *gid)?;
                clone_out(&dir, &name, RESTRICTED_ATTRS)
            };
            let mount = make(&mut contents).map_err(StartError::mount(&mount_plan.dest))?;
            secrets.push((*fd, mount));
        }
        let mut nodes = Vec::new();
        if sys::userns::is_nested() {
            let basic = DEVICES.into_iter().map(|(name, ..)| (name, None));
            let further = plan.devices.iter();
            let further = further.map(|device| (device.name.as_str(), Some(device)));
            for (name, device) in basic.chain(further) {
                nodes.push(
                    nested::device(name, device).map_err(|error| StartError::Mount {
                        dest: format!("/dev/{name}"),
                        errno: errno(&error),
                    })?,
                );
            }
        } else if plan.nodev {
            for (name, major, minor) in DEVICES {
                node(&dir, name, (libc::S_IFCHR | 0o666, major, minor)).map_err(step("/dev"))?;
                let node = clone_out(
                    &dir,
                    name,
                    Attrs {
                        nosuid: true,
                        noexec: true,
                        ..Attrs::default()
                    },
                );
                nodes.push(Some(node.map_err(step("/dev"))?));
            }
            for (index, device) in plan.devices.iter().enumerate() {
                let name = format!("device{index}");
                let make = || {
                    requested_node(&dir, &name, device)?;
                    clone_out(
                        &dir,
                        &name,
                        Attrs {
                            nosuid: true,
                            noexec: true,
                            ..Attrs::default()
                        },
                    )
                };
                nodes.push(Some(make().map_err(step("/dev"))?));
            }
        }
        Ok(Self {
            hosts,
            resolv_conf,
            secrets,
            nodes,
        })
    }
}

fn clone_out(dir: &OwnedFd, name: &str, set: Attrs) -> io::Result<DetachedMount> {
    let mount =
        mount::open_tree_clone(&path::open_no_symlinks(dir, name, OFlags::PATH, 0)?, false)?;
    mount::mount_setattr(
        &mount,
        AttrChange {
            set,
            ..AttrChange::default()
        },
    )?;
    Ok(mount)
}

fn write(dir: &OwnedFd, name: &str, contents: &mut dyn Read, mode: u32) -> io::Result<File> {
    let fd = path::open_no_symlinks(
        dir,
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
        0o600,
    )?;
    let mut opened = File::from(fd);
    io::copy(contents, &mut opened)?;
    file::chmod_fd(&opened, mode)?;
    Ok(opened)
}

/// Makes a device node with exactly these permissions; `dir` is our own.
fn node(dir: &OwnedFd, name: &str, (mode, major, minor): (u32, u32, u32)) -> io::Result<()> {
    file::mknodat(dir, name, mode, major, minor)?;
    let permissions = rustix::fs::Mode::from_raw_mode(mode & 0o777);
    Ok(rustix::fs::chmodat(
        dir,
        name,
        permissions,
        rustix::fs::AtFlags::empty(),
    )?)
}

/// Makes the node of a device that the step asked for, with its owner.
fn requested_node(dir: &OwnedFd, name: &str, device: &DevicePlan) -> io::Result<()> {
    node(dir, name, (device.mode, device.major, device.minor))?;
    if (device.uid, device.gid) == (0, 0) {
        return Ok(());
    }
    file::chownat_nofollow(dir, name, device.uid, device.gid)
}

/// Makes the mount the root of everything. What was there before is gone when this returns.
fn pivot(rootfs: DetachedMount, plan: &ContainerPlan) -> io::Result<OwnedFd> {
    if plan.nodev {
        let set = Attrs {
            nodev: true,
            ..Attrs::default()
        };
        mount::mount_setattr(
            &rootfs,
            AttrChange {
                set,
                ..AttrChange::default()
            },
        )?;
    }
    mount::move_mount(&rootfs, &path::open_host_path(ROOT_PLACE)?)?;
    let mut root = OwnedFd::from(rootfs);
    if plan.readonly_root {
        // A mount of its own that can be made read-only; the daemon takes the mount points out again through the other.
        let copy = mount::open_tree_clone(&root, false)?;
        mount::move_mount(&copy, &path::open_host_path(ROOT_PLACE)?)?;
        root = copy.into();
    }
    rustix::process::fchdir(&root)?;
    mount::pivot_root_here()?;
    mount::umount_detach(c".")?;
    rustix::process::chdir("/")?;
    Ok(root)
}

/// Attaches something of the container's own at a place that is made if missing, and stays.
fn attach(
    root: &OwnedFd,
    dest: &str,
    mount: io::Result<DetachedMount>,
    kind: &str,
) -> Result<OwnedFd, StartError> {
    let mount_name = format!("{kind} at {dest}");
    let failed = StartError::mount(&mount_name);
    let mount = mount.map_err(failed)?;
    // Not through a link: an image's /proc or /dev that leads elsewhere is refused.
    let place = match path::open_no_symlinks(
        root,
        dest.trim_start_matches('/'),
        OFlags::PATH | OFlags::DIRECTORY,
        0,
    ) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            stubs::find_or_make(root, dest, Kind::Directory, None).map(|place| place.fd)
        }
        result => result,
    };
    mount::move_mount(&mount, &place.map_err(failed)?).map_err(failed)?;
    Ok(mount.into())
}

fn devices(
    root: &OwnedFd,
    plan: &ContainerPlan,
    nodes: &[Option<DetachedMount>],
) -> Result<(), StartError> {
    let attrs = Attrs {
        nosuid: true,
        nodev: plan.nodev,
        ..Attrs::default()
    };
    let dev = attach(
        root,
        "/dev",
        mount::new_mount(c"tmpfs", &[("mode", "0755"), ("size", "65536k")], attrs),
        "tmpfs",
    )?;
    let fill = || -> io::Result<()> {
        for (index, (name, major, minor)) in DEVICES.into_iter().enumerate() {
            let Some(Some(source)) = nodes.get(index) else {
                node(&dev, name, (libc::S_IFCHR | 0o666, major, minor))?;
                continue;
            };
            drop(path::open_no_symlinks(
                &dev,
                name,
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
                0o666,
            )?);
            mount::move_mount(
                source,
                &path::open_no_symlinks(&dev, name, OFlags::PATH, 0)?,
            )?;
        }
        for (index, extra) in plan.devices.iter().enumerate() {
            let source = nodes.get(DEVICES.len() + index);
            if matches!(source, Some(None)) {
                continue;
            }
            for (at, _) in extra.name.match_indices('/') {
                drop(file::mkdirat(
                    &dev,
                    extra.name.get(..at).unwrap_or_default(),
                    0o755,
                ));
            }
            if let Some(Some(source)) = source {
                let name = extra.name.as_str();
                drop(path::open_no_symlinks(
                    &dev,
                    name,
                    OFlags::WRONLY | OFlags::CREATE,
                    0o666,
                )?);
                mount::move_mount(
                    source,
                    &path::open_no_symlinks(&dev, name, OFlags::PATH, 0)?,
                )?;
                continue;
            }
            // Of two with one name the one that was asked for counts.
            drop(file::unlinkat(&dev, &extra.name));
            requested_node(&dev, &extra.name, extra)?;
        }
        nested::write_apt_options(&dev)?;
        let kcore = path::open_no_symlinks(root, "proc/kcore", OFlags::PATH, 0).is_ok();
        for (target, name) in DEVICE_LINKS
            .into_iter()
            .filter(|(_, name)| kcore || *name != "core")
        {
            file::symlinkat(target, &dev, name)?;
        }
        for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o755)] {
            file::mkdirat(&dev, name, mode)?;
        }
        let inside = |name: &str, mount: DetachedMount| {
            mount::move_mount(
                &mount,
                &path::open_no_symlinks(&dev, name, OFlags::PATH, 0)?,
            )
        };
        let options = [
            ("newinstance", ""),
            ("ptmxmode", "0666"),
            ("mode", "0620"),
            ("gid", &plan.tty_gid.to_string()),
        ];
        inside(
            "pts",
            mount::new_mount(
                c"devpts",
                &options,
                Attrs {
                    nosuid: true,
                    noexec: true,
                    ..Attrs::default()
                },
            )?,
        )?;
        let size = plan.shm_size.to_string();
        inside(
            "shm",
            mount::new_mount(
                c"tmpfs",
                &[("mode", "1777"), ("size", &size)],
                RESTRICTED_ATTRS,
            )?,
        )?;
        inside(
            "mqueue",
            mount::new_mount(c"mqueue", &[], RESTRICTED_ATTRS)?,
        )
    };
    fill().map_err(step("/dev"))
}

/// Puts the terminal at /dev/console.
pub(super) fn console(terminal: &OwnedFd) -> io::Result<()> {
    let root = path::open_host_path("/")?;
    let dev = path::open_no_symlinks(&root, "dev", OFlags::PATH | OFlags::DIRECTORY, 0)?;
    drop(path::open_no_symlinks(
        &dev,
        "console",
        OFlags::WRONLY | OFlags::CREATE,
        0o600,
    )?);
    mount::move_mount(
        &mount::open_tree_clone(terminal, false)?,
        &path::open_no_symlinks(&dev, "console", OFlags::PATH, 0)?,
    )
}

/// Masks and protects. All these names lie in filesystems mounted above, which no other step can write to.
fn confine(root: &OwnedFd) -> io::Result<()> {
    let null = path::open_no_symlinks(root, "dev/null", OFlags::PATH, 0)?;
    let place = |name: &str| match path::open_no_symlinks(
        root,
        name.trim_start_matches('/'),
        OFlags::PATH,
        0,
    ) {
        Ok(fd) => Ok(Some(fd)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    };
    let empty = mount::new_mount(
        c"tmpfs",
        &[("size", "0k"), ("mode", "0555")],
        Attrs {
            readonly: true,
            ..RESTRICTED_ATTRS
        },
    )?;
    let mut spare = Some(empty);
    for name in MASKED_PATHS {
        let Some(fd) = place(name)? else { continue };
        let directory =
            FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::Directory;
        let cover = match (directory, spare.take()) {
            (false, unused) => {
                spare = unused;
                mount::open_tree_clone(&null, false)?
            }
            (true, Some(empty)) => empty,
            (true, None) => mount::new_mount(
                c"tmpfs",
                &[("size", "0k"), ("mode", "0555")],
                Attrs {
                    readonly: true,
                    ..RESTRICTED_ATTRS
                },
            )?,
        };
        mount::move_mount(&cover, &fd)?;
    }
    for name in READONLY_PATHS {
        let Some(fd) = place(name)? else { continue };
        let copy = mount::open_tree_clone(&fd, true)?;
        make_readonly(&copy, true)?;
        mount::move_mount(&copy, &fd)?;
    }
    Ok(())
}
