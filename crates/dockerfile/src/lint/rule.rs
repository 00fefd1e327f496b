//! The rules as data.

/// A lint rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name, as in `# check=skip=…`.
    pub name: &'static str,
    /// What the rule demands, in a sentence.
    pub description: &'static str,
    /// Address of the rule's documentation; may be empty.
    pub url: &'static str,
    /// Whether the rule is kept for its name only and never runs.
    pub deprecated: bool,
    /// Whether the rule runs only when the configuration lists it.
    pub experimental: bool,
}

const fn rule(name: &'static str, url: &'static str, description: &'static str) -> Rule {
    Rule {
        name,
        description,
        url,
        deprecated: false,
        experimental: false,
    }
}

macro_rules! rules {
    ($($ident:ident = $value:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($ident), "`")]
            pub static $ident: Rule = $value;
        )*
        /// All rules.
        pub static ALL: &[&Rule] = &[$(&$ident),*];
    };
}

rules! {
    STAGE_NAME_CASING = rule("StageNameCasing", "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/", "Stage names should be lowercase");
    FROM_AS_CASING = rule("FromAsCasing", "https://docs.docker.com/go/dockerfile/rule/from-as-casing/", "The 'as' keyword should match the case of the 'from' keyword");
    NO_EMPTY_CONTINUATION = rule("NoEmptyContinuation", "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/", "Empty continuation lines will become errors in a future release");
    CONSISTENT_INSTRUCTION_CASING = rule("ConsistentInstructionCasing", "https://docs.docker.com/go/dockerfile/rule/consistent-instruction-casing/", "All commands within the Dockerfile should use the same casing (either upper or lower)");
    DUPLICATE_STAGE_NAME = rule("DuplicateStageName", "https://docs.docker.com/go/dockerfile/rule/duplicate-stage-name/", "Stage names should be unique");
    RESERVED_STAGE_NAME = rule("ReservedStageName", "https://docs.docker.com/go/dockerfile/rule/reserved-stage-name/", "Reserved words should not be used as stage names");
    JSON_ARGS_RECOMMENDED = rule("JSONArgsRecommended", "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/", "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals");
    MAINTAINER_DEPRECATED = rule("MaintainerDeprecated", "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/", "The MAINTAINER instruction is deprecated, use a label instead to define an image author");
    UNDEFINED_ARG_IN_FROM = rule("UndefinedArgInFrom", "https://docs.docker.com/go/dockerfile/rule/undefined-arg-in-from/", "FROM command must use declared ARGs");
    WORKDIR_RELATIVE_PATH = rule("WorkdirRelativePath", "https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/", "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes");
    UNDEFINED_VAR = rule("UndefinedVar", "https://docs.docker.com/go/dockerfile/rule/undefined-var/", "Variables should be defined before their use");
    MULTIPLE_INSTRUCTIONS_DISALLOWED = rule("MultipleInstructionsDisallowed", "https://docs.docker.com/go/dockerfile/rule/multiple-instructions-disallowed/", "Multiple instructions of the same type should not be used in the same stage");
    LEGACY_KEY_VALUE_FORMAT = rule("LegacyKeyValueFormat", "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/", "Legacy key/value format with whitespace separator should not be used");
    INVALID_BASE_IMAGE_PLATFORM = rule("InvalidBaseImagePlatform", "", "Base image platform does not match expected target platform");
    REDUNDANT_TARGET_PLATFORM = rule("RedundantTargetPlatform", "https://docs.docker.com/go/dockerfile/rule/redundant-target-platform/", "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior");
    SECRETS_USED_IN_ARG_OR_ENV = rule("SecretsUsedInArgOrEnv", "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/", "Sensitive data should not be used in the ARG or ENV commands");
    INVALID_DEFAULT_ARG_IN_FROM = rule("InvalidDefaultArgInFrom", "https://docs.docker.com/go/dockerfile/rule/invalid-default-arg-in-from/", "Default value for global ARG results in an empty or invalid base image name");
    FROM_PLATFORM_FLAG_CONST_DISALLOWED = rule("FromPlatformFlagConstDisallowed", "https://docs.docker.com/go/dockerfile/rule/from-platform-flag-const-disallowed/", "FROM --platform flag should not use a constant value");
    COPY_IGNORED_FILE = rule("CopyIgnoredFile", "https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/", "Attempting to Copy file that is excluded by .dockerignore");
    INVALID_DEFINITION_DESCRIPTION = Rule {
        experimental: true,
        ..rule("InvalidDefinitionDescription", "https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/", "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.")
    };
    EXPOSE_PROTO_CASING = rule("ExposeProtoCasing", "https://docs.docker.com/go/dockerfile/rule/expose-proto-casing/", "Protocol in EXPOSE instruction should be lowercase");
    EXPOSE_INVALID_FORMAT = rule("ExposeInvalidFormat", "https://docs.docker.com/go/dockerfile/rule/expose-invalid-format/", "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release");
    CARRIAGE_RETURN = rule("CarriageReturn", "", "Carriage returns that are not the Dockerfile's own line ends become part of steps, files and values");
}
