//! The built-in Dockerfile frontend.
//!
//! ```text
//!  options ─► Config ─┐
//!                     ├─► Context (where the Dockerfile and the files are) ─► read the Dockerfile
//!  bridge ────────────┘                                                          │
//!                                             syntax line ◄──────────────────────┤
//!                                             subrequest (outline, targets, …) ◄─┤
//!                                             each platform: lower, solve ◄──────┘──► result with configs and platforms
//! ```

mod archive;
mod config;
mod context;
mod named;
mod resolver;
mod subrequest;
mod syntax;
mod time;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dockerfile::lint::Warning as LintWarning;
use dockerfile::lower::{self, ContextQuery, LoadedContext, LowerError, LowerOptions, WarnFn};
use futures::future::try_join_all;
use llb::pb;
use oci::{ImageConfig, Platform};
use parking_lot::Mutex;

use crate::bridge::{
    Bridge, Frontend, FrontendRequest, FrontendResult, Ref, ScanTargets, SolveRequest, Warning,
};
use crate::error::FrontendError;
use crate::places::wire_ranges;
use config::Config;
use context::{Context, Entrypoint};
use resolver::Resolver;

/// Turns Dockerfiles into results without pulling a frontend image.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// Whether this frontend builds files with a stable `# syntax=docker/dockerfile` line itself, instead of running that image.
    pub answers_syntax: bool,
}

impl Default for Dockerfile {
    fn default() -> Self {
        Self {
            answers_syntax: true,
        }
    }
}

#[async_trait]
impl Frontend for Dockerfile {
    async fn solve(
        &self,
        bridge: Arc<dyn Bridge>,
        request: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        let forward = check_capabilities(&request.opts)?;
        let config = Config::parse(&request, &bridge.workers())?;
        let build = Build {
            bridge,
            config,
            request,
        };
        build.run(self.answers_syntax, forward).await
    }
}

/// Refuses a capability that this frontend lacks. If the client allows forwarding, the error is returned as a value: it applies
/// only if the file names no other frontend.
fn check_capabilities(
    opts: &std::collections::BTreeMap<String, String>,
) -> Result<Option<FrontendError>, FrontendError> {
    let mut forward = None;
    let required_caps = opts
        .get("frontend.caps")
        .map(String::as_str)
        .unwrap_or_default();
    for cap in required_caps.split(',').filter(|cap| !cap.is_empty()) {
        let name = cap.split('+').next().unwrap_or_default();
        if llb::caps::FRONTEND.contains(&name) {
            continue;
        }
        let error = FrontendError::UnsupportedCapability {
            name: name.to_owned(),
        };
        if !cap.contains("+forward") {
            return Err(error);
        }
        forward = Some(error);
    }
    Ok(forward)
}

/// A named context in the place of a frontend's image.
pub(crate) struct ImageContext {
    /// The definition of the tree in which the frontend's program is.
    pub(crate) definition: pb::Definition,
    /// The config, where the context is an image.
    pub(crate) config: Option<ImageConfig>,
}

/// Loads the named context that a request gives in the place of a frontend's image, if it has one. `admit` sees its specifier before
/// anything is loaded.
pub(crate) async fn image_context(
    bridge: &Arc<dyn Bridge>,
    request: &FrontendRequest,
    image: &str,
    admit: impl Fn(&str) -> Result<(), FrontendError> + Send,
) -> Result<Option<ImageContext>, FrontendError> {
    let Some(context) = named::find(&request.opts, image, None)? else {
        return Ok(None);
    };
    admit(&context.input)?;
    let build = Build {
        bridge: Arc::clone(bridge),
        config: Config::parse(request, &bridge.workers())?,
        request: request.clone(),
    };
    let query = ContextQuery {
        resolve_mode: String::new(),
    };
    let (state, config) = match named::load(&build, &context, &query).await? {
        LoadedContext::State { state, image } => (state, image.map(|image| *image)),
        LoadedContext::Local(make) => (make(Vec::new()), None),
    };
    Ok(Some(ImageContext {
        definition: context::marshal(&state)?,
        config,
    }))
}

/// A request with its parsed options.
struct Build {
    bridge: Arc<dyn Bridge>,
    config: Config,
    request: FrontendRequest,
}

/// The result for one platform.
struct PlatformResult {
    reference: Option<Arc<dyn Ref>>,
    image: ImageConfig,
    base_image: Option<ImageConfig>,
    from_nothing: bool,
    epoch: Option<i64>,
    scan: ScanTargets,
}

impl Build {
    async fn run(
        self,
        answers_syntax: bool,
        forward: Option<FrontendError>,
    ) -> Result<FrontendResult, FrontendError> {
        let context = Context::open(&self).await?;
        let entrypoint = context.read_entrypoint(&self).await?;
        if let Some(result) = self.other_frontend(&entrypoint, answers_syntax).await? {
            return Ok(result);
        }
        if let Some(error) = forward {
            return Err(error);
        }
        if let Some(name) = self.request.opts.get("requestid").cloned() {
            return subrequest::answer(&self, &context, &entrypoint, &name).await;
        }
        let platforms: Vec<Option<Platform>> = match self.config.target_platforms.as_slice() {
            [] => vec![None],
            platforms => platforms.iter().cloned().map(Some).collect(),
        };
        let resolver = Resolver::new(&self, &context);
        let results = try_join_all(platforms.iter().enumerate().map(|(index, platform)| {
            self.build_platform(&resolver, &entrypoint, platform.as_ref(), index == 0)
        }))
        .await?;
        Ok(self.assemble(&platforms, results))
    }

