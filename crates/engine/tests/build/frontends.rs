//! The bridge of a frontend: definitions, other frontends, files and containers, and their limits.

use std::sync::Arc;

use async_trait::async_trait;
use engine::api::{Backend, Detail, FailureKind, SolveInput, SolveRequest};
use engine::{DockerfileFrontend, Engine, Settings};
use frontend::bridge::FileRange;
use frontend::gateway::ContainerRequest;
use frontend::{
    Bridge, BridgeError, Frontend, FrontendCall, FrontendError, FrontendRequest, FrontendResult,
};
use futures::future::BoxFuture;
use llb::build::{FileChain, MissingPath, RmPath};
use llb::pb;
use oci::ErrorKind;
use testkit::executor::{RunMount, RunMountKind, ScriptedExecutor, Step};

use crate::{Setup, definition, engine, engine_from, engine_with, request};

type Work = dyn Fn(Arc<dyn Bridge>) -> BoxFuture<'static, Result<(), FrontendError>> + Send + Sync;

/// A frontend that runs one closure.
struct ClosureFrontend(Box<Work>);

#[async_trait]
impl Frontend for ClosureFrontend {
    async fn solve(
        &self,
        bridge: Arc<dyn Bridge>,
        _: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        (self.0)(bridge).await?;
        Ok(FrontendResult::default())
    }
}

