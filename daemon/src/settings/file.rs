//! `buildkitd.toml`: the keys that are known, what they mean, and how they are read.
//!
//! The names are facts of `cmd/buildkitd/config/config.go` and `util/resolver/config`. Keys that are known to
//! buildkitd but not to us are read and reported as not supported; keys nobody knows are reported with the nearest
//! known one. Neither stops the daemon, as neither stops buildkitd.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::context::ContextFile;
use super::units::{DiskSpaceText, DurationText};

/// Every key with what it means; `*` stands for any name. Keys marked `-` are known to buildkitd only.
pub const KEYS: &[(&str, &str)] = &[
    ("debug", "deprecated: log.level = \"debug\""),
    ("trace", "deprecated: log.level = \"trace\""),
    ("root", "state directory"),
    (
        "isolation",
        "what clients share: none (default: everything, as with BuildKit) or client (nothing; ours)",
    ),
    (
        "insecure-entitlements",
        "entitlements that clients may ask for: network.host, security.insecure, device",
    ),
    ("proxyNetwork", "-"),
    (
        "provenanceEnvDir",
        "folder of .json files whose fields are added to provenance",
    ),
    ("log.format", "text or json"),
    ("log.level", "trace, debug, info, warn or error"),
    ("grpc.address", "listening addresses"),
    ("grpc.debugAddress", "address of the debugging listener"),
    ("grpc.uid", "user that owns the unix sockets"),
    ("grpc.gid", "group that owns the unix sockets"),
    (
        "grpc.allowInsecureLoopback",
        "listen on loopback addresses without client certificates, although steps on the host's network can use them (ours)",
    ),
    ("grpc.securityDescriptor", "-"),
    ("grpc.tls.cert", "certificate for TCP listeners"),
    ("grpc.tls.key", "key of the certificate"),
    (
        "grpc.tls.ca",
        "authority that clients' certificates must come from",
    ),
    (
        "otel.socketPath",
        "socket on which traces of build steps are collected",
    ),
    ("cdi.disabled", "no step gets a device"),
    (
        "cdi.specDirs",
        "folders of CDI files, which describe devices; the last says most",
    ),
    (
        "cdi.autoAllowed",
        "devices, or kinds of them, that every build may have",
    ),
    (
        "history.maxAge",
        "how long records of builds are kept (default 48h)",
    ),
    (
        "history.maxEntries",
        "how many records of builds are kept (default 50)",
    ),
    (
        "context.compare",
        "how files of clients are told from those received before: metadata (default, as BuildKit) or contents (ours)",
    ),
    (
        "context.maxSize",
        "what one session may write into the state directory (default 50%, 0 is no limit; ours)",
    ),
    (
        "context.idleTimeout",
        "how long a transfer of files may stand still before it ends (default 5m, 0 is for ever; ours)",
    ),
    ("worker.oci.enabled", "whether the worker is on"),
    ("worker.oci.labels.*", "labels of the worker"),
    (
        "worker.oci.platforms",
        "platforms that the worker builds for",
    ),
    ("worker.oci.snapshotter", "auto, overlayfs or native"),
    ("worker.oci.rootless", "-"),
    (
        "worker.oci.noProcessSandbox",
        "show steps the host's processes",
    ),
    ("worker.oci.gc", "whether garbage is collected by itself"),
    (
        "worker.oci.gckeepstorage",
        "deprecated: worker.oci.reservedSpace",
    ),
    (
        "worker.oci.reservedSpace",
        "space that garbage collection leaves alone",
    ),
    ("worker.oci.maxUsedSpace", "space that is not exceeded"),
    (
        "worker.oci.minFreeSpace",
        "space that stays free on the file system",
    ),
    (
        "worker.oci.gcpolicy.all",
        "whether internal and frontend records count",
    ),
    (
        "worker.oci.gcpolicy.filters",
        "which records the rule is for",
    ),
    (
        "worker.oci.gcpolicy.keepDuration",
        "what was used within this time stays",
    ),
    ("worker.oci.gcpolicy.keepBytes", "deprecated: reservedSpace"),
    (
        "worker.oci.gcpolicy.reservedSpace",
        "space that stays in any case",
    ),
    (
        "worker.oci.gcpolicy.maxUsedSpace",
        "space that is not exceeded",
    ),
    ("worker.oci.gcpolicy.minFreeSpace", "space that stays free"),
    ("worker.oci.networkMode", "auto, host or none"),
    ("worker.oci.cniConfigPath", "-"),
    ("worker.oci.cniBinaryPath", "-"),
    ("worker.oci.cniPoolSize", "-"),
    ("worker.oci.bridgeName", "-"),
    ("worker.oci.bridgeSubnet", "-"),
    ("worker.oci.userRemapUnsupported", "-"),
    (
        "worker.oci.binary",
        "OCI runtime to run steps with in the place of the launcher",
    ),
    (
        "worker.oci.acceptedBinaryVersions",
        "versions of the OCI runtime that are taken although they are below the fixed ones (ours)",
    ),
    (
        "worker.oci.userNamespaces",
        "whether steps get a user namespace: off, auto or on (default auto; ours)",
    ),
    (
        "worker.oci.userNamespaceIds",
        "the host's ids for users and groups of steps in a user namespace, base:count (ours)",
    ),
    ("worker.oci.proxySnapshotterPath", "-"),
    (
        "worker.oci.defaultCgroupParent",
        "parent of the steps' cgroups",
    ),
    ("worker.oci.stargzSnapshotter.*", "-"),
    ("worker.oci.apparmor-profile", "-"),
    ("worker.oci.selinux", "-"),
    (
        "worker.oci.max-parallelism",
        "steps that may run at the same time",
    ),
    ("worker.containerd.*", "-"),
    ("registry.*.mirrors", "hosts asked before this one"),
    ("registry.*.http", "speak plain http"),
    ("registry.*.insecure", "do not verify the certificate"),
    ("registry.*.ca", "authorities to trust beside the host's"),
    ("registry.*.keypair.key", "key of the client certificate"),
    ("registry.*.keypair.cert", "client certificate"),
    (
        "registry.*.tlsconfigdir",
        "folders with ca and client certificate files",
    ),
    ("dns.nameservers", "name servers of build steps"),
    ("dns.options", "options of the resolver in build steps"),
    ("dns.searchDomains", "search domains of build steps"),
    (
        "frontend.dockerfile.v0.enabled",
        "whether Dockerfiles are built",
    ),
    (
        "frontend.dockerfile.v0.builtinSyntax",
        "answer `# syntax=docker/dockerfile:…` with the frontend that is built in (default true; ours)",
    ),
    (
        "frontend.gateway.v0.enabled",
        "whether frontends from images are allowed",
    ),
    (
        "frontend.gateway.v0.allowedRepositories",
        "repositories that frontends from images may come from (default all)",
    ),
    ("system.platformsCacheMaxAge", "-"),
    (
        "system.maxRegistryConcurrency",
        "connections to one registry at a time",
    ),
    ("system.sessionAuthTimeout", "-"),
    ("cache.gha.*", "-"),
    ("compaction.*", "-"),
];

