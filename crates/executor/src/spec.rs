//! The description of a container and its process, and how the process ended.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sys::mount::DetachedMount;
use sys::userns::IdMapping;

use crate::access::Access;
use crate::injection::{DeviceEdits, Injection};
use crate::mount::Mount;
use crate::resources::Resources;
use crate::samples::Samples;
use crate::step_proxy::StepProxy;

/// A container's name: ASCII letters and digits, made by us or checked. It is a key in memory and never names a client's choice of path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Takes a name given from outside.
    pub fn new(id: &str) -> Result<Self, InvalidId> {
        if id.is_empty() {
            return Err(InvalidId::Empty);
        }
        if id.len() > 128 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(InvalidId::Characters(id.to_owned()));
        }
        Ok(Self(id.to_owned()))
    }

    /// Makes a new, unguessable name.
    pub fn random() -> Self {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let mut random = [0u8; 25];
        let length = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .unwrap_or(0);
        assert!(
            length == random.len(),
            "the kernel gives short random requests at once"
        );
        Self(
            random
                .iter()
                .filter_map(|byte| ALPHABET.get(usize::from(byte & 31)))
                .map(|byte| char::from(*byte))
                .collect(),
        )
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InvalidId {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        oci::ErrorKind::Invalid
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text cannot be the id of a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("container id must not be empty")]
    Empty,
    /// The text has other characters, or too many.
    #[error("invalid container id {0:?}: only letters and numbers are allowed")]
    Characters(String),
}

/// The size of /dev/shm where a spec does not say one.
const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// One container and its first process.
#[derive(Debug)]
pub struct ContainerSpec {
    /// Names the container for [`crate::Executor::exec`].
    pub id: ContainerId,
    /// What it may reach; made by [`crate::Entitlements::access`].
    pub access: Access,
    /// The root filesystem: a detached, writable mount (mount points are made in it even when the container sees it read-only).
    pub rootfs: DetachedMount,
    /// Whether the container sees its root read-only.
    pub readonly_root: bool,
    /// Further mounts, in order. Of several with the same destination the last counts.
    pub mounts: Vec<Mount>,
    /// Whether the parents of mount points that were made for the mounts are removed too, when they are left empty.
    pub remove_mount_stubs_recursive: bool,
    /// The first process.
    pub process: ProcessSpec,
    /// The proxy network instead of the network of its mode, unless that is none.
    pub proxy: Option<StepProxy>,
    /// The host name; empty for `buildkitsandbox`.
    pub hostname: String,
    /// Lines for /etc/hosts.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// Resource limits of the process; none leaves the daemon's.
    pub ulimits: Vec<Ulimit>,
    /// The control group below which the container's is made.
    pub cgroup_parent: Option<String>,
    /// Size of /dev/shm in bytes; 64 MiB when not given. A mount on /dev/shm replaces it.
    pub shm_size: Option<u64>,
    /// Limits of the control group.
    pub resources: Resources,
    /// Devices that were asked for; made by [`crate::cdi::Devices::inject`].
    pub devices: Injection,
    /// The user namespace of the process, from [`crate::Executor::id_mapping`]. The root and every [`crate::MountSource::Mount`] show ids as it
    /// maps them.
    pub ids: Option<Arc<IdMapping>>,
}

impl ContainerSpec {
    /// A spec with the defaults for everything but what must be chosen.
    pub fn new(access: Access, rootfs: DetachedMount, process: ProcessSpec) -> Self {
        Self {
            id: ContainerId::random(),
            access,
            rootfs,
            readonly_root: false,
            mounts: Vec::new(),
            remove_mount_stubs_recursive: false,
            process,
            proxy: None,
            hostname: String::new(),
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
            cgroup_parent: None,
            shm_size: None,
            resources: Resources::default(),
            devices: Injection::default(),
            ids: None,
        }
    }

    /// Where the mounts go, as clean absolute paths.
    pub(crate) fn mount_destinations(&self) -> Vec<String> {
        let paths = self.mounts.iter();
        paths
            .map(|mount| gostd::path::join_root(&mount.dest))
            .collect()
    }

    /// The size of /dev/shm in bytes.
    pub(crate) fn shm_bytes(&self) -> u64 {
        self.shm_size
            .filter(|size| *size != 0)
            .unwrap_or(DEFAULT_SHM_BYTES)
    }

    /// The control group below which the container's is made, where `default` is what the configuration says.
    pub(crate) fn cgroup_parent_or<'a>(&'a self, default: &'a str) -> &'a str {
        let parent = self.cgroup_parent.as_deref();
        parent
            .filter(|parent| !parent.is_empty())
            .unwrap_or(default)
    }