/// Runs a frontend in a build of its own.
async fn run<F>(engine: &Engine, work: impl Fn(Arc<dyn Bridge>) -> F + Send + Sync + 'static)
where
    F: Future<Output = Result<(), FrontendError>> + Send + 'static,
{
    let frontend = ClosureFrontend(Box::new(move |bridge| Box::pin(work(bridge))));
    let request = SolveRequest {
        input: SolveInput::ClientFrontend(Arc::new(frontend)),
        ..request("one", Arc::default())
    };
    engine.solve(request).await.unwrap();
}

fn call(frontend: &str, opts: &[(&str, &str)]) -> frontend::SolveRequest {
    frontend::SolveRequest {
        input: frontend::SolveInput::Frontend(FrontendCall {
            frontend: frontend.into(),
            opts: opts
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..FrontendCall::default()
        }),
        ..frontend::SolveRequest::default()
    }
}

#[tokio::test]
async fn an_empty_definition_gives_an_empty_result() {
    let dir = tempfile::tempdir().unwrap();
    run(&engine(&dir), async |bridge| {
        let result = bridge.solve(frontend::SolveRequest::default()).await?;
        assert!(result.single.is_none() && result.refs.is_empty());
        assert_eq!(bridge.workers().len(), 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn unknown_frontends_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let off = Settings {
        dockerfile: DockerfileFrontend::Off,
        ..Settings::default()
    };
    let engine = engine_with(&dir, off);
    for (name, opts, kind, want) in [
        (
            "other.v0",
            vec![],
            FailureKind::Unknown,
            "invalid frontend: other.v0",
        ),
        (
            "dockerfile.v0",
            vec![],
            FailureKind::Unknown,
            "invalid frontend: dockerfile.v0",
        ),
        (
            "gateway.v0",
            vec![("source", "dockerfile.v0")],
            FailureKind::Unknown,
            "invalid frontend: dockerfile.v0",
        ),
        (
            "gateway.v0",
            vec![("source", "x/own:1")],
            FailureKind::Unimplemented,
            "frontend x/own:1 cannot be run: ",
        ),
    ] {
        let request = SolveRequest {
            input: SolveInput::Frontend(name.into()),
            frontend_opts: opts
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..request("one", Arc::default())
        };
        let failure = engine.solve(request).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{name} {opts:?}");
        assert!(failure.message().starts_with(want), "{failure}");
    }
}

#[tokio::test]
async fn a_failed_frontend_is_named_before_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    // Without a session there is no Dockerfile.
    let request = SolveRequest {
        input: SolveInput::Frontend("dockerfile.v0".into()),
        ..request("one", Arc::default())
    };
    let failure = engine.solve(request).await.unwrap_err();
    let frontend = Detail::Frontend {
        name: "dockerfile.v0".into(),
        source: String::new(),
    };
    assert_eq!(failure.details.first(), Some(&frontend));
    let has_vertex = |detail: &Detail| matches!(detail, Detail::Vertex { .. });
    assert!(failure.details.iter().any(has_vertex), "{failure:?}");
    assert!(
        failure.message().starts_with("failed to read dockerfile: "),
        "{failure}"
    );
}

#[tokio::test]
async fn an_input_without_ops_is_no_input() {
    let dir = tempfile::tempdir().unwrap();
    run(&engine(&dir), async |bridge| {
        let mut request = call("dockerfile.v0", &[]);
        if let frontend::SolveInput::Frontend(call) = &mut request.input {
            call.inputs.insert("base".into(), Arc::default());
        }
        let error = bridge.solve(request).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid nil input definition to definition op"
        );
        Ok(())
    })
    .await;
}

/// A small definition that is never solved.
fn small() -> Arc<pb::Definition> {
    definition(FileChain::new().mkfile("/a", 0o644, "x"))
}

#[tokio::test]
async fn nothing_runs_before_a_result_is_read() {
    let dir = tempfile::tempdir().unwrap();
    run(&engine(&dir), async |bridge| {
        // A failing step gives a ref; the failure appears with the first read.
        let broken = definition(FileChain::new().rm("/none", RmPath::Literal, MissingPath::Fails));
        let request = frontend::SolveRequest::of_definition(Arc::clone(&broken));
        let lazy = bridge.solve(request).await?.single.unwrap();
        assert_eq!(lazy.definition(), Some(Arc::clone(&broken)));
        assert!(lazy.evaluate().await.is_err());
        let eager = frontend::SolveRequest {
            evaluate: true,
            ..frontend::SolveRequest::of_definition(broken)
        };
        assert!(bridge.solve(eager).await.is_err());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn files_of_a_result_are_read_in_parts_and_listed_by_pattern() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    run(&engine(&dir), async |bridge| {
        let chain = FileChain::new()
            .mkdir("/d", 0o750, false, None, None)
            .mkfile("/d/a.txt", 0o640, "0123456789")
            .mkfile("/d/b.md", 0o600, "");
        let request = frontend::SolveRequest::of_definition(definition(chain));
        let tree = bridge.solve(request).await?.single.unwrap();
        let range = |offset, length| Some(FileRange { offset, length });
        for (range, want) in [
            (None, "0123456789"),
            (range(0, 0), "0123456789"),
            (range(3, 4), "3456"),
            (range(8, 100), "89"),
            (range(10, 1), ""),
            (range(1 << 40, 5), ""),
            (range(4, 0), "456789"),
        ] {
            assert_eq!(tree.read_file("d/a.txt", range).await?, want, "{range:?}");
        }
        for (pattern, want) in [
            ("", vec!["a.txt", "b.md"]),
            ("*.txt", vec!["a.txt"]),
            ("?.*", vec!["a.txt", "b.md"]),
            ("c*", vec![]),
        ] {
            let names = tree.read_dir("/d", pattern).await?;
            let names: Vec<_> = names.iter().map(|stat| stat.path.as_str()).collect();
            assert_eq!(names, want, "{pattern}");
        }
        let stat = tree.stat_file("/d/a.txt").await?;
        assert_eq!(
            (stat.path.as_str(), stat.size, stat.mode),
            ("a.txt", 10, 0o640)
        );
        let folder = tree.stat_file("/d").await?;
        // Go's mode bit for a folder.
        assert_eq!((folder.mode, folder.size), ((1 << 31) | 0o750, 0));
        let errors: [(Result<(), BridgeError>, &str, ErrorKind); 5] = [
            (
                tree.read_file("none", None).await.map(drop),
                "open none: no such file or directory",
                ErrorKind::NotFound,
            ),
            (
                tree.stat_file("none").await.map(drop),
                "no such file or directory",
                ErrorKind::NotFound,
            ),
            (
                tree.read_dir("none", "").await.map(drop),
                "no such file or directory",
                ErrorKind::NotFound,
            ),
            (
                tree.read_dir("d/a.txt", "").await.map(drop),
                "not a directory",
                ErrorKind::Invalid,
            ),
            (
                tree.read_file("d", None).await.map(drop),
                "is a directory",
                ErrorKind::Invalid,
            ),
        ];
        for (answer, want, kind) in errors {
            let error = answer.unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
            assert_eq!(error.kind(), kind, "{error}");
        }
        // A symlink that leads out of the tree resolves inside the tree.
        assert!(tree.read_file("../../etc/passwd", None).await.is_err());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn containers_that_cannot_be_made_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    run(&engine(&dir), async |bridge| {
        let mount = |dest: &str| frontend::gateway::ContainerMount {
            mount: pb::Mount {
                dest: dest.into(),
                ..pb::Mount::default()
            },
            source: None,
        };
        let with_root = || ContainerRequest {
            mounts: vec![mount("/")],
            ..ContainerRequest::default()
        };
        let cases = [
            (
                ContainerRequest::default(),
                "root mount is required",
                ErrorKind::Invalid,
            ),
            (
                ContainerRequest {
                    mounts: vec![mount("/a")],
                    ..ContainerRequest::default()
                },
                "root mount is required",
                ErrorKind::Invalid,
            ),
            (
                ContainerRequest {
                    network: 77,
                    ..with_root()
                },
                "77",
                ErrorKind::Invalid,
            ),
            (
                ContainerRequest {
                    network: pb::NetMode::Host.into(),
                    ..with_root()
                },
                "network.host is not allowed",
                ErrorKind::Failed,
            ),
            (
                ContainerRequest {
                    extra_hosts: vec![pb::HostIp {
                        host: "h".into(),
                        ip: "no address".into(),
                    }],
                    ..with_root()
                },
                "failed to parse IP no address",
                ErrorKind::Failed,
            ),
        ];
        for (request, want, kind) in cases {
            let error = bridge.new_container(request).await.unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
            assert_eq!(error.kind(), kind, "{error}");
        }
        assert!(bridge.kept("w::nothing").is_none());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_file_of_a_container_is_mounted_for_root_to_read() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let executor = ScriptedExecutor::new([Step::exits(0)]);
    let setup = Setup {
        executor: Arc::clone(&executor) as _,
        ..Setup::default()
    };
    run(&engine_from(&dir, setup), async |bridge| {
        let request = ContainerRequest {
            mounts: vec![frontend::gateway::ContainerMount {
                mount: pb::Mount {
                    dest: "/".into(),
                    ..pb::Mount::default()
                },
                source: None,
            }],
            files: vec![frontend::gateway::ContainerFile {
                path: "/run/own/definition".into(),
                contents: "bytes".into(),
            }],
            ..ContainerRequest::default()
        };
        let container = bridge.new_container(request).await?;
        let (_control, commands) = tokio::sync::mpsc::channel(1);
        let process = frontend::gateway::ProcessRequest {
            meta: pb::Meta {
                args: vec!["/bin/f".into()],
                ..pb::Meta::default()
            },
            tty: false,
            security: 0,
            secret_env: Vec::new(),
            stdin: None,
            stdout: None,
            stderr: None,
            control: commands,
        };
        container.start(process).await?.ended.await?;
        Ok(())
    })
    .await;
    let file = RunMount {
        dest: "/run/own/definition".into(),
        kind: RunMountKind::File {
            contents: "bytes".into(),
            mode: 0o400,
            uid: 0,
            gid: 0,
        },
        selector: String::new(),
        readonly: true,
    };
    assert_eq!(executor.runs()[0].mounts, [file]);
}

#[tokio::test]
async fn a_ref_that_outlives_its_build_is_refused() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let (sender, kept) = std::sync::mpsc::channel();
    let sender = parking_lot::Mutex::new(sender);
    run(&engine, move |bridge| {
        let sender = sender.lock().clone();
        async move {
            let request = frontend::SolveRequest::of_definition(small());
            let result = bridge.solve(request).await?;
            sender.send((bridge, result.single.unwrap())).unwrap();
            Ok(())
        }
    })
    .await;
    let (bridge, tree) = kept.recv().unwrap();
    for error in [
        tree.read_file("a", None).await.map(drop).unwrap_err(),
        tree.evaluate().await.unwrap_err(),
        bridge
            .new_container(ContainerRequest {
                mounts: vec![frontend::gateway::ContainerMount {
                    mount: pb::Mount {
                        dest: "/".into(),
                        ..pb::Mount::default()
                    },
                    source: None,
                }],
                ..ContainerRequest::default()
            })
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    }
}
