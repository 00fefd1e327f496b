//! Attributes of caches that clients may set.

use std::collections::BTreeMap;

use gostd::strconv;
use oci::Reference;
use solver::export::ExportMode;
use store::CompressionAttributes;

use crate::error::AttributeError;

/// The attributes of one cache, as the client sent them.
#[derive(Clone, Copy)]
pub(crate) struct Attrs<'a> {
    map: &'a BTreeMap<String, String>,
}

impl<'a> Attrs<'a> {
    pub(crate) fn new(map: &'a BTreeMap<String, String>) -> Self {
        Self { map }
    }

    /// Returns the value of an attribute; none if it is missing or empty.
    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        self.map
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    }

    pub(crate) fn flag(self, name: &str) -> Result<Option<bool>, AttributeError> {
        let Some(value) = self.map.get(name) else {
            return Ok(None);
        };
        strconv::parse_bool(value)
            .map(Some)
            .map_err(|source| AttributeError::Flag {
                name: name.to_owned(),
                source,
            })
    }

    /// The name of a repository and a tag.
    pub(crate) fn reference(self) -> Result<Reference, AttributeError> {
        let text = self.text("ref").ok_or(AttributeError::NoReference)?;
        Ok(Reference::parse(text)?.with_default_tag())
    }

    pub(crate) fn compression(self) -> Result<CompressionAttributes, AttributeError> {
        Ok(CompressionAttributes::read(self.map)?)
    }

    /// How the documents are written.
    pub(crate) fn documents(self) -> Result<Documents, AttributeError> {
        let oci = self.flag("oci-mediatypes")?.unwrap_or(true);
        let manifest = self.flag("image-manifest")?.unwrap_or(oci);
        Ok(Documents { oci, manifest })
    }

    /// Which results are exported. An unknown mode falls back to `min`, as BuildKit does.
    pub(crate) fn mode(self) -> ExportMode {
        if self.text("mode") == Some("max") {
            ExportMode::Max
        } else {
            ExportMode::Min
        }
    }

    /// Whether a build succeeds although its export to the cache failed.
    pub(crate) fn ignores_errors(self) -> bool {
        self.text("ignore-error").is_some_and(strconv::is_true)
    }
}

/// How the documents of a cache are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Documents {
    /// Media types are OCI's.
    pub(crate) oci: bool,
    /// The root is an image manifest, not an index.
    pub(crate) manifest: bool,
}

#[cfg(test)]
mod tests;
