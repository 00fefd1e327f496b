//! Ends of steps: dropped, killed, joined, limited, many at a time.

use super::*;

pub(super) fn mounts_and_processes(tree: &Tree, marker: &str) -> (usize, usize) {
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
        let start = task::clock::monotonic();
        while mounts_and_processes(&tree, "31.4159") != before {
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "{:?} {before:?}",
                mounts_and_processes(&tree, "31.4159")
            );
            task::clock::sleep(Duration::from_millis(2)).await;
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
        task::clock::sleep(Duration::from_millis(50)).await;
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

#[test]
fn an_idle_launcher_has_given_back_the_code_that_only_its_start_needed() {
    let Some(_tree) = Tree::new() else { return };
    let launcher = users::mapping_launcher();
    if let Err(error) = launcher.id_mapping(&Access::SANDBOX) {
        return testkit::skip::skip(&format!("{error}"));
    }
    let process = format!("/proc/{}", launcher.process_id().unwrap());
    // It is idle once it waits in the call that waits for all of its descriptors.
    let waits = || {
        let call = std::fs::read_to_string(format!("{process}/syscall")).unwrap();
        // poll, which newer machines do not have, and ppoll.
        let poll = cfg!(target_arch = "x86_64").then_some(7);
        poll.into_iter()
            .chain([libc::SYS_ppoll])
            .any(|number| call.starts_with(&format!("{number} ")))
    };
    while !waits() {
        std::thread::yield_now();
    }
    let maps = std::fs::read_to_string(format!("{process}/smaps")).unwrap();
    let mut is_code = false;
    let mut resident_kib = 0;
    for line in maps.lines() {
        match line.strip_prefix("Rss:") {
            Some(size) if is_code => {
                resident_kib += size.trim_end_matches("kB").trim().parse::<u64>().unwrap();
            }
            Some(_) => {}
            None if line.contains('/') => is_code = line.contains(" r-xp "),
            None => {}
        }
    }
    println!("{resident_kib} KiB of code are resident");
    assert!(resident_kib < 3 * 1024, "{resident_kib} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_takes_a_few_milliseconds() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let mut times = Vec::new();
    for _ in 0..100 {
        let spec = tree.spec(&["/bin/true"]);
        let start = task::clock::monotonic();
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
async fn many_containers_run_side_by_side() {
    let Some(tree) = Tree::new() else { return };
    let launcher = launcher();
    let trees: Vec<Tree> = (0..16).map(|_| Tree::new().unwrap()).collect();
    drop(tree);
    let start = task::clock::monotonic();
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
