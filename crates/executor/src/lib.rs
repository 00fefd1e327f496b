//! Runs one process in one container.
//!
//! [`Executor`] is the seam; [`launcher::Launcher`] is the implementation made for build steps and [`runtime::Runtime`] drives an OCI
//! runtime binary the same way. Neither knows of vertices, refs or sessions: a [`ContainerSpec`] holds descriptors of mounts and words of
//! the client, and the words are resolved inside the root filesystem only.
//!
//! # Invariants
//! - A spec needs an [`Access`], which only an [`Entitlements`] value gives (P1).
//! - The daemon forks nothing: containers are cloned by the launcher, a small process of one thread.
//! - Dropping the future of a run or an exec kills its process and leaves no mount.

mod access;
mod bounds;
pub mod cdi;
mod cgroup;
pub mod dns;
mod environment;
mod error;
mod hooks;
pub mod hosts;
mod injection;
mod io;
pub mod launcher;
mod mount;
mod network;
mod proxied;
mod resources;
mod running;
pub mod runtime;
pub mod samples;
pub mod seccomp;
mod spec;
mod step_proxy;
mod stubs;
pub mod user;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

/// For tests of other crates that run a launcher: see [`launcher::dispatch`].
#[doc(hidden)]
pub use sys::before_main;
pub use sys::userns::{IdMapping, IdRange};

pub use access::{
    Access, Denied, DeviceRights, Entitlements, NetworkMode, SecurityMode, UnknownMode,
};
pub use bounds::{MAX_MOUNTS, MAX_PATH_BYTES, MAX_PATH_PARTS, check_mount_count, check_path};
pub use environment::Environment;
pub use error::{ExecError, HookError, StartError};
pub use injection::Injection;
pub use io::{Control, Output, OutputSink, ProcessIo, Signal, WinSize};
pub use mount::{Mount, MountSource};
pub use network::SandboxNetwork;
pub use resources::{CPU_PERIOD_MICROSECONDS, IoLimits, Resources};
pub use samples::Samples;
pub use spec::{ContainerId, ContainerSpec, InvalidId, ProcessSpec, Ulimit};
pub use spec::{ExitStatus, Usage};
pub use step_proxy::StepProxy;

/// Runs processes in containers.
#[async_trait]
pub trait Executor: Send + Sync + std::fmt::Debug {
    /// Runs the spec's process as the first of a new container, until it exits. `started` is told when it has been started.
    ///
    /// Cancel-safe: a dropped future kills the container. An exit with any code is `Ok`.
    async fn run(
        &self,
        spec: ContainerSpec,
        io: ProcessIo,
        started: Option<oneshot::Sender<()>>,
    ) -> Result<ExitStatus, ExecError>;

    /// The user namespace that a container with this access runs in; none if it shares the host's users. The mounts of its spec are made
    /// for it.
    fn id_mapping(&self, _access: &Access) -> Result<Option<Arc<IdMapping>>, ExecError> {
        Ok(None)
    }

    /// The proxy of steps of the proxy network; none if there is no such network.
    fn proxy(&self) -> Option<&Arc<proxy::Proxy>> {
        None
    }

    /// Runs a further process in the container `id` of a running [`Executor::run`], waiting for it to start if need be.
    ///
    /// Empty `env` and `cwd` and an empty user are the container's own. Cancel-safe: a dropped future kills the process.
    async fn exec(
        &self,
        id: &ContainerId,
        process: ProcessSpec,
        io: ProcessIo,
    ) -> Result<ExitStatus, ExecError>;
}
