//! Source policies: rules that allow, deny or rewrite sources, and clients that are asked for a verdict on each.
//!
//! A policy is applied before anything of a definition is loaded, and before a source is resolved for a frontend. A rewritten
//! source is checked again, a bounded number of times.
//!
//! | what is matched | as |
//! |---|---|
//! | identifier, wildcard | each `*` matches any text; `$1`, `${2}` in the replacement stand for the matched texts |
//! | identifier, wildcard | each `*` any text; `$1`, `${2}` in the replacement stand for what it was |
//! | identifier, regular expression | anywhere in the text; groups in the replacement |
//! | constraints | attributes of the source: equal, not equal, matching an expression |
//! Clients write policies, so their cost is bounded: expressions are compiled once and have a size, all rules on all sources of a
//! definition have a budget of work (see [`Work`]), and none of it runs on a thread of the runtime.
//! definition have a budget of work (see [`Work`]), and nothing of it runs on a thread of the runtime.

use std::sync::Arc;

use llb::{pb, sourcepolicy as wire};
use oci::Digest;

use crate::api::{Failure, FailureKind};

mod error;
mod evaluator;
mod pattern;
mod requests;
mod rewrite;
mod work;

use error::PolicyError;
pub(crate) use evaluator::{PolicyEvaluator, SourcePolicies};
use pattern::{MAX_TEXT_BYTES, Pattern, Patterns};
pub(crate) use rewrite::rewrite;
pub(crate) use work::Work;

/// Number of times that one source may be rewritten.
const MAX_REWRITES: usize = 20;
/// Number of rules and constraints in all policies of a request.
const MAX_RULES: usize = 100_000;

/// A checked policy.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    wire: wire::Rule,
    selector: wire::Selector,
    /// The expression that identifiers are matched with; none for an exact comparison.
    pattern: Option<Arc<Pattern>>,
    /// For each constraint the expression that its attribute is matched with; none for a comparison.
    constraints: Vec<Option<Arc<Pattern>>>,
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(FailureKind::Unknown, error)
}

