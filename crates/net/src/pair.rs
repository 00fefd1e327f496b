//! Two namespaces joined by a cable, and nothing else: one for a step, one for the proxy that answers it.
//!
//! ```text
//!   the step's namespace        │ the proxy's namespace
//!   eth0 10.89.0.2/30  ─────────┼─ proxy0 10.89.0.1/30 ── a listener
//!   no route but to the cable   │  no route but to the cable
//! ```
//!
//! Everything is made by a thread that is in these namespaces for that time and ends. Nothing of it is on the host: no link, no name, no
//! file. So two steps may have the same addresses, and nothing has to be swept. The namespaces end with their last descriptor.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::net::{TcpSocket, TcpStream};

use crate::error::NetError;
use crate::link::{INSIDE, LOOPBACK};
use crate::maker::wait_until;
use crate::socket::Socket;
use crate::subnet::Subnet;

const OUTSIDE: &str = "proxy0";
/// A cable between two namespaces of one machine carries packets of any size.
const MTU: u32 = 65_535;
/// Two addresses, and those of the network.
const PREFIX: u8 = 30;

/// The addresses of a pair: both in one block of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairAddresses {
    /// The address of the proxy's end.
    pub proxy: Ipv4Addr,
    /// The port at which the proxy listens.
    pub port: u16,
    /// The address of the step's end.
    pub step: Ipv4Addr,
}

/// The two namespaces of one step, and the listener of its proxy.
#[derive(Debug)]
pub struct Pair {
    step: OwnedFd,
    listener: TcpListener,
}

impl Pair {
    /// Makes a pair with a listener in the proxy's namespace, which the listener keeps. Needs CAP_SYS_ADMIN. Cancel-safe.
    pub async fn make(addresses: PairAddresses) -> Result<Self, NetError> {
        // The thread is not used again: it stays in those namespaces until it ends.
        let making = task::thread("pair of networks", move || Self::make_here(addresses));
        making.map_err(NetError::system("start a thread"))?.await
    }

    /// Makes the pair. The calling thread stays in the proxy's namespace.
    fn make_here(addresses: PairAddresses) -> Result<Self, NetError> {
        let failed = NetError::system;
        let subnet = Subnet::around(addresses.proxy, PREFIX)
            .ok_or_else(|| failed("make a pair of networks")(io::ErrorKind::InvalidInput.into()))?;
        let enter_new = || -> io::Result<(OwnedFd, Socket)> {
            sys::netns::unshare()?;
            Ok((sys::netns::current()?, Socket::route()?))
        };
        let (proxy, mut outside) = enter_new().map_err(failed("make a network namespace"))?;
        let (step, mut inside) = enter_new().map_err(failed("make a network namespace"))?;
        let mut set_up = || -> io::Result<()> {
            let link = inside.add_pair(INSIDE, (OUTSIDE, proxy.as_fd()), MTU)?;
            let peer = outside.index_of(OUTSIDE)?;
            for (socket, link, address) in [
                (&mut inside, link, addresses.step),
                (&mut outside, peer, addresses.proxy),
            ] {
                socket.no_ipv6_address(link)?;
                socket.up(LOOPBACK)?;
                socket.add_address(link, address, subnet)?;
                socket.up(link)?;
            }
            let operates = |host: &mut Socket| Ok(host.operates(peer)? && inside.operates(link)?);
            wait_until(operates, &mut outside)
        };
        set_up().map_err(failed("set up a pair of networks"))?;
        let listen = || {
            sys::netns::enter(&proxy)?;
            TcpListener::bind((addresses.proxy, addresses.port))
        };
        let listener = listen().map_err(failed("listen for the requests of a step"))?;
        Ok(Self { step, listener })
    }

    /// The step's namespace, and the listener of its proxy.
    #[must_use]
    pub fn into_parts(self) -> (OwnedFd, TcpListener) {
        (self.step, self.listener)
    }
}

/// Connects to an address from within a namespace. Cancel-safe.
pub async fn connect_within(
    namespace: BorrowedFd<'_>,
    address: SocketAddr,
) -> io::Result<TcpStream> {
    let namespace = namespace.try_clone_to_owned()?;
    // A socket is of the namespace of the thread that opens it; that thread stays in the namespace until it ends.
    let opening = task::thread("socket of a network", move || {
        sys::netns::enter(&namespace)?;
        match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }
    })?;
    opening.await?.connect(address).await
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::Duration;

    use super::*;
    use crate::lab;

    const ADDRESSES: PairAddresses = PairAddresses {
        proxy: Ipv4Addr::new(10, 89, 0, 1),
        port: 3128,
        step: Ipv4Addr::new(10, 89, 0, 2),
    };

    #[tokio::test]
    async fn a_step_reaches_the_listener_of_its_own_proxy_and_nothing_else() {
        testkit::requires!(root);
        let (first, listener) = Pair::make(ADDRESSES).await.unwrap().into_parts();
        // The same addresses once more, at the same time.
        let (second, second_listener) = Pair::make(ADDRESSES).await.unwrap().into_parts();
        for (step, listener, word) in [
            (&first, &listener, b"one"),
            (&second, &second_listener, b"two"),
        ] {
            let mut from_step = lab::within(step, move || {
                std::net::TcpStream::connect((ADDRESSES.proxy, ADDRESSES.port)).unwrap()
            });
            let (mut accepted, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip(), ADDRESSES.step);
            accepted.write_all(word).unwrap();
            drop(accepted);
            let mut received = Vec::new();
            from_step.read_to_end(&mut received).unwrap();
            assert_eq!(received, word);
        }
        let host = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = host.local_addr().unwrap().port();
        let errors = lab::within(&first, move || {
            let connect = |address: &str| {
                let address = format!("{address}:{port}").parse().unwrap();
                let timeout = Duration::from_millis(300);
                std::net::TcpStream::connect_timeout(&address, timeout).unwrap_err()
            };
            // The host's listener under the proxy's own address, a public one, the metadata service, loopback.
            ["10.89.0.1", "1.1.1.1", "169.254.169.254", "127.0.0.1"].map(|at| connect(at).kind())
        });
        use io::ErrorKind::{ConnectionRefused, NetworkUnreachable};
        assert_eq!(
            errors,
            [
                ConnectionRefused,
                NetworkUnreachable,
                NetworkUnreachable,
                ConnectionRefused
            ]
        );
    }

    #[tokio::test]
    async fn a_connection_is_of_the_namespace_that_it_is_made_in() {
        testkit::requires!(root);
        let (step, listener) = Pair::make(ADDRESSES).await.unwrap().into_parts();
        let address = SocketAddr::from((ADDRESSES.proxy, ADDRESSES.port));
        let stream = connect_within(step.as_fd(), address).await.unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(stream.local_addr().unwrap(), peer);
        // This thread is where it was: what it connects to is another listener, or none.
        let timeout = Duration::from_millis(50);
        drop(std::net::TcpStream::connect_timeout(&address, timeout));
        listener.set_nonblocking(true).unwrap();
        let accepted = listener.accept().map(|(_, peer)| peer);
        assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
