//! The DNS forwarder: listens on the bridge's address, asks the resolvers of the host, and hands back what they say.
//!
//! It asks for steps only: its sockets are tied to the bridge, and a sender from outside of the subnet is not heard. It looks nothing up
//! by itself and keeps nothing. A step cannot make it work without end: so many queries of one step, and of all, are under way at a time,
//! each with a time limit; what is over that is dropped, as a lossy network would, and asked again by the step's resolver.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use rustix::rand::GetRandomFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::dns::{self, Code, Query, Unfit};
use crate::subnet::Subnet;

/// How long one resolver may take over UDP; the resolver of the C library waits five seconds before it asks again.
const UDP_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a resolver may take over TCP, connecting included.
const TCP_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a step's TCP connection may say nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Queries over UDP and connections that are served at a time, of all steps and of one.
const MAX_QUERIES: QueryLimits = QueryLimits {
    total: 512,
    per_step: 64,
};
const MAX_CONNECTIONS: QueryLimits = QueryLimits {
    total: 128,
    per_step: 16,
};
/// Queries that a step may ask by one connection.
const MAX_QUERIES_PER_CONNECTION: usize = 256;
/// A resolver of the C library uses three.
const MAX_RESOLVERS: usize = 4;
/// A UDP message that is longer is not one of DNS as anybody sends it; EDNS asks for at most 4,096 bytes in practice.
const MAX_DATAGRAM_BYTES: usize = 8 << 10;
const MAX_RESOLV_CONF_BYTES: u64 = 64 << 10;
const DNS_PORT: u16 = 53;

/// The host's file is read again after this time.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Servers for a host that names none: those that BuildKit takes then.
const PUBLIC_RESOLVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

#[derive(Debug, Clone, Copy)]
struct QueryLimits {
    /// Of all steps together.
    total: usize,
    /// Of one step.
    per_step: usize,
}

/// The resolvers that the forwarder asks for steps.
#[derive(Debug)]
pub struct Upstreams {
    source: ResolverSource,
    /// The resolvers of the host's file when it was last read, and that moment.
    cached: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

#[derive(Debug)]
enum ResolverSource {
    Fixed(Vec<SocketAddr>),
    /// A resolv.conf. `excluded` is not asked: the forwarder's own address.
    File {
        path: PathBuf,
        excluded: Ipv4Addr,
    },
}

impl Upstreams {
    /// These servers, in this order; without any, those of the host's `/etc/resolv.conf`, which is read again when it changes. The
    /// host's may be on its loopback interface: they are asked from the host.
    #[must_use]
    pub fn new(configured: &[IpAddr]) -> Self {
        let fixed = configured.iter().take(MAX_RESOLVERS);
        let fixed: Vec<_> = fixed.map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect();
        if fixed.is_empty() {
            return Self::of(ResolverSource::File {
                path: "/etc/resolv.conf".into(),
                excluded: Ipv4Addr::UNSPECIFIED,
            });
        }
        Self::of(ResolverSource::Fixed(fixed))
    }

    fn of(source: ResolverSource) -> Self {
        Self {
            source,
            cached: Mutex::new(None),
        }
    }

    /// Leaves out the forwarder itself, should the host's file name it.
    pub(crate) fn without(mut self, own_address: Ipv4Addr) -> Self {
        match &mut self.source {
            ResolverSource::Fixed(list) => list.retain(|address| address.ip() != own_address),
            ResolverSource::File { excluded, .. } => *excluded = own_address,
        }
        self
    }

    fn list(&self) -> Vec<SocketAddr> {
        let (path, excluded) = match &self.source {
            ResolverSource::Fixed(list) => return list.clone(),
            ResolverSource::File { path, excluded } => (path, *excluded),
        };
        let mut cached = self.cached.lock();
        let now = task::clock::monotonic();
        if let Some((since, list)) = &*cached
            && now.saturating_duration_since(*since) < RELOAD_INTERVAL
        {
            return list.clone();
        }
        let mut text = Vec::new();
        let outcome = File::open(path)
            .and_then(|file| file.take(MAX_RESOLV_CONF_BYTES).read_to_end(&mut text));
        if let Err(error) = outcome {
            tracing::debug!(%error, "the host's resolvers cannot be read");
        }
        let list = resolvers(&String::from_utf8_lossy(&text), excluded);
        *cached = Some((now, list.clone()));
        list
    }
}

/// The servers of a resolv.conf but `excluded`; the public ones if there are none.
fn resolvers(text: &str, excluded: Ipv4Addr) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address: IpAddr = match (words.next(), words.next()) {
            (Some("nameserver"), Some(word)) => word.parse().ok()?,
            _ => return None,
        };
        (address != excluded).then_some(SocketAddr::new(address, DNS_PORT))
    };
    let list: Vec<_> = text
        .lines()
        .filter_map(server)
        .take(MAX_RESOLVERS)
        .collect();
    if list.is_empty() {
        return PUBLIC_RESOLVERS
            .iter()
            .map(|ip| SocketAddr::new((*ip).into(), DNS_PORT))
            .collect();
    }
    list
}

