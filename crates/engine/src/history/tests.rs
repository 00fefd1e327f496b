//! Records of builds: written, expired, pinned, listed, followed by listeners, and those of builds whose client left.

use futures::poll;
use oci::Digest;
use progress::Vertex;

use super::*;
use crate::api::{Detail, HistoryCodec, SolveInput};

/// Keeps records and logs in memory, and encodes each as its index.
#[derive(Debug, Default)]
struct MemoryCodec {
    records: Mutex<Vec<HistoryRecord>>,
    logs: Mutex<Vec<Vec<progress::Event>>>,
}

fn encode_index(at: usize) -> Vec<u8> {
    u32::try_from(at).unwrap().to_le_bytes().to_vec()
}

fn decode_indexes(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let decode_indexes = bytes.chunks_exact(4);
    decode_indexes.map(|at| u32::from_le_bytes(at.try_into().unwrap()) as usize)
}

impl HistoryCodec for MemoryCodec {
    fn log(&self, events: Vec<progress::Event>) -> Vec<u8> {
        let mut logs = self.logs.lock();
        logs.push(events);
        encode_index(logs.len() - 1)
    }
    fn events(&self, log: &[u8]) -> Vec<progress::Event> {
        let logs = self.logs.lock();
        decode_indexes(log)
            .flat_map(|at| logs[at].clone())
            .collect()
    }
    fn error(&self, failure: &Failure) -> Vec<u8> {
        format!("{} {}", failure.details.len(), failure.message()).into_bytes()
    }
    fn record(&self, record: &HistoryRecord) -> Vec<u8> {
        let mut records = self.records.lock();
        records.push(record.clone());
        encode_index(records.len() - 1)
    }
    fn parse(&self, record: &[u8]) -> Option<HistoryRecord> {
        let at = decode_indexes(record).next()?;
        self.records.lock().get(at).cloned()
    }
}

struct Lab {
    _dir: tempfile::TempDir,
    clock: Clock,
    store: Arc<::store::Store>,
    history: Arc<History>,
}

const SECOND: Duration = Duration::from_secs(1);

impl Lab {
    fn of(settings: &HistorySettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ::store::Store::open(::store::Config::new(dir.path().join("state"))).unwrap();
        let clock = testkit::clock();
        let history = History::new(clock.clone(), &store, settings);
        Self {
            _dir: dir,
            clock,
            store,
            history,
        }
    }

    /// Records on disk with these limits.
    fn on_disk(max_entries: usize, max_age: Duration) -> Self {
        Self::of(&HistorySettings {
            max_entries,
            max_age,
            codec: Some(Arc::new(MemoryCodec::default())),
            spans: None,
        })
    }

    fn in_memory() -> Self {
        Self::of(&HistorySettings::default())
    }

    fn begin(&self, build: &str) -> OpenRecord {
        self.history.begin(&request(build)).unwrap()
    }

    /// Runs a build of one second.
    async fn build(&self, build: &str) {
        let record = self.begin(build);
        self.clock.advance(SECOND);
        record.finish(Ok(BuildResults::default()), ()).await;
    }

    async fn fail(&self, build: &str, failure: Failure) {
        let record = self.begin(build);
        self.clock.advance(SECOND);
        record.finish(Err(failure), ()).await;
    }

    async fn events(&self, query: HistoryQuery) -> Vec<HistoryEvent> {
        let query = HistoryQuery {
            end: crate::api::HistoryEnd::AfterList,
            ..query
        };
        let events = self.history.listen(&query).await.unwrap();
        events.map(Result::unwrap).collect().await
    }

    /// The names of the listed builds, in their order.
    async fn list(&self, query: HistoryQuery) -> Vec<String> {
        let events = self.events(query).await.into_iter();
        events.map(|event| event.record.build.to_string()).collect()
    }

    async fn all(&self) -> Vec<String> {
        self.list(HistoryQuery::default()).await
    }

