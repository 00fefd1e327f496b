//! Finds the paths that match a pattern.

use std::path::{Path, PathBuf};

use pattern::PatternMatcher;

use super::{ActionError, SourceLink, lexical};
use crate::descent::Descent;
use crate::error::Located;
use crate::root::Root;
use crate::stat::Kind;

/// The paths that match a pattern.
#[derive(Debug, Default)]
pub(super) struct PatternMatches {
    /// The paths, in walk order.
    pub(super) paths: Vec<PathBuf>,
    /// Whether something was excluded.
    pub(super) left_out: bool,
    /// Whether an excluded path was a directory.
    pub(super) left_out_dir: bool,
}

/// The paths a pattern matches. The part before the first wildcard is taken as it is, with links in it followed; below a match
/// nothing else is looked for. A path without wildcards stands for itself, be it there or not.
///
/// What `exclude` names is not found, and nothing below it. A directory in which something may be taken back is found, for its contents
/// are looked at one by one.
pub(super) fn resolve(
    root: &Root,
    path: &str,
    link: SourceLink,
    exclude: Option<&PatternMatcher>,
) -> Result<PatternMatches, ActionError> {
    let names: Vec<&str> = path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    let literal_count = names.iter().take_while(|name| !has_wildcards(name)).count();
    let (prefix, rest) = names.split_at(literal_count);
    let prefix = lexical(&prefix.iter().collect::<PathBuf>());
    if rest.is_empty() {
        return Ok(PatternMatches {
            paths: vec![prefix],
            ..PatternMatches::default()
        });
    }
    let base = resolve_source(root, &prefix, link)?;
    if !root.lstat(&base)?.is_dir() {
        return Ok(PatternMatches::default());
    }
    search(root, &base, &rest.join("/"), exclude)
}

/// A path as patterns see it: from the root, without a slash in front.
pub(super) fn shown(path: impl AsRef<Path>) -> String {
    let text = path.as_ref().to_string_lossy();
    text.trim_start_matches('/').to_owned()
}

/// Resolves a source path: links in all but the last name are followed, and in the last one on request.
pub(super) fn resolve_source(
    root: &Root,
    path: &Path,
    link: SourceLink,
) -> Result<PathBuf, ActionError> {
    Ok(root.resolve(lexical(path), link == SourceLink::Follow)?)
}

fn search(
    root: &Root,
    base: &Path,
    pattern: &str,
    exclude: Option<&PatternMatcher>,
) -> Result<PatternMatches, ActionError> {
    let mut matches = PatternMatches::default();
    let top = root.dir(base)?;
    let mut left = vec![(PathBuf::new(), top.entries().at("open", base)?.into_iter())];
    let mut descent = Descent::new(top);
    while let Some((below, entries)) = left.last_mut() {
        let Some(entry) = entries.next() else {
            left.pop();
            descent.up().at("open", base)?;
            continue;
        };
        let path = below.join(&entry.name);
        let is_dir = entry.kind == Kind::Dir;
        let matched = pattern::path_match(pattern, &path.to_string_lossy()).unwrap_or(false);
        if exclude.is_some_and(|exclude| {
            !(is_dir && exclude.exclusions()) && exclude.names(&shown(base.join(&path)))
        }) {
            matches.left_out |= matched;
            matches.left_out_dir |= matched && is_dir;
        } else if matched {
            matches.paths.push(base.join(path));
        } else if is_dir && may_match_below(pattern, &path) {
            descent
                .down(&entry.name)
                .and_then(|()| descent.dir().entries())
                .map(|entries| left.push((path.clone(), entries.into_iter())))
                .at("open", base.join(path))?;
        }
    }
    Ok(matches)
}

// A directory that the pattern's first names do not match holds no match. Classes may match a slash, so then any may.
fn may_match_below(pattern: &str, dir: &Path) -> bool {
    if pattern.contains(['[', '\\']) {
        return true;
    }
    let depth = dir.components().count();
    let names: Vec<&str> = pattern.split('/').collect();
    names.len() > depth
        && names.get(..depth).is_some_and(|first| {
            pattern::path_match(&first.join("/"), &dir.to_string_lossy()).unwrap_or(true)
        })
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
