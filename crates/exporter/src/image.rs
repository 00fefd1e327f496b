//! `type=image`: an image in the daemon's store, and in registries.
//!
//! The daemon has no image store of its own (as the reference with an OCI worker has none), so `store`, `unpack`,
//! `name-canonical` and `dangling-name-prefix` change nothing but the names in the response.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use oci::Descriptor;
use registry::{Client, Credentials};
use store::{CompressionSpec, ImmutableRef, Store};

use crate::error::ExportError;
use crate::manager::{ExportContext, ExportSource, Exported, Exporter, ExporterInstance, Finalize};
use crate::options::{ImageOptions, parse_flag};
use crate::push::{PushImage, PushOptions, PushTarget, PushTransport, push};
use crate::writer::{WrittenImage, commit};

/// Makes the credentials for a push, from the sessions of the build.
pub type CredentialsOf = Arc<dyn Fn(&session::Group) -> Arc<dyn Credentials> + Send + Sync>;

/// Exports images.
#[derive(Clone)]
pub struct ImageExporter {
    store: Arc<Store>,
    client: Client,
    credentials: CredentialsOf,
}

impl std::fmt::Debug for ImageExporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageExporter")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl ImageExporter {
    /// Makes the exporter; `credentials` answers for the pushes of a build.
    #[must_use]
    pub fn new(store: Arc<Store>, client: Client, credentials: CredentialsOf) -> Self {
        Self {
            store,
            client,
            credentials,
        }
    }
}

/// One image of one build, with its attributes read.
#[derive(Debug)]
struct ImageExport {
    exporter: ImageExporter,
    id: usize,
    attrs: BTreeMap<String, String>,
    options: ImageOptions,
    push: bool,
    push_options: PushOptions,
    /// Before `@` and the digest in a name that the image gets besides; empty for none.
    dangling_prefix: String,
    /// Whether that name is for images without another only.
    dangling_empty_only: bool,
    /// Attributes that no exporter reads: they count as the frontend's metadata.
    metadata: BTreeMap<String, Vec<u8>>,
}

impl Exporter for ImageExporter {
    fn kind(&self) -> &'static str {
        "image"
    }

    fn resolve(
        &self,
        id: usize,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError> {
        let (mut options, other_attrs) = ImageOptions::load(attrs)?;
        if !attrs.contains_key("attestation-inline") {
            options.inline_attestations = true;
        }
        let mut out = ImageExport {
            exporter: self.clone(),
            id,
            attrs: attrs.clone(),
            options,
            push: false,
            push_options: PushOptions::default(),
            dangling_prefix: String::new(),
            dangling_empty_only: false,
            metadata: BTreeMap::new(),
        };
        for (key, value) in other_attrs {
            match key.as_str() {
                "push" => out.push = parse_flag(&key, &value)?,
                "push-by-digest" => {
                    out.push_options.target = if parse_flag(&key, &value)? {
                        PushTarget::Digest
                    } else {
                        PushTarget::Tag
                    };
                }
                "registry.insecure" => {
                    out.push_options.transport = if parse_flag(&key, &value)? {
                        PushTransport::Insecure
                    } else {
                        PushTransport::AsConfigured
                    };
                }
                "unpack"
                | "store"
                | "name-canonical"
                | "unsafe-internal-store-allow-incomplete" => {
                    parse_flag(&key, &value)?;
                }
                "dangling-name-prefix" => out.dangling_prefix = value,
                "danging-name-empty-only" => out.dangling_empty_only = parse_flag(&key, &value)?,
                _ => {
                    out.metadata.insert(key, value.into_bytes());
                }
            }
        }
        Ok(Arc::new(out))
    }
}

/// The frontend's metadata with the exporter's own over it.
pub(crate) fn with_metadata(
    source: &ExportSource,
    exporter_metadata: &BTreeMap<String, Vec<u8>>,
) -> ExportSource {
    let mut out = source.clone();
    out.metadata.extend(
        exporter_metadata
            .iter()
            .map(|(k, v)| (k.clone(), v.clone())),
    );
    out
}

/// The attribute `name`; in place of `*`, the name in the frontend's metadata.
pub(crate) fn image_name(options: &ImageOptions, source: &ExportSource) -> String {
    match source.metadata.get("image.name") {
        Some(name) if options.name == "*" => String::from_utf8_lossy(name).into_owned(),
        _ => options.name.clone(),
    }
}

/// The entries of an image export's response that describe its root.
pub(crate) fn response(image: &WrittenImage, root: &Descriptor) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([("containerimage.digest".to_owned(), root.digest.to_string())]);
    if let Some(config) = &image.config {
        out.insert(
            "containerimage.config.digest".to_owned(),
            config.to_string(),
        );
    }
    let json = gostd::json::to_vec(root);
    out.insert(
        "containerimage.descriptor".to_owned(),
        base64::engine::general_purpose::STANDARD.encode(json),
    );
    out
}

#[async_trait]
impl ExporterInstance for ImageExport {
    fn id(&self) -> usize {
        self.id
    }

    fn kind(&self) -> &'static str {
        "image"
    }

    fn name(&self) -> String {
        "exporting to image".into()
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
        let source = with_metadata(source, &self.metadata);
        let options = self.options.with_metadata(&source.metadata)?;
        let image = commit(&self.exporter.store, ctx, &source, &options).await?;
        let mut name = image_name(&options, &source);
        if !self.dangling_prefix.is_empty() && (!self.dangling_empty_only || name.is_empty()) {
            let dangling = format!("{}@{}", self.dangling_prefix, image.root.digest);
            name = if name.is_empty() {
                dangling
            } else {
                format!("{name},{dangling}")
            };
        }
        let mut response = response(&image, &image.root);
        let mut names = Vec::new();
        if !name.is_empty() {
            for name in name.split(',') {
                drop(ctx.progress.status(format!("naming to {name}"), ""));
                names.push(name.to_owned());
            }
            response.insert("image.name".to_owned(), name);
        }
        let WrittenImage {
            root,
            documents,
            layers,
            lease,
            ..
        } = image;
        let finalize: Option<Box<dyn Finalize>> = (self.push && !names.is_empty()).then(|| {
            let image = PushImage {
                root: root.clone(),
                documents,
                layers: layers.into_values().collect(),
            };
            let refs = source.results().cloned().collect();
            Box::new(Push {
                exporter: self.exporter.clone(),
                image,
                names,
                options: self.push_options,
                _held: refs,
            }) as _
        });
        Ok(Exported {
            response,
            descriptor: Some(root),
            lease: Some(lease),
            finalize,
        })
    }
}

struct Push {
    exporter: ImageExporter,
    image: PushImage,
    names: Vec<String>,
    options: PushOptions,
    /// Protects the layers from collection until they are pushed.
    _held: Vec<ImmutableRef>,
}

#[async_trait]
impl Finalize for Push {
    async fn run(self: Box<Self>, ctx: &ExportContext) -> Result<(), ExportError> {
        for name in &self.names {
            let credentials = (self.exporter.credentials)(&ctx.sessions);
            push(
                ctx,
                &self.exporter.client,
                credentials,
                &self.image,
                name,
                self.options,
            )
            .await?;
        }
        Ok(())
    }
}
