//! The graph of stages: its nodes, their dependencies, and the stages that the target needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use llb::build::{Env, Late, Output, State};
use llb::pb;
use oci::{ImageConfig, Platform};

use super::args::{self, Platforms};
use super::checks;
use super::error::{LowerError, LowerErrorKind};
use super::size::{count_instructions, refuse_huge};
use super::stage::{StageState, Step};
use super::{LocalMaker, LowerOptions, Lowered, MetaResolver, NamedContext, WarnFn, epoch};
use crate::check;
use crate::instruction::{self, Command, Instruction, Stage};
use crate::lint::Linter;
use crate::shell::Lexer;
use crate::suggest;
use crate::syntax::{self, Range};

pub(crate) const SCRATCH: &str = "scratch";
const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";
/// Arguments that do not become variables of steps.
pub(crate) const NON_ENV_ARGS: [&str; 2] = [SCAN_CONTEXT, SCAN_STAGE];

/// A context whose state is made when the paths used of it are known.
struct Pending {
    late: Late,
    make: LocalMaker,
    stage: usize,
}

/// The work on one Dockerfile.
pub(crate) struct Lowering<'a> {
    pub(crate) options: LowerOptions,
    pub(crate) platforms: Platforms,
    pub(crate) global_args: Env,
    pub(crate) epoch: Option<i64>,
    pub(crate) lex: Lexer,
    pub(crate) lint: Linter,
    pub(crate) host: &'a dyn MetaResolver,
    pub(crate) stages: Vec<StageState>,
    by_name: HashMap<String, usize>,
    /// Index of each stage that has a number (`--from=0`); repetitions have no number.
    numbered: Vec<usize>,
    /// Repetitions of stages for other platforms.
    pub(super) repeated: HashMap<(usize, Platform), usize>,
    /// How many instructions and variables there are, those of repetitions included.
    pub(super) instructions: usize,
    /// Sets of used paths; a stage shares the set of the stage it is based on.
    pub(crate) paths: Vec<BTreeSet<String>>,
    pub(crate) proxy: Option<pb::ProxyEnv>,
    pub(crate) build_context: State,
    pub(crate) ignore: Option<pattern::PatternMatcher>,
    /// Steps of pattern matching that the check for ignored sources has taken.
    pub(super) ignore_steps: usize,
    context: Late,
    pending: Vec<Pending>,
    pub(super) copied: usize,
}

