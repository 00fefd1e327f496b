//! Which stages are needed, and what they start with: base images, what stages inherit, and `ONBUILD` triggers.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures::future::try_join_all;
use llb::build::State;
use oci::ImageConfig;

use super::error::{LowerError, LowerErrorKind};
use super::graph::{Lowering, SCRATCH, empty_image};
use super::size::command_weight;
use super::stage::StageState;
use crate::instruction::{self, Command, Instruction, InstructionError, Parsed};
use crate::lint::Linter;
use crate::syntax::{self, Range};

/// Most bytes of arguments, variables and history entries that stages have and copy of each other.
const MAX_COPIED: usize = 512 << 20;
/// The same limit for all platforms of a build together, which are lowered at the same time.
const MAX_COPIED_BY_ALL: usize = 2 << 30;
/// Most base images that are resolved at a time.
const MAX_BASES_AT_ONCE: usize = 256;
/// Bytes that one entry takes beside its text.
pub(super) const ENV_ENTRY_BYTES: usize = 128;

impl Lowering<'_> {
    /// Resolves base images until `ONBUILD` triggers bring nothing new.
    pub(super) async fn resolve(&mut self, target: usize) -> Result<BTreeSet<usize>, LowerError> {
        loop {
            let reachable = self.reachable(target);
            self.resolve_bases(&reachable).await?;
            let mut more = false;
            for &at in &reachable {
                self.inherit(at)?;
                if self.stages[at].unregistered {
                    continue;
                }
                let mut triggers = std::mem::take(&mut self.stages[at].image.config.on_build);
                let base = self.stages[at].base;
                if let Some(base) = base
                    && !self.stages[at].onbuild_init
                {
                    for step in &self.stages[base].steps {
                        if let Command::Onbuild(onbuild) = &step.instruction.command {
                            triggers.push(onbuild.expression.clone());
                        }
                    }
                    self.stages[at].onbuild_init = true;
                }
                if !triggers.is_empty() {
                    more |= self.add_triggers(at, &triggers)?;
                }
            }
            if !more {
                return Ok(reachable);
            }
        }
    }

    async fn resolve_bases(&mut self, reachable: &BTreeSet<usize>) -> Result<(), LowerError> {
        let mut unresolved = Vec::new();
        for at in 0..self.stages.len() {
            let needed = reachable.contains(&at) || self.options.all_stages;
            let stage = &mut self.stages[at];
            if stage.base.is_some() || stage.dispatched || stage.resolved {
                continue;
            }
            stage.resolved = needed;
            if stage.base_name == SCRATCH && stage.named_context.is_none() {
                // `scratch` is for the target whatever is written; of a repetition the steps are for the other platform.
                let target = &self.platforms.target;
                let written = stage.repeats.and(stage.written_platform.clone());
                stage.state = match &written {
                    Some(platform) => State::scratch().platform(platform),
                    None => State::scratch(),
                };
                stage.image = empty_image(written.as_ref().unwrap_or(target));
                stage.platform = Some(written.unwrap_or_else(|| target.clone()));
                stage.dispatched |= stage.unregistered;
                continue;
            }
            unresolved.push((at, needed));
        }
        for batch in unresolved.chunks(MAX_BASES_AT_ONCE) {
            let this = &*self;
            let bases = batch.iter();
            let bases = bases.map(|&(at, needed)| this.resolve_base(at, needed));
            let bases = try_join_all(bases).await?;
            for (&(at, _), base) in batch.iter().zip(bases) {
                self.apply_base(at, base)?;
                let stage = &self.stages[at];
                self.charge(3 * config_cost(&stage.image))?;
            }
        }
        Ok(())
    }

    /// Copies state, image and variables of the base stage.
    pub(crate) fn inherit(&mut self, at: usize) -> Result<(), LowerError> {
        let Some(base) = self.stages[at].base else {
            return Ok(());
        };
        self.charge(copy_cost(&self.stages[base]))?;
        let (state, platform, mut image, base_image, from_nothing, paths, workdir_set, args) = {
            let base = &self.stages[base];
            (
                base.state.clone(),
                base.platform.clone(),
                base.image.clone(),
                base.base_image.clone(),
                base.from_nothing,
                base.paths,
                base.workdir_set,
                base.build_args.clone(),
            )
        };
        image.config.on_build.clear();
        let stage = &mut self.stages[at];
        stage.state = state;
        stage.platform = platform;
        stage.image = image;
        stage.env_places = None;
        stage.base_image = base_image;
        stage.from_nothing = from_nothing;
        stage.paths = paths;
        stage.workdir_set = workdir_set;
        stage.build_args.extend(args);
        Ok(())
    }

    /// Counts what stages have and copy of each other, in bytes: a small file must not fill the memory.
    pub(super) fn charge(&mut self, count: usize) -> Result<(), LowerError> {
        self.note_copied(count);
        self.refuse_hoard()
    }

    /// Counts copied bytes; the limit is checked later.
    pub(super) fn note_copied(&mut self, count: usize) {
        self.copied += count;
        self.options
            .copied_by_all
            .fetch_add(count, Ordering::Relaxed);
    }

    /// Fails when stages have copied more than [`MAX_COPIED`], or all platforms more than [`MAX_COPIED_BY_ALL`].
    pub(super) fn refuse_hoard(&self) -> Result<(), LowerError> {
        let all = self.options.copied_by_all.load(Ordering::Relaxed);
        for (copied, most, whose) in [
            (self.copied, MAX_COPIED, "stages have"),
            (all, MAX_COPIED_BY_ALL, "stages of all platforms have"),
        ] {
            if copied > most {
                let what = format!("{whose} {copied} bytes of arguments, variables and history");
                return Err(LowerErrorKind::TooLarge { what, most }.into());
            }
        }
        Ok(())
    }

    /// Puts triggers in front of the stage's commands. Returns whether the triggers take files from other stages.
    fn add_triggers(&mut self, at: usize, triggers: &[String]) -> Result<bool, LowerError> {
        let place = self.stages[at].stage.origin.ranges.clone();
        let relocate = |mut error: LowerError| {
            error.locations = vec![place.clone()];
            error
        };
        let (start, end) = (
            place
                .iter()
                .map(|range| range.start.line)
                .min()
                .unwrap_or_default(),
            place
                .iter()
                .map(|range| range.end.line)
                .max()
                .unwrap_or_default(),
        );
        self.count(triggers.len()).map_err(relocate)?;
        let mut steps = Vec::with_capacity(triggers.len());
        let mut more = false;
        for trigger in triggers {
            let mut instruction = trigger_instruction(trigger).map_err(relocate)?;
            self.count(command_weight(&instruction.command) - 1)
                .map_err(relocate)?;
            instruction.origin.ranges = Range::lines(start, end);
            if let Command::Arg(arg) = &mut instruction.command {
                arg.origin.ranges.clone_from(&instruction.origin.ranges);
            }
            let step = self.step(at, instruction, true).map_err(relocate)?;
            more |= !step.sources.is_empty();
            steps.push(step);
        }
        let stage = &mut self.stages[at];
        stage.cmd_total += steps.len();
        steps.append(&mut stage.steps);
        stage.steps = steps;
        Ok(more)
    }

    pub(super) fn refuse_cycles(&self) -> Result<(), LowerError> {
        // 0 not seen, 1 on the way, 2 done.
        type Rest<'s> = Vec<(usize, &'s [Range])>;
        let mut state_of = vec![0_u8; self.stages.len()];
        for root in 0..self.stages.len() {
            if state_of[root] != 0 {
                continue;
            }
            state_of[root] = 1;
            let mut way: Vec<(usize, Rest<'_>)> = vec![(root, self.deps(root))];
            let mut ranges: Vec<&[Range]> = Vec::new();
            while let Some((at, rest)) = way.last_mut() {
                let Some((dep, place)) = rest.pop() else {
                    state_of[*at] = 2;
                    way.pop();
                    ranges.pop();
                    continue;
                };
                match state_of[dep] {
                    0 => {
                        state_of[dep] = 1;
                        ranges.push(place);
                        way.push((dep, self.deps(dep)));
                    }
                    1 => {
                        ranges.push(place);
                        let name = self.stages[root].stage_name.clone();
                        let mut error = LowerError::from(LowerErrorKind::Circular(name));
                        for place in ranges {
                            error = error.at(place);
                        }
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn deps(&self, at: usize) -> Vec<(usize, &[Range])> {
        self.stages[at]
            .deps
            .iter()
            .map(|(&dep, ranges)| (dep, &**ranges))
            .collect()
    }

    /// The stages that `target` needs, itself included.
    pub(crate) fn reachable(&self, target: usize) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        let mut next = vec![target];
        while let Some(at) = next.pop() {
            if all.insert(at) {
                next.extend(self.stages[at].base);
                next.extend(self.stages[at].deps.keys());
            }
        }
        all
    }
}

/// How much a stage copies of the one it is based on, in bytes.
fn copy_cost(base: &StageState) -> usize {
    let args = base.build_args.iter();
    let args =
        args.map(|arg| ENV_ENTRY_BYTES + arg.key.len() + arg.value.as_ref().map_or(0, String::len));
    config_cost(&base.image) + args.sum::<usize>()
}

/// How much a config takes, in bytes.
fn config_cost(image: &ImageConfig) -> usize {
    let config = &image.config;
    let history = image.history.iter();
    let history =
        history.map(|entry| ENV_ENTRY_BYTES + entry.created_by.len() + entry.comment.len());
    let lists = [
        &config.env,
        &config.cmd,
        &config.entrypoint,
        &config.shell,
        &config.on_build,
    ];
    let lists = lists
        .into_iter()
        .flatten()
        .map(|text| ENV_ENTRY_BYTES + text.len());
    let labels = config.labels.iter();
    let labels = labels.map(|(key, value)| ENV_ENTRY_BYTES + key.len() + value.len());
    let sets = config.exposed_ports.keys().chain(config.volumes.keys());
    let sets = sets.map(|text| ENV_ENTRY_BYTES + text.len());
    history.chain(lists).chain(labels).chain(sets).sum()
}

/// The one instruction of an `ONBUILD` trigger.
fn trigger_instruction(trigger: &str) -> Result<Instruction, LowerError> {
    let tree = syntax::parse(trigger.as_bytes())?;
    let [node] = tree.root.children.as_slice() else {
        return Err(LowerErrorKind::OnbuildTrigger.into());
    };
    match instruction::parse_instruction(node, &Linter::silent())? {
        Parsed::Instruction(instruction) => Ok(instruction),
        Parsed::Stage(_) => Err(InstructionError::NotACommand.into()),
    }
}
