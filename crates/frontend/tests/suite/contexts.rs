//! The places of the Dockerfile and its files, and the frontend that builds a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::bridge::{
    Bridge, Frontend, FrontendCall, FrontendRequest, FrontendResult, ResolveOpts, SolveInput,
    SolveRequest, SourceMeta, Warning, WorkerInfo,
};
use frontend::error::BridgeError;
use frontend::{Dockerfile, FrontendError};
use llb::build::{Constraints, FileChain, MarshalOptions, State, marshal};
use llb::pb;
use oci::{Digest, ErrorKind};
use parking_lot::Mutex;
use prost::Message as _;

use super::{Fake, Files, lines};

const IMAGE: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["FROM=base"]},"rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}}"#;

/// A build's bridge that records the solved definitions and calls.
struct Recorder {
    fake: Fake,
    /// The sources of all definitions, each once, as `identifier {attributes}`.
    sources: Mutex<Vec<String>>,
    /// Calls of other frontends.
    calls: Mutex<Vec<FrontendCall>>,
    /// The answer to such a call.
    answer: Result<(), ErrorKind>,
}

#[async_trait]
impl Bridge for Recorder {
    fn workers(&self) -> Vec<WorkerInfo> {
        self.fake.workers()
    }

    async fn solve(&self, request: SolveRequest) -> Result<FrontendResult, BridgeError> {
        let definition = match &request.input {
            SolveInput::Definition(definition) => Arc::clone(definition),
            SolveInput::Frontend(call) => {
                self.calls.lock().push(call.clone());
                return match self.answer {
                    Ok(()) => Ok(FrontendResult {
                        metadata: [("other".to_owned(), Bytes::from_static(b"1"))].into(),
                        ..FrontendResult::default()
                    }),
                    Err(kind) => Err(BridgeError::new(kind, "the other frontend failed")),
                };
            }
        };
        for raw in &definition.def {
            if let Some(pb::op::Op::Source(source)) = pb::Op::decode(&raw[..]).unwrap().op {
                let line = format!("{} {:?}", source.identifier, source.attrs);
                let mut sources = self.sources.lock();
                if !sources.contains(&line) {
                    sources.push(line);
                }
            }
        }
        self.fake.solve(request).await
    }

    async fn resolve_source(
        &self,
        source: pb::SourceOp,
        opts: ResolveOpts,
    ) -> Result<SourceMeta, BridgeError> {
        self.fake.resolve_source(source, opts).await
    }

    async fn warn(&self, vertex: &Digest, warning: Warning) -> Result<(), BridgeError> {
        self.fake.warn(vertex, warning).await
    }
}

