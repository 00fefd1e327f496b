//! Containers in which frontends run programs.
//!
//! A frontend asks its [`crate::Bridge`] for a [`Container`] over refs of its build, starts processes in it, the first
//! of which is the container's init, and releases it. Containers that are not released end with the build.

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

/// A request for a container.
#[derive(Debug, Clone, Default)]
pub struct ContainerRequest {
    /// Mounts of the container; one of them is at `/`.
    pub mounts: Vec<ContainerMount>,
    /// `pb.NetMode`.
    pub network: i32,
    /// Platform whose default environment processes get.
    pub platform: Option<pb::Platform>,
    /// Hostname; empty for the default.
    pub hostname: String,
    /// Lines for `/etc/hosts`.
    pub extra_hosts: Vec<pb::HostIp>,
    /// Files that are in no layer of its mounts.
    pub files: Vec<ContainerFile>,
}

/// A file that only a container has. Its processes read it as root and cannot write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerFile {
    /// The absolute path in the container.
    pub path: String,
    /// What is in it.
    pub contents: Bytes,
}

/// A mount of a frontend's container.
#[derive(Debug, Clone)]
pub struct ContainerMount {
    /// Type and target of the mount. The indexes of inputs and outputs in it are ignored.
    pub mount: pb::Mount,
    /// The mounted ref; none for a mount without an input.
    pub source: Option<Arc<dyn Ref>>,
}

/// A request for a process.
pub struct ProcessRequest {
    /// Program, environment, user and working directory.
    pub meta: pb::Meta,
    /// Whether the process gets a terminal.
    pub tty: bool,
    /// `pb.SecurityMode`.
    pub security: i32,
    /// Secrets for the environment.
    pub secret_env: Vec<pb::SecretEnv>,
    /// Standard input; none is empty.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Takes standard output; shut down at its end.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Takes standard error; shut down at its end.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Signals and terminal sizes for the running process.
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

/// A signal for a running process, or the new size of its terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessControl {
    /// The terminal has a new size.
    Resize {
        /// Number of lines.
        rows: u16,
        /// Number of columns.
        cols: u16,
    },
    /// Number of a signal to send.
    Signal(i32),
}

/// A started process. Dropping it kills the process.
pub struct Process {
    /// Ends with the process; an error names its exit code, if it is not zero.
    pub ended: BoxFuture<'static, Result<(), BridgeError>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

/// A container of a frontend. One that is not released ends with its build.
#[async_trait]
pub trait Container: Send + Sync + fmt::Debug {
    /// Starts a process: the first one as the container's init, whose end kills all others.
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

    /// Returns the metadata of a file of a mount.
    async fn stat_file(&self, mount: usize, path: &str) -> Result<FileStat, BridgeError>;

    /// Kills all processes and releases the mounts. The error says that processes were still running.
    async fn release(&self) -> Result<(), BridgeError>;
}
