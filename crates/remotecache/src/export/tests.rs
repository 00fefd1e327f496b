use std::time::UNIX_EPOCH;

use session::SessionManager;
use store::Store;

use super::*;
use crate::fixture::{MemoryPlace, context, digest, short, way};

fn exporter(place: &Arc<MemoryPlace>, documents: Documents) -> CacheExporter {
    CacheExporter {
        target: ExportTarget::Place {
            place: Arc::clone(place) as _,
            title: "exporting cache to a test",
            compression: CompressionAttributes::default(),
            documents,
        },
        mode: ExportMode::Max,
        ignores_errors: false,
    }
}

const OCI: Documents = Documents {
    media_types: MediaTypes::Oci,
    root: RootKind::Manifest,
};

/// Records of two steps whose layers a store has from an imported cache.
async fn records(place: &Arc<MemoryPlace>, dir: &std::path::Path) -> CacheRecords {
    let (first, second) = (place.put_bytes(b"one"), place.put_bytes(b"two"));
    let mut chains = RecordChains::default();
    let base = chains.add(&digest("base"), &[], vec![]).unwrap().unwrap();
    let result = |layers: Vec<Arc<Descriptor>>| ChainResult {
        created: UNIX_EPOCH,
        layers: layers.into(),
    };
    let run = vec![result(vec![Arc::clone(&first)])];
    let run = chains
        .add(&digest("run"), &[way(base)], run)
        .unwrap()
        .unwrap();
    chains
        .add(
            &digest("top"),
            &[way(run)],
            vec![result(vec![first, second])],
        )
        .unwrap();
    let store = Store::open(store::Config::new(dir)).unwrap();
    let parts = (store, SessionManager::new());
    let manager = crate::imported::manager::<crate::fixture::Plain>(
        "cache".into(),
        &chains,
        Arc::clone(place) as _,
        parts,
    );
    let mut blobs = HashMap::new();
    for key in manager.store().keys().unwrap() {
        for stored in manager.store().results(&key).unwrap() {
            let loaded = manager.results().load(&stored, &context()).await.unwrap();
            let layers = loaded.unwrap().known_blobs().unwrap().unwrap();
            blobs.extend(layers.into_iter().map(|l| (l.descriptor.digest.clone(), l)));
        }
    }
    CacheRecords { chains, blobs }
}

#[tokio::test]
async fn layers_are_written_first_the_config_next_and_the_root_last_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let place = Arc::new(MemoryPlace::default());
    let records = records(&place, dir.path()).await;
    let exporter = exporter(&place, OCI);
    let answer = exporter.finish(&records, &Writer::null()).await.unwrap();
    let mut log = place.log();
    assert_eq!(log.split_off(2), ["Config", "Root"]);
    log.sort();
    let mut layers =
        [b"one", b"two"].map(|bytes| format!("layer {}", short(&Digest::sha256(bytes))));
    layers.sort();
    assert_eq!(log, layers);
    let root: Descriptor = gostd::json::from_slice(answer[ANSWER_KEY].as_bytes()).unwrap();
    assert_eq!(root.media_type, media_type::OCI_MANIFEST);
    // An import of the document has the same records.
    let read = crate::import::read(&*place, &root, &Writer::null())
        .await
        .unwrap();
    assert_eq!(read.config().0, records.chains.config().0);
    // And exporting those writes the same bytes.
    let again = exporter.finish(&records, &Writer::null()).await.unwrap();
    assert_eq!(again, answer);
}

