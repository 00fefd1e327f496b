//! What is asked of rtnetlink: links, addresses, routes, neighbours. Numbers are those of `linux/rtnetlink.h`, `if_link.h`,
//! `if_bridge.h` and `neighbour.h`.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::message::{self, Message, attribute, flags, number};
use crate::socket::Socket;
use crate::subnet::Subnet;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;

const BRPORT_LEARNING: u16 = 8;
const BRPORT_UNICAST_FLOOD: u16 = 9;
const BRPORT_MCAST_FLOOD: u16 = 27;
const BRPORT_BCAST_FLOOD: u16 = 30;
const BRPORT_ISOLATED: u16 = 33;
const BRPORT_LOCKED: u16 = 39;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const TYPE_UNICAST: u8 = 1;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
/// The entry is for the bridge that the link is a port of.
const NTF_MASTER: u8 = 4;

const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;
const AF_BRIDGE: u8 = 7;
const FLAG_UP: u32 = 1;
const OPERSTATE_UP: u8 = 6;
const LINK_HEADER_BYTES: usize = 16;
const ROUTE_HEADER_BYTES: usize = 12;

/// The group of every link of ours, in the kernel's sense: a number that users give links to handle them together, 0 unless one does.
pub(crate) const GROUP: u32 = 0x0072_626e;

/// The loopback interface of every namespace.
pub(crate) const LOOPBACK: Index = Index(1);

/// The kernel's number for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Index(pub(crate) u32);

/// A link of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) group: u32,
    pub(crate) mtu: u32,
    /// Whether packets pass: the link is up, and so is what it is connected to.
    pub(crate) operating: bool,
    /// The type of a link that is no device: `bridge`, `veth` …
    pub(crate) kind: String,
}

/// A route of the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: Subnet,
    /// The link it goes out by, 0 if it has none or several.
    pub(crate) link: u32,
    /// The route's priority; the smallest wins.
    pub(crate) metric: u32,
}

/// A pair of links: one a port of the bridge, one in a step's namespace under the name [`INSIDE`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    pub(crate) bridge: Index,
    pub(crate) mtu: u32,
    /// The hardware address inside.
    pub(crate) hardware: [u8; 6],
    pub(crate) namespace: BorrowedFd<'a>,
}

/// The name of a step's interface.
pub(crate) const INSIDE: &str = "eth0";

fn link_header(index: u32, up: bool) -> [u8; LINK_HEADER_BYTES] {
    let mut header = [0; LINK_HEADER_BYTES];
    let state = if up { FLAG_UP } else { 0 };
    for (place, value) in [(4, index), (8, state), (12, state)] {
        if let Some(bytes) = header.get_mut(place..place + 4) {
            bytes.copy_from_slice(&value.to_ne_bytes());
        }
    }
    header
}

fn make_bridge(name: &str, hardware: [u8; 6], mtu: u32) -> Message {
    let flags = flags::CREATE | flags::EXCLUSIVE;
    Message::new(NEW_LINK, flags, &link_header(0, false))
        .text(IFLA_IFNAME, name)
        .u32(IFLA_GROUP, GROUP)
        .u32(IFLA_MTU, mtu)
        .attr(IFLA_ADDRESS, &hardware)
        .nest(IFLA_LINKINFO, |info| {
            info.attr(INFO_KIND, b"bridge")
                .nest(INFO_DATA, |data| data.attr(IFLA_BR_MCAST_SNOOPING, &[0]))
        })
}

fn make_veth(veth: &Veth<'_>) -> Message {
    let flags = flags::CREATE | flags::EXCLUSIVE;
    let namespace = veth.namespace.as_raw_fd().cast_unsigned();
    Message::new(NEW_LINK, flags, &link_header(0, false))
        .text(IFLA_IFNAME, veth.name)
        .u32(IFLA_GROUP, GROUP)
        .u32(IFLA_MTU, veth.mtu)
        .u32(IFLA_MASTER, veth.bridge.0)
        .nest(IFLA_LINKINFO, |info| {
            info.attr(INFO_KIND, b"veth").nest(INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(0, false))
                        .text(IFLA_IFNAME, INSIDE)
                        .u32(IFLA_MTU, veth.mtu)
                        .attr(IFLA_ADDRESS, &veth.hardware)
                        .u32(IFLA_NET_NS_FD, namespace)
                })
            })
        })
}

/// A pair of links of which the peer is in another namespace.
fn make_pair(name: &str, (peer, namespace): (&str, BorrowedFd<'_>), mtu: u32) -> Message {
    let flags = flags::CREATE | flags::EXCLUSIVE;
    let namespace = namespace.as_raw_fd().cast_unsigned();
    Message::new(NEW_LINK, flags, &link_header(0, false))
        .text(IFLA_IFNAME, name)
        .u32(IFLA_MTU, mtu)
        .nest(IFLA_LINKINFO, |info| {
            info.attr(INFO_KIND, b"veth").nest(INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer_info| {
                    peer_info
                        .raw(&link_header(0, false))
                        .text(IFLA_IFNAME, peer)
                        .u32(IFLA_MTU, mtu)
                        .u32(IFLA_NET_NS_FD, namespace)
                })
            })
        })
}

