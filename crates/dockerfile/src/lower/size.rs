//! Limit of instructions: the work grows with the square of their number. An instruction with many variables or sources counts as
//! that many.

use super::error::{LowerError, LowerErrorKind};
use super::graph::Lowering;
use crate::instruction::{self, Command, SourcesAndDest, Stage};
use crate::syntax::MAX_INSTRUCTIONS;

impl Lowering<'_> {
    /// Counts instructions and variables.
    pub(super) fn count(&mut self, instructions: usize) -> Result<(), LowerError> {
        self.instructions += instructions;
        refuse_huge(self.instructions)
    }
}

/// Fails when there are too many instructions and variables.
pub(super) fn refuse_huge(count: usize) -> Result<(), LowerError> {
    if count > MAX_INSTRUCTIONS {
        let what = format!("{count} instructions and variables");
        return Err(LowerErrorKind::TooLarge {
            what,
            most: MAX_INSTRUCTIONS,
        }
        .into());
    }
    Ok(())
}

/// How many instructions and variables a file has.
pub(super) fn count_instructions(stages: &[Stage], meta_args: &[instruction::Arg]) -> usize {
    let inside = stages.iter().flat_map(|stage| &stage.commands);
    let inside: usize = inside.map(|i| command_weight(&i.command)).sum();
    stages.len() + inside + meta_args.iter().map(|arg| arg.args.len()).sum::<usize>()
}

/// How many instructions and variables a command counts as.
pub(super) fn command_weight(command: &Command) -> usize {
    let files = |files: &SourcesAndDest, exclude: &[String]| {
        files.paths.len() + files.contents.len() + exclude.len()
    };
    let weight = if let Command::Env(env) = command {
        env.pairs.len()
    } else if let Command::Arg(arg) = command {
        arg.args.len()
    } else if let Command::Label(label) = command {
        label.pairs.len()
    } else if let Command::Copy(copy) = command {
        files(&copy.files, &copy.exclude)
    } else if let Command::Add(add) = command {
        files(&add.files, &add.exclude)
    } else if let Command::Run(run) = command {
        1 + run.mounts.len() + run.devices.len() + run.line.files.len()
    } else if let Command::Expose(expose) = command {
        expose.ports.len()
    } else if let Command::Volume(volume) = command {
        volume.volumes.len()
    } else {
        1
    };
    weight.max(1)
}