    /// The record of one build.
    async fn record(&self, build: &str) -> HistoryRecord {
        let query = HistoryQuery {
            build: build.into(),
            ..HistoryQuery::default()
        };
        let mut events = self.events(query).await;
        assert_eq!(events.len(), 1, "{build}");
        events.remove(0).record
    }

    async fn update(&self, build: &str, change: HistoryChange) -> Result<(), Failure> {
        self.history.update(&build.into(), change).await
    }
}

fn request(build: &str) -> SolveRequest {
    SolveRequest {
        build: build.into(),
        input: SolveInput::Frontend("dockerfile.v0".into()),
        ..SolveRequest::default()
    }
}

fn filtered(filter: &str) -> HistoryQuery {
    HistoryQuery {
        filters: vec![filter.into()],
        ..HistoryQuery::default()
    }
}

fn names(range: impl Iterator<Item = u32>) -> Vec<String> {
    range.map(|n| format!("b{n:02}")).collect()
}

#[tokio::test]
async fn a_record_is_running_until_it_is_closed_with_the_results_of_the_build() {
    for lab in [Lab::in_memory(), Lab::on_disk(50, SECOND)] {
        let record = lab.begin("one");
        let running = lab.record("one").await;
        assert_eq!(
            (running.created, running.completed, running.generation),
            (Some(testkit::start()), None, 1)
        );
        assert_eq!(running.frontend, "dockerfile.v0");
        lab.clock.advance(5 * SECOND);
        let image = oci::Descriptor::new("image", Digest::sha256(b"pushed away"), 1);
        let results = BuildResults {
            response: [
                ("digest".to_owned(), "x".to_owned()),
                ("registry-token".to_owned(), "hidden".to_owned()),
            ]
            .into(),
            single: HistoryResult {
                results: [(0, image)].into(),
                ..HistoryResult::default()
            },
            by_platform: BTreeMap::new(),
        };
        record.finish(Ok(results), ()).await;
        let ended = lab.record("one").await;
        assert_eq!(ended.completed, Some(testkit::start() + 5 * SECOND));
        assert_eq!(ended.generation, 2);
        assert_eq!(
            ended.exporter_response,
            [("digest".to_owned(), "x".to_owned())].into()
        );
        assert_eq!(ended.result.unwrap().results.len(), 1);
        assert!(ended.error.is_none());
    }
}

#[tokio::test]
async fn builds_are_listed_newest_first_up_to_the_limit_of_the_query() {
    let (memory, disk) = (Lab::in_memory(), Lab::on_disk(50, SECOND));
    for lab in [&memory, &disk] {
        for n in 0..40_u32 {
            lab.build(&format!("b{n:02}")).await;
        }
    }
    assert_eq!(disk.all().await, names((0..40).rev()));
    // In memory there is a bound.
    let in_memory = memory.all().await;
    assert_eq!(in_memory, names((40 - 17..40).rev()));
    for lab in [&memory, &disk] {
        let limited = HistoryQuery {
            limit: 3,
            ..HistoryQuery::default()
        };
        assert_eq!(lab.list(limited).await, names((37..40).rev()));
        let running = lab.begin("running");
        let limited = HistoryQuery {
            limit: 2,
            ..HistoryQuery::default()
        };
        assert_eq!(lab.list(limited).await, ["running", "b39"]);
        let active = HistoryQuery {
            scope: crate::api::HistoryScope::Active,
            ..HistoryQuery::default()
        };
        assert_eq!(lab.list(active).await, ["running"]);
        drop(running);
    }
}

