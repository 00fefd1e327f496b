//! What members reach through whatever they depend on, other members and libraries alike.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// The part of `cargo metadata` that says what depends on what once everything is resolved.
#[derive(Debug, Deserialize)]
pub(super) struct ResolvedMetadata {
    packages: Vec<ResolvedPackage>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct ResolvedPackage {
    name: String,
    id: String,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// For each package, members without their prefix, which packages its programs are linked with directly. Dependencies of
/// tests and of build scripts are not among them.
pub(super) fn graph(
    metadata: &ResolvedMetadata,
) -> (BTreeMap<String, BTreeSet<String>>, BTreeSet<String>) {
    let names: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|p| (p.id.as_str(), super::short(&p.name)))
        .collect();
    let name = |id: &str| names.get(id).map(|name| (*name).to_owned());
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in &metadata.resolve.nodes {
        let linked = node
            .deps
            .iter()
            .filter(|edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        // Two versions of a library share a name: what one of them needs, the name needs.
        let needs = graph.entry(name(&node.id).unwrap_or_default()).or_default();
        needs.extend(linked.filter_map(|edge| name(&edge.pkg)));
    }
    let members = metadata.workspace_members.iter();
    (graph, members.filter_map(|id| name(id)).collect())
}

/// Members that reach a package although its row does not have them, each with the shortest way.
pub(super) fn faults(
    rules: &BTreeMap<String, BTreeSet<String>>,
    graph: &BTreeMap<String, BTreeSet<String>>,
    members: &BTreeSet<String>,
    faults: &mut Vec<String>,
) {
    for (target, allowed) in rules {
        if !graph.contains_key(target) {
            faults.push(format!(
                "[reached-by] names {target}, which nothing depends on"
            ));
        }
        for member in allowed.difference(members) {
            faults.push(format!(
                "[reached-by] {target} names {member}, which is no member"
            ));
        }
        for member in members.iter().filter(|member| *member != target) {
            match (way(graph, member, target), allowed.contains(member)) {
                (Some(way), false) => faults.push(format!(
                    "{member} may not reach {target}: {}",
                    way.join(" → ")
                )),
                (None, true) => faults.push(format!(
                    "[reached-by] {target} names {member}, which does not reach it any more: remove it there"
                )),
                (Some(_), true) | (None, false) => {}
            }
        }
    }
}

/// The shortest way from one package to another, both included.
fn way<'a>(
    graph: &'a BTreeMap<String, BTreeSet<String>>,
    from: &'a str,
    to: &str,
) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([from]);
    while let Some(package) = queue.pop_front() {
        if package == to {
            let mut way = vec![package];
            let mut last = package;
            while let Some(before) = came_from.get(last) {
                way.push(before);
                last = before;
            }
            way.reverse();
            return Some(way);
        }
        for next in graph.get(package).into_iter().flatten() {
            if next != from && !came_from.contains_key(next.as_str()) {
                came_from.insert(next, package);
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(rows: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        rows.iter()
            .map(|(name, needs)| {
                let needs = needs.iter().map(|need| (*need).to_owned());
                ((*name).to_owned(), needs.collect())
            })
            .collect()
    }

    fn check(rules: &[(&str, &[&str])], graph: &[(&str, &[&str])]) -> Vec<String> {
        let graph = sets(graph);
        let members = ["ops", "llb", "proto", "control"];
        let members = members.iter().map(|m| (*m).to_owned()).collect();
        let mut faults_found = Vec::new();
        faults(&sets(rules), &graph, &members, &mut faults_found);
        faults_found
    }

    const KEPT_RULES: &[(&str, &[&str])] = &[
        ("control", &["llb", "tonic"]),
        ("ops", &["llb"]),
        ("llb", &["proto"]),
        ("proto", &["prost"]),
        ("prost", &[]),
        ("tonic", &["prost"]),
    ];

    #[test]
    fn a_rule_that_is_kept_says_nothing() {
        assert_eq!(
            check(&[("tonic", &["control"])], KEPT_RULES),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_layer_that_is_reached_through_others_is_named_with_the_way() {
        let mut graph = KEPT_RULES.to_vec();
        graph.push(("proto", &["prost", "tonic"]));
        assert_eq!(
            check(&[("tonic", &["control"])], &graph),
            [
                "llb may not reach tonic: llb → proto → tonic",
                "ops may not reach tonic: ops → llb → proto → tonic",
                "proto may not reach tonic: proto → tonic",
            ]
        );
    }

    #[test]
    fn a_library_that_needs_it_counts_and_so_does_a_member_that_is_the_target() {
        let mut graph = KEPT_RULES.to_vec();
        graph.push(("prost", &["tonic"]));
        graph.push(("tonic", &[]));
        assert_eq!(check(&[("tonic", &["control"])], &graph).len(), 3);
        assert_eq!(
            check(&[("llb", &["control"])], KEPT_RULES),
            ["ops may not reach llb: ops → llb"]
        );
    }

    #[test]
    fn rows_that_are_out_of_date_are_named() {
        assert_eq!(
            check(
                &[("tonic", &["control", "ops", "gone"]), ("hyper", &[])],
                KEPT_RULES
            ),
            [
                "[reached-by] names hyper, which nothing depends on",
                "[reached-by] tonic names gone, which is no member",
                "[reached-by] tonic names ops, which does not reach it any more: remove it there",
            ]
        );
    }

    #[test]
    fn only_what_programs_are_linked_with_is_an_edge() {
        let metadata: ResolvedMetadata = serde_json::from_str(
            r#"{"packages": [{"name": "rbuild-ops", "id": "1"}, {"name": "tonic", "id": "2"}, {"name": "cc", "id": "3"}, {"name": "prost", "id": "4"}],
                "workspace_members": ["1"],
                "resolve": {"nodes": [{"id": "1", "deps": [
                    {"pkg": "2", "dep_kinds": [{"kind": "dev"}]},
                    {"pkg": "3", "dep_kinds": [{"kind": "build"}]},
                    {"pkg": "4", "dep_kinds": [{"kind": "dev"}, {"kind": null}]}]}]}}"#,
        )
        .expect("metadata");
        let (graph, members) = graph(&metadata);
        assert_eq!(graph, sets(&[("ops", &["prost"])]));
        assert_eq!(members.into_iter().collect::<Vec<_>>(), ["ops"]);
    }
}
