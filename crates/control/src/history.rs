//! Build records as they are stored: encoded messages of the control service.
//!
//! A log is a row of encoded `StatusResponse`, each after its length in four bytes, little end first.

use std::time::SystemTime;

use bytes::Bytes;
use engine::api::{Failure, HistoryCodec, HistoryRecord, HistoryResult};
use oci::Digest;
use progress::{Event, Log, Position, ProgressGroup, Range, SourceInfo, Vertex, Warning};
use prost::Message as _;
use prost_types::Timestamp;
use proto::control;

use crate::{convert, errors, status};

/// Encodes and decodes build records.
#[derive(Debug, Clone, Copy, Default)]
pub struct Codec;

impl HistoryCodec for Codec {
    fn log(&self, events: Vec<Event>) -> Vec<u8> {
        let mut out = Vec::new();
        for message in status::messages(events) {
            let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&message.encode_to_vec());
        }
        out
    }

    fn events(&self, mut log: &[u8]) -> Vec<Event> {
        let mut out = Vec::new();
        while let Some((length, rest)) = log.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let Some((message, rest)) = rest.split_at_checked(length) else {
                break;
            };
            log = rest;
            if let Ok(message) = control::StatusResponse::decode(message) {
                events(message, &mut out);
            }
        }
        out
    }

    fn error(&self, failure: &Failure) -> Vec<u8> {
        errors::recorded(failure).encode_to_vec()
    }

    fn record(&self, record: &HistoryRecord) -> Vec<u8> {
        convert::history_record(record.clone()).encode_to_vec()
    }

    fn parse(&self, record: &[u8]) -> Option<HistoryRecord> {
        let wire = control::BuildHistoryRecord::decode(record).ok()?;
        Some(HistoryRecord {
            build: wire.r#ref.into(),
            frontend: wire.frontend,
            frontend_attrs: wire.frontend_attrs,
            exporters: wire
                .exporters
                .into_iter()
                .map(|e| engine::api::ExporterSpec {
                    kind: e.r#type,
                    attrs: e.attrs,
                })
                .collect(),
            error: wire.error.map(errors::from_wire),
            created: time(wire.created_at),
            completed: time(wire.completed_at),
            logs: wire.logs.and_then(descriptor),
            trace: wire.trace.and_then(descriptor),
            external_error: wire.external_error.and_then(descriptor),
            exporter_response: wire.exporter_response,
            result: wire.result.map(result),
            results: wire
                .results
                .into_iter()
                .map(|(id, r)| (id, result(r)))
                .collect(),
            generation: wire.generation,
            pinned: wire.pinned,
            cached_steps: wire.num_cached_steps,
            total_steps: wire.num_total_steps,
            completed_steps: wire.num_completed_steps,
            warnings: wire.num_warnings,
        })
    }
}

fn time(wire: Option<Timestamp>) -> Option<SystemTime> {
    SystemTime::try_from(wire?).ok()
}

fn descriptor(wire: control::Descriptor) -> Option<oci::Descriptor> {
    let digest = wire.digest.parse().ok()?;
    let size = u64::try_from(wire.size).ok()?;
    let mut descriptor = oci::Descriptor::new(wire.media_type, digest, size);
    descriptor.annotations = wire.annotations.into_iter().collect();
    Some(descriptor)
}

fn result(wire: control::BuildResultInfo) -> HistoryResult {
    HistoryResult {
        attestations: wire
            .attestations
            .into_iter()
            .filter_map(descriptor)
            .collect(),
        results: wire
            .results
            .into_iter()
            .filter_map(|(at, d)| Some((at, descriptor(d)?)))
            .collect(),
    }
}

