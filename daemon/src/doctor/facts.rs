//! The facts that checks are made on: files, numbers and trials of system calls.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sys::mount::{self, Attrs, Overlay};
use sys::process::{self, Cloned, Namespaces, SingleThreaded};
use sys::{path, userns};

use crate::rootless::{self, Entered};

/// Whether a trial worked, or the kernel's words why it did not.
pub type Trial = Result<(), String>;

/// The facts of this machine and this process.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The kernel's release, as `uname -r` has it.
    pub release: String,
    /// The id of the user that started this process.
    pub uid: u32,
    /// The user's name, or the id of a user without one.
    pub name: String,
    /// Whether the process started as root of a user namespace that somebody else made.
    pub nested: bool,
    /// `kernel.unprivileged_userns_clone`, which Debian's kernels have.
    pub userns_clone: Option<String>,
    /// `user.max_user_namespaces`.
    pub max_userns: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, which Ubuntu's kernels have.
    pub apparmor_restricts: Option<String>,
    /// `newuidmap` and `newgidmap`.
    pub helpers: [Helper; 2],
    /// What came of entering a user namespace; `None` for a process that is root already.
    pub entered: Option<Result<Entered, String>>,
    /// How many user ids the process has now.
    pub ids: u64,
    /// Whether an overlay can be mounted below the state directory.
    pub overlay: Trial,
    /// Whether a new proc can be mounted in a process namespace.
    pub proc: Trial,
    /// Whether a process can be cloned into all the namespaces of a step.
    pub namespaces: Trial,
    /// Whether a socket of nftables can be opened.
    pub nftables: Trial,
    /// The control groups of this process.
    pub cgroups: Cgroups,
    /// The state directory.
    pub root: PathBuf,
    /// Bytes that are free for the state directory; `None` where the kernel does not say.
    pub free: Option<u64>,
    /// Whether `git` is installed.
    pub git: bool,
    /// Whether `/dev/net/tun` can be opened.
    pub tun: Trial,
    /// The network that the process is in belongs to its user namespace.
    pub own_network: bool,
    /// Programs that carry packets of a bridge in another network.
    pub carriers: Vec<&'static str>,
    /// Interpreters of other machines' programs that are registered.
    pub emulators: Vec<String>,
}

/// A set-user-ID helper.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Helper {
    /// Its path; `None` if it is not installed.
    pub path: Option<PathBuf>,
    /// Whether its mode or its capabilities let it change ids.
    pub privileged: bool,
}

/// Control groups of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Whether the v2 hierarchy is mounted.
    pub v2: bool,
    /// Whether v1 hierarchies are mounted.
    pub v1: bool,
    /// Whether the v2 group of this process can be written to.
    pub delegated: bool,
    /// The controllers of that group.
    pub controllers: Vec<String>,
}

impl Facts {
    /// Collects all facts. An ordinary user's process is root of a user namespace afterwards, so it must have one thread.
    #[must_use]
    pub fn gather(root: &Path) -> Self {
        let read = |file: &str| {
            let text = fs::read_to_string(file).ok()?;
            Some(text.trim().to_owned())
        };
        let (uid, _) = userns::own_ids();
        let nested = userns::is_nested();
        let entered = rootless::is_needed()
            .then(|| rootless::enter().map_err(|error| oci::error::chain(&error).to_string()));
        // If it cannot be made, the trial below fails and says why.
        let _made = fs::create_dir_all(root);
        let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let ids = userns::parse_map(&ids)
            .iter()
            .map(|line| u64::from(line.count))
            .sum();
        Self {
            release: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            uid,
            name: rootless::name_of(uid),
            nested,
            userns_clone: read("/proc/sys/kernel/unprivileged_userns_clone"),
            max_userns: read("/proc/sys/user/max_user_namespaces"),
            apparmor_restricts: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            helpers: ["newuidmap", "newgidmap"].map(Helper::of),
            entered,
            ids,
            overlay: words(overlay(root)),
            proc: proc_of_steps(),
            namespaces: words(in_clone(OF_STEPS, || Ok(()))),
            // The family netlink, a raw socket, the protocol of netfilter.
            nftables: words(sys::socket::open(16, 3, 12).map(drop)),
            cgroups: Cgroups::of_this_process(),
            root: root.to_owned(),
            free: sys::file::free_space(root).ok(),
            git: rootless::find_program("git").is_some(),
            tun: words(
                fs::File::options()
                    .read(true)
                    .write(true)
                    .open("/dev/net/tun")
                    .map(drop),
            ),
            own_network: sys::netns::is_ours().unwrap_or_default(),
            carriers: net::CarrierKind::ALL
                .map(net::CarrierKind::program)
                .into_iter()
                .filter(|program| rootless::find_program(program).is_some())
                .collect(),
            emulators: emulators(),
        }
    }
}

