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

#[cfg(test)]
mod tests;
