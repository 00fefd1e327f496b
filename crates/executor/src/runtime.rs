//! The same seam over an OCI runtime binary: `runc`, `crun`, `runsc` or whatever the configuration names.

mod bundle;
mod config;
mod version;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{ExitStatus as ProgramExit, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use proxy::Proxy;
use sys::pty;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::Executor;
use crate::access::SecurityMode;
use crate::bounds;
use crate::cgroup;
use crate::dns::{self, DnsConfig};
use crate::error::{ExecError, StartError, errno};
use crate::injection::DeviceEdits;
use crate::io::{Control, OutputEnd, ProcessIo, Pumps, Streams};
use crate::network::{ContainerNetwork, SandboxNetwork};
use crate::running::{Joined, RunningContainers};
use crate::samples;
use crate::spec::{ContainerId, ContainerSpec, ExitStatus, ProcessSpec, Usage};
use crate::stubs::{self, Kind};
use crate::user;
use bundle::Bundle;
pub use version::UnfitRuntime;

/// Which runtime, and how containers are made.
#[derive(Debug, Clone)]
pub struct Config {
    /// The runtime's program.
    pub program: PathBuf,
    /// A directory of the daemon, below which the runtime keeps its state and the executor its bundles.
    pub root: PathBuf,
    /// What a step gets that asks for no network.
    pub sandbox_network: SandboxNetwork,
    /// The proxy of steps of the proxy network; none if there is no such network.
    pub proxy: Option<Arc<Proxy>>,
    /// The name resolution of containers.
    pub dns: DnsConfig,
    /// The control group above all containers that name none.
    pub cgroup_parent: String,
    /// Versions, as the program tells them, that are taken although a known fault was fixed later.
    pub accepted_versions: Vec<String>,
}

/// Runs containers through an OCI runtime.
#[derive(Debug)]
pub struct Runtime {
    config: Config,
    running: RunningContainers<RunningContainer>,
}

#[derive(Debug, Clone)]
struct RunningContainer {
    process: ProcessSpec,
    /// Whether the container's only network is the proxy network, so that further processes get the variables of its proxy.
    proxied: bool,
    security: SecurityMode,
    rootfs: PathBuf,
}

impl Runtime {
    /// Makes an executor, if the program's version is fit to run what others wrote. Blocks for as long as the program needs to tell it.
    pub fn open(config: Config) -> Result<Self, UnfitRuntime> {
        version::check(&config.program, &config.accepted_versions)?;
        Ok(Self {
            config,
            running: RunningContainers::default(),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.config.program);
        command
            .arg("--root")
            .arg(self.config.root.join("state"))
            .kill_on_drop(true)
            .process_group(0);
        command
    }

    fn failed(&self, message: String) -> ExecError {
        ExecError::Runtime {
            program: self.config.program.display().to_string(),
            message,
        }
    }

    fn process_failed(&self, source: io::Error) -> ExecError {
        ExecError::RuntimeProcess {
            program: self.config.program.display().to_string(),
            source,
        }
    }

    /// Starts the runtime with the streams of the process; with a terminal, one of the host's whose master is returned.
    fn spawn(
        &self,
        command: &mut Command,
        streams: Streams,
    ) -> Result<(Child, Option<OwnedFd>), ExecError> {
        let spawn = || -> io::Result<(Child, Option<OwnedFd>)> {
            let mut master = None;
            let [input, output, errors] = match streams.0 {
                Some(streams) => streams,
                None => {
                    let terminal = pty::open_master(sys::path::open_dir("/dev/pts")?)?;
                    let peer = pty::open_peer(&terminal)?;
                    master = Some(terminal);
                    [peer.try_clone()?, peer.try_clone()?, peer]
                }
            };
            command
                .stdin(Stdio::from(input))
                .stdout(Stdio::from(output))
                .stderr(Stdio::from(errors));
            let child = command.spawn()?;
            // Our copies of the streams are in the command.
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Ok((child, master))
        };
        spawn().map_err(|source| self.process_failed(source))
    }
}

/// Deletes the container and its folder when its run ends, fails or is dropped.
struct Cleanup<'a> {
    runtime: &'a Runtime,
    id: ContainerId,
    bundle: Option<Bundle>,
    has_container: bool,
}

impl Cleanup<'_> {
    fn delete(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let (bundle, has_container) = (self.bundle.take(), std::mem::take(&mut self.has_container));
        let mut command = self.runtime.command();
        command
            .args(["delete", "--force", self.id.as_str()])
            .kill_on_drop(false);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        async move {
            if has_container {
                drop(command.status().await);
            }
            drop(bundle);
        }
    }
}

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        if self.bundle.is_some() || self.has_container {
            task::spawn("delete container", self.delete()).detach();
        }
    }
}

