//! The way out of a bridge that may not be in the host's network: a daemon without root has no rights there, and all rights in one that
//! it makes.
//!
//! ```text
//!         the host's network            │ ours: the bridge is here              │ a step's
//!  sockets of pasta or slirp4netns ─────┼─ tap0 ── nftables ── buildkit0 ─ veth ┼─ eth0
//!  the DNS forwarder asks from here     │            └ DNS forwarder            │
//! ```
//!
//! A program of the host carries the packets: what a step sends leaves tap0 and becomes what a socket of the program sends. So all that
//! the daemon's user reaches could be reached by steps, also every listener of the host. A table of nftables in our namespace refuses
//! that: it has each address that the host itself answers to, and follows the host's changes. The program opens no port of either side.
//!
//! One thread starts the program, and starts it again should it end; it hears of the host's addresses, and ends the program with the
//! uplink. The kernel ends it should this process be killed.

use std::ffi::CString;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::NetError;
use crate::link::LOOPBACK;
use crate::nft;
use crate::socket::Socket;
use crate::subnet::Subnet;

/// The name under which this program is executed to become one that carries packets.
const NAME: &str = "rbuild-uplink";
const TAP: &str = "tap0";
/// slirp4netns's own network: its resolver and its way to the host's loopback interface are there.
const SLIRP_SUBNET: Subnet = Subnet::literal([10, 0, 2, 0], 24);
const TABLE: &str = "rbuild-uplink";

/// How long a program may take until the namespace has a route; it takes some 10 ms.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const START_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How long one that has ended is not started again.
const PAUSE_BEFORE_RESTART: Duration = Duration::from_secs(1);
/// The most that is kept of what a program says, in bytes.
const MAX_WORDS: usize = 1024;

/// A program that carries packets between a namespace and sockets of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// Which it is.
    pub kind: CarrierKind,
    /// Where it is.
    pub path: PathBuf,
}

/// The programs that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarrierKind {
    /// `pasta`, of the package `passt`.
    Pasta,
    /// `slirp4netns`.
    Slirp,
}

impl CarrierKind {
    /// All of them, the best first.
    pub const ALL: [Self; 2] = [Self::Pasta, Self::Slirp];

    /// The program's name.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp => "slirp4netns",
        }
    }

    /// What it is told: the namespace is its standard input. No port is carried inwards or to the host's loopback interface.
    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Pasta => &[
                "--foreground",
                "--quiet",
                "--config-net",
                "--ipv4-only",
                "--tcp-ports",
                "none",
                "--udp-ports",
                "none",
                "--tcp-ns",
                "none",
                "--udp-ns",
                "none",
                "--no-map-gw",
                "--no-dhcp",
                "--no-netns-quit",
                "--netns-only",
                "--ns-ifname",
                TAP,
                "--netns",
                "/proc/self/fd/0",
            ],
            Self::Slirp => &[
                "--configure",
                "--mtu=65520",
                "--disable-host-loopback",
                "--enable-sandbox",
                "--netns-type=path",
                "/proc/self/fd/0",
                TAP,
            ],
        }
    }
}

/// Becomes a program that carries packets if that is what this program was executed for; else returns. Called by `main` before there is
/// a second thread.
pub fn dispatch() {
    let mut args = std::env::args_os();
    if args.next().is_none_or(|name| name != NAME) {
        return;
    }
    let parent = args.next();
    let text: Result<Vec<CString>, _> = args.map(|arg| CString::new(arg.as_bytes())).collect();
    // It shall not outlive the daemon, and the daemon may have ended before this was said.
    drop(sys::process::die_with_parent());
    // Rust ignores broken pipes, and pasta takes it for an error that somebody does.
    sys::process::reset_signals();
    let own = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    let error = match text.as_deref() {
        Ok([program, ..]) if own.is_some_and(|own| parent.is_some_and(|it| it == *own)) => {
            sys::process::execve(program, text.as_deref().unwrap_or_default(), &[]).err()
        }
        _ => None,
    };
    if let Some(error) = error {
        let words = format!("{error}\n");
        let _nobody_listens = rustix::io::write(io::stderr().as_fd(), words.as_bytes());
    }
    sys::process::exit_now(127)
}

