//! Options of a build, parsed.

use gostd::strconv::quote;
use std::collections::BTreeMap;
use std::sync::Arc;

use dockerfile::lint::LintConfig;
use dockerfile::lower::LowerOptions;
use gostd::csv;
use gostd::strconv::{ParseIntError, is_true, parse_bool, parse_int};
use llb::build::ResolveMode;
use llb::pb;
use oci::{Platform, SessionId};

use crate::bridge::{CacheImport, FrontendRequest, WorkerInfo};
use crate::error::FrontendError;

/// Options of a build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// Options of lowering. The platform and the source map are set for each platform.
    pub(crate) lower: LowerOptions,
    /// Platforms to build for; empty for the worker's.
    pub(crate) target_platforms: Vec<Platform>,
    /// Whether the result is a map by platform, even with a single one.
    pub(crate) multi_platform: bool,
    /// Remote caches to import.
    pub(crate) cache_imports: Vec<CacheImport>,
    /// Stages to build without cache: none of them if this is `None`, all if the list is empty.
    pub(crate) no_cache: Option<Vec<String>>,
    /// Sessions of local directories, where they are not the request's own.
    pub(crate) local_sessions: BTreeMap<String, SessionId>,
}

/// Platforms of one build; each is lowered separately.
// DIFFERS: BuildKit has no such limit.
const MAX_PLATFORMS: usize = 64;

impl Config {
    pub(crate) fn parse(
        request: &FrontendRequest,
        workers: &[WorkerInfo],
    ) -> Result<Self, FrontendError> {
        let opts = &request.opts;
        let get = |key: &str| opts.get(key).map(String::as_str).unwrap_or_default();
        let with_prefix = |prefix: &str| -> BTreeMap<String, String> {
            opts.iter()
                .filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone())))
                .collect()
        };
        if !get("override-copy-image").is_empty() {
            return Err(FrontendError::option(
                "support for \"override-copy-image\" was removed in BuildKit 0.11",
            ));
        }
        if is_true(get("build-arg:BUILDKIT_DISABLE_FILEOP")) {
            return Err(FrontendError::option(
                "support for \"BUILDKIT_DISABLE_FILEOP\" build-arg was removed in BuildKit 0.11",
            ));
        }
        let builder = workers
            .first()
            .and_then(|worker| worker.platforms.first())
            .cloned();
        let target_platforms = platforms(get("platform"))?;
        let many = target_platforms.len() > 1;
        let multi = [
            get("build-arg:BUILDKIT_MULTI_PLATFORM"),
            get("multi-platform"),
        ];
        let multi_platform = match multi.into_iter().find(|text| !text.is_empty()) {
            None => many,
            Some(text) => match parse_bool(text) {
                Err(_) => {
                    return Err(FrontendError::option(format!(
                        "invalid boolean value for multi-platform: {text}"
                    )));
                }
                Ok(false) if many => {
                    return Err(FrontendError::option(
                        "conflicting config: returning multiple target platforms is not allowed",
                    ));
                }
                Ok(on) => on,
            },
        };
        check_attestations(opts)?;
        let lint = opts
            .get("build-arg:BUILDKIT_DOCKERFILE_CHECK")
            .map(|text| LintConfig::parse(text))
            .transpose()
            .map_err(|error| {
                let context = "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK";
                FrontendError::option_while(context, error)
            })?;
        let advice = get("build-arg:BUILDKIT_GIT_ADVICE");
        let hostname = match get("build-arg:BUILDKIT_SANDBOX_HOSTNAME") {
            "" => get("hostname"),
            name => name,
        };
        let lower = LowerOptions {
            build_args: with_prefix("build-arg:"),
            cache_id_namespace: get("build-arg:BUILDKIT_CACHE_MOUNT_NS").to_owned(),
            cgroup_parent: get("cgroup-parent").to_owned(),
            extra_hosts: extra_hosts(get("add-hosts"))?,
            hostname: hostname.to_owned(),
            resolve_mode: resolve_mode(get("image-resolve-mode"))?,
            labels: with_prefix("label:"),
            network: network(get("force-network-mode"))?,
            git_advice: match advice {
                "" => false,
                text => parse_bool(text).map_err(|error| {
                    let context = "failed to parse build-arg:BUILDKIT_GIT_ADVICE";
                    FrontendError::option_while(context, error)
                })?,
            },
            shm_size: match get("shm-size") {
                "" => 0,
                text => parse_int(text).map_err(|error| {
                    FrontendError::option_while("failed to parse shm size", error)
                })?,
            },
            target: get("target").to_owned(),
            ulimits: ulimits(get("ulimit"))?,
            resources: resources(&get)?,
            devices: Vec::new(),
            lint,
            target_platform: None,
            build_platforms: vec![builder.unwrap_or_else(Platform::host)],
            multi_platform,
            source_map: None,
            copied_by_all: Arc::default(),
            all_stages: false,
        };
        Ok(Self {
            lower,
            target_platforms,
            multi_platform,
            cache_imports: cache_imports(get("cache-imports"), get("cache-from"))?,
            no_cache: opts.get("no-cache").map(|text| match text.as_str() {
                "" => Vec::new(),
                list => list.split(',').map(str::to_owned).collect(),
            }),
            local_sessions: with_prefix("local-sessionid:")
                .into_iter()
                .map(|(name, id)| (name, id.into()))
                .collect(),
        })
    }

    /// The session from which the local directory `name` is read.
    pub(crate) fn session_of<'a>(
        &'a self,
        name: &str,
        request: &'a FrontendRequest,
    ) -> &'a SessionId {
        self.local_sessions.get(name).unwrap_or(&request.session_id)
    }

    /// Whether a stage is built without cache.
    pub(crate) fn is_no_cache(&self, stage: &str) -> bool {
        match &self.no_cache {
            None => false,
            Some(stages) => {
                stages.is_empty() || stages.iter().any(|name| name.eq_ignore_ascii_case(stage))
            }
        }
    }
}

