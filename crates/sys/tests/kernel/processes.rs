//! Clones, namespaces, users, capabilities, limits.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use sys::caps::{self, Set};
use sys::process::{self, Cloned, Ended, Namespaces, SingleThreaded, exit_now};
use sys::userns::{self, IdRange};

use crate::child::{Scene, in_child};

pub(crate) const SCENES: &[Scene] = &[
    ("exit codes and signals", ends),
    ("namespaces of a clone", namespaces),
    ("joining namespaces", joining),
    ("a user namespace", user_namespace),
    ("another user", other_user),
    ("no user is no user", no_user),
    ("the bounding set", bounding),
    ("ambient capabilities", ambient),
    ("files of another user", file_owner),
    ("limits of resources", limits),
];

/// Waits for the one child that there is.
#[expect(
    clippy::disallowed_methods,
    reason = "a child of the kernel is waited for in real time"
)]
fn wait() -> Ended {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(ended) = process::wait_any().unwrap() {
            return ended;
        }
        assert!(Instant::now() < deadline, "the child does not end");
        std::thread::yield_now();
    }
}

/// Runs `work` in a clone and returns how that ended.
fn cloned(alone: &SingleThreaded, namespaces: Namespaces, work: impl FnOnce()) -> Ended {
    match process::clone3(alone, namespaces, None).unwrap() {
        Cloned::Child => {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            exit_now(i32::from(ended.is_err()) * 101);
        }
        Cloned::Parent { pid, .. } => {
            let ended = wait();
            assert_eq!(ended.pid, pid);
            ended
        }
    }
}

