//! The attributes that all image exporters share.

use std::collections::BTreeMap;

use gostd::Timestamp;
use gostd::strconv::{self, ParseIntError, parse_int};
use store::{CompressionAttributes, CompressionKind, CompressionSpec};

use crate::annotations::AnnotationGroup;
use crate::error::{ExportAttributeError, ExportError};
use crate::manager::ExportSource;

/// `source-date-epoch` as an attribute: unset, switched off by an empty value, or a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Epoch {
    /// Not given: the frontend's counts.
    #[default]
    Unset,
    /// Given without a value: times stay, whatever the frontend says.
    Off,
    /// No time in the image is later than this.
    At(Timestamp),
}

/// The attributes that all image exporters share. The flags do not depend on each other: each mirrors the attribute
/// of its name.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    /// Names, separated by commas; `*` stands for the frontend's.
    pub name: String,
    /// How layers are compressed.
    pub compression: CompressionSpec,
    /// Whether an attribute names the compression: layers that were made here are then converted to it.
    pub compression_named: bool,
    /// Whether media types are OCI's; the default is yes.
    pub oci_types: Option<bool>,
    /// Whether attestation manifests are OCI artifacts; the default is as for the types.
    pub oci_artifact: Option<bool>,
    /// Annotations from the attributes; those of the frontend are added per build.
    pub annotations: AnnotationGroup,
    /// The latest time that the image may contain.
    pub epoch: Epoch,
    /// Whether attestations marked as inline only are attached.
    pub inline_attestations: bool,
    /// Whether layers are rewritten so that no file is later than the epoch.
    pub rewrite_timestamp: bool,
    /// Whether layers keep media types that forbid distribution.
    pub prefer_nondist_layers: bool,
}

/// Reads a boolean as Go does.
pub(crate) fn parse_bool(key: &str, value: &str) -> Result<bool, ExportError> {
    strconv::parse_bool(value)
        .map_err(|e| ExportError::malformed(format!("non-bool value specified for {key}"), e))
}

/// As [`parse_bool`], but an empty value means yes.
pub(crate) fn parse_flag(key: &str, value: &str) -> Result<bool, ExportError> {
    if value.is_empty() {
        Ok(true)
    } else {
        parse_bool(key, value)
    }
}

/// Reads a time as seconds since 1970; empty is none.
fn parse_epoch(value: &str) -> Result<Option<Timestamp>, ParseIntError> {
    if value.is_empty() {
        return Ok(None);
    }
    parse_int(value).map(|seconds| Some(Timestamp::from_seconds(seconds)))
}

impl Epoch {
    /// Reads the attribute.
    pub(crate) fn from_attr(value: &str) -> Result<Self, ExportError> {
        let time = parse_epoch(value)
            .map_err(|e| ExportError::malformed("invalid source-date-epoch", e))?;
        Ok(time.map_or(Self::Off, Self::At))
    }

    /// The time that counts for a platform: the attribute's, else the frontend's.
    pub(crate) fn of(
        &self,
        source: &ExportSource,
        id: Option<&str>,
    ) -> Result<Option<Timestamp>, ExportError> {
        match self {
            Self::At(time) => Ok(Some(*time)),
            Self::Off => Ok(None),
            Self::Unset => {
                let Some(bytes) = source.meta("source.date.epoch", id) else {
                    return Ok(None);
                };
                let text = String::from_utf8_lossy(bytes);
                parse_epoch(&text).map_err(|e| {
                    let what = format!("invalid SOURCE_DATE_EPOCH from frontend: {text:?}");
                    ExportError::malformed(what, e)
                })
            }
        }
    }
}

