//! Hosts that ask for what is another's: a login goes to the origin that it belongs to, whoever challenges.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use oci::{Descriptor, Digest, media_type};
use registry::{
    Access, BytesSource, Client, Config, CredentialError, Credentials, HostConfig, Login,
    Repository, RepositoryName, Token, TokenRequest,
};

use crate::fake::{Fake, Response};
use crate::scripted::tls;

const SECRET: &str = "CANARY-secret";

/// One login for one host, or tokens that the client fetches itself.
#[derive(Debug)]
struct Holder {
    host: String,
    login: Login,
    issues: bool,
    fetched: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl Credentials for Holder {
    fn principal(&self) -> String {
        "holder".into()
    }
    async fn login(&self, host: &str) -> Result<Option<Login>, CredentialError> {
        Ok((host == self.host).then(|| self.login.clone()))
    }
    async fn issues_tokens(&self, host: &str) -> Result<bool, CredentialError> {
        Ok(self.issues && host == self.host)
    }
    async fn fetch_token(&self, _: TokenRequest) -> Result<Token, CredentialError> {
        self.fetched.fetch_add(1, Ordering::SeqCst);
        Ok(Token {
            token: SECRET.into(),
            expires_in: 60,
            issued_at: None,
        })
    }
}

/// What is done at the host that the login belongs to.
#[derive(Debug, Clone, Copy)]
enum Work {
    Resolve,
    Blob,
    Referrers,
    Push,
    /// As [`Work::Resolve`], with the host in the place of a mirror.
    Mirror,
}

async fn run(work: Work, repository: &Repository) {
    let desc = Descriptor::of_bytes(media_type::OCI_LAYER_GZIP, b"layer");
    match work {
        Work::Resolve | Work::Mirror => drop(repository.resolve(Some("v1"), None).await),
        Work::Blob => drop(repository.blob(&desc).next().await),
        Work::Referrers => drop(repository.referrers(&desc.digest, None, &[]).await),
        Work::Push => {
            let source = Arc::new(BytesSource(Bytes::from_static(b"layer")));
            let unobserved = Arc::new(|_| {});
            drop(repository.push_blob(&desc, source, &[], unobserved).await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_challenge_of_another_host_gets_no_login_and_no_token() {
    tls();
    let challenges = [
        "Basic realm=\"x\"",
        "Bearer realm=\"http://{foreign}/token\",service=\"s\",scope=\"repository:a/b:pull\"",
        // The realm is the owner's own: its token would be the foreign host's next.
        "Bearer realm=\"http://{owner}/token\",service=\"s\",scope=\"repository:a/b:pull\"",
    ];
    let logins = [
        (Login::new("me", SECRET), false),
        (Login::new("", SECRET), false),
        (Login::new("me", SECRET), true),
    ];
    let works = [
        Work::Resolve,
        Work::Blob,
        Work::Referrers,
        Work::Push,
        Work::Mirror,
    ];
    for challenge in challenges {
        for (login, issues) in &logins {
            for work in works {
                // The foreign host bounces the second question back to the owner, who then challenges in earnest.
                for bounces in [false, true] {
                    let owner_name = Arc::new(parking_lot::Mutex::new(String::new()));
                    let owner_at = Arc::clone(&owner_name);
                    let foreign = Fake::start(move |request| {
                        let request_host = request.header("host").unwrap().to_owned();
                        if request.target.starts_with("/token") {
                            return Response::new(200).body(r#"{"token":"T"}"#);
                        }
                        if bounces && matches!(request.method.as_str(), "GET" | "HEAD") {
                            let back = format!("http://{}/v2/victim/private", owner_at.lock());
                            return Response::new(307).header("Location", back);
                        }
                        let challenge = challenge
                            .replace("{foreign}", &request_host)
                            .replace("{owner}", &owner_at.lock());
                        Response::new(401).header("WWW-Authenticate", challenge)
                    })
                    .await;
                    let foreign_host = foreign.host.clone();
                    let owner = Fake::start(move |request| match request.target.as_str() {
                        target if target.starts_with("/token") => {
                            Response::new(200).body(r#"{"token":"T"}"#)
                        }
                        "/v2/victim/private" => {
                            Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\"")
                        }
                        _ if matches!(work, Work::Push) && request.method == "HEAD" => {
                            Response::new(404)
                        }
                        _ if request.method == "POST" => Response::new(202)
                            .header("Location", format!("http://{foreign_host}/upload")),
                        target => Response::new(307)
                            .header("Location", format!("http://{foreign_host}{target}")),
                    })
                    .await;
                    owner_name.lock().clone_from(&owner.host);
                    let fetched = Arc::new(AtomicUsize::new(0));
                    let holder = Holder {
                        host: owner.host.clone(),
                        login: login.clone(),
                        issues: *issues,
                        fetched: Arc::clone(&fetched),
                    };
                    let mut config = Config::new("t");
                    let mut domain = owner.host.clone();
                    if matches!(work, Work::Mirror) {
                        domain = "127.0.0.1:1".to_owned();
                        let settings = HostConfig {
                            mirrors: vec![owner.host.clone()],
                            ..HostConfig::default()
                        };
                        config.hosts.insert(domain.clone(), settings);
                    }
                    let name = RepositoryName {
                        domain,
                        path: "a/b".into(),
                    };
                    let repository = Client::new(config)
                        .repository(name, Access::PUSH, Arc::new(holder))
                        .unwrap();
                    run(work, &repository).await;
                    let case = format!("{work:?} {challenge} issues={issues} bounces={bounces}");
                    assert!(!foreign.requests().is_empty(), "{case}");
                    for request in foreign.requests().into_iter().chain(owner.requests()) {
                        assert_eq!(request.header("authorization"), None, "{case} {request:?}");
                        let request_text = format!("{}{:?}", request.target, request.body);
                        assert!(!request_text.contains(SECRET), "{case} {request:?}");
                        assert!(!request.target.starts_with("/token"), "{case} {request:?}");
                    }
                    assert_eq!(fetched.load(Ordering::SeqCst), 0, "{case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_realm_of_the_hosts_own_challenge_may_be_another_host() {
    tls();
    let realm = Fake::start(|_| Response::new(200).body(r#"{"token":"T"}"#)).await;
    let at = realm.host.clone();
    let owner = Fake::start(move |request| match request.header("authorization") {
        Some("Bearer T") => Response::new(200)
            .header("Docker-Content-Digest", Digest::sha256(b"x").to_string())
            .body("x"),
        _ => Response::new(401).header(
            "WWW-Authenticate",
            format!("Bearer realm=\"http://{at}/token\",service=s"),
        ),
    })
    .await;
    let login = registry::StaticLogin {
        host: owner.host.clone(),
        login: Login::new("me", "secret"),
    };
    let repository = crate::scripted::open(&owner.host, "a/b", Access::PULL, Arc::new(login));
    repository.resolve(Some("v1"), None).await.unwrap();
    assert_eq!(
        realm.requests()[0].header("authorization"),
        Some("Basic bWU6c2VjcmV0")
    );
}
