//! Checks of a list of files from the other side: order, names, parents and links.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use fstree::Stat;

/// Size limit of a path in bytes.
pub const MAX_PATH_BYTES: usize = 4096;

/// Why a list of files is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// Not in its shortest form.
    #[error("unclean path {}: invalid argument", path.display())]
    Unclean {
        /// The path as listed.
        path: PathBuf,
    },
    /// The path is absolute.
    #[error("absolute path {}: invalid argument", path.display())]
    Absolute {
        /// The path as listed.
        path: PathBuf,
    },
    /// The path leads out of the tree.
    #[error("escape check {}: invalid argument", path.display())]
    Escape {
        /// The path as listed.
        path: PathBuf,
    },
    /// The path does not follow the one before, or its folder was not listed.
    #[error("changes out of order: {path:?} {before:?}")]
    OutOfOrder {
        /// The path as listed.
        path: PathBuf,
        /// The path before it in its folder.
        before: PathBuf,
    },
    /// A later name of a file whose first name was not listed.
    #[error("invalid link {} to unknown path: {target:?}", path.display())]
    UnknownLink {
        /// Path of the link.
        path: PathBuf,
        /// Path that it links to.
        target: PathBuf,
    },
    /// The path is longer than paths can be.
    #[error("path of {length} bytes: file name too long")]
    TooLong {
        /// Length of the path in bytes.
        length: usize,
    },
    /// The path is nested deeper than trees may be.
    #[error("path of {names} names: nested too deep")]
    TooDeep {
        /// Number of components of the path.
        names: usize,
    },
    /// A path or a link target contains a zero byte.
    #[error("path with a zero byte: invalid argument")]
    ZeroByte,
}

/// The order of a listing: byte order of paths with `/` as the lowest byte.
#[must_use]
pub fn compare_paths(left: &Path, right: &Path) -> Ordering {
    let (left, right) = (left.as_os_str().as_bytes(), right.as_os_str().as_bytes());
    let rank = |b: &u8| if *b == b'/' { 0_u16 } else { u16::from(*b) + 1 };
    left.iter().map(rank).cmp(right.iter().map(rank))
}

/// Checks the files of one list, in their order.
#[derive(Debug, Default)]
pub struct OrderCheck {
    // The open directories from the root down, each with the last name listed in it.
    open: Vec<(PathBuf, OsString)>,
    // Names that a later name of the same file may point at. Of each a number that nobody can predict: two that are
    // equal let a link through that then cannot be made.
    files: HashSet<u64>,
    hasher: RandomState,
}

