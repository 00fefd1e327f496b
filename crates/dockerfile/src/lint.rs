//! Lint rules, their messages, and the linter that reports findings.
//!
//! A [`Finding`] is one violation; it has its [`Rule`] and its message. A [`Linter`] holds the
//! configuration of the place it stands in and passes findings on.
//!
//! | rule                             | found by                         |
//! |----------------------------------|----------------------------------|
//! | `StageNameCasing`                | `instruction::parse`             |
//! | `FromAsCasing`                   | `instruction::parse`             |
//! | `MaintainerDeprecated`           | `instruction::parse`             |
//! | `InvalidDefinitionDescription`   | `instruction::parse`             |
//! | `NoEmptyContinuation`            | [`crate::check::empty_continuations`]   |
//! | `ConsistentInstructionCasing`    | [`crate::check::instruction_casing`]    |
//! | `DuplicateStageName`             | [`crate::check::stage_names`]           |
//! | `ReservedStageName`              | [`crate::check::stage_names`]           |
//! | `JSONArgsRecommended`            | lowering                         |
//! | `UndefinedArgInFrom`             | [`crate::check::undefined_from_args`]   |
//! | `UndefinedVar`                   | [`crate::check::undefined_vars`]        |
//! | `WorkdirRelativePath`            | lowering                         |
//! | `MultipleInstructionsDisallowed` | [`crate::check::UsedOnce`]              |
//! | `LegacyKeyValueFormat`           | [`crate::check::legacy_pairs`]          |
//! | `InvalidBaseImagePlatform`       | [`crate::check::base_image_platform`]   |
//! | `RedundantTargetPlatform`        | [`crate::check::redundant_platform`]    |
//! | `SecretsUsedInArgOrEnv`          | [`crate::check::secret_name`]           |
//! | `InvalidDefaultArgInFrom`        | [`crate::check::default_base_names`]    |
//! | `FromPlatformFlagConstDisallowed`| [`crate::check::constant_platform`]     |
//! | `CopyIgnoredFile`                | [`crate::check::ignored_source`]        |
//! | `ExposeProtoCasing`              | lowering                         |
//! | `ExposeInvalidFormat`            | lowering                         |

mod config;
mod finding;
mod linter;
pub mod rule;

pub use config::{LintConfig, LintConfigError};
pub use finding::Finding;
pub use linter::{LintError, Linter, Warning};
pub use rule::Rule;
