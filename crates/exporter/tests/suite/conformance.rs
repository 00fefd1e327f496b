//! What every exporter does, and what each of them makes of the same results.

use std::collections::BTreeMap;

use exporter::ExportSource;
use oci::{ErrorKind, Index, Manifest};

use crate::client::{World, attrs, single};
use crate::exporting::{
    CONFIG, KINDS, document, export, exporters, listing, refused, resolve, take_out, two,
};

#[tokio::test]
async fn every_exporter_says_what_it_is_and_keeps_its_attributes() {
    let Some(world) = World::new() else { return };
    let list = [("source-date-epoch", "7")];
    for (kind, name, makes_layers) in [
        ("docker", "exporting to docker image format", true),
        ("image", "exporting to image", true),
        ("local", "exporting to client directory", false),
        ("oci", "exporting to oci image format", true),
        ("tar", "exporting to client tarball", false),
    ] {
        let instance = resolve(&world, kind, &list);
        assert_eq!((instance.id(), instance.kind()), (3, kind));
        assert_eq!(instance.name(), name);
        assert_eq!(instance.attrs(), &attrs(&list));
        assert_eq!(instance.compression().is_some(), makes_layers, "{kind}");
    }
    let error = exporters(&world)
        .resolve("floppy", 0, &attrs(&[]))
        .unwrap_err();
    assert_eq!(error.to_string(), "exporter \"floppy\" could not be found");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn values_that_an_attribute_cannot_have_are_refused_before_the_build() {
    let Some(world) = World::new() else { return };
    let all = exporters(&world);
    let (images, trees) = (["docker", "image", "oci"], ["local", "tar"]);
    let cases: &[(&[&str], &str, &str, &str)] = &[
        (
            &KINDS,
            "source-date-epoch",
            "soon",
            "invalid source-date-epoch: ",
        ),
        (
            &images,
            "oci-mediatypes",
            "perhaps",
            "non-bool value specified for oci-mediatypes: ",
        ),
        (
            &images,
            "oci-artifact",
            "",
            "non-bool value specified for oci-artifact: ",
        ),
        (
            &images,
            "compression",
            "lz4",
            "unsupported compression type lz4",
        ),
        (
            &images,
            "compression-level",
            "high",
            "non-integer value high specified for compression-level",
        ),
        (
            &images,
            "force-compression",
            "2",
            "non-bool value 2 specified for force-compression",
        ),
        (
            &images,
            "rewrite-timestamp",
            "x",
            "non-bool value specified for rewrite-timestamp: ",
        ),
        (
            &images,
            "prefer-nondist-layers",
            "x",
            "non-bool value specified for prefer-nondist-layers: ",
        ),
        (
            &images,
            "attestation-inline",
            "x",
            "non-bool value specified for attestation-inline: ",
        ),
        (
            &images,
            "annotation-nowhere.k",
            "v",
            "unrecognized annotation type nowhere",
        ),
        (&images, "annotation[/].k", "v", ""),
        (
            &["image"],
            "push",
            "x",
            "non-bool value specified for push: ",
        ),
        (
            &["image"],
            "push-by-digest",
            "x",
            "non-bool value specified for push-by-digest: ",
        ),
        (
            &["image"],
            "registry.insecure",
            "x",
            "non-bool value specified for registry.insecure: ",
        ),
        (
            &["image"],
            "unpack",
            "x",
            "non-bool value specified for unpack: ",
        ),
        (
            &["image"],
            "store",
            "x",
            "non-bool value specified for store: ",
        ),
        (
            &["docker", "oci"],
            "tar",
            "x",
            "non-bool value specified for tar: ",
        ),
        (
            &trees,
            "platform-split",
            "x",
            "non-bool value for platform-split: x",
        ),
        (
            &trees,
            "mode",
            "move",
            "invalid local exporter mode \"move\"",
        ),
        (
            &trees,
            "src",
            "",
            "empty value for src; omit it to export the entire filesystem",
        ),
    ];
    for (kinds, key, value, text) in cases {
        for kind in *kinds {
            let resolved = all.resolve(kind, 0, &attrs(&[(key, value)]));
            let error = resolved
                .err()
                .unwrap_or_else(|| panic!("{kind} takes {key}={value}"));
            assert!(error.to_string().starts_with(text), "{kind} {key}: {error}");
            assert_eq!(error.kind(), ErrorKind::Invalid, "{kind} {key}");
        }
    }
    // What no exporter knows is metadata to some and nothing to others, and no error.
    for kind in KINDS {
        assert!(
            all.resolve(kind, 0, &attrs(&[("of-the-future", "x")]))
                .is_ok(),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn one_result_is_written_in_the_form_of_each_exporter() {
    let Some(world) = World::new() else { return };
    let source = single(world.layer(None, "COPY a", &[("d/a", "one")]), CONFIG);
    for kind in ["docker", "oci"] {
        let exported = export(&world, kind, &[("name", "app:v1")], &source)
            .await
            .unwrap();
        let names = listing(&world);
        for name in ["blobs/", "blobs/sha256/", "index.json", "oci-layout"] {
            assert!(names.iter().any(|n| n == name), "{kind}: {names:?}");
        }
        // Layer, config, manifest.
        let blobs = names
            .iter()
            .filter(|n| n.starts_with("blobs/sha256/") && !n.ends_with('/'));
        assert_eq!(blobs.count(), 3, "{kind}");
        assert_eq!(names.iter().any(|n| n == "manifest.json"), kind == "docker");
        assert_eq!(exported.response["image.name"], "docker.io/library/app:v1");
    }
    let exported = export(&world, "image", &[("name", "app:v1")], &source)
        .await
        .unwrap();
    assert_eq!(exported.response["image.name"], "app:v1");
    assert!(exported.finalize.is_none(), "nothing is to be pushed");
    assert_eq!(world.received.lock().opened, 0, "the client gets nothing");
    let root = exported.descriptor.unwrap();
    assert_eq!(
        root.digest.to_string(),
        exported.response["containerimage.digest"]
    );
    let manifest: Manifest = document(&world, &root.digest);
    assert_eq!(manifest.layers.len(), 1);
    let config: serde_json::Value = document(&world, &manifest.config.digest);
    assert_eq!(config["history"][0]["created_by"], "COPY a");
    assert_eq!(
        manifest.config.digest.to_string(),
        exported.response["containerimage.config.digest"]
    );
    let exported = export(&world, "tar", &[], &source).await.unwrap();
    assert_eq!(listing(&world), ["d/", "d/a"]);
    assert!(exported.response.is_empty() && exported.descriptor.is_none());
    export(&world, "local", &[], &source).await.unwrap();
    assert_eq!(take_out(&world), ["d/a"]);
}

#[tokio::test]
async fn results_of_several_platforms_lie_side_by_side() {
    let Some(world) = World::new() else { return };
    let source = two(&world, [("x", "amd"), ("x", "arm")]);
    for kind in ["image", "oci"] {
        let exported = export(&world, kind, &[], &source).await.unwrap();
        let root = exported.descriptor.unwrap();
        let index: Index = document(&world, &root.digest);
        let platforms: Vec<String> = index
            .manifests
            .iter()
            .map(|m| m.platform.as_ref().unwrap().to_string())
            .collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"], "{kind}");
        assert!(
            !exported
                .response
                .contains_key("containerimage.config.digest")
        );
        for manifest in &index.manifests {
            let manifest: Manifest = document(&world, &manifest.digest);
            assert_eq!(manifest.layers.len(), 1, "{kind}");
        }
    }
    let error = refused(&world, "docker", &[], &source).await;
    assert_eq!(
        error,
        "docker exporter does not currently support exporting manifest lists"
    );
    export(&world, "tar", &[], &source).await.unwrap();
    let folders = [
        "linux_amd64/",
        "linux_amd64/x",
        "linux_arm64/",
        "linux_arm64/x",
    ];
    assert_eq!(listing(&world), folders);
    export(&world, "tar", &[("platform-split", "false")], &source)
        .await
        .unwrap();
    assert_eq!(listing(&world), folders, "a tar always has folders");
    export(&world, "local", &[], &source).await.unwrap();
    assert_eq!(take_out(&world), ["linux_amd64/x", "linux_arm64/x"]);
}

#[tokio::test]
async fn results_that_do_not_fit_their_platforms_are_refused_by_all() {
    let Some(world) = World::new() else { return };
    let full = two(&world, [("x", "amd"), ("x", "arm")]);
    let change = |change: &dyn Fn(&mut ExportSource)| {
        let mut source = full.clone();
        change(&mut source);
        source
    };
    let one = full.refs["linux/amd64"].clone().unwrap();
    let of_three = r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}},{"ID":"linux/arm64","Platform":{"os":"linux","architecture":"arm64"}},{"ID":"linux/s390x","Platform":{"os":"linux","architecture":"s390x"}}]}"#;
    let cases = [
        (
            "no mapping",
            change(&|s| drop(s.metadata.remove("refs.platforms"))),
            "unable to export multiple refs, missing platforms mapping",
        ),
        (
            "an empty mapping",
            change(&|s| drop(s.metadata.insert("refs.platforms".into(), b"{}".to_vec()))),
            "invalid empty platforms index for exporter",
        ),
        (
            "a platform without a result",
            change(&|s| drop(s.metadata.insert("refs.platforms".into(), of_three.into()))),
            "failed to find ref for ID linux/s390x",
        ),
        (
            "a platform that is none",
            change(&|s| {
                let text = r#"{"Platforms":[{"ID":"x","Platform":{"os":"linux"}}]}"#;
                s.metadata.insert("refs.platforms".into(), text.into());
            }),
            "invalid platform value x for exporter",
        ),
    ];
    for (what, source, text) in cases {
        for kind in ["image", "local", "oci", "tar"] {
            assert_eq!(
                refused(&world, kind, &[], &source).await,
                text,
                "{kind}: {what}"
            );
        }
    }
    let mut source = single(one, CONFIG);
    source
        .metadata
        .insert("refs.platforms".into(), of_three.into());
    for kind in ["local", "tar"] {
        let text = "unable to export multiple platforms without map";
        assert_eq!(refused(&world, kind, &[], &source).await, text);
    }
    for kind in ["docker", "image", "oci"] {
        let text = "cannot export multiple platforms without multi-platform enabled";
        assert_eq!(refused(&world, kind, &[], &source).await, text);
    }
}

