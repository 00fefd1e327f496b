//! Unpacked trees, compared file by file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci::Digest;

use super::rig::Trouble;
use crate::process::at;

/// All that is looked at of a file, as text, by path.
pub(super) type Tree = BTreeMap<String, String>;

/// Reads a tree; times only of files below `dated`, where they are determined.
pub(super) fn read(root: &Path, dated: &str) -> Result<Tree, Trouble> {
    let mut tree = Tree::new();
    let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let mut names: Vec<_> = fs::read_dir(&dir)
            .map_err(at("reading", &dir))?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        names.sort();
        for path in names {
            let meta = path.symlink_metadata().map_err(at("looking at", &path))?;
            let kind = meta.file_type();
            let name = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .as_os_str()
                .as_bytes()
                .escape_ascii()
                .to_string();
            let mut facts = format!("mode {:o} owner {}:{}", meta.mode(), meta.uid(), meta.gid());
            if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(at("reading", &path))?;
                facts.push_str(&format!(
                    " to {}",
                    target.as_os_str().as_bytes().escape_ascii()
                ));
            } else if kind.is_file() {
                let bytes = fs::read(&path).map_err(at("reading", &path))?;
                facts.push_str(&format!(" size {} {}", meta.len(), Digest::sha256(&bytes)));
            } else if kind.is_block_device() || kind.is_char_device() {
                facts.push_str(&format!(" device {:#x}", meta.rdev()));
            }
            if !kind.is_dir() && meta.nlink() > 1 {
                let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone());
                facts.push_str(&format!(" same as {first}, {} names", meta.nlink()));
            }
            // A folder of which nothing else changed is in no layer.
            if name.starts_with(dated) && !kind.is_dir() {
                facts.push_str(&format!(" time {}.{:09}", meta.mtime(), meta.mtime_nsec()));
            }
            for (key, value) in xattrs(&path) {
                facts.push_str(&format!(" {key}={}", value.escape_ascii()));
            }
            tree.insert(name, facts);
            if kind.is_dir() {
                todo.push(path);
            }
        }
    }
    Ok(tree)
}

/// Returns the extended attributes of a file, not those of what it points to.
fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0_u8; 65_536];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names) else {
        return BTreeMap::new();
    };
    names
        .get(..len)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = vec![0_u8; 65_536];
            let len = rustix::fs::lgetxattr(path, &name, &mut value).ok()?;
            value.truncate(len);
            Some((name, value))
        })
        .collect()
}

/// Returns the differences of two trees, a line each.
pub(super) fn differences(ours: &Tree, theirs: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, facts) in ours {
        match theirs.get(name) {
            None => lines.push(format!("only in the first: {name} {facts}")),
            Some(other) if other != facts => {
                lines.push(format!("{name}:\n  first  {facts}\n  second {other}"))
            }
            Some(_) => {}
        }
    }
    for (name, facts) in theirs {
        if !ours.contains_key(name) {
            lines.push(format!("only in the second: {name} {facts}"));
        }
    }
    lines
}
