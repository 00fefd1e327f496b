//! Listeners: unix sockets, TCP with TLS, and sockets handed over by the service manager.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::Connection;
use futures::Stream;
use oci::ErrorKind;
use oci::error::chain;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::settings::{Isolation, Settings, TlsSettings};
use crate::tenants::Peer;

/// Handshakes and accepted connections that wait for the server.
const MAX_WAITING_CONNECTIONS: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that one peer may have open on a listener: a runner uses two or three. More than that are closed at once, so that one peer
/// does not take the descriptors of all.
const MAX_CONNECTIONS_PER_PEER: usize = 2_000;

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is of none of the forms `unix://`, `tcp://` and `fd://`.
    #[error("address {0:?} is not understood: use unix:///path, tcp://host:port or fd://")]
    Address(String),
    /// The socket cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address of the listener.
        address: String,
        /// Why it cannot be bound.
        source: io::Error,
    },
    /// Another daemon is listening there.
    #[error("cannot listen on {0}: another daemon answers there; stop it or choose another --addr")]
    InUse(String),
    /// A TCP address would be open to everybody.
    #[error(
        "refusing to listen on {0} without client certificates: whoever reaches it is root here; give --tlscert, --tlskey and --tlscacert, or listen on a unix socket"
    )]
    Open(String),
    /// A loopback address would be open to every step of a build.
    #[error(
        "refusing to listen on {0} without client certificates: build steps share this host's network ({1}), so every step could use the address and be root here; give --tlscert, --tlskey and --tlscacert, listen on a unix socket, or insist with --allow-insecure-loopback"
    )]
    OpenToSteps(String, &'static str),
    /// The debugging address is of none of the forms `unix://`, `tcp://` and `host:port`.
    #[error(
        "debugging address {0:?} is not understood: use unix:///path, tcp://host:port or host:port"
    )]
    DebugAddress(String),
    /// Other machines could reach the debugging address, and with it the metrics.
    #[error(
        "refusing to serve metrics on {0}, which others than this machine can reach; use a loopback address or a unix socket, or insist with --allow-insecure-debugaddr (then only metrics and health are shown)"
    )]
    OpenDebug(String),
    /// No certificate would say who a client is.
    #[error(
        "refusing to listen on {0} without client certificates: with isolation = \"client\" they tell whose a connection is; give --tlscert, --tlskey and --tlscacert, or listen on a unix socket"
    )]
    OpenToTenants(String),
    /// A TLS file cannot be used.
    #[error("cannot use {}: {}", path.display(), chain(source.as_ref()))]
    Tls {
        /// The path of the file.
        path: PathBuf,
        /// Why it cannot be read, or what in it cannot be used.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The service manager handed over no socket.
    #[error("fd:// was given, but no socket was handed over (LISTEN_FDS)")]
    NoFds,
}

impl ListenError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Address(_) | Self::DebugAddress(_) | Self::NoFds | Self::Tls { .. } => {
                ErrorKind::Invalid
            }
            Self::Bind { source, .. } => ErrorKind::of_io(source),
            Self::InUse(_) => ErrorKind::Exists,
            Self::Open(_) | Self::OpenDebug(_) | Self::OpenToSteps(..) | Self::OpenToTenants(_) => {
                ErrorKind::Denied
            }
        }
    }
}

/// One open listener.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket; the path is removed on drop if we made it.
    Unix(UnixListener, Option<PathBuf>),
    /// TCP, with TLS where configured.
    Tcp(TcpListener, Option<Tls>),
}

/// TLS of a listener.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Opens all listeners of the settings.
pub fn open(settings: &Settings) -> Result<Vec<(String, Listener)>, ListenError> {
    let mut listeners = Vec::new();
    for address in &settings.addresses {
        if let Some(path) = address.strip_prefix("unix://") {
            listeners.push((
                address.clone(),
                unix(address, Path::new(path), settings.socket_owner)?,
            ));
        } else if let Some(host) = address.strip_prefix("tcp://") {
            listeners.push((address.clone(), tcp(address, host, settings)?));
        } else if address.starts_with("fd://") {
            listeners.extend(
                inherited(settings)?
                    .into_iter()
                    .map(|l| (address.clone(), l)),
            );
        } else {
            return Err(ListenError::Address(address.clone()));
        }
    }
    Ok(listeners)
}

