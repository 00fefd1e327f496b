//! What a step finds: user, folder, files of /etc, devices, terminal; and how its end is told.

use super::*;

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
    let output = text(&launcher, spec).await;
    let want = "uid=0(root) gid=0(root) groups=0(root)\n/made/here\nbuildkitsandbox\nHOME=/root\n127.0.0.1\tlocalhost buildkitsandbox\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tdb\n1\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\n\
        tty\nurandom\nzero\n666 1:3\n1\nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n77\n/dev/null\n";
    assert_eq!(output, want);
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
        task::clock::sleep(Duration::from_millis(100)).await;
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