    fn lower_options(&self, entrypoint: &Entrypoint, platform: Option<&Platform>) -> LowerOptions {
        LowerOptions {
            target_platform: platform.cloned(),
            source_map: Some(Arc::clone(&entrypoint.map)),
            ..self.config.lower.clone()
        }
    }

    async fn build_platform(
        &self,
        resolver: &Resolver<'_>,
        entrypoint: &Entrypoint,
        platform: Option<&Platform>,
        warns: bool,
    ) -> Result<PlatformResult, FrontendError> {
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let sink: Option<WarnFn> = warns.then(|| {
            let warnings = Arc::clone(&warnings);
            Arc::new(move |warning| warnings.lock().push(warning)) as WarnFn
        });
        let options = self.lower_options(entrypoint, platform);
        let lowered = lower::lower(&entrypoint.map.data, options, resolver, sink).await;
        let warnings = std::mem::take(&mut *warnings.lock());
        self.warn(entrypoint, warnings).await?;
        let failed = |error: LowerError| FrontendError::from_lower(error, Some(&entrypoint.map));
        let lowered = lowered.map_err(failed)?;
        let definition = lowered.definition().map_err(failed)?;
        let scan = ScanTargets {
            extras: lowered.scan_definitions().map_err(failed)?,
            ignore_cache: lowered.ignore_cache,
        };
        let result = self
            .bridge
            .solve(SolveRequest {
                cache_imports: self.config.cache_imports.clone(),
                ..SolveRequest::of_definition(definition)
            })
            .await?;
        Ok(PlatformResult {
            reference: result.single_ref()?.cloned(),
            image: lowered.image,
            base_image: lowered.base_image,
            from_nothing: lowered.from_nothing,
            epoch: lowered.epoch,
            scan,
        })
    }

    async fn warn(
        &self,
        entrypoint: &Entrypoint,
        warnings: Vec<LintWarning>,
    ) -> Result<(), FrontendError> {
        for warning in warnings {
            let wire = Warning {
                level: 1,
                short: warning.short().into(),
                detail: vec![Bytes::from_static(warning.rule.description.as_bytes())],
                url: warning.rule.url.to_owned(),
                source_info: Some(entrypoint.map.to_info()),
                ranges: wire_ranges(&warning.ranges),
            };
            self.bridge.warn(&entrypoint.vertex, wire).await?;
        }
        Ok(())
    }

    fn assemble(
        &self,
        platforms: &[Option<Platform>],
        results: Vec<PlatformResult>,
    ) -> FrontendResult {
        let mut out = FrontendResult::default();
        let mut exported = Vec::with_capacity(results.len());
        for (platform, result) in platforms.iter().zip(results) {
            let target = platform.clone().unwrap_or_else(Platform::host).normalize();
            let id = target.format_all();
            let platform = export_platform(target, &result.image.platform);
            out.scan.insert(id.clone(), result.scan);
            let suffix = if self.config.multi_platform {
                format!("/{id}")
            } else {
                String::new()
            };
            if self.config.multi_platform {
                out.refs.insert(id.clone(), result.reference);
            } else {
                out.single = result.reference;
            }
            let mut set_metadata = |key: &str, value: Vec<u8>| {
                out.metadata.insert(format!("{key}{suffix}"), value.into());
            };
            set_metadata(
                "containerimage.config",
                config_json(&result.image, result.from_nothing),
            );
            if let Some(base) = &result.base_image {
                set_metadata(
                    "containerimage.base.config",
                    config_json(base, result.from_nothing),
                );
            }
            if let Some(epoch) = result.epoch {
                set_metadata("source.date.epoch", epoch.to_string().into_bytes());
            }
            exported.push(ExportedPlatform { id, platform });
        }
        let platforms = gostd::json::to_vec(&ExportedPlatforms {
            platforms: exported,
        });
        out.metadata
            .insert("refs.platforms".into(), platforms.into());
        out
    }
}

/// A config as Go writes it: the list of layers of an image from nothing is `null` there, not empty.
fn config_json(image: &ImageConfig, from_nothing: bool) -> Vec<u8> {
    let json = gostd::json::to_vec(image);
    if !from_nothing || !image.rootfs.diff_ids.is_empty() {
        return json;
    }
    let text = String::from_utf8(json).expect("JSON is UTF-8");
    text.replacen("\"diff_ids\":[]},", "\"diff_ids\":null},", 1)
        .into_bytes()
}

/// The platform a result is exported under. Windows takes version and features from the image.
fn export_platform(mut platform: Platform, image: &Platform) -> Platform {
    if platform.os == "windows" && image.os == platform.os {
        if platform.os_version.is_empty() {
            platform.os_version.clone_from(&image.os_version);
        }
        if platform.os_features.is_empty() {
            platform.os_features.clone_from(&image.os_features);
        }
    }
    platform
}

#[derive(serde::Serialize)]
struct ExportedPlatforms {
    #[serde(rename = "Platforms")]
    platforms: Vec<ExportedPlatform>,
}

#[derive(serde::Serialize)]
struct ExportedPlatform {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: Platform,
}