#[async_trait]
impl Executor for Runtime {
    async fn run(
        &self,
        mut spec: ContainerSpec,
        io: ProcessIo,
        started: Option<oneshot::Sender<()>>,
    ) -> Result<ExitStatus, ExecError> {
        bounds::check(&spec)?;
        let devices = spec.apply_devices();
        let id = spec.id.clone();
        let registration = self.running.register(&id)?;
        let mut cleanup = Cleanup {
            runtime: self,
            id: id.clone(),
            bundle: None,
            has_container: false,
        };
        let security = spec.access.security();
        let proxy = self.config.proxy.as_ref();
        let sandbox = &self.config.sandbox_network;
        let network = sandbox.of_spec(proxy, &mut spec).await?;
        let proxied = network.is_proxied();
        let process = spec.process.clone();
        let parent = spec.cgroup_parent_or(&self.config.cgroup_parent);
        let groups = cgroup::dirs_of(parent, &id);
        let prepared = self.prepare(spec, devices, &network)?;
        let (dir, rootfs) = (prepared.files(), prepared.dir.join("rootfs"));
        cleanup.bundle = Some(prepared);
        let (streams, mut pumps) = Streams::open(io, process.tty)?;
        let log = dir.join("log.json");
        let mut command = self.command();
        command
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json", "run", "--keep", "--bundle"])
            .arg(&dir)
            .arg(id.as_str());
        if !self.supports_keep() {
            command = self.command();
            command
                .arg("--log")
                .arg(&log)
                .args(["--log-format", "json", "run", "--bundle"])
                .arg(&dir)
                .arg(id.as_str());
        }
        cleanup.has_container = true;
        let (mut child, master) = self.spawn(&mut command, streams)?;
        drop(command);
        registration.set_started(RunningContainer {
            process,
            proxied,
            security,
            rootfs,
        });
        if let Some(started) = started {
            let _ = started.send(());
        }
        let kill = || async {
            let mut command = self.command();
            drop(
                command
                    .args(["kill", id.as_str(), "KILL"])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .await,
            );
        };
        let driven = self.drive(&mut child, &mut pumps, master, kill);
        let (exit, samples) = samples::while_running(groups, driven).await;
        let exit = exit?;
        registration.set_ended();
        let failure = last_error(&log);
        cleanup.delete().await;
        network.close().await;
        match failure {
            Some(message) if !exit.success() => Err(self.failed(message)),
            _ => Ok(ExitStatus {
                usage: Usage {
                    memory_held: samples.memory_held,
                    ..Usage::default()
                },
                samples: Arc::new(samples),
                ..status(exit)
            }),
        }
    }

    fn proxy(&self) -> Option<&Arc<Proxy>> {
        self.config.proxy.as_ref()
    }

