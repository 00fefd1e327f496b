//! Records and the handles that hold them.
//!
//! | shape | stands on | its own files |
//! |---|---|---|
//! | layer | at most one parent | a snapshot: an overlay upper |
//! | merge | any number of parents | none: the layers of the parents, stacked |
//! | diff  | lower and upper, either may be missing | none if it is exactly one layer of the upper; else a snapshot made on demand |
//!
//! A mutable record that is kept (a cache mount, a local source) survives its handle and can be opened again, by one at a time.
//! [`MutableRef::commit_shared`] makes an immutable *twin* that shows the same files without ending the mutable. The twin goes
//! when the mutable is opened again, and the mutable goes when something is built on the twin.

mod immutable;
pub(crate) mod lazy;
mod merge;
mod mutable;
mod open;
pub(crate) mod record;

use std::collections::BTreeMap;
use std::time::SystemTime;

use oci::{Descriptor, Digest};

pub use immutable::ImmutableRef;
pub(crate) use merge::PATCH_KEY;
pub use mutable::MutableRef;
pub(crate) use open::{delete_rows, put_layer_blob};

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

/// What a new record is to be.
#[derive(Debug, Clone, Default)]
pub struct RefOptions {
    /// What makes it.
    pub description: String,
    /// What sort it is.
    pub record_type: RecordType,
    /// A mutable that survives its handle, to be opened again with [`crate::Store::get_mutable`].
    pub retain: bool,
    /// When it counts as made, if not now.
    pub created: Option<SystemTime>,
}

impl RefOptions {
    /// A regular record made now, with a description.
    pub fn described(description: impl Into<String>) -> Self {
        Self {
            description: description.into(),
            ..Self::default()
        }
    }
}

/// A layer that exists elsewhere.
#[derive(Debug, Clone)]
pub struct LayerDesc {
    /// Its blob.
    pub descriptor: Descriptor,
    /// The digest of its uncompressed bytes.
    pub diff_id: Digest,
    /// What brought it.
    pub description: String,
    /// When the image says it was made.
    pub created: Option<SystemTime>,
    /// What sort of record to make of it.
    pub record_type: RecordType,
    /// Annotations to keep with the blob.
    pub annotations: BTreeMap<String, String>,
}

impl LayerDesc {
    /// A regular layer without further facts.
    pub fn new(descriptor: Descriptor, diff_id: Digest, description: impl Into<String>) -> Self {
        Self {
            descriptor,
            diff_id,
            description: description.into(),
            created: None,
            record_type: RecordType::Regular,
            annotations: BTreeMap::new(),
        }
    }
}
