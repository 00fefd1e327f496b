//! Circles between the top-level modules of a crate.
//!
//! An edge is a path in the source of one module that names another: `crate::other::…`, `super::…` as far as the root, and names
//! that the root hands on (`pub use other::Name`). The root itself is a module, `lib`, as far as it defines or uses something;
//! what it only declares and hands on makes no edge. Code for tests makes none either. Methods and inferred types cannot be
//! seen in the text; a module whose values are used is nearly always named as well.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Token, tokens};

/// The root of a crate among its modules.
const ROOT: &str = "lib";

/// A file of a crate: its place below `src` without the ending, and its text.
#[derive(Debug)]
pub(super) struct ModuleFile {
    /// `["gateway", "build"]` for `src/gateway/build.rs`; empty for the root.
    pub(super) path: Vec<String>,
    /// What it holds.
    pub(super) text: String,
}

/// Which modules each module names, for a crate with these files.
pub(super) fn edges(files: &[ModuleFile]) -> BTreeMap<String, BTreeSet<String>> {
    let scans: Vec<(&ModuleFile, ModuleNames)> =
        files.iter().map(|f| (f, ModuleNames::of(f))).collect();
    let test_modules: BTreeSet<&Vec<String>> =
        scans.iter().flat_map(|(_, s)| &s.test_modules).collect();
    let modules: BTreeSet<&str> = files
        .iter()
        .filter_map(|f| f.path.first().map(String::as_str))
        .collect();
    let root = scans.iter().find(|(file, _)| file.path.is_empty());
    let handed_on = root.map(|(_, scan)| &scan.handed_on);
    let defined = root.map(|(_, scan)| &scan.defined);
    let resolve = |name: &str| -> Option<String> {
        if modules.contains(name) {
            return Some(name.to_owned());
        }
        if let Some(module) = handed_on.and_then(|names| names.get(name)) {
            return modules.contains(module.as_str()).then(|| module.clone());
        }
        defined?.contains(name).then(|| ROOT.to_owned())
    };
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, scan) in &scans {
        let is_test = (1..=file.path.len()).any(|length| {
            test_modules
                .iter()
                .any(|m| file.path.get(..length) == Some(m.as_slice()))
        });
        if is_test {
            continue;
        }
        let from = file.path.first().map_or(ROOT, String::as_str);
        let own = edges.entry(from.to_owned()).or_default();
        own.extend(scan.root_names.iter().filter_map(|name| resolve(name)));
        own.remove(from);
    }
    edges
}

/// The circles: sets of at least two modules each of which reaches each other one.
pub(super) fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges
        .keys()
        .map(|from| (from.as_str(), reachable(edges, from)))
        .collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for (from, targets) in &reached {
        let is_in_one = circles.iter().any(|circle| circle.contains(*from));
        if is_in_one || !targets.contains(from) {
            continue;
        }
        let reaches_back = |to: &&&str| reached.get(**to).is_some_and(|t| t.contains(from));
        let circle = targets.iter().filter(reaches_back);
        circles.push(circle.map(|module| (*module).to_owned()).collect());
    }
    circles
}

/// Everything that is reached in at least one step.
fn reachable<'a>(edges: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut queue: Vec<&str> = vec![from];
    while let Some(module) = queue.pop() {
        for next in edges.get(module).into_iter().flatten() {
            if reached.insert(next.as_str()) {
                queue.push(next);
            }
        }
    }
    reached
}

/// What one file says.
#[derive(Debug, Default)]
struct ModuleNames {
    /// Names in the root of the crate that it uses.
    root_names: BTreeSet<String>,
    /// Modules that are only there for tests.
    test_modules: Vec<Vec<String>>,
    /// Of a root: names that it hands on, with the module that they come from.
    handed_on: BTreeMap<String, String>,
    /// Of a root: names that it defines.
    defined: BTreeSet<String>,
}

