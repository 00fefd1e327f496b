//! The network of a step of the proxy network: a pair of namespaces, and the proxy in one of them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use async_trait::async_trait;
use net::{Pair, PairAddresses, StepNetwork};
use proxy::{ADDRESS, Egress, PORT, Proxy, STEP_ADDRESS, Serving, StepRules};
use tokio::net::TcpStream;

use crate::error::ExecError;

/// The host's network, by which a proxy sends what steps request.
#[derive(Debug)]
pub(crate) struct HostEgress;

#[async_trait]
impl Egress for HostEgress {
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

/// The network that a step would have without the proxy, by which its proxy sends what it requests.
#[derive(Debug)]
pub(crate) struct SandboxEgress(pub(crate) StepNetwork);

#[async_trait]
impl Egress for SandboxEgress {
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        net::connect_within(self.0.as_fd(), address).await
    }
}

/// The network of one container on the proxy network; removed when dropped.
#[derive(Debug)]
pub(crate) struct ProxiedNetwork {
    namespace: OwnedFd,
    serving: Serving,
}

impl AsFd for ProxiedNetwork {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl ProxiedNetwork {
    /// Makes the namespaces, and has the proxy listen in one of them.
    pub(crate) async fn open(
        proxy: &Proxy,
        egress: Arc<dyn Egress>,
        rules: StepRules,
    ) -> Result<Self, ExecError> {
        let pair = Pair::make(PairAddresses {
            proxy: ADDRESS,
            port: PORT,
            step: STEP_ADDRESS,
        });
        let (namespace, listener) = pair.await?.into_parts();
        let serving = proxy.serve(listener, egress, rules)?;
        Ok(Self { namespace, serving })
    }

    /// Ends the proxy.
    pub(crate) async fn close(self) {
        self.serving.close().await;
    }
}
