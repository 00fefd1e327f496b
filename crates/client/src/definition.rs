//! Definitions and source policies, as read from files for builds without a frontend.

use prost::Message as _;
use proto::pb;
use proto::sourcepolicy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule, Selector, Update,
};
use serde::Deserialize;

/// Why the text of a definition or of a policy cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// The bytes are not an encoded definition.
    #[error("failed to parse input: {source}")]
    Definition {
        /// The error of the decoder.
        source: prost::DecodeError,
    },
    /// The text is not a source policy.
    #[error("{source}")]
    Policy {
        /// The place in the text and what is wrong there.
        source: serde_json::Error,
    },
}

impl DefinitionError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Definition { .. } | Self::Policy { .. } => oci::ErrorKind::Invalid,
        }
    }
}

/// LLB as `llb.WriteTo` writes it: a marshalled `pb.Definition`.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition(pub(crate) pb::Definition);

impl Definition {
    /// Reads a definition.
    ///
    /// # Errors
    /// Bytes that are no message of that kind.
    pub fn read(bytes: &[u8]) -> Result<Self, DefinitionError> {
        let definition = pb::Definition::decode(bytes);
        definition
            .map(Self)
            .map_err(|source| DefinitionError::Definition { source })
    }

    /// Whether it has no op.
    pub fn is_empty(&self) -> bool {
        self.0.def.is_empty()
    }

    /// Lets every vertex run again.
    pub fn ignore_cache(&mut self) {
        for op in &self.0.def {
            let digest = oci::Digest::sha256(op).to_string();
            self.0.metadata.entry(digest).or_default().ignore_cache = true;
        }
    }
}

/// Which sources a build may use, and what is used in their place.
#[derive(Debug, Clone, PartialEq)]
pub struct SourcePolicy(pub(crate) Policy);

impl SourcePolicy {
    /// Reads a policy from the JSON of BuildKit's documentation (`docs/build-repro.md`): constants by name or by number.
    ///
    /// # Errors
    /// Anything else. Keys that are not known are passed over, as Go does.
    pub fn from_json(text: &[u8]) -> Result<Self, DefinitionError> {
        let document: PolicyDocument =
            serde_json::from_slice(text).map_err(|source| DefinitionError::Policy { source })?;
        Ok(Self(Policy {
            version: document.version,
            rules: document.rules.into_iter().map(Rule::from).collect(),
        }))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PolicyDocument {
    version: i64,
    rules: Vec<RuleDocument>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RuleDocument {
    action: Constant<PolicyAction>,
    selector: Option<SelectorDocument>,
    updates: Option<UpdateDocument>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SelectorDocument {
    identifier: String,
    match_type: Constant<MatchType>,
    constraints: Vec<ConstraintDocument>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConstraintDocument {
    key: String,
    value: String,
    condition: Constant<AttrMatch>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UpdateDocument {
    identifier: String,
    attrs: std::collections::BTreeMap<String, String>,
}

impl From<RuleDocument> for Rule {
    fn from(rule: RuleDocument) -> Self {
        Self {
            action: rule.action.0.into(),
            selector: rule.selector.map(|selector| Selector {
                identifier: selector.identifier,
                match_type: selector.match_type.0.into(),
                constraints: selector
                    .constraints
                    .into_iter()
                    .map(AttrConstraint::from)
                    .collect(),
            }),
            updates: rule.updates.map(|update| Update {
                identifier: update.identifier,
                attrs: update.attrs,
            }),
        }
    }
}

impl From<ConstraintDocument> for AttrConstraint {
    fn from(constraint: ConstraintDocument) -> Self {
        Self {
            key: constraint.key,
            value: constraint.value,
            condition: constraint.condition.0.into(),
        }
    }
}

/// A constant of the protocol, written by its name or its number.
#[derive(Default)]
struct Constant<T>(T);

trait NamedConstant: Sized + TryFrom<i32> {
    fn from_name(name: &str) -> Option<Self>;
}

macro_rules! from_name {
    ($($name:ident)*) => {$(
        impl NamedConstant for $name {
            fn from_name(name: &str) -> Option<Self> {
                Self::from_str_name(name)
            }
        }
    )*};
}

from_name!(PolicyAction MatchType AttrMatch);

impl<'de, T: NamedConstant> Deserialize<'de> for Constant<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum NameOrNumber {
            Name(String),
            Number(i32),
        }
        let (value, text) = match NameOrNumber::deserialize(deserializer)? {
            NameOrNumber::Name(name) => (T::from_name(&name), name),
            NameOrNumber::Number(number) => (T::try_from(number).ok(), number.to_string()),
        };
        value
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no constant of a policy")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_that_ignores_the_cache_says_so_for_every_op() -> Result<(), DefinitionError> {
        let ops: Vec<Vec<u8>> = vec![b"one".to_vec(), b"two".to_vec()];
        let wire = pb::Definition {
            def: ops.clone(),
            ..Default::default()
        };
        let mut definition = Definition::read(&wire.encode_to_vec())?;
        assert!(!definition.is_empty());
        definition.ignore_cache();
        for op in &ops {
            let metadata = &definition.0.metadata[&oci::Digest::sha256(op).to_string()];
            assert!(metadata.ignore_cache);
        }
        assert!(Definition::read(b"")?.is_empty());
        assert!(Definition::read(b"no definition").is_err());
        Ok(())
    }

    #[test]
    fn a_policy_names_its_constants_or_numbers_them() -> Result<(), DefinitionError> {
        let policy = SourcePolicy::from_json(
            br#"{"version": 1, "rules": [
                {"action": "DENY", "selector": {"identifier": "docker-image://*", "match_type": 2,
                    "constraints": [{"key": "k", "value": "v", "condition": "NOTEQUAL"}]}, "unknown": 1},
                {"action": "CONVERT", "updates": {"identifier": "x", "attrs": {"a": "b"}}}, {}]}"#,
        )?;
        let rules = &policy.0.rules;
        assert_eq!(rules[0].action(), PolicyAction::Deny);
        let selector = rules[0].selector.clone().unwrap_or_default();
        assert_eq!(selector.match_type(), MatchType::Regex);
        assert_eq!(selector.constraints[0].condition(), AttrMatch::Notequal);
        assert_eq!(rules[1].updates.clone().unwrap_or_default().attrs["a"], "b");
        assert_eq!(rules[2].action(), PolicyAction::Allow);
        for wrong in [
            "{\"rules\": [{\"action\": \"FORBID\"}]}",
            "{\"rules\": [{\"action\": 9}]}",
            "{\"rules\": {}}",
            "no JSON",
        ] {
            assert!(
                SourcePolicy::from_json(wrong.as_bytes()).is_err(),
                "{wrong}"
            );
        }
        Ok(())
    }
}
