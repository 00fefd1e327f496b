//! `type=oci` and `type=docker`: an image as one tar, or into the client's content store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use gostd::Timestamp;
use oci::{Descriptor, Reference, media_type};
use serde::Serialize;
use store::{CompressionSpec, Store};

use crate::archive::{ArchiveEntry, stream};
use crate::client::{self, ClientFile};
use crate::error::{ExportError, ExportResultError};
use crate::image::{image_name, response, with_metadata};
use crate::manager::{ExportContext, ExportSource, Exported, Exporter, ExporterInstance};
use crate::options::{Epoch, ImageOptions, parse_flag};
use crate::writer::{WrittenImage, commit};

/// The form of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// An OCI layout.
    Oci,
    /// An OCI layout that `docker load` takes as well: one platform, and a `manifest.json`.
    Docker,
}

impl Variant {
    fn kind(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::Docker => "docker",
        }
    }
}

/// Exports image archives.
#[derive(Debug, Clone)]
pub struct OciExporter {
    store: Arc<Store>,
    variant: Variant,
}

impl OciExporter {
    /// Makes the exporter of one variant.
    #[must_use]
    pub fn new(store: Arc<Store>, variant: Variant) -> Self {
        Self { store, variant }
    }
}

/// One archive of one build, with its attributes read.
#[derive(Debug)]
struct ArchiveExport {
    exporter: OciExporter,
    id: usize,
    attrs: BTreeMap<String, String>,
    options: ImageOptions,
    /// Whether the client gets one tar; else the blobs go into its content store.
    tar: bool,
    /// Attributes that no exporter reads: they count as the frontend's metadata.
    metadata: BTreeMap<String, Vec<u8>>,
}

impl Exporter for OciExporter {
    fn kind(&self) -> &'static str {
        self.variant.kind()
    }

    fn resolve(
        &self,
        id: usize,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError> {
        let (options, other_attrs) = ImageOptions::load(attrs)?;
        let mut out = ArchiveExport {
            exporter: self.clone(),
            id,
            attrs: attrs.clone(),
            options,
            tar: true,
            metadata: BTreeMap::new(),
        };
        for (key, value) in other_attrs {
            if key == "tar" {
                out.tar = parse_flag(&key, &value)?;
            } else {
                out.metadata.insert(key, value.into_bytes());
            }
        }
        Ok(Arc::new(out))
    }
}

const CREATED: &str = "org.opencontainers.image.created";
const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[async_trait]
impl ExporterInstance for ArchiveExport {
    fn id(&self) -> usize {
        self.id
    }

    fn kind(&self) -> &'static str {
        self.exporter.variant.kind()
    }

    fn name(&self) -> String {
        format!("exporting to {} image format", self.exporter.variant.kind())
    }

    fn attrs(&self) -> &BTreeMap<String, String> {
        &self.attrs
    }

    fn compression(&self) -> Option<CompressionSpec> {
        Some(self.options.compression)
    }

    async fn export(
        &self,
        ctx: &ExportContext,
        source: &ExportSource,
    ) -> Result<Exported, ExportError> {
        if self.exporter.variant == Variant::Docker && source.is_map() {
            return Err(ExportResultError::DockerManifestList.into());
        }
        let source = with_metadata(source, &self.metadata);
        let options = self.options.with_metadata(&source.metadata)?;
        let image = commit(&self.exporter.store, ctx, &source, &options).await?;
        let mut root = image.root.clone();
        let created = match options.epoch {
            Epoch::At(time) => time,
            Epoch::Off | Epoch::Unset => match options.epoch.of(&source, None)? {
                Some(time) => time,
                None => Timestamp::from_seconds(Timestamp::from(task::clock::wall()).seconds()),
            },
        };
        root.annotations
            .entry(CREATED.to_owned())
            .or_insert_with(|| created.to_string());
        let mut response = response(&image, &root);
        let names = normalized(&image_name(&options, &source))?;
        if !names.is_empty() {
            response.insert("image.name".to_owned(), names.join(","));
        }
        if self.tar {
            let mut sink = ClientFile::open(ctx, self.id, &response).await?;
            let _status = ctx.progress.status("sending tarball", "");
            let mut chunks = stream(self.entries(&image, &root, &names)?).boxed();
            while let Some(chunk) = chunks.try_next().await? {
                if !sink.is_open() {
                    break;
                }
                if !chunk.is_empty() {
                    sink.write(chunk).await?;
                }
            }
            sink.finish().await?;
        } else {
            client::copy_image(ctx, &image).await?;
        }
        let WrittenImage { lease, .. } = image;
        Ok(Exported {
            response,
            descriptor: Some(root),
            lease: Some(lease),
            finalize: None,
        })
    }
}

