//! Settings of the daemon: flags over environment over file over defaults, resolved once.
//!
//! Started as `buildkitd` the program takes that name's default paths; the flags, the environment and the keys of the
//! file are the same under both names. A key and what it means are declared together in [`mod@file`], a flag in
//! [`Args`]; the tables of `docs/configuration.md` are written from both.

pub mod args;
mod context;
pub mod file;
mod gc;
mod isolation;
mod layers;
mod network;
mod places;
mod proxy;
mod section;
mod steps;
pub mod units;
mod users;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use args::Args;
pub use context::{CompareText, ContextFile, ContextSettings};
use file::File;
pub use isolation::Isolation;
pub use network::{BridgeSettings, CniSettings, UplinkSetting};
pub use proxy::ProxySettings;
pub use section::Key;
pub use steps::{StepLimitsError, StepSettings};
pub use units::{DiskSpace, UnitError};
pub use users::UserNamespaces;

/// All settings of the daemon.
#[derive(Debug, Clone)]
pub struct Settings {
    /// State directory.
    pub root: PathBuf,
    /// Addresses to listen on: `unix://`, `tcp://`, `fd://`.
    pub addresses: Vec<String>,
    /// Certificate, key and CA of the TCP listeners.
    pub tls: Option<TlsSettings>,
    /// Whether clients share a state.
    pub isolation: Isolation,
    /// Whether loopback addresses may be open to steps that share the host's network.
    pub allow_insecure_loopback: bool,
    /// Owner of unix sockets.
    pub socket_owner: (Option<u32>, Option<u32>),
    /// Address of the debugging listener.
    pub debug_address: Option<String>,
    /// Whether others than this machine may read metrics and health.
    pub allow_insecure_debug_address: bool,
    /// How long builds that run may go on when the daemon stops.
    pub drain_timeout: Duration,
    /// Where spans and metrics are sent; the environment says it, see [`crate::otel`].
    pub otlp: Option<control::OtlpConfig>,
    /// Socket on which spans of programs in steps are taken; see [`Settings::span_socket`].
    pub otel_socket: Option<PathBuf>,
    /// Log level: `trace`, `debug`, `info`, `warn`, `error`.
    pub log_level: String,
    /// Whether the log is JSON.
    pub log_json: bool,
    /// Entitlements that clients may ask for.
    pub entitlements: Vec<String>,
    /// Where devices are described; `None` when steps may have none.
    pub cdi: Option<executor::cdi::Config>,
    /// The proxy network of steps.
    pub proxy: ProxySettings,
    /// The worker's settings.
    pub worker: WorkerSettings,
    /// Registries by host.
    pub registries: BTreeMap<String, file::Registry>,
    /// DNS of build steps.
    pub dns: Option<file::Dns>,
    /// How long records of builds are kept.
    pub history: HistorySettings,
    /// How contexts of clients are received.
    pub context: ContextSettings,
    /// Whether `# syntax=docker/dockerfile:…` is answered by the frontend that is built in.
    pub builtin_syntax: bool,
    /// Folder of what is added to provenance.
    pub provenance_env: PathBuf,
    /// Whether the Dockerfile frontend is enabled.
    pub dockerfile_enabled: bool,
    /// Whether frontends from images are enabled.
    pub gateway_enabled: bool,
    /// Repositories that frontends from images may come from; none for all.
    pub gateway_repositories: Vec<String>,
    /// Connections to one registry at a time.
    pub max_registry_concurrency: Option<usize>,
    /// Remarks on the settings, for the log.
    pub warnings: Vec<String>,
}

/// Files of the TCP listeners' TLS.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// The server's certificate.
    pub cert: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
    /// The authority that clients' certificates must come from.
    pub ca: Option<PathBuf>,
}

