//! Base images: from a name to a state and a config.

use llb::build::{Constraints, ImageOpts, State, image};
use oci::{ImageConfig, Platform, Reference};

use super::error::{LowerError, LowerErrorKind};
use super::graph::{Lowering, empty_image};
use super::name;
use super::{ContextQuery, ImageQuery, LoadedContext};
use crate::check;
use crate::suggest;

/// The result of resolving a base name.
#[derive(Debug)]
pub(crate) enum Base {
    /// The target does not need the stage.
    Unused,
    /// A context that replaces the whole stage.
    Stage(LoadedContext),
    /// A context in place of the image.
    Context {
        loaded: LoadedContext,
        platform: Platform,
    },
    /// An image.
    Image {
        name: String,
        config: Box<ImageConfig>,
        platform: Platform,
        origin: String,
    },
}

impl Lowering<'_> {
    pub(crate) async fn resolve_base(&self, at: usize, needed: bool) -> Result<Base, LowerError> {
        let ranges = &self.stages[at].stage.origin.ranges;
        self.resolve_base_inner(at, needed)
            .await
            .map_err(|error| error.at(ranges))
    }

    async fn resolve_base_inner(&self, at: usize, needed: bool) -> Result<Base, LowerError> {
        let stage = &self.stages[at];
        let origin = stage.base_name.clone();
        let mut reference =
            Reference::parse(&origin).map_err(|source| LowerErrorKind::StageName {
                name: origin.clone(),
                source,
            })?;
        if !needed {
            return Ok(Base::Unused);
        }
        let resolve_mode = self.options.resolve_mode.as_str().to_owned();
        let query = || ContextQuery {
            resolve_mode: resolve_mode.clone(),
        };
        if let Some(context) = &stage.named_context {
            return Ok(Base::Stage(self.host.load_context(context, query()).await?));
        }
        let platform = stage
            .platform
            .clone()
            .unwrap_or_else(|| self.platforms.target.clone());
        let tagged = reference.clone().with_default_tag().to_string();
        if let Some(context) = self.replacement(&tagged, &platform)? {
            let loaded = self.host.load_context(&context, query()).await?;
            return Ok(Base::Context { loaded, platform });
        }
        let platform_prefix = if self.options.multi_platform {
            format!("{} ", platform.format_all())
        } else {
            String::new()
        };
        let query = ImageQuery {
            log_name: format!("[{platform_prefix}internal] load metadata for {tagged}"),
            platform: Some(platform.clone()),
            resolve_mode: resolve_mode.clone(),
        };
        let resolved = self
            .host
            .image_config(&tagged, query)
            .await
            .map_err(|source| {
                let mut names: Vec<String> = self.names().into_iter().map(str::to_owned).collect();
                for name in [
                    "alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora",
                ] {
                    names.push(name.to_owned());
                    names.push(format!("{name}:latest"));
                }
                let near = suggest::nearest(&origin, names.iter().map(String::as_str), true);
                LowerErrorKind::BaseImage {
                    name: origin.clone(),
                    source,
                    near,
                }
            })?;
        if reference.to_string() != resolved.reference {
            reference = Reference::parse(&resolved.reference).map_err(|source| {
                LowerErrorKind::StageName {
                    name: resolved.reference.clone(),
                    source,
                }
            })?;
        }
        let config: ImageConfig =
            gostd::json::from_slice(&resolved.config).map_err(LowerErrorKind::ImageConfig)?;
        let mut platform = platform;
        if stage.platform.is_none() && self.platforms.implicit {
            platform = detect_platform(&config, platform, &self.platforms.build);
        }
        if resolved.digest.is_some() {
            reference.digest = resolved.digest;
        }
        Ok(Base::Image {
            name: reference.to_string(),
            config: Box::new(config),
            platform,
            origin,
        })
    }

    fn replacement(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<Option<super::NamedContext>, LowerError> {
        Ok(self.host.named_context(name, Some(platform))?)
    }

    pub(crate) fn apply_base(&mut self, at: usize, base: Base) -> Result<(), LowerError> {
        match base {
            Base::Unused => {}
            Base::Stage(loaded) => {
                let (state, image) = self.loaded(at, loaded);
                let stage = &mut self.stages[at];
                stage.dispatched = true;
                stage.state = state;
                if let Some(mut image) = image {
                    image.created = None;
                    if !image.platform.architecture.is_empty() && !image.platform.os.is_empty() {
                        stage.platform = Some(image.platform.clone());
                    }
                    stage.image = image;
                    stage.from_nothing = false;
                }
            }
            Base::Context { loaded, platform } => {
                let (state, image) = self.loaded(at, loaded);
                let from_nothing = image.is_none();
                let mut image = image.unwrap_or_else(|| empty_image(&platform));
                let stage = &mut self.stages[at];
                stage.from_nothing = from_nothing;
                stage.base_image = Some(image.clone());
                image.created = None;
                stage.image = image;
                stage.state = state.platform(&platform);
                stage.platform = Some(platform);
            }
            Base::Image {
                name,
                config,
                platform,
                origin,
            } => {
                let mut image_config = *config;
                let empty = image_config.rootfs.diff_ids.is_empty()
                    && image_config.history.iter().all(|h| h.empty_layer);
                let actual = image_config.platform.clone();
                self.stages[at].base_image = Some(image_config.clone());
                image_config.created = None;
                self.stages[at].image = image_config;
                self.stages[at].from_nothing = false;
                self.stages[at].state = if empty {
                    State::scratch()
                } else {
                    self.image_state(at, &name, &platform)?
                };
                if !empty {
                    let ranges = &self.stages[at].stage.origin.ranges;
                    check::base_image_platform(
                        &origin,
                        &platform.normalize(),
                        &actual.normalize(),
                        ranges,
                        &self.lint,
                    );
                }
                self.stages[at].base_name = name;
                self.stages[at].platform = Some(platform);
            }
        }
        let stage = &mut self.stages[at];
        stage.dispatched |= stage.unregistered && stage.resolved;
        Ok(())
    }

    // DIFFERS: BuildKit counts this step again for a stage that an ONBUILD trigger made reachable (`[src 2/2] FROM`).
    fn image_state(
        &mut self,
        at: usize,
        reference: &str,
        platform: &Platform,
    ) -> Result<State, LowerError> {
        let multi = self.options.multi_platform;
        let stage = &mut self.stages[at];
        let step_name = name::prefix(
            stage,
            &format!("FROM {reference}"),
            multi,
            Some(platform),
            &name::no_env(),
        );
        let constraints = Constraints::named(step_name)
            .describe(
                "com.docker.dockerfile.v1.command",
                stage.stage.origin.code.clone(),
            )
            .platform(platform)
            .at(
                self.options.source_map.as_ref(),
                super::dispatch::wire_ranges(&stage.stage.origin.ranges),
            );
        let opts = ImageOpts {
            resolve_mode: self.options.resolve_mode,
            ..ImageOpts::default()
        };
        image(reference, &opts, constraints).map_err(LowerError::from)
    }

    fn loaded(&mut self, at: usize, loaded: LoadedContext) -> (State, Option<ImageConfig>) {
        match loaded {
            LoadedContext::State { state, image } => (state, image.map(|image| *image)),
            LoadedContext::Local(make) => (self.later(at, make), None),
        }
    }
}

/// The platform an image turned out to be for, when none was requested.
fn detect_platform(image: &ImageConfig, target: Platform, supported: &[Platform]) -> Platform {
    let same =
        |p: &Platform| p.os == image.platform.os && p.architecture == image.platform.architecture;
    if same(&target) {
        return target;
    }
    supported
        .iter()
        .find(|p| same(p))
        .cloned()
        .unwrap_or(target)
}
