//! A client that lists a large folder, one small frame for each file, while nobody reads.

use std::sync::Arc;

use ::session::{CallError, Packet, Session, SyncRequest};
use futures::StreamExt;
use proto::fsutil;
use services::control::control_client::ControlClient;
use tokio::sync::Notify;

use super::{Packets, connect, daemon, solve};

/// What the client calls the folder.
pub(super) const FOLDER: &str = "many";
/// Their frames, unread, cost more than half of the connection window that there was once.
const FILES: usize = 45_000;

static ALL_SENT: Notify = Notify::const_new();

/// Lists the folder as clients in Go do: every file in a frame of its own.
pub(super) fn list() -> Packets {
    let files = (0..FILES).map(|number| fsutil::Packet {
        stat: Some(fsutil::Stat {
            path: format!("{number:06}").into_bytes(),
            ..Default::default()
        }),
        ..Default::default()
    });
    // What the server finds ready at once it puts into one frame.
    let listed = futures::stream::iter(files).then(|packet| async {
        tokio::task::yield_now().await;
        Ok(packet)
    });
    let end = futures::stream::once(async {
        ALL_SENT.notify_one();
        Ok(fsutil::Packet::default())
    });
    listed.chain(end).chain(futures::stream::pending()).boxed()
}

/// Reads the first file, waits until all are sent, and reads the others; returns how many there are.
pub(super) async fn read_late(session: &Arc<dyn Session>) -> Result<usize, CallError> {
    let request = SyncRequest {
        name: FOLDER.into(),
        ..Default::default()
    };
    let mut incoming = session.diff_copy(request).await?.incoming;
    let mut listed = 0;
    while let Some(packet) = incoming.next().await {
        match packet? {
            Packet::Stat(Some(_)) => listed += 1,
            Packet::Stat(None) => break,
            Packet::Req(_) | Packet::Data { .. } | Packet::Fin | Packet::Err(_) => {}
        }
        if listed == 1 {
            ALL_SENT.notified().await;
        }
    }
    Ok(listed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_many_files_that_is_read_late_keeps_its_session() {
    let (channel, _sessions, _) = daemon().await;
    let (_session, _results) = connect(&channel, "s-many").await;
    let answer = ControlClient::new(channel)
        .solve(solve("s-many", "late-sync"))
        .await
        .unwrap();
    let listed = &answer.into_inner().exporter_response["listed"];
    assert_eq!(listed, &FILES.to_string());
}
