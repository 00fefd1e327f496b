//! The thread that makes and removes the namespaces of steps, and how the bridge's are made.
//!
//! It goes into each new namespace to set up what is inside, and comes back. All it makes for the host it makes with sockets that it
//! opened there, so it can never do something to the host by being in the wrong place.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::addresses::Addresses;
use crate::error::NetError;
use crate::link::{INSIDE, Index, LOOPBACK, Veth};
use crate::nft;
use crate::owner::Owner;
use crate::pool::Pool;
use crate::socket::Socket;
use crate::subnet::{Subnet, hardware};

/// How long the kernel may take to find out that a link is connected; usually less than a millisecond.
const LINK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long nothing is made for the pool after a namespace could not be made.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// A namespace with its link, ready for a step.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) fd: OwnedFd,
    pub(crate) key: Key,
}

/// By what its maker knows a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// The address behind the bridge.
    Address(Ipv4Addr),
    /// The name of a container of CNI.
    Container(String),
}

/// How namespaces are made. Dropped, it removes everything that it made.
pub(crate) trait Make: Send {
    /// Makes a namespace that is complete, for a container with this name of its own if there is one. The calling thread may be
    /// anywhere meanwhile, and is on the host when this returns.
    fn make(&mut self, hostname: Option<&str>) -> Result<Namespace, NetError>;

    /// Cuts a namespace off, whoever may still be in it.
    fn remove(&mut self, namespace: Namespace);
}

/// The network of one step: its namespace, which is deleted when this is dropped.
#[derive(Debug)]
pub struct StepNetwork {
    namespace: Option<Namespace>,
    nameserver: Option<Ipv4Addr>,
    shared: Arc<Shared>,
}

impl StepNetwork {
    /// The step's address behind the bridge.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        match self.namespace.as_ref()?.key {
            Key::Address(address) => Some(address),
            Key::Container(_) => None,
        }
    }

    /// The only server that the step asks for names, if there is one.
    #[must_use]
    pub fn nameserver(&self) -> Option<Ipv4Addr> {
        self.nameserver
    }
}

impl AsFd for StepNetwork {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let namespace = self.namespace.as_ref();
        namespace
            .expect("only dropping takes the namespace away")
            .fd
            .as_fd()
    }
}

impl Drop for StepNetwork {
    fn drop(&mut self) {
        if let Some(namespace) = self.namespace.take() {
            self.shared.give_back(namespace);
        }
    }
}

/// The state that the thread shares with those who take and release networks.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    nameserver: Option<Ipv4Addr>,
}

/// A step that waits for its network.
#[derive(Debug)]
struct Waiting {
    /// Its container's name, when what is made ahead does not do for it.
    hostname: Option<String>,
    arrives: oneshot::Sender<Result<StepNetwork, NetError>>,
}

#[derive(Debug)]
struct State {
    pool: Pool<Namespace>,
    /// One for each step that waits, so bounded by the number of steps.
    waiting: VecDeque<Waiting>,
    released: Vec<Namespace>,
    closing: bool,
}

impl Shared {
    pub(crate) fn new(floor: usize, nameserver: Option<Ipv4Addr>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                pool: Pool::new(floor, task::clock::monotonic()),
                waiting: VecDeque::new(),
                released: Vec::new(),
                closing: false,
            }),
            changed: Condvar::new(),
            nameserver,
        })
    }

    /// Takes a network that is ready, or waits for one; with a hostname, for one that is made for it. Cancel-safe: one that nobody takes
    /// any more is kept for the next.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        hostname: Option<String>,
    ) -> Result<StepNetwork, NetError> {
        let arriving = {
            let mut state = self.state.lock();
            if state.closing {
                return Err(NetError::Closed);
            }
            let ready = match hostname {
                None => state.pool.take(task::clock::monotonic()),
                Some(_) => None,
            };
            let arriving = match ready {
                Some(namespace) => Ok(namespace),
                None => {
                    let (arrives, arriving) = oneshot::channel();
                    state.waiting.push_back(Waiting { hostname, arrives });
                    Err(arriving)
                }
            };
            self.changed.notify_one();
            arriving
        };
        match arriving {
            Ok(namespace) => Ok(self.network(namespace)),
            Err(arriving) => match arriving.await {
                Ok(network) => network,
                // The thread drops what waits only when it ends.
                Err(_ended) => Err(NetError::Closed),
            },
        }
    }

    fn network(self: &Arc<Self>, namespace: Namespace) -> StepNetwork {
        StepNetwork {
            namespace: Some(namespace),
            nameserver: self.nameserver,
            shared: Arc::clone(self),
        }
    }

    fn give_back(&self, namespace: Namespace) {
        let mut state = self.state.lock();
        state.pool.release();
        state.released.push(namespace);
        self.changed.notify_one();
    }

    /// Puts one into the pool that was made before the thread began.
    pub(crate) fn add(&self, namespace: Namespace) {
        let mut state = self.state.lock();
        state.pool.add(namespace, task::clock::monotonic());
    }

    /// Has the thread remove everything and end.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_one();
    }

    /// How many are ready and how many wait to be removed.
    #[cfg(test)]
    pub(crate) fn missing(&self) -> usize {
        let state = self.state.lock();
        state.pool.missing() + state.released.len()
    }
}

