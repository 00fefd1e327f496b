//! An executor without containers: each run follows the next step of a script.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use executor::{
    ContainerId, ContainerSpec, ExecError, Executor, ExitStatus, MountSource, Output, ProcessIo,
    ProcessSpec, Resources, Ulimit,
};
use parking_lot::Mutex;
use sys::mount::DetachedMount;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{oneshot, watch};

/// What a step does with the mounts of its container, the root first as `/`.
type Work = Box<dyn FnOnce(&Mounts<'_>) + Send>;

/// What one scripted run does.
pub struct Step {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    work: Option<Work>,
    end: End,
}

enum End {
    Exit(ExitStatus),
    Fails(ExecError),
    Never,
}

impl Step {
    fn new(end: End) -> Self {
        Self {
            stdout: Vec::new(),
            stderr: Vec::new(),
            work: None,
            end,
        }
    }

    /// Its process exits with `code`.
    pub fn exits(code: u32) -> Self {
        Self::new(End::Exit(ExitStatus {
            code,
            ..ExitStatus::default()
        }))
    }

    /// The kernel kills its process for want of memory.
    pub fn runs_out_of_memory() -> Self {
        Self::new(End::Exit(ExitStatus {
            code: 137,
            oom: true,
            ..ExitStatus::default()
        }))
    }

    /// Its container had so many bytes of memory at most.
    #[must_use]
    pub fn has_memory_peak(mut self, bytes: u64) -> Self {
        if let End::Exit(status) = &mut self.end {
            status.usage.memory_peak = bytes;
        }
        self
    }

    /// Its process cannot be started or waited for.
    pub fn fails(error: ExecError) -> Self {
        Self::new(End::Fails(error))
    }

    /// Its process runs until it is killed.
    pub fn never_ends() -> Self {
        Self::new(End::Never)
    }

    /// Its process prints `stdout` and `stderr` first.
    #[must_use]
    pub fn prints(mut self, stdout: &str, stderr: &str) -> Self {
        self.stdout = stdout.into();
        self.stderr = stderr.into();
        self
    }

    /// Its process does `work` before it ends.
    #[must_use]
    pub fn does(mut self, work: impl FnOnce(&Mounts<'_>) + Send + 'static) -> Self {
        self.work = Some(Box::new(work));
        self
    }

    /// Its process writes a file; `path` begins with the destination of a mount or is one of the root's.
    #[must_use]
    pub fn writes(self, path: &str, contents: &str) -> Self {
        let (path, contents) = (path.to_owned(), contents.to_owned());
        self.does(move |mounts| std::fs::write(mounts.host_path(&path), contents).unwrap())
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").finish_non_exhaustive()
    }
}

/// The mounts of a container, for those who look at them from outside.
#[derive(Debug)]
pub struct Mounts<'a> {
    spec: &'a ContainerSpec,
}

impl Mounts<'_> {
    /// The path on this host of `path` in the container: that of the innermost mount around it. Selectors are followed by name.
    pub fn host_path(&self, path: &str) -> PathBuf {
        let around = |dest: &str| {
            let rest = path.strip_prefix(dest)?;
            (rest.is_empty() || rest.starts_with('/'))
                .then(|| rest.trim_start_matches('/').to_owned())
        };
        let innermost = self
            .spec
            .mounts
            .iter()
            .filter_map(|mount| Some((mount, around(&mount.dest)?)))
            .max_by_key(|(mount, _)| mount.dest.len());
        match innermost {
            None => in_mount(&self.spec.rootfs).join(path.trim_start_matches('/')),
            Some((mount, rest)) => match &mount.source {
                MountSource::Mount(source) => in_mount(source)
                    .join(mount.selector.trim_start_matches('/'))
                    .join(rest),
                MountSource::Place(_) | MountSource::Tmpfs { .. } | MountSource::File { .. } => {
                    panic!("the mount on {} is no tree", mount.dest)
                }
            },
        }
    }

    /// The names in a folder of the container, in order.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.host_path(path)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// Follows descriptors, as a path on this host. Good while the spec is alive.
fn in_mount(mount: &DetachedMount) -> PathBuf {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    format!("/proc/self/fd/{}", mount.as_fd().as_raw_fd()).into()
}

/// What the executor was given for one run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the spec")]
pub struct Run {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub user: String,
    pub tty: bool,
    pub readonly_root: bool,
    pub mounts: Vec<RunMount>,
    pub hostname: String,
    pub extra_hosts: Vec<(String, IpAddr)>,
    pub ulimits: Vec<Ulimit>,
    pub cgroup_parent: Option<String>,
    pub shm_size: Option<u64>,
    pub resources: Resources,
    pub remove_mount_stubs_recursive: bool,
}

/// A mount that a run was given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the mount")]
pub struct RunMount {
    pub dest: String,
    pub kind: RunMountKind,
    pub selector: String,
    pub readonly: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are those of the source")]
pub enum RunMountKind {
    Tree,
    Place,
    Tmpfs {
        size: Option<u64>,
    },
    File {
        contents: String,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

impl Run {
    fn of(spec: &ContainerSpec) -> Self {
        let mounts = spec.mounts.iter().map(|mount| RunMount {
            dest: mount.dest.clone(),
            selector: mount.selector.clone(),
            readonly: mount.readonly,
            kind: match &mount.source {
                MountSource::Mount(_) => RunMountKind::Tree,
                MountSource::Place(_) => RunMountKind::Place,
                MountSource::Tmpfs { size } => RunMountKind::Tmpfs { size: *size },
                MountSource::File {
                    contents,
                    mode,
                    uid,
                    gid,
                } => RunMountKind::File {
                    contents: String::from_utf8_lossy(contents).into_owned(),
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                },
            },
        });
        Self {
            mounts: mounts.collect(),
            args: spec.process.args.clone(),
            env: spec.process.env.clone(),
            cwd: spec.process.cwd.clone(),
            user: spec.process.user.clone(),
            tty: spec.process.tty,
            readonly_root: spec.readonly_root,
            hostname: spec.hostname.clone(),
            extra_hosts: spec.extra_hosts.clone(),
            ulimits: spec.ulimits.clone(),
            cgroup_parent: spec.cgroup_parent.clone(),
            shm_size: spec.shm_size,
            resources: spec.resources.clone(),
            remove_mount_stubs_recursive: spec.remove_mount_stubs_recursive,
        }
    }
}

/// An executor that follows a script: run number n does what step number n says. It has no further processes.
#[derive(Debug)]
pub struct ScriptedExecutor {
    script: Mutex<VecDeque<Step>>,
    runs: Mutex<Vec<Run>>,
    started: watch::Sender<usize>,
    killed: Arc<AtomicUsize>,
}

impl ScriptedExecutor {
    /// An executor for as many runs as there are steps; one more panics.
    pub fn new(script: impl IntoIterator<Item = Step>) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.into_iter().collect()),
            runs: Mutex::default(),
            started: watch::Sender::new(0),
            killed: Arc::default(),
        })
    }

    /// Adds a step at the end.
    pub fn then(&self, step: Step) {
        self.script.lock().push_back(step);
    }

    /// What the runs were given, in the order in which they began.
    pub fn runs(&self) -> Vec<Run> {
        self.runs.lock().clone()
    }

    /// Waits until `count` runs have begun in all.
    pub async fn wait_for_runs(&self, count: usize) {
        let mut started = self.started.subscribe();
        started.wait_for(|begun| *begun >= count).await.unwrap();
    }

    /// How many runs were dropped before their process ended.
    pub fn killed(&self) -> usize {
        self.killed.load(Ordering::SeqCst)
    }
}

