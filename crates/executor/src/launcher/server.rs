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
use rustix::fs::Mode;
use sys::memory::Text;
use sys::notify::Listener;
use sys::process::{self, Cloned, Namespaces, SingleThreaded};
use sys::{landlock, socket};

use super::init;
use super::message::{Event, MAX_MESSAGE_BYTES, NetworkPlan, Request};
use super::nested;
use super::setup::{self, Prepared};
use super::supervise::{self, Supervision};
use crate::cgroup::Hierarchies;
use crate::error::errno;

struct Server {
    prepared: Prepared,
    daemon: OwnedFd,
    children: HashMap<i32, Child>,
    /// Listeners at which no call has arrived yet.
    idle_listeners: Vec<IdleListener>,
    supervisors: HashMap<i32, SupervisorProcess>,
    hierarchies: Hierarchies,
    /// Where this program's code is mapped; `None` where procfs could not be read.
    text: Option<Text>,
    /// Whether work was done since pages of code were last given back.
    has_worked: bool,
}

struct Child {
    seq: u64,
    pidfd: OwnedFd,
    /// Whether it is the first process of a container, with which the whole container ends.
    is_first_process: bool,
    /// The container's control groups on the host, for its first process.
    groups: Vec<PathBuf>,
    /// The v2 control group of a container, for its supervisor.
    group: Option<OwnedFd>,
}

/// A listener without a supervisor.
struct IdleListener {
    seq: u64,
    listener: Listener,
    groups: Vec<OwnedFd>,
}

struct SupervisorProcess {
    seq: u64,
    pidfd: OwnedFd,
    /// The container that has ended. Its end is reported only when the supervisor has ended too, so that no process is left in its mounts and groups.
    ended_container: Option<(Child, Event)>,
}

/// What the process does after a round.
enum Next {
    Round,
    End,
    /// This process is the clone that supervises the listener's container.
    Supervise(IdleListener),
}

/// How long the kernel may take to end a container that was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long nothing happens before the pages of code that the last work needed are given back.
const IDLE_BEFORE_RELEASE: Duration = Duration::from_secs(5);

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
    let child_signals = process::child_signal_fd()?;
    let hierarchies = Hierarchies::open();
    let users = match setup::user_ids() {
        Some(range) => {
            let users = setup::prepare_users(&alone, range);
            let errno = users.as_ref().err().map(errno);
            let fds: Vec<BorrowedFd<'_>> = users.iter().map(|it| it.namespace.as_fd()).collect();
            socket::send(
                &daemon,
                &serde_json::to_vec(&Event::Namespace { errno })?,
                &fds,
            )?;
            users.ok()
        }
        None => None,
    };
    // It is read now: the launcher has no procfs later.
    let text = Text::of_process().ok();
    setup::leave_host_mounts(&alone)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let filter = if nested::has_one_id() {
        crate::seccomp::compile_pretending(super::default_capabilities())
    } else {
        crate::seccomp::compile(super::default_capabilities())
    };
    let mut server = Server {
        prepared: Prepared {
            alone,
            filter,
            scope: landlock::scope_abstract_sockets().unwrap_or_default(),
            users,
        },
        daemon,
        children: HashMap::new(),
        idle_listeners: Vec::new(),
        supervisors: HashMap::new(),
        hierarchies,
        text,
        has_worked: false,
    };
    // A daemon may wait long for its first build, and what prepared all this is not needed again.
    server.release_text();
    let idle = loop {
        match server.round(&child_signals)? {
            Next::Round => {}
            Next::End => {
                server.end();
                return Ok(());
            }
            Next::Supervise(idle) => break idle,
        }
    };
    drop(child_signals);
    let (alone, supervision) = server.into_supervision(idle)?;
    supervise::run(&alone, supervision)
}

impl Server {
    /// In the clone: keeps nothing of the daemon and of other containers.
    fn into_supervision(self, idle: IdleListener) -> io::Result<(SingleThreaded, Supervision)> {
        let users = self.prepared.users.ok_or(io::ErrorKind::InvalidInput)?;
        let supervision = Supervision {
            listener: idle.listener,
            procfs: users.procfs,
            namespace: users.namespace,
            ids: users.ids,
            groups: idle.groups,
        };
        // Standard input is the daemon's socket.
        let errors = io::stderr().as_fd().try_clone_to_owned()?;
        let procfs = supervision.procfs.as_fd();
        process::set_stdio([procfs, procfs, errors.as_fd()])?;
        Ok((self.prepared.alone, supervision))
    }

