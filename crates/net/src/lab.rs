//! For tests: networks that are nobody's, so that nothing of this machine is touched, and a user namespace in which a test is run again,
//! as root of that only.

use std::os::fd::OwnedFd;
use std::process::Command;

use sys::process::SingleThreaded;
use sys::userns::{self, IdRange};

use crate::link::LOOPBACK;
use crate::socket::Socket;

/// Runs `test` on a thread in a new network namespace whose loopback interface is up.
pub(crate) fn alone<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let name = std::thread::current().name().map(str::to_owned);
    let thread = std::thread::Builder::new().name(name.unwrap_or_default());
    let running = thread.spawn(|| {
        sys::netns::unshare().unwrap();
        Socket::route().unwrap().up(LOOPBACK).unwrap();
        test()
    });
    match running.unwrap().join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs `work` on a thread in a namespace.
pub(crate) fn within<T: Send + 'static>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let namespace = namespace.try_clone().unwrap();
    let running = std::thread::spawn(move || {
        sys::netns::enter(&namespace).unwrap();
        work()
    });
    match running.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Set where a test is to run in a user namespace.
const VARIABLE: &str = "RBUILD_TEST_USER_NAMESPACE";

/// What this binary does before its tests have threads.
pub(crate) fn begin() {
    crate::uplink::dispatch();
    if std::env::var_os(VARIABLE).is_some() {
        let alone = SingleThreaded::claim().unwrap();
        let ids = IdRange {
            base: 0,
            count: 65_536,
        };
        let map = |process| userns::write_maps(process, ids).map_err(|error| error.to_string());
        userns::enter(&alone, map).unwrap().unwrap();
    }
}

/// Whether this process is root of a user namespace; if not, runs the calling test again in a process that is.
pub(crate) fn is_root_of_users() -> bool {
    if std::env::var_os(VARIABLE).is_some() {
        return true;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    false
}