/// A port that forwards only between its one hardware address and the host. `LOCKED` is of Linux 5.18; older kernels do not know it
/// and take the rest.
fn confine_port(port: Index) -> Message {
    Message::new(NEW_LINK, 0, &link_header(port.0, false)).nest(IFLA_LINKINFO, |info| {
        info.attr(INFO_SLAVE_KIND, b"bridge")
            .nest(INFO_SLAVE_DATA, |data| {
                data.attr(BRPORT_ISOLATED, &[1])
                    .attr(BRPORT_LEARNING, &[0])
                    .attr(BRPORT_UNICAST_FLOOD, &[0])
                    .attr(BRPORT_MCAST_FLOOD, &[0])
                    .attr(BRPORT_BCAST_FLOOD, &[0])
                    .attr(BRPORT_LOCKED, &[1])
            })
    })
}

fn neighbour_header(family: u8, link: Index, state: u16, flags: u8) -> Vec<u8> {
    let mut header = vec![family, 0, 0, 0];
    header.extend(link.0.to_ne_bytes());
    header.extend(state.to_ne_bytes());
    header.extend([flags, 0]);
    header
}

fn address_of(link: Index, address: Ipv4Addr, subnet: Subnet) -> Message {
    let mut header = vec![AF_INET, subnet.prefix(), 0, 0];
    header.extend(link.0.to_ne_bytes());
    let everybody = u32::from(subnet.base()) | !u32::from(subnet.mask());
    Message::new(NEW_ADDRESS, flags::CREATE | flags::EXCLUSIVE, &header)
        .attr(IFA_LOCAL, &address.octets())
        .attr(IFA_ADDRESS, &address.octets())
        .attr(IFA_BROADCAST, &everybody.to_be_bytes())
}