/// Applies an encoded policy to one source, for programs that test policies; true if a rule rewrote the source.
pub fn apply_encoded_policy(policy: &[u8], source: &mut pb::SourceOp) -> Result<bool, Failure> {
    let work = Work::default();
    for policy in Policy::decode(&[bytes::Bytes::copy_from_slice(policy)])? {
        if policy.apply(source, &work)? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Policy {
    /// Decodes and checks encoded policies; empty ones are left out.
    pub(crate) async fn decode_all(encoded: &[bytes::Bytes]) -> Result<Vec<Arc<Self>>, Failure> {
        let non_empty: Vec<bytes::Bytes> =
            encoded.iter().filter(|p| !p.is_empty()).cloned().collect();
        if non_empty.is_empty() {
            return Ok(Vec::new());
        }
        task::blocking("decode policies", move || Self::decode(&non_empty)).await
    }

    fn decode(encoded: &[bytes::Bytes]) -> Result<Vec<Arc<Self>>, Failure> {
        let mut patterns = Patterns::default();
        let mut count = 0;
        let mut policies = Vec::with_capacity(encoded.len());
        for encoded in encoded {
            let policy = llb::definition::decode_policy(encoded)
                .map_err(|e| failed(e).during("invalid policy"))?;
            let mut rules = Vec::with_capacity(policy.rules.len());
            for wire in policy.rules {
                let rule = Rule::new(wire, &mut patterns)?;
                count += 1 + rule.selector.constraints.len();
                if count > MAX_RULES {
                    return Err(failed(format!(
                        "source policies have too many rules: at most {MAX_RULES} rules and constraints are accepted"
                    )));
                }
                rules.push(rule);
            }
            policies.push(Arc::new(Self { rules }));
        }
        Ok(policies)
    }

    /// Applies the rules to a source up to the first that rewrites it; true if one did.
    fn apply(&self, source: &mut pb::SourceOp, work: &Work) -> Result<bool, PolicyError> {
        let identifier = source.identifier.clone();
        let mut denied = false;
        for rule in &self.rules {
            if !rule.matches(source, work).map_err(|e| PolicyError::Match {
                source: Box::new(e),
            })? {
                continue;
            }
            match wire::PolicyAction::try_from(rule.wire.action) {
                Ok(wire::PolicyAction::Allow) => denied = false,
                Ok(wire::PolicyAction::Deny) => denied = true,
                Ok(wire::PolicyAction::Convert) => {
                    let changed = rule
                        .convert(source, work)
                        .map_err(|e| PolicyError::Convert {
                            source: Box::new(e),
                        })?;
                    if changed {
                        return Ok(true);
                    }
                }
                Err(_) => {
                    return Err(PolicyError::UnknownAction {
                        action: rule.wire.action,
                        selector: rule.selector.identifier.clone(),
                        identifier,
                    });
                }
            }
        }
        if denied {
            return Err(PolicyError::Denied { identifier });
        }
        Ok(false)
    }
}

impl Rule {
    fn new(mut wire: wire::Rule, patterns: &mut Patterns) -> Result<Self, Failure> {
        let selector = wire
            .selector
            .take()
            .ok_or_else(|| failed("invalid nil selector in policy"))?;
        let pattern = match wire::MatchType::try_from(selector.match_type) {
            Ok(wire::MatchType::Regex) => Some(patterns.regex(&selector.identifier)?),
            Ok(wire::MatchType::Wildcard) => Some(patterns.wildcard(&selector.identifier)?),
            Ok(wire::MatchType::Exact) | Err(_) => None,
        };
        let of = |constraint: &wire::AttrConstraint| {
            let matches = constraint.condition == wire::AttrMatch::Matches as i32;
            matches
                .then(|| patterns.regex(&constraint.value))
                .transpose()
        };
        let constraints = selector
            .constraints
            .iter()
            .map(of)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            wire,
            selector,
            pattern,
            constraints,
        })
    }

    fn pattern(&self) -> Result<&Pattern, PolicyError> {
        self.pattern
            .as_deref()
            .ok_or(PolicyError::UnknownMatchType(self.selector.match_type))
    }

    fn kind(&self) -> Result<wire::MatchType, PolicyError> {
        let kind = self.selector.match_type;
        // prost's error holds the same number and no reason.
        wire::MatchType::try_from(kind).map_err(|_| PolicyError::UnknownMatchType(kind))
    }

    fn matches(&self, source: &pb::SourceOp, work: &Work) -> Result<bool, PolicyError> {
        for (constraint, pattern) in self.selector.constraints.iter().zip(&self.constraints) {
            let value = source
                .attrs
                .get(&constraint.key)
                .map(String::as_str)
                .unwrap_or_default();
            let expected = constraint.value.as_str();
            work.spend(1)?;
            let fits = match (wire::AttrMatch::try_from(constraint.condition), pattern) {
                (Ok(wire::AttrMatch::Equal), _) => value == expected,
                (Ok(wire::AttrMatch::Notequal), _) => value != expected,
                (Ok(wire::AttrMatch::Matches), Some(pattern)) => pattern
                    .is_match(value, work)
                    .map_err(|e| PolicyError::Constraint {
                        expression: expected.to_owned(),
                        source: Box::new(e),
                    })?,
                (Ok(wire::AttrMatch::Matches), None) | (Err(_), _) => {
                    return Err(PolicyError::UnknownCondition(constraint.condition));
                }
            };
            if !fits {
                return Ok(false);
            }
        }
        work.spend(1)?;
        if self.selector.identifier == source.identifier {
            return Ok(true);
        }
        match self.kind()? {
            wire::MatchType::Exact => Ok(false),
            wire::MatchType::Regex | wire::MatchType::Wildcard => {
                self.pattern()?.is_match(&source.identifier, work)
            }
        }
    }

    /// Rewrites the source by the rule; false if the source stays the same.
    fn convert(&self, source: &mut pb::SourceOp, work: &Work) -> Result<bool, PolicyError> {
        let updates = self
            .wire
            .updates
            .as_ref()
            .ok_or(PolicyError::NoDestination)?;
        let to = if updates.identifier.is_empty() {
            &self.selector.identifier
        } else {
            &updates.identifier
        };
        let from = &source.identifier;
        let to = match self.kind()? {
            wire::MatchType::Exact => to.clone(),
            wire::MatchType::Regex => self.pattern()?.replace_all(from, to, work)?,
            wire::MatchType::Wildcard => self.pattern()?.expand(from, to, work)?,
        };
        if to.len() > MAX_TEXT_BYTES {
            return Err(PolicyError::LongIdentifier(to.len()));
        }
        let mut changed = false;
        if !to.is_empty() && to != source.identifier {
            source.identifier = to;
            changed = true;
        }
        for (key, value) in &updates.attrs {
            work.spend(1)?;
            if source.attrs.get(key) != Some(value) {
                work.add_bytes(key.len() + value.len())?;
                source.attrs.insert(key.clone(), value.clone());
                changed = true;
            }
        }
        Ok(changed)
    }
}

/// Applies all policies to a source until no rule rewrites it.
fn evaluate(
    policies: &[Arc<Policy>],
    source: &mut pb::SourceOp,
    work: &Work,
) -> Result<(), Failure> {
    'again: for _ in 0..=MAX_REWRITES {
        for policy in policies {
            if policy.apply(source, work)? {
                continue 'again;
            }
        }
        return Ok(());
    }
    Err(failed(
        "too many mutations on a single source: too many operations",
    ))
}

/// The identifier with the full name of its image, the form in which rules name images.
fn normalized(identifier: &str) -> String {
    let non_empty = identifier
        .strip_prefix("docker-image://")
        .and_then(|name| oci::reference::Reference::parse(name).ok());
    non_empty.map_or_else(
        || identifier.to_owned(),
        |name| format!("docker-image://{name}"),
    )
}

