//! What a client may take, how long it may say nothing, and what tells its files from others that look the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fstree::walk::Filter;
use fstree::{Root, Stat};
use futures::StreamExt as _;
use session::diffcopy::compare::Compare;
use session::diffcopy::marks::Marks;
use session::diffcopy::{
    CallSide, FilteredTree, ReceiveOptions, SendError, SendOptions, receive, send,
};
use session::{Packet, PacketStream, TransferLimits, Transfers};

use crate::{TestResult, stat, sync};

fn limited(limits: TransferLimits) -> ReceiveOptions {
    ReceiveOptions {
        name: "cannot receive `context`".into(),
        share: Transfers::new(limits).share(),
        ..ReceiveOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_lists_and_sends_is_bounded() -> TestResult {
    let file = |path: String, size: i64, xattrs: BTreeMap<String, Vec<u8>>| {
        Packet::Stat(Some(Box::new(Stat {
            path: path.into(),
            mode: 0o644,
            size,
            xattrs,
            ..Stat::default()
        })))
    };
    let plain = |path: &str, size: i64| file(path.into(), size, BTreeMap::new());
    let attributes = || BTreeMap::from([("user.x".to_owned(), vec![7; 60_000])]);
    let piece = |id: u32, size: usize| Packet::Data {
        id,
        bytes: vec![7; size].into(),
    };
    let memory = TransferLimits {
        session_memory: 4 << 20,
        ..TransferLimits::default()
    };
    let space = TransferLimits {
        session_written: 1_000_000,
        ..TransferLimits::default()
    };
    let attacks: Vec<(&str, TransferLimits, Vec<Packet>)> = vec![
        (
            "more than 4 MiB of memory",
            memory,
            (10..99)
                .map(|n| file(format!("f{n}"), 1, attributes()))
                .collect(),
        ),
        (
            "more than 4 MiB of memory",
            memory,
            (10_000..40_000)
                .map(|n| plain(&format!("f{n}"), 0))
                .collect(),
        ),
        (
            "has 3900006 bytes of extended attributes",
            TransferLimits::default(),
            vec![file(
                "f".into(),
                1,
                BTreeMap::from([("user.x".to_owned(), vec![7; 3_900_000])]),
            )],
        ),
        (
            "more than the 1 MB that it may",
            space,
            vec![plain("f", 1 << 40)],
        ),
        (
            "more than the 1 MB that it may",
            space,
            (100..999)
                .map(|n| stat(&format!("d{n}"), fstree::stat::MODE_DIR | 0o755, ""))
                .collect(),
        ),
        (
            "more than the 1 MB that it may",
            space,
            std::iter::once(plain("f", 5))
                .chain(std::iter::repeat_n(piece(0, 100_000), 20))
                .collect(),
        ),
        (
            "more than 64 files come at the same time",
            TransferLimits::default(),
            (100..200)
                .map(|n| plain(&format!("f{n}"), 1 << 20))
                .chain((0..100).map(|id| piece(id, 40_000)))
                .collect(),
        ),
    ];
    for (words, limits, packets) in attacks {
        let (server, root) = (PacketStream::pair(), tempfile::tempdir()?);
        let (mut client, server) = server;
        let receiving = receive(server, Root::open(root.path())?, limited(limits));
        let attacker = async move {
            let mut last_request: Option<u32> = None;
            // Requests are waited for, as an attacker would.
            for packet in packets {
                if let Packet::Data { id, .. } = &packet
                    && last_request.is_none_or(|last| *id > last)
                    && let Some(Ok(Packet::Req(next))) = client.incoming.next().await
                {
                    last_request = Some(next);
                }
                if client.outgoing.send(packet).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(client);
            root
        };
        let (_, result) = tokio::join!(attacker, receiving);
        let error = result.expect_err(words).to_string();
        assert!(error.contains(words), "{error} is not {words}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grew_ends_where_it_was_listed_and_one_that_shrank_is_as_long_as_it_is()
-> TestResult {
    let dir = tempfile::tempdir()?;
    let (mut client, server) = PacketStream::pair();
    let root = Root::open(dir.path())?;
    let sender = async move {
        for path in ["grew", "shrank"] {
            let listed = Stat {
                path: path.into(),
                mode: 0o644,
                size: 5,
                ..Stat::default()
            };
            let _sent = client
                .outgoing
                .send(Packet::Stat(Some(Box::new(listed))))
                .await;
        }
        let _sent = client.outgoing.send(Packet::Stat(None)).await;
        while let Some(Ok(packet)) = client.incoming.next().await {
            let answer: Vec<(u32, &'static [u8])> = match packet {
                Packet::Req(0) => vec![(0, b"abc"), (0, b"defgh"), (0, b"ijk"), (0, b"")],
                Packet::Req(id) => vec![(id, b"ab"), (id, b"")],
                Packet::Fin => {
                    let _sent = client.outgoing.send(Packet::Fin).await;
                    break;
                }
                Packet::Stat(_) | Packet::Data { .. } | Packet::Err(_) => break,
            };
            for (id, bytes) in answer {
                let bytes = Bytes::from_static(bytes);
                let _sent = client.outgoing.send(Packet::Data { id, bytes }).await;
            }
        }
    };
    let (_, received) = tokio::join!(sender, receive(server, root, ReceiveOptions::default()));
    received?;
    assert_eq!(fs::read_to_string(dir.path().join("grew"))?, "abcde");
    assert_eq!(fs::read_to_string(dir.path().join("shrank"))?, "ab");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_given_up_by_name() -> TestResult {
    let dir = tempfile::tempdir()?;
    let (client, server) = PacketStream::pair();
    client.outgoing.send(stat("a", 0o644, "")).await?;
    let limits = TransferLimits::default();
    let error = receive(server, Root::open(dir.path())?, limited(limits))
        .await
        .expect_err("it stalls");
    assert_eq!(
        error.to_string(),
        "cannot receive `context`: the client stopped sending: nothing came for 300 seconds, after 1 files and 0 bytes"
    );
    drop(client);

    fs::write(dir.path().join("file"), "x")?;
    let (_client, server) = PacketStream::pair();
    let tree = FilteredTree {
        root: Root::open(dir.path())?,
        filter: Filter::default(),
        map: None,
        change_marks: false,
    };
    let options = SendOptions {
        name: "exported files".into(),
        share: Transfers::new(limits).share(),
        ..SendOptions::default()
    };
    let error = send(server, Arc::new(tree), options)
        .await
        .expect_err("it stalls");
    assert!(
        matches!(error, SendError::Stalled { seconds: 300, .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("exported files: the client stopped taking"),
        "{error}"
    );
    Ok(())
}

#[test]
fn six_hundred_stalled_transfers_of_one_session_take_no_thread_that_others_wait_for() -> TestResult
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()?;
    let dir = tempfile::tempdir()?;
    let threads = || fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    runtime.block_on(async {
        let all = Transfers::new(TransferLimits::default());
        let (hostile, honest) = (all.share(), all.share());
        let before = threads();
        let mut stalled = Vec::new();
        for n in 0..600 {
            let (client, server) = PacketStream::pair();
            let share = Arc::clone(&hostile);
            let root = Root::open(dir.path())?;
            let transfer = task::spawn("stalled", async move {
                if n % 2 == 0 {
                    let options = ReceiveOptions {
                        share,
                        ..ReceiveOptions::default()
                    };
                    drop(receive(server, root, options).await);
                } else {
                    let tree = FilteredTree {
                        root,
                        filter: Filter::default(),
                        map: None,
                        change_marks: false,
                    };
                    let options = SendOptions {
                        share,
                        ..SendOptions::default()
                    };
                    drop(send(server, Arc::new(tree), options).await);
                }
            });
            stalled.push((client, transfer));
        }
        for _ in 0..2000 {
            tokio::task::yield_now().await;
        }
        let extra = threads().saturating_sub(before);
        assert!(extra < 8 * 6 + 20, "{extra} threads");
        // Blocking work of others and another session's transfer go on.
        assert_eq!(task::blocking("other work", || 7).await, 7);
        let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
        fs::write(from.path().join("f"), "x")?;
        let (client, server) = PacketStream::pair();
        let tree = FilteredTree {
            root: Root::open(from.path())?,
            filter: Filter::default(),
            map: None,
            change_marks: false,
        };
        let options = ReceiveOptions {
            share: honest,
            ..ReceiveOptions::default()
        };
        let (sent, received) = tokio::join!(
            send(client, Arc::new(tree), SendOptions::default()),
            receive(server, Root::open(to.path())?, options)
        );
        sent?;
        assert_eq!(received?.requested, 1);
        drop(stalled);
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_side_that_answers_ends_the_call_while_the_other_half_is_open() -> TestResult {
    let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    fs::write(from.path().join("f"), "x")?;
    let tree = |dir: &Path| -> Result<_, Box<dyn std::error::Error>> {
        Ok(Arc::new(FilteredTree {
            root: Root::open(dir)?,
            filter: Filter::default(),
            map: None,
            change_marks: false,
        }))
    };
    // A receiver as the reference's: it closes its half when the answer has ended, not when it has seen FIN.
    let (server, mut client) = PacketStream::pair();
    let options = SendOptions {
        side: CallSide::Callee,
        ..SendOptions::default()
    };
    let peer = async move {
        let mut last = None;
        while let Some(Ok(packet)) = client.incoming.next().await {
            if packet == Packet::Stat(None) {
                let _sent = client.outgoing.send(Packet::Fin).await;
            }
            last = Some(packet);
        }
        drop(client.outgoing);
        last
    };
    let source = tree(from.path())?;
    let transfer = async { tokio::join!(send(server, source, options), peer) };
    let (sent, last) = tokio::time::timeout(Duration::from_secs(30), transfer).await?;
    sent?;
    assert_eq!(last, Some(Packet::Fin));

    // A sender as the reference's: it does not close its half at all.
    let (server, mut client) = PacketStream::pair();
    let options = ReceiveOptions {
        side: CallSide::Callee,
        ..ReceiveOptions::default()
    };
    let peer = async move {
        let _sent = client
            .outgoing
            .send(stat("d", fstree::stat::MODE_DIR | 0o755, ""))
            .await;
        let _sent = client.outgoing.send(Packet::Stat(None)).await;
        let fin = client.incoming.next().await;
        let _sent = client.outgoing.send(Packet::Fin).await;
        while client.incoming.next().await.is_some() {}
        drop(client.outgoing);
        matches!(fin, Some(Ok(Packet::Fin)))
    };
    let root = Root::open(to.path())?;
    let transfer = async { tokio::join!(receive(server, root, options), peer) };
    let (received, finished) = tokio::time::timeout(Duration::from_secs(30), transfer).await?;
    assert_eq!(received?.listed, 1);
    assert!(finished);
    Ok(())
}

/// Syncs again and again into one folder, and keeps the marks.
struct Kept {
    to: tempfile::TempDir,
    marks: Arc<Marks>,
}

impl Kept {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            to: tempfile::tempdir()?,
            marks: Arc::default(),
        })
    }

    /// How many files are last_request for.
    async fn sync(
        &mut self,
        from: &Path,
        compare: Compare,
    ) -> Result<u64, Box<dyn std::error::Error>> {
        let options = ReceiveOptions {
            marks: Some(self.marks.clone()),
            compare,
            ..ReceiveOptions::default()
        };
        let received = sync(from, self.to.path(), Filter::default(), options).await?;
        self.marks = Arc::new(self.marks.next());
        Ok(received.requested)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_changed_in_place_with_its_time_set_back_is_sent_again() -> TestResult {
    let (from, mut kept) = (tempfile::tempdir()?, Kept::new()?);
    let old = filetime(1_700_000_000);
    let file = from.path().join("file");
    for text in ["one", "two"] {
        fs::write(&file, text)?;
        fs::File::open(&file)?.set_modified(old)?;
        assert_eq!(kept.sync(from.path(), Compare::Metadata).await?, 1);
        assert_eq!(fs::read_to_string(kept.to.path().join("file"))?, text);
    }
    let root = Root::open(kept.to.path())?;
    let attributes = root.dir("/")?.xattrs(std::ffi::OsStr::new("file"))?;
    assert!(attributes.is_empty(), "the mark is no attribute");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_did_not_change_are_vouched_for_by_their_marks() -> TestResult {
    // Files of some age: what has just been written may change without a trace, and is sent again.
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut kept = Kept::new()?;
    assert!(kept.sync(&from, Compare::Metadata).await? > 1);
    assert_eq!(kept.sync(&from, Compare::Metadata).await?, 0);
    assert_eq!(kept.sync(&from, Compare::Contents).await?, 0);
    Ok(())
}

fn filetime(seconds: u64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_marks_contents_are_asked_for_where_they_are_compared() -> TestResult {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("f"), "one")?;
    let (from, to) = (dir.path(), tempfile::tempdir()?);
    let mut last_request = Vec::new();
    for compare in [Compare::Contents, Compare::Metadata, Compare::Contents] {
        // Without marks to compare with, a receiver takes the sender's for nothing.
        let options = ReceiveOptions {
            compare,
            ..ReceiveOptions::default()
        };
        last_request.push(
            sync(from, to.path(), Filter::default(), options)
                .await?
                .requested,
        );
    }
    assert_eq!(last_request, [1, 0, 1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_nested_ten_thousand_deep_ends_in_an_error_and_no_more() -> TestResult {
    let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut dir = Root::open(from.path())?.dir("/")?;
    for _ in 0..10_000 {
        dir = dir.create_dir(std::ffi::OsStr::new("d"), 0o755)?;
    }
    let error = sync(
        from.path(),
        to.path(),
        Filter::default(),
        ReceiveOptions::default(),
    )
    .await
    .expect_err("no tree may be as deep")
    .to_string();
    assert!(error.contains("nested too deep"), "{error}");
    // And not at all where nobody wants it.
    let filter = Filter {
        exclude: vec!["d".into()],
        ..Filter::default()
    };
    let left_out = sync(from.path(), to.path(), filter, ReceiveOptions::default()).await?;
    assert_eq!(left_out.listed, 0);
    fstree::remove::remove_dir_all(&from.path().join("d"))?;
    Ok(())
}
