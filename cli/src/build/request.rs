//! From flags to a request.

use std::collections::BTreeMap;
use std::env;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use client::{Attachables, CacheSpec, DockerConfig, Layout, SecretSource, SolveRequest};

use crate::args::Build;
use crate::build::call::FrontendCall;
use crate::build::context::{self, Folders};
use crate::build::outputs;
use crate::failure::CliError;
use crate::spec::{self, SpecError};

const NETWORK_HOST: &str = "network.host";

/// A request and what must stay until it is done.
#[derive(Debug)]
pub(crate) struct PreparedBuild {
    pub(crate) request: SolveRequest,
    pub(crate) temporary: Folders,
    /// What the user calls the Dockerfile; empty when it is not here.
    pub(crate) dockerfile: String,
    /// Layouts that get new entries when all went well.
    pub(crate) layouts: Vec<WrittenLayout>,
}

/// A layout that the build writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WrittenLayout {
    /// With the image.
    Image(PathBuf),
    /// With the cache, under a tag.
    Cache(PathBuf, String),
}

impl Build {
    /// What the steps may do.
    #[must_use]
    pub fn entitlements(&self) -> Vec<String> {
        let mut values = self.allow.clone();
        if self.network.as_deref() == Some("host") && !values.iter().any(|a| a == NETWORK_HOST) {
            values.push(NETWORK_HOST.into());
        }
        values
    }
}

pub(crate) fn variable(name: &str) -> Option<String> {
    env::var_os(name).and_then(|v| v.into_string().ok())
}

/// Turns flags into a request.
pub(crate) async fn prepare(
    flags: &Build,
    question: Option<FrontendCall>,
) -> Result<PreparedBuild, CliError> {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let mut offer = Attachables {
        owner: Some((uid.as_raw(), gid.as_raw())),
        docker_config: docker_config()?,
        secrets: secrets(&flags.secret)?,
        ssh: agents(&flags.ssh)?,
        ..Attachables::default()
    };
    let context = context::resolve(&flags.context, flags.file.as_deref(), &mut offer).await?;
    let mut attrs = context.attrs;
    frontend_attrs(flags, &mut attrs)?;
    let mut caps = Vec::new();
    if !flags.build_context.is_empty() {
        caps.push("moby.buildkit.frontend.contexts+forward");
    }
    if let Some(call) = question {
        attrs.insert("requestid".into(), call.name.into());
        caps.push("moby.buildkit.frontend.subrequests");
    }
    if !caps.is_empty() {
        attrs.insert("frontend.caps".into(), caps.join(","));
    }
    build_contexts(&flags.build_context, &mut attrs, &mut offer)?;
    let internal = question.is_some();
    let mut layouts = Vec::new();
    let exporters = if internal {
        Vec::new()
    } else {
        outputs::outputs(flags, &mut offer, &mut layouts)?
    };
    let caches = |flag, specs: &[String]| -> Result<Vec<CacheSpec>, SpecError> {
        specs.iter().map(|text| spec::cache(flag, text)).collect()
    };
    let cache_from = offer_cache_sources(caches("cache-from", &flags.cache_from)?, &mut offer)?;
    let cache_to = offer_cache_targets(
        caches("cache-to", &flags.cache_to)?,
        &mut offer,
        &mut layouts,
    )?;
    let request = SolveRequest {
        id: client::new_id().map_err(CliError::io("no random bytes"))?,
        frontend: "dockerfile.v0".into(),
        attrs,
        exporters,
        cache_from,
        cache_to,
        entitlements: flags.entitlements(),
        shared_key: context.shared_key,
        internal,
        trace_parent: crate::connection::trace_parent(),
        attachables: offer,
        ..SolveRequest::default()
    };
    Ok(PreparedBuild {
        request,
        temporary: context.temporary,
        dockerfile: context.dockerfile,
        layouts,
    })
}

