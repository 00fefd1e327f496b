//! The cache map of a file op: SHA-256 of Go's JSON of `{Type, Actions, indexes}`.
//!
//! | input                                  | in the key                   | why                                             |
//! |----------------------------------------|------------------------------|-------------------------------------------------|
//! | type `buildkit.file.v0`                | yes                          | names the formula                               |
//! | each action's JSON, base64             | yes                          | it decides the output                           |
//! | a copy's source path                   | only its last component      | the path is the dependency's selector           |
//! | input, secondary input, output indexes | only when they are unusual   | old versions left them out; the common chain must not miss |
//! | that exclude patterns speak of sources | only where a source may be what they name | BuildKit copies it; a record of it is of another result |
//! | content of what is copied              | as slow key of the input     |                                                 |
//! | `/etc/passwd`, `/etc/group` for names  | as slow key of their input   | they decide the owner                           |
//! | what an input that is written on holds | by its own key, no slow key  | all of it is in the output                      |
//!
//! Selectors of one input are sorted in reverse byte order before they are joined, for historical reasons.
//! Source of the facts: `solver/llbsolver/ops/file.go` `CacheMap` (v0.34.2).

use std::collections::{BTreeMap, BTreeSet};

use llb::pb;
use oci::Digest;
use pb::file_action::Action;
use pb::user_opt::User;
use serde::Serialize;

use gostd::path::{self, join_root};

use crate::content::{ContentSelector, dedupe_selectors};
use crate::{DepPlan, KeyPlan, OpFailure, gojson};

const TYPE: &str = "buildkit.file.v0";

#[derive(Serialize)]
struct FileKey {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Actions")]
    actions: Vec<String>,
    #[serde(rename = "indexes", skip_serializing_if = "Vec::is_empty")]
    indexes: Vec<[i64; 3]>,
    #[serde(rename = "excludesSources", skip_serializing_if = "std::ops::Not::not")]
    excludes_sources: bool,
}

/// Returns the key of `op`, with the part of each input.
pub fn plan(op: &pb::FileOp, inputs: usize) -> Result<KeyPlan, OpFailure> {
    let mut selectors: BTreeMap<i64, Vec<ContentSelector>> = BTreeMap::new();
    let mut written_on: BTreeSet<i64> = BTreeSet::new();
    let mut actions = Vec::with_capacity(op.actions.len());
    let mut indexes = Vec::with_capacity(op.actions.len());
    let mut excludes_sources = false;
    for action in &op.actions {
        if action.input != -1 {
            written_on.insert(action.input);
        }
        let json = match action.action.as_ref().ok_or(OpFailure::NoAction)? {
            Action::Mkdir(a) => {
                select_owner(a.owner.as_ref(), &mut selectors)?;
                gostd::json::to_vec(&gojson::MkDir::from(a))
            }
            Action::Mkfile(a) => {
                select_owner(a.owner.as_ref(), &mut selectors)?;
                gostd::json::to_vec(&gojson::MkFile::from(a))
            }
            Action::Symlink(a) => {
                select_owner(a.owner.as_ref(), &mut selectors)?;
                gostd::json::to_vec(&gojson::Symlink::from(a))
            }
            Action::Rm(a) => gostd::json::to_vec(&gojson::Rm::from(a)),
            Action::Copy(a) => {
                select_owner(a.owner.as_ref(), &mut selectors)?;
                // The root is a directory, in which both exclude the same.
                excludes_sources |= !a.exclude_patterns.is_empty() && join_root(&a.src) != "/";
                let mut keyed = a.clone();
                if action.secondary_input != -1
                    && usize::try_from(action.secondary_input).is_ok_and(|i| i < inputs)
                {
                    selectors
                        .entry(action.secondary_input)
                        .or_default()
                        .push(ContentSelector {
                            path: a.src.clone(),
                            follow_links: a.follow_symlink,
                            wildcard: a.allow_wildcard && has_wildcard(&a.src),
                            include: a.include_patterns.clone(),
                            exclude: a.exclude_patterns.clone(),
                            required: a.required_paths.clone(),
                        });
                    keyed.src = path::base(&a.src).to_owned();
                }
                gostd::json::to_vec(&gojson::Copy::from(&keyed))
            }
        };
        actions.push(gojson::base64(&json));
        indexes.push([action.input, action.secondary_input, action.output]);
    }
    if is_usual_chain(&indexes) {
        indexes.clear();
    }
    let digest = Digest::sha256(gostd::json::to_vec(&FileKey {
        kind: TYPE,
        actions,
        indexes,
        excludes_sources,
    }));
    let mut deps = vec![DepPlan::default(); inputs];
    for (index, selected) in selectors {
        let dep = usize::try_from(index)
            .ok()
            .and_then(|i| deps.get_mut(i))
            .ok_or(OpFailure::InvalidInput { index, inputs })?;
        if written_on.contains(&index) {
            continue;
        }
        let mut paths: Vec<&str> = selected.iter().map(|s| s.path.as_str()).collect();
        paths.sort_unstable();
        paths.reverse();
        dep.selector = Some(Digest::sha256(paths.join("\0")));
        dep.content = Some(dedupe_selectors(&selected));
    }
    Ok(KeyPlan { digest, deps })
}