#[derive(Serialize)]
struct IndexFile<'a> {
    #[serde(rename = "schemaVersion")]
    schema_version: i32,
    #[serde(rename = "mediaType")]
    media_type: &'static str,
    manifests: &'a [Descriptor],
}

#[derive(Serialize)]
struct DockerManifest {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Option<Vec<String>>,
}

fn blob_name(desc: &Descriptor) -> String {
    format!("blobs/{}/{}", desc.digest.algorithm(), desc.digest.hex())
}

impl ArchiveExport {
    fn entries(
        &self,
        image: &WrittenImage,
        root: &Descriptor,
        names: &[String],
    ) -> Result<Vec<ArchiveEntry>, ExportError> {
        let mut out = vec![
            ArchiveEntry::folder("blobs/"),
            ArchiveEntry::folder("blobs/sha256/"),
            ArchiveEntry::file("oci-layout", 0o444, r#"{"imageLayoutVersion":"1.0.0"}"#),
        ];
        for (desc, bytes) in &image.documents {
            out.push(ArchiveEntry::file(blob_name(desc), 0o444, bytes.clone()));
        }
        for layer in image.layers.values() {
            out.push(ArchiveEntry::layer(
                blob_name(&layer.descriptor),
                layer.clone(),
            ));
        }
        // One entry for each name; an image without a name has one entry as well.
        let mut manifests = Vec::new();
        for name in names {
            let mut descriptor = root.clone();
            descriptor
                .annotations
                .insert(IMAGE_NAME.to_owned(), name.clone());
            descriptor
                .annotations
                .insert(REF_NAME.to_owned(), ref_name(name));
            manifests.push(descriptor);
        }
        if manifests.is_empty() {
            manifests.push(root.clone());
        }
        let index = IndexFile {
            schema_version: 2,
            media_type: media_type::OCI_INDEX,
            manifests: &manifests,
        };
        out.push(ArchiveEntry::file(
            "index.json",
            0o644,
            gostd::json::to_vec(&index),
        ));
        if self.exporter.variant == Variant::Docker {
            out.push(ArchiveEntry::file(
                "manifest.json",
                0o644,
                docker_manifest(image, names)?,
            ));
        }
        Ok(out)
    }
}

fn docker_manifest(image: &WrittenImage, names: &[String]) -> Result<Vec<u8>, ExportError> {
    let document = image
        .documents
        .iter()
        .find(|(d, _)| d.digest == image.root.digest);
    let Some((_, bytes)) = document else {
        return Err(ExportResultError::NoManifest.into());
    };
    // An image with attestations is an index, which `docker load` reads from index.json.
    if media_type::is_index(&image.root.media_type) {
        return Ok(b"[]".to_vec());
    }
    let manifest: oci::Manifest = gostd::json::from_slice(bytes)
        .map_err(|e| ExportError::malformed("failed to read own manifest", e))?;
    let layers: Vec<String> = manifest.layers.iter().map(blob_name).collect();
    let mut tags = Vec::with_capacity(names.len());
    for name in names {
        let reference = Reference::parse(name)
            .map_err(|e| ExportError::malformed(format!("failed to parse {name}"), e))?;
        tags.push(reference.familiar());
    }
    let entry = DockerManifest {
        config: blob_name(&manifest.config),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: (!layers.is_empty()).then_some(layers),
    };
    Ok(gostd::json::to_vec(&[entry]))
}

/// The names, separated by commas, in full and with a tag each.
fn normalized(names: &str) -> Result<Vec<String>, ExportError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    names
        .split(',')
        .map(|name| {
            let parsed = Reference::parse(name)
                .map_err(|e| ExportError::malformed(format!("failed to parse {name}"), e))?;
            Ok(parsed.with_default_tag().to_string())
        })
        .collect()
}

/// The name of a reference inside its repository: the tag, or all of it where there is none.
fn ref_name(name: &str) -> String {
    let path = name.split_once('/').map_or(name, |(_, path)| path);
    match path.split_once(':') {
        Some((_, object)) if !path.split(':').next().unwrap_or_default().contains('@') => {
            object.to_owned()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{normalized, ref_name};

    #[test]
    fn names_are_completed_and_shortened() {
        assert_eq!(
            normalized("busybox,localhost:5000/a:t").unwrap(),
            ["docker.io/library/busybox:latest", "localhost:5000/a:t"]
        );
        assert!(normalized("A b").is_err());
        assert_eq!(ref_name("docker.io/library/busybox:latest"), "latest");
        assert_eq!(ref_name("localhost:5000/a:t"), "t");
        assert_eq!(
            ref_name("docker.io/library/busybox@sha256:00"),
            "docker.io/library/busybox@sha256:00"
        );
    }
}
