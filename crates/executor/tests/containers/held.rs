//! Attacks of a step, or of a client that describes one, and that they are held.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::*;

/// The executors of this machine, to attack each.
fn executors(root: &Path) -> Vec<Arc<dyn Executor>> {
    let mut all: Vec<Arc<dyn Executor>> = vec![launcher()];
    if Path::new("/usr/sbin/runc").exists() {
        all.push(oci_runtime("/usr/sbin/runc", root.join("runc")));
    }
    all
}

fn depth(dir: &Path) -> usize {
    let mut deepest = 0;
    let mut todo = vec![(dir.to_owned(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        deepest = deepest.max(depth);
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                todo.push((entry.path(), depth + 1));
            }
        }
    }
    deepest
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_of_thousands_of_parts_make_nothing() {
    let Some(tree) = Tree::new() else { return };
    let state = tempfile::tempdir().unwrap();
    let short = vec!["d"; 2000].join("/");
    symlink(&short, tree.path("lower/deep")).unwrap();
    let deep = "/a".repeat(5000);
    let tmpfs = || MountSource::Tmpfs { size: None };
    type Attack<'a> = (&'static str, Box<dyn Fn(&mut ContainerSpec) + 'a>);
    let attacks: Vec<Attack<'_>> = vec![
        ("cwd", Box::new(|spec| spec.process.cwd = deep.clone())),
        (
            "cwd of 300 parts",
            Box::new(|spec| spec.process.cwd = "/a".repeat(300)),
        ),
        (
            "cwd through a link",
            Box::new(|spec| spec.process.cwd = "/deep/x".into()),
        ),
        (
            "mount",
            Box::new(|spec| spec.mounts = vec![at(&deep, tmpfs())]),
        ),
        (
            "mount of 300 parts",
            Box::new(|spec| spec.mounts = vec![at(&"/a".repeat(300), tmpfs())]),
        ),
        (
            "mount through a link",
            Box::new(|spec| spec.mounts = vec![at("/deep/x", tmpfs())]),
        ),
        (
            "selector",
            Box::new(|spec| {
                spec.mounts = vec![Mount {
                    selector: deep.clone(),
                    ..at("/m", place("/"))
                }];
            }),
        ),
        (
            "mounts",
            Box::new(|spec| {
                spec.mounts = (0..5000).map(|n| at(&format!("/m{n}"), tmpfs())).collect()
            }),
        ),
        (
            "cgroup parent",
            Box::new(|spec| spec.cgroup_parent = Some("/g".repeat(600))),
        ),
        (
            "cgroup parent of control characters",
            Box::new(|spec| spec.cgroup_parent = Some(format!("/{}", "\u{1}".repeat(900)))),
        ),
    ];
    for executor in executors(state.path()) {
        for (name, attack) in &attacks {
            let mut spec = tree.spec(&["true"]);
            attack(&mut spec);
            let error = executor
                .run(spec, ProcessIo::default(), None)
                .await
                .expect_err(name)
                .to_string();
            assert!(error.len() < 9000, "{name}: {error}");
        }
        // Whoever ran before runs again: no launcher died of it.
        let (status, _) = run_on(&*executor, tree.spec(&["true"])).await.unwrap();
        assert_eq!(status.code, 0);
    }
    assert!(depth(&tree.path("upper")) <= executor::MAX_PATH_PARTS);
    assert!(depth(state.path()) < 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_wrote_long_ends_its_own_step_and_no_other() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let long = "n".repeat(100_000);
    let beside = tree.shell("sleep 0.5; echo beside");
    let running = tokio::task::spawn({
        let launcher = Arc::clone(&launcher);
        async move { run(&launcher, beside).await }
    });
    let trees: Vec<Tree> = (0..3).map(|_| Tree::new().unwrap()).collect();
    let slash = format!("/{long}");
    let mut unknown = trees[2].spec(&["true"]);
    unknown.process.user = long.clone();
    for spec in [trees[0].spec(&[&long]), trees[1].spec(&[&slash]), unknown] {
        run(&launcher, spec).await.unwrap_err();
    }
    assert_eq!(running.await.unwrap().unwrap().1, "beside\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_environment_is_in_no_error_and_on_no_disk() {
    let Some(tree) = Tree::new() else { return };
    let state = tempfile::tempdir().unwrap();
    let secret = "hunter2-5f3a";
    for executor in executors(state.path()) {
        for entry in [
            format!("TOKEN={secret}\0"),
            format!("TOKEN\0={secret}"),
            format!("{secret}\0"),
        ] {
            let mut spec = tree.spec(&["true"]);
            spec.process.env.push(entry);
            let text = format!("{spec:?}");
            let error = executor
                .run(spec, ProcessIo::default(), None)
                .await
                .unwrap_err();
            let text = format!("{text} {error} {error:?}");
            assert!(!text.contains(secret), "{text}");
            assert!(text.contains("has a zero byte"), "{text}");
        }
        let mut spec = tree.spec(&["nothing"]);
        spec.process.env.push(format!("TOKEN={secret}"));
        spec.mounts = vec![at(
            "/secret",
            MountSource::File {
                contents: secret.as_bytes().to_vec(),
                mode: 0o400,
                uid: 0,
                gid: 0,
            },
        )];
        let text = format!("{spec:?}");
        let error = run_on(&*executor, spec).await.unwrap_err();
        let text = format!("{text} {error} {error:?}");
        assert!(!text.contains(secret), "{text}");

        // While it runs, nobody but root comes to what was written for it.
        let mut spec = tree.shell("echo started; sleep 60");
        spec.process.env.push(format!("TOKEN={secret}"));
        let (out, started) = oneshot::channel();
        let out = Mutex::new(Some(out));
        let io = ProcessIo {
            stdout: Output::sink(move |_chunk: bytes::Bytes| {
                let _told = out.lock().take().map(|out| out.send(()));
            }),
            ..ProcessIo::default()
        };
        let executor = Arc::clone(&executor);
        let container =
            tokio::task::spawn(async move { executor.run(spec, io, None).await.map(drop) });
        started.await.unwrap();
        let mut todo = vec![state.path().to_owned()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(&dir).unwrap().flatten() {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                if kind.is_dir() && !path.ends_with("rootfs") {
                    todo.push(path);
                } else if kind.is_file()
                    && std::fs::read(&path)
                        .is_ok_and(|text| String::from_utf8_lossy(&text).contains(secret))
                {
                    let fs = rustix::fs::statfs(&path).unwrap();
                    assert_eq!(fs.f_type, 0x0102_1994, "not in memory: {}", path.display());
                    let mut look = std::process::Command::new("cat");
                    std::os::unix::process::CommandExt::uid(&mut look, 65534);
                    let look = look.arg(&path).output().unwrap();
                    assert!(!look.status.success(), "{}", path.display());
                }
            }
        }
        container.abort();
        drop(container.await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_reaches_no_abstract_socket_of_the_host_and_its_own() {
    let Some(tree) = Tree::new() else { return };
    if sys::landlock::scope_abstract_sockets().unwrap().is_none() {
        testkit::skip::skip("the kernel does not keep processes from abstract sockets");
        return;
    }
    let launcher = launcher();
    let name = format!("rbuild-held-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    std::thread::spawn(move || while listener.accept().is_ok() {});
    // Nothing in the tree speaks to abstract sockets.
    let spec = |access: Access| {
        let mut spec = tree.spec(&[]);
        spec.access = access;
        probe::make(&mut spec, "connect");
        spec.process.env.push(format!("RBUILD_SOCKET={name}"));
        spec
    };
    let granted = Entitlements {
        network_host: true,
        security_insecure: true,
        devices: None,
    };
    let access = |network, security| granted.access(network, security).unwrap();
    for (access, want) in [
        (Access::SANDBOX, "host refused, own reached"),
        (
            access(NetworkMode::Host, SecurityMode::Sandbox),
            "host refused, own reached",
        ),
        (
            access(NetworkMode::None, SecurityMode::Sandbox),
            "host refused, own reached",
        ),
        (
            access(NetworkMode::Host, SecurityMode::Insecure),
            "host reached, own reached",
        ),
    ] {
        let (status, got) = run(&launcher, spec(access)).await.unwrap();
        assert_eq!(status.code, 0, "{got}");
        assert!(got.contains(want), "{access:?}: {got}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_without_descriptors_left_refuses_a_step_and_keeps_the_others() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let (started, is_started) = oneshot::channel();
    let host = tempfile::tempdir().unwrap();
    let mut spec = tree.shell("while ! test -e /host/go; do sleep 0.01; done; echo went on");
    spec.mounts = vec![at("/host", place(host.path()))];
    let text_of_first = Arc::new(Mutex::new(String::new()));
    let io = ProcessIo {
        stdout: collect(&text_of_first),
        ..ProcessIo::default()
    };
    let first = tokio::task::spawn({
        let launcher = Arc::clone(&launcher);
        async move { launcher.run(spec, io, Some(started)).await }
    });
    is_started.await.unwrap();
    let pid = launcher.process_id().unwrap();
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let none_left = rustix::process::Rlimit {
        current: Some(3),
        maximum: own.maximum,
    };
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let before =
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, none_left).unwrap();
    let second = Tree::new().unwrap();
    let error = run(&launcher, second.spec(&["true"])).await.unwrap_err();
    assert!(matches!(error, ExecError::Launcher { .. }), "{error}");
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, before).unwrap();
    assert_eq!(text(&launcher, second.shell("echo again")).await, "again\n");
    std::fs::write(host.path().join("go"), "").unwrap();
    assert_eq!(first.await.unwrap().unwrap().code, 0);
    assert_eq!(*text_of_first.lock(), "went on\n");
}
