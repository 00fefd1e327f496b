//! Decides whether a listed file is the same as the existing one.

use fstree::Stat;

use crate::diffcopy::marks::Change;

/// The properties by which two files count as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compare {
    /// Kind, mode, owner, device, link, and for all but folders size and modification time; a sender that reports
    /// changes must not report one.
    #[default]
    Metadata,
    /// The same, but contents count as equal only if the sender reports that nothing changed.
    Contents,
    /// None: the contents of every file are requested.
    Nothing,
}

impl Compare {
    /// Whether the existing file can stay for the listed one.
    #[must_use]
    pub fn is_same(self, existing: &Stat, listed: &Stat, change: Change) -> bool {
        let contents = match self {
            Self::Nothing => return false,
            Self::Metadata => change != Change::Changed,
            Self::Contents => !listed.is_file() || change == Change::Unchanged,
        };
        (listed.is_dir()
            || (contents && existing.size == listed.size && existing.mod_time == listed.mod_time))
            && existing.mode == listed.mode
            && existing.uid == listed.uid
            && existing.gid == listed.gid
            && existing.devmajor == listed.devmajor
            && existing.devminor == listed.devminor
            && existing.linkname == listed.linkname
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_alike_is_told_by_its_mark_or_by_its_contents() {
        let file = Stat {
            path: "a".into(),
            mode: 0o644,
            size: 3,
            mod_time: 7,
            ..Stat::default()
        };
        let folder = Stat {
            mode: fstree::stat::MODE_DIR | 0o755,
            ..file.clone()
        };
        let older = Stat {
            mod_time: 6,
            ..file.clone()
        };
        use Change::{Changed, Unchanged, Unknown};
        for (compare, listed, change, same) in [
            (Compare::Metadata, &file, Unknown, true),
            (Compare::Metadata, &file, Unchanged, true),
            (Compare::Metadata, &file, Changed, false),
            (Compare::Metadata, &older, Unchanged, false),
            (Compare::Contents, &file, Unknown, false),
            (Compare::Contents, &file, Unchanged, true),
            (Compare::Contents, &file, Changed, false),
            (Compare::Nothing, &file, Unchanged, false),
        ] {
            assert_eq!(
                compare.is_same(&file, listed, change),
                same,
                "{compare:?} {change:?}"
            );
        }
        assert!(Compare::Contents.is_same(&folder, &folder, Unknown));
        assert!(Compare::Metadata.is_same(&folder, &folder, Changed));
    }
}
