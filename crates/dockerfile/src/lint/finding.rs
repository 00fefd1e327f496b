//! Violations of lint rules and their messages.

use std::fmt;

use super::rule::{self, Rule};
use gostd::strconv::quote;

/// One violation of a rule. Its text is the warning's message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are the words of the sentences below"
)]
pub enum Finding {
    /// A stage's name has capitals.
    StageNameCasing { name: String },
    /// `FROM … as` or `from … AS`.
    FromAsCasing { from: String, keyword: String },
    /// An empty line in a continued one.
    NoEmptyContinuation,
    /// An instruction in another case than most; `case` is `lowercase` or `uppercase`.
    ConsistentInstructionCasing { name: String, case: &'static str },
    /// Two stages have the same name.
    DuplicateStageName { name: String },
    /// A stage has a reserved name (`context`, `scratch`).
    ReservedStageName { name: String },
    /// Shell form of `CMD` or `ENTRYPOINT`.
    JsonArgsRecommended { instruction: String },
    /// `MAINTAINER`.
    MaintainerDeprecated,
    /// `FROM` uses an argument that no `ARG` declares.
    UndefinedArgInFrom { arg: String, near: Option<String> },
    /// A relative `WORKDIR` that depends on the image.
    WorkdirRelativePath { path: String },
    /// A variable is used that nothing sets.
    UndefinedVar { name: String, near: Option<String> },
    /// A stage has two of an instruction of which only the last takes effect.
    MultipleInstructionsDisallowed { instruction: String },
    /// `ENV key value`.
    LegacyKeyValueFormat { instruction: String },
    /// The image is for another platform.
    InvalidBaseImagePlatform {
        image: String,
        expected: String,
        actual: String,
    },
    /// `FROM --platform=$TARGETPLATFORM`.
    RedundantTargetPlatform { variable: String },
    /// A variable that sounds like a secret.
    SecretsUsedInArgOrEnv {
        instruction: &'static str,
        name: String,
    },
    /// Without build arguments the base has no valid name.
    InvalidDefaultArgInFrom { base: String },
    /// `FROM --platform=linux/amd64`.
    FromPlatformFlagConstDisallowed { platform: String },
    /// A source that is not in the context; `command` is `Copy` or `Add`.
    CopyIgnoredFile { command: &'static str, file: String },
    /// A comment above a stage or argument that does not describe it.
    InvalidDefinitionDescription {
        instruction: &'static str,
        name: String,
    },
    /// `EXPOSE 80/TCP`.
    ExposeProtoCasing { port: String },
    /// `EXPOSE 127.0.0.1:80:80`.
    ExposeInvalidFormat { port: String },
    /// A carriage return in a heredoc's lines, or inside of an instruction's line.
    CarriageReturn { heredoc: Option<String> },
}

impl Finding {
    /// Returns the rule that is broken.
    pub fn rule(&self) -> &'static Rule {
        match self {
            Self::StageNameCasing { .. } => &rule::STAGE_NAME_CASING,
            Self::FromAsCasing { .. } => &rule::FROM_AS_CASING,
            Self::NoEmptyContinuation => &rule::NO_EMPTY_CONTINUATION,
            Self::ConsistentInstructionCasing { .. } => &rule::CONSISTENT_INSTRUCTION_CASING,
            Self::DuplicateStageName { .. } => &rule::DUPLICATE_STAGE_NAME,
            Self::ReservedStageName { .. } => &rule::RESERVED_STAGE_NAME,
            Self::JsonArgsRecommended { .. } => &rule::JSON_ARGS_RECOMMENDED,
            Self::MaintainerDeprecated => &rule::MAINTAINER_DEPRECATED,
            Self::UndefinedArgInFrom { .. } => &rule::UNDEFINED_ARG_IN_FROM,
            Self::WorkdirRelativePath { .. } => &rule::WORKDIR_RELATIVE_PATH,
            Self::UndefinedVar { .. } => &rule::UNDEFINED_VAR,
            Self::MultipleInstructionsDisallowed { .. } => &rule::MULTIPLE_INSTRUCTIONS_DISALLOWED,
            Self::LegacyKeyValueFormat { .. } => &rule::LEGACY_KEY_VALUE_FORMAT,
            Self::InvalidBaseImagePlatform { .. } => &rule::INVALID_BASE_IMAGE_PLATFORM,
            Self::RedundantTargetPlatform { .. } => &rule::REDUNDANT_TARGET_PLATFORM,
            Self::SecretsUsedInArgOrEnv { .. } => &rule::SECRETS_USED_IN_ARG_OR_ENV,
            Self::InvalidDefaultArgInFrom { .. } => &rule::INVALID_DEFAULT_ARG_IN_FROM,
            Self::FromPlatformFlagConstDisallowed { .. } => {
                &rule::FROM_PLATFORM_FLAG_CONST_DISALLOWED
            }
            Self::CopyIgnoredFile { .. } => &rule::COPY_IGNORED_FILE,
            Self::InvalidDefinitionDescription { .. } => &rule::INVALID_DEFINITION_DESCRIPTION,
            Self::ExposeProtoCasing { .. } => &rule::EXPOSE_PROTO_CASING,
            Self::ExposeInvalidFormat { .. } => &rule::EXPOSE_INVALID_FORMAT,
            Self::CarriageReturn { .. } => &rule::CARRIAGE_RETURN,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StageNameCasing { name } => write!(f, "Stage name '{name}' should be lowercase"),
            Self::FromAsCasing { from, keyword } => {
                write!(f, "'{keyword}' and '{from}' keywords' casing do not match")
            }
            Self::NoEmptyContinuation => f.write_str("Empty continuation line"),
            Self::ConsistentInstructionCasing { name, case } => write!(
                f,
                "Command '{name}' should match the case of the command majority ({case})"
            ),
            Self::DuplicateStageName { name } => write!(
                f,
                "Duplicate stage name {}, stage names should be unique",
                quote(name)
            ),
            Self::ReservedStageName { name } => write!(
                f,
                "Stage name should not use the same name as reserved stage {}",
                quote(name)
            ),
            Self::JsonArgsRecommended { instruction } => write!(
                f,
                "JSON arguments recommended for {instruction} to prevent unintended behavior related to OS signals"
            ),
            Self::MaintainerDeprecated => {
                f.write_str("Maintainer instruction is deprecated in favor of using label")
            }
            Self::UndefinedArgInFrom { arg, near } => {
                write!(f, "FROM argument '{arg}' is not declared")?;
                near.as_ref()
                    .map_or(Ok(()), |near| write!(f, " (did you mean {near}?)"))
            }
            Self::WorkdirRelativePath { path } => write!(
                f,
                "Relative workdir {} can have unexpected results if the base image changes",
                quote(path)
            ),
            Self::UndefinedVar { name, near } => {
                write!(f, "Usage of undefined variable '${name}'")?;
                near.as_ref()
                    .map_or(Ok(()), |near| write!(f, " (did you mean ${near}?)"))
            }
            Self::MultipleInstructionsDisallowed { instruction } => {
                write!(
                    f,
                    "Multiple {instruction} instructions should not be used in the same stage because only the last one will be used"
                )
            }
            Self::LegacyKeyValueFormat { instruction } => write!(
                f,
                "\"{instruction} key=value\" should be used instead of legacy \"{instruction} key value\" format"
            ),
            Self::InvalidBaseImagePlatform {
                image,
                expected,
                actual,
            } => {
                write!(
                    f,
                    "Base image {image} was pulled with platform {}, expected {} for current build",
                    quote(actual),
                    quote(expected)
                )
            }
            Self::RedundantTargetPlatform { variable } => write!(
                f,
                "Setting platform to predefined {variable} in FROM is redundant as this is the default behavior"
            ),
            Self::SecretsUsedInArgOrEnv { instruction, name } => write!(
                f,
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {})",
                quote(name)
            ),
            Self::InvalidDefaultArgInFrom { base } => write!(
                f,
                "Default value for ARG {base} results in empty or invalid base image name"
            ),
            Self::FromPlatformFlagConstDisallowed { platform } => write!(
                f,
                "FROM --platform flag should not use constant value {}",
                quote(platform)
            ),
            Self::CopyIgnoredFile { command, file } => write!(
                f,
                "Attempting to {command} file {} that is excluded by .dockerignore",
                quote(file)
            ),
            Self::InvalidDefinitionDescription { instruction, name } => write!(
                f,
                "Comment for {instruction} should follow the format: `# {name} <description>`"
            ),
            Self::ExposeProtoCasing { port } => write!(
                f,
                "Defined protocol '{port}' in EXPOSE instruction should be lowercase"
            ),
            Self::ExposeInvalidFormat { port } => write!(
                f,
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            ),
            Self::CarriageReturn {
                heredoc: Some(name),
            } => write!(
                f,
                "Lines of heredoc {} have carriage returns, which become part of it",
                quote(name)
            ),
            Self::CarriageReturn { heredoc: None } => f.write_str(
                "Carriage return inside of a line, which becomes part of the instruction",
            ),
        }
    }
}
