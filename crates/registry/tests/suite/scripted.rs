//! Authorization, redirects, broken streams, and what a hostile registry may try.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use oci::{Descriptor, Digest, media_type};
use registry::{
    Access, Anonymous, BytesSource, Client, Config, Credentials, Error, Login, Pushed, Repository,
    RepositoryName, StaticLogin,
};

use crate::fake::{Fake, Request, Response};

pub(crate) fn tls() {
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

pub(crate) fn open(
    host: &str,
    path: &str,
    access: Access,
    credentials: Arc<dyn Credentials>,
) -> Repository {
    tls();
    let client = Client::new(Config::new("rbuild-test"));
    client
        .repository(
            RepositoryName {
                domain: host.into(),
                path: path.into(),
            },
            access,
            credentials,
        )
        .unwrap()
}

async fn read(repository: &Repository, desc: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut stream = repository.blob(desc);
    let mut out = Vec::new();
    while let Some(chunk) = stream.next().await? {
        out.extend_from_slice(&chunk);
    }
    Ok(out)
}

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor::of_bytes(media_type::OCI_LAYER_GZIP, bytes)
}

/// A registry that wants a bearer token, and is its own realm.
fn token_registry(body: &'static [u8]) -> impl Fn(&Request) -> Response + Send + Sync {
    move |request| {
        let host = request.header("host").unwrap();
        if request.target.starts_with("/token") {
            return Response::new(200).body(r#"{"token":"T1","expires_in":300}"#);
        }
        if request.header("authorization") != Some("Bearer T1") {
            let challenge = format!(
                "Bearer realm=\"http://{host}/token\",service=\"svc\",scope=\"repository:a/b:pull\""
            );
            return Response::new(401).header("WWW-Authenticate", challenge);
        }
        Response::new(200)
            .header("Content-Type", media_type::OCI_MANIFEST)
            .header("Docker-Content-Digest", Digest::sha256(body).to_string())
            .body(body)
    }
}

#[tokio::test]
async fn a_token_is_fetched_with_the_login_once_and_kept() {
    let fake = Fake::start(token_registry(b"{}")).await;
    let login = StaticLogin {
        host: fake.host.clone(),
        login: Login::new("me", "secret"),
    };
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(login));
    let desc = repository.resolve(Some("v1"), None).await.unwrap();
    assert_eq!(repository.manifest(&desc).await.unwrap(), "{}");
    assert_eq!(
        fake.lines(),
        [
            "HEAD /v2/a/b/manifests/v1".to_owned(),
            "GET /token?service=svc&scope=repository%3Aa%2Fb%3Apull".to_owned(),
            "HEAD /v2/a/b/manifests/v1".to_owned(),
            format!("GET /v2/a/b/manifests/{}", desc.digest),
        ]
    );
    assert_eq!(
        fake.requests()[1].header("authorization"),
        Some("Basic bWU6c2VjcmV0")
    );
}

#[tokio::test]
async fn a_realm_that_wants_post_gets_post() {
    let fake = Fake::start(|request| {
        let host = request.header("host").unwrap();
        match (
            request.method.as_str(),
            request.target.split('?').next().unwrap(),
        ) {
            ("GET", "/token") => Response::new(404),
            ("POST", "/token") => Response::new(200).body(r#"{"access_token":"T2"}"#),
            _ if request.header("authorization") == Some("Bearer T2") => Response::new(200)
                .header("Docker-Content-Digest", Digest::sha256(b"x").to_string())
                .body("x"),
            _ => Response::new(401).header(
                "WWW-Authenticate",
                format!("Bearer realm=\"http://{host}/token\",service=s"),
            ),
        }
    })
    .await;
    let login = StaticLogin {
        host: fake.host.clone(),
        login: Login::new("", "refresh"),
    };
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(login));
    repository.resolve(None, None).await.unwrap();
    let post = fake
        .requests()
        .into_iter()
        .find(|r| r.method == "POST")
        .unwrap();
    let form = String::from_utf8(post.body).unwrap();
    assert_eq!(
        form,
        "scope=repository%3Aa%2Fb%3Apull&service=s&client_id=buildkit-client&grant_type=refresh_token&refresh_token=refresh"
    );
}

