//! Errors of parsing instructions.

use crate::shell::ShellError;
use crate::syntax::Range;
use gostd::strconv::quote;
use oci::ErrorKind;

/// Why a Dockerfile did not parse into stages. The text is what clients know from BuildKit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}{reason}", prefix(*line))]
pub struct ParseError {
    /// The line of the instruction, when the text is to name it.
    pub line: Option<usize>,
    /// The error without its place.
    #[source]
    pub reason: InstructionError,
    /// The lines of the instruction.
    pub ranges: Vec<Range>,
}

fn prefix(line: Option<usize>) -> String {
    line.map(|line| format!("dockerfile parse error on line {line}: "))
        .unwrap_or_default()
}

fn hint(near: Option<&String>) -> String {
    near.map(|near| format!(" (did you mean {near}?)"))
        .unwrap_or_default()
}

/// Why an instruction did not parse.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InstructionError {
    /// The language has no instruction of this name.
    #[error("unknown instruction: {name}{}", hint(near.as_ref()))]
    UnknownInstruction {
        /// The instruction's name as written.
        name: String,
        /// The known instruction that is nearest to it.
        near: Option<String>,
    },
    /// The instruction has no flag of this name.
    #[error("unknown flag: --{name}{}", hint(near.as_ref()))]
    UnknownFlag {
        /// The flag as written, without dashes.
        name: String,
        /// The known flag that is nearest to it.
        near: Option<String>,
    },
    /// Text where a flag must be.
    #[error("arg should start with -- : {0}")]
    NotAFlag(String),
    /// A flag that may stand once stands twice.
    #[error("duplicate flag specified: --{0}")]
    DuplicateFlag(String),
    /// A flag that needs a value has none.
    #[error("missing a value on flag: --{0}")]
    FlagWithoutValue(String),
    /// A yes-or-no flag has another value.
    #[error("expecting boolean value for flag --{flag}, not: {value}")]
    FlagNotBoolean {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
    /// A command stands before the first `FROM`.
    #[error("no build stage in current context")]
    NoStage,
    /// `FROM` where only a command can be.
    #[error("*instructions.Stage is not a command type")]
    NotACommand,
    /// An instruction without arguments.
    #[error("{0} requires at least one argument")]
    AtLeastOneArgument(&'static str),
    /// Not one word after the instruction.
    #[error("{0} requires exactly one argument")]
    ExactlyOneArgument(&'static str),
    /// A source and no destination.
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    /// A heredoc as destination.
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    /// An empty key.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// Key and value lists that do not pair up.
    #[error("Bad input to {0}, too many arguments")]
    TooManyArguments(&'static str),
    /// A command that exists in exec form only.
    #[error("{0} requires the arguments to be in JSON form")]
    NotJson(&'static str),
    /// A stage name that cannot be one.
    #[error("invalid name for build stage: {}, name can't start with a number or contain symbols", quote(.0))]
    InvalidStageName(String),
    /// `FROM` has neither one nor three words.
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    /// `ONBUILD ONBUILD`
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    ChainedOnbuild,
    /// `ONBUILD FROM`, `ONBUILD MAINTAINER`
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnbuildTrigger(String),
    /// `HEALTHCHECK NONE` has further words.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    /// `HEALTHCHECK CMD` has no command.
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthcheckWithoutCommand,
    /// The word after `HEALTHCHECK` is neither `NONE` nor `CMD`.
    #[error("Unknown type {} in HEALTHCHECK (try CMD)", quote(.0))]
    HealthcheckType(String),
    /// An interval that is too short.
    #[error("Interval {} cannot be less than 1ms", quote(.0))]
    IntervalTooShort(&'static str),
    /// An invalid duration.
    #[error(transparent)]
    Duration(#[from] gostd::time::ParseDurationError),
    /// A count that is not a number.
    #[error("{source}")]
    NotANumber {
        /// The count as written.
        value: String,
        /// The error of Go's `strconv`, in its words.
        source: gostd::strconv::ParseIntError,
    },
    /// A negative count.
    #[error("--retries cannot be negative ({0})")]
    NegativeRetries(i64),
    /// An empty volume.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// The network mode does not exist.
    #[error("invalid network mode {}", quote(.0))]
    NetworkMode(String),
    /// The security mode does not exist.
    #[error("security {} is not valid", quote(.0))]
    SecurityMode(String),
    /// Containers of the target system have no signals.
    #[error("The daemon on this platform does not support the command stopsignal")]
    StopSignalOnWindows,
    /// An invalid comma-separated list.
    #[error("failed to parse csv {what}: {reason}")]
    Csv {
        /// The list that did not parse: `mounts` or `devices`.
        what: &'static str,
        /// Why the list is not CSV.
        #[source]
        reason: gostd::csv::CsvError,
    },
    /// A key without a value.
    #[error("invalid field '{0}' must be a key=value pair")]
    NotAPair(String),
    /// A key of another mount type.
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyForType {
        /// The key.
        key: String,
        /// The mount type.
        kind: &'static str,
    },
    /// The mount type has no key of this name.
    #[error("unexpected key '{key}' in '{field}'{}", hint(near.as_ref()))]
    UnknownKey {
        /// The key.
        key: String,
        /// The key and its value.
        field: String,
        /// The known key that is nearest to it.
        near: Option<String>,
    },
    /// A variable stands where none is expanded.
    #[error("'{0}' doesn't support variable expansion, define alias stage instead")]
    VariableInKey(String),
    /// The mount type does not exist.
    #[error("unsupported mount type {}{}", quote(value), hint(near.as_ref()))]
    MountType {
        /// The type as written.
        value: String,
        /// The known type that is nearest to it.
        near: Option<String>,
    },
    /// The sharing mode does not exist.
    #[error("unsupported sharing value {}{}", quote(value), hint(near.as_ref()))]
    Sharing {
        /// The mode as written.
        value: String,
        /// The known mode that is nearest to it.
        near: Option<String>,
    },
    /// A value its key does not accept.
    #[error("invalid value for {key}: {value}")]
    InvalidValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// A number its key does not accept.
    #[error("invalid value {value} for {key}")]
    InvalidNumber {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// Owner or mode on a mount that has none.
    #[error("{key} not allowed for {} type mounts", quote(kind))]
    NotAllowed {
        /// The key.
        key: &'static str,
        /// The mount type.
        kind: &'static str,
    },
    /// A secret mount has `from`, but secrets come from the client only.
    #[error("secret mount should not have a from")]
    SecretFrom,
    /// A secret mount has `sharing`, which only cache mounts have.
    #[error("secret mount should not define sharing")]
    SecretSharing,
    /// A secret mount has neither `id` nor `source` nor `target`.
    #[error("invalid secret mount. one of source, target required")]
    SecretWithoutName,
    /// A secret mount has both `source` and `id`.
    #[error("both source and id can't be set")]
    SecretNamedTwice,
    /// Sharing on a mount that is not a cache mount.
    #[error("invalid cache sharing set for {0} mount")]
    SharingForType(&'static str),
    /// A device named twice.
    #[error("device name already set to {0}")]
    DeviceNamedTwice(String),
    /// A word did not expand.
    #[error(transparent)]
    Shell(#[from] ShellError),
}

impl InstructionError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Shell(error) => error.kind.kind(),
            Self::UnknownInstruction { .. }
            | Self::UnknownFlag { .. }
            | Self::NotAFlag(_)
            | Self::DuplicateFlag(_)
            | Self::FlagWithoutValue(_)
            | Self::FlagNotBoolean { .. }
            | Self::NoStage
            | Self::NotACommand
            | Self::AtLeastOneArgument(_)
            | Self::ExactlyOneArgument(_)
            | Self::NoDestination(_)
            | Self::HeredocDestination(_)
            | Self::BlankName(_)
            | Self::TooManyArguments(_)
            | Self::NotJson(_)
            | Self::InvalidStageName(_)
            | Self::FromArguments
            | Self::ChainedOnbuild
            | Self::OnbuildTrigger(_)
            | Self::HealthcheckNone
            | Self::HealthcheckWithoutCommand
            | Self::HealthcheckType(_)
            | Self::IntervalTooShort(_)
            | Self::Duration(_)
            | Self::NotANumber { .. }
            | Self::NegativeRetries(_)
            | Self::EmptyVolume
            | Self::NetworkMode(_)
            | Self::SecurityMode(_)
            | Self::StopSignalOnWindows
            | Self::Csv { .. }
            | Self::NotAPair(_)
            | Self::KeyForType { .. }
            | Self::UnknownKey { .. }
            | Self::VariableInKey(_)
            | Self::MountType { .. }
            | Self::Sharing { .. }
            | Self::InvalidValue { .. }
            | Self::InvalidNumber { .. }
            | Self::NotAllowed { .. }
            | Self::SecretFrom
            | Self::SecretSharing
            | Self::SecretWithoutName
            | Self::SecretNamedTwice
            | Self::SharingForType(_)
            | Self::DeviceNamedTwice(_) => ErrorKind::Invalid,
        }
    }
}
