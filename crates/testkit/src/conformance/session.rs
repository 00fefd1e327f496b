//! What every `Session` must do, whatever carries it: given a client that serves what [`served`] says, `open` connects it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use oci::{Digest, ErrorKind};
use session::diffcopy::stat::MODE_SYMLINK;
use session::diffcopy::{ReceiveOptions, Root, Stat, receive};
use session::error::code;
use session::{
    BlobWrite, CallError, Packet, Session, SyncRequest, TokenRequest, TransferLimits, Transfers,
    UploadTarget,
};

use crate::session::{MemorySession, StreamEnd};

/// The client of the suite that serves something. Its folders have their packets from [`broken_folders`], and two more stop.
#[must_use]
pub fn served(id: &str) -> MemorySession {
    let mut client = MemorySession::new(id)
        .secrets([("token", b"secret\0bytes"), ("empty", b"")])
        .agents(["default"])
        .login("r.example:5000", "me", "secret")
        .scripted_folder("says-nothing", Vec::new(), StreamEnd::Silent)
        .scripted_folder("stops", vec![file("a", 5)], StreamEnd::Silent);
    for folder in broken_folders() {
        client = client.scripted_folder(folder.name, folder.packets, StreamEnd::Closed);
    }
    client
}

/// What a client sends for a folder, and what comes of it.
struct BrokenFolder {
    name: &'static str,
    packets: Vec<Packet>,
    kind: ErrorKind,
    sentence: &'static str,
}

fn listed(path: &str, mode: u32, size: i64, linkname: &str) -> Packet {
    Packet::Stat(Some(Box::new(Stat {
        path: path.into(),
        mode,
        size,
        linkname: linkname.into(),
        ..Stat::default()
    })))
}

fn file(path: &str, size: i64) -> Packet {
    listed(path, 0o644, size, "")
}

fn data(id: u32, bytes: &'static str) -> Packet {
    Packet::Data {
        id,
        bytes: bytes.into(),
    }
}

/// Folders that break off, and folders that no honest client sends.
fn broken_folders() -> Vec<BrokenFolder> {
    let broken = |name, packets, kind, sentence| BrokenFolder {
        name,
        packets,
        kind,
        sentence,
    };
    let cut = |name, packets| broken(name, packets, ErrorKind::Unavailable, "unexpected EOF");
    let hostile = |name, packets, sentence| broken(name, packets, ErrorKind::Hostile, sentence);
    let end = || Packet::Stat(None);
    vec![
        cut("cut-before-all", vec![]),
        cut("cut-in-the-list", vec![file("a", 5)]),
        cut("cut-before-contents", vec![file("a", 5), end()]),
        cut("cut-before-fin", vec![end()]),
        broken(
            "gives-up",
            vec![file("a", 5), Packet::Err("disk on fire".into())],
            ErrorKind::Failed,
            "error from sender: disk on fire",
        ),
        hostile(
            "leads-out",
            vec![file("../outside", 0), end()],
            "escape check ../outside",
        ),
        hostile(
            "is-absolute",
            vec![file("/outside", 0), end()],
            "absolute path /outside",
        ),
        hostile(
            "through-a-link",
            vec![
                listed("l", MODE_SYMLINK | 0o777, 0, ".."),
                file("l/outside", 0),
                end(),
            ],
            "changes out of order",
        ),
        hostile(
            "links-to-outside",
            vec![listed("a", 0o644, 0, "../outside"), end()],
            "escape check ../outside",
        ),
        hostile(
            "without-its-folder",
            vec![file("d/a", 0), end()],
            "changes out of order",
        ),
        hostile(
            "out-of-order",
            vec![file("b", 0), file("a", 0), end()],
            "changes out of order",
        ),
        hostile(
            "twice",
            vec![file("a", 0), file("a", 0)],
            "changes out of order",
        ),
        hostile("zero-byte", vec![file("a\0b", 0)], "path with a zero byte"),
        hostile(
            "lists-after-the-end",
            vec![end(), file("a", 0)],
            "unexpected STAT packet",
        ),
        hostile(
            "contents-of-nothing",
            vec![end(), data(7, "x")],
            "invalid file request 7",
        ),
        hostile(
            "asks-itself",
            vec![file("a", 5), Packet::Req(0)],
            "unexpected REQ packet",
        ),
        hostile("fin-first", vec![Packet::Fin], "unexpected FIN packet"),
    ]
}

/// A folder that breaks off or breaks the protocol is an error of its kind, and nothing is written outside of `into`, an empty folder
/// whose parent has nothing else in it.
pub async fn broken_folders_are_refused(session: Arc<dyn Session>, into: &Path) {
    for folder in broken_folders() {
        let request = SyncRequest {
            name: folder.name.into(),
            ..SyncRequest::default()
        };
        let stream = session.diff_copy(request).await.unwrap();
        let result = receive(stream, Root::open(into).unwrap(), ReceiveOptions::default()).await;
        let error = result.expect_err(folder.name);
        let sentence = error.to_string();
        assert!(
            sentence.contains(folder.sentence),
            "{}: {sentence}",
            folder.name
        );
        assert_eq!(error.kind(), folder.kind, "{}: {sentence}", folder.name);
        let beside = std::fs::read_dir(into.parent().unwrap()).unwrap();
        assert_eq!(beside.count(), 1, "{}", folder.name);
    }
    assert!(session.secret("token").await.unwrap().is_some());
}

