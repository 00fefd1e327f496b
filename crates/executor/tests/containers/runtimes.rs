//! The same world with an OCI runtime.

use super::*;
use crate::lifetime::mounts_and_processes;

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
    let runtime_output = run_with(&*runtime, make(&tree)).await;
    let launcher_output = run_with(&*launcher(), make(&Tree::new().unwrap())).await;
    assert_eq!(runtime_output, launcher_output);
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
            Err(ExecError::NotFound { .. }) => task::clock::sleep(Duration::from_millis(5)).await,
            result => break result.unwrap(),
        }
    };
    assert_eq!(status.code, 5);
    container.abort();
    let start = task::clock::monotonic();
    while mounts_and_processes(&tree, "27.1828") != before {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?} {before:?}",
            mounts_and_processes(&tree, "27.1828")
        );
        task::clock::sleep(Duration::from_millis(10)).await;
    }
}
