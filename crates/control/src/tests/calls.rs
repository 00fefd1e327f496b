//! Every call with what the engine is asked for it, and with each failure of the engine.

use std::time::{Duration, UNIX_EPOCH};

use engine::api::{
    BlobLine, HistoryEvent, HistoryEventKind, HistoryRecord, RecordAccess, RecordUsage, UsageRecord,
};
use futures::StreamExt;
use oci::Digest;
use proto::content::{InfoRequest, ListContentRequest};
use proto::health::HealthCheckRequest;
use proto::{control, gateway, pb, trace};
use services::content::content_client::ContentClient;
use services::control::control_client::ControlClient;
use services::gateway::llb_bridge_client::LlbBridgeClient;
use services::health::health_client::HealthClient;
use services::trace::trace_service_client::TraceServiceClient;
use tonic::Code;
use tonic::transport::Channel;

use super::double::{BridgeDouble, EngineDouble, run_client_frontend};
use super::*;

/// A client of this engine.
async fn client_of(engine: EngineDouble) -> Channel {
    let all = routes(Arc::new(engine), SessionManager::new());
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let incoming = [Ok::<_, std::io::Error>(crate::Connection::new(ours))];
    let incoming = futures::stream::iter(incoming).chain(futures::stream::pending());
    task::spawn("daemon", serve(all, incoming, std::future::pending())).detach();
    client(theirs).await
}