/// A network namespace of ours with a way out; ends when this is dropped.
#[derive(Debug)]
pub struct Uplink {
    namespace: OwnedFd,
    /// Where the host's routes lead, at the start.
    pub(crate) routes: Vec<Subnet>,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Uplink {
    /// Makes a namespace, and has a program carry its packets. Blocks; the calling thread is in the host's network and stays there.
    pub fn open(carrier: Carrier) -> Result<Self, NetError> {
        let failed = NetError::system;
        let mut host = Socket::route().map_err(failed("open a netlink socket"))?;
        let routes = host.routes().map_err(failed("list the host's routes"))?;
        let changes = Socket::route_changes().map_err(failed("hear of the host's addresses"))?;
        let making = thread::spawn(|| {
            sys::netns::unshare()?;
            let mut route = Socket::route()?;
            route.up(LOOPBACK)?;
            Ok((sys::netns::current()?, route, Socket::netfilter()?))
        });
        let made: io::Result<_> = making
            .join()
            .unwrap_or_else(|_panic| Err(io::Error::other("the thread that makes it has ended")));
        let (namespace, mut inside, netfilter) =
            made.map_err(failed("make a network namespace"))?;
        let mut hidden = Hidden {
            host,
            changes,
            netfilter,
            kind: carrier.kind,
            places: Vec::new(),
        };
        // Before there is a way out.
        hidden
            .update()
            .map_err(failed("hide the host's addresses from steps"))?;
        let (stop, stopped) = sys::socket::pair().map_err(failed("make a socket"))?;
        let (ended, has_ended) = mpsc::channel();
        let program = carrier.kind.program();
        let at_work = AtWork {
            carrier,
            namespace: namespace.try_clone().map_err(failed("copy a descriptor"))?,
            hidden,
            stopped,
        };
        let thread = thread::Builder::new()
            .name("uplink".to_owned())
            .stack_size(256 << 10)
            .spawn(move || at_work.run(&ended))
            .map_err(failed("start a thread"))?;
        let uplink = Self {
            namespace,
            routes: routes.iter().map(|route| route.to).collect(),
            stop: Some(stop),
            thread: Some(thread),
        };
        let begun = task::clock::monotonic();
        loop {
            let failed = failed("list routes of a namespace");
            let routes = inside.routes().map_err(failed)?;
            if routes.iter().any(|route| route.to.prefix() == 0) {
                tracing::info!(program, "packets of steps are carried by a program");
                return Ok(uplink);
            }
            if let Ok(words) = has_ended.try_recv() {
                return Err(NetError::Carrier { program, words });
            }
            if begun.elapsed() > START_TIMEOUT {
                let words = "no route after 10 seconds".to_owned();
                return Err(NetError::Carrier { program, words });
            }
            task::clock::sleep_thread(START_POLL_INTERVAL);
        }
    }

    /// Does something on a thread that is in the namespace, with the runtime of the caller.
    pub(crate) fn within<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, NetError> + Send,
    ) -> Result<T, NetError> {
        let runtime = tokio::runtime::Handle::try_current().ok();
        thread::scope(|scope| {
            let running = scope.spawn(|| {
                let _runtime = runtime.as_ref().map(tokio::runtime::Handle::enter);
                sys::netns::enter(&self.namespace)
                    .map_err(NetError::system("enter the network namespace"))?;
                work()
            });
            match running.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_panic)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread of the uplink ended by a panic");
        }
    }
}

/// What steps must not reach: the addresses that are the host's own.
#[derive(Debug)]
struct Hidden {
    host: Socket,
    changes: Socket,
    netfilter: Socket,
    kind: CarrierKind,
    places: Vec<Subnet>,
}

impl Hidden {
    /// Writes the table anew if the host has other addresses than it had.
    fn update(&mut self) -> io::Result<()> {
        let mut places = self.host.own_destinations()?;
        places.extend((self.kind == CarrierKind::Slirp).then_some(SLIRP_SUBNET));
        let places = outermost(places);
        if self.places != places {
            nft::hide(&mut self.netfilter, TABLE, &places)?;
            self.places = places;
        }
        Ok(())
    }
}

/// Each that lies in no other, once.
fn outermost(mut places: Vec<Subnet>) -> Vec<Subnet> {
    places.sort_by_key(|place| (place.base(), place.prefix()));
    let mut kept: Vec<Subnet> = Vec::new();
    for place in places {
        // One that covers it begins before it, and everything between the two is covered as well.
        if kept.last().is_none_or(|last| !last.overlaps(place)) {
            kept.push(place);
        }
    }
    kept
}

/// What the thread works with.
struct AtWork {
    carrier: Carrier,
    namespace: OwnedFd,
    hidden: Hidden,
    stopped: OwnedFd,
}

/// A running program with the last words that it said.
struct Running {
    child: Child,
    pidfd: OwnedFd,
    errors: ChildStderr,
    words: Vec<u8>,
}

