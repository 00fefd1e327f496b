//! From a spec to a plan with descriptors. Everything that blocks a little is done here, off the runtime's threads.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FileType;
use sys::bpf::DeviceRule;
use sys::mount::{self, AttrChange};
use sys::userns::IdMapping;
use sys::{caps, file, process, socket, userns};

use super::message::{
    ContainerPlan, DevicePlan, MountPlan, Opening, Plan, ProcessPlan, SourcePlan,
};
use crate::access::SecurityMode;
use crate::environment::Environment;
use crate::error::ExecError;
use crate::injection::Node;
use crate::mount::{Mount, MountSource};
use crate::spec::{ProcessSpec, Ulimit};
use crate::user;

/// The capabilities of a confined process, Docker's.
pub fn default_capabilities() -> caps::Set {
    caps::Set::of(&[
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ])
}

/// A plan's descriptors in order.
#[derive(Debug, Default)]
pub(super) struct PlanFds(Vec<OwnedFd>);

impl PlanFds {
    /// Adds a descriptor and returns its index in the message; index 0 is the plan itself.
    pub(super) fn push(&mut self, fd: impl Into<OwnedFd>) -> usize {
        self.0.push(fd.into());
        self.0.len()
    }
}

/// Sends a plan into the socket whose other end will be the container's.
pub(super) fn send(socket: &OwnedFd, plan: &Plan, fds: &PlanFds) -> Result<(), ExecError> {
    let send = || -> io::Result<()> {
        let mut memory = File::from(file::memfd("plan")?);
        memory.write_all(&serde_json::to_vec(plan)?)?;
        io::Seek::rewind(&mut memory)?;
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(memory.as_fd())
            .chain(fds.0.iter().map(AsFd::as_fd))
            .collect();
        let opening = serde_json::to_vec(&Opening {
            descriptors: descriptors.len(),
        })?;
        for (index, part) in descriptors.chunks(socket::MAX_FDS).enumerate() {
            socket::send(socket, if index == 0 { &opening } else { b"more" }, part)?;
        }
        Ok(())
    };
    send().map_err(ExecError::system("cannot hand a container its plan"))
}

/// What a process may do: of the mode, and for an insecure one everything that we may.
pub(super) fn process_plan(
    spec: &ProcessSpec,
    root: BorrowedFd<'_>,
    security: SecurityMode,
    ids: Option<&IdMapping>,
    ulimits: &[Ulimit],
    stdio: Option<[usize; 3]>,
) -> Result<ProcessPlan, ExecError> {
    if spec.args.is_empty() {
        return Err(crate::error::StartError::NoCommand.into());
    }
    crate::bounds::check_process(spec)?;
    let identity = user::lookup(root, &spec.user)?;
    let mut environment = Environment::new(spec.env.clone());
    if !environment.has("HOME") {
        environment.set("HOME", &user::home(root, identity.uid));
    }
    super::nested::pacify_apt(&mut environment);
    let capabilities = match security {
        SecurityMode::Sandbox => default_capabilities(),
        SecurityMode::Insecure => {
            caps::permitted().map_err(ExecError::system("cannot read own capabilities"))?
        }
    };
    let insecure = security == SecurityMode::Insecure;
    for group in &identity.groups {
        host_id(ids, *group)?;
    }
    if userns::is_nested() && !userns::has_ids(identity.uid, identity.gid) {
        let (uid, gid) = (identity.uid, identity.gid);
        return Err(ExecError::NoSuchIds { uid, gid });
    }
    Ok(ProcessPlan {
        args: spec.args.clone(),
        env: environment.into_variables(),
        cwd: if spec.cwd.is_empty() {
            "/".to_owned()
        } else {
            spec.cwd.clone()
        },
        uid: identity.uid,
        gid: identity.gid,
        owner: (host_id(ids, identity.uid)?, host_id(ids, identity.gid)?),
        namespace_root: ids.map(|ids| ids.range().base),
        groups: identity.groups,
        tty: spec.tty,
        stdio,
        rlimits: ulimits.iter().map(rlimit).collect::<Result<_, _>>()?,
        capabilities: capabilities.0,
        ambient: if insecure { capabilities.0 } else { 0 },
        seccomp: !insecure,
        scoped: !insecure,
    })
}