#[tokio::test]
async fn only_records_beyond_both_limits_expire_unless_they_are_pinned() {
    let lab = Lab::on_disk(2, 60 * SECOND);
    for n in 0..5_u32 {
        lab.build(&format!("b{n:02}")).await;
    }
    assert_eq!(lab.all().await.len(), 5, "too much, but young");
    lab.update("b01", HistoryChange::Pin(true)).await.unwrap();
    lab.clock.advance(120 * SECOND);
    assert_eq!(lab.all().await.len(), 5, "nothing goes before a build ends");
    lab.build("b05").await;
    let remaining = lab.all().await;
    assert!(remaining.contains(&"b01".to_owned()), "{remaining:?}");
    assert!(
        remaining.starts_with(&["b05".to_owned(), "b04".to_owned()]),
        "{remaining:?}"
    );
    assert!(!remaining.contains(&"b00".to_owned()), "{remaining:?}");
    // Once unpinned, it expires like the others.
    lab.update("b01", HistoryChange::Pin(false)).await.unwrap();
    lab.clock.advance(120 * SECOND);
    lab.build("b06").await;
    assert_eq!(lab.all().await, ["b06", "b05"]);
    // Old records within the number stay.
    lab.clock.advance(1_000 * SECOND);
    lab.build("b07").await;
    assert_eq!(lab.all().await, ["b07", "b06"]);
}

#[tokio::test]
async fn records_are_pinned_and_deleted_by_name_wherever_they_are() {
    for lab in [Lab::in_memory(), Lab::on_disk(50, SECOND)] {
        lab.build("one").await;
        lab.build("two").await;
        lab.update("one", HistoryChange::Pin(true)).await.unwrap();
        let pinned = lab.record("one").await;
        assert_eq!((pinned.pinned, pinned.generation), (true, 3));
        lab.update("one", HistoryChange::Finalize).await.unwrap();
        assert_eq!(
            lab.record("one").await.generation,
            3,
            "all is written already"
        );
        lab.update("two", HistoryChange::Delete).await.unwrap();
        assert_eq!(lab.all().await, ["one"]);
        let running = lab.begin("three");
        for name in ["two", "never", "three", ""] {
            for change in [HistoryChange::Delete, HistoryChange::Pin(true)] {
                let error = lab.update(name, change).await.unwrap_err();
                assert_eq!(error.kind, FailureKind::NotFound, "{name}");
                assert_eq!(
                    error.message(),
                    format!("failed to retrieve bucket {name}: not found")
                );
            }
        }
        drop(running);
    }
}

#[tokio::test]
async fn a_pinned_record_in_memory_is_not_pushed_out_by_others() {
    let lab = Lab::in_memory();
    lab.build("kept").await;
    lab.update("kept", HistoryChange::Pin(true)).await.unwrap();
    for n in 0..40_u32 {
        lab.build(&format!("b{n:02}")).await;
    }
    assert_eq!(lab.all().await.last().unwrap(), "kept");
}

#[tokio::test]
async fn records_are_chosen_by_how_they_ended() {
    for lab in [Lab::in_memory(), Lab::on_disk(50, SECOND)] {
        lab.build("good").await;
        lab.fail("bad", Failure::new(FailureKind::Unknown, "exit code: 1"))
            .await;
        lab.fail(
            "left",
            Failure::new(FailureKind::Canceled, "context canceled"),
        )
        .await;
        // The message of a failure does not make it a cancelled build.
        lab.fail(
            "odd",
            Failure::new(FailureKind::Unknown, "step `context canceled` failed"),
        )
        .await;
        for (filter, want) in [
            ("status=completed", vec!["good"]),
            ("status=error", vec!["odd", "bad"]),
            ("status=canceled", vec!["left"]),
            ("status=running", vec![]),
            ("ref==bad", vec!["bad"]),
            ("ref~=^(good|bad)$", vec!["bad", "good"]),
            ("duration>=1s", vec!["odd", "left", "bad", "good"]),
            ("duration>1s", vec![]),
            ("startedAt>=2s", vec!["odd", "left"]),
        ] {
            assert_eq!(lab.list(filtered(filter)).await, want, "{filter}");
        }
        let either = HistoryQuery {
            filters: vec!["status=canceled".into(), "status=completed".into()],
            ..HistoryQuery::default()
        };
        assert_eq!(lab.list(either).await, ["left", "good"]);
    }
}

