//! Mounts of a step: where they appear, what they leave, and trees that would redirect them.

use super::*;

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
    let output = text(&launcher, spec).await;
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !line.starts_with("/bin/sh: can't create /ro/new"))
        .collect();
    assert_eq!(lines, ["insidehush400 7", "rw", "ro", "1", "own"]);
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
    let (_, output) = run(&launcher, spec).await.unwrap();
    assert!(
        output.contains("refused\n") && output.contains("rw\n"),
        "{output}"
    );
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
        if let Ok((_, output)) = run(&launcher, spec).await {
            assert!(
                output.starts_with('/') && !output.contains("victim"),
                "{cwd}: {output}"
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
