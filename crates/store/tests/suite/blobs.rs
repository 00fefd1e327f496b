use std::io::{Read, Write};

use oci::Digest;
use store::{PruneOptions, StoreError};

use testkit::requires;

use crate::support::Lab;

fn prune_all(lab: &Lab) {
    lab.store
        .prune(
            &PruneOptions {
                all: true,
                ..PruneOptions::default()
            },
            &mut |_| {},
        )
        .unwrap();
}

#[test]
fn blobs_are_named_by_what_they_are_and_kept_once() {
    requires!(overlay);
    let lab = Lab::new();
    let lease = lab.store.lease();
    for _ in 0..2 {
        let mut writer = lab.store.blob_writer(&lease).unwrap();
        writer.write_all(b"hello").unwrap();
        let info = writer.commit(Some(&Digest::sha256(b"hello"))).unwrap();
        assert_eq!(info.size, 5);
    }
    let mut text = String::new();
    lab.store
        .open_blob(&Digest::sha256(b"hello"))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "hello");
    let mut writer = lab.store.blob_writer(&lease).unwrap();
    writer.write_all(b"other").unwrap();
    assert!(matches!(
        writer.commit(Some(&Digest::sha256(b"hello"))),
        Err(StoreError::DigestMismatch { .. })
    ));
    assert_eq!(
        std::fs::read_dir(lab.dir.path().join("ingest"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(
        std::fs::read_dir(lab.dir.path().join("blobs/sha256"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn a_lease_or_a_pin_keeps_a_blob_and_nothing_else_does() {
    requires!(overlay);
    let lab = Lab::new();
    let lease = lab.store.lease();
    let leased = lab.store.put_blob(&lease, b"leased").unwrap().digest;
    let pinned = lab
        .store
        .put_blob(&lab.store.lease(), b"pinned")
        .unwrap()
        .digest;
    lab.store.pin_blob("history:a", &pinned).unwrap();
    let loose = lab
        .store
        .put_blob(&lab.store.lease(), b"loose")
        .unwrap()
        .digest;
    prune_all(&lab);
    let here = |d| lab.store.blob_info(d).unwrap().is_some();
    assert_eq!(
        (here(&leased), here(&pinned), here(&loose)),
        (true, true, false)
    );
    drop(lease);
    lab.store.unpin_blobs("history:a").unwrap();
    prune_all(&lab);
    assert_eq!(
        std::fs::read_dir(lab.dir.path().join("blobs/sha256"))
            .unwrap()
            .count(),
        0
    );
    assert!(matches!(
        lab.store.open_blob(&leased),
        Err(StoreError::NoBlob { .. })
    ));
}
