//! The launcher process: one thread that clones containers and tells when they end.
//!
//! It lives in a mount namespace of its own with nothing in it, so that a container copies no mounts and finds none. It ends, and every
//! container with it, when the daemon does. Of containers in a user namespace it keeps the listener, until a call arrives that somebody
//! has to answer: then it clones their supervisor.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use sys::mount::{self, AttrChange, Attrs};
use sys::notify::{self, Listener};
use sys::process::{self, Cloned, Namespaces, SingleThreaded};
use sys::seccomp::Instruction;
use sys::userns::{self, IdRange};
use sys::{file, landlock, netns, path, socket};

use super::init::{self, QUIET};
use super::message::{Event, MAX_MESSAGE, NetworkPlan, Request};
use super::supervise::{self, Supervision};
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
    /// For containers in a user namespace, if they are to have one.
    pub(super) users: Option<Users>,
}

/// What containers in a user namespace have beside the others.
#[derive(Debug)]
pub(super) struct Users {
    /// Their namespace, one for all.
    pub(super) namespace: OwnedFd,
    ids: IdRange,
    /// Their filter, which asks.
    pub(super) filter: Vec<Instruction>,
    /// Where a new process sends its listener and its v1 control groups, with its number.
    pub(super) listeners: OwnedFd,
    /// The other end.
    arriving: OwnedFd,
    procfs: OwnedFd,
}

struct Server {
    prepared: Prepared,
    daemon: OwnedFd,
    own_pids: OwnedFd,
    own_network: OwnedFd,
    children: HashMap<i32, Child>,
    /// Listeners at which nothing has arrived yet.
    quiet: Vec<Quiet>,
    supervisors: HashMap<i32, Supervisor>,
    hierarchies: Hierarchies,
}

struct Child {
    seq: u64,
    pidfd: OwnedFd,
    /// It is the first process of a container; nothing of that is left when it has ended.
    first: bool,
    /// Its control groups, if it is a container.
    groups: Vec<PathBuf>,
    /// The v2 control group of a container, for its supervisor.
    group: Option<OwnedFd>,
}

/// A listener without a supervisor.
struct Quiet {
    seq: u64,
    listener: Listener,
    groups: Vec<OwnedFd>,
}

struct Supervisor {
    seq: u64,
    pidfd: OwnedFd,
    /// The container that has ended, which is told when this has: so nothing of ours is in its mounts and groups.
    ended: Option<(Child, Event)>,
}

/// What is to be done after a round.
enum Next {
    Round,
    End,
    /// This process is the clone that does this.
    Supervise(Quiet),
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
    let own_network = netns::current()?;
    let hierarchies = Hierarchies::open();
    let users = match wanted_ids() {
        Some(range) => {
            let made = users(&alone, range);
            let errno = made.as_ref().err().map(init::errno);
            let fds: Vec<BorrowedFd<'_>> = made.iter().map(|it| it.namespace.as_fd()).collect();
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
            users,
        },
        daemon,
        own_pids,
        own_network,
        children: HashMap::new(),
        quiet: Vec::new(),
        supervisors: HashMap::new(),
        hierarchies,
    };
    let quiet = loop {
        match server.round(&ended)? {
            Next::Round => {}
            Next::End => {
                server.end();
                return Ok(());
            }
            Next::Supervise(quiet) => break quiet,
        }
    };
    drop(ended);
    let (alone, supervision) = server.into_supervision(quiet)?;
    supervise::run(&alone, supervision)
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

/// Makes what containers in a user namespace need, and finds out whether the kernel has it all.
fn users(alone: &SingleThreaded, ids: IdRange) -> io::Result<Users> {
    supervise::check()?;
    let filter = crate::seccomp::compile_supervised(super::default_capabilities())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSYS))?;
    let (arriving, listeners) = socket::pair()?;
    let users = Users {
        namespace: user_namespace(alone, ids)?,
        ids,
        filter,
        listeners,
        arriving,
        procfs: mount::new_mount(c"proc", &[], QUIET)?.into(),
    };
    try_listener(alone, &users.filter)?;
    Ok(users)
}