impl ModuleNames {
    fn of(file: &ModuleFile) -> Self {
        let tokens = tokens(&file.text);
        let mut scan = Self::default();
        let mut inline: Vec<(String, usize)> = Vec::new();
        let mut depth = 0_usize;
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            if token.is_mark('#') && tokens.get(at + 1).is_some_and(|t| t.is_mark('[')) {
                let end = balanced_end(&tokens, at + 1, '[', ']');
                let attribute = tokens.get(at..end).unwrap_or_default();
                at = end;
                if is_for_tests(attribute) {
                    let (name, next) = skip_item(&tokens, at);
                    let outer = inline.iter().map(|(name, _)| name);
                    let path = file.path.iter().chain(outer).cloned();
                    scan.test_modules
                        .extend(name.map(|name| path.chain([name]).collect()));
                    at = next;
                }
                continue;
            }
            if token.is_mark('{') {
                depth += 1;
            } else if token.is_mark('}') {
                depth = depth.saturating_sub(1);
                inline.pop_if(|(_, opened)| *opened > depth);
            } else if token.is("mod") && tokens.get(at + 2).is_some_and(|t| t.is_mark('{')) {
                let name = tokens.get(at + 1).and_then(Token::word);
                depth += 1;
                inline.extend(name.map(|name| (name.to_owned(), depth)));
                at += 3;
                continue;
            }
            let module_depth = file.path.len() + inline.len();
            if module_depth == 0 && token.is("use") {
                at = scan.root_use(&tokens, at);
                continue;
            }
            if module_depth == 0 && depth == 0 {
                scan.define(&tokens, at);
            }
            scan.path(&tokens, at, module_depth);
            at += 1;
        }
        scan
    }

    /// A `use` in the root: it hands names on, and imports them unless it is public.
    fn root_use(&mut self, tokens: &[Token], start: usize) -> usize {
        let end = (start..tokens.len())
            .find(|at| tokens.get(*at).is_some_and(|t| t.is_mark(';')))
            .unwrap_or(tokens.len());
        let is_public = start
            .checked_sub(1)
            .and_then(|before| tokens.get(before))
            .is_some_and(|t| t.is("pub") || t.is_mark(')'));
        for mut path in use_paths(tokens.get(start + 1..end).unwrap_or_default()) {
            if path.first().is_some_and(|p| p == "crate" || p == "self") {
                path.remove(0);
            }
            let (Some(module), Some(name)) = (path.first(), path.last()) else {
                continue;
            };
            if !is_public {
                self.root_names.insert(module.clone());
            }
            self.handed_on.insert(name.clone(), module.clone());
        }
        end
    }

    /// An item of the root.
    fn define(&mut self, tokens: &[Token], at: usize) {
        const ITEMS: &[&str] = &[
            "fn", "struct", "enum", "trait", "type", "const", "static", "union",
        ];
        let is_item = tokens.get(at).and_then(Token::word);
        if is_item.is_some_and(|word| ITEMS.contains(&word)) {
            let name = tokens.get(at + 1).and_then(Token::word);
            self.defined.extend(name.map(str::to_owned));
        }
    }

    /// A path that begins at this token, as far as it says something about the root of the crate.
    fn path(&mut self, tokens: &[Token], at: usize, module_depth: usize) {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        let continues = before == Some(&Token::PathSeparator);
        let is_visibility = before.is_some_and(|t| t.is("in"))
            && at
                .checked_sub(2)
                .and_then(|b| tokens.get(b))
                .is_some_and(|t| t.is_mark('('));
        let Some(word) = tokens.get(at).and_then(Token::word) else {
            return;
        };
        if continues || is_visibility || tokens.get(at + 1) != Some(&Token::PathSeparator) {
            return;
        }
        match word {
            "crate" => self.names_after(tokens, at + 2, 0),
            "self" if module_depth == 0 => self.names_after(tokens, at + 2, 0),
            "super" => self.names_after(tokens, at + 2, module_depth.saturating_sub(1)),
            // In the root a module is named without a prefix.
            name if module_depth == 0 => {
                self.root_names.insert(name.to_owned());
            }
            _ => {}
        }
    }

    /// Names that stand at `start`, in a module that is so deep below the root.
    fn names_after(&mut self, tokens: &[Token], start: usize, module_depth: usize) {
        let mut starts = vec![(start, module_depth)];
        while let Some((at, module_depth)) = starts.pop() {
            let Some(token) = tokens.get(at) else {
                continue;
            };
            if token.is("super") {
                starts.push((at + 2, module_depth.saturating_sub(1)));
            } else if token.is_mark('{') {
                let end = balanced_end(tokens, at, '{', '}');
                let mut group_depth = 0_usize;
                for inner in at..end {
                    let Some(token) = tokens.get(inner) else {
                        continue;
                    };
                    if token.is_mark('{') {
                        group_depth += 1;
                    } else if token.is_mark('}') {
                        group_depth -= 1;
                    }
                    let opens = inner == at || (token.is_mark(',') && group_depth == 1);
                    if opens {
                        starts.push((inner + 1, module_depth));
                    }
                }
            } else if module_depth == 0 {
                self.root_names.extend(token.word().map(str::to_owned));
            }
        }
    }
}

