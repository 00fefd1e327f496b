//! Build stages.

use super::{Instruction, Origin};

/// A `FROM` and the commands up to the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stage {
    /// The name in lower case, empty when it has none.
    pub name: String,
    /// The stage or image it starts from, unexpanded.
    pub base_name: String,
    /// `--platform`, unexpanded.
    pub platform: String,
    /// The commands.
    pub commands: Vec<Instruction>,
    /// The comment that describes this stage, without its name.
    pub doc_comment: String,
    /// Where the `FROM` was written; its name keeps the case in which it was written.
    pub origin: Origin,
}

/// Finds the first stage of that name; names ignore case.
pub fn find_stage(stages: &[Stage], name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    stages
        .iter()
        .position(|stage| stage.name.to_lowercase() == name)
}
