//! Containers of frontends: mounts over refs of the build, and processes that end with it.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use executor::{
    Access, ContainerId, ContainerSpec, Control, Environment, ExecError, ExitStatus, IdRange,
    Mount, MountSource, NetworkMode, Output, ProcessIo, ProcessSpec, SecurityMode, Signal,
    StepProxy, WinSize,
};
use frontend::BridgeError;
use frontend::bridge::{FileRange, FileStat};
use frontend::gateway::{
    Container, ContainerFile, ContainerRequest, Process, ProcessControl, ProcessRequest,
};
use llb::pb;
use oci::Digest;
use ops::environment::set_secrets;
use ops::exec::{PreparedMounts, prepare};
use ops::{BuildDomain, Parts, ProgressSink};
use solver::{OpCtx, Vertex};
use store::ImmutableRef;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{Detail, Failure, FailureKind};
use crate::files::{self, ReadError};
use crate::reference::LazyRef;
use crate::scope::{BuildScope, canceled};

/// Input index of a mount without a ref.
const NO_INPUT: i64 = -1;

/// A container of a frontend.
pub(crate) struct BuildContainer {
    scope: Arc<BuildScope>,
    parts: Arc<Parts>,
    id: ContainerId,
    network: NetworkMode,
    windows: bool,
    hostname: String,
    extra_hosts: Vec<(String, IpAddr)>,
    files: Vec<ContainerFile>,
    mounts: usize,
    /// None once the container has been released.
    prepared: tokio::sync::Mutex<Option<Arc<PreparedMounts>>>,
    /// Proxy settings of the container's first process; none if it is not on the proxy network.
    proxy: Option<StepProxy>,
    has_process: tokio::sync::Mutex<bool>,
    closed: watch::Sender<bool>,
    running: watch::Sender<usize>,
}

impl fmt::Debug for BuildContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildContainer")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Counts a process as running until it is dropped.
struct RunningProcess(watch::Sender<usize>);

impl RunningProcess {
    fn new(running: &watch::Sender<usize>) -> Self {
        running.send_modify(|n| *n += 1);
        Self(running.clone())
    }
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

fn invalid(error: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
    Failure::new(FailureKind::InvalidArgument, error)
}

fn unknown(error: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
    Failure::new(FailureKind::Unknown, error)
}

/// Context of calls to a build's clients outside of any vertex.
fn context(scope: &BuildScope) -> OpCtx<BuildDomain> {
    let vertex = Vertex::new(Digest::sha256(b"container"), "container", Arc::default());
    OpCtx::detached(
        Arc::new(vertex),
        Arc::new(ProgressSink::null()),
        vec![scope.session().to_string()],
    )
}

impl BuildContainer {
    /// Makes the container: its mounts are ready when this returns.
    pub(crate) async fn new(
        scope: Arc<BuildScope>,
        parts: Arc<Parts>,
        request: ContainerRequest,
    ) -> Result<Arc<Self>, Failure> {
        if !request.mounts.iter().any(|m| m.mount.dest == "/") {
            return Err(invalid("root mount is required"));
        }
        let network = NetworkMode::try_from(request.network).map_err(invalid)?;
        // The whole container is refused here, not only its first process.
        let entitlements = &scope.rights().entitlements;
        let access = entitlements.access(network, SecurityMode::Sandbox);
        let access = access.map_err(unknown)?;
        // Mounts are made before the security mode of the first process is known; a build that may run insecure processes shares the host's users.
        let ids = if entitlements.security_insecure {
            None
        } else {
            parts.executor.id_mapping(&access)?
        };
        let extra_hosts = request
            .extra_hosts
            .iter()
            .map(|host| {
                // The parser's error has no more to say than this sentence.
                let ip = host
                    .ip
                    .parse()
                    .map_err(|_| unknown(format!("failed to parse IP {}", host.ip)))?;
                Ok((host.host.clone(), ip))
            })
            .collect::<Result<_, Failure>>()?;
        let mut mounts = Vec::with_capacity(request.mounts.len());
        let mut refs: Vec<Option<ImmutableRef>> = Vec::new();
        for requested in request.mounts {
            let mut mount = requested.mount;
            mount.output = 0;
            mount.input = NO_INPUT;
            if let Some(source) = requested.source {
                let source = LazyRef::of(&source)?;
                let tree = source.result().await?;
                if let Some(tree) = &tree {
                    scope
                        .alive(async { tree.ensure().await.map_err(Failure::from) })
                        .await?;
                    mount.input = i64::try_from(refs.len()).unwrap_or(NO_INPUT);
                    refs.push(Some(tree.clone()));
                }
            }
            mounts.push(mount);
        }
        let count = mounts.len();
        let ctx = context(&scope);
        let prepared = scope
            .alive(async { Ok(prepare(&parts, &ctx, &mounts, "/", &[], &refs).await?) })
            .await?;
        let prepared = prepared.with_ids(ids);
        let is_proxied = scope.on_proxy_network() && network != NetworkMode::None;
        let proxy = parts.executor.proxy().filter(|_| is_proxied);
        let certificate = proxy.map(|proxy| proxy.certificate()).transpose();
        let (prepared, proxy) = match certificate.map_err(ExecError::from)? {
            None => (prepared, None),
            Some(certificate) => {
                let trusting = async { Ok(prepared.with_certificate(certificate).await?) };
                let (prepared, bundle) = scope.alive(trusting).await?;
                let step = StepProxy {
                    policies: scope.request_policy().into_iter().collect(),
                    capture: Arc::default(),
                    bundle,
                };
                (prepared, Some(step))
            }
        };
        Ok(Arc::new(Self {
            proxy,
            id: ContainerId::random(),
            network,
            windows: request.platform.is_some_and(|p| p.os == "windows"),
            hostname: request.hostname,
            extra_hosts,
            files: request.files,
            mounts: count,
            prepared: tokio::sync::Mutex::new(Some(Arc::new(prepared))),
            has_process: tokio::sync::Mutex::new(false),
            closed: watch::Sender::new(false),
            running: watch::Sender::new(0),
            scope,
            parts,
        }))
    }