/// The paths of a `use`, each with the name that it brings as its last part.
fn use_paths(tree: &[Token]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut prefixes: Vec<Vec<String>> = vec![Vec::new()];
    let mut current: Vec<String> = Vec::new();
    for token in tree {
        match token {
            Token::Mark('{') => prefixes.push(std::mem::take(&mut current)),
            Token::Mark(',' | '}') => {
                if !current.is_empty() {
                    paths.push(joined(&prefixes, &current));
                    current.clear();
                }
                if token.is_mark('}') {
                    prefixes.pop();
                }
            }
            // The name that follows is the one it has from here on.
            Token::Word(word) if word == "as" => {}
            // In a group, `self` is what the group is of.
            Token::Word(word) if word == "self" && prefixes.len() > 1 => {
                paths.push(joined(&prefixes, &[]));
            }
            Token::Word(word) => current.push(word.clone()),
            Token::Mark(mark) => current.push(mark.to_string()),
            Token::PathSeparator => {}
        }
    }
    if !current.is_empty() {
        paths.push(joined(&prefixes, &current));
    }
    paths
}

fn joined(prefixes: &[Vec<String>], current: &[String]) -> Vec<String> {
    prefixes.iter().flatten().chain(current).cloned().collect()
}

/// `cfg(test)`, also among other conditions, but not `cfg(not(test))`.
fn is_for_tests(attribute: &[Token]) -> bool {
    let has = |word: &str| attribute.iter().any(|t| t.is(word));
    has("cfg") && has("test") && !has("not")
}

/// Skips the item at `start`; returns its name if it is a module, and where it ends.
fn skip_item(tokens: &[Token], start: usize) -> (Option<String>, usize) {
    let mut at = start;
    let mut name = None;
    let mut is_use = false;
    while let Some(token) = tokens.get(at) {
        if token.is("mod") && name.is_none() {
            name = tokens.get(at + 1).and_then(Token::word).map(str::to_owned);
        }
        is_use |= token.is("use");
        if token.is_mark(';') {
            return (name, at + 1);
        }
        if token.is_mark('{') && !is_use {
            return (name, balanced_end(tokens, at, '{', '}'));
        }
        if token.is_mark('(') {
            at = balanced_end(tokens, at, '(', ')');
            continue;
        }
        if token.is_mark('[') {
            at = balanced_end(tokens, at, '[', ']');
            continue;
        }
        at += 1;
    }
    (name, at)
}

