//! Pushing: what is there already, mounts from neighbours, locations of uploads, manifests, files.

use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use oci::{Descriptor, Digest, ErrorKind, media_type};
use registry::{
    Access, Anonymous, BlobSource, ByteStream, BytesSource, Client, Config, Error, FileSource,
    HostConfig, Pushed, Repository, RepositoryName, is_skipped,
};
use testkit::registry::{FakeRegistry, Request, Response};

use crate::scripted::{open, tls};

const LAYER: &[u8] = b"some layer";

fn layer() -> Descriptor {
    Descriptor::of_bytes(media_type::OCI_LAYER_GZIP, LAYER)
}

fn repository(fake: &FakeRegistry) -> Repository {
    open(&fake.host, "a/b", Access::PUSH, Arc::new(Anonymous))
}

async fn push(fake: &FakeRegistry, mount_from: &[&str]) -> Result<Pushed, Error> {
    let source = Arc::new(BytesSource(Bytes::from_static(LAYER)));
    let mount_from: Vec<String> = mount_from.iter().map(|name| (*name).to_owned()).collect();
    repository(fake)
        .push_blob(&layer(), source, &mount_from, Arc::new(|_| {}))
        .await
}

/// Has nothing, takes everything; uploads go to `location`.
fn empty(request: &Request, location: &str) -> Response {
    match request.method.as_str() {
        "HEAD" => Response::new(404),
        "POST" => Response::new(202).header("Location", location),
        _ => Response::new(201),
    }
}

#[tokio::test]
async fn a_blob_that_is_there_is_not_sent() {
    let fake = FakeRegistry::start(|_| Response::new(200)).await;
    assert_eq!(push(&fake, &["c/d"]).await.unwrap(), Pushed::Existed);
    assert_eq!(
        fake.lines(),
        [format!("HEAD /v2/a/b/blobs/{}", layer().digest)]
    );
}

#[tokio::test]
async fn a_registry_that_has_the_blob_after_all_gets_no_bytes() {
    let fake = FakeRegistry::start(|request| match request.method.as_str() {
        "HEAD" => Response::new(404),
        _ => Response::new(201),
    })
    .await;
    assert_eq!(push(&fake, &[]).await.unwrap(), Pushed::Existed);
    assert_eq!(fake.lines().len(), 2);
}

#[tokio::test]
async fn neighbours_are_asked_in_order_until_one_has_it() {
    let fake = FakeRegistry::start(|request| match request.method.as_str() {
        "POST" if request.target.contains("from=has") => Response::new(201),
        _ => empty(request, "/upload/1"),
    })
    .await;
    let pushed = push(&fake, &["has/not", "a/b", "has/it", "has/too"])
        .await
        .unwrap();
    // `has/not` contains `has` as well: the first one that answers 201 counts.
    assert_eq!(pushed, Pushed::Mounted("has/not".into()));
    let digest = layer().digest.to_string().replace(':', "%3A");
    assert_eq!(
        fake.lines()[1..],
        [format!(
            "POST /v2/a/b/blobs/uploads/?mount={digest}&from=has%2Fnot"
        )]
    );
}

#[tokio::test]
async fn a_neighbour_that_refuses_does_not_fail_the_push_and_the_repository_is_no_neighbour_of_its_own()
 {
    for refusal in [202, 400, 401, 403, 404, 405] {
        let fake = FakeRegistry::start(move |request| match request.method.as_str() {
            "POST" if request.target.contains("from=") => Response::new(refusal),
            _ => empty(request, "/upload/1"),
        })
        .await;
        let pushed = push(&fake, &["private/one", "a/b", "private/two"])
            .await
            .unwrap();
        assert_eq!(pushed, Pushed::Sent, "{refusal}");
        let mounts: Vec<_> = fake
            .lines()
            .into_iter()
            .filter(|line| line.contains("from="))
            .collect();
        assert_eq!(mounts.len(), 2, "{refusal}: {mounts:?}");
        assert!(
            !mounts.iter().any(|line| line.contains("from=a%2Fb")),
            "{mounts:?}"
        );
    }
}