/// Counts a run that is dropped while it is inside.
struct Alive(Option<Arc<AtomicUsize>>);

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(killed) = &self.0 {
            killed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn print(to: Output, bytes: Vec<u8>) {
    match to {
        Output::Null => {}
        Output::Sink(mut sink) => {
            if !bytes.is_empty() {
                sink.write(Bytes::from(bytes));
            }
        }
        Output::Stream(mut stream) => {
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    }
}

#[async_trait]
impl Executor for ScriptedExecutor {
    async fn run(
        &self,
        spec: ContainerSpec,
        io: ProcessIo,
        started: Option<oneshot::Sender<()>>,
    ) -> Result<ExitStatus, ExecError> {
        let step = self.script.lock().pop_front();
        let Some(step) = step else {
            panic!("the script has no step for {:?}", spec.process.args);
        };
        let mut alive = Alive(Some(Arc::clone(&self.killed)));
        self.runs.lock().push(Run::of(&spec));
        if let Some(started) = started {
            // Whoever asked may have gone.
            let _gone = started.send(());
        }
        print(io.stdout, step.stdout).await;
        print(io.stderr, step.stderr).await;
        if let Some(work) = step.work {
            work(&Mounts { spec: &spec });
        }
        self.started.send_modify(|begun| *begun += 1);
        let end = match step.end {
            End::Exit(status) => Ok(status),
            End::Fails(error) => Err(error),
            End::Never => std::future::pending().await,
        };
        alive.0 = None;
        end
    }

    async fn exec(
        &self,
        id: &ContainerId,
        _process: ProcessSpec,
        _io: ProcessIo,
    ) -> Result<ExitStatus, ExecError> {
        Err(ExecError::NotFound { id: id.to_string() })
    }
}
