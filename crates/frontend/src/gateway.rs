//! Containers that frontends run programs in, to build with or to look around in.
//!
//! A frontend asks its [`crate::Bridge`] for a [`Container`] over refs of its build, starts processes in it, the first
//! of which is the container's init, and releases it. Whatever is left ends with the build.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use llb::pb;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::error::BridgeError;
use crate::reference::{FileRange, FileStat, Ref};

/// A container that is wanted.
#[derive(Debug, Clone, Default)]
pub struct ContainerRequest {
    /// Its mounts, one of them at `/`.
    pub mounts: Vec<ContainerMount>,
    /// `pb.NetMode`.
    pub network: i32,
    /// Whose defaults its environment has.
    pub platform: Option<pb::Platform>,
    /// Its name for itself.
    pub hostname: String,
    /// Lines for its `/etc/hosts`.
    pub extra_hosts: Vec<pb::HostIp>,
}

/// A mount of a container.
#[derive(Debug, Clone)]
pub struct ContainerMount {
    /// What and where. Its numbers of inputs and outputs mean nothing.
    pub mount: pb::Mount,
    /// The ref that is mounted.
    pub source: Option<Arc<dyn Ref>>,
}

/// A process that is wanted.
pub struct ProcessRequest {
    /// Program, environment, user, working directory.
    pub meta: pb::Meta,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// `pb.SecurityMode`.
    pub security: i32,
    /// Secrets for its environment.
    pub secret_env: Vec<pb::SecretEnv>,
    /// Its input.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Its output; shut down at its end.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its errors; shut down at their end.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What is done to it while it runs.
    pub control: mpsc::Receiver<ProcessControl>,
}

impl fmt::Debug for ProcessRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessRequest")
            .field("args", &self.meta.args)
            .field("tty", &self.tty)
            .finish_non_exhaustive()
    }
}

/// What is done to a process while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessControl {
    /// Its terminal has another size.
    Resize {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// It gets a signal.
    Signal(i32),
}

/// A process that was started. Dropping it kills the process.
pub struct Process {
    /// Ends with the process; an error names its exit code, if it is not zero.
    pub ended: BoxFuture<'static, Result<(), BridgeError>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

/// A container of a frontend.
#[async_trait]
pub trait Container: Send + Sync + fmt::Debug {
    /// Starts a process: the first one as the container's init, which takes all others with it when it ends.
    async fn start(&self, process: ProcessRequest) -> Result<Process, BridgeError>;

    /// Reads (a part of) a regular file of a mount, by the mount's position.
    async fn read_file(
        &self,
        mount: usize,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<Bytes, BridgeError>;

    /// Lists a folder of a mount; `include` is a pattern on names, empty for all.
    async fn read_dir(
        &self,
        mount: usize,
        path: &str,
        include: &str,
    ) -> Result<Vec<FileStat>, BridgeError>;

    /// Looks at a file of a mount.
    async fn stat_file(&self, mount: usize, path: &str) -> Result<FileStat, BridgeError>;

    /// Ends all processes and lets go of the mounts. An error says that there were processes to end.
    async fn release(&self) -> Result<(), BridgeError>;
}
