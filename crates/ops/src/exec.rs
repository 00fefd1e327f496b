//! The exec op: one process in one container, over mounts of its inputs.

mod devices;
pub mod key;
mod mounts;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use executor::{
    ContainerSpec, Environment, ExitStatus, NetworkMode, Output, ProcessIo, ProcessSpec, Resources,
    Samples, SecurityMode, StepProxy, Ulimit,
};
use llb::pb;
use metrics::{NoLabels, Phase};
use oci::Digest;
use solver::{CacheMap, Op, OpCtx, OpError, VertexSink as _};

use crate::environment::{set_proxies, set_secrets};
use crate::telemetry;
use crate::trust::TrustError;
use crate::{BuildDomain, BuildOp, BuildRights, OpFailure, Parts, Ref, Slot};
pub use mounts::{PreparedMounts, prepare};

/// Runs the process of one `ExecOp`.
#[derive(Debug)]
pub struct ExecOp {
    parts: Arc<Parts>,
    op: Arc<pb::ExecOp>,
    platform: Option<pb::Platform>,
    rights: BuildRights,
    resources: Resources,
    inputs: usize,
    proxied: bool,
    /// Requests of the step on the proxy network, once it has run.
    requests: Slot<Arc<proxy::Capture>>,
    /// Samples of the step's use of resources, once it has run.
    samples: Slot<Arc<Samples>>,
}

impl ExecOp {
    /// Creates the op of a vertex with this number of inputs, for a build with `rights`.
    pub fn new(
        parts: Arc<Parts>,
        op: pb::ExecOp,
        platform: Option<pb::Platform>,
        rights: BuildRights,
        resources: Resources,
        inputs: usize,
    ) -> Self {
        Self {
            parts,
            op: Arc::new(op),
            platform,
            rights,
            resources,
            inputs,
            proxied: false,
            requests: Slot::default(),
            samples: Slot::default(),
        }
    }

    /// Sets whether the step runs on the proxy network.
    #[must_use]
    pub fn proxied(mut self, proxied: bool) -> Self {
        self.proxied = proxied;
        self
    }

    fn meta(&self) -> Result<&pb::Meta, OpFailure> {
        self.op.meta.as_ref().ok_or(OpFailure::NoMeta)
    }

    async fn environment(&self, ctx: &OpCtx<BuildDomain>) -> Result<Vec<String>, OpFailure> {
        let meta = self.meta()?;
        let mut environment = Environment::new(meta.env.clone());
        if let Some(proxy) = &meta.proxy_env {
            set_proxies(&mut environment, proxy);
        }
        environment.set_default_path("linux");
        set_secrets(&mut environment, &self.op.secretenv, &self.parts, ctx).await?;
        Ok(environment.into_variables())
    }

    /// Prepares a step for the proxy network; does nothing for other steps.
    async fn on_proxy_network(
        &self,
        ctx: &OpCtx<BuildDomain>,
        prepared: PreparedMounts,
    ) -> Result<(PreparedMounts, Option<StepProxy>), OpFailure> {
        if !self.proxied {
            return Ok((prepared, None));
        }
        let proxy = self.parts.executor.proxy().ok_or(OpFailure::NoProxy)?;
        let certificate = proxy
            .certificate()
            .map_err(|error| OpFailure::ProxyAuthority(Box::new(error)))?;
        let (prepared, bundle) = prepared.with_certificate(certificate).await?;
        let capture = self.requests.get_or_set(Arc::default);
        let step = StepProxy {
            policies: crate::domain::request_policies(ctx),
            capture,
            bundle,
        };
        Ok((prepared, Some(step)))
    }

    fn check_platform(&self) -> Result<(), OpFailure> {
        let Some(platform) = &self.platform else {
            return Ok(());
        };
        let platform = oci::Platform {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..oci::Platform::default()
        };
        if platform.os.is_empty()
            || self
                .parts
                .platforms
                .iter()
                .any(|p| p.matcher().matches(&platform))
        {
            return Ok(());
        }
        Err(OpFailure::Emulation {
            platform: platform.format(),
        })
    }
}

impl BuildOp for ExecOp {
    fn requests(&self) -> Option<Arc<proxy::Capture>> {
        self.requests.get()
    }

    fn samples(&self) -> Option<Arc<Samples>> {
        self.samples.get()
    }
}

#[async_trait]
impl Op<BuildDomain> for ExecOp {
    async fn cache_map(
        &self,
        _ctx: &OpCtx<BuildDomain>,
        _index: usize,
    ) -> Result<(CacheMap<BuildDomain>, bool), OpError> {
        Ok((
            key::plan(&self.op, self.platform.as_ref(), self.inputs)?.into_cache_map(true),
            true,
        ))
    }

