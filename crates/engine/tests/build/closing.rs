//! How a daemon that stops ends its builds and waits for their records.

use std::sync::Arc;

use engine::api::{
    Backend, Failure, FailureKind, HistoryCodec, HistoryRecord, SolveInput, SolveRequest,
};
use engine::{Engine, HistorySettings, Settings};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Never, engine_with};

/// A codec that writes names of builds only, and blocks in the first record until it is released.
#[derive(Debug)]
struct BlockedCodec(Mutex<Option<oneshot::Receiver<()>>>);

impl HistoryCodec for BlockedCodec {
    fn log(&self, _: Vec<progress::Event>) -> Vec<u8> {
        Vec::new()
    }
    fn events(&self, _: &[u8]) -> Vec<progress::Event> {
        Vec::new()
    }
    fn error(&self, failure: &Failure) -> Vec<u8> {
        failure.message().into_bytes()
    }
    fn record(&self, record: &HistoryRecord) -> Vec<u8> {
        let wait = self.0.lock().take();
        if let Some(wait) = wait {
            wait.blocking_recv().unwrap();
        }
        record.build.to_string().into_bytes()
    }
    fn parse(&self, record: &[u8]) -> Option<HistoryRecord> {
        Some(HistoryRecord {
            build: String::from_utf8(record.to_vec()).ok()?.into(),
            ..HistoryRecord::default()
        })
    }
}

/// An engine whose first record blocks, and the sender that releases it.
fn engine_with_blocked_record(dir: &tempfile::TempDir) -> (Arc<Engine>, oneshot::Sender<()>) {
    let (go, wait) = oneshot::channel();
    let settings = Settings {
        history: HistorySettings {
            codec: Some(Arc::new(BlockedCodec(Mutex::new(Some(wait))))),
            ..HistorySettings::default()
        },
        ..Settings::default()
    };
    (engine_with(dir, settings), go)
}

fn forever(build: &str) -> SolveRequest {
    SolveRequest {
        build: build.into(),
        input: SolveInput::ClientFrontend(Arc::new(Never)),
        ..SolveRequest::default()
    }
}

#[tokio::test]
async fn stopping_waits_for_the_record_of_a_build_whose_client_left() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, go) = engine_with_blocked_record(&dir);
    let mut running = engine.solve(forever("left"));
    assert!(futures::poll!(&mut running).is_pending());
    drop(running);
    let mut closed = Box::pin(engine.close());
    // The record waits for `go`, so closing is not done however often it is polled.
    for _ in 0..100 {
        assert!(futures::poll!(&mut closed).is_pending());
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    closed.await;
    drop(engine);
    let store = store::Store::open(store::Config::new(dir.path().join("state"))).unwrap();
    let record = store.history("left").unwrap().unwrap();
    assert!(record.completed.is_some());
}

#[tokio::test]
async fn stopping_ends_running_builds_and_refuses_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, go) = engine_with_blocked_record(&dir);
    go.send(()).unwrap();
    let mut running = engine.solve(forever("runs"));
    assert!(futures::poll!(&mut running).is_pending());
    let (ended, ()) = tokio::join!(running, engine.close());
    assert_eq!(ended.unwrap_err().kind, FailureKind::Canceled);
    let refused = engine.solve(forever("late")).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Unavailable);
}
