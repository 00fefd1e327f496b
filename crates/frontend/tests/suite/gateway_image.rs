//! Frontends from images: how the program runs, its requests, and the report of its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::bridge::{
    Bridge, FileRange, FileStat, Frontend, FrontendRequest, FrontendResult, ImageMeta, Ref,
    ResolveOpts, SolveInput, SolveRequest, SourceMeta, Warning, WorkerInfo,
};
use frontend::error::BridgeError;
use frontend::gateway::{Container, ContainerRequest, Process, ProcessRequest};
use frontend::gateway_image::{FrontendHost, ImageFrontend};
use llb::pb;
use oci::{Digest, ErrorKind, Platform};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;

use super::{FakeRef, Files};

const CONFIG: &str = r#"{"config":{"Entrypoint":["/bin/f","--x"],"WorkingDir":"/w",
    "Labels":{"moby.buildkit.frontend.caps":"moby.buildkit.frontend.inputs,cap.one+forward"}}}"#;

/// The script of a frontend's program, and the log of its actions.
#[derive(Clone)]
struct Script {
    config: &'static str,
    /// The reference after policies; none for the image itself.
    resolves_to: Option<String>,
    is_image: bool,
    /// Text that the program writes to its standard error.
    stderr: String,
    /// Exit of the program.
    ended: Result<(), &'static str>,
    /// The program's answer through the gateway, if any.
    returned: Option<Result<(), &'static str>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            config: CONFIG,
            resolves_to: None,
            is_image: true,
            stderr: String::new(),
            ended: Ok(()),
            returned: Some(Ok(())),
            log: Arc::default(),
        }
    }
}

