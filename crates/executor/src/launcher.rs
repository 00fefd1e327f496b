//! The executor made for build steps.
//!
//! A [`Launcher`] keeps one small process of one thread, this program executed again at start, which clones a container straight into its
//! namespaces and control group; the clone sets itself up from a typed plan and descriptors and becomes the program. `main` calls
//! [`dispatch`] before anything else, so that the second execution ends up there.

mod connection;
mod filesystem;
mod init;
mod message;
mod mounts;
mod nested;
mod prepare;
mod server;
mod setup;
mod supervise;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy::Proxy;
use sys::userns::{IdMapping, IdRange};
use sys::{process, pty, socket};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

pub use prepare::default_capabilities;
pub(crate) use prepare::detach;

use crate::Executor;
use crate::access::{Access, SecurityMode};
use crate::bounds;
use crate::cgroup::{Group, Groups};
use crate::dns::{self, DnsConfig};
use crate::error::{ExecError, StartError};
use crate::hooks::Hooks;
use crate::injection::{DeviceEdits, Node};
use crate::io::{Control, OutputEnd, ProcessIo, Pumps, Streams};
use crate::network::{ContainerNetwork, SandboxNetwork};
use crate::running::RunningContainers;
use crate::samples;
use crate::spec::{ContainerId, ContainerSpec, ExitStatus, ProcessSpec};
use crate::step_proxy;
use crate::stubs::{self, Stubs};
use connection::{ClonedProcess, Connection};
use message::{GIVE_UP, GO_ON, JoinPlan, MAX_MESSAGE_BYTES, NetworkPlan, Plan, Report, Request};
use prepare::{Basics, PlanFds};

/// The name under which this program is executed to be the launcher.
const NAME: &str = "rbuild-launcher";

/// The group that owns terminals, in every container.
const TTY_GROUP: u32 = 5;

/// Becomes the launcher if that is what this program was executed for; else returns. The first line of `main`: it needs to be the only
/// thread.
pub fn dispatch() {
    if std::env::args_os().next().is_some_and(|name| name == NAME) {
        let code = match server::serve() {
            Ok(()) => 0,
            Err(error) => {
                let text = format!("container launcher: {error}\n");
                let _ = rustix::io::write(io::stderr().as_fd(), text.as_bytes());
                1
            }
        };
        process::exit_now(code);
    }
}

/// How containers are made.
#[derive(Debug, Clone)]
pub struct Config {
    /// The program that calls [`dispatch`]; this one when not given.
    pub program: Option<PathBuf>,
    /// What a step gets that asks for no network.
    pub sandbox_network: SandboxNetwork,
    /// The proxy of steps of the proxy network; none if there is no such network.
    pub proxy: Option<Arc<Proxy>>,
    /// The name resolution of containers.
    pub dns: DnsConfig,
    /// The control group above all containers that name none.
    pub cgroup_parent: String,
    /// The host's ids for the user namespace of confined containers; `None` when they share the host's users.
    pub user_namespace: Option<IdRange>,
}

impl Config {
    /// Containers on the host's network, with its name resolution.
    pub fn host_network() -> Self {
        Self {
            program: None,
            sandbox_network: SandboxNetwork::Host,
            proxy: None,
            dns: DnsConfig::default(),
            cgroup_parent: String::new(),
            user_namespace: None,
        }
    }
}

/// Runs containers through the launcher process, which it starts with the first one, and again should it ever end.
pub struct Launcher {
    config: Config,
    groups: Groups,
    connection: Mutex<Option<Arc<Connection>>>,
    running: RunningContainers<Arc<RunningContainer>>,
}

