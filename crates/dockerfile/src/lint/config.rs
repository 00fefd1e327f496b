//! `# check=…` and the option of the same meaning.

use std::collections::BTreeSet;

use gostd::strconv::{ParseBoolError, parse_bool, quote};
use oci::ErrorKind;

/// Which rules run, and what a finding does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LintConfig {
    /// No rule runs except the experimental ones that are listed in `experimental`.
    pub skip_all: bool,
    /// Rules that do not run.
    pub skip: BTreeSet<String>,
    /// All experimental rules run.
    pub experimental_all: bool,
    /// Experimental rules that run.
    pub experimental: BTreeSet<String>,
    /// Findings fail the build.
    pub error: bool,
}

/// Why lint options were not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LintConfigError {
    /// The option does not exist.
    #[error("invalid check option {}", quote(.0))]
    Invalid(String),
    /// The value is not a boolean.
    #[error("failed to parse check option {}: {reason}", quote(option))]
    NotBoolean {
        /// Name of the option.
        option: String,
        /// Why its value is not a boolean.
        #[source]
        reason: ParseBoolError,
    },
}

impl LintConfigError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::NotBoolean { .. } => ErrorKind::Invalid,
        }
    }
}

impl LintConfig {
    /// Reads `skip=A,B;error=true;experimental=all`.
    pub fn parse(text: &str) -> Result<Self, LintConfigError> {
        let mut config = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        for option in text.splitn(3, ';') {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| LintConfigError::Invalid(option.to_owned()))?;
            let (key, value) = (key.trim(), value.trim());
            let names = || {
                value
                    .split(',')
                    .map(|name| name.trim().to_owned())
                    .collect()
            };
            match (key, value) {
                ("skip", "all") => config.skip_all = true,
                ("skip", _) => config.skip = names(),
                ("experimental", "all") => config.experimental_all = true,
                ("experimental", _) => config.experimental = names(),
                ("error", _) => {
                    config.error =
                        parse_bool(value).map_err(|reason| LintConfigError::NotBoolean {
                            option: option.to_owned(),
                            reason,
                        })?
                }
                _ => return Err(LintConfigError::Invalid(key.to_owned())),
            }
        }
        Ok(config)
    }

    /// Adds the rules that another configuration skips and the experimental ones that it runs. Whether findings fail the build stays as it is.
    pub fn merge(&mut self, other: &Self) {
        self.skip_all |= other.skip_all;
        self.experimental_all |= other.experimental_all;
        self.skip.extend(other.skip.iter().cloned());
        self.experimental.extend(other.experimental.iter().cloned());
    }
}
