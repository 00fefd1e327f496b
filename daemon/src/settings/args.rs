//! Flags of the daemon, named as buildkitd's.

use std::path::PathBuf;

use clap::{ArgAction, Parser};

/// Builds container images for rbuild, buildctl and docker buildx: the daemon
///
/// Listens for `rbuild`, `buildctl`, `docker buildx` and everything else that speaks BuildKit's API. Without flags it
/// listens on its default socket and keeps its state in its default directory; both depend on the name it is started
/// under (`rbuildd` or `buildkitd`).
#[derive(Debug, Clone, Parser)]
#[command(
    name = "rbuildd",
    version,
    disable_version_flag = false,
    max_term_width = 100
)]
pub struct Args {
    /// Path to the configuration file (TOML, buildkitd's keys)
    #[arg(long, env = "BUILDKITD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// State directory
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Listening address: unix:///path, tcp://host:port or fd:// (socket activation); may be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub addr: Vec<String>,
    /// Log what decisions are made of; same as level `debug`
    #[arg(long)]
    pub debug: bool,
    /// Log every event; same as level `trace`
    #[arg(long, hide = true)]
    pub trace: bool,
    /// Log format: text (default) or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Log level: trace, debug, info (default), warn or error
    #[arg(long, env = "BUILDKITD_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Group (name or gid) that owns the unix sockets
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Address of the debugging listener with metrics and health: host:port or unix:///path
    #[arg(long, env = "BUILDKITD_DEBUGADDR", value_name = "ADDRESS")]
    pub debugaddr: Option<String>,
    /// Show metrics and health on a debugging address that others than this machine can reach
    #[arg(long)]
    pub allow_insecure_debugaddr: bool,
    /// How long builds that run may go on after SIGTERM, such as 30s or 5m (default 8s); further ones are refused meanwhile
    #[arg(long, value_name = "DURATION")]
    pub drain_timeout: Option<String>,
    /// Certificate for TCP listeners; needs --tlskey
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// Key of the certificate
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Authority that clients' certificates must come from: this makes TLS mutual
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// What clients share: none (everything, as with BuildKit) or client (nothing: each certificate and each user of a socket has a state of its own)
    #[arg(long, value_name = "MODE")]
    pub isolation: Option<String>,
    /// Listen on loopback addresses without client certificates, although build steps on the host's network can use them then
    #[arg(long)]
    pub allow_insecure_loopback: bool,
    /// Entitlement that clients may ask for: network.host, security.insecure or device; may be given several times
    #[arg(long, value_name = "NAME")]
    pub allow_insecure_entitlement: Vec<String>,
    /// Steps of all builds reach the network by a proxy only, which tells of their requests
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub proxy_network: Option<bool>,
    /// Socket on which spans of programs in build steps are taken; without it steps have one below the state directory where spans are sent to a collector
    #[arg(long, value_name = "PATH")]
    pub otel_socket_path: Option<String>,
    /// No step gets a device (default false)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub cdi_disabled: Option<bool>,
    /// Folder of CDI files, which describe devices; may be given several times
    #[arg(long, value_name = "DIR")]
    pub cdi_spec_dir: Vec<String>,
    /// Accepted for buildkitd's sake, without effect
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub save_cache_debug: Option<bool>,
    /// Accepted for buildkitd's sake: a daemon finds out by itself whether it has root
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub rootless: Option<bool>,
    /// Whether the worker is on: true (default), false or auto
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub oci_worker: Option<String>,
    /// Label of the worker, key=value; may be given several times
    #[arg(long, value_name = "LABEL")]
    pub oci_worker_labels: Vec<String>,
    /// How snapshots are made: auto (default; overlayfs, else native), overlayfs or native (whole copies)
    #[arg(long, value_name = "NAME")]
    pub oci_worker_snapshotter: Option<String>,
    /// Platform that the worker builds for; may be given several times
    #[arg(long, value_name = "PLATFORM")]
    pub oci_worker_platform: Vec<String>,
    /// Network of build steps: auto, bridge, cni, host or none
    #[arg(long, value_name = "MODE")]
    pub oci_worker_net: Option<String>,
    /// Configuration of the CNI network, a .conf, .json or .conflist file
    #[arg(long, value_name = "FILE")]
    pub oci_cni_config_path: Option<String>,
    /// Folder of CNI's programs
    #[arg(long, value_name = "DIR")]
    pub oci_cni_binary_dir: Option<String>,
    /// Networks that are always prepared for steps by CNI or behind the bridge (default 2)
    #[arg(long, value_name = "COUNT")]
    pub oci_cni_pool_size: Option<usize>,
    /// OCI runtime (runc, crun) to run steps with in the place of the built-in launcher
    #[arg(long, value_name = "PROGRAM")]
    pub oci_worker_binary: Option<String>,
    /// Whether steps get a user namespace: off, auto (default) or on
    #[arg(long, value_name = "MODE")]
    pub oci_worker_user_namespaces: Option<String>,
    /// Show steps the host's processes (read, without effect so far)
    #[arg(long)]
    pub oci_worker_no_process_sandbox: bool,
    /// Steps that may run at the same time; 0 or absent: no limit
    #[arg(long, value_name = "N")]
    pub oci_max_parallelism: Option<usize>,
    /// Whether garbage is collected by itself (default true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub oci_worker_gc: Option<bool>,
    /// Space that garbage collection keeps: Reserved[,Free[,Maximum]] in MB or percent
    #[arg(long, value_name = "AMOUNTS")]
    pub oci_worker_gc_keepstorage: Option<String>,
    /// Accepted for buildkitd's sake: there is no containerd worker
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub containerd_worker: Option<String>,
}