#[tokio::test]
async fn a_listener_gets_existing_records_and_then_changes() {
    let lab = Lab::on_disk(50, SECOND);
    lab.build("before").await;
    let mut all = lab.history.listen(&HistoryQuery::default()).await.unwrap();
    // Existing records are read when the stream is polled.
    let first = all.next().await.unwrap().unwrap();
    assert_eq!(first.record.build.as_str(), "before");
    let of_one = HistoryQuery {
        build: "one".into(),
        ..HistoryQuery::default()
    };
    let mut of_one = lab.history.listen(&of_one).await.unwrap();
    let active = HistoryQuery {
        scope: crate::api::HistoryScope::Active,
        ..HistoryQuery::default()
    };
    let mut active = lab.history.listen(&active).await.unwrap();
    lab.build("one").await;
    lab.update("before", HistoryChange::Pin(true))
        .await
        .unwrap();
    lab.update("one", HistoryChange::Delete).await.unwrap();
    let internal = SolveRequest {
        recording: Recording::Internal,
        ..request("internal")
    };
    let internal = lab.history.begin(&internal).unwrap();
    internal.finish(Ok(BuildResults::default()), ()).await;
    lab.begin("last")
        .finish(Ok(BuildResults::default()), ())
        .await;

    use HistoryEventKind::{Complete, Deleted, Started};
    async fn events(
        events: &mut BoxStream<'static, Event>,
        count: usize,
    ) -> Vec<(HistoryEventKind, String)> {
        let mut received = Vec::new();
        while received.len() < count {
            let event = events.next().await.unwrap().unwrap();
            received.push((event.kind, event.record.build.to_string()));
        }
        assert!(poll!(events.next()).is_pending(), "there is no more");
        received
    }
    let line = |kind, build: &str| (kind, build.to_owned());
    assert_eq!(
        events(&mut all, 6).await,
        [
            line(Started, "one"),
            line(Complete, "one"),
            line(Complete, "before"),
            line(Deleted, "one"),
            line(Started, "last"),
            line(Complete, "last"),
        ]
    );
    assert_eq!(
        events(&mut of_one, 3).await,
        [
            line(Started, "one"),
            line(Complete, "one"),
            line(Deleted, "one")
        ]
    );
    assert_eq!(
        events(&mut active, 5).await,
        [
            line(Started, "one"),
            line(Complete, "one"),
            line(Complete, "before"),
            line(Started, "last"),
            line(Complete, "last"),
        ]
    );
}

#[tokio::test]
async fn a_listener_that_is_slow_misses_events_and_goes_on() {
    let lab = Lab::in_memory();
    let mut events = lab.history.listen(&HistoryQuery::default()).await.unwrap();
    for n in 0..200_u32 {
        lab.build(&format!("b{n:03}")).await;
    }
    let mut last = None;
    let mut count = 0;
    while last.as_deref() != Some("b199") {
        let event = events.next().await.unwrap().unwrap();
        last = Some(event.record.build.to_string());
        count += 1;
    }
    assert!(count <= MAX_EVENTS_BEHIND, "{count}");
}

#[tokio::test]
async fn malformed_filters_are_refused_before_anything_is_listed() {
    let lab = Lab::in_memory();
    for filter in ["startedAt>yesterday", "duration<x", "status==", "\"open"] {
        let refused = lab.history.listen(&filtered(filter)).await;
        let Err(error) = refused else {
            panic!("{filter} is accepted");
        };
        assert_eq!(
            error.kind,
            FailureKind::InvalidArgument,
            "{filter}: {error}"
        );
    }
}

