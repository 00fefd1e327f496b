//! Whose is it: the mark that a daemon puts on its links and its table, the sign that it lives, and the sweep of what dead ones left.
//!
//! A daemon has six hexadecimal digits. Its table is `rbuild_DIGITS`; its bridge has the alias `rbuild-net DIGITS`; its ports are named
//! `rbDIGITSxxxxxx`; all links are in one group. As long as it lives it listens on the abstract socket `rbuild-net-DIGITS`, whose name
//! is one of the same network namespace as the links and ends with the process, however that ends. A mark whose socket nobody listens
//! on is a dead daemon's. Setting up and sweeping happens under a lock on the namespace itself, so that no daemon sweeps what another is
//! just making.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::rand::GetRandomFlags;

use crate::error::NetError;
use crate::link::{GROUP, Index, Link};
use crate::nft;
use crate::socket::Socket;

const TABLE_PREFIX: &str = "rbuild_";
const ALIAS_PREFIX: &str = "rbuild-net ";
const PORT_PREFIX: &str = "rb";
const MARK_DIGITS: usize = 6;

/// How long another daemon may take to set up: deleting links takes the kernel tens of milliseconds each.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The name of one daemon, and of what it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark(String);

impl Mark {
    fn random() -> io::Result<Self> {
        let mut bytes = [0; MARK_DIGITS / 2];
        rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(Self(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    fn new(digits: &str) -> Option<Self> {
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (digits.len() == MARK_DIGITS && digits.bytes().all(hexadecimal))
            .then(|| Self(digits.to_owned()))
    }

    pub(crate) fn table(&self) -> String {
        format!("{TABLE_PREFIX}{}", self.0)
    }

    pub(crate) fn alias(&self) -> String {
        format!("{ALIAS_PREFIX}{}", self.0)
    }

    /// The name of a port; `number` is one of 24 bits, as subnets of 8 bits and more have.
    pub(crate) fn port(&self, number: u32) -> String {
        format!("{PORT_PREFIX}{}{:06x}", self.0, number & 0x00ff_ffff)
    }

    /// The mark in a table's name; `None` for a table that no daemon of ours made.
    fn of_table(name: &str) -> Option<Self> {
        Self::new(name.strip_prefix(TABLE_PREFIX)?)
    }

    /// Which daemon of ours made a link; `None` for a link of somebody else. A bridge without alias is one whose daemon ended in the moment between making and marking it, for
    /// that happens under the lock.
    fn of_link(link: &Link) -> Option<Owned> {
        if link.group != GROUP {
            return None;
        }
        match link.kind.as_str() {
            "bridge" if link.alias.is_empty() => Some(Owned::Unfinished),
            "bridge" => Self::new(link.alias.strip_prefix(ALIAS_PREFIX)?).map(Owned::By),
            "veth" => {
                let digits = link.name.strip_prefix(PORT_PREFIX)?;
                let right = digits.len() == 2 * MARK_DIGITS;
                Self::new(digits.get(..MARK_DIGITS).filter(|_| right)?).map(Owned::By)
            }
            _ => None,
        }
    }

    fn address(&self) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("rbuild-net-{}", self.0))
    }

    /// Whether its daemon lives. One whose socket cannot be tried for any other reason counts as alive.
    fn lives(&self) -> bool {
        let connected = self.address().and_then(|it| UnixStream::connect_addr(&it));
        match connected {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::ConnectionRefused,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    By(Mark),
    Unfinished,
}

/// The sign that this daemon lives: a socket that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) mark: Mark,
    _alive: UnixListener,
}

impl Owner {
    /// Takes a mark that no living daemon of this namespace has.
    pub(crate) fn new() -> io::Result<Self> {
        loop {
            let mark = Mark::random()?;
            match UnixListener::bind_addr(&mark.address()?) {
                Ok(alive) => {
                    return Ok(Self {
                        mark,
                        _alive: alive,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The lock under which a daemon sets up or sweeps in this namespace, held until dropped.
#[derive(Debug)]
pub(crate) struct SetupLock {
    _namespace: OwnedFd,
}

impl SetupLock {
    /// Waits for the lock. Blocks the thread.
    pub(crate) fn take() -> Result<Self, NetError> {
        Self::take_within(LOCK_TIMEOUT)
    }

    fn take_within(timeout: Duration) -> Result<Self, NetError> {
        let failed = NetError::system("lock the network namespace");
        let namespace = match sys::netns::current() {
            Ok(namespace) => namespace,
            Err(error) => return Err(failed(error)),
        };
        let mut waited = Duration::ZERO;
        loop {
            match rustix::fs::flock(&namespace, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    return Ok(Self {
                        _namespace: namespace,
                    });
                }
                Err(rustix::io::Errno::WOULDBLOCK) if waited < timeout => {
                    task::clock::sleep_thread(LOCK_POLL_INTERVAL);
                    waited += LOCK_POLL_INTERVAL;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(NetError::Locked {
                        seconds: timeout.as_secs(),
                    });
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }
}

/// Removes what daemons of this namespace left that do not live any more. Links go before tables, so that no step of theirs that may
/// still run is without rules.
pub(crate) fn sweep(
    _lock: &SetupLock,
    route: &mut Socket,
    netfilter: &mut Socket,
) -> io::Result<()> {
    for link in route.links()? {
        let dead = match Mark::of_link(&link) {
            Some(Owned::By(mark)) => !mark.lives(),
            Some(Owned::Unfinished) => true,
            None => false,
        };
        if dead {
            tracing::info!(link = %link.name, "removing what a daemon that is gone left");
            route.delete(Index(link.index))?;
        }
    }
    for table in nft::tables(netfilter)? {
        if Mark::of_table(&table).is_some_and(|mark| !mark.lives()) {
            tracing::info!(%table, "removing what a daemon that is gone left");
            nft::delete_table(netfilter, &table)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: &str, name: &str, alias: &str, group: u32) -> Link {
        Link {
            kind: kind.to_owned(),
            name: name.to_owned(),
            alias: alias.to_owned(),
            group,
            ..Link::default()
        }
    }

    #[test]
    fn names_carry_the_mark_and_give_it_back() {
        let mark = Mark::new("0a1b2c").unwrap();
        let by = Some(Owned::By(mark.clone()));
        assert_eq!(Mark::of_table(&mark.table()), Some(mark.clone()));
        assert_eq!(mark.port(0xff00_0102), "rb0a1b2c000102");
        assert!(mark.port(u32::MAX).len() <= 15, "the kernel takes 15 bytes");
        let bridge = link("bridge", "any", &mark.alias(), GROUP);
        assert_eq!(Mark::of_link(&bridge), by);
        let port = link("veth", &mark.port(7), "", GROUP);
        assert_eq!(Mark::of_link(&port), by);
        let unfinished = link("bridge", "buildkit0", "", GROUP);
        assert_eq!(Mark::of_link(&unfinished), Some(Owned::Unfinished));
    }

    #[test]
    fn what_others_made_is_never_ours() {
        for foreign_link in [
            // Of buildkitd, Docker and a user, who even uses our group.
            link("bridge", "buildkit0", "", 0),
            link("bridge", "docker0", "rbuild-net 0a1b2c", 0),
            link("bridge", "br0", "my bridge", GROUP),
            link("bridge", "br0", "rbuild-net 0a1b2", GROUP),
            link("bridge", "br0", "rbuild-net 0A1B2C", GROUP),
            link("veth", "rb0a1b2c000102", "", 0),
            link("veth", "rb0a1b2c00010", "", GROUP),
            link("veth", "rbébcdef123456", "", GROUP),
            link("veth", "veth0", "", GROUP),
            link("dummy", "rb0a1b2c000102", "", GROUP),
            link("", "eth0", "", GROUP),
        ] {
            assert_eq!(Mark::of_link(&foreign_link), None, "{foreign_link:?}");
        }
        for table in [
            "rbuild",
            "rbuild_",
            "rbuild_xyz123",
            "rbuild_0a1b2c3",
            "filter",
        ] {
            assert_eq!(Mark::of_table(table), None, "{table}");
        }
    }

    #[test]
    fn an_owner_lives_until_it_is_dropped() {
        let owner = Owner::new().unwrap();
        let mark = owner.mark.clone();
        assert!(mark.lives());
        assert_ne!(Owner::new().unwrap().mark, mark);
        drop(owner);
        assert!(!mark.lives());
    }

    #[test]
    fn one_sets_up_at_a_time() {
        let lock = SetupLock::take().unwrap();
        let second_lock =
            std::thread::spawn(|| SetupLock::take_within(LOCK_POLL_INTERVAL * 2)).join();
        assert!(matches!(
            second_lock.unwrap(),
            Err(NetError::Locked { seconds: 0 })
        ));
        drop(lock);
        SetupLock::take().unwrap();
    }
}