impl<'a> Lowering<'a> {
    /// Lowers the file; returns the graph and the index of the target's stage.
    pub(crate) async fn run(
        dockerfile: &[u8],
        mut options: LowerOptions,
        host: &'a dyn MetaResolver,
        warn: Option<WarnFn>,
    ) -> Result<(Self, usize), LowerError> {
        if dockerfile.is_empty() {
            return Err(LowerErrorKind::Empty.into());
        }
        let lint = checks::linter(dockerfile, options.lint.as_ref(), warn)?;
        let tree = syntax::parse(dockerfile)?;
        check::empty_continuations(&tree.warnings, &lint);
        let (stages, meta_args) = instruction::parse(&tree.root, &lint)?;
        if stages.is_empty() {
            return Err(LowerErrorKind::NoStages.into());
        }
        let instructions = count_instructions(&stages, &meta_args);
        refuse_huge(instructions)?;
        check::stage_names(&stages, &lint);
        check::instruction_casing(&stages, &lint);

        let platforms = Platforms::new(options.target_platform.as_ref(), &options.build_platforms);
        let mut target_name = options.target.clone();
        if target_name.is_empty()
            && let Some(last) = stages.last()
        {
            target_name.clone_from(&last.name);
        }
        let automatic = args::automatic(&platforms, &options.build_args, &target_name);
        let lex = Lexer::new(tree.escape);
        if let Ok((defaults, _)) = args::meta(automatic.clone(), &lex, &meta_args, &BTreeMap::new())
        {
            check::default_base_names(
                &stages,
                |name| lex.process_word(name, &defaults).ok(),
                &lint,
            );
        }
        let (mut global_args, all_args) =
            args::meta(automatic, &lex, &meta_args, &options.build_args)?;

        let epoch_text = options
            .build_args
            .get("SOURCE_DATE_EPOCH")
            .cloned()
            .or_else(|| {
                global_args
                    .get("SOURCE_DATE_EPOCH")
                    .filter(|value| !value.is_empty())
                    .map(str::to_owned)
            });
        let mut resolved = None;
        if let Some(epoch_text) = epoch_text {
            resolved =
                epoch::resolve(&epoch_text, &options, &stages, &global_args, &lex, host).await?;
            global_args = epoch::settle(resolved, &mut options.build_args, global_args);
        }
        let context = Late::new();
        let mut lowering = Self {
            proxy: args::proxy(&options.build_args),
            options,
            platforms,
            global_args,
            epoch: resolved,
            lex,
            lint,
            host,
            stages: Vec::new(),
            by_name: HashMap::new(),
            numbered: Vec::new(),
            repeated: HashMap::new(),
            instructions: 0,
            paths: Vec::new(),
            build_context: State::new(Some(Output::late(&context))),
            ignore: None,
            ignore_steps: 0,
            context,
            pending: Vec::new(),
            copied: 0,
        };
        let outline = super::stage::OutlineCapture {
            all_args,
            ..Default::default()
        };
        lowering.count(instructions)?;
        lowering.add_stages(stages, &outline)?;
        let target = lowering.find_target()?;
        lowering.find_dependencies()?;
        let reachable = lowering.resolve(target).await?;
        lowering.dispatch_all(&reachable, target).await?;
        lowering.finish(target).await?;
        Ok((lowering, target))
    }

    /// The result of the target's stage.
    pub(crate) fn result(mut self, target: usize) -> Lowered {
        let mut scan = BTreeMap::new();
        let mut ignore_cache = self.stages[target].ignore_cache;
        if self.stages[target].scan_context {
            scan.insert("context".to_owned(), self.build_context.clone());
        }
        for at in self.reachable(target) {
            let stage = &self.stages[at];
            if at != target && stage.scan_stage {
                scan.insert(stage.unique_name(), stage.state.clone());
                ignore_cache |= stage.ignore_cache;
            }
        }
        let stage = &mut self.stages[target];
        Lowered {
            state: stage.state.clone(),
            image: std::mem::take(&mut stage.image),
            base_image: stage.base_image.take(),
            from_nothing: stage.from_nothing,
            epoch: self.epoch,
            scan,
            ignore_cache,
            platform: self.platforms.target,
        }
    }

    pub(super) fn new_paths(&mut self) -> usize {
        self.paths.push(BTreeSet::new());
        self.paths.len() - 1
    }

