//! From settings to a serving daemon, and back out in order.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use control::Otlp;
use engine::api::SpanSink;
use executor::SandboxNetwork;
use futures::StreamExt as _;
use futures::future::join_all;
use oci::ErrorKind;
use tokio::sync::{oneshot, watch};

use crate::debug::{self, Engines, Pages};
use crate::listen::Listener;
use crate::listen::{self, ListenError};
use crate::mask::PrivateFiles;
use crate::network;
use crate::settings::{Isolation, Settings};
use crate::signals::within;
use crate::tenants::Tenants;
use crate::wire::{self, Composed, WireError};

/// How long calls in flight may go on after builds had their time. Short: a client that merely keeps its connection open is no reason
/// to wait.
const LAST_CALLS: Duration = Duration::from_millis(500);

/// How long the last spans and metrics may take to their collector.
const TELEMETRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the daemon did not start, or stopped early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A part of the daemon cannot be set up.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The connection to the collector of spans and metrics cannot be set up.
    #[error(transparent)]
    Otlp(#[from] control::OtlpError),
    /// Serving ended early.
    #[error(transparent)]
    Serve(#[from] control::ServeError),
    /// The configuration switches the only worker off.
    #[error("the worker is switched off (--oci-worker=false), and rbuildd has no other")]
    NoWorker,
}

impl DaemonError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen(error) => error.kind(),
            Self::Wire(error) => error.kind(),
            Self::Otlp(error) => error.kind(),
            Self::Serve(error) => Some(ErrorKind::of_causes(error))
                .filter(|kind| *kind != ErrorKind::Failed)
                .unwrap_or(ErrorKind::System),
            Self::NoWorker => ErrorKind::Unsupported,
        }
    }
}

/// Serves until `stop` resolves. `ready` is told when all sockets are open and answered.
pub async fn run(
    settings: Settings,
    ready: oneshot::Sender<()>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), DaemonError> {
    let start = task::clock::monotonic();
    crate::idle::bound_heaps();
    if let Err(error) = sys::process::raise_open_files() {
        tracing::warn!(%error, "the limit of open descriptors stays as it is");
    }
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    if !settings.worker.enabled {
        return Err(DaemonError::NoWorker);
    }
    // It is installed once in a process; a second daemon of the same process (in tests) uses the first one's.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("the TLS provider is installed already");
    }
    let private = PrivateFiles::begin();
    let listeners = listen::open(&settings)?;
    let pages = Pages::new();
    let debugging = debug::open(&settings)?.map(|(listener, exposure)| {
        tracing::info!(
            address = settings.debug_address,
            ?exposure,
            "debugging listener"
        );
        let served = debug::serve(listener, exposure, Arc::clone(&pages));
        task::spawn("debugging listener", served)
    });
    let (stopping, stopped) = watch::channel(false);
    let otlp = settings.otlp.clone().map(Otlp::start).transpose()?;
    let network = network::open(&settings).await?;
    let behind = match Behind::open(&settings, &network, otlp.as_ref(), stopped.clone()) {
        Ok(behind) => behind,
        Err(error) => {
            network::close(network).await;
            return Err(error.into());
        }
    };
    drop(private);
    pages.serving(behind.engines());
    let servers: Vec<_> = listeners
        .into_iter()
        .map(|(address, listener)| {
            tracing::info!(%address, "listening");
            behind.serve(listener, stopped.clone())
        })
        .collect();
    tracing::info!(
        after_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "the service manager was not told");
    }
    if ready.send(()).is_err() {
        tracing::debug!("nobody waits for the daemon to be ready");
    }
    let _idle = task::spawn("give memory back", crate::idle::give_back());
    let mut serving = Box::pin(join_all(servers));
    tokio::select! {
        ended = &mut serving => {
            for end in ended {
                end?;
            }
        }
        () = stop => {
            tracing::info!("stopping");
            pages.draining();
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Stopping]) {
                tracing::debug!(%error, "the service manager was not told");
            }
            drain(&behind, settings.drain_timeout).await;
            if stopping.send(true).is_err() {
                tracing::debug!("no server is left");
            }
            if within(LAST_CALLS, &mut serving).await.is_none() {
                tracing::warn!("calls are still in flight, they are cancelled");
            }
        }
    }
    drop(serving);
    behind.close().await;
    network::close(network).await;
    if let Some(otlp) = otlp
        && within(TELEMETRY_TIMEOUT, otlp.close()).await.is_none()
    {
        tracing::warn!("not all spans and metrics were sent");
    }
    drop(debugging);
    Ok(())
}

