//! From what spec files say to what a container is given.

use std::io;

use rustix::fs::FileType;
use sys::mount::{self, AttrChange, Attrs};
use sys::path;

use super::DeviceError;
use super::spec::{BindMount, DeviceNode, Edits};
use crate::injection::{Injection, Node};
use crate::mount::{Mount, MountSource};

impl Injection {
    /// Adds the edits of a file; `device` is named in errors.
    pub(super) fn add(&mut self, device: &str, edits: &Edits) -> Result<(), DeviceError> {
        let not_built = |feature: &str| {
            Err(DeviceError::NotBuilt {
                device: device.to_owned(),
                feature: feature.to_owned(),
            })
        };
        if !edits.net_devices.is_empty() {
            return not_built("network interfaces");
        }
        if edits.intel_rdt.is_some() {
            return not_built("Intel RDT");
        }
        self.env.extend(edits.env.iter().cloned());
        self.hooks.extend(edits.hooks.iter().cloned());
        for node in &edits.device_nodes {
            let path = gostd::path::join_root(&node.path);
            let Some(name) = path.strip_prefix("/dev/") else {
                return not_built(&format!("the node {}, which is not below /dev", node.path));
            };
            let node = resolve(name, node)?;
            self.nodes
                .retain(|node_before| node_before.name != node.name);
            self.nodes.push(node);
        }
        for bind_mount in &edits.mounts {
            let mount = bind(device, bind_mount)?;
            self.mounts
                .retain(|mount_before| mount_before.dest != mount.dest);
            self.mounts.push(mount);
        }
        self.groups
            .extend(edits.additional_gids.iter().filter(|gid| **gid != 0));
        Ok(())
    }

    /// Parents first.
    pub(super) fn sort(&mut self) {
        self.mounts
            .sort_by_key(|mount| mount.dest.matches('/').count());
        self.groups.sort_unstable();
        self.groups.dedup();
    }
}

/// Fills in what the file does not say of a node from the host's node.
fn resolve(name: &str, node: &DeviceNode) -> Result<Node, DeviceError> {
    let host = if node.host_path.is_empty() {
        &node.path
    } else {
        &node.host_path
    };
    let failed = |source: io::Error| DeviceError::Stat {
        path: host.clone(),
        source,
    };
    let unfit = |reason: String| failed(io::Error::other(reason));
    let mut kind = match node.kind.as_str() {
        "b" => Some(FileType::BlockDevice),
        "c" | "u" => Some(FileType::CharacterDevice),
        "p" => Some(FileType::Fifo),
        _ => None,
    };
    // A node that is wholly described need not be on the host.
    let described = kind.is_some() && (node.major != 0 || kind == Some(FileType::Fifo));
    let (mut major, mut minor, mut mode) = (node.major, node.minor, node.file_mode);
    match rustix::fs::lstat(host.as_str()) {
        Ok(stat) => {
            let host_kind = FileType::from_raw_mode(stat.st_mode);
            let is_node = matches!(
                host_kind,
                FileType::BlockDevice | FileType::CharacterDevice | FileType::Fifo
            );
            if is_node {
                mode = mode.or(Some(stat.st_mode & 0o7777));
            } else if !described {
                return Err(unfit("not a device node".into()));
            }
            if !described {
                if kind.is_some_and(|kind| kind != host_kind) {
                    return Err(unfit(format!("host type mismatch: {:?} wanted", node.kind)));
                }
                kind = Some(host_kind);
                if major == 0 && host_kind != FileType::Fifo {
                    major = i64::from(rustix::fs::major(stat.st_rdev));
                    minor = i64::from(rustix::fs::minor(stat.st_rdev));
                }
            }
        }
        Err(errno) if !described => return Err(failed(errno.into())),
        Err(_) => {}
    }
    let number = |value: i64| {
        u32::try_from(value)
            // The dropped error says only that the number is out of range.
            .map_err(|_| unfit(format!("invalid device number {value}")))
    };
    Ok(Node {
        name: name.to_owned(),
        kind: kind.unwrap_or(FileType::CharacterDevice),
        permissions: mode.unwrap_or(0o666) & 0o777,
        major: number(major)?,
        minor: number(minor)?,
        owner: (node.uid, node.gid),
        access: match node.permissions.as_str() {
            "" => "rwm".into(),
            "none" => String::new(),
            some => some.into(),
        },
    })
}

/// Makes a detached mount of a file or folder of the host, with the flags of its options.
fn bind(device: &str, bind_mount: &BindMount) -> Result<Mount, DeviceError> {
    let mut readonly = false;
    let mut recursive = false;
    let mut set = Attrs::default();
    let unknown = |feature: String| DeviceError::NotBuilt {
        device: device.to_owned(),
        feature,
    };
    for option in &bind_mount.options {
        match option.as_str() {
            "ro" => readonly = true,
            "rbind" => recursive = true,
            "nosuid" => set.nosuid = true,
            "nodev" => set.nodev = true,
            "noexec" => set.noexec = true,
            "rw" | "bind" | "suid" | "dev" | "exec" | "private" | "rprivate" | "slave"
            | "rslave" | "relatime" | "noatime" | "nodiratime" | "strictatime" => {}
            _ => return Err(unknown(format!("the mount option {option:?}"))),
        }
    }
    let source = match bind_mount.kind.as_str() {
        "" | "bind" | "none" => {
            let take = || -> io::Result<mount::DetachedMount> {
                let place = path::open_host_path(&bind_mount.host_path)?;
                let copy = mount::open_tree_clone(&place, recursive)?;
                mount::mount_setattr(
                    &copy,
                    AttrChange {
                        set,
                        private: true,
                        recursive,
                        ..AttrChange::default()
                    },
                )?;
                Ok(copy)
            };
            MountSource::Mount(take().map_err(|source| DeviceError::Mount {
                device: device.to_owned(),
                path: bind_mount.host_path.clone(),
                source,
            })?)
        }
        "tmpfs" => MountSource::Tmpfs { size: None },
        other => return Err(unknown(format!("a mount of type {other:?}"))),
    };
    Ok(Mount {
        dest: gostd::path::join_root(&bind_mount.container_path),
        source,
        selector: String::new(),
        readonly,
    })
}