/// Has a child install the filter: the kernel may not know it, and a daemon whose own calls somebody supervises cannot give steps
/// another supervisor.
fn try_listener(alone: &SingleThreaded, filter: &[Instruction]) -> io::Result<()> {
    let pidfd = match process::clone3(alone, Namespaces::default(), None)? {
        Cloned::Child => process::exit_now(match notify::install(filter) {
            Ok(_listener) => 0,
            Err(error) => init::errno(&error),
        }),
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut ended, None))?;
    match process::wait_any()?.map(|ended| ended.code) {
        Some(0) => Ok(()),
        code => Err(io::Error::from_raw_os_error(
            code.and_then(|code| i32::try_from(code).ok())
                .unwrap_or(libc::EIO),
        )),
    }
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
    /// In the clone: keeps nothing of the daemon and of other containers.
    fn into_supervision(self, quiet: Quiet) -> io::Result<(SingleThreaded, Supervision)> {
        let users = self.prepared.users.ok_or(io::ErrorKind::InvalidInput)?;
        let supervision = Supervision {
            listener: quiet.listener,
            procfs: users.procfs,
            namespace: users.namespace,
            ids: users.ids,
            groups: quiet.groups,
        };
        // Standard input is the daemon's socket.
        let errors = io::stderr().as_fd().try_clone_to_owned()?;
        let procfs = supervision.procfs.as_fd();
        process::set_stdio([procfs, procfs, errors.as_fd()])?;
        Ok((self.prepared.alone, supervision))
    }

    /// Waits for what happens next, and sees to it.
    fn round(&mut self, ended: &OwnedFd) -> io::Result<Next> {
        let mut polled = vec![
            PollFd::new(&self.daemon, PollFlags::IN),
            PollFd::new(ended, PollFlags::IN),
        ];
        let users = self.prepared.users.as_ref();
        polled.extend(users.map(|users| PollFd::new(&users.arriving, PollFlags::IN)));
        let before = polled.len();
        let listeners = self.quiet.iter();
        polled.extend(listeners.map(|quiet| PollFd::new(&quiet.listener, PollFlags::IN)));
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))?;
        let happened: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        drop(polled);
        let (own, listeners) = happened.split_at_checked(before).unwrap_or_default();
        let ready = |index: usize| own.get(index).is_some_and(|events| !events.is_empty());
        if ready(1) {
            let _ = rustix::io::read(ended, &mut [0; 1024]);
        }
        // From behind, so that those before stay where they are.
        for (index, events) in listeners.iter().enumerate().rev() {
            if events.is_empty() {
                continue;
            }
            let quiet = self.quiet.swap_remove(index);
            if events.contains(PollFlags::IN)
                && let Some(quiet) = self.supervise(quiet)
            {
                return Ok(Next::Supervise(quiet));
            }
        }
        if ready(2) {
            self.take_listener()?;
        }
        if ready(1) {
            self.reap();
        }
        if ready(0) && !self.handle()? {
            return Ok(Next::End);
        }
        Ok(Next::Round)
    }

    /// Takes the listener of a process that is being started.
    fn take_listener(&mut self) -> io::Result<()> {
        let Some(users) = &self.prepared.users else {
            return Ok(());
        };
        let mut seq = [0; 8];
        let (_, fds) = socket::receive(&users.arriving, &mut seq)?;
        let seq = u64::from_ne_bytes(seq);
        let mut fds = fds.into_iter();
        let Some(listener) = fds.next().map(Listener::from) else {
            return Ok(());
        };
        // A further process may have children that stay when it ends: theirs is in no control group that has to go with it.
        let container = self.children.values().find(|child| child.seq == seq);
        let groups = match container {
            Some(child) if child.first => fds.collect(),
            _ => Vec::new(),
        };
        self.quiet.push(Quiet {
            seq,
            listener,
            groups,
        });
        Ok(())
    }

    /// Clones the supervisor of a listener; gives the listener in the clone. If that cannot be had the calls fail with ENOSYS.
    fn supervise(&mut self, quiet: Quiet) -> Option<Quiet> {
        let seq = quiet.seq;
        let container = self.children.values().find(|child| child.seq == seq);
        let group = container.and_then(|child| child.group.as_ref().map(AsFd::as_fd));
        let alone = &self.prepared.alone;
        let none = Namespaces::default();
        // A container that may have no more processes shall still be answered.
        let cloned = process::clone3(alone, none, group);
        match cloned.or_else(|_| process::clone3(alone, none, None)) {
            Ok(Cloned::Child) => Some(quiet),
            Ok(Cloned::Parent { pid, pidfd }) => {
                self.supervisors.insert(
                    pid,
                    Supervisor {
                        seq,
                        pidfd,
                        ended: None,
                    },
                );
                None
            }
            Err(_) => None,
        }
    }

    /// Ends what runs, and removes the groups that the daemon would have removed.
    fn end(&mut self) {
        let supervisors = self.supervisors.drain().map(|(_, supervisor)| supervisor);
        let mut ending = Vec::new();
        for Supervisor { pidfd, ended, .. } in supervisors {
            ending.push((pidfd, Vec::new()));
            // Behind it, for its group goes when both have ended.
            ending.extend(ended.map(|(child, _)| (child.pidfd, child.groups)));
        }
        let children = self.children.drain().map(|(_, child)| child);
        ending.extend(children.map(|child| (child.pidfd, child.groups)));
        for (pidfd, _) in &ending {
            drop(process::pidfd_send_signal(pidfd, libc::SIGKILL));
        }
        let until = task::clock::monotonic() + DEATH;
        for (pidfd, groups) in ending {
            // A descriptor of a process is readable when it has ended.
            let left = until.saturating_duration_since(task::clock::monotonic());
            let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
            let timeout = Timespec::try_from(left).ok();
            let _gone_or_late =
                rustix::io::retry_on_intr(|| rustix::event::poll(&mut ended, timeout.as_ref()));
            for group in &groups {
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
        let (seq, first, groups) = match request {
            Request::Run { seq, groups, .. } => (seq, true, groups),
            Request::Join { seq, .. } => (seq, false, Vec::new()),
        };
        match cloned {
            Ok((pid, pidfd, group)) => {
                // A daemon that is gone is noticed by the next poll, and this child must not be forgotten then.
                drop(self.tell(&Event::Cloned { seq }, &[pidfd.as_fd()]));
                let group = group.filter(|_| first && self.prepared.users.is_some());
                self.children.insert(
                    pid,
                    Child {
                        seq,
                        pidfd,
                        first,
                        groups,
                        group,
                    },
                );
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
    ) -> io::Result<(i32, OwnedFd, Option<OwnedFd>)> {
        let missing = || io::Error::from_raw_os_error(libc::EBADF);
        let control = fds.next().ok_or_else(missing)?;
        let alone = &self.prepared.alone;
        let (cloned, seq, group) = match request {
            Request::Run {
                seq,
                network,
                cgroup_namespace,
                cgroup,
                ..
            } => {
                let namespaces = Namespaces {
                    pid: true,
                    mount: true,
                    ipc: true,
                    uts: true,
                    net: *network == NetworkPlan::New,
                    cgroup: *cgroup_namespace,
                    // Entered by the process itself, when everything it sees has been made by root.
                    user: false,
                };
                let group = if *cgroup {
                    Some(fds.next().ok_or_else(missing)?)
                } else {
                    None
                };
                let clone = || process::clone3(alone, namespaces, group.as_ref().map(AsFd::as_fd));
                if *network != NetworkPlan::Given {
                    (clone()?, *seq, group)
                } else {
                    // A clone begins in the network of who cloned it.
                    let given = fds.next().ok_or_else(missing)?;
                    netns::enter(&given)?;
                    let cloned = clone();
                    if matches!(cloned, Ok(Cloned::Child)) {
                        drop(given);
                        init::run(&self.prepared, control, *seq);
                    }
                    netns::enter(&self.own_network)?;
                    (cloned?, *seq, group)
                }
            }
            Request::Join { seq, cgroup } => {
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
                    init::join(&self.prepared, control, *seq, &target);
                }
                process::setns(alone, &self.own_pids, pids)?;
                (cloned?, *seq, group)
            }
        };
        match cloned {
            Cloned::Child => init::run(&self.prepared, control, seq),
            Cloned::Parent { pid, pidfd } => Ok((pid, pidfd, group)),
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(ended)) = process::wait_any() {
            if let Some(supervisor) = self.supervisors.remove(&ended.pid) {
                if let Some((_child, event)) = supervisor.ended {
                    drop(self.tell(&event, &[]));
                }
                continue;
            }
            let Some(child) = self.children.remove(&ended.pid) else {
                continue;
            };
            let micros =
                |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let event = Event::Ended {
                seq: child.seq,
                code: ended.code,
                user_micros: micros(ended.user),
                system_micros: micros(ended.system),
                max_rss: ended.max_rss,
                in_blocks: ended.in_blocks,
                out_blocks: ended.out_blocks,
            };
            let mut supervisors = self.supervisors.values_mut();
            match supervisors.find(|supervisor| child.first && supervisor.seq == child.seq) {
                Some(supervisor) => {
                    drop(process::pidfd_send_signal(&supervisor.pidfd, libc::SIGKILL));
                    supervisor.ended = Some((child, event));
                }
                // A daemon that is gone is noticed by the next poll.
                None => drop(self.tell(&event, &[])),
            }
        }
    }

    fn tell(&self, event: &Event, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket::send(&self.daemon, &serde_json::to_vec(event)?, fds)
    }
}