impl ImageOptions {
    /// Reads the attributes that all image exporters share, and returns the others beside them.
    pub fn load(
        attrs: &BTreeMap<String, String>,
    ) -> Result<(Self, BTreeMap<String, String>), ExportError> {
        let compression = CompressionAttributes::read(attrs)?;
        let mut out = Self {
            compression: compression.compression,
            compression_named: compression.is_named,
            ..Self::default()
        };
        let mut other_attrs = BTreeMap::new();
        for (key, value) in attrs {
            match key.as_str() {
                "name" => out.name = value.clone(),
                "oci-mediatypes" => out.oci_types = Some(parse_bool(key, value)?),
                "oci-artifact" => out.oci_artifact = Some(parse_bool(key, value)?),
                "attestation-inline" => out.inline_attestations = parse_bool(key, value)?,
                "prefer-nondist-layers" => out.prefer_nondist_layers = parse_bool(key, value)?,
                "rewrite-timestamp" => out.rewrite_timestamp = parse_bool(key, value)?,
                "source-date-epoch" => out.epoch = Epoch::from_attr(value)?,
                key if CompressionAttributes::is_one(key) => {}
                // Older builders wrote these; the reference ignores them today.
                "buildinfo" | "buildinfo-attrs" => {}
                _ => {
                    if !out.annotations.take(key, value)? {
                        other_attrs.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        out.validate()?;
        Ok((out, other_attrs))
    }

    /// Whether media types are OCI's.
    #[must_use]
    pub fn is_oci(&self) -> bool {
        self.oci_types.unwrap_or(true)
    }

    /// Whether attestation manifests are OCI artifacts.
    #[must_use]
    pub fn is_artifact(&self) -> bool {
        self.oci_artifact.unwrap_or_else(|| self.is_oci())
    }

    /// Adds annotations that the frontend made; where both name one, the frontend's wins, as with the reference.
    pub(crate) fn with_metadata(
        &self,
        metadata: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, ExportError> {
        let mut out = self.clone();
        let mut of_frontend = AnnotationGroup::default();
        for (key, value) in metadata {
            of_frontend.take(key, &String::from_utf8_lossy(value))?;
        }
        out.annotations.merge(&of_frontend);
        Ok(out)
    }

    fn validate(&self) -> Result<(), ExportError> {
        let oci_only = self.compression.kind == CompressionKind::Estargz;
        if self.oci_types == Some(false) {
            if oci_only {
                let option = format!("compression={}", self.compression.kind.name());
                return Err(ExportAttributeError::NeedsOciTypes { option }.into());
            }
            if self.oci_artifact == Some(true) {
                let option = "oci-artifact=true".to_owned();
                return Err(ExportAttributeError::NeedsOciTypes { option }.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Epoch, ImageOptions};
    use std::collections::BTreeMap;

    fn load(attrs: &[(&str, &str)]) -> Result<(ImageOptions, BTreeMap<String, String>), String> {
        let attrs = attrs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        ImageOptions::load(&attrs).map_err(|e| e.to_string())
    }

    #[test]
    fn attributes_are_read_and_contradictions_refused() {
        let (options, other_attrs) = load(&[
            ("name", "a,b"),
            ("push", "true"),
            ("compression", "zstd"),
            ("compression-level", "3"),
            ("annotation.x", "y"),
        ])
        .unwrap();
        assert_eq!(
            (
                options.name.as_str(),
                options.compression.level,
                options.is_oci()
            ),
            ("a,b", Some(3), true)
        );
        assert_eq!(other_attrs.into_keys().collect::<Vec<_>>(), ["push"]);
        assert_eq!(
            load(&[("source-date-epoch", "")]).unwrap().0.epoch,
            Epoch::Off
        );
        for (attrs, want) in [
            (
                vec![("compression", "estargz"), ("oci-mediatypes", "false")],
                "exporter option \"compression=estargz\" conflicts with \"oci-mediatypes=false\"",
            ),
            (
                vec![("oci-artifact", "1"), ("oci-mediatypes", "0")],
                "exporter option \"oci-artifact=true\" conflicts with \"oci-mediatypes=false\"",
            ),
            (
                vec![("compression", "lz4")],
                "unsupported compression type lz4",
            ),
            (
                vec![("rewrite-timestamp", "yes")],
                "non-bool value specified for rewrite-timestamp: strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
            (
                vec![("source-date-epoch", "x")],
                "invalid source-date-epoch: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                vec![("source-date-epoch", "9223372036854775808")],
                "invalid source-date-epoch: strconv.ParseInt: parsing \"9223372036854775808\": value out of range",
            ),
        ] {
            assert_eq!(load(&attrs).unwrap_err(), want);
        }
    }
}
