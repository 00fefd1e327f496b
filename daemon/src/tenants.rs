//! A tenant for each client, with `isolation = "client"`.
//!
//! ```text
//!   listener ─► (peer, connection) ─► Tenants::take ─► the tenant's server ─► control::serve(routes of that tenant)
//!                                        │ first time
//!                                        └─► compose(<root>/tenants/<peer>): store, solver, sessions, history, limits
//! ```
//!
//! Tenants share no cache keys, cache mounts, images, checkouts, records, sessions or refs. What one pulled is pulled again for
//! another, and the limits of the settings (disk, steps at a time, records) are those of one tenant. A name or an id that a tenant
//! learns of another means nothing to its own engine.

mod cells;

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use control::Connection;
use engine::Engine;
use engine::api::SpanSink;
use executor::SandboxNetwork;
use futures::{Stream, StreamExt as _};
use oci::{Digest, ErrorKind};
use tokio::sync::{mpsc, watch};

use self::cells::{Cells, NoCell};
use crate::settings::Settings;
use crate::wire::{self, Composed, SPAN_SOCKET, WireError};

/// How many tenants one daemon has open at a time; each holds a database and some descriptors.
const MAX_TENANTS: usize = 256;
/// Connections of one tenant that wait for its server.
const MAX_WAITING_CONNECTIONS: usize = 16;
/// How long closing waits for connections that are just being handed to their tenants.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Who a connection comes from, as far as TLS or the kernel vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The holder of a client certificate, by the certificate's SHA-256. A renewed certificate is another peer.
    Certificate(Digest),
    /// A user of this machine, at the other end of a unix socket (`SO_PEERCRED`, unix(7)).
    User(u32),
    /// Nobody vouches for it: TCP without client certificates.
    Unknown,
}

impl Peer {
    /// The subject of the client's certificate.
    pub(crate) fn of_tls(connection: &rustls::ServerConnection) -> Self {
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        certificate.map_or(Self::Unknown, |certificate| {
            Self::Certificate(Digest::sha256(certificate))
        })
    }

    /// The tenant's folder below `tenants`; none for a peer that nobody vouches for.
    fn folder(&self) -> Option<String> {
        match self {
            Self::Certificate(digest) => Some(format!("certificate-{}", digest.hex())),
            Self::User(uid) => Some(format!("user-{uid}")),
            Self::Unknown => None,
        }
    }
}

/// Why a connection has no tenant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TenantError {
    /// Neither a client certificate nor a unix socket vouches for the peer.
    #[error("the connection has no client certificate and comes over no unix socket")]
    Unknown,
    /// The daemon has [`MAX_TENANTS`] tenants open.
    #[error("{MAX_TENANTS} tenants are open already")]
    TooMany,
    /// The tenant's state cannot be opened.
    #[error("cannot open the tenant's state: {0}")]
    Open(#[from] WireError),
    /// The tenant's server has ended.
    #[error("the tenant's server has ended")]
    Ended,
}

impl TenantError {
    /// What kind of error it is.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown => ErrorKind::Denied,
            Self::TooMany => ErrorKind::Exhausted,
            Self::Open(error) => error.kind(),
            Self::Ended => ErrorKind::Unavailable,
        }
    }
}

/// The tenants of one daemon.
pub(crate) struct Tenants {
    settings: Settings,
    network: SandboxNetwork,
    spans: Option<Arc<dyn SpanSink>>,
    stop: watch::Receiver<bool>,
    open: Cells<Peer, Tenant>,
    /// Whether no tenant may begin builds any more.
    is_draining: AtomicBool,
}

struct Tenant {
    /// The name of the tenant's folder.
    name: String,
    composed: Composed,
    connections: mpsc::Sender<io::Result<Connection>>,
    server: task::Task<()>,
    /// Whether the server has ended, with all its calls.
    ended: watch::Receiver<bool>,
}

