//! Connections to a daemon.

use std::error::Error;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, io};

use hyper_util::rt::TokioIo;
use oci::ErrorKind;
use services::control::control_client::ControlClient;
use services::gateway::llb_bridge_client::LlbBridgeClient;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// What a daemon may send on one call, and on all of a connection, before it is read. A full window of small frames must cost less
/// than half of the connection's window, which is what the `h2` crate grants such frames before it ends the connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 256 << 20;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket file.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// Files for TLS; with an authority the connection is encrypted.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Authority that the daemon's certificate comes from; PEM.
    pub ca: Option<PathBuf>,
    /// Certificate of this client, with those between it and its authority; PEM.
    pub cert: Option<PathBuf>,
    /// Key of the certificate; PEM.
    pub key: Option<PathBuf>,
    /// The name in the daemon's certificate, if it is not the host's.
    pub server_name: Option<String>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The text is not an address such as `unix:///path` or `tcp://host:port`.
    #[error("invalid address {text:?}: expected unix:///path or tcp://host:port")]
    Address {
        /// The address as it was given.
        text: String,
    },
    /// Addresses of this scheme are not supported.
    #[error("addresses of kind `{scheme}` are not supported; use unix:// or tcp://")]
    Scheme {
        /// The part of the address before the colon.
        scheme: String,
    },
    /// A file for TLS cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    TlsFile {
        /// The path of the file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file that TLS needs beside those given.
    #[error("{missing} is required for TLS")]
    TlsIncomplete {
        /// The flag that names it.
        missing: &'static str,
    },
    /// The files for TLS cannot be used.
    #[error("cannot use the files for TLS: {}", oci::error::innermost(source))]
    Tls {
        /// Why they cannot be used.
        source: tonic::transport::Error,
    },
    /// The host and the port of the address cannot be part of a URL.
    #[error("invalid address {address}: {}", oci::error::innermost(source))]
    Host {
        /// The address as it was given.
        address: Address,
        /// Why it cannot be part of a URL.
        source: tonic::transport::Error,
    },
    /// No connection came about within 20 seconds.
    #[error("cannot connect to {address}: {}", oci::error::innermost(source))]
    Transport {
        /// The address of the daemon.
        address: Address,
        /// Why it failed.
        source: tonic::transport::Error,
    },
    /// The socket cannot be connected, or broke while it was relayed.
    #[error("cannot connect to {address}: {source}")]
    Socket {
        /// The address of the daemon.
        address: Address,
        /// Why it failed.
        source: io::Error,
    },
}

/// What keeps a connection from being made that could be there: the hints of a program follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// No daemon answers at the address.
    Nobody,
    /// Somebody answers whose certificate is not trusted, or who does not trust ours.
    Certificate,
    /// A server answers that does not speak TLS, or a version of it that this client does not.
    Tls,
}

impl ConnectError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Address { .. }
            | Self::Scheme { .. }
            | Self::Host { .. }
            | Self::Tls { .. }
            | Self::TlsIncomplete { .. } => ErrorKind::Invalid,
            Self::TlsFile { source, .. } => ErrorKind::of_io(source),
            Self::Transport { source, .. } => {
                match (tls_error(source), ErrorKind::of_causes(source)) {
                    (Some(_), _) => ErrorKind::Denied,
                    (None, ErrorKind::Failed) => ErrorKind::Unavailable,
                    (None, kind) => kind,
                }
            }
            Self::Socket { source, .. } => ErrorKind::of_io(source),
        }
    }

    /// What stands in the way; none where nobody was called.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        let tls = match self {
            Self::Address { .. }
            | Self::Scheme { .. }
            | Self::Host { .. }
            | Self::Tls { .. }
            | Self::TlsFile { .. }
            | Self::TlsIncomplete { .. } => return None,
            Self::Transport { source, .. } => tls_error(source),
            Self::Socket { source, .. } => tls_error(source),
        };
        // rustls adds errors; all others are of its protocol.
        Some(match tls {
            None => Obstacle::Nobody,
            Some(
                rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented
                | rustls::Error::AlertReceived(_),
            ) => Obstacle::Certificate,
            Some(_) => Obstacle::Tls,
        })
    }
}

/// The error of TLS among the causes. An `io::Error` that carries one hides it from `source`, which skips to that one's own cause.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        let carried = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match carried {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}

impl FromStr for Address {
    type Err = ConnectError;

