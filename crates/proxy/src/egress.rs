//! From a target to a connection: names, addresses, upstream proxies, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::addresses::Reach;
use crate::target::Target;
use crate::upstream::{Protocol, Upstream, Upstreams};

/// The network that a step's requests leave by.
#[async_trait]
pub trait Egress: Send + Sync + std::fmt::Debug {
    /// Connects to an address.
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// How long finding and connecting to a server may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one of a server's addresses may take.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(15);
/// Addresses of a server that are tried.
const MAX_ADDRESSES: usize = 8;
/// The answer of an upstream proxy to `CONNECT`, in bytes.
const MAX_ANSWER: usize = 16 << 10;

/// Why there is no connection: a sentence for the step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot find the address of {host}: {source}")]
    Lookup { host: String, source: io::Error },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error(
        "{host} is {address}, which steps do not reach by the proxy network: it is of the host or of the machine's provider"
    )]
    OutOfReach { host: String, address: IpAddr },
    #[error("cannot connect to {place}: {source}")]
    Connect { place: String, source: io::Error },
    #[error("cannot speak TLS with {place}: {source}")]
    Tls { place: String, source: io::Error },
    #[error("the upstream proxy {proxy} does not connect to {place}: {reason}")]
    Upstream {
        proxy: String,
        place: String,
        reason: String,
    },
    #[error("{place} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut { place: String },
}

/// A stream in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What a connection to a server depends on: the network, the proxy of the daemon, what the step may reach.
pub(crate) struct Way<'a> {
    pub(crate) egress: &'a dyn Egress,
    pub(crate) reach: Reach,
    pub(crate) upstreams: &'a Upstreams,
    pub(crate) tls: &'a Arc<ClientConfig>,
}

/// A stream that is connected to a target.
pub(crate) struct Connected {
    pub(crate) stream: Box<dyn Stream>,
    /// Requests are to name their whole address: they go to a proxy that reads them. Its login is of the requests then.
    pub(crate) forward: Option<Option<String>>,
}

impl Way<'_> {
    /// Connects to a target, by an upstream proxy where there is one for it.
    pub(crate) async fn connect(&self, target: &Target) -> Result<Connected, ConnectError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect_now(target));
        connecting.await.unwrap_or_else(|_elapsed| {
            Err(ConnectError::TimedOut {
                place: target.authority(true),
            })
        })
    }

    async fn connect_now(&self, target: &Target) -> Result<Connected, ConnectError> {
        let Some(upstream) = self.upstreams.of(target) else {
            let stream = self.dial(target.host(), target.port(), self.reach).await?;
            return Ok(Connected {
                stream: self.secured(Box::new(stream), target).await?,
                forward: None,
            });
        };
        // The daemon's owner has named it, so it may be anywhere.
        let stream = self
            .dial(&upstream.host, upstream.port, Reach::Host)
            .await?;
        let mut stream: Box<dyn Stream> = Box::new(stream);
        if upstream.protocol == Protocol::Https {
            stream = self.tls(stream, &upstream.host).await?;
        }
        let refused = |reason: String| ConnectError::Upstream {
            proxy: format!("{}:{}", upstream.host, upstream.port),
            place: target.authority(true),
            reason,
        };
        match upstream.protocol {
            Protocol::Http | Protocol::Https if target.is_secure() => {
                ask_http(&mut stream, upstream, target)
                    .await
                    .map_err(refused)?;
            }
            Protocol::Http | Protocol::Https => {
                return Ok(Connected {
                    stream,
                    forward: Some(upstream.authorization()),
                });
            }
            Protocol::Socks5 => ask_socks(&mut stream, upstream, target)
                .await
                .map_err(refused)?,
        }
        Ok(Connected {
            stream: self.secured(stream, target).await?,
            forward: None,
        })
    }

    async fn secured(
        &self,
        stream: Box<dyn Stream>,
        target: &Target,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        if target.is_secure() {
            self.tls(stream, target.host()).await
        } else {
            Ok(stream)
        }
    }

    async fn tls(
        &self,
        stream: Box<dyn Stream>,
        host: &str,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let failed = |source: io::Error| ConnectError::Tls {
            place: host.to_owned(),
            source,
        };
        let name = ServerName::try_from(host.to_owned());
        let name =
            name.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let connector = TlsConnector::from(Arc::clone(self.tls));
        Ok(Box::new(
            connector.connect(name, stream).await.map_err(failed)?,
        ))
    }

    async fn dial(&self, host: &str, port: u16, reach: Reach) -> Result<TcpStream, ConnectError> {
        let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => {
                let answer = tokio::net::lookup_host((host, port)).await;
                let answer = answer.map_err(|source| ConnectError::Lookup {
                    host: host.to_owned(),
                    source,
                })?;
                answer.take(MAX_ADDRESSES).collect()
            }
        };
        let mut last_error = ConnectError::NoAddress {
            host: host.to_owned(),
        };
        // One that is out of reach is not worth a try of the others: a name of the host is one.
        if let Some(refused) = addresses.iter().find(|it| !reach.allows(it.ip())) {
            return Err(ConnectError::OutOfReach {
                host: host.to_owned(),
                address: refused.ip(),
            });
        }
        for address in addresses {
            let connecting = tokio::time::timeout(ADDRESS_TIMEOUT, self.egress.connect(address));
            let result = connecting
                .await
                .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
            match result {
                Ok(stream) => {
                    // Requests and answers are whole writes; waiting for more only delays them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection waits for full packets");
                    }
                    return Ok(stream);
                }
                Err(source) => {
                    last_error = ConnectError::Connect {
                        place: address.to_string(),
                        source,
                    };
                }
            }
        }
        Err(last_error)
    }
}

