use async_trait::async_trait;
use progress::StatusGuard;
use session::Group;
use store::{BlobSink, FetchError, LayerBlob};

use super::*;
use crate::fixture::MemoryPlace;
use crate::place::DocumentRole;

fn records(layer: i64) -> String {
    let (base, run) = (Digest::sha256("base"), Digest::sha256("run"));
    format!(
        "[{{\"digest\":\"{base}\"}},{{\"layers\":[{{\"layer\":{layer},\"createdAt\":\"2026-01-02T03:04:05Z\"}}],\
         \"digest\":\"{run}\",\"inputs\":[[{{\"link\":0}}]]}}]"
    )
}

fn layer(name: &str) -> String {
    let digest = Digest::sha256(name);
    format!(
        "{{\"mediaType\":\"{}\",\"digest\":\"{digest}\",\"size\":1}}",
        media_type::OCI_LAYER_GZIP
    )
}

fn text(desc: &Descriptor) -> String {
    String::from_utf8(gostd::json::to_vec(desc)).unwrap()
}

fn results(chains: &RecordChains) -> Vec<Vec<Descriptor>> {
    let entries = chains.entries();
    let results = entries.iter().flat_map(|e| e.results);
    results
        .map(|r| r.layers.iter().map(|l| Descriptor::clone(l)).collect())
        .collect()
}

#[tokio::test]
async fn a_cache_is_read_whether_its_root_is_a_manifest_or_an_index() {
    let place = MemoryPlace::default();
    let (a, b) = (Digest::sha256("a"), Digest::sha256("b"));
    let config = format!(
        "{{\"layers\":[{{\"blob\":\"{a}\",\"parent\":-1}},{{\"blob\":\"{b}\"}}],\"records\":{}}}",
        records(1)
    );
    let config = text(&place.put(CONFIG_TYPE, config));
    let (a, b) = (layer("a"), layer("b"));
    for root in [
        format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[{a},{b}]}}"),
        format!("{{\"schemaVersion\":2,\"manifests\":[{a},{b},{config}]}}"),
    ] {
        let root = place.put("", root);
        let chains = read(&place, &root, &Writer::null()).await.unwrap();
        let read_results = results(&chains);
        assert_eq!((read_results.len(), read_results[0].len()), (1, 2));
    }
    let ambiguous = format!("{{\"config\":{config},\"layers\":[],\"manifests\":[]}}");
    let ambiguous = place.put("", ambiguous);
    assert!(read(&place, &ambiguous, &Writer::null()).await.is_err());
}

#[tokio::test]
async fn records_in_the_images_of_an_index_are_told_apart_by_their_layers() {
    let place = MemoryPlace::default();
    let mut manifests = Vec::new();
    for name in ["amd", "arm"] {
        let cache = base64::engine::general_purpose::STANDARD.encode(records(0));
        let plain = Digest::sha256(format!("{name} plain"));
        let config = format!(
            "{{\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{plain}\"]}},\"moby.buildkit.cache.v0\":\"{cache}\",\
             \"history\":[{{\"empty_layer\":true}},{{\"created\":\"2026-01-02T03:04:05Z\",\"created_by\":\"RUN {name}\"}}]}}"
        );
        let config = text(&place.put(media_type::OCI_CONFIG, config));
        let manifest = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{config},\"layers\":[{}]}}",
            media_type::OCI_MANIFEST,
            layer(name)
        );
        manifests.push(text(&place.put(media_type::OCI_MANIFEST, manifest)));
    }
    let index = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{}]}}",
        manifests.join(",")
    );
    let root = place.put(media_type::OCI_INDEX, index);
    let chains = read(&place, &root, &Writer::null()).await.unwrap();
    let mut described: Vec<_> = results(&chains)
        .into_iter()
        .flatten()
        .map(|l| l.annotations[DESCRIPTION].clone())
        .collect();
    described.sort();
    assert_eq!(described, ["RUN amd", "RUN arm"]);
}