pub(crate) fn docker_config() -> Result<DockerConfig, CliError> {
    let folder = variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".docker")));
    Ok(match folder {
        Some(folder) => DockerConfig::load(&folder.join("config.json"))?,
        None => DockerConfig::default(),
    })
}

pub(super) fn key_value(
    flag: &'static str,
    text: &str,
    prefix: &str,
    attrs: &mut BTreeMap<String, String>,
) -> Result<(), SpecError> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(SpecError::new(flag, text, "expected key=value"));
    }
    attrs.insert(format!("{prefix}{key}"), value.to_owned());
    Ok(())
}

fn frontend_attrs(flags: &Build, attrs: &mut BTreeMap<String, String>) -> Result<(), CliError> {
    let mut set = |key: &str, value: String| attrs.insert(key.to_owned(), value);
    if let Some(target) = &flags.target {
        set("target", target.clone());
    }
    if !flags.platform.is_empty() {
        set("platform", flags.platform.join(","));
    }
    if flags.no_cache {
        set("no-cache", String::new());
    } else if !flags.no_cache_filter.is_empty() {
        set("no-cache", flags.no_cache_filter.join(","));
    }
    if flags.pull {
        set("image-resolve-mode", "pull".into());
    }
    match flags.network.as_deref() {
        None | Some("default" | "") => {}
        Some(mode @ ("host" | "none" | "sandbox")) => {
            set("force-network-mode", mode.to_owned());
        }
        Some(mode) => {
            return Err(CliError::Usage(format!(
                "network mode {mode:?} not supported by buildkit: use default, none or host"
            )));
        }
    }
    if !flags.add_host.is_empty() {
        let hosts: Result<Vec<String>, SpecError> =
            flags.add_host.iter().map(|h| extra_host(h)).collect();
        set("add-hosts", hosts?.join(","));
    }
    if let Some(size) = &flags.shm_size {
        set("shm-size", spec::bytes("shm-size", size)?.to_string());
    }
    if !flags.ulimit.is_empty() {
        let limits: Result<Vec<String>, SpecError> =
            flags.ulimit.iter().map(|u| spec::ulimit(u)).collect();
        set("ulimit", limits?.join(","));
    }
    if let Some(parent) = &flags.cgroup_parent {
        set("cgroup-parent", parent.clone());
    }
    for (kind, value) in [("provenance", &flags.provenance), ("sbom", &flags.sbom)] {
        match value.as_deref() {
            None | Some("false" | "0") => {}
            Some("true" | "1" | "") => {
                set(&format!("attest:{kind}"), String::new());
            }
            Some(value) => {
                set(&format!("attest:{kind}"), value.to_owned());
            }
        }
    }
    for arg in &flags.build_arg {
        if arg.contains('=') {
            key_value("build-arg", arg, "build-arg:", attrs)?;
        } else if let Some(value) = variable(arg) {
            attrs.insert(format!("build-arg:{arg}"), value);
        }
    }
    for label in &flags.label {
        key_value("label", label, "label:", attrs)?;
    }
    for service in &flags.service {
        if !service.contains('=') {
            return Err(SpecError::new("service", service, "expected name=image").into());
        }
        key_value("service", service, "service:", attrs)?;
    }
    for option in &flags.opt {
        key_value("opt", option, "", attrs)?;
    }
    Ok(())
}

fn extra_host(text: &str) -> Result<String, SpecError> {
    let (name, ip) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| SpecError::new("add-host", text, "expected host:ip"))?;
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    if ip.parse::<std::net::IpAddr>().is_err() {
        return Err(SpecError::new("add-host", text, "invalid IP address"));
    }
    Ok(format!("{name}={ip}"))
}