pub(crate) fn unix(
    address: &str,
    path: &Path,
    (uid, gid): (Option<u32>, Option<u32>),
) -> Result<Listener, ListenError> {
    let failed = |source| ListenError::Bind {
        address: address.into(),
        source,
    };
    if let Some(parent) = path.parent() {
        make_folders(parent).map_err(failed)?;
    }
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ListenError::InUse(address.into()));
        }
        fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::os::unix::fs::chown(path, uid, gid).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(Listener::Unix(listener, Some(path.to_owned())))
}

/// Makes the folder of a socket and those missing towards it, open to whoever may use the socket. Those that exist stay as they are.
fn make_folders(folder: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = folder.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(folder)?;
    for created in missing {
        fs::set_permissions(created, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Refuses a TCP listener that somebody could use who has no certificate: whoever else is on its network, and on the loopback
/// interface of this host every step that shares it (P19).
fn guard<'a>(
    address: &str,
    mut bound: impl Iterator<Item = &'a SocketAddr>,
    settings: &Settings,
) -> Result<(), ListenError> {
    if settings.tls.as_ref().is_some_and(|tls| tls.ca.is_some()) {
        return Ok(());
    }
    if settings.isolation == Isolation::Client {
        return Err(ListenError::OpenToTenants(address.into()));
    }
    if bound.any(|a| !a.ip().is_loopback()) {
        return Err(ListenError::Open(address.into()));
    }
    // DIFFERS: BuildKit warns, and only of addresses that are not loopback ones.
    match settings.steps_on_host_network() {
        None => Ok(()),
        Some(_) if settings.allow_insecure_loopback => {
            tracing::warn!(
                address,
                "every build step on the host's network can use this address and be root here"
            );
            Ok(())
        }
        Some(why) => Err(ListenError::OpenToSteps(address.into(), why)),
    }
}

fn tcp(address: &str, host: &str, settings: &Settings) -> Result<Listener, ListenError> {
    let tls = settings.tls.as_ref();
    let failed = |source| ListenError::Bind {
        address: address.into(),
        source,
    };
    let addresses: Vec<SocketAddr> = host.to_socket_addrs().map_err(failed)?.collect();
    guard(address, addresses.iter(), settings)?;
    let listener = std::net::TcpListener::bind(addresses.as_slice()).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Listener::Tcp(
        TcpListener::from_std(listener).map_err(failed)?,
        tls.map(acceptor).transpose()?,
    ))
}

#[allow(
    clippy::disallowed_methods,
    reason = "systemd hands sockets over in the environment of the daemon"
)]
fn inherited(settings: &Settings) -> Result<Vec<Listener>, ListenError> {
    let tls = settings.tls.as_ref();
    let failed = |source| ListenError::Bind {
        address: "fd://".into(),
        source,
    };
    let count: i32 = std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let mut listeners = Vec::new();
    for number in 3..3_i32.saturating_add(count.clamp(0, 64)) {
        let fd = sys::process::adopt_fd(number).map_err(failed)?;
        let fd_for_tcp = fd.try_clone().map_err(failed)?;
        let unix = std::os::unix::net::UnixListener::from(fd);
        if unix.local_addr().is_ok() {
            unix.set_nonblocking(true).map_err(failed)?;
            listeners.push(Listener::Unix(
                UnixListener::from_std(unix).map_err(failed)?,
                None,
            ));
        } else {
            let tcp = std::net::TcpListener::from(fd_for_tcp);
            let local = tcp.local_addr().map_err(failed)?;
            guard(&local.to_string(), std::iter::once(&local), settings)?;
            tcp.set_nonblocking(true).map_err(failed)?;
            listeners.push(Listener::Tcp(
                TcpListener::from_std(tcp).map_err(failed)?,
                tls.map(acceptor).transpose()?,
            ));
        }
    }
    if listeners.is_empty() {
        return Err(ListenError::NoFds);
    }
    Ok(listeners)
}