#[tokio::test]
async fn documents_of_other_writers_are_read_as_go_reads_them() {
    let place = MemoryPlace::default();
    let a = Digest::sha256("a");
    let config = format!(
        "{{\"Layers\":[{{\"blob\":\"x\",\"Blob\":\"{a}\",\"parent\":-1,\"annotations\":null}}],\
         \"records\":null,\"RECORDS\":{},\"unknown\":[null]}}",
        records(0).replace("\"inputs\"", "\"chains\":null,\"Inputs\"")
    );
    let config = text(&place.put(CONFIG_TYPE, config)).replace('}', ",\"annotations\":null}");
    let a = layer("a").replace('}', ",\"annotations\":{\"k\":null},\"urls\":null}");
    for root in [
        format!("{{\"mediaType\":null,\"manifests\":null,\"config\":{config},\"layers\":[{a}]}}"),
        format!(
            "{{\"config\":null,\"layers\":null,\"Manifests\":[{a},{config}],\"subject\":null}}"
        ),
    ] {
        let root = place.put("", root);
        let chains = read(&place, &root, &Writer::null()).await.unwrap();
        assert_eq!(results(&chains).len(), 1);
    }
    let cache = base64::engine::general_purpose::STANDARD.encode(records(0));
    let plain = Digest::sha256("plain");
    let config = format!(
        "{{\"author\":null,\"rootfs\":{{\"diff_ids\":[\"{plain}\"]}},\"moby.buildkit.cache.v0\":\"{cache}\",\
         \"history\":[null,{{\"created\":null,\"created_by\":\"\\ud800\"}}]}}"
    );
    let config = text(&place.put(media_type::OCI_CONFIG, config));
    let manifest = format!("{{\"config\":{config},\"layers\":[{a}],\"annotations\":null}}");
    let root = place.put(media_type::OCI_MANIFEST, manifest);
    let chains = read(&place, &root, &Writer::null()).await.unwrap();
    assert_eq!(results(&chains).len(), 1);
}

/// A place in which every document has the same size, and that counts them.
#[derive(Debug)]
struct LargeDocuments {
    index: Bytes,
    size: usize,
    read: std::sync::atomic::AtomicUsize,
}

#[async_trait]
impl Place for LargeDocuments {
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, CacheError> {
        if desc.digest == Digest::sha256(&self.index) {
            return Ok(self.index.clone());
        }
        self.read
            .fetch_add(self.size, std::sync::atomic::Ordering::Relaxed);
        let config = text(&Descriptor::of_bytes("", b""));
        let mut out = format!("{{\"config\":{config},\"layers\":[]}}").into_bytes();
        out.resize(self.size, b' ');
        Ok(out.into())
    }

    async fn layer(
        &self,
        _desc: &Descriptor,
        _asking: &Group,
        _sink: &mut dyn BlobSink,
        _status: &StatusGuard,
    ) -> Result<(), FetchError> {
        unreachable!("no test fetches a layer")
    }

    fn is_permanent(&self) -> bool {
        true
    }

    async fn put_layer(&self, _desc: &Descriptor, _blob: &LayerBlob) -> Result<(), CacheError> {
        unreachable!("no test writes a layer")
    }

    async fn put_document(
        &self,
        _desc: &Descriptor,
        _bytes: Bytes,
        _role: DocumentRole,
    ) -> Result<(), CacheError> {
        unreachable!("no test writes a document")
    }
}

#[tokio::test]
async fn an_index_of_large_documents_is_given_up() {
    let entries: Vec<String> = (0..300)
        .map(|at| text(&Descriptor::new("", Digest::sha256(at.to_string()), 1)))
        .collect();
    let index = Bytes::from(format!("{{\"manifests\":[{}]}}", entries.join(",")));
    let root = Descriptor::of_bytes(media_type::OCI_INDEX, &index);
    let place = LargeDocuments {
        index,
        size: 4 << 20,
        read: Default::default(),
    };
    let error = read(&place, &root, &Writer::null()).await.unwrap_err();
    assert!(
        error.to_string().contains("more than 67108864 bytes"),
        "{error}"
    );
    let read = place.read.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read <= MAX_READ_BYTES + (4 << 20), "{read}");
}