fn usage_record(id: &str) -> UsageRecord {
    UsageRecord {
        id: id.into(),
        access: RecordAccess::Mutable,
        usage: RecordUsage::InUse,
        size: 7,
        parents: vec!["parent".into()],
        created: UNIX_EPOCH + Duration::from_secs(5),
        last_used: None,
        usage_count: 3,
        description: "a step".into(),
        record_type: "regular".into(),
        shared: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_ask_is_asked_of_the_engine_in_its_own_words() {
    let engine = EngineDouble::default();
    let requests = Arc::clone(&engine.asked);
    let channel = client_of(engine).await;
    let mut client = ControlClient::new(channel.clone());
    let filter = vec!["type==regular".to_owned()];
    let usage = control::DiskUsageRequest {
        filter: filter.clone(),
        age_limit: 1_000_000_000,
    };
    client.disk_usage(usage).await.unwrap();
    let negative = control::DiskUsageRequest {
        age_limit: -5,
        ..Default::default()
    };
    client.disk_usage(negative).await.unwrap();
    client
        .list_workers(control::ListWorkersRequest { filter })
        .await
        .unwrap();
    for (pinned, delete, finalize) in [
        (true, false, false),
        (false, false, false),
        (true, true, true),
        (true, false, true),
    ] {
        let update = control::UpdateBuildHistoryRequest {
            r#ref: "b".into(),
            pinned,
            delete,
            finalize,
        };
        client.update_build_history(update).await.unwrap();
    }
    let spans = trace::ExportTraceServiceRequest {
        resource_spans: vec![vec![1], vec![2]],
    };
    TraceServiceClient::new(channel)
        .export(spans)
        .await
        .unwrap();
    assert_eq!(
        *requests.lock(),
        [
            "usage [\"type==regular\"] 1s",
            "usage [] 0ns",
            "workers [\"type==regular\"]",
            "update b Pin(true)",
            "update b Pin(false)",
            "update b Delete",
            "update b Finalize",
            "spans 2",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_told_whole_and_an_error_of_pruning_comes_after_what_was_pruned() {
    let engine = EngineDouble {
        usage: vec![usage_record("one"), usage_record("two")],
        ..EngineDouble::default()
    };
    let mut client = ControlClient::new(client_of(engine).await);
    let usage = client
        .disk_usage(control::DiskUsageRequest::default())
        .await
        .unwrap();
    let record = usage.into_inner().record.remove(0);
    assert_eq!(
        (
            record.id.as_str(),
            record.mutable,
            record.in_use,
            record.shared,
            record.size
        ),
        ("one", true, true, true, 7)
    );
    assert_eq!(
        (record.parents, record.usage_count),
        (vec!["parent".to_owned()], 3)
    );
    assert_eq!(
        (record.created_at.unwrap().seconds, record.last_used_at),
        (5, None)
    );

    let mut freed = client
        .prune(control::PruneRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut ids = Vec::new();
    let end = loop {
        match freed.message().await {
            Ok(Some(record)) => ids.push(record.id),
            Ok(None) => panic!("the error is lost"),
            Err(status) => break status,
        }
    };
    assert_eq!(ids, ["one", "two"]);
    assert_eq!(
        (end.code(), end.message()),
        (Code::ResourceExhausted, "no space left on device")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_failure_has_its_code_in_every_call() {
    for (kind, code) in [
        (FailureKind::Unknown, Code::Unknown),
        (FailureKind::Canceled, Code::Cancelled),
        (FailureKind::InvalidArgument, Code::InvalidArgument),
        (FailureKind::DeadlineExceeded, Code::DeadlineExceeded),
        (FailureKind::NotFound, Code::NotFound),
        (FailureKind::AlreadyExists, Code::AlreadyExists),
        (FailureKind::PermissionDenied, Code::PermissionDenied),
        (FailureKind::ResourceExhausted, Code::ResourceExhausted),
        (FailureKind::Unimplemented, Code::Unimplemented),
        (FailureKind::Internal, Code::Internal),
        (FailureKind::Unavailable, Code::Unavailable),
    ] {
        let engine = EngineDouble {
            failure: Some(Failure::new(kind, "it fails")),
            ..EngineDouble::default()
        };
        let channel = client_of(engine).await;
        let mut client = ControlClient::new(channel.clone());
        let digest = Digest::sha256(b"x").to_string();
        let answers = [
            client
                .disk_usage(control::DiskUsageRequest::default())
                .await
                .map(drop),
            client
                .prune(control::PruneRequest::default())
                .await
                .map(drop),
            client
                .list_workers(control::ListWorkersRequest::default())
                .await
                .map(drop),
            client
                .listen_build_history(control::BuildHistoryRequest::default())
                .await
                .map(drop),
            client
                .update_build_history(control::UpdateBuildHistoryRequest::default())
                .await
                .map(drop),
            ContentClient::new(channel.clone())
                .info(InfoRequest { digest })
                .await
                .map(drop),
            TraceServiceClient::new(channel)
                .export(trace::ExportTraceServiceRequest::default())
                .await
                .map(drop),
        ];
        for answer in answers {
            let status = answer.unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (code, "it fails"),
                "{kind:?}"
            );
        }
        // A status begins before it fails, so that clients know our clock.
        let request = control::StatusRequest { r#ref: "b".into() };
        let mut status = client.status(request).await.unwrap().into_inner();
        assert_eq!(status.message().await.unwrap_err().code(), code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_records_are_told_in_their_order_and_a_negative_limit_is_refused() {
    let event = |kind, build: &str| HistoryEvent {
        kind,
        record: HistoryRecord {
            build: build.into(),
            ..HistoryRecord::default()
        },
    };
    let engine = EngineDouble {
        events: vec![
            event(HistoryEventKind::Started, "a"),
            event(HistoryEventKind::Complete, "a"),
            event(HistoryEventKind::Deleted, "b"),
        ],
        ..EngineDouble::default()
    };
    let mut client = ControlClient::new(client_of(engine).await);
    let query = control::BuildHistoryRequest::default();
    let answer = client.listen_build_history(query).await.unwrap();
    assert!(answer.metadata().contains_key("buildkit-current-timestamp"));
    let events: Vec<_> = answer.into_inner().map(Result::unwrap).collect().await;
    let lines: Vec<_> = events
        .into_iter()
        .map(|event| (event.r#type, event.record.unwrap().r#ref))
        .collect();
    use control::BuildHistoryEventType::{Complete, Deleted, Started};
    assert_eq!(
        lines,
        [(Started, "a"), (Complete, "a"), (Deleted, "b")]
            .map(|(kind, build)| (i32::from(kind), build.to_owned()))
    );
    let query = control::BuildHistoryRequest {
        limit: -1,
        ..Default::default()
    };
    let refused = client.listen_build_history(query).await.unwrap_err();
    assert_eq!(refused.message(), "invalid limit -1");
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_listed_in_pages_and_what_is_no_digest_is_none() {
    let mut blobs: Vec<BlobLine> = (0..1_100_u32)
        .map(|n| BlobLine {
            digest: Digest::sha256(n.to_string()),
            size: u64::from(n),
            created: UNIX_EPOCH,
        })
        .collect();
    blobs.sort_by_key(|blob| blob.digest.to_string());
    let engine = EngineDouble {
        blobs,
        ..EngineDouble::default()
    };
    let channel = client_of(engine).await;
    let mut client = ContentClient::new(channel.clone());
    let pages = client
        .list(ListContentRequest::default())
        .await
        .unwrap()
        .into_inner();
    let pages: Vec<_> = pages.map(|page| page.unwrap().info.len()).collect().await;
    assert_eq!(pages, [512, 512, 76]);
    let filtered = ListContentRequest {
        filters: vec!["labels.x".into()],
    };
    let refused = client.list(filtered).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    for digest in ["", "sha256:", "md5:00", "sha256:../x"] {
        let request = InfoRequest {
            digest: digest.into(),
        };
        let refused = client.info(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{digest}");
    }
    let mut health = HealthClient::new(channel);
    health.check(HealthCheckRequest::default()).await.unwrap();
    let other = HealthCheckRequest {
        service: "other".into(),
    };
    assert_eq!(
        health.check(other).await.unwrap_err().code(),
        Code::NotFound
    );
}

/// Begins a build whose frontend is the client, and returns who calls for it.
pub(super) async fn build(bridge: BridgeDouble) -> LlbBridgeClient<Channel> {
    let engine = EngineDouble {
        solve: Box::new(move |request| Box::pin(run_client_frontend(request, bridge.clone()))),
        ..EngineDouble::default()
    };
    let channel = client_of(engine).await;
    let mut control = ControlClient::new(channel.clone());
    let request = control::SolveRequest {
        r#ref: "b".into(),
        ..Default::default()
    };
    task::spawn(
        "build",
        async move { control.solve(request).await.map(drop) },
    )
    .detach();
    LlbBridgeClient::new(channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_frontend_that_make_no_sense_are_refused_one_by_one() {
    let mut frontend = build(BridgeDouble::default()).await;
    let of = |message| of_build(message, "b");
    let read = |r#ref: &str| gateway::ReadFileRequest {
        r#ref: r#ref.into(),
        file_path: "a".into(),
        ..Default::default()
    };
    let both = gateway::SolveRequest {
        definition: Some(pb::Definition {
            def: vec![vec![]],
            ..Default::default()
        }),
        frontend: "dockerfile.v0".into(),
        ..Default::default()
    };
    let status = frontend.solve(of(both)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::Unknown,
            "cannot solve with both Definition and Frontend specified"
        )
    );
    let last = gateway::SolveRequest {
        r#final: true,
        ..Default::default()
    };
    let status = frontend.solve(of_build(last, "b")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    for (id, want) in [("", "empty ref: "), ("ref1", "no such ref: ref1")] {
        let status = frontend
            .read_file(of_build(read(id), "b"))
            .await
            .unwrap_err();
        assert_eq!(status.message(), want);
    }
    let status = frontend
        .release_container(of_build(gateway::ReleaseContainerRequest::default(), "b"))
        .await
        .unwrap_err();
    assert_eq!(status.message(), "container details for  not found");
    let status = frontend
        .read_file_container(of_build(read("c"), "b"))
        .await
        .unwrap_err();
    assert_eq!(status.message(), "container details for c@0 not found");
    let warning = gateway::WarnRequest {
        digest: "no digest".into(),
        ..Default::default()
    };
    let status = frontend.warn(of_build(warning, "b")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = frontend
        .resolve_source_meta(of_build(gateway::ResolveSourceMetaRequest::default(), "b"))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "source is required")
    );
    let image = gateway::ResolveImageConfigRequest {
        r#ref: "A b".into(),
        ..Default::default()
    };
    let status = frontend
        .resolve_image_config(of_build(image, "b"))
        .await
        .unwrap_err();
    assert!(
        status
            .message()
            .starts_with("could not parse reference \"A b\": "),
        "{status}"
    );
    let status = frontend
        .r#return(of_build(gateway::ReturnRequest::default(), "b"))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "result is required")
    );
    let unknown = gateway::ReturnRequest {
        result: Some(gateway::Result {
            result: Some(gateway::result::Result::RefDeprecated("ref9".into())),
            ..Default::default()
        }),
        error: None,
    };
    let status = frontend.r#return(of_build(unknown, "b")).await.unwrap_err();
    assert_eq!(status.message(), "return reference ref9 not found");
    // After all that the build is still there.
    frontend
        .ping(of_build(gateway::PingRequest {}, "b"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_result_are_read_by_its_name_and_in_ranges() {
    let bridge = BridgeDouble {
        files: [("a".to_owned(), Bytes::from_static(b"0123456789"))].into(),
        ..BridgeDouble::default()
    };
    let mut frontend = build(bridge).await;
    let solve = gateway::SolveRequest {
        definition: Some(pb::Definition {
            def: vec![vec![1]],
            ..Default::default()
        }),
        ..Default::default()
    };
    let solved = frontend
        .solve(of_build(solve, "b"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(solved.r#ref, "ref1");
    let read = |path: &str, range: Option<(i64, i64)>| gateway::ReadFileRequest {
        r#ref: "ref1".into(),
        file_path: path.into(),
        range: range.map(|(offset, length)| gateway::FileRange { offset, length }),
        ..Default::default()
    };
    for (range, want) in [
        (None, "0123456789"),
        (Some((2, 3)), "234"),
        (Some((9, 5)), "9"),
    ] {
        let answer = frontend
            .read_file(of_build(read("a", range), "b"))
            .await
            .unwrap();
        assert_eq!(answer.into_inner().data, want);
    }
    for range in [(-1, 1), (0, -1)] {
        let refused = frontend
            .read_file(of_build(read("a", Some(range)), "b"))
            .await;
        assert_eq!(refused.unwrap_err().message(), "invalid range for a");
    }
    let missing = frontend
        .read_file(of_build(read("none", None), "b"))
        .await
        .unwrap_err();
    assert_eq!(
        (missing.code(), missing.message()),
        (Code::NotFound, "open none: no such file or directory")
    );
    let stat = gateway::StatFileRequest {
        r#ref: "ref1".into(),
        path: "a".into(),
        ..Default::default()
    };
    let stat = frontend
        .stat_file(of_build(stat, "b"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stat.stat.unwrap().size, 10);
    let evaluate = gateway::EvaluateRequest {
        r#ref: "ref1".into(),
    };
    frontend.evaluate(of_build(evaluate, "b")).await.unwrap();
}
