//! Hosts that accept and say nothing, or as good as nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oci::{Descriptor, Digest, media_type};
use parking_lot::Mutex;
use registry::{
    Access, Anonymous, BytesSource, Client, Config, Error, HostConfig, Repository, RepositoryName,
    WaitObserver,
};
use tokio::time::Instant;

use crate::fake::{Fake, Request, Response};
use crate::scripted::tls;

const LAYER: &[u8] = &[7; 100_000];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Work {
    Resolve,
    ResolveDigest,
    Manifest,
    Blob,
    Referrers,
    PushBlob,
    PushManifest,
}

const ALL: [Work; 7] = [
    Work::Resolve,
    Work::ResolveDigest,
    Work::Manifest,
    Work::Blob,
    Work::Referrers,
    Work::PushBlob,
    Work::PushManifest,
];

async fn run(work: Work, repository: &Repository) -> Result<(), Error> {
    let layer = Descriptor::of_bytes(media_type::OCI_LAYER_GZIP, LAYER);
    let manifest = Descriptor::of_bytes(media_type::OCI_MANIFEST, LAYER);
    match work {
        Work::Resolve => repository.resolve(Some("v1"), None).await.map(drop),
        Work::ResolveDigest => {
            let digest = Digest::sha256(LAYER);
            repository.resolve(None, Some(&digest)).await.map(drop)
        }
        Work::Manifest => repository.manifest(&manifest).await.map(drop),
        Work::Blob => {
            let mut stream = repository.blob(&layer);
            while stream.next().await?.is_some() {}
            Ok(())
        }
        Work::Referrers => repository
            .referrers(&layer.digest, None, &[])
            .await
            .map(drop),
        Work::PushBlob => {
            let source = Arc::new(BytesSource(Bytes::from_static(LAYER)));
            let unobserved = Arc::new(|_| {});
            repository
                .push_blob(&layer, source, &[], unobserved)
                .await
                .map(drop)
        }
        Work::PushManifest => repository
            .push_manifest(&manifest, Bytes::from_static(LAYER), Some("v1"))
            .await
            .map(drop),
    }
}

fn open(host: &str, mirror: Option<&str>) -> (Repository, Arc<Mutex<Vec<String>>>) {
    tls();
    let mut config = Config::new("t");
    let settings = HostConfig {
        mirrors: mirror.iter().map(|m| (*m).to_owned()).collect(),
        ..HostConfig::default()
    };
    config.hosts.insert(host.to_owned(), settings);
    let name = RepositoryName {
        domain: host.into(),
        path: "a/b".into(),
    };
    let hosts_shown = Arc::<Mutex<Vec<String>>>::default();
    let hosts = Arc::clone(&hosts_shown);
    let observer = WaitObserver::new(move |host| {
        hosts.lock().push(host.to_owned());
        Box::new(())
    });
    let repository = Client::new(config)
        .repository(name, Access::PUSH, Arc::new(Anonymous))
        .unwrap();
    (repository.with_observer(observer), hosts_shown)
}

/// An answer made worse.
type Attack = fn(Response) -> Response;

