//! The bridge network: how it is put together, checked and removed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use crate::addresses::{self, Addresses};
use crate::dns;
use crate::error::NetError;
use crate::forwarder::{self, Listening, Upstreams};
use crate::link::{Index, Link, Route};
use crate::maker::{self, Host, Shared, StepNetwork};
use crate::nft::{self, Rules};
use crate::owner::{self, Owner, SetupLock};
use crate::socket::Socket;
use crate::subnet::{Subnet, hardware};
use crate::uplink::Uplink;

/// The bridge's name when the configuration gives none: BuildKit's.
pub const DEFAULT_NAME: &str = "buildkit0";

/// How many names are tried when none is configured: `buildkit0` and so on.
const MAX_NAMES: u32 = 64;

/// How long the forwarder may take to answer the check, which it does by itself, and how often it is asked.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_CHECKS: usize = 4;

const DNS_PORT: u16 = 53;

/// The configuration of a bridge network.
#[derive(Debug)]
pub struct Config {
    /// The name of the bridge, which must not exist. Without, [`DEFAULT_NAME`] or the next that is free.
    pub name: Option<String>,
    /// The network of steps, which no route of the host may lead into. Without, 10.10.0.0/16 or another that is free.
    pub subnet: Option<Subnet>,
    /// How many namespaces are always kept prepared for steps.
    pub pool_size: usize,
    /// Whether steps may reach metadata services: the addresses at which providers of machines tell their credentials.
    pub reveal_metadata: bool,
    /// The resolvers that answer the names which steps ask for.
    pub upstreams: Upstreams,
    /// What is done about a firewall that may keep steps from the outside.
    pub on_firewall: OnFirewall,
}

/// What is done about a chain of the host that drops forwarded packets unless a rule of its says otherwise, as Docker's does: whether
/// it has such a rule cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFirewall {
    /// The log tells of it, with the rules to add.
    Warn,
    /// There is no bridge.
    Refuse,
}

/// The bridge network of this daemon; dropped, it removes everything.
#[derive(Debug)]
pub struct Bridge {
    name: String,
    subnet: Subnet,
    shared: Arc<Shared>,
    maker: Mutex<Option<JoinHandle<()>>>,
    forwarder: Mutex<Option<task::Task<()>>>,
    /// What carries its packets, if it is not in the host's network.
    uplink: Mutex<Option<Uplink>>,
}

impl Bridge {
    /// Removes what dead daemons left, and makes the rules, the bridge and the first namespaces, in the network namespace of the calling
    /// thread. Blocks; needs a runtime, CAP_NET_ADMIN and CAP_SYS_ADMIN.
    pub fn open(config: Config) -> Result<Self, NetError> {
        Self::open_here(config, &[])
    }

    /// The same in the namespace of an uplink, which ends with the bridge.
    pub fn open_behind(config: Config, uplink: Uplink) -> Result<Self, NetError> {
        let bridge = uplink.within(|| Self::open_here(config, &uplink.routes))?;
        *bridge.uplink.lock() = Some(uplink);
        Ok(bridge)
    }

