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
use std::time::{Duration, Instant};

use executor::launcher::{Config, Launcher};
use executor::runtime::{self, Runtime};
use executor::{
    Access, ContainerSpec, Control, Entitlements, ExecError, Executor, ExitStatus, Mount,
    MountSource, NetworkMode, Output, ProcessIo, ProcessSpec, SecurityMode, Signal, StartError,
    Ulimit, WinSize,
};
use parking_lot::Mutex;
use sys::mount::{self, DetachedMount};
use sys::userns::{IdMapping, IdRange};
use tokio::sync::{mpsc, oneshot};

#[path = "containers/conformance.rs"]
mod conformance;
#[path = "containers/held.rs"]
mod held;
#[path = "containers/probe.rs"]
mod probe;
#[path = "containers/supervised.rs"]
mod supervised;
#[path = "containers/users.rs"]
mod users;

sys::before_main!(executor::launcher::dispatch);

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
        let own = open(sys::path::open_dir(self.dir.path()).unwrap().as_fd());
        let [upper, work] = ["upper", "work"].map(|name| {
            let flags = sys::path::OpenFlags::PATH | sys::path::OpenFlags::DIRECTORY;
            sys::path::open_no_symlinks(&own, name, flags, 0).unwrap()
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
    let said = std::process::Command::new(program.as_ref())
        .arg("--version")
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let version = said.lines().next().unwrap().rsplit(' ').next().unwrap();
    let config = runtime::Config {
        program: program.as_ref().to_owned(),
        root,
        sandbox_network: NetworkMode::Host,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_step_finds_the_world_a_build_step_finds_elsewhere() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let mut spec = tree.shell(
        "id; pwd; hostname; echo HOME=$HOME; cat /etc/hosts; echo $$; ls /dev | grep -v core; stat -c '%a %t:%T' /dev/null; df /dev/shm | grep -c shm; \
         grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:' /proc/self/status; ulimit -n; readlink /proc/self/fd/0",
    );
    spec.process.cwd = "/made/here".into();
    spec.extra_hosts = vec![("db".into(), "10.1.2.3".parse().unwrap())];
    spec.ulimits = vec![Ulimit {
        name: "nofile".into(),
        soft: 77,
        hard: 99,
    }];
    let got = text(&launcher, spec).await;
    let want = "uid=0(root) gid=0(root) groups=0(root)\n/made/here\nbuildkitsandbox\nHOME=/root\n127.0.0.1\tlocalhost buildkitsandbox\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tdb\n1\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\n\
        tty\nurandom\nzero\n666 1:3\n1\nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n77\n/dev/null\n";
    assert_eq!(got, want);
    // The mount points of /etc are gone again, what the reference leaves stays.
    assert!(!tree.path("upper/etc/hosts").exists() && !tree.path("upper/etc/resolv.conf").exists());
    assert!(tree.path("upper/made/here").is_dir() && tree.path("upper/proc").is_dir());

    let mut spec = tree.shell("id; echo $HOME; echo x > /dev/stdout; stat -c %u .");
    spec.process.user = "build".into();
    spec.process.cwd = "/work/dir".into();
    assert_eq!(
        text(&launcher, spec).await,
        "uid=1000(build) gid=100(users) groups=10(wheel),100(users)\n/home/build\nx\n1000\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_signals_and_failures_to_start_are_told_apart() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("kill -9 $$; sleep 1; sh -c 'kill -9 $$'; exit $?", 137),
    ] {
        assert_eq!(
            run(&launcher, tree.shell(script)).await.unwrap().0.code,
            code,
            "{script}"
        );
    }
    let error = |args: &'static [&'static str]| {
        let (launcher, spec) = (Arc::clone(&launcher), tree.spec(args));
        async move { run(&launcher, spec).await.unwrap_err().to_string() }
    };
    assert_eq!(
        error(&["nothing"]).await,
        "exec: \"nothing\": executable file not found in $PATH"
    );
    assert_eq!(
        error(&["/nothing"]).await,
        "exec: \"/nothing\": stat /nothing: no such file or directory"
    );
    assert_eq!(error(&["/etc"]).await, "exec: \"/etc\": is a directory");
    assert_eq!(
        error(&["/etc/passwd"]).await,
        "exec: \"/etc/passwd\": permission denied"
    );
    let mut spec = tree.shell("true");
    spec.process.user = "ghost".into();
    assert_eq!(
        run(&launcher, spec).await.unwrap_err().to_string(),
        "unable to find user ghost: no matching entries in passwd file"
    );
    std::fs::write(tree.path("lower/file"), "").unwrap();
    let mut spec = tree.shell("true");
    spec.process.cwd = "/file/below".into();
    assert!(matches!(
        run(&launcher, spec).await.unwrap_err(),
        ExecError::Start(StartError::WorkingDir { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confined_step_cannot_reach_the_kernel_or_the_host() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let disk = rustix::fs::stat("/").unwrap().st_dev;
    let script = format!(
        "mknod /dev/disk b {} {} && echo made; dd if=/dev/disk of=/dev/null count=1 2>/dev/null && echo READ; \
         mknod /tmp/disk b {0} {1}; dd if=/tmp/disk of=/dev/null count=1 2>/dev/null && echo READ; \
         mknod /tmp/null c 1 3 && echo x > /tmp/null && echo null; mknod /tmp/kmsg c 1 11; head -c1 /tmp/kmsg 2>/dev/null && echo READ; \
         echo 1 > /proc/sys/kernel/panic && echo WROTE; echo b > /proc/sysrq-trigger && echo WROTE; touch /sys/x && echo WROTE; \
         cat /proc/kcore /proc/keys | head -c 1 | wc -c; ls /sys/firmware | wc -l; mount -t tmpfs x /tmp && echo MOUNTED; \
         ls /proc/self/fd | wc -l; echo x > /etc/hosts && echo WROTE; ps > /tmp/ps; wc -l < /tmp/ps; ls /proc/1/root/",
        rustix::fs::major(disk),
        rustix::fs::minor(disk)
    );
    let got = text(&launcher, tree.shell(&format!("({script}) 2>/dev/null"))).await;
    assert_eq!(
        got,
        "made\nnull\n0\n0\n4\n3\nbin\ndev\netc\nproc\nsys\ntmp\n"
    );
    let mut spec = tree.spec(&["ip", "-o", "link"]);
    spec.access = Entitlements::default()
        .access(NetworkMode::None, SecurityMode::Sandbox)
        .unwrap();
    let got = text(&launcher, spec).await;
    assert_eq!(
        (got.lines().count(), got.contains("lo")),
        (1, true),
        "{got}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insecure_step_has_everything_and_only_with_the_entitlement() {
    let Some(tree) = Tree::new() else { return };
    let granted = Entitlements {
        network_host: true,
        security_insecure: true,
        devices: None,
    };
    let mut spec = tree.shell("mount -t tmpfs x /tmp && echo mounted; test -e /dev/fuse && echo fuse; grep Seccomp: /proc/self/status; grep -c '^CapAmb:.0000000000000000' /proc/self/status");
    spec.access = granted
        .access(NetworkMode::Host, SecurityMode::Insecure)
        .unwrap();
    let (_, got) = run(&launcher(), spec).await.unwrap();
    assert_eq!(got, "mounted\nfuse\nSeccomp:\t0\n0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_has_the_devices_it_was_given_and_no_more() {
    let Some(tree) = Tree::new() else { return };
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("lib"), "library").unwrap();
    let file = serde_json::json!({
        "cdiVersion": "0.7.0",
        "kind": "test.com/tun",
        "devices": [{"name": "one", "containerEdits": {
            "env": ["DEVICE=one"],
            "deviceNodes": [
                {"path": "/dev/a/b/tun", "type": "c", "major": 10, "minor": 200, "uid": 7},
                {"path": "/dev/reads", "hostPath": "/dev/zero", "permissions": "r"},
                {"path": "/dev/nothing", "type": "c", "major": 10, "minor": 229, "permissions": "none"}
            ],
            "mounts": [{"hostPath": host.path().join("lib"), "containerPath": "/opt/lib", "options": ["ro", "nosuid", "bind"]}],
            "additionalGids": [4242]
        }}, {"name": "hooked", "containerEdits": {
            "hooks": [{"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", "echo $MARK > $PLACE"],
                "env": ["MARK=hooked", format!("PLACE={}", host.path().join("mark").display())]}]
        }}]
    });
    std::fs::write(host.path().join("x.json"), file.to_string()).unwrap();
    let devices = executor::cdi::Devices::new(executor::cdi::Config {
        spec_dirs: vec![host.path().to_owned()],
        auto_allowed: vec!["test.com/tun".into()],
    });
    let asked = [executor::cdi::DeviceRequest {
        name: "test.com/tun=one".into(),
        optional: false,
    }];
    let script = "echo $DEVICE; cat /opt/lib; (echo x > /opt/lib) 2>/dev/null || echo ' is read-only'; \
        stat -c '%a %u %F' /dev/a/b/tun; (: 3<>/dev/a/b/tun) && echo opened; \
        head -c 4 /dev/reads | wc -c; (: 3<>/dev/nothing) && echo wrong; \
        mknod /tmp/loop c 10 237; (: 3<>/tmp/loop) && echo wrong; id -G";
    let mut executors: Vec<Arc<dyn Executor>> = vec![launcher()];
    if Path::new("/usr/sbin/runc").exists() {
        executors.push(oci_runtime("/usr/sbin/runc", host.path().join("runc")));
    }
    for executor in executors {
        let mut spec = tree.shell(&format!("({script}) 2>/dev/null"));
        spec.devices = devices.inject(&asked, &Entitlements::default()).unwrap();
        let (_, got) = run_on(&*executor, spec).await.unwrap();
        assert_eq!(
            got, "one\nlibrary is read-only\n666 7 character special file\nopened\n4\n0 4242\n",
            "{executor:?}"
        );
        let hooked = [executor::cdi::DeviceRequest {
            name: "test.com/tun=hooked".into(),
            optional: false,
        }];
        let mut spec = tree.spec(&["true"]);
        spec.devices = devices.inject(&hooked, &Entitlements::default()).unwrap();
        match run_on(&*executor, spec).await {
            Ok((status, _)) => {
                assert_eq!(status.code, 0);
                let mark = std::fs::read_to_string(host.path().join("mark")).unwrap();
                assert_eq!(mark, "hooked\n");
            }
            // Only an OCI runtime runs programs of the host.
            Err(error) => assert!(
                error.to_string().contains("has the hook /bin/sh"),
                "{error}"
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_appear_where_wanted_and_leave_no_trace() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let host = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(host.path().join("sub/dir")).unwrap();
    std::fs::write(host.path().join("sub/dir/file"), "inside").unwrap();
    let secret = |uid| MountSource::File {
        contents: b"hush".to_vec(),
        mode: 0o400,
        uid,
        gid: 0,
    };
    let mut spec = tree.shell("cat /cache/file /run/secrets/key; stat -c '%a %u' /run/secrets/key; echo > /cache/new && echo rw; echo > /ro/new || echo ro; grep -c \"^tmpfs /scratch tmpfs\" /proc/mounts; cat /etc/hosts");
    spec.mounts = vec![
        Mount {
            selector: "sub/../sub/dir".into(),
            ..at("/cache", place(host.path()))
        },
        Mount {
            readonly: true,
            ..at("/ro", place(host.path()))
        },
        at("/run/secrets/key", secret(7)),
        at(
            "/scratch",
            MountSource::Tmpfs {
                size: Some(1 << 20),
            },
        ),
        at(
            "/etc/hosts",
            MountSource::File {
                contents: b"first\n".to_vec(),
                mode: 0o644,
                uid: 0,
                gid: 0,
            },
        ),
        at(
            "/etc//hosts/",
            MountSource::File {
                contents: b"own\n".to_vec(),
                mode: 0o644,
                uid: 0,
                gid: 0,
            },
        ),
    ];
    let got = text(&launcher, spec).await;
    let said: Vec<&str> = got
        .lines()
        .filter(|line| !line.starts_with("/bin/sh: can't create /ro/new"))
        .collect();
    assert_eq!(said, ["insidehush400 7", "rw", "ro", "1", "own"]);
    for left in ["cache", "ro", "scratch", "run/secrets/key", "etc/hosts"] {
        assert!(!tree.path("upper").join(left).exists(), "{left}");
    }
    assert!(
        tree.path("upper/run/secrets").exists(),
        "parents stay unless asked"
    );
    let mut spec = tree.spec(&["true"]);
    spec.mounts = vec![at("/a/b/c", MountSource::Tmpfs { size: None })];
    spec.remove_mount_stubs_recursive = true;
    text(&launcher, spec).await;
    assert!(!tree.path("upper/a").exists());

    let mut spec = tree.shell("echo x > /new || echo refused; echo x > /tmp/t && echo rw");
    spec.readonly_root = true;
    spec.mounts = vec![
        at("/tmp", MountSource::Tmpfs { size: None }),
        at("/made", place(host.path())),
    ];
    let (_, got) = run(&launcher, spec).await.unwrap();
    assert!(got.contains("refused\n") && got.contains("rw\n"), "{got}");
    assert!(!tree.path("upper/made").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_trees_cannot_redirect_mounts_or_their_removal() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let host = tempfile::tempdir().unwrap();
    let victim = host.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("hosts"), "").unwrap();
    // P2: the destination's parent is a link out of the root, and becomes one while the step runs.
    symlink(&victim, tree.path("lower/evil")).unwrap();
    let mut spec = tree.shell(&format!(
        "rm -rf /etc; ln -s {} /etc; rm -rf /late; ln -s {0} /late",
        victim.display()
    ));
    spec.mounts = vec![
        at("/evil/made", MountSource::Tmpfs { size: None }),
        at("/late/hosts", MountSource::Tmpfs { size: None }),
    ];
    run(&launcher, spec).await.unwrap();
    assert_eq!(
        std::fs::read_dir(&victim).unwrap().count(),
        1,
        "nothing was made and nothing removed outside"
    );
    // P3: the selector cannot leave its mount, through links or dots or magic links.
    std::fs::write(host.path().join("outside"), "secret").unwrap();
    let cache = host.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    symlink("../outside", cache.join("link")).unwrap();
    symlink("/proc/self/root/etc", cache.join("magic")).unwrap();
    for selector in ["link", "../outside", "magic/shadow", "missing"] {
        let mut spec = tree.shell("cat /m");
        spec.mounts = vec![Mount {
            selector: selector.into(),
            ..at("/m", place(&cache))
        }];
        assert!(
            matches!(
                run(&launcher, spec).await,
                Err(ExecError::Start(StartError::Selector { .. }))
            ),
            "{selector}"
        );
    }
    // P6: nothing is mounted over /proc, and links do not help; an image's own links for /dev are refused.
    let tree = Tree::new().unwrap();
    symlink("/proc/self", tree.path("lower/way")).unwrap();
    for dest in [
        "/proc",
        "/proc/sys/kernel",
        "/way/attr",
        "/tmp/../proc/self",
    ] {
        let mut spec = tree.spec(&["true"]);
        spec.mounts = vec![at(dest, MountSource::Tmpfs { size: None })];
        assert!(run(&launcher, spec).await.is_err(), "{dest}");
    }
    let tree = Tree::new().unwrap();
    symlink("/tmp", tree.path("lower/dev")).unwrap();
    assert!(run(&launcher, tree.spec(&["true"])).await.is_err());
    // P5: the working directory is inside, also when it is a magic link, and no descriptor of ours is there.
    let tree = Tree::new().unwrap();
    symlink("/proc/self/fd/3", tree.path("lower/fd")).unwrap();
    for cwd in ["/proc/self/fd/3", "/proc/self/fd/7/../..", "/fd"] {
        let mut spec = tree.shell("pwd");
        spec.process.cwd = cwd.into();
        if let Ok((_, got)) = run(&launcher, spec).await {
            assert!(
                got.starts_with('/') && !got.contains("victim"),
                "{cwd}: {got}"
            );
        }
    }
    // P13: a device or fifo as passwd neither blocks nor is read.
    let passwd = tree.path("lower/etc/passwd");
    std::fs::remove_file(&passwd).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &passwd, rustix::fs::Mode::RUSR).unwrap();
    let mut spec = tree.spec(&["true"]);
    spec.process.user = "build".into();
    assert!(matches!(
        run(&launcher, spec).await,
        Err(ExecError::User(_))
    ));
}

// Only the mounts of one tree: other tests of this process mount too.
fn mounts_and_processes(tree: &Tree, marker: &str) -> (usize, usize) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| line.contains(&*tree.dir.path().to_string_lossy()))
        .count();
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(marker))
        });
    (mounts, processes.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_run_kills_everything_in_it() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    text(&launcher, tree.spec(&["true"])).await;
    let before = mounts_and_processes(&tree, "31.4159");
    for wait in [0, 1, 3, 30, 200] {
        let (started, is_started) = oneshot::channel();
        let spec = tree.shell("trap '' TERM; sleep 31.4159 & sleep 31.4159 & sleep 31.4159");
        let future = launcher.run(spec, ProcessIo::default(), Some(started));
        drop(tokio::time::timeout(Duration::from_millis(wait), future).await);
        drop(is_started);
        let start = Instant::now();
        while mounts_and_processes(&tree, "31.4159") != before {
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "{:?} {before:?}",
                mounts_and_processes(&tree, "31.4159")
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    text(&launcher, tree.spec(&["true"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_processes_join_and_end_with_their_container() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let mut spec = tree.shell("echo first > /tmp/x; sleep 60");
    spec.process.env.push("A=1".into());
    let id = spec.id.clone();
    let (started, is_started) = oneshot::channel();
    let (control, orders) = mpsc::channel(1);
    let io = ProcessIo {
        control: Some(orders),
        ..ProcessIo::default()
    };
    let container = tokio::task::spawn({
        let launcher = Arc::clone(&launcher);
        async move { launcher.run(spec, io, Some(started)).await }
    });
    is_started.await.unwrap();
    let output = Arc::new(Mutex::new(String::new()));
    let io = ProcessIo {
        stdout: collect(&output),
        stdin: Some(Box::new(&b"typed"[..])),
        ..ProcessIo::default()
    };
    let script = "while ! test -s /tmp/x; do sleep 0.01; done; cat /tmp/x - ; id -u; echo $A; ls /proc/self/fd | wc -l; grep Seccomp: /proc/self/status; exit 3";
    let mut further = process(&["sh", "-c", script]);
    further.env.clear();
    further.user = "build".into();
    let status = launcher.exec(&id, further, io).await.unwrap();
    assert_eq!(
        (status.code, output.lock().as_str()),
        (3, "first\ntyped1000\n1\n4\nSeccomp:\t2\n")
    );
    let error = launcher
        .exec(&id, process(&["nope"]), ProcessIo::default())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "exec: \"nope\": executable file not found in $PATH"
    );
    let longer = launcher.exec(&id, process(&["sleep", "60"]), ProcessIo::default());
    let killer = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        control.send(Control::Signal(Signal(9))).await.unwrap();
    };
    let (status, ()) = tokio::join!(longer, killer);
    assert_eq!(status.unwrap().code, 137);
    assert_eq!(container.await.unwrap().unwrap().code, 137);
    assert!(matches!(
        launcher
            .exec(&id, process(&["true"]), ProcessIo::default())
            .await,
        Err(ExecError::NotFound { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_one_and_can_be_resized() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let output = Arc::new(Mutex::new(String::new()));
    let (control, orders) = mpsc::channel(4);
    let (client, server) = tokio::io::duplex(64);
    let io = ProcessIo {
        stdin: Some(Box::new(server)),
        stdout: collect(&output),
        control: Some(orders),
        ..ProcessIo::default()
    };
    let mut spec =
        tree.shell("tty; test -c /dev/console && echo console; read x; echo got $x; stty size");
    spec.process.tty = true;
    control
        .send(Control::Resize(WinSize { rows: 33, cols: 99 }))
        .await
        .unwrap();
    let type_in = async {
        use tokio::io::AsyncWriteExt;
        let mut client = client;
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.write_all(b"word\n").await.unwrap();
        client
    };
    let (status, _client) = tokio::join!(launcher.run(spec, io, None), type_in);
    assert_eq!(status.unwrap().code, 0);
    assert_eq!(
        output.lock().replace('\r', ""),
        "/dev/pts/0\nconsole\nword\ngot word\n33 99\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_running_out_of_memory_is_told() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let mut spec = tree.shell("head -c 200m /dev/zero | sh -c 'x=$(cat | head -c 200000000 | busybox tr \"\\000\" a)'; exit 9");
    spec.resources.memory = 32 << 20;
    spec.resources.pids = 50;
    match run(&launcher, spec).await {
        Ok((status, _)) => assert_eq!(
            (status.oom, status.to_string().as_str()),
            (true, "cannot allocate memory")
        ),
        Err(ExecError::NoController { .. }) => testkit::skip::skip("no memory controller"),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_that_was_killed_is_started_again() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    text(&launcher, tree.spec(&["true"])).await;
    let pid = launcher.process_id().unwrap();
    let spec = tree.spec(&["sleep", "60"]);
    let (started, is_started) = oneshot::channel();
    let kill = async {
        is_started.await.unwrap();
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let (result, ()) = tokio::join!(
        launcher.run(spec, ProcessIo::default(), Some(started)),
        kill
    );
    assert!(matches!(result, Err(ExecError::Launcher { .. })));
    text(&launcher, tree.spec(&["true"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_takes_a_few_milliseconds() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let mut times = Vec::new();
    for _ in 0..100 {
        let spec = tree.spec(&["/bin/true"]);
        let start = Instant::now();
        let status = launcher
            .run(spec, ProcessIo::default(), None)
            .await
            .unwrap();
        times.push(start.elapsed());
        assert_eq!(status.code, 0);
    }
    times.sort();
    println!("container p50 {:?} p90 {:?}", times[50], times[90]);
    assert!(times[50] < Duration::from_millis(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oci_runtime_gives_the_same_world() {
    let Some(tree) = Tree::new() else { return };
    let Some(program) = ["/usr/sbin/runc", "/usr/bin/runc"]
        .iter()
        .map(Path::new)
        .find(|path| path.exists())
    else {
        testkit::skip::skip("no runc");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let runtime = oci_runtime(program, dir.path().join("runc"));
    let script = "id; pwd; hostname; echo $HOME; cat /etc/hosts; ls /dev; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; \
                  mknod /tmp/kmsg c 1 11; head -c1 /tmp/kmsg 2>/dev/null && echo READ; mount -t tmpfs x /tmp 2>/dev/null && echo MOUNTED; \
                  unshare -U true 2>/dev/null && echo USERNS; cat /m/file /secret; ls -l /proc/self/fd | wc -l; exit 7";
    let make = |tree: &Tree| {
        let mut spec = tree.shell(script);
        spec.process.user = "build:wheel".into();
        spec.process.cwd = "/made".into();
        std::fs::create_dir_all(tree.path("host/sub")).unwrap();
        std::fs::write(tree.path("host/sub/file"), "file ").unwrap();
        spec.mounts = vec![
            Mount {
                selector: "sub".into(),
                ..at("/m", place(tree.path("host")))
            },
            at(
                "/secret",
                MountSource::File {
                    contents: b"hush\n".to_vec(),
                    mode: 0o444,
                    uid: 0,
                    gid: 0,
                },
            ),
        ];
        spec
    };
    let run_with = async |executor: &dyn Executor, spec: ContainerSpec| {
        let text = Arc::new(Mutex::new(String::new()));
        let io = ProcessIo {
            stdout: collect(&text),
            stderr: Output::Null,
            ..ProcessIo::default()
        };
        let status = executor.run(spec, io, None).await.unwrap();
        let text = text.lock().clone();
        (status.code, text)
    };
    let before = mounts_and_processes(&tree, "27.1828");
    let theirs = run_with(&*runtime, make(&tree)).await;
    let ours = run_with(&*launcher(), make(&Tree::new().unwrap())).await;
    assert_eq!(theirs, ours);
    assert!(
        !tree.path("upper/m").exists()
            && !tree.path("upper/secret").exists()
            && !tree.path("upper/etc/hosts").exists()
    );
    let error = runtime
        .run(tree.spec(&["nothing"]), ProcessIo::default(), None)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("executable file not found in $PATH"),
        "{error}"
    );

    let spec = tree.shell("sleep 27.1828");
    let id = spec.id.clone();
    let container = tokio::task::spawn({
        let runtime = Arc::clone(&runtime);
        async move { runtime.run(spec, ProcessIo::default(), None).await }
    });
    let status = loop {
        match runtime
            .exec(&id, process(&["sh", "-c", "exit 5"]), ProcessIo::default())
            .await
        {
            Err(ExecError::NotFound { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            result => break result.unwrap(),
        }
    };
    assert_eq!(status.code, 5);
    container.abort();
    let start = Instant::now();
    while mounts_and_processes(&tree, "27.1828") != before {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?} {before:?}",
            mounts_and_processes(&tree, "27.1828")
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_containers_run_side_by_side() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let trees: Vec<Tree> = (0..16).map(|_| Tree::new().unwrap()).collect();
    drop(tree);
    let start = Instant::now();
    let runs = trees
        .iter()
        .map(|tree| run(&launcher, tree.shell("sleep 0.3; echo ok")));
    for result in futures::future::join_all(runs).await {
        assert_eq!(result.unwrap().1, "ok\n");
    }
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}
