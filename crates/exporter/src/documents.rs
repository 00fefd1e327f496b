//! Manifests and indexes, in the bytes the reference writes: two blanks of indent, `null` for no layers.

use std::collections::BTreeMap;

use oci::{Descriptor, media_type};
use serde::Serialize;

/// The artifact type of a manifest that holds attestations.
pub(crate) const ATTESTATION_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// The media type of an in-toto statement.
pub(crate) const IN_TOTO_TYPE: &str = "application/vnd.in-toto+json";

/// A manifest in Go's field order, for writing; [`oci::Manifest`] is for reading.
#[derive(Debug, Serialize)]
pub(crate) struct ManifestDocument {
    #[serde(rename = "schemaVersion")]
    schema_version: i32,
    #[serde(rename = "mediaType")]
    media_type: &'static str,
    #[serde(rename = "artifactType", skip_serializing_if = "str::is_empty")]
    artifact_type: &'static str,
    config: Descriptor,
    layers: Option<Vec<Descriptor>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl ManifestDocument {
    pub(crate) fn image(
        oci: bool,
        config: Descriptor,
        layers: Vec<Descriptor>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        Self {
            schema_version: 2,
            media_type: manifest_type(oci),
            artifact_type: "",
            config,
            layers: (!layers.is_empty()).then_some(layers),
            subject: None,
            annotations,
        }
    }

    /// A manifest of statements about `subject`.
    pub(crate) fn attestation(
        artifact: bool,
        config: Descriptor,
        layers: Vec<Descriptor>,
        subject: &Descriptor,
    ) -> Self {
        let mut out = Self::image(true, config, layers, BTreeMap::new());
        if artifact {
            out.artifact_type = ATTESTATION_TYPE;
            out.subject = Some(Descriptor::new(
                subject.media_type.clone(),
                subject.digest.clone(),
                subject.len(),
            ));
        }
        out
    }
}

/// An index in Go's field order, for writing; [`oci::Index`] is for reading.
#[derive(Debug, Serialize)]
pub(crate) struct IndexDocument<'a> {
    #[serde(rename = "schemaVersion")]
    schema_version: i32,
    #[serde(rename = "mediaType")]
    media_type: &'static str,
    manifests: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl<'a> IndexDocument<'a> {
    pub(crate) fn new(
        oci: bool,
        manifests: &'a [Descriptor],
        annotations: BTreeMap<String, String>,
    ) -> Self {
        let media_type = if oci {
            media_type::OCI_INDEX
        } else {
            media_type::DOCKER_INDEX
        };
        Self {
            schema_version: 2,
            media_type,
            manifests,
            annotations,
        }
    }

    pub(crate) fn media_type(&self) -> &'static str {
        self.media_type
    }
}

pub(crate) fn manifest_type(oci: bool) -> &'static str {
    if oci {
        media_type::OCI_MANIFEST
    } else {
        media_type::DOCKER_MANIFEST
    }
}

pub(crate) fn config_type(oci: bool) -> &'static str {
    if oci {
        media_type::OCI_CONFIG
    } else {
        media_type::DOCKER_CONFIG
    }
}

/// Writes a document with indents, as the reference writes manifests and indexes.
pub(crate) fn pretty(document: &impl Serialize) -> Vec<u8> {
    gostd::json::to_vec_indent(document, "  ")
}

/// A layer without the annotations that only the daemon reads.
#[must_use]
pub fn public_layer(layer: &Descriptor) -> Descriptor {
    let mut out = layer.clone();
    out.annotations = public_annotations(true, &layer.annotations);
    out
}

/// The annotations of a layer that may leave the daemon.
pub(crate) fn public_annotations(
    oci: bool,
    annotations: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    if !oci {
        return BTreeMap::new();
    }
    let internal = |key: &str| {
        key == "containerd.io/uncompressed"
            || key == "buildkit/createdat"
            || key.starts_with("containerd.io/distribution.source.")
    };
    annotations
        .iter()
        .filter(|(k, _)| !internal(k))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{ManifestDocument, pretty};
    use oci::{Descriptor, Digest, media_type};

    #[test]
    fn a_manifest_without_layers_says_null() {
        let config = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256("c"), 1);
        let document = String::from_utf8(pretty(&ManifestDocument::image(
            true,
            config,
            Vec::new(),
            Default::default(),
        )))
        .unwrap();
        let want = format!(
            "{{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"{}\",\n  \"config\": {{\n    \"mediaType\": \"{}\",\n    \"digest\": \"{}\",\n    \"size\": 1\n  }},\n  \"layers\": null\n}}",
            media_type::OCI_MANIFEST,
            media_type::OCI_CONFIG,
            Digest::sha256("c")
        );
        assert_eq!(document, want);
    }
}