#[tokio::test]
async fn a_build_of_the_client_s_own_has_a_status_and_no_record() {
    for lab in [
        Lab::in_memory(),
        Lab::on_disk(50, SECOND),
        Lab::of(&HistorySettings {
            max_entries: 0,
            ..HistorySettings::default()
        }),
    ] {
        let is_off = !lab.history.is_enabled;
        let recording = if is_off {
            Recording::Recorded
        } else {
            Recording::Internal
        };
        let request = SolveRequest {
            recording,
            ..request("own")
        };
        let record = lab.history.begin(&request).unwrap();
        let mut status = lab.history.status(&"own".into()).await.unwrap();
        record.hub().publish(step(b"s", false, true));
        assert!(status.next().await.is_some());
        assert_eq!(lab.all().await, [""; 0]);
        record.finish(Ok(BuildResults::default()), ()).await;
        assert!(status.next().await.is_none(), "it ends with the build");
        assert_eq!(lab.all().await, [""; 0]);
        let error = lab.update("own", HistoryChange::Delete).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::NotFound);
    }
}

fn step(name: &[u8], cached: bool, is_done: bool) -> progress::Event {
    let now = testkit::start();
    progress::Event::Vertex(Vertex {
        cached,
        started: Some(now),
        completed: is_done.then_some(now),
        ..Vertex::new(Digest::sha256(name), "step", Vec::new())
    })
}