    /// Gives back the pages of code that are in memory; those that are needed come back by themselves.
    fn release_text(&mut self) {
        self.has_worked = false;
        if let Some(text) = &self.text {
            // Pages that cannot be given back only cost memory.
            drop(text.release());
        }
    }

    /// Waits for the next events, and handles them.
    fn round(&mut self, child_signals: &OwnedFd) -> io::Result<Next> {
        let mut polled = vec![
            PollFd::new(&self.daemon, PollFlags::IN),
            PollFd::new(child_signals, PollFlags::IN),
        ];
        let users = self.prepared.users.as_ref();
        polled.extend(users.map(|users| PollFd::new(&users.arriving, PollFlags::IN)));
        let before = polled.len();
        let listeners = self.idle_listeners.iter();
        polled.extend(listeners.map(|idle| PollFd::new(&idle.listener, PollFlags::IN)));
        let timeout = self
            .has_worked
            .then(|| Timespec::try_from(IDLE_BEFORE_RELEASE).ok())
            .flatten();
        let ready_count =
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, timeout.as_ref()))?;
        if ready_count == 0 {
            drop(polled);
            self.release_text();
            return Ok(Next::Round);
        }
        self.has_worked = true;
        let events: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        drop(polled);
        let (own_events, listener_events) = events.split_at_checked(before).unwrap_or_default();
        let ready = |index: usize| {
            own_events
                .get(index)
                .is_some_and(|events| !events.is_empty())
        };
        if ready(1) {
            let _ = rustix::io::read(child_signals, &mut [0; 1024]);
        }
        // From the last to the first, so that removing one does not move those that are still to be looked at.
        for (index, events) in listener_events.iter().enumerate().rev() {
            if events.is_empty() {
                continue;
            }
            let idle = self.idle_listeners.swap_remove(index);
            if events.contains(PollFlags::IN)
                && let Some(idle) = self.supervise(idle)
            {
                return Ok(Next::Supervise(idle));
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
            Some(child) if child.is_first_process => fds.collect(),
            _ => Vec::new(),
        };
        self.idle_listeners.push(IdleListener {
            seq,
            listener,
            groups,
        });
        Ok(())
    }

    /// Clones the supervisor of a listener; gives the listener in the clone. If that cannot be had the calls fail with ENOSYS.
    fn supervise(&mut self, idle: IdleListener) -> Option<IdleListener> {
        let seq = idle.seq;
        let container = self.children.values().find(|child| child.seq == seq);
        let group = container.and_then(|child| child.group.as_ref().map(AsFd::as_fd));
        let alone = &self.prepared.alone;
        let no_namespaces = Namespaces::default();
        // A container that may have no more processes shall still be answered.
        let cloned = process::clone3(alone, no_namespaces, group);
        match cloned.or_else(|_| process::clone3(alone, no_namespaces, None)) {
            Ok(Cloned::Child) => Some(idle),
            Ok(Cloned::Parent { pid, pidfd }) => {
                self.supervisors.insert(
                    pid,
                    SupervisorProcess {
                        seq,
                        pidfd,
                        ended_container: None,
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
        for SupervisorProcess {
            pidfd,
            ended_container,
            ..
        } in supervisors
        {
            ending.push((pidfd, Vec::new()));
            // The container comes behind its supervisor: its group can be removed when both have ended.
            ending.extend(ended_container.map(|(child, _)| (child.pidfd, child.groups)));
        }
        let children = self.children.drain().map(|(_, child)| child);
        ending.extend(children.map(|child| (child.pidfd, child.groups)));
        for (pidfd, _) in &ending {
            drop(process::pidfd_send_signal(pidfd, libc::SIGKILL));
        }
        let until = task::clock::monotonic() + KILL_TIMEOUT;
        for (pidfd, groups) in ending {
            // A descriptor of a process is readable when it has ended.
            let remaining = until.saturating_duration_since(task::clock::monotonic());
            let mut exits = [PollFd::new(&pidfd, PollFlags::IN)];
            let timeout = Timespec::try_from(remaining).ok();
            let _gone_or_late =
                rustix::io::retry_on_intr(|| rustix::event::poll(&mut exits, timeout.as_ref()));
            for group in &groups {
                self.hierarchies.remove(group);
            }
        }
    }

    /// Serves one request. `false` when the daemon is gone.
    fn handle(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
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
        let (seq, is_first_process, groups) = match request {
            Request::Run { seq, groups, .. } => (seq, true, groups),
            Request::Join { seq, .. } => (seq, false, Vec::new()),
        };
        match cloned {
            Ok((pid, pidfd, group)) => {
                // A daemon that is gone is noticed by the next poll, and this child must not be forgotten then.
                drop(self.tell(&Event::Cloned { seq }, &[pidfd.as_fd()]));
                let group = group.filter(|_| is_first_process && self.prepared.users.is_some());
                self.children.insert(
                    pid,
                    Child {
                        seq,
                        pidfd,
                        is_first_process,
                        groups,
                        group,
                    },
                );
            }
            Err(error) => self.tell(
                &Event::Failed {
                    seq,
                    errno: errno(&error),
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
        match request {
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
                let network = match network {
                    NetworkPlan::Given => Some(fds.next().ok_or_else(missing)?),
                    NetworkPlan::Host | NetworkPlan::New => None,
                };
                match process::clone3(alone, namespaces, group.as_ref().map(AsFd::as_fd))? {
                    Cloned::Child => init::run(&self.prepared, control, *seq, network),
                    Cloned::Parent { pid, pidfd } => Ok((pid, pidfd, group)),
                }
            }
            Request::Join { seq, cgroup } => {
                let target = fds.next().ok_or_else(missing)?;
                let group = if *cgroup {
                    Some(fds.next().ok_or_else(missing)?)
                } else {
                    None
                };
                let (pid, pidfd) = self.clone_into(&target, control, *seq, group.as_ref())?;
                Ok((pid, pidfd, group))
            }
        }
    }

    /// Clones a child into the process namespace of a container. Entering that is for good, because a launcher without the machine's root
    /// may not go back into its own: so a copy of this process enters, and clones the child for us.
    fn clone_into(
        &self,
        target: &OwnedFd,
        control: OwnedFd,
        seq: u64,
        group: Option<&OwnedFd>,
    ) -> io::Result<(i32, OwnedFd)> {
        let alone = &self.prepared.alone;
        let (ours, theirs) = socket::pair()?;
        match process::clone3(alone, Namespaces::default(), None)? {
            Cloned::Child => {
                drop(ours);
                let pids = Namespaces {
                    pid: true,
                    ..Namespaces::default()
                };
                let cloned = process::setns(alone, target, pids)
                    .and_then(|()| process::clone_sibling(alone, group.map(AsFd::as_fd)));
                let sent = match cloned {
                    Ok(Cloned::Child) => {
                        drop(theirs);
                        init::join(&self.prepared, control, seq, target)
                    }
                    Ok(Cloned::Parent { pid, pidfd }) => {
                        socket::send(&theirs, &pid.to_ne_bytes(), &[pidfd.as_fd()])
                    }
                    Err(error) => {
                        let errno = errno(&error).saturating_neg();
                        socket::send(&theirs, &errno.to_ne_bytes(), &[])
                    }
                };
                process::exit_now(i32::from(sent.is_err()))
            }
            // It ends at once, and is reaped with the others.
            Cloned::Parent { .. } => {}
        }
        drop(theirs);
        let mut answer = [0; size_of::<i32>()];
        let (length, fds) = socket::receive(&ours, &mut answer)?;
        let answer = i32::from_ne_bytes(answer);
        match fds.into_iter().next() {
            _ if length == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(pidfd) => Ok((answer, pidfd)),
            None => Err(io::Error::from_raw_os_error(answer.saturating_neg())),
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(exit)) = process::wait_any() {
            if let Some(supervisor) = self.supervisors.remove(&exit.pid) {
                if let Some((_child, event)) = supervisor.ended_container {
                    drop(self.tell(&event, &[]));
                }
                continue;
            }
            let Some(child) = self.children.remove(&exit.pid) else {
                continue;
            };
            let micros =
                |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            let event = Event::Ended {
                seq: child.seq,
                code: exit.code,
                user_micros: micros(exit.user),
                system_micros: micros(exit.system),
                max_rss: exit.max_rss,
                in_blocks: exit.in_blocks,
                out_blocks: exit.out_blocks,
            };
            let mut supervisors = self.supervisors.values_mut();
            match supervisors
                .find(|supervisor| child.is_first_process && supervisor.seq == child.seq)
            {
                Some(supervisor) => {
                    drop(process::pidfd_send_signal(&supervisor.pidfd, libc::SIGKILL));
                    supervisor.ended_container = Some((child, event));
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