#[tokio::test]
async fn refused_scopes_are_access_denied() {
    let fake = Fake::start(|request| {
        let host = request.header("host").unwrap();
        if request.target.starts_with("/token") {
            return Response::new(200).body(r#"{"token":"T"}"#);
        }
        let mut challenge =
            format!("Bearer realm=\"http://{host}/token\",service=s,scope=\"repository:a/b:pull\"");
        if request.header("authorization").is_some() {
            challenge.push_str(",error=\"insufficient_scope\"");
        }
        Response::new(401).header("WWW-Authenticate", challenge)
    })
    .await;
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    let error = repository
        .resolve(Some("v1"), None)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"
    );
}

#[tokio::test]
async fn no_authorization_follows_a_redirect_to_another_host() {
    let elsewhere = Fake::start(|_| Response::new(200).body("layer")).await;
    let target = elsewhere.host.clone();
    let fake = Fake::start(move |request| match request.header("authorization") {
        None => Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) => Response::new(307).header("Location", format!("http://{target}/signed?sig=1")),
    })
    .await;
    let login = StaticLogin {
        host: fake.host.clone(),
        login: Login::new("me", "secret"),
    };
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(login));
    assert_eq!(read(&repository, &blob(b"layer")).await.unwrap(), b"layer");
    let requests = elsewhere.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("authorization"), None);
}

