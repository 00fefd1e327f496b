//! Who is connected, who is asked, and what becomes of calls, over sessions in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use oci::ErrorKind;
use session::error::code;
use session::manager::SESSION_WAIT_TIMEOUT;
use session::{
    ByteSink, CallError, Group, Packet, PacketStream, SessionError, SessionManager, UploadTarget,
};
use testkit::conformance::session as conformance;
use testkit::session::{MemorySession, StreamEnd};
use tokio::sync::mpsc;
use tokio::time::Instant;

fn status(code: i32, message: &str) -> CallError {
    CallError::Status {
        code,
        message: message.into(),
        details: Bytes::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_known_from_its_registration_until_that_is_dropped() {
    let manager = SessionManager::new();
    assert!(manager.is_empty());
    let (_one, registration) = MemorySession::new("one").connect(&manager);
    assert_eq!(manager.len(), 1);
    let second = manager.register(Arc::new(MemorySession::new("one")));
    let error = second.err().unwrap();
    assert_eq!(error.to_string(), "session one already exists");
    assert_eq!(error.kind(), ErrorKind::Exists);
    // A prefix tells apart contexts of one client.
    for id in ["one", "local:one", ":one"] {
        assert_eq!(manager.get(id).unwrap().id(), "one", "{id}");
    }
    for id in ["", "two", "one:", "one:two", "a:b:one"] {
        assert!(manager.get(id).is_none(), "{id}");
    }
    drop(registration);
    assert!(manager.is_empty() && manager.get("one").is_none());
    let (_one, _registration) = MemorySession::new("one").connect(&manager);
    assert_eq!(manager.len(), 1, "the id is free again");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_late_is_waited_for_and_one_that_never_comes_is_named() {
    let manager = SessionManager::new();
    let start = Instant::now();
    let late = async {
        task::clock::sleep(Duration::from_secs(3)).await;
        MemorySession::new("late").connect(&manager)
    };
    let (session, _registered) =
        tokio::join!(manager.wait("local:late", SESSION_WAIT_TIMEOUT), late);
    assert_eq!(session.unwrap().id(), "late");
    assert_eq!(start.elapsed(), Duration::from_secs(3));

    let start = Instant::now();
    let error = manager
        .wait("local:never", SESSION_WAIT_TIMEOUT)
        .await
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "no active session for never: context deadline exceeded"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(start.elapsed(), SESSION_WAIT_TIMEOUT);
}

#[test]
fn a_group_names_each_session_once_and_in_order() {
    let manager = SessionManager::new();
    let group = |ids: &[&str]| Group::new(Arc::clone(&manager), ids.iter().copied());
    for (ids, named) in [
        (&[][..], &[][..]),
        (&[""], &[]),
        (&["a", "", "b", "a"], &["a", "b"]),
    ] {
        assert_eq!(group(ids).ids(), named);
        assert_eq!(group(ids).is_empty(), named.is_empty());
    }
    assert_eq!(
        group(&["a", "b"]).join(&group(&["b", "c"])).ids(),
        ["a", "b", "c"]
    );
    assert_eq!(Group::none().join(&group(&["a"])).ids(), ["a"]);
    assert_eq!(group(&["a"]).join(&Group::none()).ids(), ["a"]);
    assert!(Group::none().join(&Group::none()).is_empty());
    assert_eq!(format!("{:?}", group(&["a"])), "[\"a\"]");
}

#[tokio::test(start_paused = true)]
async fn a_group_of_nobody_says_so_without_waiting() {
    let start = Instant::now();
    let nobody = Group::none();
    let answers = [
        nobody.first().await.err(),
        nobody.named(&"a".into()).await.err(),
        nobody.any(|_| async { Ok(()) }).await.err(),
        Group::new(SessionManager::new(), [""]).first().await.err(),
    ];
    for error in answers {
        assert!(matches!(error, Some(SessionError::NoSessions)), "{error:?}");
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_first_that_is_connected_is_taken_before_one_that_may_still_come() {
    let manager = SessionManager::new();
    let group = Group::new(Arc::clone(&manager), ["gone", "here"]);
    let start = Instant::now();
    let (_here, registration) = MemorySession::new("here").connect(&manager);
    assert_eq!(group.first().await.unwrap().id(), "here");
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(registration);
    let error = group.first().await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "no active session for here: context deadline exceeded"
    );
    assert_eq!(
        start.elapsed(),
        SESSION_WAIT_TIMEOUT * 2,
        "each is given its time"
    );
}

#[tokio::test(start_paused = true)]
async fn sessions_are_asked_one_after_the_other_until_one_answers() {
    let manager = SessionManager::new();
    let refuses = MemorySession::new("one").connect(&manager);
    let answers = MemorySession::new("two")
        .secrets([("token", b"t")])
        .connect(&manager);
    let unasked = MemorySession::new("three")
        .secrets([("token", b"other")])
        .connect(&manager);
    let group = Group::new(Arc::clone(&manager), ["one", "two", "three"]);
    let token = group
        .any(|session| async move { session.secret("token").await })
        .await
        .unwrap();
    assert_eq!(token.unwrap().expose(), "t");
    assert_eq!(refuses.0.calls(), ["secret token"]);
    assert_eq!(answers.0.calls(), ["secret token"]);
    assert!(unasked.0.calls().is_empty());

    let refused = group
        .any(|session| async move {
            Err::<(), _>(status(code::PERMISSION_DENIED, session.id().as_str()))
        })
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), "three", "the last refusal is told");
    assert_eq!(refused.kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_over() {
    let manager = SessionManager::new();
    let (silent, _registration) = MemorySession::new("silent").silent().connect(&manager);
    let session = manager.get("silent").unwrap();
    let call = session.secret("token");
    let waited = tokio::time::timeout(Duration::from_secs(60), call).await;
    assert!(waited.is_err(), "it answers nothing");
    assert_eq!(silent.calls(), ["secret token"]);
}

#[test]
fn errors_of_calls_have_codes_kinds_and_words() {
    for (error, code, kind, absent, words) in [
        (
            CallError::Unsupported { method: "/x.Y/Z" },
            code::UNIMPLEMENTED,
            ErrorKind::NotFound,
            true,
            "method /x.Y/Z not supported by the client",
        ),
        (
            CallError::NoLocalSources,
            code::UNIMPLEMENTED,
            ErrorKind::NotFound,
            true,
            "no local sources enabled",
        ),
        (
            CallError::Ended { id: "s".into() },
            code::UNAVAILABLE,
            ErrorKind::Unavailable,
            false,
            "session s ended",
        ),
        (
            CallError::read("sha256:0", std::io::ErrorKind::StorageFull.into()),
            code::INTERNAL,
            ErrorKind::Exhausted,
            false,
            "cannot read sha256:0 for the client: no storage space",
        ),
        (
            CallError::protocol("Pull", "r"),
            code::INTERNAL,
            ErrorKind::Hostile,
            false,
            "unexpected answer of the client to Pull: r",
        ),
    ] {
        assert_eq!(error.code(), code, "{words}");
        assert_eq!(error.kind(), kind, "{words}");
        assert_eq!(error.is_absent(), absent, "{words}");
        assert_eq!(error.to_string(), words);
        let kind_by_any_type = session::kind_of(&SessionError::from(error));
        assert_eq!(kind_by_any_type, kind, "{words}");
    }
    for (code, kind, absent) in [
        (code::CANCELLED, ErrorKind::Cancelled, false),
        (code::UNKNOWN, ErrorKind::Failed, false),
        (code::INVALID_ARGUMENT, ErrorKind::Invalid, false),
        (code::DEADLINE_EXCEEDED, ErrorKind::TimedOut, false),
        (code::NOT_FOUND, ErrorKind::NotFound, true),
        (code::ALREADY_EXISTS, ErrorKind::Exists, false),
        (code::PERMISSION_DENIED, ErrorKind::Denied, false),
        (8, ErrorKind::Failed, false),
        (code::UNIMPLEMENTED, ErrorKind::NotFound, true),
        (code::INTERNAL, ErrorKind::Failed, false),
        (code::UNAVAILABLE, ErrorKind::Unavailable, false),
        (code::UNAUTHENTICATED, ErrorKind::Denied, false),
        (-1, ErrorKind::Failed, false),
    ] {
        let error = status(code, "words");
        assert_eq!(
            (error.code(), error.kind(), error.is_absent()),
            (code, kind, absent),
            "{code}"
        );
    }
    let io = std::io::Error::from_raw_os_error(28);
    assert_eq!(session::kind_of(&io), ErrorKind::Exhausted);
}

/// A sink whose other end takes bytes until `taken` are there, and then ends with `end`.
fn sink(taken: usize, end: Result<(), CallError>) -> (ByteSink, task::Task<Vec<usize>>) {
    let (outgoing, mut incoming) = mpsc::channel::<Bytes>(1);
    let (done, is_done) = tokio::sync::oneshot::channel();
    let client = task::spawn("client", async move {
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < taken {
            let Some(bytes) = incoming.recv().await else {
                break;
            };
            sizes.push(bytes.len());
        }
        drop(incoming);
        drop(done.send(end));
        sizes
    });
    let done = Box::pin(async move {
        is_done
            .await
            .unwrap_or(Err(CallError::Ended { id: "s".into() }))
    });
    (ByteSink::new(outgoing, done), client)
}

#[tokio::test]
async fn a_sink_cuts_what_is_too_large_for_a_message() {
    let (mut bytes, client) = sink(usize::MAX, Ok(()));
    let large = Bytes::from(vec![1; ByteSink::MAX_CHUNK * 2 + 5]);
    bytes.write(Bytes::new()).await.unwrap();
    bytes.write(large).await.unwrap();
    bytes.finish().await.unwrap();
    assert_eq!(client.await, [ByteSink::MAX_CHUNK, ByteSink::MAX_CHUNK, 5]);
}

#[tokio::test]
async fn a_client_that_stops_taking_is_quoted_and_one_that_says_nothing_is_blamed() {
    for (end, words) in [
        (Err(status(8, "disk full")), "disk full"),
        (
            Ok(()),
            "unexpected answer of the client to DiffCopy: the stream ended before it was finished",
        ),
    ] {
        let (mut bytes, client) = sink(1, end);
        bytes.write(Bytes::from_static(b"x")).await.unwrap();
        client.await;
        let error = bytes.write(Bytes::from_static(b"more")).await.unwrap_err();
        assert_eq!(error.to_string(), words);
    }
    let (bytes, _client) = sink(0, Err(status(code::PERMISSION_DENIED, "not here")));
    assert_eq!(bytes.finish().await.unwrap_err().to_string(), "not here");
}

#[tokio::test]
async fn the_ends_of_a_packet_stream_hear_each_other_until_one_is_dropped() {
    let (mut client, mut server) = PacketStream::pair();
    client.outgoing.send(Packet::Req(1)).await.unwrap();
    server.outgoing.send(Packet::Fin).await.unwrap();
    assert_eq!(
        server.incoming.next().await.unwrap().unwrap(),
        Packet::Req(1)
    );
    assert_eq!(client.incoming.next().await.unwrap().unwrap(), Packet::Fin);
    drop(client);
    assert!(server.incoming.next().await.is_none());
    assert!(server.outgoing.send(Packet::Fin).await.is_err());
}

#[test]
fn lists_of_values_are_escaped_all_or_none() {
    let list = |values: &[&str]| {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        session::header::encode_list(&values)
    };
    assert_eq!(
        list(&["a b", "c%"]),
        (vec!["a b".into(), "c%".into()], false)
    );
    assert_eq!(
        list(&["a b", "ä"]),
        (vec!["a+b".into(), "%C3%A4".into()], true)
    );
    assert_eq!(list(&["a\n"]), (vec!["a%0A".into()], true));
    assert_eq!(list(&["\x7f"]), (vec!["%7F".into()], true));
    assert_eq!(list(&[]), (vec![], false));
    for (text, encoded, value) in [
        ("%C3%A4+b", true, "ä b"),
        ("%C3%A4+b", false, "%C3%A4+b"),
        // What is no escape is taken as it is.
        ("%ff", true, "%ff"),
        ("%4", true, "%4"),
    ] {
        assert_eq!(session::header::decode(text, encoded), value, "{text}");
    }
}

#[tokio::test]
async fn a_session_in_memory_conforms() {
    let manager = SessionManager::new();
    let _nothing = MemorySession::new("nothing").connect(&manager);
    let _some = conformance::served("some").connect(&manager);
    let open = |id: &str| manager.get(id).unwrap();
    conformance::missing_services_are_told_apart_from_failures(open("nothing")).await;
    conformance::secrets_arrive_as_they_are(open("some")).await;
    conformance::logins_are_those_of_their_host(open("some")).await;
    conformance::agents_are_connected_by_name(open("some")).await;
    conformance::calls_do_not_disturb_each_other(open("some")).await;
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("into");
    std::fs::create_dir(&into).unwrap();
    conformance::broken_folders_are_refused(open("some"), &into).await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_in_memory_that_stops_is_given_up_after_its_time() {
    let manager = SessionManager::new();
    let _some = conformance::served("some").connect(&manager);
    let dir = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let idle = Duration::from_secs(300);
    let some = manager.get("some").unwrap();
    conformance::folders_that_stop_are_given_up(some, dir.path(), idle).await;
    assert_eq!(start.elapsed(), 2 * idle);
}

#[tokio::test(start_paused = true)]
async fn an_upload_may_be_slow_but_not_stop() {
    let manager = SessionManager::new();
    let slow = Duration::from_secs(299);
    let _client = MemorySession::new("client")
        .slow_upload("drips", ["a", "b", "c"], slow, StreamEnd::Closed)
        .slow_upload("stops", ["a"], slow, StreamEnd::Silent)
        .connect(&manager);
    let session = manager.get("client").unwrap();
    let pull = async |path: &str| {
        let target = UploadTarget {
            path: path.into(),
            ..UploadTarget::default()
        };
        let share = manager.share("client");
        let bytes = share.open("Pull", session.upload(target)).await.unwrap();
        bytes.collect::<Vec<_>>().await
    };
    let start = Instant::now();
    let pieces = pull("drips").await;
    let pieces: Vec<Bytes> = pieces.into_iter().map(Result::unwrap).collect();
    assert_eq!(pieces, ["a", "b", "c"]);
    assert_eq!(start.elapsed(), 3 * slow);

    let [first, last] = <[_; 2]>::try_from(pull("stops").await).unwrap();
    assert_eq!(first.unwrap(), "a");
    let error = last.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unexpected answer of the client to Pull: the client stopped sending: nothing came for 300 seconds"
    );
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::TimedOut, code::INTERNAL)
    );
}
