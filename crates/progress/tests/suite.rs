//! Progress through its public interface.

#![expect(clippy::unwrap_used, reason = "a test may")]

#[path = "suite/joining.rs"]
mod joining;
#[path = "suite/limits.rs"]
mod limits;
#[path = "suite/statuses.rs"]
mod statuses;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oci::Digest;
use progress::{Event, Hub, LogLimit, LogStreams, Vertex, VertexProgress};
use task::Clock;

fn vertex(name: &str, inputs: &[&str]) -> Vertex {
    Vertex::new(
        Digest::key(name),
        name,
        inputs.iter().map(|i| Digest::key(i)).collect(),
    )
}

async fn all(hub: &Arc<Hub>) -> Vec<String> {
    let mut subscription = hub.subscribe();
    let mut out = Vec::new();
    while let Some(event) = subscription.next().await {
        out.push(match event {
            Event::Vertex(v) => {
                let state = match (v.started, v.completed) {
                    (None, _) => "known",
                    (Some(_), None) => "started",
                    (Some(_), Some(_)) => "completed",
                };
                format!(
                    "{} {state}{}{}",
                    v.name,
                    if v.cached { " cached" } else { "" },
                    if v.error.is_empty() {
                        String::new()
                    } else {
                        format!(": {}", v.error)
                    }
                )
            }
            Event::Status(s) => format!(
                "{} {}/{}{}",
                s.id,
                s.current,
                s.total,
                if s.completed.is_some() { " done" } else { "" }
            ),
            Event::Log(l) => format!(
                "{}: {}",
                l.stream,
                String::from_utf8_lossy(&l.msg).trim_end()
            ),
            Event::Warning(w) => format!("warning {}", String::from_utf8_lossy(&w.short)),
        });
    }
    out
}

#[tokio::test]
async fn a_build_that_joins_late_gets_all_past_events() {
    let (first, second) = (Hub::new(), Hub::new());
    let shared = VertexProgress::new(vertex("run", &[]));
    shared.attach(&first);
    shared.start();
    shared.writer().log(1, "hello\n");
    shared.attach(&second);
    shared.attach(&second);
    drop(shared.writer().status("extracting", ""));
    shared.writer().warn(1, "look", Vec::new(), "", None);
    shared.complete(Some("exit code: 1"));
    first.close();
    second.close();
    let want = [
        "run known",
        "run started",
        "1: hello",
        "extracting 0/0 done",
        "warning look",
        "run completed: exit code: 1",
    ];
    assert_eq!(all(&first).await, want);
    assert_eq!(all(&second).await, want);
}

#[tokio::test]
async fn work_after_the_end_shows_the_vertex_running_again_until_its_last_piece_is_done() {
    let hub = Hub::new();
    let image = VertexProgress::new(vertex("image", &[]));
    image.attach(&hub);
    image.start();
    drop(image.writer().work());
    image.complete(None);
    let (first, second) = (image.writer().work(), image.writer().work());
    drop(first);
    drop(image.writer().status("extracting", ""));
    drop(second);
    let third = image.writer().work();
    image.start();
    drop(third);
    image.complete(None);
    hub.close();
    assert_eq!(
        all(&hub).await,
        [
            "image known",
            "image started",
            "image completed",
            "image started",
            "extracting 0/0 done",
            "image completed",
            "image started",
            "image started",
            "image completed",
        ]
    );
}

#[tokio::test]
async fn subscribers_get_the_past_then_the_present_and_end_at_the_close() {
    let hub = Hub::new();
    hub.publish(Event::Vertex(vertex("a", &[])));
    let reader = tokio::join!(async { all(&hub).await }, async {
        tokio::task::yield_now().await;
        hub.publish(Event::Vertex(Vertex {
            started: Some(SystemTime::UNIX_EPOCH),
            ..vertex("a", &[])
        }));
        tokio::task::yield_now().await;
        hub.close();
    });
    assert_eq!(
        reader.0,
        ["a known", "a started", "a completed: context canceled"]
    );
}

#[tokio::test]
async fn output_over_the_limit_is_clipped_and_its_end_is_shown_on_failure() {
    let clock = Clock::paused(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    let hub = Hub::with(clock.clone(), None);
    let progress = VertexProgress::with(vertex("run", &[]), clock.clone(), None);
    progress.attach(&hub);
    let streams = LogStreams::new(
        progress.writer(),
        LogLimit {
            size: Some(20),
            speed: Some(8),
        },
    );
    clock.advance(Duration::from_millis(1));
    streams.log(1, b"12345");
    streams.log(1, b"67890");
    streams.log(1, b"lost");
    streams.log(2, b"ok");
    clock.advance(Duration::from_secs(9));
    streams.log(1, b"ABCDEFGHIJ");
    streams.flush_tail();
    hub.close();
    assert_eq!(
        all(&hub).await,
        [
            "run known",
            "1: 12345",
            "1: 678\n[output clipped, log limit 8B/s reached]",
            "2: ok",
            "1: ABCDEF",
            "1: 67890lostABCDEFGHIJ",
        ]
    );
}

#[tokio::test]
async fn credentials_of_addresses_are_not_shown() {
    let hub = Hub::new();
    let url = "https://u:CANARY@h/x";
    let step = VertexProgress::new(Vertex::new(
        Digest::key("step"),
        format!("ADD {url} /"),
        Vec::new(),
    ));
    step.attach(&hub);
    step.start();
    drop(step.writer().status(format!("downloading {url}"), url));
    let info = progress::SourceInfo {
        filename: "Dockerfile".into(),
        data: format!("FROM a\nADD {url} /\n").into(),
        language: "Dockerfile".into(),
    };
    let source = Some((info, Vec::new()));
    let line = format!("odd: ADD {url}");
    step.writer()
        .warn(1, line.clone(), vec![line.into()], "", source);
    step.complete(Some(&format!("Get \"{url}\": no")));
    hub.close();
    let mut subscription = hub.subscribe();
    while let Some(event) = subscription.next().await {
        assert!(!format!("{event:?}").contains("CANARY"), "{event:?}");
    }
    let text = all(&hub).await.join("\n");
    assert!(text.contains("ADD https://xxxxx:xxxxx@h/x /"), "{text}");
    assert!(
        text.contains("Get \"https://xxxxx:xxxxx@h/x\": no"),
        "{text}"
    );
}