fn status(field: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    let (_, value) = line.split_once(':').unwrap();
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn ends(alone: &SingleThreaded) {
    assert_eq!(
        process::wait_any().unwrap(),
        None,
        "no children are no error"
    );
    for code in [0, 1, 42, 255] {
        assert_eq!(
            cloned(alone, Namespaces::default(), || exit_now(code)).code,
            code.cast_unsigned()
        );
    }
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGUSR1] {
        let (held, hold) = sys::socket::pair().unwrap();
        match process::clone3(alone, Namespaces::default(), None).unwrap() {
            Cloned::Child => {
                drop(hold);
                drop(sys::socket::receive(&held, &mut [0; 1]));
                exit_now(0);
            }
            Cloned::Parent { pidfd, .. } => {
                assert_eq!(process::wait_any().unwrap(), None, "it runs");
                process::pidfd_send_signal(&pidfd, signal).unwrap();
                assert_eq!(wait().code, 128 + signal.cast_unsigned());
                let gone = process::pidfd_send_signal(&pidfd, signal).unwrap_err();
                assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
            }
        }
    }
    let error = process::pidfd_send_signal(std::io::stderr(), 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    let error = process::execve(c"/no/such/program", &[], &[]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    // What a child wrote is counted to it.
    let busy = cloned(alone, Namespaces::default(), || {
        while sys::memory::processor_time() < Duration::from_millis(20) {}
    });
    assert!(
        busy.user + busy.system >= Duration::from_millis(10),
        "{busy:?}"
    );
    assert!(busy.max_rss > 0);
}

fn namespaces(alone: &SingleThreaded) {
    type Pick = fn(&mut Namespaces);
    let all: [(&str, Pick); 7] = [
        ("pid_for_children", |n| n.pid = true),
        ("mnt", |n| n.mount = true),
        ("ipc", |n| n.ipc = true),
        ("uts", |n| n.uts = true),
        ("net", |n| n.net = true),
        ("cgroup", |n| n.cgroup = true),
        ("user", |n| n.user = true),
    ];
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let ours = all.map(|(kind, _)| own(kind));
    for (chosen, (name, pick)) in all.iter().enumerate() {
        let mut wanted = Namespaces::default();
        pick(&mut wanted);
        let ended = cloned(alone, wanted, || {
            if wanted.pid {
                // procfs shows the old namespace; the number is of the new one.
                assert_eq!(rustix::process::getpid().as_raw_nonzero().get(), 1);
                return;
            }
            for (at, (kind, _)) in all.iter().enumerate() {
                assert_eq!(own(kind) != ours[at], at == chosen, "{name}: {kind}");
            }
        });
        assert_eq!(ended.code, 0, "{name}");
    }
}

fn joining(alone: &SingleThreaded) {
    let uts = Namespaces {
        uts: true,
        net: true,
        ..Namespaces::default()
    };
    let (held, hold) = sys::socket::pair().unwrap();
    match process::clone3(alone, uts, None).unwrap() {
        Cloned::Child => {
            rustix::system::sethostname(b"inside").unwrap();
            sys::socket::send(&held, b"x", &[]).unwrap();
            drop(hold);
            drop(sys::socket::receive(&held, &mut [0; 1]));
            exit_now(0);
        }
        Cloned::Parent { pidfd, pid } => {
            drop(sys::socket::receive(&hold, &mut [0; 1]).unwrap());
            let ended = cloned(alone, Namespaces::default(), || {
                process::setns(alone, &pidfd, uts).unwrap();
                assert_eq!(
                    fs::read_to_string("/proc/sys/kernel/hostname").unwrap(),
                    "inside\n"
                );
            });
            assert_eq!(ended.code, 0);
            let by_file = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
            let net = Namespaces {
                net: true,
                ..Namespaces::default()
            };
            let ended = cloned(alone, Namespaces::default(), || {
                process::setns(alone, &by_file, net).unwrap();
                let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
                assert_eq!(
                    devices.lines().count(),
                    3,
                    "two lines of titles and loopback: {devices}"
                );
            });
            assert_eq!(ended.code, 0);
            let wrong = process::setns(alone, &by_file, uts).unwrap_err();
            assert_eq!(wrong.raw_os_error(), Some(libc::EINVAL));
            process::pidfd_send_signal(&pidfd, libc::SIGKILL).unwrap();
        }
    }
}

fn user_namespace(alone: &SingleThreaded) {
    let user = Namespaces {
        user: true,
        ..Namespaces::default()
    };
    let (held, hold) = sys::socket::pair().unwrap();
    match process::clone3(alone, user, None).unwrap() {
        Cloned::Child => {
            drop(sys::socket::receive(&held, &mut [0; 1]).unwrap());
            let is_root = rustix::process::getuid().is_root();
            let may = caps::permitted().unwrap().has("SYS_ADMIN");
            exit_now(i32::from(!(is_root && may)));
        }
        Cloned::Parent { pid, .. } => {
            let range = IdRange {
                base: 200_000,
                count: 65_536,
            };
            userns::write_maps(pid, range).unwrap();
            let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
            let numbers: Vec<&str> = map.split_ascii_whitespace().collect();
            assert_eq!(numbers, ["0", "200000", "65536"]);
            let namespace: OwnedFd = userns::open(pid).unwrap();
            let mapping = userns::IdMapping::new(namespace, range);
            assert_eq!(mapping.range(), range);
            assert!(rustix::fs::fstat(mapping.as_fd()).is_ok());
            sys::socket::send(&hold, b"x", &[]).unwrap();
            // As nobody of the host it may still be root of its own.
            let ended = wait();
            assert_eq!(ended.code, 1, "uid 0 of the namespace must be taken first");
        }
    }
}

fn other_user(alone: &SingleThreaded) {
    process::become_user(alone, 1234, 2345, &[2345, 3456]).unwrap();
    assert_eq!(status("Uid"), "1234 1234 1234 1234");
    assert_eq!(status("Gid"), "2345 2345 2345 2345");
    assert_eq!(status("Groups"), "2345 3456");
    let error = process::become_user(alone, 0, 0, &[]).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(libc::EPERM),
        "there is no way back"
    );
}

fn no_user(alone: &SingleThreaded) {
    for (uid, gid, groups) in [
        (u32::MAX, 1, &[][..]),
        (1, u32::MAX, &[]),
        (1, 1, &[5, u32::MAX]),
    ] {
        let error = process::become_user(alone, uid, gid, groups).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
    assert_eq!(status("Uid"), "0 0 0 0", "a refused change changes nothing");
}

fn bounding(_: &SingleThreaded) {
    let kept = Set::of(&["CHOWN", "KILL", "NET_BIND_SERVICE"]);
    caps::keep_in_bounding_set(kept).unwrap();
    let shown = u64::from_str_radix(&status("CapBnd"), 16).unwrap();
    assert_eq!(Set(shown), kept);
    caps::keep_in_bounding_set(Set(u64::MAX)).unwrap();
    assert_eq!(
        u64::from_str_radix(&status("CapBnd"), 16).unwrap(),
        kept.0,
        "nothing comes back"
    );
}

fn ambient(alone: &SingleThreaded) {
    let some = Set::of(&["CHOWN", "NET_RAW"]);
    assert!(
        caps::set_ambient(some).is_err(),
        "what is not inheritable cannot be ambient"
    );
    caps::keep_across_setuid(true).unwrap();
    process::become_user(alone, 1000, 1000, &[]).unwrap();
    assert_eq!(status("CapEff"), "0000000000000000");
    caps::set(some, some, some).unwrap();
    caps::set_ambient(some).unwrap();
    for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(
            u64::from_str_radix(&status(field), 16).unwrap(),
            some.0,
            "{field}"
        );
    }
    assert_eq!(caps::permitted().unwrap(), some);
    caps::set_ambient(Set(0)).unwrap();
    assert_eq!(status("CapAmb"), "0000000000000000");
    let more = Set::of(&["SYS_ADMIN"]);
    assert_eq!(
        caps::set(more, more, more).unwrap_err().raw_os_error(),
        Some(libc::EPERM)
    );
}

fn file_owner(_: &SingleThreaded) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    rustix::fs::chmod(dir.path(), rustix::fs::Mode::from_raw_mode(0o777)).unwrap();
    let owner = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, "").unwrap();
        let stat = rustix::fs::stat(&path).unwrap();
        (stat.st_uid, stat.st_gid)
    };
    assert_eq!(owner("before"), (0, 0));
    let other = userns::FileOwner::assume(4711).unwrap();
    assert_eq!(owner("during"), (4711, 4711));
    drop(other);
    assert_eq!(owner("after"), (0, 0));
    userns::set_file_ids(5, 6).unwrap();
    assert_eq!(owner("ids"), (5, 6));
    userns::set_file_ids(0, 0).unwrap();
    assert!(caps::permitted().unwrap().has("DAC_OVERRIDE"));
}