/// The namespaces that every step has.
const OF_STEPS: Namespaces = Namespaces {
    pid: true,
    mount: true,
    ipc: true,
    uts: true,
    net: false,
    cgroup: false,
    user: false,
};

/// Tries whether a step can have a proc of its own. The process must have one thread.
fn proc_of_steps() -> Trial {
    let proc = || mount::new_mount(c"proc", &[], Attrs::default()).map(drop);
    words(in_clone(OF_STEPS, proc))
}

/// What a user should be told of the proc of steps, where parts of ours are covered as in a container: root of a user namespace gets no
/// new one then. Must be called before the process has threads.
#[must_use]
pub fn proc_warning() -> Option<String> {
    let error = userns::is_nested().then(proc_of_steps)?.err()?;
    Some(format!(
        "steps get no proc of their own ({error}), for parts of this container's are covered: they see the numbers of other processes, and cannot look into them (`rbuild doctor` says what mends it)"
    ))
}

fn words(tried: io::Result<()>) -> Trial {
    tried.map_err(|error| oci::error::errno_text(&error).to_string())
}

impl Helper {
    fn of(name: &str) -> Self {
        let path = rootless::find_program(name);
        let privileged = path.as_ref().is_some_and(|path| {
            let set_user = fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o4000 != 0);
            let capable =
                || sys::xattr::get(path::open_host_path(path.as_path())?, "security.capability");
            set_user || capable().is_ok_and(|value| value.is_some())
        });
        Self { path, privileged }
    }
}

impl Cgroups {
    fn of_this_process() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let place = |kind: &str| {
            mounts.lines().find_map(|line| {
                let mut fields = line.split(' ').skip(1);
                let at = fields.next()?;
                (fields.next()? == kind).then(|| PathBuf::from(at))
            })
        };
        let v2 = place("cgroup2");
        let group = v2.as_ref().and_then(|root| {
            let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
            Some(root.join(path))
        });
        let controllers = group.as_ref().map(|group| group.join("cgroup.controllers"));
        let controllers = controllers.and_then(|file| fs::read_to_string(file).ok());
        Self {
            v2: v2.is_some(),
            v1: place("cgroup").is_some(),
            delegated: group.is_some_and(|group| {
                fs::File::options()
                    .write(true)
                    .open(group.join("cgroup.procs"))
                    .is_ok()
            }),
            controllers: controllers
                .iter()
                .flat_map(|text| text.split_whitespace())
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// Runs `work` in a clone of this process with namespaces of its own.
fn in_clone(namespaces: Namespaces, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let alone = SingleThreaded::claim()?;
    match process::clone3(&alone, namespaces, None)? {
        Cloned::Child => process::exit_now(match work() {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(255),
        }),
        Cloned::Parent { pid, .. } => match process::wait_for(pid)? {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        },
    }
}

/// Tries to mount an overlay of empty folders below the state directory.
fn overlay(root: &Path) -> io::Result<()> {
    let dir = root.join(format!("doctor-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let attempt = || {
        let open = |name: &str| {
            let place = dir.join(name);
            fs::create_dir(&place)?;
            path::open_dir(place.as_path())
        };
        let (lower, upper, work) = (open("lower")?, open("upper")?, open("work")?);
        let spec = Overlay {
            lower: &[lower.as_fd()],
            upper: Some((upper.as_fd(), work.as_fd())),
            volatile: false,
            options: &[],
            attrs: Attrs::default(),
        };
        mount::overlay(&spec).map(drop)
    };
    let result = attempt();
    // It holds only empty folders and those that overlay makes.
    let _left = fs::remove_dir_all(&dir);
    result
}

fn emulators() -> Vec<String> {
    let registered = fs::read_dir("/proc/sys/fs/binfmt_misc");
    let names = registered.into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_prefix("qemu-").map(str::to_owned))
        .collect();
    names.sort();
    names
}
