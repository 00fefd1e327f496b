//! What is asked again after which fault, how often, after how long, and what the user reads in the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oci::{Descriptor, Digest, ErrorKind, media_type};
use registry::{Access, Anonymous, BytesSource, Error, Pushed};
use testkit::registry::{FakeRegistry, Fault, Request, Response, image};
use tokio::time::Instant;

use crate::scripted::open;

const MANIFEST: &str = r#"{"schemaVersion":2,"layers":[]}"#;
const LAYER: &[u8] = b"the bytes of a layer, enough of them to be cut in half";

fn layer() -> Descriptor {
    Descriptor::of_bytes(media_type::OCI_LAYER, LAYER)
}

/// A registry with one image and one layer, whose answers to requests of `method` are spoilt.
async fn spoilt(
    method: &'static str,
    spoil: impl Fn(&Request, Response) -> Response + Send + Sync + 'static,
) -> FakeRegistry {
    let digest = |bytes: &[u8]| Digest::sha256(bytes).to_string();
    let manifest = media_type::OCI_MANIFEST.to_owned();
    let good = image([
        ("v1".into(), manifest.clone(), MANIFEST.into()),
        (digest(MANIFEST.as_bytes()), manifest, MANIFEST.into()),
        (digest(LAYER), media_type::OCI_LAYER.into(), LAYER.into()),
    ]);
    FakeRegistry::start(move |request| {
        let response = match request.method.as_str() {
            "POST" => Response::new(202).header("Location", "/upload/1"),
            "PUT" => Response::new(201),
            "HEAD" if request.target.contains("/new/") => Response::new(404),
            _ => good(request),
        };
        if request.method == method {
            return spoil(request, response);
        }
        response
    })
    .await
}

