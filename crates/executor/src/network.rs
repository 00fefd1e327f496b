//! The network of a container: what its mode means here, and what it holds while it runs.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use net::{Bridge, Cni, StepNetwork};
use proxy::{Egress, Proxy, Reach, StepRules};

use crate::access::NetworkMode;
use crate::error::ExecError;
use crate::proxied::{HostEgress, ProxiedNetwork, SandboxEgress};
use crate::spec::ContainerSpec;

/// What [`NetworkMode::Sandbox`] means here.
#[derive(Debug, Clone)]
pub enum SandboxNetwork {
    /// The host's network.
    Host,
    /// Nothing but loopback.
    None,
    /// A network of its own behind this bridge.
    Bridge(Arc<Bridge>),
    /// A network of its own by the host's programs of CNI.
    Cni(Arc<Cni>),
}

/// The network that one container gets, until dropped.
#[derive(Debug)]
pub(crate) enum ContainerNetwork {
    /// The host's.
    Host,
    /// A new network with nothing but loopback.
    Isolated,
    /// A network of its own, which has been prepared.
    Prepared(StepNetwork),
    /// A network whose only way out is a proxy.
    Proxied(Box<ProxiedNetwork>),
}

impl SandboxNetwork {
    /// The name of the mode, as the worker's label has it.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::None => "none",
            Self::Bridge(_) => "bridge",
            Self::Cni(_) => "cni",
        }
    }

    /// The network of the container of a spec; for the proxy network, the spec gets what its process needs to find the proxy. Cancel-safe.
    pub(crate) async fn of_spec(
        &self,
        proxy: Option<&Arc<Proxy>>,
        spec: &mut ContainerSpec,
    ) -> Result<ContainerNetwork, ExecError> {
        let mode = spec.access.network();
        match spec.proxy.take() {
            Some(step) if mode != NetworkMode::None => {
                let proxy = proxy.ok_or(ExecError::NoProxy)?;
                let (egress, reach) = self.egress(mode, &spec.hostname).await?;
                let rules = StepRules {
                    reach,
                    policies: step.policies.clone(),
                    capture: Arc::clone(&step.capture),
                };
                let network = ProxiedNetwork::open(proxy, egress, rules).await?;
                step.announce(&mut spec.process.env, &mut spec.mounts);
                Ok(ContainerNetwork::Proxied(Box::new(network)))
            }
            _ => self.of(mode, &spec.hostname).await,
        }
    }

    /// The network that a step's proxy leaves by: the one that the step has without a proxy.
    async fn egress(
        &self,
        mode: NetworkMode,
        hostname: &str,
    ) -> Result<(Arc<dyn Egress>, Reach), ExecError> {
        Ok(match (mode, self) {
            (NetworkMode::Host, _) => (Arc::new(HostEgress), Reach::Host),
            (_, Self::Host) => (Arc::new(HostEgress), Reach::HostWithoutMetadata),
            (_, Self::None) => return Err(ExecError::NoWayOut),
            (_, Self::Bridge(bridge)) => {
                let network = bridge.acquire().await?;
                (Arc::new(SandboxEgress(network)), Reach::Beyond)
            }
            (_, Self::Cni(cni)) => {
                let network = cni.acquire(hostname).await?;
                (Arc::new(SandboxEgress(network)), Reach::Beyond)
            }
        })
    }

    /// The network of a container of a mode. Cancel-safe.
    async fn of(&self, mode: NetworkMode, hostname: &str) -> Result<ContainerNetwork, ExecError> {
        match (mode, self) {
            (NetworkMode::Host, _) | (NetworkMode::Sandbox, Self::Host) => {
                Ok(ContainerNetwork::Host)
            }
            (NetworkMode::None, _) | (NetworkMode::Sandbox, Self::None) => {
                Ok(ContainerNetwork::Isolated)
            }
            (NetworkMode::Sandbox, Self::Bridge(bridge)) => {
                Ok(ContainerNetwork::Prepared(bridge.acquire().await?))
            }
            (NetworkMode::Sandbox, Self::Cni(cni)) => {
                Ok(ContainerNetwork::Prepared(cni.acquire(hostname).await?))
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
        match self {
            Self::Prepared(network) => network.nameserver(),
            Self::Host | Self::Isolated | Self::Proxied(_) => None,
        }
    }

    /// The namespace that has been prepared.
    pub(crate) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Prepared(network) => Some(network.as_fd()),
            Self::Proxied(network) => Some(network.as_fd()),
            Self::Host | Self::Isolated => None,
        }
    }

    /// Whether the only way out is a proxy.
    pub(crate) fn is_proxied(&self) -> bool {
        matches!(self, Self::Proxied(_))
    }

    /// Ends the proxy, if there is one. When this returns, all its requests have been recorded.
    pub(crate) async fn close(self) {
        if let Self::Proxied(network) = self {
            network.close().await;
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
            assert_eq!(
                worker.label() == "host",
                matches!(worker, SandboxNetwork::Host)
            );
            let network = worker.of(mode, "").await.unwrap();
            assert_eq!(network.is_host(), host, "{worker:?} {mode:?}");
            assert_eq!(matches!(network, ContainerNetwork::Isolated), isolated);
            assert!(network.nameserver().is_none() && network.namespace().is_none());
        }
    }
}
