//! Options of a build beside its Dockerfile.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use llb::build::{ResolveMode, SourceMap};
use llb::pb;
use oci::Platform;

use crate::lint::LintConfig;

/// Options of a build beside its Dockerfile.
#[derive(Debug, Clone, Default)]
pub struct LowerOptions {
    /// `--build-arg`
    pub build_args: BTreeMap<String, String>,
    /// Prefix of the ids of cache mounts.
    pub cache_id_namespace: String,
    /// Parent cgroup of steps.
    pub cgroup_parent: String,
    /// Lines for `/etc/hosts` of steps.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// Host name of steps.
    pub hostname: String,
    /// Whether images come from the registry or from the daemon's own store.
    pub resolve_mode: ResolveMode,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// Network of steps: `pb::NetMode`.
    pub network: pb::NetMode,
    /// Whether git shows its advice.
    pub git_advice: bool,
    /// Size of `/dev/shm` of steps in bytes, zero for the default.
    pub shm_size: i64,
    /// Stage to build; empty for the last.
    pub target: String,
    /// Resource limits of steps.
    pub ulimits: Vec<pb::Ulimit>,
    /// Cgroup limits of steps.
    pub resources: Option<pb::LinuxResources>,
    /// Devices of every step.
    pub devices: Vec<pb::CdiDevice>,
    /// Check options that win over those of the file.
    pub lint: Option<LintConfig>,
    /// Platform to build for; none for the builder's.
    pub target_platform: Option<Platform>,
    /// Platforms of the builder, first its own.
    pub build_platforms: Vec<Platform>,
    /// Whether names of steps have the platform.
    pub multi_platform: bool,
    /// The file for error messages.
    pub source_map: Option<Arc<SourceMap>>,
    /// Bytes that the lowerings with these options and their clones have copied: those of one build's platforms.
    pub copied_by_all: Arc<AtomicUsize>,
    /// Whether all stages are lowered, for linting.
    pub all_stages: bool,
}
