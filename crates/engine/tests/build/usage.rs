//! Records on disk: listed, filtered, pruned; and blobs as clients read them.

use std::time::Duration;

use engine::api::{
    Backend, Failure, FailureKind, HistoryCodec, HistoryQuery, HistoryRecord, PruneRequest,
    RecordAccess, RecordUsage,
};
use engine::{Engine, HistorySettings, Settings};
use futures::StreamExt as _;
use llb::build::FileChain;
use std::sync::Arc;

use crate::{definition, engine, engine_with, request};

async fn ids(engine: &Engine, filters: &[&str]) -> Result<Vec<String>, Failure> {
    let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
    let records = engine.disk_usage(&filters, Duration::ZERO).await?;
    Ok(records.into_iter().map(|r| r.id.to_string()).collect())
}

#[tokio::test]
async fn records_of_a_build_are_counted_and_pruned() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    assert_eq!(ids(&engine, &[]).await.unwrap(), [""; 0]);
    let chain = FileChain::new().mkfile("/a", 0o644, "x".repeat(100_000));
    engine
        .solve(request("one", definition(chain)))
        .await
        .unwrap();
    let records = engine.disk_usage(&[], Duration::ZERO).await.unwrap();
    let [record] = &records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(
        (record.access, record.usage, record.record_type.as_str()),
        (RecordAccess::Immutable, RecordUsage::Unused, "regular")
    );
    assert!(record.size >= 100_000 && record.parents.is_empty() && record.usage_count > 0);
    assert_eq!(record.description, "mkfile /a");
    let id = record.id.to_string();
    for (filters, want) in [
        (vec![format!("id=={id}")], 1),
        (vec![format!("id!={id}")], 0),
        (vec!["type==regular".to_owned()], 1),
        (
            vec![
                "type==exec.cachemount".to_owned(),
                "type==regular".to_owned(),
            ],
            1,
        ),
        (vec![format!("type==regular,id!={id}")], 0),
        (vec!["description~=mkfile".to_owned()], 1),
        (vec!["inuse".to_owned()], 0),
    ] {
        let texts: Vec<&str> = filters.iter().map(String::as_str).collect();
        assert_eq!(
            ids(&engine, &texts).await.unwrap().len(),
            want,
            "{filters:?}"
        );
    }
    let prune = |request: PruneRequest| async {
        let freed = engine.prune(request).await?;
        let freed: Vec<_> = freed.map(|r| r.unwrap().id.to_string()).collect().await;
        Ok::<_, Failure>(freed)
    };
    let keep = PruneRequest {
        keep: Duration::from_secs(3600),
        ..PruneRequest::default()
    };
    assert_eq!(prune(keep).await.unwrap(), [""; 0], "it was used just now");
    let others = PruneRequest {
        filters: vec![format!("id!={id}")],
        all: true,
        ..PruneRequest::default()
    };
    assert_eq!(prune(others).await.unwrap(), [""; 0]);
    assert_eq!(prune(PruneRequest::default()).await.unwrap(), [id]);
    assert_eq!(ids(&engine, &[]).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn malformed_filters_are_refused_by_every_call_that_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    for filter in ["==b", "a~=(", "a==\"b", "a==b c"] {
        let filters = vec![filter.to_owned()];
        let usage = engine.disk_usage(&filters, Duration::ZERO).await.map(drop);
        let workers = engine.workers(&filters).await.map(drop);
        let prune = PruneRequest {
            filters,
            ..PruneRequest::default()
        };
        let prune = engine.prune(prune).await.map(drop);
        for (call, answer) in [("usage", usage), ("workers", workers), ("prune", prune)] {
            let failure = answer.expect_err(call);
            assert_eq!(
                failure.kind,
                FailureKind::InvalidArgument,
                "{call} {filter}"
            );
            assert!(
                failure.message().starts_with("invalid filter "),
                "{failure}"
            );
        }
    }
}

