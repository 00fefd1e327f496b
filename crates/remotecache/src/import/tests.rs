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
    String::from_utf8(oci::json::to_vec(desc)).unwrap()
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
