//! The daemon's side of the launcher: starting it, sending requests, and receiving events.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use sys::mount::{self, AttrChange, Attrs};
use sys::userns::{IdMapping, IdRange};
use sys::{path, process, socket};
use tokio::sync::oneshot;

use super::NAME;
use super::message::{Event, MAX_MESSAGE_BYTES, Request};
use crate::cgroup::Group;
use crate::error::ExecError;
use crate::spec::Usage;

/// How a process ended, and what it used.
#[derive(Debug)]
pub(super) struct ProcessExit {
    pub(super) code: u32,
    pub(super) usage: Usage,
}

/// A running launcher.
pub(super) struct Connection {
    socket: OwnedFd,
    next_seq: AtomicU64,
    shared: Arc<Shared>,
    ids: Result<Option<Arc<IdMapping>>, i32>,
    pub(super) pid: u32,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<HashMap<u64, Waiting>>,
    has_ended: AtomicBool,
}

struct Waiting {
    cloned: Option<oneshot::Sender<io::Result<OwnedFd>>>,
    ended: oneshot::Sender<ProcessExit>,
    /// The control group, which has to exist until the process has ended, also when nobody waits any more.
    _group: Option<Arc<Group>>,
}

/// A process that the launcher has cloned. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct ClonedProcess {
    pub(super) pidfd: OwnedFd,
    exit: Option<oneshot::Receiver<ProcessExit>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// Starts a launcher from `program`. Nothing of ours runs between fork and exec; the socket is its standard input.
    ///
    /// With `ids` it makes a user namespace of that range, which is waited for.
    pub(super) fn start(program: &Path, ids: Option<IdRange>) -> io::Result<Self> {
        let (ours, theirs) = socket::pair()?;
        let executable = read_only(program);
        let program = executable.as_ref().map_or_else(
            |_| program.to_owned(),
            |fd| mount::fd_path(fd.as_fd()).into(),
        );
        let child = Command::new(program)
            .arg0(NAME)
            .args(ids.map(|range| format!("{}:{}", range.base, range.count)))
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        // Steps inherit the limit of open files that this process was started with, not the raised one.
        sys::process::restore_open_files(child.id())?;
        let ids = match ids {
            Some(range) => namespace(&ours, range)?,
            None => Ok(None),
        };
        let pid = child.id();
        let shared = Arc::new(Shared::default());
        let (receiving, listener) = (ours.try_clone()?, Arc::clone(&shared));
        thread::Builder::new()
            .name("launcher".to_owned())
            .stack_size(256 << 10)
            .spawn(move || listen(&receiving, &listener, child))?;
        Ok(Self {
            socket: ours,
            next_seq: AtomicU64::new(0),
            shared,
            ids,
            pid,
        })
    }

    /// Whether the launcher has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.has_ended.load(Ordering::Acquire)
    }

    /// The user namespace of containers, if they are to have one.
    pub(super) fn ids(&self) -> Result<Option<Arc<IdMapping>>, ExecError> {
        self.ids.clone().map_err(|errno| ExecError::UserNamespace {
            source: io::Error::from_raw_os_error(errno),
        })
    }

    /// Has a process cloned. `group` is kept until the process has ended.
    pub(super) async fn clone_process(
        &self,
        request: impl FnOnce(u64) -> Request,
        fds: &[BorrowedFd<'_>],
        group: Option<Arc<Group>>,
    ) -> Result<ClonedProcess, ExecError> {
        let failed = ExecError::launcher("cloning a process");
        let seq = self.next_seq.fetch_add(1, Ordering::Relaxed);
        let (cloned, is_cloned) = oneshot::channel();
        let (ended, exit) = oneshot::channel();
        self.shared.waiting.lock().insert(
            seq,
            Waiting {
                cloned: Some(cloned),
                ended,
                _group: group,
            },
        );
        let bytes = serde_json::to_vec(&request(seq)).map_err(io::Error::from);
        let bytes = bytes.and_then(|bytes| match bytes.len() {
            0..=MAX_MESSAGE_BYTES => Ok(bytes),
            _ => Err(io::Error::from_raw_os_error(libc::E2BIG)),
        });
        if let Err(error) = bytes.and_then(|bytes| socket::send(&self.socket, &bytes, fds)) {
            self.shared.waiting.lock().remove(&seq);
            return Err(failed(error));
        }
        if self.has_ended() {
            // The launcher may have ended after the entry was made and before the request was sent.
            self.shared.waiting.lock().remove(&seq);
        }
        match is_cloned.await {
            Ok(Ok(pidfd)) => Ok(ClonedProcess {
                pidfd,
                exit: Some(exit),
            }),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(failed(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl ClonedProcess {
    /// Waits for the end. Cancel-safe.
    pub(super) async fn wait(&mut self) -> Result<ProcessExit, ExecError> {
        let Some(exit) = &mut self.exit else {
            return Err(ExecError::launcher("waiting for a process")(
                io::ErrorKind::InvalidInput.into(),
            ));
        };
        let result = exit.await;
        self.exit = None;
        result.map_err(|_closed| {
            ExecError::launcher("waiting for a process")(io::ErrorKind::BrokenPipe.into())
        })
    }
}

impl Drop for ClonedProcess {
    fn drop(&mut self) {
        if self.exit.is_some() {
            drop(process::pidfd_send_signal(&self.pidfd, libc::SIGKILL));
        }
    }
}

/// The program in a mount that nobody can write through, so that no container that gets hold of it can change it (CVE-2019-5736).
fn read_only(program: &Path) -> io::Result<OwnedFd> {
    let file = path::open_host_path(program)?;
    let copy = mount::open_tree_clone(&file, false)?;
    let set = Attrs {
        readonly: true,
        ..Attrs::default()
    };
    mount::mount_setattr(
        &copy,
        AttrChange {
            set,
            private: true,
            ..AttrChange::default()
        },
    )?;
    Ok(copy.into())
}

/// Receives the first event of a new launcher, which carries its user namespace or says why there is none.
fn namespace(socket: &OwnedFd, range: IdRange) -> io::Result<Result<Option<Arc<IdMapping>>, i32>> {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    let (length, fds) = socket::receive(socket, &mut buffer)?;
    let event = serde_json::from_slice(buffer.get(..length).unwrap_or_default())?;
    match (event, fds.into_iter().next()) {
        (Event::Namespace { errno: None }, Some(fd)) => {
            Ok(Ok(Some(Arc::new(IdMapping::new(fd, range)))))
        }
        (Event::Namespace { errno: Some(errno) }, _) => Ok(Err(errno)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Receives the launcher's events until it ends; then every waiting call fails.
fn listen(socket: &OwnedFd, shared: &Shared, mut child: Child) {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    while let Ok((length @ 1.., fds)) = socket::receive(socket, &mut buffer) {
        match serde_json::from_slice(buffer.get(..length).unwrap_or_default()) {
            Ok(event) => take_event(shared, event, fds),
            Err(error) => tracing::error!(%error, "the launcher speaks another language"),
        }
    }
    shared.has_ended.store(true, Ordering::Release);
    shared.waiting.lock().clear();
    drop(child.kill());
    match child.wait() {
        Ok(status) if status.success() => {}
        status => tracing::error!(?status, "container launcher ended"),
    }
}

fn take_event(shared: &Shared, event: Event, fds: Vec<OwnedFd>) {
    match event {
        Event::Namespace { .. } => {}
        Event::Cloned { seq } => {
            let waiter = shared
                .waiting
                .lock()
                .get_mut(&seq)
                .and_then(|waiting| waiting.cloned.take());
            let Some(pidfd) = fds.into_iter().next() else {
                return;
            };
            let refused = match waiter {
                Some(waiter) => waiter.send(Ok(pidfd)).err(),
                None => Some(Ok(pidfd)),
            };
            // The call was cancelled, so the process is killed.
            if let Some(Ok(pidfd)) = refused {
                drop(process::pidfd_send_signal(&pidfd, libc::SIGKILL));
            }
        }
        Event::Failed { seq, errno } => {
            let waiting = shared.waiting.lock().remove(&seq);
            if let Some(waiter) = waiting.and_then(|waiting| waiting.cloned) {
                drop(waiter.send(Err(io::Error::from_raw_os_error(errno))));
            }
        }
        Event::Ended {
            seq,
            code,
            user_micros,
            system_micros,
            max_rss,
            in_blocks,
            out_blocks,
        } => {
            let Some(waiting) = shared.waiting.lock().remove(&seq) else {
                return;
            };
            let usage = Usage {
                user: Duration::from_micros(user_micros),
                system: Duration::from_micros(system_micros),
                max_rss,
                memory_peak: 0,
                memory_held: 0,
                read_bytes: in_blocks.saturating_mul(512),
                write_bytes: out_blocks.saturating_mul(512),
            };
            let _ = waiting.ended.send(ProcessExit { code, usage });
        }
    }
}
