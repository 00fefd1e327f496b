//! Source policies: rules that allow, deny or rewrite sources, and clients that are asked for a verdict on each.
//!
//! A policy is looked at before anything of a definition is loaded, and before a source is resolved for a frontend. A source
//! that was rewritten is looked at again, a bounded number of times.
//!
//! | what is matched | as |
//! |---|---|
//! | identifier, exact | the same text |
//! | identifier, wildcard | each `*` any text; `$1`, `${2}` in the replacement stand for what it was |
//! | identifier, regular expression | anywhere in the text; groups in the replacement |
//! | constraints | attributes of the source: equal, not equal, matching an expression |

use std::sync::{Arc, OnceLock};

use llb::{pb, sourcepolicy as wire};
use oci::Digest;
use prost::Message as _;
use regex::Regex;

use crate::api::{Failure, FailureKind};

mod apply;

pub(crate) use apply::{Judge, rewrite};

/// How often a source may be rewritten.
const MOST_CHANGES: usize = 20;

/// A checked policy.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    wire: wire::Rule,
    selector: wire::Selector,
    pattern: OnceLock<Result<Regex, String>>,
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Unknown, message)
}

impl Policy {
    /// Decodes and checks an encoded policy.
    pub(crate) fn decode(encoded: &[u8]) -> Result<Arc<Self>, Failure> {
        let policy =
            wire::Policy::decode(encoded).map_err(|e| failed(format!("invalid policy: {e}")))?;
        let rules = policy.rules.into_iter().map(|mut wire| {
            let selector = wire
                .selector
                .take()
                .ok_or_else(|| failed("invalid nil selector in policy"))?;
            Ok(Rule {
                wire,
                selector,
                pattern: OnceLock::new(),
            })
        });
        Ok(Arc::new(Self {
            rules: rules.collect::<Result<_, Failure>>()?,
        }))
    }

    /// Decodes those of `encoded` that hold something.
    pub(crate) fn decode_all(encoded: &[bytes::Bytes]) -> Result<Vec<Arc<Self>>, Failure> {
        let full = encoded.iter().filter(|policy| !policy.is_empty());
        full.map(|policy| Self::decode(policy)).collect()
    }

    /// Applies the rules to a source; true if one rewrote it, with which the others are left out.
    fn apply(&self, source: &mut pb::SourceOp) -> Result<bool, String> {
        let name = source.identifier.clone();
        let mut denied = false;
        for rule in &self.rules {
            if !rule
                .matches(source)
                .map_err(|e| format!("error matching source policy: {e}"))?
            {
                continue;
            }
            match wire::PolicyAction::try_from(rule.wire.action) {
                Ok(wire::PolicyAction::Allow) => denied = false,
                Ok(wire::PolicyAction::Deny) => denied = true,
                Ok(wire::PolicyAction::Convert) => {
                    let changed = rule
                        .convert(source)
                        .map_err(|e| format!("error mutating source policy: {e}"))?;
                    if changed {
                        return Ok(true);
                    }
                }
                Err(_) => {
                    let (action, selector) = (rule.wire.action, &rule.selector.identifier);
                    return Err(format!(
                        "source policy: rule {action} {selector}: unknown type {name:?}"
                    ));
                }
            }
        }
        if denied {
            return Err(format!(
                "source {name:?} denied by policy: source denied by policy"
            ));
        }
        Ok(false)
    }
}

impl Rule {
    fn pattern(&self) -> Result<&Regex, String> {
        let made = self.pattern.get_or_init(|| {
            let text = &self.selector.identifier;
            if self.selector.match_type == wire::MatchType::Regex as i32 {
                return Regex::new(text).map_err(|e| e.to_string());
            }
            let escaped = regex::escape(text);
            if escaped.contains("\\*\\*") {
                return Err(format!(
                    "failed to translate wildcard {text:?} to regexp: invalid wildcard: \"**\""
                ));
            }
            let text = format!("^{}$", escaped.replace("\\*", "(.*)"));
            Regex::new(&text).map_err(|e| e.to_string())
        });
        made.as_ref().map_err(Clone::clone)
    }

    fn kind(&self) -> Result<wire::MatchType, String> {
        let kind = self.selector.match_type;
        wire::MatchType::try_from(kind).map_err(|_| format!("unknown match type: {kind}"))
    }

    fn matches(&self, source: &pb::SourceOp) -> Result<bool, String> {
        for constraint in &self.selector.constraints {
            let value = source
                .attrs
                .get(&constraint.key)
                .map(String::as_str)
                .unwrap_or_default();
            let wanted = constraint.value.as_str();
            let fits = match wire::AttrMatch::try_from(constraint.condition) {
                Ok(wire::AttrMatch::Equal) => value == wanted,
                Ok(wire::AttrMatch::Notequal) => value != wanted,
                Ok(wire::AttrMatch::Matches) => Regex::new(wanted)
                    .map_err(|e| format!("invalid regex {wanted:?}: {e}"))?
                    .is_match(value),
                Err(_) => {
                    return Err(format!("unknown attr condition: {}", constraint.condition));
                }
            };
            if !fits {
                return Ok(false);
            }
        }
        if self.selector.identifier == source.identifier {
            return Ok(true);
        }
        match self.kind()? {
            wire::MatchType::Exact => Ok(false),
            wire::MatchType::Regex | wire::MatchType::Wildcard => {
                Ok(self.pattern()?.is_match(&source.identifier))
            }
        }
    }