#[tokio::test]
async fn a_login_of_another_host_is_not_sent() {
    let fake =
        Fake::start(|_| Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\"")).await;
    let login = StaticLogin {
        host: "registry.example".into(),
        login: Login::new("me", "secret"),
    };
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(login));
    let error = repository
        .resolve(Some("v1"), None)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("401 Unauthorized"), "{error}");
    assert!(
        fake.requests()
            .iter()
            .all(|r| r.header("authorization").is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn a_broken_transfer_goes_on_where_it_broke() {
    let data: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    let desc = blob(&data);
    for ranges in [true, false] {
        let (bytes, tries) = (data.clone(), Arc::new(AtomicUsize::new(0)));
        let fake = Fake::start(move |request| {
            let is_first = tries.fetch_add(1, Ordering::SeqCst) == 0;
            let from: usize = request
                .header("range")
                .map_or(0, |r| r["bytes=".len()..r.len() - 1].parse().unwrap());
            let response = if from > 0 && ranges {
                Response::new(206)
                    .header("Content-Range", format!("bytes {from}-99999/100000"))
                    .body(&bytes[from..])
            } else {
                Response::new(200).body(bytes.clone())
            };
            if is_first {
                response.cut(40_000)
            } else {
                response
            }
        })
        .await;
        let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
        assert_eq!(
            read(&repository, &desc).await.unwrap(),
            data,
            "ranges {ranges}"
        );
        let requests = fake.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[1].header("range"), Some("bytes=40000-"));
    }
}

#[tokio::test]
async fn wrong_bytes_and_too_many_bytes_are_errors() {
    let fake = Fake::start(|request| match request.target.contains("manifests") {
        true => Response::new(200).body("evil"),
        false => Response::new(200).body("evil and long"),
    })
    .await;
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    let same_size = Descriptor::of_bytes(media_type::OCI_MANIFEST, b"good");
    assert!(matches!(
        repository.manifest(&same_size).await,
        Err(Error::DigestMismatch { .. })
    ));
    assert!(matches!(
        read(&repository, &blob(b"short")).await,
        Err(Error::SizeMismatch { .. })
    ));
    assert!(matches!(
        read(&repository, &blob(b"good and long")).await,
        Err(Error::DigestMismatch { .. })
    ));
}

#[tokio::test]
async fn a_missing_digest_header_means_the_manifest_is_hashed() {
    let fake = Fake::start(|request| match request.method.as_str() {
        "HEAD" => Response::new(405),
        _ => Response::new(200)
            .header(
                "Content-Type",
                "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
            )
            .body("{}"),
    })
    .await;
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    let desc = repository.resolve(Some("v1"), None).await.unwrap();
    assert_eq!(desc, Descriptor::of_bytes(media_type::OCI_MANIFEST, b"{}"));
}

#[tokio::test]
async fn absent_images_and_absent_hosts_are_told_apart() {
    let fake = Fake::start(|_| Response::new(404)).await;
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    let error = repository.resolve(Some("v1"), None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}/a/b:v1: not found", fake.host)
    );
    assert!(error.is_not_found());
    let unreachable = open("127.0.0.1:1", "a/b", Access::PULL, Arc::new(Anonymous));
    let error = unreachable
        .resolve(Some("v1"), None)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "failed to do request: Head \"http://127.0.0.1:1/v2/a/b/manifests/v1\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_origin_after_it() {
    tls();
    let mirror = Fake::start(|request| match request.target.contains("/hit") {
        true => Response::new(200)
            .header("Docker-Content-Digest", Digest::sha256(b"m").to_string())
            .body("m"),
        false => Response::new(404),
    })
    .await;
    let origin = Fake::start(|_| {
        Response::new(200)
            .header("Docker-Content-Digest", Digest::sha256(b"o").to_string())
            .body("o")
    })
    .await;
    let mut config = Config::new("t");
    let settings = registry::HostConfig {
        mirrors: vec![format!("{}/sub", mirror.host)],
        ..Default::default()
    };
    config.hosts.insert(origin.host.clone(), settings);
    let client = Client::new(config);
    let name = RepositoryName {
        domain: origin.host.clone(),
        path: "a/b".into(),
    };
    let repository = client
        .repository(name, Access::PULL, Arc::new(Anonymous))
        .unwrap();
    assert_eq!(
        repository.resolve(Some("hit"), None).await.unwrap().digest,
        Digest::sha256(b"m")
    );
    assert_eq!(
        repository.resolve(Some("miss"), None).await.unwrap().digest,
        Digest::sha256(b"o")
    );
    let namespace = origin.host.replace(':', "%3A");
    assert_eq!(
        mirror.lines()[0],
        format!("HEAD /v2/sub/a/b/manifests/hit?ns={namespace}")
    );
    assert_eq!(origin.lines(), ["HEAD /v2/a/b/manifests/miss"]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_tried_again_after_a_server_error() {
    let tries = AtomicUsize::new(0);
    let fake = Fake::start(move |request| match request.method.as_str() {
        "HEAD" => Response::new(404),
        "POST" => Response::new(202).header("Location", "/upload/1?state=s"),
        _ if tries.fetch_add(1, Ordering::SeqCst) < 2 => Response::new(502),
        _ => Response::new(201),
    })
    .await;
    let repository = open(&fake.host, "a/b", Access::PUSH, Arc::new(Anonymous));
    let data = Bytes::from_static(b"some layer");
    let pushed = repository
        .push_blob(
            &blob(&data),
            Arc::new(BytesSource(data.clone())),
            &[],
            Arc::new(|_| {}),
        )
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Sent);
    let puts: Vec<_> = fake
        .requests()
        .into_iter()
        .filter(|r| r.method == "PUT")
        .collect();
    assert_eq!(puts.len(), 3);
    assert_eq!(puts[2].body, data);
    let digest = Digest::sha256(&data).to_string().replace(':', "%3A");
    assert_eq!(puts[2].target, format!("/upload/1?state=s&digest={digest}"));
}

#[tokio::test]
async fn error_bodies_are_shown_and_bounded() {
    let fake = Fake::start(|_| {
        Response::new(403)
            .body(r#"{"errors":[{"code":"DENIED","message":"the key vault says no"}]}"#)
    })
    .await;
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    let error = repository
        .resolve(Some("v1"), None)
        .await
        .unwrap_err()
        .to_string();
    let url = format!("http://{}/v2/a/b/manifests/v1", fake.host);
    assert_eq!(
        error,
        format!(
            "unexpected status from GET request to {url}: 403 Forbidden\ndenied: the key vault says no"
        )
    );
}
