//! Several hosts of one namespace: their order, whose error is told, and what counts as a registry without TLS.

use std::sync::Arc;

use oci::{Descriptor, Digest, media_type};
use registry::{
    Access, Anonymous, Client, Config, Error, HostConfig, KeyPair, Repository, RepositoryName,
};
use testkit::registry::{FakeRegistry, Response};
use tokio::time::Instant;

use crate::scripted::tls;

/// A repository of `origin` with these mirrors.
fn open(origin: &str, mirrors: &[&FakeRegistry]) -> Repository {
    let settings = HostConfig {
        mirrors: mirrors.iter().map(|mirror| mirror.host.clone()).collect(),
        ..HostConfig::default()
    };
    with(origin, settings).unwrap()
}

fn with(origin: &str, settings: HostConfig) -> Result<Repository, Error> {
    tls();
    let mut config = Config::new("t");
    config.hosts.insert(origin.to_owned(), settings);
    let name = RepositoryName {
        domain: origin.into(),
        path: "a/b".into(),
    };
    Client::new(config).repository(name, Access::PULL, Arc::new(Anonymous))
}

fn has(bytes: &'static [u8]) -> Response {
    Response::new(200)
        .header("Content-Type", media_type::OCI_MANIFEST)
        .header("Docker-Content-Digest", Digest::sha256(bytes).to_string())
        .body(bytes)
}

