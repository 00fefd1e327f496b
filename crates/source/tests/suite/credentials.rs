//! Logins and tokens from the sessions of a build: which session is asked, and what its silence means.

use std::sync::Arc;
use std::time::Duration;

use registry::{Credentials as _, TokenRequest};
use session::{Group, SessionManager};
use source::SessionCredentials;
use testkit::session::MemorySession;
use tokio::time::Instant;

fn of(manager: &Arc<SessionManager>, ids: &[&str]) -> SessionCredentials {
    let ids = ids.iter().map(|id| (*id).to_owned());
    SessionCredentials::new(Group::new(Arc::clone(manager), ids))
}

#[tokio::test(start_paused = true)]
async fn a_login_comes_from_the_first_session_that_answers() {
    let manager = SessionManager::new();
    let (first_session, _first_registration) = MemorySession::new("one")
        .login("r.example", "me", "secret")
        .connect(&manager);
    let (second_session, _second_registration) = MemorySession::new("two")
        .login("r.example", "other", "secret")
        .connect(&manager);
    let credentials = of(&manager, &["one", "two"]);
    let login = credentials.login("r.example").await.unwrap().unwrap();
    assert_eq!(login.username, "me");
    assert_eq!(
        (first_session.calls().len(), second_session.calls().len()),
        (1, 0)
    );
    assert_eq!(credentials.principal(), "one,two");
    assert_ne!(
        of(&manager, &["two", "one"]).principal(),
        credentials.principal()
    );
}

#[tokio::test(start_paused = true)]
async fn no_login_is_no_error_however_a_client_says_so() {
    let manager = SessionManager::new();
    let (_none, _registered) = MemorySession::new("none").connect(&manager);
    let (_empty, _also) = MemorySession::new("empty")
        .login("r.example", "me", "")
        .connect(&manager);
    for ids in [&[][..], &["none"], &["empty"]] {
        let credentials = of(&manager, ids);
        assert!(
            credentials.login("r.example").await.unwrap().is_none(),
            "{ids:?}"
        );
        assert!(
            !credentials.issues_tokens("r.example").await.unwrap(),
            "{ids:?}"
        );
    }
    let nobody = SessionCredentials::new(Group::none());
    assert!(nobody.login("r.example").await.unwrap().is_none());
    assert!(!nobody.issues_tokens("r.example").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_given_a_minute() {
    let manager = SessionManager::new();
    let (silent, _registered) = MemorySession::new("silent").silent().connect(&manager);
    let start = Instant::now();
    let error = of(&manager, &["silent"])
        .login("r.example")
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "resolving credentials from session: context deadline exceeded"
    );
    assert_eq!(start.elapsed(), Duration::from_secs(60));
    assert_eq!(silent.calls(), ["login r.example"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_left_is_named_when_it_is_needed() {
    let manager = SessionManager::new();
    let error = of(&manager, &["gone"])
        .login("r.example")
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "resolving credentials from session: no active session for gone: context deadline exceeded"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_a_client_cannot_fetch_is_an_error() {
    let request = || TokenRequest {
        client_id: "c".into(),
        host: "r.example".into(),
        realm: "https://r.example/token".into(),
        service: "s".into(),
        scopes: vec!["repository:a:pull".into()],
    };
    let manager = SessionManager::new();
    let (client, _registered) = MemorySession::new("one").connect(&manager);
    for (ids, words) in [
        (
            &["one"][..],
            "method fetch_token not supported by the client",
        ),
        (&[], "no active sessions"),
    ] {
        let error = of(&manager, ids)
            .fetch_token(request())
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("fetching auth token from session: {words}")
        );
    }
    assert_eq!(client.calls(), ["token r.example"]);
}