/// The host's id of the group of terminals; root's where the daemon has no such group.
pub(super) fn tty_gid(ids: Option<&IdMapping>, gid: u32) -> Result<u32, ExecError> {
    if userns::is_nested() && !userns::has_ids(0, gid) {
        return Ok(0);
    }
    host_id(ids, gid)
}

/// The host's id for one of the container.
pub(super) fn host_id(ids: Option<&IdMapping>, id: u32) -> Result<u32, ExecError> {
    let Some(range) = ids.map(IdMapping::range) else {
        return Ok(id);
    };
    range.host_id(id).ok_or(ExecError::UnmappedId {
        id,
        count: range.count,
    })
}

fn rlimit(limit: &Ulimit) -> Result<(u32, u64, u64), ExecError> {
    let number =
        process::rlimit_number(&limit.name.to_lowercase()).ok_or_else(|| ExecError::Invalid {
            what: "ulimit",
            value: limit.name.clone(),
        })?;
    Ok((
        number,
        limit.soft.cast_unsigned(),
        limit.hard.cast_unsigned(),
    ))
}

/// Turns each mount into a detached one or the recipe for it. The later of two with one destination takes the place of the earlier.
pub(super) fn mounts(
    mounts: Vec<Mount>,
    ids: Option<&IdMapping>,
    fds: &mut PlanFds,
) -> Result<Vec<MountPlan>, ExecError> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut plans: Vec<MountPlan> = Vec::new();
    for mount in mounts {
        let dest = gostd::path::join_root(&mount.dest);
        if dest == "/" {
            return Err(ExecError::Invalid {
                what: "mount destination",
                value: mount.dest,
            });
        }
        let failed = ExecError::system("cannot take hold of a mount's source");
        let source = match mount.source {
            MountSource::Mount(source) => SourcePlan::Mount {
                fd: fds.push(source),
                selector: selector(&mount.selector),
            },
            MountSource::Place(place) => SourcePlan::Mount {
                fd: fds.push(detach_mapped(&place, ids).map_err(failed)?),
                selector: selector(&mount.selector),
            },
            MountSource::Tmpfs { size } => SourcePlan::Tmpfs { size },
            MountSource::File {
                contents,
                mode,
                uid,
                gid,
            } => {
                let keep = || -> io::Result<OwnedFd> {
                    let mut memory = File::from(file::memfd("contents")?);
                    memory.write_all(&contents)?;
                    io::Seek::rewind(&mut memory)?;
                    Ok(memory.into())
                };
                SourcePlan::File {
                    fd: fds.push(keep().map_err(failed)?),
                    mode,
                    uid: host_id(ids, uid)?,
                    gid: host_id(ids, gid)?,
                }
            }
        };
        let plan = MountPlan {
            dest: dest.clone(),
            source,
            readonly: mount.readonly,
        };
        match places.get(&dest).and_then(|index| plans.get_mut(*index)) {
            Some(earlier) => *earlier = plan,
            None => {
                places.insert(dest, plans.len());
                plans.push(plan);
            }
        }
    }
    Ok(plans)
}

/// The selector without its leading slash; empty for the whole mount.
fn selector(text: &str) -> String {
    gostd::path::names_below_root(text).join("/")
}

/// A place of the host as a detached mount that hears nothing of the host any more.
pub(crate) fn detach(place: &OwnedFd) -> io::Result<mount::DetachedMount> {
    let copy = mount::open_tree_clone(place, true)?;
    mount::mount_setattr(
        &copy,
        AttrChange {
            private: true,
            recursive: true,
            ..AttrChange::default()
        },
    )?;
    Ok(copy)
}

/// The same for a container with a user namespace. Files of a filesystem that cannot map ids belong to nobody there.
fn detach_mapped(place: &OwnedFd, ids: Option<&IdMapping>) -> io::Result<mount::DetachedMount> {
    let copy = detach(place)?;
    if let Some(ids) = ids
        && mount::map_ids(&copy, ids, true).is_err()
        && let Err(error) = mount::map_ids(&copy, ids, false)
    {
        tracing::debug!(%error, "a mount of the host keeps the host's ids");
    }
    Ok(copy)
}

