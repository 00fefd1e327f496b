//! Errors of lowering.

use std::error::Error;
use std::sync::Arc;

use llb::build::BuildError;
use llb::git_url::GitRefError;
use oci::ErrorKind;
use oci::error::chain;

use super::expose::PortError;
use super::path::PathError;
use crate::instruction::{InstructionError, ParseError};
use crate::lint::{LintConfigError, LintError};
use crate::shell::ShellError;
use crate::syntax::{Range, SyntaxError};
use gostd::strconv::quote;

/// An error of the [`MetaResolver`](super::MetaResolver) that resolves images and contexts.
pub type HostError = Arc<dyn Error + Send + Sync>;

/// Why a Dockerfile did not lower, and where.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind}")]
pub struct LowerError {
    /// The error without its places.
    #[source]
    pub kind: Box<LowerErrorKind>,
    /// Places in the file; each entry has the lines of one instruction.
    pub locations: Vec<Vec<Range>>,
}

impl LowerError {
    /// Adds the place of an instruction.
    #[must_use]
    pub(crate) fn at(mut self, ranges: &[Range]) -> Self {
        self.locations.push(ranges.to_vec());
        self
    }

    /// What kind of error it is. The kind of a resolver's error ([`Self::host`]) is read from its causes.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind.kind()
    }

    /// The error of the resolver, when that is the cause.
    pub fn host(&self) -> Option<&HostError> {
        if let LowerErrorKind::Host(error) | LowerErrorKind::BaseImage { source: error, .. } =
            &*self.kind
        {
            return Some(error);
        }
        None
    }
}

impl<E: Into<LowerErrorKind>> From<E> for LowerError {
    fn from(kind: E) -> Self {
        Self {
            kind: Box::new(kind.into()),
            locations: Vec::new(),
        }
    }
}

impl From<ParseError> for LowerError {
    fn from(error: ParseError) -> Self {
        let locations = vec![error.ranges.clone()];
        Self {
            kind: Box::new(LowerErrorKind::Parse(error)),
            locations,
        }
    }
}

impl From<SyntaxError> for LowerError {
    fn from(error: SyntaxError) -> Self {
        let locations = vec![error.ranges.clone()];
        Self {
            kind: Box::new(LowerErrorKind::Syntax(error)),
            locations,
        }
    }
}

fn hint(near: Option<&String>) -> String {
    near.map(|near| format!(" (did you mean {near}?)"))
        .unwrap_or_default()
}