/// What further processes need of a container that runs.
#[derive(Debug)]
struct RunningContainer {
    pidfd: OwnedFd,
    root: OwnedFd,
    group: Arc<Group>,
    security: SecurityMode,
    process: ProcessSpec,
    joined: JoinPlan,
    /// Whether the container's only network is the proxy network, so that further processes get the variables of its proxy.
    proxied: bool,
    ids: Option<Arc<IdMapping>>,
}

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launcher")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Launcher {
    /// Makes an executor. The launcher process is started when it is first asked: for a step, or for the ids that it can map.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            groups: Groups::find(),
            connection: Mutex::new(None),
            running: RunningContainers::default(),
        }
    }

    /// The number of the launcher process, if one runs.
    pub fn process_id(&self) -> Option<u32> {
        let connection = self.connection.lock();
        let running = connection
            .as_ref()
            .filter(|connection| !connection.has_ended());
        running.map(|connection| connection.pid)
    }

    fn connection(&self) -> Result<Arc<Connection>, ExecError> {
        let mut current = self.connection.lock();
        match &*current {
            Some(connection) if !connection.has_ended() => Ok(Arc::clone(connection)),
            _ => {
                let program = self
                    .config
                    .program
                    .clone()
                    .unwrap_or_else(|| "/proc/self/exe".into());
                let connection = Arc::new(
                    Connection::start(&program, self.config.user_namespace)
                        .map_err(ExecError::launcher("starting it"))?,
                );
                *current = Some(Arc::clone(&connection));
                Ok(connection)
            }
        }
    }
}

/// The plan of a container whose process can be cloned, with its descriptors.
struct Ready {
    plan: Plan,
    fds: PlanFds,
    group: Arc<Group>,
    root: OwnedFd,
}

#[async_trait]
impl Executor for Launcher {
    async fn run(
        &self,
        mut spec: ContainerSpec,
        io: ProcessIo,
        started: Option<oneshot::Sender<()>>,
    ) -> Result<ExitStatus, ExecError> {
        bounds::check(&spec)?;
        let DeviceEdits {
            nodes,
            groups,
            hooks,
        } = spec.apply_devices();
        let mut hooks = Hooks::new(hooks, &spec.id)?;
        let registration = self.running.register(&spec.id)?;
        let (streams, pumps) = Streams::open(io, spec.process.tty)?;
        let connection = self.connection()?;
        let proxy = self.config.proxy.as_ref();
        let sandbox = &self.config.sandbox_network;
        let network = sandbox.of_spec(proxy, &mut spec).await?;
        let proxied = network.is_proxied();
        let (security, process) = (spec.access.security(), spec.process.clone());
        let ids = spec.ids.clone();
        let stubs_recursive = spec.remove_mount_stubs_recursive;
        let dests = spec.mount_destinations();
        let ready = self.prepare(spec, (&nodes, groups, hooks.as_ref()), streams, &network)?;
        let (ours, theirs) = socket::pair().map_err(ExecError::system("cannot make a socket"))?;
        let Ready {
            plan,
            fds: plan_fds,
            group,
            root,
        } = ready;
        prepare::send(&ours, &plan, &plan_fds)?;
        // The daemon's copies of the process's ends have to be closed, or the streams would never end.
        drop((plan, plan_fds));
        let mut fds = vec![theirs.as_fd()];
        fds.extend(group.fd.as_ref().map(AsFd::as_fd));
        fds.extend(network.namespace());
        let network_plan = match &network {
            ContainerNetwork::Host => NetworkPlan::Host,
            ContainerNetwork::Isolated => NetworkPlan::New,
            ContainerNetwork::Prepared(_) | ContainerNetwork::Proxied(_) => NetworkPlan::Given,
        };
        let (cgroup, cgroup_namespace) = (group.fd.is_some(), self.groups.unified());
        let request = |seq| Request::Run {
            seq,
            network: network_plan,
            cgroup_namespace,
            cgroup,
            groups: group.dirs(),
        };
        let mut cloned = connection
            .clone_process(request, &fds, Some(Arc::clone(&group)))
            .await?;
        drop(theirs);
        if let Some(hooks) = &mut hooks {
            hooks.set_created();
        }
        let of_hooks = hooks.as_ref().map(|hooks| (hooks, &cloned.pidfd));
        let start = match read_reports(&ours, of_hooks).await {
            Ok(start) => start,
            Err(error) => {
                drop(ours);
                drop(cloned.wait().await);
                return Err(error);
            }
        };
        drop(ours);
        let stubs = stubs::to_remove(start.stubs, &dests, stubs_recursive);
        if let Some(error) = start.hook_failed.or(start.failed.map(ExecError::from)) {
            drop(cloned.wait().await);
            stubs::remove(&root, &stubs);
            return Err(error);
        }
        let copy = |fd: &OwnedFd| {
            fd.try_clone()
                .map_err(ExecError::system("cannot copy a descriptor"))
        };
        let container = RunningContainer {
            pidfd: copy(&cloned.pidfd)?,
            root: copy(&root)?,
            group: Arc::clone(&group),
            security,
            process,
            joined: JoinPlan {
                network: network_plan != NetworkPlan::Host,
                cgroups: cgroup_namespace,
            },
            proxied,
            ids,
        };
        registration.set_started(Arc::new(container));
        if let Some(started) = started {
            let _ = started.send(());
        }
        if let Some(hooks) = &hooks {
            hooks.run_after_start(&cloned.pidfd).await;
        }
        let driven = drive(&mut cloned, pumps, start.terminal, OutputEnd::Certain);
        let (outcome, samples) = samples::while_running(group.dirs(), driven).await;
        // Nobody may join any more before the mount points go.
        registration.set_ended();
        stubs::remove(&root, &stubs);
        network.close().await;
        if let Some(hooks) = hooks {
            hooks.run_after_stop().await;
        }
        let exit = outcome?;
        let mut usage = exit.usage;
        usage.memory_peak = group.memory_peak();
        usage.memory_held = samples.memory_held;
        Ok(ExitStatus {
            code: exit.code,
            oom: exit.code != 0 && group.out_of_memory(),
            usage,
            samples: Arc::new(samples),
        })
    }

