//! Places in a root filesystem that something is mounted on, and their removal.
//!
//! Names are walked one component at a time on descriptors; links are resolved as if the root were `/`, also when they lead to what is not
//! there yet. What was made is known by device and inode, and only that is removed again (P2).

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sys::file;
use sys::path::{self, OpenFlags};

use crate::bounds::{MAX_PATH_BYTES, MAX_PATH_PARTS};

/// What a place has to be for something to be mounted on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// What was made along one path, each below the one before. One text for all of them: a path of many names is not kept once for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stubs {
    /// The path of the innermost stub below the root; none of its names is a link.
    path: String,
    /// The stubs along the path, the outermost first.
    stubs: Vec<Stub>,
}

/// One directory or file that was made to be mounted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stub {
    /// How many bytes of [`Stubs::path`] are the path of this stub.
    end: usize,
    device: u64,
    inode: u64,
    directory: bool,
}

impl Stubs {
    fn path_of(&self, stub: &Stub) -> &str {
        self.path.get(..stub.end).unwrap_or_default()
    }

    /// About how many bytes a message with it takes.
    pub(crate) fn message_size(&self) -> usize {
        // Six for a character that JSON escapes, eighty for the numbers.
        self.path.len() * 6 + self.stubs.len() * 80 + 64
    }
}

/// A place, open as `O_PATH`, and what had to be made for it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) fd: OwnedFd,
    pub(crate) stubs: Vec<Stubs>,
}

/// As many links as the kernel follows, and some more for links through links.
const MAX_LINKS: usize = 255;
/// Names looked up for one place, those in links included.
const MAX_STEPS: usize = 4096;

/// Opens the place `path` below `root`, making directories and at last a `kind` where nothing is. What is made belongs to `owner`.
///
/// Links of the image can make much of a short path; what they lead through is bounded as the path itself is.
pub(crate) fn find_or_make(
    root: impl AsFd,
    path: &str,
    kind: Kind,
    owner: Option<(u32, u32)>,
) -> io::Result<Place> {
    let root = root.as_fd();
    let names = gostd::path::names_below_root(path);
    let mut pending: Vec<String> = names.into_iter().rev().map(str::to_owned).collect();
    let mut open: Vec<(String, OwnedFd)> = Vec::new();
    let mut made_stubs: Vec<Stubs> = Vec::new();
    let (mut links, mut steps, mut made_count) = (0, 0, 0);
    while let Some(name) = pending.pop() {
        steps += 1;
        if steps > MAX_STEPS || open.len() >= MAX_PATH_PARTS {
            return Err(Errno::NAMETOOLONG.into());
        }
        if name == ".." {
            drop(open.pop());
            continue;
        }
        let dir = open.last().map_or(root, |(_, fd)| fd.as_fd());
        let flags = OpenFlags::PATH | OpenFlags::NOFOLLOW;
        let fd = match path::open_in_root(dir, name.as_str(), flags, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = !pending.is_empty() || kind == Kind::Directory;
                let names = open.iter().map(|(name, _)| name.as_str());
                let names: Vec<&str> = names.chain([name.as_str()]).collect();
                let path = names.join("/");
                made_count += 1;
                if made_count > MAX_PATH_PARTS || path.len() > MAX_PATH_BYTES {
                    return Err(Errno::NAMETOOLONG.into());
                }
                make(dir, &name, directory, owner)?;
                let fd = path::open_no_symlinks(dir, name.as_str(), flags, 0)?;
                let stat = rustix::fs::fstat(&fd)?;
                let stub = Stub {
                    end: path.len(),
                    device: stat.st_dev,
                    inode: stat.st_ino,
                    directory,
                };
                let parent = path.rsplit_once('/').map(|(parent, _)| parent);
                match made_stubs.last_mut() {
                    Some(parent_stubs) if Some(parent_stubs.path.as_str()) == parent => {
                        parent_stubs.path = path;
                        parent_stubs.stubs.push(stub);
                    }
                    _ => made_stubs.push(Stubs {
                        path,
                        stubs: vec![stub],
                    }),
                }
                fd
            }
            result => result?,
        };
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            open.push((name, fd));
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(&fd, c"", Vec::new())?;
        let target = target
            .to_str()
            // The dropped error says only where the bytes are no UTF-8.
            .map_err(|_| io::Error::from(Errno::ILSEQ))?;
        if target.starts_with('/') {
            open.clear();
        }
        pending.extend(
            target
                .split('/')
                .rev()
                .filter(|word| !word.is_empty() && *word != ".")
                .map(str::to_owned),
        );
    }
    let fd = match open.pop() {
        Some((_, fd)) => fd,
        None => root.try_clone_to_owned()?,
    };
    Ok(Place {
        fd,
        stubs: made_stubs,
    })
}

