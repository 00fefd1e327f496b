//! Steps in a user namespace of their own: they see what others see, write the same bytes, and are nobody on the host.

use super::*;

pub(super) const IDS: IdRange = IdRange {
    base: 0x1000_0000,
    count: u32::MAX - 0x1000_0000,
};

pub(super) fn mapping_launcher() -> Arc<Launcher> {
    Arc::new(Launcher::new(Config {
        user_namespace: Some(IDS),
        ..Config::host_network()
    }))
}

/// The namespace, where this machine has what it takes.
pub(super) fn ids_of(launcher: &Launcher, tree: &Tree) -> Option<Arc<IdMapping>> {
    let ids = match launcher.id_mapping(&Access::SANDBOX) {
        Ok(ids) => ids?,
        Err(error) => {
            testkit::skip::skip(&format!("{error}"));
            return None;
        }
    };
    let whole = sys::path::open_dir(tree.dir.path()).unwrap();
    let mapped = mount::open_tree_clone(&whole, false).unwrap();
    if let Err(error) = mount::map_ids(&mapped, &ids, false) {
        testkit::skip::skip(&format!("the filesystem maps no ids: {error}"));
        return None;
    }
    Some(ids)
}

/// The tree's spec, for both ways.
pub(super) fn spec_for(tree: &Tree, script: &str, ids: Option<&Arc<IdMapping>>) -> ContainerSpec {
    let root = match ids {
        Some(ids) => tree.mount_mapped(ids),
        None => tree.mount(),
    };
    let mut spec = ContainerSpec::new(Access::SANDBOX, root, process(&["/bin/sh", "-c", script]));
    spec.ids = ids.cloned();
    spec
}

