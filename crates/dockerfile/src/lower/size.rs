//! How much a file may have: the work grows with the square of the number of instructions.

use super::error::{LowerError, LowerErrorKind};
use super::graph::Lowering;
use crate::instruction::{self, Command, Stage};

/// Most instructions and variables in one file.
const MAX_INSTRUCTIONS: usize = 20_000;

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
    if let Command::Env(env) = command {
        env.pairs.len()
    } else if let Command::Arg(arg) = command {
        arg.args.len()
    } else if let Command::Label(label) = command {
        label.pairs.len()
    } else {
        1
    }
}
