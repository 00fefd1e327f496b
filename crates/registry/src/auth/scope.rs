//! Token scopes: `type:name:action,action`, merged by name.

use std::collections::{BTreeMap, BTreeSet};

/// A set of scopes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// Reads scopes; one text may hold several, separated by blanks.
    pub(crate) fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut out = Self::default();
        for scope in texts
            .into_iter()
            .flat_map(|t| t.split(' '))
            .filter(|s| !s.is_empty())
        {
            let (name, actions) = split(scope);
            out.0.entry(name.to_owned()).or_default().extend(
                actions
                    .split(',')
                    .filter(|a| !a.is_empty())
                    .map(str::to_owned),
            );
        }
        out
    }

    /// Adds the scopes of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, actions) in &other.0 {
            self.0
                .entry(name.clone())
                .or_default()
                .extend(actions.iter().cloned());
        }
    }

    /// The scopes in canonical form: names and actions sorted, each once.
    pub(crate) fn normalized(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(name, actions)| {
                format!(
                    "{name}:{}",
                    actions
                        .iter()
                        .map(String::as_str)
                        .collect::<Vec<_>>()
                        .join(",")
                )
            })
            .collect()
    }

    /// Whether all scopes of `other` are in this set.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|(name, actions)| {
            self.0
                .get(name)
                .is_some_and(|actions_here| actions.is_subset(actions_here))
        })
    }
}

/// Splits a scope into `type:name` and its actions, which follow the second colon.
fn split(scope: &str) -> (&str, &str) {
    let Some(first_colon) = scope.find(':') else {
        return (scope, "");
    };
    match scope.get(first_colon + 1..).and_then(|rest| rest.find(':')) {
        Some(second_colon) => {
            let at = first_colon + 1 + second_colon;
            (
                scope.get(..at).unwrap_or(scope),
                scope.get(at + 1..).unwrap_or_default(),
            )
        }
        None => (scope, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::Scopes;

    #[test]
    fn scopes_are_merged_and_sorted() {
        let mut scopes = Scopes::parse([
            "repository:b:push,pull repository:a:pull",
            "repository:b:pull",
        ]);
        scopes.merge(&Scopes::parse(["registry:catalog:*"]));
        assert_eq!(
            scopes.normalized(),
            [
                "registry:catalog:*",
                "repository:a:pull",
                "repository:b:pull,push"
            ]
        );
        assert!(scopes.contains(&Scopes::parse(["repository:b:push"])));
        assert!(!scopes.contains(&Scopes::parse(["repository:a:push"])));
    }

    #[test]
    fn a_scope_is_a_type_a_name_and_actions() {
        for (text, normalized) in [
            ("", &[][..]),
            ("   ", &[]),
            ("repository:a/b:pull", &["repository:a/b:pull"]),
            (
                "repository:a/b:push,pull,push",
                &["repository:a/b:pull,push"],
            ),
            ("repository:a/b:", &["repository:a/b:"]),
            ("repository:a/b", &["repository:a/b:"]),
            (
                "repository:a/b:pull  repository:a/b:push",
                &["repository:a/b:pull,push"],
            ),
            ("word", &["word:"]),
            ("repository(plugin):a:pull", &["repository(plugin):a:pull"]),
        ] {
            assert_eq!(Scopes::parse([text]).normalized(), normalized, "{text:?}");
        }
    }

    #[test]
    fn nothing_is_contained_in_everything() {
        let nothing = Scopes::parse([""]);
        let some = Scopes::parse(["repository:a:pull,push"]);
        assert!(some.contains(&nothing) && nothing.contains(&nothing));
        assert!(!nothing.contains(&some));
        assert!(some.contains(&Scopes::parse(["repository:a:"])));
        assert!(!some.contains(&Scopes::parse(["repository:a:*"])));
    }
}
