//! What a build sends, what it makes of the answers, and how it ends.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a call that a case does not speak of ends it"
)]

use std::collections::BTreeMap;

use oci::ErrorKind;
use proto::{control, gateway};
use session::header;
use tokio::sync::mpsc;
use tonic::Status;

use super::daemon::{Call, Daemon, statuses};
use crate::attach::{Attachables, FileTarget, SecretSource, Target, Upload};
use crate::failure::{Failure, Origin};
use crate::solve::{CacheSpec, ExporterSpec, SolveRequest, SolveResult};
use crate::status::SolveStatus;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn answer(pairs: &[(&str, &str)]) -> control::SolveResponse {
    control::SolveResponse {
        exporter_response: map(pairs),
    }
}

fn step(name: &str) -> control::StatusResponse {
    control::StatusResponse {
        vertexes: vec![control::Vertex {
            digest: "sha256:aa".into(),
            name: name.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

type Outcome = Result<SolveResult, Failure>;

/// Runs a build against what `script` does with the daemon's end; returns the outcome and the names of the steps that were told.
async fn built(
    request: SolveRequest,
    script: impl AsyncFnOnce(&mut Daemon),
) -> (Outcome, Vec<String>) {
    let (mut daemon, client) = Daemon::start().await;
    let (sender, mut receiver) = mpsc::channel::<SolveStatus>(16);
    let build = client.solve(request, sender);
    let (outcome, ()) = tokio::join!(build, script(&mut daemon));
    let mut names = Vec::new();
    while let Some(status) = receiver.recv().await {
        names.extend(status.vertexes.into_iter().map(|vertex| vertex.name));
    }
    (outcome, names)
}

#[tokio::test(start_paused = true)]
async fn a_request_reaches_the_daemon_field_by_field() {
    let cache = |kind: &str, pairs| CacheSpec {
        kind: kind.into(),
        attrs: map(pairs),
    };
    let exporter = |kind: &str, pairs| ExporterSpec {
        kind: kind.into(),
        attrs: map(pairs),
    };
    let request = SolveRequest {
        id: "build1".into(),
        frontend: "dockerfile.v0".into(),
        attrs: map(&[("target", "x")]),
        exporters: vec![
            exporter("image", &[("name", "a")]),
            exporter("local", &[("mode", "delete")]),
        ],
        cache_from: vec![cache("registry", &[("ref", "r")])],
        cache_to: vec![cache("inline", &[]), cache("local", &[("dest", "d")])],
        entitlements: vec!["network.host".into()],
        shared_key: "ordner-ü".into(),
        internal: true,
        proxy_network: true,
        attachables: Attachables::default(),
        ..SolveRequest::default()
    };
    let (outcome, _) = built(request, async |daemon| {
        let build = daemon.build().await;
        let wire = build.request;
        assert_eq!(wire.r#ref, "build1");
        assert_eq!(wire.frontend, "dockerfile.v0");
        // Frontends are told of the caches in their options, as JSON with Go's names of fields.
        let imports = r#"[{"Attrs":{"ref":"r"},"Type":"registry"}]"#;
        assert_eq!(
            wire.frontend_attrs,
            map(&[("cache-imports", imports), ("target", "x")])
        );
        // Daemons that know one exporter find it in the fields of old.
        assert_eq!(wire.exporter_deprecated, "image");
        assert_eq!(wire.exporter_attrs_deprecated, map(&[("name", "a")]));
        let exporters: Vec<_> = wire.exporters.iter().map(|e| e.r#type.as_str()).collect();
        assert_eq!(exporters, ["image", "local"]);
        assert_eq!(wire.exporters[1].attrs, map(&[("mode", "delete")]));
        let caches = wire.cache.unwrap();
        assert_eq!(caches.imports[0].attrs, map(&[("ref", "r")]));
        let exports: Vec<_> = caches.exports.iter().map(|e| e.r#type.as_str()).collect();
        assert_eq!(exports, ["inline", "local"]);
        assert_eq!(wire.entitlements, ["network.host"]);
        assert!(wire.internal && wire.proxy_network && wire.definition.is_none());
        let text = |key: &str| build.headers.get(key).unwrap().to_str().unwrap();
        assert_eq!(text(header::SESSION_ID), wire.session);
        assert_eq!(wire.session.len(), 25);
        assert_eq!(text(header::SESSION_SHARED_KEY), "ordner-%C3%BC");
        assert_eq!(text(header::SESSION_SHARED_KEY_ENCODED), "1");
        let _sent = build.statuses.send(Ok(statuses(vec![])));
        let _sent = build.answer.send(Ok(answer(&[("image.name", "a")])));
    })
    .await;
    assert_eq!(outcome.unwrap().response, map(&[("image.name", "a")]));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_the_caller_tells_the_frontend_of_is_not_told_again() {
    let request = SolveRequest {
        attrs: map(&[("cache-imports", "[]")]),
        cache_from: vec![CacheSpec {
            kind: "registry".into(),
            ..CacheSpec::default()
        }],
        ..SolveRequest::default()
    };
    let (outcome, _) = built(request, async |daemon| {
        let build = daemon.build().await;
        assert_eq!(
            build.request.frontend_attrs,
            map(&[("cache-imports", "[]")])
        );
        assert_eq!(build.request.exporter_deprecated, "");
        let _sent = build.answer.send(Ok(answer(&[])));
    })
    .await;
    outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_offers_the_methods_of_what_was_named_and_no_others() {
    let file: std::path::PathBuf = "/nowhere".into();
    let attachable = |set: fn(&mut Attachables, std::path::PathBuf)| {
        let mut attachables = Attachables::default();
        set(&mut attachables, file.clone());
        attachables
    };
    let cases: [(Attachables, &[&str]); 7] = [
        (Attachables::default(), &[]),
        (
            attachable(|a, file| drop(a.folders.insert("context".into(), file.into()))),
            &["/moby.filesync.v1.FileSync/DiffCopy"],
        ),
        (
            attachable(|a, file| drop(a.targets.insert(0, Target::Bytes(FileTarget::File(file))))),
            &["/moby.filesync.v1.FileSend/DiffCopy"],
        ),
        (
            attachable(|a, file| drop(a.secrets.insert("s".into(), SecretSource::File(file)))),
            &["/moby.buildkit.secrets.v1.Secrets/GetSecret"],
        ),
        (
            attachable(|a, file| drop(a.ssh.insert("default".into(), file))),
            &[
                "/moby.sshforward.v1.SSH/CheckAgent",
                "/moby.sshforward.v1.SSH/ForwardAgent",
            ],
        ),
        (
            attachable(|a, _| {
                let upload = Upload(Box::new(tokio::io::empty()));
                drop(a.uploads.insert("u".into(), upload));
            }),
            &["/moby.upload.v1.Upload/Pull"],
        ),
        (
            attachable(|a, file| drop(a.stores.insert("oci:x".into(), file))),
            &[
                "/containerd.services.content.v1.Content/Info",
                "/containerd.services.content.v1.Content/Read",
                "/containerd.services.content.v1.Content/Write",
            ],
        ),
    ];
    for (attachables, offered) in cases {
        let request = SolveRequest {
            attachables,
            ..SolveRequest::default()
        };
        let (outcome, _) = built(request, async |daemon| {
            let build = daemon.build().await;
            let methods: Vec<_> = build
                .headers
                .get_all(header::SESSION_METHOD)
                .iter()
                .map(|value| value.to_str().unwrap().to_owned())
                .collect();
            assert_eq!(methods[0], "/moby.filesync.v1.Auth/Credentials");
            assert_eq!(methods[1..], *offered);
            let _sent = build.answer.send(Ok(answer(&[])));
        })
        .await;
        outcome.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn news_are_told_in_order_and_a_watch_that_comes_too_early_is_repeated() {
    let (outcome, names) = built(SolveRequest::default(), async |daemon| {
        let build = daemon.build().await;
        let _sent = build.statuses.send(Err(Status::unknown("no such job")));
        let Call::Status(_, again) = daemon.next().await else {
            panic!("not watched again");
        };
        let _sent = again.send(Ok(statuses(vec![Ok(step("one")), Ok(step("two"))])));
        let _sent = build.answer.send(Ok(answer(&[])));
    })
    .await;
    outcome.unwrap();
    assert_eq!(names, ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_or_is_not_known_fails_no_build() {
    for (broken, names) in [
        (Err(Status::unimplemented("no such method")), vec![]),
        (Ok(statuses(vec![Err(Status::cancelled("gone"))])), vec![]),
        (
            Ok(statuses(vec![
                Ok(step("one")),
                Err(Status::unknown("broken")),
            ])),
            vec!["one"],
        ),
    ] {
        let (outcome, told) = built(SolveRequest::default(), async |daemon| {
            let build = daemon.build().await;
            let _sent = build.statuses.send(broken);
            let _sent = build.answer.send(Ok(answer(&[])));
        })
        .await;
        outcome.unwrap();
        assert_eq!(told, names);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_never_ends_holds_a_build_up_for_seconds_only() {
    let begin = tokio::time::Instant::now();
    let (outcome, _) = built(SolveRequest::default(), async |daemon| {
        let build = daemon.build().await;
        let _sent = build
            .statuses
            .send(Ok(Box::pin(futures::stream::pending())));
        let _sent = build.answer.send(Ok(answer(&[])));
    })
    .await;
    outcome.unwrap();
    let waited = begin.elapsed();
    assert!((1..=5).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_daemon_keeps_its_sentence_and_its_kind() {
    for (status, kind) in [
        (Status::unknown("exit code: 1"), ErrorKind::Failed),
        (Status::invalid_argument("bad"), ErrorKind::Invalid),
        (Status::out_of_range("bad"), ErrorKind::Invalid),
        (Status::not_found("none"), ErrorKind::NotFound),
        (Status::already_exists("there"), ErrorKind::Exists),
        (Status::permission_denied("no"), ErrorKind::Denied),
        (Status::unauthenticated("who"), ErrorKind::Denied),
        (Status::resource_exhausted("full"), ErrorKind::Exhausted),
        (Status::deadline_exceeded("late"), ErrorKind::TimedOut),
        (Status::cancelled("left"), ErrorKind::Cancelled),
        (Status::unimplemented("not built"), ErrorKind::Unsupported),
        (Status::unavailable("stopping"), ErrorKind::Unavailable),
        (Status::internal("bug"), ErrorKind::Bug),
        // The words of a daemon that has trouble with somebody else do not make it our connection that broke.
        (
            Status::unknown("pull: transport error: h2 protocol error"),
            ErrorKind::Failed,
        ),
    ] {
        let message = status.message().to_owned();
        let (outcome, _) = built(SolveRequest::default(), async |daemon| {
            let build = daemon.build().await;
            let _sent = build.answer.send(Err(status));
        })
        .await;
        let failure = outcome.unwrap_err();
        assert_eq!(failure.to_string(), message);
        assert_eq!(
            (failure.kind, failure.origin),
            (kind, Origin::Daemon),
            "{message}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_told_from_an_answer() {
    let (mut daemon, client) = Daemon::start().await;
    let (sender, _receiver) = mpsc::channel(16);
    let build = client.solve(SolveRequest::default(), sender);
    let breaking = async move {
        let build = daemon.build().await;
        drop(daemon);
        drop(build);
    };
    let (outcome, ()) = tokio::join!(build, breaking);
    let failure = outcome.unwrap_err();
    let message_of_test = Failure::of(&Status::aborted("the test does not answer")).to_string();
    if failure.to_string() != message_of_test {
        assert_eq!(failure.origin, Origin::Connection, "{failure:?}");
        assert_eq!(failure.kind, ErrorKind::Unavailable);
        assert!(failure.source.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_build_that_is_dropped_takes_its_session_with_it() {
    use tokio::io::AsyncReadExt as _;
    let (mut daemon, client) = Daemon::start().await;
    let (sender, _receiver) = mpsc::channel(16);
    let build = task::spawn("build", async move {
        client
            .solve(SolveRequest::default(), sender)
            .await
            .map(|_| ())
    });
    let mut running = daemon.build().await;
    drop(build);
    let mut unread = Vec::new();
    running.tunnel.read_to_end(&mut unread).await.unwrap();
    // The other side is told: its answer goes nowhere.
    running.answer.closed().await;
}

fn frontend_result(metadata: &[(&str, &str)]) -> gateway::Result {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), value.as_bytes().to_vec());
    gateway::Result {
        metadata: metadata.iter().map(owned).collect(),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_is_put_to_the_frontend_inside_of_a_build_and_its_answer_handed_back() {
    let (mut daemon, client) = Daemon::start().await;
    let (sender, _receiver) = mpsc::channel(16);
    let request = SolveRequest {
        id: "q1".into(),
        frontend: "dockerfile.v0".into(),
        attrs: map(&[("requestid", "frontend.lint")]),
        internal: true,
        ..SolveRequest::default()
    };
    let asking = client.ask(request, sender);
    let answering = async move {
        let mut solved = None;
        let mut order = Vec::new();
        let mut tunnel = None;
        loop {
            match daemon.next().await {
                Call::Session(_, io) => tunnel = Some(io),
                Call::Solve(request, reply) => {
                    // The question goes to the frontend, not with the build.
                    assert_eq!((request.frontend.as_str(), request.internal), ("", true));
                    solved = Some(reply);
                }
                Call::Status(_, reply) => drop(reply.send(Ok(statuses(vec![])))),
                Call::Ask(headers, request, reply) => {
                    assert_eq!(headers.get(header::BUILD_ID).unwrap(), "q1");
                    assert_eq!(request.frontend, "dockerfile.v0");
                    assert_eq!(request.frontend_opt, map(&[("requestid", "frontend.lint")]));
                    order.push("ask");
                    let result = Some(frontend_result(&[("result.txt", "fine")]));
                    let _sent = reply.send(Ok(gateway::SolveResponse {
                        result,
                        ..Default::default()
                    }));
                }
                Call::Return(headers, request, reply) => {
                    assert_eq!(headers.get(header::BUILD_ID).unwrap(), "q1");
                    assert!(request.error.is_none() && request.result.is_some());
                    order.push("return");
                    let _sent = reply.send(Ok(gateway::ReturnResponse::default()));
                    let _sent = solved.take().unwrap().send(Ok(answer(&[])));
                    drop(tunnel);
                    return order;
                }
                _ => panic!("not part of a question"),
            }
        }
    };
    let (answer, order) = tokio::join!(asking, answering);
    assert_eq!(answer.unwrap()["result.txt"], b"fine");
    assert_eq!(order, ["ask", "return"]);
}

#[tokio::test(start_paused = true)]
async fn a_question_fails_with_the_frontends_error_or_the_builds() {
    for (of_frontend, expected) in [
        (true, "the frontend does not know it"),
        (false, "the build was refused"),
    ] {
        let (mut daemon, client) = Daemon::start().await;
        let (sender, _receiver) = mpsc::channel(16);
        let request = SolveRequest {
            id: "q2".into(),
            ..SolveRequest::default()
        };
        let asking = client.ask(request, sender);
        let answering = async {
            let mut other_calls = Vec::new();
            loop {
                match daemon.next().await {
                    Call::Solve(_, reply) if !of_frontend => {
                        let _sent = reply.send(Err(Status::permission_denied(expected)));
                    }
                    Call::Ask(_, _, reply) if of_frontend => {
                        let _sent = reply.send(Err(Status::unimplemented(expected)));
                    }
                    Call::Status(_, reply) => drop(reply.send(Ok(statuses(vec![])))),
                    other => other_calls.push(other),
                }
            }
        };
        let failure = tokio::select! {
            answer = asking => answer.unwrap_err(),
            () = answering => unreachable!("it answers for ever"),
        };
        assert_eq!(failure.to_string(), expected);
        assert_eq!(failure.origin, Origin::Daemon);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_a_header_is_refused_before_a_call() {
    let (_daemon, client) = Daemon::start().await;
    let (sender, _receiver) = mpsc::channel(16);
    let request = SolveRequest {
        id: "line\nbreak".into(),
        ..SolveRequest::default()
    };
    let failure = client.ask(request, sender).await.unwrap_err();
    assert!(
        failure.to_string().starts_with("invalid name of a build"),
        "{failure}"
    );
    assert_eq!(failure.origin, Origin::Client);
}
