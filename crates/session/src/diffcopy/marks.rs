//! Marks that distinguish a changed file from one that only looks the same.
//!
//! Names, sizes, modes and times of two files can be equal while their contents are not: files of two folders that were
//! made alike, a file that was changed in place and got its time back. The time of the last change of an inode and its
//! number cannot be set back, so our client sends a digest of both when the daemon asks for it, under a name that no file
//! system knows ([`CHANGE_MARK`]); here are those that a folder was received with. The attribute never gets further than
//! this: it is in no digest and in no file.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use fstree::Stat;
use fstree::stat::CHANGE_MARK;
use parking_lot::Mutex;

/// The change that a mark reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The sender reports no changes.
    Unknown,
    /// Nothing has changed since the file was received.
    Unchanged,
    /// The file changed, or was not received before.
    Changed,
}

/// The marks of a folder's files: those of the last transfer and those of this one.
#[derive(Debug, Default)]
pub struct Marks {
    before: HashMap<u64, u64>,
    now: Mutex<HashMap<u64, u64>>,
}

fn number(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Marks {
    /// Decodes the bytes of [`Marks::encode`]; other bytes give no marks.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let number = |part: &[u8]| part.try_into().map(u64::from_le_bytes).unwrap_or_default();
        let before = bytes
            .chunks_exact(16)
            .map(|pair| {
                let (path, mark) = pair.split_at(8);
                (number(path), number(mark))
            })
            .collect();
        Self {
            before,
            now: Mutex::default(),
        }
    }

    /// Encodes the marks of this transfer; none if they equal those of the last one.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let now = self.now.lock();
        if *now == self.before {
            return None;
        }
        let mut pairs: Vec<_> = now.iter().collect();
        pairs.sort_unstable();
        let bytes = |(path, mark): (&u64, &u64)| [path.to_le_bytes(), mark.to_le_bytes()].concat();
        Some(pairs.into_iter().flat_map(bytes).collect())
    }

    /// Makes the marks of this transfer those of the last one.
    #[must_use]
    pub fn next(&self) -> Self {
        Self {
            before: std::mem::take(&mut *self.now.lock()),
            now: Mutex::default(),
        }
    }

    fn change(&self, path: &Path, mark: &[u8]) -> Change {
        use std::os::unix::ffi::OsStrExt as _;
        let (path, mark) = (number(path.as_os_str().as_bytes()), number(mark));
        self.now.lock().insert(path, mark);
        if self.before.get(&path) == Some(&mark) {
            Change::Unchanged
        } else {
            Change::Changed
        }
    }
}

/// Removes the mark from a listed file and returns the change that it reports.
pub(super) fn take(stat: &mut Stat, marks: Option<&Marks>) -> Change {
    match (stat.xattrs.remove(CHANGE_MARK), marks) {
        (Some(mark), Some(marks)) if stat.is_file() => marks.change(&stat.path, &mark),
        _ => Change::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, mark: Option<&[u8]>) -> Stat {
        Stat {
            path: path.into(),
            mode: 0o644,
            xattrs: mark
                .map(|m| (CHANGE_MARK.to_owned(), m.to_vec()))
                .into_iter()
                .collect(),
            ..Stat::default()
        }
    }

    #[test]
    fn marks_outlive_the_transfer_and_leave_no_attribute() {
        let first = Marks::default();
        for (path, mark) in [("a", b"1"), ("b", b"2")] {
            let mut stat = file(path, Some(mark));
            assert_eq!(take(&mut stat, Some(&first)), Change::Changed);
            assert!(stat.xattrs.is_empty());
        }
        let decoded = Marks::decode(&first.encode().unwrap());
        let same = first.next();
        for marks in [&decoded, &same] {
            for (path, mark, change) in [
                ("a", Some(&b"1"[..]), Change::Unchanged),
                ("b", Some(b"x"), Change::Changed),
                ("c", Some(b"1"), Change::Changed),
                ("a", None, Change::Unknown),
            ] {
                assert_eq!(take(&mut file(path, mark), Some(marks)), change, "{path}");
            }
        }
        let again = decoded.next();
        for (path, mark) in [("a", &b"1"[..]), ("b", b"x"), ("c", b"1")] {
            let mut stat = file(path, Some(mark));
            assert_eq!(take(&mut stat, Some(&again)), Change::Unchanged);
        }
        assert_eq!(again.encode(), None, "nothing new to keep");
        assert_eq!(take(&mut file("a", Some(b"1")), None), Change::Unknown);
        assert!(Marks::decode(b"no such thing").before.is_empty());
    }
}