async fn read(fake: &FakeRegistry) -> Result<Vec<u8>, Error> {
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    let mut stream = repository.blob(&layer());
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn push(fake: &FakeRegistry) -> Result<Pushed, Error> {
    let repository = open(&fake.host, "a/new/b", Access::PUSH, Arc::new(Anonymous));
    let source = Arc::new(BytesSource(Bytes::from_static(LAYER)));
    repository
        .push_blob(&layer(), source, &[], Arc::new(|_| {}))
        .await
}

/// A fault that does not pass, and what comes of it.
struct Case {
    fault: Fault,
    requests: usize,
    seconds: u64,
    kind: ErrorKind,
    /// The sentence; `{url}` and `{digest}` stand for those of the blob.
    sentence: &'static str,
}

#[tokio::test(start_paused = true)]
async fn a_blob_whose_registry_stays_broken_is_given_up_after_as_many_tries_as_the_fault_deserves()
{
    use ErrorKind::{Denied, Failed, Hostile, NotFound, TimedOut, Unavailable};
    let case = |fault, requests, seconds, kind, sentence| Case {
        fault,
        requests,
        seconds,
        kind,
        sentence,
    };
    let status = |status, requests, seconds, kind, sentence| {
        case(Fault::Status(status), requests, seconds, kind, sentence)
    };
    for case in [
        // Final at once.
        status(
            302,
            1,
            0,
            Failed,
            "unexpected status from GET request to {url}: 302 Found",
        ),
        status(
            401,
            1,
            0,
            Denied,
            "unexpected status from GET request to {url}: 401 Unauthorized",
        ),
        status(
            403,
            1,
            0,
            Denied,
            "unexpected status from GET request to {url}: 403 Forbidden",
        ),
        status(404, 1, 0, NotFound, "content at {url} not found: not found"),
        status(
            413,
            1,
            0,
            Failed,
            "unexpected status from GET request to {url}: 413 Payload Too Large",
        ),
        // Twice in a row, and that after 1, 2 and 4 seconds again.
        status(
            500,
            8,
            7,
            Unavailable,
            "unexpected status from GET request to {url}: 500 Internal Server Error",
        ),
        status(
            503,
            8,
            7,
            Unavailable,
            "unexpected status from GET request to {url}: 503 Service Unavailable",
        ),
        status(
            504,
            8,
            7,
            Unavailable,
            "unexpected status from GET request to {url}: 504 Gateway Timeout",
        ),
        // Only after the pauses.
        status(
            502,
            4,
            7,
            Unavailable,
            "unexpected status from GET request to {url}: 502 Bad Gateway",
        ),
        // Five times in a row, and that after the pauses again.
        status(
            408,
            20,
            7,
            TimedOut,
            "unexpected status from GET request to {url}: 408 Request Timeout",
        ),
        status(
            429,
            20,
            7,
            Unavailable,
            "unexpected status from GET request to {url}: 429 Too Many Requests",
        ),
        case(
            Fault::WrongBytes,
            1,
            0,
            Hostile,
            "content of {url} has digest {got}, expected {digest}: failed precondition",
        ),
        case(
            Fault::RedirectLoop,
            11,
            0,
            Hostile,
            "unable to parse location {url}: stopped after 10 redirects",
        ),
        case(
            Fault::RedirectAway,
            1,
            0,
            Unavailable,
            "failed to do request: Get \"http://127.0.0.1:1/elsewhere\": dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        case(
            Fault::Truncated,
            4,
            7,
            Unavailable,
            "failed to read {digest} from {url}: {cause}",
        ),
    ] {
        let Case {
            fault,
            requests,
            seconds,
            kind,
            sentence,
        } = case;
        let fake = spoilt("GET", move |request, response| fault.of(request, response)).await;
        let start = Instant::now();
        let error = read(&fake).await.unwrap_err();
        assert_eq!(fake.lines().len(), requests, "{fault:?}");
        assert_eq!(start.elapsed().as_secs(), seconds, "{fault:?}");
        assert_eq!(error.kind(), kind, "{fault:?}");
        let digest = layer().digest.to_string();
        let wrong: Vec<u8> = LAYER.iter().map(|byte| byte ^ 1).collect();
        let sentence = sentence
            .replace(
                "{url}",
                &format!("http://{}/v2/a/b/blobs/{digest}", fake.host),
            )
            .replace("{digest}", &digest)
            .replace("{got}", Digest::sha256(wrong).as_str());
        match sentence.strip_suffix("{cause}") {
            Some(begin) => assert!(error.to_string().starts_with(begin), "{fault:?}: {error}"),
            None => assert_eq!(error.to_string(), sentence, "{fault:?}"),
        }
        assert_eq!(
            oci::error::chain(&error),
            error.to_string(),
            "{fault:?}: no cause is said twice"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_asks_for_patience_gets_it_up_to_a_minute_each_time() {
    for (retry_after, seconds) in [
        ("0", 1 + 2 + 4),
        ("3", 3 + 3 + 4),
        ("30", 90),
        ("3600", 180),
        ("18446744073709551615", 180),
        // Not a number of seconds: as if nothing were asked.
        ("Wed, 21 Oct 2026 07:28:00 GMT", 1 + 2 + 4),
        ("-5", 1 + 2 + 4),
    ] {
        let fake = spoilt("GET", move |_, _| {
            Response::new(429).header("Retry-After", retry_after)
        })
        .await;
        let start = Instant::now();
        let error = read(&fake).await.unwrap_err();
        assert_eq!(
            fake.lines().len(),
            4,
            "{retry_after}: the header stands for repeating at once"
        );
        assert_eq!(start.elapsed().as_secs(), seconds, "{retry_after}");
        assert!(
            error.to_string().ends_with("429 Too Many Requests"),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_again_at_once_or_not_at_all() {
    for (status, requests, sentence) in [
        (
            401,
            1,
            "unexpected status from HEAD request to {url}: 401 Unauthorized",
        ),
        // The reason is in the body, which the answer to HEAD does not have.
        (
            403,
            2,
            "unexpected status from GET request to {url}: 403 Forbidden",
        ),
        (404, 1, "{name}: not found"),
        // Some registries know no HEAD.
        (
            405,
            2,
            "unexpected status from GET request to {url}: 405 Method Not Allowed",
        ),
        (
            413,
            1,
            "unexpected status from HEAD request to {url}: 413 Payload Too Large",
        ),
        (
            429,
            5,
            "unexpected status from HEAD request to {url}: 429 Too Many Requests",
        ),
        (
            500,
            2,
            "unexpected status from HEAD request to {url}: 500 Internal Server Error",
        ),
        (
            502,
            1,
            "unexpected status from HEAD request to {url}: 502 Bad Gateway",
        ),
        (
            503,
            2,
            "unexpected status from HEAD request to {url}: 503 Service Unavailable",
        ),
    ] {
        let fake = FakeRegistry::start(move |_| Response::new(status)).await;
        let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
        let start = Instant::now();
        let error = repository.resolve(Some("v1"), None).await.unwrap_err();
        assert_eq!(fake.lines().len(), requests, "{status}: {:?}", fake.lines());
        assert_eq!(start.elapsed().as_secs(), 0, "{status}");
        let sentence = sentence
            .replace(
                "{url}",
                &format!("http://{}/v2/a/b/manifests/v1", fake.host),
            )
            .replace("{name}", &format!("{}/a/b:v1", fake.host));
        assert_eq!(error.to_string(), sentence, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_digest_is_looked_for_among_manifests_and_then_among_blobs() {
    for (status, paths) in [(404, 2), (500, 2), (403, 2)] {
        let fake = FakeRegistry::start(move |_| Response::new(status)).await;
        let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
        let digest = Digest::sha256(b"x");
        repository.resolve(None, Some(&digest)).await.unwrap_err();
        let lines = fake.lines();
        assert_eq!(lines.len(), paths, "{status}: {lines:?}");
        let among_blobs = lines.iter().any(|line| line.contains("/blobs/"));
        assert_eq!(among_blobs, status == 404, "{status}: {lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_resolving_believes_of_an_answer() {
    let ok = || Response::new(200).header("Content-Type", media_type::OCI_MANIFEST);
    let digest = Digest::sha256(b"{}").to_string();
    type Check = fn(Result<Descriptor, Error>) -> bool;
    let cases: [(&str, Response, Check); 6] = [
        (
            "a digest that is none",
            ok().header("Docker-Content-Digest", "sha256:short")
                .body("{}"),
            |result| matches!(result, Err(Error::BadDigest { text }) if text == "sha256:short"),
        ),
        (
            "a document that is too large to be one",
            ok().header("Docker-Content-Digest", &digest)
                .body(vec![b' '; (4 << 20) + 1]),
            |result| matches!(result, Err(Error::ManifestTooLarge { size, .. }) if size == (4 << 20) + 1),
        ),
        (
            "a document that is too large, without its digest",
            ok().body(vec![b' '; (4 << 20) + 1]),
            |result| matches!(result, Err(Error::ManifestTooLarge { .. })),
        ),
        (
            "the oldest kind of manifest",
            Response::new(200)
                .header(
                    "Content-Type",
                    "application/vnd.docker.distribution.manifest.v1+prettyjws",
                )
                .header("Docker-Content-Digest", &digest)
                .body("{}"),
            |result| matches!(result, Err(Error::Schema1)),
        ),
        (
            "the oldest kind of manifest, named as text",
            Response::new(200)
                .header("Content-Type", "text/plain; charset=utf-8")
                .header("Docker-Content-Digest", &digest)
                .body("{}"),
            |result| matches!(result, Err(Error::Schema1)),
        ),
        ("no digest: the body is read", ok().body("{}"), |result| {
            result.is_ok_and(|desc| desc.digest == Digest::sha256(b"{}") && desc.size == 2)
        }),
    ];
    for (name, response, check) in cases {
        let fake = FakeRegistry::start(move |_| response.clone()).await;
        let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
        let result = repository.resolve(Some("v1"), None).await;
        let result_text = format!("{result:?}");
        assert!(check(result), "{name}: {result_text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_that_stays_refused_is_given_up_after_as_many_tries_as_the_refusal_deserves() {
    for (method, status, requests, seconds) in [
        ("HEAD", 403, 2, 0),
        ("HEAD", 500, 8, 7),
        ("POST", 403, 2, 0),
        ("POST", 404, 2, 0),
        ("POST", 429, 24, 7),
        ("POST", 500, 12, 7),
        ("PUT", 401, 3, 0),
        ("PUT", 403, 3, 0),
        ("PUT", 413, 3, 0),
        ("PUT", 429, 28, 7),
        // A body that was sent whole is not sent again at once.
        ("PUT", 500, 12, 7),
        ("PUT", 503, 12, 7),
    ] {
        let fake = spoilt(method, move |_, _| Response::new(status)).await;
        let start = Instant::now();
        let error = push(&fake).await.unwrap_err();
        let lines = fake.lines();
        assert_eq!(lines.len(), requests, "{method} {status}: {lines:?}");
        assert_eq!(start.elapsed().as_secs(), seconds, "{method} {status}");
        let expected_text = match (method, status) {
            ("POST", 404) => "not found".to_owned(),
            _ => format!(": {status} "),
        };
        assert!(
            error.to_string().contains(&expected_text),
            "{method} {status}: {error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_survives_each_fault_that_passes() {
    for (method, status) in [
        ("HEAD", 500),
        ("POST", 503),
        ("PUT", 500),
        ("PUT", 429),
        ("PUT", 502),
    ] {
        let is_first = std::sync::atomic::AtomicBool::new(true);
        let fake = spoilt(method, move |_, response| {
            if is_first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                return Response::new(status);
            }
            response
        })
        .await;
        assert_eq!(
            push(&fake).await.unwrap(),
            Pushed::Sent,
            "{method} {status}"
        );
        let last_request = fake.requests().pop().unwrap();
        assert_eq!(
            (last_request.method.as_str(), &last_request.body[..]),
            ("PUT", LAYER),
            "{method} {status}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_words_of_a_registry_are_shown_as_far_as_they_are_a_registrys() {
    for (body, expected_words) in [
        (
            r#"{"errors":[{"code":"DENIED","message":"no"}]}"#.to_owned(),
            "\ndenied: no",
        ),
        (
            r#"{"errors":[{"code":"TOO_MANY_REQUESTS"},{"code":"X","message":"y"}]}"#.to_owned(),
            "\ntoo many requests\nx: y",
        ),
        (r#"{"errors":[]}"#.to_owned(), ""),
        ("<html>gateway</html>".to_owned(), ""),
        (String::new(), ""),
        (
            format!(
                r#"{{"errors":[{{"code":"A","message":"{}"}}]}}"#,
                "x".repeat(100_000)
            ),
            "",
        ),
        (
            format!(
                r#"{{"errors":[{}]}}"#,
                vec![r#"{"code":"A"}"#; 100].join(",")
            ),
            "\na\na\na\na\na\na\na\na\na\na\na\na\na\na\na\na",
        ),
    ] {
        let fake = spoilt("GET", move |_, _| Response::new(403).body(body.clone())).await;
        let error = read(&fake).await.unwrap_err().to_string();
        let (_, words) = error.split_once("403 Forbidden").unwrap();
        assert_eq!(words, expected_words);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_body_never_ends_is_told_without_it() {
    let fake = spoilt("GET", |_, _| {
        Response::new(403).body(vec![b'x'; 1000]).body_drips()
    })
    .await;
    let start = Instant::now();
    let error = read(&fake).await.unwrap_err();
    assert!(error.to_string().ends_with("403 Forbidden"), "{error}");
    assert!(
        start.elapsed() <= Duration::from_secs(11),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_range_that_was_not_asked_for_is_refused() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let fake = spoilt("GET", move |_, response| {
        if tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            return response.cut(10);
        }
        Response::new(206)
            .header("Content-Range", "bytes 5-53/54")
            .body(&LAYER[5..])
    })
    .await;
    tokio::time::pause();
    let error = read(&fake).await.unwrap_err();
    assert!(
        error.to_string().starts_with(
            "failed to decode content range: unhandled content range in response from http://"
        ),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Hostile);
}

#[tokio::test]
async fn a_blob_of_unknown_size_ends_where_the_body_ends() {
    let fake = spoilt("GET", |_, response| response).await;
    let repository = open(&fake.host, "a/b", Access::PULL, Arc::new(Anonymous));
    let mut desc = layer();
    desc.size = -1;
    let mut stream = repository.blob_unverified(&desc);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes, LAYER);
    assert!(
        stream.next().await.unwrap().is_none(),
        "an end stays an end"
    );
}
