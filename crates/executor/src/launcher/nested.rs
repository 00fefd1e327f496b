//! What containers take from the host when this process is root of a user namespace only (a daemon without root, under rootlesskit, in a
//! pod with users of its own): devices cannot be made, and the kernel mounts a new proc or sysfs only beside one that is seen whole.
//!
//! The launcher keeps the host's `/dev`, `/proc` and `/sys` in its empty tree for that, where no container sees them: a container leaves
//! that tree before its program runs.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use sys::mount::{self, AttrChange, Attrs, DetachedMount};
use sys::{file, path, userns};

use super::init::RESTRICTED_ATTRS;
use super::message::{ContainerPlan, DevicePlan};
use crate::environment::Environment;

/// Whether the daemon has one id only, so that steps have to be told that changes of owners and ids worked.
pub(super) fn has_one_id() -> bool {
    userns::is_nested() && userns::has_one_id()
}

/// apt downloads as a user of its own, and makes sure that it has become that user.
const APT_OPTIONS: &str = "APT::Sandbox::User \"root\";\n";
/// The file of these options below a container's /dev, which no image sees, and the variable that names it.
const APT_FILE: &str = ".apt.conf";
const APT_VARIABLE: &str = "APT_CONFIG";

/// Has apt stay root in a container of a daemon with one id, unless the step says otherwise.
pub(super) fn pacify_apt(environment: &mut Environment) {
    if has_one_id() && !environment.has(APT_VARIABLE) {
        environment.set(APT_VARIABLE, &format!("/dev/{APT_FILE}"));
    }
}

/// Writes the file that [`APT_VARIABLE`] names.
pub(super) fn write_apt_options(dev: &OwnedFd) -> io::Result<()> {
    if has_one_id() {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut options = File::from(path::open_no_symlinks(dev, APT_FILE, flags, 0o444)?);
        options.write_all(APT_OPTIONS.as_bytes())?;
    }
    Ok(())
}

/// The host's filesystems that the launcher copies.
const HOST_MOUNTS: [&str; 3] = ["dev", "proc", "sys"];

/// Copies of the host's mounts for the launcher's tree; none for a launcher with the machine's root.
pub(super) fn copy_host_mounts() -> io::Result<Vec<(&'static str, DetachedMount)>> {
    if !userns::is_nested() {
        return Ok(Vec::new());
    }
    let copy = |name: &'static str| {
        let place = path::open_host_path(format!("/{name}"))?;
        // With the mounts below them: what covers parts of them for the daemon has to cover them for containers too.
        let copy = mount::open_tree_clone(&place, true)?;
        mount::mount_setattr(
            &copy,
            AttrChange {
                private: true,
                recursive: true,
                ..AttrChange::default()
            },
        )?;
        Ok((name, copy))
    };
    HOST_MOUNTS.into_iter().map(copy).collect()
}

/// Attaches the copies in the launcher's tree.
pub(super) fn attach(
    tree: &DetachedMount,
    host_mounts: Vec<(&str, DetachedMount)>,
) -> io::Result<()> {
    for (name, mount) in host_mounts {
        file::mkdirat(tree, name, 0o700)?;
        let place = path::open_no_symlinks(tree, name, OFlags::PATH | OFlags::DIRECTORY, 0)?;
        mount::move_mount(&mount, &place)?;
    }
    Ok(())
}

/// The filesystems of the kernel that a container shows. They are made while the launcher's tree is still there.
pub(super) struct Kernel {
    pub(super) proc: io::Result<DetachedMount>,
    pub(super) sys: io::Result<DetachedMount>,
    pub(super) cgroup: io::Result<DetachedMount>,
}

impl Kernel {
    pub(super) fn new(plan: &ContainerPlan) -> Self {
        let nested = userns::is_nested();
        let readable = Attrs {
            readonly: plan.confined,
            ..RESTRICTED_ATTRS
        };
        // DIFFERS: where BuildKit wants `--oci-worker-no-process-sandbox`, processes are apart here too: what is covered in our proc
        // stays covered in the container's, which is ours to read. Landlock keeps others' entries closed.
        let proc = match mount::new_mount(c"proc", &[], RESTRICTED_ATTRS) {
            Err(_) if nested => copy_readonly("proc"),
            proc => proc,
        };
        // DIFFERS: BuildKit's rootless steps have no /sys at all.
        let sys = match mount::new_mount(c"sysfs", &[], readable) {
            Err(_) if nested => copy_readonly("sys"),
            sys => sys,
        };
        // DIFFERS: without the v2 hierarchy /sys/fs/cgroup is empty in a confined container, where runc binds its groups of each v1 controller.
        let empty = || {
            let options = [("size", "64k"), ("mode", "0755")];
            let attrs = Attrs {
                readonly: plan.cgroups.is_empty(),
                ..RESTRICTED_ATTRS
            };
            mount::new_mount(c"tmpfs", &options, attrs)
        };
        let cgroup = if plan.cgroup2 {
            match mount::new_mount(c"cgroup2", &[], readable) {
                Err(_) if nested => empty(),
                cgroup => cgroup,
            }
        } else {
            empty()
        };
        Self { proc, sys, cgroup }
    }
}

/// A read-only copy of one of the host's filesystems that the launcher has.
fn copy_readonly(name: &str) -> io::Result<DetachedMount> {
    let copy = mount::open_tree_clone(&path::open_host_path(format!("/{name}"))?, true)?;
    mount::mount_setattr(
        &copy,
        AttrChange {
            set: Attrs {
                readonly: true,
                ..RESTRICTED_ATTRS
            },
            recursive: true,
            ..AttrChange::default()
        },
    )?;
    Ok(copy)
}

/// A device of the host to be mounted in a container; none if the host has no such device and nobody insists.
pub(super) fn device(
    name: &str,
    requested: Option<&DevicePlan>,
) -> io::Result<Option<DetachedMount>> {
    let optional = requested.is_some_and(|device| device.optional);
    let place = match open_device(name, requested) {
        Err(_) if optional => return Ok(None),
        place => place?,
    };
    let mount = mount::open_tree_clone(&place, false)?;
    let set = Attrs {
        nosuid: true,
        noexec: true,
        ..Attrs::default()
    };
    mount::mount_setattr(
        &mount,
        AttrChange {
            set,
            ..AttrChange::default()
        },
    )?;
    Ok(Some(mount))
}

fn open_device(name: &str, requested: Option<&DevicePlan>) -> io::Result<OwnedFd> {
    let place = path::open_no_symlinks(path::open_host_path("/dev")?, name, OFlags::PATH, 0)?;
    let stat = rustix::fs::fstat(&place)?;
    let numbers = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    let kind = |mode: u32| mode & libc::S_IFMT;
    match requested {
        Some(device)
            if numbers != (device.major, device.minor)
                || kind(stat.st_mode) != kind(device.mode) =>
        {
            Err(io::Error::from_raw_os_error(libc::ENODEV))
        }
        _ => Ok(place),
    }
}
