//! Resolves a source to its metadata: the digest, config or commit that a mutable name stands for.

use std::sync::Arc;

use bytes::Bytes;
use frontend::bridge::{
    AttestationChain, GitMeta, HttpChecksum, HttpMeta, ImageMeta, ResolveOpts, SourceMeta,
};
use llb::pb;
use oci::Platform;
use progress::Writer;
use source::image::{ImageSource, ResolveMode};
use source::oci_layout::{LayoutStore, OciLayoutSource};
use source::{Context, Facts, SourceInstance, Sources};

use crate::api::{Failure, FailureKind};
use crate::scope::BuildScope;

/// The platform that a source is resolved for.
pub(crate) fn requested_platform(opts: &ResolveOpts) -> Option<Platform> {
    let platform = opts.image.as_ref().and_then(|o| o.platform.clone());
    platform.or_else(|| opts.oci_layout.as_ref().and_then(|o| o.platform.clone()))
}

/// Resolves sources for one build; whether they are allowed is checked before.
pub(crate) struct SourceResolver {
    scope: Arc<BuildScope>,
    images: ImageSource,
    layouts: OciLayoutSource,
    sources: Arc<Sources>,
}

impl SourceResolver {
    /// `images` and `layouts` are the instances that `sources` has too.
    pub(crate) fn new(
        scope: Arc<BuildScope>,
        images: ImageSource,
        layouts: OciLayoutSource,
        sources: Arc<Sources>,
    ) -> Self {
        Self {
            scope,
            images,
            layouts,
            sources,
        }
    }

    /// The build that it resolves for.
    pub(crate) fn scope(&self) -> &Arc<BuildScope> {
        &self.scope
    }

    /// Resolves a source that policies allow, shown as a vertex.
    pub(crate) async fn resolve(
        &self,
        op: pb::SourceOp,
        opts: ResolveOpts,
    ) -> Result<SourceMeta, Failure> {
        let name = if opts.log_name.is_empty() {
            format!("resolve image config for {}", op.identifier)
        } else {
            opts.log_name.clone()
        };
        let platform = requested_platform(&opts);
        let platform_text = platform.clone().unwrap_or_else(Platform::host).format_all();
        let id = format!("{}{platform_text}", op.identifier);
        self.scope
            .run_as_vertex(&name, &id, |progress| {
                Box::pin(self.facts(op, opts, platform, progress))
            })
            .await
    }

    async fn facts(
        &self,
        op: pb::SourceOp,
        opts: ResolveOpts,
        platform: Option<Platform>,
        progress: Writer,
    ) -> Result<SourceMeta, Failure> {
        let ctx = Context {
            sessions: self.scope.sessions(),
            progress,
            resolved_sources: vec![self.scope.resolved_sources()],
        };
        let (scheme, reference) = op.identifier.split_once("://").unwrap_or_default();
        let (scheme, reference) = (scheme.to_owned(), reference.to_owned());
        let mut meta = SourceMeta {
            op,
            ..SourceMeta::default()
        };
        match scheme.as_str() {
            "docker-image" => {
                let mode = opts
                    .image
                    .as_ref()
                    .map(|o| o.resolve_mode.as_str())
                    .unwrap_or_default();
                let mode = ResolveMode::parse(mode)?;
                let image = self
                    .images
                    .resolve_config(&reference, platform.as_ref(), mode, &ctx)
                    .await?;
                let request = opts.image.unwrap_or_default();
                let wants_chain =
                    request.attestation_chain || !request.resolve_attestations.is_empty();
                let attestations = if wants_chain {
                    let types = &request.resolve_attestations;
                    let chain =
                        self.images
                            .attestation_chain(&reference, platform.as_ref(), types, &ctx);
                    chain.await?.map(chain_meta)
                } else {
                    None
                };
                meta.image = Some(ImageMeta {
                    digest: image.digest,
                    config: if request.no_config {
                        Bytes::new()
                    } else {
                        image.config
                    },
                    attestations,
                });
            }
            "oci-layout" => {
                let layout = opts.oci_layout.unwrap_or_default();
                let store = LayoutStore {
                    session: layout.session_id,
                    store: layout.store_id,
                };
                let image = self
                    .layouts
                    .resolve_config(&reference, platform.as_ref(), &store, &ctx)
                    .await?;
                meta.image = Some(ImageMeta {
                    digest: image.digest,
                    config: image.config,
                    attestations: None,
                });
            }
            "git" => {
                let attrs = meta.op.attrs.clone().into_iter().collect();
                let source = self.sources.resolve(&meta.op.identifier, &attrs, None)?;
                let facts = source.facts(&ctx, opts.git_return_object).await?;
                if let Facts::Git {
                    object,
                    reference,
                    commit,
                    commit_object,
                    tag_object,
                } = facts
                {
                    meta.git = Some(GitMeta {
                        checksum: object,
                        reference,
                        commit_checksum: commit,
                        commit_object: commit_object.into(),
                        tag_object: tag_object.into(),
                    });
                }
            }
            "http" | "https" => {
                let attrs = meta.op.attrs.clone().into_iter().collect();
                let source = self.sources.resolve(&meta.op.identifier, &attrs, None)?;
                let facts = source.facts(&ctx, false).await?;
                if let Facts::Http {
                    digest,
                    filename,
                    modified,
                } = facts
                {
                    let checksum = match opts.http_checksum {
                        Some(request) => Some(with_suffix(&*source, request, &ctx).await?),
                        None => None,
                    };
                    meta.http = Some(HttpMeta {
                        digest,
                        filename,
                        last_modified: modified,
                        checksum,
                    });
                }
            }
            // Other sources have no metadata before they are read.
            _ => {}
        }
        Ok(meta)
    }
}

fn chain_meta(chain: source::image::attestations::AttestationChain) -> AttestationChain {
    AttestationChain {
        root: chain.root,
        image_manifest: chain.image_manifest,
        attestation_manifest: chain.attestation_manifest,
        signature_manifests: chain.signature_manifest.into_iter().collect(),
        blobs: chain.blobs,
    }
}

/// The digest of a download followed by a suffix.
async fn with_suffix(
    source: &dyn SourceInstance,
    request: HttpChecksum,
    ctx: &Context,
) -> Result<(String, Bytes), Failure> {
    let download = source.snapshot(ctx).await?;
    let download =
        download.ok_or_else(|| Failure::new(FailureKind::Unknown, "the download is empty"))?;
    download.ensure().await?;
    let HttpChecksum { algorithm, suffix } = request;
    task::blocking("checksum", move || {
        let root = download.root()?;
        let digest = source::http::suffixed(&root, &algorithm, &suffix)?;
        Ok((digest, suffix))
    })
    .await
}
