//! Arguments outside of stages: automatic ones and those of the file, with the values that build options give them.

use std::collections::BTreeMap;

use llb::build::Env;
use llb::pb;
use oci::Platform;

use super::error::{LowerError, LowerErrorKind};
use super::stage::ArgInfo;
use crate::instruction::Arg;
use crate::shell::{Lexer, ShellError};

/// The platforms of a build.
#[derive(Debug, Clone)]
pub(crate) struct Platforms {
    pub(crate) target: Platform,
    pub(crate) build: Vec<Platform>,
    /// No platform was requested.
    pub(crate) implicit: bool,
}

impl Platforms {
    pub(crate) fn new(target: Option<&Platform>, build: &[Platform]) -> Self {
        let build = match (build, target) {
            ([], Some(target)) => vec![target.clone()],
            ([], None) => vec![Platform::host()],
            (build, _) => build.to_vec(),
        };
        let first = build.first().cloned().unwrap_or_else(Platform::host);
        Self {
            target: target.cloned().unwrap_or(first),
            build,
            implicit: target.is_none(),
        }
    }

    fn builder(&self) -> Platform {
        self.build.first().cloned().unwrap_or_else(Platform::host)
    }
}

/// The automatic arguments; options of the same names win.
pub(crate) fn automatic(
    platforms: &Platforms,
    overrides: &BTreeMap<String, String>,
    target: &str,
) -> Env {
    let (build, target_platform) = (platforms.builder(), &platforms.target);
    let target = if target.is_empty() { "default" } else { target };
    let pairs = [
        ("BUILDPLATFORM", build.format()),
        ("BUILDOS", build.os),
        ("BUILDOSVERSION", build.os_version),
        ("BUILDARCH", build.architecture),
        ("BUILDVARIANT", build.variant),
        ("TARGETPLATFORM", target_platform.format_all()),
        ("TARGETOS", target_platform.os.clone()),
        ("TARGETOSVERSION", target_platform.os_version.clone()),
        ("TARGETARCH", target_platform.architecture.clone()),
        ("TARGETVARIANT", target_platform.variant.clone()),
        ("TARGETSTAGE", target.to_owned()),
    ];
    pairs.iter().fold(Env::default(), |env, (key, value)| {
        env.set(key, overrides.get(*key).unwrap_or(value))
    })
}

/// Adds the `ARG`s before the first `FROM`.
pub(crate) fn meta(
    mut env: Env,
    lex: &Lexer,
    args: &[Arg],
    build_args: &BTreeMap<String, String>,
) -> Result<(Env, BTreeMap<String, ArgInfo>), LowerError> {
    let mut all: BTreeMap<String, ArgInfo> = BTreeMap::new();
    for arg in args {
        for pair in &arg.args {
            let mut info = ArgInfo {
                value: String::new(),
                definition: pair.clone(),
                deps: Default::default(),
                ranges: arg.origin.ranges.clone(),
            };
            let value = match (build_args.get(&pair.key), &pair.value) {
                (Some(value), _) => {
                    lex.spend(value.len())
                        .map_err(|kind| LowerErrorKind::Shell(ShellError::of(&pair.key, kind)))?;
                    Some(value.clone())
                }
                (None, None) => None,
                (None, Some(default)) => {
                    let word = lex
                        .process(default, &env)
                        .map_err(|error| LowerError::from(error).at(&arg.origin.ranges))?;
                    info.deps = word.matched;
                    if info.deps.remove(&pair.key)
                        && let Some(old) = all.get(&pair.key)
                    {
                        info.deps.extend(old.deps.iter().cloned());
                    }
                    Some(word.result)
                }
            };
            if let Some(value) = value {
                env = env.set(&pair.key, &value);
                info.value = value;
            }
            all.insert(pair.key.clone(), info);
        }
    }
    Ok((env, all))
}

/// Proxy variables among the options; they reach steps without being in any digest of results.
pub(crate) fn proxy(build_args: &BTreeMap<String, String>) -> Option<pb::ProxyEnv> {
    let mut proxy = pb::ProxyEnv::default();
    let mut any = false;
    for (key, value) in build_args {
        let field = match key.to_lowercase().as_str() {
            "http_proxy" => &mut proxy.http_proxy,
            "https_proxy" => &mut proxy.https_proxy,
            "ftp_proxy" => &mut proxy.ftp_proxy,
            "no_proxy" => &mut proxy.no_proxy,
            "all_proxy" => &mut proxy.all_proxy,
            _ => continue,
        };
        field.clone_from(value);
        any = true;
    }
    any.then_some(proxy)
}
