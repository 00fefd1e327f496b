//! The whole against the kernel: a host and the world outside of it, each a network namespace of its own.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;

use super::*;
use crate::lab::{alone, within};
use crate::link::{INSIDE, LOOPBACK, Veth};

mod attack;
mod life;
mod uplink;

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const UPLINK: Subnet = Subnet::literal([192, 0, 2, 0], 24);

/// How long to try what fails without an answer: everything is in one kernel.
const SHORT: Duration = Duration::from_millis(400);
/// How long to try what is answered one way or the other.
const LONG: Duration = Duration::from_secs(10);

/// A host whose default route leads to a namespace that plays the world; the thread of the test is on the host.
struct World {
    runtime: tokio::runtime::Runtime,
    outside: OwnedFd,
}

impl World {
    fn new() -> Self {
        let host = sys::netns::current().unwrap();
        sys::netns::unshare().unwrap();
        let outside = sys::netns::current().unwrap();
        let mut outside_route = Socket::route().unwrap();
        sys::netns::enter(&host).unwrap();
        let mut host_route = Socket::route().unwrap();
        let uplink = Veth {
            name: "up0",
            bridge: Index(0),
            mtu: 1400,
            hardware: hardware(OUTSIDE),
            namespace: outside.as_fd(),
        };
        let uplink = host_route.add_veth(&uplink).unwrap();
        host_route.add_address(uplink, HOST, UPLINK).unwrap();
        host_route.up(uplink).unwrap();
        let far = outside_route.index_of(INSIDE).unwrap();
        outside_route.up(LOOPBACK).unwrap();
        outside_route.add_address(far, OUTSIDE, UPLINK).unwrap();
        outside_route
            .add_address(far, METADATA, Subnet::literal([169, 254, 169, 254], 32))
            .unwrap();
        outside_route.up(far).unwrap();
        host_route.add_default_route(OUTSIDE).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Self { runtime, outside }
    }

    fn open(&self, config: Config) -> Result<Bridge, NetError> {
        let _entered = self.runtime.enter();
        Bridge::open(config)
    }

    fn bridge(&self) -> Bridge {
        self.open(config()).unwrap()
    }

    fn step(&self, bridge: &Bridge) -> StepNetwork {
        self.runtime.block_on(bridge.acquire()).unwrap()
    }

    fn close(&self, bridge: &Bridge) {
        self.runtime.block_on(bridge.close());
    }
}

fn config() -> Config {
    Config {
        name: None,
        subnet: None,
        pool_size: 1,
        reveal_metadata: false,
        upstreams: Upstreams::new(&[]),
        on_firewall: OnFirewall::Warn,
    }
}

/// Runs `work` as a step would.
fn inside<T: Send + 'static>(step: &StepNetwork, work: impl FnOnce() -> T + Send + 'static) -> T {
    within(&step.as_fd().try_clone_to_owned().unwrap(), work)
}

/// A server in the network of the calling thread that says who called, until the test ends.
fn serve(address: impl Into<std::net::IpAddr>, port: u16) -> u16 {
    let listener = TcpListener::bind((address.into(), port)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let caller = stream.peer_addr().unwrap().ip().to_string();
            drop(stream.write_all(caller.as_bytes()));
        }
    });
    port
}

/// Calls a server of [`serve`]: as whom it sees the caller. The other error is that nothing is heard.
fn call(address: Ipv4Addr, port: u16) -> io::Result<String> {
    call_within(LONG, address, port)
}

fn call_within(limit: Duration, address: Ipv4Addr, port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(address, port).into(), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn call_from(step: &StepNetwork, address: Ipv4Addr, port: u16) -> io::Result<String> {
    inside(step, move || call(address, port))
}

fn names(socket: &mut Socket) -> Vec<String> {
    let links = socket.links().unwrap();
    let mut names: Vec<_> = links.into_iter().map(|link| link.name).collect();
    names.sort();
    names
}

/// What of this network belongs to a bridge network: links beside the host's own, and tables.
fn remains() -> (Vec<String>, Vec<String>) {
    let mut links = names(&mut Socket::route().unwrap());
    links.retain(|name| name.starts_with("rb") || name.starts_with("buildkit"));
    let tables = nft::tables(&mut Socket::netfilter().unwrap()).unwrap();
    (links, tables)
}

/// Waits for what another thread of ours does.
fn wait_until_true(expectation: &str, mut holds: impl FnMut() -> bool) {
    let start = task::clock::monotonic();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{expectation}");
        std::thread::yield_now();
    }
}

#[test]
fn the_world_of_the_tests_is_connected() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let port = within(&world.outside, || serve(Ipv4Addr::UNSPECIFIED, 0));
        assert_eq!(call(OUTSIDE, port).unwrap(), HOST.to_string());
        assert_eq!(call(METADATA, port).unwrap(), HOST.to_string());
    });
}
