//! What a build says beside its Dockerfile.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use llb::build::{ResolveMode, SourceMap};
use llb::pb;
use oci::Platform;

use crate::lint::LintConfig;

/// What a build says beside its Dockerfile.
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
    /// Where images may be taken from.
    pub resolve_mode: ResolveMode,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// Network of steps: `pb::NetMode`.
    pub network: pb::NetMode,
    /// Show git's advice.
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
    /// Names of steps carry the platform.
    pub multi_platform: bool,
    /// The file for error messages.
    pub source_map: Option<Arc<SourceMap>>,
    /// Bytes that the lowerings with these options and their clones have copied: those of one build's platforms.
    pub copied_by_all: Arc<AtomicUsize>,
    /// Lower all stages, for linting.
    pub all_stages: bool,
}