/// What a step wrote, as a tar with everything but times.
pub(super) fn tar_of(dir: &Path) -> Vec<u8> {
    let output = std::process::Command::new("tar")
        .args([
            "--numeric-owner",
            "--sort=name",
            "--mtime=@0",
            "--format=pax",
        ])
        .args(["--pax-option=delete=atime,delete=ctime", "--xattrs"])
        // Overlay's own notes hold file handles and are in no layer.
        .args([
            "--xattrs-include=*",
            "--xattrs-exclude=trusted.overlay.origin",
        ])
        .args(["--xattrs-exclude=trusted.overlay.uuid", "-C"])
        .arg(dir)
        .args(["-c", "."])
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

/// A lower layer with owners, set-user-id bits, capabilities and access lists.
fn fill_lower(tree: &Tree) {
    let lower = |name: &str| tree.path("lower").join(name);
    for (name, owner) in [("theirs", 1000), ("ours", 0), ("far", 1_000_620_000)] {
        std::fs::create_dir(lower(name)).unwrap();
        std::fs::write(lower(name).join("file"), name).unwrap();
        std::os::unix::fs::chown(lower(name).join("file"), Some(owner), Some(owner)).unwrap();
        std::os::unix::fs::chown(lower(name), Some(owner), Some(owner)).unwrap();
    }
    std::fs::write(lower("lower-acl"), "x").unwrap();
    let file = std::fs::File::open(lower("lower-acl")).unwrap();
    sys::xattr::set(&file, "security.capability", &probe::CAPABILITY).unwrap();
    sys::xattr::set(&file, "system.posix_acl_access", &probe::access_list(1234)).unwrap();
    std::fs::create_dir_all(lower("gone/deep")).unwrap();
    std::fs::create_dir_all(lower("replaced/old")).unwrap();
}

const SCRIPT: &str = "set -e; id -u; id -g; stat -c '%u:%g %a %n' / /theirs /theirs/file /far/file /tmp /dev /dev/null /dev/shm; \
    echo more >> /theirs/file; echo more >> /far/file; busybox chown 7:8 /ours/file; \
    echo a > /tmp/a; busybox chown 1000:100 /tmp/a; busybox chmod 4755 /tmp/a; mkdir -p /d/e; busybox chown 65534:65534 /d; \
    busybox chown 1000620001 /d/e; busybox chmod 2775 /d/e; ln -s x /d/l; busybox chown -h 3:4 /d/l; ln /tmp/a /d/hard; mkfifo /d/p; \
    rm -r /gone; rm -r /replaced; mkdir /replaced; echo new > /replaced/new; busybox mv /ours /moved; \
    busybox su build -s /bin/sh -c 'id -u; echo mine > /tmp/mine; test ! -w /ours'; touch /dev/mine; echo x > /dev/shm/x; \
    echo out > /dev/stdout; echo y > /dev/null; cat /secret; stat -c '%u:%g %a' /secret /cache /cache/f; echo z > /cache/made; \
    mkdir /scratch/x; stat -c %u:%g /scratch/x; grep -E 'Cap|Seccomp:|NoNewPrivs' /proc/self/status; stat -c %u:%g /etc/hosts; \
    kill -0 $$; cat /proc/self/oom_score_adj >/dev/null";

#[tokio::test(flavor = "multi_thread")]
async fn a_step_in_a_user_namespace_sees_the_same_and_writes_the_same_bytes() {
    let Some(tree) = Tree::new() else { return };
    let (plain, mapping) = (launcher(), mapping_launcher());
    let Some(ids) = ids_of(&mapping, &tree) else {
        return;
    };
    let mut results = Vec::new();
    for ids in [None, Some(&ids)] {
        let tree = Tree::new().unwrap();
        fill_lower(&tree);
        std::fs::create_dir(tree.path("cache")).unwrap();
        std::fs::write(tree.path("cache/f"), "f").unwrap();
        std::os::unix::fs::chown(tree.path("cache/f"), Some(5), Some(6)).unwrap();
        let launcher = if ids.is_some() { &mapping } else { &plain };
        let mut spec = spec_for(&tree, SCRIPT, ids);
        spec.process.cwd = "/made/here".into();
        spec.mounts = vec![
            at(
                "/secret",
                MountSource::File {
                    contents: b"hush\n".to_vec(),
                    mode: 0o440,
                    uid: 12,
                    gid: 13,
                },
            ),
            at("/cache", place(tree.path("cache"))),
            at("/scratch", MountSource::Tmpfs { size: None }),
        ];
        let (status, output) = run(launcher, spec).await.unwrap();
        assert_eq!(status.code, 0, "{output}");
        let mut spec = spec_for(&tree, "", ids);
        probe::make(&mut spec, "attributes");
        let (status, probe) = run(launcher, spec).await.unwrap();
        assert_eq!(status.code, 0, "{probe}");
        assert!(probe.contains("attributes set"), "{probe}");
        let mut spec = spec_for(
            &tree,
            "id; pwd; echo mine > own; echo out > /dev/stdout; echo 1 > /proc/self/oom_score_adj; stat -c %u:%g own /home2",
            ids,
        );
        spec.process.user = "build:wheel".into();
        spec.process.cwd = "/home2".into();
        let (status, user) = run(launcher, spec).await.unwrap();
        assert_eq!(status.code, 0, "{user}");
        let capability = std::fs::File::open(tree.path("upper/tmp/capable")).unwrap();
        let capability = sys::xattr::get(capability, "security.capability").unwrap();
        assert_eq!(capability.unwrap(), probe::CAPABILITY, "as it is exported");
        let owner = |name: &str| {
            let stat = rustix::fs::stat(tree.path(name)).unwrap();
            (stat.st_uid, stat.st_gid)
        };
        assert_eq!(owner("cache/made"), (0, 0));
        assert_eq!(owner("upper/d/e"), (1_000_620_001, 0));
        results.push((output, user, tar_of(&tree.path("upper"))));
    }
    let (mapped, plain) = (results.pop().unwrap(), results.pop().unwrap());
    assert_eq!(mapped.0, plain.0);
    assert_eq!(mapped.1, plain.1);
    assert!(mapped.2 == plain.2, "the layers differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_in_a_user_namespace_is_nobody_on_the_host() {
    let Some(tree) = Tree::new() else { return };
    let launcher = mapping_launcher();
    let Some(ids) = ids_of(&launcher, &tree) else {
        return;
    };
    let host = tempfile::tempdir().unwrap();
    std::fs::set_permissions(host.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(host.path().join("root-only"), "secret").unwrap();
    std::fs::set_permissions(
        host.path().join("root-only"),
        PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    // What a step would have that got hold of a folder of the host: here it is given one whose ids are not mapped.
    let mut spec = spec_for(
        &tree,
        "cat /host/root-only 2>/dev/null && echo READ; echo x > /host/new 2>/dev/null && echo WROTE; \
         mknod /host/null c 1 3 2>/dev/null && echo NODE; cat /proc/self/uid_map; cat /proc/self/setgroups; \
         mount -t tmpfs x /tmp 2>/dev/null && echo MOUNTED; chroot / true && echo chroot; echo $(cat /proc/self/loginuid) > /dev/null; \
         echo 1 > /proc/sys/kernel/panic || echo read-only",
        Some(&ids),
    );
    spec.mounts = vec![at(
        "/host",
        MountSource::Mount(
            mount::open_tree_clone(sys::path::open_dir(host.path()).unwrap(), false).unwrap(),
        ),
    )];
    let (_, output) = run(&launcher, spec).await.unwrap();
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !line.starts_with("/bin/sh: can't"))
        .map(str::trim)
        .collect();
    let map = format!("{:>10} {:>10} {:>10}", 0, IDS.base, IDS.count);
    assert_eq!(
        lines,
        [map.trim(), "allow", "chroot", "read-only"],
        "{output}"
    );

    // Its process, as the host sees it.
    let spec = spec_for(&tree, "sleep 16.1803", Some(&ids));
    let (id, (started, is_started)) = (spec.id.clone(), oneshot::channel());
    let running = tokio::task::spawn({
        let launcher = Arc::clone(&launcher);
        async move {
            launcher
                .run(spec, ProcessIo::default(), Some(started))
                .await
        }
    });
    is_started.await.unwrap();
    let output = Arc::new(Mutex::new(String::new()));
    let io = ProcessIo {
        stdout: collect(&output),
        stderr: collect(&output),
        ..ProcessIo::default()
    };
    let mut further = process(&[
        "sh",
        "-c",
        "id -u; grep -c 1 /proc/self/uid_map; echo x > /made/f && stat -c %u /made/f; kill -9 1; echo $?",
    ]);
    further.cwd = "/made".into();
    let status = launcher.exec(&id, further, io).await.unwrap();
    assert_eq!((status.code, output.lock().as_str()), (0, "0\n1\n0\n0\n"));
    let owners: Vec<u32> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| line.windows(7).any(|part| part == b"16.1803"))
        })
        .map(|entry| std::os::unix::fs::MetadataExt::uid(&entry.metadata().unwrap()))
        .collect();
    assert!(!owners.is_empty());
    assert!(owners.iter().all(|owner| *owner == IDS.base), "{owners:?}");
    running.abort();
    drop(running.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_the_host_is_owned_in_the_namespace_as_it_lies() {
    let Some(tree) = Tree::new() else { return };
    let launcher = mapping_launcher();
    let Some(ids) = ids_of(&launcher, &tree) else {
        return;
    };
    let socket = tree.path("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o600)).unwrap();
    for (owner, user, reaches) in [
        (0, "root", true),
        (1000, "build", true),
        (0, "build", false),
    ] {
        std::os::unix::fs::chown(&socket, Some(owner), Some(owner)).unwrap();
        let mut spec = spec_for(&tree, "", Some(&ids));
        spec.process.user = user.into();
        probe::make(&mut spec, "agent");
        spec.mounts.push(at("/agent", place(&socket)));
        let (_, output) = run(&launcher, spec).await.unwrap();
        assert_eq!(
            output.contains("connected"),
            reaches,
            "{owner} {user}: {output}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_belongs_to_the_user_in_the_namespace() {
    let Some(tree) = Tree::new() else { return };
    let launcher = mapping_launcher();
    let Some(ids) = ids_of(&launcher, &tree) else {
        return;
    };
    for (user, uid) in [("root", 0), ("build", 1000)] {
        let script = "tty; test -c /dev/console && echo console; stat -c %u /dev/pts/0; echo typed > /dev/tty; id -u";
        let mut spec = spec_for(&tree, script, Some(&ids));
        spec.process.user = user.into();
        spec.process.tty = true;
        let (status, output) = run(&launcher, spec).await.unwrap();
        let want = format!("/dev/pts/0\nconsole\n{uid}\ntyped\n{uid}\n");
        assert_eq!((status.code, output.replace('\r', "")), (0, want));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_the_namespace_does_not_have_is_an_error_that_says_so() {
    let Some(tree) = Tree::new() else { return };
    let launcher = Launcher::new(Config {
        user_namespace: Some(IdRange {
            base: IDS.base,
            count: 100_000,
        }),
        ..Config::host_network()
    });
    let Some(ids) = ids_of(&launcher, &tree) else {
        return;
    };
    let mut spec = spec_for(&tree, "true", Some(&ids));
    spec.process.user = "2000000000".into();
    assert_eq!(
        run(&launcher, spec).await.unwrap_err().to_string(),
        "user or group 2000000000 is not among the 100000 of the user namespace of steps"
    );
    let everything = Entitlements {
        security_insecure: true,
        ..Entitlements::default()
    };
    let insecure = everything.access(NetworkMode::Sandbox, SecurityMode::Insecure);
    assert!(launcher.id_mapping(&insecure.unwrap()).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_namespace_costs_a_step_little() {
    let Some(tree) = Tree::new() else { return };
    let (plain, mapping) = (launcher(), mapping_launcher());
    let Some(ids) = ids_of(&mapping, &tree) else {
        return;
    };
    let mut times = [Vec::new(), Vec::new()];
    // In turns, so that both have the same machine.
    for round in 0..200 {
        let way = round % 2;
        let (ids, launcher) = [(None, &plain), (Some(&ids), &mapping)][way];
        let start = task::clock::monotonic();
        let mut spec = spec_for(&tree, "", ids);
        spec.process.args = vec!["/bin/true".into()];
        let status = launcher
            .run(spec, ProcessIo::default(), None)
            .await
            .unwrap();
        assert_eq!(status.code, 0);
        times[way].push(start.elapsed());
    }
    for times in &mut times {
        times.sort();
    }
    for (what, times) in ["plain", "user namespace"].into_iter().zip(&times) {
        println!(
            "{what}: least {:?}, p10 {:?}, p50 {:?}",
            times[0], times[10], times[50]
        );
    }
    assert!(times[1][50] < times[0][50] * 2 + Duration::from_millis(2));
}
