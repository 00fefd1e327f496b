//! What clients say of compression, in the attributes that exporters of images and of caches share.
//!
//! Source of the facts: `util/compression/attrs.go` (v0.34.2).

use std::collections::BTreeMap;

use gostd::strconv;
use oci::ErrorKind;

use super::{Compression, CompressionKind};

const KIND: &str = "compression";
const FORCE: &str = "force-compression";
const LEVEL: &str = "compression-level";

/// The compression that attributes of an exporter name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompressionAttributes {
    /// The compression.
    pub compression: Compression,
    /// Whether the kind was named: layers that were made here get it then, whatever they have.
    pub is_named: bool,
}

/// An attribute has a value that it cannot have. The sentences are BuildKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttributeError {
    /// There is no such compression.
    #[error("unsupported compression type {0}")]
    Kind(String),
    /// A flag is not a boolean.
    #[error("non-bool value {value} specified for {FORCE}: {source}")]
    Force {
        /// The value as given.
        value: String,
        /// The error of the parser.
        source: strconv::ParseBoolError,
    },
    /// The level is not a number, or too large.
    #[error("non-integer value {value} specified for {LEVEL}: {source}")]
    Level {
        /// The value as given.
        value: String,
        /// The error of the parser.
        source: strconv::ParseIntError,
    },
}

impl AttributeError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Kind(_) | Self::Force { .. } | Self::Level { .. } => ErrorKind::Invalid,
        }
    }
}

impl CompressionAttributes {
    /// Whether an attribute is one of these.
    #[must_use]
    pub fn is_one(key: &str) -> bool {
        matches!(key, KIND | FORCE | LEVEL)
    }

    /// Reads them; all others are left alone. An empty `force-compression` means yes.
    pub fn read(attrs: &BTreeMap<String, String>) -> Result<Self, AttributeError> {
        let mut out = Self::default();
        if let Some(name) = attrs.get(KIND) {
            out.is_named = true;
            out.compression.kind = CompressionKind::from_name(name)
                .ok_or_else(|| AttributeError::Kind(name.clone()))?;
        }
        if let Some(value) = attrs.get(FORCE) {
            out.compression.force = value.is_empty()
                || strconv::parse_bool(value).map_err(|source| AttributeError::Force {
                    value: value.clone(),
                    source,
                })?;
        }
        if let Some(value) = attrs.get(LEVEL) {
            let level = strconv::parse_int(value).map_err(|source| AttributeError::Level {
                value: value.clone(),
                source,
            })?;
            out.compression.level = Some(level);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<CompressionAttributes, String> {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        CompressionAttributes::read(&owned.collect()).map_err(|e| e.to_string())
    }

    fn of(kind: CompressionKind, level: Option<i32>, force: bool) -> Compression {
        Compression { kind, level, force }
    }

    #[test]
    fn what_is_not_said_is_gzip_with_its_own_level_and_nothing_is_converted() {
        let attributes = read(&[("name", "a"), ("oci-mediatypes", "x")]).unwrap();
        assert_eq!(attributes, CompressionAttributes::default());
        assert_eq!(
            attributes.compression,
            of(CompressionKind::Gzip, None, false)
        );
    }

    #[test]
    fn each_attribute_is_read_as_go_reads_it() {
        use CompressionKind::{Estargz, Gzip, Uncompressed, Zstd};
        let none = false;
        for (pairs, compression, is_named) in [
            (&[("compression", "zstd")][..], of(Zstd, None, none), true),
            (&[("compression", "estargz")], of(Estargz, None, none), true),
            (
                &[("compression", "uncompressed")],
                of(Uncompressed, None, none),
                true,
            ),
            (&[("force-compression", "")], of(Gzip, None, true), false),
            (&[("force-compression", "T")], of(Gzip, None, true), false),
            (&[("force-compression", "0")], of(Gzip, None, none), false),
            (
                &[("compression-level", "9")],
                of(Gzip, Some(9), none),
                false,
            ),
            (
                &[("compression-level", "+3")],
                of(Gzip, Some(3), none),
                false,
            ),
            (
                &[("compression-level", "-1")],
                of(Gzip, Some(-1), none),
                false,
            ),
            (
                &[("compression", "zstd"), ("compression-level", "22")],
                of(Zstd, Some(22), none),
                true,
            ),
        ] {
            let attributes = read(pairs).unwrap();
            assert_eq!(
                (attributes.compression, attributes.is_named),
                (compression, is_named),
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn a_value_that_cannot_be_is_refused_with_the_sentence_of_buildkit() {
        for (pair, sentence) in [
            (("compression", "lz4"), "unsupported compression type lz4"),
            (("compression", ""), "unsupported compression type "),
            (("compression", "GZIP"), "unsupported compression type GZIP"),
            (
                ("force-compression", "yes"),
                "non-bool value yes specified for force-compression: strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
            (
                ("compression-level", "a\"b"),
                "non-integer value a\"b specified for compression-level: strconv.ParseInt: parsing \"a\\\"b\": invalid syntax",
            ),
            (
                ("compression-level", ""),
                "non-integer value  specified for compression-level: strconv.ParseInt: parsing \"\": invalid syntax",
            ),
            (
                ("compression-level", "99999999999999999999"),
                "non-integer value 99999999999999999999 specified for compression-level: strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
            ),
        ] {
            assert_eq!(read(&[pair]).unwrap_err(), sentence);
        }
    }

    #[test]
    fn exporters_know_which_attributes_are_about_compression() {
        let names = ["compression", "force-compression", "compression-level"];
        assert!(names.iter().all(|name| CompressionAttributes::is_one(name)));
        for other in ["", "Compression", "compression ", "name"] {
            assert!(!CompressionAttributes::is_one(other));
        }
    }
}