/// Refuses builds, and lets those that run go on for at most `timeout`. Clients are served meanwhile: a build asks its client, and its
/// client asks for more.
async fn drain(behind: &Behind, timeout: Duration) {
    behind.refuse_builds();
    if within(timeout, behind.idle()).await.is_none() && !timeout.is_zero() {
        tracing::warn!(
            seconds = timeout.as_secs_f64(),
            "builds did not end in the time that they had (drain.timeout), they are cancelled"
        );
    }
}

/// The state or states that the listeners serve.
enum Behind {
    /// One state that all clients share.
    One(Composed),
    /// A state for each client.
    Tenants(Arc<Tenants>),
}

impl Behind {
    fn open(
        settings: &Settings,
        network: &SandboxNetwork,
        otlp: Option<&Arc<Otlp>>,
        stopped: watch::Receiver<bool>,
    ) -> Result<Self, WireError> {
        let network = network.clone();
        let spans = otlp.map(|otlp| Arc::clone(otlp) as Arc<dyn SpanSink>);
        match settings.isolation {
            Isolation::None => wire::compose(settings, network, spans).map(Self::One),
            Isolation::Client => {
                let tenants = Tenants::open(settings, network, spans, stopped)?;
                Ok(Self::Tenants(Arc::new(tenants)))
            }
        }
    }

    /// Serves what a listener accepts until `stopped` says so.
    fn serve(
        &self,
        listener: Listener,
        mut stopped: watch::Receiver<bool>,
    ) -> task::Task<Result<(), control::ServeError>> {
        let stop = async move {
            // An error means that the daemon is going away altogether.
            if stopped.wait_for(|stop| *stop).await.is_err() {
                tracing::debug!("the daemon is gone");
            }
        };
        let accepted = listen::accept(listener);
        match self {
            Self::One(composed) => {
                let incoming = accepted.map(|(_, connection)| Ok::<_, io::Error>(connection));
                let routes = composed.routes.clone();
                task::spawn("server", control::serve(routes, incoming, stop))
            }
            Self::Tenants(tenants) => {
                let tenants = Arc::clone(tenants);
                task::spawn("server", async move {
                    tenants.serve(accepted, stop).await;
                    Ok(())
                })
            }
        }
    }

    /// The engines that are open at the moment of the call, as weak references that do not keep them from closing.
    fn engines(&self) -> Engines {
        match self {
            Self::One(composed) => {
                let engine = composed.engine();
                Box::new(move || {
                    let engine = engine.upgrade().into_iter();
                    engine.map(|engine| (String::new(), engine)).collect()
                })
            }
            Self::Tenants(tenants) => {
                let tenants: Weak<Tenants> = Arc::downgrade(tenants);
                Box::new(move || tenants.upgrade().map_or_else(Vec::new, |t| t.engines()))
            }
        }
    }

    /// Refuses builds from now on.
    fn refuse_builds(&self) {
        if let Self::Tenants(tenants) = self {
            tenants.refuse_builds();
        }
        for (_, engine) in self.engines()() {
            engine.refuse_builds();
        }
    }

    /// Returns when no build runs.
    async fn idle(&self) {
        for (_, engine) in self.engines()() {
            engine.idle().await;
        }
    }

    /// Closes what is open in order.
    async fn close(self) {
        match self {
            Self::One(composed) => composed.close().await,
            Self::Tenants(tenants) => tenants.close().await,
        }
    }
}