    async fn exec(
        &self,
        id: &ContainerId,
        process: ProcessSpec,
        io: ProcessIo,
    ) -> Result<ExitStatus, ExecError> {
        let joined = self.running.join(id).await?;
        let container = &joined.container;
        self.wait_running(id, &joined).await?;
        let mut spec = process;
        if container.proxied {
            crate::step_proxy::inherit(&mut spec.env, &container.process.env);
        }
        spec.inherit(&container.process);
        bounds::check_process(&spec)?;
        let root = sys::path::open_host_path(&container.rootfs).map_err(|error| {
            // The folder is removed when the container ends.
            if error.kind() == io::ErrorKind::NotFound {
                ExecError::Stopped { id: id.to_string() }
            } else {
                ExecError::system("cannot open the root of a container")(error)
            }
        })?;
        let identity = user::lookup(&root, &spec.user)?;
        let document = config::process(
            &spec,
            &identity,
            &user::home(&root, identity.uid),
            container.security,
            &[],
        );
        let files = container
            .rootfs
            .with_file_name(bundle::FILES_DIR)
            .join(format!("exec-{}", ContainerId::random()));
        std::fs::create_dir(&files).map_err(ExecError::system("cannot make a folder"))?;
        let (plan, pid, log) = (
            files.join("process.json"),
            files.join("pid"),
            files.join("log.json"),
        );
        let outcome = std::fs::write(&plan, document.to_string());
        outcome.map_err(ExecError::system("cannot write the process document"))?;
        let (streams, mut pumps) = Streams::open(io, spec.tty)?;
        let mut command = self.command();
        command
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json", "exec", "--process"])
            .arg(&plan)
            .arg("--pid-file")
            .arg(&pid);
        command.arg(id.as_str());
        let (mut child, master) = self.spawn(&mut command, streams)?;
        drop(command);
        let _killed = KillByFile(&pid);
        let kill = || async { drop(KillByFile(&pid)) };
        let exit = self.drive(&mut child, &mut pumps, master, kill).await?;
        match last_error(&log) {
            Some(message) if !exit.success() => Err(self.failed(message)),
            _ => Ok(status(exit)),
        }
    }
}

/// Kills the process whose number is in the file, when dropped.
struct KillByFile<'a>(&'a std::path::Path);

impl Drop for KillByFile<'_> {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.0)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            // It must not happen twice: another process may get the number.
            drop(std::fs::remove_file(self.0));
        }
    }
}

