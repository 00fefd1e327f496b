//! Processes: `State` × arguments × mounts → new states.

use std::sync::Arc;

use super::BuildError;
use super::encode;
use super::marshal::Marshaller;
use super::state::{Meta, State};
use super::vertex::{Constraints, Index, Inner, Kind, Marshalled, Output, Vertex};
use crate::pb;
use crate::validate::{EMPTY, SKIP_OUTPUT};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The search path of processes on `os` without a `PATH`.
pub fn default_path(os: &str) -> &'static str {
    if os == "windows" {
        "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0"
    } else {
        DEFAULT_PATH
    }
}

/// Whether concurrent steps share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All steps use it at the same time.
    #[default]
    Shared,
    /// Each concurrent step gets a mount of its own.
    Private,
    /// Steps wait for each other.
    Locked,
}

/// The type of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MountContent {
    /// Files of the source.
    #[default]
    Bind,
    /// A directory that is kept between builds, found by its id.
    Cache {
        /// Id of the directory.
        id: String,
        /// Sharing between concurrent steps.
        sharing: Sharing,
    },
    /// A file system in memory.
    Tmpfs {
        /// Size limit in bytes, zero for none.
        size: i64,
    },
}

/// A mount of a process.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Path in the container.
    pub target: String,
    /// Output with the files; none for scratch.
    pub source: Option<Output>,
    /// Path inside the source.
    pub selector: String,
    /// Whether the process cannot write to it.
    pub readonly: bool,
    /// Whether changes are discarded instead of becoming an output.
    pub no_output: bool,
    /// Type of the mount.
    pub content: MountContent,
}

impl Mount {
    /// A writable mount of a state at `target`.
    pub fn new(target: impl Into<String>, source: &State) -> Self {
        Self {
            target: target.into(),
            source: source.output().cloned(),
            selector: String::new(),
            readonly: false,
            no_output: false,
            content: MountContent::Bind,
        }
    }

    fn has_output(&self) -> bool {
        !self.no_output && !self.readonly && self.content == MountContent::Bind
    }

    fn has_cache_id(&self) -> bool {
        matches!(&self.content, MountContent::Cache { id, .. } if !id.is_empty())
    }
}

/// A secret for a process, as a file, a variable or both.
#[derive(Debug, Clone, Default)]
pub struct Secret {
    /// Id of the secret.
    pub id: String,
    /// Path of the file, if it becomes one.
    pub target: Option<String>,
    /// Name of the environment variable, if it becomes one.
    pub env: Option<String>,
    /// Permission bits of the file.
    pub mode: u32,
    /// User id of the file's owner.
    pub uid: u32,
    /// Group id of the file.
    pub gid: u32,
    /// Whether the process also runs without the secret.
    pub optional: bool,
}

/// An SSH agent for a process.
#[derive(Debug, Clone, Default)]
pub struct Ssh {
    /// Id of the agent.
    pub id: String,
    /// Path of the socket; empty for the default.
    pub target: String,
    /// Permission bits of the socket.
    pub mode: u32,
    /// User id of the socket's owner.
    pub uid: u32,
    /// Group id of the socket.
    pub gid: u32,
    /// Whether the process also runs without the agent.
    pub optional: bool,
}

/// A process on the files and settings of a state.
#[derive(Debug, Clone)]
pub struct Run {
    base: State,
    args: Vec<String>,
    constraints: Constraints,
    readonly_root: bool,
    proxy: Option<pb::ProxyEnv>,
    mounts: Vec<Mount>,
    secrets: Vec<Secret>,
    ssh: Vec<Ssh>,
    devices: Vec<pb::CdiDevice>,
    valid_exit_codes: Vec<i32>,
}

impl Run {
    /// A process in `base`, with the environment, directory and user of `base`.
    pub fn new(base: &State, args: Vec<String>, constraints: Constraints) -> Self {
        Self {
            base: base.clone(),
            args,
            constraints,
            readonly_root: false,
            proxy: None,
            mounts: Vec::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            devices: Vec::new(),
            valid_exit_codes: Vec::new(),
        }
    }

