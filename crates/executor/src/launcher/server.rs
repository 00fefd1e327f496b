//! The launcher process: one thread that clones containers and tells when they end.
//!
//! It lives in a mount namespace of its own with nothing in it, so that a container copies no mounts and finds none. It ends, and every
//! container with it, when the daemon does.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use sys::mount::{self, AttrChange, Attrs};
use sys::process::{self, Cloned, Namespaces, SingleThreaded};
use sys::seccomp::Instruction;
use sys::userns::{self, IdRange};
use sys::{file, landlock, path, socket};

use super::init;
use super::message::{Event, MAX_MESSAGE, Request};
use crate::cgroup::Hierarchies;

/// Where a container's root is attached before it becomes the root.
pub(super) const ROOT_PLACE: &str = "/root";
/// Where a container's own small files are made.
pub(super) const FILES_PLACE: &str = "/files";

/// What the launcher prepares once for all containers.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) alone: SingleThreaded,
    pub(super) filter: Option<Vec<Instruction>>,
    /// Keeps confined processes from the host's abstract sockets; none on kernels that know no such thing.
    pub(super) scope: Option<OwnedFd>,
    /// The user namespace of containers, if they are to have one.
    pub(super) namespace: Option<OwnedFd>,
}

struct Server {
    prepared: Prepared,
    daemon: OwnedFd,
    own_pids: OwnedFd,
    children: HashMap<i32, Child>,
    hierarchies: Hierarchies,
}

struct Child {
    seq: u64,
    pidfd: OwnedFd,
    /// Its control groups, if it is a container.
    groups: Vec<PathBuf>,
}

/// How long the kernel may take to end a container that was killed.
const DEATH: Duration = Duration::from_secs(2);

/// Serves the daemon at the other end of standard input until it goes away.
pub(super) fn serve() -> io::Result<()> {
    let alone = SingleThreaded::claim()?;
    let daemon = io::stdin().as_fd().try_clone_to_owned()?;
    let _ = rustix::process::setsid();
    for signal in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGPIPE,
        libc::SIGQUIT,
    ] {
        process::ignore_signal(signal);
    }
    let ended = process::child_signal_fd()?;
    let own_pids = rustix::fs::open(
        "/proc/self/ns/pid",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let hierarchies = Hierarchies::open();
    let namespace = match wanted_ids() {
        Some(range) => {
            let made = user_namespace(&alone, range);
            let errno = made.as_ref().err().map(init::errno);
            let fds: Vec<BorrowedFd<'_>> = made.iter().map(AsFd::as_fd).collect();
            socket::send(
                &daemon,
                &serde_json::to_vec(&Event::Namespace { errno })?,
                &fds,
            )?;
            made.ok()
        }
        None => None,
    };
    leave_host_mounts(&alone)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let filter = crate::seccomp::compile(super::default_capabilities());
    let mut server = Server {
        prepared: Prepared {
            alone,
            filter,
            scope: landlock::scope_abstract_sockets().unwrap_or_default(),
            namespace,
        },
        daemon,
        own_pids,
        children: HashMap::new(),
        hierarchies,
    };
    loop {
        let mut polled = [
            PollFd::new(&server.daemon, PollFlags::IN),
            PollFd::new(&ended, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))?;
        let [request, child] = polled.map(|fd| !fd.revents().is_empty());
        if child {
            let _ = rustix::io::read(&ended, &mut [0; 1024]);
            server.reap();
        }
        if request && !server.handle()? {
            server.end();
            return Ok(());
        }
    }
}

/// The range of ids that the daemon wrote into our arguments: base and count.
fn wanted_ids() -> Option<IdRange> {
    let argument = std::env::args().nth(1)?;
    let (base, count) = argument.split_once(':')?;
    Some(IdRange {
        base: base.parse().ok()?,
        count: count.parse().ok()?,
    })
}

/// Makes a user namespace: a child is cloned into it for as long as it takes to open it.
fn user_namespace(alone: &SingleThreaded, range: IdRange) -> io::Result<OwnedFd> {
    let own = Namespaces {
        user: true,
        ..Namespaces::default()
    };
    let (pid, pidfd) = match process::clone3(alone, own, None)? {
        Cloned::Child => {
            drop(process::die_with_parent());
            loop {
                rustix::event::pause();
            }
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let made = userns::write_maps(pid, range).and_then(|()| userns::open(pid));
    process::pidfd_send_signal(&pidfd, libc::SIGKILL)?;
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut ended, None))?;
    process::wait_any()?;
    made
}

/// Exchanges the host's mounts for an empty filesystem.
fn leave_host_mounts(alone: &SingleThreaded) -> io::Result<()> {
    process::unshare(
        alone,
        Namespaces {
            mount: true,
            ..Namespaces::default()
        },
    )?;
    let root = path::open_host_path("/")?;
    mount::mount_setattr(
        &root,
        AttrChange {
            private: true,
            recursive: true,
            ..AttrChange::default()
        },
    )?;
    let empty = mount::new_mount(
        c"tmpfs",
        &[("mode", "0755"), ("size", "64k")],
        Attrs {
            nodev: true,
            ..Attrs::default()
        },
    )?;
    for place in [ROOT_PLACE, FILES_PLACE] {
        file::mkdirat(&empty, place.trim_start_matches('/'), 0o700)?;
    }
    mount::move_mount(&empty, &root)?;
    rustix::process::fchdir(&empty)?;
    mount::pivot_root_here()?;
    mount::umount_detach(c".")?;
    Ok(rustix::process::chdir("/")?)
}

