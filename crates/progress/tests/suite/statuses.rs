//! Updates of vertices and their parts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use oci::Digest;
use progress::{Event, Hub, Position, Range, SourceInfo, Status, Vertex, VertexProgress, Warning};
use task::Clock;

struct StepProgress {
    clock: Clock,
    hub: Arc<Hub>,
    progress: VertexProgress,
}

fn step() -> StepProgress {
    let clock = Clock::paused(SystemTime::UNIX_EPOCH);
    let hub = Hub::with(clock.clone(), None);
    let vertex = Vertex::new(Digest::key("image"), "image", Vec::new());
    let progress = VertexProgress::with(vertex, clock.clone(), None);
    progress.attach(&hub);
    StepProgress {
        clock,
        hub,
        progress,
    }
}

fn ms(time: SystemTime) -> u128 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_millis()
}

/// Reads the events that a hub has so far.
struct Reader(progress::Subscription);

impl Reader {
    async fn events(&mut self) -> Vec<Event> {
        let mut out = Vec::new();
        loop {
            let next = self.0.next();
            tokio::select! {
                biased;
                event = next => match event {
                    Some(event) => out.push(event),
                    None => return out,
                },
                () = tokio::task::yield_now() => return out,
            }
        }
    }

    async fn statuses(&mut self) -> Vec<Status> {
        let events = self.events().await.into_iter();
        events
            .filter_map(|event| match event {
                Event::Status(status) => Some(status),
                Event::Vertex(_) | Event::Log(_) | Event::Warning(_) => None,
            })
            .collect()
    }

    async fn vertices(&mut self) -> Vec<Vertex> {
        let events = self.events().await.into_iter();
        events
            .filter_map(|event| match event {
                Event::Vertex(vertex) => Some(vertex),
                Event::Status(_) | Event::Log(_) | Event::Warning(_) => None,
            })
            .collect()
    }
}

#[tokio::test]
async fn a_status_is_updated_ten_times_a_second_at_most_but_its_start_and_end_always() {
    let step = step();
    let mut reader = Reader(step.hub.subscribe());
    let status = step.progress.writer().status("layer", "downloading");
    assert_eq!(reader.statuses().await.len(), 1);
    // Milliseconds to wait, the progress made, and whether it is shown.
    for (wait, current, is_told) in [
        (0, 1, false),
        (99, 2, false),
        (1, 3, true),
        (50, 4, false),
        (49, 5, false),
        (1, 6, true),
        (1_000, 7, true),
        (0, 8, false),
    ] {
        step.clock.advance(Duration::from_millis(wait));
        status.set(current, 10);
        let updates: Vec<i64> = reader.statuses().await.iter().map(|s| s.current).collect();
        let expected = if is_told { vec![current] } else { Vec::new() };
        assert_eq!(updates, expected, "{current} after {wait}");
    }
    step.clock.advance(Duration::from_millis(3));
    drop(status);
    let last = reader.statuses().await.remove(0);
    assert_eq!((last.current, last.total), (8, 10));
    assert_eq!(last.started.map(ms), Some(0));
    assert_eq!(last.completed.map(ms), Some(1203));
    assert_eq!(ms(last.timestamp), 1203);
}

#[tokio::test]
async fn a_new_name_is_shown_at_once_and_starts_a_new_interval() {
    let step = step();
    let mut reader = Reader(step.hub.subscribe());
    let status = step.progress.writer().status("layer", "downloading");
    step.clock.advance(Duration::from_millis(60));
    status.rename("extracting");
    step.clock.advance(Duration::from_millis(60));
    status.set(1, 1);
    // A slow reader sees only the newest state of a part.
    let updates = reader.statuses().await;
    assert_eq!(updates.len(), 1);
    assert_eq!(
        (updates[0].name.as_str(), updates[0].current),
        ("extracting", 0)
    );
}

#[tokio::test]
async fn parts_with_different_names_do_not_replace_each_other() {
    let step = step();
    let writer = step.progress.writer();
    let (first, second) = (writer.status("a", ""), writer.status("b", ""));
    drop(first);
    drop(second);
    step.hub.close();
    let updates = Reader(step.hub.subscribe()).statuses().await;
    let ids: Vec<(&str, bool)> = updates
        .iter()
        .map(|s| (s.id.as_str(), s.completed.is_some()))
        .collect();
    assert_eq!(ids, [("a", true), ("b", true)]);
}

#[tokio::test]
async fn a_vertex_ends_after_its_start_and_restarts_without_its_former_end() {
    let step = step();
    let mut reader = Reader(step.hub.subscribe());
    reader.events().await;
    // A vertex that ended without a start started at its end.
    step.clock.advance(Duration::from_millis(5));
    step.progress.complete(Some("no"));
    let ended = reader.vertices().await.remove(0);
    assert_eq!(
        (ended.started.map(ms), ended.completed.map(ms)),
        (Some(5), Some(5))
    );
    assert_eq!(ended.error, "no");
    step.clock.advance(Duration::from_millis(5));
    step.progress.start();
    let again = reader.vertices().await.remove(0);
    assert_eq!((again.started.map(ms), again.completed), (Some(10), None));
    assert_eq!((again.error.as_str(), again.cached), ("", false));
    step.clock.advance(Duration::from_millis(5));
    step.progress.complete(None);
    step.clock.advance(Duration::from_millis(5));
    step.progress.cached();
    let states = reader.vertices().await;
    let last = states.last().unwrap();
    assert!(last.cached && last.error.is_empty());
    assert_eq!(
        (last.started.map(ms), last.completed.map(ms)),
        (Some(20), Some(20))
    );
    assert_eq!(step.progress.vertex(), *last);
    for vertex in states {
        assert!(
            vertex
                .completed
                .is_none_or(|end| vertex.started.is_some_and(|begin| begin <= end))
        );
    }
}

#[tokio::test]
async fn a_warning_arrives_unchanged_but_for_credentials() {
    let step = step();
    let place = |line, character| Position { line, character };
    let range = Range {
        start: place(3, 0),
        end: place(4, 7),
    };
    let info = SourceInfo {
        filename: "Dockerfile".into(),
        data: Bytes::from_static(b"\xff\xfeFROM a\n"),
        language: "Dockerfile".into(),
    };
    step.progress.writer().warn(
        2,
        "short",
        vec!["one".into(), Bytes::from_static(b"\xff two")],
        "https://docs/rule",
        Some((info.clone(), vec![range])),
    );
    step.hub.close();
    let mut reader = Reader(step.hub.subscribe());
    let events = reader.events().await;
    let expected = Event::Warning(Warning {
        vertex: Digest::key("image"),
        level: 2,
        short: "short".into(),
        detail: vec!["one".into(), Bytes::from_static(b"\xff two")],
        url: "https://docs/rule".into(),
        source_info: Some(info),
        ranges: vec![range],
    });
    assert_eq!(events.last(), Some(&expected));
    assert!(
        events
            .iter()
            .all(|event| *event.vertex() == Digest::key("image"))
    );
}

#[tokio::test]
async fn an_empty_message_is_no_log() {
    let step = step();
    step.progress.writer().log(1, "");
    step.progress.writer().log(1, "x");
    step.hub.close();
    let events = Reader(step.hub.subscribe()).events().await;
    let logs = events.iter().filter(|event| matches!(event, Event::Log(_)));
    assert_eq!(logs.count(), 1);
}