/// The open sockets of a forwarder.
#[derive(Debug)]
pub(crate) struct Listening {
    udp: UdpSocket,
    tcp: TcpListener,
    subnet: Subnet,
}

impl Listening {
    /// Opens the sockets for steps behind the interface `device`. Needs a runtime.
    pub(crate) fn open(
        address: SocketAddr,
        device: Option<&str>,
        subnet: Subnet,
    ) -> io::Result<Self> {
        let udp = std::net::UdpSocket::bind(address)?;
        udp.set_nonblocking(true)?;
        let udp = UdpSocket::from_std(udp)?;
        let tcp = TcpSocket::new_v4()?;
        // Connections of a daemon before us that the kernel still remembers are no reason not to listen.
        tcp.set_reuseaddr(true)?;
        if let Some(device) = device {
            udp.bind_device(Some(device.as_bytes()))?;
            tcp.bind_device(Some(device.as_bytes()))?;
        }
        tcp.bind(address)?;
        let tcp = tcp.listen(64)?;
        Ok(Self { udp, tcp, subnet })
    }

    /// Serves until dropped.
    pub(crate) async fn serve(self, upstreams: Upstreams) {
        let Self { udp, tcp, subnet } = self;
        let (udp, upstreams) = (Arc::new(udp), Arc::new(upstreams));
        futures::join!(
            datagrams(&udp, &upstreams, subnet),
            connections(&tcp, &upstreams, subnet)
        );
    }
}

/// The queries or connections that are being served, counted by step.
struct UnderWay<'a> {
    limits: QueryLimits,
    count: HashMap<IpAddr, usize>,
    running: FuturesUnordered<BoxFuture<'a, IpAddr>>,
}

impl<'a> UnderWay<'a> {
    fn new(limits: QueryLimits) -> Self {
        Self {
            limits,
            count: HashMap::new(),
            running: FuturesUnordered::new(),
        }
    }

    /// Whether one more query or connection of this step may begin.
    fn admits(&self, step: IpAddr) -> bool {
        let of_step = self.count.get(&step).copied().unwrap_or_default();
        self.running.len() < self.limits.total && of_step < self.limits.per_step
    }

    fn begin(&mut self, step: IpAddr, work: impl Future<Output = ()> + Send + 'a) {
        *self.count.entry(step).or_default() += 1;
        self.running.push(Box::pin(async move {
            work.await;
            step
        }));
    }

    /// Waits until one of them has ended; for ever if there is none.
    async fn end_one(&mut self) {
        match self.running.next().await {
            Some(step) => {
                if let Some(count) = self.count.get_mut(&step) {
                    *count -= 1;
                    if *count == 0 {
                        self.count.remove(&step);
                    }
                }
            }
            None => std::future::pending().await,
        }
    }
}

fn is_step(address: IpAddr, subnet: Subnet) -> bool {
    match address {
        IpAddr::V4(address) => subnet.contains(address),
        IpAddr::V6(_) => false,
    }
}