    async fn environment(
        &self,
        variables: Vec<String>,
        tty: bool,
        secrets: &[pb::SecretEnv],
    ) -> Result<Vec<String>, Failure> {
        let mut environment = Environment::new(variables);
        environment.set_default_path(if self.windows { "windows" } else { "linux" });
        if tty {
            environment.set_default("TERM", "xterm");
        }
        let ctx = context(&self.scope);
        set_secrets(&mut environment, secrets, &self.parts, &ctx).await?;
        Ok(environment.into_variables())
    }

    fn access(&self, security: i32) -> Result<Access, Failure> {
        let security = SecurityMode::try_from(security)
            .map_err(|e| invalid(format!("invalid security mode {}", e.value)))?;
        let entitlements = &self.scope.rights().entitlements;
        entitlements.access(self.network, security).map_err(unknown)
    }

    async fn spec(&self, access: Access, process: ProcessSpec) -> Result<ContainerSpec, Failure> {
        let prepared = self.prepared.lock().await.clone().ok_or_else(closed)?;
        let (mounts, rootfs, shm_size) = prepared.open().await?;
        let mut spec = ContainerSpec::new(access, rootfs, process);
        spec.id = self.id.clone();
        spec.ids = prepared.ids();
        spec.mounts = mounts;
        spec.mounts.extend(self.files.iter().map(mount_of));
        spec.resources = self.parts.resources.clone();
        spec.shm_size = shm_size;
        spec.proxy = self.proxy.clone();
        spec.hostname = self.hostname.clone();
        spec.extra_hosts = self.extra_hosts.clone();
        if let Some(socket) = &self.parts.span_socket {
            ops::telemetry::show(&mut spec, socket, Some(self.scope.trace().traceparent()));
        }
        Ok(spec)
    }

    /// Runs `work` as a process of the container, in a task that ends with the container and the build.
    fn run(
        &self,
        work: impl Future<Output = Result<ExitStatus, ExecError>> + Send + 'static,
    ) -> task::Task<Result<(), Failure>> {
        let counted = RunningProcess::new(&self.running);
        let mut closed_watch = self.closed.subscribe();
        let scope = Arc::clone(&self.scope);
        task::spawn("gateway process", async move {
            let _counted = counted;
            let run = async {
                tokio::select! {
                    biased;
                    _ = closed_watch.wait_for(|closed| *closed) => Err(canceled()),
                    ended = work => outcome(ended),
                }
            };
            scope.alive(run).await
        })
    }