#[tokio::test]
async fn the_log_of_a_build_is_counted_kept_and_replayed() {
    let lab = Lab::on_disk(50, 10 * SECOND);
    let record = lab.begin("one");
    let events = [
        step(b"a", false, false),
        step(b"a", false, true),
        step(b"b", true, true),
        step(b"c", false, false),
        progress::Event::Warning(progress::Warning {
            vertex: Digest::sha256(b"a"),
            level: 1,
            short: "careful".into(),
            detail: Vec::new(),
            url: String::new(),
            source_info: None,
            ranges: Vec::new(),
        }),
    ];
    for event in events.clone() {
        record.hub().publish(event);
    }
    record.finish(Ok(BuildResults::default()), ()).await;
    let record = lab.record("one").await;
    assert_eq!(
        (
            record.total_steps,
            record.cached_steps,
            record.completed_steps,
            record.warnings
        ),
        (3, 1, 3, 1),
        "what still ran ends with the build"
    );
    // No lease holds the blobs any more; the record pins them.
    for blob in [&record.logs, &record.trace] {
        let digest = &blob.as_ref().unwrap().digest;
        assert!(lab.store.blob_info(digest).unwrap().is_some());
    }
    assert!(record.external_error.is_none());
    // Other builds push it out of memory; it is still on disk.
    for n in 0..20_u32 {
        lab.build(&format!("b{n:02}")).await;
    }
    let mut status = lab.history.status(&"one".into()).await.unwrap();
    let mut again = Vec::new();
    while let Some(event) = status.next().await {
        again.push(event);
    }
    assert!(
        !again.is_empty() && again.len() <= events.len() + 1,
        "{again:?}"
    );
    assert!(
        again.contains(&events[2]) && again.contains(&events[4]),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_failure_with_its_details_is_in_a_blob_and_its_sentence_in_the_record() {
    let lab = Lab::on_disk(50, SECOND);
    let failure = Failure::new(FailureKind::Unknown, "cannot get http://u:hidden@h/x")
        .with(Detail::Exit { code: 3 })
        .with(Detail::Vertex {
            digest: Digest::sha256(b"v"),
        });
    lab.fail("one", failure).await;
    let record = lab.record("one").await;
    let error = record.error.unwrap();
    assert_eq!(error.message(), "cannot get http://xxxxx:xxxxx@h/x");
    assert!(error.details.is_empty());
    let blob = record.external_error.unwrap();
    let full = lab.store.read_blob(&blob.digest, 1 << 20).unwrap();
    assert_eq!(full, b"2 cannot get http://xxxxx:xxxxx@h/x");
    assert_eq!(record.exporter_response, BTreeMap::new());
}

#[tokio::test]
async fn a_build_whose_client_leaves_is_recorded_as_cancelled() {
    for lab in [Lab::in_memory(), Lab::on_disk(50, SECOND)] {
        let record = lab.begin("left");
        lab.clock.advance(3 * SECOND);
        drop(record);
        // Closing waits until the record is written.
        lab.history.close().await;
        let record = lab.record("left").await;
        let error = record.error.unwrap();
        assert_eq!(
            (error.kind, error.message().as_str()),
            (FailureKind::Canceled, "context canceled")
        );
        assert_eq!(record.completed, Some(testkit::start() + 3 * SECOND));
        assert_eq!(lab.list(filtered("status=canceled")).await, ["left"]);
    }
}

#[tokio::test]
async fn closing_ends_running_builds_and_refuses_new_ones() {
    let lab = Lab::in_memory();
    let record = lab.begin("runs");
    let mut closing = Box::pin(record.closing());
    assert!(poll!(&mut closing).is_pending());
    let mut close = Box::pin(lab.history.close());
    assert!(poll!(&mut close).is_pending(), "a record is open");
    closing.await;
    let Err(refused) = lab.history.begin(&request("late")) else {
        panic!("a build begins");
    };
    assert_eq!(
        (refused.kind, refused.message().as_str()),
        (
            FailureKind::Unavailable,
            "the daemon is stopping and takes no more builds: try again when it is back, or at another one"
        )
    );
    record.finish(Ok(BuildResults::default()), ()).await;
    close.await;
}

#[tokio::test]
async fn draining_refuses_new_builds_and_waits_for_running_ones() {
    let lab = Lab::in_memory();
    let record = lab.begin("runs");
    lab.history.refuse();
    assert!(*lab.history.draining().borrow());
    let mut closing = Box::pin(record.closing());
    assert!(poll!(&mut closing).is_pending(), "it may go on");
    let mut idle = Box::pin(lab.history.idle());
    assert!(poll!(&mut idle).is_pending());
    let Err(refused) = lab.history.begin(&request("late")) else {
        panic!("a build begins");
    };
    assert_eq!(refused.kind, FailureKind::Unavailable);
    let running = lab.history.running();
    let names: Vec<_> = running.iter().map(|build| build.build.as_str()).collect();
    assert_eq!(names, ["runs"]);
    record.finish(Ok(BuildResults::default()), ()).await;
    idle.await;
    assert!(lab.history.running().is_empty());
}

#[tokio::test]
async fn a_name_belongs_to_one_running_build_and_then_to_the_latest_one() {
    for lab in [Lab::in_memory(), Lab::on_disk(50, SECOND)] {
        let record = lab.begin("one");
        let Err(twin) = lab.history.begin(&request("one")) else {
            panic!("two builds have one name");
        };
        assert_eq!(
            (twin.kind, twin.message().as_str()),
            (FailureKind::Unknown, "job ID one exists")
        );
        record
            .finish(Err(Failure::new(FailureKind::Unknown, "first")), ())
            .await;
        lab.build("one").await;
        assert_eq!(lab.all().await, ["one"]);
        assert!(lab.record("one").await.error.is_none());
    }
}

#[tokio::test]
async fn a_status_waits_for_its_build_to_start_up_to_a_time_limit() {
    let lab = Lab::in_memory();
    let name = "late".into();
    let mut waiting = Box::pin(lab.history.status(&name));
    assert!(poll!(&mut waiting).is_pending());
    lab.clock.advance(BUILD_WAIT_TIMEOUT / 2);
    assert!(poll!(&mut waiting).is_pending());
    let record = lab.begin("late");
    record.hub().publish(step(b"s", false, true));
    let mut status = waiting.await.unwrap();
    assert!(status.next().await.is_some());
    drop(record);

    let name = "never".into();
    let mut waiting = Box::pin(lab.history.status(&name));
    assert!(poll!(&mut waiting).is_pending());
    lab.begin("other")
        .finish(Ok(BuildResults::default()), ())
        .await;
    assert!(poll!(&mut waiting).is_pending(), "it is another one");
    lab.clock.advance(BUILD_WAIT_TIMEOUT);
    let error = waiting.await.unwrap_err();
    assert_eq!(error.message(), "no such job never");
}
