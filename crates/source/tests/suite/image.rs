use oci::{Descriptor, Digest, Platform, media_type};
use source::oci_layout::{LayoutStore, OciLayoutSource};
use source::Source;

use crate::client::{Client, World, attrs, write};

/// Puts a document where the test client's content store has it.
fn put(dir: &std::path::Path, media_type: &str, text: String) -> Descriptor {
    let desc = Descriptor::of_bytes(media_type, text.as_bytes());
    write(dir.join(desc.digest.hex()), &text);
    desc
}

fn json(desc: &Descriptor) -> String {
    String::from_utf8(oci::json::to_vec(desc)).unwrap()
}

fn image(dir: &std::path::Path, arch: &str, layers: usize) -> Descriptor {
    let layer = put(dir, media_type::OCI_LAYER, format!("layer of {arch}"));
    let diff_ids = vec![format!("\"{}\"", layer.digest); layers].join(",");
    let config = format!(r#"{{"os":"linux","architecture":"{arch}","rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#);
    let config = put(dir, media_type::OCI_CONFIG, config);
    let layers = vec![json(&layer); layers].join(",");
    let manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#, json(&config));
    let mut desc = put(dir, media_type::OCI_MANIFEST, manifest);
    desc.platform = Some(Platform::new("linux", arch, ""));
    desc
}

#[tokio::test]
async fn the_best_manifest_of_an_index_is_chosen_and_layers_stay_lazy() {
    let Some(mut world) = World::new() else { return };
    let dir = world.folder("layout");
    let (amd, arm) = (image(&dir, "amd64", 2), image(&dir, "arm64", 1));
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{},{}]}}"#, media_type::OCI_INDEX, json(&amd), json(&arm));
    let index = put(&dir, media_type::OCI_INDEX, index);
    let ctx = world.connect(Client::new("s1", &dir));
    let source = OciLayoutSource::new(world.store.clone());
    let reference = format!("not/real@{}", index.digest);
    let layout = LayoutStore { session: "s1".into(), store: "layout".into() };
    let platform = Platform::new("linux", "arm64", "");
    let config = source.resolve_config(&reference, Some(&platform), &layout, &ctx).await.unwrap();
    assert_eq!(config.digest, index.digest);
    assert!(String::from_utf8_lossy(&config.config).contains("arm64"));

    let list = attrs(&[("oci.session", "s1"), ("oci.store", "layout")]);
    let instance = source.resolve("oci-layout", &reference, &list, Some(&Platform::new("linux", "amd64", ""))).unwrap();
    let key = instance.cache_key(&ctx, 0).await.unwrap();
    let want = format!("{{\"Digest\":\"{}\",\"OS\":\"linux\",\"Arch\":\"amd64\"}}", index.digest);
    assert_eq!(key.key, Digest::sha256(want).to_string());
    assert_eq!(key.layers.len(), 2);
    let found = instance.snapshot(&ctx).await.unwrap().unwrap();
    assert_eq!(found.chain().len(), 2);
    assert!(found.is_lazy());

    let missing = source.resolve_config(&reference, Some(&Platform::new("linux", "s390x", "")), &layout, &ctx).await;
    assert_eq!(missing.unwrap_err().to_string(), "no match for platform in manifest: not found");
    let limited = attrs(&[("oci.session", "s1"), ("oci.store", "layout"), ("oci.layerlimit", "3")]);
    let limited = source.resolve("oci-layout", &reference, &limited, Some(&Platform::new("linux", "amd64", ""))).unwrap();
    let error = limited.cache_key(&ctx, 0).await.unwrap_err().to_string();
    assert_eq!(error, "layer limit 3 is greater than the number of layers in the image 2");
}
