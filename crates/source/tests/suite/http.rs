use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oci::Digest;
use parking_lot::Mutex;
use source::Source;
use source::http::HttpSource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::{Client, World, attrs, files, listed};

/// A server of one file with an ETag, that writes down what it was asked.
pub(crate) async fn serve(
    body: Arc<Mutex<String>>,
    gets: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    task::spawn("server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 8192];
            let n = stream.read(&mut buffer).await.unwrap();
            let head = String::from_utf8_lossy(&buffer[..n]).to_lowercase();
            heads.lock().push(head.clone());
            let body = body.lock().clone();
            let etag = format!("\"{}\"", Digest::sha256(&body).hex());
            let mut out = if head.contains(&etag) {
                format!("HTTP/1.1 304 Not Modified\r\nETag: W/{etag}\r\n")
            } else {
                let further_headers = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Disposition: attachment; filename=\"../x.txt\"";
                format!("HTTP/1.1 200 OK\r\nETag: {etag}\r\n{further_headers}\r\nContent-Length: {}\r\n", body.len())
            };
            out.push_str("Connection: close\r\n\r\n");
            if head.starts_with("get") && out.contains(" 200 ") {
                gets.fetch_add(1, Ordering::SeqCst);
                out.push_str(&body);
            }
            let _sent = stream.write_all(out.as_bytes()).await;
        }
    })
    .detach();
    address.to_string()
}

#[tokio::test]
async fn a_file_is_downloaded_once_and_named_safely() {
    let Some(mut world) = World::new() else {
        return;
    };
    let (body, gets, heads) = (
        Arc::new(Mutex::new("hello".to_owned())),
        Arc::new(AtomicUsize::new(0)),
        Arc::default(),
    );
    let host = serve(body.clone(), gets.clone(), Arc::clone(&heads)).await;
    let mut client = Client::new("s1", "/nowhere");
    client
        .secrets
        .insert("HTTP_AUTH_TOKEN_127.0.0.1".into(), "tok".into());
    let ctx = world.connect(client);
    let source = HttpSource::new(world.store.clone(), "test").unwrap();
    let resolve = |list: &[(&str, &str)]| {
        source
            .resolve("http", &format!("{host}/dir/y.bin"), &attrs(list), None)
            .unwrap()
    };

    let instance = resolve(&[("http.perm", "0755"), ("http.uid", "7")]);
    let key = instance.cache_key(&ctx, 0).await.unwrap();
    let json = format!(
        "{{\"Filename\":\"x.txt\",\"Perm\":493,\"UID\":7,\"GID\":0,\"Checksum\":\"{}\",\"LastModTime\":\"Sun, 06 Nov 1994 08:49:37 GMT\"}}",
        Digest::sha256("hello")
    );
    assert_eq!(key.key, Digest::sha256(json).to_string());
    let snapshot = instance.snapshot(&ctx).await.unwrap().unwrap();
    assert_eq!(files(&snapshot), listed(&[("x.txt", "hello")]));
    let meta = snapshot.root().unwrap().lstat("x.txt").unwrap();
    assert_eq!(
        (meta.mode & 0o7777, meta.uid, meta.mtime),
        (0o755, 7, 784_111_777_000_000_000)
    );
    assert!(heads.lock()[0].contains("authorization: bearer tok"));

    let second_instance = resolve(&[("http.perm", "0755"), ("http.uid", "7")]);
    assert_eq!(
        second_instance.cache_key(&ctx, 0).await.unwrap().key,
        key.key
    );
    assert_eq!(
        second_instance.snapshot(&ctx).await.unwrap().unwrap().id(),
        snapshot.id()
    );
    assert_eq!(gets.load(Ordering::SeqCst), 1);

    *body.lock() = "changed".into();
    let changed = resolve(&[("http.perm", "0755"), ("http.uid", "7")]);
    assert_ne!(changed.cache_key(&ctx, 0).await.unwrap().key, key.key);
    assert_eq!(gets.load(Ordering::SeqCst), 2);

    let expected = Digest::sha256("hello").to_string();
    let pinned = resolve(&[("http.checksum", &expected)]);
    assert_eq!(pinned.cache_key(&ctx, 0).await.unwrap().pin, expected);
    let error = pinned.snapshot(&ctx).await.unwrap_err().to_string();
    assert!(error.starts_with("digest mismatch for http://"), "{error}");
}