impl Runtime {
    /// `--keep` is runc's alone; with it the state of an ended container stays until it is deleted.
    fn supports_keep(&self) -> bool {
        self.config
            .program
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains("runc"))
    }

    /// Attaches the mounts and writes the document of the container.
    fn prepare(
        &self,
        spec: ContainerSpec,
        devices: DeviceEdits,
        network: &ContainerNetwork,
    ) -> Result<Bundle, ExecError> {
        let failed = ExecError::system("cannot prepare a bundle");
        if spec.process.args.is_empty() {
            return Err(StartError::NoCommand.into());
        }
        let mut identity = user::lookup(&spec.rootfs, &spec.process.user)?;
        identity.groups.extend(devices.groups);
        let home = user::home(&spec.rootfs, identity.uid);
        let mut bundle =
            Bundle::new(self.config.root.join("bundles").join(spec.id.as_str())).map_err(failed)?;
        let failed = |error| ExecError::system("cannot prepare a bundle")(error);
        let rootfs = bundle.attach_root(&spec.rootfs).map_err(failed)?;
        let cwd = stubs::find_or_make(
            &spec.rootfs,
            &spec.process.cwd,
            Kind::Directory,
            Some((identity.uid, identity.gid)),
        );
        cwd.map_err(|error| StartError::WorkingDir {
            path: spec.process.cwd.clone(),
            errno: errno(&error),
        })?;
        let hosts = crate::hosts::contents(&spec.hostname, &spec.extra_hosts);
        let mut mounts = Vec::new();
        for (dest, name, text) in [
            (
                "/etc/resolv.conf",
                "resolv.conf",
                dns::contents(&self.config.dns, network)?,
            ),
            ("/etc/hosts", "hosts", hosts),
        ] {
            bundle.point(dest, Kind::File).map_err(failed)?;
            let source = bundle
                .file(name, text.as_bytes(), 0o644, (0, 0))
                .map_err(failed)?;
            let options = ["nosuid", "noexec", "nodev", "rbind", "ro"];
            mounts.push(serde_json::json!({"destination": dest, "type": "bind", "source": source, "options": options}));
        }
        let dests = spec.mount_destinations();
        let shm_size = spec.shm_bytes();
        let parent = spec.cgroup_parent_or(&self.config.cgroup_parent).to_owned();
        for (index, mount) in spec.mounts.into_iter().enumerate() {
            mounts.push(bundle.mount(index, mount)?);
        }
        bundle.keep_parents(&dests, spec.remove_mount_stubs_recursive);
        let document = config::RuntimeDocument {
            rootfs: &rootfs.to_string_lossy(),
            readonly_root: spec.readonly_root,
            hostname: &spec.hostname,
            process: config::process(
                &spec.process,
                &identity,
                &home,
                spec.access.security(),
                &spec.ulimits,
            ),
            mounts,
            network,
            security: spec.access.security(),
            nodes: &devices.nodes,
            hooks: &devices.hooks,
            owner: (identity.uid, identity.gid),
            cgroups_path: format!(
                "{}/buildkit/{}",
                gostd::path::join_root(&parent).trim_end_matches('/'),
                spec.id
            ),
            resources: &spec.resources,
            shm_size,
        };
        // Not on the disk: secrets stand in the environment.
        std::fs::write(
            bundle.files().join("config.json"),
            document.build().to_string(),
        )
        .map_err(failed)?;
        Ok(bundle)
    }

    /// Moves the bytes of the streams and applies controls until the runtime has ended.
    async fn drive<F: Future<Output = ()>>(
        &self,
        child: &mut Child,
        pumps: &mut Pumps,
        master: Option<OwnedFd>,
        kill: impl Fn() -> F,
    ) -> Result<ProgramExit, ExecError> {
        let mut control = pumps.control.take();
        let for_resize = master
            .as_ref()
            .map(|fd| fd.as_fd().try_clone_to_owned())
            .transpose();
        let for_resize = for_resize.map_err(ExecError::system("cannot copy a descriptor"))?;
        let runtime = child
            .id()
            .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        let apply_controls = async {
            while let Some(order) = match &mut control {
                Some(control) => control.recv().await,
                None => None,
            } {
                match (order, &for_resize, runtime) {
                    // The runtime itself is never killed by this: it has to see its container off.
                    (Control::Signal(signal), _, _) if signal.0 == libc::SIGKILL => kill().await,
                    (Control::Signal(signal), _, Some(pid)) => {
                        if let Some(signal) = rustix::process::Signal::from_named_raw(signal.0) {
                            let _ = rustix::process::kill_process(pid, signal);
                        }
                    }
                    (Control::Resize(size), Some(master), Some(pid)) => {
                        drop(pty::set_size(master, size.rows, size.cols));
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::WINCH);
                    }
                    _ => {}
                }
            }
            std::future::pending::<std::convert::Infallible>().await
        };
        let pumps = pumps.take();
        let exit = pumps.until(master, OutputEnd::MayBeHeld, async {
            tokio::select! {
                exit = child.wait() => exit,
                never = apply_controls => match never {},
            }
        });
        exit.await.map_err(|source| self.process_failed(source))
    }

    /// A further process can join only after the runtime says that the container runs.
    async fn wait_running(
        &self,
        id: &ContainerId,
        joined: &Joined<RunningContainer>,
    ) -> Result<(), ExecError> {
        loop {
            let mut command = self.command();
            let output = command
                .args(["state", id.as_str()])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .await;
            let output = output.map_err(|source| self.process_failed(source))?;
            let state_of = serde_json::from_slice::<serde_json::Value>(&output.stdout).ok();
            if state_of
                .as_ref()
                .and_then(|value| value.get("status"))
                .and_then(|status| status.as_str())
                == Some("running")
            {
                return Ok(());
            }
            if joined.has_ended() {
                return Err(ExecError::Stopped { id: id.to_string() });
            }
            task::clock::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// The runtime passes the code of the process on, and 128 and the number for a signal.
fn status(exit: ProgramExit) -> ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    let code = exit
        .code()
        .or_else(|| exit.signal().map(|signal| 128 + signal))
        .unwrap_or(255);
    ExitStatus {
        code: code.cast_unsigned(),
        oom: false,
        usage: Usage::default(),
        samples: Arc::default(),
    }
}

/// The last error in a runtime's log. A process that merely fails leaves none.
fn last_error(log: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let errors =
        lines.filter(|line| line.get("level").and_then(|level| level.as_str()) == Some("error"));
    errors
        .filter_map(|line| Some(line.get("msg")?.as_str()?.to_owned()))
        .next_back()
}
