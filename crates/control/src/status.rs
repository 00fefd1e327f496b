//! `Control.Status`: the progress of a build, in messages of bounded size.

use futures::stream::BoxStream;
use progress::{Event, Subscription};
use proto::{control, pb};
use tonic::Status;

use crate::convert::timestamp;

/// Bytes of logs after which a message is sent.
const MAX_LOG_BYTES: usize = 1 << 20;

/// The messages for a subscription; the stream ends with the build.
pub(crate) fn responses(
    subscription: Subscription,
) -> BoxStream<'static, Result<control::StatusResponse, Status>> {
    let state = (subscription, Vec::new().into_iter());
    Box::pin(futures::stream::unfold(
        state,
        |(mut subscription, mut ready)| async move {
            loop {
                if let Some(response) = ready.next() {
                    return Some((Ok(response), (subscription, ready)));
                }
                ready = messages(subscription.next_batch().await?).into_iter();
            }
        },
    ))
}

pub(crate) fn messages(events: Vec<Event>) -> Vec<control::StatusResponse> {
    let mut complete = Vec::new();
    let mut current = control::StatusResponse::default();
    let mut logged = 0;
    for event in events {
        match event {
            Event::Vertex(v) => current.vertexes.push(control::Vertex {
                digest: v.digest.to_string(),
                inputs: v.inputs.iter().map(ToString::to_string).collect(),
                name: v.name,
                cached: v.cached,
                started: v.started.map(timestamp),
                completed: v.completed.map(timestamp),
                error: v.error,
                progress_group: v.group.map(|g| pb::ProgressGroup {
                    id: g.id,
                    name: g.name,
                    weak: g.weak,
                }),
            }),
            Event::Status(s) => current.statuses.push(control::VertexStatus {
                id: s.id,
                vertex: s.vertex.to_string(),
                name: s.name,
                current: s.current,
                total: s.total,
                timestamp: Some(timestamp(s.timestamp)),
                started: s.started.map(timestamp),
                completed: s.completed.map(timestamp),
            }),
            Event::Log(l) => {
                logged += l.msg.len() + 64;
                current.logs.push(control::VertexLog {
                    vertex: l.vertex.to_string(),
                    timestamp: Some(timestamp(l.timestamp)),
                    stream: l.stream,
                    msg: l.msg,
                });
                if logged > MAX_LOG_BYTES {
                    logged = 0;
                    complete.push(std::mem::take(&mut current));
                }
            }
            Event::Warning(w) => current.warnings.push(control::VertexWarning {
                vertex: w.vertex.to_string(),
                level: w.level,
                short: w.short.to_vec(),
                detail: w.detail.iter().map(|d| d.to_vec()).collect(),
                url: w.url,
                info: w.source_info.map(|i| pb::SourceInfo {
                    filename: i.filename,
                    data: i.data.to_vec(),
                    definition: None,
                    language: i.language,
                }),
                ranges: w
                    .ranges
                    .iter()
                    .map(|r| pb::Range {
                        start: Some(position(r.start)),
                        end: Some(position(r.end)),
                    })
                    .collect(),
            }),
        }
    }
    if current != control::StatusResponse::default() {
        complete.push(current);
    }
    complete
}

fn position(position: progress::Position) -> pb::Position {
    pb::Position {
        line: position.line,
        character: position.character,
    }
}