fn default_route(gateway: Ipv4Addr) -> Message {
    let header = [
        AF_INET,
        0,
        0,
        0,
        TABLE_MAIN,
        PROTOCOL_STATIC,
        0,
        TYPE_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let flags = flags::CREATE | flags::EXCLUSIVE;
    Message::new(NEW_ROUTE, flags, &header).attr(RTA_GATEWAY, &gateway.octets())
}

fn read_link(body: &[u8]) -> Option<Link> {
    let attributes = body.get(LINK_HEADER_BYTES..)?;
    let text = |kind| {
        attribute(attributes, kind)
            .map(message::text)
            .unwrap_or_default()
    };
    let value = |kind| attribute(attributes, kind).and_then(|value| number(value, 0));
    let info = attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
    Some(Link {
        index: number(body, 4)?,
        name: text(IFLA_IFNAME),
        alias: text(IFLA_IFALIAS),
        group: value(IFLA_GROUP).unwrap_or_default(),
        mtu: value(IFLA_MTU).unwrap_or_default(),
        operating: attribute(attributes, IFLA_OPERSTATE) == Some(&[OPERSTATE_UP]),
        kind: attribute(info, INFO_KIND)
            .map(message::text)
            .unwrap_or_default(),
    })
}

fn read_route(body: &[u8]) -> Option<Route> {
    let attributes = body.get(ROUTE_HEADER_BYTES..)?;
    let [family, prefix, ..] = *body else {
        return None;
    };
    if family != AF_INET {
        return None;
    }
    let to: [u8; 4] = match attribute(attributes, RTA_DST) {
        Some(value) => value.try_into().ok()?,
        None => [0; 4],
    };
    let value = |kind| attribute(attributes, kind).and_then(|value| number(value, 0));
    Some(Route {
        to: Subnet::around(to.into(), prefix)?,
        link: value(RTA_OIF).unwrap_or_default(),
        metric: value(RTA_PRIORITY).unwrap_or_default(),
    })
}

impl Socket {
    /// All links of the namespace.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let request = Message::new(GET_LINK, 0, &link_header(0, false));
        self.dump(&request, |received| read_link(received.body))
    }

    /// All IPv4 routes of the namespace, of all its tables.
    pub(crate) fn routes(&mut self) -> io::Result<Vec<Route>> {
        let request = Message::new(GET_ROUTE, 0, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.dump(&request, |received| read_route(received.body))
    }

    /// What the host answers to itself: its addresses, and where it hears everybody. IPv4 only.
    pub(crate) fn own_destinations(&mut self) -> io::Result<Vec<Subnet>> {
        const TYPE_LOCAL: u8 = 2;
        const TYPE_BROADCAST: u8 = 3;
        let all = Message::new(GET_ROUTE, 0, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.dump(&all, |received| {
            let own = matches!(received.body.get(7), Some(&(TYPE_LOCAL | TYPE_BROADCAST)));
            read_route(received.body)
                .filter(|_| own)
                .map(|route| route.to)
        })
    }

    /// The number of the link with a name.
    pub(crate) fn index_of(&mut self, name: &str) -> io::Result<Index> {
        let question = Message::new(GET_LINK, 0, &link_header(0, false)).text(IFLA_IFNAME, name);
        let link = self.question(question, read_link)?;
        let link = link.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Index(link.index))
    }

    /// Whether packets pass a link. The kernel finds that out some time after [`Socket::up`], and drops what is sent before.
    pub(crate) fn operates(&mut self, link: Index) -> io::Result<bool> {
        let question = Message::new(GET_LINK, 0, &link_header(link.0, false));
        let link = self.question(question, read_link)?;
        Ok(link.is_some_and(|link| link.operating))
    }

    /// Makes a bridge that is down.
    pub(crate) fn add_bridge(
        &mut self,
        name: &str,
        hardware: [u8; 6],
        mtu: u32,
    ) -> io::Result<Index> {
        self.request(make_bridge(name, hardware, mtu))?;
        self.index_of(name)
    }

    /// Makes a pair of links that are down; gives the port of the bridge.
    pub(crate) fn add_veth(&mut self, veth: &Veth<'_>) -> io::Result<Index> {
        self.request(make_veth(veth))?;
        self.index_of(veth.name)
    }

    /// Makes a pair of links that are down, one here and its peer in another namespace; gives the one here.
    pub(crate) fn add_pair(
        &mut self,
        name: &str,
        peer: (&str, BorrowedFd<'_>),
        mtu: u32,
    ) -> io::Result<Index> {
        self.request(make_pair(name, peer, mtu))?;
        self.index_of(name)
    }

    /// Isolates a port of a bridge from the others, and ties it to one hardware address.
    pub(crate) fn confine(&mut self, port: Index, hardware: [u8; 6]) -> io::Result<()> {
        self.request(confine_port(port))?;
        let header = neighbour_header(AF_BRIDGE, port, NUD_NOARP, NTF_MASTER);
        let flags = flags::CREATE | flags::REPLACE;
        let entry = Message::new(NEW_NEIGHBOUR, flags, &header).attr(NDA_LLADDR, &hardware);
        self.request(entry)
    }

    /// Writes down the hardware address of a neighbour for good, so that nobody is asked for it and nobody can claim it.
    pub(crate) fn add_neighbour(
        &mut self,
        link: Index,
        address: Ipv4Addr,
        hardware: [u8; 6],
    ) -> io::Result<()> {
        let header = neighbour_header(AF_INET, link, NUD_PERMANENT, 0);
        let flags = flags::CREATE | flags::REPLACE;
        let entry = Message::new(NEW_NEIGHBOUR, flags, &header)
            .attr(NDA_DST, &address.octets())
            .attr(NDA_LLADDR, &hardware);
        self.request(entry)
    }

    /// Forgets a neighbour.
    pub(crate) fn delete_neighbour(&mut self, link: Index, address: Ipv4Addr) -> io::Result<()> {
        let header = neighbour_header(AF_INET, link, 0, 0);
        let entry = Message::new(DELETE_NEIGHBOUR, 0, &header).attr(NDA_DST, &address.octets());
        self.request(entry)
    }

    /// Writes a text to a link that only people and we read.
    pub(crate) fn set_alias(&mut self, link: Index, alias: &str) -> io::Result<()> {
        let header = link_header(link.0, false);
        self.request(Message::new(NEW_LINK, 0, &header).attr(IFLA_IFALIAS, alias.as_bytes()))
    }

    /// Keeps the kernel from giving a link an IPv6 address when it comes up. A kernel without IPv6 gives none anyway.
    pub(crate) fn no_ipv6_address(&mut self, link: Index) -> io::Result<()> {
        let header = link_header(link.0, false);
        let message = Message::new(NEW_LINK, 0, &header).nest(IFLA_AF_SPEC, |families| {
            families.nest(AF_INET6, |inet6| {
                inet6.attr(INET6_ADDR_GEN_MODE, &[ADDR_GEN_NONE])
            })
        });
        match self.request(message) {
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Switches a link on.
    pub(crate) fn up(&mut self, link: Index) -> io::Result<()> {
        self.request(Message::new(NEW_LINK, 0, &link_header(link.0, true)))
    }

    /// Gives a link an address, and with it the route to the address's subnet.
    pub(crate) fn add_address(
        &mut self,
        link: Index,
        address: Ipv4Addr,
        subnet: Subnet,
    ) -> io::Result<()> {
        self.request(address_of(link, address, subnet))
    }

    /// Sends what no other route leads to by way of a neighbour.
    pub(crate) fn add_default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        self.request(default_route(gateway))
    }

    /// Removes a link, and its peer if it is one of a pair. That it is gone already is fine.
    pub(crate) fn delete(&mut self, link: Index) -> io::Result<()> {
        match self.request(Message::new(DELETE_LINK, 0, &link_header(link.0, false))) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
                Ok(())
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests;