    /// Changes the settings for this process only.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&State) -> State) -> Self {
        self.base = change(&self.base);
        self
    }

    /// Makes the root file system read-only.
    #[must_use]
    pub fn readonly_root(mut self) -> Self {
        self.readonly_root = true;
        self
    }

    /// Sets proxy variables, which are not in the cache key.
    #[must_use]
    pub fn proxy(mut self, proxy: Option<pb::ProxyEnv>) -> Self {
        self.proxy = proxy;
        self
    }

    /// Adds a mount.
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Adds a secret.
    #[must_use]
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Adds an ssh agent.
    #[must_use]
    pub fn ssh(mut self, ssh: Ssh) -> Self {
        self.ssh.push(ssh);
        self
    }

    /// Adds a device by its CDI name.
    #[must_use]
    pub fn device(mut self, name: &str, optional: bool) -> Self {
        self.devices.push(pb::CdiDevice {
            name: name.to_owned(),
            optional,
        });
        self
    }

    /// Accepts these exit codes as success.
    #[must_use]
    pub fn valid_exit_codes(mut self, codes: Vec<i32>) -> Self {
        self.valid_exit_codes = codes;
        self
    }

    /// The state after the process: the settings of `state` with the root file system as the process leaves it.
    pub fn root_of(self, state: &State) -> State {
        let (root, _) = self.outputs();
        state.with_output(root)
    }

    /// The outputs: root file system, then each mount in the order in which they were added.
    pub fn outputs(self) -> (Option<Output>, Vec<Output>) {
        let Self {
            base,
            args,
            constraints,
            readonly_root,
            proxy,
            mounts,
            secrets,
            ssh,
            devices,
            valid_exit_codes,
        } = self;
        let mut root = Mount::new("/", &base);
        root.readonly = readonly_root;
        let mut all = vec![root];
        all.extend(mounts);
        // In the message, mounts are sorted by target; `order[i]` is the mount at position i.
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by(|&a, &b| all[a].target.cmp(&all[b].target));
        let mut index_of = vec![None; all.len()];
        let with_output = order.iter().filter(|&&at| all[at].has_output());
        for (index, &at) in with_output.enumerate() {
            index_of[at] = i64::try_from(index).ok();
        }
        let platform = constraints.platform.clone();
        let sources: Vec<(String, bool, Option<Output>)> = all
            .iter()
            .map(|mount| (mount.target.clone(), mount.readonly, mount.source.clone()))
            .collect();
        let sorted = order.iter().map(|&at| all[at].clone()).collect();
        let op = ExecOp {
            meta: base.meta().clone(),
            args,
            proxy,
            mounts: sorted,
            secrets,
            ssh,
            devices,
            valid_exit_codes,
        };
        let vertex = Vertex::new(Kind::Exec(Box::new(op)), constraints);
        let mut outputs: Vec<Option<Output>> = sources
            .into_iter()
            .enumerate()
            .map(
                |(at, (target, readonly, source))| match (index_of[at], readonly) {
                    (Some(index), _) => {
                        Some(Output::new(Arc::clone(&vertex), index, platform.clone()))
                    }
                    (None, true) => source,
                    (None, false) => Some(Output(Inner::Vertex {
                        vertex: Arc::clone(&vertex),
                        index: Index::Unusable(target.into()),
                        platform: None,
                    })),
                },
            )
            .collect();
        let root = outputs.remove(0);
        (root, outputs.into_iter().flatten().collect())
    }
}

#[derive(Debug)]
pub(crate) struct ExecOp {
    meta: Meta,
    args: Vec<String>,
    proxy: Option<pb::ProxyEnv>,
    mounts: Vec<Mount>,
    secrets: Vec<Secret>,
    ssh: Vec<Ssh>,
    devices: Vec<pb::CdiDevice>,
    valid_exit_codes: Vec<i32>,
}

