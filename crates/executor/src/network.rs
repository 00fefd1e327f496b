//! The network of a container: what its mode means here, and what it holds while it runs.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use net::{Bridge, StepNetwork};

use crate::access::NetworkMode;
use crate::error::ExecError;

/// What [`NetworkMode::Sandbox`] means here.
#[derive(Debug, Clone)]
pub enum SandboxNetwork {
    /// The host's network.
    Host,
    /// Nothing but loopback.
    None,
    /// A network of its own behind this bridge.
    Bridge(Arc<Bridge>),
}

/// The network that one container gets, until dropped.
#[derive(Debug)]
pub(crate) enum ContainerNetwork {
    /// The host's.
    Host,
    /// A new one with nothing but loopback.
    Isolated,
    /// One that has been prepared.
    Bridge(StepNetwork),
}

impl SandboxNetwork {
    /// What a container of a mode gets. Cancel-safe.
    pub(crate) async fn of(&self, mode: NetworkMode) -> Result<ContainerNetwork, ExecError> {
        match (mode, self) {
            (NetworkMode::Host, _) | (NetworkMode::Sandbox, Self::Host) => {
                Ok(ContainerNetwork::Host)
            }
            (NetworkMode::None, _) | (NetworkMode::Sandbox, Self::None) => {
                Ok(ContainerNetwork::Isolated)
            }
            (NetworkMode::Sandbox, Self::Bridge(bridge)) => {
                Ok(ContainerNetwork::Bridge(bridge.acquire().await?))
            }
        }
    }
}

impl ContainerNetwork {
    /// Whether servers on the host's loopback interface can be asked for names.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self, Self::Host)
    }

    /// The only server that is asked for names, if there is one.
    pub(crate) fn nameserver(&self) -> Option<Ipv4Addr> {
        self.bridged().map(StepNetwork::nameserver)
    }

    /// The namespace that has been prepared.
    pub(crate) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.bridged().map(|network| network.as_fd())
    }

    fn bridged(&self) -> Option<&StepNetwork> {
        match self {
            Self::Bridge(network) => Some(network),
            Self::Host | Self::Isolated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_mode_of_a_step_decides_before_the_workers() {
        for (worker, mode, host, isolated) in [
            (SandboxNetwork::Host, NetworkMode::Sandbox, true, false),
            (SandboxNetwork::None, NetworkMode::Sandbox, false, true),
            (SandboxNetwork::None, NetworkMode::Host, true, false),
            (SandboxNetwork::Host, NetworkMode::None, false, true),
        ] {
            let network = worker.of(mode).await.unwrap();
            assert_eq!(network.is_host(), host, "{worker:?} {mode:?}");
            assert_eq!(matches!(network, ContainerNetwork::Isolated), isolated);
            assert!(network.nameserver().is_none() && network.namespace().is_none());
        }
    }
}
