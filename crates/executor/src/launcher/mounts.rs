//! The mounts that a process asked for, one by one.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use sys::mount::{self, AttrChange, Attrs, DetachedMount};
use sys::path;

use super::filesystem::{Files, PROCFS_MAGIC, filesystem_type};
use super::init::ReceivedFds;
use super::message::{ContainerPlan, MountPlan, SourcePlan};
use crate::error::{StartError, errno};
use crate::stubs::{self, Kind, Stubs};

/// Mounts one mount of the plan at its place. Mount points that had to be made are added to `stubs`, also where it fails.
pub(super) fn attach_mount(
    root: &OwnedFd,
    plan: &ContainerPlan,
    mount_plan: &MountPlan,
    (files, fds): (&mut Files, &mut ReceivedFds),
    stubs: &mut Vec<Stubs>,
) -> Result<(), StartError> {
    let dest = &mount_plan.dest;
    let failed = StartError::mount(dest);
    let source = match &mount_plan.source {
        SourcePlan::Mount { fd, selector } => {
            let tree = DetachedMount::from(fds.take(*fd)?);
            if selector.is_empty() {
                tree
            } else {
                let missing = |error: io::Error| StartError::Selector {
                    dest: dest.clone(),
                    selector: selector.clone(),
                    errno: errno(&error),
                };
                select(tree, selector).map_err(missing)?
            }
        }
        SourcePlan::Tmpfs { size } => {
            let size = size.map(|size| size.to_string());
            let options: Vec<(&str, &str)> =
                size.iter().map(|size| ("size", size.as_str())).collect();
            let attrs = Attrs {
                nosuid: true,
                nodev: plan.nodev,
                ..Attrs::default()
            };
            mount::new_mount(c"tmpfs", &options, attrs).map_err(failed)?
        }
        SourcePlan::File { fd, .. } => {
            let secret = files.take_secret(*fd);
            secret.ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EBADF)))?
        }
    };
    let set = Attrs {
        readonly: mount_plan.readonly,
        nodev: plan.nodev,
        ..Attrs::default()
    };
    if set != Attrs::default() {
        mount::mount_setattr(
            &source,
            AttrChange {
                set,
                recursive: true,
                ..AttrChange::default()
            },
        )
        .map_err(failed)?;
    }
    let directory = FileType::from_raw_mode(
        rustix::fs::fstat(&source)
            .map_err(|errno| failed(errno.into()))?
            .st_mode,
    ) == FileType::Directory;
    let kind = if directory {
        Kind::Directory
    } else {
        Kind::File
    };
    let place = stubs::find_or_make(root, dest, kind, None).map_err(failed)?;
    stubs.extend(place.stubs);
    if filesystem_type(&place.fd).map_err(failed)? == PROCFS_MAGIC {
        return Err(StartError::InsideProc { path: dest.clone() });
    }
    mount::move_mount(&source, &place.fd).map_err(failed)
}

/// What is at `selector` inside the mount, as a mount. The name is resolved once: what it leads to then is what is mounted (P3).
fn select(tree: DetachedMount, selector: &str) -> io::Result<DetachedMount> {
    let selected = path::open_path(&tree, selector)?;
    match mount::open_tree_clone(&selected, true) {
        // Before Linux 6.15 only an attached mount can be cloned. It is attached for that moment on top of the root, where nothing is looked up.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let place = path::open_host_path("/")?;
            mount::move_mount(&tree, &place)?;
            let result = mount::open_tree_clone(&selected, true);
            rustix::process::fchdir(&tree)?;
            let detached = mount::umount_detach(c".");
            rustix::process::chdir("/")?;
            detached.and(result)
        }
        result => result,
    }
}
