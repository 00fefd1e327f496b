//! Names, times, owners, attributes, copies, sockets and terminals.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use rustix::fs::{Mode, OFlags};
use sys::path::{self, OpenFlags};
use sys::{file, pty, reflink, socket, xattr};
use tempfile::TempDir;

fn folder() -> (TempDir, std::os::fd::OwnedFd) {
    let dir = tempfile::tempdir().unwrap();
    let fd = path::open_dir(dir.path()).unwrap();
    (dir, fd)
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn renames_replace_refuse_or_exchange() {
    let (dir, fd) = folder();
    let write = |name: &str| fs::write(dir.path().join(name), name).unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    write("a");
    write("b");
    assert_eq!(
        errno(file::rename_noreplace(&fd, "a", &fd, "b")),
        Some(libc::EEXIST)
    );
    file::rename_exchange(&fd, "a", &fd, "b").unwrap();
    assert_eq!((read("a"), read("b")), ("b".into(), "a".into()));
    assert_eq!(
        errno(file::rename_exchange(&fd, "a", &fd, "missing")),
        Some(libc::ENOENT)
    );
    file::renameat(&fd, "a", &fd, "b").unwrap();
    assert_eq!(read("b"), "b");
    file::rename_noreplace(&fd, "b", &fd, "c").unwrap();
    assert_eq!(read("c"), "b");
    assert_eq!(
        errno(file::renameat(&fd, "missing", &fd, "x")),
        Some(libc::ENOENT)
    );
}

#[test]
fn links_are_made_of_files_without_a_name_and_of_links_themselves() {
    let (dir, fd) = folder();
    let unnamed = rustix::fs::openat(
        &fd,
        ".",
        OFlags::TMPFILE | OFlags::RDWR,
        Mode::from_raw_mode(0o600),
    );
    if let Ok(unnamed) = unnamed {
        rustix::io::write(&unnamed, b"text").unwrap();
        file::link_fd(&unnamed, &fd, "named").unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("named")).unwrap(),
            "text"
        );
        assert_eq!(
            errno(file::link_fd(&unnamed, &fd, "named")),
            Some(libc::EEXIST)
        );
    }
    file::symlinkat("nowhere", &fd, "link").unwrap();
    file::linkat(&fd, "link", &fd, "second").unwrap();
    assert_eq!(
        fs::read_link(dir.path().join("second"))
            .unwrap()
            .as_os_str()
            .as_bytes(),
        b"nowhere"
    );
    file::mkdirat(&fd, "folder", 0o700).unwrap();
    assert_eq!(
        errno(file::linkat(&fd, "folder", &fd, "x")),
        Some(libc::EPERM)
    );
    assert_eq!(errno(file::symlinkat("x", &fd, "link")), Some(libc::EEXIST));
}

