//! Exports of a result: the order of exporters, the effect of a failed one, and the record.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use engine::api::{
    Backend, ExporterSpec, HistoryEventKind, HistoryQuery, HistoryRecord, SolveRequest,
};
use engine::{Engine, Settings};
use exporter::{
    ExportContext, ExportError, ExportSource, Exported, Exporter, ExporterInstance, Exporters,
    Finalize,
};
use futures::StreamExt as _;
use llb::build::FileChain;
use parking_lot::Mutex;
use store::CompressionSpec;
use tokio::sync::Barrier;

use crate::{definition, engine_of};

/// The actions of a test's exporters, in order.
type Log = Arc<Mutex<Vec<String>>>;

/// An exporter whose attributes script it: `fails` is `export` or `finalize`.
#[derive(Debug)]
struct Scripted {
    log: Log,
    /// Holds each export until all exporters have started.
    all_here: Arc<Barrier>,
}

#[derive(Debug)]
struct Instance {
    id: usize,
    attrs: BTreeMap<String, String>,
    log: Log,
    all_here: Arc<Barrier>,
}

impl Exporter for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn resolve(
        &self,
        id: usize,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError> {
        if attrs.contains_key("refused") {
            return Err(ExportError::supplied(std::io::Error::other(format!(
                "refused {id}"
            ))));
        }
        self.log.lock().push(format!("resolve {id}"));
        Ok(Arc::new(Instance {
            id,
            attrs: attrs.clone(),
            log: Arc::clone(&self.log),
            all_here: Arc::clone(&self.all_here),
        }))
    }
}

#[async_trait]
impl ExporterInstance for Instance {
    fn id(&self) -> usize {
        self.id
    }

    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn name(&self) -> String {
        format!("exporting {}", self.id)
    }

    fn attrs(&self) -> &BTreeMap<String, String> {
        &self.attrs
    }

    fn compression(&self) -> Option<CompressionSpec> {
        None
    }

    async fn export(
        &self,
        _ctx: &ExportContext,
        _source: &ExportSource,
    ) -> Result<Exported, ExportError> {
        let fails = self.attrs.get("fails").map(String::as_str);
        self.all_here.wait().await;
        if fails == Some("export") {
            return Err(ExportError::supplied(std::io::Error::other(format!(
                "export {} failed",
                self.id
            ))));
        }
        self.log.lock().push(format!("export {}", self.id));
        let last = Last {
            id: self.id,
            fails: fails == Some("finalize"),
            log: Arc::clone(&self.log),
        };
        Ok(Exported {
            response: BTreeMap::from([
                ("last".to_owned(), self.id.to_string()),
                (format!("of.{}", self.id), "done".to_owned()),
            ]),
            finalize: Some(Box::new(last)),
            ..Exported::default()
        })
    }
}

struct Last {
    id: usize,
    fails: bool,
    log: Log,
}

#[async_trait]
impl Finalize for Last {
    async fn run(self: Box<Self>, _ctx: &ExportContext) -> Result<(), ExportError> {
        self.log.lock().push(format!("finalize {}", self.id));
        if self.fails {
            return Err(ExportError::supplied(std::io::Error::other(format!(
                "finalize {} failed",
                self.id
            ))));
        }
        Ok(())
    }
}

struct Lab {
    dir: tempfile::TempDir,
    log: Log,
    engine: Arc<Engine>,
}

impl Lab {
    /// An engine for builds with `count` exporters that reach `export`.
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::default();
        let mut exporters = Exporters::new();
        exporters.register(Arc::new(Scripted {
            log: Arc::clone(&log),
            all_here: Arc::new(Barrier::new(count)),
        }));
        let engine = engine_of(&dir, Settings::default(), exporters);
        Self { dir, log, engine }
    }

    /// Builds with these exporters, each with one attribute.
    async fn build(&self, attrs: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
        let exporters = attrs.iter().map(|(key, value)| ExporterSpec {
            kind: "scripted".into(),
            attrs: BTreeMap::from([((*key).to_owned(), (*value).to_owned())]),
        });
        let request = SolveRequest {
            build: "one".into(),
            input: engine::api::SolveInput::Definition(definition(
                FileChain::new().mkfile("/a", 0o644, "x"),
            )),
            exporters: exporters.collect(),
            ..SolveRequest::default()
        };
        let response = self.engine.solve(request).await;
        response
            .map(|response| response.exporter_response)
            .map_err(|failure| failure.message())
    }

    async fn record(&self) -> HistoryRecord {
        let query = HistoryQuery {
            end: engine::api::HistoryEnd::AfterList,
            ..HistoryQuery::default()
        };
        let events = self.engine.history(query).await.unwrap();
        let mut records: Vec<_> = events.map(Result::unwrap).collect().await;
        assert_eq!(records.len(), 1);
        let event = records.remove(0);
        assert_eq!(event.kind, HistoryEventKind::Complete);
        event.record
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }
}

