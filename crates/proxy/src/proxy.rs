//! The proxy of a daemon, and of one step at work.

use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::allow::AllowList;
use crate::egress::Egress;
use crate::error::ProxyError;
use crate::serve;
use crate::step::{DaemonProxy, Step, StepRules};
use crate::upstream::{InvalidUpstream, Upstreams};

/// The configuration of the proxy.
#[derive(Debug)]
pub struct Config {
    /// The hosts that steps may reach.
    pub allow: AllowList,
    /// The proxies of the daemon's environment. What cannot be understood there fails the steps and not the daemon, as with BuildKit.
    pub upstreams: Result<Upstreams, InvalidUpstream>,
    /// The authorities that servers are to be certified by; none for those of the host.
    pub roots: Option<Vec<CertificateDer<'static>>>,
}

/// The proxy of a daemon.
pub struct Proxy {
    daemon: Arc<DaemonProxy>,
    upstreams: Result<Upstreams, InvalidUpstream>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("daemon", &self.daemon)
            .field("upstreams", &self.upstreams)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// Nothing listens before the first step.
    #[must_use]
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            daemon: Arc::new(DaemonProxy::new(config.allow, config.roots)),
            upstreams: config.upstreams,
        })
    }

    #[cfg(test)]
    pub(crate) fn authority(&self) -> CertificateDer<'static> {
        self.daemon.authority().unwrap().der()
    }

    /// The certificate of the authority, as text. The authority is made when it is first asked for.
    pub fn certificate(&self) -> Result<Vec<u8>, ProxyError> {
        Ok(self.daemon.authority()?.pem())
    }

    /// Answers the connections of one step until the value is closed or dropped. Needs a runtime.
    pub fn serve(
        &self,
        listener: TcpListener,
        egress: Arc<dyn Egress>,
        rules: StepRules,
    ) -> Result<Serving, ProxyError> {
        let upstreams = self.upstreams.clone()?;
        let listen = |listener: TcpListener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        };
        let listener = listen(listener).map_err(|source| ProxyError::System {
            what: "listen for the requests of a step",
            source,
        })?;
        let step = Arc::new(Step {
            daemon: Arc::clone(&self.daemon),
            egress,
            rules,
            upstreams,
        });
        let (stop, stopped) = watch::channel(());
        let task = task::spawn("step proxy", serve::serve(step, listener, stopped));
        Ok(Serving { stop, task })
    }
}

/// The proxy of one step at work.
#[derive(Debug)]
pub struct Serving {
    stop: watch::Sender<()>,
    task: task::Task<()>,
}

impl Serving {
    /// Ends it. When this returns, all that there is to tell of its requests is in the capture.
    pub async fn close(self) {
        drop(self.stop);
        self.task.await;
    }
}