fn acceptor(tls: &TlsSettings) -> Result<Tls, ListenError> {
    fn wrong<E>(path: &Path) -> impl FnOnce(E) -> ListenError
    where
        E: Error + Send + Sync + 'static,
    {
        move |source| ListenError::Tls {
            path: path.to_owned(),
            source: Box::new(source),
        }
    }
    let certificates = |path: &Path| {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(wrong(path))
    };
    let certificate = certificates(&tls.cert)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(wrong(&tls.key))?;
    let builder = rustls::ServerConfig::builder();
    let builder = match &tls.ca {
        Some(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(wrong(ca))?;
            }
            let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots))
                .build()
                .map_err(wrong(ca))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(certificate, key)
        .map_err(wrong(&tls.cert))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Tls(TlsAcceptor::from(Arc::new(config))))
}

/// How many connections each peer has open.
#[derive(Debug, Clone, Default)]
struct Open(Arc<Mutex<HashMap<Peer, usize>>>);

/// The count of one open connection of a peer, taken back when dropped.
struct CountedConnection {
    open: Open,
    peer: Peer,
    _counted: metrics::GaugeGuard,
}

impl Open {
    fn place(&self, peer: &Peer) -> Option<CountedConnection> {
        let mut open = self.0.lock();
        let count = open.entry(peer.clone()).or_default();
        if *count >= MAX_CONNECTIONS_PER_PEER {
            tracing::warn!(?peer, "too many connections, one is refused");
            return None;
        }
        *count += 1;
        Some(CountedConnection {
            open: self.clone(),
            peer: peer.clone(),
            _counted: metrics::CONNECTIONS.enter(metrics::NoLabels),
        })
    }

    /// Counts a connection of `peer`; `None` if the peer has [`MAX_CONNECTIONS_PER_PEER`] open already.
    fn admit(
        &self,
        peer: Peer,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Option<(Peer, Connection)> {
        let place = self.place(&peer)?;
        Some((peer, Connection::new(stream).keeping(place)))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut open = self.open.0.lock();
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// Accepts connections until the stream is dropped, each with the peer at its other end. One that fails is logged and forgotten.
pub fn accept(listener: Listener) -> impl Stream<Item = (Peer, Connection)> {
    let (to, from) = mpsc::channel(MAX_WAITING_CONNECTIONS);
    let open = Open::default();
    let task = task::spawn("listener", async move {
        match listener {
            Listener::Unix(listener, path) => {
                let _socket = path.map(RemoveOnDrop);
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            let peer = stream
                                .peer_cred()
                                .map_or(Peer::Unknown, |peer| Peer::User(peer.uid()));
                            let Some(connection) = open.admit(peer, stream) else {
                                continue;
                            };
                            if to.send(connection).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => pause(&error).await,
                    }
                }
            }
            Listener::Tcp(listener, tls) => {
                let mut handshakes: Vec<task::Task<()>> = Vec::new();
                loop {
                    let stream = match listener.accept().await {
                        Ok((stream, _)) => stream,
                        Err(error) => {
                            pause(&error).await;
                            continue;
                        }
                    };
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY");
                    }
                    let Some(Tls(acceptor)) = tls.clone() else {
                        let Some(connection) = open.admit(Peer::Unknown, stream) else {
                            continue;
                        };
                        if to.send(connection).await.is_err() {
                            return;
                        }
                        continue;
                    };
                    handshakes.retain(|h| !h.is_finished());
                    if handshakes.len() >= MAX_WAITING_CONNECTIONS {
                        tracing::warn!("too many TLS handshakes at once, a connection is refused");
                        continue;
                    }
                    let (to, open) = (to.clone(), open.clone());
                    handshakes.push(task::spawn("tls handshake", async move {
                        match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await
                        {
                            Ok(Ok(stream)) => {
                                let peer = Peer::of_tls(stream.get_ref().1);
                                let Some(connection) = open.admit(peer, stream) else {
                                    return;
                                };
                                if to.send(connection).await.is_err() {
                                    tracing::debug!("the listener is closed");
                                }
                            }
                            Ok(Err(error)) => tracing::info!(%error, "TLS handshake failed"),
                            Err(_) => tracing::info!("TLS handshake took too long"),
                        }
                    }));
                }
            }
        }
    });
    futures::stream::unfold((from, task), |(mut from, task)| async move {
        Some((from.recv().await?, (from, task)))
    })
}