/// What is wrong with an answer, by name.
fn attacks() -> [(&'static str, Attack); 3] {
    [
        ("silent", |_| Response::silent()),
        ("head drips", Response::head_drips),
        ("body drips", Response::body_drips),
    ]
}

fn honest(_: &Request) -> Response {
    Response::new(200)
        .header("Content-Type", media_type::OCI_MANIFEST)
        .header("Docker-Content-Digest", Digest::sha256(LAYER).to_string())
        .body(LAYER)
}

#[tokio::test(start_paused = true)]
async fn a_host_that_says_nothing_ends_in_an_error_with_its_name() {
    for (name, attack) in attacks() {
        for work in ALL {
            let reads = matches!(work, Work::Manifest | Work::Blob | Work::Referrers);
            if name == "body drips" && !reads {
                continue;
            }
            let fake = Fake::start(move |request| attack(honest(request))).await;
            let (repository, hosts_shown) = open(&fake.host, None);
            let start = Instant::now();
            let error = run(work, &repository).await.unwrap_err();
            let elapsed = start.elapsed();
            let case = format!("{name} {work:?} {elapsed:?} {error}");
            assert!(elapsed < Duration::from_secs(100), "{case}");
            assert!(error.to_string().contains(&fake.host), "{case}");
            // A blob that drips is shown by the count of its bytes.
            if (name, work) != ("body drips", Work::Blob) {
                assert_eq!(hosts_shown.lock().first(), Some(&fake.host), "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_may_not_take_minutes_and_a_layer_may() {
    let fake = Fake::start(|request| honest(request).body_is_slow()).await;
    let (repository, _) = open(&fake.host, None);
    let start = Instant::now();
    let error = run(Work::Manifest, &repository).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(125), "{error}");
    assert!(error.to_string().contains(&fake.host), "{error}");
    run(Work::Blob, &repository).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_says_nothing_is_passed_over() {
    for (name, attack) in attacks() {
        for work in [Work::Resolve, Work::Manifest, Work::Blob] {
            if name == "body drips" && work == Work::Resolve {
                continue;
            }
            let mirror = Fake::start(move |request| attack(honest(request))).await;
            let origin = Fake::start(honest).await;
            let (repository, _) = open(&origin.host, Some(&mirror.host));
            let start = Instant::now();
            run(work, &repository).await.unwrap();
            assert!(
                start.elapsed() < Duration::from_secs(65),
                "{name} {work:?} {:?}",
                start.elapsed()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_server_that_says_nothing_is_named() {
    let realm = Fake::start(|_| Response::silent()).await;
    let at = realm.host.clone();
    let fake = Fake::start(move |_| {
        let challenge = format!("Bearer realm=\"http://{at}/token\",service=s");
        Response::new(401).header("WWW-Authenticate", challenge)
    })
    .await;
    let (repository, hosts_shown) = open(&fake.host, None);
    let start = Instant::now();
    let error = run(Work::Resolve, &repository).await.unwrap_err();
    assert!(error.to_string().contains(&realm.host), "{error}");
    assert!(start.elapsed() < Duration::from_secs(70));
    assert_eq!(hosts_shown.lock().first(), Some(&realm.host));
}

#[tokio::test(start_paused = true)]
async fn a_registry_may_take_its_time_to_verify_an_upload() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let fake = Fake::start(move |request| match request.method.as_str() {
        "HEAD" => Response::new(404),
        "POST" => Response::new(202).header("Location", "/upload/1"),
        // The head of 60 bytes and more takes longer than any other answer may.
        _ if tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => {
            Response::new(201).head_drips()
        }
        _ => Response::new(500),
    })
    .await;
    let (repository, _) = open(&fake.host, None);
    let start = Instant::now();
    run(Work::PushBlob, &repository).await.unwrap();
    assert!(start.elapsed() > Duration::from_secs(50));
}

#[tokio::test]
async fn a_digest_that_is_not_there_is_told_with_its_tag() {
    let fake = Fake::start(|_| Response::new(404)).await;
    let (repository, _) = open(&fake.host, None);
    let digest = Digest::sha256(b"x");
    let host = &fake.host;
    for (tag, digest, expected) in [
        (
            Some("1.23"),
            Some(&digest),
            format!("{host}/a/b:1.23@{digest}: not found"),
        ),
        (
            None,
            Some(&digest),
            format!("{host}/a/b@{digest}: not found"),
        ),
        (Some("1.23"), None, format!("{host}/a/b:1.23: not found")),
        (None, None, format!("{host}/a/b:latest: not found")),
    ] {
        let error = repository.resolve(tag, digest).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_the_host_asks_for_is_shown() {
    let fake = Fake::start(|_| Response::new(429).header("Retry-After", "3600")).await;
    let (repository, hosts_shown) = open(&fake.host, None);
    let start = Instant::now();
    run(Work::Manifest, &repository).await.unwrap_err();
    assert!(start.elapsed() <= Duration::from_secs(185));
    assert_eq!(hosts_shown.lock().first(), Some(&fake.host));
}

#[tokio::test(start_paused = true)]
async fn a_name_is_resolved_after_the_patience_that_its_host_asks_for() {
    let request_count = std::sync::atomic::AtomicUsize::new(0);
    let digest = Digest::sha256(b"{}");
    let named_digest = digest.to_string();
    let fake = Fake::start(move |_| {
        if request_count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            return Response::new(429).header("Retry-After", "30");
        }
        Response::new(200)
            .header("Docker-Content-Digest", &named_digest)
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .body("{}")
    })
    .await;
    let (repository, hosts_shown) = open(&fake.host, None);
    let start = Instant::now();
    let resolved = repository.resolve(Some("latest"), None).await.unwrap();
    assert_eq!(resolved.digest, digest);
    assert!(start.elapsed() >= Duration::from_secs(30));
    assert_eq!(hosts_shown.lock().first(), Some(&fake.host));
}