fn select_owner(
    owner: Option<&pb::ChownOpt>,
    selectors: &mut BTreeMap<i64, Vec<ContentSelector>>,
) -> Result<(), OpFailure> {
    let Some(owner) = owner else { return Ok(()) };
    for (user, file) in [(&owner.user, "/etc/passwd"), (&owner.group, "/etc/group")] {
        if let Some(User::ByName(user)) = user.as_ref().and_then(|u| u.user.as_ref()) {
            if user.input < 0 {
                return Err(OpFailure::InvalidUserIndex(user.input));
            }
            selectors
                .entry(user.input)
                .or_default()
                .push(ContentSelector {
                    path: file.into(),
                    follow_links: true,
                    ..ContentSelector::default()
                });
        }
    }
    Ok(())
}

/// Whether `name` has an unescaped `*`, `?` or `[`.
pub(crate) fn has_wildcard(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Whether the actions form the chain that clients usually send: each on the result of the one before, the first on
/// the first input, and only the last with an output.
fn is_usual_chain(indexes: &[[i64; 3]]) -> bool {
    let count = i64::try_from(indexes.len()).unwrap_or(i64::MAX);
    let mut position = 0;
    !indexes.is_empty()
        && indexes.iter().all(|[input, secondary, output]| {
            let expected_input = if position == 0 {
                0
            } else {
                count + position - 1
            };
            let expected_output = if position == count - 1 { 0 } else { -1 };
            position += 1;
            *input == expected_input && matches!(secondary, -1 | 1) && *output == expected_output
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(src: &str, exclude: &[&str]) -> Digest {
        let copy = pb::FileActionCopy {
            src: src.to_owned(),
            exclude_patterns: exclude.iter().map(|p| (*p).to_owned()).collect(),
            ..pb::FileActionCopy::default()
        };
        let action = pb::FileAction {
            input: 0,
            secondary_input: 1,
            output: 0,
            action: Some(Action::Copy(copy)),
        };
        let actions = vec![action];
        plan(&pb::FileOp { actions }, 2)
            .expect("the op is well formed")
            .digest
    }

    #[test]
    fn a_copy_whose_patterns_may_exclude_its_source_has_a_key_that_buildkit_never_writes() {
        // BuildKit's key has only the last component of a source.
        assert_eq!(digest("/a/x", &["y"]), digest("/b/x", &["y"]));
        assert_ne!(
            digest("/a/..", &["y"]),
            digest("/a/b/..", &["y"]),
            "the second is a folder"
        );
        assert_eq!(digest("/a/..", &[]), digest("/a/b/..", &[]));
    }
}
