//! `FROM --platform=… stage`: a stage of the file once more, for the platform that is written.
//!
//! ```text
//!  FROM alpine AS tools                        tools   for the target's platform
//!  RUN …                                       tools'  for the build's, before `build`: the same lines as if
//!  FROM --platform=$BUILDPLATFORM tools AS build           `--platform` stood on their own FROM
//! ```
//!
//! A stage that is based on another is repeated with it. Each is repeated once for a platform, and counts as lines of the file.
// DIFFERS: BuildKit does not look at `--platform` when the base is a stage.

use oci::Platform;

use super::error::{LowerError, LowerErrorKind};
use super::graph::Lowering;
use super::size::command_weight;
use crate::syntax::Range;

impl Lowering<'_> {
    /// The stage `base` for a platform: itself, or its repetition. `ranges` is the `FROM` that wants it.
    pub(super) fn for_platform(
        &mut self,
        base: usize,
        platform: &Platform,
        ranges: &[Range],
    ) -> Result<usize, LowerError> {
        // From the top down to the first stage that is there for the platform; `at` is that one then, if there is any.
        let mut chain = Vec::new();
        let mut at = Some(base);
        while let Some(stage) = at {
            if let Some(&repetition) = self.repeated.get(&(stage, platform.clone())) {
                at = Some(repetition);
                break;
            }
            let own = self.stages[stage].written_platform.as_ref();
            if same_platform(platform, own.unwrap_or(&self.platforms.target)) {
                break;
            }
            if let Some(own) = own {
                return Err(self.contradiction(stage, own, platform).at(ranges));
            }
            chain.push(stage);
            at = self.stages[stage].base;
        }
        for original in chain.into_iter().rev() {
            at = Some(self.repeat(original, platform, at)?);
        }
        Ok(at.unwrap_or(base))
    }

    /// Adds a stage like `original` for a platform, based on `base`.
    fn repeat(
        &mut self,
        original: usize,
        platform: &Platform,
        base: Option<usize>,
    ) -> Result<usize, LowerError> {
        let mut stage = self.stages[original].clone();
        let commands = stage.stage.commands.iter();
        let weight = commands.map(|i| command_weight(&i.command)).sum::<usize>();
        self.count(1 + weight)?;
        self.charge(2 * stage.outline.weight())?;
        stage.platform = Some(platform.clone());
        stage.written_platform = Some(platform.clone());
        stage.repeats = Some(original);
        stage.base = base;
        stage.paths = self.new_paths();
        if stage.named_context.is_some() {
            stage.named_context = self.named_context(&stage.stage.name, Some(platform))?;
        }
        self.stages.push(stage);
        let at = self.stages.len() - 1;
        self.repeated.insert((original, platform.clone()), at);
        Ok(at)
    }

    /// The error that names the stage whose own `FROM` has another platform: the last of the bases.
    fn contradiction(&self, stage: usize, own: &Platform, expected: &Platform) -> LowerError {
        let mut naming_stage = stage;
        while self.stages[naming_stage].stage.platform.is_empty()
            && let Some(base) = self.stages[naming_stage].base
        {
            naming_stage = base;
        }
        let origin = &self.stages[naming_stage].stage.origin;
        LowerErrorKind::StagePlatform {
            stage: self.stages[stage].stage_name.clone(),
            own: own.format_all(),
            line: origin.ranges.first().map_or(0, |range| range.start.line),
            expected: expected.format_all(),
        }
        .into()
    }
}

/// Whether what is built for `there` is what `wanted` asks for.
fn same_platform(requested: &Platform, built: &Platform) -> bool {
    let (requested, built) = (requested.normalize(), built.normalize());
    requested.os == built.os
        && requested.architecture == built.architecture
        && requested.variant == built.variant
        && (requested.os_version.is_empty() || requested.os_version == built.os_version)
}
