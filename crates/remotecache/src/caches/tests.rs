use super::*;
use crate::fixture::Plain;

#[tokio::test(start_paused = true)]
async fn a_cache_in_a_slow_registry_delays_the_build_for_a_minute_at_most() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(store::Config::new(dir.path())).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    task::spawn("registry", async move {
        // Each answer comes just before its time limit, and redirects to another request.
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let _asked = stream.read(&mut buffer).await;
            task::clock::sleep(Duration::from_secs(25)).await;
            let head = "HTTP/1.1 307 X\r\nConnection: close\r\nLocation: /v2/again\r\nContent-Length: 0\r\n\r\n";
            let _sent = stream.write_all(head.as_bytes()).await;
        }
    })
    .detach();
    let sessions = SessionManager::new();
    let credentials: CredentialsOf = Arc::new(|_| Arc::new(registry::Anonymous));
    let client = Client::new(registry::Config::new("test"));
    let caches = Caches::new(store, client, credentials, Arc::clone(&sessions));
    let context = CacheContext {
        sessions: Group::new(sessions, [""]),
        progress: progress::Writer::null(),
    };
    let attrs = BTreeMap::from([("ref".to_owned(), format!("{host}/a/b:c"))]);
    let started = tokio::time::Instant::now();
    let read = caches.import::<Plain>("registry", &attrs, &context).await;
    let text = read.unwrap_err().to_string();
    assert!(text.contains(&host.to_string()), "{text}");
    assert!(started.elapsed() <= IMPORT_TIMEOUT + Duration::from_secs(1));
}

fn caches(dir: &std::path::Path) -> (Caches, CacheContext) {
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let store = Store::open(store::Config::new(dir)).unwrap();
    let sessions = SessionManager::new();
    let credentials: CredentialsOf = Arc::new(|_| Arc::new(registry::Anonymous));
    let client = Client::new(registry::Config::new("test"));
    let caches = Caches::new(store, client, credentials, Arc::clone(&sessions));
    let context = CacheContext {
        sessions: Group::new(sessions, [""]),
        progress: progress::Writer::null(),
    };
    (caches, context)
}

fn attrs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    owned.collect()
}

#[tokio::test]
async fn missing_attributes_of_an_export_are_refused_before_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let (caches, context) = caches(dir.path());
    let failed = "failed to configure";
    for (kind, pairs, sentence) in [
        (
            "registry",
            &[][..],
            format!("{failed} registry cache exporter: missing ref"),
        ),
        (
            "local",
            &[],
            format!("{failed} local cache exporter: local cache exporter requires dest"),
        ),
        (
            "local",
            &[("dest", "")],
            format!("{failed} local cache exporter: local cache exporter requires dest"),
        ),
        (
            "local",
            &[("dest", "x"), ("compression", "lz4")],
            format!("{failed} local cache exporter: unsupported compression type lz4"),
        ),
        (
            "registry",
            &[("ref", "a/b"), ("registry.insecure", "maybe")],
            format!(
                "{failed} registry cache exporter: failed to parse registry.insecure: strconv.ParseBool: parsing \"maybe\": invalid syntax"
            ),
        ),
        ("s3", &[], "cache export to s3 is not supported".to_owned()),
        (
            "gha",
            &[],
            "cache export to gha is not supported".to_owned(),
        ),
        ("", &[], "unknown cache exporter: \"\"".to_owned()),
        (
            "Inline",
            &[],
            "unknown cache exporter: \"Inline\"".to_owned(),
        ),
    ] {
        let error = caches
            .exporter(kind, &attrs(pairs), &context.sessions)
            .unwrap_err();
        assert_eq!(error.to_string(), sentence);
    }
}

#[tokio::test]
async fn an_exporter_has_a_title_and_says_whether_the_build_depends_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let (caches, context) = caches(dir.path());
    for (kind, pairs, name, is_inline, ignores_errors) in [
        ("inline", &[][..], "exporting inline cache", true, false),
        (
            "inline",
            &[("ignore-error", "true"), ("mode", "max")],
            "exporting inline cache",
            true,
            true,
        ),
        (
            "local",
            &[("dest", "x")],
            "exporting cache to client directory",
            false,
            false,
        ),
        (
            "registry",
            &[("ref", "h:1/a"), ("ignore-error", "1")],
            "exporting cache to registry",
            false,
            true,
        ),
    ] {
        let exporter = caches
            .exporter(kind, &attrs(pairs), &context.sessions)
            .unwrap();
        assert_eq!((exporter.name(), exporter.is_inline()), (name, is_inline));
        assert_eq!(exporter.ignores_errors(), ignores_errors);
        // Records in images are always those of mode `min`.
        assert!(!is_inline || exporter.mode == ExportMode::Min);
    }
}

#[tokio::test]
async fn missing_attributes_of_an_import_are_an_error_of_the_import() {
    let dir = tempfile::tempdir().unwrap();
    let (caches, context) = caches(dir.path());
    let failed = "failed to configure";
    let digest = Digest::sha256("x").to_string();
    let local = format!("{failed} local cache importer");
    for (kind, pairs, sentence) in [
        (
            "registry",
            vec![],
            format!("{failed} registry cache importer: missing ref"),
        ),
        (
            "local",
            vec![],
            format!("{local}: local cache importer requires explicit digest"),
        ),
        (
            "local",
            vec![("digest", digest.as_str())],
            format!("{local}: local cache importer requires src"),
        ),
        (
            "local",
            vec![("digest", digest.as_str()), ("src", "x")],
            format!("{local}: local cache exporter/importer requires session"),
        ),
        (
            "azblob",
            vec![],
            "cache import from azblob is not supported".to_owned(),
        ),
        ("tape", vec![], "unknown cache importer: tape".to_owned()),
    ] {
        let attrs = attrs(&pairs);
        let import = caches.import::<Plain>(kind, &attrs, &context);
        assert_eq!(import.await.unwrap_err().to_string(), sentence);
    }
    let bad = attrs(&[("digest", "sha256:x"), ("src", "x")]);
    let error = caches
        .import::<Plain>("local", &bad, &context)
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with(&local), "{error}");
    assert_eq!(error.kind(), oci::ErrorKind::Invalid);
}

#[test]
fn imports_of_registries_differ_by_reference_and_others_by_all_attributes() {
    let name = |kind: &str, pairs: &[(&str, &str)]| Caches::name_of(kind, &attrs(pairs));
    assert_eq!(name("registry", &[("ref", "a/b:c"), ("x", "y")]), "a/b:c");
    let local = name("local", &[("src", "one")]);
    assert!(local.starts_with("local:"), "{local}");
    assert_eq!(local, name("local", &[("src", "one")]));
    for other in [
        name("local", &[("src", "two")]),
        name("local", &[("src", "one"), ("digest", "d")]),
        name("registry", &[("src", "one")]),
        name("registry", &[("ref", "")]),
    ] {
        assert_ne!(local, other);
    }
}
