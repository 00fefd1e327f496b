//! Stages → LLB.
//!
//! ```text
//!  text ─► syntax ─► stages ─► reachable from the target ─► base images (in parallel) ─► one state per stage ─► definition
//!                                     ▲                            │
//!                                     └──── ONBUILD of the images ◄┘
//! ```
//!
//! No I/O happens here: what must be asked (image configs, contexts, ignore files) goes through [`MetaResolver`]. The
//! definition has the digests that BuildKit's own frontend gives it: ops are built by [`llb::build`], and the words shown
//! to people (vertex names, history) are BuildKit's too, because clients parse and compare them.

mod args;
mod checks;
mod copy;
mod dispatch;
mod epoch;
mod error;
mod expose;
mod graph;
mod mounts;
mod name;
mod options;
mod path;
mod place;
mod reach;
mod repeat;
mod resolve;
mod run;
mod size;
mod stage;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use llb::build::{MarshalOptions, SourceMap, State};
use llb::pb;
use oci::{Digest, ImageConfig, Platform};

pub use error::{HostError, LowerError, LowerErrorKind};
pub use expose::PortError;
pub(crate) use graph::Lowering;
pub use options::LowerOptions;
pub use path::PathError;
pub(crate) use stage::OutlineCapture;

use crate::lint::Warning;
/// Answers what lowering cannot know from the text.
#[async_trait]
pub trait MetaResolver: Send + Sync {
    /// Resolves an image to its config. The reference has a tag or digest.
    async fn image_config(
        &self,
        reference: &str,
        query: ImageQuery,
    ) -> Result<ResolvedImage, HostError>;

    /// Looks for a context that replaces a stage or image of that name.
    fn named_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>, HostError>;

    /// Loads such a context.
    async fn load_context(
        &self,
        context: &NamedContext,
        query: ContextQuery,
    ) -> Result<LoadedContext, HostError>;

    /// The build context, restricted to `follow_paths` unless that is empty.
    async fn main_context(&self, follow_paths: Vec<String>) -> Result<State, HostError>;

    /// Patterns of the ignore file, in order.
    async fn ignore_patterns(&self) -> Result<Vec<String>, HostError>;

    /// Whether the stage is to be built without cache.
    fn is_no_cache(&self, stage: &str) -> bool;

    /// The time of a source in seconds since the epoch: of a commit, or of a download. For `SOURCE_DATE_EPOCH`.
    async fn source_time(&self, state: &State, log_name: &str) -> Result<Option<i64>, HostError>;
}

/// How to resolve a base image.
#[derive(Debug, Clone, Default)]
pub struct ImageQuery {
    /// Name of the progress step that is shown while the image is resolved.
    pub log_name: String,
    /// The platform whose manifest is taken from an index.
    pub platform: Option<Platform>,
    /// `default`, `pull` or `local`.
    pub resolve_mode: String,
}

/// A resolved base image.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Reference of the image; a source policy may have changed it.
    pub reference: String,
    /// Digest of the manifest or index that the reference names.
    pub digest: Option<Digest>,
    /// The image's config as JSON.
    pub config: Vec<u8>,
}

/// A context that replaces a stage or image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedContext {
    /// Address of the context: `docker-image://…`, `local:name`, `https://…`.
    pub input: String,
    /// The name it replaces.
    pub name: String,
    /// The name with `::platform` when the context was given for one platform only.
    pub name_with_platform: String,
    /// Shared key hint by which the daemon finds an earlier copy of the folder.
    pub shared_key: String,
    /// Platform to build for.
    pub platform: Option<Platform>,
}

/// How to load a context.
#[derive(Debug, Clone, Default)]
pub struct ContextQuery {
    /// `default`, `pull` or `local`.
    pub resolve_mode: String,
}

/// Makes the state of a client's directory from the paths that the build uses of it.
pub type LocalMaker = Box<dyn FnOnce(Vec<String>) -> State + Send + Sync>;

/// A loaded context.
pub enum LoadedContext {
    /// A state, and the image it comes from.
    State {
        /// The files of the context.
        state: State,
        /// Config of the image that the context comes from.
        image: Option<Box<ImageConfig>>,
    },
    /// A client's directory. Its state is made last, when the paths that the build uses are known.
    Local(LocalMaker),
}

impl std::fmt::Debug for LoadedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::State { .. } => "LoadedContext::State",
            Self::Local(_) => "LoadedContext::Local",
        })
    }
}

/// The result of lowering a Dockerfile.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The result of the target.
    pub state: State,
    /// Config of the image.
    pub image: ImageConfig,
    /// Config of the image it is based on, unchanged.
    pub base_image: Option<ImageConfig>,
    /// Whether no image is below it, only `scratch` or files.
    pub from_nothing: bool,
    /// `SOURCE_DATE_EPOCH` in seconds.
    pub epoch: Option<i64>,
    /// Further states to scan for an SBOM, by name.
    pub scan: BTreeMap<String, State>,
    /// Whether a stage is built without cache.
    pub ignore_cache: bool,
    platform: Platform,
}

impl Lowered {
    /// Writes the definition; empty for scratch.
    pub fn definition(&self) -> Result<pb::Definition, LowerError> {
        self.write(&self.state)
    }

    /// Writes the definitions of the states that an SBOM is to cover too, by name.
    pub fn scan_definitions(&self) -> Result<BTreeMap<String, Arc<pb::Definition>>, LowerError> {
        let write =
            |(name, state): (&String, &State)| Ok((name.clone(), Arc::new(self.write(state)?)));
        self.scan.iter().map(write).collect()
    }

    fn write(&self, state: &State) -> Result<pb::Definition, LowerError> {
        let options = MarshalOptions {
            platform: self.platform.clone(),
            ..MarshalOptions::default()
        };
        Ok(llb::build::marshal(state.output(), &options)?)
    }
}

/// Receives each violation of a lint rule.
pub type WarnFn = Arc<dyn Fn(Warning) + Send + Sync>;

/// Lowers a Dockerfile for its target.
pub async fn lower(
    dockerfile: &[u8],
    options: LowerOptions,
    host: &dyn MetaResolver,
    warn: Option<WarnFn>,
) -> Result<Lowered, LowerError> {
    let (lowering, target) = lower_stages(dockerfile, options, host, warn).await?;
    Ok(lowering.result(target))
}

/// Lowers and gives the whole graph of stages, for the outline.
pub(crate) async fn lower_stages<'a>(
    dockerfile: &[u8],
    options: LowerOptions,
    host: &'a dyn MetaResolver,
    warn: Option<WarnFn>,
) -> Result<(Lowering<'a>, usize), LowerError> {
    let run = Lowering::run(dockerfile, options, host, warn).await;
    run.map_err(|error| error.pointing_into(dockerfile))
}

/// A source map of a Dockerfile.
pub fn source_map(
    filename: &str,
    data: &[u8],
    definition: Option<Arc<pb::Definition>>,
) -> Arc<SourceMap> {
    Arc::new(SourceMap {
        filename: filename.to_owned(),
        language: "Dockerfile".to_owned(),
        data: data.to_vec().into(),
        definition,
    })
}
