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

use std::collections::BTreeMap;
use std::time::SystemTime;

use oci::{Descriptor, Digest};

use crate::kind::RecordType;

pub use immutable::{HashOptions, ImmutableRef};
pub(crate) use lazy::measure;
pub(crate) use merge::PATCH_KEY;
pub use mutable::MutableRef;
pub(crate) use open::{BUILT, ORIGIN_KEY, SHARED, delete_rows, put_layer_blob};

/// The properties of a new record.
#[derive(Debug, Clone, Default)]
pub struct RefOptions {
    /// What makes it, as `du` and the image's history show it.
    pub description: String,
    /// The type of its content.
    pub record_type: RecordType,
    /// Whether the mutable survives its handle, to be opened again with [`crate::Store::get_mutable`].
    pub retain: bool,
    /// Its creation time; now if `None`.
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

/// A layer that a provider has.
#[derive(Debug, Clone)]
pub struct LayerDesc {
    /// The descriptor of its blob.
    pub descriptor: Descriptor,
    /// The digest of its uncompressed bytes.
    pub diff_id: Digest,
    /// What it came from, as `pulled from …`.
    pub description: String,
    /// The creation time in the image's config.
    pub created: Option<SystemTime>,
    /// The type of the record.
    pub record_type: RecordType,
    /// Annotations that are stored with the blob.
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
