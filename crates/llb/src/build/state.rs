//! States: an output and what later steps inherit.

use std::net::IpAddr;
use std::sync::Arc;

use oci::{ImageConfig, Platform};

use super::env::Env;
use super::vertex::Output;
use crate::pb;
use gostd::path;

/// An output and the settings that processes on it inherit. Immutable; changes give a new state.
#[derive(Debug, Clone)]
pub struct State {
    output: Option<Output>,
    meta: Arc<Meta>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Meta {
    pub(crate) env: Env,
    pub(crate) dir: Arc<str>,
    pub(crate) user: Arc<str>,
    pub(crate) hostname: Arc<str>,
    pub(crate) cgroup_parent: Arc<str>,
    pub(crate) platform: Option<Platform>,
    pub(crate) network: i32,
    pub(crate) security: i32,
    pub(crate) extra_hosts: Vec<(String, IpAddr)>,
    pub(crate) ulimits: Vec<pb::Ulimit>,
}

impl State {
    /// The state of an output: directory `/`, the platform of the output, nothing else.
    pub fn new(output: Option<Output>) -> Self {
        let meta = Meta {
            dir: "/".into(),
            ..Meta::default()
        };
        Self {
            output: None,
            meta: Arc::new(meta),
        }
        .with_output(output)
    }

    /// The empty file system.
    pub fn scratch() -> Self {
        Self::new(None)
    }

    /// The output, none for scratch.
    pub fn output(&self) -> Option<&Output> {
        self.output.as_ref()
    }

    /// The same settings on another output. A platform of the output replaces the state's.
    #[must_use]
    pub fn with_output(&self, output: Option<Output>) -> Self {
        let mut state = Self {
            output,
            meta: Arc::clone(&self.meta),
        };
        if let Some(platform) = state.output.as_ref().and_then(Output::platform).cloned() {
            state = state.platform(&platform);
        }
        state
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    fn change(&self, change: impl FnOnce(&mut Meta)) -> Self {
        let mut state = self.clone();
        change(Arc::make_mut(&mut state.meta));
        state
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn add_env(&self, key: &str, value: &str) -> Self {
        self.change(|meta| meta.env = meta.env.set(key, value))
    }

    /// The environment.
    pub fn env(&self) -> &Env {
        &self.meta.env
    }

    /// Sets the directory; a relative one is joined to the present.
    #[must_use]
    pub fn dir(&self, dir: &str) -> Self {
        self.change(|meta| {
            meta.dir = if path::is_abs(dir) {
                dir.into()
            } else {
                let present = if meta.dir.is_empty() { "/" } else { &meta.dir };
                path::join(&[present, dir]).into()
            };
        })
    }

    /// The directory.
    pub fn get_dir(&self) -> &str {
        &self.meta.dir
    }

    /// Sets the user of processes.
    #[must_use]
    pub fn user(&self, user: &str) -> Self {
        self.change(|meta| meta.user = user.into())
    }

    /// Sets the host name of processes.
    #[must_use]
    pub fn hostname(&self, hostname: &str) -> Self {
        self.change(|meta| meta.hostname = hostname.into())
    }

    /// Sets the parent cgroup of processes.
    #[must_use]
    pub fn cgroup_parent(&self, parent: &str) -> Self {
        self.change(|meta| meta.cgroup_parent = parent.into())
    }

    /// Sets the platform, normalized.
    #[must_use]
    pub fn platform(&self, platform: &Platform) -> Self {
        self.change(|meta| meta.platform = Some(platform.normalize()))
    }

    /// The platform.
    pub fn get_platform(&self) -> Option<&Platform> {
        self.meta.platform.as_ref()
    }

    /// Sets the network of processes.
    #[must_use]
    pub fn network(&self, mode: pb::NetMode) -> Self {
        self.change(|meta| meta.network = mode as i32)
    }

    /// Sets the privileges of processes.
    #[must_use]
    pub fn security(&self, mode: pb::SecurityMode) -> Self {
        self.change(|meta| meta.security = mode as i32)
    }

    /// Adds a line to `/etc/hosts` of processes.
    #[must_use]
    pub fn extra_host(&self, host: &str, ip: IpAddr) -> Self {
        self.change(|meta| meta.extra_hosts.push((host.to_owned(), ip)))
    }

    /// Adds a resource limit of processes.
    #[must_use]
    pub fn ulimit(&self, ulimit: pb::Ulimit) -> Self {
        self.change(|meta| meta.ulimits.push(ulimit))
    }

    /// Takes environment, directory and platform from an image config.
    #[must_use]
    pub fn with_image_config(&self, config: &ImageConfig) -> Self {
        let mut state = self.clone();
        for variable in &config.config.env {
            let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
            if !key.is_empty() {
                state = state.add_env(key, value);
            }
        }
        state = state.dir(&config.config.working_dir);
        if !config.platform.architecture.is_empty() && !config.platform.os.is_empty() {
            state = state.platform(&config.platform);
        }
        state
    }
}

impl Default for State {
    fn default() -> Self {
        Self::scratch()
    }
}
