//! `buildkitd.toml`: the keys that are known, what they mean, and how they are read.
//!
//! The names are facts of `cmd/buildkitd/config/config.go` and `util/resolver/config`. Keys that are known to
//! buildkitd but not to us are read and reported as not supported; keys nobody knows are reported with the nearest
//! known one. Neither stops the daemon, as neither stops buildkitd.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::context::ContextFile;
use super::section::{Documented as _, Key, section};
use super::units::{DiskSpaceText, DurationText};

/// Keys that buildkitd has and this daemon has not: they are read, warned about and ignored.
pub const UNSUPPORTED: &[&str] = &[
    "grpc.securityDescriptor",
    "worker.oci.rootless",
    "worker.oci.userRemapUnsupported",
    "worker.oci.proxySnapshotterPath",
    "worker.oci.stargzSnapshotter.*",
    "worker.oci.apparmor-profile",
    "worker.oci.selinux",
    "worker.containerd.*",
    "system.platformsCacheMaxAge",
    "system.sessionAuthTimeout",
    "cache.gha.*",
    "compaction.*",
];

/// Every key that has a meaning here, in the order of the sections.
pub fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    File::document("", "", &mut keys);
    keys
}

section! {
    /// The file as it stands.
    File {
        "debug" debug: bool = "deprecated: log.level = \"debug\"",
        "trace" trace: bool = "deprecated: log.level = \"trace\"",
        "root" root: Option<String> = "state directory",
        "isolation" isolation: Option<String> = "what clients share: `none` (default: everything, as with BuildKit) or `client` (nothing; ours; see [security.md](security.md))",
        "insecure-entitlements" insecure_entitlements: Vec<String> = "entitlements that clients may ask for: `network.host`, `security.insecure`, `device`",
        "proxyNetwork" proxy_network: bool = "steps of all builds are on the proxy network (default false: of builds that ask for it); see below",
        "proxyNetworkAllow" proxy_network_allow: Option<Vec<String>> = "hosts that steps reach by the proxy network, such as `pypi.org`, `*.debian.org` or `10.0.0.0/8:443` (default all; ours; see below)",
        "provenanceEnvDir" provenance_env_dir: Option<String> = "folder of .json files whose fields are added to provenance (default `provenance.d` beside the configuration file)",
        "log" log: Log = "",
        "grpc" grpc: Grpc = "",
        "otel" otel: Otel = "",
        "cdi" cdi: Cdi = "",
        "history" history: History = "",
        "drain" drain: Drain = "",
        "context" context: ContextFile = "",
        "worker" worker: Worker = "",
        "registry" registry: BTreeMap<String, Registry> = "",
        "dns" dns: Option<Dns> = "",
        "frontend" frontend: Frontends = "",
        "system" system: System = "",
    }
}

section! {
    /// The log.
    Log {
        "format" format: Option<String> = "`text` (default) or `json`",
        "level" level: Option<String> = "`trace`, `debug`, `info` (default), `warn` or `error`",
    }
}

section! {
    /// Where clients connect.
    Grpc {
        "address" address: Vec<String> = "listening addresses: `unix:///path`, `tcp://host:port`, `fd://`",
        "debugAddress" debug_address: Option<String> = "address of the debugging listener with metrics and health: `host:port` or `unix:///path` ([operating.md](operating.md))",
        "allowInsecureDebugAddress" allow_insecure_debug_address: bool = "show metrics and health on a debugging address that others than this machine can reach (default false; ours)",
        "uid" uid: Option<u32> = "user that owns the unix sockets",
        "gid" gid: Option<u32> = "group that owns the unix sockets",
        "allowInsecureLoopback" allow_insecure_loopback: bool = "listen on loopback TCP addresses without client certificates (default false; ours; see below)",
        "tls" tls: Tls = "",
    }
}

section! {
    /// TLS of TCP listeners.
    Tls {
        "cert" cert: Option<String> = "certificate for TCP listeners",
        "key" key: Option<String> = "key of the certificate",
        "ca" ca: Option<String> = "authority that clients' certificates must come from",
    }
}

section! {
    /// Traces.
    Otel {
        "socketPath" socket_path: Option<String> = "socket on which spans of programs in build steps are taken; without it steps have one below the state directory where spans are sent to a collector",
    }
}

section! {
    /// Devices of steps.
    Cdi {
        "disabled" disabled: Option<bool> = "no step gets a device (default false)",
        "specDirs" spec_dirs: Vec<String> = "folders of CDI files, which describe devices; a later one overrides an earlier one",
        "autoAllowed" auto_allowed: Vec<String> = "devices, or kinds of them, that every build may have",
    }
}

section! {
    /// Tables of workers.
    Worker {
        "oci" oci: Oci = "",
        "containerd" containerd: Containerd = "",
    }
}

section! {
    /// The worker that there is not.
    Containerd {
        "enabled" enabled: Option<bool> = "whether a containerd worker is wanted; there is none, which the log says",
    }
}