#[tokio::test]
async fn the_type_of_a_document_follows_from_its_content() {
    let ambiguous = "invalid ambiguous manifest and manifest list";
    let mismatch = "mediaType in manifest does not match manifest contents";
    let typed_document = |kind: &str, rest: &str| format!("{{\"mediaType\":\"{kind}\"{rest}}}");
    let desc = |text: &str| Descriptor::of_bytes("", text.as_bytes());
    for (text, kind) in [
        (
            "{\"config\":{},\"layers\":[]}".to_owned(),
            Ok(media_type::DOCKER_MANIFEST),
        ),
        (
            "{\"layers\":[]}".to_owned(),
            Ok(media_type::DOCKER_MANIFEST),
        ),
        (
            "{\"manifests\":[]}".to_owned(),
            Ok(media_type::DOCKER_INDEX),
        ),
        ("{}".to_owned(), Ok(media_type::DOCKER_INDEX)),
        (
            typed_document(media_type::OCI_MANIFEST, ",\"config\":{}"),
            Ok(media_type::OCI_MANIFEST),
        ),
        (
            typed_document(media_type::OCI_INDEX, ""),
            Ok(media_type::OCI_INDEX),
        ),
        (
            typed_document("text/plain", ",\"layers\":[1]"),
            Ok(media_type::DOCKER_MANIFEST),
        ),
        (
            typed_document(media_type::OCI_INDEX, ",\"layers\":[]"),
            Err(mismatch),
        ),
        (
            typed_document(media_type::DOCKER_MANIFEST, ",\"manifests\":[]"),
            Err(mismatch),
        ),
        (
            "{\"config\":{},\"manifests\":[]}".to_owned(),
            Err(ambiguous),
        ),
        (
            "{\"layers\":[],\"manifests\":[]}".to_owned(),
            Err(ambiguous),
        ),
        (String::new(), Err("")),
        ("[]".to_owned(), Err("")),
        ("{\"mediaType\":7}".to_owned(), Err("")),
        ("{\"layers\":[]".to_owned(), Err("")),
    ] {
        let actual = kind_of(&desc(&text), &Bytes::from(text.clone())).await;
        match kind {
            Ok(kind) => assert_eq!(actual.unwrap(), kind, "{text}"),
            Err(reason) => {
                let error = actual.unwrap_err();
                assert!(error.to_string().ends_with(reason), "{text}: {error}");
                assert_eq!(error.kind(), oci::ErrorKind::Hostile);
            }
        }
    }
}

/// An image with one layer whose config has `cache` as its records.
fn image(place: &MemoryPlace, name: &str, cache: &str, diff_ids: usize) -> Descriptor {
    let plain = format!("\"{}\"", Digest::sha256(format!("{name} plain")));
    let diff_ids = vec![plain; diff_ids].join(",");
    let config = format!("{{\"rootfs\":{{\"diff_ids\":[{diff_ids}]}}{cache}}}");
    let config = text(&place.put(media_type::OCI_CONFIG, config));
    let manifest = format!("{{\"config\":{config},\"layers\":[{}]}}", layer(name));
    place.put(media_type::OCI_MANIFEST, manifest)
}

fn cache_of(records: &str) -> String {
    let records = base64::engine::general_purpose::STANDARD.encode(records);
    format!(",\"moby.buildkit.cache.v0\":\"{records}\"")
}

#[tokio::test]
async fn an_image_without_records_is_an_empty_cache_and_damaged_records_are_an_error() {
    let good = cache_of(&records(0));
    for (cache, diff_ids, found) in [
        (good.as_str(), 1, Ok(1)),
        // If layers and config do not match, the records cannot be assigned to layers.
        (good.as_str(), 0, Ok(0)),
        (good.as_str(), 2, Ok(0)),
        ("", 1, Ok(0)),
        (",\"moby.buildkit.cache.v0\":null", 1, Ok(0)),
        (&cache_of("null"), 1, Ok(0)),
        (&cache_of("[]"), 1, Ok(0)),
        (
            ",\"moby.buildkit.cache.v0\":\"%%%\"",
            1,
            Err("cannot read cache records of image"),
        ),
        (
            &cache_of("[{]"),
            1,
            Err("cannot read cache records of image"),
        ),
        (
            &cache_of("{\"records\":[]}"),
            1,
            Err("cannot read cache records of image"),
        ),
        (&cache_of(&records(1)), 1, Err("invalid layer index 1")),
        (&cache_of(&records(-2)), 1, Err("invalid layer index -2")),
        (
            &cache_of(&records(0).replace("\"link\":0", "\"link\":5")),
            1,
            Err("invalid record ID: 5"),
        ),
        (
            &cache_of("[{\"digest\":\"x\"}]"),
            1,
            Err("cannot read cache records of image"),
        ),
    ] {
        let place = MemoryPlace::default();
        let root = image(&place, "a", cache, diff_ids);
        let read = read(&place, &root, &Writer::null()).await;
        match found {
            Ok(count) => assert_eq!(results(&read.unwrap()).len(), count, "{cache}"),
            Err(start) => {
                let error = read.unwrap_err();
                assert!(error.to_string().starts_with(start), "{cache}: {error}");
                assert_eq!(error.kind(), oci::ErrorKind::Hostile);
            }
        }
    }
}

