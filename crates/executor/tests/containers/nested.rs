//! Tests of this binary that are run again where this process is root of a user namespace only, as a daemon without root is.

use std::process::Command;

use sys::process::SingleThreaded;
use sys::userns;

use super::*;

/// Set where the tests are to run in a user namespace.
const VARIABLE: &str = "RBUILD_TEST_USER_NAMESPACE";

/// All ids of the host that images have.
const IDS: IdRange = IdRange {
    base: 0,
    count: 65_536,
};

/// Moves this process into such a namespace if it is to be in one. Called before it has threads.
pub(super) fn enter() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let alone = SingleThreaded::claim().unwrap();
    let map = |process| userns::write_maps(process, IDS).map_err(|error| error.to_string());
    userns::enter(&alone, map).unwrap().unwrap();
}

/// Runs one test of this binary in a user namespace.
fn passes(test: &str) {
    testkit::requires!(root, busybox);
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn further_processes_run_in_the_containers_of_a_daemon_without_root() {
    passes("lifetime::further_processes_join_and_end_with_their_container");
}

#[test]
fn a_step_of_a_daemon_without_root_ends_with_its_code() {
    passes("cases::each_end_has_its_code");
}
