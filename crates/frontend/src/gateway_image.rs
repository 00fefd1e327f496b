//! Frontends that come as images: the image's program runs in a container and speaks the gateway over its standard streams.
//!
//! ```text
//!   image ──resolve──► config ──► program, environment      container ── stdin, stdout ──► FrontendHost: the bridge as gRPC
//!         └──solve───► ref ─────► root of the container ──────┘                                  └──► what it returned
//! ```
//!
//! | environment | |
//! |---|---|
//! | `BUILDKIT_FRONTEND_OPT_<n>` | `key=value`, an option each |
//! | `BUILDKIT_SESSION_ID` | the client's session |
//! | `BUILDKIT_WORKERS` | JSON: id, labels, platforms of each worker |
//! | `BUILDKIT_EXPORTEDPRODUCT` | who asks; empty |

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
use crate::error::{BridgeError, FrontendError, resolving};
use crate::gateway::{ContainerMount, ContainerRequest, ProcessRequest};

/// Bytes that one side may be ahead of the other.
const AHEAD: usize = 256 << 10;
/// How much of what the program complains about is told.
const COMPLAINTS: usize = 4 << 10;
const INPUTS: &str = "moby.buildkit.frontend.inputs";
const CAPS: &str = "moby.buildkit.frontend.caps";
const NO_NETWORK: &str = "moby.buildkit.frontend.network.none";
/// `pb.NetMode.NONE`.
const NETWORK_NONE: i32 = 2;

/// Serves a bridge to a program over a stream.
#[async_trait]
pub trait FrontendHost: Send + Sync + fmt::Debug {
    /// Serves until the stream ends; what the program returned, nothing if it did not.
    async fn serve(
        &self,
        bridge: Arc<dyn Bridge>,
        inputs: BTreeMap<String, Arc<pb::Definition>>,
        stream: DuplexStream,
    ) -> Option<Result<FrontendResult, BridgeError>>;
}

/// A frontend from an image.
#[derive(Debug)]
pub struct ImageFrontend {
    /// The image.
    pub image: String,
    /// Repositories that frontends may come from; none for all.
    pub allowed: Vec<String>,
    /// Speaks to the program.
    pub host: Arc<dyn FrontendHost>,
}

#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<Config>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

/// What of the image's config decides how it is run.
#[derive(Debug, PartialEq)]
struct Program {
    meta: pb::Meta,
    network: i32,
    caps: BTreeSet<String>,
}

fn option_error(message: impl Into<String>) -> FrontendError {
    FrontendError::Option {
        message: message.into(),
    }
}

/// Names of capabilities: a list with commas, each up to a `+`.
fn caps(text: &str) -> BTreeSet<String> {
    text.split(',')
        .filter_map(|cap| cap.split('+').next())
        .filter(|cap| !cap.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Program {
    fn new(
        config: &[u8],
        request: &FrontendRequest,
        workers: &[WorkerInfo],
    ) -> Result<Self, String> {
        let config = gostd::json::from_slice::<Document>(config)
            .map_err(|e| format!("cannot read the config of the frontend's image: {e}"))?
            .config
            .unwrap_or_default();
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
        let yes = |text: &String| gostd::strconv::is_true(text);
        Ok(Self {
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
            network: if labels.get(NO_NETWORK).is_some_and(yes) {
                NETWORK_NONE
            } else {
                0
            },
            caps: labels.get(CAPS).map(|text| caps(text)).unwrap_or_default(),
        })
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
    fn check_allowed(&self, name: &Reference) -> Result<(), FrontendError> {
        let repository = |text: &str| Reference::parse(text).map(|r| r.name());
        let wanted = name.name();
        if self.allowed.is_empty()
            || self
                .allowed
                .iter()
                .any(|allowed| repository(allowed).is_ok_and(|known| known == wanted))
        {
            return Ok(());
        }
        Err(option_error(format!(
            "'{}' is not an allowed gateway source",
            self.image
        )))
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
            return Err(option_error("development gateway is no longer supported"));
        }
        if self.image.is_empty() {
            return Err(option_error("no source specified for gateway"));
        }
        let name = Reference::parse(&self.image)
            .map(Reference::with_default_tag)
            .map_err(|e| {
                option_error(format!(
                    "invalid frontend image {}: {e}",
                    quote(&self.image)
                ))
            })?;
        self.check_allowed(&name)?;
        let source = pb::SourceOp {
            identifier: format!("docker-image://{name}"),
            ..pb::SourceOp::default()
        };
        let opts = ResolveOpts {
            log_name: format!("resolve image config for docker-image://{name}"),
            image: Some(ImageResolveOpts::default()),
            ..ResolveOpts::default()
        };
        let what = resolving(&source.identifier);
        let found = bridge
            .resolve_source(source, opts)
            .await
            .map_err(|error| FrontendError::bridge_failed(&what, error))?;
        let image = found.image.ok_or_else(|| {
            option_error(format!("the source of frontend {} is no image", self.image))
        })?;
        let pinned = found.op.identifier.trim_start_matches("docker-image://");
        let pinned = match pinned.split_once('@') {
            Some(_) => pinned.to_owned(),
            None => format!("{pinned}@{}", image.digest),
        };
        let program =
            Program::new(&image.config, &request, &bridge.workers()).map_err(option_error)?;
        let mut wanted = request
            .opts
            .get("frontend.caps")
            .map(|text| caps(text))
            .unwrap_or_default();
        if !request.inputs.is_empty() {
            wanted.insert(INPUTS.into());
        }
        if let Some(missing) = wanted.difference(&program.caps).next() {
            return Err(FrontendError::UnsupportedCapability {
                name: missing.clone(),
            });
        }
        let rootfs = bridge
            .solve(SolveRequest::of_definition(definition(&pinned)))
            .await?;
        let container = bridge
            .new_container(ContainerRequest {
                mounts: vec![ContainerMount {
                    mount: pb::Mount {
                        dest: "/".into(),
                        ..pb::Mount::default()
                    },
                    source: rootfs.single,
                }],
                network: program.network,
                ..ContainerRequest::default()
            })
            .await?;
        let (ours, theirs) = tokio::io::duplex(AHEAD);
        let (input, output) = tokio::io::split(theirs);
        let (complaints, errors) = tokio::io::duplex(COMPLAINTS);
        // Nothing is done to the program while it runs.
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
        let (ended, served, said) = futures::join!(process.ended, served, listen(complaints));
        if let Err(error) = container.release().await {
            // It ended by itself; what it started beside may not have.
            drop(error);
        }
        match (served, ended) {
            (Some(Err(error)), _) => Err(error.into()),
            (_, Err(error)) => {
                let context = format!("frontend {} failed", self.image);
                let said = said.trim();
                let context = if said.is_empty() {
                    context
                } else {
                    format!("{context}: {said}")
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

/// The end of what a program says.
async fn listen(mut from: DuplexStream) -> String {
    let mut kept = Vec::new();
    let mut buffer = vec![0; COMPLAINTS];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let extra = kept.len().saturating_sub(COMPLAINTS);
        kept.drain(..extra);
    }
    String::from_utf8_lossy(&kept).into_owned()
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
        let program = Program::new(config, &request, &[]).unwrap();
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
        let plain = Program::new(b"{}", &request, &[]).unwrap();
        assert_eq!((plain.meta.args[0].as_str(), plain.network), ("/run", 0));
        assert!(Program::new(b"[", &request, &[]).is_err());
    }
}