/// Has an HTTP proxy connect to a target.
async fn ask_http(
    stream: &mut Box<dyn Stream>,
    upstream: &Upstream,
    target: &Target,
) -> Result<(), String> {
    let place = target.authority(true);
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some(login) = upstream.authorization() {
        request.push_str(&format!("Proxy-Authorization: {login}\r\n"));
    }
    request.push_str("\r\n");
    let broken = |error: io::Error| error.to_string();
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = Vec::new();
    // Byte by byte, for what comes behind it is of the tunnel.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_ANSWER {
            return Err("its answer is too long".to_owned());
        }
        answer.push(stream.read_u8().await.map_err(broken)?);
    }
    let text = String::from_utf8_lossy(&answer);
    let line = text.lines().next().unwrap_or_default();
    let status = line.split(' ').nth(1).unwrap_or_default();
    if line.starts_with("HTTP/1.") && status.len() == 3 && status.starts_with('2') {
        Ok(())
    } else {
        let printable: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
        Err(format!("it answered {printable:?}"))
    }
}

/// Has a SOCKS proxy connect to a target (RFC 1928, RFC 1929). Names are looked up by the proxy.
async fn ask_socks(
    stream: &mut Box<dyn Stream>,
    upstream: &Upstream,
    target: &Target,
) -> Result<(), String> {
    const VERSION: u8 = 5;
    const NO_LOGIN: u8 = 0;
    const LOGIN: u8 = 2;
    let broken = |error: io::Error| error.to_string();
    let login = upstream.login();
    let methods: &[u8] = if login.is_some() {
        &[VERSION, 2, NO_LOGIN, LOGIN]
    } else {
        &[VERSION, 1, NO_LOGIN]
    };
    stream.write_all(methods).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut choice = [0; 2];
    stream.read_exact(&mut choice).await.map_err(broken)?;
    match (choice, login) {
        ([VERSION, NO_LOGIN], _) => {}
        ([VERSION, LOGIN], Some((user, password))) => {
            let long = |_| "its login is longer than 255 bytes".to_owned();
            let mut message = vec![1, u8::try_from(user.len()).map_err(long)?];
            message.extend(user.as_bytes());
            message.push(u8::try_from(password.len()).map_err(long)?);
            message.extend(password.as_bytes());
            stream.write_all(&message).await.map_err(broken)?;
            stream.flush().await.map_err(broken)?;
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await.map_err(broken)?;
            if answer[1] != 0 {
                return Err("it refuses the login".to_owned());
            }
        }
        _ => return Err("it wants another login".to_owned()),
    }
    let mut request = vec![VERSION, 1, 0];
    match target.host().parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => {
            request.push(1);
            request.extend(v4.octets());
        }
        Ok(IpAddr::V6(v6)) => {
            request.push(4);
            request.extend(v6.octets());
        }
        Err(_) => {
            let length = u8::try_from(target.host().len());
            request.extend([3, length.map_err(|_| "the host's name is too long")?]);
            request.extend(target.host().as_bytes());
        }
    }
    request.extend(target.port().to_be_bytes());
    stream.write_all(&request).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.map_err(broken)?;
    let [VERSION, code, _, kind] = answer else {
        return Err("it does not speak SOCKS 5".to_owned());
    };
    if code != 0 {
        return Err(format!("it answered with code {code}"));
    }
    let rest = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await.map_err(broken)?),
        _ => return Err("it does not speak SOCKS 5".to_owned()),
    };
    // Where it connects from is of no interest.
    let mut bound = vec![0; rest + 2];
    stream.read_exact(&mut bound).await.map_err(broken)?;
    Ok(())
}
