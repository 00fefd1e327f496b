//! Filters of system calls, calls that another process answers, Landlock, device programs.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use sys::bpf::{self, DeviceRule};
use sys::notify::{self, Answer, Listener};
use sys::process::{self, Cloned, Namespaces, SingleThreaded, exit_now};
use sys::seccomp::{self, Instruction};
use sys::{landlock, socket};

use crate::child::{Scene, in_child, unsupported};

pub(crate) const SCENES: &[Scene] = &[
    ("a filter", filter),
    ("calls that are answered", answered),
    ("a call whose thread is killed", killed),
    ("one listener", one_listener),
    ("abstract sockets", abstract_sockets),
];

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const ERRNO: u32 = 0x0005_0000;

/// Gives `action` to one call and lets all others through.
fn on_call(number: libc::c_long, action: u32) -> [Instruction; 4] {
    let op = |code, jt, jf, k| Instruction { code, jt, jf, k };
    [
        // The number of the call is the first word of what a filter sees.
        op(0x20, 0, 0, 0),
        op(0x15, 0, 1, u32::try_from(number).unwrap()),
        op(0x06, 0, 0, action),
        op(0x06, 0, 0, ALLOW),
    ]
}

/// What the filtered call returns: its value, or the error number.
fn call() -> Result<u32, i32> {
    // umask is a call without danger: it takes a number and returns one.
    let mask = std::panic::catch_unwind(|| sys::file::umask(0o22));
    mask.map_err(|_| 0)
}

/// Opens a file by a call that can fail.
fn open() -> Result<OwnedFd, i32> {
    socket::open(libc::AF_UNIX, libc::SOCK_STREAM, 0).map_err(|error| error.raw_os_error().unwrap())
}