fn limits(_: &SingleThreaded) {
    let number = process::rlimit_number("nofile").unwrap();
    process::set_rlimit(number, 64, 128).unwrap();
    let text = fs::read_to_string("/proc/self/limits").unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let numbers: Vec<&str> = line.split_ascii_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["64", "128"]);
    let error = process::set_rlimit(number, 65, 64).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "soft above hard");
    let error = process::set_rlimit(9999, 1, 1).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    process::set_undumpable().unwrap();
    assert_eq!(
        rustix::process::dumpable_behavior().unwrap(),
        rustix::process::DumpableBehavior::NotDumpable
    );
    process::die_with_parent().unwrap();
}

#[test]
fn a_child_is_told_by_its_code_or_by_its_signal() {
    in_child("exit codes and signals");
}

#[test]
fn a_clone_has_exactly_the_namespaces_that_were_asked_for() {
    testkit::requires!(root);
    in_child("namespaces of a clone");
}

#[test]
fn a_process_joins_the_namespaces_of_another() {
    testkit::requires!(root);
    in_child("joining namespaces");
}

#[test]
fn users_of_a_namespace_are_those_of_its_range() {
    testkit::requires!(root);
    in_child("a user namespace");
}

#[test]
fn another_user_has_its_groups_and_no_way_back() {
    testkit::requires!(root);
    in_child("another user");
}

#[test]
fn the_number_that_means_as_it_is_is_no_user() {
    testkit::requires!(root);
    in_child("no user is no user");
}

#[test]
fn what_left_the_bounding_set_does_not_come_back() {
    testkit::requires!(root);
    in_child("the bounding set");
}

#[test]
fn ambient_capabilities_are_those_that_are_inherited() {
    testkit::requires!(root);
    in_child("ambient capabilities");
}

#[test]
fn files_are_made_as_another_user_until_the_guard_is_dropped() {
    testkit::requires!(root);
    in_child("files of another user");
}

#[test]
fn limits_are_set_by_number_and_impossible_ones_refused() {
    in_child("limits of resources");
}

#[test]
fn limits_have_the_names_of_ulimit() {
    for (name, number) in [
        ("cpu", 0),
        ("fsize", 1),
        ("data", 2),
        ("stack", 3),
        ("core", 4),
        ("rss", 5),
        ("nproc", 6),
        ("nofile", 7),
        ("memlock", 8),
        ("as", 9),
        ("locks", 10),
        ("sigpending", 11),
        ("msgqueue", 12),
        ("nice", 13),
        ("rtprio", 14),
        ("rttime", 15),
    ] {
        assert_eq!(process::rlimit_number(name), Some(number), "{name}");
    }
    for name in ["", "NOFILE", "RLIMIT_NOFILE", "files"] {
        assert_eq!(process::rlimit_number(name), None, "{name}");
    }
}

#[test]
fn a_descriptor_that_is_not_open_is_not_adopted() {
    let error = process::adopt_fd(1_000_000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}

#[test]
fn capabilities_have_numbers_and_names() {
    assert_eq!(Set::of(&["CHOWN"]).0, 1);
    assert_eq!(Set::of(&["CHECKPOINT_RESTORE"]).0, 1 << 40);
    assert_eq!(Set::of(&["CAP_CHOWN", "chown", "NOTHING"]).0, 0);
    let set = Set::of(&["SETUID", "KILL"]);
    assert_eq!(set.names(), ["CAP_KILL", "CAP_SETUID"]);
    assert!(set.has("KILL") && !set.has("CHOWN") && !set.has("NOTHING"));
    assert_eq!(Set::default().names(), Vec::<String>::new());
    assert_eq!(Set(u64::MAX).names().len(), caps::NAMES.len());
    assert_eq!(Set::of(&caps::NAMES).0, (1 << 41) - 1);
}

#[test]
fn ids_of_a_range_end_with_it() {
    let range = IdRange {
        base: 100_000,
        count: 10,
    };
    for (id, host) in [
        (0, Some(100_000)),
        (9, Some(100_009)),
        (10, None),
        (u32::MAX, None),
    ] {
        assert_eq!(range.host_id(id), host, "{id}");
    }
    let last = IdRange {
        base: u32::MAX,
        count: 2,
    };
    assert_eq!((last.host_id(0), last.host_id(1)), (Some(u32::MAX), None));
}
