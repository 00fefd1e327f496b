//! The supervisor of a container in a user namespace: it does what the kernel lets only the host's root do, and the container's
//! processes could do without a namespace.
//!
//! The calls come from the container's seccomp filter (seccomp_unotify(2)): device nodes, raw sockets, low ports. The launcher clones this
//! process when the first one arrives, into the container's control group, so that a container which asks much slows itself down. It
//! serves one call after the other, and ends when no process has the filter any more.
//!
//! What a call's arguments point to is copied once. After everything of the caller has been opened by its number the notification must
//! still be valid, or the number may be another's; only then is something done, with the copy, and with the caller's ids and no more
//! capabilities than it has itself. Where the caller has no right to the call, or something of it cannot be read, the kernel goes on with
//! the call as if nobody had been asked, and refuses it: no check here decides what is allowed then.

mod caller;

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use sys::caps::Set;
use sys::notify::{self, Answer, Listener, Notification};
use sys::process::{self, Namespaces, SingleThreaded};
use sys::userns::IdRange;
use sys::{caps, path, socket, userns};

use crate::error::errno;
use crate::seccomp::{Supervised, supervised};
use caller::Caller;

/// The capabilities that the supervisor keeps, as far as the daemon has them.
const SUPERVISOR_CAPABILITIES: [&str; 11] = [
    // The processes of a container: their folders, memory and descriptors.
    "SYS_PTRACE",
    "SYS_CHROOT",
    "SETUID",
    "SETGID",
    // Joining their network.
    "SYS_ADMIN",
    // What they could do.
    "MKNOD",
    "NET_RAW",
    "NET_BIND_SERVICE",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
];

/// The capabilities that override permissions of files whose owner the caller's namespace has.
const FILE_CAPABILITIES: [&str; 2] = ["DAC_OVERRIDE", "FOWNER"];

/// The longest address, struct sockaddr_storage.
const MAX_ADDRESS_BYTES: usize = 128;

/// Ports below this one need a capability where the network does not say otherwise.
const FIRST_OPEN_PORT: u16 = 1024;

/// What a supervisor needs to serve a container's calls.
#[derive(Debug)]
pub(super) struct Supervision {
    /// The listener of the container's seccomp filter, at which the calls arrive.
    pub(super) listener: Listener,
    /// procfs of the launcher's process namespace.
    pub(super) procfs: OwnedFd,
    /// The user namespace of containers.
    pub(super) namespace: OwnedFd,
    /// The host's ids of that namespace.
    pub(super) ids: IdRange,
    /// The `cgroup.procs` files of the container's v1 groups, into which the supervisor writes itself.
    pub(super) groups: Vec<OwnedFd>,
}

