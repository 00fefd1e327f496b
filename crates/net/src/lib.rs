//! The networks of build steps: the bridge, networks by CNI, and pairs of namespaces for a proxy.
//!
//! ```text
//!            host                          │ a step's namespace
//!  uplink ── nftables ── buildkit0 ── veth ┼─ eth0 10.10.0.7/16, default route 10.10.0.1
//!                         10.10.0.1        │
//!                         └ DNS forwarder  │  /etc/resolv.conf: nameserver 10.10.0.1
//! ```
//!
//! [`Bridge::open`] makes the bridge, one table of nftables and the DNS forwarder; [`Bridge::acquire`] hands out a namespace that was
//! prepared before. All of it goes when the [`Bridge`] does; what a daemon that was killed left is removed by the next that opens.
//!
//! | layer | modules |
//! |---|---|
//! | words of netlink | `message`, `socket` |
//! | what is asked of the kernel | `link` (rtnetlink), `nft` (nfnetlink) |
//! | decisions without the kernel | `subnet`, `addresses`, `pool`, `dns` |
//! | whose is it | `owner` |
//! | at work | `maker` (the thread that makes namespaces), `forwarder`, `bridge`, `pair`, `uplink` |
//! | CNI | `plugin` (one call of a program), `chain` (the programs of a network), `cni` (namespaces by them) |
//!
//! # Invariants
//! - A step reaches what the host reaches outside. It reaches no listener of the host but the forwarder, no other step, and no
//!   metadata service. That holds against raw frames too: a port of the bridge is isolated from the others, its address is fixed and
//!   learned from nobody.
//! - The rules stand before the bridge, and go after it.
//! - Only what carries the mark of a daemon that is gone is removed; nobody else's link or table is touched.
//! - There is no IPv6 inside: no address is made, and whatever is sent is dropped.

mod addresses;
mod bridge;
mod chain;
mod cni;
mod dns;
mod error;
mod forwarder;
mod link;
mod maker;
mod message;
mod nft;
mod owner;
mod pair;
mod plugin;
mod pool;
mod socket;
mod subnet;
mod uplink;

#[cfg(test)]
mod lab;

#[cfg(test)]
sys::before_main!(lab::begin);

pub use bridge::{Bridge, Config, DEFAULT_NAME, OnFirewall};
pub use chain::InvalidNetwork;
pub use cni::{Cni, CniConfig};
pub use error::NetError;
pub use forwarder::Upstreams;
pub use maker::StepNetwork;
pub use pair::{Pair, PairAddresses, connect_within};
pub use plugin::PluginError;
pub use subnet::{InvalidSubnet, Subnet};
pub use uplink::{Carrier, CarrierKind, Uplink, dispatch};