fn platforms(text: &str) -> Result<Vec<Platform>, FrontendError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let count = text.split(',').count();
    if count > MAX_PLATFORMS {
        return Err(FrontendError::option(format!(
            "{count} target platforms are more than the {MAX_PLATFORMS} that one build may have"
        )));
    }
    text.split(',')
        .map(|text| match Platform::parse(text) {
            Ok(platform) => Ok(platform.normalize()),
            Err(error) => Err(FrontendError::option_while(
                format!("failed to parse target platform {text}"),
                error,
            )),
        })
        .collect()
}

fn resolve_mode(text: &str) -> Result<ResolveMode, FrontendError> {
    match text {
        "default" | "" => Ok(ResolveMode::Default),
        "pull" => Ok(ResolveMode::ForcePull),
        "local" => Ok(ResolveMode::PreferLocal),
        other => Err(FrontendError::option(format!(
            "invalid image-resolve-mode: {other}"
        ))),
    }
}

fn network(text: &str) -> Result<pb::NetMode, FrontendError> {
    match text {
        "" | "sandbox" => Ok(pb::NetMode::Unset),
        "none" => Ok(pb::NetMode::None),
        "host" => Ok(pb::NetMode::Host),
        other => Err(FrontendError::option(format!("invalid netmode {other}"))),
    }
}

fn list(text: &str, context: &str) -> Result<Vec<String>, FrontendError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    // The reference's message has the value in the place of the parser's error.
    csv::fields(text).map_err(|_| {
        FrontendError::option_while(context, format!("invalid csv value {}", quote(text)))
    })
}

