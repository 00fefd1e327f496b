use async_trait::async_trait;
use progress::StatusGuard;
use session::Group;
use store::{BlobSink, FetchError, LayerBlob};

use super::*;
use crate::place::Role;

/// Documents by digest, and nothing else.
#[derive(Debug, Default)]
struct Documents(HashMap<Digest, Bytes>);

impl Documents {
    fn put(&mut self, kind: &str, text: impl Into<Bytes>) -> Descriptor {
        let bytes = text.into();
        let desc = Descriptor::of_bytes(kind, &bytes);
        self.0.insert(desc.digest.clone(), bytes);
        desc
    }
}

#[async_trait]
impl Place for Documents {
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, CacheError> {
        let found = self.0.get(&desc.digest).cloned();
        found.ok_or_else(|| CacheError::document("document", desc, "not found"))
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

    fn stays(&self) -> bool {
        true
    }

    async fn put_layer(&self, _desc: &Descriptor, _blob: &LayerBlob) -> Result<(), CacheError> {
        unreachable!("no test writes a layer")
    }

    async fn put_document(
        &self,
        _desc: &Descriptor,
        _bytes: Bytes,
        _role: Role,
    ) -> Result<(), CacheError> {
        unreachable!("no test writes a document")
    }
}

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

fn results(chains: &Chains) -> Vec<Vec<Descriptor>> {
    let entries = chains.entries();
    let results = entries.iter().flat_map(|e| e.results);
    results
        .map(|r| r.layers.iter().map(|l| Descriptor::clone(l)).collect())
        .collect()
}

#[tokio::test]
async fn a_cache_is_read_whether_its_root_is_a_manifest_or_an_index() {
    let mut place = Documents::default();
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
        let found = results(&chains);
        assert_eq!((found.len(), found[0].len()), (1, 2));
    }
    let both = format!("{{\"config\":{config},\"layers\":[],\"manifests\":[]}}");
    let both = place.put("", both);
    assert!(read(&place, &both, &Writer::null()).await.is_err());
}

#[tokio::test]
async fn records_in_the_images_of_an_index_are_told_apart_by_their_layers() {
    let mut place = Documents::default();
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
async fn documents_of_others_are_read_as_go_reads_them() {
    let mut place = Documents::default();
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

/// Answers every document with the same number of bytes, and counts them.
#[derive(Debug)]
struct Large {
    index: Bytes,
    size: usize,
    read: std::sync::atomic::AtomicUsize,
}

#[async_trait]
impl Place for Large {
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

    fn stays(&self) -> bool {
        true
    }

    async fn put_layer(&self, _desc: &Descriptor, _blob: &LayerBlob) -> Result<(), CacheError> {
        unreachable!("no test writes a layer")
    }

    async fn put_document(
        &self,
        _desc: &Descriptor,
        _bytes: Bytes,
        _role: Role,
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
    let place = Large {
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
    assert!(read <= MAX_READ + (4 << 20), "{read}");
}