    fn proxy(&self) -> Option<&Arc<Proxy>> {
        self.config.proxy.as_ref()
    }

    fn id_mapping(&self, access: &Access) -> Result<Option<Arc<IdMapping>>, ExecError> {
        if self.config.user_namespace.is_none() || access.security() == SecurityMode::Insecure {
            return Ok(None);
        }
        self.connection()?.ids()
    }

    async fn exec(
        &self,
        id: &ContainerId,
        process: ProcessSpec,
        io: ProcessIo,
    ) -> Result<ExitStatus, ExecError> {
        let joined = self.running.join(id).await?;
        let container = &joined.container;
        let (streams, pumps) = Streams::open(io, process.tty)?;
        let mut spec = process;
        if container.proxied {
            step_proxy::inherit(&mut spec.env, &container.process.env);
        }
        spec.inherit(&container.process);
        let mut fds = PlanFds::default();
        let stdio = streams
            .0
            .map(|streams| streams.map(|stream| fds.push(stream)));
        let process = prepare::process_plan(
            &spec,
            container.root.as_fd(),
            container.security,
            container.ids.as_deref(),
            &[],
            stdio,
        )?;
        let procs = container
            .group
            .procs
            .iter()
            .map(OwnedFd::try_clone)
            .collect::<io::Result<Vec<_>>>();
        let procs = procs.map_err(ExecError::system("cannot copy a descriptor"))?;
        let plan = Plan {
            container: None,
            joined: container.joined,
            process,
            cgroup_procs: procs.into_iter().map(|fd| fds.push(fd)).collect(),
            hooks: Vec::new(),
        };
        let (ours, theirs) = socket::pair().map_err(ExecError::system("cannot make a socket"))?;
        prepare::send(&ours, &plan, &fds)?;
        drop((plan, fds));
        let mut request_fds = vec![theirs.as_fd(), container.pidfd.as_fd()];
        request_fds.extend(container.group.fd.as_ref().map(AsFd::as_fd));
        let cgroup = container.group.fd.is_some();
        let request = |seq| Request::Join { seq, cgroup };
        let cloned = self
            .connection()?
            .clone_process(request, &request_fds, Some(Arc::clone(&container.group)))
            .await;
        drop(theirs);
        let mut cloned = cloned.map_err(|error| {
            if joined.has_ended() {
                ExecError::Stopped { id: id.to_string() }
            } else {
                error
            }
        })?;
        let start = match read_reports(&ours, None).await {
            Ok(start) => start,
            Err(error) => {
                drop(cloned.wait().await);
                return Err(error);
            }
        };
        if let Some(error) = start.failed {
            drop(cloned.wait().await);
            return Err(error.into());
        }
        let exit = drive(&mut cloned, pumps, start.terminal, OutputEnd::MayBeHeld).await?;
        Ok(ExitStatus {
            code: exit.code,
            oom: exit.code != 0 && container.group.out_of_memory(),
            usage: exit.usage,
            samples: Arc::default(),
        })
    }
}

