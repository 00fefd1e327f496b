//! The OCI runtime specification's document for a container.

use std::os::fd::AsRawFd as _;

use rustix::fs::FileType;
use serde_json::{Value, json};

use crate::access::{MASKED_PATHS, READONLY_PATHS, SecurityMode};
use crate::environment::Environment;
use crate::hosts::DEFAULT_HOSTNAME;
use crate::injection::{Hook, Node};
use crate::network::ContainerNetwork;
use crate::resources::Resources;
use crate::seccomp;
use crate::spec::{ProcessSpec, Ulimit};
use crate::user::Identity;

/// What the document is made from. The sources of mounts are paths already.
pub(super) struct RuntimeDocument<'a> {
    pub(super) rootfs: &'a str,
    pub(super) readonly_root: bool,
    pub(super) hostname: &'a str,
    pub(super) process: Value,
    pub(super) mounts: Vec<Value>,
    pub(super) network: &'a ContainerNetwork,
    pub(super) security: SecurityMode,
    pub(super) nodes: &'a [Node],
    pub(super) hooks: &'a [Hook],
    /// The owner of device nodes whose file names none.
    pub(super) owner: (u32, u32),
    pub(super) cgroups_path: String,
    pub(super) resources: &'a Resources,
    pub(super) shm_size: u64,
}

/// The process part, also for further processes.
pub(super) fn process(
    spec: &ProcessSpec,
    identity: &Identity,
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
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups},
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