impl Running {
    fn start(carrier: &Carrier, namespace: &OwnedFd) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .arg(std::process::id().to_string())
            .arg(&carrier.path)
            .args(carrier.kind.args())
            .env_clear()
            .stdin(Stdio::from(namespace.try_clone()?))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let pidfd = rustix::process::pidfd_open(
            rustix::process::Pid::from_child(&child),
            rustix::process::PidfdFlags::empty(),
        )?;
        let errors = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            child,
            pidfd,
            errors,
            words: Vec::new(),
        })
    }

    /// Takes what it says; `false` when it will say nothing more.
    fn listen(&mut self) -> bool {
        let mut buffer = [0; MAX_WORDS];
        let Ok(length @ 1..) = self.errors.read(&mut buffer) else {
            return false;
        };
        let said = buffer.get(..length).unwrap_or_default();
        tracing::debug!(words = %String::from_utf8_lossy(said).trim(), "the program that carries packets");
        self.words.extend_from_slice(said);
        let surplus = self.words.len().saturating_sub(MAX_WORDS);
        self.words.drain(..surplus);
        true
    }

    /// Its last words, when it has ended.
    fn last_words(mut self) -> String {
        let status = self.child.wait();
        // What it forked may hold the pipe, so only what is there already.
        if rustix::io::ioctl_fionbio(&self.errors, true).is_ok() {
            while self.listen() {}
        }
        let words = String::from_utf8_lossy(&self.words);
        match (words.trim(), status) {
            ("", Ok(status)) => status.to_string(),
            ("", Err(error)) => error.to_string(),
            (words, _) => words.to_owned(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl AtWork {
    /// Keeps the program running until the other end of `stopped` closes. `ended` is told why, whenever it ends.
    fn run(mut self, ended: &mpsc::Sender<String>) {
        loop {
            let words = match Running::start(&self.carrier, &self.namespace) {
                Ok(running) => match self.attend(running) {
                    Some(words) => words,
                    None => return,
                },
                Err(error) => error.to_string(),
            };
            let program = self.carrier.kind.program();
            // Whoever opens the uplink tells it as an error.
            if ended.send(words.clone()).is_err() {
                tracing::error!(
                    program,
                    words,
                    "the program that carries packets of steps has ended, it is started again"
                );
            }
            if self.is_stopped_within(PAUSE_BEFORE_RESTART) {
                return;
            }
        }
    }

    /// Waits for the end of the program and returns its last words; nothing if the uplink is closed before.
    fn attend(&mut self, mut running: Running) -> Option<String> {
        let mut speaks = true;
        loop {
            let mut polled = vec![
                PollFd::new(&self.stopped, PollFlags::IN),
                PollFd::new(&running.pidfd, PollFlags::IN),
                PollFd::new(&self.hidden.changes, PollFlags::IN),
            ];
            polled.extend(speaks.then(|| PollFd::new(&running.errors, PollFlags::IN)));
            if let Err(errno) = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))
            {
                return Some(errno.to_string());
            }
            let events: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            let happened = |index: usize| events.get(index).copied().unwrap_or_default();
            drop(polled);
            if happened(0) {
                return None;
            }
            if happened(2) {
                self.hidden.changes.discard();
                if let Err(error) = self.hidden.update() {
                    // Rather no way out than one to the host.
                    return Some(format!("the host's addresses cannot be hidden: {error}"));
                }
            }
            if happened(1) {
                return Some(running.last_words());
            }
            if happened(3) {
                speaks = running.listen();
            }
        }
    }

    fn is_stopped_within(&self, time: Duration) -> bool {
        let mut polled = [PollFd::new(&self.stopped, PollFlags::IN)];
        let timeout = Timespec::try_from(time).ok();
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, timeout.as_ref()))
            .is_ok_and(|ready| ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_something_hidden_is_not_hidden_again() {
        let subnet = |a, b, c, d, prefix| Subnet::literal([a, b, c, d], prefix);
        for (all, kept) in [
            (vec![], vec![]),
            (
                vec![
                    subnet(192, 0, 2, 255, 32),
                    subnet(127, 0, 0, 1, 32),
                    subnet(127, 0, 0, 0, 8),
                    subnet(192, 0, 2, 2, 32),
                    subnet(127, 255, 255, 255, 32),
                    subnet(192, 0, 2, 2, 32),
                ],
                vec![
                    subnet(127, 0, 0, 0, 8),
                    subnet(192, 0, 2, 2, 32),
                    subnet(192, 0, 2, 255, 32),
                ],
            ),
        ] {
            assert_eq!(outermost(all), kept);
        }
    }

    #[test]
    fn no_program_opens_a_port_of_the_host() {
        let [pasta, slirp] = CarrierKind::ALL.map(|kind| kind.args().join(" "));
        for words in [
            "--tcp-ports none",
            "--udp-ports none",
            "--tcp-ns none",
            "--udp-ns none",
            "--no-map-gw",
        ] {
            assert!(pasta.contains(words), "{words}: {pasta}");
        }
        assert!(slirp.contains("--disable-host-loopback"), "{slirp}");
    }
}