impl Launcher {
    fn prepare(
        &self,
        spec: ContainerSpec,
        (nodes, groups, hooks): (&[Node], Vec<u32>, Option<&Hooks>),
        streams: Streams,
        network: &ContainerNetwork,
    ) -> Result<Ready, ExecError> {
        let security = spec.access.security();
        let mut fds = PlanFds::default();
        let stdio = streams
            .0
            .map(|streams| streams.map(|stream| fds.push(stream)));
        let root = spec
            .rootfs
            .try_clone()
            .map_err(ExecError::system("cannot copy a descriptor"))?;
        let ids = spec.ids.as_deref();
        let mut process = prepare::process_plan(
            &spec.process,
            root.as_fd(),
            security,
            ids,
            &spec.ulimits,
            stdio,
        )?;
        process.groups.extend(groups);
        let rules = prepare::device_rules(nodes);
        let parent = spec.cgroup_parent_or(&self.config.cgroup_parent);
        let mut group = self.groups.make(
            parent,
            &spec.id,
            &spec.resources,
            (security == SecurityMode::Sandbox).then_some(rules.as_slice()),
        )?;
        // They are copied, so that further processes can be put into the groups too.
        let procs = group
            .procs
            .iter()
            .map(OwnedFd::try_clone)
            .collect::<io::Result<Vec<_>>>();
        let cgroup_procs = procs
            .map_err(ExecError::system("cannot copy a descriptor"))?
            .into_iter()
            .map(|fd| fds.push(fd))
            .collect();
        group.procs.shrink_to_fit();
        let mut cgroups = Vec::new();
        for (name, dir) in &group.shown {
            let mount = sys::path::open_dir(dir)
                .and_then(|dir| sys::mount::open_tree_clone(&dir, false))
                .map_err(ExecError::system("cannot show a control group"))?;
            cgroups.push((name.clone(), fds.push(mount)));
        }
        let shm_size = spec.shm_bytes();
        let basics = Basics {
            rootfs: fds.push(spec.rootfs),
            readonly_root: spec.readonly_root,
            hosts: crate::hosts::contents(&spec.hostname, &spec.extra_hosts),
            hostname: spec.hostname,
            resolv_conf: dns::contents(&self.config.dns, network)?,
            shm_size,
            security,
            limits_devices: group.limits_devices,
            cgroup2: self.groups.shows(&group),
            cgroups,
            waits: hooks.is_some_and(Hooks::precede_start),
            devices: prepare::requested_devices(nodes, &process, ids)?,
            mounts: prepare::mounts(spec.mounts, ids, &mut fds)?,
            tty_gid: prepare::tty_gid(ids, TTY_GROUP)?,
        };
        let plan = Plan {
            container: Some(basics.plan()),
            joined: JoinPlan::default(),
            process,
            cgroup_procs,
            hooks: hooks.map(Hooks::in_container).unwrap_or_default(),
        };
        Ok(Ready {
            plan,
            fds,
            group: Arc::new(group),
            root,
        })
    }
}

