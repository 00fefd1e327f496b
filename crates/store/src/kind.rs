//! Types and kinds of records.

/// The type of a record's content, as `du` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum RecordType {
    /// A build step's result.
    #[default]
    Regular,
    /// Data of the daemon itself.
    Internal,
    /// A layer of a frontend's image.
    Frontend,
    /// Files received from a client.
    LocalSource,
    /// A checkout of a git repository.
    GitCheckout,
    /// A cache mount.
    CacheMount,
    /// A type that this version does not know.
    Other(String),
}

impl RecordType {
    /// The type's name in messages and filters.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Regular => "regular",
            Self::Internal => "internal",
            Self::Frontend => "frontend",
            Self::LocalSource => "source.local",
            Self::GitCheckout => "source.git.checkout",
            Self::CacheMount => "exec.cachemount",
            Self::Other(word) => word,
        }
    }

    /// Parses a name; an empty one is a regular record.
    pub fn parse(word: &str) -> Self {
        match word {
            "" | "regular" => Self::Regular,
            "internal" => Self::Internal,
            "frontend" => Self::Frontend,
            "source.local" => Self::LocalSource,
            "source.git.checkout" => Self::GitCheckout,
            "exec.cachemount" => Self::CacheMount,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// What a record is composed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefKind {
    /// A layer on a parent, or on nothing.
    Layer,
    /// Several records, stacked.
    Merge,
    /// What one record changes over another.
    Diff,
}
