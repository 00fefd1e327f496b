//! Options of removals and copies. The defaults are those of BuildKit's file operation.

/// How the path of a source is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wildcards {
    /// As the name of one file.
    #[default]
    Literal,
    /// As a pattern: every file that it matches.
    Match,
}

/// Whether a path that does not exist, or a pattern without matches, is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// The action fails.
    #[default]
    Refuse,
    /// There is nothing to do.
    Allow,
}

/// Whether a link in the last name of a source is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceLink {
    /// The link itself is copied.
    #[default]
    Copy,
    /// The target of the link is copied.
    Follow,
}

/// The part of a directory that is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirCopy {
    /// The directory, below the destination if that is a directory.
    #[default]
    Itself,
    /// The entries of the directory, into the destination.
    Contents,
}

/// Whether an archive is unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Archives {
    /// The archive is copied like any other file.
    #[default]
    Copy,
    /// It is unpacked, where an [`Unpacker`](super::Unpacker) is given.
    Unpack,
}

/// Whether missing directories towards the destination are created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DestParents {
    /// The action fails.
    #[default]
    Require,
    /// The directories are made.
    Create,
}

/// Whether an existing file in the place of a copy is removed first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It is overwritten by a file; directories are merged; any other combination fails.
    #[default]
    Merge,
    /// It is removed first, unless both are directories.
    Replace,
}