/// Whether a supervisor can look into a container's processes on this machine.
pub(super) fn check() -> io::Result<()> {
    let never = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
        .is_ok_and(|scope| scope.trim() == "3");
    if never || !caps::permitted()?.has("SYS_PTRACE") {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

/// Serves a container's calls until its last process is gone.
pub(super) fn run(alone: &SingleThreaded, supervision: Supervision) -> ! {
    drop(process::die_with_parent());
    for group in &supervision.groups {
        // Where a controller refuses, the supervisor stays in the launcher's group.
        let _ = rustix::io::write(group, b"0");
    }
    let code = match Supervisor::new(alone, supervision).and_then(|mut it| it.serve()) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    process::exit_now(code)
}

struct Supervisor<'a> {
    alone: &'a SingleThreaded,
    supervision: Supervision,
    /// The supervisor's own root folder, to return to.
    home: OwnedFd,
    /// The capabilities that this process has.
    capabilities: Set,
    /// The inode of the containers' user namespace.
    namespace: u64,
    /// The first port that everybody may bind in the container's network, once that has been entered.
    open_ports: Option<u16>,
}

/// Why the supervisor does not do what a call asks for.
enum Refusal {
    /// The kernel goes on with the call, and refuses it.
    ByKernel,
    /// The caller is gone.
    Gone,
    /// The call fails with this error.
    With(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::ByKernel
    }
}

impl<'a> Supervisor<'a> {
    fn new(alone: &'a SingleThreaded, supervision: Supervision) -> io::Result<Self> {
        let capabilities = Set(Set::of(&SUPERVISOR_CAPABILITIES).0 & caps::permitted()?.0);
        caps::set(capabilities, capabilities, Set::default())?;
        Ok(Self {
            alone,
            home: path::open_host_path("/")?,
            capabilities,
            namespace: rustix::fs::fstat(&supervision.namespace)?.st_ino,
            supervision,
            open_ports: None,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let mut polled = [PollFd::new(&self.supervision.listener, PollFlags::IN)];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))?;
            let [events] = polled.map(|fd| fd.revents());
            if events.contains(PollFlags::IN) {
                if let Some(call) = self.supervision.listener.receive()? {
                    self.answer(&call)?;
                }
            } else if !events.is_empty() {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, call: &Notification) -> io::Result<()> {
        let result = match supervised(call.architecture, call.number) {
            Some(Supervised::Mknod) => {
                let [path, mode, device, ..] = call.args;
                self.make_node(call, libc::AT_FDCWD, path, (mode, device))
            }
            Some(Supervised::Mknodat) => {
                let [folder, path, mode, device, ..] = call.args;
                self.make_node(call, number(folder), path, (mode, device))
            }
            Some(Supervised::Socket) => self.open_socket(call),
            Some(Supervised::Bind) => self.bind(call),
            None => Err(Refusal::ByKernel),
        };
        let answer = match result {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(Refusal::Gone) => return Ok(()),
            Err(Refusal::ByKernel) => Answer::Continue,
            Err(Refusal::With(error)) => Answer::Error(errno(&error)),
        };
        match self.supervision.listener.answer(call.id, answer) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Opens what procfs has of the caller; only of one that may use the capability in the containers' user namespace.
    fn caller(&self, call: &Notification, capability: &str) -> Result<Caller, Refusal> {
        let caller = Caller::open(&self.supervision.procfs, call.thread)?;
        if !caller.capabilities.has(capability) || caller.user_namespace()? != self.namespace {
            return Err(Refusal::ByKernel);
        }
        Ok(caller)
    }

    /// Makes sure that everything opened until now is of the caller: it still waits, so its number was not given to another process.
    fn confirm(&self, call: &Notification) -> Result<(), Refusal> {
        if self.supervision.listener.is_waiting(call.id) {
            Ok(())
        } else {
            Err(Refusal::Gone)
        }
    }

    /// Makes a device node for the caller: in its root, as its user, with its umask.
    fn make_node(
        &self,
        call: &Notification,
        folder: i32,
        path: u64,
        (mode, device): (u64, u64),
    ) -> Result<Option<Answer>, Refusal> {
        let caller = self.caller(call, "MKNOD")?;
        let path = caller.path(path)?;
        let root = caller.folder("root")?;
        let base = match folder {
            // The kernel does not look at the descriptor of an absolute path either.
            _ if path.first() == Some(&b'/') => root.try_clone()?,
            libc::AT_FDCWD => caller.folder("cwd")?,
            number => caller.folder(&format!("fd/{number}"))?,
        };
        self.confirm(call)?;
        let (parent, name) = split(&path);
        let make = || -> io::Result<()> {
            rustix::process::fchdir(&root)?;
            rustix::process::chroot(".")?;
            // The supervisor could not return to its own ids with fewer capabilities.
            let mut rights = Set::of(&FILE_CAPABILITIES).0 & caller.capabilities.0;
            let parent = self.as_caller(&caller, Set(rights), || {
                if parent.is_empty() {
                    return Ok(base);
                }
                // DIFFERS: the links of procfs are not followed. They lead to whatever a process holds, and this one may look into all,
                // also into those that are being set up.
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::NO_MAGICLINKS;
                Ok(rustix::fs::openat2(
                    &base,
                    parent,
                    flags,
                    Mode::empty(),
                    resolve,
                )?)
            })?;
            let stat = rustix::fs::fstat(&parent)?;
            // As the kernel has it for a capability in a namespace: it is one over files whose owner the namespace has.
            if !self.has(stat.st_uid) || !self.has(stat.st_gid) {
                rights = 0;
            }
            rights |= Set::of(&["MKNOD"]).0 | Set::of(&["FSETID"]).0 & caller.capabilities.0;
            self.as_caller(&caller, Set(rights), || {
                let umask = rustix::process::umask(Mode::from_raw_mode(caller.umask));
                let (major, minor) = numbers(device);
                let mode = u32::try_from(mode & 0xffff).unwrap_or_default();
                let result = sys::file::mknodat(&parent, name, mode, major, minor);
                rustix::process::umask(umask);
                result
            })
        };
        let result = make();
        // A process with a folder of the container open would keep its mounts.
        self.return_home();
        result.map_err(Refusal::With)?;
        Ok(Some(Answer::Value(0)))
    }

    fn has(&self, id: u32) -> bool {
        let IdRange { base, count } = self.supervision.ids;
        id.checked_sub(base).is_some_and(|id| id < count)
    }

    fn return_home(&self) {
        let returned =
            rustix::process::fchdir(&self.home).and_then(|()| rustix::process::chroot("."));
        if returned.is_err() {
            process::exit_now(1);
        }
    }

    /// Opens a raw socket in the caller's network.
    fn open_socket(&mut self, call: &Notification) -> Result<Option<Answer>, Refusal> {
        let caller = self.caller(call, "NET_RAW")?;
        let [family, kind, protocol, ..] = call.args.map(number);
        self.enter_network(call, &caller)?;
        let socket = self.as_caller(&caller, Set::of(&["NET_RAW"]), || {
            socket::open(family, kind, protocol)
        });
        let close_on_exec = kind & libc::SOCK_CLOEXEC != 0;
        let listener = &self.supervision.listener;
        match socket.and_then(|fd| listener.answer_with_fd(call.id, &fd, close_on_exec)) {
            Ok(()) => Ok(None),
            Err(error) => Err(Refusal::With(error)),
        }
    }

    /// Binds a socket of the caller to a low port.
    fn bind(&mut self, call: &Notification) -> Result<Option<Answer>, Refusal> {
        let [socket, _, length, ..] = call.args.map(number);
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if length > MAX_ADDRESS_BYTES {
            return Err(Refusal::ByKernel);
        }
        let caller = self.caller(call, "NET_BIND_SERVICE")?;
        let mut space = [0; MAX_ADDRESS_BYTES];
        let address = space.get_mut(..length).unwrap_or_default();
        let [_, place, ..] = call.args;
        caller.read(place, address)?;
        let Some(port) = internet_port(address) else {
            return Err(Refusal::ByKernel);
        };
        let open_ports = self.enter_network(call, &caller)?;
        if port == 0 || port >= open_ports {
            return Err(Refusal::ByKernel);
        }
        let socket = notify::descriptor_of(call.thread, socket)?;
        self.confirm(call)?;
        if ![libc::AF_INET, libc::AF_INET6].contains(&socket::family(&socket)?) {
            return Err(Refusal::ByKernel);
        }
        self.as_caller(&caller, Set::of(&["NET_BIND_SERVICE"]), || {
            socket::bind(&socket, address)
        })
        .map_err(Refusal::With)?;
        Ok(Some(Answer::Value(0)))
    }

    /// Enters the network of the container, which all its processes share; returns the first port that needs no capability there.
    fn enter_network(&mut self, call: &Notification, caller: &Caller) -> Result<u16, Refusal> {
        if let Some(port) = self.open_ports {
            self.confirm(call)?;
            return Ok(port);
        }
        let network = caller.network()?;
        self.confirm(call)?;
        let net = Namespaces {
            net: true,
            ..Namespaces::default()
        };
        process::setns(self.alone, &network, net)?;
        let port = caller::read_text(
            &self.supervision.procfs,
            "sys/net/ipv4/ip_unprivileged_port_start",
        );
        let port = port
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .map_or(FIRST_OPEN_PORT, |port| {
                u16::try_from(port).unwrap_or(u16::MAX)
            });
        self.open_ports = Some(port);
        Ok(port)
    }

    /// Does something with the ids of the caller and these capabilities, as far as the daemon has them itself.
    fn as_caller<T>(
        &self,
        caller: &Caller,
        rights: Set,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let groups: Vec<_> = caller
            .groups
            .iter()
            .map(|group| rustix::process::Gid::from_raw(*group))
            .collect();
        rustix::thread::set_thread_groups(&groups)?;
        userns::set_file_ids(caller.uid, caller.gid)?;
        let result = caps::set(
            Set(rights.0 & self.capabilities.0),
            self.capabilities,
            Set::default(),
        )
        .and_then(|()| work());
        // A supervisor that cannot get its own ids back must serve no other call.
        let returned = caps::set(self.capabilities, self.capabilities, Set::default())
            .and_then(|()| userns::set_file_ids(0, 0))
            .and_then(|()| caps::set(self.capabilities, self.capabilities, Set::default()))
            .and_then(|()| process::die_with_parent());
        if returned.is_err() {
            process::exit_now(1);
        }
        result
    }
}

/// An argument of C's type int.
fn number(argument: u64) -> i32 {
    u32::try_from(argument & 0xffff_ffff)
        .unwrap_or_default()
        .cast_signed()
}

/// The major and minor number in the kernel's 32 bits of a device.
fn numbers(device: u64) -> (u32, u32) {
    let device = number(device).cast_unsigned();
    (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    )
}

/// The folder of a path, and its last name with the slashes after it: what becomes of those is the kernel's.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |last| last + 1);
    let before = path.get(..end).unwrap_or_default();
    let start = before
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    path.split_at_checked(start).unwrap_or_default()
}

/// The port in an address of the internet.
fn internet_port(address: &[u8]) -> Option<u16> {
    let [family @ .., port_high, port_low] = *address.first_chunk::<4>()?;
    let family = i32::from(u16::from_ne_bytes(family));
    [libc::AF_INET, libc::AF_INET6]
        .contains(&family)
        .then_some(u16::from_be_bytes([port_high, port_low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_apart_as_the_kernel_does() {
        for (path, want) in [
            ("a", ("", "a")),
            ("/a", ("/", "a")),
            ("a/b", ("a/", "b")),
            ("/x//y/b//", ("/x//y/", "b//")),
            ("..", ("", "..")),
            ("", ("", "")),
            ("/", ("", "/")),
            ("///", ("", "///")),
        ] {
            let (parent, name) = split(path.as_bytes());
            assert_eq!(
                (parent, name),
                (want.0.as_bytes(), want.1.as_bytes()),
                "{path}"
            );
        }
    }

    #[test]
    fn numbers_of_devices_and_ports_are_read_as_the_kernel_does() {
        for (major, minor) in [(1, 3), (8, 1), (259, 0x12345), (0xfff, 0xf_ffff), (0, 0)] {
            let device = (minor & 0xff) | major << 8 | (minor & 0xf_ff00) << 12;
            assert_eq!(numbers(device.into()), (major, minor));
        }
        let port = |family: u16, port: [u8; 2]| {
            internet_port(&[&family.to_ne_bytes()[..], &port, &[0; 12]].concat())
        };
        assert_eq!(port(2, [0, 80]), Some(80));
        assert_eq!(port(10, [1, 187]), Some(443));
        assert_eq!(port(1, [0, 80]), None);
        assert_eq!(internet_port(&[2, 0, 0]), None);
        assert_eq!(number(u64::MAX - 99), libc::AT_FDCWD);
    }
}