impl Server {
    /// Ends what runs, and removes the groups that the daemon would have removed.
    fn end(&mut self) {
        let children: Vec<Child> = self.children.drain().map(|(_, child)| child).collect();
        for child in &children {
            drop(process::pidfd_send_signal(&child.pidfd, libc::SIGKILL));
        }
        let until = Instant::now() + DEATH;
        for child in children {
            // A descriptor of a process is readable when it has ended.
            let left = until.saturating_duration_since(Instant::now());
            let mut ended = [PollFd::new(&child.pidfd, PollFlags::IN)];
            let timeout = Timespec::try_from(left).ok();
            let _gone_or_late =
                rustix::io::retry_on_intr(|| rustix::event::poll(&mut ended, timeout.as_ref()));
            for group in &child.groups {
                self.hierarchies.remove(group);
            }
        }
    }

    /// Serves one request. `false` when the daemon is gone.
    fn handle(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let (length, fds) = match socket::receive(&self.daemon, &mut buffer) {
            // Too many descriptors for this process, or too long, which the daemon checks before. It must not end all that run.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.refuse(&buffer)?;
                return Ok(true);
            }
            received => received?,
        };
        if length == 0 {
            return Ok(false);
        }
        let request: Request = serde_json::from_slice(buffer.get(..length).unwrap_or_default())?;
        let mut fds = fds.into_iter();
        let cloned = self.clone_child(&request, &mut fds);
        let (seq, groups) = match request {
            Request::Run { seq, groups, .. } => (seq, groups),
            Request::Join { seq, .. } => (seq, Vec::new()),
        };
        match cloned {
            Ok((pid, pidfd)) => {
                // A daemon that is gone is noticed by the next poll, and this child must not be forgotten then.
                drop(self.tell(&Event::Cloned { seq }, &[pidfd.as_fd()]));
                self.children.insert(pid, Child { seq, pidfd, groups });
            }
            Err(error) => self.tell(
                &Event::Failed {
                    seq,
                    errno: error.raw_os_error().unwrap_or(libc::EIO),
                },
                &[],
            )?,
        }
        Ok(true)
    }

    /// Tells the daemon that a request which arrived without all of its descriptors cannot be served.
    fn refuse(&self, buffer: &[u8]) -> io::Result<()> {
        let mut requests = serde_json::Deserializer::from_slice(buffer).into_iter();
        let Some(Ok(Request::Run { seq, .. } | Request::Join { seq, .. })) = requests.next() else {
            return Ok(());
        };
        let errno = libc::EMFILE;
        self.tell(&Event::Failed { seq, errno }, &[])
    }

    fn clone_child(
        &self,
        request: &Request,
        fds: &mut dyn Iterator<Item = OwnedFd>,
    ) -> io::Result<(i32, OwnedFd)> {
        let missing = || io::Error::from_raw_os_error(libc::EBADF);
        let control = fds.next().ok_or_else(missing)?;
        let alone = &self.prepared.alone;
        let cloned = match request {
            Request::Run {
                net,
                cgroup_namespace,
                cgroup,
                ..
            } => {
                let namespaces = Namespaces {
                    pid: true,
                    mount: true,
                    ipc: true,
                    uts: true,
                    net: *net,
                    cgroup: *cgroup_namespace,
                    // Entered by the process itself, when everything it sees has been made by root.
                    user: false,
                };
                let group = if *cgroup {
                    Some(fds.next().ok_or_else(missing)?)
                } else {
                    None
                };
                process::clone3(alone, namespaces, group.as_ref().map(AsFd::as_fd))?
            }
            Request::Join { cgroup, .. } => {
                let target = fds.next().ok_or_else(missing)?;
                let group = if *cgroup {
                    Some(fds.next().ok_or_else(missing)?)
                } else {
                    None
                };
                let pids = Namespaces {
                    pid: true,
                    ..Namespaces::default()
                };
                process::setns(alone, &target, pids)?;
                let cloned = process::clone3(
                    alone,
                    Namespaces::default(),
                    group.as_ref().map(AsFd::as_fd),
                );
                if matches!(cloned, Ok(Cloned::Child)) {
                    init::join(&self.prepared, control, &target);
                }
                process::setns(alone, &self.own_pids, pids)?;
                cloned?
            }
        };
        match cloned {
            Cloned::Child => init::run(&self.prepared, control),
            Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(ended)) = process::wait_any() {
            let Some(Child { seq, .. }) = self.children.remove(&ended.pid) else {
                continue;
            };
            let micros =
                |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            // A daemon that is gone is noticed by the next poll.
            drop(self.tell(
                &Event::Ended {
                    seq,
                    code: ended.code,
                    user_micros: micros(ended.user),
                    system_micros: micros(ended.system),
                    max_rss: ended.max_rss,
                    in_blocks: ended.in_blocks,
                    out_blocks: ended.out_blocks,
                },
                &[],
            ));
        }
    }

    fn tell(&self, event: &Event, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket::send(&self.daemon, &serde_json::to_vec(event)?, fds)
    }
}
