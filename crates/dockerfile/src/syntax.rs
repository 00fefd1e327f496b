//! Dockerfile text to a tree of words.
//!
//! Bytes go through three steps: parser directives at the top ([`directive`]), logical lines with continuations joined
//! and comments set aside, and a small grammar for each instruction that turns a line into a [`Node`]. What the words
//! mean is decided in [`crate::instruction`].

pub mod directive;
mod error;
mod heredoc;
mod line;
mod node;
mod parse;
mod range;
mod source;
mod words;

pub use error::{SyntaxError, SyntaxErrorKind};
pub use heredoc::{Heredoc, chomp, parse_heredoc};
pub use node::{CarriageReturn, Node};
pub use parse::{EmptyContinuation, Tree, parse};
pub use range::{Position, Range};
pub use source::to_utf8;

/// The longest line, in bytes, without its line end.
pub const MAX_LINE: usize = 64 * 1024 - 1;

/// The longest instruction, in bytes: its lines joined, without heredocs.
pub const MAX_INSTRUCTION: usize = 1 << 20;

/// Most instructions in a file.
pub const MAX_INSTRUCTIONS: usize = 20_000;

/// Most words of instructions in a file, and in one of them; what is kept as text counts as one.
pub const MAX_WORDS: usize = 200_000;

/// Most comments above one instruction that are kept.
const MAX_COMMENTS: usize = 10_000;

#[cfg(test)]
mod tests;
