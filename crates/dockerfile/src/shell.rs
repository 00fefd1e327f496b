//! Shell words: variables, quotes and escapes, as far as a Dockerfile knows them.
//!
//! | written                            | gives                                                              |
//! |------------------------------------|--------------------------------------------------------------------|
//! | `$name`, `${name}`                 | the value, or nothing                                              |
//! | `${name-word}`, `${name:-word}`    | the value, or `word` when unset (`:`: or empty)                    |
//! | `${name+word}`, `${name:+word}`    | `word` when set (`:`: and not empty), or nothing                   |
//! | `${name?word}`, `${name:?word}`    | the value, or an error that says `word`                            |
//! | `${name#glob}`, `${name##glob}`    | the value without its shortest or longest prefix that matches      |
//! | `${name%glob}`, `${name%%glob}`    | the same at its end                                                |
//! | `${name/glob/word}`, `${name//…}`  | the value with the first or all matches replaced                   |
//! | `'…'`                              | literally                                                          |
//! | `"…"`                              | variables are replaced; the escape works on `"`, `$` and itself    |
//! | `\c`                               | `c`; the escape is `\` or a backquote, as the file's directive says |

mod env;
mod error;
mod glob;
mod lex;

pub use env::{Env, EnvList};
pub use error::{GlobError, ShellError, ShellErrorKind};
pub use lex::{Lexer, Word};

/// Longest result of one expansion, in bytes.
pub const MAX_RESULT: usize = 8 << 20;

/// Limit of all results of one lexer and its clones together, and of the values in them, in bytes: values that double with
/// each line would otherwise fill the memory.
pub const MAX_TOTAL: usize = 64 << 20;

/// How deep `${a:-${b:-…}}` may nest. Each level is one of the stack, some kilobytes of it in a build without optimisation.
pub const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests;
