//! Every fault of a registry in every place: what the client makes of it, and that it ends.

use std::sync::Arc;

use oci::{Descriptor, Digest, media_type};
use registry::{Access, Anonymous, Error};
use testkit::registry::{FakeRegistry, Fault, Request, image};

use crate::scripted::open;

const MANIFEST: &str = r#"{"schemaVersion":2,"layers":[]}"#;
const BLOB: &[u8] = b"the bytes of a layer, enough of them to be cut in half";

/// A registry with one image and one blob that has `fault` in answers to requests for which `when` is true.
async fn registry(
    fault: Fault,
    when: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> FakeRegistry {
    let manifest = media_type::OCI_MANIFEST.to_owned();
    let digest = |bytes: &[u8]| Digest::sha256(bytes).to_string();
    let good = image([
        ("v1".into(), manifest.clone(), MANIFEST.into()),
        (digest(MANIFEST.as_bytes()), manifest, MANIFEST.into()),
        (digest(BLOB), "application/octet-stream".into(), BLOB.into()),
    ]);
    FakeRegistry::start(move |request| {
        let response = good(request);
        if when(request) {
            return fault.of(request, response);
        }
        response
    })
    .await
}

async fn read(fake: &FakeRegistry, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    let mut stream = repository.blob(blob);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test(start_paused = true)]
async fn bytes_of_a_blob_come_whole_or_the_read_fails_whatever_the_registry_does() {
    let blob = Descriptor::of_bytes(media_type::OCI_LAYER, BLOB);
    for fault in Fault::QUICK {
        let fake = registry(fault, |r| r.target.contains("/blobs/")).await;
        let result = read(&fake, &blob).await;
        assert!(result.is_err(), "{fault:?}: {result:?}");
        let requests = fake.lines().len();
        assert!((1..=40).contains(&requests), "{fault:?}: {requests}");
    }
    let fake = registry(Fault::Silent, |_| false).await;
    assert_eq!(read(&fake, &blob).await.unwrap(), BLOB);
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_passes_costs_no_more_than_another_try() {
    let blob = Descriptor::of_bytes(media_type::OCI_LAYER, BLOB);
    for (fault, survives) in [
        (Fault::Truncated, true),
        (Fault::Status(429), true),
        (Fault::Status(500), true),
        (Fault::Status(503), true),
        (Fault::Status(403), false),
        (Fault::Status(404), false),
        (Fault::WrongBytes, false),
    ] {
        let is_first = std::sync::atomic::AtomicBool::new(true);
        let fake = registry(fault, move |r| {
            r.target.contains("/blobs/")
                && is_first.swap(false, std::sync::atomic::Ordering::SeqCst)
        })
        .await;
        let result = read(&fake, &blob).await;
        assert_eq!(result.is_ok(), survives, "{fault:?}: {result:?}");
        if let Ok(bytes) = result {
            assert_eq!(bytes, BLOB, "{fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_resolved_to_what_the_registry_has_or_to_nothing() {
    for fault in Fault::QUICK {
        let fake = registry(fault, |_| true).await;
        let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
        let by_tag = repository.resolve(Some("v1"), None).await;
        let pinned = Digest::sha256(MANIFEST);
        let document = Descriptor::of_bytes(media_type::OCI_MANIFEST, MANIFEST.as_bytes());
        let manifest = repository.manifest(&document).await;
        assert!(manifest.is_err(), "{fault:?}: {manifest:?}");
        // The answer to HEAD has no body, so nothing of it can be cut or changed.
        match fault {
            Fault::Truncated | Fault::WrongBytes => {
                assert_eq!(by_tag.unwrap().digest, pinned, "{fault:?}");
            }
            Fault::Slow
            | Fault::Silent
            | Fault::Status(_)
            | Fault::RedirectLoop
            | Fault::RedirectAway => assert!(by_tag.is_err(), "{fault:?}: {by_tag:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_registry_refuses_is_told_apart() {
    type Is = fn(&Error) -> bool;
    let cases: [(u16, Is); 3] = [
        (404, |error| error.to_string().contains("not found")),
        (403, |error| error.to_string().contains("403")),
        (500, |error| error.to_string().contains("500")),
    ];
    for (status, is_told) in cases {
        let fake = registry(Fault::Status(status), |r| r.target.contains("/manifests/")).await;
        let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
        let error = repository.resolve(Some("v1"), None).await.unwrap_err();
        assert!(is_told(&error), "{status}: {error}");
    }
}