#[tokio::test]
async fn an_empty_result_is_an_image_without_layers_and_a_tree_without_files() {
    let Some(world) = World::new() else { return };
    let source = ExportSource::default();
    for kind in ["docker", "image", "oci"] {
        let exported = export(&world, kind, &[], &source).await.unwrap();
        let root = exported.descriptor.unwrap();
        let manifest: serde_json::Value = document(&world, &root.digest);
        assert_eq!(manifest["layers"], serde_json::Value::Null, "{kind}");
        assert!(!exported.response.contains_key("image.name"));
    }
    export(&world, "tar", &[], &source).await.unwrap();
    assert!(listing(&world).is_empty());
    export(&world, "local", &[], &source).await.unwrap();
    assert!(take_out(&world).is_empty());
    for kind in ["local", "tar"] {
        let error = refused(&world, kind, &[("src", "d")], &source).await;
        assert_eq!(error, "src=d: no such file or directory");
    }
}

#[tokio::test]
async fn the_name_of_an_image_may_be_the_frontends_or_made_of_its_digest() {
    let Some(world) = World::new() else { return };
    let mut source = single(world.layer(None, "COPY a", &[("a", "one")]), CONFIG);
    source
        .metadata
        .insert("image.name".into(), b"from/frontend:1".to_vec());
    let digest = export(&world, "image", &[], &source).await.unwrap();
    let digest = digest.response["containerimage.digest"].clone();
    for (list, name) in [
        (&[("name", "*")][..], "from/frontend:1".to_owned()),
        (&[("name", "own:1")], "own:1".into()),
        (&[("name", "a:1,a:1")], "a:1,a:1".into()),
        (
            &[("dangling-name-prefix", "none")],
            format!("none@{digest}"),
        ),
        (
            &[("name", "own:1"), ("dangling-name-prefix", "none")],
            format!("own:1,none@{digest}"),
        ),
        (
            &[
                ("name", "own:1"),
                ("dangling-name-prefix", "none"),
                ("danging-name-empty-only", ""),
            ],
            "own:1".into(),
        ),
    ] {
        let exported = export(&world, "image", list, &source).await.unwrap();
        assert_eq!(exported.response["image.name"], name, "{list:?}");
        assert_eq!(
            exported.response["containerimage.digest"], digest,
            "{list:?}"
        );
    }
}