/// A request, its files, and the bridge's answer to calls of other frontends.
struct Build {
    opts: Vec<(&'static str, String)>,
    files: Vec<(&'static str, String)>,
    inputs: BTreeMap<String, Arc<pb::Definition>>,
    images: Vec<String>,
    answer: Result<(), ErrorKind>,
}

impl Default for Build {
    fn default() -> Self {
        Self {
            opts: Vec::new(),
            files: vec![("Dockerfile", "FROM scratch\nCOPY a /\n".into())],
            inputs: BTreeMap::new(),
            images: vec!["docker.io/library/alpine:latest".into()],
            answer: Ok(()),
        }
    }
}

struct Built {
    result: Result<FrontendResult, FrontendError>,
    sources: Vec<String>,
    calls: Vec<FrontendCall>,
}

impl Built {
    fn error(&self) -> String {
        match &self.result {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }
}

impl Build {
    async fn run(self) -> Built {
        let owned = |(k, v): (&str, String)| (k.to_owned(), v);
        let images = self.images.into_iter().map(|name| (name, IMAGE.to_owned()));
        let bridge = Arc::new(Recorder {
            fake: Fake {
                images: images.collect(),
                files: Arc::new(Files(self.files.into_iter().map(owned).collect())),
                solved: Mutex::default(),
                dump: false,
            },
            sources: Mutex::default(),
            calls: Mutex::default(),
            answer: self.answer,
        });
        let request = FrontendRequest {
            opts: self.opts.into_iter().map(owned).collect(),
            inputs: self.inputs,
            session_id: "session-1".into(),
        };
        let result = Dockerfile::default()
            .solve(Arc::<Recorder>::clone(&bridge), request)
            .await;
        let sources = bridge.sources.lock().clone();
        let calls = bridge.calls.lock().clone();
        Built {
            result,
            sources,
            calls,
        }
    }
}

fn input(name: &str) -> Arc<pb::Definition> {
    let local = llb::build::local(name, &llb::build::LocalOpts::default(), Constraints::new());
    let state = FileChain::new()
        .copy(&local, "/", "/", llb::build::CopyInfo::default())
        .on(&State::scratch(), Constraints::new());
    Arc::new(marshal(state.output(), &MarshalOptions::default()).unwrap())
}

fn named(context: &str) -> Build {
    Build {
        opts: vec![("context:dep", context.to_owned())],
        files: vec![
            ("Dockerfile", "FROM scratch\nCOPY --from=dep /a /\n".into()),
            (".dockerignore", "secret\n".into()),
        ],
        inputs: [("base".to_owned(), input("of-the-input"))].into(),
        ..Build::default()
    }
}

#[tokio::test]
async fn a_named_context_may_be_of_any_kind() {
    let digest = Digest::sha256(b"layout");
    let layout = format!("oci-layout://store:tag@{digest}");
    for (context, want) in [
        (
            "docker-image://alpine",
            vec!["docker-image://docker.io/library/alpine:latest"],
        ),
        (
            "docker-image:alpine",
            vec!["docker-image://docker.io/library/alpine:latest"],
        ),
        ("docker-image://scratch", vec![]),
        (
            "https://github.com/o/r.git#v1",
            vec!["git://github.com/o/r.git#v1"],
        ),
        ("git://h.example/r.git", vec!["git://h.example/r.git"]),
        ("http://h.example/f.tar", vec!["http://h.example/f.tar"]),
        ("input:base", vec!["local://of-the-input"]),
        (
            "local:dir",
            vec![
                "local://dir",
                "\"local.excludepatterns\": \"[\\\"secret\\\"]\"",
                "\"local.session\": \"session-1\"",
            ],
        ),
        (
            layout.as_str(),
            vec![
                "oci-layout://docker.io/library/dep",
                "\"oci.session\": \"session-1\"",
                "\"oci.store\": \"store\"",
            ],
        ),
    ] {
        let mut build = named(context);
        build.images.push(format!("docker.io/library/dep@{digest}"));
        build
            .images
            .push(format!("docker.io/library/dep:latest@{digest}"));
        let built = build.run().await;
        assert_eq!(built.error(), "", "{context}");
        let is_main = |line: &str| {
            line.starts_with("local://dockerfile ") || line.starts_with("local://context ")
        };
        let own = |line: &&String| !is_main(line);
        let sources: Vec<_> = built.sources.iter().filter(own).cloned().collect();
        let sources = sources.join("\n");
        for part in &want {
            assert!(sources.contains(part), "{context}: {part} in\n{sources}");
        }
        assert_eq!(sources.is_empty(), want.is_empty(), "{context}:\n{sources}");
    }
}

#[tokio::test]
async fn malformed_named_contexts_are_refused_with_their_names() {
    for (context, want) in [
        ("plain", "invalid context specifier plain for dep"),
        (
            "ftp://h.example/x",
            "unsupported context source ftp for dep",
        ),
        ("input:none", "invalid input none for dep"),
        (
            "oci-layout://store",
            "oci-layout reference \"store\" has no digest",
        ),
        (
            "oci-layout://store@x",
            "could not parse oci-layout reference \"store@x\": ",
        ),
        ("docker-image://A b", "invalid reference format"),
        (
            "docker-image://not/there",
            "failed to resolve source metadata for docker.io/not/there:latest",
        ),
    ] {
        let built = named(context).run().await;
        assert!(built.error().contains(want), "{context}: {}", built.error());
    }
}

#[tokio::test]
async fn the_context_of_its_platform_comes_before_the_one_for_all() {
    let platform = oci::Platform::host().normalize().format_all();
    let mut build = named("local:all");
    let name = format!("context:dep::{platform}");
    build.opts.push((name.leak(), "local:own".into()));
    let built = build.run().await;
    assert_eq!(built.error(), "");
    let sources = built.sources.join("\n");
    assert!(
        sources.contains("local://own ") && !sources.contains("local://all "),
        "{sources}"
    );
}

#[tokio::test]
async fn the_config_of_an_input_comes_with_it() {
    use base64::Engine as _;
    let config = base64::engine::general_purpose::STANDARD.encode(IMAGE);
    let from = |metadata: String| {
        let mut build = named("input:base");
        build.files[0].1 = "FROM dep\nRUN echo\n".into();
        build.opts.push(("input-metadata:base", metadata));
        build
    };
    let built = from(format!("{{\"containerimage.config\":\"{config}\"}}"))
        .run()
        .await;
    assert_eq!(built.error(), "");
    let metadata = built.result.unwrap().metadata;
    let image = String::from_utf8(metadata["containerimage.config"].to_vec()).unwrap();
    assert!(image.contains("FROM=base"), "{image}");
    let built = from("{\"other\":\"x\"}".into()).run().await;
    assert_eq!(built.error(), "");
    for (metadata, want) in [
        ("{", "failed to parse input metadata {: "),
        (
            "{\"containerimage.config\":\"?\"}",
            "failed to parse input metadata {\"containerimage.config\":\"?\"}: ",
        ),
        (
            "{\"containerimage.config\":\"e30x\"}",
            "failed to parse image config for dep: ",
        ),
    ] {
        let built = from(metadata.into()).run().await;
        assert!(
            built.error().contains(want),
            "{metadata}: {}",
            built.error()
        );
    }
}

#[tokio::test]
async fn the_dockerfile_is_read_from_the_place_in_the_request() {
    let text = || "FROM scratch\nCOPY a /\n".to_owned();
    let dockerfile = "local://dockerfile ";
    let cases: Vec<(&str, Build, Vec<&str>)> = vec![
        (
            "in the client's folder",
            Build::default(),
            vec![
                dockerfile,
                "local://context ",
                "\"local.session\": \"session-1\"",
            ],
        ),
        (
            "in lower case",
            Build {
                files: vec![("dockerfile", text())],
                ..Build::default()
            },
            vec![dockerfile],
        ),
        (
            "by another name",
            Build {
                opts: vec![("filename", "build/Own".into())],
                files: vec![("build/Own", text())],
                ..Build::default()
            },
            vec![dockerfile, "build/Own.dockerignore"],
        ),
        (
            "in another folder of another session",
            Build {
                opts: vec![
                    ("dockerfilekey", "files".into()),
                    ("local-sessionid:files", "other".into()),
                ],
                ..Build::default()
            },
            vec!["local://files ", "\"local.session\": \"other\""],
        ),
        (
            "in an input",
            Build {
                inputs: [
                    ("dockerfile".to_owned(), input("in-one")),
                    ("context".to_owned(), input("in-other")),
                ]
                .into(),
                ..Build::default()
            },
            vec!["local://in-one ", "local://in-other "],
        ),
        (
            "in a repository",
            Build {
                opts: vec![("context", "https://github.com/o/r.git#main".into())],
                ..Build::default()
            },
            vec!["git://github.com/o/r.git#main "],
        ),
        (
            "in a repository by another key",
            Build {
                opts: vec![
                    ("contextkey", "src".into()),
                    ("src", "https://github.com/o/r.git".into()),
                ],
                ..Build::default()
            },
            vec!["git://github.com/o/r.git "],
        ),
        (
            "in an archive from the web",
            Build {
                opts: vec![("context", "https://h.example/x.tar.bz2".into())],
                files: vec![("context", "BZh91AY".into()), ("Dockerfile", text())],
                ..Build::default()
            },
            vec!["https://h.example/x.tar.bz2 {\"http.filename\": \"context\"}"],
        ),
        (
            "a file from the web",
            Build {
                opts: vec![("context", "https://h.example/Dockerfile".into())],
                files: vec![("context", "FROM alpine\n".into())],
                ..Build::default()
            },
            vec![
                "https://h.example/Dockerfile ",
                "docker-image://docker.io/library/alpine:latest@",
            ],
        ),
    ];
    for (place, build, want) in cases {
        let built = build.run().await;
        assert_eq!(built.error(), "", "{place}");
        let sources = built.sources.join("\n");
        for part in want {
            assert!(sources.contains(part), "{place}: {part} in\n{sources}");
        }
    }
}

#[tokio::test]
async fn a_missing_or_too_large_dockerfile_is_named_in_the_error() {
    let large = "#".repeat((16 << 20) + 1);
    for (files, want) in [
        (
            vec![("other", String::new())],
            "failed to read dockerfile: open /Dockerfile: no such file or directory",
        ),
        (
            vec![("Dockerfile", large)],
            "failed to read dockerfile: Dockerfile exceeds maximum allowed size of 16777216 bytes",
        ),
        (
            vec![("Dockerfile", super::UNREADABLE.into())],
            "failed to read dockerfile: read /Dockerfile: input/output error",
        ),
    ] {
        let built = Build {
            files,
            ..Build::default()
        }
        .run()
        .await;
        assert_eq!(built.error(), want);
    }
}

#[tokio::test]
async fn another_frontend_gets_the_request_with_the_line_that_names_it() {
    let file = |first: &str| vec![("Dockerfile", format!("{first}\nFROM scratch\n"))];
    type Case<'a> = (Vec<(&'a str, String)>, &'a str, Option<(&'a str, &'a str)>);
    let cases: [Case<'_>; 8] = [
        (vec![], "# syntax=docker/dockerfile:1.7", None),
        // A context in the place of that image is built with; one of another name is not.
        (
            vec![(
                "context:docker/dockerfile:1.7",
                "docker-image://me/f".into(),
            )],
            "# syntax=docker/dockerfile:1.7",
            Some(("docker/dockerfile:1.7", "docker/dockerfile:1.7")),
        ),
        (
            vec![(
                "context:docker/dockerfile:1.8",
                "docker-image://me/f".into(),
            )],
            "# syntax=docker/dockerfile:1.7",
            None,
        ),
        (
            vec![],
            "# syntax=x/own:2 --flag",
            Some(("x/own:2", "x/own:2 --flag")),
        ),
        (
            vec![],
            "#syntax=docker/dockerfile-upstream:master",
            Some((
                "docker/dockerfile-upstream:master",
                "docker/dockerfile-upstream:master",
            )),
        ),
        (
            vec![("build-arg:BUILDKIT_SYNTAX", " x/arg:1 a b".into())],
            "# syntax=docker/dockerfile:1",
            Some(("x/arg:1", " x/arg:1 a b")),
        ),
        // A frontend that was called by such a line is not forwarded again.
        (
            vec![("cmdline", "x/own:2".into())],
            "# syntax=x/own:2",
            None,
        ),
        (vec![], "FROM alpine\n# syntax=x/own:2", None),
    ];
    for (opts, first, want) in cases {
        let built = Build {
            opts: opts
                .iter()
                .cloned()
                .chain([("target", String::new())])
                .collect(),
            files: file(first),
            ..Build::default()
        }
        .run()
        .await;
        assert_eq!(built.error(), "", "{first}");
        let Some((source, cmdline)) = want else {
            assert!(built.calls.is_empty(), "{first}");
            continue;
        };
        let [call] = &built.calls[..] else {
            panic!("{first}: {:?}", built.calls);
        };
        assert_eq!(call.frontend, "gateway.v0");
        assert_eq!(
            (call.opts["source"].as_str(), call.opts["cmdline"].as_str()),
            (source, cmdline)
        );
        assert!(call.opts.contains_key("target"));
        assert!(built.result.unwrap().metadata.contains_key("other"));
    }
}

#[tokio::test]
async fn the_failure_of_another_frontend_has_the_line_that_names_it() {
    for (answer, want, kind) in [
        (
            ErrorKind::Failed,
            "the other frontend failed",
            ErrorKind::Failed,
        ),
        (
            ErrorKind::Unsupported,
            "frontend x/own:2 cannot be run: frontends from images (gateway.v0) are not supported",
            ErrorKind::Unsupported,
        ),
    ] {
        let built = Build {
            files: vec![(
                "Dockerfile",
                "# escape=`\n# syntax=x/own:2\nFROM scratch\n".into(),
            )],
            answer: Err(answer),
            ..Build::default()
        }
        .run()
        .await;
        let error = built.result.unwrap_err();
        assert!(error.to_string().starts_with(want), "{error}");
        assert_eq!(error.kind(), kind);
        let [at] = error.locations() else {
            panic!("{:?}", error.locations());
        };
        assert_eq!(
            (at.info.filename.as_str(), lines(&at.ranges)),
            ("Dockerfile", "2-2".into())
        );
    }
}

#[tokio::test]
async fn demanded_capabilities_are_present_or_refused() {
    for (caps, want) in [
        ("", ""),
        ("moby.buildkit.frontend.inputs", ""),
        ("moby.buildkit.frontend.inputs+forward,", ""),
        ("not.there", "unsupported frontend capability not.there"),
        (
            "not.there+forward",
            "unsupported frontend capability not.there",
        ),
        (
            ",,moby.buildkit.frontend.inputs,not.there",
            "unsupported frontend capability not.there",
        ),
    ] {
        let built = Build {
            opts: vec![("frontend.caps", caps.into())],
            ..Build::default()
        }
        .run()
        .await;
        assert_eq!(built.error(), want, "{caps}");
    }
    // A capability that may be forwarded is left to another frontend.
    let built = Build {
        opts: vec![("frontend.caps", "not.there+forward".into())],
        files: vec![("Dockerfile", "# syntax=x/own:2\nFROM scratch\n".into())],
        ..Build::default()
    }
    .run()
    .await;
    assert_eq!((built.error().as_str(), built.calls.len()), ("", 1));
}

#[tokio::test]
async fn subrequests_about_a_dockerfile_are_answered_and_unknown_ones_refused() {
    let ask = |name: &str, text: &str| Build {
        opts: vec![("requestid", name.into())],
        files: vec![("Dockerfile", text.into())],
        ..Build::default()
    };
    let text = "ARG V=1\n# the release\nFROM scratch AS release\nCOPY a /\n";
    for (name, words) in [
        ("frontend.subrequests.describe", "frontend.outline"),
        ("frontend.outline", "\"name\":\"release\""),
        ("frontend.targets", "release"),
        ("frontend.lint", "\"warnings\""),
    ] {
        let built = ask(name, text).run().await;
        assert_eq!(built.error(), "", "{name}");
        let result = built.result.unwrap();
        let json: serde_json::Value =
            serde_json::from_slice(&result.metadata["result.json"]).unwrap();
        assert!(json.to_string().contains(words), "{name}: {json}");
        assert!(
            !result.metadata["version"].is_empty() && result.metadata.contains_key("result.txt")
        );
        assert_eq!(
            result.metadata.contains_key("result.statuscode"),
            name == "frontend.lint"
        );
        assert!(
            result.single.is_none() && result.refs.is_empty(),
            "nothing is built"
        );
    }
    let unknown = ask("frontend.other", text).run().await.result.unwrap_err();
    assert_eq!(unknown.to_string(), "unsupported request frontend.other");
    assert_eq!(unknown.kind(), ErrorKind::Unsupported);
    let broken = ask("frontend.targets", "FORM scratch\n")
        .run()
        .await
        .result
        .unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::Invalid);
}
