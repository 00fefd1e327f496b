//! What sorts of records there are.

/// What sort of thing a record holds, in the words of `du`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum RecordType {
    /// A build step's result.
    #[default]
    Regular,
    /// Something of the builder's own.
    Internal,
    /// A frontend image's.
    Frontend,
    /// Files received from a client.
    LocalSource,
    /// A repository's checkout.
    GitCheckout,
    /// A cache mount.
    CacheMount,
    /// A word we do not know.
    Other(String),
}

impl RecordType {
    /// The word on the wire and in filters.
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

    /// Reads the word; an empty one is a regular record.
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

/// How a record is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefKind {
    /// A layer on a parent, or on nothing.
    Layer,
    /// Several records one over the other.
    Merge,
    /// What one record changes over another.
    Diff,
}