#[tokio::test]
async fn an_upload_goes_where_the_registry_says_in_every_way_it_may_say_it() {
    let digest = layer().digest.to_string().replace(':', "%3A");
    for (location, target) in [
        ("/upload/1", "/upload/1?digest={d}"),
        ("/upload/1?state=s", "/upload/1?state=s&digest={d}"),
        ("http://{host}/upload/2", "/upload/2?digest={d}"),
        // Without a scheme, as some registries answer.
        ("{host}/upload/3", "/upload/3?digest={d}"),
        ("//{host}/upload/4", "/upload/4?digest={d}"),
    ] {
        let fake = FakeRegistry::start(move |request| {
            let host = request.header("host").unwrap();
            empty(request, &location.replace("{host}", host))
        })
        .await;
        assert_eq!(push(&fake, &[]).await.unwrap(), Pushed::Sent, "{location}");
        let put_request = fake.requests().pop().unwrap();
        assert_eq!(
            put_request.target,
            target.replace("{d}", &digest),
            "{location}"
        );
        assert_eq!(put_request.body, LAYER);
        assert_eq!(
            put_request.header("content-type"),
            Some("application/octet-stream")
        );
        assert_eq!(put_request.header("content-length"), Some("10"));
    }
}

#[tokio::test]
async fn an_upload_that_leads_nowhere_is_an_error_that_names_it() {
    for (location, words) in [
        (None, "the upload has no location"),
        (
            Some("ftp://elsewhere/x"),
            "unable to parse location ftp://elsewhere/x: scheme ftp",
        ),
        (
            Some("http://[::1"),
            "unable to parse location http://[::1: invalid IPv6 address",
        ),
    ] {
        let fake = FakeRegistry::start(move |request| match (request.method.as_str(), location) {
            ("HEAD", _) => Response::new(404),
            (_, Some(location)) => Response::new(202).header("Location", location),
            (_, None) => Response::new(202),
        })
        .await;
        let error = push(&fake, &[]).await.unwrap_err();
        assert!(error.to_string().ends_with(words), "{location:?}: {error}");
        assert_eq!(error.kind(), ErrorKind::Hostile);
    }
}

#[tokio::test]
async fn the_login_does_not_follow_an_upload_to_another_host() {
    let elsewhere = FakeRegistry::start(|_| Response::new(201)).await;
    let target = format!("http://{}/bucket", elsewhere.host);
    let fake = FakeRegistry::start(move |request| match request.header("authorization") {
        None => Response::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) => empty(request, &target),
    })
    .await;
    let login = registry::StaticLogin {
        host: fake.host.clone(),
        login: registry::Login::new("me", "secret"),
    };
    let repository = open(&fake.host, "a/b", Access::PUSH, Arc::new(login));
    let source = Arc::new(BytesSource(Bytes::from_static(LAYER)));
    repository
        .push_blob(&layer(), source, &[], Arc::new(|_| {}))
        .await
        .unwrap();
    let put_request = elsewhere.requests().pop().unwrap();
    assert_eq!(
        (put_request.header("authorization"), &put_request.body[..]),
        (None, LAYER)
    );
}

