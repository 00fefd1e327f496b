//! A test for itself: the limit is the whole process's.

use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sys::process::{original_open_files, raise_open_files, restore_open_files};

#[test]
fn a_process_may_open_what_its_hard_limit_allows_and_what_it_starts_as_much_as_before() {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap();
    assert!(hard > 300, "the limit here is {hard}");
    let low = Rlimit {
        current: Some(300),
        maximum: Some(hard),
    };
    setrlimit(Resource::Nofile, low).unwrap();
    assert_eq!(original_open_files(), None);
    raise_open_files().unwrap();
    assert_eq!(getrlimit(Resource::Nofile).current, Some(hard));
    assert_eq!(original_open_files(), Some((300, hard)));

    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    restore_open_files(child.id()).unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<&str> = line.unwrap().split_ascii_whitespace().skip(3).collect();
    assert_eq!(numbers[..2], ["300", &hard.to_string()]);
}