#[tokio::test]
async fn nested_indexes_are_followed_up_to_the_depth_limit() {
    let place = MemoryPlace::default();
    let mut root = image(&place, "a", &cache_of(&records(0)), 1);
    for depth in 1..=MAX_DEPTH + 1 {
        root = place.put(
            media_type::OCI_INDEX,
            format!("{{\"manifests\":[{}]}}", text(&root)),
        );
        let read = read(&place, &root, &Writer::null()).await;
        if depth <= MAX_DEPTH {
            assert_eq!(results(&read.unwrap()).len(), 1);
        } else {
            let error = read.unwrap_err().to_string();
            assert!(
                error.ends_with("more than 4 indexes inside each other"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn an_image_that_an_index_lists_twice_is_read_once() {
    let place = MemoryPlace::default();
    let image = text(&image(&place, "a", &cache_of(&records(0)), 1));
    let root = place.put("", format!("{{\"manifests\":[{image},{image},{image}]}}"));
    let chains = read(&place, &root, &Writer::null()).await.unwrap();
    assert_eq!(results(&chains).len(), 1);
    let empty = place.put("", "{\"manifests\":[]}");
    let chains = read(&place, &empty, &Writer::null()).await.unwrap();
    assert!(chains.entries().is_empty());
}

#[tokio::test]
async fn a_missing_document_of_an_index_is_named_in_the_error() {
    let place = MemoryPlace::default();
    let document = Descriptor::of_bytes(CONFIG_TYPE, b"gone");
    let missing = |text: String| {
        let place = &place;
        async move {
            let root = place.put("", text);
            read(place, &root, &Writer::null())
                .await
                .unwrap_err()
                .to_string()
        }
    };
    let not_found = format!("cannot read document {}: not found", document.digest);
    let config = text(&document);
    assert_eq!(
        missing(format!("{{\"config\":{config},\"layers\":[]}}")).await,
        not_found
    );
    assert_eq!(
        missing(format!("{{\"manifests\":[{config}]}}")).await,
        not_found
    );
    let manifest = config.replace(CONFIG_TYPE, media_type::OCI_MANIFEST);
    assert_eq!(
        missing(format!("{{\"manifests\":[{manifest}]}}")).await,
        not_found
    );
    let root = Descriptor::of_bytes("", b"no root");
    assert!(read(&place, &root, &Writer::null()).await.is_err());
}

#[tokio::test]
async fn of_several_configs_in_an_index_the_last_one_is_used() {
    let place = MemoryPlace::default();
    let config = |layer: i64| {
        let blob = Digest::sha256("a");
        let records = records(layer);
        let text_of =
            format!("{{\"layers\":[{{\"blob\":\"{blob}\",\"parent\":-1}}],\"records\":{records}}}");
        text(&place.put(CONFIG_TYPE, text_of))
    };
    let (bad, good) = (config(9), config(0));
    let a = layer("a");
    let root = place.put("", format!("{{\"manifests\":[{bad},{a},{good}]}}"));
    let chains = read(&place, &root, &Writer::null()).await.unwrap();
    assert_eq!(results(&chains).len(), 1);
    let root = place.put("", format!("{{\"manifests\":[{good},{a},{bad}]}}"));
    let error = read(&place, &root, &Writer::null()).await.unwrap_err();
    assert_eq!(error.to_string(), "invalid layer index 9");
}

#[tokio::test]
async fn documents_that_nest_without_end_or_hold_too_many_values_are_refused() {
    let place = MemoryPlace::default();
    let deep = format!("{{\"config\":{}", "[".repeat(200_000));
    let root = place.put("", deep);
    assert!(read(&place, &root, &Writer::null()).await.is_err());
    let many = format!(
        "{{\"layers\":[],\"unknown\":[{}0]}}",
        "0,".repeat(MAX_VALUES)
    );
    let root = place.put("", many);
    assert!(read(&place, &root, &Writer::null()).await.is_err());
}