/// The digest of an encoded op, by which other ops name it.
fn op_digest(encoded: &[u8]) -> String {
    Digest::sha256(encoded).to_string()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

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

    fn evaluated(rules: Vec<wire::Rule>, identifier: &str) -> Result<String, String> {
        let policy = wire::Policy { version: 1, rules };
        let policies = Policy::decode(&[policy.encode_to_vec().into()]).map_err(|e| e.message())?;
        let mut source = pb::SourceOp {
            identifier: identifier.into(),
            ..Default::default()
        };
        evaluate(&policies, &mut source, &Work::default()).map_err(|e| e.message())?;
        Ok(source.identifier)
    }

    #[test]
    fn sources_are_allowed_denied_and_rewritten() {
        use wire::MatchType::{Exact, Regex, Wildcard};
        assert_eq!(
            evaluated(
                vec![
                    rule(1, "http://*", Wildcard, None),
                    rule(0, "http://a", Exact, None)
                ],
                "http://a"
            ),
            Ok("http://a".into())
        );
        assert!(
            evaluated(vec![rule(1, "http://*", Wildcard, None)], "http://b")
                .unwrap_err()
                .ends_with("source denied by policy")
        );
        assert_eq!(
            evaluated(
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
            evaluated(vec![rule(2, "a(b+)", Regex, Some("c$1"))], "xabby"),
            Ok("xcbby".into())
        );
        assert!(
            evaluated(vec![rule(2, "a*", Wildcard, Some("aa$1"))], "a")
                .unwrap_err()
                .starts_with("too many mutations")
        );
        assert!(
            evaluated(vec![rule(2, "a", Exact, None)], "a")
                .unwrap_err()
                .contains("missing destination")
        );
        assert!(
            evaluated(vec![rule(9000, "a", Exact, None)], "a")
                .unwrap_err()
                .contains("unknown type")
        );
    }

    /// A rule with `count` constraints, each with an expression of its own.
    fn matching(count: usize, of: impl Fn(usize) -> String) -> wire::Rule {
        let constraint = |n| wire::AttrConstraint {
            key: "k".into(),
            value: of(n),
            condition: wire::AttrMatch::Matches.into(),
        };
        let mut rule = rule(1, "*", wire::MatchType::Wildcard, None);
        let selector = rule.selector.as_mut().unwrap();
        selector.constraints = (0..count).map(constraint).collect();
        rule
    }

    #[test]
    fn policies_that_would_cost_too_much_are_refused() {
        use wire::MatchType::{Exact, Regex, Wildcard};
        let many = |n: usize| {
            (0..n)
                .map(|_| rule(0, &"a".repeat(32), Exact, None))
                .collect::<Vec<_>>()
        };
        let update = |to: &str| Some(to.repeat(MAX_TEXT_BYTES / to.len()));
        let attacks: Vec<(&str, Vec<wire::Rule>, &str)> = vec![
            ("rules without end", many(MAX_RULES + 1), "too many rules"),
            (
                "a rule with constraints without end",
                vec![matching(MAX_RULES, |_| "x".repeat(20))],
                "too many rules",
            ),
            (
                "an expression that becomes large",
                vec![rule(0, "(((a{99}){99}){99}){99}", Regex, None)],
                "too large",
            ),
            (
                "many expressions that become large",
                vec![matching(2_000, |n| format!("\\w{{20}}{n}"))],
                "too large",
            ),
            (
                "a replacement that names the whole text again and again",
                vec![rule(2, "(?s)(.*)", Regex, update("$1").as_deref())],
                "too long",
            ),
            (
                "a replacement between all letters",
                vec![rule(2, "", Regex, update("long").as_deref())],
                "too long",
            ),
            (
                "a wildcard that is named again and again",
                vec![rule(2, "a*", Wildcard, update("$1").as_deref())],
                "too long",
            ),
            (
                "a text that doubles with each change",
                vec![rule(2, "a*", Wildcard, Some("a$1$1"))],
                "at most",
            ),
        ];
        for (attack, rules, refusal) in attacks {
            let long = format!("a{}", "b".repeat(9_000));
            let refused = evaluated(rules, &long).expect_err(attack);
            assert!(refused.contains(refusal), "{attack}: {refused}");
        }
    }

    #[test]
    fn rules_times_sources_are_bounded_and_can_be_stopped() {
        let rules = (0..500).map(|_| matching(20, |_| "^x*$".into())).collect();
        let policy = wire::Policy { version: 1, rules };
        let policies = Policy::decode(&[policy.encode_to_vec().into()]).unwrap();
        let mut source = pb::SourceOp {
            identifier: "a".into(),
            attrs: [("k".to_owned(), "x".repeat(200))].into(),
        };
        let work = Work::of(1_000_000);
        let refused = evaluate(&policies, &mut source, &work).unwrap_err();
        assert!(refused.message().contains("too much work"), "{refused}");
        let work = Work::default();
        drop(work.stopper());
        let stopped = evaluate(&policies, &mut source, &work).unwrap_err();
        assert!(stopped.message().contains("canceled"), "{stopped}");
        // A bad expression is an error only when it is matched, as in the reference.
        let bad = vec![
            rule(0, "a", wire::MatchType::Exact, None),
            matching(1, |_| "(".into()),
        ];
        assert!(
            evaluated(bad, "b")
                .unwrap_err()
                .contains("invalid regex \"(\"")
        );
    }
}
