use std::sync::Arc;

use store::{BlobProvider, CompressionKind, CompressionSpec, RefOptions, StoreError};

use testkit::requires;

use crate::support::{Lab, SecondTime, Shelf, describe, plain, tree, unpacked};

#[tokio::test]
async fn a_pulled_chain_is_fetched_once_and_only_when_needed() {
    requires!(overlay);
    let lab = Lab::new();
    let (one, two) = (lab.layer_of(&["d/", "d/x=1"]), lab.layer_of(&["y=2"]));
    let (first, second) = (Shelf::of(&one), Shelf::of(&two));
    let base = lab
        .store
        .import_layer(None, describe(&one), first.clone())
        .unwrap();
    let top = lab
        .store
        .import_layer(Some(&base), describe(&two), second.clone())
        .unwrap();
    assert!(top.is_lazy() && top.is_reachable());
    let blobs = top.blobs(CompressionSpec::default()).await.unwrap();
    assert_eq!(
        (first.times(), second.times()),
        (0, 0),
        "naming blobs fetches nothing"
    );
    assert_eq!(blobs[1].descriptor.digest, oci::Digest::sha256(&two));
    let (a, b) = tokio::join!(top.ensure(), top.ensure());
    a.and(b).unwrap();
    assert_eq!(tree(&top).await, "d/ d/x=1 y=2");
    assert_eq!((first.times(), second.times()), (1, 1));
    assert!(!top.is_lazy());
    let again = lab
        .store
        .import_layer(None, describe(&one), Shelf::of(&one))
        .unwrap();
    assert_eq!(again, base);
    drop((base, top, again, blobs));
    let lab = lab.reopen();
    let imported = lab
        .store
        .import_layer(None, describe(&one), Shelf::of(&one))
        .unwrap();
    assert!(!imported.is_lazy());
}

