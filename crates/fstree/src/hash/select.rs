//! The digest of a selection: a path that is a pattern, or a directory through include and exclude patterns.
//!
//! The selection is taken depth first. Directories count with their own metadata, not with their contents, and a
//! directory that is not selected itself counts as soon as something below it does.
//!
//! A source that exclude patterns name counts no more than it is copied: see [`crate::action::copy`].

use std::borrow::Cow;

use oci::{Digest, Digester};
use pattern::{MatchInfo, PatternMatcher};

use super::nodes::{Name, Node, NodeId};
use super::tree::{Need, Place, State, clean};
use super::{HashError, Options};
use crate::root::Root;

struct Selected {
    // Path as the request spells it: links in the part before any wildcard are not resolved.
    visible_path: Vec<u8>,
    node: NodeId,
    header: bool,
    follow: bool,
}

// A directory that is being visited, with the children that are not visited yet.
struct Visit {
    visible_path: Vec<u8>,
    remaining: std::vec::IntoIter<(Name, NodeId)>,
    // Whether it is the innermost of `above`.
    is_innermost: bool,
}

// A directory on the way down that counts.
struct Above {
    entry: Option<Selected>,
    include: MatchInfo,
    exclude: MatchInfo,
}

struct Selection<'a> {
    root: &'a Root,
    // The cleaned path, with no slash for the root.
    path: String,
    // The part of `path` before any wildcard.
    prefix: &'a str,
    ends_in_slash: bool,
    options: &'a Options,
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    // The last directory or file that the wildcard matched: below it everything matches.
    matched: Option<Vec<u8>>,
    above: Vec<Above>,
    out: Vec<Selected>,
}

pub(super) fn checksum(
    state: &mut State,
    root: &Root,
    path: &str,
    options: &Options,
) -> Result<Digest, HashError> {
    let cleaned = clean(path);
    let (prefix, place) = start(state, root, &cleaned, options)?;
    let mut selection = Selection {
        root,
        ends_in_slash: path.ends_with('/'),
        include: matcher("includepatterns", &options.include)?,
        exclude: matcher("excludepatterns", &options.exclude)?,
        path: cleaned,
        prefix: &prefix,
        options,
        matched: None,
        above: Vec::new(),
        out: Vec::new(),
    };
    if let Some(node) = state.get(root, &place)? {
        selection.visit_all(state, node, prefix.clone().into_bytes())?;
    }
    let selected = selection.out;
    for required in &options.required_paths {
        if !selected
            .iter()
            .any(|s| s.visible_path.starts_with(required.as_bytes()))
        {
            return Err(HashError::NotFound(required.clone()));
        }
    }
    digest(state, root, path, &prefix, options, selected)
}

// The start of the walk: the requested path before any wildcard, and the place to which it resolves.
fn start(
    state: &mut State,
    root: &Root,
    path: &str,
    options: &Options,
) -> Result<(String, Place), HashError> {
    if !options.wildcard {
        return Ok((
            path.to_owned(),
            state.resolve(root, path.as_bytes(), false)?,
        ));
    }
    let mut prefix = String::new();
    let mut rest = false;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if has_wildcards(name) {
            rest = true;
            break;
        }
        prefix.push('/');
        prefix.push_str(name);
    }
    let place = state.resolve(root, prefix.as_bytes(), rest)?;
    Ok((prefix, place))
}