/// Makes one name. The directory's times stay what they were, so that a mount point made for a step does not show in its layer.
fn make(
    dir: BorrowedFd<'_>,
    name: &str,
    directory: bool,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let before = rustix::fs::fstat(dir)?;
    if directory {
        match file::mkdirat(dir, name, 0o755) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            result => result?,
        }
    } else {
        drop(path::open_no_symlinks(
            dir,
            name,
            OpenFlags::WRONLY | OpenFlags::CREATE | OpenFlags::EXCL,
            0o755,
        )?);
    }
    if let Some((uid, gid)) = owner {
        file::chownat_nofollow(dir, name, uid, gid)?;
    }
    drop(restore_times(dir, &before));
    Ok(())
}

fn nanos(seconds: i64, nanos: u64) -> Option<i64> {
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(i64::try_from(nanos).ok()?)
}

fn restore_times(dir: BorrowedFd<'_>, stat: &rustix::fs::Stat) -> io::Result<()> {
    file::utimens_fd(
        dir,
        nanos(stat.st_atime, stat.st_atime_nsec),
        nanos(stat.st_mtime, stat.st_mtime_nsec),
    )
}

/// The mount points that are removed again: the last of each destination, or with the parents made for it.
pub(crate) fn to_remove(stubs: Vec<Stubs>, dests: &[String], recursive: bool) -> Vec<Stubs> {
    if recursive {
        return stubs;
    }
    let dests: HashSet<&str> = dests
        .iter()
        .filter_map(|dest| dest.strip_prefix('/'))
        .chain(["etc/hosts", "etc/resolv.conf"])
        .collect();
    let paths = stubs
        .iter()
        .flat_map(|stubs| stubs.stubs.iter().map(|stub| stubs.path_of(stub)));
    let parents: HashSet<&str> = paths
        .filter_map(|path| Some(path.rsplit_once('/')?.0))
        .collect();
    // A destination reached through a link is known by nothing having been made below it.
    let is_removed = |path: &str| dests.contains(path) || !parents.contains(path);
    stubs
        .iter()
        .map(|stubs| Stubs {
            path: stubs.path.clone(),
            stubs: stubs
                .stubs
                .iter()
                .filter(|stub| is_removed(stubs.path_of(stub)))
                .cloned()
                .collect(),
        })
        .filter(|stubs| !stubs.stubs.is_empty())
        .collect()
}

/// Removes mount points that are still the ones that were made and have nothing in them. Never fails a step.
pub(crate) fn remove(root: impl AsFd, stubs: &[Stubs]) {
    for stubs in stubs.iter().rev() {
        for stub in stubs.stubs.iter().rev() {
            let path = stubs.path_of(stub);
            if let Err(error) = remove_one(root.as_fd(), path, stub) {
                tracing::debug!(path, %error, "mount point stays");
            }
        }
    }
}