impl ExecOp {
    pub(crate) fn inputs(&self) -> Vec<&Output> {
        self.mounts
            .iter()
            .filter_map(|mount| mount.source.as_ref())
            .collect()
    }

    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        self.mounts
            .iter_mut()
            .filter_map(|mount| mount.source.take())
            .collect()
    }

    pub(crate) fn marshal(
        &self,
        m: &Marshaller<'_>,
        constraints: &Constraints,
    ) -> Result<Marshalled, BuildError> {
        if self.args.is_empty() {
            return Err(BuildError::NoArgs);
        }
        if self.meta.dir.is_empty() {
            return Err(BuildError::NoDir);
        }
        let platform = constraints
            .platform
            .as_ref()
            .or(self.meta.platform.as_ref())
            .unwrap_or(&m.options.platform);
        let mut caps: Vec<&str> = vec!["exec.meta.base"];

        let mut env = self.meta.env.clone();
        let ssh_target = |at: usize, ssh: &Ssh| {
            if ssh.target.is_empty() {
                format!("/run/buildkit/ssh_agent.{at}")
            } else {
                ssh.target.clone()
            }
        };
        if let Some(first) = self.ssh.first()
            && env.get("SSH_AUTH_SOCK").is_none()
        {
            env = env.set("SSH_AUTH_SOCK", &ssh_target(0, first));
        }
        if m.options.sets_default_path {
            caps.push("exec.meta.setsdefaultpath");
        } else if m.options.platform.os != "windows" && env.get("PATH").is_none() {
            env = env.set("PATH", default_path(&m.options.platform.os));
        }
        if !self.valid_exit_codes.is_empty() {
            caps.push("exec.validexitcode");
        }
        if !self.meta.ulimits.is_empty() {
            caps.push("exec.meta.ulimit");
        }
        if constraints.metadata.linux_resources.is_some() {
            caps.push("exec.meta.linux.resources");
        }
        if self.meta.network != pb::NetMode::Unset as i32 {
            caps.push("exec.meta.network");
        }
        if self.meta.security != pb::SecurityMode::Sandbox as i32 {
            caps.push("exec.meta.security");
        }
        if self.proxy.is_some() {
            caps.push("exec.meta.proxyenv");
        }
        if !self.secrets.is_empty() {
            caps.push("exec.mount.secret");
            if self.secrets.iter().any(|secret| secret.env.is_some()) {
                caps.push("exec.secretenv");
            }
        }
        if !self.ssh.is_empty() {
            caps.push("exec.mount.ssh");
        }
        if !self.devices.is_empty() {
            caps.push("exec.meta.cdi");
        }
        let meta = pb::Meta {
            args: self.args.clone(),
            env: env.to_vec(),
            cwd: self.meta.dir.to_string(),
            user: self.meta.user.to_string(),
            proxy_env: self.proxy.clone(),
            extra_hosts: self
                .meta
                .extra_hosts
                .iter()
                .map(|(host, ip)| pb::HostIp {
                    host: host.clone(),
                    ip: ip.to_string(),
                })
                .collect(),
            hostname: self.meta.hostname.to_string(),
            ulimit: self.meta.ulimits.clone(),
            cgroup_parent: self.meta.cgroup_parent.to_string(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: self.valid_exit_codes.clone(),
        };
        let mut inputs: Vec<pb::Input> = Vec::new();
        let mut mounts =
            Vec::with_capacity(self.mounts.len() + self.secrets.len() + self.ssh.len());
        let mut outputs = 0;
        for mount in &self.mounts {
            mounts.push(self.mount(m, mount, &mut inputs, &mut outputs, &mut caps)?);
        }
        mounts.extend(self.secrets.iter().filter_map(secret_mount));
        mounts.extend(self.ssh.iter().enumerate().map(|(at, ssh)| pb::Mount {
            input: EMPTY,
            dest: ssh_target(at, ssh),
            mount_type: pb::MountType::Ssh as i32,
            ssh_opt: Some(pb::SshOpt {
                id: ssh.id.clone(),
                uid: ssh.uid,
                gid: ssh.gid,
                mode: ssh.mode,
                optional: ssh.optional,
            }),
            ..pb::Mount::default()
        }));
        let exec = pb::ExecOp {
            meta: Some(meta),
            mounts,
            network: self.meta.network,
            security: self.meta.security,
            secretenv: self
                .secrets
                .iter()
                .filter_map(|secret| {
                    let name = secret.env.clone()?;
                    Some(pb::SecretEnv {
                        id: secret.id.clone(),
                        name,
                        optional: secret.optional,
                    })
                })
                .collect(),
            cdi_devices: self.devices.clone(),
        };
        Ok(encode::finish(
            inputs,
            pb::op::Op::Exec(exec),
            Some(platform),
            constraints,
            &caps,
        ))
    }

    fn mount(
        &self,
        m: &Marshaller<'_>,
        mount: &Mount,
        inputs: &mut Vec<pb::Input>,
        outputs: &mut i64,
        caps: &mut Vec<&str>,
    ) -> Result<pb::Mount, BuildError> {
        if !mount.selector.is_empty() {
            caps.push("exec.mount.selector");
        }
        let source = mount
            .source
            .as_ref()
            .map(|source| m.input(source))
            .transpose()?
            .flatten();
        let tmpfs = matches!(mount.content, MountContent::Tmpfs { .. });
        match &mount.content {
            MountContent::Cache { .. } if mount.has_cache_id() => {
                caps.extend(["exec.mount.cache", "exec.mount.cache.sharing"]);
            }
            MountContent::Tmpfs { size } => {
                caps.push("exec.mount.tmpfs");
                if *size > 0 {
                    caps.push("exec.mount.tmpfs.size");
                }
            }
            MountContent::Bind | MountContent::Cache { .. } => {
                if mount.source.is_some() {
                    caps.push("exec.mount.bind");
                }
            }
        }
        let input = match source {
            Some(_) if tmpfs => return Err(BuildError::TmpfsSource),
            Some(input) => {
                let at = inputs
                    .iter()
                    .position(|have| *have == input)
                    .unwrap_or_else(|| {
                        inputs.push(input);
                        inputs.len() - 1
                    });
                i64::try_from(at).unwrap_or(i64::MAX)
            }
            None => EMPTY,
        };
        let output = if mount.has_output() {
            *outputs += 1;
            *outputs - 1
        } else {
            SKIP_OUTPUT
        };
        let mut wire = pb::Mount {
            input,
            selector: mount.selector.clone(),
            dest: mount.target.clone(),
            output,
            readonly: mount.readonly,
            ..pb::Mount::default()
        };
        match &mount.content {
            MountContent::Bind => {}
            MountContent::Cache { id, sharing } => {
                let sharing = match sharing {
                    Sharing::Shared => pb::CacheSharingOpt::Shared,
                    Sharing::Private => pb::CacheSharingOpt::Private,
                    Sharing::Locked => pb::CacheSharingOpt::Locked,
                };
                wire.mount_type = pb::MountType::Cache as i32;
                wire.cache_opt = Some(pb::CacheOpt {
                    id: id.clone(),
                    sharing: sharing as i32,
                });
            }
            MountContent::Tmpfs { size } => {
                wire.mount_type = pb::MountType::Tmpfs as i32;
                wire.tmpfs_opt = Some(pb::TmpfsOpt { size: *size });
            }
        }
        Ok(wire)
    }
}

fn secret_mount(secret: &Secret) -> Option<pb::Mount> {
    Some(pb::Mount {
        input: EMPTY,
        dest: secret.target.clone()?,
        mount_type: pb::MountType::Secret as i32,
        secret_opt: Some(pb::SecretOpt {
            id: secret.id.clone(),
            uid: secret.uid,
            gid: secret.gid,
            mode: secret.mode,
            optional: secret.optional,
        }),
        ..pb::Mount::default()
    })
}