impl OrderCheck {
    /// A check before the first file.
    #[must_use]
    pub fn new() -> Self {
        Self {
            open: vec![(PathBuf::new(), OsString::new())],
            files: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// Checks the next file.
    pub fn next(&mut self, stat: &Stat) -> Result<(), OrderError> {
        let path = stat.path.as_path();
        check_name(path)?;
        let link = stat.linkname.as_os_str();
        if link.as_bytes().contains(&0) {
            return Err(OrderError::ZeroByte);
        }
        if link.len() > MAX_PATH_BYTES {
            return Err(OrderError::TooLong { length: link.len() });
        }
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        let name = path.file_name().unwrap_or_default();
        while self.open.len() > 1
            && self
                .open
                .last()
                .is_some_and(|(dir, _)| dir != parent && !parent.starts_with(dir))
        {
            self.open.pop();
        }
        let Some((dir, last)) = self.open.last_mut() else {
            return Err(OrderError::Escape { path: path.into() });
        };
        if dir != parent || last.as_bytes() >= name.as_bytes() {
            return Err(OrderError::OutOfOrder {
                path: path.into(),
                before: dir.join(last),
            });
        }
        name.clone_into(last);
        if stat.is_dir() {
            self.open.push((path.to_owned(), OsString::new()));
        } else if stat.is_hard_link() {
            check_name(&stat.linkname)?;
            if !self.files.contains(&self.hasher.hash_one(&stat.linkname)) {
                return Err(OrderError::UnknownLink {
                    path: path.into(),
                    target: stat.linkname.clone(),
                });
            }
        } else if !stat.is_symlink() {
            self.files.insert(self.hasher.hash_one(path));
        }
        Ok(())
    }
}

fn check_name(path: &Path) -> Result<(), OrderError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MAX_PATH_BYTES {
        return Err(OrderError::TooLong {
            length: bytes.len(),
        });
    }
    if bytes.contains(&0) {
        return Err(OrderError::ZeroByte);
    }
    let names = bytes.iter().filter(|b| **b == b'/').count() + 1;
    if names > fstree::MAX_DEPTH {
        return Err(OrderError::TooDeep { names });
    }
    if bytes.starts_with(b"/") {
        return Err(OrderError::Absolute { path: path.into() });
    }
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => return Err(OrderError::Escape { path: path.into() }),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {
                return Err(OrderError::Unclean { path: path.into() });
            }
        }
    }
    if clean.as_os_str() != OsStr::from_bytes(bytes) || bytes.is_empty() {
        return Err(OrderError::Unclean { path: path.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Stat {
        Stat {
            path: path.into(),
            mode: 0o644,
            ..Stat::default()
        }
    }

    fn dir(path: &str) -> Stat {
        Stat {
            path: path.into(),
            mode: fstree::stat::MODE_DIR | 0o755,
            ..Stat::default()
        }
    }

    fn link(path: &str, target: &str) -> Stat {
        Stat {
            linkname: target.into(),
            ..file(path)
        }
    }

    fn check(stats: &[Stat]) -> Result<(), OrderError> {
        let mut order = OrderCheck::new();
        stats.iter().try_for_each(|s| order.next(s))
    }

    #[test]
    fn a_depth_first_listing_is_taken() {
        let stats = [
            dir("a"),
            file("a/x"),
            dir("a/y"),
            file("a/y/z"),
            file("a-b"),
            dir("b"),
            file("b/c"),
            link("b/d", "a/x"),
        ];
        assert_eq!(check(&stats), Ok(()));
    }

    #[test]
    fn hostile_names_are_refused() {
        for path in [
            "../x",
            "a/../../x",
            "/etc/passwd",
            "",
            ".",
            "a//b",
            "a/",
            "./a",
            "a/./b",
            "a\0b",
            "..",
            "a/..",
        ] {
            assert!(
                check(&[dir("a"), file(path)]).is_err() && check(&[file(path)]).is_err(),
                "{path:?}"
            );
        }
        assert!(check(&[file(&"x".repeat(MAX_PATH_BYTES + 1))]).is_err());
        let deep = |names: usize| dir("d/".repeat(names).trim_end_matches('/'));
        let nested: Vec<Stat> = (1..=fstree::MAX_DEPTH).map(deep).collect();
        assert_eq!(check(&nested), Ok(()));
        let names = fstree::MAX_DEPTH + 1;
        let deeper: Vec<Stat> = (1..=names).map(deep).collect();
        assert_eq!(check(&deeper), Err(OrderError::TooDeep { names }));
    }

    #[test]
    fn lists_out_of_order_or_without_parents_are_refused() {
        for stats in [
            vec![file("b"), file("a")],
            vec![file("a"), file("a")],
            vec![file("a/b")],
            vec![file("a"), file("a/b")],
            vec![dir("a"), file("b"), file("a/c")],
            vec![dir("a"), dir("a/b"), file("a/c"), file("a/b/d")],
            vec![link("l", "missing")],
            vec![dir("d"), link("l", "d")],
            vec![file("a"), link("l", "../a")],
        ] {
            assert!(check(&stats).is_err(), "{stats:?}");
        }
    }

    #[test]
    fn a_slash_sorts_before_everything() {
        let mut paths = ["a-b", "a/b", "a", "a.c", "a/b/c", "b"].map(PathBuf::from);
        paths.sort_by(|l, r| compare_paths(l, r));
        assert_eq!(
            paths,
            ["a", "a/b", "a/b/c", "a-b", "a.c", "b"].map(PathBuf::from)
        );
    }

    #[test]
    fn a_refusal_names_what_was_wrong() {
        for (stats, words) in [
            (vec![file("a//b")], "unclean path a//b: invalid argument"),
            (vec![file("/a")], "absolute path /a: invalid argument"),
            (vec![file("../a")], "escape check ../a: invalid argument"),
            (
                vec![file("b"), file("a")],
                "changes out of order: \"a\" \"b\"",
            ),
            (
                vec![dir("d"), file("d/b"), file("d/a")],
                "changes out of order: \"d/a\" \"d/b\"",
            ),
            (
                vec![link("l", "gone")],
                "invalid link l to unknown path: \"gone\"",
            ),
            (
                vec![file("a\0b")],
                "path with a zero byte: invalid argument",
            ),
            (
                vec![link("l", "a\0b")],
                "path with a zero byte: invalid argument",
            ),
            (
                vec![file(&"x".repeat(5000))],
                "path of 5000 bytes: file name too long",
            ),
            (
                vec![link("l", &"x".repeat(5000))],
                "path of 5000 bytes: file name too long",
            ),
        ] {
            let error = check(&stats).unwrap_err();
            assert_eq!(error.to_string(), words);
            assert_eq!(
                crate::diffcopy::receiver::ProtocolError::from(error).kind(),
                oci::ErrorKind::Hostile
            );
        }
    }
}