fn build_contexts(
    specs: &[String],
    attrs: &mut BTreeMap<String, String>,
    offer: &mut Attachables,
) -> Result<(), CliError> {
    for text in specs {
        let bad = |reason: &str| SpecError::new("build-context", text, reason);
        let (name, source) = text
            .split_once('=')
            .filter(|(name, source)| !name.is_empty() && !source.is_empty())
            .ok_or_else(|| bad("expected name=source"))?;
        let key = format!("context:{name}");
        if context::is_remote(source)
            || source.starts_with("docker-image://")
            || source.starts_with("target:")
        {
            attrs.insert(key, source.to_owned());
        } else if let Some(place) = source.strip_prefix("oci-layout://") {
            attrs.insert(key, layout(place, offer)?);
        } else if Path::new(source).is_dir() {
            let local = match name {
                "context" | "dockerfile" => format!("_{name}"),
                name => name.to_owned(),
            };
            let folder = PathBuf::from(source);
            offer.folders.insert(local.clone(), folder.into());
            attrs.insert(key, format!("local:{local}"));
            attrs.insert(
                format!("sharedkey:localdir:{name}"),
                context::identity(Path::new(source)),
            );
        } else {
            return Err(bad("no such folder").into());
        }
    }
    Ok(())
}

pub(crate) fn secrets(specs: &[String]) -> Result<BTreeMap<String, SecretSource>, CliError> {
    let mut values = BTreeMap::new();
    for text in specs {
        let bad = |reason: &str| SpecError::new("secret", text, reason);
        let mut fields = spec::pairs("secret", text)?;
        let id = fields.remove("id").filter(|id| !id.is_empty());
        let kind = fields.remove("type").unwrap_or_default();
        if !matches!(kind.as_str(), "" | "file" | "env") {
            return Err(bad("type is file or env").into());
        }
        let mut file = fields.remove("src").or_else(|| fields.remove("source"));
        let mut env = fields.remove("env");
        if let Some(key) = fields.keys().next() {
            return Err(bad(&format!("unexpected key {key:?}")).into());
        }
        if kind == "env" && env.is_none() {
            env = file.take();
        }
        let id = id.ok_or_else(|| bad("id is required"))?;
        if env.is_none() && file.is_none() && kind != "file" && variable(&id).is_some() {
            env = Some(id.clone());
        }
        let source = match env {
            Some(name) => {
                let value = variable(&name)
                    .ok_or_else(|| bad(&format!("environment variable {name} is not set")))?;
                SecretSource::Value(value.into_bytes())
            }
            None => {
                let path = PathBuf::from(file.unwrap_or_else(|| id.clone()));
                std::fs::metadata(&path)
                    .map_err(CliError::io(format!("secret {id}: {}", path.display())))?;
                SecretSource::File(path)
            }
        };
        values.insert(id, source);
    }
    Ok(values)
}

pub(crate) fn agents(specs: &[String]) -> Result<BTreeMap<String, PathBuf>, CliError> {
    let mut values = BTreeMap::new();
    for text in specs {
        let bad = |reason: &str| SpecError::new("ssh", text, reason);
        let (id, path) = match text.split_once('=') {
            Some((id, path)) => (id, path.to_owned()),
            None => (
                text.as_str(),
                variable("SSH_AUTH_SOCK")
                    .filter(|v| !v.is_empty())
                    .ok_or_else(|| {
                        bad(
                            "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set, or name the agent's socket with --ssh ID=SOCKET",
                        )
                    })?,
            ),
        };
        let path = PathBuf::from(path);
        let meta =
            std::fs::metadata(&path).map_err(CliError::io(format!("ssh {}", path.display())))?;
        if !meta.file_type().is_socket() {
            return Err(bad(
                "key files are not built yet: add the key to an agent and name its socket",
            )
            .into());
        }
        values.insert(id.to_owned(), path);
    }
    Ok(values)
}