/// The file as it stands.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct File {
    pub debug: bool,
    pub trace: bool,
    pub root: Option<String>,
    pub isolation: Option<String>,
    #[serde(rename = "insecure-entitlements")]
    pub insecure_entitlements: Vec<String>,
    #[serde(rename = "provenanceEnvDir")]
    pub provenance_env_dir: Option<String>,
    pub log: Log,
    pub grpc: Grpc,
    pub otel: Otel,
    pub cdi: Cdi,
    pub worker: Worker,
    pub registry: BTreeMap<String, Registry>,
    pub dns: Option<Dns>,
    pub history: History,
    pub context: ContextFile,
    pub frontend: Frontends,
    pub system: System,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct Log {
    pub format: Option<String>,
    pub level: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct Grpc {
    pub address: Vec<String>,
    pub debug_address: Option<String>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub allow_insecure_loopback: bool,
    pub tls: Tls,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct Tls {
    pub cert: Option<String>,
    pub key: Option<String>,
    pub ca: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct Otel {
    pub socket_path: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct Cdi {
    pub disabled: Option<bool>,
    pub spec_dirs: Vec<String>,
    pub auto_allowed: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct Worker {
    pub oci: Oci,
    pub containerd: toml::Table,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct Oci {
    pub enabled: Option<bool>,
    pub labels: BTreeMap<String, String>,
    pub platforms: Vec<String>,
    pub snapshotter: Option<String>,
    pub no_process_sandbox: bool,
    pub gc: Option<bool>,
    pub gckeepstorage: Option<DiskSpaceText>,
    pub reserved_space: Option<DiskSpaceText>,
    pub max_used_space: Option<DiskSpaceText>,
    pub min_free_space: Option<DiskSpaceText>,
    pub gcpolicy: Vec<GcPolicyFile>,
    pub network_mode: Option<String>,
    pub binary: Option<String>,
    pub accepted_binary_versions: Vec<String>,
    pub user_namespaces: Option<String>,
    pub user_namespace_ids: Option<String>,
    pub default_cgroup_parent: Option<String>,
    #[serde(rename = "max-parallelism")]
    pub max_parallelism: Option<usize>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct GcPolicyFile {
    pub all: bool,
    pub filters: Vec<String>,
    pub keep_duration: Option<DurationText>,
    pub keep_bytes: Option<DiskSpaceText>,
    pub reserved_space: Option<DiskSpaceText>,
    pub max_used_space: Option<DiskSpaceText>,
    pub min_free_space: Option<DiskSpaceText>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct Registry {
    pub mirrors: Vec<String>,
    pub http: Option<bool>,
    pub insecure: Option<bool>,
    pub ca: Vec<String>,
    pub keypair: Vec<KeyPair>,
    pub tlsconfigdir: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct KeyPair {
    pub key: String,
    pub cert: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct Dns {
    pub nameservers: Vec<String>,
    pub options: Vec<String>,
    pub search_domains: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct History {
    pub max_age: Option<DurationText>,
    pub max_entries: Option<usize>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct Frontends {
    #[serde(rename = "dockerfile.v0")]
    pub dockerfile: DockerfileFrontend,
    #[serde(rename = "gateway.v0")]
    pub gateway: GatewayFrontend,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct DockerfileFrontend {
    pub enabled: Option<bool>,
    pub builtin_syntax: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct GatewayFrontend {
    pub enabled: Option<bool>,
    #[serde(rename = "allowedRepositories")]
    pub allowed_repositories: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "KEYS says what each key means")]
pub struct System {
    pub max_registry_concurrency: Option<usize>,
}

impl File {
    /// Parses the text; returns it with remarks on keys that mean nothing here.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        let mut paths = Vec::new();
        collect("", &toml::Value::Table(table), &mut paths);
        let mut warnings = Vec::new();
        for path in paths {
            match KEYS.iter().find(|(key, _)| matches(key, &path)) {
                Some((_, "-")) => warnings.push(format!(
                    "configuration key {path} is known to buildkitd but not supported here, ignored"
                )),
                Some(_) => {}
                None => {
                    let near = KEYS
                        .iter()
                        .map(|(key, _)| *key)
                        .min_by_key(|key| distance(key, &path));
                    warnings.push(format!(
                        "unknown configuration key {path}, did you mean {}?",
                        near.unwrap_or("one of docs/configuration.md")
                    ));
                }
            }
        }
        toml::from_str(text)
            .map(|file| (file, warnings))
            .map_err(|e| e.to_string())
    }
}

fn collect(prefix: &str, value: &toml::Value, out: &mut Vec<String>) {
    let join = |key: &str| {
        if prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{prefix}.{key}")
        }
    };
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let key = if prefix == "registry" || prefix == "worker.oci.labels" {
                    "*"
                } else {
                    key
                };
                collect(&join(key), value, out);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            for item in items {
                collect(prefix, item, out);
            }
        }
        toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_) => out.push(prefix.to_owned()),
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
