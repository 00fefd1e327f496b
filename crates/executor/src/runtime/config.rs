//! The OCI runtime specification's document for a container.

use rustix::fs::FileType;
use serde_json::{Value, json};

use crate::access::{NetworkMode, SecurityMode};
use crate::environment::Environment;
use crate::hosts::DEFAULT_HOSTNAME;
use crate::injection::{Hook, Node};
use crate::seccomp;
use crate::spec::{ProcessSpec, Resources, Ulimit};
use crate::user::Identity;

/// What the document is made from; the sources of mounts are paths by now.
pub(super) struct Document<'a> {
    pub(super) rootfs: &'a str,
    pub(super) readonly_root: bool,
    pub(super) hostname: &'a str,
    pub(super) process: Value,
    pub(super) mounts: Vec<Value>,
    pub(super) network: NetworkMode,
    pub(super) security: SecurityMode,
    pub(super) nodes: &'a [Node],
    pub(super) hooks: &'a [Hook],
    /// Of nodes whose file names none.
    pub(super) owner: (u32, u32),
    pub(super) cgroups_path: String,
    pub(super) resources: &'a Resources,
    pub(super) shm_size: u64,
}

/// The process part, also for further processes.
pub(super) fn process(
    spec: &ProcessSpec,
    who: &Identity,
    home: &str,
    security: SecurityMode,
    ulimits: &[Ulimit],
) -> Value {
    let set = capabilities(security).names();
    let mut environment = Environment::new(spec.env.clone());
    environment.set_default("HOME", home);
    let mut limits: Vec<Value> = ulimits
        .iter()
        .map(|limit| {
            let kind = format!("RLIMIT_{}", limit.name.to_uppercase());
            json!({"type": kind, "soft": limit.soft.cast_unsigned(), "hard": limit.hard.cast_unsigned()})
        })
        .collect();
    if let Some((soft, hard)) = sys::process::original_open_files()
        && !ulimits
            .iter()
            .any(|limit| limit.name.eq_ignore_ascii_case("nofile"))
    {
        limits.push(json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}));
    }
    let mut capabilities = json!({"bounding": set, "permitted": set, "effective": set});
    if let (SecurityMode::Insecure, Some(sets)) = (security, capabilities.as_object_mut()) {
        sets.insert("inheritable".to_owned(), json!(set));
        sets.insert("ambient".to_owned(), json!(set));
    }
    json!({
        "terminal": spec.tty,
        "user": {"uid": who.uid, "gid": who.gid, "additionalGids": who.groups},
        "args": spec.args,
        "env": environment.into_variables(),
        "cwd": if spec.cwd.is_empty() { "/" } else { &spec.cwd },
        "capabilities": capabilities,
        "rlimits": limits,
        "noNewPrivileges": false,
    })
}

fn capabilities(security: SecurityMode) -> sys::caps::Set {
    match security {
        SecurityMode::Sandbox => crate::launcher::default_capabilities(),
        SecurityMode::Insecure => sys::caps::permitted().unwrap_or_default(),
    }
}