// Offers an image layout, and names an image in it by its digest: `FOLDER[:TAG][@DIGEST]`.
fn layout(place: &str, offer: &mut Attachables) -> Result<String, CliError> {
    let whole = place;
    let (place, digest) = match place.split_once('@') {
        Some((place, digest)) => (place, Some(digest)),
        None => (place, None),
    };
    // A colon in the last part is a tag, unless there is a folder of that name.
    let (folder, tag) = match place.rsplit_once(':') {
        Some((folder, tag)) if !tag.contains('/') && !Path::new(place).is_dir() => (folder, tag),
        _ => (place, "latest"),
    };
    let digest =
        match digest {
            Some(digest) => {
                digest
                    .parse::<oci::Digest>()
                    .map_err(|source| CliError::ContextDigest {
                        value: whole.to_owned(),
                        source,
                    })?
            }
            None => Layout::new(Path::new(folder)).find(tag).map_err(|source| {
                CliError::ContextLayout {
                    value: whole.to_owned(),
                    source,
                }
            })?,
        };
    let id = client::new_id().map_err(CliError::io("no random bytes"))?;
    offer.stores.insert(format!("oci:{id}"), folder.into());
    Ok(format!("oci-layout://{id}@{digest}"))
}

/// Offers the folders of caches that are read, and names what is in them by its digest. Leaves out those that have none yet.
pub(crate) fn offer_cache_sources(
    caches: Vec<CacheSpec>,
    offer: &mut Attachables,
) -> Result<Vec<CacheSpec>, CliError> {
    let mut values = Vec::new();
    for mut cache in caches {
        if cache.kind == "local" {
            let folder = cache
                .attrs
                .get("src")
                .cloned()
                .ok_or_else(|| CliError::Usage("local cache importer requires src".into()))?;
            if !cache.attrs.contains_key("digest") {
                let tag = cache.attrs.get("tag").map_or("latest", String::as_str);
                match Layout::new(Path::new(&folder)).find(tag) {
                    Ok(digest) => {
                        cache.attrs.insert("digest".into(), digest.to_string());
                    }
                    // The first build of a job has no cache yet.
                    Err(error) => {
                        tracing::warn!(%error, "no cache to begin with");
                        continue;
                    }
                }
            }
            offer
                .stores
                .insert(format!("local:{folder}"), folder.into());
        }
        values.push(cache);
    }
    Ok(values)
}

