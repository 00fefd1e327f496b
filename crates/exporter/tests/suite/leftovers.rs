//! Statements beside what is exported, and what exports that fail or are cancelled leave.

use oci::{Digest, Index};
use store::PruneOptions;

use crate::client::{World, single};
use crate::exporting::{
    CONFIG, KINDS, attested, document, export, listing, refused, resolve, take_out, two,
};

#[tokio::test]
async fn statements_hang_on_images_and_lie_beside_files() {
    let Some(world) = World::new() else { return };
    let plain = single(world.layer(None, "COPY a", &[("a", "one")]), CONFIG);
    let source = attested(
        plain,
        &[
            ("provenance.json", "provenance"),
            ("sbom.spdx.json", "sbom"),
        ],
    );
    for (kind, artifact) in [("image", "false"), ("oci", "false"), ("docker", "true")] {
        let list = [("oci-artifact", artifact)];
        let exported = export(&world, kind, &list, &source).await.unwrap();
        let root = exported.descriptor.unwrap();
        let index: Index = document(&world, &root.digest);
        assert_eq!(index.manifests.len(), 2, "{kind}");
        let [image, statements] = &index.manifests[..] else {
            panic!("an image and its statements")
        };
        assert_eq!(
            statements.annotations["vnd.docker.reference.digest"],
            image.digest.to_string()
        );
        assert_eq!(
            statements.annotations["vnd.docker.reference.type"],
            "attestation-manifest"
        );
        assert_eq!(statements.platform.as_ref().unwrap().os, "unknown");
        let manifest: serde_json::Value = document(&world, &statements.digest);
        assert_eq!(
            manifest.get("subject").is_some(),
            artifact == "true",
            "{kind}"
        );
        let layers = manifest["layers"].as_array().unwrap();
        let predicates: Vec<&str> = layers
            .iter()
            .map(|l| {
                l["annotations"]["in-toto.io/predicate-type"]
                    .as_str()
                    .unwrap()
            })
            .collect();
        assert_eq!(
            predicates,
            ["https://example.com/provenance", "https://example.com/sbom"]
        );
        let first = Digest::parse(layers[0]["digest"].as_str().unwrap()).unwrap();
        let bytes = world.store.read_blob(&first, 1 << 20).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, format!("provenance of linux/amd64: {}", image.digest));
    }
    let error = refused(&world, "oci", &[("oci-mediatypes", "false")], &source).await;
    assert_eq!(
        error,
        "cannot export attestations with \"oci-mediatypes=false\""
    );
    export(&world, "tar", &[("attestation-prefix", "my-")], &source)
        .await
        .unwrap();
    assert_eq!(
        listing(&world),
        ["a", "my-provenance.json", "my-sbom.spdx.json"]
    );
    export(&world, "local", &[], &source).await.unwrap();
    let text = std::fs::read_to_string(world.dir.path().join("out/provenance.json")).unwrap();
    assert_eq!(text, "provenance of linux/amd64: a");
    assert_eq!(take_out(&world), ["a", "provenance.json", "sbom.spdx.json"]);
    let both = two(&world, [("x", "amd"), ("y", "arm")]);
    let both = attested(both, &[("provenance.json", "provenance")]);
    export(&world, "local", &[("platform-split", "false")], &both)
        .await
        .unwrap();
    let names = [
        "provenance.linux_amd64.json",
        "provenance.linux_arm64.json",
        "x",
        "y",
    ];
    assert_eq!(take_out(&world), names);
}

#[tokio::test]
async fn names_of_statements_that_clash_or_lead_away_are_refused() {
    let Some(world) = World::new() else { return };
    let plain = || single(world.layer(None, "COPY a", &[("a", "one")]), CONFIG);
    let same = attested(plain(), &[("p/s.json", "one"), ("q/s.json", "two")]);
    let away = attested(plain(), &[("s.json", "one")]);
    let none = attested(plain(), &[("..", "one")]);
    for kind in ["local", "tar"] {
        let error = refused(&world, kind, &[], &same).await;
        assert_eq!(error, "duplicate attestation path name s.json");
        for (prefix, name) in [("../", "../s.json"), ("/etc/", "/etc/s.json")] {
            let error = refused(&world, kind, &[("attestation-prefix", prefix)], &away).await;
            assert_eq!(
                error,
                format!("invalid attestation path name {name}"),
                "{kind}"
            );
        }
        let error = refused(&world, kind, &[], &none).await;
        assert_eq!(error, "invalid attestation path name ..");
    }
    // A file of the result of that name is hidden by the statement.
    let hidden = attested(plain(), &[("a", "statement")]);
    export(&world, "tar", &[], &hidden).await.unwrap();
    assert_eq!(listing(&world), ["a"]);
    export(&world, "local", &[], &hidden).await.unwrap();
    let text = std::fs::read_to_string(world.dir.path().join("out/a")).unwrap();
    assert_eq!(text, "statement of linux/amd64: a");
}

/// What is left in the store when nobody holds anything.
fn left(world: &World) -> usize {
    let all = PruneOptions {
        all: true,
        ..PruneOptions::default()
    };
    world.store.prune(&all, &mut |_| {}).unwrap();
    world.store.list_blobs("", 1000).unwrap().len()
}

#[tokio::test]
async fn an_export_that_fails_leaves_nothing_in_the_store_or_at_the_client() {
    let Some(world) = World::new() else { return };
    for kind in KINDS {
        let plain = single(world.layer(None, "COPY a", &[("a", kind)]), CONFIG);
        let source = attested(plain, &[("s.json", "fails")]);
        let error = export(&world, kind, &[], &source).await.unwrap_err();
        assert_eq!(error.to_string(), "no statement can be made", "{kind}");
        assert!(take_out(&world).is_empty(), "{kind}");
        assert_eq!(world.received.lock().opened, 0, "{kind}: nothing was begun");
        drop(source);
        assert_eq!(left(&world), 0, "{kind}");
    }
    for kind in ["docker", "oci"] {
        let source = single(world.layer(None, "COPY a", &[("a", kind)]), CONFIG);
        let error = refused(&world, kind, &[("name", "UPPER case")], &source).await;
        assert!(error.starts_with("failed to parse UPPER case: "), "{error}");
        assert!(world.received.lock().file.is_empty());
        drop(source);
        assert_eq!(left(&world), 0, "{kind}");
    }
}

#[tokio::test]
async fn an_export_that_is_cancelled_lets_go_of_everything() {
    let Some(world) = World::new() else { return };
    let big = "x".repeat(2_000_000);
    for kind in ["docker", "local", "oci", "tar"] {
        *world.received.lock() = Default::default();
        world.received.lock().stalls = true;
        let source = single(world.layer(None, "COPY a", &[("a", &big)]), CONFIG);
        let instance = resolve(&world, kind, &[("compression", "uncompressed")]);
        let opened = async {
            while world.received.lock().opened == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = instance.export(&world.ctx, &source) => panic!("{kind}: {done:?}"),
            () = opened => {}
        }
        drop((instance, source));
        // A thread that reads the files ends as soon as it notices.
        while !world
            .store
            .disk_usage(&[], Default::default())
            .unwrap()
            .iter()
            .all(|u| !u.in_use)
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(left(&world), 0, "{kind}");
    }
}
