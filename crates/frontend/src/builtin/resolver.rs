//! Resolves the images that lowering needs, through the bridge.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dockerfile::lower::{
    ContextQuery, HostError, ImageQuery, LoadedContext, MetaResolver, NamedContext, ResolvedImage,
};
use llb::build::State;
use llb::pb;
use oci::{Digest, Platform};
use parking_lot::Mutex;

use super::context::Context;
use super::{Build, named, time};
use crate::bridge::{ImageResolveOpts, ResolveOpts};
use crate::error::{FrontendError, resolving};

/// The result of resolving an image, which a policy may have replaced by a source of another kind.
pub(crate) struct Resolved {
    /// Reference, digest and config; none if a policy replaced the image.
    pub(crate) image: Option<(String, Digest, Bytes)>,
    /// The identifier after policies.
    pub(crate) updated: String,
}

/// Resolves an image to its config.
pub(crate) async fn resolve_image(
    build: &Build,
    identifier: &str,
    attrs: BTreeMap<String, String>,
    opts: ResolveOpts,
) -> Result<Resolved, FrontendError> {
    let plain = |identifier: &str| {
        let text = identifier
            .strip_prefix("docker-image://")
            .unwrap_or(identifier);
        text.strip_prefix("oci-layout://")
            .unwrap_or(text)
            .to_owned()
    };
    let source = pb::SourceOp {
        identifier: identifier.to_owned(),
        attrs,
    };
    let meta = build
        .bridge
        .resolve_source(source, opts)
        .await
        .map_err(|error| FrontendError::bridge_failed(&resolving(identifier), error))?;
    let image = meta
        .image
        .map(|image| (plain(&meta.op.identifier), image.digest, image.config));
    Ok(Resolved {
        image,
        updated: meta.op.identifier,
    })
}

/// Resolves images for lowering, each once.
pub(crate) struct Resolver<'a> {
    build: &'a Build,
    context: &'a Context,
    images: Mutex<HashMap<String, ResolvedImage>>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(build: &'a Build, context: &'a Context) -> Self {
        Self {
            build,
            context,
            images: Mutex::new(HashMap::new()),
        }
    }
}

/// Wraps the whole error, so that the engine finds its own failure among the causes.
fn host(error: FrontendError) -> HostError {
    Arc::new(error)
}

#[async_trait]
impl MetaResolver for Resolver<'_> {
    async fn image_config(
        &self,
        reference: &str,
        query: ImageQuery,
    ) -> Result<ResolvedImage, HostError> {
        let key = format!("{reference} {:?} {}", query.platform, query.resolve_mode);
        if let Some(image) = self.images.lock().get(&key).cloned() {
            return Ok(image);
        }
        let opts = ResolveOpts {
            log_name: query.log_name,
            image: Some(ImageResolveOpts {
                platform: query.platform,
                resolve_mode: query.resolve_mode,
                ..ImageResolveOpts::default()
            }),
            ..ResolveOpts::default()
        };
        let identifier = format!("docker-image://{reference}");
        let resolved = resolve_image(self.build, &identifier, BTreeMap::new(), opts)
            .await
            .map_err(host)?;
        let Some((reference, digest, config)) = resolved.image else {
            let message = format!(
                "ref mutated by policy to non-image: {identifier} -> {}",
                resolved.updated
            );
            return Err(host(FrontendError::definition(message)));
        };
        let image = ResolvedImage {
            reference,
            digest: Some(digest),
            config: config.to_vec(),
        };
        self.images.lock().insert(key, image.clone());
        Ok(image)
    }

    fn named_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>, HostError> {
        named::find(&self.build.request.opts, name, platform).map_err(host)
    }

    async fn load_context(
        &self,
        context: &NamedContext,
        query: ContextQuery,
    ) -> Result<LoadedContext, HostError> {
        named::load(self.build, context, &query).await.map_err(host)
    }

    async fn main_context(&self, follow_paths: Vec<String>) -> Result<State, HostError> {
        self.context
            .main(self.build, follow_paths)
            .await
            .map_err(host)
    }

    async fn ignore_patterns(&self) -> Result<Vec<String>, HostError> {
        self.context.ignore_patterns(self.build).await.map_err(host)
    }

    fn is_no_cache(&self, stage: &str) -> bool {
        self.build.config.is_no_cache(stage)
    }

    async fn source_time(&self, state: &State, log_name: &str) -> Result<Option<i64>, HostError> {
        time::of_source(self.build, state, log_name)
            .await
            .map_err(host)
    }
}
