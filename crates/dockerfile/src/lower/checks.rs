//! The linter of one run.

use super::WarnFn;
use super::error::{LowerError, LowerErrorKind};
use crate::lint::{LintConfig, Linter};
use crate::syntax::directive::{DirectiveName, find_directive};

/// The linter for a file: options win over its `# check=` line.
pub(crate) fn linter(
    data: &[u8],
    config: Option<&LintConfig>,
    warn: Option<WarnFn>,
) -> Result<Linter, LowerError> {
    let config = match config {
        Some(config) => config.clone(),
        None => {
            let text = find_directive(DirectiveName::Check, data)
                .map(|directive| directive.word)
                .unwrap_or_default();
            LintConfig::parse(&text).map_err(LowerErrorKind::CheckOptions)?
        }
    };
    Ok(match warn {
        Some(warn) => Linter::new(config, move |warning| warn(warning)),
        None => Linter::silent(),
    })
}

/// Fails when `error=true` is set and there are findings.
pub(crate) fn fail_if_asked(lint: &Linter) -> Result<(), LowerError> {
    match lint.error() {
        Some(error) => Err(LowerErrorKind::Lint(error).into()),
        None => Ok(()),
    }
}
