//! A source to what is fixed about it.

use std::sync::Arc;

use bytes::Bytes;
use frontend::bridge::{
    AttestationChain, GitMeta, HttpChecksum, HttpMeta, ImageMeta, ResolveOpts, SourceMeta,
};
use llb::pb;
use oci::Platform;
use progress::Writer;
use source::image::ResolveMode;
use source::oci_layout::LayoutStore;
use source::{Context, Facts, SourceInstance};

use crate::api::{Failure, FailureKind};
use crate::build::Build;
use crate::policy::{Judge, Policy};

/// Resolves a source, shown as a vertex.
pub(crate) async fn source(
    build: &Arc<Build>,
    mut op: pb::SourceOp,
    opts: ResolveOpts,
) -> Result<SourceMeta, Failure> {
    let policies = Policy::decode_all(&opts.source_policies).await?;
    if let Some(judge) = Judge::new(build, &policies) {
        let platform = wanted(&opts).map(|p| pb::Platform {
            os: p.os,
            architecture: p.architecture,
            variant: p.variant,
            os_version: p.os_version,
            os_features: p.os_features,
        });
        build
            .alive(judge.source(&mut op, platform.as_ref()))
            .await
            .map_err(|mut e| {
                e.message = format!("could not resolve image due to policy: {}", e.message);
                e
            })?;
    }
    judged(build, op, opts).await
}

/// The platform that a source is wanted for.
fn wanted(opts: &ResolveOpts) -> Option<Platform> {
    let platform = opts.image.as_ref().and_then(|o| o.platform.clone());
    platform.or_else(|| opts.oci_layout.as_ref().and_then(|o| o.platform.clone()))
}

/// Resolves a source that is allowed.
pub(crate) async fn judged(
    build: &Arc<Build>,
    op: pb::SourceOp,
    opts: ResolveOpts,
) -> Result<SourceMeta, Failure> {
    let name = if opts.log_name.is_empty() {
        format!("resolve image config for {}", op.identifier)
    } else {
        opts.log_name.clone()
    };
    let platform = wanted(&opts);
    let shown = platform.clone().unwrap_or_else(Platform::host).format_all();
    let id = format!("{}{shown}", op.identifier);
    build
        .shown(&name, &id, |progress| {
            Box::pin(resolve(build, op, opts, platform, progress))
        })
        .await
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

/// The digest of a download with something behind it.
async fn with_suffix(
    source: &dyn SourceInstance,
    wanted: HttpChecksum,
    ctx: &Context,
) -> Result<(String, Bytes), Failure> {
    let found = source.snapshot(ctx).await?;
    let found = found.ok_or_else(|| Failure::new(FailureKind::Unknown, "the download is empty"))?;
    found.ensure().await?;
    let HttpChecksum { algorithm, suffix } = wanted;
    task::blocking("checksum", move || {
        let root = found.root()?;
        let digest = source::http::suffixed(&root, &algorithm, &suffix)?;
        Ok((digest, suffix))
    })
    .await
}

async fn resolve(
    build: &Build,
    op: pb::SourceOp,
    opts: ResolveOpts,
    platform: Option<Platform>,
    progress: Writer,
) -> Result<SourceMeta, Failure> {
    let ctx = Context {
        sessions: build.sessions(),
        progress,
        memories: vec![build.memory()],
    };
    let engine = &build.engine;
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
            let found = engine
                .images
                .resolve_config(&reference, platform.as_ref(), mode, &ctx)
                .await?;
            let image = opts.image.unwrap_or_default();
            let wanted = image.attestation_chain || !image.resolve_attestations.is_empty();
            let attestations = if wanted {
                let types = &image.resolve_attestations;
                let chain =
                    engine
                        .images
                        .attestation_chain(&reference, platform.as_ref(), types, &ctx);
                chain.await?.map(chain_meta)
            } else {
                None
            };
            meta.image = Some(ImageMeta {
                digest: found.digest,
                config: if image.no_config {
                    Bytes::new()
                } else {
                    found.config
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
            let found = engine
                .layouts
                .resolve_config(&reference, platform.as_ref(), &store, &ctx)
                .await?;
            meta.image = Some(ImageMeta {
                digest: found.digest,
                config: found.config,
                attestations: None,
            });
        }
        "git" => {
            let attrs = meta.op.attrs.clone().into_iter().collect();
            let source = engine
                .parts
                .sources
                .resolve(&meta.op.identifier, &attrs, None)?;
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
            let source = engine
                .parts
                .sources
                .resolve(&meta.op.identifier, &attrs, None)?;
            let facts = source.facts(&ctx, false).await?;
            if let Facts::Http {
                digest,
                filename,
                modified,
            } = facts
            {
                let checksum = match opts.http_checksum {
                    Some(wanted) => Some(with_suffix(&*source, wanted, &ctx).await?),
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
        // Nothing is fixed about other sources before they are read.
        _ => {}
    }
    Ok(meta)
}