#[tokio::test]
async fn the_worker_is_listed_if_it_matches_the_filters() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    for (filters, want) in [
        (vec![], 1),
        (vec!["id==w"], 1),
        (vec!["id==other"], 0),
        (vec!["id==other", "id~=^w$"], 1),
        (vec!["labels.os==linux"], 0),
        (vec!["unknown"], 0),
    ] {
        let filters: Vec<String> = filters.into_iter().map(str::to_owned).collect();
        let workers = engine.workers(&filters).await.unwrap();
        assert_eq!(workers.len(), want, "{filters:?}");
        assert!(
            workers
                .iter()
                .all(|w| w.info.id == "w" && w.devices.is_empty())
        );
    }
}

/// A codec that writes records as words, so that the test can read which blobs they name.
#[derive(Debug)]
struct WordCodec;

impl HistoryCodec for WordCodec {
    fn log(&self, events: Vec<progress::Event>) -> Vec<u8> {
        "log ".repeat(events.len().max(1) * 100_000).into_bytes()
    }
    fn events(&self, _: &[u8]) -> Vec<progress::Event> {
        Vec::new()
    }
    fn error(&self, failure: &Failure) -> Vec<u8> {
        failure.message().into_bytes()
    }
    fn record(&self, record: &HistoryRecord) -> Vec<u8> {
        let logs = record.logs.as_ref().unwrap();
        format!("{} {} {}", record.build, logs.digest, logs.size).into_bytes()
    }
    fn parse(&self, record: &[u8]) -> Option<HistoryRecord> {
        let text = String::from_utf8(record.to_vec()).ok()?;
        let mut fields = text.split(' ');
        let build = fields.next()?.into();
        let digest = fields.next()?.parse().ok()?;
        let size = fields.next()?.parse().ok()?;
        Some(HistoryRecord {
            build,
            logs: Some(oci::Descriptor::new("log", digest, size)),
            ..HistoryRecord::default()
        })
    }
}

#[tokio::test]
async fn blobs_of_records_are_read_from_any_offset_and_listed_in_pages() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        history: HistorySettings {
            codec: Some(Arc::new(WordCodec)),
            ..HistorySettings::default()
        },
        ..Settings::default()
    };
    let engine = engine_with(&dir, settings);
    let chain = FileChain::new().mkfile("/a", 0o644, "x");
    engine
        .solve(request("one", definition(chain)))
        .await
        .unwrap();
    let query = HistoryQuery {
        end: engine::api::HistoryEnd::AfterList,
        ..HistoryQuery::default()
    };
    let mut events = engine.history(query).await.unwrap();
    let record = events.next().await.unwrap().unwrap().record;
    let log = record.logs.unwrap();
    let whole = u64::try_from(log.size).unwrap();
    for from in [0, 4, whole - 4, whole] {
        let blob = engine.history_blob(&log.digest).await.unwrap();
        assert_eq!(blob.size, whole);
        let pieces = (blob.read)(from).await.unwrap();
        let pieces: Vec<_> = pieces.map(Result::unwrap).collect().await;
        assert!(pieces.iter().all(|piece| !piece.is_empty()));
        let bytes = pieces.concat();
        assert_eq!(bytes.len() as u64, whole - from);
        assert!(bytes.chunks(4).all(|word| word == b"log "));
    }
    let unknown = oci::Digest::sha256(b"nobody has this");
    let missing = engine.history_blob(&unknown).await.unwrap_err();
    assert_eq!(
        (missing.kind, missing.message()),
        (
            FailureKind::NotFound,
            format!("content {unknown}: not found")
        )
    );
    // Consecutive pages contain each blob once, in order.
    let all = engine.list_blobs("", 1_000).await.unwrap();
    assert!(all.len() >= 2 && all.iter().any(|blob| blob.digest == log.digest));
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = engine.list_blobs(&after, 1).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.digest.to_string();
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert!(all.is_sorted_by_key(|blob| blob.digest.to_string()));
}

#[tokio::test]
async fn spans_of_clients_are_accepted_without_a_collector() {
    let dir = tempfile::tempdir().unwrap();
    let spans = vec![bytes::Bytes::from_static(b"a span")];
    engine(&dir).export_spans(spans).await.unwrap();
}
