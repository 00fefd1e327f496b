//! Every executor against the suite of all executors.

use executor::{ContainerSpec, Executor, ProcessIo};
use parking_lot::Mutex;
use testkit::conformance;

use crate::{Tree, launcher, oci_runtime};

/// Runs the suite; each container has a tree of its own.
async fn check(executor: &dyn Executor) {
    let trees = Mutex::new(Vec::new());
    let shell = |script: &str| -> ContainerSpec {
        let tree = Tree::new().unwrap();
        let spec = tree.shell(script);
        trees.lock().push(tree);
        spec
    };
    conformance::executor::all(executor, &shell).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_launcher_does_what_every_executor_does() {
    testkit::requires!(root, busybox);
    check(&*launcher()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runc_does_what_every_executor_does() {
    testkit::requires!(root, busybox, runc);
    let dir = tempfile::tempdir().unwrap();
    check(&*oci_runtime("/usr/sbin/runc", dir.path().join("runc"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crun_does_what_every_executor_does() {
    testkit::requires!(root, busybox, crun);
    let dir = tempfile::tempdir().unwrap();
    let crun = oci_runtime("/usr/bin/crun", dir.path().join("crun"));
    let tree = Tree::new().unwrap();
    let first = crun.run(tree.shell("true"), ProcessIo::default(), None);
    if let Err(error) = first.await
        && error.to_string().contains("hybrid mode not supported")
    {
        testkit::skip::skip(&format!("crun runs nothing here: {error}"));
        return;
    }
    check(&*crun).await;
}