impl Script {
    fn note(&self, line: String) {
        self.log.lock().push(line);
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

#[async_trait]
impl Bridge for Script {
    fn workers(&self) -> Vec<WorkerInfo> {
        vec![WorkerInfo {
            id: "w1".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            platforms: vec![Platform::new("linux", "arm", "v7")],
        }]
    }

    async fn solve(&self, request: SolveRequest) -> Result<FrontendResult, BridgeError> {
        let SolveInput::Definition(definition) = request.input else {
            unreachable!("an image is a definition");
        };
        for op in definition
            .def
            .iter()
            .map(|raw| pb::Op::decode(&raw[..]).unwrap())
        {
            if let Some(pb::op::Op::Source(source)) = op.op {
                self.note(format!("solve {} {:?}", source.identifier, source.attrs));
            }
        }
        let files = Arc::new(Files(BTreeMap::new()));
        Ok(FrontendResult {
            single: Some(Arc::new(FakeRef { files, definition }) as Arc<dyn Ref>),
            ..FrontendResult::default()
        })
    }

    async fn resolve_source(
        &self,
        source: pb::SourceOp,
        opts: ResolveOpts,
    ) -> Result<SourceMeta, BridgeError> {
        self.note(format!("resolve {} ({})", source.identifier, opts.log_name));
        let identifier = self.resolves_to.clone().unwrap_or(source.identifier);
        Ok(SourceMeta {
            op: pb::SourceOp {
                identifier,
                ..pb::SourceOp::default()
            },
            image: self.is_image.then(|| ImageMeta {
                digest: Digest::sha256(b"image"),
                config: Bytes::from_static(self.config.as_bytes()),
                attestations: None,
            }),
            ..SourceMeta::default()
        })
    }

    async fn warn(&self, _: &Digest, _: Warning) -> Result<(), BridgeError> {
        unreachable!("nobody warns")
    }

    async fn new_container(
        &self,
        request: ContainerRequest,
    ) -> Result<Arc<dyn Container>, BridgeError> {
        let mounts = request.mounts.iter();
        let mounts: Vec<_> = mounts
            .map(|m| format!("{}={}", m.mount.dest, m.source.is_some()))
            .collect();
        self.note(format!("container {mounts:?} network={}", request.network));
        for file in &request.files {
            let definition = pb::Definition::decode(&file.contents[..]).unwrap();
            let sources = definition.def.iter().filter_map(|raw| {
                match pb::Op::decode(&raw[..]).unwrap().op {
                    Some(pb::op::Op::Source(source)) => Some(source.identifier),
                    _ => None,
                }
            });
            let sources: Vec<_> = sources.collect();
            self.note(format!("file {} of {sources:?}", file.path));
        }
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Container for Script {
    async fn start(&self, process: ProcessRequest) -> Result<Process, BridgeError> {
        let (args, cwd) = (process.meta.args.join(" "), process.meta.cwd);
        self.note(format!("start {args} in {cwd}"));
        for variable in process.meta.env {
            self.note(format!("env {variable}"));
        }
        let mut stderr = process.stderr.unwrap();
        let (text, ended) = (self.stderr.clone(), self.ended);
        Ok(Process {
            ended: Box::pin(async move {
                stderr.write_all(text.as_bytes()).await.unwrap();
                drop(stderr);
                ended.map_err(BridgeError::message)
            }),
        })
    }
    async fn read_file(
        &self,
        _: usize,
        _: &str,
        _: Option<FileRange>,
    ) -> Result<Bytes, BridgeError> {
        unreachable!("nobody reads")
    }
    async fn read_dir(&self, _: usize, _: &str, _: &str) -> Result<Vec<FileStat>, BridgeError> {
        unreachable!("nobody reads")
    }
    async fn stat_file(&self, _: usize, _: &str) -> Result<FileStat, BridgeError> {
        unreachable!("nobody reads")
    }
    async fn release(&self) -> Result<(), BridgeError> {
        self.note("release".into());
        Err(BridgeError::message("there were processes to end"))
    }
}

#[async_trait]
impl FrontendHost for Script {
    async fn serve(
        &self,
        _: Arc<dyn Bridge>,
        inputs: BTreeMap<String, Arc<pb::Definition>>,
        _: tokio::io::DuplexStream,
    ) -> Option<Result<FrontendResult, BridgeError>> {
        self.note(format!("serve {:?}", inputs.keys()));
        let result = || FrontendResult {
            metadata: [("by".to_owned(), Bytes::from_static(b"program"))].into(),
            ..FrontendResult::default()
        };
        Some(
            self.returned?
                .map(|()| result())
                .map_err(BridgeError::message),
        )
    }
}

/// Runs the frontend of this image; returns the keys of the result's metadata, or the error.
async fn run(
    script: &Script,
    image: &str,
    allowed: &[&str],
    request: FrontendRequest,
) -> Result<Vec<String>, frontend::FrontendError> {
    let frontend = ImageFrontend {
        image: image.into(),
        allowed: allowed.iter().map(|a| (*a).to_owned()).collect(),
        host: Arc::new(script.clone()),
    };
    let result = frontend.solve(Arc::new(script.clone()), request).await?;
    Ok(result.metadata.into_keys().collect())
}

fn opts<const N: usize>(opts: [(&str, &str); N]) -> FrontendRequest {
    FrontendRequest {
        opts: opts.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        session_id: "s1".into(),
        ..FrontendRequest::default()
    }
}

#[tokio::test]
async fn the_program_gets_options_session_and_workers_and_its_image_is_fixed() {
    let script = Script::default();
    let mut request = opts([("target", "x"), ("build-arg:A", "1=2")]);
    request.inputs.insert("base".into(), Arc::default());
    let keys = run(&script, "x/f:1", &[], request).await.unwrap();
    assert_eq!(keys, ["by"]);
    let digest = Digest::sha256(b"image");
    let want = [
        "resolve docker-image://docker.io/x/f:1 (resolve image config for docker-image://docker.io/x/f:1)".to_owned(),
        format!("solve docker-image://docker.io/x/f:1@{digest} {{\"image.recordtype\": \"frontend\"}}"),
        "container [\"/=true\"] network=0".to_owned(),
        format!("file /run/config/buildkit/metadata/frontend.bin of [\"docker-image://docker.io/x/f:1@{digest}\"]"),
        "start /bin/f --x in /w".to_owned(),
        "env BUILDKIT_FRONTEND_OPT_0=build-arg:A=1=2".to_owned(),
        "env BUILDKIT_FRONTEND_OPT_1=target=x".to_owned(),
        "env BUILDKIT_SESSION_ID=s1".to_owned(),
        "env BUILDKIT_WORKERS=[{\"id\":\"w1\",\"labels\":{\"a\":\"b\"},\"platforms\":[{\"architecture\":\"arm\",\"os\":\"linux\",\"variant\":\"v7\"}]}]".to_owned(),
        "env BUILDKIT_EXPORTEDPRODUCT=".to_owned(),
        "serve [\"base\"]".to_owned(),
        // Processes that were left to kill are no error.
        "release".to_owned(),
    ];
    assert_eq!(*script.log.lock(), want);
}

#[tokio::test]
async fn an_image_that_a_policy_fixed_stays_fixed_as_it_is() {
    let mirror_digest = Digest::sha256(b"mirror_digest");
    let script = Script {
        resolves_to: Some(format!("docker-image://mirror.example/f@{mirror_digest}")),
        ..Script::default()
    };
    run(&script, "x/f", &[], opts([])).await.unwrap();
    let log = script.log.lock().join("\n");
    assert!(
        log.contains(&format!(
            "solve docker-image://mirror.example/f@{mirror_digest} "
        )),
        "{log}"
    );
}

/// What was resolved, solved, put into a file and started.
fn steps(script: &Script) -> Vec<String> {
    let is_step = |line: &&String| {
        ["resolve", "solve", "file", "start"].contains(&line.split(' ').next().unwrap())
    };
    script.log.lock().iter().filter(is_step).cloned().collect()
}

#[tokio::test]
async fn a_named_context_takes_the_place_of_the_image() {
    let host = Platform::host().normalize().format_all();
    let of_host = format!("x/f:1::{host}");
    let download = "https://example.com/f.tar";
    for (image, contexts, replacement, shown) in [
        (
            "x/f:1",
            vec![("x/f:1", "docker-image://me/f")],
            "me/f",
            "x/f:1",
        ),
        // By its familiar name, without the tag that is meant anyway.
        (
            "docker.io/x/f:latest",
            vec![("x/f", "docker-image://me/f")],
            "me/f",
            "x/f",
        ),
        (
            "x/f:1",
            vec![
                ("x/f:1", "docker-image://me/f"),
                (&of_host, "docker-image://me/own"),
            ],
            "me/own",
            &of_host,
        ),
        // A tree without a config has its program at /run.
        ("x/f:1", vec![("x/f:1", download)], "", ""),
        // A context of another name is none of this image's.
        (
            "x/f:1",
            vec![("x/f", "docker-image://me/f"), ("x/f:2", download)],
            "x/f:1",
            "none",
        ),
    ] {
        let script = Script::default();
        let request = FrontendRequest {
            opts: contexts
                .iter()
                .map(|(name, value)| (format!("context:{name}"), (*value).to_owned()))
                .collect(),
            ..opts([])
        };
        run(&script, image, &[], request).await.unwrap();
        let want = match shown {
            "" => vec![
                format!("solve {download} {{\"http.filename\": \"context\"}}"),
                format!("file /run/config/buildkit/metadata/frontend.bin of [\"{download}\"]"),
                "start /run in /".to_owned(),
            ],
            "none" => {
                let pinned = format!(
                    "docker-image://docker.io/{replacement}@{}",
                    Digest::sha256(b"image")
                );
                vec![
                    format!(
                        "resolve docker-image://docker.io/{replacement} (resolve image config for docker-image://docker.io/{replacement})"
                    ),
                    format!("solve {pinned} {{\"image.recordtype\": \"frontend\"}}"),
                    format!("file /run/config/buildkit/metadata/frontend.bin of [\"{pinned}\"]"),
                    "start /bin/f --x in /w".to_owned(),
                ]
            }
            context => {
                let source = format!("docker-image://docker.io/{replacement}:latest");
                vec![
                    format!(
                        "resolve {source} ([context {context}] load metadata for {replacement})"
                    ),
                    format!("solve {source} {{}}"),
                    format!("file /run/config/buildkit/metadata/frontend.bin of [\"{source}\"]"),
                    "start /bin/f --x in /w".to_owned(),
                ]
            }
        };
        assert_eq!(steps(&script), want);
    }
}

#[tokio::test]
async fn a_context_cannot_bring_a_frontend_from_a_repository_that_is_not_allowed() {
    for (context, is_run) in [
        ("docker-image://x/g:2", true),
        (
            "docker-image:docker.io/x/f@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            true,
        ),
        ("docker-image://me/f", false),
        ("docker-image://A b", false),
        ("https://example.com/f.tar", false),
        ("input:base", false),
        ("local:f", false),
    ] {
        let script = Script::default();
        let request = opts([("context:x/f", context)]);
        let ran = run(&script, "x/f", &["x/f", "x/g"], request).await;
        assert_eq!(ran.is_ok(), is_run, "{context}: {ran:?}");
        if let Err(error) = ran {
            let want = format!(
                "'x/f' is not an allowed gateway source: a context replaces it by \"{context}\""
            );
            assert_eq!(error.to_string(), want);
            assert_eq!(*script.log.lock(), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_before_a_container_is_made() {
    let with = |config, is_image| Script {
        config,
        is_image,
        ..Script::default()
    };
    let inputs = || FrontendRequest {
        inputs: [("base".to_owned(), Arc::default())].into(),
        ..opts([])
    };
    type Case<'a> = (
        &'a str,
        Script,
        &'a [&'a str],
        FrontendRequest,
        &'a str,
        ErrorKind,
    );
    let cases: Vec<Case<'_>> = vec![
        (
            "",
            Script::default(),
            &[],
            opts([]),
            "no source specified for gateway",
            ErrorKind::Invalid,
        ),
        (
            "A b",
            Script::default(),
            &[],
            opts([]),
            "invalid frontend image \"A b\": ",
            ErrorKind::Invalid,
        ),
        (
            "x/f",
            Script::default(),
            &[],
            opts([("gateway-devel", "")]),
            "development gateway is no longer supported",
            ErrorKind::Invalid,
        ),
        (
            "x/f:1",
            Script::default(),
            &["x/other", "docker.io/x/f2", "not a name"],
            opts([]),
            "'x/f:1' is not an allowed gateway source",
            ErrorKind::Invalid,
        ),
        (
            "x/f",
            with(CONFIG, false),
            &[],
            opts([]),
            "the source of frontend x/f is not an image",
            ErrorKind::Invalid,
        ),
        (
            "x/f",
            with("[", true),
            &[],
            opts([]),
            "cannot read the config of the frontend's image: ",
            ErrorKind::Invalid,
        ),
        (
            "x/f",
            Script::default(),
            &[],
            opts([("frontend.caps", "cap.one,cap.two")]),
            "unsupported frontend capability cap.two",
            ErrorKind::Unsupported,
        ),
        (
            "x/f",
            with("{}", true),
            &[],
            inputs(),
            "unsupported frontend capability moby.buildkit.frontend.inputs",
            ErrorKind::Unsupported,
        ),
    ];
    for (image, script, allowed, request, want, kind) in cases {
        let error = run(&script, image, allowed, request).await.unwrap_err();
        assert!(error.to_string().starts_with(want), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
        let log = script.log.lock().join("\n");
        assert!(!log.contains("container"), "{want}: {log}");
    }
    // An allowed repository is run whatever the tag.
    for allowed in ["x/f", "docker.io/x/f", "docker.io/x/f:other"] {
        run(&Script::default(), "x/f:1", &["a/b", allowed], opts([]))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_exit_of_the_program_counts_after_its_answer() {
    let exit = Err("exit code: 3");
    for (returned, ended, stderr, want) in [
        (Some(Ok(())), Ok(()), "only noise", Ok(())),
        (
            None,
            Ok(()),
            "",
            Err("frontend grpc server closed unexpectedly"),
        ),
        (None, exit, "", Err("frontend x/f failed: exit code: 3")),
        (
            None,
            exit,
            "  no such option\n",
            Err("frontend x/f failed: no such option: exit code: 3"),
        ),
        // A program that fails has no result, and an error that it returned takes precedence over its exit.
        (
            Some(Ok(())),
            exit,
            "late",
            Err("frontend x/f failed: late: exit code: 3"),
        ),
        (Some(Err("bad target")), exit, "noise", Err("bad target")),
        (Some(Err("bad target")), Ok(()), "", Err("bad target")),
    ] {
        let script = Script {
            returned,
            ended,
            stderr: stderr.into(),
            ..Script::default()
        };
        let outcome = run(&script, "x/f", &[], opts([])).await;
        let outcome = outcome.map(drop).map_err(|error| error.to_string());
        assert_eq!(outcome, want.map_err(str::to_owned));
        assert_eq!(script.log.lock().last().unwrap(), "release");
    }
}

#[tokio::test]
async fn the_last_part_of_a_long_standard_error_is_shown() {
    let script = Script {
        stderr: format!("{}the end", "x".repeat(100_000)),
        ended: Err("exit code: 1"),
        returned: None,
        ..Script::default()
    };
    let error = run(&script, "x/f", &[], opts([]))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("xthe end: exit code: 1"), "{error}");
    assert!(error.len() < 5_000, "{}", error.len());
}