/// Why a Dockerfile did not lower. The texts are BuildKit's, because clients compare them.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LowerErrorKind {
    /// The file is empty.
    #[error("the Dockerfile cannot be empty")]
    Empty,
    /// The file has no `FROM`.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// The file has more of something than the limit.
    // DIFFERS: BuildKit has no such limit; a file of this size keeps it busy for hours.
    #[error("dockerfile is too large: {what}, at most {most} are accepted")]
    TooLarge {
        /// The counted thing and its number.
        what: String,
        /// The limit.
        most: usize,
    },
    /// The text does not parse.
    #[error(transparent)]
    Syntax(SyntaxError),
    /// An instruction does not parse.
    #[error(transparent)]
    Parse(ParseError),
    /// An instruction does not expand.
    #[error(transparent)]
    Instruction(#[from] InstructionError),
    /// A word does not expand.
    #[error(transparent)]
    Shell(#[from] ShellError),
    /// The graph does not marshal.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The resolver failed.
    #[error("{}", chain(.0.as_ref()))]
    Host(#[source] HostError),
    /// A base image did not resolve.
    #[error("{name}: {}{}", chain(source.as_ref()), hint(near.as_ref()))]
    BaseImage {
        /// The base name as written.
        name: String,
        /// The resolver's error.
        source: HostError,
        /// The known name that is nearest to it.
        near: Option<String>,
    },
    /// The `check=` options did not parse.
    #[error("failed to parse check options: {0}")]
    CheckOptions(#[source] LintConfigError),
    /// Rules were violated and `check=error=true` is set.
    #[error(transparent)]
    Lint(#[from] LintError),
    /// `FROM` has a blank base name.
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// `FROM --platform` expands to nothing.
    #[error("empty platform value from expression {expression}{}", hint(near.as_ref()))]
    EmptyPlatform {
        /// The expression as written.
        expression: String,
        /// The known variable that is nearest to the one in the expression.
        near: Option<String>,
    },
    /// `FROM --platform` did not expand.
    #[error("failed to process arguments for platform {0}: {1}")]
    PlatformArguments(String, #[source] ShellError),
    /// `FROM --platform` names no platform.
    #[error("failed to parse platform {expression}: {source}{}", hint(near.as_ref()))]
    Platform {
        /// The expression as written.
        expression: String,
        /// Why it names no platform.
        source: oci::PlatformError,
        /// The known variable that is nearest to the one in the expression.
        near: Option<String>,
    },
    /// `FROM --platform` is on a stage whose own `FROM` names another platform.
    #[error(
        "stage {} is built for {own}, as line {line} says, and cannot go on for {expected}: remove one of the two --platform flags",
        quote(stage)
    )]
    StagePlatform {
        /// Name of the stage.
        stage: String,
        /// Platform that the stage is built for.
        own: String,
        /// Line of the `FROM` that names that platform.
        line: usize,
        /// Platform that this `FROM` names.
        expected: String,
    },
    /// The base name is not a valid image reference.
    #[error("failed to parse stage name {}: {source}", quote(name))]
    StageName {
        /// The base name as written.
        name: String,
        /// Why it is not a reference.
        source: oci::ReferenceError,
    },
    /// An image config that cannot be decoded.
    #[error("failed to parse image config: {0}")]
    ImageConfig(#[source] gostd::json::DecodeError),
    /// The file has no stage of the target's name.
    #[error("target stage {} could not be found{}", quote(name), hint(near.as_ref()))]
    Target {
        /// Name of the target in the request.
        name: String,
        /// The stage that is nearest to it.
        near: Option<String>,
    },
    /// `--from=7` refers to a stage that does not exist.
    #[error("invalid stage index {0}")]
    StageIndex(i64),
    /// `--from=$x`
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    FromExpansion,
    /// A stage depends on itself.
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    /// An `ONBUILD` of a base image with more than one instruction.
    #[error("onbuild trigger should be a single expression")]
    OnbuildTrigger,
    /// `COPY --from` of a later stage.
    #[error(
        "cannot copy from stage {}, it needs to be defined before current stage {}",
        quote(from),
        quote(stage)
    )]
    CopyOrder {
        /// Stage that is copied from.
        from: String,
        /// Stage that the copy stands in.
        stage: String,
    },
    /// `RUN --mount=from` of a later stage.
    #[error(
        "cannot mount from stage {} to {}, stage needs to be defined before current command",
        quote(from),
        quote(target)
    )]
    MountOrder {
        /// Stage that is mounted.
        from: String,
        /// Path of the mount.
        target: String,
    },
    /// A mount over the root.
    #[error("invalid mount target {}", quote(.0))]
    MountTarget(String),
    /// A secret without a name.
    #[error("one of source, target required")]
    SecretName,
    /// A secret of a Windows image without a target path.
    #[error(
        "secret target {} must be an absolute path with forward slashes on Windows, e.g. --mount=type=secret,id={id},target=C:/path/to/secret",
        quote(target)
    )]
    SecretTargetRelative {
        /// The target as written, with slashes.
        target: String,
        /// Id of the secret.
        id: String,
    },
    /// A secret mount of a Windows image has neither `target` nor `env`.
    #[error(
        "secret target is required on Windows, e.g. --mount=type=secret,id={0},target=C:/path/to/secret"
    )]
    SecretTargetMissing(String),
    /// An invalid path in the image.
    #[error("removing drive letter: {0}")]
    Drive(#[source] PathError),
    /// An invalid path to copy from.
    #[error("removing drive letter: removing drive letter: {0}")]
    SourceDrive(#[source] PathError),
    /// An invalid working directory.
    #[error("normalizing workdir: normalizing working directory: removing drive letter: {0}")]
    Workdir(#[source] PathError),
    /// `--mount=type=ssh,source=`
    #[error("ssh does not support source")]
    SshSource,
    /// The heredocs of a `RUN` do not form a command.
    #[error("parsing produced an invalid run command: {0}")]
    RunHeredoc(String),
    /// `--chmod` out of range.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Chmod(String),
    /// `--chmod` has letters that chmod(1) does not have.
    #[error("invalid syntax")]
    ChmodSyntax(String),
    /// `--chown` by name with `--link`.
    #[error(
        "--chown={0}: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead"
    )]
    ChownLink(String),
    /// `COPY --checksum`
    #[error("checksum can't be specified for COPY")]
    ChecksumCopy,
    /// `ADD --checksum` has several sources.
    #[error("checksum can't be specified for multiple sources")]
    ChecksumMany,
    /// `ADD --checksum` has a local file as its source.
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumLocal,
    /// The digest did not parse.
    #[error("{0}")]
    Checksum(#[source] oci::DigestError),
    /// `--checksum` and the URL disagree.
    #[error("checksum mismatch {} != {}", quote(.0), quote(.1))]
    ChecksumMismatch(String, String),
    /// `COPY https://….git`
    #[error("source can't be a git ref for COPY")]
    CopyGit,
    /// `COPY https://…`
    #[error("source can't be a URL for COPY")]
    CopyUrl,
    /// A git URL whose query is wrong.
    #[error(transparent)]
    GitRef(#[from] GitRefError),
    /// `--keep-git-dir` and the URL disagree.
    #[error("inconsistent keep-git-dir configuration")]
    KeepGitDir,
    /// `EXPOSE` has a word that names no port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// `STOPSIGNAL` names no signal.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// `VOLUME` has an empty word.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// `SOURCE_DATE_EPOCH` that is neither a time nor a source.
    #[error("invalid SOURCE_DATE_EPOCH: {0}")]
    Epoch(String),
    /// `SOURCE_DATE_EPOCH` of a stage that is not only a source.
    #[error("{0}")]
    EpochStage(String),
    /// An ignore file that does not parse.
    #[error("{0}")]
    Ignore(#[source] pattern::PatternError),
}

impl LowerErrorKind {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Syntax(error) => error.kind.kind(),
            Self::Parse(error) => error.reason.kind(),
            Self::Instruction(error) => error.kind(),
            Self::Shell(error) => error.kind.kind(),
            Self::CheckOptions(error) => error.kind(),
            Self::Build(error) => error.kind(),
            Self::GitRef(error) => error.kind(),
            Self::Port(error) => error.kind(),
            Self::Host(error) | Self::BaseImage { source: error, .. } => {
                ErrorKind::of_causes(error.as_ref())
            }
            Self::Target { .. } | Self::StageIndex(_) => ErrorKind::NotFound,
            Self::TooLarge { .. } => ErrorKind::Hostile,
            Self::Empty
            | Self::NoStages
            | Self::Lint(_)
            | Self::BlankBase(_)
            | Self::EmptyPlatform { .. }
            | Self::PlatformArguments(..)
            | Self::Platform { .. }
            | Self::StagePlatform { .. }
            | Self::StageName { .. }
            | Self::ImageConfig(_)
            | Self::FromExpansion
            | Self::Circular(_)
            | Self::OnbuildTrigger
            | Self::CopyOrder { .. }
            | Self::MountOrder { .. }
            | Self::MountTarget(_)
            | Self::SecretName
            | Self::SecretTargetRelative { .. }
            | Self::SecretTargetMissing(_)
            | Self::Drive(_)
            | Self::SourceDrive(_)
            | Self::Workdir(_)
            | Self::SshSource
            | Self::RunHeredoc(_)
            | Self::Chmod(_)
            | Self::ChmodSyntax(_)
            | Self::ChownLink(_)
            | Self::ChecksumCopy
            | Self::ChecksumMany
            | Self::ChecksumLocal
            | Self::Checksum(_)
            | Self::ChecksumMismatch(..)
            | Self::CopyGit
            | Self::CopyUrl
            | Self::KeepGitDir
            | Self::Signal(_)
            | Self::EmptyVolume
            | Self::Epoch(_)
            | Self::EpochStage(_)
            | Self::Ignore(_) => ErrorKind::Invalid,
        }
    }
}

impl From<HostError> for LowerErrorKind {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}