fn remove_one(root: BorrowedFd<'_>, path: &str, stub: &Stub) -> io::Result<()> {
    let parent_dir;
    let (dir, name) = match path.rsplit_once('/') {
        None => (root, path),
        Some((parents, name)) => {
            let flags = OpenFlags::PATH | OpenFlags::DIRECTORY;
            parent_dir = path::open_no_symlinks(root, parents, flags, 0)?;
            (parent_dir.as_fd(), name)
        }
    };
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if stat.st_dev != stub.device || stat.st_ino != stub.inode {
        return Ok(());
    }
    let kind = FileType::from_raw_mode(stat.st_mode);
    let before = rustix::fs::fstat(dir)?;
    match (kind, stub.directory) {
        // A directory with something in it refuses to go.
        (FileType::Directory, true) => file::rmdirat(dir, name)?,
        (FileType::RegularFile, false) if stat.st_size == 0 => file::unlinkat(dir, name)?,
        _ => return Ok(()),
    }
    restore_times(dir, &before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn fixture() -> (tempfile::TempDir, tempfile::TempDir, OwnedFd) {
        let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = path::open_dir(inside.path()).unwrap();
        (outside, inside, root)
    }

    #[test]
    fn links_and_dots_lead_nowhere_but_inside_the_root() {
        let (outside, inside, root) = fixture();
        symlink(outside.path(), inside.path().join("out")).unwrap();
        symlink("../../../../..", inside.path().join("up")).unwrap();
        symlink("loop", inside.path().join("loop")).unwrap();
        find_or_make(&root, "/out/made", Kind::Directory, None).unwrap();
        find_or_make(&root, "/up/../over/made", Kind::File, None).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        let name = outside.path().strip_prefix("/").unwrap();
        assert!(
            inside.path().join(name).join("made").is_dir(),
            "the absolute link was taken from the root"
        );
        assert!(inside.path().join("over/made").is_file());
        assert_eq!(
            find_or_make(&root, "/loop", Kind::File, None)
                .unwrap_err()
                .raw_os_error(),
            Some(Errno::LOOP.raw_os_error())
        );
    }

    #[test]
    fn links_make_no_deep_tree_of_a_short_path() {
        let (_outside, inside, root) = fixture();
        let long = vec!["d"; 2000].join("/");
        let around = ["x/..", "y/.."].repeat(400).join("/");
        symlink(&long, inside.path().join("deep")).unwrap();
        symlink(&around, inside.path().join("around")).unwrap();
        symlink("wide/wide/wide", inside.path().join("wide")).unwrap();
        let name = "n".repeat(250);
        for depth in 0..15 {
            let target = match depth {
                14 => [name.as_str(); 3].join("/"),
                _ => format!("{name}/l{}", depth + 1),
            };
            let dir = inside.path().join(vec![name.as_str(); depth].join("/"));
            std::fs::create_dir_all(&dir).unwrap();
            symlink(&target, dir.join(format!("l{depth}"))).unwrap();
        }
        for path in ["/deep", "/around/around/around/around", "/wide", "/l0/end"] {
            let error = find_or_make(&root, path, Kind::Directory, None).unwrap_err();
            assert!(
                [
                    Errno::NAMETOOLONG.raw_os_error(),
                    Errno::LOOP.raw_os_error()
                ]
                .contains(&error.raw_os_error().unwrap()),
                "{path}: {error}"
            );
        }
        let mut deepest = 0;
        let mut todo = vec![(inside.path().to_owned(), 0)];
        while let Some((dir, depth)) = todo.pop() {
            deepest = deepest.max(depth);
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    todo.push((entry.path(), depth + 1));
                }
            }
        }
        assert!(deepest <= MAX_PATH_PARTS, "{deepest}");
    }

    #[test]
    fn a_mount_point_of_the_most_parts_goes_again_and_takes_one_message() {
        let (_outside, inside, root) = fixture();
        let dest = "/\u{1}bcdefghijklmn".repeat(MAX_PATH_PARTS);
        let stubs = find_or_make(&root, &dest, Kind::File, None).unwrap().stubs;
        assert_eq!(stubs.len(), 1);
        let text = serde_json::to_vec(&stubs).unwrap();
        assert!(text.len() < 64 << 10, "{}", text.len());
        assert!(text.len() <= stubs[0].message_size());
        assert_eq!(to_remove(stubs.clone(), &[dest], false)[0].stubs.len(), 1);
        remove(&root, &to_remove(stubs, &[], true));
        assert_eq!(std::fs::read_dir(inside.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_what_was_made_is_removed_and_only_when_untouched() {
        let (outside, inside, root) = fixture();
        std::fs::create_dir(inside.path().join("etc")).unwrap();
        std::fs::create_dir(inside.path().join("a")).unwrap();
        let modified = || {
            std::fs::metadata(inside.path().join("etc"))
                .unwrap()
                .modified()
                .unwrap()
        };
        let before = modified();
        let hosts = find_or_make(&root, "/etc/hosts", Kind::File, None)
            .unwrap()
            .stubs;
        let filled = find_or_make(&root, "/etc/filled", Kind::File, None)
            .unwrap()
            .stubs;
        std::fs::write(inside.path().join("etc/filled"), "x").unwrap();
        let swapped = find_or_make(&root, "/a/swapped", Kind::File, None)
            .unwrap()
            .stubs;
        assert_eq!(
            modified(),
            before + std::time::Duration::ZERO,
            "the directory's time is put back"
        );
        // A step replaces the parent of a mount point by a link to files of the host that have the same name.
        std::fs::write(outside.path().join("swapped"), "").unwrap();
        std::fs::remove_dir_all(inside.path().join("a")).unwrap();
        symlink(outside.path(), inside.path().join("a")).unwrap();
        for stubs in [&hosts, &filled, &swapped] {
            remove(&root, stubs);
        }
        assert!(!inside.path().join("etc/hosts").exists());
        assert!(inside.path().join("etc/filled").exists());
        assert!(outside.path().join("swapped").exists());
        // Another file under the name of the stub is not the stub.
        let again = find_or_make(&root, "/etc/hosts", Kind::File, None)
            .unwrap()
            .stubs;
        std::fs::rename(
            inside.path().join("etc/hosts"),
            inside.path().join("etc/moved"),
        )
        .unwrap();
        std::fs::write(inside.path().join("etc/hosts"), "").unwrap();
        remove(&root, &again);
        assert!(inside.path().join("etc/hosts").exists());
    }

    #[test]
    fn a_place_that_is_there_is_found_and_nothing_is_made() {
        let (_outside, inside, root) = fixture();
        std::fs::create_dir_all(inside.path().join("a/b")).unwrap();
        std::fs::write(inside.path().join("a/file"), "").unwrap();
        symlink("/a/./b/../b", inside.path().join("link")).unwrap();
        for path in [
            "/",
            "",
            "/a",
            "a/b/",
            "/link",
            "//a//file",
            "/../../a",
            "/a/b/../file",
        ] {
            let place = find_or_make(&root, path, Kind::Directory, None).unwrap();
            assert!(place.stubs.is_empty(), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_a_place_is_an_error_and_says_which() {
        use std::os::unix::ffi::OsStrExt;
        let (_outside, inside, root) = fixture();
        std::fs::write(inside.path().join("file"), "").unwrap();
        symlink(
            std::ffi::OsStr::from_bytes(b"\xff\xfe"),
            inside.path().join("bytes"),
        )
        .unwrap();
        for (path, errno) in [
            ("/file/below".to_owned(), Errno::NOTDIR),
            (format!("/{}", "n".repeat(300)), Errno::NAMETOOLONG),
            ("/bytes".to_owned(), Errno::ILSEQ),
        ] {
            let error = find_or_make(&root, &path, Kind::Directory, None).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{path}");
        }
    }

    #[test]
    fn of_what_was_made_the_mount_points_go_or_all_of_it() {
        let (_outside, inside, root) = fixture();
        let stubs_of = |path: &str| {
            find_or_make(&root, path, Kind::Directory, None)
                .unwrap()
                .stubs
        };
        let all_stubs: Vec<Stubs> = ["/a/b/c", "/a/d", "/e"]
            .into_iter()
            .flat_map(stubs_of)
            .collect();
        let dests = ["/a/b/c", "/a/d", "/e"].map(str::to_owned);
        let count = |stubs: &[Stubs]| stubs.iter().map(|stubs| stubs.stubs.len()).sum::<usize>();
        assert_eq!(
            (
                count(&all_stubs),
                count(&to_remove(all_stubs.clone(), &dests, true))
            ),
            (5, 5)
        );
        let mount_points = to_remove(all_stubs.clone(), &dests, false);
        assert_eq!(count(&mount_points), 3);
        remove(&root, &mount_points);
        assert!(inside.path().join("a/b").is_dir(), "parents stay");
        assert!(!inside.path().join("a/b/c").exists() && !inside.path().join("e").exists());
        remove(&root, &to_remove(all_stubs, &dests, true));
        assert_eq!(std::fs::read_dir(inside.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_made_belongs_to_the_owner_and_what_was_there_does_not() {
        use std::os::unix::fs::MetadataExt;
        testkit::requires!(root);
        let (_outside, inside, root) = fixture();
        std::fs::create_dir(inside.path().join("there")).unwrap();
        find_or_make(&root, "/there/made/file", Kind::File, Some((7, 8))).unwrap();
        let owner = |name: &str| {
            let meta = std::fs::metadata(inside.path().join(name)).unwrap();
            (meta.uid(), meta.gid())
        };
        assert_eq!(owner("there"), (0, 0));
        assert_eq!(
            (owner("there/made"), owner("there/made/file")),
            ((7, 8), (7, 8))
        );
    }
}