fn has_wildcards(name: &str) -> bool {
    let mut chars = name.bytes();
    while let Some(c) = chars.next() {
        match c {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

fn matcher(kind: &'static str, patterns: &[String]) -> Result<Option<PatternMatcher>, HashError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    PatternMatcher::new(patterns)
        .map(Some)
        .map_err(|source| HashError::Pattern {
            kind,
            patterns: patterns.to_vec(),
            source,
        })
}

impl Selection<'_> {
    // Visits a node and what is below it, parents first and names in byte order.
    fn visit_all(
        &mut self,
        state: &mut State,
        node: NodeId,
        visible_path: Vec<u8>,
    ) -> Result<(), HashError> {
        let mut open: Vec<Visit> = self.visit(state, node, visible_path)?.into_iter().collect();
        while let Some(visit) = open.last_mut() {
            match visit.remaining.next() {
                Some((name, child)) => {
                    let visible_path = [&visit.visible_path[..], b"/", &*name].concat();
                    open.extend(self.visit(state, child, visible_path)?);
                }
                None => {
                    if visit.is_innermost {
                        self.above.pop();
                    }
                    open.pop();
                }
            }
        }
        Ok(())
    }

    // Visits one node; of a directory, returns what is to be visited in it.
    fn visit(
        &mut self,
        state: &mut State,
        node: NodeId,
        visible_path: Vec<u8>,
    ) -> Result<Option<Visit>, HashError> {
        match state.nodes.node(node) {
            Node::File(_) => return self.visit_leaf(visible_path, node, false).map(|()| None),
            Node::Link(..) => return self.visit_leaf(visible_path, node, true).map(|()| None),
            Node::Dir(_) => {}
        }
        let on_the_path = self.wildcard_reaches(&visible_path)?;
        if self.leaves_out_dir(on_the_path, &visible_path) {
            return Ok(None);
        }
        let mut is_innermost = false;
        if on_the_path && !(self.ends_in_slash && visible_path == self.path.as_bytes()) {
            let (take, include, exclude) = self.matches(&visible_path)?;
            let follow = self.above.is_empty() && self.options.follow_links;
            let entry = Selected {
                visible_path: visible_path.clone(),
                node,
                header: true,
                follow,
            };
            self.above.push(Above {
                entry: Some(entry),
                include,
                exclude,
            });
            is_innermost = true;
            if take {
                self.take_above();
            }
        }
        let mut remaining = Vec::new();
        if self.worth_entering(on_the_path, is_innermost, &visible_path)? {
            state.read(self.root, node)?;
            let children = state.nodes.dir(node).and_then(|dir| dir.children.as_ref());
            remaining.extend(
                children
                    .into_iter()
                    .flatten()
                    .map(|(name, id)| (Name::clone(name), *id)),
            );
        }
        Ok(Some(Visit {
            visible_path,
            remaining: remaining.into_iter(),
            is_innermost,
        }))
    }

    fn visit_leaf(
        &mut self,
        visible_path: Vec<u8>,
        node: NodeId,
        link: bool,
    ) -> Result<(), HashError> {
        if !self.wildcard_reaches(&visible_path)? {
            return Ok(());
        }
        let selected = match &self.exclude {
            // A link may lead to a directory, which is copied whatever its name.
            Some(exclude) if self.is_source(&visible_path) => {
                (link && !self.options.wildcard) || !exclude.names(&pattern_text(&visible_path))
            }
            _ => self.matches(&visible_path)?.0,
        };
        if !selected {
            return Ok(());
        }
        let follow = link && self.above.is_empty() && self.options.follow_links;
        self.take_above();
        self.out.push(Selected {
            visible_path,
            node,
            header: false,
            follow,
        });
        Ok(())
    }

    // Whether the path is what is copied, and not something in it.
    fn is_source(&self, visible_path: &[u8]) -> bool {
        match &self.matched {
            Some(matched) => matched == visible_path,
            None => !self.options.wildcard && visible_path == self.path.as_bytes(),
        }
    }

    // Whether exclude patterns keep a wildcard from finding a directory or going through it.
    // DIFFERS: BuildKit counts, as it copies, what a wildcard finds whatever the patterns say.
    fn leaves_out_dir(&self, on_the_path: bool, visible_path: &[u8]) -> bool {
        let Some(exclude) = self.exclude.as_ref().filter(|e| !e.exclusions()) else {
            return false;
        };
        self.options.wildcard
            && visible_path.len() > self.prefix.len()
            && (!on_the_path || self.is_source(visible_path))
            && exclude.names(&pattern_text(visible_path))
    }

    fn take_above(&mut self) {
        self.out
            .extend(self.above.iter_mut().filter_map(|above| above.entry.take()));
    }

    // Whether the wildcard matches this path or matched something it is in.
    fn wildcard_reaches(&mut self, visible_path: &[u8]) -> Result<bool, HashError> {
        if !self.options.wildcard
            || self.path.is_empty()
            || self
                .matched
                .as_ref()
                .is_some_and(|m| is_below(visible_path, m))
        {
            return Ok(true);
        }
        if !self.path_matches(&self.path, visible_path)? {
            return Ok(false);
        }
        self.matched = Some(visible_path.to_vec());
        Ok(true)
    }

    fn path_matches(&self, pattern: &str, visible_path: &[u8]) -> Result<bool, HashError> {
        // `BadPattern` has no fields; the pattern as given is named, not the part of it that was compared.
        pattern::path_match(pattern, &String::from_utf8_lossy(visible_path)).map_err(|_| {
            HashError::Pattern {
                kind: "path",
                patterns: vec![self.path.clone()],
                source: pattern::PatternError::Syntax {
                    pattern: self.path.clone(),
                },
            }
        })
    }

    // Whether anything below a directory can be selected; a directory that cannot matter is not even read.
    fn worth_entering(
        &self,
        on_the_path: bool,
        is_innermost: bool,
        visible_path: &[u8],
    ) -> Result<bool, HashError> {
        if !on_the_path {
            // A class may match a slash, and then names cannot be taken one by one.
            if self.path.contains('[') || self.path.contains('\\') {
                return Ok(true);
            }
            let depth = visible_path.iter().filter(|b| **b == b'/').count();
            let Some((end, _)) = self.path.match_indices('/').nth(depth) else {
                return Ok(false);
            };
            return self.path_matches(self.path.get(..end).unwrap_or_default(), visible_path);
        }
        let (Some(exclude), Some(above)) =
            (&self.exclude, self.above.last().filter(|_| is_innermost))
        else {
            return Ok(true);
        };
        Ok(exclude.exclusions() || !above.exclude.any())
    }

    fn matches(&self, visible_path: &[u8]) -> Result<(bool, MatchInfo, MatchInfo), HashError> {
        let base = match &self.matched {
            Some(matched) if self.options.wildcard => matched.as_slice(),
            _ if self.options.wildcard => b"",
            _ => self.path.as_bytes(),
        };
        let candidate = visible_path.strip_prefix(base).unwrap_or(visible_path);
        let candidate = String::from_utf8_lossy(candidate.strip_prefix(b"/").unwrap_or(candidate));
        let parent = self.above.last();
        let mut info = (MatchInfo::default(), MatchInfo::default());
        if let Some(include) = &self.include {
            let none = MatchInfo::default();
            let (yes, info_for_children) = include
                .matches_using_parent_results(&candidate, parent.map_or(&none, |p| &p.include));
            info.0 = info_for_children;
            if !yes {
                return Ok((false, info.0, info.1));
            }
        }
        if let Some(exclude) = &self.exclude {
            let none = MatchInfo::default();
            let (yes, info_for_children) = exclude
                .matches_using_parent_results(&candidate, parent.map_or(&none, |p| &p.exclude));
            info.1 = info_for_children;
            if yes {
                return Ok((false, info.0, info.1));
            }
        }
        Ok((true, info.0, info.1))
    }
}

// A path as exclude patterns see it.
fn pattern_text(visible_path: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(visible_path.strip_prefix(b"/").unwrap_or(visible_path))
}

fn is_below(visible_path: &[u8], dir: &[u8]) -> bool {
    visible_path
        .strip_prefix(dir)
        .is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn digest(
    state: &mut State,
    root: &Root,
    path: &str,
    prefix: &str,
    options: &Options,
    selected: Vec<Selected>,
) -> Result<Digest, HashError> {
    let mut needs = Vec::new();
    for s in selected.iter().filter(|s| !s.follow || s.header) {
        let has_digest = match state.nodes.node(s.node) {
            Node::Dir(dir) => dir.header.is_some(),
            Node::File(digest) | Node::Link(_, digest) => digest.is_some(),
        };
        if !has_digest {
            needs.push(Need {
                node: s.node,
                header: s.header,
            });
        }
    }
    state.learn(root, &needs)?;
    let mut digests = Vec::with_capacity(selected.len());
    for s in &selected {
        let learned = match state.nodes.node(s.node) {
            Node::Link(..) if s.follow => None,
            Node::Dir(dir) => dir.header.clone(),
            Node::File(digest) | Node::Link(_, digest) => digest.clone(),
        };
        digests.push(match learned {
            Some(digest) => digest,
            None => state.checksum(
                root,
                &String::from_utf8_lossy(&s.visible_path),
                options.follow_links,
            )?,
        });
    }
    match (selected.as_slice(), digests.as_slice()) {
        ([], _) => return Ok(Digest::sha256(b"")),
        ([one], [digest]) if base(path.as_bytes()) == base(&one.visible_path) => {
            return Ok(digest.clone());
        }
        _ => {}
    }
    let mut out = Digester::new();
    for (s, digest) in selected.iter().zip(&digests) {
        let visible_path = s
            .visible_path
            .strip_prefix(prefix.as_bytes())
            .unwrap_or(&s.visible_path);
        if visible_path.is_empty() {
            out.update(b"\0");
        }
        for (i, name) in visible_path.split(|b| *b == b'/').enumerate() {
            if i > 0 {
                out.update(b"\0");
            }
            out.update(name);
        }
        out.update(digest.as_str().as_bytes());
    }
    Ok(out.finish())
}

// Go's `path.Base`.
fn base(path: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        return b".".to_vec();
    }
    split_last(path).unwrap_or_else(|| b"/".to_vec())
}

fn split_last(path: &[u8]) -> Option<Vec<u8>> {
    path.split(|b| *b == b'/')
        .rfind(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
}