/// A folder of which nothing comes for `idle` is given up, with the time and what had come.
pub async fn folders_that_stop_are_given_up(
    session: Arc<dyn Session>,
    into: &Path,
    idle: Duration,
) {
    let limits = TransferLimits {
        idle: Some(idle),
        ..TransferLimits::default()
    };
    for (name, listed) in [("says-nothing", 0), ("stops", 1)] {
        let request = SyncRequest {
            name: name.into(),
            ..SyncRequest::default()
        };
        let stream = session.diff_copy(request).await.unwrap();
        let options = ReceiveOptions {
            name: format!("cannot receive `{name}`"),
            share: Transfers::new(limits).share(),
            ..ReceiveOptions::default()
        };
        let result = receive(stream, Root::open(into).unwrap(), options).await;
        let error = result.expect_err(name);
        assert_eq!(
            error.to_string(),
            format!(
                "cannot receive `{name}`: the client stopped sending: nothing came for {} seconds, after {listed} files and 0 bytes",
                idle.as_secs()
            )
        );
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
    assert!(session.secret("token").await.unwrap().is_some());
}

/// The first failure of a stream, if that is what comes first.
async fn first_failure<T>(
    mut stream: BoxStream<'static, Result<T, CallError>>,
) -> Option<CallError> {
    stream.next().await.and_then(Result::err)
}

/// A client that serves nothing refuses each call as one that it does not have, at once or with the first of its stream. A secret
/// that nobody could have is not there.
pub async fn missing_services_are_told_apart_from_failures(session: Arc<dyn Session>) {
    let digest = Digest::sha256(b"x");
    let blob = BlobWrite {
        digest: digest.clone(),
        size: 1,
        labels: BTreeMap::new(),
    };
    let nothing = futures::stream::empty::<Result<Bytes, CallError>>().boxed();
    let file = match session.send_file(0, &BTreeMap::new()).await {
        Ok(sink) => sink.finish().await.err(),
        Err(error) => Some(error),
    };
    let tree = match session.send_tree(0, false).await {
        Ok(packets) => first_failure(packets.incoming).await,
        Err(error) => Some(error),
    };
    let upload = match session.upload(UploadTarget::default()).await {
        Ok(bytes) => first_failure(bytes).await,
        Err(error) => Some(error),
    };
    let read = match session.content_read("oci:x", &digest, 0, 0).await {
        Ok(bytes) => first_failure(bytes).await,
        Err(error) => Some(error),
    };
    let refusals = [
        ("agent", session.check_ssh("default").await.err()),
        (
            "folder",
            session.diff_copy(SyncRequest::default()).await.err(),
        ),
        ("file", file),
        ("tree", tree),
        (
            "token",
            session.fetch_token(TokenRequest::default()).await.err(),
        ),
        ("upload", upload),
        ("blob", session.content_info("oci:x", &digest).await.err()),
        ("read", read),
        (
            "write",
            session.content_write("oci:x", blob, nothing).await.err(),
        ),
        ("policy", session.check_policy(Bytes::new()).await.err()),
    ];
    for (service, refusal) in refusals {
        let error = refusal.unwrap_or_else(|| panic!("{service}: answered"));
        assert_eq!(error.code(), code::UNIMPLEMENTED, "{service}: {error}");
        assert!(error.is_absent(), "{service}: {error}");
    }
    match session.secret("token").await {
        Ok(secret) => assert_eq!(secret, None),
        Err(error) => assert!(error.is_absent(), "{error}"),
    }
}

/// Secrets arrive byte for byte; one that the client does not have is `None`, not an error.
pub async fn secrets_arrive_as_they_are(session: Arc<dyn Session>) {
    for (id, bytes) in [
        ("token", Some(&b"secret\0bytes"[..])),
        ("empty", Some(b"")),
        ("none", None),
    ] {
        let secret = session.secret(id).await.unwrap();
        assert_eq!(
            secret.as_ref().map(|secret| &secret.expose()[..]),
            bytes,
            "{id}"
        );
        assert!(!format!("{secret:?}").contains("secret"), "{id}");
    }
}

/// A login is that of exactly the host, and a host without one has none.
pub async fn logins_are_those_of_their_host(session: Arc<dyn Session>) {
    let login = session
        .credentials("r.example:5000")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (login.username.as_str(), login.secret.as_str()),
        ("me", "secret")
    );
    for host in ["r.example", "r.example:5001", "", "R.EXAMPLE:5000"] {
        assert_eq!(session.credentials(host).await.unwrap(), None, "{host}");
    }
}

/// An agent echoes what it is sent, in order, until the sender closes; one that is not there is refused.
pub async fn agents_are_connected_by_name(session: Arc<dyn Session>) {
    session.check_ssh("default").await.unwrap();
    let error = session.check_ssh("other").await.unwrap_err();
    assert!(
        error.to_string().contains("unset ssh forward key other"),
        "{error}"
    );
    let mut agent = session.forward_ssh("default").await.unwrap();
    for word in ["one", "two"] {
        agent.outgoing.send(Bytes::from(word)).await.unwrap();
        assert_eq!(agent.incoming.next().await.unwrap().unwrap(), word);
    }
    drop(agent.outgoing);
    assert!(agent.incoming.next().await.is_none());
}

/// Calls at the same time do not wait for each other, and a dropped one leaves the session usable.
pub async fn calls_do_not_disturb_each_other(session: Arc<dyn Session>) {
    let calls = (0..50).map(|number| {
        let session = Arc::clone(&session);
        async move {
            let id = if number % 2 == 0 { "token" } else { "none" };
            session.secret(id).await.unwrap().is_some()
        }
    });
    let answers = futures::future::join_all(calls).await;
    assert_eq!(answers.iter().filter(|has| **has).count(), 25);
    drop(session.secret("token").now_or_never());
    assert!(session.secret("token").await.unwrap().is_some());
}