#[test]
fn names_are_removed_by_kind() {
    let (dir, fd) = folder();
    fs::create_dir_all(dir.path().join("full/inner")).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for (name, as_file, as_folder) in [
        ("full", Some(libc::EISDIR), Some(libc::ENOTEMPTY)),
        ("full/inner", Some(libc::EISDIR), None),
        ("file", None, Some(libc::ENOTDIR)),
        ("missing", Some(libc::ENOENT), Some(libc::ENOENT)),
    ] {
        // What must fail is tried first, so that the rest is there.
        if as_file.is_some() {
            assert_eq!(errno(file::unlinkat(&fd, name)), as_file, "{name}");
        }
        if as_folder.is_some() {
            assert_eq!(errno(file::rmdirat(&fd, name)), as_folder, "{name}");
        }
    }
    file::unlinkat(&fd, "file").unwrap();
    file::rmdirat(&fd, "full/inner").unwrap();
    file::rmdirat(&fd, "full").unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn times_are_set_to_the_nanosecond_also_before_the_epoch() {
    let (dir, fd) = folder();
    fs::write(dir.path().join("file"), "").unwrap();
    symlink("file", dir.path().join("link")).unwrap();
    let meta = |name: &str| fs::symlink_metadata(dir.path().join(name)).unwrap();
    let nanos = |name: &str| meta(name).mtime() * 1_000_000_000 + meta(name).mtime_nsec();
    let open = File::open(dir.path().join("file")).unwrap();
    let place = path::open_path(&fd, "file").unwrap();
    for time in [0, 1, 1_000_000_001, -1, -1_500_000_000] {
        file::utimensat_nofollow(&fd, "link", None, Some(time)).unwrap();
        assert_eq!(nanos("link"), time);
        assert_ne!(nanos("file"), time - 1, "the target keeps its own");
        file::futimens(&open, Some(7), Some(time)).unwrap();
        assert_eq!((nanos("file"), meta("file").atime_nsec()), (time, 7));
        file::utimens_fd(&place, None, Some(time + 3)).unwrap();
        assert_eq!((nanos("file"), meta("file").atime_nsec()), (time + 3, 7));
    }
    let missing = file::utimensat_nofollow(&fd, "missing", None, Some(0));
    assert_eq!(errno(missing), Some(libc::ENOENT));
}

#[test]
fn nodes_owners_and_permissions() {
    testkit::requires!(root);
    let (dir, fd) = folder();
    for (name, mode, major, minor) in [
        ("fifo", libc::S_IFIFO | 0o640, 0, 0),
        ("null", libc::S_IFCHR | 0o606, 1, 3),
        ("loop", libc::S_IFBLK | 0o600, 7, 0),
        ("socket", libc::S_IFSOCK | 0o600, 0, 0),
        ("plain", libc::S_IFREG | 0o600, 0, 0),
    ] {
        file::mknodat(&fd, name, mode, major, minor).unwrap();
        let meta = fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!(meta.mode() & libc::S_IFMT, mode & libc::S_IFMT, "{name}");
        assert_eq!(
            (
                rustix::fs::major(meta.rdev()),
                rustix::fs::minor(meta.rdev())
            ),
            (major, minor)
        );
        assert_eq!(
            errno(file::mknodat(&fd, name, mode, major, minor)),
            Some(libc::EEXIST)
        );
    }
    assert!(
        fs::metadata(dir.path().join("fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );

    symlink("plain", dir.path().join("link")).unwrap();
    let owner = |name: &str| {
        let meta = fs::symlink_metadata(dir.path().join(name)).unwrap();
        (meta.uid(), meta.gid())
    };
    file::chownat_nofollow(&fd, "link", 5, 6).unwrap();
    assert_eq!((owner("link"), owner("plain")), ((5, 6), (0, 0)));
    let place = path::open_path(&fd, "plain").unwrap();
    file::chown_fd(&place, 7, u32::MAX).unwrap();
    file::chown_fd(&place, u32::MAX, 8).unwrap();
    assert_eq!(
        owner("plain"),
        (7, 8),
        "the largest number leaves an id as it is"
    );
    file::chmod_fd(&place, 0o4751).unwrap();
    assert_eq!(
        fs::metadata(dir.path().join("plain")).unwrap().mode() & 0o7777,
        0o4751
    );
    let open = File::open(dir.path().join("plain")).unwrap();
    file::chmod_fd(&open, 0o604).unwrap();
    assert_eq!(open.metadata().unwrap().mode() & 0o7777, 0o604);
}

#[test]
fn a_sealed_file_never_changes_again() {
    let sealed = file::memfd("sealed").unwrap();
    let mut writer = File::from(sealed.try_clone().unwrap());
    writer.write_all(b"text").unwrap();
    file::fdatasync(&writer).unwrap();
    file::seal(&sealed).unwrap();
    assert_eq!(errno(writer.write(b"more")), Some(libc::EPERM));
    assert_eq!(errno(writer.set_len(2)), Some(libc::EPERM));
    assert_eq!(errno(writer.set_len(9)), Some(libc::EPERM));
    assert_eq!(errno(file::seal(&sealed)), Some(libc::EPERM));
    writer.rewind().unwrap();
    let mut text = String::new();
    writer.read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
    file::syncfs(File::open("/").unwrap()).unwrap();
}

#[test]
fn names_without_links_are_names_without_links() {
    let (dir, fd) = folder();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/b/file"), "text").unwrap();
    symlink("a", dir.path().join("link")).unwrap();
    symlink("b/file", dir.path().join("a/last")).unwrap();
    for (name, wanted) in [
        ("a/b/file", None),
        ("a/../a/b/file", None),
        ("link/b/file", Some(libc::ELOOP)),
        ("a/last", Some(libc::ELOOP)),
        ("..", Some(libc::EXDEV)),
        ("a/../../etc", Some(libc::EXDEV)),
        ("/etc", Some(libc::EXDEV)),
        ("missing", Some(libc::ENOENT)),
    ] {
        let opened = path::open_no_symlinks(&fd, name, OpenFlags::RDONLY, 0);
        assert_eq!(
            opened.err().and_then(|error| error.raw_os_error()),
            wanted,
            "{name}"
        );
    }
    let place = path::open_path(&fd, "link/b/file").unwrap();
    assert_eq!(
        errno(File::from(place.try_clone().unwrap()).read(&mut [0; 1])),
        Some(libc::EBADF)
    );
    let mut text = String::new();
    File::from(path::reopen(&place, OpenFlags::RDONLY).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "text");
    let flags = rustix::io::fcntl_getfd(&place).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    assert_eq!(errno(path::open_dir("/etc/passwd")), Some(libc::ENOTDIR));
    assert_eq!(errno(path::open_host_path("/no/such")), Some(libc::ENOENT));
    let made =
        path::open_in_root(&fd, "/a/new", OpenFlags::CREATE | OpenFlags::WRONLY, 0o640).unwrap();
    assert_eq!(rustix::fs::fstat(&made).unwrap().st_mode & 0o777, 0o640);
    assert!(dir.path().join("a/new").exists());
}

#[test]
fn attributes_that_are_not_there_are_no_error_and_bad_ones_are() {
    testkit::requires!(root);
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let fd = path::open_dir(dir.path()).unwrap();
    let open = File::open(dir.path().join("file")).unwrap();
    assert_eq!(xattr::get(&open, "trusted.none").unwrap(), None);
    xattr::remove(&open, "trusted.none").unwrap();
    xattr::lremove(&fd, b"file", "trusted.none").unwrap();
    for (name, value) in [
        ("trusted.a", &b""[..]),
        ("trusted.b", b"\0\xff"),
        ("trusted.c", &[1; 255]),
        ("trusted.d", &[2; 257]),
    ] {
        xattr::set(&open, name, value).unwrap();
        assert_eq!(
            xattr::get(&open, name).unwrap().as_deref(),
            Some(value),
            "{name}"
        );
        assert_eq!(
            xattr::lget(&fd, b"file", name).unwrap().as_deref(),
            Some(value),
            "{name}"
        );
    }
    let names = xattr::list(&open).unwrap();
    let trusted = names
        .iter()
        .filter(|name| name.to_bytes().starts_with(b"trusted."));
    assert_eq!(trusted.count(), 4);
    assert_eq!(xattr::llist(&fd, b"file").unwrap(), names);
    xattr::remove(&open, "trusted.a").unwrap();
    xattr::lremove(&fd, b"file", "trusted.b").unwrap();
    assert_eq!(xattr::get(&open, "trusted.a").unwrap(), None);
    assert_eq!(xattr::get(&open, "trusted.b").unwrap(), None);
    assert!(xattr::set(&open, "trusted.x", &vec![0; (64 << 10) + 1]).is_err());
    assert_eq!(
        errno(xattr::set(&open, "nonsense.x", b"")),
        Some(libc::EOPNOTSUPP)
    );
    assert_eq!(
        errno(xattr::lget(&fd, b"missing", "trusted.a")),
        Some(libc::ENOENT)
    );
    for hostile in [&b"a/b"[..], b"..", b".", b"", b"a\0b"] {
        assert!(xattr::lget(&fd, hostile, "trusted.a").is_err());
        assert!(xattr::llist(&fd, hostile).is_err());
        assert!(xattr::lremove(&fd, hostile, "trusted.a").is_err());
    }
}

#[test]
fn copies_of_every_shape_are_equal() {
    let dir = tempfile::tempdir().unwrap();
    type Fill = fn(&mut File);
    let shapes: [(&str, Fill, u64); 5] = [
        ("empty", |_| {}, 0),
        ("one byte", |file| file.write_all(b"x").unwrap(), 1),
        (
            "several buffers",
            |file| file.write_all(&[3; 700_001]).unwrap(),
            700_001,
        ),
        (
            "only a hole",
            |file| file.set_len(1 << 20).unwrap(),
            1 << 20,
        ),
        (
            "a hole first",
            |file| {
                file.seek(io::SeekFrom::Start(1 << 20)).unwrap();
                file.write_all(b"end").unwrap();
            },
            (1 << 20) + 3,
        ),
    ];
    for (name, fill, size) in shapes {
        let mut source = tempfile::tempfile_in(dir.path()).unwrap();
        fill(&mut source);
        let mut target = tempfile::tempfile_in(dir.path()).unwrap();
        assert_eq!(
            reflink::copy_contents(&source, &target).unwrap(),
            size,
            "{name}"
        );
        let (mut from, mut to) = (Vec::new(), Vec::new());
        source.rewind().unwrap();
        target.rewind().unwrap();
        source.read_to_end(&mut from).unwrap();
        target.read_to_end(&mut to).unwrap();
        assert!(from == to, "{name}");
    }
    // From another filesystem the kernel may not copy.
    let mut memory = File::from(file::memfd("source").unwrap());
    memory.write_all(&[9; 300_000]).unwrap();
    let target = tempfile::tempfile_in(dir.path()).unwrap();
    assert_eq!(reflink::copy_contents(&memory, &target).unwrap(), 300_000);
    assert_eq!(target.metadata().unwrap().len(), 300_000);
    assert!(reflink::ficlone(&memory, &target).is_err());
    let readonly = File::open("/etc/passwd").unwrap();
    assert!(reflink::copy_contents(&memory, &readonly).is_err());
}

/// Gives one byte at a time, and is interrupted before each.
struct Interrupted<'a>(&'a [u8], bool);

impl Read for Interrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let (first, rest) = self.0.split_at(self.0.len().min(1));
        buffer[..first.len()].copy_from_slice(first);
        self.0 = rest;
        Ok(first.len())
    }
}

#[test]
fn a_stream_is_copied_whole_through_interruptions_and_its_errors_are_told() {
    let mut out = Vec::new();
    assert_eq!(
        reflink::copy_stream(&mut Interrupted(b"text", false), &mut out).unwrap(),
        4
    );
    assert_eq!(out, b"text");
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(
        errno(reflink::copy_stream(&mut &b"text"[..], &mut full)),
        Some(libc::ENOSPC)
    );
    let mut folder = File::open("/").unwrap();
    assert_eq!(
        errno(reflink::copy_stream(&mut folder, &mut Vec::new())),
        Some(libc::EISDIR)
    );
}

#[test]
fn sockets_of_any_family_are_opened_and_bound() {
    let stream = socket::open(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).unwrap();
    assert_eq!(socket::family(&stream).unwrap(), libc::AF_UNIX);
    assert!(
        rustix::fs::fcntl_getfl(&stream)
            .unwrap()
            .contains(OFlags::NONBLOCK)
    );
    assert!(
        rustix::io::fcntl_getfd(&stream)
            .unwrap()
            .contains(rustix::io::FdFlags::CLOEXEC)
    );
    let mut address = libc::AF_UNIX.to_ne_bytes()[..2].to_vec();
    address.push(0);
    address.extend(format!("rbuild-sys-bind-{}", std::process::id()).bytes());
    socket::bind(&stream, &address).unwrap();
    let second = socket::open(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap();
    assert_eq!(
        errno(socket::bind(&second, &address)),
        Some(libc::EADDRINUSE)
    );
    assert_eq!(errno(socket::bind(&second, &[])), Some(libc::EINVAL));
    assert!(socket::bind(&second, &[0xff; 500]).is_err());
    assert_eq!(
        errno(socket::open(9999, libc::SOCK_STREAM, 0)),
        Some(libc::EAFNOSUPPORT)
    );
    assert_eq!(
        errno(socket::family(File::open("/dev/null").unwrap())),
        Some(libc::ENOTSOCK)
    );
}

#[test]
fn a_message_to_nobody_or_with_too_much_is_an_error_and_no_signal() {
    let (left, right) = socket::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    let many: Vec<BorrowedFd<'_>> = vec![null.as_fd(); socket::MAX_FDS + 1];
    assert!(socket::send(&left, b"x", &many).is_err());
    assert_eq!(
        errno(socket::send(&left, &vec![0; 64 << 20], &[])),
        Some(libc::EMSGSIZE)
    );
    socket::send(&left, b"text", &[null.as_fd()]).unwrap();
    // A message that was cut has lost what it carried: it is no message.
    let cut = socket::receive(&right, &mut [0; 2]).unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::InvalidData);
    drop(right);
    assert_eq!(errno(socket::send(&left, b"x", &[])), Some(libc::EPIPE));
}

#[test]
fn a_terminal_has_two_ends_and_a_size() {
    let devpts = path::open_dir("/dev/pts").unwrap();
    let Ok(master) = pty::open_master(&devpts) else {
        testkit::skip::skip("no devpts that makes terminals");
        return;
    };
    let peer = pty::open_peer(&master).unwrap();
    pty::set_size(&master, 24, 133).unwrap();
    let size = rustix::termios::tcgetwinsize(&peer).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (24, 133));
    File::from(peer.try_clone().unwrap())
        .write_all(b"out\n")
        .unwrap();
    let mut text = [0; 16];
    let length = File::from(master.try_clone().unwrap())
        .read(&mut text)
        .unwrap();
    assert_eq!(&text[..length], b"out\r\n");
    let null = File::open("/dev/null").unwrap();
    assert_eq!(errno(pty::set_size(&null, 1, 1)), Some(libc::ENOTTY));
    assert_eq!(errno(pty::open_peer(&null)), Some(libc::ENOTTY));
    assert!(pty::make_controlling(&null).is_err());
    assert!(pty::open_master(path::open_dir("/etc").unwrap()).is_err());
}

#[test]
fn what_is_allocated_is_counted() {
    let before = sys::memory::allocated();
    let held = vec![1_u8; 32 << 20];
    let during = sys::memory::allocated();
    assert!(during >= before + (16 << 20), "{before} {during}");
    drop(held);
    assert!(sys::memory::allocated() < during);
    let began = sys::memory::thread_time();
    let mut sum = 0_u64;
    while sys::memory::thread_time() - began < std::time::Duration::from_millis(2) {
        sum = std::hint::black_box(sum + 1);
    }
    assert!(sys::memory::processor_time() >= std::time::Duration::from_millis(2));
}