#[tokio::test]
async fn a_manifest_is_sent_under_its_tag_unless_the_tag_is_this_manifest() {
    let bytes = Bytes::from_static(b"{}");
    let desc = Descriptor::of_bytes(media_type::OCI_MANIFEST, &bytes);
    let own_digest = desc.digest.to_string();
    for (tag, existing, pushed) in [
        (Some("v1"), Some(own_digest.clone()), Pushed::Existed),
        (
            Some("v1"),
            Some(Digest::sha256(b"other").to_string()),
            Pushed::Sent,
        ),
        (Some("v1"), None, Pushed::Sent),
        // Without a tag the address is the digest: that it is there is enough.
        (None, Some("anything".to_owned()), Pushed::Existed),
    ] {
        let existing_digest = existing.clone();
        let fake = FakeRegistry::start(move |request| match request.method.as_str() {
            "HEAD" => match &existing_digest {
                Some(digest) => Response::new(200).header("Docker-Content-Digest", digest),
                None => Response::new(404),
            },
            _ => Response::new(201),
        })
        .await;
        let outcome = repository(&fake)
            .push_manifest(&desc, bytes.clone(), tag)
            .await
            .unwrap();
        assert_eq!(outcome, pushed, "{tag:?} {existing:?}");
        if pushed == Pushed::Sent {
            let put_request = fake.requests().pop().unwrap();
            assert_eq!(put_request.target, "/v2/a/b/manifests/v1");
            assert_eq!(
                put_request.header("content-type"),
                Some(media_type::OCI_MANIFEST)
            );
            assert_eq!(put_request.body, b"{}");
        }
    }
}

#[tokio::test]
async fn a_media_type_that_cannot_be_a_header_is_refused_before_anything_is_sent() {
    let fake = FakeRegistry::start(|request| empty(request, "/upload/1")).await;
    let desc = Descriptor::of_bytes("a\r\nX-Evil: 1", b"{}");
    let result = repository(&fake)
        .push_manifest(&desc, "{}".into(), Some("v1"))
        .await;
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to decode media type: not a header value"
    );
    assert!(
        fake.lines().iter().all(|line| line.starts_with("HEAD ")),
        "{:?}",
        fake.lines()
    );
}

/// A blob that cannot be read.
struct Unreadable;

#[async_trait]
impl BlobSource for Unreadable {
    async fn open(&self) -> std::io::Result<ByteStream> {
        Err(std::io::Error::from_raw_os_error(28))
    }
}

#[tokio::test]
async fn a_blob_that_cannot_be_read_here_is_not_blamed_on_the_registry() {
    let fake = FakeRegistry::start(|request| empty(request, "/upload/1")).await;
    let result = repository(&fake)
        .push_blob(&layer(), Arc::new(Unreadable), &[], Arc::new(|_| {}))
        .await;
    let error = result.unwrap_err();
    let digest = layer().digest;
    assert_eq!(
        error.to_string(),
        format!("failed to read {digest} for the upload: No space left on device (os error 28)")
    );
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(!fake.lines().iter().any(|line| line.starts_with("PUT")));
}

#[tokio::test]
async fn a_file_is_sent_from_its_beginning_in_pieces_and_its_offset_stays() {
    let bytes: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file.seek(SeekFrom::Start(5)).unwrap();
    let source = Arc::new(FileSource(Arc::new(file.try_clone().unwrap())));
    let chunks: Vec<Bytes> = source.open().await.unwrap().try_collect().await.unwrap();
    assert_eq!(
        chunks.iter().map(Bytes::len).collect::<Vec<_>>(),
        [262_144, 262_144, 175_712]
    );
    assert_eq!(file.stream_position().unwrap(), 5);

    let fake = FakeRegistry::start(|request| empty(request, "/upload/1")).await;
    let sent_bytes = Arc::new(AtomicU64::new(0));
    let observed_bytes = Arc::clone(&sent_bytes);
    let desc = Descriptor::of_bytes(media_type::OCI_LAYER, &bytes);
    let observer = Arc::new(move |total| observed_bytes.store(total, Ordering::SeqCst));
    repository(&fake)
        .push_blob(&desc, source, &[], observer)
        .await
        .unwrap();
    assert_eq!(sent_bytes.load(Ordering::SeqCst), 700_000);
    assert!(fake.requests().pop().unwrap().body == bytes);
}