impl Tenants {
    /// None are open at first. Makes the folder of their states, for the daemon's user only. They share the network of steps, in which
    /// no step reaches another.
    pub(crate) fn open(
        settings: &Settings,
        network: SandboxNetwork,
        spans: Option<Arc<dyn SpanSink>>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, WireError> {
        let folder = settings.root.join("tenants");
        let created = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        created.map_err(|source| WireError::Tenants { folder, source })?;
        Ok(Self {
            network,
            spans,
            settings: settings.clone(),
            stop,
            open: Cells::new(),
            is_draining: AtomicBool::new(false),
        })
    }

    /// Hands on what is accepted until `stop` resolves or no more comes, then waits for the tenants' servers.
    pub(crate) async fn serve(
        self: Arc<Self>,
        accepted: impl Stream<Item = (Peer, Connection)>,
        stop: impl Future<Output = ()>,
    ) {
        // A tenant whose state takes long to open keeps no other one waiting.
        let handled = accepted.for_each_concurrent(None, |(peer, connection)| {
            let tenants = Arc::clone(&self);
            async move {
                if let Err(error) = tenants.take(peer.clone(), connection).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        kind = ?error.kind(),
                        ?peer,
                        "a connection is refused"
                    );
                }
            }
        });
        tokio::select! {
            () = handled => {}
            () = stop => {}
        }
        for cell in self.open.open_cells() {
            if let Some(tenant) = cell.get() {
                tenant.server_end().await;
            }
        }
    }

    /// Hands a connection to the server of its tenant, which is set up when this is the tenant's first.
    async fn take(&self, peer: Peer, connection: Connection) -> Result<(), TenantError> {
        let folder = peer.folder().ok_or(TenantError::Unknown)?;
        let cell = self
            .open
            .get(peer, MAX_TENANTS)
            .map_err(|no_cell| match no_cell {
                NoCell::Full => TenantError::TooMany,
                NoCell::Closed => TenantError::Ended,
            })?;
        let tenant = cell.get_or_try_init(|| self.set_up(folder)).await?;
        // It may have been opened while the others were told.
        if self.is_draining.load(Ordering::SeqCst)
            && let Some(engine) = tenant.composed.engine().upgrade()
        {
            engine.refuse_builds();
        }
        let handed_over = tenant.connections.send(Ok(connection)).await;
        // The error of a closed channel is the connection itself.
        handed_over.map_err(|_| TenantError::Ended)
    }

    /// The engines of the tenants that are open, with their folders' names.
    pub(crate) fn engines(&self) -> Vec<(String, Arc<Engine>)> {
        let cells = self.open.open_cells();
        let open = cells.iter().filter_map(|cell| cell.get());
        open.filter_map(|tenant| Some((tenant.name.clone(), tenant.composed.engine().upgrade()?)))
            .collect()
    }

    /// Tenants that are opened from now on may begin no builds. Those that are open are told by their engines.
    pub(crate) fn refuse_builds(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    async fn set_up(&self, folder: String) -> Result<Tenant, TenantError> {
        let mut settings = self.settings.clone();
        settings.root = self.settings.root.join("tenants").join(&folder);
        // A socket for all would tell nobody whose spans it takes.
        if settings.otel_socket.is_some() {
            settings.otel_socket = Some(settings.root.join(SPAN_SOCKET));
        }
        let network = self.network.clone();
        let spans = self.spans.clone();
        let compose = move || wire::compose(&settings, network, spans);
        let composed = task::blocking("open a tenant", compose).await?;
        let name = folder.clone();
        let (connections, incoming) = mpsc::channel(MAX_WAITING_CONNECTIONS);
        let routes = composed.routes.clone();
        let mut stop = self.stop.clone();
        tracing::info!(tenant = %folder, "a tenant's state is open");
        let (ending, ended) = watch::channel(false);
        let server = task::spawn("tenant server", async move {
            let stopped = async move {
                // An error means that the daemon is going away altogether.
                if stop.wait_for(|stop| *stop).await.is_err() {
                    tracing::debug!("the daemon is gone");
                }
            };
            let incoming = futures::stream::unfold(incoming, |mut incoming| async move {
                Some((incoming.recv().await?, incoming))
            });
            let served = control::serve(routes, incoming, stopped).await;
            if let Err(error) = served {
                tracing::error!(%error, tenant = %folder, "the tenant's server ended");
            }
            ending.send_replace(true);
        });
        Ok(Tenant {
            name,
            composed,
            connections,
            server,
            ended,
        })
    }

    /// Closes every tenant's state in order, also of those whose connection is just being handed over. Calls that still run are
    /// cancelled.
    pub(crate) async fn close(self: Arc<Self>) {
        let (tenants, still_in_use) = self.open.close(HAND_OVER_TIMEOUT).await;
        for tenant in tenants {
            drop(tenant.server);
            tenant.composed.close().await;
        }
        for peer in still_in_use {
            tracing::error!(
                ?peer,
                "a tenant's state is still being opened or handed a connection, it is not closed in order"
            );
        }
    }
}

impl Tenant {
    /// Waits until the tenant's server has ended.
    async fn server_end(&self) {
        let mut ended = self.ended.clone();
        // An error means that the server is gone already.
        if ended.wait_for(|ended| *ended).await.is_err() {
            tracing::debug!("the tenant's server is gone");
        }
    }
}