#[tokio::test]
async fn a_lazy_layer_is_unreachable_after_a_restart_until_somebody_can_fetch_it() {
    requires!(overlay);
    let lab = Lab::new();
    let one = lab.layer_of(&["x=1"]);
    let id = lab
        .store
        .import_layer(None, describe(&one), Shelf::of(&one))
        .unwrap()
        .id()
        .clone();
    let lab = lab.reopen();
    let record = lab.store.get(&id).unwrap();
    assert!(!record.is_reachable());
    assert!(matches!(
        record.ensure().await,
        Err(StoreError::NoProvider { .. })
    ));
    let again = lab
        .store
        .import_layer(None, describe(&one), Shelf::of(&one))
        .unwrap();
    assert_eq!(again.id(), &id);
    assert_eq!(tree(&record).await, "x=1");
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_leave_nothing() {
    requires!(overlay);
    let lab = Lab::new();
    let good = lab.layer_of(&["x=1"]);
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    let mut long = good.clone();
    long.push(0);
    for (bytes, what) in [
        (bad, "digest"),
        (long, "length"),
        (good[..20].to_vec(), "cut"),
    ] {
        let shelf: Arc<dyn BlobProvider> = Shelf::of(&bytes);
        let lazy = lab
            .store
            .import_layer(None, describe(&good), shelf)
            .unwrap();
        assert!(lazy.ensure().await.is_err(), "{what}");
        assert!(lazy.is_lazy());
    }
    assert_eq!(lab.snapshots(), 0);
    assert_eq!(
        std::fs::read_dir(lab.dir.path().join("ingest"))
            .unwrap()
            .count(),
        0
    );
    let mut lying = describe(&good);
    lying.diff_id = oci::Digest::sha256(b"else");
    let lazy = lab
        .store
        .import_layer(None, lying, Shelf::of(&good))
        .unwrap();
    assert!(matches!(
        lazy.ensure().await,
        Err(StoreError::DiffId { .. })
    ));
    // An image that claims a layer which it does not have spoils nothing for the image that has it.
    let lab = Lab::new();
    let bad = lab.layer_of(&["liar=2"]);
    let mut claiming = describe(&bad);
    claiming.diff_id = describe(&good).diff_id;
    let first = lab
        .store
        .import_layer(None, claiming, Shelf::of(&bad))
        .unwrap();
    assert!(matches!(
        first.ensure().await,
        Err(StoreError::DiffId { .. })
    ));
    let second = lab
        .store
        .import_layer(None, describe(&good), Shelf::of(&good))
        .unwrap();
    second.ensure().await.unwrap();
}

#[tokio::test]
async fn a_fetch_that_fails_or_is_given_up_spoils_nothing_for_the_next() {
    requires!(overlay);
    // A tar that breaks off between two entries looks like a whole one, and so does one of no bytes at all.
    for (breaks_after, hangs) in [(1024, true), (1024, false), (0, false)] {
        let lab = Lab::new();
        let one = plain(&lab.layer_of(&["x=1", "y=2"]));
        let provider = SecondTime::of(&one, breaks_after, hangs);
        let lazy = lab
            .store
            .import_layer(None, describe(&one), provider.clone())
            .unwrap();
        if hangs {
            tokio::select! {
                done = lazy.ensure() => panic!("{done:?}"),
                () = provider.began() => {}
            }
        } else {
            let failed = lazy.ensure().await;
            assert!(
                matches!(failed, Err(StoreError::Fetch { .. })),
                "{failed:?}"
            );
        }
        provider.ended().await;
        assert_eq!(tree(&lazy).await, "x=1 y=2");
    }
}

#[test]
fn pulls_that_stall_hold_no_thread_that_others_wait_for() {
    requires!(overlay);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let lab = Lab::new();
    runtime.block_on(async {
        let stalled: Vec<_> = ["x=1", "y=2", "z=3"]
            .iter()
            .map(|file| {
                let one = plain(&lab.layer_of(&[file]));
                let provider = SecondTime::of(&one, 1024, true);
                let layer = lab
                    .store
                    .import_layer(None, describe(&one), provider.clone());
                (layer.unwrap(), provider)
            })
            .collect();
        let pulls = futures::future::join_all(stalled.iter().map(|(lazy, _)| lazy.ensure()));
        let others = async {
            for (_, provider) in &stalled {
                provider.began().await;
            }
            task::blocking("other work", || 7).await
        };
        let patience = std::time::Duration::from_secs(30);
        tokio::select! {
            done = pulls => panic!("{done:?}"),
            seven = tokio::time::timeout(patience, others) => assert_eq!(seven, Ok(7)),
        }
        for (_, provider) in &stalled {
            provider.ended().await;
        }
    });
}

#[tokio::test]
async fn blobs_of_a_chain_unpack_to_its_tree_and_are_made_once() {
    requires!(overlay);
    let lab = Lab::new();
    let a = lab.step(None, &["x=1", "d/", "d/y=2"]);
    let b = lab.step(Some(&a), &["-d", "d/", "d/z=3"]);
    let c = lab.step(Some(&b), &["-x"]);
    assert!(c.known_blobs().unwrap().is_none());
    assert_eq!(unpacked(&c).await, tree(&c).await);
    let first = c.known_blobs().unwrap().unwrap();
    let again = c.blobs(CompressionSpec::default()).await.unwrap();
    let names = |list: &[store::LayerBlob]| {
        list.iter()
            .map(|b| b.descriptor.digest.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&first), names(&again));
    let zstd = CompressionSpec {
        kind: CompressionKind::Zstd,
        level: None,
        force: false,
    };
    assert_eq!(
        names(&c.blobs(zstd).await.unwrap()),
        names(&first),
        "unforced, what exists is taken"
    );
    let forced = c
        .blobs(CompressionSpec {
            force: true,
            ..zstd
        })
        .await
        .unwrap();
    assert!(
        forced
            .iter()
            .all(|b| b.descriptor.media_type.ends_with("zstd"))
    );
    assert_eq!(
        forced.iter().map(|b| &b.diff_id).collect::<Vec<_>>(),
        first.iter().map(|b| &b.diff_id).collect::<Vec<_>>()
    );
    assert_eq!(c.blob_variants().unwrap().len(), 2);
    assert_eq!(
        names(&c.blobs(CompressionSpec::default()).await.unwrap()),
        names(&first)
    );
}

#[tokio::test]
async fn a_layer_built_here_is_found_when_the_same_is_pulled() {
    requires!(overlay);
    let lab = Lab::new();
    let built = lab.step(None, &["x=1"]);
    let blob = built
        .blobs(CompressionSpec::default())
        .await
        .unwrap()
        .remove(0);
    let desc = store::LayerDesc::new(blob.descriptor.clone(), blob.diff_id.clone(), "pulled");
    let pulled = lab.store.import_layer(None, desc, Shelf::of(b"")).unwrap();
    assert_eq!(pulled, built);
}

#[test]
fn a_merge_of_nothing_is_nothing() {
    requires!(overlay);
    let lab = Lab::new();
    let none = lab.store.merge(&[], RefOptions::default()).unwrap();
    assert!(none.is_none());
}

#[tokio::test]
async fn times_are_held_down_except_in_layers_that_are_kept() {
    requires!(overlay);
    let lab = Lab::new();
    let base = lab.step(None, &["x=1"]);
    let top = lab.step(Some(&base), &["y=2"]);
    let plain = top.blobs(CompressionSpec::default()).await.unwrap();
    let base_layers = [plain[0].diff_id.clone()].into();
    let clamped = top
        .blobs_not_after(CompressionSpec::default(), 1000, &base_layers)
        .await
        .unwrap();
    assert_eq!(clamped[0].descriptor, plain[0].descriptor);
    assert_ne!(clamped[1].diff_id, plain[1].diff_id);
    let again = top
        .blobs_not_after(CompressionSpec::default(), 1000, &base_layers)
        .await
        .unwrap();
    assert_eq!(again[1].descriptor, clamped[1].descriptor);
    let after = top.blobs(CompressionSpec::default()).await.unwrap();
    assert_eq!(after[1].descriptor, plain[1].descriptor);
}

#[tokio::test]
async fn what_was_made_here_follows_the_compression_and_what_came_stays() {
    requires!(overlay);
    let lab = Lab::new();
    let foreign = lab.layer_of(&["base=1"]);
    let shelf = Shelf::of(&foreign);
    let base = lab
        .store
        .import_layer(None, describe(&foreign), shelf.clone())
        .unwrap();
    base.ensure().await.unwrap();
    let middle = lab.step(Some(&base), &["middle=2"]);
    let top = lab.step(Some(&middle), &["top=3"]);
    let spec = |kind| CompressionSpec {
        kind,
        ..CompressionSpec::default()
    };
    let kinds = |list: &[store::LayerBlob]| -> Vec<String> {
        let kind = |b: &store::LayerBlob| {
            let (_, kind) = b.descriptor.media_type.rsplit_once('.').unwrap();
            kind.to_owned()
        };
        list.iter().map(kind).collect()
    };
    let first = top.blobs(CompressionSpec::default()).await.unwrap();
    assert_eq!(kinds(&first), ["tar+gzip"; 3]);
    for (kind, own) in [
        (CompressionKind::Zstd, "tar+zstd"),
        (CompressionKind::Uncompressed, "tar"),
        (CompressionKind::Gzip, "tar+gzip"),
        (CompressionKind::Zstd, "tar+zstd"),
    ] {
        let blobs = top.blobs_as_asked(spec(kind), None).await.unwrap();
        assert_eq!(kinds(&blobs), ["tar+gzip", own, own]);
        let diff_ids = |list: &[store::LayerBlob]| -> Vec<_> {
            list.iter().map(|b| b.diff_id.clone()).collect()
        };
        assert_eq!(diff_ids(&blobs), diff_ids(&first));
    }
    // Layers of the base image that were made here, for another build.
    let base_layers = [first[0].diff_id.clone(), first[1].diff_id.clone()].into();
    let zstd = spec(CompressionKind::Zstd);
    let blobs = top.blobs_as_asked(zstd, Some(&base_layers)).await.unwrap();
    assert_eq!(kinds(&blobs), ["tar+gzip", "tar+gzip", "tar+zstd"]);
    // The same blob comes with an image, of which nobody says what its base is.
    let desc = store::LayerDesc::new(
        first[1].descriptor.clone(),
        first[1].diff_id.clone(),
        "pulled",
    );
    let pulled = lab
        .store
        .import_layer(Some(&base), desc, Shelf::of(b""))
        .unwrap();
    assert_eq!(pulled, middle);
    let blobs = top.blobs_as_asked(zstd, None).await.unwrap();
    assert_eq!(kinds(&blobs), ["tar+gzip", "tar+gzip", "tar+zstd"]);
    let none = std::collections::BTreeSet::new();
    let blobs = top.blobs_as_asked(zstd, Some(&none)).await.unwrap();
    assert_eq!(kinds(&blobs), ["tar+gzip", "tar+zstd", "tar+zstd"]);
    // What exists is what those get who ask for nothing.
    let unasked = top.blobs(CompressionSpec::default()).await.unwrap();
    assert_eq!(kinds(&unasked), ["tar+gzip"; 3]);
}

#[test]
fn a_chain_of_very_many_layers_is_let_go_on_a_small_stack() {
    requires!(overlay);
    let lab = Lab::new();
    let small = std::thread::Builder::new().stack_size(256 << 10);
    let store = lab.store.clone();
    let chain = move || {
        let shelf = Shelf::of(b"");
        let mut top = None;
        for at in 0..4_000 {
            let digest = oci::Digest::sha256(format!("layer {at}"));
            let desc = oci::Descriptor::new(oci::media_type::OCI_LAYER, digest.clone(), 1);
            let layer = store::LayerDesc::new(desc, digest, "");
            top = Some(
                store
                    .import_layer(top.as_ref(), layer, shelf.clone())
                    .unwrap(),
            );
        }
        assert_eq!(top.unwrap().chain().len(), 4_000);
    };
    small.spawn(chain).unwrap().join().unwrap();
}