    fn from_str(text: &str) -> Result<Self, ConnectError> {
        let bad = || ConnectError::Address {
            text: text.to_owned(),
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        match scheme {
            "unix" if !rest.is_empty() => Ok(Self::Unix(rest.into())),
            "tcp" if rest.contains(':') => Ok(Self::Tcp(rest.to_owned())),
            "unix" | "tcp" => Err(bad()),
            other => Err(ConnectError::Scheme {
                scheme: other.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

/// A connection to a daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects now, so that a daemon that is not there is noticed here.
    pub async fn connect(address: &Address, tls: &TlsFiles) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Transport {
            address: address.clone(),
            source,
        };
        let channel = match address {
            Address::Unix(path) => {
                let path = path.clone();
                tune(Endpoint::from_static("http://localhost"))
                    .connect_with_connector(tower::service_fn(move |_| {
                        let path = path.clone();
                        async move { UnixStream::connect(path).await.map(TokioIo::new) }
                    }))
                    .await
                    .map_err(failed)?
            }
            Address::Tcp(host) => {
                let config = tls_config(tls)?;
                let scheme = if config.is_some() { "https" } else { "http" };
                let endpoint = Endpoint::from_shared(format!("{scheme}://{host}"));
                let mut endpoint = tune(endpoint.map_err(|source| ConnectError::Host {
                    address: address.clone(),
                    source,
                })?);
                if let Some(config) = config {
                    endpoint = endpoint
                        .tls_config(config)
                        .map_err(|source| ConnectError::Tls { source })?;
                }
                endpoint.connect().await.map_err(failed)?
            }
        };
        Ok(Self { channel })
    }

    #[cfg(test)]
    pub(crate) fn over(channel: Channel) -> Self {
        Self { channel }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
            .max_decoding_message_size(proto::MAX_MESSAGE)
            .max_encoding_message_size(proto::MAX_MESSAGE)
    }

    pub(crate) fn gateway(&self) -> LlbBridgeClient<Channel> {
        LlbBridgeClient::new(self.channel.clone())
            .max_decoding_message_size(proto::MAX_MESSAGE)
            .max_encoding_message_size(proto::MAX_MESSAGE)
    }

    /// Joins a daemon's socket with two byte streams until one side ends.
    pub async fn relay(
        address: &Address,
        input: &mut (impl tokio::io::AsyncRead + Unpin),
        output: &mut (impl tokio::io::AsyncWrite + Unpin),
    ) -> Result<(), ConnectError> {
        let failed = |source| ConnectError::Socket {
            address: address.clone(),
            source,
        };
        let relayed = match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                let (read, write) = stream.into_split();
                pump(read, write, input, output).await
            }
            Address::Tcp(host) => {
                let stream = TcpStream::connect(host).await.map_err(failed)?;
                let (read, write) = stream.into_split();
                pump(read, write, input, output).await
            }
        };
        relayed.map_err(failed)
    }
}

// The daemon's end of stream ends the relay; ours only half-closes it.
async fn pump(
    mut read: impl tokio::io::AsyncRead + Unpin,
    mut write: impl tokio::io::AsyncWrite + Unpin,
    input: &mut (impl tokio::io::AsyncRead + Unpin),
    output: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> io::Result<()> {
    use tokio::io::AsyncWriteExt;
    let up = async {
        tokio::io::copy(input, &mut write).await?;
        write.shutdown().await?;
        std::future::pending::<io::Result<()>>().await
    };
    let down = async {
        tokio::io::copy(&mut read, output).await?;
        output.flush().await
    };
    tokio::select! {
        done = up => done,
        done = down => done,
    }
}

fn tune(endpoint: Endpoint) -> Endpoint {
    endpoint
        .http2_max_header_list_size(u32::try_from(proto::MAX_MESSAGE).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_timeout(Duration::from_secs(20))
        .tcp_nodelay(true)
}

fn tls_config(files: &TlsFiles) -> Result<Option<ClientTlsConfig>, ConnectError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| ConnectError::TlsFile {
            path: path.clone(),
            source,
        })
    };
    let Some(ca) = &files.ca else {
        if files.cert.is_some() || files.key.is_some() || files.server_name.is_some() {
            return Err(ConnectError::TlsIncomplete {
                missing: "--tlscacert",
            });
        }
        return Ok(None);
    };
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        (Some(_), None) => {
            return Err(ConnectError::TlsIncomplete {
                missing: "--tlskey",
            });
        }
        (None, Some(_)) => {
            return Err(ConnectError::TlsIncomplete {
                missing: "--tlscert",
            });
        }
        (None, None) => {}
    }
    if let Some(name) = &files.server_name {
        config = config.domain_name(name.clone());
    }
    Ok(Some(config))
}
