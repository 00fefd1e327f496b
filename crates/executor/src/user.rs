//! Users and groups as the root filesystem names them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::FileType;
use sys::path::{self, OpenFlags};

/// How much of a passwd or group file is read (P13).
const MAX_FILE_BYTES: u64 = 10 << 20;

/// The ids that a process runs with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// All groups; the first is `gid`.
    pub groups: Vec<u32>,
}

/// Why a user or group cannot be looked up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The root filesystem names no such user or group.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// The root filesystem names no such user or group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// The number is larger than the ids that a user or group can have.
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
    /// The file is longer than the 10 MiB that are read.
    #[error("unable to find user {user}: {path:?} exceeds {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The user that was looked up.
        user: String,
        /// The path of the file in the root filesystem.
        path: &'static str,
    },
    /// The file could not be read.
    #[error("unable to find user {user}: {}", oci::error::errno_text(source))]
    Read {
        /// The user that was looked up.
        user: String,
        /// The error of the system call.
        source: io::Error,
    },
}

impl LookupError {
    /// What kind of error it is: the files are the image's, so a name that is not in them is a failure of the step.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        oci::ErrorKind::Failed
    }
}

/// Looks `user[:group]` up in the tree below `root`. The empty word is root, whatever the files say of it.
pub fn lookup(root: impl AsFd, user: &str) -> Result<Identity, LookupError> {
    let root = root.as_fd();
    if let Some(identity) = numeric(user) {
        return Ok(identity);
    }
    let name = if user.is_empty() { "0" } else { user };
    let identity = read(root, "/etc/passwd", name)
        .and_then(|passwd| Ok((passwd, read(root, "/etc/group", name)?)))
        .and_then(|(passwd, group)| find(name, passwd.as_deref(), group.as_deref()));
    match identity {
        Err(_) if user.is_empty() => Ok(with_groups(0, 0, Vec::new())),
        result => result,
    }
}

/// The home directory of a user in the tree below `root`; `/` when nothing says so.
pub fn home(root: impl AsFd, uid: u32) -> String {
    let passwd = read(root.as_fd(), "/etc/passwd", "").ok().flatten();
    let entry = lines(passwd.as_deref()).find(|line| file_id(field(line, 2)) == i64::from(uid));
    let home = entry
        .map(|line| String::from_utf8_lossy(field(&line, 5)).into_owned())
        .unwrap_or_default();
    if home.is_empty() || home.contains('\0') {
        "/".to_owned()
    } else {
        home
    }
}

/// `uid:gid` in numbers needs no file.
fn numeric(user: &str) -> Option<Identity> {
    let (uid, gid) = user.split_once(':')?;
    let number = |text: &str| {
        if text == "root" {
            Some(0)
        } else {
            text.parse::<u32>().ok().filter(|_| !text.starts_with('+'))
        }
    };
    Some(with_groups(number(uid)?, number(gid)?, Vec::new()))
}

fn with_groups(uid: u32, gid: u32, mut groups: Vec<u32>) -> Identity {
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    Identity { uid, gid, groups }
}

/// The contents of a regular file below `root`; `None` when there is no such file. Nothing but a regular file is ever opened.
fn read(
    root: std::os::fd::BorrowedFd<'_>,
    path: &'static str,
    user: &str,
) -> Result<Option<Vec<u8>>, LookupError> {
    let Ok(pinned) = path::open_path(root, path) else {
        return Ok(None);
    };
    let Ok(stat) = rustix::fs::fstat(&pinned) else {
        return Ok(None);
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let Ok(file) = path::reopen(&pinned, OpenFlags::RDONLY) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let result = File::from(file)
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes);
    result.map_err(|source| LookupError::Read {
        user: user.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(LookupError::TooLarge {
            user: user.to_owned(),
            path,
        });
    }
    Ok(Some(bytes))
}

/// An id given as a number: `None` when it is a name.
fn id(text: &str) -> Result<Option<u32>, LookupError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<i64>() {
        Ok(number) if (0..=i64::from(i32::MAX)).contains(&number) => Ok(u32::try_from(number).ok()),
        _ => Err(LookupError::Range),
    }
}

