//! Real containers of a busybox tree: what a step sees, and what it must not reach. Needs root and /bin/busybox; skips otherwise.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use executor::launcher::{Config, Launcher};
use executor::runtime::{self, Runtime};
use executor::{
    Access, ContainerSpec, Control, Entitlements, ExecError, Executor, ExitStatus, Mount,
    MountSource, NetworkMode, Output, ProcessIo, ProcessSpec, SandboxNetwork, SecurityMode, Signal,
    StartError, Ulimit, WinSize,
};
use parking_lot::Mutex;
use sys::mount::{self, DetachedMount};
use sys::userns::{IdMapping, IdRange};
use tokio::sync::{mpsc, oneshot};

#[path = "containers/bridge.rs"]
mod bridge;
#[path = "containers/cases.rs"]
mod cases;
#[path = "containers/confinement.rs"]
mod confinement;
#[path = "containers/conformance.rs"]
mod conformance;
#[path = "containers/held.rs"]
mod held;
#[path = "containers/lifetime.rs"]
mod lifetime;
#[path = "containers/mounts.rs"]
mod mounts;
#[path = "containers/nested.rs"]
mod nested;
#[path = "containers/probe.rs"]
mod probe;
#[path = "containers/runtimes.rs"]
mod runtimes;
#[path = "containers/supervised.rs"]
mod supervised;
#[path = "containers/users.rs"]
mod users;
#[path = "containers/world.rs"]
mod world;

sys::before_main!(become_launcher_or_root_of_users);

fn become_launcher_or_root_of_users() {
    executor::launcher::dispatch();
    nested::enter();
}

/// A root filesystem with busybox under every name, on disk, and mounted as an overlay.
struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Option<Self> {
        Self::new_in(std::env::temp_dir())
    }

    fn new_in(place: impl AsRef<Path>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            testkit::skip::skip("needs root and /bin/busybox");
            return None;
        }
        let dir = tempfile::tempdir_in(place).unwrap();
        for name in ["lower/bin", "lower/etc", "lower/tmp", "upper", "work"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let bin = dir.path().join("lower/bin");
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for name in [
            "sh", "true", "cat", "ls", "id", "sleep", "echo", "env", "mknod", "dd", "stat", "pwd",
            "hostname", "ip", "tty", "stty", "kill", "chroot", "mkdir", "rm", "ln", "touch",
            "mount", "readlink", "head", "wc", "ps", "test", "ulimit", "grep", "mkfifo", "df",
        ] {
            symlink("busybox", bin.join(name)).unwrap();
        }
        std::fs::write(
            dir.path().join("lower/etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nbuild:x:1000:100::/home/build:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("lower/etc/group"),
            "root:x:0:\nusers:x:100:\nwheel:x:10:build\n",
        )
        .unwrap();
        std::fs::set_permissions(
            dir.path().join("lower/tmp"),
            PermissionsExt::from_mode(0o1777),
        )
        .unwrap();
        Some(Self { dir })
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn mount(&self) -> DetachedMount {
        let lower = sys::path::open_dir(self.path("lower")).unwrap();
        self.mount_over(&lower, None)
    }

    /// The same for a container in the user namespace of `ids`, as the store makes it.
    fn mount_mapped(&self, ids: &IdMapping) -> DetachedMount {
        let lower = sys::path::open_dir(self.path("lower")).unwrap();
        self.mount_over(&lower, Some(ids))
    }

    /// This tree's upper directory over any lower one.
    fn mount_over(&self, lower: impl AsFd, ids: Option<&IdMapping>) -> DetachedMount {
        let open = |dir: BorrowedFd<'_>| match ids {
            Some(ids) => {
                let mapped = mount::open_tree_clone(dir, false).unwrap();
                mount::map_ids(&mapped, ids, false).unwrap();
                OwnedFd::from(mapped)
            }
            None => dir.try_clone_to_owned().unwrap(),
        };
        let upper = open(sys::path::open_dir(self.dir.path()).unwrap().as_fd());
        let [upper, work] = ["upper", "work"].map(|name| {
            let flags = sys::path::OpenFlags::PATH | sys::path::OpenFlags::DIRECTORY;
            sys::path::open_no_symlinks(&upper, name, flags, 0).unwrap()
        });
        let lower = open(lower.as_fd());
        let _owner = ids.map(|ids| sys::userns::FileOwner::assume(ids.range().base).unwrap());
        mount::overlay(&mount::Overlay {
            lower: &[lower.as_fd()],
            upper: Some((upper.as_fd(), work.as_fd())),
            volatile: false,
            options: &[],
            attrs: mount::Attrs::default(),
        })
        .unwrap()
    }

    fn spec(&self, args: &[&str]) -> ContainerSpec {
        ContainerSpec::new(Access::SANDBOX, self.mount(), process(args))
    }

    fn shell(&self, script: &str) -> ContainerSpec {
        self.spec(&["/bin/sh", "-c", script])
    }
}

fn process(args: &[&str]) -> ProcessSpec {
    ProcessSpec {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/usr/bin:/bin".into()],
        cwd: "/".into(),
        ..ProcessSpec::default()
    }
}

fn launcher() -> Arc<Launcher> {
    Arc::new(Launcher::new(Config::host_network()))
}

/// An OCI runtime of this machine, whatever faults its version has: nothing hostile runs here.
fn oci_runtime(program: impl AsRef<Path>, root: std::path::PathBuf) -> Arc<Runtime> {
    oci_runtime_on(program, root, SandboxNetwork::Host)
}

fn oci_runtime_on(
    program: impl AsRef<Path>,
    root: std::path::PathBuf,
    sandbox_network: SandboxNetwork,
) -> Arc<Runtime> {
    let output = std::process::Command::new(program.as_ref())
        .arg("--version")
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let version = output.lines().next().unwrap().rsplit(' ').next().unwrap();
    let config = runtime::Config {
        program: program.as_ref().to_owned(),
        root,
        sandbox_network,
        proxy: None,
        dns: executor::dns::DnsConfig::default(),
        cgroup_parent: String::new(),
        accepted_versions: vec![version.to_owned()],
    };
    Arc::new(Runtime::open(config).unwrap())
}

fn collect(into: &Arc<Mutex<String>>) -> Output {
    let into = Arc::clone(into);
    Output::sink(move |chunk: bytes::Bytes| into.lock().push_str(&String::from_utf8_lossy(&chunk)))
}

async fn run(launcher: &Launcher, spec: ContainerSpec) -> Result<(ExitStatus, String), ExecError> {
    run_on(launcher, spec).await
}

async fn run_on(
    executor: &dyn Executor,
    spec: ContainerSpec,
) -> Result<(ExitStatus, String), ExecError> {
    let text = Arc::new(Mutex::new(String::new()));
    let io = ProcessIo {
        stdout: collect(&text),
        stderr: collect(&text),
        ..ProcessIo::default()
    };
    let status = executor.run(spec, io, None).await?;
    let text = text.lock().clone();
    Ok((status, text))
}

async fn text(launcher: &Launcher, spec: ContainerSpec) -> String {
    let (status, text) = run(launcher, spec).await.unwrap();
    assert_eq!(status.code, 0, "{text}");
    text
}

fn place(path: impl AsRef<Path>) -> MountSource {
    MountSource::Place(sys::path::open_host_path(path.as_ref()).unwrap())
}

fn at(dest: &str, source: MountSource) -> Mount {
    Mount {
        dest: dest.into(),
        source,
        selector: String::new(),
        readonly: false,
    }
}
