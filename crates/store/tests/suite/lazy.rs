//! Layers that are elsewhere: who is asked for them, when, and what a wrong answer does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Descriptor, Digest, ErrorKind};
use store::{
    BlobProvider, BlobSink, CompressionKind, CompressionSpec, FetchError, LayerDesc, PruneOptions,
    RecordType, RefKind, RefOptions, StoreError,
};
use testkit::requires;

use crate::support::{Lab, Shelf, describe, tree};

/// Answers with given bytes in one piece, or fails; counts how often it was asked, and in which order among others.
#[derive(Debug)]
struct Source {
    bytes: Option<Vec<u8>>,
    name: &'static str,
    order: Arc<parking_lot::Mutex<Vec<&'static str>>>,
}

#[async_trait]
impl BlobProvider for Source {
    async fn fetch(&self, _desc: &Descriptor, sink: &mut dyn BlobSink) -> Result<(), FetchError> {
        self.order.lock().push(self.name);
        match &self.bytes {
            Some(bytes) => Ok(sink.write(Bytes::copy_from_slice(bytes)).await?),
            None => Err("gone".into()),
        }
    }

    fn repositories(&self) -> Vec<String> {
        vec![format!("registry.example.com/{}", self.name)]
    }
}

/// Several sources of one blob, that write down in which order they were asked.
#[derive(Default)]
struct Sources(Arc<parking_lot::Mutex<Vec<&'static str>>>);

impl Sources {
    fn source(&self, name: &'static str, bytes: Option<&[u8]>) -> Arc<Source> {
        Arc::new(Source {
            bytes: bytes.map(<[u8]>::to_vec),
            name,
            order: self.0.clone(),
        })
    }

    fn fetched(&self) -> String {
        std::mem::take(&mut *self.0.lock()).join(" ")
    }
}

#[tokio::test]
async fn the_source_that_came_last_is_asked_first_and_of_many_the_last_four() {
    requires!(overlay);
    let lab = Lab::new();
    let blob = lab.layer_of(&["x=1"]);
    let sources = Sources::default();
    let lazy = lab
        .store
        .import_layer(None, describe(&blob), sources.source("first", Some(&blob)))
        .unwrap();
    let digest = Digest::sha256(&blob);
    for name in ["second", "third", "fourth", "fifth"] {
        lazy.add_provider(&digest, sources.source(name, None));
    }
    let error = lazy.ensure().await.unwrap_err();
    assert!(matches!(error, StoreError::Fetch { .. }), "{error}");
    assert_eq!(
        sources.fetched(),
        "fifth fourth third second",
        "the first was forgotten"
    );
    let good = sources.source("good", Some(&blob));
    lazy.add_provider(&digest, good.clone());
    lazy.add_provider(&digest, sources.source("bad", None));
    // One that is named again is not there twice, but is the last.
    lazy.add_provider(&digest, good);
    assert_eq!(tree(&lazy).await, "x=1");
    assert_eq!(sources.fetched(), "good");
    lazy.ensure().await.unwrap();
    assert_eq!(sources.fetched(), "", "what is here is not fetched again");
}

#[tokio::test]
async fn naming_blobs_of_a_lazy_chain_fetches_nothing_and_opening_one_fetches_that_one() {
    requires!(overlay);
    let lab = Lab::new();
    let (one, two) = (lab.layer_of(&["x=1"]), lab.layer_of(&["y=2"]));
    let sources = Sources::default();
    let base = lab
        .store
        .import_layer(None, describe(&one), sources.source("one", Some(&one)))
        .unwrap();
    let top = lab
        .store
        .import_layer(
            Some(&base),
            describe(&two),
            sources.source("two", Some(&two)),
        )
        .unwrap();
    let blobs = top.blobs(CompressionSpec::default()).await.unwrap();
    assert_eq!(sources.fetched(), "");
    assert!(blobs.iter().all(|blob| !blob.is_local().unwrap()));
    assert_eq!(blobs[1].repositories(), ["registry.example.com/two"]);
    let file = blobs[1].open().await.unwrap();
    assert_eq!(file.metadata().unwrap().len(), two.len() as u64);
    assert_eq!(sources.fetched(), "two");
    assert!(top.is_lazy(), "a blob that is here is not unpacked yet");
    assert!(blobs[1].is_local().unwrap() && !blobs[0].is_local().unwrap());
    assert_eq!(blobs[1].layer(), top);
    assert_eq!(tree(&top).await, "x=1 y=2");
    assert_eq!(
        sources.fetched(),
        "one",
        "the blob that was here is unpacked"
    );
}

#[tokio::test]
async fn a_forced_compression_fetches_a_lazy_layer_and_an_unforced_one_does_not() {
    requires!(overlay);
    let lab = Lab::new();
    let blob = lab.layer_of(&["x=1"]);
    let sources = Sources::default();
    let lazy = lab
        .store
        .import_layer(None, describe(&blob), sources.source("s", Some(&blob)))
        .unwrap();
    let zstd = CompressionSpec {
        kind: CompressionKind::Zstd,
        ..CompressionSpec::default()
    };
    for blobs in [
        lazy.blobs(zstd).await.unwrap(),
        lazy.blobs_as_asked(zstd, None).await.unwrap(),
        lazy.known_blobs().unwrap().unwrap(),
    ] {
        assert_eq!(blobs[0].descriptor.digest, Digest::sha256(&blob));
    }
    assert_eq!(sources.fetched(), "");
    let forced = CompressionSpec {
        force: true,
        ..zstd
    };
    let converted = lazy.blobs(forced).await.unwrap();
    assert_eq!(sources.fetched(), "s");
    assert!(converted[0].descriptor.media_type.ends_with("zstd"));
    assert_eq!(converted[0].diff_id, describe(&blob).diff_id);
    assert!(lazy.is_lazy(), "a blob is converted without unpacking it");
}

#[tokio::test]
async fn answers_that_are_no_layer_are_errors_that_say_what_is_wrong() {
    requires!(overlay);
    let lab = Lab::new();
    let good = lab.layer_of(&["x=1"]);
    let text = b"this is not a layer, whatever its descriptor says".to_vec();
    let broken_gzip = {
        let mut bytes = good.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        bytes
    };
    let announce = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        let descriptor =
            Descriptor::new(oci::media_type::OCI_LAYER_GZIP, digest, bytes.len() as u64);
        LayerDesc::new(descriptor, describe(&good).diff_id, "pulled")
    };
    type Is = fn(&StoreError) -> bool;
    let cases: [(&str, LayerDesc, Vec<u8>, Is); 7] = [
        ("nothing", announce(&good), Vec::new(), |e| {
            matches!(e, StoreError::SizeMismatch { got: 0, .. })
        }),
        (
            "half",
            announce(&good),
            good[..good.len() / 2].to_vec(),
            |e| matches!(e, StoreError::SizeMismatch { .. }),
        ),
        (
            "more",
            announce(&good),
            [good.as_slice(), b"x"].concat(),
            |e| matches!(e, StoreError::Fetch { .. }),
        ),
        (
            "other bytes",
            announce(&good),
            vec![b'x'; good.len()],
            |e| {
                matches!(
                    e,
                    StoreError::Unpack { .. } | StoreError::DigestMismatch { .. }
                )
            },
        ),
        ("a text", announce(&text), text.clone(), |e| {
            matches!(e, StoreError::Unpack { .. } | StoreError::DiffId { .. })
        }),
        (
            "broken gzip",
            announce(&broken_gzip),
            broken_gzip.clone(),
            |e| matches!(e, StoreError::Unpack { .. }),
        ),
        ("an empty blob", announce(b""), Vec::new(), |e| {
            matches!(e, StoreError::DiffId { .. } | StoreError::Unpack { .. })
        }),
    ];
    for (what, desc, bytes, is_expected) in cases {
        let sources = Sources::default();
        let lazy = lab
            .store
            .import_layer(None, desc, sources.source("s", Some(&bytes)))
            .unwrap();
        let error = lazy.ensure().await.unwrap_err();
        assert!(is_expected(&error), "{what}: {error:?}");
        assert!(lazy.is_lazy(), "{what}");
        assert!(lazy.root().is_err() && lazy.upper().is_err(), "{what}");
        drop(lazy);
        let all = PruneOptions {
            all: true,
            ..PruneOptions::default()
        };
        lab.store.prune(&all, &mut |_| {}).unwrap();
        assert_eq!(lab.snapshots(), 0, "{what}");
        assert_eq!(lab.store.list_blobs("", 10).unwrap(), [], "{what}");
    }
}