/// The fields of each line that is not empty.
fn lines(file: Option<&[u8]>) -> impl Iterator<Item = Vec<&[u8]>> {
    file.unwrap_or_default()
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(|line| line.split(|byte| *byte == b':').collect())
}

fn field<'a>(line: &[&'a [u8]], index: usize) -> &'a [u8] {
    line.get(index).copied().unwrap_or_default()
}

/// A number in a file. A field that is no number counts as zero, as it does for libcontainer.
fn file_id(bytes: &[u8]) -> i64 {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn find(spec: &str, passwd: Option<&[u8]>, group: Option<&[u8]>) -> Result<Identity, LookupError> {
    let mut parts = spec.split(':');
    let (user, group_name) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let (uid, gid) = (id(user)?, id(group_name)?);
    let matches = |line: &Vec<&[u8]>| match uid {
        _ if user.is_empty() => file_id(field(line, 2)) == 0,
        Some(uid) => file_id(field(line, 2)) == i64::from(uid),
        None => field(line, 0) == user.as_bytes(),
    };
    let entry = lines(passwd).find(matches);
    // The dropped error says only that the number is out of range.
    let narrow = |number: i64| u32::try_from(number).map_err(|_| LookupError::Range);
    let (the_uid, mut the_gid, name) = match (&entry, uid) {
        (Some(line), _) => (
            narrow(file_id(field(line, 2)))?,
            narrow(file_id(field(line, 3)))?,
            field(line, 0),
        ),
        (None, Some(uid)) => (uid, 0, &b""[..]),
        (None, None) if user.is_empty() => (0, 0, &b""[..]),
        (None, None) => return Err(LookupError::NoUser(user.to_owned())),
    };
    let mut groups = Vec::new();
    if !group_name.is_empty() {
        let entry = lines(group).find(|line| match gid {
            Some(gid) => file_id(field(line, 2)) == i64::from(gid),
            None => field(line, 0) == group_name.as_bytes(),
        });
        the_gid = match (entry, gid) {
            (Some(line), _) => narrow(file_id(field(&line, 2)))?,
            (None, Some(gid)) => gid,
            (None, None) => return Err(LookupError::NoGroup(group_name.to_owned())),
        };
    } else if !name.is_empty() {
        for line in lines(group) {
            if field(&line, 3)
                .split(|byte| *byte == b',')
                .any(|member| member == name)
            {
                groups.push(narrow(file_id(field(&line, 2)))?);
            }
        }
    }
    Ok(with_groups(the_uid, the_gid, groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\nbuild:x:1000:100::/home:/bin/sh\n big:x:4294967296:1::/:/x\n";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:\nwheel:x:10:build,root\nvideo:x:44:build\n";

    #[test]
    fn users_and_groups_are_found_as_the_reference_finds_them() {
        type Case = (
            &'static str,
            Result<(u32, u32, &'static [u32]), &'static str>,
        );
        let cases: &[Case] = &[
            ("build", Ok((1000, 100, &[100, 10, 44]))),
            ("1000", Ok((1000, 100, &[100, 10, 44]))),
            ("1001", Ok((1001, 0, &[0]))),
            ("build:wheel", Ok((1000, 10, &[10]))),
            ("build:77", Ok((1000, 77, &[77]))),
            (
                "nobody",
                Err("unable to find user nobody: no matching entries in passwd file"),
            ),
            (
                "build:none",
                Err("unable to find group none: no matching entries in group file"),
            ),
            (
                "2147483648",
                Err("uids and gids must be in range 0-2147483647"),
            ),
            ("-1", Err("uids and gids must be in range 0-2147483647")),
            ("big", Err("uids and gids must be in range 0-2147483647")),
        ];
        for (user, want) in cases {
            let identity = find(user, Some(PASSWD), Some(GROUP));
            match (identity, want) {
                (Ok(identity), Ok((uid, gid, groups))) => assert_eq!(
                    identity,
                    Identity {
                        uid: *uid,
                        gid: *gid,
                        groups: groups.to_vec()
                    },
                    "{user}"
                ),
                (Err(error), Err(want)) => assert_eq!(&error.to_string(), want, "{user}"),
                (identity, want) => panic!("{user}: {identity:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn hostile_account_files_are_bounded_and_only_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = dir.path().join("etc/passwd");
        let root = path::open_dir(dir.path()).unwrap();
        // A link that would leave the root finds nothing of the host.
        std::os::unix::fs::symlink("/../../../../../../etc/passwd", &passwd).unwrap();
        assert!(lookup(&root, "daemon").is_err());
        // A fifo without a writer does not block.
        std::fs::remove_file(&passwd).unwrap();
        rustix::fs::mkfifoat(&root, "etc/passwd", rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(
            lookup(&root, "daemon"),
            Err(LookupError::NoUser(_))
        ));
        // Too many bytes are an error, for the default user they are not.
        std::fs::remove_file(&passwd).unwrap();
        File::create(&passwd)
            .unwrap()
            .set_len(MAX_FILE_BYTES + 1)
            .unwrap();
        assert!(matches!(
            lookup(&root, "daemon"),
            Err(LookupError::TooLarge { .. })
        ));
        assert_eq!(
            lookup(&root, "").unwrap(),
            Identity {
                uid: 0,
                gid: 0,
                groups: vec![0]
            }
        );
        assert_eq!(
            lookup(&root, "7:8").unwrap(),
            Identity {
                uid: 7,
                gid: 8,
                groups: vec![8]
            }
        );
    }

    #[test]
    fn account_files_are_read_as_far_as_they_make_sense() {
        for (passwd, group, user, wanted) in [
            // The first line of a name counts.
            ("a:x:1:1::/:\na:x:2:2::/:\n", "", "a", Some((1, 1))),
            // Lines with too few fields have zeros.
            ("a\n", "", "a", Some((0, 0))),
            ("a:x\n", "", "a", Some((0, 0))),
            ("a:x:nonsense:7::/:\n", "", "a", Some((0, 7))),
            ("  a:x:3:4::/:  \n", "", "a", Some((3, 4))),
            ("\n\n\na:x:3:4::/:", "", "a", Some((3, 4))),
            ("a:x:-5:1::/:\n", "", "a", None),
            // No files at all: numbers do.
            ("", "", "5", Some((5, 0))),
            ("", "", "a", None),
            ("", "", "5:g", None),
            ("", "g:x:9:\n", "5:g", Some((5, 9))),
            ("", "g:x:9:\n", "5:9", Some((5, 9))),
            ("", "g:x:99999999999:\n", "5:g", None),
            // A number that is the id of a line brings that line's group.
            ("a:x:5:6::/:\n", "", "5", Some((5, 6))),
            ("+:x:5:6::/:\n", "", "+5", Some((5, 6))),
        ] {
            let identity = find(user, Some(passwd.as_bytes()), Some(group.as_bytes()));
            let ids = identity.ok().map(|identity| (identity.uid, identity.gid));
            assert_eq!(ids, wanted, "{passwd:?} {group:?} {user}");
        }
        assert_eq!(
            find("a", None, None).unwrap_err().to_string(),
            "unable to find user a: no matching entries in passwd file"
        );
    }

    #[test]
    fn a_home_is_that_of_the_first_line_of_the_user_or_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = path::open_dir(dir.path()).unwrap();
        assert_eq!(home(&root, 0), "/", "without a file");
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let text = b"root:x:0:0::/root:\na:x:1:1:::\nb:x:2:2::/h\0me:\nc:x:3:3::/one:\nc:x:3:3::/two:\nshort:x:4\n";
        std::fs::write(dir.path().join("etc/passwd"), text).unwrap();
        for (uid, folder) in [
            (0, "/root"),
            (1, "/"),
            (2, "/"),
            (3, "/one"),
            (4, "/"),
            (5, "/"),
        ] {
            assert_eq!(home(&root, uid), folder, "{uid}");
        }
    }

    #[test]
    fn pairs_of_numbers_need_no_file() {
        for (user, wanted) in [
            ("0:0", Some((0, 0))),
            ("root:root", Some((0, 0))),
            ("1:root", Some((1, 0))),
            ("4294967295:1", Some((u32::MAX, 1))),
            ("+1:1", None),
            ("1:+1", None),
            ("1", None),
            (":", None),
            ("1:", None),
            ("1:2:3", None),
            ("4294967296:1", None),
        ] {
            let ids = numeric(user).map(|identity| (identity.uid, identity.gid));
            assert_eq!(ids, wanted, "{user}");
        }
    }
}