fn events(message: control::StatusResponse, out: &mut Vec<Event>) {
    let digest = |text: &str| text.parse::<Digest>().ok();
    for v in message.vertexes {
        let Some(name) = digest(&v.digest) else {
            continue;
        };
        out.push(Event::Vertex(Vertex {
            digest: name,
            inputs: v.inputs.iter().filter_map(|i| digest(i)).collect(),
            name: v.name,
            cached: v.cached,
            started: time(v.started),
            completed: time(v.completed),
            error: v.error,
            group: v.progress_group.map(|g| ProgressGroup {
                id: g.id,
                name: g.name,
                weak: g.weak,
            }),
        }));
    }
    for s in message.statuses {
        let (Some(vertex), Some(timestamp)) = (digest(&s.vertex), time(s.timestamp)) else {
            continue;
        };
        out.push(Event::Status(progress::Status {
            id: s.id,
            vertex,
            name: s.name,
            current: s.current,
            total: s.total,
            timestamp,
            started: time(s.started),
            completed: time(s.completed),
        }));
    }
    for l in message.logs {
        if let (Some(vertex), Some(timestamp)) = (digest(&l.vertex), time(l.timestamp)) {
            out.push(Event::Log(Log {
                vertex,
                stream: l.stream,
                msg: l.msg,
                timestamp,
            }));
        }
    }
    for w in message.warnings {
        let Some(vertex) = digest(&w.vertex) else {
            continue;
        };
        let position = |p: Option<proto::pb::Position>| {
            let p = p.unwrap_or_default();
            Position {
                line: p.line,
                character: p.character,
            }
        };
        out.push(Event::Warning(Warning {
            vertex,
            level: w.level,
            short: w.short.into(),
            detail: w.detail.into_iter().map(Bytes::from).collect(),
            url: w.url,
            source_info: w.info.map(|i| SourceInfo {
                filename: i.filename,
                data: i.data.into(),
                language: i.language,
            }),
            ranges: w
                .ranges
                .into_iter()
                .map(|r| Range {
                    start: position(r.start),
                    end: position(r.end),
                })
                .collect(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let at = UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        let vertex = Digest::sha256(b"v");
        let results = vec![
            Event::Vertex(Vertex {
                started: Some(at),
                error: "bad".into(),
                ..Vertex::new(vertex.clone(), "step", vec![Digest::sha256(b"i")])
            }),
            Event::Log(Log {
                vertex,
                stream: 2,
                msg: Bytes::from_static(b"hello\n"),
                timestamp: at,
            }),
        ];
        let log = Codec.log(results.clone());
        assert_eq!(Codec.events(&log), results);
        // A log that was cut off is read as far as it goes.
        assert!(Codec.events(log.get(..log.len() - 1).unwrap()).is_empty());

        let record = HistoryRecord {
            build: "b".into(),
            created: Some(at),
            logs: Some(oci::Descriptor::new("t", Digest::sha256(b"l"), 7)),
            pinned: true,
            total_steps: 3,
            ..HistoryRecord::default()
        };
        let read = Codec.parse(&Codec.record(&record)).unwrap();
        assert_eq!(
            (
                read.build.as_str(),
                read.created,
                read.pinned,
                read.total_steps
            ),
            ("b", Some(at), true, 3)
        );
        assert_eq!(read.logs, record.logs);
    }

    #[test]
    fn a_record_that_says_nonsense_is_read_without_it() {
        let message = control::StatusResponse {
            vertexes: vec![control::Vertex {
                digest: "../x".into(),
                ..Default::default()
            }],
            statuses: vec![control::VertexStatus {
                vertex: Digest::sha256(b"v").to_string(),
                timestamp: None,
                ..Default::default()
            }],
            logs: vec![control::VertexLog::default()],
            warnings: vec![
                control::VertexWarning::default(),
                control::VertexWarning {
                    vertex: Digest::sha256(b"v").to_string(),
                    ranges: vec![proto::pb::Range::default()],
                    ..Default::default()
                },
            ],
        };
        let bytes = message.encode_to_vec();
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        // Between two such messages lies one that cannot be decoded; the last is longer than the log.
        let framed = [&length[..], &bytes].concat();
        let log = [&framed[..], &[1, 0, 0, 0, 0xff], &framed, &[0xff; 4], b"x"].concat();
        let events = Codec.events(&log);
        assert_eq!(events.len(), 2);
        for event in events {
            let Event::Warning(warning) = event else {
                panic!("only the warning names its vertex: {event:?}");
            };
            assert_eq!(warning.ranges.len(), 1);
        }
        let bad = |size, digest: &str| {
            Some(control::Descriptor {
                size,
                digest: digest.into(),
                ..Default::default()
            })
        };
        let good = Digest::sha256(b"x").to_string();
        let record = control::BuildHistoryRecord {
            logs: bad(-1, &good),
            trace: bad(1, "md5:x"),
            created_at: Some(Timestamp {
                seconds: i64::MAX,
                nanos: -1,
            }),
            results: [(
                "linux/amd64".to_owned(),
                control::BuildResultInfo {
                    results: [(0, bad(-1, &good).unwrap()), (1, bad(1, &good).unwrap())].into(),
                    ..Default::default()
                },
            )]
            .into(),
            ..Default::default()
        };
        let record = Codec.parse(&record.encode_to_vec()).unwrap();
        assert!(record.logs.is_none() && record.trace.is_none());
        let results = &record.results["linux/amd64"].results;
        assert_eq!(results.keys().collect::<Vec<_>>(), [&1]);
        assert!(Codec.parse(&[0xff]).is_none());
    }
}
