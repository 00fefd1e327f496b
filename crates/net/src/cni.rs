//! Networks of steps by programs of CNI, as the administrator's configuration says.
//!
//! ```text
//! STATE/lock                     held by the daemon whose networks these are
//! STATE/CONTAINER/netns          the namespace, mounted: programs take paths
//! STATE/CONTAINER/attachment     what DEL needs: the network as it was for ADD, and ADD's result
//! ```
//!
//! What a killed daemon left is taken away by the next one that has the same state directory: with the configuration that was in force
//! then, and with the namespace, which its mount kept alive, so that programs find what they set up in it. After a restart of the
//! machine the namespace is gone, and programs are told so.
//!
//! As behind the bridge, a namespace serves one step, and as many are prepared as steps lately ran at a time.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::rand::GetRandomFlags;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chain::{InvalidNetwork, MAX_CONFIG_BYTES, Network};
use crate::error::NetError;
use crate::link::LOOPBACK;
use crate::maker::{self, Key, Make, Namespace, Shared, StepNetwork};
use crate::plugin::{Container, PluginError};
use crate::socket::Socket;

const NAMESPACE_FILE: &str = "netns";
const ATTACHMENT_FILE: &str = "attachment";
/// The kind of the file system whose files are namespaces (`NSFS_MAGIC`).
const NAMESPACE_FS: rustix::fs::FsWord = 0x6e73_6673;

/// Where CNI is.
#[derive(Debug, Clone)]
pub struct CniConfig {
    /// The file that describes the network.
    pub network: PathBuf,
    /// Folders of programs, in the order in which they are searched.
    pub folders: Vec<PathBuf>,
    /// A folder of this daemon's own, which need not exist.
    pub state: PathBuf,
    /// How many namespaces are always prepared.
    pub pool_size: usize,
}

/// The CNI network of this daemon; dropped, it removes everything.
#[derive(Debug)]
pub struct Cni {
    shared: Arc<Shared>,
    maker: Mutex<Option<JoinHandle<()>>>,
}

impl Cni {
    /// Takes away what a daemon that was killed left, and makes the first namespace, in the network namespace of the calling thread.
    /// Blocks; needs CAP_NET_ADMIN and CAP_SYS_ADMIN.
    pub fn open(config: CniConfig) -> Result<Self, NetError> {
        let failed = NetError::system;
        let network = read(&config.network)?;
        let mut plugins = Plugins::open(config.state, network, config.folders)?;
        plugins.sweep();
        let shared = Shared::new(config.pool_size, None);
        // As early as this it is said that something is missing, and not by the first build.
        shared.add(plugins.make(None)?);
        tracing::info!(
            network = plugins.network.name(),
            config = %config.network.display(),
            "steps have networks by CNI"
        );
        let for_maker = Arc::clone(&shared);
        let maker = thread::Builder::new()
            .name("step networks".to_owned())
            .stack_size(256 << 10)
            .spawn(move || maker::run(plugins, &for_maker))
            .map_err(failed("start a thread"))?;
        Ok(Self {
            shared,
            maker: Mutex::new(Some(maker)),
        })
    }

    /// Takes a network for a step: one that is ready, or the next that is made; for a step with a hostname of its own, one of which the
    /// programs are told that name. Cancel-safe.
    pub async fn acquire(&self, hostname: &str) -> Result<StepNetwork, NetError> {
        let hostname = Some(hostname.to_owned()).filter(|name| !name.is_empty());
        self.shared.acquire(hostname).await
    }

    /// Removes everything, and returns when it is gone. Steps that still run have no network any more.
    pub async fn close(&self) {
        self.shared.close();
        let maker = self.maker.lock().take();
        if let Some(maker) = maker {
            let ended = task::blocking("remove networks", move || maker.join()).await;
            if ended.is_err() {
                tracing::error!("the thread of step networks ended by a panic");
            }
        }
    }
}

impl Drop for Cni {
    fn drop(&mut self) {
        // The thread removes everything, also when nobody waits for it.
        self.shared.close();
    }
}

fn read(path: &Path) -> Result<Network, NetError> {
    let text = || -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?
            .take(MAX_CONFIG_BYTES)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = text().map_err(|source| NetError::CniFile {
        path: path.to_owned(),
        source,
    })?;
    Network::parse(&text).map_err(|source: InvalidNetwork| NetError::CniNetwork {
        path: path.to_owned(),
        source,
    })
}

/// What is kept of a container until its DEL.
#[derive(Debug, Serialize, Deserialize)]
struct Attachment {
    network: Network,
    folders: Vec<PathBuf>,
    arguments: String,
    /// None while ADD has not answered.
    result: Option<Value>,
}

/// Makes and removes namespaces by programs; all of them go when this is dropped.
#[derive(Debug)]
struct Plugins {
    host: OwnedFd,
    state: PathBuf,
    _lock: File,
    network: Network,
    folders: Vec<PathBuf>,
    attached: HashMap<String, Attachment>,
}

impl Plugins {
    fn open(state: PathBuf, network: Network, folders: Vec<PathBuf>) -> Result<Self, NetError> {
        let failed = NetError::system;
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&state);
        made.map_err(failed("make the folder of CNI's networks"))?;
        let lock = File::create(state.join("lock"));
        let lock = lock.map_err(failed("open the lock of CNI's networks"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(NetError::StateInUse { state }),
            Err(errno) => return Err(failed("lock CNI's networks")(errno.into())),
        }
        Ok(Self {
            host: sys::netns::current().map_err(failed("open the network namespace"))?,
            state,
            _lock: lock,
            network,
            folders,
            attached: HashMap::new(),
        })
    }