async fn datagrams(socket: &Arc<UdpSocket>, upstreams: &Arc<Upstreams>, subnet: Subnet) {
    let mut under_way = UnderWay::new(MAX_QUERIES);
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let (length, step) = tokio::select! {
            () = under_way.end_one() => continue,
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                Err(error) => {
                    // An ICMP message about an earlier answer, or no memory.
                    tracing::debug!(%error, "a DNS query could not be received");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        if !is_step(step.ip(), subnet) || !under_way.admits(step.ip()) {
            continue;
        }
        let message = buffer.get(..length).unwrap_or_default().to_vec();
        let (socket, upstreams) = (Arc::clone(socket), Arc::clone(upstreams));
        under_way.begin(step.ip(), async move {
            let Some(answer) = answer_datagram(&message, &upstreams).await else {
                return;
            };
            if let Err(error) = socket.send_to(&answer, step).await {
                tracing::debug!(%error, "a step did not get its DNS answer");
            }
        });
    }
}

async fn answer_datagram(message: &[u8], upstreams: &Upstreams) -> Option<Vec<u8>> {
    let query = match Query::parse(message) {
        Ok(query) => query,
        Err(Unfit::Ignore) => return None,
        Err(Unfit::Answer(answer)) => return Some(answer),
    };
    let mut failed_answer = None;
    for upstream in upstreams.list() {
        match timeout(UDP_TIMEOUT, ask_datagram(&query, upstream)).await {
            Ok(Ok(answer)) if dns::is_failure(&answer) => failed_answer = Some(answer),
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%error, %upstream, "a resolver cannot be asked"),
            Err(_late) => tracing::debug!(%upstream, "a resolver does not answer"),
        }
    }
    Some(failed_answer.unwrap_or_else(|| query.answer(Code::ServerFailure)))
}

/// Asks one resolver, from a port and under a number that nobody can guess.
async fn ask_datagram(query: &Query<'_>, upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let unspecified: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(unspecified).await?;
    socket.connect(upstream).await?;
    let id = random_id()?;
    socket.send(&query.with_id(id)).await?;
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let response = buffer.get(..length).unwrap_or_default();
        if query.is_answered_by(response, id) {
            if length == buffer.len() {
                return Ok(query.too_long());
            }
            return Ok(dns::with_id(response, query.id()));
        }
    }
}

async fn connections(listener: &TcpListener, upstreams: &Arc<Upstreams>, subnet: Subnet) {
    let mut under_way = UnderWay::new(MAX_CONNECTIONS);
    loop {
        let (stream, step) = tokio::select! {
            () = under_way.end_one() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a DNS connection could not be accepted");
                    // Too many descriptors are open: others have to close some.
                    task::clock::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        if !is_step(step.ip(), subnet) || !under_way.admits(step.ip()) {
            continue;
        }
        let upstreams = Arc::clone(upstreams);
        under_way.begin(step.ip(), async move {
            if let Err(error) = serve_connection(stream, &upstreams).await {
                tracing::debug!(%error, "a DNS connection ended");
            }
        });
    }
}

async fn serve_connection(mut stream: TcpStream, upstreams: &Upstreams) -> io::Result<()> {
    for _query in 0..MAX_QUERIES_PER_CONNECTION {
        let message = match timeout(IDLE_TIMEOUT, read_message(&mut stream)).await {
            Ok(message) => message?,
            Err(_idle) => return Ok(()),
        };
        let answer = match Query::parse(&message) {
            Ok(query) => answer_stream(&query, upstreams).await,
            Err(Unfit::Answer(answer)) => answer,
            Err(Unfit::Ignore) => return Ok(()),
        };
        timeout(IDLE_TIMEOUT, write_message(&mut stream, &answer)).await??;
    }
    Ok(())
}

async fn answer_stream(query: &Query<'_>, upstreams: &Upstreams) -> Vec<u8> {
    let mut failed_answer = None;
    for upstream in upstreams.list() {
        match timeout(TCP_TIMEOUT, ask_stream(query, upstream)).await {
            Ok(Ok(answer)) if dns::is_failure(&answer) => failed_answer = Some(answer),
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => tracing::debug!(%error, %upstream, "a resolver cannot be asked"),
            Err(_late) => tracing::debug!(%upstream, "a resolver does not answer"),
        }
    }
    failed_answer.unwrap_or_else(|| query.answer(Code::ServerFailure))
}

async fn ask_stream(query: &Query<'_>, upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let id = random_id()?;
    write_message(&mut stream, &query.with_id(id)).await?;
    let response = read_message(&mut stream).await?;
    if query.is_answered_by(&response, id) {
        Ok(dns::with_id(&response, query.id()))
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Reads a message with its length before it.
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}

pub(crate) fn random_id() -> io::Result<[u8; 2]> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, GetRandomFlags::empty())?;
    Ok(id)
}

#[cfg(test)]
mod tests;