#[tokio::test]
async fn blobs_that_are_held_keep_their_layers_and_themselves() {
    requires!(overlay);
    let lab = Lab::new();
    let all = PruneOptions {
        all: true,
        ..PruneOptions::default()
    };
    let count = AtomicUsize::new(0);
    let prune = || {
        lab.store
            .prune(&all, &mut |_| {
                count.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap();
        count.swap(0, Ordering::SeqCst)
    };
    let base = lab.step(None, &["x=1"]);
    let top = lab.step(Some(&base), &["y=2"]);
    let mut blobs = top.blobs(CompressionSpec::default()).await.unwrap();
    drop((base, top));
    assert_eq!(prune(), 0);
    assert!(blobs.pop().unwrap().open().await.is_ok());
    assert_eq!(prune(), 1, "the upper layer is held by nobody any more");
    let left = blobs.pop().unwrap();
    assert!(left.open().await.is_ok());
    assert_eq!(tree(&left.layer()).await, "x=1");
    drop(left);
    assert_eq!(prune(), 1);
    assert_eq!(lab.store.list_blobs("", 10).unwrap(), []);
}

#[tokio::test]
async fn what_a_record_is_survives_a_restart() {
    requires!(overlay);
    let lab = Lab::new();
    let blob = lab.layer_of(&["x=1"]);
    let mut desc = describe(&blob);
    desc.record_type = RecordType::Other("of.the.future".into());
    desc.created = Some(std::time::SystemTime::UNIX_EPOCH);
    desc.annotations.insert("k".into(), "v".into());
    let lazy = lab
        .store
        .import_layer(None, desc, Shelf::of(&blob))
        .unwrap();
    let step = lab.step(None, &["y=2"]);
    step.set_record_type(RecordType::Frontend).unwrap();
    let merged = lab
        .store
        .merge(
            &[step.clone(), lab.step(None, &["z=3"])],
            RefOptions::described("merged"),
        )
        .unwrap()
        .unwrap();
    let ids = [lazy.id().clone(), step.id().clone(), merged.id().clone()];
    let chain = lazy.chain_id();
    assert!(chain.is_some() && step.chain_id().is_none());
    drop((lazy, step, merged));
    let lab = lab.reopen();
    let [lazy, step, merged] = ids.map(|id| lab.store.get(&id).unwrap());
    assert_eq!(lazy.record_type().as_str(), "of.the.future");
    assert_eq!(lazy.created_at(), std::time::SystemTime::UNIX_EPOCH);
    assert_eq!(lazy.chain_id(), chain);
    let blobs = lazy.known_blobs().unwrap().unwrap();
    assert_eq!(blobs[0].descriptor.annotations["k"], "v");
    assert_eq!(
        (blobs[0].diff_id.clone(), lazy.is_lazy()),
        (describe(&blob).diff_id, true)
    );
    assert_eq!(step.record_type(), RecordType::Frontend);
    assert_eq!(
        (merged.kind(), merged.description()),
        (RefKind::Merge, "merged".to_owned())
    );
    assert_eq!(merged.parents().len(), 2);
    assert_eq!(tree(&merged).await, "y=2 z=3");
}

#[tokio::test]
async fn records_of_the_wrong_sort_are_refused_with_their_names() {
    requires!(overlay);
    let lab = Lab::new();
    let step = lab.step(None, &["x=1"]);
    let options = RefOptions {
        retain: true,
        ..RefOptions::described("kept")
    };
    let mutable = lab.store.new_mutable(None, options).unwrap();
    let kept_id = mutable.id().clone();
    let is_unfit = |error: StoreError, text: &str| {
        assert!(error.to_string().ends_with(text), "{error}");
        assert_eq!(error.kind(), ErrorKind::Failed);
    };
    is_unfit(lab.store.get(&kept_id).unwrap_err(), ": is mutable");
    drop(mutable);
    is_unfit(lab.store.get(&kept_id).unwrap_err(), ": is mutable");
    let id = step.id().clone();
    is_unfit(lab.store.get_mutable(&id).unwrap_err(), ": locked");
    // On a step nobody knows the diff id of, no layer can be imported.
    let blob = lab.layer_of(&["y=2"]);
    let imported = lab
        .store
        .import_layer(Some(&step), describe(&blob), Shelf::of(&blob));
    is_unfit(
        imported.unwrap_err(),
        ": has no chain id to import a layer on",
    );
    drop(step);
    is_unfit(lab.store.get_mutable(&id).unwrap_err(), ": is immutable");
    let nobody: store::RefId = "nobody".parse().unwrap();
    for error in [
        lab.store.get(&nobody).unwrap_err(),
        lab.store.get_mutable(&nobody).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "nobody: not found");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert!(!lab.store.exists(&nobody).unwrap() && lab.store.exists(&id).unwrap());
}

#[tokio::test]
async fn a_kept_mutable_is_retired_at_once_or_with_its_handle() {
    requires!(overlay);
    let lab = Lab::new();
    let new_retained = || {
        let options = RefOptions {
            retain: true,
            ..RefOptions::described("kept")
        };
        lab.store.new_mutable(None, options).unwrap()
    };
    let unused = new_retained();
    let id = unused.id().clone();
    drop(unused);
    lab.store.retire(&id).unwrap();
    assert!(!lab.store.exists(&id).unwrap());
    let in_use = new_retained();
    let id = in_use.id().clone();
    lab.store.retire(&id).unwrap();
    assert!(lab.store.exists(&id).unwrap(), "its user goes on");
    drop(in_use);
    assert!(!lab.store.exists(&id).unwrap());
    lab.store.retire(&id).unwrap();
    assert_eq!(lab.snapshots(), 0);
    // One that became immutable is not retired.
    let step = lab.step(None, &["x=1"]);
    let id = step.id().clone();
    drop(step);
    assert!(lab.store.retire(&id).is_err());
    assert!(lab.store.exists(&id).unwrap());
}

#[tokio::test]
async fn merges_and_diffs_of_little_are_what_they_are_made_of() {
    requires!(overlay);
    let lab = Lab::new();
    let (a, b) = (lab.step(None, &["x=1"]), lab.step(None, &["y=2"]));
    let options = RefOptions::default;
    assert_eq!(lab.store.merge(&[], options()).unwrap(), None);
    assert_eq!(
        lab.store
            .merge(std::slice::from_ref(&a), options())
            .unwrap(),
        Some(a.clone())
    );
    assert_eq!(lab.store.diff(None, None, options()).unwrap(), None);
    assert_eq!(
        lab.store.diff(None, Some(&b), options()).unwrap(),
        Some(b.clone())
    );
    let gone = lab.store.diff(Some(&a), None, options()).unwrap().unwrap();
    let on_a = lab
        .store
        .merge(&[a.clone(), gone], options())
        .unwrap()
        .unwrap();
    assert_eq!(tree(&on_a).await, "");
    let same = lab
        .store
        .diff(Some(&a), Some(&a), options())
        .unwrap()
        .unwrap();
    assert_eq!(tree(&same).await, "");
    let twice = lab
        .store
        .merge(&[a.clone(), b, a], options())
        .unwrap()
        .unwrap();
    assert_eq!(tree(&twice).await, "x=1 y=2");
    // Merges of merges are one merge, up to a bound.
    let mut merged = twice;
    let error = loop {
        match lab
            .store
            .merge(&[merged.clone(), merged.clone()], options())
        {
            Ok(more) => merged = more.unwrap(),
            Err(error) => break error,
        }
    };
    assert!(
        error.to_string().contains("more than 2,000 layers"),
        "{error}"
    );
    assert_eq!(tree(&merged).await, "x=1 y=2");
}

#[tokio::test]
async fn digests_of_content_are_told_and_what_is_missing_is_an_error() {
    requires!(overlay);
    let lab = Lab::new();
    let step = lab.step(None, &["d/", "d/f=1", "same=1"]);
    let options = store::HashOptions::default;
    let whole = step.content_hash("/", options()).await.unwrap();
    let file = step.content_hash("/d/f", options()).await.unwrap();
    assert_ne!(whole, file);
    let other = lab.step(None, &["e/", "e/f=1"]);
    assert_eq!(other.content_hash("e/f", options()).await.unwrap(), file);
    let error = step.content_hash("/none", options()).await.unwrap_err();
    assert_eq!(error.to_string(), "\"/none\": not found");
    // Digests that were made elsewhere are taken over.
    let hashes = step.hashes().unwrap();
    other.set_hashes(hashes).unwrap();
    assert_eq!(other.content_hash("/d/f", options()).await.unwrap(), file);
}
