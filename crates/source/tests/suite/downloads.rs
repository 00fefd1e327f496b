//! Files by URL: names, checksums, headers, secrets, redirects, statuses.

use std::sync::Arc;

use oci::{Digest, ErrorKind};
use source::http::HttpSource;
use source::{Context, Facts, Source, SourceError, SourceInstance};
use testkit::registry::{FakeRegistry, Request, Response};

use crate::client::{Client, World, attrs, files};

fn instance(world: &World, address: &str, list: &[(&str, &str)]) -> Arc<dyn SourceInstance> {
    let source = HttpSource::new(world.store.clone(), "rbuild-test").unwrap();
    source.resolve("http", address, &attrs(list), None).unwrap()
}

async fn download(
    instance: &Arc<dyn SourceInstance>,
    ctx: &Context,
) -> Result<Vec<(String, String)>, SourceError> {
    instance.cache_key(ctx, 0).await?;
    Ok(files(&instance.snapshot(ctx).await?.unwrap()))
}

#[tokio::test]
async fn a_file_is_named_by_the_attribute_the_server_or_the_address() {
    let Some(world) = World::new() else { return };
    for (path, disposition, attribute, name) in [
        ("dir/a.tar", None, "", "a.tar"),
        ("dir/a%20b.tar?x=1#y", None, "", "a b.tar"),
        ("", None, "", "download"),
        ("dir/", None, "", "dir"),
        ("x", Some("attachment; filename=\"b.zip\""), "", "b.zip"),
        (
            "x",
            Some("attachment; filename=\"../../etc/passwd\""),
            "",
            "passwd",
        ),
        ("x", Some("attachment; filename=\"b.zip\""), "own", "own"),
        ("x", None, "../own", "own"),
        ("x", None, "..", "download"),
    ] {
        let fake = FakeRegistry::start(move |_| match disposition {
            Some(text) => Response::new(200)
                .header("Content-Disposition", text)
                .body("x"),
            None => Response::new(200).body("x"),
        })
        .await;
        let list: &[(&str, &str)] = if attribute.is_empty() {
            &[]
        } else {
            &[("http.filename", attribute)]
        };
        let file = instance(&world, &format!("{}/{path}", fake.host), list);
        let files_of_result = download(&file, &world.alone()).await.unwrap();
        assert_eq!(
            files_of_result,
            [(name.to_owned(), "x".to_owned())],
            "{path} {disposition:?} {attribute}"
        );
    }
}

#[tokio::test]
async fn a_file_that_is_not_the_one_of_the_checksum_is_refused_and_nothing_of_it_is_used() {
    let Some(world) = World::new() else { return };
    let fake = FakeRegistry::start(|_| Response::new(200).body("evil")).await;
    let address = format!("{}/f", fake.host);
    let expected = Digest::sha256("good").to_string();
    let pinned = instance(
        &world,
        &address,
        &[("http.checksum", &expected), ("http.filename", "f")],
    );
    let ctx = world.alone();
    // The checksum is the content, so the key needs nobody.
    let key = pinned.cache_key(&ctx, 0).await.unwrap();
    assert_eq!(
        (key.pin.as_str(), fake.lines().len()),
        (expected.as_str(), 0)
    );
    let error = pinned.snapshot(&ctx).await.unwrap_err();
    let actual = Digest::sha256("evil");
    assert_eq!(
        error.to_string(),
        format!("digest mismatch for http://{address}: {actual} (expected: {expected})")
    );
    assert_eq!(error.kind(), ErrorKind::Hostile);
    // Without the checksum the same file is as good as any.
    let plain = instance(&world, &address, &[]);
    assert_eq!(download(&plain, &ctx).await.unwrap()[0].1, "evil");
}

