//! What a step must not reach, and what it gets with an entitlement or a device.

use super::*;

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
    let output = text(&launcher, tree.shell(&format!("({script}) 2>/dev/null"))).await;
    assert_eq!(
        output,
        "made\nnull\n0\n0\n4\n3\nbin\ndev\netc\nproc\nsys\ntmp\n"
    );
    let mut spec = tree.spec(&["ip", "-o", "link"]);
    spec.access = Entitlements::default()
        .access(NetworkMode::None, SecurityMode::Sandbox)
        .unwrap();
    let output = text(&launcher, spec).await;
    assert_eq!(
        (output.lines().count(), output.contains("lo")),
        (1, true),
        "{output}"
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
    let (_, output) = run(&launcher(), spec).await.unwrap();
    assert_eq!(output, "mounted\nfuse\nSeccomp:\t0\n0\n");
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
    let requests = [executor::cdi::DeviceRequest {
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
        spec.devices = devices.inject(&requests, &Entitlements::default()).unwrap();
        let (_, output) = run_on(&*executor, spec).await.unwrap();
        assert_eq!(
            output, "one\nlibrary is read-only\n666 7 character special file\nopened\n4\n0 4242\n",
            "{executor:?}"
        );
        let hooked = [executor::cdi::DeviceRequest {
            name: "test.com/tun=hooked".into(),
            optional: false,
        }];
        let mut spec = tree.spec(&["true"]);
        spec.devices = devices.inject(&hooked, &Entitlements::default()).unwrap();
        let (status, _) = run_on(&*executor, spec).await.unwrap();
        assert_eq!(status.code, 0);
        let mark = std::fs::read_to_string(host.path().join("mark")).unwrap();
        assert_eq!(mark, "hooked\n");
    }
}

/// Devices of one file, whose edits are these.
fn devices_with(dir: &Path, edits: &[(&str, serde_json::Value)]) -> Arc<executor::cdi::Devices> {
    let device = |(name, edits): &(&str, serde_json::Value)| serde_json::json!({"name": name, "containerEdits": edits});
    let file = serde_json::json!({
        "cdiVersion": "0.7.0",
        "kind": "test.com/hook",
        "devices": edits.iter().map(device).collect::<Vec<_>>(),
    });
    std::fs::write(dir.join("hooks.json"), file.to_string()).unwrap();
    executor::cdi::Devices::new(executor::cdi::Config {
        spec_dirs: vec![dir.to_owned()],
        auto_allowed: vec!["test.com/hook".into()],
    })
}

fn device(name: &str) -> [executor::cdi::DeviceRequest; 1] {
    [executor::cdi::DeviceRequest {
        name: format!("test.com/hook={name}"),
        optional: false,
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_of_devices_run_in_their_order_and_find_the_root_of_the_container() {
    let Some(tree) = Tree::new() else { return };
    let host = tempfile::tempdir().unwrap();
    let log = host.path().join("log");
    // What a hook of the host finds: its state, and by the bundle the root of the container, where it writes.
    let of_host = |name: &str| {
        let script = format!(
            r#"state=$(cat); bundle=$(echo "$state" | sed 's/.*"bundle":"\([^"]*\)".*/\1/');
            root=$(sed 's/.*"path":"\([^"]*\)".*/\1/' $bundle/config.json);
            echo {name} $(echo "$state" | sed 's/.*"status":"\([^"]*\)".*/\1/') >> {};
            [ {name} = createContainer ] && echo seen > $root/tmp/by-hook; true"#,
            log.display()
        );
        serde_json::json!({"hookName": name, "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]})
    };
    let in_container = serde_json::json!({
        "hookName": "startContainer", "path": "/bin/sh",
        "args": ["sh", "-c", "read state; case $state in *startContainer*) ;; *created*) id -u > /tmp/by-start;; esac"],
        "env": ["PATH=/usr/bin:/bin"],
    });
    let names = ["poststop", "poststart", "createContainer", "createRuntime"];
    let mut all: Vec<_> = names.iter().map(|name| of_host(name)).collect();
    all.push(in_container);
    let devices = devices_with(host.path(), &[("all", serde_json::json!({"hooks": all}))]);
    let mut spec = tree.shell("cat /tmp/by-hook /tmp/by-start; rm /tmp/by-hook /tmp/by-start");
    spec.devices = devices
        .inject(&device("all"), &Entitlements::default())
        .unwrap();
    let (status, output) = run(&launcher(), spec).await.unwrap();
    assert_eq!((status.code, output.as_str()), (0, "seen\n0\n"));
    assert_eq!(
        std::fs::read_to_string(&log).unwrap(),
        "createRuntime created\ncreateContainer created\npoststart running\npoststop stopped\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_before_the_start_ends_it_and_later_ones_do_not() {
    let Some(tree) = Tree::new() else { return };
    let host = tempfile::tempdir().unwrap();
    let stops = host.path().join("stops");
    let hook = |name: &str, script: &str| serde_json::json!({"hookName": name, "path": "/bin/sh", "args": ["sh", "-c", script]});
    let stopped = hook("poststop", &format!("echo x >> {}", stops.display()));
    let edits = |name, script| serde_json::json!({"hooks": [hook(name, script), stopped]});
    let devices = devices_with(
        host.path(),
        &[
            (
                "early",
                edits("createContainer", "echo no such card >&2; exit 3"),
            ),
            ("inside", edits("startContainer", "exit 4")),
            ("late", edits("poststart", "exit 5")),
        ],
    );
    for (name, error) in [
        (
            "early",
            Some(
                "the createContainer hook /bin/sh of a CDI device failed: exit status: 3: no such card",
            ),
        ),
        (
            "inside",
            Some("the startContainer hook /bin/sh of a CDI device failed: exit status: 4"),
        ),
        ("late", None),
    ] {
        let mut spec = tree.spec(&["true"]);
        spec.devices = devices
            .inject(&device(name), &Entitlements::default())
            .unwrap();
        let outcome = run(&launcher(), spec).await;
        match error {
            None => assert_eq!(outcome.unwrap().0.code, 0),
            Some(words) => {
                let failure = outcome.unwrap_err().to_string();
                assert!(failure.contains(words), "{name}: {failure}");
            }
        }
    }
    // The container was made each time. That it has gone may be told a little later than the failure.
    let deadline = task::clock::monotonic() + std::time::Duration::from_secs(20);
    while std::fs::read_to_string(&stops).unwrap_or_default() != "x\nx\nx\n" {
        assert!(
            task::clock::monotonic() < deadline,
            "{:?}",
            std::fs::read_to_string(&stops)
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insecure_step_makes_groups_where_the_host_has_older_hierarchies() {
    let Some(tree) = Tree::new() else { return };
    if !Path::new("/sys/fs/cgroup/cpuset").exists() {
        testkit::skip::skip("this host has no v1 hierarchy of cpusets");
        return;
    }
    let granted = Entitlements {
        network_host: false,
        security_insecure: true,
        devices: None,
    };
    let script = "mkdir /sys/fs/cgroup/cpuset/own /sys/fs/cgroup/cpuset/own/below && echo made; ls -d /sys/fs/cgroup/pids";
    let mut spec = tree.shell(script);
    spec.access = granted
        .access(NetworkMode::None, SecurityMode::Insecure)
        .unwrap();
    let id = spec.id.clone();
    let (_, output) = run(&launcher(), spec).await.unwrap();
    assert_eq!(output, "made\n/sys/fs/cgroup/pids\n");
    let left = Path::new("/sys/fs/cgroup/cpuset/buildkit").join(id.as_str());
    assert!(!left.exists(), "{} stays", left.display());
    // A confined one sees none.
    let (_, output) = run(
        &launcher(),
        tree.shell("mkdir /sys/fs/cgroup/cpuset 2>&1; true"),
    )
    .await
    .unwrap();
    assert!(output.contains("Read-only"), "{output}");
}