    /// Rewrites the source as the rule says; false if it is as it should be.
    fn convert(&self, source: &mut pb::SourceOp) -> Result<bool, String> {
        let updates = self
            .wire
            .updates
            .as_ref()
            .ok_or("missing destination for convert rule")?;
        let to = if updates.identifier.is_empty() {
            &self.selector.identifier
        } else {
            &updates.identifier
        };
        let to = match self.kind()? {
            wire::MatchType::Exact => to.clone(),
            wire::MatchType::Regex => self
                .pattern()?
                .replace_all(&source.identifier, to.as_str())
                .into_owned(),
            wire::MatchType::Wildcard => match self.pattern()?.captures(&source.identifier) {
                Some(found) => {
                    let mut text = String::new();
                    found.expand(to, &mut text);
                    text
                }
                None => source.identifier.clone(),
            },
        };
        let mut changed = false;
        if !to.is_empty() && to != source.identifier {
            source.identifier = to;
            changed = true;
        }
        for (key, value) in &updates.attrs {
            if source.attrs.get(key) != Some(value) {
                source.attrs.insert(key.clone(), value.clone());
                changed = true;
            }
        }
        Ok(changed)
    }
}

/// Applies all policies to a source until none rewrites it any more.
fn evaluate(policies: &[Arc<Policy>], source: &mut pb::SourceOp) -> Result<(), Failure> {
    'again: for _ in 0..=MOST_CHANGES {
        for policy in policies {
            if policy.apply(source).map_err(failed)? {
                continue 'again;
            }
        }
        return Ok(());
    }
    Err(failed(
        "too many mutations on a single source: too many operations",
    ))
}

/// The identifier in its full form, as rules are written for.
fn normalized(identifier: &str) -> String {
    let full = identifier
        .strip_prefix("docker-image://")
        .and_then(|name| oci::reference::Reference::parse(name).ok());
    full.map_or_else(
        || identifier.to_owned(),
        |name| format!("docker-image://{name}"),
    )
}

/// The digest of an op that was encoded anew.
fn digest(encoded: &[u8]) -> String {
    Digest::sha256(encoded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: i32, from: &str, kind: wire::MatchType, to: Option<&str>) -> wire::Rule {
        wire::Rule {
            action,
            selector: Some(wire::Selector {
                identifier: from.into(),
                match_type: kind.into(),
                constraints: Vec::new(),
            }),
            updates: to.map(|to| wire::Update {
                identifier: to.into(),
                ..Default::default()
            }),
        }
    }

    fn judged(rules: Vec<wire::Rule>, identifier: &str) -> Result<String, String> {
        let policy = wire::Policy { version: 1, rules };
        let policy = Policy::decode(&policy.encode_to_vec()).map_err(|e| e.message)?;
        let mut source = pb::SourceOp {
            identifier: identifier.into(),
            ..Default::default()
        };
        evaluate(&[policy], &mut source).map_err(|e| e.message)?;
        Ok(source.identifier)
    }

    #[test]
    fn sources_are_allowed_denied_and_rewritten() {
        use wire::MatchType::{Exact, Regex, Wildcard};
        assert_eq!(
            judged(
                vec![
                    rule(1, "http://*", Wildcard, None),
                    rule(0, "http://a", Exact, None)
                ],
                "http://a"
            ),
            Ok("http://a".into())
        );
        assert!(
            judged(vec![rule(1, "http://*", Wildcard, None)], "http://b")
                .unwrap_err()
                .ends_with("source denied by policy")
        );
        assert_eq!(
            judged(
                vec![rule(
                    2,
                    "docker-image://x/*:*",
                    Wildcard,
                    Some("docker-image://y/${1}:$2-alpine")
                )],
                "docker-image://x/go:1"
            ),
            Ok("docker-image://y/go:1-alpine".into())
        );
        assert_eq!(
            judged(vec![rule(2, "a(b+)", Regex, Some("c$1"))], "xabby"),
            Ok("xcbby".into())
        );
        assert!(
            judged(vec![rule(2, "a*", Wildcard, Some("aa$1"))], "a")
                .unwrap_err()
                .starts_with("too many mutations")
        );
        assert!(
            judged(vec![rule(2, "a", Exact, None)], "a")
                .unwrap_err()
                .contains("missing destination")
        );
        assert!(
            judged(vec![rule(9000, "a", Exact, None)], "a")
                .unwrap_err()
                .contains("unknown type")
        );
    }
}