#[tokio::test]
async fn a_status_that_is_no_success_is_told_with_its_kind() {
    let Some(world) = World::new() else { return };
    for (status, kind) in [
        (400, ErrorKind::Failed),
        (401, ErrorKind::Denied),
        (403, ErrorKind::Denied),
        (404, ErrorKind::NotFound),
        (410, ErrorKind::NotFound),
        (413, ErrorKind::Failed),
        (429, ErrorKind::Unavailable),
        (500, ErrorKind::Unavailable),
        (503, ErrorKind::Unavailable),
    ] {
        let fake = FakeRegistry::start(move |_| Response::new(status)).await;
        let file = instance(&world, &format!("{}/f", fake.host), &[]);
        let error = download(&file, &world.alone()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("invalid response status {status}")
        );
        assert_eq!(error.kind(), kind, "{status}");
        assert_eq!(fake.lines().len(), 1, "{status}: not asked again");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_in_gos_words_and_without_the_login() {
    let Some(world) = World::new() else { return };
    let file = instance(&world, "me:secret@127.0.0.1:1/f?token=secret", &[]);
    let error = download(&file, &world.alone()).await.unwrap_err();
    let sentence = error.to_string();
    assert!(sentence.starts_with("Get \"http://"), "{sentence}");
    assert!(
        sentence.ends_with("dial tcp 127.0.0.1:1: connect: connection refused"),
        "{sentence}"
    );
    assert!(!sentence.contains("me:secret"), "{sentence}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(oci::error::chain(&error), sentence);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_the_next_build_asks_again() {
    let Some(world) = World::new() else { return };
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let fake = FakeRegistry::start(move |_| {
        let whole = Response::new(200).body("the whole file");
        if is_first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return whole.cut(5);
        }
        whole
    })
    .await;
    let address = format!("{}/f", fake.host);
    let ctx = world.alone();
    let error = download(&instance(&world, &address, &[]), &ctx)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let files_of_result = download(&instance(&world, &address, &[]), &ctx)
        .await
        .unwrap();
    assert_eq!(files_of_result[0].1, "the whole file");
}

/// What a request had of one header.
fn sent(request: &Request, name: &str) -> String {
    request.header(name).unwrap_or("-").to_owned()
}

#[tokio::test]
async fn only_headers_that_say_what_is_wanted_may_be_chosen() {
    let Some(world) = World::new() else { return };
    let fake = FakeRegistry::start(|_| Response::new(200).body("x")).await;
    let list = [
        ("http.header.accept", "text/x"),
        ("http.header.user-agent", "mine"),
        ("http.header.authorization", "Basic evil"),
        ("http.header.host", "evil.example"),
        ("http.header.x-forwarded-for", "10.0.0.1"),
    ];
    let plain = instance(&world, &format!("{}/f", fake.host), &[]);
    let chosen = instance(&world, &format!("{}/f", fake.host), &list);
    let ctx = world.alone();
    let keys = [
        plain.cache_key(&ctx, 0).await.unwrap().key,
        chosen.cache_key(&ctx, 0).await.unwrap().key,
    ];
    assert_ne!(keys[0], keys[1], "what is asked for may change the content");
    let requests = fake.requests();
    let headers = ["user-agent", "authorization", "host", "x-forwarded-for"];
    let of = |request: &Request| headers.map(|name| sent(request, name));
    assert_eq!(of(&requests[0]), ["rbuild-test", "-", &fake.host, "-"]);
    assert_eq!(of(&requests[1]), ["mine", "-", &fake.host, "-"]);
    assert_eq!(sent(&requests[1], "accept"), "text/x");
    assert!(
        requests
            .iter()
            .all(|request| sent(request, "accept-encoding") == "gzip")
    );
}

#[tokio::test]
async fn a_value_that_cannot_be_a_header_is_refused_and_not_shown() {
    let Some(mut world) = World::new() else {
        return;
    };
    let fake = FakeRegistry::start(|_| Response::new(200).body("x")).await;
    let address = format!("{}/f", fake.host);
    let mut client = Client::new("s", "/nowhere");
    client
        .secrets
        .insert("bad".into(), "secret\nX-Evil: 1".into());
    let ctx = world.connect(client);
    for (list, words) in [
        (
            &[("http.header.accept", "a\nX-Evil: 1")][..],
            "header is not a valid header value",
        ),
        (
            &[("http.authheadersecret", "bad")],
            "secret is not a valid header value",
        ),
    ] {
        let error = instance(&world, &address, list)
            .cache_key(&ctx, 0)
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(error.to_string(), words);
    }
    assert!(fake.lines().is_empty());
}

#[tokio::test]
async fn a_secret_goes_where_its_name_says_and_one_that_was_asked_for_must_be_there() {
    let Some(mut world) = World::new() else {
        return;
    };
    let fake = FakeRegistry::start(|_| Response::new(200).body("x")).await;
    let address = format!("{}/f", fake.host);
    let mut client = Client::new("s", "/nowhere");
    for (name, value) in [
        ("HTTP_AUTH_HEADER_127.0.0.1", "Basic own"),
        ("HTTP_AUTH_TOKEN_other.example", "other"),
        ("named", "Basic named"),
    ] {
        client.secrets.insert(name.into(), value.into());
    }
    let ctx = world.connect(client);
    for (list, authorization) in [
        (&[][..], "Basic own"),
        (&[("http.authheadersecret", "named")], "Basic named"),
    ] {
        instance(&world, &address, list)
            .cache_key(&ctx, 0)
            .await
            .unwrap();
        let last = fake.requests().pop().unwrap();
        assert_eq!(sent(&last, "authorization"), authorization, "{list:?}");
    }
    let before = fake.lines().len();
    let missing = instance(&world, &address, &[("http.authheadersecret", "none")]);
    let error = missing.cache_key(&ctx, 0).await.map(drop).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to retrieve HTTP auth secret none: secret none: not found"
    );
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(fake.lines().len(), before, "nobody is asked without it");
}

#[tokio::test]
async fn redirects_are_followed_ten_times_and_not_for_ever() {
    let Some(world) = World::new() else { return };
    for (hops, works) in [(0, true), (1, true), (10, true), (11, false), (1000, false)] {
        let fake = FakeRegistry::start(move |request| {
            let at: u32 = request.target.rsplit('/').next().unwrap().parse().unwrap();
            if at < hops {
                return Response::new(302).header("Location", format!("/{}", at + 1));
            }
            Response::new(200).body("x")
        })
        .await;
        let file = instance(&world, &format!("{}/0", fake.host), &[]);
        let answer = download(&file, &world.alone()).await;
        assert_eq!(answer.is_ok(), works, "{hops}: {answer:?}");
        assert!(fake.lines().len() <= 11, "{hops}: {}", fake.lines().len());
    }
}

#[tokio::test]
async fn what_is_fixed_about_a_download_is_told_before_anybody_has_it() {
    let Some(world) = World::new() else { return };
    let fake = FakeRegistry::start(|_| {
        Response::new(200)
            .header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .body("x")
    })
    .await;
    let file = instance(&world, &format!("{}/f.txt", fake.host), &[]);
    let facts = file.facts(&world.alone(), false).await.unwrap();
    assert_eq!(
        facts,
        Facts::Http {
            digest: Digest::sha256("x"),
            filename: "f.txt".into(),
            modified: Some(784_111_777),
        }
    );
}
