//! Clients that send too much.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::control;
use proto::gateway;
use services::control::control_client::ControlClient;
use services::gateway::llb_bridge_client::LlbBridgeClient;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::{Code, Request};

use super::{daemon, daemon_of_two, of_build, solve};

fn texts(count: usize, length: usize) -> BTreeMap<String, String> {
    (0..count)
        .map(|n| (n.to_string(), "x".repeat(length)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_too_long_or_become_too_much_are_refused_by_name() {
    let (channel, _sessions, _) = daemon().await;
    let mut client = ControlClient::new(channel.clone()).max_encoding_message_size(usize::MAX);
    let long = "x".repeat(100 << 10);
    let attacks: Vec<(&str, Result<(), tonic::Status>)> = vec![
        (
            "a long name where a name is wanted",
            client
                .status(control::StatusRequest {
                    r#ref: long.clone(),
                })
                .await
                .map(drop),
        ),
        (
            "a long filter",
            client
                .disk_usage(control::DiskUsageRequest {
                    filter: vec![long.clone()],
                    ..Default::default()
                })
                .await
                .map(drop),
        ),
        (
            "a filter of nothing, often",
            client
                .list_workers(control::ListWorkersRequest {
                    filter: vec![String::new(); 40 << 10],
                })
                .await
                .map(drop),
        ),
        (
            "a request longer than any",
            client
                .solve(control::SolveRequest {
                    frontend_attrs: texts(17, 1 << 20),
                    ..solve("x", "sync")
                })
                .await
                .map(drop),
        ),
        (
            "a request of many small parts",
            client
                .solve(control::SolveRequest {
                    exporters: vec![control::Exporter::default(); 4 << 20],
                    ..solve("x", "sync")
                })
                .await
                .map(drop),
        ),
        (
            "a long call of a frontend",
            LlbBridgeClient::new(channel)
                .evaluate(gateway::EvaluateRequest { r#ref: long })
                .await
                .map(drop),
        ),
    ];
    for (what, answer) in attacks {
        let status = answer.expect_err(what);
        let known = matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange);
        assert!(known, "{what}: {status:?}");
    }
    // And what is as long as it may be is taken.
    let taken = control::SolveRequest {
        frontend_attrs: texts(15, 1 << 20),
        ..solve("", "fail")
    };
    let answer = tokio::time::timeout(Duration::from_secs(60), client.solve(taken)).await;
    let status = answer.unwrap().unwrap_err();
    assert_ne!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_packed_small_and_become_much_are_refused() {
    let (channel, _sessions, _) = daemon().await;
    let mut client = ControlClient::new(channel);
    let info = |count: usize| {
        let mut request = Request::new(control::InfoRequest {});
        let key = AsciiMetadataKey::from_static("x-note");
        for _ in 0..count {
            let value = AsciiMetadataValue::try_from("x".repeat(1000)).unwrap();
            request.metadata_mut().append(key.clone(), value);
        }
        request
    };
    // What honest clients say about their session is some kilobytes.
    client.info(info(20)).await.unwrap();
    assert!(client.info(info(80)).await.is_err());
    client.info(info(0)).await.unwrap();
    // What is far too much costs the connection.
    assert!(client.info(info(300)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_for_a_build_are_answered_on_the_connection_that_asked_for_it() {
    let ([client, stranger], _sessions, _) = daemon_of_two().await;
    let mut control = ControlClient::new(client.clone());
    let build = control::SolveRequest {
        r#ref: "listed".into(),
        ..Default::default()
    };
    let solve = task::spawn("solve", async move { control.solve(build).await });
    let ping = || of_build(gateway::PingRequest {}, "listed");
    let mut own = LlbBridgeClient::new(client);
    own.ping(ping()).await.unwrap();
    let refused = LlbBridgeClient::new(stranger).ping(ping()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(refused.message(), "no such job listed");
    own.ping(ping()).await.unwrap();
    assert!(!solve.is_finished());
}
