//! What every `Session` must do, whatever carries it: given a client that serves what [`served`] says, `open` connects it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use oci::Digest;
use session::error::code;
use session::{BlobWrite, CallError, Session, SyncRequest, TokenRequest, UploadTarget};

use crate::session::MemorySession;

/// The client of the suite that serves something.
#[must_use]
pub fn served(id: &str) -> MemorySession {
    MemorySession::new(id)
        .secrets([("token", b"secret\0bytes"), ("empty", b"")])
        .agents(["default"])
        .login("r.example:5000", "me", "secret")
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
