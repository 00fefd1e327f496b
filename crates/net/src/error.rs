//! Why there is no network.

use std::io;

use std::path::PathBuf;

use oci::error::errno_text;

use crate::chain::InvalidNetwork;
use crate::plugin::PluginError;
use crate::subnet::{InvalidSubnet, Subnet};

/// Why steps have no bridge, or one of them no network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The subnet is not one that steps can have.
    #[error(transparent)]
    Subnet(#[from] InvalidSubnet),
    /// The host has a route to something inside of the configured subnet.
    #[error("subnet {subnet} is used already: this host has a route to {route}")]
    SubnetUsed {
        /// The configured `worker.oci.bridgeSubnet`.
        subnet: Subnet,
        /// The route's destination.
        route: Subnet,
    },
    /// The host has routes into all subnets that are tried when none is configured.
    #[error("no free subnet was found: set worker.oci.bridgeSubnet")]
    NoSubnet,
    /// The configured name is not one that a network interface can have.
    #[error(
        "bridge name `{name}` cannot be used: it needs 1 to 15 letters, digits, `-`, `_` or `.`"
    )]
    Name {
        /// The configured `worker.oci.bridgeName`.
        name: String,
    },
    /// Somebody else has made an interface of this name.
    #[error(
        "network interface `{name}` exists already and was not made by this daemon: set another worker.oci.bridgeName, or remove it"
    )]
    NameTaken {
        /// The interface's name.
        name: String,
    },
    /// As many steps run as the subnet has addresses.
    #[error("all addresses of {subnet} are used by steps: set a larger worker.oci.bridgeSubnet")]
    Full {
        /// The subnet of the bridge.
        subnet: Subnet,
    },
    /// The daemon is stopping.
    #[error("the network of steps is closed")]
    Closed,
    /// Another daemon holds the lock for long.
    #[error("another daemon of this host has been setting up its network for {seconds} seconds")]
    Locked {
        /// How long this daemon has waited for the lock.
        seconds: u64,
    },
    /// A program of CNI did not do what it should.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The configuration of CNI cannot be read.
    #[error("cannot read the CNI configuration {} (worker.oci.cniConfigPath): {}", path.display(), errno_text(source))]
    CniFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration of CNI is none.
    #[error("cannot use the CNI configuration {}: {source}", path.display())]
    CniNetwork {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: InvalidNetwork,
    },
    /// Another daemon has the networks of this folder.
    #[error("another daemon uses the networks of {}: give each daemon a --root of its own", state.display())]
    StateInUse {
        /// The folder.
        state: PathBuf,
    },
    /// What steps send would be dropped.
    #[error(
        "a firewall of this host drops forwarded packets unless told otherwise (table `{table}`, chain `{chain}`)"
    )]
    Firewall {
        /// Of which table.
        table: String,
        /// The chain whose policy it is.
        chain: String,
    },
    /// A step would have no name resolution.
    #[error(
        "the DNS forwarder at {address} does not answer a step ({}): does a firewall of this host drop what `{bridge}` sends it?",
        errno_text(source)
    )]
    Unanswered {
        /// The bridge's address, at which the forwarder listens on port 53.
        address: std::net::Ipv4Addr,
        /// The bridge's name.
        bridge: String,
        /// The error that the step got in place of an answer.
        source: io::Error,
    },
    /// The bridge may not be in the host's network, and nothing leads out of another.
    #[error(
        "this daemon has no rights in the host's network, and no program that carries packets: install pasta (Debian: passt) or slirp4netns, or set worker.oci.networkMode to host or none"
    )]
    NoCarrier,
    /// The program that carries packets ended instead of carrying them.
    #[error("`{program}`, which is to carry the packets of steps, ended: {words}")]
    Carrier {
        /// Its name.
        program: &'static str,
        /// What it said.
        words: String,
    },
    /// A system call failed.
    #[error("cannot {during}: {}", errno_text(source))]
    System {
        /// What was tried, as it follows "cannot".
        during: &'static str,
        /// The error of the call.
        source: io::Error,
    },
}

impl NetError {
    pub(crate) fn system(during: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { during, source }
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Subnet(_) | Self::Name { .. } | Self::CniNetwork { .. } => ErrorKind::Invalid,
            Self::Plugin(error) => error.kind(),
            Self::CniFile { source, .. } => ErrorKind::of_host(source),
            Self::SubnetUsed { .. } | Self::NameTaken { .. } => ErrorKind::Exists,
            Self::NoSubnet | Self::Full { .. } => ErrorKind::Exhausted,
            Self::NoCarrier => ErrorKind::Unsupported,
            Self::Closed | Self::Locked { .. } | Self::StateInUse { .. } => ErrorKind::Unavailable,
            Self::Unanswered { .. } | Self::Firewall { .. } | Self::Carrier { .. } => {
                ErrorKind::System
            }
            Self::System { source, .. } => ErrorKind::of_host(source),
        }
    }
}