impl RuntimeDocument<'_> {
    pub(super) fn build(self) -> Value {
        let confined = self.security == SecurityMode::Sandbox;
        let mount = |dest: &str, kind: &str, options: &[&str]| json!({"destination": dest, "type": kind, "source": kind, "options": options});
        let restricted = ["nosuid", "noexec", "nodev"];
        let shm = format!("size={}", self.shm_size);
        let access = if confined { "ro" } else { "rw" };
        let mut mounts = vec![
            mount("/proc", "proc", &restricted),
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
            mount("/dev/mqueue", "mqueue", &restricted),
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
        let mut namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount"]
            .into_iter()
            .map(|kind| json!({"type": kind}))
            .collect();
        namespaces.extend(network_namespace(self.network));
        let masked: &[&str] = if confined { &MASKED_PATHS } else { &[] };
        let readonly: &[&str] = if confined { &READONLY_PATHS } else { &[] };
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

/// The runtime opens the namespace by our descriptor of it, which stays open as long as the container runs.
fn network_namespace(network: &ContainerNetwork) -> Option<Value> {
    match network {
        ContainerNetwork::Host => None,
        ContainerNetwork::Isolated => Some(json!({"type": "network"})),
        ContainerNetwork::Prepared(_) | ContainerNetwork::Proxied(_) => {
            let fd = network.namespace()?.as_raw_fd();
            let path = format!("/proc/{}/fd/{fd}", std::process::id());
            Some(json!({"type": "network", "path": path}))
        }
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
    let mut put = |group: &str, name: &str, value: Value, is_limited: bool| {
        if is_limited
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
    if let Some(io) = &limits.io {
        let (major, minor) = io.device;
        let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
        put(
            "blockIO",
            "throttleReadBpsDevice",
            rate(io.read),
            io.read != 0,
        );
        put(
            "blockIO",
            "throttleWriteBpsDevice",
            rate(io.write),
            io.write != 0,
        );
    }
    Value::Object(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(
        security: SecurityMode,
        network: &ContainerNetwork,
        mounts: Vec<Value>,
        nodes: &[Node],
    ) -> Value {
        let identity = Identity {
            uid: 7,
            gid: 8,
            groups: vec![8, 9],
        };
        let limits = Resources::default();
        RuntimeDocument {
            rootfs: "/bundle/rootfs",
            readonly_root: true,
            hostname: "",
            process: process(&ProcessSpec::default(), &identity, "/home/x", security, &[]),
            mounts,
            network,
            security,
            nodes,
            hooks: &[],
            owner: (7, 8),
            cgroups_path: "/buildkit/x".into(),
            resources: &limits,
            shm_size: 65536,
        }
        .build()
    }

    #[test]
    fn a_process_has_its_user_a_home_and_a_folder() {
        let identity = Identity {
            uid: 1000,
            gid: 100,
            groups: vec![100, 10],
        };
        for (env, cwd, shown_env, shown_cwd) in [
            (&["A=1"][..], "", json!(["A=1", "HOME=/home/x"]), "/"),
            (&["HOME=/own"], "/w", json!(["HOME=/own"]), "/w"),
            (&["HOMER=1"], "/w", json!(["HOMER=1", "HOME=/home/x"]), "/w"),
        ] {
            let spec = ProcessSpec {
                args: vec!["x".into()],
                env: env.iter().map(|entry| (*entry).to_owned()).collect(),
                cwd: cwd.into(),
                user: "build".into(),
                tty: true,
            };
            let value = process(&spec, &identity, "/home/x", SecurityMode::Sandbox, &[]);
            assert_eq!(value["env"], shown_env);
            assert_eq!(value["cwd"], shown_cwd);
            assert_eq!(value["terminal"], true);
            assert_eq!(
                value["user"],
                json!({"uid": 1000, "gid": 100, "additionalGids": [100, 10]})
            );
            assert_eq!(value["noNewPrivileges"], false);
        }
    }

    #[test]
    fn capabilities_are_inherited_only_by_an_insecure_step() {
        let identity = Identity::default();
        let of = |security| {
            process(&ProcessSpec::default(), &identity, "/", security, &[])["capabilities"].clone()
        };
        let sandbox = of(SecurityMode::Sandbox);
        let names = |set: &Value| set.as_array().map_or(0, Vec::len);
        assert_eq!(names(&sandbox["bounding"]), 14, "Docker's default set");
        assert_eq!(sandbox["bounding"], sandbox["effective"]);
        assert!(sandbox.get("ambient").is_none() && sandbox.get("inheritable").is_none());
        let insecure = of(SecurityMode::Insecure);
        assert_eq!(insecure["ambient"], insecure["permitted"]);
    }

    #[test]
    fn limits_have_the_specifications_names_and_no_limit_is_the_largest_number() {
        let limit = |name: &str, soft, hard| Ulimit {
            name: name.into(),
            soft,
            hard,
        };
        let limits = [limit("nofile", 1, 2), limit("core", 0, -1)];
        let value = process(
            &ProcessSpec::default(),
            &Identity::default(),
            "/",
            SecurityMode::Sandbox,
            &limits,
        );
        assert_eq!(
            value["rlimits"],
            json!([
                {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX},
            ])
        );
    }

    #[test]
    fn only_a_confined_step_is_masked_filtered_and_kept_from_devices() {
        let confined = document(
            SecurityMode::Sandbox,
            &ContainerNetwork::Host,
            Vec::new(),
            &[],
        );
        let insecure = document(
            SecurityMode::Insecure,
            &ContainerNetwork::Host,
            Vec::new(),
            &[],
        );
        let count =
            |document: &Value, list: &str| document["linux"][list].as_array().map_or(0, Vec::len);
        assert!(count(&confined, "maskedPaths") > 0 && count(&confined, "readonlyPaths") > 0);
        assert_eq!(
            (
                count(&insecure, "maskedPaths"),
                count(&insecure, "readonlyPaths")
            ),
            (0, 0)
        );
        assert!(confined["linux"].get("seccomp").is_some());
        assert!(insecure["linux"].get("seccomp").is_none());
        assert_eq!(
            confined["linux"]["resources"]["devices"],
            json!([{"allow": false, "access": "rwm"}])
        );
        assert_eq!(
            insecure["linux"]["resources"]["devices"],
            json!([{"allow": true, "access": "rwm"}])
        );
        let sys = |document: &Value| {
            let mounts = document["mounts"].as_array().unwrap().clone();
            let sys = mounts
                .into_iter()
                .find(|mount| mount["destination"] == "/sys")
                .unwrap();
            sys["options"].to_string()
        };
        assert!(sys(&confined).contains("\"ro\"") && sys(&insecure).contains("\"rw\""));
    }

    #[test]
    fn a_step_has_a_network_of_its_own_only_without_one() {
        for (network, own) in [
            (ContainerNetwork::Isolated, true),
            (ContainerNetwork::Host, false),
        ] {
            let document = document(SecurityMode::Sandbox, &network, Vec::new(), &[]);
            let namespaces = document["linux"]["namespaces"].to_string();
            assert_eq!(namespaces.contains("network"), own, "{network:?}");
            for kind in ["pid", "ipc", "uts", "mount"] {
                assert!(namespaces.contains(kind), "{kind}");
            }
        }
    }

    #[test]
    fn a_mount_takes_the_place_of_the_one_that_every_step_has() {
        let own =
            json!({"destination": "/dev/shm", "type": "bind", "source": "/x", "options": ["ro"]});
        let further =
            json!({"destination": "/data", "type": "bind", "source": "/y", "options": []});
        let document = document(
            SecurityMode::Sandbox,
            &ContainerNetwork::Host,
            vec![own.clone(), further.clone()],
            &[],
        );
        let mounts = document["mounts"].as_array().unwrap();
        let of = |dest: &str| {
            mounts
                .iter()
                .filter(|mount| mount["destination"] == dest)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("/dev/shm"), [&own]);
        assert_eq!(mounts.last(), Some(&further));
    }

    #[test]
    fn a_device_belongs_to_the_step_unless_its_file_says_otherwise() {
        let node = |name: &str, kind, access: &str, owner| Node {
            name: name.into(),
            kind,
            permissions: 0o640,
            major: 10,
            minor: 200,
            owner,
            access: access.into(),
        };
        let nodes = [
            node("net/tun", FileType::CharacterDevice, "rw", (None, None)),
            node("disk", FileType::BlockDevice, "r", (Some(1), Some(2))),
            node("pipe", FileType::Fifo, "rwm", (None, None)),
            node("none", FileType::CharacterDevice, "", (None, None)),
        ];
        let document = document(
            SecurityMode::Sandbox,
            &ContainerNetwork::Host,
            Vec::new(),
            &nodes,
        );
        let device = |name: &str, kind: &str, uid, gid| json!({"path": format!("/dev/{name}"), "type": kind, "major": 10, "minor": 200, "fileMode": 0o640, "uid": uid, "gid": gid});
        assert_eq!(
            document["linux"]["devices"],
            json!([
                device("net/tun", "c", 7, 8),
                device("disk", "b", 1, 2),
                device("pipe", "p", 7, 8),
                device("none", "c", 7, 8),
            ])
        );
        let rule = |kind: &str, access: &str| json!({"allow": true, "type": kind, "major": 10, "minor": 200, "access": access});
        assert_eq!(
            document["linux"]["resources"]["devices"],
            json!([{"allow": false, "access": "rwm"}, rule("c", "rw"), rule("b", "r")])
        );
    }

    #[test]
    fn only_limits_that_are_asked_for_are_written() {
        use crate::resources::IoLimits;

        type Set = fn(&mut Resources);
        let cases: [(Set, &str, Value); 9] = [
            (
                |l| {
                    l.io = Some(IoLimits {
                        device: (8, 16),
                        read: 5,
                        write: 0,
                    });
                },
                "blockIO",
                json!({"throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 5}]}),
            ),
            (|l| l.memory = 5, "memory", json!({"limit": 5})),
            (
                |l| (l.memory, l.memory_swap) = (5, -1),
                "memory",
                json!({"limit": 5, "swap": -1}),
            ),
            (|l| l.cpu_shares = 2, "cpu", json!({"shares": 2})),
            (
                |l| (l.cpu_quota, l.cpu_period) = (-1, 9),
                "cpu",
                json!({"quota": -1, "period": 9}),
            ),
            (
                |l| l.cpuset_cpus = "0-1".into(),
                "cpu",
                json!({"cpus": "0-1"}),
            ),
            (|l| l.cpuset_mems = "0".into(), "cpu", json!({"mems": "0"})),
            (|l| l.pids = 3, "pids", json!({"limit": 3})),
            (|_| {}, "pids", Value::Null),
        ];
        for (set, group, written) in cases {
            let mut limits = Resources::default();
            set(&mut limits);
            let value = resources(&limits, true, &[]);
            assert_eq!(value.get(group).cloned().unwrap_or_default(), written);
            let groups = value.as_object().unwrap().len();
            assert_eq!(groups, 1 + usize::from(!limits.is_empty()), "{limits:?}");
        }
    }
}