fn filter(_: &SingleThreaded) {
    assert!(open().is_ok());
    seccomp::install(&on_call(
        libc::SYS_socket,
        ERRNO | libc::EACCES.cast_unsigned(),
    ))
    .unwrap();
    assert_eq!(open().unwrap_err(), libc::EACCES);
    assert!(call().is_ok(), "other calls go through");
    for broken in [
        &[][..],
        // A program that does not end with a return.
        &[Instruction {
            code: 0x20,
            jt: 0,
            jf: 0,
            k: 0,
        }],
        // A jump behind the end.
        &[
            Instruction {
                code: 0x15,
                jt: 9,
                jf: 9,
                k: 0,
            },
            Instruction {
                code: 0x06,
                jt: 0,
                jf: 0,
                k: ALLOW,
            },
        ],
    ] {
        assert_eq!(
            seccomp::install(broken).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }
    let long = vec![
        Instruction {
            code: 0x06,
            jt: 0,
            jf: 0,
            k: ALLOW
        };
        70_000
    ];
    assert!(
        seccomp::install(&long).is_err(),
        "more instructions than there are numbers for"
    );
}

/// A child that has a listener for `socket`, works when it is told to, and ends with 0 if that went as it should.
fn listened(alone: &SingleThreaded, work: fn() -> bool) -> (Listener, OwnedFd, OwnedFd) {
    let (ours, theirs) = socket::pair().unwrap();
    match process::clone3(alone, Namespaces::default(), None).unwrap() {
        Cloned::Child => {
            drop(ours);
            let listener = notify::install(&on_call(libc::SYS_socket, NOTIFY)).unwrap();
            socket::send(&theirs, b"x", &[listener.as_fd()]).unwrap();
            drop(listener);
            drop(socket::receive(&theirs, &mut [0; 1]).unwrap());
            exit_now(i32::from(!work()));
        }
        Cloned::Parent { pidfd, .. } => {
            let (_, mut fds) = socket::receive(&ours, &mut [0; 1]).unwrap();
            socket::send(&ours, b"x", &[]).unwrap();
            (Listener::from(fds.remove(0)), ours, pidfd)
        }
    }
}

fn wait() -> u32 {
    loop {
        if let Some(ended) = process::wait_any().unwrap() {
            return ended.code;
        }
        std::thread::yield_now();
    }
}

fn answered(alone: &SingleThreaded) {
    let (listener, _held, _) = listened(alone, || {
        // The supervisor answers these one after the other.
        let refused = open().unwrap_err() == libc::EMFILE;
        let file = open().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let given = rustix::fs::FileType::from_raw_mode(stat.st_mode)
            == rustix::fs::FileType::CharacterDevice;
        let own = open().unwrap();
        let carried_out = socket::family(&own).unwrap() == libc::AF_UNIX;
        refused && given && carried_out
    });
    let first = listener.receive().unwrap().unwrap();
    assert_eq!(i64::from(first.number), libc::SYS_socket);
    assert_eq!(first.args[0], u64::from(libc::AF_UNIX.cast_unsigned()));
    assert!(listener.is_waiting(first.id) && !listener.is_waiting(first.id + 77));
    listener
        .answer(first.id, Answer::Error(libc::EMFILE))
        .unwrap();
    assert!(!listener.is_waiting(first.id));
    let late = listener.answer(first.id, Answer::Value(0)).unwrap_err();
    // Until the caller has woken up there is a call of this number, with an answer.
    let errno = late.raw_os_error();
    assert!(
        matches!(errno, Some(libc::ENOENT | libc::EINPROGRESS)),
        "{late}"
    );

    let second = listener.receive().unwrap().unwrap();
    // A descriptor of the caller's, by its number.
    let of_caller = notify::descriptor_of(second.thread, 2);
    if let Err(error) = &of_caller {
        // PIDFD_THREAD came with Linux 6.9.
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    }
    assert!(notify::descriptor_of(second.thread, 999_999).is_err());
    let null = std::fs::File::open("/dev/null").unwrap();
    listener.answer_with_fd(second.id, &null, true).unwrap();

    let third = listener.receive().unwrap().unwrap();
    listener.answer(third.id, Answer::Continue).unwrap();
    assert_eq!(wait(), 0);
    assert!(
        notify::descriptor_of(0, 0).is_err(),
        "no thread has the number 0"
    );
}

fn killed(alone: &SingleThreaded) {
    let (listener, _held, pidfd) = listened(alone, || open().is_ok());
    let waiting = listener.receive().unwrap().unwrap();
    process::pidfd_send_signal(&pidfd, libc::SIGKILL).unwrap();
    assert_eq!(wait(), 128 + libc::SIGKILL.cast_unsigned());
    assert!(!listener.is_waiting(waiting.id));
    for answer in [Answer::Continue, Answer::Value(1), Answer::Error(1)] {
        let error = listener.answer(waiting.id, answer).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
    let null = std::fs::File::open("/dev/null").unwrap();
    assert!(listener.answer_with_fd(waiting.id, &null, true).is_err());
}

fn one_listener(_: &SingleThreaded) {
    let filter = on_call(libc::SYS_socket, NOTIFY);
    let listener = notify::install(&filter).unwrap();
    assert!(listener.as_fd().as_raw_fd() > 2);
    assert_eq!(
        notify::install(&filter).unwrap_err().raw_os_error(),
        Some(libc::EBUSY)
    );
}

fn abstract_sockets(alone: &SingleThreaded) {
    let Some(rules) = landlock::scope_abstract_sockets().unwrap() else {
        // Before Linux 6.12 there are no scopes.
        unsupported();
    };
    let address = |name: &str| {
        SocketAddr::from_abstract_name(format!("rbuild-sys-{}-{name}", std::process::id())).unwrap()
    };
    let outside = address("outside");
    let _listener = UnixListener::bind_addr(&outside).unwrap();
    let inside = address("inside");
    match process::clone3(alone, Namespaces::default(), None).unwrap() {
        Cloned::Child => {
            landlock::restrict_self(&rules).unwrap();
            let refused = UnixStream::connect_addr(&outside)
                .is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
            let _own = UnixListener::bind_addr(&inside).unwrap();
            let own_works = UnixStream::connect_addr(&inside).is_ok();
            exit_now(i32::from(!(refused && own_works)));
        }
        Cloned::Parent { .. } => assert_eq!(wait(), 0),
    }
    assert!(landlock::restrict_self(std::io::stderr()).is_err());
}

#[test]
fn a_filter_refuses_what_it_says_and_a_broken_one_is_refused() {
    testkit::requires!(root);
    in_child("a filter");
}

#[test]
fn a_call_gets_the_answer_that_the_supervisor_gives() {
    testkit::requires!(root);
    in_child("calls that are answered");
}

#[test]
fn nobody_waits_for_the_answer_of_a_call_whose_thread_was_killed() {
    testkit::requires!(root);
    in_child("a call whose thread is killed");
}

#[test]
fn a_process_has_one_listener() {
    testkit::requires!(root);
    in_child("one listener");
}

#[test]
fn a_scoped_process_reaches_no_abstract_socket_from_outside() {
    testkit::requires!(root);
    in_child("abstract sockets");
}

#[test]
fn the_kernel_takes_a_device_program_of_any_length_that_is_used() {
    testkit::requires!(root);
    for count in [0, 1, 20, 200] {
        let rules: Vec<_> = (0..count)
            .map(|minor| DeviceRule::character(1, Some(minor)))
            .collect();
        let program = match bpf::load_device_program(&rules) {
            Ok(program) => program,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                testkit::skip::skip("this kernel loads no programs for control groups");
                return;
            }
            Err(error) => panic!("{count}: {error}"),
        };
        let folder = std::fs::File::open("/").unwrap();
        let error = bpf::attach_device_program(&program, &folder).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "no control group");
    }
}