    /// Looks for a context that replaces `name`. Reserved names are not replaced.
    pub(super) fn named_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>, LowerError> {
        if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
            return Ok(None);
        }
        let platform = platform.or(self.options.target_platform.as_ref());
        Ok(self.host.named_context(name, platform)?)
    }

    fn add_stages(
        &mut self,
        stages: Vec<Stage>,
        outline: &super::stage::OutlineCapture,
    ) -> Result<(), LowerError> {
        // A stage that is based on another gets a copy for that, too.
        let outline_cost = 2 * outline.weight();
        let mut arg_names = self.global_args.key_set();
        arg_names.extend(outline.all_args.keys().cloned());
        for (number, stage) in stages.into_iter().enumerate() {
            let ranges = stage.origin.ranges.clone();
            let lint = self.lint.with_comments(&stage.origin.comments);

            let base = self.lex.process(&stage.base_name, &self.global_args);
            let so_far = base.as_ref().unwrap_or_else(|error| &error.so_far);
            check::undefined_from_args(&arg_names, &so_far.unmatched, &ranges, &lint);
            let base = base.map_err(|e| LowerError::from(e).at(&ranges))?;
            if base.result.is_empty() {
                return Err(
                    LowerError::from(LowerErrorKind::BlankBase(stage.base_name)).at(&ranges)
                );
            }
            let mut used = base.matched;
            let paths = self.new_paths();
            let platform_word = stage.platform.clone();
            let mut state = StageState::new(stage, base.result, paths);
            self.charge(outline_cost)?;
            state.outline = outline.clone();
            if !platform_word.is_empty() {
                let (platform, matched) =
                    self.stage_platform(&platform_word, &state.stage, &arg_names, &lint)?;
                used.extend(matched);
                if let Some(&base) = self.by_name.get(&state.base_name) {
                    state.base = Some(self.for_platform(base, &platform, &ranges)?);
                }
                state.written_platform = Some(platform.clone());
                state.platform = Some(platform);
            }
            if !state.stage.name.is_empty() {
                let context = self.named_context(&state.stage.name, state.platform.as_ref())?;
                if context.is_some() {
                    state.named_context = context;
                    let at = self.add(state);
                    self.stages[at].base = None;
                    continue;
                }
            } else {
                state.stage_name = format!("stage-{number}");
            }
            let at = self.add(state);
            let no_cache = self.host.is_no_cache(&self.stages[at].stage.name);
            let state = &mut self.stages[at];
            state.outline.used_args.extend(used);
            let steps = state.stage.commands.iter().filter(|instruction| {
                matches!(
                    instruction.command,
                    Command::Add(_) | Command::Copy(_) | Command::Run(_) | Command::Workdir(_)
                )
            });
            state.cmd_total =
                steps.count() + usize::from(state.base_name != SCRATCH && state.base.is_none());
            state.ignore_cache = no_cache;
        }
        Ok(())
    }

    fn stage_platform(
        &self,
        word: &str,
        stage: &Stage,
        arg_names: &BTreeSet<String>,
        lint: &Linter,
    ) -> Result<(Platform, BTreeSet<String>), LowerError> {
        let ranges = &stage.origin.ranges;
        let platform_word = self.lex.process(word, &self.global_args);
        let so_far = platform_word.as_ref().unwrap_or_else(|error| &error.so_far);
        check::undefined_from_args(arg_names, &so_far.unmatched, ranges, lint);
        check::redundant_platform(word, so_far, &self.global_args, ranges, lint);
        check::constant_platform(&stage.name, so_far, ranges, lint);
        let platform_word = platform_word.map_err(|error| {
            LowerError::from(LowerErrorKind::PlatformArguments(String::new(), error)).at(ranges)
        })?;
        let near = || {
            let keys = self.global_args.keys();
            platform_word
                .unmatched
                .iter()
                .find_map(|name| suggest::nearest(name, keys.iter().copied(), true))
        };
        if platform_word.result.is_empty() {
            let kind = LowerErrorKind::EmptyPlatform {
                expression: word.to_owned(),
                near: near(),
            };
            return Err(LowerError::from(kind).at(ranges));
        }
        let platform = Platform::parse(&platform_word.result).map_err(|source| {
            let kind = LowerErrorKind::Platform {
                expression: word.to_owned(),
                source,
                near: near(),
            };
            // Twice, as BuildKit has it.
            LowerError::from(kind).at(ranges).at(ranges)
        })?;
        Ok((platform, platform_word.matched))
    }

    /// Adds a stage, based on the stage of its base name if there is one.
    fn add(&mut self, mut state: StageState) -> usize {
        if let Some(base) = state.base.or(self.by_name.get(&state.base_name).copied()) {
            state.base = Some(base);
            state.outline = self.stages[base].outline.clone();
            let below = &self.stages[base].written_platform;
            state.written_platform = state.written_platform.or_else(|| below.clone());
        }
        let at = self.stages.len();
        self.numbered.push(at);
        if !state.stage.name.is_empty() {
            self.by_name.insert(state.stage.name.to_lowercase(), at);
        }
        self.stages.push(state);
        at
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.stages
            .iter()
            .map(|stage| stage.stage_name.as_str())
            .filter(|name| !name.is_empty())
            .collect()
    }

    fn find_target(&self) -> Result<usize, LowerError> {
        let name = &self.options.target;
        if name.is_empty() {
            return Ok(self.stages.len() - 1);
        }
        match self.by_name.get(&name.to_lowercase()) {
            Some(&at) => Ok(at),
            None => {
                let near = suggest::nearest(name, self.names(), true);
                Err(LowerErrorKind::Target {
                    name: name.clone(),
                    near,
                }
                .into())
            }
        }
    }

    fn find_dependencies(&mut self) -> Result<(), LowerError> {
        for at in 0..self.stages.len() {
            let commands = std::mem::take(&mut self.stages[at].stage.commands);
            let mut steps = Vec::with_capacity(commands.len());
            for instruction in commands {
                steps.push(self.step(at, instruction, false)?);
            }
            self.stages[at].steps = steps;
        }
        self.refuse_cycles()?;
        if let [only] = self.stages.as_mut_slice() {
            only.stage_name.clear();
        }
        Ok(())
    }

    /// Finds the stages that a command takes files from.
    pub(super) fn step(
        &mut self,
        at: usize,
        instruction: Instruction,
        on_build: bool,
    ) -> Result<Step, LowerError> {
        let ranges = instruction.origin.ranges.clone();
        let mut sources = Vec::new();
        if let Command::Copy(copy) = &instruction.command {
            if !copy.from.is_empty() {
                let word = self.lex.process_word(&copy.from, &Env::default())?;
                if word != copy.from {
                    return Err(LowerErrorKind::FromExpansion.into());
                }
                sources.push(match copy.from.parse::<i64>() {
                    Ok(index) => usize::try_from(index)
                        .ok()
                        .and_then(|index| self.numbered.get(index).copied())
                        .ok_or(LowerErrorKind::StageIndex(index))?,
                    Err(_) => self.source(&copy.from.clone(), ranges.clone()),
                });
            }
        } else if let Command::Run(run) = &instruction.command {
            let froms: Vec<String> = run
                .mounts
                .iter()
                .map(|mount| {
                    if mount.from.is_empty() {
                        SCRATCH.to_owned()
                    } else {
                        mount.from.clone()
                    }
                })
                .collect();
            for from in froms {
                sources.push(self.source(&from, Vec::new()));
            }
        }
        let places: Arc<[Range]> = ranges.into();
        for &source in &sources {
            self.stages[at].deps.insert(source, Arc::clone(&places));
        }
        Ok(Step {
            instruction,
            sources,
            on_build,
        })
    }

    /// The stage of that name, or a new one that stands for an image or context.
    fn source(&mut self, name: &str, ranges: Vec<Range>) -> usize {
        if let Some(&at) = self.by_name.get(&name.to_lowercase()) {
            return at;
        }
        let paths = self.new_paths();
        self.add(StageState::unregistered(name, ranges, paths))
    }

    /// Remembers a context that is made when all used paths are known; returns a placeholder for its state.
    pub(crate) fn later(&mut self, stage: usize, make: LocalMaker) -> State {
        let late = Late::new();
        let state = State::new(Some(Output::late(&late)));
        self.pending.push(Pending { late, make, stage });
        state
    }

    async fn dispatch_all(
        &mut self,
        reachable: &BTreeSet<usize>,
        target: usize,
    ) -> Result<(), LowerError> {
        let patterns = self.host.ignore_patterns().await?;
        if !patterns.is_empty() {
            self.ignore =
                Some(pattern::PatternMatcher::new(&patterns).map_err(LowerErrorKind::Ignore)?);
        }
        let mut reported = BTreeSet::new();
        for at in 0..self.stages.len() {
            let skip = !reachable.contains(&at) || self.stages[at].dispatched;
            if skip && !self.options.all_stages {
                continue;
            }
            let lines = self.stages[at].repeats.unwrap_or(at);
            self.stages[at].silent = !reported.insert(lines);
            self.inherit(at)?;
            self.stages[at].dispatched = true;
            self.prepare(at)?;
            let steps = std::mem::take(&mut self.stages[at].steps);
            for step in steps {
                let ranges = step.instruction.origin.ranges.clone();
                self.dispatch(at, step).map_err(|error| error.at(&ranges))?;
                self.refuse_hoard().map_err(|error| error.at(&ranges))?;
            }
            self.note_scans(at);
        }
        let all = self.stages[target].paths;
        self.paths[all].insert("/".into());
        Ok(())
    }

    fn note_scans(&mut self, at: usize) {
        for name in NON_ENV_ARGS {
            let stage = &self.stages[at];
            let mut on = self
                .global_args
                .get(name)
                .is_some_and(|value| enabled_for(&stage.stage_name, value));
            for pair in stage.build_args.iter().filter(|pair| pair.key == name) {
                if let Some(value) = &pair.value {
                    on = enabled_for(&stage.stage_name, value);
                }
            }
            if on {
                let stage = &mut self.stages[at];
                if name == SCAN_CONTEXT {
                    stage.scan_context = true;
                } else {
                    stage.scan_stage = true;
                }
            }
        }
    }

    async fn finish(&mut self, target: usize) -> Result<(), LowerError> {
        let labels = self.options.labels.clone();
        self.stages[target].image.config.labels.extend(labels);
        checks::fail_if_asked(&self.lint)?;
        let used: BTreeSet<String> = self
            .stages
            .iter()
            .flat_map(|stage| stage.ctx_paths.iter().cloned())
            .collect();
        let context = self.host.main_context(follow_paths(&used)).await?;
        self.context.set(&context);
        for Pending { late, make, stage } in std::mem::take(&mut self.pending) {
            let used = follow_paths(&self.paths[self.stages[stage].paths]);
            late.set(&make(used));
        }
        let target_platform = self.platforms.target.clone();
        let implicit = self.platforms.implicit;
        let platform = &mut self.stages[target].image.platform;
        if !implicit {
            let same = target_platform.os == platform.os
                && target_platform.architecture == platform.architecture;
            platform.os = target_platform.os;
            platform.architecture = target_platform.architecture;
            if !target_platform.variant.is_empty() || !same {
                platform.variant = target_platform.variant;
            }
            if !target_platform.os_version.is_empty() || !same {
                platform.os_version = target_platform.os_version;
            }
            if !target_platform.os_features.is_empty() {
                platform.os_features = target_platform.os_features;
            }
        }
        *platform = platform.normalize();
        Ok(())
    }
}

impl std::fmt::Debug for Lowering<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lowering")
            .field("stages", &self.stages.len())
            .finish_non_exhaustive()
    }
}

fn enabled_for(stage: &str, value: &str) -> bool {
    gostd::strconv::parse_bool(value).unwrap_or_else(|_| value.split(',').any(|name| name == stage))
}

/// Relative, sorted paths; none when everything is used.
fn follow_paths(used: &BTreeSet<String>) -> Vec<String> {
    if used.contains("/") {
        return Vec::new();
    }
    let mut paths: Vec<String> = used
        .iter()
        .map(|path| gostd::path::join(&[".", path]))
        .collect();
    paths.sort();
    paths
}

/// The image of `FROM scratch`.
pub(crate) fn empty_image(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig {
        platform: platform.clone(),
        ..ImageConfig::default()
    };
    image.rootfs.kind = "layers".into();
    image.config.working_dir = "/".into();
    if platform.os != "windows" {
        image.config.env = vec![format!(
            "PATH={}",
            llb::build::exec::default_path(&platform.os)
        )];
    }
    image
}