#[tokio::test(start_paused = true)]
async fn hosts_are_asked_in_the_order_of_the_configuration_and_each_but_the_last_only_once() {
    for (first, second, origin, requests, served) in [
        (200, 200, 200, [1, 0, 0], Some(0)),
        (404, 200, 200, [1, 1, 0], Some(1)),
        (500, 404, 200, [1, 1, 1], Some(2)),
        (503, 503, 503, [1, 1, 2], None),
        (401, 403, 200, [1, 2, 1], Some(2)),
        (404, 404, 404, [1, 1, 1], None),
    ] {
        let bodies: [&'static [u8]; 3] = [b"first", b"second", b"origin"];
        let start = |status: u16, body: &'static [u8]| {
            FakeRegistry::start(move |_| {
                if status == 200 {
                    has(body)
                } else {
                    Response::new(status)
                }
            })
        };
        let fakes = [
            start(first, bodies[0]).await,
            start(second, bodies[1]).await,
            start(origin, bodies[2]).await,
        ];
        let repository = open(&fakes[2].host, &[&fakes[0], &fakes[1]]);
        let start = Instant::now();
        let result = repository.resolve(Some("v1"), None).await;
        assert_eq!(
            result.ok().map(|desc| desc.digest),
            served.map(|at: usize| Digest::sha256(bodies[at]))
        );
        let counts = [0, 1, 2].map(|at| fakes[at].lines().len());
        assert_eq!(counts, requests, "{first} {second} {origin}");
        assert_eq!(start.elapsed().as_secs(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_that_came_furthest_is_told_and_of_equal_ones_the_first() {
    for (mirror, origin, words) in [
        (404, 500, "500 Internal Server Error"),
        (500, 404, "500 Internal Server Error"),
        (403, 500, "403 Forbidden"),
        (404, 404, "not found"),
    ] {
        let mirror = FakeRegistry::start(move |_| Response::new(mirror)).await;
        let fake = FakeRegistry::start(move |_| Response::new(origin)).await;
        let error = open(&fake.host, &[&mirror])
            .resolve(Some("v1"), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.ends_with(words), "{origin}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn documents_and_blobs_come_from_whoever_has_the_right_bytes() {
    const GOOD: &[u8] = b"{\"good\":1}";
    let evil = FakeRegistry::start(|_| has(b"{\"evil\":1}")).await;
    let empty = FakeRegistry::start(|_| Response::new(404)).await;
    let origin = FakeRegistry::start(|_| has(GOOD)).await;
    let document = Descriptor::of_bytes(media_type::OCI_MANIFEST, GOOD);
    let repository = open(&origin.host, &[&evil, &empty]);
    assert_eq!(repository.manifest(&document).await.unwrap(), GOOD);
    let layer = Descriptor::of_bytes(media_type::OCI_LAYER, GOOD);
    let repository = open(&origin.host, &[&empty]);
    let mut stream = repository.blob(&layer);
    assert_eq!(stream.next().await.unwrap().unwrap(), GOOD);
    assert!(stream.next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_is_not_there_costs_one_attempt() {
    let origin = FakeRegistry::start(|_| has(b"o")).await;
    let settings = HostConfig {
        mirrors: vec!["127.0.0.1:1".into(), "http://127.0.0.1:1/sub".into()],
        ..HostConfig::default()
    };
    let repository = with(&origin.host, settings).unwrap();
    let start = Instant::now();
    assert_eq!(
        repository.resolve(None, None).await.unwrap().digest,
        Digest::sha256(b"o")
    );
    assert_eq!(start.elapsed().as_secs(), 0);
}

#[tokio::test]
async fn a_host_without_tls_is_spoken_to_plainly_only_where_that_is_configured() {
    for (plain_http, insecure, works) in [
        // A loopback host may be plain.
        (None, None, true),
        (Some(true), None, true),
        (Some(false), None, false),
        (Some(false), Some(true), false),
        // TLS is tried first; what answers is not TLS.
        (Some(true), Some(true), true),
        (None, Some(true), true),
    ] {
        let fake = FakeRegistry::start(|_| has(b"{}")).await;
        let settings = HostConfig {
            plain_http,
            insecure,
            ..HostConfig::default()
        };
        let repository = with(&fake.host, settings).unwrap();
        let result = repository.resolve(Some("v1"), None).await;
        assert_eq!(
            result.is_ok(),
            works,
            "{plain_http:?} {insecure:?}: {result:?}"
        );
    }
}

#[tokio::test]
async fn insecure_access_overrides_the_configuration_for_this_repository_only() {
    tls();
    let fake = FakeRegistry::start(|_| has(b"{}")).await;
    let mut config = Config::new("t");
    let strict = HostConfig {
        plain_http: Some(false),
        ..HostConfig::default()
    };
    config.hosts.insert(fake.host.clone(), strict);
    let client = Client::new(config);
    for (insecure, works) in [(false, false), (true, true), (false, false)] {
        let name = RepositoryName {
            domain: fake.host.clone(),
            path: "a/b".into(),
        };
        let access = Access::PULL.insecure(insecure);
        let repository = client
            .repository(name, access, Arc::new(Anonymous))
            .unwrap();
        let result = repository.resolve(Some("v1"), None).await;
        assert_eq!(result.is_ok(), works, "{insecure}: {result:?}");
    }
}

#[tokio::test]
async fn files_of_the_tls_configuration_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let missing = dir.path().join("missing.pem");
    let broken = file(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    );
    let certificates = dir.path().join("certs");
    std::fs::create_dir(&certificates).unwrap();
    std::fs::write(certificates.join("a.cert"), "x").unwrap();
    type Change = Box<dyn Fn(&mut HostConfig)>;
    let cases: [(Change, String); 4] = [
        (
            Box::new({
                let missing = missing.clone();
                move |settings| settings.ca = vec![missing.clone()]
            }),
            format!(
                "failed to read {}: No such file or directory (os error 2)",
                missing.display()
            ),
        ),
        (
            Box::new({
                let broken = broken.clone();
                move |settings| settings.ca = vec![broken.clone()]
            }),
            format!("{}: ", broken.display()),
        ),
        (
            Box::new({
                let (cert, key) = (broken.clone(), file("key.pem", "no key"));
                move |settings| {
                    settings.keypairs = vec![KeyPair {
                        cert: cert.clone(),
                        key: key.clone(),
                    }];
                }
            }),
            format!("failed to load keypair for {}: ", broken.display()),
        ),
        (
            Box::new({
                let certificates = certificates.clone();
                move |settings| settings.tls_config_dirs = vec![certificates.clone()]
            }),
            format!("failed to read {}: ", certificates.join("a.key").display()),
        ),
    ];
    for (change, words) in cases {
        let mut settings = HostConfig::default();
        change(&mut settings);
        let error = with("r.example", settings).unwrap_err();
        let begin = "failed to load TLS configuration of r.example: ";
        assert!(
            error.to_string().starts_with(&format!("{begin}{words}")),
            "{words}: {error}"
        );
        assert_eq!(error.kind(), oci::ErrorKind::Invalid);
    }
    // A folder that is not there is no error, as with the reference.
    let settings = HostConfig {
        tls_config_dirs: vec![dir.path().join("nothing")],
        ..HostConfig::default()
    };
    assert!(with("r.example", settings).is_ok());
}
