//! A client that uploads a folder: its packets, received into a real one.

use std::sync::OnceLock;

use futures::StreamExt;
use prost::Message as _;
use proto::fsutil;
use session::diffcopy::{ReceiveOptions, Root, receive as receive_tree};
use session::{Packet, PacketStream};
use tokio::runtime::Runtime;

/// Reads packets as a stream has them: two bytes of length, then the message. What is left over is ignored.
fn packets(mut input: &[u8]) -> Vec<fsutil::Packet> {
    let mut packets = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        input = rest;
        if let Ok(packet) = fsutil::Packet::decode(message) {
            packets.push(packet);
        }
    }
    packets
}

/// The runtime that all inputs share.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads can be started")
    })
}

pub(crate) fn receive(input: &[u8]) {
    let packets: Vec<Packet> = packets(input)
        .into_iter()
        .filter_map(|packet| session::wire::from_wire(packet).ok())
        .collect();
    let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
    let root = Root::open(folder.path()).expect("the folder was just made");
    runtime().block_on(async {
        let (ours, theirs) = PacketStream::pair();
        let PacketStream {
            mut incoming,
            outgoing,
        } = theirs;
        let sends = task::spawn("hostile client", async move {
            for packet in packets {
                if outgoing.send(packet).await.is_err() {
                    return;
                }
            }
        });
        let drains = task::spawn("hostile client reads", async move {
            while incoming.next().await.is_some() {}
        });
        let _refused = receive_tree(ours, root, ReceiveOptions::default()).await;
        drop((sends, drains));
    });
}
