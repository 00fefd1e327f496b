//! Hubs that join vertices, and readers that join hubs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use oci::Digest;
use progress::{Event, Hub, Vertex, VertexProgress};
use task::Clock;

fn progress_of(name: &str) -> VertexProgress {
    VertexProgress::new(Vertex::new(Digest::key(name), name, Vec::new()))
}

/// The log lines of a closed hub, and the number of its events about the vertex itself.
async fn lines(hub: &Arc<Hub>) -> (Vec<String>, usize) {
    let mut events = hub.subscribe();
    let (mut lines, mut vertices) = (Vec::new(), 0);
    while let Some(event) = events.next().await {
        match event {
            Event::Log(log) => lines.push(String::from_utf8(log.msg.to_vec()).unwrap()),
            Event::Vertex(_) => vertices += 1,
            Event::Status(_) | Event::Warning(_) => {}
        }
    }
    (lines, vertices)
}

fn line(n: usize) -> String {
    format!("line {n}, and some more of it\n")
}

#[tokio::test]
async fn hubs_that_join_while_the_vertex_writes_get_each_line_once_and_in_order() {
    const LINES: usize = 3_000;
    let progress = progress_of("run");
    let is_done = AtomicBool::new(false);
    let mut hubs = Vec::new();
    std::thread::scope(|threads| {
        let writer = progress.writer();
        let is_done = &is_done;
        threads.spawn(move || {
            for n in 0..LINES {
                writer.log(1, line(n));
            }
            is_done.store(true, Ordering::Release);
        });
        let joiners: Vec<_> = (0..2)
            .map(|_| {
                let progress = progress.clone();
                threads.spawn(move || {
                    let mut hubs = Vec::new();
                    while !is_done.load(Ordering::Acquire) && hubs.len() < 4 {
                        let hub = Hub::new();
                        progress.attach(&hub);
                        hubs.push(hub);
                    }
                    hubs
                })
            })
            .collect();
        for joiner in joiners {
            hubs.extend(joiner.join().unwrap());
        }
    });
    let late = Hub::new();
    progress.attach(&late);
    hubs.push(late);
    let all: Vec<String> = (0..LINES).map(line).collect();
    for hub in hubs {
        hub.close();
        let (lines, vertices) = lines(&hub).await;
        assert_eq!(vertices, 1);
        assert!(lines == all, "{} lines", lines.len());
    }
}

#[tokio::test]
async fn a_hub_that_is_added_concurrently_gets_past_events_once() {
    let progress = progress_of("run");
    for n in 0..2_000 {
        progress.writer().log(1, line(n));
    }
    let hub = Hub::new();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| progress.attach(&hub));
        }
    });
    progress.writer().log(1, line(2_000));
    hub.close();
    let (lines, vertices) = lines(&hub).await;
    assert_eq!((lines.len(), vertices), (2_001, 1));
}

#[tokio::test]
async fn a_dropped_hub_gets_no_events_and_is_not_kept() {
    let progress = progress_of("run");
    let hub = Hub::new();
    let weak = Arc::downgrade(&hub);
    progress.attach(&hub);
    drop(hub);
    assert!(weak.upgrade().is_none());
    progress.writer().log(1, "to nobody\n");
    let second_hub = Hub::new();
    progress.attach(&second_hub);
    second_hub.close();
    assert_eq!(lines(&second_hub).await.0, ["to nobody\n"]);
}

#[tokio::test]
async fn logs_without_a_place_for_a_file_stay_in_memory() {
    let nowhere = std::path::PathBuf::from("/proc/self/no such directory");
    let vertex = Vertex::new(Digest::key("run"), "run", Vec::new());
    let progress = VertexProgress::with(vertex, Clock::real(), Some(nowhere.clone()));
    let hub = Hub::with(Clock::real(), Some(nowhere));
    progress.attach(&hub);
    for n in 0..10_000 {
        progress.writer().log(1, line(n));
    }
    hub.close();
    let (lines, _) = lines(&hub).await;
    assert_eq!(lines.len(), 10_000);
    assert_eq!(lines.last(), Some(&line(9_999)));
}

#[tokio::test]
async fn a_closed_hub_drops_events_and_its_readers_end() {
    let hub = Hub::new();
    let vertex = |name: &str| Event::Vertex(Vertex::new(Digest::key(name), name, Vec::new()));
    hub.publish(vertex("before"));
    assert!(!hub.is_closed());
    hub.close();
    hub.close();
    hub.publish(vertex("after"));
    assert!(hub.is_closed());
    for _ in 0..2 {
        let mut events = hub.subscribe();
        assert_eq!(events.next().await, Some(vertex("before")));
        assert_eq!(events.next().await, None);
        assert_eq!(events.next_batch().await, None);
    }
}

#[tokio::test]
async fn a_cancelled_wait_for_an_event_loses_none() {
    let hub = Hub::new();
    let progress = progress_of("run");
    progress.attach(&hub);
    let mut events = hub.subscribe();
    assert!(matches!(events.next().await, Some(Event::Vertex(_))));
    for n in 0..3 {
        {
            let mut next = Box::pin(events.next());
            assert!(futures_poll(&mut next).await.is_none(), "there is nothing");
        }
        progress.writer().log(1, line(n));
        let Some(Event::Log(log)) = events.next().await else {
            panic!("a line was written")
        };
        assert_eq!(log.msg, line(n));
    }
}

/// The output of a future that is ready; none if it waits.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn a_batch_is_bounded_and_the_remaining_events_come_with_the_next() {
    let hub = Hub::new();
    for n in 0..1_000 {
        let name = n.to_string();
        hub.publish(Event::Vertex(Vertex {
            started: Some(SystemTime::UNIX_EPOCH),
            completed: Some(SystemTime::UNIX_EPOCH),
            ..Vertex::new(Digest::key(&name), name, Vec::new())
        }));
    }
    hub.close();
    let mut events = hub.subscribe();
    let mut count = 0;
    assert!(events.next().await.is_some());
    while let Some(batch) = events.next_batch().await {
        assert!((1..=256).contains(&batch.len()), "{}", batch.len());
        count += batch.len();
    }
    assert_eq!(count, 999);
}