/// Waits after a failed accept: an error such as too many open descriptors does not pass at once.
pub(crate) async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    task::clock::sleep(Duration::from_millis(50)).await;
}

pub(crate) struct RemoveOnDrop(pub(crate) PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "the socket is left behind");
        }
    }
}

#[cfg(test)]
mod cases;

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Args, Defaults, file::File};

    fn settings(args: &[&str], text: &str) -> Settings {
        let args = Args::parse_from(std::iter::once("buildkitd").chain(args.iter().copied()));
        let (file, warnings) = File::parse(text).unwrap();
        Settings::resolve(&args, file, warnings, &Defaults::of("buildkitd")).unwrap()
    }

    #[test]
    fn no_step_finds_a_daemon_to_ask_on_the_hosts_loopback_interface() {
        let tls = ["--tlscert", "c", "--tlskey", "k"];
        let mutual = [&tls[..], &["--tlscacert", "a"]].concat();
        let none = ["--oci-worker-net", "none"];
        let bridge = ["--oci-worker-net", "bridge"];
        let entitled = [&none[..], &["--allow-insecure-entitlement", "network.host"]].concat();
        let insisting = ["--allow-insecure-loopback"];
        let in_file = "[grpc]\n  allowInsecureLoopback = true\n";
        let (loopback, anywhere) = ("127.0.0.1:1234", "0.0.0.0:1234");
        for (address, args, file, want) in [
            (loopback, &[][..], "", "steps"),
            ("[::1]:1234", &[], "", "steps"),
            ("127.9.9.9:1", &[], "", "steps"),
            (loopback, &tls, "", "steps"),
            (loopback, &mutual, "", "open"),
            (loopback, &none, "", "open"),
            (loopback, &bridge, "", "open"),
            (loopback, &entitled, "", "steps"),
            (loopback, &insisting, "", "open"),
            (loopback, &[], in_file, "open"),
            (anywhere, &[], "", "everybody"),
            (anywhere, &insisting, "", "everybody"),
            (anywhere, &none, "", "everybody"),
            (anywhere, &tls, "", "everybody"),
            (anywhere, &mutual, "", "open"),
        ] {
            let settings = settings(args, file);
            let bound: SocketAddr = address.parse().unwrap();
            let verdict = match guard(address, [bound].iter(), &settings) {
                Ok(()) => "open",
                Err(ListenError::OpenToSteps(..)) => "steps",
                Err(ListenError::Open(..)) => "everybody",
                Err(error) => panic!("{error}"),
            };
            assert_eq!(verdict, want, "{address} {args:?} {file:?}");
        }
        let refused = tcp("tcp://localhost:0", "localhost:0", &settings(&[], "")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "refusing to listen on tcp://localhost:0 without client certificates: build steps share this host's network (worker.oci.networkMode is auto or host), so every step could use the address and be root here; give --tlscert, --tlskey and --tlscacert, listen on a unix socket, or insist with --allow-insecure-loopback"
        );
    }

    #[tokio::test]
    async fn a_peer_has_no_more_connections_than_it_may_and_another_is_not_affected() {
        let open = Open::default();
        let stream = || tokio::io::duplex(1).0;
        let mut greedy: Vec<_> = std::iter::from_fn(|| open.admit(Peer::User(1), stream()))
            .take(MAX_CONNECTIONS_PER_PEER + 1)
            .collect();
        assert_eq!(greedy.len(), MAX_CONNECTIONS_PER_PEER);
        let other_peer = open.admit(Peer::User(2), stream());
        assert!(other_peer.is_some());
        greedy.pop();
        assert!(open.admit(Peer::User(1), stream()).is_some());
        drop((greedy, other_peer));
        assert!(open.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_group_and_its_folder_can_be_entered() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        fs::create_dir(&old).unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o750)).unwrap();
        let socket = old.join("new/newer/rbuildd.sock");
        let private = crate::mask::PrivateFiles::begin();
        let listener = unix("unix://test", &socket, (None, None)).unwrap();
        drop(private);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&socket), 0o660);
        for folder in ["old/new", "old/new/newer"] {
            assert_eq!(mode(&dir.path().join(folder)), 0o755, "{folder}");
        }
        assert_eq!(mode(&old), 0o750);
        drop(listener);
    }
}
