//! Dockerfile instructions as types.
//!
//! [`parse`] turns the generic tree of [`crate::syntax`] into stages. Words are kept unexpanded: a command is expanded
//! later, once, with [`Command::expand`], when the variables of its place in the stage are known.

mod command;
mod device;
mod error;
mod flag;
mod mount;
mod number;
mod parse;
mod stage;

pub use command::{
    Add, Arg, ArgPair, Command, CommandLine, Copy, Env, Expander, Expose, Healthcheck,
    HealthcheckConfig, InlineFile, Instruction, Label, Maintainer, NetworkMode, Onbuild, Origin,
    Pair, Run, SecurityMode, Shell, SourceContent, SourcesAndDest, StopSignal, User, Volume,
    Workdir,
};
pub use device::Device;
pub use error::{InstructionError, ParseError};
pub use mount::{Mount, MountType, ShareMode};
pub use parse::{Parsed, parse, parse_instruction};
pub use stage::{Stage, find_stage};

/// The instructions of the language, in upper case and in alphabetical order.
pub const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

#[cfg(test)]
mod tests;
