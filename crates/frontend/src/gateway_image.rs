//! Frontends that come as images: the image's program runs in a container and speaks the gateway over its standard streams.
//!
//! ```text
//!   image ──resolve──► config ──► program, environment      container ── stdin, stdout ──► FrontendHost: the bridge as gRPC
//!         └──solve───► ref ─────► root of the container ──────┘                                  └──► what it returned
//! ```
//!
//! A named context with the image's name takes the image's place (`context:docker/dockerfile:1=…`), of whatever kind it is. The program
//! reads the definition of its own root at `/run/config/buildkit/metadata/frontend.bin`.
//!
//! | environment | |
//! |---|---|
//! | `BUILDKIT_FRONTEND_OPT_<n>` | `key=value`, an option each |
//! | `BUILDKIT_SESSION_ID` | the client's session |
//! | `BUILDKIT_WORKERS` | JSON: id, labels, platforms of each worker |
//! | `BUILDKIT_EXPORTEDPRODUCT` | the product that exports the build; empty |

use gostd::strconv::quote;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use llb::pb;
use oci::reference::Reference;
use oci::{Digest, ErrorKind, Platform};
use prost::Message as _;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::sync::mpsc;

use crate::bridge::{
    Bridge, Frontend, FrontendRequest, FrontendResult, ImageResolveOpts, ResolveOpts, SolveRequest,
    WorkerInfo,
};
use crate::builtin::image_context;
use crate::error::{BridgeError, FrontendError, resolving};
use crate::gateway::{ContainerFile, ContainerMount, ContainerRequest, ProcessRequest};

/// Capacity of the stream between the program and the bridge, in each direction.
const STREAM_BYTES: usize = 256 << 10;
/// Number of bytes of the program's standard error that its failure shows: the last ones.
const MAX_STDERR_BYTES: usize = 4 << 10;
/// The capability that a program needs for builds with inputs.
const INPUTS_CAP: &str = "moby.buildkit.frontend.inputs";
/// The label that lists the program's capabilities.
const CAPS_LABEL: &str = "moby.buildkit.frontend.caps";
/// The label of programs that run without a network.
const NO_NETWORK_LABEL: &str = "moby.buildkit.frontend.network.none";
/// Where a program reads the encoded definition of its own root.
const DEFINITION_PATH: &str = "/run/config/buildkit/metadata/frontend.bin";
/// `pb.NetMode.NONE`.
const NETWORK_NONE: i32 = 2;

/// Serves a bridge to a program over a stream.
#[async_trait]
pub trait FrontendHost: Send + Sync + fmt::Debug {
    /// Serves until the stream ends. Returns the program's result; none if the program returned nothing.
    async fn serve(
        &self,
        bridge: Arc<dyn Bridge>,
        inputs: BTreeMap<String, Arc<pb::Definition>>,
        stream: DuplexStream,
    ) -> Option<Result<FrontendResult, BridgeError>>;
}

/// A frontend from an image. The program's config says how it runs.
#[derive(Debug)]
pub struct ImageFrontend {
    /// Reference of the image.
    pub image: String,
    /// Repositories that frontends may come from; empty for all.
    pub allowed: Vec<String>,
    /// Serves the bridge to the program.
    pub host: Arc<dyn FrontendHost>,
}

