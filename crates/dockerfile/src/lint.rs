//! Lint rules, their messages, and who hears of them.
//!
//! A [`Finding`] is one thing to complain about; it knows its [`Rule`] and its sentence. A [`Linter`] holds the
//! configuration of the place it stands in and passes findings on.
//!
//! | rule                             | found by                         |
//! |----------------------------------|----------------------------------|
//! | `StageNameCasing`                | `instruction::parse`             |
//! | `FromAsCasing`                   | `instruction::parse`             |
//! | `MaintainerDeprecated`           | `instruction::parse`             |
//! | `InvalidDefinitionDescription`   | `instruction::parse`             |
//! | `NoEmptyContinuation`            | [`check::empty_continuations`]   |
//! | `ConsistentInstructionCasing`    | [`check::instruction_casing`]    |
//! | `DuplicateStageName`             | [`check::stage_names`]           |
//! | `ReservedStageName`              | [`check::stage_names`]           |
//! | `JSONArgsRecommended`            | lowering                         |
//! | `UndefinedArgInFrom`             | [`check::undefined_from_args`]   |
//! | `UndefinedVar`                   | [`check::undefined_vars`]        |
//! | `WorkdirRelativePath`            | lowering                         |
//! | `MultipleInstructionsDisallowed` | [`check::UsedOnce`]              |
//! | `LegacyKeyValueFormat`           | [`check::legacy_pairs`]          |
//! | `InvalidBaseImagePlatform`       | [`check::base_image_platform`]   |
//! | `RedundantTargetPlatform`        | [`check::redundant_platform`]    |
//! | `SecretsUsedInArgOrEnv`          | [`check::secret_name`]           |
//! | `InvalidDefaultArgInFrom`        | [`check::default_base_names`]    |
//! | `FromPlatformFlagConstDisallowed`| [`check::constant_platform`]     |
//! | `CopyIgnoredFile`                | [`check::ignored_source`]        |
//! | `ExposeProtoCasing`              | lowering                         |
//! | `ExposeInvalidFormat`            | lowering                         |

pub mod check;
mod config;
mod finding;
mod linter;
pub mod rule;

pub use config::{LintConfig, LintConfigError};
pub use finding::Finding;
pub use linter::{LintError, Linter, Warning};
pub use rule::Rule;

#[cfg(test)]
mod tests;
