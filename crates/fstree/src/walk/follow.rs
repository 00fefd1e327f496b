//! Expands paths by the links in them, so that a filter on them lets the targets through as well.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::WalkError;
use crate::error::Located;
use crate::root::Root;

/// Expands paths to themselves and everything the links in them lead to, sorted; `None` means the whole tree.
///
/// A path may have wildcards; what they match is followed, and the pattern stays in the result.
pub fn follow_links(root: &Root, paths: &[String]) -> Result<Option<Vec<String>>, WalkError> {
    let mut needed_paths = BTreeSet::new();
    let mut todo: Vec<PathBuf> = paths.iter().rev().map(|p| lexical(Path::new(p))).collect();
    while let Some(path) = todo.pop() {
        expand(root, &path, &mut needed_paths, &mut todo)?;
    }
    let needed_paths = needed_paths
        .into_iter()
        .map(|p| p.to_string_lossy().into_owned())
        .collect();
    Ok(without_nested(needed_paths))
}

fn expand(
    root: &Root,
    path: &Path,
    needed_paths: &mut BTreeSet<PathBuf>,
    todo: &mut Vec<PathBuf>,
) -> Result<(), WalkError> {
    let mut names = path.components();
    let mut at = PathBuf::new();
    loop {
        match names.next() {
            Some(name) => at.push(name),
            // Only the whole tree has no name at all.
            None => {
                needed_paths.insert(PathBuf::from("."));
                return Ok(());
            }
        }
        let rest = names.as_path();
        let targets = targets(root, &at)?;
        if rest.as_os_str().is_empty() || !targets.is_empty() {
            if !needed_paths.insert(at.clone()) {
                return Ok(());
            }
            todo.extend(
                targets
                    .into_iter()
                    .rev()
                    .map(|target| lexical(&target.join(rest))),
            );
            return Ok(());
        }
    }
}

// Targets of the links at a path, as paths from the root; empty when there is no link.
fn targets(root: &Root, at: &Path) -> Result<Vec<PathBuf>, WalkError> {
    let name = at
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    if !has_wildcards(&name) {
        return Ok(target(root, at)?.into_iter().collect());
    }
    let parent = at.parent().unwrap_or_else(|| Path::new(""));
    let mut out = Vec::new();
    if root
        .lstat_opt(Path::new("/").join(parent))?
        .is_none_or(|meta| !meta.is_dir())
    {
        return Ok(out);
    }
    for entry in root.dir(parent)?.entries().at("open", parent)? {
        if pattern::path_match(&name, &entry.name.to_string_lossy()).unwrap_or(false) {
            out.extend(target(root, &parent.join(&entry.name))?);
        }
    }
    Ok(out)
}

fn target(root: &Root, at: &Path) -> Result<Option<PathBuf>, WalkError> {
    if at.as_os_str().is_empty() || root.lstat_opt(at)?.is_none_or(|meta| !meta.is_symlink()) {
        return Ok(None);
    }
    let link = root.readlink(at)?;
    Ok(Some(
        at.parent().unwrap_or_else(|| Path::new("")).join(link),
    ))
}

// A path from the root without dots and slashes in front; `..` stops at the root.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir => out.clear(),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
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

/// Leaves out paths below the one before; `None` when the whole tree is among them.
pub(super) fn without_nested(paths: Vec<String>) -> Option<Vec<String>> {
    let mut out: Vec<String> = Vec::with_capacity(paths.len());
    for path in paths {
        if path == "." {
            return None;
        }
        let last = out.last().map_or("", String::as_str);
        if path
            .strip_prefix(last)
            .is_some_and(|rest| rest.starts_with('/'))
        {
            continue;
        }
        out.push(path);
    }
    Some(out)
}
