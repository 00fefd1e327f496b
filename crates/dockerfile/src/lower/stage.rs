//! The state of a stage while it is lowered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use llb::build::State;
use oci::{ImageConfig, Platform};

use super::NamedContext;
use super::reach::ENV_ENTRY_BYTES;
use crate::check::UsedOnce;
use crate::instruction::{ArgPair, Instruction, Stage};
use crate::shell;
use crate::syntax::Range;

impl shell::Env for llb::build::Env {
    fn get(&self, key: &str) -> Option<&str> {
        Self::get(self, key)
    }

    fn keys(&self) -> Vec<&str> {
        Self::keys(self)
    }
}

/// A command and the stages it takes files from.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) instruction: Instruction,
    /// For `COPY` one stage or none; for `RUN` one for each mount.
    pub(crate) sources: Vec<usize>,
    pub(crate) on_build: bool,
}

/// A stage, or an image or context that is used like one.
#[derive(Debug, Clone)]
pub(crate) struct StageState {
    pub(crate) stage: Stage,
    /// Base name after expansion and resolution.
    pub(crate) base_name: String,
    /// Shown in names of steps.
    pub(crate) stage_name: String,
    pub(crate) state: State,
    pub(crate) image: ImageConfig,
    pub(crate) base_image: Option<ImageConfig>,
    /// Whether no image's config is below it.
    pub(crate) from_nothing: bool,
    pub(crate) named_context: Option<NamedContext>,
    pub(crate) platform: Option<Platform>,
    /// The platform that this stage's `FROM` or that of a stage below it says; the target's when none does.
    pub(crate) written_platform: Option<Platform>,
    /// The stage of the file that this one repeats for another platform.
    pub(crate) repeats: Option<usize>,
    /// Whether another stage of the same lines reports the findings, so that this one does not.
    pub(crate) silent: bool,
    /// The stage it starts from, if not an image.
    pub(crate) base: Option<usize>,
    pub(crate) dispatched: bool,
    pub(crate) resolved: bool,
    pub(crate) onbuild_init: bool,
    /// Stages it takes files from, with the lines that refer to them.
    pub(crate) deps: BTreeMap<usize, Arc<[Range]>>,
    pub(crate) build_args: Vec<ArgPair>,
    /// Index of each variable in the image's list; none until one is set.
    pub(crate) env_places: Option<HashMap<String, usize>>,
    pub(crate) steps: Vec<Step>,
    /// Paths it uses of the build context.
    pub(crate) ctx_paths: BTreeSet<String>,
    /// Which set of [`super::graph::Lowering::paths`] collects the paths used of it.
    pub(crate) paths: usize,
    pub(crate) ignore_cache: bool,
    /// An image or context named by `--from`, not a stage of the file.
    pub(crate) unregistered: bool,
    pub(crate) cmd_index: usize,
    pub(crate) cmd_is_onbuild: bool,
    pub(crate) cmd_total: usize,
    pub(crate) outline: OutlineCapture,
    pub(crate) scan_stage: bool,
    pub(crate) scan_context: bool,
    /// Whether this file has set a working directory.
    pub(crate) workdir_set: bool,
    pub(crate) entrypoint: UsedOnce,
    pub(crate) cmd: UsedOnce,
    pub(crate) cmd_set: bool,
    pub(crate) healthcheck: UsedOnce,
}

impl StageState {
    pub(crate) fn new(stage: Stage, base_name: String, paths: usize) -> Self {
        Self {
            stage_name: stage.name.clone(),
            stage,
            base_name,
            state: State::scratch(),
            image: ImageConfig::default(),
            base_image: None,
            from_nothing: true,
            named_context: None,
            platform: None,
            written_platform: None,
            repeats: None,
            silent: false,
            base: None,
            dispatched: false,
            resolved: false,
            onbuild_init: false,
            deps: BTreeMap::new(),
            build_args: Vec::new(),
            env_places: None,
            steps: Vec::new(),
            ctx_paths: BTreeSet::new(),
            paths,
            ignore_cache: false,
            unregistered: false,
            cmd_index: 0,
            cmd_is_onbuild: false,
            cmd_total: 0,
            outline: OutlineCapture::default(),
            scan_stage: false,
            scan_context: false,
            workdir_set: false,
            entrypoint: UsedOnce::default(),
            cmd: UsedOnce::default(),
            cmd_set: false,
            healthcheck: UsedOnce::default(),
        }
    }

    /// Sets a variable in the image's list, in its old place if it has one.
    pub(crate) fn set_env(&mut self, key: &str, value: &str) {
        let env = &mut self.image.config.env;
        let places = self.env_places.get_or_insert_with(|| {
            let key = |pair: &String| pair.split('=').next().unwrap_or_default().to_owned();
            let places = env.iter().enumerate();
            // Of equal names the first is the place.
            places.rev().map(|(at, pair)| (key(pair), at)).collect()
        });
        let entry = format!("{key}={value}");
        let place = *places.entry(key.to_owned()).or_insert(env.len());
        match env.get_mut(place) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    }

    /// The stage's name; with the platform if the file has the stage for another one too.
    pub(crate) fn unique_name(&self) -> String {
        match (&self.repeats, &self.written_platform) {
            (Some(_), Some(platform)) => {
                format!(
                    "{}-{}",
                    self.stage_name,
                    platform.format_all().replace('/', "-")
                )
            }
            _ => self.stage_name.clone(),
        }
    }

    /// An image or context used in place of a stage.
    pub(crate) fn unregistered(name: &str, ranges: Vec<Range>, paths: usize) -> Self {
        let mut stage = Stage {
            base_name: name.to_owned(),
            ..Stage::default()
        };
        stage.origin.ranges = ranges;
        Self {
            unregistered: true,
            ..Self::new(stage, name.to_owned(), paths)
        }
    }
}

/// Arguments, secrets and ssh agents of a stage, for the outline.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutlineCapture {
    pub(crate) all_args: BTreeMap<String, ArgInfo>,
    pub(crate) used_args: BTreeSet<String>,
    pub(crate) secrets: BTreeMap<String, (bool, Vec<Range>)>,
    pub(crate) ssh: BTreeMap<String, (bool, Vec<Range>)>,
}

impl OutlineCapture {
    /// Size of a copy, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let args = self.all_args.iter();
        args.map(|(key, arg)| 4 * ENV_ENTRY_BYTES + 2 * key.len() + 2 * arg.value.len())
            .sum()
    }
}

/// An argument as declared.
#[derive(Debug, Clone)]
pub(crate) struct ArgInfo {
    pub(crate) value: String,
    pub(crate) definition: ArgPair,
    pub(crate) deps: BTreeSet<String>,
    pub(crate) ranges: Vec<Range>,
}
