//! Logins and tokens: where they are asked for, for what, who gets them, and what the user reads when they fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use oci::{Digest, ErrorKind};
use parking_lot::Mutex;
use registry::{
    Access, Anonymous, BytesSource, Client, Config, CredentialError, Credentials, Error, Login,
    Repository, RepositoryName, StaticLogin, Token, TokenRequest,
};
use testkit::registry::{FakeRegistry, Request, Response};

use crate::scripted::{open, tls};

/// The answer to whoever may read and write.
fn welcome(request: &Request) -> Response {
    match request.method.as_str() {
        "POST" => Response::new(202).header("Location", "/v2/upload/1"),
        "PUT" => Response::new(201),
        _ => Response::new(200)
            .header("Docker-Content-Digest", Digest::sha256(b"{}").to_string())
            .body("{}"),
    }
}

/// A registry that wants a bearer token, whose realm answers `token`.
async fn bearer(token: Response) -> FakeRegistry {
    FakeRegistry::start(move |request| {
        let host = request.header("host").unwrap();
        if request.target.starts_with("/token") {
            return token.clone();
        }
        if request.header("authorization").is_some() {
            return welcome(request);
        }
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"svc\"");
        Response::new(401).header("WWW-Authenticate", challenge)
    })
    .await
}

/// A registry that wants a login.
async fn basic(pair: &'static str) -> FakeRegistry {
    FakeRegistry::start(move |request| match request.header("authorization") {
        Some(header) if header == pair => welcome(request),
        _ => Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await
}

fn login(host: &str, username: &str, secret: &str) -> Arc<dyn Credentials> {
    Arc::new(StaticLogin {
        host: host.into(),
        login: Login::new(username, secret),
    })
}

async fn resolve(repository: &Repository) -> Result<(), Error> {
    repository.resolve(Some("v1"), None).await.map(drop)
}

fn token_requests(fake: &FakeRegistry) -> Vec<String> {
    let is_token = |line: &String| line.contains("/token");
    fake.lines().into_iter().filter(is_token).collect()
}

#[tokio::test(start_paused = true)]
async fn a_token_server_that_gives_none_is_asked_as_often_as_its_answer_deserves() {
    let anonymous = "failed to authorize: failed to fetch anonymous token: ";
    for (response, requests, kind, words) in [
        (Response::new(401), 1, ErrorKind::Denied, "401 Unauthorized"),
        (Response::new(403), 1, ErrorKind::Denied, "403 Forbidden"),
        (
            Response::new(500),
            4,
            ErrorKind::Unavailable,
            "500 Internal Server Error",
        ),
        (
            Response::new(429),
            4,
            ErrorKind::Unavailable,
            "429 Too Many Requests",
        ),
        (
            Response::new(200).body("{}"),
            1,
            ErrorKind::Hostile,
            "authorization server did not include a token in the response",
        ),
        (
            Response::new(200).body("nothing"),
            1,
            ErrorKind::Hostile,
            "unable to decode token response: ",
        ),
        (
            Response::new(200).body(vec![b' '; (1 << 20) + 1]),
            1,
            ErrorKind::Hostile,
            "expected 1048576: failed precondition",
        ),
    ] {
        let fake = bearer(response).await;
        let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
        let error = resolve(&repository).await.unwrap_err();
        let sentence = error.to_string();
        assert!(
            sentence.starts_with(anonymous) && sentence.contains(words),
            "{words}: {sentence}"
        );
        assert_eq!(token_requests(&fake).len(), requests, "{words}");
        assert_eq!(error.kind(), kind, "{words}");
        assert_eq!(oci::error::chain(&error), sentence, "{words}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_a_header_is_not_sent() {
    let fake = bearer(Response::new(200).body("{\"token\":\"a\\nX-Evil: 1\"}")).await;
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    let error = resolve(&repository).await.unwrap_err();
    assert_eq!(error.to_string(), "token or login cannot be a header value");
    assert!(
        fake.requests()
            .iter()
            .all(|request| request.header("x-evil").is_none())
    );
}

#[tokio::test]
async fn challenges_that_cannot_be_met_say_why() {
    for (challenge, words) in [
        (
            "Bearer service=\"s\"",
            "no realm specified for token auth challenge",
        ),
        (
            "Bearer realm=\"not an address\"",
            "invalid token auth challenge realm: relative URL without a base",
        ),
        (
            "Bearer realm=\"file:///etc/passwd\"",
            "invalid token auth challenge realm: scheme file",
        ),
        // Unknown ways to authorize: the refusal is what there is to tell.
        ("Negotiate", ": 401 Unauthorized"),
        ("", ": 401 Unauthorized"),
    ] {
        let fake =
            FakeRegistry::start(move |_| Response::new(401).header("WWW-Authenticate", challenge))
                .await;
        let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
        let error = resolve(&repository).await.unwrap_err().to_string();
        assert!(error.ends_with(words), "{challenge}: {error}");
        assert_eq!(fake.lines().len(), 1, "{challenge}");
    }
}

#[tokio::test]
async fn both_names_of_a_token_are_known_and_the_newer_one_counts() {
    for (body, token) in [
        (r#"{"token":"T"}"#, "Bearer T"),
        (r#"{"access_token":"A"}"#, "Bearer A"),
        (r#"{"token":"T","access_token":"A"}"#, "Bearer A"),
        (r#"{"token":"T","expires_in":-7}"#, "Bearer T"),
        (
            r#"{"token":"T","expires_in":9223372036854775807}"#,
            "Bearer T",
        ),
    ] {
        let fake = bearer(Response::new(200).body(body)).await;
        let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
        resolve(&repository).await.unwrap();
        let last_request = fake.requests().pop().unwrap();
        assert_eq!(last_request.header("authorization"), Some(token), "{body}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_what_will_be_done_with_it() {
    let fake = bearer(Response::new(200).body(r#"{"token":"T","expires_in":300}"#)).await;
    let pull = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    resolve(&pull).await.unwrap();
    let push = open(&fake.host, "a/b", Access::PUSH, Arc::new(Anonymous));
    let layer = oci::Descriptor::of_bytes(oci::media_type::OCI_LAYER, b"{}");
    let source = Arc::new(BytesSource("{}".into()));
    push.push_blob(&layer, source, &[], Arc::new(|_| {}))
        .await
        .unwrap();
    let scope =
        |actions: &str| format!("GET /token?service=svc&scope=repository%3Aa%2Fb%3A{actions}");
    assert_eq!(token_requests(&fake), [scope("pull"), scope("pull%2Cpush")]);
}

#[tokio::test]
async fn a_mount_asks_for_the_neighbour_too() {
    let fake = FakeRegistry::start(|request| {
        let host = request.header("host").unwrap();
        match request.method.as_str() {
            _ if request.target.starts_with("/token") => {
                Response::new(200).body(r#"{"token":"T","expires_in":300}"#)
            }
            _ if request.header("authorization").is_none() => {
                let challenge = format!("Bearer realm=\"http://{host}/token\"");
                Response::new(401).header("WWW-Authenticate", challenge)
            }
            "HEAD" => Response::new(404),
            _ => Response::new(201),
        }
    })
    .await;
    let push = open(&fake.host, "a/b", Access::PUSH, Arc::new(Anonymous));
    let layer = oci::Descriptor::of_bytes(oci::media_type::OCI_LAYER, b"{}");
    let source = Arc::new(BytesSource("{}".into()));
    push.push_blob(&layer, source, &["c/d".into()], Arc::new(|_| {}))
        .await
        .unwrap();
    let own_scope = "scope=repository%3Aa%2Fb%3Apull%2Cpush";
    assert_eq!(
        token_requests(&fake),
        [
            format!("GET /token?{own_scope}"),
            format!("GET /token?{own_scope}&scope=repository%3Ac%2Fd%3Apull"),
        ]
    );
}

#[tokio::test]
async fn a_login_is_sent_after_the_challenge_and_only_once_if_it_is_wrong() {
    for (username, secret, requests, works) in [
        ("me", "secret", 2, true),
        ("me", "wrong", 2, false),
        // Half a login is none.
        ("", "secret", 1, false),
        ("me", "", 1, false),
    ] {
        let fake = basic("Basic bWU6c2VjcmV0").await;
        let repository = open(
            &fake.host,
            "a/b",
            Access::PULL,
            login(&fake.host, username, secret),
        );
        let result = resolve(&repository).await;
        assert_eq!(result.is_ok(), works, "{username}:{secret} {result:?}");
        assert_eq!(fake.lines().len(), requests, "{username}:{secret}");
        assert!(fake.requests()[0].header("authorization").is_none());
    }
}

#[tokio::test]
async fn a_login_that_works_is_sent_with_the_first_request_from_then_on() {
    let fake = basic("Basic bWU6c2VjcmV0").await;
    let repository = open(
        &fake.host,
        "a/b",
        Access::PULL,
        login(&fake.host, "me", "secret"),
    );
    resolve(&repository).await.unwrap();
    resolve(&repository).await.unwrap();
    assert_eq!(fake.lines().len(), 3);
}

#[tokio::test]
async fn a_token_is_preferred_to_showing_the_login() {
    let fake = FakeRegistry::start(|request| {
        let host = request.header("host").unwrap();
        if request.target.starts_with("/token") {
            return Response::new(200).body(r#"{"token":"T"}"#);
        }
        match request.header("authorization") {
            Some("Bearer T") => welcome(request),
            _ => Response::new(401)
                .header("WWW-Authenticate", "Basic realm=\"x\"")
                .header(
                    "WWW-Authenticate",
                    format!("Bearer realm=\"http://{host}/token\""),
                ),
        }
    })
    .await;
    let repository = open(
        &fake.host,
        "a/b",
        Access::PULL,
        login(&fake.host, "me", "secret"),
    );
    resolve(&repository).await.unwrap();
    let to_registry: Vec<_> = fake
        .requests()
        .into_iter()
        .filter(|request| !request.target.starts_with("/token"))
        .collect();
    assert!(to_registry.iter().all(|request| {
        request
            .header("authorization")
            .is_none_or(|header| header == "Bearer T")
    }));
}

#[tokio::test]
async fn a_token_that_is_refused_as_invalid_is_replaced_once() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let fake = FakeRegistry::start(move |request| {
        let host = request.header("host").unwrap();
        if request.target.starts_with("/token") {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            return Response::new(200).body(format!(r#"{{"token":"T{number}","expires_in":300}}"#));
        }
        match request.header("authorization") {
            Some("Bearer T2") => welcome(request),
            Some(_) => Response::new(401).header(
                "WWW-Authenticate",
                format!("Bearer realm=\"http://{host}/token\",error=\"invalid_token\""),
            ),
            None => Response::new(401).header(
                "WWW-Authenticate",
                format!("Bearer realm=\"http://{host}/token\""),
            ),
        }
    })
    .await;
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    resolve(&repository).await.unwrap();
    assert_eq!(fetched.load(Ordering::SeqCst), 2);
}

/// A client that keeps its login to itself and fetches tokens.
#[derive(Debug)]
struct OwnTokens {
    name: &'static str,
    requests: Mutex<Vec<TokenRequest>>,
    token: Result<Token, CredentialError>,
}

impl OwnTokens {
    fn new(name: &'static str, token: Result<&str, &str>) -> Arc<Self> {
        Arc::new(Self {
            name,
            requests: Mutex::default(),
            token: token
                .map(|token| Token {
                    token: token.into(),
                    expires_in: 300,
                    issued_at: None,
                })
                .map_err(CredentialError::new),
        })
    }
}

#[async_trait]
impl Credentials for OwnTokens {
    fn principal(&self) -> String {
        self.name.into()
    }
    async fn login(&self, _host: &str) -> Result<Option<Login>, CredentialError> {
        panic!("a client that fetches tokens is not asked for its login")
    }
    async fn issues_tokens(&self, _host: &str) -> Result<bool, CredentialError> {
        Ok(true)
    }
    async fn fetch_token(&self, request: TokenRequest) -> Result<Token, CredentialError> {
        self.requests.lock().push(request);
        self.token.clone()
    }
}

#[tokio::test]
async fn a_client_that_fetches_tokens_is_told_all_of_the_challenge_and_nobody_else_is_asked() {
    let fake = bearer(Response::new(500)).await;
    let client = OwnTokens::new("one", Ok("T"));
    let repository = open(&fake.host, "a/b", Access::PULL, client.clone());
    resolve(&repository).await.unwrap();
    assert!(token_requests(&fake).is_empty());
    let request = client.requests.lock()[0].clone();
    assert_eq!(request.client_id, "buildkit-client");
    assert_eq!(request.host, fake.host);
    assert_eq!(request.realm, format!("http://{}/token", fake.host));
    assert_eq!(request.service, "svc");
    assert_eq!(request.scopes, ["repository:a/b:pull"]);
}

#[tokio::test]
async fn a_client_that_cannot_fetch_a_token_is_quoted() {
    let fake = bearer(Response::new(500)).await;
    let client = OwnTokens::new("one", Err("the keychain is locked"));
    let repository = open(&fake.host, "a/b", Access::PULL, client);
    let error = resolve(&repository).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "failed to authorize: failed to get credentials for {}: the keychain is locked",
            fake.host
        )
    );
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn tokens_are_shared_by_equal_principals_only() {
    tls();
    let fake = bearer(Response::new(500)).await;
    let client = Client::new(Config::new("t"));
    let open = |credentials: Arc<dyn Credentials>| {
        let name = RepositoryName {
            domain: fake.host.clone(),
            path: "a/b".into(),
        };
        client.repository(name, Access::PULL, credentials).unwrap()
    };
    let (first_client, second_client) = (
        OwnTokens::new("one", Ok("T1")),
        OwnTokens::new("two", Ok("T2")),
    );
    let equal_client = OwnTokens::new("one", Ok("never asked"));
    resolve(&open(first_client.clone())).await.unwrap();
    resolve(&open(equal_client.clone())).await.unwrap();
    resolve(&open(second_client.clone())).await.unwrap();
    let request_counts =
        [&first_client, &equal_client, &second_client].map(|client| client.requests.lock().len());
    assert_eq!(request_counts, [1, 0, 1]);
    let with = open(first_client.clone()).with_credentials(second_client);
    resolve(&with).await.unwrap();
    let last_request = fake.requests().pop().unwrap();
    assert_eq!(last_request.header("authorization"), Some("Bearer T2"));
}

#[tokio::test]
async fn one_token_serves_all_who_ask_at_the_same_time() {
    tls();
    let fake = bearer(Response::new(200).body(r#"{"token":"T","expires_in":300}"#)).await;
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    resolve(&repository).await.unwrap();
    let before = token_requests(&fake).len();
    let (a, b, c) = tokio::join!(
        resolve(&repository),
        resolve(&repository),
        resolve(&repository)
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!((before, token_requests(&fake).len()), (1, 1));
}

#[tokio::test]
async fn secrets_are_in_no_debug_text() {
    let login = Login::new("me", "hunter2");
    let token = Token {
        token: "hunter2".into(),
        expires_in: 1,
        issued_at: None,
    };
    let login = StaticLogin {
        host: "r.example".into(),
        login: login.clone(),
    };
    for text in [
        format!("{login:?}"),
        format!("{token:?}"),
        format!("{login:?}"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let fake = basic("Basic bWU6aHVudGVyMg==").await;
    let repository = open(
        &fake.host,
        "a/b",
        Access::PULL,
        self::login(&fake.host, "me", "hunter2"),
    );
    resolve(&repository).await.unwrap();
    assert!(!format!("{repository:?}").contains("hunter2"));
}
