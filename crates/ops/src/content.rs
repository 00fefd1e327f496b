//! Slow keys: the content of what an op reads from an input.
//!
//! | input of the digest                          | where from                                     |
//! |----------------------------------------------|------------------------------------------------|
//! | the content digest of each selector, in order | `fstree::hash`, through the ref                |
//! | a zero byte between digests                   | `opsutils/contenthash.go` joins them with `\0` |
//!
//! An op without selectors reads the whole input: one selector for `/`.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures::future::try_join_all;
use oci::Digest;
use solver::{OpCtx, OpError, SlowKey};

use crate::{BuildDomain, OpFailure, Ref};

/// The part of an input that an op reads. The flags are those of the op's paths, independent of each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentSelector {
    /// Path in the input, absolute.
    pub path: String,
    /// Whether the path is a pattern with `*`, `?` and `[`.
    pub wildcard: bool,
    /// Whether a symlink in the last component is followed.
    pub follow_links: bool,
    /// Patterns of the files of a tree that are read; empty for all.
    pub include: Vec<String>,
    /// Patterns of the files of a tree that are not read.
    pub exclude: Vec<String>,
    /// Paths that have to exist.
    pub required: Vec<String>,
}

impl ContentSelector {
    fn is_plain(&self) -> bool {
        !self.wildcard && self.include.is_empty() && self.exclude.is_empty()
    }
}

/// Digests the selected paths of an input.
#[derive(Debug)]
pub struct ContentKey {
    selectors: Vec<ContentSelector>,
}

impl ContentKey {
    /// A slow key for `selectors`; none of them selects the whole input.
    pub fn new(selectors: Vec<ContentSelector>) -> Self {
        Self {
            selectors: if selectors.is_empty() {
                vec![ContentSelector::default()]
            } else {
                selectors
            },
        }
    }
}

#[async_trait]
impl SlowKey<BuildDomain> for ContentKey {
    async fn digest(&self, _ctx: &OpCtx<BuildDomain>, input: &Ref) -> Result<Digest, OpError> {
        let digests = try_join_all(self.selectors.iter().map(|selector| async move {
            let path = gostd::path::join_root(&selector.path);
            let options = fstree::hash::Options {
                follow_links: selector.follow_links,
                wildcard: selector.wildcard,
                include: selector.include.clone(),
                exclude: selector.exclude.clone(),
                required_paths: selector.required.clone(),
            };
            match input {
                Some(reference) => reference
                    .content_hash(&path, options)
                    .await
                    .map_err(|source| OpFailure::Checksum {
                        reference: reference.id().to_string(),
                        input: input.clone(),
                        source: Box::new(source),
                    }),
                None => {
                    fstree::hash::empty_tree_checksum(&path).map_err(|source| OpFailure::Checksum {
                        reference: "scratch".into(),
                        input: None,
                        source: Box::new(source),
                    })
                }
            }
        }))
        .await?;
        let joined = digests
            .iter()
            .map(Digest::as_str)
            .collect::<Vec<_>>()
            .join("\0");
        Ok(Digest::sha256(joined))
    }
}

/// Drops duplicates and paths below other paths, and sorts the rest. A single path stays as it is.
pub(crate) fn dedupe_paths(paths: Vec<String>) -> Vec<String> {
    if paths.len() <= 1 {
        return paths;
    }
    let all: BTreeSet<String> = paths.into_iter().collect();
    all.iter()
        .filter(|path| {
            !all.iter().any(|parent| {
                let with_slash = if parent.ends_with('/') {
                    parent.clone()
                } else {
                    format!("{parent}/")
                };
                *path != parent && path.starts_with(&with_slash)
            })
        })
        .cloned()
        .collect()
}

/// Drops selectors that others include, and sorts the rest by path.
pub(crate) fn dedupe_selectors(selectors: &[ContentSelector]) -> Vec<ContentSelector> {
    let plain = |follow: bool| {
        dedupe_paths(
            selectors
                .iter()
                .filter(|s| s.is_plain() && s.follow_links == follow)
                .map(|s| s.path.clone())
                .collect(),
        )
    };
    let mut out: Vec<ContentSelector> = Vec::new();
    for follow_links in [false, true] {
        out.extend(plain(follow_links).into_iter().map(|path| ContentSelector {
            path,
            follow_links,
            ..ContentSelector::default()
        }));
    }
    out.extend(selectors.iter().filter(|s| !s.is_plain()).cloned());
    out.sort_by(|a, b| a.path.cmp(&b.path));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_others_are_dropped() {
        let paths = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            dedupe_paths(paths(&["/b/c", "/a", "/b", "/bc"])),
            paths(&["/a", "/b", "/bc"])
        );
        assert_eq!(dedupe_paths(paths(&["/x", "/"])), paths(&["/"]));
    }
}
