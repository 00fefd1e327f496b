//! Why a Dockerfile gave no definition.

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

/// An error of whoever resolves images and contexts for us.
pub type HostError = Arc<dyn Error + Send + Sync>;

/// Why a Dockerfile gave no definition, and where.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind}")]
pub struct LowerError {
    /// What is wrong.
    #[source]
    pub kind: Box<LowerErrorKind>,
    /// Where: each entry the lines of one instruction.
    pub locations: Vec<Vec<Range>>,
}

impl LowerError {
    /// Adds the place of an instruction.
    #[must_use]
    pub(crate) fn at(mut self, ranges: &[Range]) -> Self {
        self.locations.push(ranges.to_vec());
        self
    }

    /// What kind of error it is. Of an error of the resolver ([`Self::host`]) only what its causes tell is known here.
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

/// What is wrong. The texts are what clients know from BuildKit.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LowerErrorKind {
    /// No text.
    #[error("the Dockerfile cannot be empty")]
    Empty,
    /// No `FROM`.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// More than we take.
    // DIFFERS: BuildKit has no such limit; a file of this size keeps it busy for hours.
    #[error("dockerfile is too large: {what}, at most {most} are accepted")]
    TooLarge {
        /// What there is too much of.
        what: String,
        /// How much is accepted.
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
        /// As written.
        name: String,
        /// Why.
        source: HostError,
        /// A known name that looks like it.
        near: Option<String>,
    },
    /// `check=` options that are none.
    #[error("failed to parse check options: {0}")]
    CheckOptions(#[source] LintConfigError),
    /// Rules were violated and `check=error=true` is set.
    #[error(transparent)]
    Lint(#[from] LintError),
    /// `FROM` of nothing.
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// `FROM --platform` of nothing.
    #[error("empty platform value from expression {expression}{}", hint(near.as_ref()))]
    EmptyPlatform {
        /// As written.
        expression: String,
        /// A known variable that looks like the one in it.
        near: Option<String>,
    },
    /// `FROM --platform` that does not expand.
    #[error("failed to process arguments for platform {0}: {1}")]
    PlatformArguments(String, #[source] ShellError),
    /// `FROM --platform` of no platform.
    #[error("failed to parse platform {expression}: {source}{}", hint(near.as_ref()))]
    Platform {
        /// As written.
        expression: String,
        /// Why.
        source: oci::PlatformError,
        /// A known variable that looks like the one in it.
        near: Option<String>,
    },
    /// `FROM --platform` of a stage that is for another platform by itself.
    #[error(
        "stage {} is built for {own}, as line {line} says, and cannot go on for {expected}: remove one of the two --platform flags",
        quote(stage)
    )]
    StagePlatform {
        /// The stage.
        stage: String,
        /// What it is built for.
        own: String,
        /// The `FROM` that says so.
        line: usize,
        /// What is asked for.
        expected: String,
    },
    /// `FROM` of no image name.
    #[error("failed to parse stage name {}: {source}", quote(name))]
    StageName {
        /// As written.
        name: String,
        /// Why.
        source: oci::ReferenceError,
    },
    /// An image config that cannot be decoded.
    #[error("failed to parse image config: {0}")]
    ImageConfig(#[source] gostd::json::DecodeError),
    /// No such target.
    #[error("target stage {} could not be found{}", quote(name), hint(near.as_ref()))]
    Target {
        /// As asked.
        name: String,
        /// A stage that looks like it.
        near: Option<String>,
    },
    /// `--from=7` and fewer stages.
    #[error("invalid stage index {0}")]
    StageIndex(i64),
    /// `--from=$x`
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    FromExpansion,
    /// A stage that needs itself.
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
        /// The stage copied from.
        from: String,
        /// The stage copied to.
        stage: String,
    },
    /// `RUN --mount=from` of a later stage.
    #[error(
        "cannot mount from stage {} to {}, stage needs to be defined before current command",
        quote(from),
        quote(target)
    )]
    MountOrder {
        /// The stage mounted.
        from: String,
        /// Where to.
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
        /// As written, with slashes.
        target: String,
        /// Of the secret.
        id: String,
    },
    /// A secret of a Windows image that says nowhere.
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
    /// A heredoc `RUN` that makes no sense.
    #[error("parsing produced an invalid run command: {0}")]
    RunHeredoc(String),
    /// `--chmod` out of range.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Chmod(String),
    /// `--chmod` with letters that mean nothing.
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
    /// `ADD --checksum` of several.
    #[error("checksum can't be specified for multiple sources")]
    ChecksumMany,
    /// `ADD --checksum` of a local file.
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumLocal,
    /// An invalid digest.
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
    /// `EXPOSE` of no port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// `STOPSIGNAL` of no signal.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// `VOLUME` of an empty word.
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
