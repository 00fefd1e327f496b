//! Tables of what a spec may say, each row a container: users, environment, limits, mounts, ends, hostile trees, cleanup.

use super::*;
use crate::lifetime::mounts_and_processes;
use oci::ErrorKind;

/// The words that a step of the tree wrote, one blank between them.
async fn words(launcher: &Launcher, spec: ContainerSpec) -> String {
    let text = text(launcher, spec).await;
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_looked_up_in_the_tree_and_groups_come_with_it() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    for (user, ids) in [
        ("", "0 0 0 /root"),
        ("root", "0 0 0 /root"),
        ("0", "0 0 0 /root"),
        ("build", "1000 100 10 100 /home/build"),
        ("1000", "1000 100 10 100 /home/build"),
        ("build:wheel", "1000 10 10 /home/build"),
        ("build:77", "1000 77 77 /home/build"),
        ("7:8", "7 8 8 /"),
        ("1001", "1001 0 0 /"),
        (
            "2147483647:2147483647",
            "2147483647 2147483647 2147483647 /",
        ),
    ] {
        let mut spec =
            tree.shell("id -u; id -g; id -G | busybox tr ' ' '\\n' | busybox sort -n; echo $HOME");
        spec.process.user = user.into();
        assert_eq!(words(&launcher, spec).await, ids, "{user}");
    }
    for (user, error) in [
        (
            "ghost",
            "unable to find user ghost: no matching entries in passwd file",
        ),
        (
            "build:ghost",
            "unable to find group ghost: no matching entries in group file",
        ),
        ("-1", "uids and gids must be in range 0-2147483647"),
        ("99999999999", "uids and gids must be in range 0-2147483647"),
    ] {
        let mut spec = tree.shell("true");
        spec.process.user = user.into();
        assert_eq!(
            run(&launcher, spec).await.unwrap_err().to_string(),
            error,
            "{user}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_what_the_spec_says_and_a_home() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    for (env, shown) in [
        (&["PATH=/bin", "A=1"][..], "A=1 HOME=/root PATH=/bin"),
        (&["PATH=/bin", "HOME=/own"], "HOME=/own PATH=/bin"),
        (&["PATH=/bin", "A=x=y"], "A=x=y HOME=/root PATH=/bin"),
        (&["PATH=/bin", "EMPTY="], "EMPTY= HOME=/root PATH=/bin"),
        (&["PATH=/bin", "Ä=ö"], "HOME=/root PATH=/bin Ä=ö"),
    ] {
        let mut spec = tree.spec(&["env"]);
        spec.process.env = env.iter().map(|entry| (*entry).to_owned()).collect();
        let text = text(&launcher, spec).await;
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines.join(" "), shown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_program_can_be_given_is_refused_before_anything_starts() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    type Change = fn(&mut ContainerSpec);
    let cases: [(&str, Change, &str); 8] = [
        (
            "argument",
            |spec| spec.process.args.push("a\0b".into()),
            "argument 1 of the process has a zero byte",
        ),
        (
            "environment",
            |spec| spec.process.env.push("NAME=a\0secret".into()),
            "environment variable `NAME` has a zero byte in its name or value",
        ),
        (
            "folder",
            |spec| spec.process.cwd = "/a\0b".into(),
            "invalid working directory: \"/a\\0b\"",
        ),
        (
            "long folder",
            |spec| spec.process.cwd = format!("/{}", "d".repeat(5000)),
            "the working directory has 5001 bytes, at most 4095 are possible: ",
        ),
        (
            "deep folder",
            |spec| spec.process.cwd = "/d".repeat(300),
            "the working directory has 300 parts, at most 256 are possible: ",
        ),
        (
            "many mounts",
            |spec| {
                spec.mounts = (0..1025)
                    .map(|at_| at(&format!("/m{at_}"), MountSource::Tmpfs { size: None }))
                    .collect()
            },
            "1025 mounts are more than the 1024 that a container may have",
        ),
        (
            "limit",
            |spec| {
                spec.ulimits = vec![Ulimit {
                    name: "nothing".into(),
                    soft: 1,
                    hard: 1,
                }];
            },
            "invalid ",
        ),
        (
            "group",
            |spec| spec.cgroup_parent = Some("a\0b".into()),
            "invalid cgroup parent",
        ),
    ];
    for (name, change, words) in cases {
        let mut spec = tree.spec(&["true"]);
        change(&mut spec);
        let error = run(&launcher, spec).await.unwrap_err();
        assert!(error.to_string().starts_with(words), "{name}: {error}");
        assert!(!error.to_string().contains("secret"), "{name}");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
    }
    assert!(
        !tree.path("upper/proc").exists(),
        "nothing was made in the tree"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_runs_is_not_given_again_and_one_that_does_not_is_not_found() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let other = Tree::new().unwrap();
    let (started, has_started) = oneshot::channel();
    let first = tree.shell("sleep 60");
    let id = first.id.clone();
    let running = {
        let launcher = Arc::clone(&launcher);
        task::spawn("first", async move {
            launcher
                .run(first, ProcessIo::default(), Some(started))
                .await
        })
    };
    has_started.await.unwrap();
    let mut second = other.shell("true");
    second.id = id.clone();
    let error = run(&launcher, second).await.unwrap_err();
    assert_eq!(error.to_string(), format!("container {id} already exists"));
    assert_eq!(error.kind(), ErrorKind::Exists);
    drop(running);
    let nobody = executor::ContainerId::random();
    let error = launcher
        .exec(&nobody, process(&["true"]), ProcessIo::default())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), format!("container {nobody} not found"));
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_has_its_code() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    for (script, code) in [
        ("true", 0),
        ("exit 1", 1),
        ("exit 255", 255),
        ("nothing-of-that-name", 127),
        ("/etc/passwd", 126),
        ("sh -c 'kill -1 $$'", 129),
        ("sh -c 'kill -2 $$'", 130),
        ("sh -c 'kill -15 $$'", 143),
        (
            "trap 'exit 7' USR1; busybox kill -USR1 $(busybox sh -c 'echo $PPID'); sleep 1",
            7,
        ),
    ] {
        let (status, _) = run(
            &launcher,
            tree.shell(&format!("({script}) 2>/dev/null; exit $?")),
        )
        .await
        .unwrap();
        assert_eq!(status.code, code, "{script}");
        assert!(!status.oom, "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_process_are_those_of_the_spec() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    for (name, flag, soft, hard, shown) in [
        ("nofile", "n", 50, 60, "50 60"),
        ("core", "c", 0, 0, "0 0"),
        ("fsize", "f", 1024, -1, "2 unlimited"),
    ] {
        let mut spec = tree.shell(&format!("ulimit -S{flag}; ulimit -H{flag}"));
        spec.ulimits = vec![Ulimit {
            name: name.into(),
            soft,
            hard,
        }];
        assert_eq!(words(&launcher, spec).await, shown, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_mounts_ends_where_the_spec_says() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let fill = |place: &str| {
        format!("dd if=/dev/zero of={place}/f bs=1k count=3000 2>/dev/null; stat -c %s {place}/f")
    };
    let mut spec = tree.shell(&fill("/scratch"));
    spec.mounts = vec![at(
        "/scratch",
        MountSource::Tmpfs {
            size: Some(1 << 20),
        },
    )];
    assert_eq!(words(&launcher, spec).await, (1 << 20).to_string());
    let mut spec = tree.shell(&fill("/dev/shm"));
    spec.shm_size = Some(2 << 20);
    assert_eq!(words(&launcher, spec).await, (2 << 20).to_string());
    // A mount over /dev/shm takes its place.
    let mut spec = tree.shell(&fill("/dev/shm"));
    spec.shm_size = Some(4096);
    spec.mounts = vec![at(
        "/dev/shm",
        MountSource::Tmpfs {
            size: Some(1 << 20),
        },
    )];
    assert_eq!(words(&launcher, spec).await, (1 << 20).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_a_file_of_its_owner_that_cannot_be_executed() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    for (mode, uid, gid, shown) in [
        (0o400, 0, 0, "400 0 0"),
        (0o640, 7, 8, "640 7 8"),
        (0o755, 0, 0, "755 0 0"),
    ] {
        let mut spec = tree.shell(
            "stat -c '%a %u %g' /run/secrets/key; cat /run/secrets/key; \
             grep ' /run/secrets/key ' /proc/mounts | busybox cut -d' ' -f4 | busybox tr , '\\n' | grep -E '^(nosuid|nodev|noexec)$' | busybox sort",
        );
        spec.mounts = vec![at(
            "/run/secrets/key",
            MountSource::File {
                contents: b"hush\n".to_vec(),
                mode,
                uid,
                gid,
            },
        )];
        assert_eq!(
            words(&launcher, spec).await,
            format!("{shown} hush nodev noexec nosuid")
        );
        assert!(!tree.path("upper/run/secrets/key").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_mount_is_read_only_with_all_below_it() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let host = tempfile::tempdir().unwrap();
    std::fs::create_dir(host.path().join("sub")).unwrap();
    std::fs::write(host.path().join("sub/file"), "x").unwrap();
    let script = "(echo y > /m/new) 2>/dev/null && echo wrote; (echo y > /m/sub/file) 2>/dev/null && echo wrote; \
        rm /m/sub/file 2>/dev/null && echo removed; cat /m/sub/file";
    for (readonly, shown) in [(true, "x"), (false, "wrote wrote removed")] {
        let mut spec = tree.shell(script);
        spec.mounts = vec![Mount {
            readonly,
            ..at("/m", place(host.path()))
        }];
        let (_, output) = run(&launcher, spec).await.unwrap();
        let words: Vec<&str> = output.split_ascii_whitespace().take(3).collect();
        assert!(words.join(" ").starts_with(shown), "{readonly}: {words:?}");
    }
    assert_eq!(
        std::fs::read_to_string(host.path().join("new")).unwrap(),
        "y\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_name_servers_are_files_of_the_step_only() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let mut spec =
        tree.shell("hostname; grep -c db /etc/hosts; test -s /etc/resolv.conf && echo servers");
    spec.hostname = "builder".into();
    spec.extra_hosts = vec![
        ("db".into(), "10.0.0.1".parse().unwrap()),
        ("db6".into(), "fd00::1".parse().unwrap()),
    ];
    assert_eq!(words(&launcher, spec).await, "builder 2 servers");
    for left in ["etc/hosts", "etc/resolv.conf"] {
        assert!(!tree.path("upper").join(left).exists(), "{left}");
    }
    // What the image has there stays as it is.
    std::fs::write(tree.path("lower/etc/hosts"), "of the image\n").unwrap();
    text(&launcher, tree.shell("grep -q localhost /etc/hosts")).await;
    assert_eq!(
        std::fs::read_to_string(tree.path("lower/etc/hosts")).unwrap(),
        "of the image\n"
    );
    assert!(!tree.path("upper/etc/hosts").exists());
}

/// A tree with something hostile in it, by name.
type Hostile = fn(&Tree, &Path);

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_tree_runs_or_is_refused_and_reaches_nothing_outside() {
    let Some(first) = Tree::new() else { return };
    drop(first);
    let launcher = launcher();
    fn replace(tree: &Tree, name: &str, target: &Path) {
        let path = tree.path("lower").join(name);
        drop(std::fs::remove_file(&path));
        drop(std::fs::remove_dir_all(&path));
        symlink(target, path).unwrap();
    }
    let cases: [(&str, Hostile); 11] = [
        ("proc is a link out", |tree, victim| {
            replace(tree, "proc", victim)
        }),
        ("proc is a link to dots", |tree, _| {
            replace(tree, "proc", Path::new("../../../../../tmp"))
        }),
        ("proc is a file", |tree, _| {
            std::fs::write(tree.path("lower/proc"), "").unwrap()
        }),
        ("sys is a link out", |tree, victim| {
            replace(tree, "sys", victim)
        }),
        ("dev is a link out", |tree, victim| {
            replace(tree, "dev", victim)
        }),
        ("etc is a link out", |tree, victim| {
            replace(tree, "etc", victim)
        }),
        ("etc is a link to itself", |tree, _| {
            replace(tree, "etc", Path::new("etc"))
        }),
        ("hosts is a link out", |tree, victim| {
            replace(tree, "etc/hosts", &victim.join("hosts"))
        }),
        ("hosts is a folder", |tree, _| {
            std::fs::create_dir(tree.path("lower/etc/hosts")).unwrap()
        }),
        ("passwd is a device", |tree, _| {
            std::fs::remove_file(tree.path("lower/etc/passwd")).unwrap();
            let etc = sys::path::open_dir(tree.path("lower/etc")).unwrap();
            sys::file::mknodat(&etc, "passwd", 0o020_666, 1, 5).unwrap();
        }),
        ("passwd is a link out", |tree, victim| {
            replace(tree, "etc/passwd", &victim.join("passwd"))
        }),
    ];
    for (name, spoil) in cases {
        let tree = Tree::new().unwrap();
        let host = tempfile::tempdir().unwrap();
        let victim = host.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        std::fs::write(victim.join("passwd"), "evil:x:4242:4242::/:/bin/sh\n").unwrap();
        let before = mounts_and_processes(&tree, "61.803");
        spoil(&tree, &victim);
        let mut spec = tree.shell("id -u");
        spec.process.user = "evil".into();
        // The user is only in the file outside: whoever finds it has left the tree.
        assert!(run(&launcher, spec).await.is_err(), "{name}");
        drop(
            run(
                &launcher,
                tree.shell("echo x > /etc/hosts; echo x > /proc/x; echo x > /dev/x; true"),
            )
            .await,
        );
        let left: Vec<_> = std::fs::read_dir(&victim)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["passwd"], "{name}");
        assert_eq!(mounts_and_processes(&tree, "61.803"), before, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_no_mount_and_no_mount_point() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    std::fs::write(tree.path("lower/file"), "").unwrap();
    let host = tempfile::tempdir().unwrap();
    let before = mounts_and_processes(&tree, "14.142");
    type Change = Box<dyn Fn(&mut ContainerSpec)>;
    let place_of = host.path().to_owned();
    let cases: [(&str, Change); 7] = [
        ("no command", Box::new(|spec| spec.process.args.clear())),
        (
            "no program",
            Box::new(|spec| spec.process.args = vec!["/nothing".into()]),
        ),
        (
            "no user",
            Box::new(|spec| spec.process.user = "ghost".into()),
        ),
        (
            "a file for a folder",
            Box::new(|spec| spec.process.cwd = "/file/below".into()),
        ),
        (
            "a source that is not there",
            Box::new(move |spec| {
                spec.mounts.push(Mount {
                    selector: "missing".into(),
                    ..at("/made/there", place(&place_of))
                });
            }),
        ),
        (
            "a mount below proc",
            Box::new(|spec| {
                spec.mounts
                    .push(at("/proc/self", MountSource::Tmpfs { size: None }))
            }),
        ),
        (
            "a mount below a file",
            Box::new(|spec| {
                spec.mounts
                    .push(at("/file/below", MountSource::Tmpfs { size: None }))
            }),
        ),
    ];
    for (name, change) in cases {
        let mut spec = tree.shell("true");
        spec.mounts = vec![at("/first", MountSource::Tmpfs { size: None })];
        spec.remove_mount_stubs_recursive = true;
        change(&mut spec);
        let error = run(&launcher, spec).await.err();
        assert!(error.is_some(), "{name}");
        for left in ["first", "made", "etc/hosts", "etc/resolv.conf"] {
            assert!(!tree.path("upper").join(left).exists(), "{name}: {left}");
        }
        assert_eq!(mounts_and_processes(&tree, "14.142"), before, "{name}");
    }
    text(&launcher, tree.shell("true")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_of_the_network_and_of_security_has_its_rights() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let all = Entitlements {
        network_host: true,
        security_insecure: true,
        devices: None,
    };
    for (network, security, seccomp, only_loopback) in [
        (NetworkMode::None, SecurityMode::Sandbox, "2", true),
        (NetworkMode::Host, SecurityMode::Sandbox, "2", false),
        (NetworkMode::None, SecurityMode::Insecure, "0", true),
    ] {
        let mut spec = tree.shell("grep Seccomp: /proc/self/status; ls /sys/class/net 2>/dev/null | wc -l; ip -o link | wc -l");
        spec.access = all.access(network, security).unwrap();
        let output = words(&launcher, spec).await;
        let fields: Vec<&str> = output.split(' ').collect();
        assert_eq!(fields[1], seccomp, "{network} {security:?}");
        if only_loopback {
            assert_eq!(fields[3], "1", "{network} {security:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_read_to_its_end_and_outputs_are_kept_apart() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let (out, err) = (
        Arc::new(Mutex::new(String::new())),
        Arc::new(Mutex::new(String::new())),
    );
    let io = ProcessIo {
        stdout: collect(&out),
        stderr: collect(&err),
        ..ProcessIo::default()
    };
    let status = launcher
        .run(tree.shell("cat | wc -c; echo out; echo err >&2"), io, None)
        .await
        .unwrap();
    assert_eq!(status.code, 0);
    assert_eq!(
        (out.lock().as_str(), err.lock().as_str()),
        ("0\nout\n", "err\n")
    );
    let large = text(
        &launcher,
        tree.shell("head -c 300000 /dev/zero | busybox tr '\\0' x"),
    )
    .await;
    assert!(large.len() == 300_000 && large.bytes().all(|byte| byte == b'x'));
}