/// Behind the bracket that closes the one at `start`.
fn balanced_end(tokens: &[Token], start: usize, open: char, close: char) -> usize {
    let mut depth = 0_usize;
    for (offset, token) in tokens.get(start..).unwrap_or_default().iter().enumerate() {
        if token.is_mark(open) {
            depth += 1;
        } else if token.is_mark(close) {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return start + offset + 1;
            }
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> BTreeMap<String, BTreeSet<String>> {
        let files: Vec<ModuleFile> = files
            .iter()
            .map(|(path, text)| ModuleFile {
                path: path
                    .split('/')
                    .filter(|p| !p.is_empty())
                    .map(str::to_owned)
                    .collect(),
                text: (*text).to_owned(),
            })
            .collect();
        edges(&files)
    }

    fn names(circles: &[BTreeSet<String>]) -> Vec<String> {
        circles
            .iter()
            .map(|c| c.iter().cloned().collect::<Vec<_>>().join(" "))
            .collect()
    }

    /// Each row is how the module `a` names `b`, which names `a` back.
    #[test]
    fn a_circle_is_seen_however_it_is_written() {
        for (name, root, a, deep) in [
            ("a path", "mod a; mod b;", "fn f() { crate::b::g() }", ""),
            ("a use", "mod a; mod b;", "use crate::b::g;", ""),
            (
                "a group",
                "mod a; mod b;",
                "use crate::{c::{x, y}, b::g};",
                "",
            ),
            ("super", "mod a; mod b;", "use super::b::g;", ""),
            (
                "super twice",
                "mod a; mod b;",
                "",
                "use super::super::{b::g};",
            ),
            (
                "a group of supers",
                "mod a; mod b;",
                "",
                "use super::{x, super::b};",
            ),
            (
                "super in an inline module",
                "mod a; mod b;",
                "mod i { use super::super::b::g; }",
                "",
            ),
            (
                "a name of the root",
                "mod a; mod b; pub use b::{c::G, H};",
                "use crate::G;",
                "",
            ),
            (
                "a name changed",
                "mod a; mod b; pub use b::g as other;",
                "fn f() { crate::other() }",
                "",
            ),
            (
                "a macro",
                "mod a; mod b;",
                "fn f() { select! { _ = crate::b::g() => {} } }",
                "",
            ),
        ] {
            let edges = crate_of(&[
                ("", root),
                ("a", a),
                ("a/deep", deep),
                ("b", "use crate::a;"),
            ]);
            assert_eq!(names(&circles(&edges)), ["a b"], "{name}: {edges:?}");
        }
    }

    #[test]
    fn no_edge_comes_from_tests_comments_visibility_or_one_s_own_modules() {
        for a in [
            "#[cfg(test)] mod tests { use crate::b::g; }",
            "#[cfg(test)] use crate::b::{g, h}; fn f() {}",
            "#[cfg(test)] mod deep;",
            "// crate::b::g\nconst T: &str = \"crate::b\";",
            "pub(in crate::b) fn f() {}",
            "mod i { use super::b::g; }",
            "fn f() { b::g(); crate::c::b::g(); }",
        ] {
            let deep = if a.contains("mod deep") {
                "use crate::b::g;"
            } else {
                ""
            };
            let edges = crate_of(&[
                ("", "mod a; mod b; mod c;"),
                ("a", a),
                ("a/deep", deep),
                ("b", "use crate::a;"),
                ("c", ""),
            ]);
            assert_eq!(
                names(&circles(&edges)),
                Vec::<String>::new(),
                "{a}: {edges:?}"
            );
        }
    }

    #[test]
    fn what_the_root_defines_makes_it_part_of_a_circle() {
        let a = ("a", "use crate::Error; fn f() {}");
        let only_defines = crate_of(&[("", "mod a; pub struct Error;"), a]);
        assert_eq!(circles(&only_defines).len(), 0, "{only_defines:?}");
        let uses = crate_of(&[("", "mod a; pub struct Error; fn g() { a::f() }"), a]);
        assert_eq!(names(&circles(&uses)), ["a lib"]);
        let imports = crate_of(&[("", "mod a; use a::f; pub struct Error;"), a]);
        assert_eq!(names(&circles(&imports)), ["a lib"]);
    }

    #[test]
    fn two_circles_are_told_apart_and_a_chain_is_none() {
        let edges = crate_of(&[
            ("", "mod a;"),
            ("a", "use crate::b;"),
            ("b", "use crate::{a, c};"),
            ("c", "use crate::d;"),
            ("d", "use crate::e;"),
            ("e", "use crate::c;"),
            ("f", "use crate::a;"),
        ]);
        assert_eq!(names(&circles(&edges)), ["a b", "c d e"]);
    }
}
