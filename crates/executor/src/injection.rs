//! What devices change in a container: made by `cdi`, carried by a spec, applied by executors.

use gostd::json::null_as_default as or_default;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use crate::mount::Mount;

/// What the devices of a step change in its container. Only [`crate::cdi::Devices::inject`] makes one that is not empty.
#[derive(Debug, Default)]
pub struct Injection {
    pub(crate) env: Vec<String>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) groups: Vec<u32>,
    pub(crate) hooks: Vec<Hook>,
}

impl Injection {
    /// Whether the container must have the users of the host: hooks write into its tree as root of the host, whose id no user namespace has.
    #[must_use]
    pub fn needs_host_users(&self) -> bool {
        !self.hooks.is_empty()
    }
}

/// What of an injection only an executor can do.
#[derive(Debug, Default)]
pub(crate) struct DeviceEdits {
    /// Device nodes.
    pub(crate) nodes: Vec<Node>,
    /// Additional groups of the process.
    pub(crate) groups: Vec<u32>,
    /// Programs of the host that an OCI runtime runs.
    pub(crate) hooks: Vec<Hook>,
}

/// A device node of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// The path below /dev.
    pub(crate) name: String,
    pub(crate) kind: FileType,
    pub(crate) permissions: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// User and group; the process's where they are not given.
    pub(crate) owner: (Option<u32>, Option<u32>),
    /// What the control group allows: of `r`, `w` and `m`.
    pub(crate) access: String,
}

/// A program of the host that an OCI runtime runs at some point of a container's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Hook {
    pub(crate) hook_name: String,
    pub(crate) path: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) args: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    pub(crate) timeout: Option<i64>,
}

/// A program that a container runs before its process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HookPlan {
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    /// How long it may run.
    pub(crate) seconds: u64,
    /// What it gets on its standard input.
    pub(crate) state: String,
}