/// What the thread does next.
enum Work {
    /// Remove a namespace whose step has ended.
    Remove(Namespace),
    /// Make a namespace for a waiting step, or for the pool.
    Make,
    /// Make a namespace for this step only.
    MakeFor(Waiting),
    End,
}

/// What belongs to the bridge on the host; all of it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) owner: Owner,
    pub(crate) route: Socket,
    /// The socket that owns the table: the kernel removes the table when it is closed.
    pub(crate) netfilter: Socket,
    pub(crate) namespace: OwnedFd,
    pub(crate) bridge: Option<Index>,
    pub(crate) subnet: Subnet,
    pub(crate) mtu: u32,
    pub(crate) addresses: Addresses,
    pub(crate) ports: HashMap<Ipv4Addr, Index>,
}

impl Drop for Host {
    fn drop(&mut self) {
        let failed = |what: &'static str, error: io::Error| {
            tracing::warn!(%error, what, "part of the bridge network stays");
        };
        for (_, port) in std::mem::take(&mut self.ports) {
            if let Err(error) = self.route.delete(port) {
                failed("port", error);
            }
        }
        if let Some(bridge) = self.bridge
            && let Err(error) = self.route.delete(bridge)
        {
            failed("bridge", error);
        }
        if let Err(error) = nft::delete_table(&mut self.netfilter, &self.owner.mark.table()) {
            failed("table", error);
        }
    }
}

impl Make for Host {
    /// The calling thread is in the namespace for that time.
    fn make(&mut self, _hostname: Option<&str>) -> Result<Namespace, NetError> {
        let address = self.addresses.take()?;
        let namespace = self.make_at(address);
        let back = sys::netns::enter(&self.namespace);
        let back = back.map_err(NetError::system("return to the host's network"));
        let result = back.and(namespace);
        if result.is_err() {
            self.remove_at(address);
        }
        result
    }

    /// Frees the address, too. One whose link stays is not used again.
    fn remove(&mut self, namespace: Namespace) {
        let Namespace { fd, key } = namespace;
        drop(fd);
        if let Key::Address(address) = key {
            self.remove_at(address);
        }
    }
}

impl Host {
    fn make_at(&mut self, address: Ipv4Addr) -> Result<Namespace, NetError> {
        let bridge = self.bridge.ok_or(NetError::Closed)?;
        let failed = NetError::system;
        sys::netns::unshare().map_err(failed("make a network namespace"))?;
        let fd = sys::netns::current().map_err(failed("open a network namespace"))?;
        let mut inside = Socket::route().map_err(failed("open a netlink socket"))?;
        let hardware_address = hardware(address);
        let veth = Veth {
            name: &self.owner.mark.port(address.into()),
            bridge,
            mtu: self.mtu,
            hardware: hardware_address,
            namespace: fd.as_fd(),
        };
        let port = self.route.add_veth(&veth);
        let port = port.map_err(failed("make the link of a step"))?;
        self.ports.insert(address, port);
        let gateway = self.subnet.gateway();
        let outside = |route: &mut Socket| {
            route.confine(port, hardware_address)?;
            route.add_neighbour(bridge, address, hardware_address)?;
            route.no_ipv6_address(port)?;
            route.up(port)
        };
        outside(&mut self.route).map_err(failed("set up the host's end of a step's link"))?;
        let subnet = self.subnet;
        let set_up = |inside: &mut Socket| {
            let link = inside.index_of(INSIDE)?;
            inside.no_ipv6_address(link)?;
            inside.up(LOOPBACK)?;
            inside.add_address(link, address, subnet)?;
            inside.up(link)?;
            inside.add_neighbour(link, gateway, hardware(gateway))?;
            inside.add_default_route(gateway)
        };
        set_up(&mut inside).map_err(failed("set up a step's end of its link"))?;
        let operates = |host: &mut Socket| {
            let link = inside.index_of(INSIDE)?;
            Ok(host.operates(port)? && host.operates(bridge)? && inside.operates(link)?)
        };
        wait_until(operates, &mut self.route).map_err(failed("wait for a step's link"))?;
        let key = Key::Address(address);
        Ok(Namespace { fd, key })
    }

