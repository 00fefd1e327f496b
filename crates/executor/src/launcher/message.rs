//! Messages between the daemon, the launcher and a starting container.
//!
//! Two sockets that keep message borders. Between daemon and launcher: [`Request`] and [`Event`]. Between daemon and each container, made
//! for it and handed through the launcher: a [`Plan`] in, [`Report`]s out, and the end of the stream when the program has been started.
//! Everything is JSON; descriptors travel beside it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::injection::HookPlan;
use crate::stubs::Stubs;

/// The launcher's and a container's largest message, without descriptors.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// What a container that waits is told when it may be started.
pub(super) const GO_ON: &[u8] = b"go on";
/// What it is told when it may not.
pub(super) const GIVE_UP: &[u8] = b"give up";

/// To the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Clone a container. Descriptors: its socket, the control group's directory if `cgroup`, and the network's namespace if it is given.
    Run {
        seq: u64,
        network: NetworkPlan,
        cgroup_namespace: bool,
        cgroup: bool,
        /// Its control groups on the host, for a launcher that survives the daemon: it removes them.
        groups: Vec<PathBuf>,
    },
    /// Clone a process into a container. Descriptors: its socket, the pidfd of the container's first process, and the group's directory.
    Join { seq: u64, cgroup: bool },
}

/// The network of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum NetworkPlan {
    /// The launcher's own network, which is the host's.
    Host,
    /// A new network with nothing but loopback.
    New,
    /// A network that has been made for the container.
    Given,
}

/// From the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// The first of all, when user namespaces are wanted. Descriptor: the one of all containers. `errno` if there is none.
    Namespace { errno: Option<i32> },
    /// The process is cloned. Descriptor: its pidfd.
    Cloned { seq: u64 },
    /// The process could not be cloned.
    Failed { seq: u64, errno: i32 },
    /// The process ended.
    Ended {
        seq: u64,
        code: u32,
        user_micros: u64,
        system_micros: u64,
        max_rss: u64,
        in_blocks: u64,
        out_blocks: u64,
    },
}

/// The first message on a container's socket. Its first descriptor is a file with the [`Plan`]; the plan's descriptors follow, in this
/// message and as many more as it takes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opening {
    pub(super) descriptors: usize,
}

/// All of a container's first process, or all of a further one. Numbers called `fd` are places in the list of descriptors.
#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    /// Absent for a process in a container that runs.
    pub(super) container: Option<ContainerPlan>,
    /// For such a process.
    pub(super) joined: JoinPlan,
    pub(super) process: ProcessPlan,
    /// Files of v1 control groups to write oneself into.
    pub(super) cgroup_procs: Vec<usize>,
    /// Programs to be run before the process, with its rights.
    pub(super) hooks: Vec<HookPlan>,
}

/// What the container that a process joins has of its own beside mounts, IPC and a host name. What it shares with the launcher is not
/// joined: only root of the host may join the host's.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct JoinPlan {
    pub(super) network: bool,
    pub(super) cgroups: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ContainerPlan {
    pub(super) rootfs: usize,
    pub(super) readonly_root: bool,
    pub(super) hostname: String,
    pub(super) hosts: String,
    pub(super) resolv_conf: String,
    pub(super) shm_size: u64,
    /// Masked and read-only paths, and a read-only /sys.
    pub(super) confined: bool,
    /// Nothing limits devices, so no mount that the container can write to may have working ones.
    pub(super) nodev: bool,
    /// Mount the v2 hierarchy at /sys/fs/cgroup; else what follows.
    pub(super) cgroup2: bool,
    /// Folders of v1 hierarchies to be mounted below /sys/fs/cgroup: the name, and the place in the list of descriptors.
    pub(super) cgroups: Vec<(String, usize)>,
    /// Whether somebody else has to do something for the container when its tree stands, see [`Report::Built`].
    pub(super) waits: bool,
    pub(super) devices: Vec<DevicePlan>,
    pub(super) mounts: Vec<MountPlan>,
    /// The host's id of the group of terminals.
    pub(super) tty_gid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DevicePlan {
    /// Below /dev.
    pub(super) name: String,
    /// Its type and permissions.
    pub(super) mode: u32,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether the node is left out where it cannot be made; so for devices that no step asked for.
    pub(super) optional: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MountPlan {
    pub(super) dest: String,
    pub(super) source: SourcePlan,
    pub(super) readonly: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SourcePlan {
    /// A detached mount, of which `selector` is wanted.
    Mount {
        fd: usize,
        selector: String,
    },
    Tmpfs {
        size: Option<u64>,
    },
    /// A file with these contents.
    File {
        fd: usize,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// Without `Debug`, for secrets stand in its environment.
#[derive(Serialize, Deserialize)]
pub(super) struct ProcessPlan {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The host's ids for these.
    pub(super) owner: (u32, u32),
    /// For a process in the launcher's user namespace: the host's id of its root.
    pub(super) namespace_root: Option<u32>,
    pub(super) groups: Vec<u32>,
    pub(super) tty: bool,
    /// Standard input, output and error; `None` with a terminal.
    pub(super) stdio: Option<[usize; 3]>,
    pub(super) rlimits: Vec<(u32, u64, u64)>,
    /// Effective, permitted and bounding set.
    pub(super) capabilities: u64,
    /// Inheritable and ambient set.
    pub(super) ambient: u64,
    pub(super) seccomp: bool,
    /// Whether the process is kept from the host's abstract sockets, where the kernel can do that.
    pub(super) scoped: bool,
}

/// From a starting container.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Mount points were made in the root.
    Stubs(Vec<Stubs>),
    /// Its terminal. Descriptor: the master.
    Terminal,
    /// The tree stands. It goes on when it gets [`GO_ON`], and fails with anything else.
    Built,
    /// The program was not started.
    Failed(StartError),
}