    async fn tree<T, F>(&self, mount: usize, work: F) -> Result<T, BridgeError>
    where
        T: Send + 'static,
        F: FnOnce(&ops::Root, Option<IdRange>) -> Result<T, ReadError> + Send + 'static,
    {
        if mount >= self.mounts {
            return Err(unknown(format!(
                "mount index {mount} is out of bounds ({} available)",
                self.mounts
            ))
            .into());
        }
        let prepared = self.prepared.lock().await.clone().ok_or_else(closed)?;
        Ok(task::blocking("read a file of a container", move || {
            let root = prepared.tree(mount)?;
            let root =
                root.ok_or_else(|| ReadError::Refused(format!("mountable {mount} not found")))?;
            work(&root, prepared.ids().map(|ids| ids.range()))
        })
        .await?)
    }
}

/// The mount of a file, which root of the container reads.
fn mount_of(file: &ContainerFile) -> Mount {
    Mount {
        dest: file.path.clone(),
        source: MountSource::File {
            contents: file.contents.to_vec(),
            mode: 0o400,
            uid: 0,
            gid: 0,
        },
        selector: String::new(),
        readonly: true,
    }
}

fn closed() -> Failure {
    unknown("container is closed")
}

fn outcome(ended: Result<ExitStatus, ExecError>) -> Result<(), Failure> {
    match ended {
        Ok(status) if status.code == 0 => Ok(()),
        Ok(status) => Err(unknown(status.to_string()).with(Detail::Exit { code: status.code })),
        Err(ExecError::Start(reason)) => Err(unknown(reason)
            .during("unable to start container process")
            .with(Detail::Exit { code: 1 })),
        Err(error) => Err(error.into()),
    }
}

/// Converts signals and sizes for a process to the executor's type.
fn control(mut from: mpsc::Receiver<ProcessControl>) -> mpsc::Receiver<Control> {
    let (to, out) = mpsc::channel(8);
    task::spawn("process control", async move {
        while let Some(control) = from.recv().await {
            let control = match control {
                ProcessControl::Resize { rows, cols } => Control::Resize(WinSize { rows, cols }),
                ProcessControl::Signal(number) => Control::Signal(Signal(number)),
            };
            if to.send(control).await.is_err() {
                break;
            }
        }
    })
    .detach();
    out
}

#[async_trait]
impl Container for BuildContainer {
    async fn start(&self, request: ProcessRequest) -> Result<Process, BridgeError> {
        let access = self.access(request.security)?;
        let env = self
            .environment(request.meta.env, request.tty, &request.secret_env)
            .await?;
        let mut cwd = request.meta.cwd;
        if cwd.is_empty() {
            cwd.push('/');
        }
        let process = ProcessSpec {
            args: request.meta.args,
            env,
            cwd,
            user: request.meta.user,
            tty: request.tty,
        };
        let output = |to: Option<_>| to.map_or(Output::Null, Output::Stream);
        let io = ProcessIo {
            stdin: request.stdin,
            stdout: output(request.stdout),
            stderr: output(request.stderr),
            control: Some(control(request.control)),
        };
        let executor = Arc::clone(&self.parts.executor);
        // Held until the first process runs, so that others find the container.
        let mut has_process = self.has_process.lock().await;
        if *self.closed.borrow() {
            return Err(closed().into());
        }
        let task = if *has_process {
            let id = self.id.clone();
            self.run(async move { executor.exec(&id, process, io).await })
        } else {
            let mut spec = self.spec(access, process).await?;
            spec.remove_mount_stubs_recursive = request.meta.remove_mount_stubs_recursive;
            let (started_notice, started) = oneshot::channel();
            let task = self.run(async move { executor.run(spec, io, Some(started_notice)).await });
            *has_process = true;
            // An error means that the process ended before it started; its outcome says why.
            let _ended = started.await;
            task
        };
        drop(has_process);
        Ok(Process {
            ended: Box::pin(async move { Ok(task.await?) }),
        })
    }

    async fn read_file(
        &self,
        mount: usize,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<Bytes, BridgeError> {
        let path = path.to_owned();
        self.tree(mount, move |root, _| files::read(root, &path, range))
            .await
    }

    async fn read_dir(
        &self,
        mount: usize,
        path: &str,
        include: &str,
    ) -> Result<Vec<FileStat>, BridgeError> {
        let (path, include) = (path.to_owned(), include.to_owned());
        self.tree(mount, move |root, ids| {
            files::list(root, &path, &include, ids)
        })
        .await
    }

    async fn stat_file(&self, mount: usize, path: &str) -> Result<FileStat, BridgeError> {
        let path = path.to_owned();
        self.tree(mount, move |root, ids| files::stat(root, &path, ids))
            .await
    }

    async fn release(&self) -> Result<(), BridgeError> {
        let killed = *self.running.borrow() > 0;
        self.closed.send_replace(true);
        let mut running = self.running.subscribe();
        if running.wait_for(|n| *n == 0).await.is_err() {
            tracing::debug!("the sender of the process count was dropped");
        }
        drop(self.prepared.lock().await.take());
        if killed {
            return Err(canceled().into());
        }
        Ok(())
    }
}
