//! Dockerfile text to LLB, with no I/O.

pub mod check;
pub mod ignore;
pub mod instruction;
pub mod lint;
pub mod lower;
pub mod outline;
pub mod shell;
pub mod suggest;
pub mod syntax;
mod text;