/// Nodes of an insecure container: kernel messages, user-space devices and filesystems, virtual machines, tunnels, loops.
pub(super) fn insecure_devices() -> Vec<DevicePlan> {
    let node = |name: String, kind: u32, major, minor| DevicePlan {
        name,
        mode: kind | 0o666,
        major,
        minor,
        uid: 0,
        gid: 0,
        optional: true,
    };
    let character = |name: &str, major, minor| node(name.to_owned(), libc::S_IFCHR, major, minor);
    let mut devices = vec![
        character("kmsg", 1, 11),
        character("cuse", 10, 203),
        character("fuse", 10, 229),
        character("kvm", 10, 232),
        character("net/tun", 10, 200),
        character("loop-control", 10, 237),
    ];
    devices.extend((0..8).map(|minor| node(format!("loop{minor}"), libc::S_IFBLK, 7, minor)));
    devices
}

/// Nodes of the devices that a step asked for. They belong to the user of the process where their file names no owner.
pub(super) fn requested_devices(
    nodes: &[Node],
    process: &ProcessPlan,
    ids: Option<&IdMapping>,
) -> Result<Vec<DevicePlan>, ExecError> {
    let device = |node: &Node| {
        Ok(DevicePlan {
            name: node.name.clone(),
            mode: node.kind.as_raw_mode() | node.permissions,
            major: node.major,
            minor: node.minor,
            uid: host_id(ids, node.owner.0.unwrap_or(process.uid))?,
            gid: host_id(ids, node.owner.1.unwrap_or(process.gid))?,
            optional: false,
        })
    };
    nodes.iter().map(device).collect()
}

/// What the control group must let through for these nodes.
pub(super) fn device_rules(nodes: &[Node]) -> Vec<DeviceRule> {
    let rule = |node: &Node| DeviceRule {
        block: node.kind == FileType::BlockDevice,
        major: node.major,
        minor: Some(node.minor),
        read: node.access.contains('r'),
        write: node.access.contains('w'),
    };
    let device = |node: &&Node| node.kind != FileType::Fifo && !node.access.is_empty();
    nodes.iter().filter(device).map(rule).collect()
}

/// A plan for a container, without its process.
pub(super) struct Basics {
    pub(super) rootfs: usize,
    pub(super) readonly_root: bool,
    pub(super) hostname: String,
    pub(super) hosts: String,
    pub(super) resolv_conf: String,
    pub(super) shm_size: u64,
    pub(super) security: SecurityMode,
    pub(super) limits_devices: bool,
    pub(super) cgroup2: bool,
    pub(super) cgroups: Vec<(String, usize)>,
    pub(super) waits: bool,
    pub(super) devices: Vec<DevicePlan>,
    pub(super) mounts: Vec<MountPlan>,
    pub(super) tty_gid: u32,
}

impl Basics {
    pub(super) fn plan(self) -> ContainerPlan {
        let confined = self.security == SecurityMode::Sandbox;
        let hostname = if self.hostname.is_empty() {
            crate::hosts::DEFAULT_HOSTNAME.to_owned()
        } else {
            self.hostname
        };
        ContainerPlan {
            rootfs: self.rootfs,
            readonly_root: self.readonly_root,
            hostname,
            hosts: self.hosts,
            resolv_conf: self.resolv_conf,
            shm_size: self.shm_size,
            confined,
            // In a user namespace no filesystem of ours has working devices.
            nodev: userns::is_nested() || (confined && !self.limits_devices),
            cgroup2: self.cgroup2,
            cgroups: self.cgroups,
            waits: self.waits,
            devices: {
                let mut devices = if confined {
                    Vec::new()
                } else {
                    insecure_devices()
                };
                devices.retain(|default| {
                    self.devices
                        .iter()
                        .all(|requested| requested.name != default.name)
                });
                devices.extend(self.devices);
                devices
            },
            mounts: self.mounts,
            tty_gid: self.tty_gid,
        }
    }
}