/// What a process reports before it becomes the program.
#[derive(Default)]
struct Start {
    /// Mount points that were made in the root.
    stubs: Vec<Stubs>,
    terminal: Option<OwnedFd>,
    /// Why the program was not started.
    failed: Option<StartError>,
    /// Why it may not be started.
    hook_failed: Option<ExecError>,
}

/// Reads the reports of a starting process until its socket closes, which is when it has become the program, or has been killed.
async fn read_reports(
    socket: &OwnedFd,
    hooks: Option<(&Hooks, &OwnedFd)>,
) -> Result<Start, ExecError> {
    let failed = ExecError::system("cannot hear a container");
    let listen = async {
        rustix::io::ioctl_fionbio(socket, true)?;
        #[expect(
            deprecated,
            reason = "the descriptor is borrowed for longer than the registration lives; the other way is unsafe"
        )]
        let socket = AsyncFd::new(socket.as_fd())?;
        let mut start = Start::default();
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        loop {
            let mut ready = socket.readable().await?;
            let received =
                ready.try_io(|socket| sys::socket::receive(socket.get_ref(), &mut buffer));
            let (length, fds) = match received {
                Err(_not_yet) => continue,
                Ok(Ok((0, _))) => return Ok(start),
                // The other end closed with something of ours unread: it was killed before it took its plan.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(start);
                }
                Ok(result) => result?,
            };
            match serde_json::from_slice(buffer.get(..length).unwrap_or_default())? {
                Report::Stubs(stubs) => start.stubs.extend(stubs),
                Report::Terminal => start.terminal = fds.into_iter().next(),
                Report::Built => {
                    if let Some((hooks, pidfd)) = hooks {
                        start.hook_failed = hooks.run_before_start(pidfd).await.err();
                    }
                    let answer = match start.hook_failed {
                        None => GO_ON,
                        Some(_) => GIVE_UP,
                    };
                    // One that is gone is heard of by its end.
                    drop(sys::socket::send(socket.get_ref(), answer, &[]));
                }
                Report::Failed(error) => {
                    start.failed = Some(error);
                    return Ok::<_, io::Error>(start);
                }
            }
        }
    };
    listen.await.map_err(failed)
}

/// Moves the bytes of the streams and applies controls until the process has ended and its output is read.
async fn drive(
    cloned: &mut ClonedProcess,
    mut pumps: Pumps,
    terminal: Option<OwnedFd>,
    output_end: OutputEnd,
) -> Result<connection::ProcessExit, ExecError> {
    let pidfd = cloned
        .pidfd
        .try_clone()
        .map_err(ExecError::system("cannot copy a descriptor"))?;
    let for_resize = match &terminal {
        Some(master) => Some(
            master
                .try_clone()
                .map_err(ExecError::system("cannot copy a descriptor"))?,
        ),
        None => None,
    };
    let mut control = pumps.control.take();
    let apply_controls = async {
        while let Some(control) = match &mut control {
            Some(control) => control.recv().await,
            None => None,
        } {
            let result = match (control, &for_resize) {
                (Control::Signal(signal), _) => process::pidfd_send_signal(&pidfd, signal.0),
                (Control::Resize(size), Some(master)) => {
                    pty::set_size(master, size.rows, size.cols)
                }
                (Control::Resize(_), None) => Ok(()),
            };
            if let Err(error) = result {
                tracing::debug!(%error, "process not reached");
            }
        }
        std::future::pending::<Infallible>().await
    };
    let exit = pumps.until(terminal, output_end, async {
        tokio::select! {
            exit = cloned.wait() => exit,
            never = apply_controls => match never {},
        }
    });
    exit.await
}