#[tokio::test]
async fn annotations_go_where_they_are_sent_and_nowhere_they_cannot_be() {
    let Some(world) = World::new() else { return };
    let one = single(world.layer(None, "COPY a", &[("a", "one")]), CONFIG);
    let both = two(&world, [("x", "amd"), ("x", "arm")]);
    for (list, source, text) in [
        (
            &[("annotation-index.k", "v")][..],
            &one,
            "index annotations not supported for single platform export",
        ),
        (
            &[("annotation-index-descriptor.k", "v")],
            &one,
            "index annotations not supported for single platform export",
        ),
        (
            &[
                ("annotation-manifest-descriptor.k", "v"),
                ("oci-mediatypes", "false"),
            ],
            &one,
            "cannot export annotations with \"oci-mediatypes=false\"",
        ),
        (
            &[("annotation[linux/s390x].k", "v")],
            &both,
            "invalid annotation: no platform linux/s390x found in source",
        ),
    ] {
        assert_eq!(
            refused(&world, "image", list, source).await,
            text,
            "{list:?}"
        );
    }
    let list = [
        ("annotation.all", "a"),
        ("annotation[linux/arm64].own", "b"),
        ("annotation-index.index", "c"),
        ("annotation-manifest-descriptor[linux/amd64].desc", "d"),
        ("annotation-index-descriptor.root", "e"),
    ];
    let exported = export(&world, "image", &list, &both).await.unwrap();
    let root = exported.descriptor.unwrap();
    let keys = |map: &BTreeMap<String, String>| -> Vec<String> { map.keys().cloned().collect() };
    assert_eq!(keys(&root.annotations), ["root"]);
    let index: Index = document(&world, &root.digest);
    assert_eq!(keys(&index.annotations), ["index"]);
    assert_eq!(keys(&index.manifests[0].annotations), ["desc"]);
    assert!(index.manifests[1].annotations.is_empty());
    let [amd, arm] = [0, 1].map(|at| document::<Manifest>(&world, &index.manifests[at].digest));
    assert_eq!(keys(&amd.annotations), ["all"]);
    assert_eq!(keys(&arm.annotations), ["all", "own"]);
}

#[tokio::test]
async fn media_types_are_those_of_docker_where_oci_is_not_wanted() {
    let Some(world) = World::new() else { return };
    let source = single(world.layer(None, "COPY a", &[("a", "one")]), CONFIG);
    for (list, manifest_type, layer_type) in [
        (
            &[][..],
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.layer.v1.tar+gzip",
        ),
        (
            &[("oci-mediatypes", "false")],
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
        (
            &[("compression", "zstd"), ("force-compression", "")],
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ),
    ] {
        let exported = export(&world, "image", list, &source).await.unwrap();
        let root = exported.descriptor.unwrap();
        assert_eq!(root.media_type, manifest_type, "{list:?}");
        let manifest: Manifest = document(&world, &root.digest);
        assert_eq!(manifest.layers[0].media_type, layer_type, "{list:?}");
    }
}