    async fn exec(&self, ctx: &OpCtx<BuildDomain>, inputs: Vec<Ref>) -> Result<Vec<Ref>, OpError> {
        // The platform is checked before anything is pulled or prepared.
        let meta = self.meta()?;
        mounts::check(&self.op.mounts, &meta.cwd)?;
        let resources = self.resources.bounded_by(&self.parts.resources);
        let limit = u64::try_from(resources.memory).unwrap_or(0);
        let step = step_identity(meta);
        let waits = |shortage| log_sentence(ctx, &format!("{shortage}"));
        let running = self.parts.admit(step, limit, waits).await;
        for input in inputs.iter().flatten() {
            input.ensure().await.map_err(OpFailure::from)?;
        }
        let network =
            NetworkMode::try_from(self.op.network).map_err(|e| OpFailure::Mode(Box::new(e)))?;
        let security =
            SecurityMode::try_from(self.op.security).map_err(|e| OpFailure::Mode(Box::new(e)))?;
        let access = self
            .rights
            .entitlements
            .access(network, security)
            .map_err(|e| OpFailure::Denied(Box::new(e)))?;
        let devices = devices::inject(&self.parts, &self.op, &self.rights).await?;
        let env = self.environment(ctx).await?;
        let prepared = mounts::prepare(
            &self.parts,
            ctx,
            &self.op.mounts,
            &meta.cwd,
            &meta.args,
            &inputs,
        )
        .await?;
        let ids = if devices.needs_host_users() {
            Ok(None)
        } else {
            self.parts.executor.id_mapping(&access)
        };
        let prepared = prepared.with_ids(ids.map_err(|source| OpFailure::Start {
            args: meta.args.join(" "),
            source: Box::new(source),
        })?);
        let (prepared, proxy) = self.on_proxy_network(ctx, prepared).await?;
        let (spec_mounts, rootfs, shm_size) = prepared.open().await?;
        let mut spec = ContainerSpec::new(
            access,
            rootfs,
            ProcessSpec {
                args: meta.args.clone(),
                env,
                cwd: meta.cwd.clone(),
                user: meta.user.clone(),
                tty: false,
            },
        );
        spec.readonly_root = prepared.readonly_root;
        spec.mounts = spec_mounts;
        spec.remove_mount_stubs_recursive = meta.remove_mount_stubs_recursive;
        spec.hostname = meta.hostname.clone();
        spec.extra_hosts = extra_hosts(&meta.extra_hosts)?;
        spec.ulimits = meta
            .ulimit
            .iter()
            .map(|u| Ulimit {
                name: u.name.clone(),
                soft: u.soft,
                hard: u.hard,
            })
            .collect();
        spec.cgroup_parent = (!meta.cgroup_parent.is_empty()).then(|| meta.cgroup_parent.clone());
        spec.shm_size = shm_size;
        spec.resources = resources;
        spec.devices = devices;
        spec.ids = prepared.ids();
        if let Some(socket) = &self.parts.span_socket {
            telemetry::show_socket(&mut spec, socket, ctx);
        }
        let capture = proxy.as_ref().map(|proxy| Arc::clone(&proxy.capture));
        spec.proxy = proxy;
        let log = |stream: i64| {
            let sink = Arc::clone(&ctx.sink);
            Output::sink(move |chunk: bytes::Bytes| sink.log(stream, &chunk))
        };
        let io = ProcessIo {
            stdin: None,
            stdout: log(1),
            stderr: log(2),
            control: None,
        };
        let outcome = {
            let _running = metrics::STEPS_RUNNING.enter(NoLabels);
            let started = task::clock::monotonic();
            let outcome = self.parts.executor.run(spec, io, None).await;
            metrics::PHASE_DURATION.observe(Phase::Exec, started.elapsed());
            outcome
        };
        if let Ok(status) = &outcome {
            running.record_peak(status.usage.memory());
            drop(self.samples.get_or_set(|| Arc::clone(&status.samples)));
            if status.oom {
                log_sentence(ctx, &out_of_memory(status, limit));
            }
        }
        let failure = match outcome {
            Ok(status) if allowed(&status, &meta.valid_exit_codes) => None,
            Ok(status) => Some(OpFailure::Process {
                args: meta.args.join(" "),
                code: status.code,
                reason: status.to_string(),
            }),
            // The program is for an architecture that the host cannot run.
            Err(executor::ExecError::Start(reason))
                if reason.is_wrong_format() && self.check_platform().is_err() =>
            {
                self.check_platform().err()
            }
            Err(source @ executor::ExecError::Start(_)) if is_missing_source(&source) => {
                Some(OpFailure::Start {
                    args: meta.args.join(" "),
                    source: Box::new(source),
                })
            }
            // The reference's runtime writes the reason to standard error and exits with 1.
            Err(executor::ExecError::Start(reason)) => {
                log_sentence(ctx, &format!("unable to start container process: {reason}"));
                Some(OpFailure::Process {
                    args: meta.args.join(" "),
                    code: 1,
                    reason: "exit code: 1".into(),
                })
            }
            Err(source) => Some(OpFailure::Start {
                args: meta.args.join(" "),
                source: Box::new(source),
            }),
        };
        if let Some(capture) = capture {
            ctx.sink.log(2, capture.log().as_bytes());
        }
        let (prepared, cleaned) = prepared.without_certificate().await;
        let failure = with_cleanup(failure, cleaned, &meta.args);
        match failure {
            None => {
                let started = task::clock::monotonic();
                let committed = prepared.commit().await?;
                metrics::PHASE_DURATION.observe(Phase::Commit, started.elapsed());
                Ok(committed)
            }
            Some(failure) => {
                let (inputs, mounts) = prepared.keep(&self.op.mounts, &inputs).await;
                Err(OpFailure::Exec {
                    source: Box::new(failure),
                    inputs,
                    mounts,
                }
                .into())
            }
        }
    }
}