#[tokio::test]
async fn the_root_has_the_requested_form() {
    let dir = tempfile::tempdir().unwrap();
    let place = Arc::new(MemoryPlace::default());
    let records = records(&place, dir.path()).await;
    for (media_types, root_kind, root_type, layer_type) in [
        (
            MediaTypes::Oci,
            RootKind::Manifest,
            media_type::OCI_MANIFEST,
            media_type::OCI_LAYER,
        ),
        (
            MediaTypes::Oci,
            RootKind::Index,
            media_type::OCI_INDEX,
            media_type::OCI_LAYER,
        ),
        (
            MediaTypes::Docker,
            RootKind::Index,
            media_type::DOCKER_INDEX,
            media_type::DOCKER_LAYER,
        ),
    ] {
        let exporter = exporter(
            &place,
            Documents {
                media_types,
                root: root_kind,
            },
        );
        let answer = exporter.finish(&records, &Writer::null()).await.unwrap();
        let root: Descriptor = gostd::json::from_slice(answer[ANSWER_KEY].as_bytes()).unwrap();
        assert_eq!(root.media_type, root_type);
        let text = place.text(&root.digest);
        assert!(
            text.starts_with(&format!(
                "{{\"schemaVersion\":2,\"mediaType\":\"{root_type}\""
            )),
            "{text}"
        );
        assert_eq!(text.matches(layer_type).count(), 2, "{text}");
        assert_eq!(text.matches(CONFIG_TYPE).count(), 1, "{text}");
        let read = crate::import::read(&*place, &root, &Writer::null())
            .await
            .unwrap();
        assert_eq!(read.config().0.records.len(), 3);
    }
    let contradiction = exporter(
        &place,
        Documents {
            media_types: MediaTypes::Docker,
            root: RootKind::Manifest,
        },
    );
    let error = contradiction
        .finish(&records, &Writer::null())
        .await
        .unwrap_err();
    let start = "invalid configuration for remote cache, OCI mediatypes are required";
    assert!(error.to_string().starts_with(start), "{error}");
}

#[tokio::test]
async fn records_without_layers_write_nothing() {
    let place = Arc::new(MemoryPlace::default());
    let mut records = CacheRecords::default();
    records.chains.add(&digest("base"), &[], vec![]).unwrap();
    let answer = exporter(&place, OCI)
        .finish(&records, &Writer::null())
        .await;
    assert!(answer.unwrap().is_empty());
    assert_eq!(place.log(), [""; 0]);
    let inline = CacheExporter {
        target: ExportTarget::Inline,
        mode: ExportMode::Min,
        ignores_errors: false,
    };
    assert!(
        inline
            .finish(&records, &Writer::null())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_document_that_cannot_be_written_is_named_in_the_error() {
    for (role, sentence) in [
        (
            DocumentRole::Config,
            "error writing config blob: the disk is full",
        ),
        (
            DocumentRole::Root,
            "error writing manifest blob: the disk is full",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let place = Arc::new(MemoryPlace::refusing(role));
        let records = records(&place, dir.path()).await;
        let error = exporter(&place, OCI)
            .finish(&records, &Writer::null())
            .await;
        let error = error.unwrap_err();
        assert_eq!(error.to_string(), sentence);
        assert!(
            !place.log().contains(&"Root".to_owned()),
            "no root names what is not there"
        );
    }
}

#[tokio::test]
async fn a_missing_layer_is_an_error_and_no_root_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let place = Arc::new(MemoryPlace::default());
    let mut records = records(&place, dir.path()).await;
    let missing_layer = Digest::sha256(b"two");
    records.blobs.remove(&missing_layer);
    let error = exporter(&place, OCI)
        .finish(&records, &Writer::null())
        .await;
    assert_eq!(
        error.unwrap_err().to_string(),
        format!("missing blob {missing_layer}")
    );
    assert!(!place.log().contains(&"Root".to_owned()));
}

#[test]
fn non_distributable_layers_are_described_as_ordinary_ones() {
    for (media_type, written) in [
        (media_type::OCI_LAYER_NONDIST, media_type::OCI_LAYER),
        (
            media_type::OCI_LAYER_NONDIST_GZIP,
            media_type::OCI_LAYER_GZIP,
        ),
        (
            media_type::OCI_LAYER_NONDIST_ZSTD,
            media_type::OCI_LAYER_ZSTD,
        ),
        (media_type::OCI_LAYER_ZSTD, media_type::OCI_LAYER_ZSTD),
        ("text/plain", "text/plain"),
    ] {
        assert_eq!(distributable(media_type), written);
    }
}
