//! From what spec files say to what a container is given.

use std::io;

use rustix::fs::FileType;
use sys::mount::{self, AttrChange, Attrs};
use sys::path;

use super::DeviceError;
use super::spec::{BindMount, DeviceNode, Edits, Hook};
use crate::spec::{ContainerSpec, Mount, MountSource};

/// What the devices of a step change in its container. Only [`super::Devices::inject`] makes one that is not empty.
#[derive(Debug, Default)]
pub struct Injection {
    env: Vec<String>,
    nodes: Vec<Node>,
    mounts: Vec<Mount>,
    groups: Vec<u32>,
    hooks: Vec<Hook>,
}

/// What of an injection only an executor can do.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// Device nodes.
    pub(crate) nodes: Vec<Node>,
    /// Further groups of the process.
    pub(crate) groups: Vec<u32>,
    /// Programs to run; for OCI runtimes.
    pub(crate) hooks: Vec<Hook>,
}

/// A device node of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Below /dev.
    pub(crate) name: String,
    pub(crate) kind: FileType,
    pub(crate) permissions: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// The process's where not given.
    pub(crate) owner: (Option<u32>, Option<u32>),
    /// What the control group allows: of `r`, `w` and `m`.
    pub(crate) access: String,
}

impl Injection {
    /// Adds what a file says; `device` is named in errors.
    pub(super) fn add(&mut self, device: &str, edits: &Edits) -> Result<(), DeviceError> {
        let not_built = |what: &str| {
            Err(DeviceError::NotBuilt {
                device: device.to_owned(),
                what: what.to_owned(),
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
            self.nodes.retain(|other| other.name != node.name);
            self.nodes.push(node);
        }
        for wanted in &edits.mounts {
            let mount = bind(device, wanted)?;
            self.mounts.retain(|other| other.dest != mount.dest);
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

    /// Changes the spec, and leaves what only an executor can do.
    pub(crate) fn apply(spec: &mut ContainerSpec) -> Rest {
        let injection = std::mem::take(&mut spec.devices);
        for entry in injection.env {
            let name = entry
                .split_once('=')
                .map_or(entry.as_str(), |(name, _)| name);
            let same =
                |have: &&mut String| have.split_once('=').is_some_and(|(own, _)| own == name);
            match spec.process.env.iter_mut().find(same) {
                Some(have) => *have = entry,
                None => spec.process.env.push(entry),
            }
        }
        // A mount of the step at the same place is the one that counts.
        let own = std::mem::replace(&mut spec.mounts, injection.mounts);
        spec.mounts.extend(own);
        Rest {
            nodes: injection.nodes,
            groups: injection.groups,
            hooks: injection.hooks,
        }
    }
}

/// Completes a node with what the host's has.
fn resolve(name: &str, node: &DeviceNode) -> Result<Node, DeviceError> {
    let host = if node.host_path.is_empty() {
        &node.path
    } else {
        &node.host_path
    };
    let failed = |reason: String| DeviceError::Stat {
        path: host.clone(),
        reason,
    };
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
            let found = FileType::from_raw_mode(stat.st_mode);
            let is_node = matches!(
                found,
                FileType::BlockDevice | FileType::CharacterDevice | FileType::Fifo
            );
            if is_node {
                mode = mode.or(Some(stat.st_mode & 0o7777));
            } else if !described {
                return Err(failed("not a device node".into()));
            }
            if !described {
                if kind.is_some_and(|kind| kind != found) {
                    return Err(failed(format!(
                        "host type mismatch: {:?} wanted",
                        node.kind
                    )));
                }
                kind = Some(found);
                if major == 0 && found != FileType::Fifo {
                    major = i64::from(rustix::fs::major(stat.st_rdev));
                    minor = i64::from(rustix::fs::minor(stat.st_rdev));
                }
            }
        }
        Err(errno) if !described => return Err(failed(io::Error::from(errno).to_string())),
        Err(_) => {}
    }
    let number = |value: i64| {
        u32::try_from(value).map_err(|_| failed(format!("invalid device number {value}")))
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

/// Takes hold of a place of the host as a mount of its own, with the flags that its options say.
fn bind(device: &str, wanted: &BindMount) -> Result<Mount, DeviceError> {
    let mut readonly = false;
    let mut recursive = false;
    let mut set = Attrs::default();
    let unknown = |what: String| DeviceError::NotBuilt {
        device: device.to_owned(),
        what,
    };
    for option in &wanted.options {
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
    let source = match wanted.kind.as_str() {
        "" | "bind" | "none" => {
            let take = || -> io::Result<mount::DetachedMount> {
                let place = path::open_host_path(&wanted.host_path)?;
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
                path: wanted.host_path.clone(),
                source,
            })?)
        }
        "tmpfs" => MountSource::Tmpfs { size: None },
        other => return Err(unknown(format!("a mount of type {other:?}"))),
    };
    Ok(Mount {
        dest: gostd::path::join_root(&wanted.container_path),
        source,
        selector: String::new(),
        readonly,
    })
}