/// Writes a sentence of the daemon to the step's log.
fn log_sentence(ctx: &OpCtx<BuildDomain>, sentence: &str) {
    ctx.sink.log(2, format!("{sentence}\n").as_bytes());
}

/// The identity of a step across changes of its inputs: what it runs, where and as whom.
fn step_identity(meta: &pb::Meta) -> Digest {
    let mut words: Vec<&str> = vec![&meta.user, &meta.cwd];
    words.extend(meta.args.iter().map(String::as_str));
    Digest::sha256(words.join("\0").as_bytes())
}

/// The explanation of an out-of-memory kill for the step's log; the error itself has BuildKit's sentence.
fn out_of_memory(status: &ExitStatus, limit: u64) -> String {
    let mut sentence =
        "the kernel ended a process of this step because there was no memory left".to_owned();
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let peak = mebibytes(status.usage.memory_peak);
    match (peak, mebibytes(limit)) {
        (0, 0) => {}
        (0, limit) => sentence += &format!(": the step is limited to {limit} MiB"),
        (peak, 0) => sentence += &format!(": the step had {peak} MiB and no limit of its own"),
        (peak, limit) => {
            sentence += &format!(": the step had {peak} MiB and is limited to {limit}")
        }
    }
    sentence
}

/// The failure of a step, combined with the outcome of removing the proxy's certificates.
fn with_cleanup(
    failure: Option<OpFailure>,
    cleaned: Result<(), TrustError>,
    args: &[String],
) -> Option<OpFailure> {
    let Err(error) = cleaned else { return failure };
    Some(match failure {
        // Two sentences on two lines, as the reference joins errors.
        Some(OpFailure::Process { args, code, reason }) => OpFailure::Process {
            args,
            code,
            reason: format!(
                "{reason}\nfailed to clean up proxy CA: {}",
                oci::error::chain(&error)
            ),
        },
        Some(failure) => {
            tracing::warn!(%error, "failed to remove the proxy's certificate from the files of a failed step");
            failure
        }
        None => OpFailure::ProxyCa {
            args: args.join(" "),
            source: Box::new(error),
        },
    })
}

fn is_missing_source(error: &executor::ExecError) -> bool {
    matches!(error, executor::ExecError::Start(reason) if reason.is_missing_source())
}

fn allowed(status: &ExitStatus, valid: &[i32]) -> bool {
    if status.oom && status.code != 0 {
        return false;
    }
    if valid.is_empty() {
        status.code == 0
    } else {
        valid
            .iter()
            .any(|code| i64::from(*code) == i64::from(status.code))
    }
}

fn extra_hosts(hosts: &[pb::HostIp]) -> Result<Vec<(String, IpAddr)>, OpFailure> {
    hosts
        .iter()
        .map(|host| {
            // The parser's error has no more to say than this sentence.
            let ip = host.ip.parse().map_err(|_| OpFailure::ExtraHost {
                host: host.host.clone(),
                ip: host.ip.clone(),
            })?;
            Ok((host.host.clone(), ip))
        })
        .collect()
}

/// Limits for a step's control group, from the definition's metadata (`OpMetadata.linux_resources`); not in the key.
pub fn resources_of(limits: Option<&pb::LinuxResources>) -> Resources {
    let Some(limits) = limits else {
        return Resources::default();
    };
    Resources {
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        cpu_shares: limits.cpu_shares,
        cpu_quota: limits.cpu_quota,
        cpu_period: limits.cpu_period,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        ..Resources::default()
    }
}