#[tokio::test]
async fn mirrors_get_no_pushes() {
    tls();
    let mirror = FakeRegistry::start(|_| Response::new(200)).await;
    let origin = FakeRegistry::start(|request| empty(request, "/upload/1")).await;
    let mut config = Config::new("t");
    let settings = HostConfig {
        mirrors: vec![mirror.host.clone()],
        ..HostConfig::default()
    };
    config.hosts.insert(origin.host.clone(), settings);
    let name = RepositoryName {
        domain: origin.host.clone(),
        path: "a/b".into(),
    };
    let repository = Client::new(config)
        .repository(name, Access::PUSH, Arc::new(Anonymous))
        .unwrap();
    let source = Arc::new(BytesSource(Bytes::from_static(LAYER)));
    let pushed = repository
        .push_blob(&layer(), source, &[], Arc::new(|_| {}))
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Sent);
    assert!(mirror.lines().is_empty());
}

#[test]
fn only_layers_that_may_not_be_distributed_are_left_out() {
    for (kind, skipped) in [
        (media_type::OCI_LAYER_GZIP, false),
        (media_type::OCI_MANIFEST, false),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            true,
        ),
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            true,
        ),
    ] {
        assert_eq!(
            is_skipped(&Descriptor::of_bytes(kind, b"x")),
            skipped,
            "{kind}"
        );
    }
}

#[tokio::test]
async fn referrers_come_from_the_api_or_from_the_fallback_tag() {
    let subject = Digest::sha256(b"subject");
    let index = r#"{"schemaVersion":2,"manifests":[
        {"mediaType":"m","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1,"artifactType":"sig"},
        {"mediaType":"m","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2,"artifactType":"sbom"},
        {"mediaType":"m","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":3,"artifactType":"sbom","annotations":{"in-toto.io/predicate-type":"p1"}}]}"#;
    let api = format!("/v2/a/b/referrers/{subject}");
    let tag = format!("/v2/a/b/manifests/sha256-{}", subject.hex());
    for (at, artifact_type, predicate_types, sizes, targets) in [
        (Some(&api), None, &[][..], &[1, 2, 3][..], vec![api.clone()]),
        (
            Some(&api),
            Some("sbom"),
            &[],
            &[2, 3],
            vec![format!("{api}?artifactType=sbom")],
        ),
        // A registry may ignore what it is told.
        (
            Some(&api),
            Some("sbom"),
            &["p0", "p1"],
            &[3],
            vec![format!(
                "{api}?artifactType=sbom&predicateType=p0&predicateType=p1"
            )],
        ),
        (
            Some(&tag),
            Some("sig"),
            &[],
            &[1],
            vec![format!("{api}?artifactType=sig"), tag.clone()],
        ),
        (
            Some(&tag),
            Some("other"),
            &[],
            &[],
            vec![format!("{api}?artifactType=other"), tag.clone()],
        ),
        (None, None, &[], &[], vec![api.clone(), tag.clone()]),
    ] {
        let at = at.cloned();
        let fake = FakeRegistry::start(move |request| {
            let path = request.target.split('?').next().map(str::to_owned);
            if at.is_some() && at == path {
                Response::new(200).body(index)
            } else {
                Response::new(404)
            }
        })
        .await;
        let referrers = repository(&fake)
            .referrers(&subject, artifact_type, predicate_types)
            .await
            .unwrap();
        let sizes_of_referrers: Vec<i64> = referrers.iter().map(|referrer| referrer.size).collect();
        assert_eq!(sizes_of_referrers, sizes, "{artifact_type:?}");
        let lines: Vec<String> = targets
            .iter()
            .map(|target| format!("GET {target}"))
            .collect();
        assert_eq!(fake.lines(), lines);
    }
}

#[tokio::test]
async fn referrers_that_cannot_be_read_are_an_error() {
    for (response, words) in [
        (
            Response::new(200).body("{"),
            "failed to decode referrers index: ",
        ),
        (Response::new(403), "403 Forbidden"),
        (
            Response::new(200).body(vec![b' '; (4 << 20) + 1]),
            "failed precondition",
        ),
    ] {
        let fake = FakeRegistry::start(move |_| response.clone()).await;
        let result = repository(&fake)
            .referrers(&Digest::sha256(b"s"), None, &[])
            .await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}