    /// Changes the spec as its devices ask, and returns what only an executor can do for them.
    pub(crate) fn apply_devices(&mut self) -> DeviceEdits {
        let injection = std::mem::take(&mut self.devices);
        for entry in injection.env {
            let name = entry
                .split_once('=')
                .map_or(entry.as_str(), |(name, _)| name);
            let is_same = |variable: &&mut String| {
                variable.split_once('=').is_some_and(|(key, _)| key == name)
            };
            match self.process.env.iter_mut().find(is_same) {
                Some(variable) => *variable = entry,
                None => self.process.env.push(entry),
            }
        }
        // A mount of the step at the same place is the one that counts.
        let own_mounts = std::mem::replace(&mut self.mounts, injection.mounts);
        self.mounts.extend(own_mounts);
        DeviceEdits {
            nodes: injection.nodes,
            groups: injection.groups,
            hooks: injection.hooks,
        }
    }
}

/// One process. `Debug` shows neither arguments nor environment: they may hold secrets.
#[derive(Clone, Default)]
pub struct ProcessSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// The whole environment, `NAME=value` each.
    pub env: Vec<String>,
    /// Working directory; made when missing.
    pub cwd: String,
    /// `user[:group]`, each a name or a number, looked up in the root filesystem; empty for root.
    pub user: String,
    /// Whether the process gets a terminal.
    pub tty: bool,
}

impl ProcessSpec {
    /// Takes environment, working directory and user of the container's first process where this one has none.
    pub(crate) fn inherit(&mut self, first_process: &Self) {
        if self.env.is_empty() {
            self.env.clone_from(&first_process.env);
        }
        if self.cwd.is_empty() {
            self.cwd.clone_from(&first_process.cwd);
        }
        if self.user.is_empty() {
            self.user.clone_from(&first_process.user);
        }
    }
}

impl fmt::Debug for ProcessSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSpec")
            .field("program", &self.args.first())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("tty", &self.tty)
            .finish_non_exhaustive()
    }
}

/// One resource limit of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// As in `ulimit`: `nofile`, `nproc`, …
    pub name: String,
    /// The limit in force; `-1` for none.
    pub soft: i64,
    /// The limit the process may raise it to.
    pub hard: i64,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExitStatus {
    /// The exit code, or 128 plus the number of the signal that killed the process.
    pub code: u32,
    /// Whether the kernel killed a process of the container because its memory limit was reached.
    pub oom: bool,
    /// The resources that it used.
    pub usage: Usage,
    /// What its container used while it ran; nothing of further processes of a container.
    pub samples: Arc<Samples>,
}

impl fmt::Display for ExitStatus {
    /// What BuildKit's clients show after `did not complete successfully: `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oom {
            f.write_str("cannot allocate memory")
        } else {
            write!(f, "exit code: {}", self.code)
        }
    }
}

/// Resources used by a container or process, children included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Largest resident size of one process, in bytes.
    pub max_rss: u64,
    /// Most memory of the whole container, in bytes; zero when it had no control group that counts it.
    pub memory_peak: u64,
    /// Most memory that all processes held at once, see [`Samples::memory_held`]; zero for further processes of a container.
    pub memory_held: u64,
    /// Bytes read from block devices.
    pub read_bytes: u64,
    /// Bytes written to block devices.
    pub write_bytes: u64,
}

impl Usage {
    /// The bytes of memory that it could not have done without, as far as is known: what all processes were seen to hold at once, or the
    /// largest resident size of one of them. The peak of the control group counts cached files too, which give way.
    pub fn memory(&self) -> u64 {
        self.max_rss.max(self.memory_held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_needs_what_all_its_processes_hold_or_the_largest_of_them() {
        let usage = |max_rss, memory_held| Usage {
            max_rss,
            memory_held,
            memory_peak: 1 << 30,
            ..Usage::default()
        };
        // Four compilers beside each other; one that was over before anybody looked.
        assert_eq!(usage(100, 400).memory(), 400);
        assert_eq!(usage(100, 0).memory(), 100);
    }

    #[test]
    fn ids_with_anything_but_letters_and_digits_are_refused() {
        for id in ["", ".", "..", "a/b", "a-b", "../x", "é", "a\0"] {
            assert!(ContainerId::new(id).is_err(), "{id:?}");
        }
        assert_eq!(
            ContainerId::new(ContainerId::random().as_str())
                .unwrap()
                .as_str()
                .len(),
            25
        );
    }
}