#[tokio::test]
async fn exporters_work_side_by_side_and_answer_in_the_order_of_the_request() {
    testkit::requires!(root);
    let lab = Lab::new(3);
    // Each export waits for all others to start.
    let response = lab
        .build(&[("a", "1"), ("b", "2"), ("c", "3")])
        .await
        .unwrap();
    let answer = |id: usize| (format!("of.{id}"), "done".to_owned());
    let mut want = BTreeMap::from([answer(0), answer(1), answer(2)]);
    want.insert("last".into(), "2".into());
    assert_eq!(response, want, "of two that say the same, the later counts");
    let log = lab.log();
    assert_eq!(log[..3], ["resolve 0", "resolve 1", "resolve 2"]);
    assert!(
        log[3..6].iter().all(|line| line.starts_with("export ")),
        "{log:?}"
    );
    assert!(
        log[6..].iter().all(|line| line.starts_with("finalize ")),
        "{log:?}"
    );
    assert_eq!(log.len(), 9);
    let record = lab.record().await;
    assert_eq!(record.exporter_response, want);
    assert!(record.error.is_none() && record.completed >= record.created);
    let kinds: Vec<_> = record.exporters.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds, ["scripted"; 3]);
    assert!(lab.dir.path().join("state").is_dir());
}

#[tokio::test]
async fn nothing_is_pushed_when_one_exporter_fails() {
    testkit::requires!(root);
    let lab = Lab::new(2);
    let error = lab
        .build(&[("a", "1"), ("fails", "export")])
        .await
        .unwrap_err();
    assert!(error.contains("export 1 failed"), "{error}");
    let log = lab.log();
    assert!(
        !log.iter().any(|line| line.starts_with("finalize")),
        "{log:?}"
    );
    let record = lab.record().await;
    assert!(record.error.unwrap().message().contains("export 1 failed"));
    assert_eq!(record.exporter_response, BTreeMap::new());
}

#[tokio::test]
async fn a_push_that_fails_fails_the_build_and_its_record_has_no_answer() {
    testkit::requires!(root);
    let lab = Lab::new(2);
    let error = lab
        .build(&[("fails", "finalize"), ("a", "1")])
        .await
        .unwrap_err();
    assert!(error.contains("finalize 0 failed"), "{error}");
    let record = lab.record().await;
    assert!(
        record
            .error
            .unwrap()
            .message()
            .contains("finalize 0 failed")
    );
    assert_eq!(record.exporter_response, BTreeMap::new());
}

#[tokio::test]
async fn an_exporter_that_is_refused_is_refused_before_anything_runs() {
    testkit::requires!(root);
    let lab = Lab::new(1);
    let error = lab.build(&[("a", "1"), ("refused", "")]).await.unwrap_err();
    assert_eq!(error, "refused 1");
    assert_eq!(lab.log(), ["resolve 0"]);
    let record = lab.record().await;
    assert_eq!(record.error.unwrap().message(), "refused 1");
}

#[tokio::test]
async fn a_failed_build_frees_its_name_and_its_steps_stay_cached() {
    testkit::requires!(root);
    let lab = Lab::new(1);
    lab.build(&[("fails", "export")]).await.unwrap_err();
    lab.build(&[("a", "1")]).await.unwrap();
    let record = lab.record().await;
    assert!(
        record.error.is_none(),
        "of one name, the last build is recorded"
    );
    let mut events = lab.engine.status(&"one".into()).await.unwrap();
    let mut cached = false;
    while let Some(event) = events.next().await {
        cached |= matches!(event, progress::Event::Vertex(v) if v.cached);
    }
    assert!(cached, "what was built is cached");
}