#[derive(Debug, Default, Deserialize)]
struct ImageDocument {
    #[serde(default)]
    config: Option<ProgramConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ProgramConfig {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

impl ProgramConfig {
    fn decode(config: &[u8]) -> Result<Self, FrontendError> {
        let document: ImageDocument = gostd::json::from_slice(config).map_err(|e| {
            FrontendError::option_while("cannot read the config of the frontend's image", e)
        })?;
        Ok(document.config.unwrap_or_default())
    }
}

impl From<oci::ContainerConfig> for ProgramConfig {
    fn from(config: oci::ContainerConfig) -> Self {
        Self {
            env: Some(config.env),
            entrypoint: Some(config.entrypoint),
            working_dir: Some(config.working_dir),
            labels: Some(config.labels),
        }
    }
}

/// The root of a program's container, and how the program is run in it.
struct ProgramImage {
    definition: pb::Definition,
    config: ProgramConfig,
}

/// How the program of an image is run, as its config says.
#[derive(Debug, PartialEq)]
struct Program {
    meta: pb::Meta,
    network: i32,
    caps: BTreeSet<String>,
}

/// Parses names of capabilities: a list with commas, each up to a `+`.
fn caps(text: &str) -> BTreeSet<String> {
    text.split(',')
        .filter_map(|cap| cap.split('+').next())
        .filter(|cap| !cap.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Program {
    fn new(config: ProgramConfig, request: &FrontendRequest, workers: &[WorkerInfo]) -> Self {
        let labels = config.labels.unwrap_or_default();
        let mut env = config.env.unwrap_or_default();
        for (at, (key, value)) in request.opts.iter().enumerate() {
            env.push(format!("BUILDKIT_FRONTEND_OPT_{at}={key}={value}"));
        }
        env.push(format!("BUILDKIT_SESSION_ID={}", request.session_id));
        let workers: Vec<_> = workers
            .iter()
            .map(|w| {
                let platforms: Vec<_> = w.platforms.iter().map(platform_json).collect();
                serde_json::json!({ "id": w.id, "labels": w.labels, "platforms": platforms })
            })
            .collect();
        env.push(format!("BUILDKIT_WORKERS={}", serde_json::json!(workers)));
        env.push("BUILDKIT_EXPORTEDPRODUCT=".into());
        let is_true = |text: &String| gostd::strconv::is_true(text);
        Self {
            meta: pb::Meta {
                args: config
                    .entrypoint
                    .filter(|args| !args.is_empty())
                    .unwrap_or_else(|| vec!["/run".into()]),
                env,
                cwd: config
                    .working_dir
                    .filter(|dir| !dir.is_empty())
                    .unwrap_or_else(|| "/".into()),
                remove_mount_stubs_recursive: true,
                ..pb::Meta::default()
            },
            network: if labels.get(NO_NETWORK_LABEL).is_some_and(is_true) {
                NETWORK_NONE
            } else {
                0
            },
            caps: labels
                .get(CAPS_LABEL)
                .map(|text| caps(text))
                .unwrap_or_default(),
        }
    }
}

fn platform_json(platform: &Platform) -> serde_json::Value {
    let mut json = serde_json::json!({ "architecture": platform.architecture, "os": platform.os });
    if let Some(object) = json.as_object_mut()
        && !platform.variant.is_empty()
    {
        object.insert("variant".into(), platform.variant.clone().into());
    }
    json
}

/// The definition of an image for frontends.
fn definition(image: &str) -> pb::Definition {
    let source = pb::Op {
        op: Some(pb::op::Op::Source(pb::SourceOp {
            identifier: format!("docker-image://{image}"),
            attrs: [("image.recordtype".to_owned(), "frontend".to_owned())].into(),
        })),
        ..pb::Op::default()
    }
    .encode_to_vec();
    let last = pb::Op {
        inputs: vec![pb::Input {
            digest: Digest::sha256(&source).to_string(),
            index: 0,
        }],
        ..pb::Op::default()
    }
    .encode_to_vec();
    pb::Definition {
        def: vec![source, last],
        ..pb::Definition::default()
    }
}

impl ImageFrontend {
    fn is_allowed(&self, name: &Reference) -> bool {
        let repository = |text: &str| Reference::parse(text).map(|r| r.name());
        let repository_of_image = name.name();
        self.allowed.is_empty()
            || self
                .allowed
                .iter()
                .any(|allowed| repository(allowed).is_ok_and(|name| name == repository_of_image))
    }

    /// Checks a context that a client gives in the image's place.
    // DIFFERS: BuildKit checks the image's name only, so that its list keeps no client from a frontend of another repository.
    fn check_context(&self, input: &str) -> Result<(), FrontendError> {
        if self.allowed.is_empty() {
            return Ok(());
        }
        let image = input.strip_prefix("docker-image:").unwrap_or_default();
        let image = image.strip_prefix("//").unwrap_or(image);
        match Reference::parse(image) {
            Ok(name) if self.is_allowed(&name) => Ok(()),
            // What is no image's name is not allowed, whatever is wrong with it.
            Ok(_) | Err(_) => Err(FrontendError::option(format!(
                "'{}' is not an allowed gateway source: a context replaces it by {}",
                self.image,
                quote(input)
            ))),
        }
    }

    /// What the image's name stands for: a named context of the request, or the image of a registry.
    async fn load_image(
        &self,
        bridge: &Arc<dyn Bridge>,
        request: &FrontendRequest,
    ) -> Result<ProgramImage, FrontendError> {
        let name = Reference::parse(&self.image).map_err(|e| {
            let what = format!("invalid frontend image {}", quote(&self.image));
            FrontendError::option_while(what, e)
        })?;
        if !self.is_allowed(&name) {
            return Err(FrontendError::option(format!(
                "'{}' is not an allowed gateway source",
                self.image
            )));
        }
        let admit = |input: &str| self.check_context(input);
        if let Some(context) = image_context(bridge, request, &self.image, admit).await? {
            let config = context.config.map(|image| image.config.into());
            return Ok(ProgramImage {
                definition: context.definition,
                config: config.unwrap_or_default(),
            });
        }
        let name = name.with_default_tag();
        let source = pb::SourceOp {
            identifier: format!("docker-image://{name}"),
            ..pb::SourceOp::default()
        };
        let opts = ResolveOpts {
            log_name: format!("resolve image config for docker-image://{name}"),
            image: Some(ImageResolveOpts::default()),
            ..ResolveOpts::default()
        };
        let context = resolving(&source.identifier);
        let meta = bridge
            .resolve_source(source, opts)
            .await
            .map_err(|error| FrontendError::bridge_failed(&context, error))?;
        let image = meta.image.ok_or_else(|| {
            FrontendError::option(format!(
                "the source of frontend {} is not an image",
                self.image
            ))
        })?;
        let pinned = meta.op.identifier.trim_start_matches("docker-image://");
        let pinned = match pinned.split_once('@') {
            Some(_) => pinned.to_owned(),
            None => format!("{pinned}@{}", image.digest),
        };
        Ok(ProgramImage {
            definition: definition(&pinned),
            config: ProgramConfig::decode(&image.config)?,
        })
    }
}

#[async_trait]
impl Frontend for ImageFrontend {
    async fn solve(
        &self,
        bridge: Arc<dyn Bridge>,
        request: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        if request.opts.contains_key("gateway-devel") {
            return Err(FrontendError::option(
                "development gateway is no longer supported",
            ));
        }
        if self.image.is_empty() {
            return Err(FrontendError::option("no source specified for gateway"));
        }
        let image = self.load_image(&bridge, &request).await?;
        let program = Program::new(image.config, &request, &bridge.workers());
        let mut required_caps = request
            .opts
            .get("frontend.caps")
            .map(|text| caps(text))
            .unwrap_or_default();
        if !request.inputs.is_empty() {
            required_caps.insert(INPUTS_CAP.into());
        }
        if let Some(missing) = required_caps.difference(&program.caps).next() {
            return Err(FrontendError::UnsupportedCapability {
                name: missing.clone(),
            });
        }
        let rootfs = bridge
            .solve(SolveRequest::of_definition(image.definition))
            .await?;
        let root = rootfs
            .single
            .ok_or_else(|| FrontendError::option("gateway source didn't return default result"))?;
        let own_definition = root.definition().unwrap_or_default();
        let container = bridge
            .new_container(ContainerRequest {
                mounts: vec![ContainerMount {
                    mount: pb::Mount {
                        dest: "/".into(),
                        ..pb::Mount::default()
                    },
                    source: Some(root),
                }],
                network: program.network,
                files: vec![ContainerFile {
                    path: DEFINITION_PATH.into(),
                    contents: own_definition.encode_to_vec().into(),
                }],
                ..ContainerRequest::default()
            })
            .await?;
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        let (input, output) = tokio::io::split(theirs);
        let (stderr, errors) = tokio::io::duplex(MAX_STDERR_BYTES);
        // The program gets no signals and has no terminal.
        let (_control, commands) = mpsc::channel(1);
        let process = container
            .start(ProcessRequest {
                meta: program.meta,
                tty: false,
                security: 0,
                secret_env: Vec::new(),
                stdin: Some(Box::new(input)),
                stdout: Some(Box::new(output)),
                stderr: Some(Box::new(errors)),
                control: commands,
            })
            .await?;
        let served = self.host.serve(Arc::clone(&bridge), request.inputs, ours);
        let (ended, served, stderr_text) = futures::join!(process.ended, served, read_tail(stderr));
        if let Err(error) = container.release().await {
            // The program has ended; processes that it started were still running and were killed.
            drop(error);
        }
        match (served, ended) {
            (Some(Err(error)), _) => Err(error.into()),
            (_, Err(error)) => {
                let context = format!("frontend {} failed", self.image);
                let stderr_text = stderr_text.trim();
                let context = if stderr_text.is_empty() {
                    context
                } else {
                    format!("{context}: {stderr_text}")
                };
                Err(FrontendError::bridge_failed(&context, error))
            }
            (Some(Ok(result)), Ok(())) => Ok(result),
            (None, Ok(())) => Err(BridgeError::new(
                ErrorKind::Failed,
                "frontend grpc server closed unexpectedly",
            )
            .into()),
        }
    }
}

/// Reads a stream to its end and returns the last part of it.
async fn read_tail(mut from: DuplexStream) -> String {
    let mut tail = Vec::new();
    let mut buffer = vec![0; MAX_STDERR_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        tail.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let extra = tail.len().saturating_sub(MAX_STDERR_BYTES);
        tail.drain(..extra);
    }
    String::from_utf8_lossy(&tail).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_says_how_its_program_is_run() {
        let config = br#"{"config":{"Entrypoint":["/bin/f"],"Env":["A=1"],
            "Labels":{"moby.buildkit.frontend.caps":"x,y+z","moby.buildkit.frontend.network.none":"true"}}}"#;
        let request = FrontendRequest {
            opts: [("target".to_owned(), "a".to_owned())].into(),
            session_id: "s".into(),
            ..FrontendRequest::default()
        };
        let decoded = ProgramConfig::decode(config).unwrap();
        let program = Program::new(decoded, &request, &[]);
        assert_eq!(program.meta.args, ["/bin/f"]);
        assert_eq!(
            program.meta.env,
            [
                "A=1",
                "BUILDKIT_FRONTEND_OPT_0=target=a",
                "BUILDKIT_SESSION_ID=s",
                "BUILDKIT_WORKERS=[]",
                "BUILDKIT_EXPORTEDPRODUCT=",
            ]
        );
        assert_eq!((program.network, program.meta.cwd.as_str()), (2, "/"));
        assert_eq!(program.caps, ["x".to_owned(), "y".to_owned()].into());
        let plain = Program::new(ProgramConfig::decode(b"{}").unwrap(), &request, &[]);
        assert_eq!((plain.meta.args[0].as_str(), plain.network), ("/run", 0));
        assert!(ProgramConfig::decode(b"[").is_err());
    }
}