    fn remove_at(&mut self, address: Ipv4Addr) {
        if let Some(port) = self.ports.get(&address) {
            if let Err(error) = self.route.delete(*port) {
                tracing::warn!(%error, %address, "the link of a step stays");
                return;
            }
            self.ports.remove(&address);
        }
        if let Some(bridge) = self.bridge
            && let Err(error) = self.route.delete_neighbour(bridge, address)
        {
            // The entry was never written, or the bridge is gone.
            tracing::debug!(%error, %address, "no neighbour was forgotten");
        }
        self.addresses.release(address);
    }
}

/// Waits for links, for which the kernel has no other call. One that takes longer than [`LINK_TIMEOUT`] is used as it is: what programs
/// send is sent again.
pub(crate) fn wait_until(
    mut operates: impl FnMut(&mut Socket) -> io::Result<bool>,
    host: &mut Socket,
) -> io::Result<()> {
    let start = task::clock::monotonic();
    let mut pause = Duration::from_micros(100);
    while !operates(host)? {
        if start.elapsed() > LINK_TIMEOUT {
            tracing::debug!("a link of a step does not operate yet");
            break;
        }
        task::clock::sleep_thread(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}

/// What the thread does until it is told to end.
pub(crate) fn run(mut maker: impl Make, shared: &Arc<Shared>) {
    let mut pause: Option<Instant> = None;
    loop {
        match next(shared, &mut pause) {
            Work::Remove(namespace) => maker.remove(namespace),
            Work::Make => {
                let namespace = maker.make(None);
                deliver(shared, namespace, &mut pause);
            }
            Work::MakeFor(step) => {
                let namespace = maker.make(step.hostname.as_deref());
                let network = namespace.map(|namespace| {
                    let now = task::clock::monotonic();
                    shared.state.lock().pool.use_one(now);
                    shared.network(namespace)
                });
                // A step that has left gives it back by dropping it.
                drop(step.arrives.send(network));
            }
            Work::End => break,
        }
    }
    drop(maker);
}

/// Waits for something to do. Steps that wait come first, then what is over, then the pool.
fn next(shared: &Shared, pause: &mut Option<Instant>) -> Work {
    let mut state = shared.state.lock();
    loop {
        if state.closing {
            // Waiting steps get an error; running steps lose their network.
            state.waiting.clear();
            state.released.clear();
            drop(state.pool.drain().collect::<Vec<_>>());
            return Work::End;
        }
        // Cancelled steps no longer wait.
        state.waiting.retain(|step| !step.arrives.is_closed());
        let named = |step: &Waiting| step.hostname.is_some();
        if state.waiting.front().is_some_and(named)
            && let Some(step) = state.waiting.pop_front()
        {
            return Work::MakeFor(step);
        }
        if !state.waiting.is_empty() {
            return Work::Make;
        }
        if let Some(namespace) = state.released.pop() {
            return Work::Remove(namespace);
        }
        let now = task::clock::monotonic();
        if let Some(namespace) = state.pool.expire(now) {
            return Work::Remove(namespace);
        }
        if pause.is_some_and(|until| until <= now) {
            *pause = None;
        }
        if pause.is_none() && state.pool.missing() > 0 {
            return Work::Make;
        }
        match state.pool.next_expiry(now).into_iter().chain(*pause).min() {
            Some(until) => {
                let _timed_out = shared.changed.wait_until(&mut state, until);
            }
            None => shared.changed.wait(&mut state),
        }
    }
}

/// Gives a namespace to the first step that waits, or to the pool; an error to the first step, or to the log.
fn deliver(
    shared: &Arc<Shared>,
    namespace: Result<Namespace, NetError>,
    pause: &mut Option<Instant>,
) {
    let mut state = shared.state.lock();
    let now = task::clock::monotonic();
    let mut result = namespace.map(|namespace| shared.network(namespace));
    let is_network = result.is_ok();
    // Those that wait for a network of their own go on to wait.
    let anybodys = |step: &Waiting| step.hostname.is_none();
    while let Some(place) = state.waiting.iter().position(anybodys)
        && let Some(step) = state.waiting.remove(place)
    {
        match step.arrives.send(result) {
            Ok(()) => {
                if is_network {
                    state.pool.use_one(now);
                }
                return;
            }
            // The step was cancelled.
            Err(back) => result = back,
        }
    }
    match result {
        // Taken apart, for dropping it here would give it back, which waits for the lock.
        Ok(mut network) => {
            if let Some(namespace) = network.namespace.take() {
                state.pool.add(namespace, now);
            }
        }
        Err(error) => {
            if let NetError::Full { .. } = error {
                tracing::debug!(%error, "no network is prepared for further steps");
            } else {
                tracing::warn!(%error, "no network can be prepared for further steps");
            }
            *pause = Some(now + PAUSE_AFTER_FAILURE);
        }
    }
}
