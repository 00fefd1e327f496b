//! Whether a listed file is the one that is there already.

use fstree::Stat;

/// What makes two files the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compare {
    /// Kind, mode, owner, device, link, and for all but folders size and modification time.
    #[default]
    Metadata,
    /// Nothing: every file is asked for.
    Nothing,
}

impl Compare {
    /// Whether the file that is there will do for the one that is listed.
    #[must_use]
    pub fn is_same(self, there: &Stat, listed: &Stat) -> bool {
        match self {
            Self::Nothing => false,
            Self::Metadata => {
                let contents = listed.is_dir()
                    || (there.size == listed.size && there.mod_time == listed.mod_time);
                contents
                    && there.mode == listed.mode
                    && there.uid == listed.uid
                    && there.gid == listed.gid
                    && there.devmajor == listed.devmajor
                    && there.devminor == listed.devminor
                    && there.linkname == listed.linkname
            }
        }
    }
}