fn extra_hosts(text: &str) -> Result<Vec<(String, std::net::IpAddr)>, FrontendError> {
    const CONTEXT: &str = "failed to parse additional hosts";
    list(text, CONTEXT)?
        .into_iter()
        .map(|field| {
            let field = field.to_lowercase();
            let (host, ip) = field.split_once('=').ok_or_else(|| {
                FrontendError::option_while(CONTEXT, format!("invalid key-value pair {field}"))
            })?;
            // The parser's error has no more to say than this sentence.
            let ip = ip.parse().map_err(|_| {
                FrontendError::option_while(CONTEXT, format!("failed to parse IP {ip}"))
            })?;
            Ok((host.to_owned(), ip))
        })
        .collect()
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn ulimits(text: &str) -> Result<Vec<pb::Ulimit>, FrontendError> {
    const CONTEXT: &str = "failed to parse ulimit";
    list(text, CONTEXT)?
        .into_iter()
        .map(|field| ulimit(&field).map_err(|error| FrontendError::option_while(CONTEXT, error)))
        .collect()
}

/// Why a limit of a step cannot be read. The sentences are docker's, which clients compare.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum UlimitError {
    /// There is no `=`.
    #[error("invalid ulimit argument: {0}")]
    Argument(String),
    /// Linux has no such limit.
    #[error("invalid ulimit type: {0}")]
    Kind(String),
    /// There is more than `soft:hard`.
    #[error("too many limit value arguments - {0}, can only have up to two, `soft[:hard]`")]
    TooManyValues(String),
    /// A value is not a number.
    #[error(transparent)]
    Number(#[from] ParseIntError),
    /// The soft limit has no end and the hard one has.
    #[error("{SOFT_ABOVE_HARD}: soft: -1 (unlimited), hard: {hard}")]
    UnlimitedAboveHard {
        /// The hard limit.
        hard: i64,
    },
    /// The soft limit is above the hard one.
    #[error("{SOFT_ABOVE_HARD}: {soft} > {hard}")]
    SoftAboveHard {
        /// The soft limit.
        soft: i64,
        /// The hard limit.
        hard: i64,
    },
}

const SOFT_ABOVE_HARD: &str = "ulimit soft limit must be less than or equal to hard limit";

fn ulimit(text: &str) -> Result<pb::Ulimit, UlimitError> {
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| UlimitError::Argument(text.to_owned()))?;
    if !ULIMITS.contains(&name) {
        return Err(UlimitError::Kind(name.to_owned()));
    }
    let parts: Vec<&str> = limits.split(':').collect();
    let (soft, hard) = match parts.as_slice() {
        [both] => (parse_int(both)?, parse_int(both)?),
        [soft, hard] => (parse_int(soft)?, parse_int(hard)?),
        _ => return Err(UlimitError::TooManyValues(limits.to_owned())),
    };
    if hard != -1 && soft == -1 {
        return Err(UlimitError::UnlimitedAboveHard { hard });
    }
    if hard != -1 && soft > hard {
        return Err(UlimitError::SoftAboveHard { soft, hard });
    }
    Ok(pb::Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

fn resources<'a>(
    get: &impl Fn(&str) -> &'a str,
) -> Result<Option<pb::LinuxResources>, FrontendError> {
    let value = |key: &str, valid: fn(i64) -> bool, must: &str| -> Result<i64, FrontendError> {
        let text = get(key);
        if text.is_empty() {
            return Ok(0);
        }
        let context = format!("failed to parse resource limits: invalid {key} value: {text}");
        let number =
            parse_int(text).map_err(|error| FrontendError::option_while(&context, error))?;
        if valid(number) {
            Ok(number)
        } else {
            Err(FrontendError::option_while(
                context,
                format!("must be {must}"),
            ))
        }
    };
    let positive = |key: &str| value(key, |n| n > 0, "> 0");
    let set = |key: &str| -> Result<String, FrontendError> {
        let text = get(key);
        match bad_cpuset(text) {
            None => Ok(text.to_owned()),
            Some(error) => Err(FrontendError::option(format!(
                "failed to parse resource limits: invalid {key} value: {text}: {error}"
            ))),
        }
    };
    let resources = pb::LinuxResources {
        memory: positive("memory")?,
        memory_swap: value("memswap", |n| n == -1 || n > 0, "-1 (unlimited) or > 0")?,
        cpu_shares: positive("cpushares")?.unsigned_abs(),
        cpu_period: positive("cpuperiod")?.unsigned_abs(),
        cpu_quota: positive("cpuquota")?,
        cpuset_cpus: set("cpusetcpus")?,
        cpuset_mems: set("cpusetmems")?,
    };
    Ok((resources != pb::LinuxResources::default()).then_some(resources))
}

/// The error in a set of processors such as `0-3,5`; none if it is valid.
fn bad_cpuset(text: &str) -> Option<String> {
    const MAX_CPU: u32 = 8192;
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .find_map(|part| {
            let (kind, first, last) = match part.split_once('-') {
                Some((first, last)) => (
                    "range",
                    first.trim().parse::<u32>(),
                    last.trim().parse::<u32>(),
                ),
                None => ("element", part.parse(), part.parse()),
            };
            match (first, last) {
                (Ok(first), Ok(last)) if first <= last && last <= MAX_CPU => None,
                (Ok(first), Ok(last)) if first <= last => Some(format!(
                    "cpuset {kind} {} exceeds maximum {MAX_CPU}",
                    quote(part)
                )),
                _ => Some(format!("invalid cpuset {kind} {}", quote(part))),
            }
        })
}

#[derive(serde::Deserialize)]
struct ImportJson {
    #[serde(rename = "Type", alias = "type", default)]
    kind: String,
    #[serde(rename = "Attrs", alias = "attrs", default)]
    attrs: Option<BTreeMap<String, String>>,
}

fn cache_imports(json: &str, from: &str) -> Result<Vec<CacheImport>, FrontendError> {
    let mut imports = Vec::new();
    if !json.is_empty() {
        let parsed: Vec<ImportJson> =
            gostd::json::from_slice(json.as_bytes()).map_err(|error| {
                let context = format!("failed to unmarshal cache-imports ({})", quote(json));
                FrontendError::option_while(context, error)
            })?;
        let parsed = parsed.into_iter().map(|i| CacheImport {
            kind: i.kind,
            attrs: i.attrs.unwrap_or_default(),
        });
        imports.extend(parsed);
    }
    for reference in from.split(',').filter(|_| !from.is_empty()) {
        let attrs = BTreeMap::from([("ref".to_owned(), reference.to_owned())]);
        imports.push(CacheImport {
            kind: "registry".into(),
            attrs,
        });
    }
    Ok(imports)
}

/// Refuses attestations of an unknown type. The daemon parses those that it knows.
fn check_attestations(opts: &BTreeMap<String, String>) -> Result<(), FrontendError> {
    for key in opts.keys() {
        let name = key
            .strip_prefix("attest:")
            .or_else(|| key.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
        match name.map(str::to_lowercase).as_deref() {
            None | Some("provenance" | "sbom") => {}
            Some(unknown) => {
                return Err(FrontendError::option(format!(
                    "unknown attestation type {}",
                    quote(unknown)
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