    /// `reachable`: what else the addresses of steps must not hide from them.
    fn open_here(config: Config, reachable: &[Subnet]) -> Result<Self, NetError> {
        let failed = NetError::system;
        if let Some(name) = &config.name {
            check_name(name)?;
        }
        let lock = SetupLock::take()?;
        let mut route = Socket::route().map_err(failed("open a netlink socket"))?;
        let mut netfilter = Socket::netfilter().map_err(failed("open a socket of nftables"))?;
        owner::sweep(&lock, &mut route, &mut netfilter)
            .map_err(failed("remove what an earlier daemon left"))?;
        let links = route.links().map_err(failed("list the host's links"))?;
        let routes = route.routes().map_err(failed("list the host's routes"))?;
        let name = choose_name(config.name, &links)?;
        let destinations = routes.iter().map(|route| route.to);
        let destinations: Vec<Subnet> = destinations.chain(reachable.iter().copied()).collect();
        let subnet = addresses::choose(config.subnet, &destinations)?;
        let owner = Owner::new().map_err(failed("open a socket that shows this daemon lives"))?;
        judge_firewalls(&mut netfilter, config.on_firewall, &name)?;

        let rules = Rules {
            table: owner.mark.table(),
            bridge: name.clone(),
            subnet,
            hide_metadata: !config.reveal_metadata,
        };
        let alias = owner.mark.alias();
        // From here on everything is removed again if it cannot be completed.
        let mut host = Host {
            namespace: sys::netns::current().map_err(failed("open the network namespace"))?,
            owner,
            route,
            netfilter,
            bridge: None,
            subnet,
            mtu: uplink_mtu(&links, &routes),
            addresses: Addresses::new(subnet),
            ports: HashMap::new(),
        };
        rules
            .install(&mut host.netfilter)
            .map_err(failed("install the rules of nftables"))?;
        add_bridge(&mut host, &name, &alias)?;
        let gateway = subnet.gateway();
        let address = SocketAddr::new(gateway.into(), DNS_PORT);
        let listening = Listening::open(address, Some(&name), subnet)
            .map_err(failed("listen for DNS queries of steps on the bridge"))?;
        forward_packets()?;
        let upstreams = config.upstreams.without(gateway);
        let forwarder = task::spawn("dns forwarder", listening.serve(upstreams));
        let shared = Shared::new(config.pool_size, Some(gateway));
        let for_maker = Arc::clone(&shared);
        let maker = thread::Builder::new()
            .name("step networks".to_owned())
            .stack_size(256 << 10)
            .spawn(move || maker::run(host, &for_maker))
            .map_err(failed("start a thread"))?;
        drop(lock);
        tracing::info!(bridge = %name, %subnet, "steps have a bridge network");
        Ok(Self {
            name,
            subnet,
            shared,
            maker: Mutex::new(Some(maker)),
            forwarder: Mutex::new(Some(forwarder)),
            uplink: Mutex::new(None),
        })
    }

    /// The bridge's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network of steps.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The bridge's own address, at which the forwarder listens.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }

    /// Takes a network for a step: one that is ready, or the next that is made. Cancel-safe.
    pub async fn acquire(&self) -> Result<StepNetwork, NetError> {
        self.shared.acquire(None).await
    }

    /// Finds out whether a step can have a network and is answered when it asks for names: a firewall of the host may drop that.
    pub async fn check(&self) -> Result<(), NetError> {
        let network = self.acquire().await?;
        let gateway = self.gateway();
        let namespace = network
            .as_fd()
            .try_clone_to_owned()
            .map_err(NetError::system("copy a descriptor"))?;
        // The thread is not used again: it stays in that namespace until it ends.
        let thread = task::thread("check of the bridge", move || {
            sys::netns::enter(&namespace)?;
            ask(SocketAddr::new(gateway.into(), DNS_PORT))
        });
        let outcome = match thread {
            Ok(answer) => answer.await,
            Err(error) => Err(error),
        };
        outcome.map_err(|source| NetError::Unanswered {
            address: gateway,
            bridge: self.name.clone(),
            source,
        })
    }

    /// Removes everything, and returns when it is gone. Steps that still run have no network any more.
    pub async fn close(&self) {
        drop(self.forwarder.lock().take());
        self.shared.close();
        let maker = self.maker.lock().take();
        if let Some(maker) = maker {
            let joined = task::blocking("remove the bridge", move || maker.join()).await;
            if joined.is_err() {
                tracing::error!("the thread of step networks ended by a panic");
            }
        }
        let uplink = self.uplink.lock().take();
        task::blocking("end the uplink", move || drop(uplink)).await;
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // The thread removes everything, also when nobody waits for it.
        self.shared.close();
    }
}