/// Offers the folders of caches that are written.
pub(crate) fn offer_cache_targets(
    caches: Vec<CacheSpec>,
    offer: &mut Attachables,
    layouts: &mut Vec<WrittenLayout>,
) -> Result<Vec<CacheSpec>, CliError> {
    for cache in caches.iter().filter(|cache| cache.kind == "local") {
        let folder = cache
            .attrs
            .get("dest")
            .cloned()
            .ok_or_else(|| CliError::Usage("local cache exporter requires dest".into()))?;
        let tag = cache.attrs.get("tag").map_or("latest", String::as_str);
        layouts.push(WrittenLayout::Cache(PathBuf::from(&folder), tag.to_owned()));
        offer
            .stores
            .insert(format!("local:{folder}"), folder.into());
    }
    Ok(caches)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use client::{FileTarget, Target};

    use super::*;
    use crate::args::{Cli, Command};

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    async fn prepared(argv: &[&str]) -> Result<PreparedBuild, Box<dyn std::error::Error>> {
        let values = ["rbuild", "build"].iter().chain(argv);
        let Command::Build(flags) = Cli::try_parse_from(values)?.command else {
            return Err("not a build".into());
        };
        Ok(prepare(&flags, None).await?)
    }

    #[tokio::test]
    async fn flags_become_what_the_frontend_and_the_exporters_know() -> TestResult {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("app.Dockerfile"), "FROM scratch")?;
        std::fs::write(dir.path().join("s"), "secret")?;
        let here = dir.path().to_str().ok_or("path")?;
        let file = format!("{here}/app.Dockerfile");
        let secret = format!("id=tok,src={here}/s");
        let archive = format!("type=oci,dest={here}/x.tar");
        let named_context = format!("extra={here}");
        let flags = [
            "-f",
            &file,
            "--target",
            "t",
            "-t",
            "a:1",
            "-t",
            "b",
            "--build-arg",
            "K=V=1",
            "--no-cache",
            "--secret",
            &secret,
            "--platform",
            "linux/amd64,linux/arm64",
            "-o",
            &archive,
            "--push",
            "--label",
            "l=1",
            "--network",
            "host",
            "--add-host",
            "h:10.0.0.1",
            "--shm-size",
            "64m",
            "--ulimit",
            "nofile=5:6",
            "--pull",
            "--build-context",
            &named_context,
            "--build-context",
            "base=docker-image://x",
            here,
        ];
        let PreparedBuild { request, .. } = prepared(&flags).await?;
        let attrs: Vec<String> = request
            .attrs
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let shared = format!("sharedkey:localdir:extra={}", context::identity(dir.path()));
        assert_eq!(
            attrs,
            [
                "add-hosts=h=10.0.0.1",
                "build-arg:K=V=1",
                "context:base=docker-image://x",
                "context:extra=local:extra",
                "filename=app.Dockerfile",
                "force-network-mode=host",
                "frontend.caps=moby.buildkit.frontend.contexts+forward",
                "image-resolve-mode=pull",
                "label:l=1",
                "no-cache=",
                "platform=linux/amd64,linux/arm64",
                &shared,
                "shm-size=67108864",
                "target=t",
                "ulimit=nofile=5:6"
            ]
        );
        assert_eq!(request.entitlements, [NETWORK_HOST]);
        let kinds: Vec<_> = request.exporters.iter().map(|e| e.kind.as_str()).collect();
        assert_eq!(kinds, ["oci", "image"]);
        assert_eq!(request.exporters[1].attrs["name"], "a:1,b");
        assert!(matches!(
            request.attachables.targets.get(&0),
            Some(Target::Bytes(FileTarget::File(_)))
        ));
        let names: Vec<_> = request.attachables.folders.keys().collect();
        assert_eq!(names, ["context", "dockerfile", "extra"]);
        assert!(request.attachables.secrets.contains_key("tok"));
        Ok(())
    }

    #[tokio::test]
    async fn a_folder_is_a_copy_without_special_files_unless_it_is_said() -> TestResult {
        for (spec, mirror, special, attrs) in [
            ("type=local,dest=x", false, false, &[][..]),
            ("x", false, false, &[]),
            (
                "type=local,mode=delete,dest=x",
                true,
                false,
                &[("mode", "delete")],
            ),
            ("type=local,special=true,dest=x", false, true, &[]),
        ] {
            let argv = ["-o", spec, "https://example.com/x.git"];
            let PreparedBuild { request, .. } = prepared(&argv).await?;
            let Some(Target::Folder(folder)) = request.attachables.targets.get(&0) else {
                return Err(format!("{spec} is no folder").into());
            };
            assert_eq!((folder.mirror, folder.special), (mirror, special), "{spec}");
            let attrs = attrs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
            assert_eq!(request.exporters[0].attrs, attrs.collect(), "{spec}");
        }
        let argv = [
            "-o",
            "type=local,special=maybe,dest=x",
            "https://example.com/x.git",
        ];
        assert!(prepared(&argv).await.is_err());
        Ok(())
    }

    #[tokio::test]
    async fn what_cannot_be_built_is_said_before_anything_is_sent() {
        for argv in [
            &["/no/such/folder"][..],
            &["--push", "https://example.com/x.git"],
            &["--network", "bridge", "https://example.com/x.git"],
            &["-f", "missing", "/tmp"],
            &["-t", "Not:A:Name", "https://example.com/x.git"],
            &[
                "-o",
                "type=local,mode=odd,dest=x",
                "https://example.com/x.git",
            ],
            &[
                "--build-context",
                "x=oci-layout:///no/such/layout",
                "https://example.com/x.git",
            ],
        ] {
            assert!(prepared(argv).await.is_err(), "{argv:?}");
        }
    }
}