section! {
    /// The worker.
    Oci {
        "enabled" enabled: Option<bool> = "whether the worker is on (default true)",
        "labels" labels: BTreeMap<String, String> = "labels of the worker",
        "platforms" platforms: Vec<String> = "platforms that the worker builds for, beside the host's",
        "snapshotter" snapshotter: Option<String> = "`auto` (default; overlayfs where it can be mounted, else native), `overlayfs` or `native` (each step gets a whole copy of what it stands on)",
        "layers" layers: Option<String> = "how layers of images and caches are kept: `tar` (as their tar, mounted where it lies; Linux 6.15 with EROFS), `folder` (unpacked), `auto` (default; the first where it works); ours",
        "noProcessSandbox" no_process_sandbox: bool = "show steps the host's processes (read, without effect so far)",
        "gc" gc: Option<bool> = "whether garbage is collected by itself (default true)",
        "gckeepstorage" gckeepstorage: Option<DiskSpaceText> = "deprecated: worker.oci.reservedSpace",
        "reservedSpace" reserved_space: Option<DiskSpaceText> = "space that garbage collection leaves alone",
        "maxUsedSpace" max_used_space: Option<DiskSpaceText> = "space that is not exceeded",
        "minFreeSpace" min_free_space: Option<DiskSpaceText> = "space that stays free on the file system",
        "gcpolicy" gcpolicy: Vec<GcPolicyFile> = "",
        "networkMode" network_mode: Option<String> = "network of steps: `auto`, `bridge`, `cni`, `host` or `none`; where it is not set, as under buildkitd; see below",
        "bridgeName" bridge_name: Option<String> = "name of the bridge, which must not exist; otherwise `buildkit0`, or the next that is free",
        "bridgeSubnet" bridge_subnet: Option<String> = "addresses of steps behind the bridge, into which no route of the host may lead; otherwise `10.10.0.0/16`, or another that is free",
        "bridgeMetadata" bridge_metadata: bool = "let steps behind the bridge reach the metadata services of cloud providers (default false; ours)",
        "bridgeUplink" bridge_uplink: Option<String> = "what carries packets of the bridge of a daemon without root: `auto` (default; pasta, else slirp4netns), `pasta`, `slirp4netns` or `none`; ours; see [rootless.md](rootless.md)",
        "cniConfigPath" cni_config_path: Option<String> = "file that describes the CNI network; without, `cni.json` beside the configuration",
        "cniBinaryPath" cni_binary_path: Option<String> = "folder of CNI's programs; without, `/opt/cni/bin`, `/usr/lib/cni` and `/usr/libexec/cni`",
        "cniPoolSize" cni_pool_size: Option<usize> = "networks that are always prepared for steps behind the bridge or by CNI (default 2)",
        "binary" binary: Option<String> = "OCI runtime (`runc`, `crun`) to run steps with in the place of the built-in launcher",
        "acceptedBinaryVersions" accepted_binary_versions: Vec<String> = "versions of the OCI runtime that are taken although they are below the fixed ones (ours; see below)",
        "userNamespaces" user_namespaces: Option<String> = "whether steps get a user namespace: `off`, `auto` (default; where it works), `on` (or the daemon does not start); ours; see below",
        "userNamespaceIds" user_namespace_ids: Option<String> = "the host's ids for users and groups of steps in a user namespace, `base:count` (default `268435456:4026531839`; ours)",
        "defaultCgroupParent" default_cgroup_parent: Option<String> = "parent of the steps' cgroups",
        "max-parallelism" max_parallelism: Option<usize> = "steps that may run at the same time (default 0: no limit)",
        "steps" steps: StepsFile = "",
    }
}

section! {
    /// Limits of steps.
    StepsFile {
        "memory" memory: Option<DiskSpaceText> = "memory of each step, in bytes or as a share of the machine's (`4GB`, `50%`): for steps that ask for nothing, and the most that others get (default 0: no limit; ours)",
        "cpus" cpus: Option<f64> = "cores of each step, such as `1.5`; as above (default 0: no limit; ours)",
        "pids" pids: Option<u32> = "processes and threads of each step (default 0: no limit; ours)",
        "readRate" read_rate: Option<DiskSpaceText> = "bytes that each step reads in a second from the disk of the state directory (default 0: no limit; ours)",
        "writeRate" write_rate: Option<DiskSpaceText> = "bytes that each step writes to it in a second (default 0: no limit; ours)",
        "memoryBudget" memory_budget: Option<DiskSpaceText> = "memory that steps may need together; one that needed too much when it ran last waits for others, and is told so (default `90%` of the machine's; `0` turns it off; ours)",
    }
}

section! {
    /// One rule of garbage collection.
    GcPolicyFile {
        "all" all: bool = "whether internal and frontend records count (default false)",
        "filters" filters: Vec<String> = "which records the rule is for (default all)",
        "keepDuration" keep_duration: Option<DurationText> = "what was used within this time stays",
        "keepBytes" keep_bytes: Option<DiskSpaceText> = "deprecated: reservedSpace",
        "reservedSpace" reserved_space: Option<DiskSpaceText> = "space that stays in any case",
        "maxUsedSpace" max_used_space: Option<DiskSpaceText> = "space that is not exceeded",
        "minFreeSpace" min_free_space: Option<DiskSpaceText> = "space that stays free",
    }
}