/// The settings of the worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Labels shown by `debug workers`.
    pub labels: BTreeMap<String, String>,
    /// Platforms beside the host's.
    pub platforms: Vec<String>,
    /// `auto`, `overlayfs` or `native`.
    pub snapshotter: String,
    /// How layers that come from elsewhere are kept.
    pub layers: store::LayerForm,
    /// Whether garbage is collected by itself.
    pub gc: bool,
    /// The rules of garbage collection; empty for the default ones.
    pub gc_policies: Vec<GcPolicy>,
    /// `auto`, `host`, `none`, `bridge` or `cni`; without, what buildkitd does by itself.
    pub network: Option<String>,
    /// What the mode `bridge` is made of.
    pub bridge: BridgeSettings,
    /// What the mode `cni` is made of.
    pub cni: CniSettings,
    /// The program of an OCI runtime that runs steps; `None` for the built-in launcher.
    pub binary: Option<String>,
    /// Whether steps get a user namespace.
    pub user_namespaces: UserNamespaces,
    /// The host's ids that steps in a user namespace have.
    pub user_namespace_ids: executor::IdRange,
    /// Versions of the OCI runtime that may run steps although they are below those with known faults fixed.
    pub accepted_binary_versions: Vec<String>,
    /// Steps at a time; 0 for no limit.
    pub max_parallelism: usize,
    /// The limits of steps.
    pub steps: StepSettings,
    /// Parent of the steps' cgroups.
    pub cgroup_parent: String,
    /// Whether steps see the host's processes.
    pub no_process_sandbox: bool,
    /// Whether the worker is on at all.
    pub enabled: bool,
}

/// One rule of garbage collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcPolicy {
    /// Whether the rule is also for internal and frontend records.
    pub all: bool,
    /// Which records the rule is for.
    pub filters: Vec<String>,
    /// Records that were used within this time are kept.
    pub keep_duration: Duration,
    /// Space that is never collected.
    pub reserved: DiskSpace,
    /// Records are collected when they take more than this.
    pub max_used: DiskSpace,
    /// Records are collected when less than this is free.
    pub min_free: DiskSpace,
}

/// How long records of builds are kept.
#[derive(Debug, Clone)]
pub struct HistorySettings {
    /// Records that are older than this are deleted.
    pub max_age: Duration,
    /// How many records are kept.
    pub max_entries: usize,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The configuration file exists but cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// The file is not TOML, or a value has the wrong type.
    #[error("configuration {}: {source}", path.display())]
    Parse {
        /// The path of the file.
        path: PathBuf,
        /// The place in the file and the reason.
        source: toml::de::Error,
    },
    /// The value of a flag is not an amount.
    #[error("--{flag}: {source}")]
    Amount {
        /// The flag as it is written.
        flag: &'static str,
        /// Which values the setting takes, as the message says it.
        source: UnitError,
    },
    /// The value of a flag cannot be used.
    #[error("--{flag}: {message}")]
    Flag {
        /// The flag as it is written.
        flag: &'static str,
        /// Which values the setting takes, as the message says it.
        message: String,
    },
    /// The value of a key cannot be used.
    #[error("{key}: {message}")]
    Value {
        /// The path of the key.
        key: &'static str,
        /// Which values the setting takes, as the message says it.
        message: String,
    },
    /// The configured log level does not exist.
    #[error("unsupported log level {0:?}: use trace, debug, info, warn or error")]
    LogLevel(String),
    /// The configured log format does not exist.
    #[error("unsupported log type {0:?}: use text or json")]
    LogFormat(String),
}

impl SettingsError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Read { source, .. } => oci::ErrorKind::of_io(source),
            Self::Amount { source, .. } => source.kind(),
            Self::Parse { .. }
            | Self::Flag { .. }
            | Self::Value { .. }
            | Self::LogLevel(_)
            | Self::LogFormat(_) => oci::ErrorKind::Invalid,
        }
    }
}

/// The default paths and addresses, which depend on the name that the program is started under.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// State directory.
    pub root: PathBuf,
    /// Socket address.
    pub address: String,
    /// Configuration file.
    pub config: PathBuf,
    /// Folders of descriptions of devices.
    pub cdi: Vec<PathBuf>,
}