/// Asks the forwarder for a name that it answers itself.
fn ask(forwarder: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(CHECK_TIMEOUT))?;
    socket.connect(forwarder)?;
    let probe = dns::probe(forwarder::random_id()?);
    let mut answer = [0; 512];
    let mut last_error = io::Error::from(io::ErrorKind::TimedOut);
    for _check in 0..MAX_CHECKS {
        socket.send(&probe)?;
        match socket.recv(&mut answer) {
            // Both begin with the id of the query.
            Ok(length) if length >= probe.len() && answer.get(..2) == probe.get(..2) => {
                return Ok(());
            }
            Ok(_) => last_error = io::ErrorKind::InvalidData.into(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(last_error)
}

fn add_bridge(host: &mut Host, name: &str, alias: &str) -> Result<(), NetError> {
    let gateway = host.subnet.gateway();
    let bridge = match host.route.add_bridge(name, hardware(gateway), host.mtu) {
        Ok(bridge) => bridge,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(NetError::NameTaken {
                name: name.to_owned(),
            });
        }
        Err(error) => return Err(NetError::system("make the bridge")(error)),
    };
    host.bridge = Some(bridge);
    let subnet = host.subnet;
    let set_up = |route: &mut Socket, bridge: Index| {
        route.set_alias(bridge, alias)?;
        route.no_ipv6_address(bridge)?;
        route.add_address(bridge, gateway, subnet)?;
        route.up(bridge)
    };
    set_up(&mut host.route, bridge).map_err(NetError::system("set up the bridge"))
}

fn check_name(name: &str) -> Result<(), NetError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let right = (1..=15).contains(&name.len()) && name.bytes().all(fits);
    if right && name != "." && name != ".." {
        Ok(())
    } else {
        Err(NetError::Name {
            name: name.to_owned(),
        })
    }
}

// DIFFERS: BuildKit takes a bridge that is there already, whoever made it, and leaves it when it stops.
fn choose_name(configured: Option<String>, links: &[Link]) -> Result<String, NetError> {
    let is_taken = |name: &str| links.iter().any(|link| link.name == name);
    match configured {
        Some(name) if is_taken(&name) => Err(NetError::NameTaken { name }),
        Some(name) => Ok(name),
        None => {
            let stem = DEFAULT_NAME.trim_end_matches('0');
            let mut names = (0..MAX_NAMES).map(|number| format!("{stem}{number}"));
            names
                .find(|name| !is_taken(name))
                .ok_or_else(|| NetError::NameTaken {
                    name: DEFAULT_NAME.to_owned(),
                })
        }
    }
}

/// The largest packet that the host's way out takes: of larger ones steps would see only the beginning of each connection.
fn uplink_mtu(links: &[Link], routes: &[Route]) -> u32 {
    const ETHERNET_MTU: u32 = 1500;
    const MIN_MTU: u32 = 576;
    const MAX_MTU: u32 = 65_535;
    let default_routes = routes.iter().filter(|route| route.to.prefix() == 0);
    let route = default_routes.min_by_key(|route| route.metric);
    let link = route.and_then(|route| links.iter().find(|link| link.index == route.link));
    link.map_or(ETHERNET_MTU, |link| link.mtu.clamp(MIN_MTU, MAX_MTU))
}

/// Has the host forward packets, as every bridge network does.
fn forward_packets() -> Result<(), NetError> {
    const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
    let failed = NetError::system("switch on net.ipv4.ip_forward, which a bridge network needs");
    match fs::read_to_string(IP_FORWARD) {
        Ok(value) if value.trim() != "0" => return Ok(()),
        Ok(_) => {}
        Err(error) => return Err(failed(error)),
    }
    fs::write(IP_FORWARD, "1").map_err(failed)?;
    tracing::warn!(
        "net.ipv4.ip_forward is switched on for the bridge network of steps: this host forwards packets of its neighbours too, unless a firewall forbids it"
    );
    Ok(())
}

/// Looks for chains that will drop what steps send. Those chains belong to others, so they are not changed.
fn judge_firewalls(
    netfilter: &mut Socket,
    on_firewall: OnFirewall,
    bridge: &str,
) -> Result<(), NetError> {
    let chains = match nft::closed_forward_chains(netfilter) {
        Ok(chains) => chains,
        Err(error) => {
            tracing::debug!(%error, "the host's firewall cannot be read");
            return Ok(());
        }
    };
    for chain in chains {
        if on_firewall == OnFirewall::Refuse {
            let nft::ClosedChain { table, chain } = chain;
            return Err(NetError::Firewall { table, chain });
        }
        let place = if chain.table == "filter" && chain.chain == "FORWARD" {
            "FORWARD (with Docker: DOCKER-USER)"
        } else {
            chain.chain.as_str()
        };
        tracing::warn!(
            table = %chain.table,
            chain = %chain.chain,
            "a firewall of this host drops forwarded packets unless told otherwise: steps may reach nothing until {place} accepts what comes from {bridge} and the replies to it, such as by `iptables -I DOCKER-USER -i {bridge} -j ACCEPT` and `iptables -I DOCKER-USER -o {bridge} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT`"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
