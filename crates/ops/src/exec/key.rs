//! The cache map of an exec op: SHA-256 of Go's JSON of the struct `{Type, Exec, OS, Arch, …}`.
//!
//! | input                                   | in the key | why                                                            |
//! |-----------------------------------------|------------|----------------------------------------------------------------|
//! | type `buildkit.exec.v0`                 | yes        | names the formula                                              |
//! | argv, env, cwd, user, hostname, ulimits, cgroup parent, valid exit codes | yes | they decide the output            |
//! | network and security mode               | yes        | they decide the output                                         |
//! | mounts: input, dest, output, read-only, type, options | yes | they decide the output                                |
//! | mount selectors                         | no         | they are the dependency's selector                             |
//! | cache mount's id and sharing            | only the Dockerfile's default ones | BuildKit added them late; defaults must not miss |
//! | the one plain root mount of a RUN       | no         | old versions left mounts out; kept for old caches              |
//! | extra host names / addresses            | yes / no   | names are seen in /etc/hosts; addresses differ per run         |
//! | proxy environment                       | no         | network path, not content                                      |
//! | secret and ssh contents                 | no         | secrets do not decide content                                  |
//! | secret environment: id, name, optional  | yes        | they are part of the op                                        |
//! | platform: OS, architecture, variant, version, features | yes | the op's platform, else the host's                     |
//!
//! Source of the facts: `solver/llbsolver/ops/exec.go` `CacheMap` and `getMountDeps` (v0.34.2).

use llb::pb;
use oci::{Digest, Platform};
use serde::Serialize;

use gostd::path::join_root;

use crate::content::{ContentSelector, dedupe_paths};
use crate::{DepPlan, KeyPlan, OpFailure, gojson};

const TYPE: &str = "buildkit.exec.v0";
/// `pb.Empty`: a mount without input.
pub(crate) const NO_INPUT: i64 = -1;
/// `pb.SkipOutput`: a mount without output.
pub(crate) const NO_OUTPUT: i64 = -1;

#[derive(Serialize)]
struct ExecKey<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Exec")]
    exec: gojson::ExecOp<'a>,
    #[serde(rename = "OS")]
    os: &'a str,
    #[serde(rename = "Arch")]
    arch: &'a str,
    #[serde(rename = "Variant", skip_serializing_if = "str::is_empty")]
    variant: &'a str,
    #[serde(rename = "OSVersion", skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    #[serde(rename = "OSFeatures", skip_serializing_if = "<[String]>::is_empty")]
    os_features: &'a [String],
}

/// Returns the key of `op`, with the part of each input.
pub fn plan(
    op: &pb::ExecOp,
    platform: Option<&pb::Platform>,
    inputs: usize,
) -> Result<KeyPlan, OpFailure> {
    let mut keyed = op.clone();
    for mount in &mut keyed.mounts {
        mount.selector.clear();
        if let Some(cache) = mount.cache_opt.as_mut()
            && !is_default_cache(&mount.dest, cache)
        {
            cache.id.clear();
            cache.sharing = 0;
        }
    }
    if let [only] = keyed.mounts.as_slice()
        && is_plain_root(only)
    {
        keyed.mounts.clear();
    }
    let host;
    let (os, arch, variant, os_version, os_features) = match platform {
        Some(p) => (
            &p.os,
            &p.architecture,
            &p.variant,
            &p.os_version,
            &p.os_features,
        ),
        None => {
            host = Platform::host();
            (
                &host.os,
                &host.architecture,
                &host.variant,
                &host.os_version,
                &host.os_features,
            )
        }
    };
    let json = gostd::json::to_vec(&ExecKey {
        kind: TYPE,
        exec: gojson::ExecOp::from(&keyed),
        os,
        arch,
        variant,
        os_version,
        os_features,
    });
    Ok(KeyPlan {
        digest: Digest::sha256(json),
        deps: mount_deps(op, inputs)?,
    })
}

/// Whether a cache mount has the options of a `RUN --mount=type=cache` without options: its id is the destination, with or
/// without the prefix of `BUILDKIT_CACHE_MOUNT_NS`, and it is shared.
fn is_default_cache(dest: &str, cache: &pb::CacheOpt) -> bool {
    cache.sharing == 0
        && (cache.id == dest || cache.id.split_once('/').is_some_and(|(_, id)| id == dest))
}

fn is_plain_root(mount: &pb::Mount) -> bool {
    mount.dest == "/"
        && mount.selector.is_empty()
        && !mount.readonly
        && mount.mount_type == pb::MountType::Bind as i32
        && mount.cache_opt.is_none()
        && mount.ssh_opt.is_none()
        && mount.secret_opt.is_none()
        && mount.result_id.is_empty()
}

fn mount_deps(op: &pb::ExecOp, inputs: usize) -> Result<Vec<DepPlan>, OpFailure> {
    #[derive(Default, Clone)]
    struct Dep {
        selectors: Vec<String>,
        by_content: bool,
    }
    let mut deps = vec![Dep::default(); inputs];
    for mount in &op.mounts {
        let kind = pb::MountType::try_from(mount.mount_type)
            // prost's error holds the same number and no cause.
            .map_err(|_| OpFailure::UnknownMountType(mount.mount_type))?;
        if matches!(
            kind,
            pb::MountType::Secret | pb::MountType::Ssh | pb::MountType::Tmpfs
        ) || mount.input == NO_INPUT
        {
            continue;
        }
        let dep = usize::try_from(mount.input)
            .ok()
            .and_then(|i| deps.get_mut(i))
            .ok_or_else(|| OpFailure::InvalidInput {
                index: mount.input,
                inputs,
            })?;
        let selector = join_root(&mount.selector);
        // A mount that is writable through a selector must not be keyed by the selected content alone: the files
        // beside the selection are in the output but would not be in the key.
        let safe = mount.output == NO_OUTPUT || mount.readonly || selector == "/";
        let by_content = match pb::MountContentCache::try_from(mount.content_cache) {
            Ok(pb::MountContentCache::Off) => false,
            Ok(pb::MountContentCache::On) if !safe => {
                return Err(OpFailure::ContentCacheUnsafe {
                    dest: mount.dest.clone(),
                });
            }
            Ok(pb::MountContentCache::On) => true,
            // Digesting a whole root file system costs more than it saves.
            Ok(pb::MountContentCache::Default) => safe && mount.dest != "/",
            Err(_) => return Err(OpFailure::UnknownContentCache(mount.content_cache)),
        };
        dep.selectors.push(selector);
        dep.by_content = by_content;
    }
    Ok(deps
        .into_iter()
        .map(|dep| DepPlan {
            selector: (!dep.selectors.is_empty()).then(|| Digest::sha256(dep.selectors.join("\0"))),
            content: dep.by_content.then(|| {
                let paths = dedupe_paths(dep.selectors);
                if paths.iter().any(|p| p.is_empty() || p == "/") {
                    return Vec::new();
                }
                paths
                    .into_iter()
                    .map(|path| ContentSelector {
                        path,
                        follow_links: true,
                        ..ContentSelector::default()
                    })
                    .collect()
            }),
        })
        .collect())
}
