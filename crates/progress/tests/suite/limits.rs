//! Limits on the output of steps.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oci::Digest;
use progress::{Event, Hub, LogLimit, LogStreams, Vertex, VertexProgress, Writer};
use task::Clock;

/// A step with output, and the hub that shows it.
struct Step {
    clock: Clock,
    hub: Arc<Hub>,
    streams: LogStreams,
}

fn step(limit: LogLimit) -> Step {
    let clock = Clock::paused(SystemTime::UNIX_EPOCH);
    let hub = Hub::with(clock.clone(), None);
    let vertex = Vertex::new(Digest::key("run"), "run", Vec::new());
    let progress = VertexProgress::with(vertex, clock.clone(), None);
    progress.attach(&hub);
    let streams = LogStreams::new(progress.writer(), limit);
    // In its first second a step may write as much as in any second.
    clock.advance(Duration::from_millis(1));
    Step {
        clock,
        hub,
        streams,
    }
}

impl Step {
    /// The shown messages, each with its stream.
    async fn shown(self) -> Vec<(i64, String)> {
        self.hub.close();
        let mut events = self.hub.subscribe();
        let mut out = Vec::new();
        while let Some(event) = events.next().await {
            if let Event::Log(log) = event {
                let text = String::from_utf8_lossy(&log.msg).into_owned();
                out.push((log.stream, text));
            }
        }
        out
    }
}

fn limit(size: Option<u64>, speed: Option<u64>) -> LogLimit {
    LogLimit { size, speed }
}

#[tokio::test]
async fn output_beyond_the_limit_is_replaced_by_one_line_per_gap() {
    // Milliseconds to wait, and the output written then.
    type Writes = &'static [(u64, &'static str)];
    let by_size = "\n[output clipped, log limit 10B reached]\n";
    let by_speed = "\n[output clipped, log limit 4B/s reached]\n";
    let cases: Vec<(LogLimit, Writes, String)> = vec![
        (
            LogLimit::NONE,
            &[(0, "0123456789"), (0, "more")],
            "0123456789more".into(),
        ),
        (
            limit(Some(10), None),
            &[(0, "0123456789")],
            "0123456789".into(),
        ),
        (
            limit(Some(10), None),
            &[(0, "0123456789"), (0, "x")],
            format!("0123456789{by_size}"),
        ),
        (
            limit(Some(10), None),
            &[(0, "0123456789a"), (0, "b"), (9_000, "c")],
            format!("0123456789{by_size}"),
        ),
        (
            limit(Some(0), None),
            &[(0, "a"), (0, "b")],
            "\n[output clipped, log limit 0B reached]\n".into(),
        ),
        (limit(None, Some(4)), &[(0, "0123")], "0123".into()),
        (
            limit(None, Some(4)),
            &[(0, "01234"), (0, "56")],
            format!("0123{by_speed}"),
        ),
        // Clipped output counts for the rate too, and a gap lasts until a whole message fits.
        (
            limit(None, Some(4)),
            &[(0, "0123456"), (1_000, "78")],
            format!("0123{by_speed}7"),
        ),
        (
            limit(None, Some(4)),
            &[(0, "01234"), (2_000, "56"), (0, "7"), (0, "89abcd")],
            format!("0123{by_speed}56789ab{by_speed}"),
        ),
        // The smaller limit applies and is named.
        (
            limit(Some(10), Some(4)),
            &[(0, "01234")],
            format!("0123{by_speed}"),
        ),
        (
            limit(Some(10), Some(4)),
            &[(9_000, "0123456789a")],
            format!("0123456789{by_size}"),
        ),
    ];
    for (limit, writes, shown) in cases {
        let step = step(limit);
        for (wait, text) in writes {
            step.clock.advance(Duration::from_millis(*wait));
            step.streams.log(1, text.as_bytes());
        }
        let messages = step.shown().await;
        let text: String = messages.into_iter().map(|(_, text)| text).collect();
        assert_eq!(text, shown, "{limit:?} {writes:?}");
    }
}

#[tokio::test]
async fn the_two_streams_of_a_step_are_counted_apart() {
    let step = step(limit(Some(3), None));
    step.streams.log(1, b"abcd");
    step.streams.log(2, b"ef");
    step.streams.log(2, b"gh");
    let clipped = "[output clipped, log limit 3B reached]\n";
    assert_eq!(
        step.shown().await,
        [
            (1, format!("abc\n{clipped}")),
            (2, "ef".to_owned()),
            (2, format!("g\n{clipped}")),
        ]
    );
}

#[tokio::test]
async fn limits_are_named_in_the_largest_unit_that_fits() {
    for (size, name) in [
        (7, "7B"),
        (1023, "1023B"),
        (1 << 10, "1KiB"),
        (1536, "1.5KiB"),
        (200 << 10, "200KiB"),
        (2 << 20, "2MiB"),
        (1_234_567, "1.177MiB"),
    ] {
        let step = step(limit(None, Some(size)));
        let too_much = vec![b'x'; usize::try_from(size + 1).unwrap()];
        step.streams.log(1, &too_much);
        let messages = step.shown().await;
        let last = &messages.last().unwrap().1;
        let note = format!("[output clipped, log limit {name}/s reached]\n");
        assert!(
            last.ends_with(&note),
            "{size}: {:?}",
            last.get(last.len().saturating_sub(80)..)
        );
    }
}

#[tokio::test]
async fn the_last_clipped_bytes_are_shown_once_when_a_step_fails() {
    let step = step(limit(Some(4), None));
    step.streams.log(1, b"abcdef");
    step.streams.log(2, b"ok");
    step.streams.log(1, b"ghi");
    step.streams.flush_tail();
    step.streams.flush_tail();
    let clipped = "abcd\n[output clipped, log limit 4B reached]\n".to_owned();
    assert_eq!(
        step.shown().await,
        [
            (1, clipped),
            (2, "ok".to_owned()),
            // The tail begins with the message that was clipped.
            (1, "abcdefghi".to_owned()),
        ]
    );
}

#[tokio::test]
async fn the_last_quarter_of_a_mebibyte_of_clipped_output_is_kept() {
    let step = step(limit(Some(0), None));
    let line = |n: usize| format!("{n:015}\n");
    for n in 0..40_000 {
        step.streams.log(2, line(n).as_bytes());
    }
    step.streams.flush_tail();
    let messages = step.shown().await;
    let (stream, tail) = messages.last().unwrap();
    assert_eq!((*stream, tail.len()), (2, 256 << 10));
    assert!(tail.ends_with(&line(39_999)));
    assert!(tail.starts_with(&line(40_000 - (256 << 10) / 16)));
}

#[tokio::test]
async fn output_that_nobody_reads_costs_nothing_and_fails_nothing() {
    let streams = LogStreams::new(Writer::null(), LogLimit::STANDARD);
    streams.log(1, &[0xff; 3 << 20]);
    streams.flush_tail();
    drop(Writer::null().work());
    let status = Writer::null().status("layer", "downloading");
    status.set(1, 2);
    status.rename("extracting");
    Writer::null().warn(1, "short", Vec::new(), "", None);
}
