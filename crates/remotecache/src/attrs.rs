//! Parses the attributes of caches.

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

    /// The form of the documents. The defaults are BuildKit's.
    pub(crate) fn documents(self) -> Result<Documents, AttributeError> {
        let oci = self.flag("oci-mediatypes")?.unwrap_or(true);
        let manifest = self.flag("image-manifest")?.unwrap_or(oci);
        Ok(Documents {
            media_types: if oci {
                MediaTypes::Oci
            } else {
                MediaTypes::Docker
            },
            root: if manifest {
                RootKind::Manifest
            } else {
                RootKind::Index
            },
        })
    }

    /// Which results are exported. An unknown mode falls back to `min`, as BuildKit does.
    pub(crate) fn mode(self) -> ExportMode {
        if self.text("mode") == Some("max") {
            ExportMode::Max
        } else {
            ExportMode::Min
        }
    }

    /// Whether the build succeeds although this export failed.
    pub(crate) fn ignores_errors(self) -> bool {
        self.text("ignore-error").is_some_and(strconv::is_true)
    }
}

/// The family of media types that the documents of a cache have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaTypes {
    /// OCI's.
    Oci,
    /// Docker's.
    Docker,
}

/// The document at the root of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootKind {
    /// An image manifest, which every registry accepts.
    Manifest,
    /// An index.
    Index,
}

/// The form of a cache's documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Documents {
    pub(crate) media_types: MediaTypes,
    pub(crate) root: RootKind,
}

#[cfg(test)]
mod tests;
