//! What a daemon says of itself and of what it keeps.

use std::time::{Duration, SystemTime};

use futures::stream::StreamExt as _;
use proto::{control, types};
use tonic::Status;

use super::daemon::{Call, Daemon};
use crate::manage::PruneFilter;

fn record(id: &str) -> control::UsageRecord {
    control::UsageRecord {
        id: id.into(),
        mutable: true,
        in_use: true,
        size: 7,
        created_at: Some(prost_types::Timestamp {
            seconds: 5,
            nanos: 6,
        }),
        // Before the epoch no clock of ours goes.
        last_used_at: Some(prost_types::Timestamp {
            seconds: -1,
            nanos: 0,
        }),
        usage_count: 3,
        description: "what".into(),
        record_type: "regular".into(),
        shared: true,
        parents: vec!["p".into()],
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn usage_is_asked_for_with_filters_and_told_record_by_record() {
    let (mut daemon, client) = Daemon::start().await;
    let answering = async {
        let Call::DiskUsage(request, reply) = daemon.next().await else {
            panic!("not du");
        };
        assert_eq!(request.filter, ["type==regular"]);
        let record = vec![record("a"), control::UsageRecord::default()];
        let _sent = reply.send(Ok(control::DiskUsageResponse { record }));
    };
    let (records, ()) = tokio::join!(client.disk_usage(vec!["type==regular".into()]), answering);
    let records = records.unwrap();
    let first = &records[0];
    assert!(first.mutable && first.in_use && first.shared);
    assert_eq!((first.size, first.usage_count), (7, 3));
    assert_eq!((first.kind.as_str(), first.parents.len()), ("regular", 1));
    let created = SystemTime::UNIX_EPOCH + Duration::new(5, 6);
    assert_eq!((first.created, first.last_used), (Some(created), None));
    assert_eq!(records[1].created, None);
}

#[tokio::test(start_paused = true)]
async fn pruning_sends_its_bounds_and_tells_of_each_record_until_it_breaks() {
    let (mut daemon, client) = Daemon::start().await;
    let filter = PruneFilter {
        filters: vec!["id~=x".into()],
        all: true,
        keep_duration: Duration::MAX,
        reserved_space: 1,
        max_used_space: 2,
        min_free_space: 3,
    };
    let answering = async {
        let Call::Prune(request, reply) = daemon.next().await else {
            panic!("not prune");
        };
        assert_eq!(request.keep_duration, i64::MAX, "more than the wire holds");
        assert!(request.all && request.filter == ["id~=x"]);
        let bounds = [
            request.reserved_space,
            request.max_used_space,
            request.min_free_space,
        ];
        assert_eq!(bounds, [1, 2, 3]);
        let records = vec![Ok(record("a")), Err(Status::internal("disk"))];
        let _sent = reply.send(Ok(futures::stream::iter(records).boxed()));
    };
    let mut removed = Vec::new();
    let pruning = client.prune(filter, |record| removed.push(record.id));
    let (outcome, ()) = tokio::join!(pruning, answering);
    assert_eq!(outcome.unwrap_err().to_string(), "disk");
    assert_eq!(removed, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn workers_and_versions_are_told_with_what_is_not_said_left_empty() {
    let (mut daemon, client) = Daemon::start().await;
    let answering = async {
        let Call::Workers(request, reply) = daemon.next().await else {
            panic!("not workers");
        };
        assert_eq!(request.filter, ["id==w"]);
        let platform = |variant: &str| proto::pb::Platform {
            os: "linux".into(),
            architecture: "arm".into(),
            variant: variant.into(),
            ..Default::default()
        };
        let worker = types::WorkerRecord {
            id: "w".into(),
            platforms: vec![platform(""), platform("v7")],
            gc_policy: vec![types::GcPolicy {
                keep_duration: -1,
                all: true,
                ..Default::default()
            }],
            ..Default::default()
        };
        let record = vec![worker];
        let _sent = reply.send(Ok(control::ListWorkersResponse { record }));
        let Call::Info(reply) = daemon.next().await else {
            panic!("not info");
        };
        let _sent = reply.send(Ok(control::InfoResponse::default()));
    };
    let asking = async {
        let workers = client.workers(vec!["id==w".into()]).await.unwrap();
        (workers, client.info().await.unwrap())
    };
    let ((workers, version), ()) = tokio::join!(asking, answering);
    assert_eq!(workers[0].platforms, ["linux/arm", "linux/arm/v7"]);
    assert_eq!(
        workers[0].gc[0].keep_duration,
        Duration::ZERO,
        "no time is less than none"
    );
    assert!(workers[0].gc[0].all);
    assert_eq!(
        (version.package.as_str(), version.version.as_str()),
        ("", "")
    );
}
