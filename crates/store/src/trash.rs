//! The trash: directories that are being deleted.
//!
//! Directories that are not needed any more are moved here, which is fast, and deleted later. How deep and wide it is was decided by
//! the steps that made it, so it is removed without recursion and with a fixed number of descriptors; see [`fstree::remove`].
//!
//! The name of an entry tells how often its removal has been begun: `<name>~<number>`, written before anything is removed. An
//! entry that cannot be removed, or ends the process, is given up after [`MAX_ATTEMPTS`] times. It stays where it is, is counted
//! as used space, and told by the log and by `fsck`: one bad entry must never keep a daemon from starting.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use fstree::remove::remove_tree;
use parking_lot::Mutex;

use crate::id::RefId;

/// Attempts to remove an entry before it is given up.
pub(crate) const MAX_ATTEMPTS: u32 = 5;
/// Names that are read from the trash at a time.
const NAMES_PER_BATCH: usize = 1000;

/// The directory that holds what is to be deleted.
#[derive(Debug)]
pub(crate) struct Trash {
    path: PathBuf,
    dir: OwnedFd,
    /// Held by the one thread that empties the trash.
    emptying: Mutex<()>,
}

impl AsFd for Trash {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Splits an entry's name into its base and the number of attempts to remove it.
fn attempts(name: &str) -> (&str, u32) {
    let counted = name
        .rsplit_once('~')
        .and_then(|(base, number)| Some((base, number.parse().ok()?)));
    counted.unwrap_or((name, 0))
}

fn fresh() -> OsString {
    RefId::random().to_string().into()
}

/// The names of the entries that were given up.
pub(crate) fn given_up(trash: &Path) -> io::Result<Vec<String>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(trash)? {
        if let Ok(name) = entry?.file_name().into_string()
            && attempts(&name).1 >= MAX_ATTEMPTS
        {
            out.push(name);
        }
    }
    Ok(out)
}

impl Trash {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let dir = sys::path::open_dir(path.as_path())?;
        Ok(Self {
            path,
            dir,
            emptying: Mutex::new(()),
        })
    }

    /// Moves `name` out of `dir` into the trash. A name that does not exist is fine.
    pub(crate) fn take(&self, dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
        let to = fresh();
        match rustix::fs::renameat(dir, name.as_ref(), &self.dir, to.as_os_str()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Deletes what is in the trash, until `stop` says that it is enough. Slow; not for the reactor.
    pub(crate) fn empty(&self, stop: &dyn Fn() -> bool) -> io::Result<()> {
        let _lock = self.emptying.lock();
        let mut failed = HashSet::new();
        loop {
            let names = self.names(&failed)?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                if stop() {
                    return Ok(());
                }
                failed.extend(self.remove(&name, stop)?);
            }
        }
    }

    /// Some names that are worth an attempt.
    fn names(&self, failed: &HashSet<OsString>) -> io::Result<Vec<OsString>> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let worth = name
                .to_str()
                .is_none_or(|name| attempts(name).1 < MAX_ATTEMPTS);
            if worth && !failed.contains(&name) {
                out.push(name);
            }
            if out.len() == NAMES_PER_BATCH {
                break;
            }
        }
        Ok(out)
    }

    /// Removes one entry; returns its name if it could not be removed.
    fn remove(&self, name: &OsStr, stop: &dyn Fn() -> bool) -> io::Result<Option<OsString>> {
        let text = name.to_string_lossy();
        let (base, begun) = attempts(&text);
        let counted = OsString::from(format!("{base}~{}", begun + 1));
        if let Err(error) = rustix::fs::renameat(&self.dir, name, &self.dir, counted.as_os_str()) {
            tracing::warn!(path = %self.path.join(name).display(), %error, "cannot delete from the trash");
            return Ok(Some(name.to_owned()));
        }
        let error = match remove_tree(&self.dir, &counted, &mut fresh, stop) {
            Ok(()) => return Ok(None),
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::Interrupted {
            // Stopped on request, which does not count as an attempt.
            rustix::fs::renameat(&self.dir, counted.as_os_str(), &self.dir, name)?;
            return Ok(None);
        }
        let path = self.path.join(&counted);
        if begun + 1 < MAX_ATTEMPTS {
            tracing::warn!(path = %path.display(), %error, "cannot delete from the trash; will try again");
        } else {
            tracing::error!(path = %path.display(), %error, "given up in the trash: delete it by hand");
        }
        Ok(Some(counted))
    }

    /// Logs the entries that were given up.
    pub(crate) fn log_given_up(&self) {
        for name in given_up(&self.path).unwrap_or_default() {
            let path = self.path.join(name);
            tracing::error!(path = %path.display(), "given up in the trash: delete it by hand");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut out: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        out.sort();
        out
    }

    #[test]
    fn the_trash_is_emptied_on_a_small_stack_whatever_is_in_it() {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let mut at = fstree::Root::open(dir.path()).unwrap().dir("/").unwrap();
        for _ in 0..8_000 {
            at = at.create_dir(OsStr::new("d"), 0o700).unwrap();
        }
        drop(at);
        std::fs::create_dir_all(dir.path().join("interrupted~4/sub")).unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let trash = Trash::open(dir.path().to_owned()).unwrap();
        let emptied = std::thread::Builder::new()
            .stack_size(96 << 10)
            .spawn(move || trash.empty(&|| false))
            .unwrap();
        emptied.join().unwrap().unwrap();
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn an_entry_that_ended_the_process_too_often_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("bad~5/sub")).unwrap();
        std::fs::create_dir_all(dir.path().join("good/sub")).unwrap();
        let trash = Trash::open(dir.path().to_owned()).unwrap();
        trash.empty(&|| false).unwrap();
        assert_eq!(names(dir.path()), ["bad~5"]);
        assert_eq!(given_up(dir.path()).unwrap(), ["bad~5"]);
    }

    #[test]
    fn an_entry_that_cannot_be_removed_is_tried_a_few_times_and_the_rest_of_it_goes() {
        use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("x/a")).unwrap();
        std::fs::write(dir.path().join("x/a/held"), "").unwrap();
        std::fs::write(dir.path().join("x/other"), "").unwrap();
        let immutable = std::fs::File::open(dir.path().join("x/a/held")).unwrap();
        let flags = ioctl_getflags(&immutable).unwrap_or(IFlags::empty());
        if ioctl_setflags(&immutable, flags | IFlags::IMMUTABLE).is_err() {
            testkit::skip::skip("files cannot be made immutable here");
            return;
        }
        let trash = Trash::open(dir.path().to_owned()).unwrap();
        for attempt in 1..=MAX_ATTEMPTS + 2 {
            trash.empty(&|| false).unwrap();
            let left = format!("x~{}", attempt.min(MAX_ATTEMPTS));
            assert_eq!(names(dir.path()), [left.as_str()]);
            assert_eq!(names(&dir.path().join(&left)), ["a"]);
        }
        ioctl_setflags(&immutable, flags).unwrap();
    }

    #[test]
    fn emptying_ends_when_it_is_told_to_and_that_is_no_failed_attempt() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("x/a/b")).unwrap();
        let trash = Trash::open(dir.path().to_owned()).unwrap();
        let calls = std::cell::Cell::new(0);
        let stop = || {
            calls.set(calls.get() + 1);
            calls.get() > 1
        };
        trash.empty(&stop).unwrap();
        assert_eq!(names(dir.path()), ["x"]);
        trash.empty(&|| false).unwrap();
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }
}
