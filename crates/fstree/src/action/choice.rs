//! What a removal or a copy may choose between. The defaults are what BuildKit's file operation does unasked.

/// How the path of a source is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wildcards {
    /// As the name of one file.
    #[default]
    Literal,
    /// As a pattern: every file that it matches.
    Match,
}

/// What it means that nothing is at a path, or that nothing matches a pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// The action fails.
    #[default]
    Refuse,
    /// There is nothing to do.
    Allow,
}

/// What becomes of a link in the last name of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceLink {
    /// The link itself is copied.
    #[default]
    Copy,
    /// What the link leads to is copied.
    Follow,
}

/// What is copied of a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirCopy {
    /// The directory, below the destination if that is a directory.
    #[default]
    Itself,
    /// Its entries, into the destination.
    Contents,
}

/// What becomes of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Archives {
    /// It is copied as any other file.
    #[default]
    Copy,
    /// It is unpacked, where an [`Unpacker`](super::Unpacker) is given.
    Unpack,
}

/// What it means that directories towards the destination are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DestParents {
    /// The action fails.
    #[default]
    Require,
    /// They are made.
    Create,
}

/// What becomes of a file that stands where a copy goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It is overwritten by a file; directories are merged; any other combination fails.
    #[default]
    Merge,
    /// It is removed first, unless both are directories.
    Replace,
}
