//! The generic tree.

use std::fmt::Write as _;

use super::{Heredoc, Range, parse_heredoc};
use gostd::strconv::quote;

/// A word with what follows it.
///
/// Words of a line are a list; a word that is itself an instruction (after `ONBUILD`) has it as its child. BuildKit's
/// tree is a chain of `next` pointers, ours is a vector: a list of a million words must not be a million frames deep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// The word; for an instruction its name as written.
    pub value: String,
    /// The words that follow.
    pub args: Vec<Node>,
    /// The instructions inside.
    pub children: Vec<Node>,
    /// Heredocs that belong to the instruction.
    pub heredocs: Vec<Heredoc>,
    /// Whether the arguments were written as a JSON array.
    pub json: bool,
    /// The logical line.
    pub original: String,
    /// Flags in front of the arguments.
    pub flags: Vec<String>,
    /// The first line.
    pub start_line: usize,
    /// The last line, heredocs included.
    pub end_line: usize,
    /// The comments directly above.
    pub comments: Vec<String>,
    /// Carriage returns that became part of the instruction.
    pub carriage_returns: Vec<CarriageReturn>,
}

/// Carriage returns that are no part of a line's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriageReturn {
    /// The heredoc whose lines have them; otherwise they stand inside of the instruction's own line.
    pub heredoc: Option<String>,
    /// Lines that have them.
    pub ranges: Vec<Range>,
}

impl Node {
    /// Makes a node with a word alone.
    pub fn word(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            ..Self::default()
        }
    }

    /// Returns one range per line.
    pub fn ranges(&self) -> Vec<Range> {
        Range::lines(self.start_line, self.end_line)
    }

    /// Returns the arguments as plain words; the words of an inner instruction follow its name.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        self.collect_words(&mut words);
        words
    }

    fn collect_words(&self, words: &mut Vec<String>) {
        for arg in &self.args {
            match arg.children.as_slice() {
                [] => words.push(arg.value.clone()),
                [child] => {
                    words.push(child.value.clone());
                    child.collect_words(words);
                }
                _ => {}
            }
        }
    }

    /// Writes the tree as s-expressions.
    pub fn dump(&self) -> String {
        let mut out = self.value.to_lowercase();
        if !self.flags.is_empty() {
            let flags: Vec<String> = self.flags.iter().map(quote).collect();
            let _ = write!(out, " [{}]", flags.join(" "));
        }
        for child in &self.children {
            let _ = writeln!(out, "({})", child.dump());
        }
        for arg in &self.args {
            out.push(' ');
            out.push_str(&if arg.children.is_empty() {
                quote(&arg.value)
            } else {
                arg.dump()
            });
        }
        out.trim().to_owned()
    }

    /// The instruction itself, or the one after `ONBUILD`.
    fn inner(&self) -> &Self {
        match self.args.first().and_then(|arg| arg.children.first()) {
            Some(child) if self.value.eq_ignore_ascii_case("onbuild") => child,
            _ => self,
        }
    }

    /// Whether a heredoc is all that a `RUN` has, so that it is the step's script.
    pub(super) fn is_script(&self) -> bool {
        let inner = self.inner();
        inner.value.eq_ignore_ascii_case("run")
            && !inner.json
            && matches!(inner.args.as_slice(), [word] if matches!(parse_heredoc(&word.value), Ok(Some(_))))
    }

    pub(super) fn takes_heredocs(&self) -> bool {
        let inner = self.inner();
        !inner.json
            && ["add", "copy", "run"]
                .iter()
                .any(|name| inner.value.eq_ignore_ascii_case(name))
    }
}