impl Defaults {
    /// Returns the defaults of the name that the program was started under.
    pub fn of(program: &str) -> Self {
        let cdi = |own: &str| vec!["/etc/cdi".into(), "/var/run/cdi".into(), own.into()];
        if program.ends_with("buildkitd") {
            Self {
                root: "/var/lib/buildkit".into(),
                address: "unix:///run/buildkit/buildkitd.sock".into(),
                config: "/etc/buildkit/buildkitd.toml".into(),
                cdi: cdi("/etc/buildkit/cdi"),
            }
        } else {
            Self {
                root: "/var/lib/rbuild".into(),
                address: "unix:///run/rbuild/rbuildd.sock".into(),
                config: "/etc/rbuild/rbuildd.toml".into(),
                cdi: cdi("/etc/rbuild/cdi"),
            }
        }
    }
}

impl Settings {
    /// Reads the file that `args` name and lays the flags over it.
    pub fn load(args: &Args, defaults: &Defaults) -> Result<Self, SettingsError> {
        let path = args
            .config
            .clone()
            .unwrap_or_else(|| defaults.config.clone());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && args.config.is_none() => {
                String::new()
            }
            Err(source) => return Err(SettingsError::Read { path, source }),
        };
        let (file, warnings) = File::parse(&text).map_err(|source| SettingsError::Parse {
            path: path.clone(),
            source,
        })?;
        Self::resolve(args, file, warnings, defaults)
    }

    /// Lays the flags over the file, and both over the defaults.
    pub fn resolve(
        args: &Args,
        file: File,
        mut warnings: Vec<String>,
        defaults: &Defaults,
    ) -> Result<Self, SettingsError> {
        let mut level = args
            .log_level
            .clone()
            .or(file.log.level)
            .unwrap_or_else(|| "info".into());
        if file.debug {
            warnings.push(
                "'debug' configuration option is deprecated, use 'log.level = \"debug\"' instead"
                    .into(),
            );
        }
        if args.debug || (file.debug && args.log_level.is_none()) {
            level = "debug".into();
        }
        if args.trace || (file.trace && args.log_level.is_none()) {
            level = "trace".into();
        }
        let level = match level.to_ascii_lowercase().as_str() {
            "trace" => "trace",
            "debug" => "debug",
            "info" => "info",
            "warn" | "warning" => "warn",
            "error" | "fatal" | "panic" => "error",
            _ => return Err(SettingsError::LogLevel(level)),
        };
        let format = args
            .log_format
            .clone()
            .or(file.log.format)
            .unwrap_or_default();
        let log_json = match format.as_str() {
            "json" => true,
            "text" | "" => false,
            _ => return Err(SettingsError::LogFormat(format)),
        };
        let oci = file.worker.oci;
        let mut labels = oci.labels;
        for label in &args.oci_worker_labels {
            let (key, value) = label.split_once('=').ok_or_else(|| SettingsError::Flag {
                flag: "oci-worker-labels",
                message: format!("expected key=value, got {label:?}"),
            })?;
            labels.insert(key.into(), value.into());
        }
        let tls_of = |flag: &Option<PathBuf>, file: Option<String>| {
            flag.clone()
                .or(file.filter(|f| !f.is_empty()).map(PathBuf::from))
        };
        let cert = tls_of(&args.tlscert, file.grpc.tls.cert);
        let key = tls_of(&args.tlskey, file.grpc.tls.key);
        let ca = tls_of(&args.tlscacert, file.grpc.tls.ca);
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => Some(TlsSettings { cert, key, ca }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(SettingsError::Flag {
                    flag: "tlskey",
                    message: "a certificate needs its key".into(),
                });
            }
            (None, Some(_)) => {
                return Err(SettingsError::Flag {
                    flag: "tlscert",
                    message: "a key needs its certificate".into(),
                });
            }
        };
        let gid = match &args.group {
            Some(group) if !group.is_empty() => Some(group_id(group)?),
            _ => file.grpc.gid,
        };
        let mut addresses = args.addr.clone();
        if addresses.is_empty() {
            addresses = file.grpc.address;
        }
        if addresses.is_empty() {
            addresses = vec![defaults.address.clone()];
        }
        let mut entitlements = args.allow_insecure_entitlement.clone();
        if entitlements.is_empty() {
            entitlements = file.insecure_entitlements;
        }
        let cdi = (!args.cdi_disabled.or(file.cdi.disabled).unwrap_or(false)).then(|| {
            let spec_dirs = [args.cdi_spec_dir.clone(), file.cdi.spec_dirs];
            let spec_dirs = spec_dirs.into_iter().find(|dirs| !dirs.is_empty());
            executor::cdi::Config {
                spec_dirs: spec_dirs.map_or_else(
                    || defaults.cdi.clone(),
                    |dirs| dirs.into_iter().map(PathBuf::from).collect(),
                ),
                auto_allowed: file.cdi.auto_allowed,
            }
        });
        if cdi.is_some() {
            entitlements.push("device".into());
        }
        if file.worker.containerd.enabled == Some(true) {
            warnings.push("worker.containerd is not supported: rbuildd runs steps by itself or through an OCI runtime (worker.oci.binary)".into());
        }
        let gc_policies = if oci.gcpolicy.is_empty() {
            let unset = oci.reserved_space.is_none()
                && oci.max_used_space.is_none()
                && oci.min_free_space.is_none()
                && oci.gckeepstorage.is_none();
            let (reserved, free, max) = match &args.oci_worker_gc_keepstorage {
                Some(text) => gc::keep_storage(text)?,
                None if unset => (DiskSpace::Unset, DiskSpace::Unset, DiskSpace::Unset),
                None => (
                    gc::space(oci.reserved_space.or(oci.gckeepstorage)),
                    gc::space(oci.min_free_space),
                    gc::space(oci.max_used_space),
                ),
            };
            gc::default_policies(reserved, max, free)
        } else {
            oci.gcpolicy.into_iter().map(gc::policy_of).collect()
        };
        Ok(Self {
            isolation: Isolation::parse(args.isolation.as_deref().or(file.isolation.as_deref()))?,
            root: args
                .root
                .clone()
                .or(file.root.map(PathBuf::from))
                .unwrap_or_else(|| defaults.root.clone()),
            addresses,
            tls,
            allow_insecure_loopback: args.allow_insecure_loopback
                || file.grpc.allow_insecure_loopback,
            socket_owner: (file.grpc.uid, gid),
            debug_address: args
                .debugaddr
                .clone()
                .or(file.grpc.debug_address)
                .filter(|a| !a.is_empty()),
            allow_insecure_debug_address: args.allow_insecure_debugaddr
                || file.grpc.allow_insecure_debug_address,
            drain_timeout: match &args.drain_timeout {
                Some(text) => {
                    units::parse_duration(text).map_err(|source| SettingsError::Amount {
                        flag: "drain-timeout",
                        source,
                    })?
                }
                None => file.drain.timeout.map_or(DRAIN_TIMEOUT, |d| d.0),
            },
            otlp: None,
            otel_socket: args
                .otel_socket_path
                .clone()
                .or(file.otel.socket_path)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            log_level: level.into(),
            log_json,
            entitlements,
            cdi,
            proxy: ProxySettings::resolve(
                args,
                file.proxy_network,
                file.proxy_network_allow.as_deref(),
            )?,
            worker: WorkerSettings {
                labels,
                platforms: if args.oci_worker_platform.is_empty() {
                    oci.platforms
                } else {
                    args.oci_worker_platform.clone()
                },
                snapshotter: args
                    .oci_worker_snapshotter
                    .clone()
                    .or(oci.snapshotter)
                    .unwrap_or_else(|| "auto".into()),
                layers: layers::form(oci.layers.as_deref())?,
                gc: args.oci_worker_gc.or(oci.gc).unwrap_or(true),
                gc_policies,
                network: args
                    .oci_worker_net
                    .clone()
                    .or(oci.network_mode)
                    .filter(|mode| !mode.is_empty()),
                bridge: BridgeSettings {
                    name: oci.bridge_name.filter(|name| !name.is_empty()),
                    subnet: oci.bridge_subnet.filter(|subnet| !subnet.is_empty()),
                    pool_size: network::pool_size(args, oci.cni_pool_size),
                    reveal_metadata: oci.bridge_metadata,
                    uplink: UplinkSetting::parse(oci.bridge_uplink.as_deref().unwrap_or_default())?,
                },
                cni: CniSettings::resolve(
                    args,
                    [oci.cni_config_path, oci.cni_binary_path],
                    defaults,
                ),
                binary: args
                    .oci_worker_binary
                    .clone()
                    .or(oci.binary)
                    .filter(|b| !b.is_empty()),
                user_namespaces: users::mode(
                    args.oci_worker_user_namespaces
                        .as_deref()
                        .or(oci.user_namespaces.as_deref())
                        .unwrap_or("auto"),
                )?,
                user_namespace_ids: oci
                    .user_namespace_ids
                    .as_deref()
                    .map_or(Ok(users::IDS), users::range)?,
                accepted_binary_versions: oci.accepted_binary_versions,
                max_parallelism: args
                    .oci_max_parallelism
                    .or(oci.max_parallelism)
                    .unwrap_or(0),
                steps: StepSettings::resolve(oci.steps)?,
                cgroup_parent: oci.default_cgroup_parent.unwrap_or_default(),
                no_process_sandbox: args.oci_worker_no_process_sandbox || oci.no_process_sandbox,
                enabled: match args.oci_worker.as_deref() {
                    Some("false" | "0") => false,
                    Some(_) => true,
                    None => oci.enabled.unwrap_or(true),
                },
            },
            registries: file.registry,
            dns: file.dns,
            context: ContextSettings::of(&file.context),
            history: HistorySettings {
                max_age: file
                    .history
                    .max_age
                    .map_or(Duration::from_secs(48 * 3600), |d| d.0),
                max_entries: file.history.max_entries.unwrap_or(50),
            },
            builtin_syntax: file.frontend.dockerfile.builtin_syntax.unwrap_or(true),
            provenance_env: file.provenance_env_dir.map_or_else(
                || defaults.config.with_file_name("provenance.d"),
                PathBuf::from,
            ),
            dockerfile_enabled: file.frontend.dockerfile.enabled.unwrap_or(true),
            gateway_enabled: file.frontend.gateway.enabled.unwrap_or(true),
            gateway_repositories: file.frontend.gateway.allowed_repositories.clone(),
            max_registry_concurrency: file.system.max_registry_concurrency,
            warnings,
        })
    }
}

impl Settings {
    /// Why some steps are on the host's network and reach what listens on its loopback interface; `None` when none is.
    pub fn steps_on_host_network(&self) -> Option<&'static str> {
        // What `auto` comes to is known only when listeners are open already.
        if !matches!(
            self.worker.network.as_deref(),
            Some("none" | "bridge" | "cni")
        ) {
            return Some("worker.oci.networkMode is auto or host");
        }
        self.entitlements
            .iter()
            .any(|name| name == "network.host")
            .then_some("the entitlement network.host is allowed")
    }
}

/// Less than the ten seconds after which `docker stop` kills, so that the records of builds that do not end in time are written.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

fn group_id(group: &str) -> Result<u32, SettingsError> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let file = std::fs::read_to_string(Path::new("/etc/group")).unwrap_or_default();
    file.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(group))
                .then(|| fields.nth(1))
                .flatten()?
                .parse()
                .ok()
        })
        .next()
        .ok_or_else(|| SettingsError::Flag {
            flag: "group",
            message: format!("no group {group:?} in /etc/group"),
        })
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod effects;

#[cfg(test)]
mod tests;