impl Document<'_> {
    pub(super) fn build(self) -> Value {
        let confined = self.security == SecurityMode::Sandbox;
        let mount = |dest: &str, kind: &str, options: &[&str]| json!({"destination": dest, "type": kind, "source": kind, "options": options});
        let quiet = ["nosuid", "noexec", "nodev"];
        let shm = format!("size={}", self.shm_size);
        let access = if confined { "ro" } else { "rw" };
        let mut mounts = vec![
            mount("/proc", "proc", &quiet),
            mount(
                "/dev",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            mount(
                "/dev/pts",
                "devpts",
                &[
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            ),
            mount(
                "/dev/shm",
                "tmpfs",
                &["nosuid", "noexec", "nodev", "mode=1777", &shm],
            ),
            mount("/dev/mqueue", "mqueue", &quiet),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
            mount(
                "/sys/fs/cgroup",
                "cgroup",
                &["nosuid", "noexec", "nodev", access],
            ),
        ];
        for further in self.mounts {
            match mounts
                .iter_mut()
                .find(|earlier| earlier.get("destination") == further.get("destination"))
            {
                Some(earlier) => *earlier = further,
                None => mounts.push(further),
            }
        }
        let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
        if self.network == NetworkMode::None {
            namespaces.push("network");
        }
        let namespaces: Vec<Value> = namespaces
            .into_iter()
            .map(|kind| json!({"type": kind}))
            .collect();
        let masked: &[&str] = if confined {
            &[
                "/proc/acpi",
                "/proc/asound",
                "/proc/interrupts",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/sys/firmware",
                "/sys/devices/virtual/powercap",
            ]
        } else {
            &[]
        };
        let readonly: &[&str] = if confined {
            &[
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ]
        } else {
            &[]
        };
        let mut linux = json!({
            "namespaces": namespaces,
            "maskedPaths": masked,
            "readonlyPaths": readonly,
            "cgroupsPath": self.cgroups_path,
            "resources": resources(self.resources, confined, self.nodes),
            "devices": self.nodes.iter().map(|node| device(node, self.owner)).collect::<Vec<_>>(),
        });
        if let (true, Some(linux)) = (confined, linux.as_object_mut()) {
            linux.insert(
                "seccomp".to_owned(),
                seccomp::oci_profile(crate::launcher::default_capabilities()),
            );
        }
        let mut hooks = serde_json::Map::new();
        for hook in self.hooks {
            let list = hooks
                .entry(hook.hook_name.clone())
                .or_insert_with(|| json!([]));
            let mut entry = json!({"path": hook.path, "args": hook.args, "env": hook.env});
            if let (Some(timeout), Some(entry)) = (hook.timeout, entry.as_object_mut()) {
                entry.insert("timeout".to_owned(), json!(timeout));
            }
            if let Some(list) = list.as_array_mut() {
                list.push(entry);
            }
        }
        json!({
            "ociVersion": "1.0.2",
            "hooks": hooks,
            "process": self.process,
            "root": {"path": self.rootfs, "readonly": self.readonly_root},
            "hostname": if self.hostname.is_empty() { DEFAULT_HOSTNAME } else { self.hostname },
            "mounts": mounts,
            "linux": linux,
        })
    }
}

fn kind(node: &Node) -> &'static str {
    if node.kind == FileType::BlockDevice {
        "b"
    } else if node.kind == FileType::Fifo {
        "p"
    } else {
        "c"
    }
}

fn device(node: &Node, owner: (u32, u32)) -> Value {
    json!({
        "path": format!("/dev/{}", node.name),
        "type": kind(node),
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.permissions,
        "uid": node.owner.0.unwrap_or(owner.0),
        "gid": node.owner.1.unwrap_or(owner.1),
    })
}

fn resources(limits: &Resources, confined: bool, nodes: &[Node]) -> Value {
    let mut resources = serde_json::Map::new();
    let mut devices = vec![json!({"allow": !confined, "access": "rwm"})];
    let limited = |node: &&Node| node.kind != FileType::Fifo && !node.access.is_empty();
    devices.extend(nodes.iter().filter(limited).map(|node| {
        json!({"allow": true, "type": kind(node), "major": node.major, "minor": node.minor, "access": node.access})
    }));
    resources.insert("devices".to_owned(), json!(devices));
    let mut put = |group: &str, name: &str, value: Value, wanted: bool| {
        if wanted
            && let Some(group) = resources
                .entry(group)
                .or_insert_with(|| json!({}))
                .as_object_mut()
        {
            group.insert(name.to_owned(), value);
        }
    };
    put("memory", "limit", json!(limits.memory), limits.memory != 0);
    put(
        "memory",
        "swap",
        json!(limits.memory_swap),
        limits.memory_swap != 0,
    );
    put(
        "cpu",
        "shares",
        json!(limits.cpu_shares),
        limits.cpu_shares != 0,
    );
    put(
        "cpu",
        "quota",
        json!(limits.cpu_quota),
        limits.cpu_quota != 0,
    );
    put(
        "cpu",
        "period",
        json!(limits.cpu_period),
        limits.cpu_period != 0,
    );
    put(
        "cpu",
        "cpus",
        json!(limits.cpuset_cpus),
        !limits.cpuset_cpus.is_empty(),
    );
    put(
        "cpu",
        "mems",
        json!(limits.cpuset_mems),
        !limits.cpuset_mems.is_empty(),
    );
    put("pids", "limit", json!(limits.pids), limits.pids != 0);
    Value::Object(resources)
}
