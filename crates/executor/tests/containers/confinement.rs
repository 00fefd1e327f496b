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
