//! Flags in front of an instruction's arguments.

use super::InstructionError;
use crate::suggest::nearest;

/// The kind of value that a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Text,
    List,
}

/// The flags of one instruction, checked against those it knows.
#[derive(Debug)]
pub(super) struct Flags {
    pairs: Vec<(&'static str, String)>,
}

impl Flags {
    pub(super) fn parse(
        words: &[String],
        known: &[(&'static str, Kind)],
    ) -> Result<Self, InstructionError> {
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        for word in words {
            if word == "--" {
                break;
            }
            let flag = word
                .strip_prefix("--")
                .ok_or_else(|| InstructionError::NotAFlag(word.clone()))?;
            let (name, value) = flag
                .split_once('=')
                .map_or((flag, None), |(name, value)| (name, Some(value)));
            let Some(&(name, kind)) = known.iter().find(|(flag_name, _)| *flag_name == name) else {
                let near = nearest(name, known.iter().map(|(name, _)| *name), true);
                return Err(InstructionError::UnknownFlag {
                    name: name.to_owned(),
                    near,
                });
            };
            if kind != Kind::List && pairs.iter().any(|(flag, _)| *flag == name) {
                return Err(InstructionError::DuplicateFlag(name.to_owned()));
            }
            let value = match (kind, value) {
                (Kind::Bool, None) => "true".to_owned(),
                (Kind::Bool, Some("")) | (Kind::Text | Kind::List, None) => {
                    return Err(InstructionError::FlagWithoutValue(name.to_owned()));
                }
                (Kind::Bool, Some(value)) => match value.to_lowercase() {
                    lower if lower == "true" || lower == "false" => lower,
                    _ => {
                        return Err(InstructionError::FlagNotBoolean {
                            flag: name.to_owned(),
                            value: value.to_owned(),
                        });
                    }
                },
                (Kind::Text | Kind::List, Some(value)) => value.to_owned(),
            };
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// Returns the value of a flag, or nothing.
    pub(super) fn text(&self, name: &str) -> String {
        self.pairs
            .iter()
            .find(|(flag, _)| *flag == name)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    }

    /// Returns the value of a yes-or-no flag that was given.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.pairs
            .iter()
            .find(|(flag, _)| *flag == name)
            .map(|(_, value)| value == "true")
    }

    /// Returns each value of a flag.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.pairs
            .iter()
            .filter(|(flag, _)| *flag == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Returns the names that were given, sorted.
    pub(super) fn used(&self) -> Vec<String> {
        let names: std::collections::BTreeSet<_> = self
            .pairs
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        names.into_iter().collect()
    }
}