section! {
    /// How one registry is spoken to.
    Registry {
        "mirrors" mirrors: Vec<String> = "hosts asked before this one",
        "http" http: Option<bool> = "speak plain http",
        "insecure" insecure: Option<bool> = "do not verify the certificate",
        "ca" ca: Vec<String> = "authorities to trust beside the host's",
        "keypair" keypair: Vec<KeyPair> = "",
        "tlsconfigdir" tlsconfigdir: Vec<String> = "folders with ca and client certificate files",
    }
}

section! {
    /// A client certificate for a registry.
    KeyPair {
        "key" key: String = "key of the client certificate",
        "cert" cert: String = "client certificate",
    }
}

section! {
    /// Names in build steps.
    Dns {
        "nameservers" nameservers: Vec<String> = "name servers of build steps",
        "options" options: Vec<String> = "options of the resolver in build steps",
        "searchDomains" search_domains: Vec<String> = "search domains of build steps",
    }
}

section! {
    /// Records of builds.
    History {
        "maxAge" max_age: Option<DurationText> = "how long records of builds are kept (default 48h)",
        "maxEntries" max_entries: Option<usize> = "how many records of builds are kept (default 50)",
    }
}

section! {
    /// Stopping.
    Drain {
        "timeout" timeout: Option<DurationText> = "how long builds that run may go on after SIGTERM; further ones are refused meanwhile (default 8s, since `docker stop` kills after 10s; ours)",
    }
}

section! {
    /// Frontends.
    Frontends {
        "dockerfile.v0" dockerfile: DockerfileFrontend = "",
        "gateway.v0" gateway: GatewayFrontend = "",
    }
}

section! {
    /// The frontend for Dockerfiles.
    DockerfileFrontend {
        "enabled" enabled: Option<bool> = "whether Dockerfiles are built by the frontend that is built in (default true)",
        "builtinSyntax" builtin_syntax: Option<bool> = "answer `# syntax=docker/dockerfile:…` with the frontend that is built in (default true; ours)",
    }
}

section! {
    /// Frontends from images.
    GatewayFrontend {
        "enabled" enabled: Option<bool> = "whether frontends from images are run (default true)",
        "allowedRepositories" allowed_repositories: Vec<String> = "repositories that frontends from images may come from (default all)",
    }
}

section! {
    /// Limits of the daemon.
    System {
        "maxRegistryConcurrency" max_registry_concurrency: Option<usize> = "connections to one registry at a time",
    }
}

impl File {
    /// Parses the text; returns it with remarks on keys that mean nothing here.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), toml::de::Error> {
        let table = DeTable::parse(text)?;
        let mut paths = Vec::new();
        collect("", table.get_ref(), &mut paths);
        let known_keys = keys();
        let mut warnings = Vec::new();
        for (path, at) in paths {
            let before = text.get(..at).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            if known_keys.iter().any(|key| matches(&key.path, &path)) {
                continue;
            }
            if UNSUPPORTED.iter().any(|key| matches(key, &path)) {
                warnings.push(format!(
                    "configuration key {path} (line {line}) is known to buildkitd but not supported here, ignored"
                ));
            } else {
                let near = known_keys
                    .iter()
                    .map(|key| key.path.as_str())
                    .chain(UNSUPPORTED.iter().copied())
                    .min_by_key(|key| distance(key, &path));
                warnings.push(format!(
                    "unknown configuration key {path} (line {line}), did you mean {}?",
                    near.unwrap_or("one of docs/configuration.md")
                ));
            }
        }
        toml::from_str(text).map(|file| (file, warnings))
    }
}

/// The paths of all values below a table, each with where its key begins in the text.
fn collect(prefix: &str, table: &DeTable<'_>, out: &mut Vec<(String, usize)>) {
    for (key, value) in table {
        let name = if prefix == "registry" || prefix == "worker.oci.labels" {
            "*"
        } else {
            key.get_ref().as_ref()
        };
        let path = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}.{name}")
        };
        match value.get_ref() {
            DeValue::Table(table) => collect(&path, table, out),
            DeValue::Array(items) => {
                let tables: Vec<_> = items
                    .iter()
                    .filter_map(|item| item.get_ref().as_table())
                    .collect();
                if tables.is_empty() {
                    out.push((path, key.span().start));
                } else {
                    for table in tables {
                        collect(&path, table, out);
                    }
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => out.push((path, key.span().start)),
        }
    }
}

fn matches(key: &str, path: &str) -> bool {
    if let Some(stem) = key.strip_suffix(".*") {
        let rest = path.strip_prefix(stem);
        return rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    }
    key == path
}

/// Levenshtein's distance, for suggestions.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (j, cb) in b.iter().enumerate() {
            let Some(cell) = row.get_mut(j + 1) else {
                break;
            };
            let value = (diagonal + usize::from(ca != *cb))
                .min(*cell + 1)
                .min(left + 1);
            diagonal = *cell;
            *cell = value;
            left = value;
        }
    }
    row.last().copied().unwrap_or(0)
}