    fn container(&self, id: &str, attachment: &Attachment) -> Container {
        let namespace = self.state.join(id).join(NAMESPACE_FILE);
        Container {
            id: id.to_owned(),
            namespace: is_namespace(&namespace).then_some(namespace),
            arguments: attachment.arguments.clone(),
            folders: attachment.folders.clone(),
        }
    }

    /// Takes away what is of no living daemon: the lock is ours.
    fn sweep(&self) {
        let entries = fs::read_dir(&self.state).into_iter().flatten().flatten();
        for entry in entries {
            let folder = entry.path();
            let Some(id) = folder.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if !folder.is_dir() {
                continue;
            }
            tracing::info!(
                container = id,
                "removing a network of CNI that a daemon left"
            );
            let attachment = fs::read(folder.join(ATTACHMENT_FILE)).ok();
            let attachment = attachment.and_then(|text| serde_json::from_slice(&text).ok());
            // Without it nothing was set up yet.
            let deleted = attachment.map_or(Ok(()), |attachment: Attachment| {
                let container = self.container(id, &attachment);
                let result = attachment.result.as_ref();
                attachment.network.delete(&container, result)
            });
            report(id, deleted);
            self.forget(id);
        }
    }

    /// Unmounts the namespace and removes its folder.
    fn forget(&self, id: &str) {
        let folder = self.state.join(id);
        let removed = unmount(&folder.join(NAMESPACE_FILE)).and_then(|()| {
            // The folder is of this module alone.
            fs::remove_dir_all(&folder)
        });
        if let Err(error) = removed {
            tracing::warn!(%error, container = id, "the folder of a network of CNI stays");
        }
    }

    /// Leaves the calling thread in the new namespace.
    fn enter_new(&self, id: &str) -> Result<OwnedFd, NetError> {
        let failed = NetError::system;
        let folder = self.state.join(id);
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(failed("make the folder of a step's network"))?;
        sys::netns::unshare().map_err(failed("make a network namespace"))?;
        let namespace = || -> io::Result<OwnedFd> {
            let fd = sys::netns::current()?;
            mount(&fd, &folder.join(NAMESPACE_FILE))?;
            Socket::route()?.up(LOOPBACK)?;
            Ok(fd)
        };
        namespace().map_err(failed("set up a network namespace"))
    }

    fn write(&self, id: &str, attachment: &Attachment) -> io::Result<()> {
        let folder = self.state.join(id);
        let new = folder.join("new");
        fs::write(&new, serde_json::to_vec(attachment)?)?;
        fs::rename(new, folder.join(ATTACHMENT_FILE))
    }

    fn attach(&mut self, id: &str, hostname: Option<&str>) -> Result<OwnedFd, NetError> {
        let namespace = self.enter_new(id);
        // Programs work for the host, whatever became of the namespace.
        sys::netns::enter(&self.host).map_err(NetError::system("return to the host's network"))?;
        let namespace = namespace?;
        let mut attachment = Attachment {
            network: self.network.clone(),
            folders: self.folders.clone(),
            arguments: arguments(hostname),
            result: None,
        };
        let write = NetError::system("write what is needed to remove a step's network");
        self.write(id, &attachment).map_err(write)?;
        let container = self.container(id, &attachment);
        let added = self.network.add(&container);
        attachment.result = added.as_ref().ok().cloned();
        let written = self.write(id, &attachment);
        self.attached.insert(id.to_owned(), attachment);
        added?;
        written.map_err(NetError::system("write down a step's network"))?;
        Ok(namespace)
    }

    fn detach(&mut self, id: &str) {
        if let Some(attachment) = self.attached.remove(id) {
            let container = self.container(id, &attachment);
            let result = attachment.result.as_ref();
            report(id, attachment.network.delete(&container, result));
        }
        self.forget(id);
    }
}

impl Make for Plugins {
    fn make(&mut self, hostname: Option<&str>) -> Result<Namespace, NetError> {
        let id = random_id().map_err(NetError::system("name a step's network"))?;
        match self.attach(&id, hostname) {
            Ok(fd) => Ok(Namespace {
                fd,
                key: Key::Container(id),
            }),
            Err(error) => {
                self.detach(&id);
                Err(error)
            }
        }
    }

    fn remove(&mut self, namespace: Namespace) {
        let Namespace { fd, key } = namespace;
        drop(fd);
        if let Key::Container(id) = key {
            self.detach(&id);
        }
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        let ids: Vec<String> = self.attached.keys().cloned().collect();
        for id in ids {
            self.detach(&id);
        }
    }
}

/// What programs are told beside their configuration. The name is one that plugins of names know from Kubernetes; those that do not know
/// it are to ignore it.
fn arguments(hostname: Option<&str>) -> String {
    match hostname {
        // `;` and `=` divide arguments.
        Some(name) if !name.contains([';', '=']) => {
            format!("K8S_POD_NAME={name};IgnoreUnknown=1")
        }
        Some(_) | None => String::new(),
    }
}

fn report(id: &str, deleted: Result<(), PluginError>) {
    if let Err(error) = deleted {
        tracing::warn!(%error, container = id, "part of a network of CNI may stay");
    }
}

fn random_id() -> io::Result<String> {
    let mut bytes = [0; 12];
    rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_namespace(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == NAMESPACE_FS)
}

/// Mounts a namespace where there is nothing.
fn mount(namespace: &OwnedFd, path: &Path) -> io::Result<()> {
    File::create_new(path)?;
    let target = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let tree = sys::mount::open_tree_clone(namespace, false)?;
    sys::mount::move_mount(tree.as_fd(), &target)
}

/// Unmounts a namespace; that there is none is fine.
fn unmount(path: &Path) -> io::Result<()> {
    if !is_namespace(path) {
        return Ok(());
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    sys::mount::umount_detach(&path)
}

#[cfg(test)]
mod tests;