#[tokio::test]
async fn a_clients_upload_is_a_file_as_well() {
    let Some(mut world) = World::new() else {
        return;
    };
    let ctx = world.connect(Client::new("s1", "/nowhere"));
    let source = HttpSource::new(world.store.clone(), "test").unwrap();
    let instance = source
        .resolve(
            "http",
            "buildkit-session/abc",
            &attrs(&[("http.filename", "context.tar")]),
            None,
        )
        .unwrap();
    instance.cache_key(&ctx, 0).await.unwrap();
    let snapshot = instance.snapshot(&ctx).await.unwrap().unwrap();
    assert_eq!(
        files(&snapshot),
        listed(&[("context.tar", "uploaded /abc")])
    );
}

/// What a server answers to a request whose file is kept, and what comes of it.
struct Change {
    name: &'static str,
    /// The ETag of the content.
    etag: &'static str,
    /// What answers while the condition names it; `None` for no ETag.
    later: Option<&'static str>,
    /// Whether "not modified" is answered to any condition, or even to none.
    always: Always,
    /// Whether the file is taken to be the same, or is asked for again, or cannot be had.
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq)]
enum Always {
    No,
    AnyCondition,
    EvenWithout,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Same,
    Again,
    Error,
}

#[tokio::test]
async fn not_modified_is_believed_however_the_server_writes_the_etag() {
    let change = |name, etag, later, always, outcome| Change {
        name,
        etag,
        later,
        always,
        outcome,
    };
    let changes = [
        change("plain", "\"a\"", Some("\"a\""), Always::No, Outcome::Same),
        change(
            "weak later",
            "\"a\"",
            Some("W/\"a\""),
            Always::No,
            Outcome::Same,
        ),
        change(
            "weak first",
            "W/\"a\"",
            Some("\"a\""),
            Always::No,
            Outcome::Same,
        ),
        change("none", "\"a\"", None, Always::No, Outcome::Same),
        change(
            "gzip later",
            "\"a\"",
            Some("\"a-gzip\""),
            Always::No,
            Outcome::Same,
        ),
        change(
            "gzip first",
            "W/\"a-gzip\"",
            Some("\"a\""),
            Always::No,
            Outcome::Same,
        ),
        change(
            "outside",
            "\"a\"",
            Some("\"a\"-gzip"),
            Always::No,
            Outcome::Same,
        ),
        change(
            "another",
            "\"a\"",
            Some("\"b\""),
            Always::AnyCondition,
            Outcome::Again,
        ),
        change(
            "broken",
            "\"a\"",
            Some("\"b\""),
            Always::EvenWithout,
            Outcome::Error,
        ),
    ];
    for Change {
        name,
        etag,
        later,
        always,
        outcome,
    } in changes
    {
        let Some(world) = World::new() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        let gets = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&gets);
        task::spawn("server", async move {
            let mut has_served = false;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = vec![0; 8192];
                let n = stream.read(&mut buffer).await.unwrap();
                let head = String::from_utf8_lossy(&buffer[..n]).to_lowercase();
                let is_conditional = head.contains("if-none-match");
                let unchanged = match always {
                    Always::No => is_conditional && head.contains(&etag[etag.len() - 3..]),
                    Always::AnyCondition => is_conditional,
                    Always::EvenWithout => has_served,
                };
                let mut out = if unchanged {
                    let etag = later.map_or_else(String::new, |e| format!("ETag: {e}\r\n"));
                    format!("HTTP/1.1 304 Not Modified\r\n{etag}")
                } else {
                    format!("HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: 4\r\n")
                };
                out.push_str("Connection: close\r\n\r\n");
                if head.starts_with("get") && !unchanged {
                    counted.fetch_add(1, Ordering::SeqCst);
                    has_served = true;
                    out.push_str("file");
                }
                let _sent = stream.write_all(out.as_bytes()).await;
            }
        })
        .detach();
        let source = HttpSource::new(world.store.clone(), "test").unwrap();
        let build = || async {
            let ctx = world.alone();
            let list = attrs(&[]);
            let file = source.resolve("http", &format!("{host}/f"), &list, None);
            let file = file.unwrap();
            file.cache_key(&ctx, 0).await?;
            file.snapshot(&ctx).await
        };
        let first_snapshot = build().await.unwrap().unwrap();
        let second_result = build().await;
        let actual = match &second_result {
            Err(_) => Outcome::Error,
            Ok(Some(found)) if found.id() == first_snapshot.id() => Outcome::Same,
            Ok(_) => Outcome::Again,
        };
        assert_eq!(actual, outcome, "{name}: {second_result:?}");
        let downloads = if outcome == Outcome::Again { 2 } else { 1 };
        assert_eq!(gets.load(Ordering::SeqCst), downloads, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_ends_in_an_error_with_its_name() {
    for drips in [false, true] {
        let Some(world) = World::new() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        task::spawn("server", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                task::spawn("connection", async move {
                    let mut buffer = vec![0; 8192];
                    let _asked = stream.read(&mut buffer).await;
                    if drips {
                        let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
                        let _sent = stream.write_all(head.as_bytes()).await;
                    }
                    while drips && stream.write_all(b"x").await.is_ok() {
                        task::clock::sleep(std::time::Duration::from_secs(1)).await;
                    }
                    std::future::pending::<()>().await;
                })
                .detach();
            }
        })
        .detach();
        let source = HttpSource::new(world.store.clone(), "test").unwrap();
        let list = attrs(&[]);
        let file = source.resolve("http", &format!("u:CANARY@{host}/f"), &list, None);
        let start = tokio::time::Instant::now();
        let error = file
            .unwrap()
            .cache_key(&world.alone(), 0)
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("127.0.0.1") && !text.contains("CANARY"),
            "{text}"
        );
        assert!(
            start.elapsed().as_secs() < 65,
            "{drips} {:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn a_redirect_takes_no_credentials_to_another_host() {
    let Some(mut world) = World::new() else {
        return;
    };
    let request_heads = Arc::<Mutex<Vec<String>>>::default();
    let serve = |to: Option<String>| {
        let request_heads = Arc::clone(&request_heads);
        async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let host = listener.local_addr().unwrap().to_string();
            task::spawn("server", async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut buffer = vec![0; 8192];
                    let n = stream.read(&mut buffer).await.unwrap();
                    let answer = match &to {
                        Some(to) => format!(
                            "HTTP/1.1 302 X\r\nLocation: http://{to}/f\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                        ),
                        None => {
                            request_heads.lock()
                                .push(String::from_utf8_lossy(&buffer[..n]).to_lowercase());
                            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx".into()
                        }
                    };
                    let _sent = stream.write_all(answer.as_bytes()).await;
                }
            })
            .detach();
            host
        }
    };
    let elsewhere = serve(None).await;
    let host = serve(Some(elsewhere)).await;
    let mut client = Client::new("s1", "/nowhere");
    for name in ["HTTP_AUTH_TOKEN_127.0.0.1", "MINE"] {
        client.secrets.insert(name.into(), "canary".into());
    }
    let ctx = world.connect(client);
    let source = HttpSource::new(world.store.clone(), "test").unwrap();
    for (user, list) in [
        ("", vec![]),
        ("u:canary@", vec![]),
        ("", vec![("http.authheadersecret", "MINE")]),
    ] {
        let list = attrs(&list);
        let file = source.resolve("http", &format!("{user}{host}/f"), &list, None);
        file.unwrap().cache_key(&ctx, 0).await.unwrap();
    }
    let request_heads = request_heads.lock();
    assert_eq!(request_heads.len(), 3, "{request_heads:?}");
    assert!(
        request_heads
            .iter()
            .all(|head| !head.contains("authorization"))
    );
}
