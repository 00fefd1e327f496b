use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use oci::{Descriptor, Digest, Platform, media_type};
use registry::{Access, Anonymous, BytesSource, Client, Config, RepositoryName};
use source::Source;
use source::image::{ImageSource, ResolveMode};
use source::oci_layout::{LayoutStore, OciLayoutSource};

use crate::client::{Client as Session, World, attrs, write};

/// Puts a document where the test client's content store has it.
fn put(dir: &std::path::Path, media_type: &str, text: String) -> Descriptor {
    let desc = Descriptor::of_bytes(media_type, text.as_bytes());
    write(dir.join(desc.digest.hex()), &text);
    desc
}

fn json(desc: &Descriptor) -> String {
    String::from_utf8(gostd::json::to_vec(desc)).unwrap()
}

fn image(dir: &std::path::Path, arch: &str, layers: usize) -> Descriptor {
    let layer = put(dir, media_type::OCI_LAYER, format!("layer of {arch}"));
    let diff_ids = vec![format!("\"{}\"", layer.digest); layers].join(",");
    let config = format!(
        r#"{{"os":"linux","architecture":"{arch}","rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#
    );
    let config = put(dir, media_type::OCI_CONFIG, config);
    let layers = vec![json(&layer); layers].join(",");
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#,
        json(&config)
    );
    let mut desc = put(dir, media_type::OCI_MANIFEST, manifest);
    desc.platform = Some(Platform::new("linux", arch, ""));
    desc
}

#[tokio::test]
async fn the_best_manifest_of_an_index_is_chosen_and_layers_stay_lazy() {
    let Some(mut world) = World::new() else {
        return;
    };
    let dir = world.folder("layout");
    let (amd, arm) = (image(&dir, "amd64", 2), image(&dir, "arm64", 1));
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{},{}]}}"#,
        media_type::OCI_INDEX,
        json(&amd),
        json(&arm)
    );
    let index = put(&dir, media_type::OCI_INDEX, index);
    let ctx = world.connect(Session::new("s1", &dir));
    let source = OciLayoutSource::new(world.store.clone());
    let reference = format!("not/real@{}", index.digest);
    let layout = LayoutStore {
        session: "s1".into(),
        store: "layout".into(),
    };
    let platform = Platform::new("linux", "arm64", "");
    let config = source
        .resolve_config(&reference, Some(&platform), &layout, &ctx)
        .await
        .unwrap();
    assert_eq!(config.digest, index.digest);
    assert!(String::from_utf8_lossy(&config.config).contains("arm64"));

    let list = attrs(&[("oci.session", "s1"), ("oci.store", "layout")]);
    let instance = source
        .resolve(
            "oci-layout",
            &reference,
            &list,
            Some(&Platform::new("linux", "amd64", "")),
        )
        .unwrap();
    let key = instance.cache_key(&ctx, 0).await.unwrap();
    let key_json = format!(
        "{{\"Digest\":\"{}\",\"OS\":\"linux\",\"Arch\":\"amd64\"}}",
        index.digest
    );
    assert_eq!(key.key, Digest::sha256(key_json).to_string());
    assert_eq!(key.layers.len(), 2);
    let snapshot = instance.snapshot(&ctx).await.unwrap().unwrap();
    assert_eq!(snapshot.chain().len(), 2);
    assert!(snapshot.is_lazy());

    let missing = source
        .resolve_config(
            &reference,
            Some(&Platform::new("linux", "s390x", "")),
            &layout,
            &ctx,
        )
        .await;
    assert_eq!(
        missing.unwrap_err().to_string(),
        "no match for platform in manifest: not found"
    );
    let limited = attrs(&[
        ("oci.session", "s1"),
        ("oci.store", "layout"),
        ("oci.layerlimit", "3"),
    ]);
    let limited = source
        .resolve(
            "oci-layout",
            &reference,
            &limited,
            Some(&Platform::new("linux", "amd64", "")),
        )
        .unwrap();
    let error = limited.cache_key(&ctx, 0).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "layer limit 3 is greater than the number of layers in the image 2"
    );
}

#[tokio::test]
async fn an_image_of_more_layers_than_can_be_stacked_is_refused() {
    let Some(mut world) = World::new() else {
        return;
    };
    let dir = world.folder("layout");
    let many = image(&dir, "amd64", 5000);
    let ctx = world.connect(Session::new("s1", &dir));
    let list = attrs(&[("oci.session", "s1"), ("oci.store", "layout")]);
    let reference = format!("not/real@{}", many.digest);
    let instance = OciLayoutSource::new(world.store.clone())
        .resolve("oci-layout", &reference, &list, None)
        .unwrap();
    let error = instance.cache_key(&ctx, 0).await.unwrap_err().to_string();
    assert!(error.contains("more than 4096 layers: 5000"), "{error}");
}

#[tokio::test]
async fn documents_of_an_image_are_read_as_go_reads_them() {
    let Some(mut world) = World::new() else {
        return;
    };
    let dir = world.folder("layout");
    let layer = put(&dir, media_type::OCI_LAYER, "layer".to_owned());
    let ctx = world.connect(Session::new("s1", &dir));
    let list = attrs(&[("oci.session", "s1"), ("oci.store", "layout")]);
    // What is written in the place of what the image has; see the table in `oci` for what there is.
    for (what, by) in [
        ("\"config\":{}", "\"config\":null"),
        (
            "\"config\":{}",
            "\"config\":{\"Volumes\":{\"/x\":null},\"Env\":null}",
        ),
        (
            "\"config\":{}",
            "\"author\":null,\"created\":null,\"history\":null",
        ),
        ("\"config\":{}", "\"author\":\"\\ud800\""),
        ("\"os\"", "\"os\":\"plan9\",\"os\""),
        ("\"rootfs\"", "\"RootFS\""),
        ("\"layers\":[", "\"Layers\":["),
        (
            "\"manifests\":[",
            "\"subject\":null,\"annotations\":null,\"manifests\":[",
        ),
        (
            "\"subject\":0",
            "\"subject\":null,\"annotations\":{\"a\":null}",
        ),
    ] {
        let config = format!(
            "{{\"os\":\"linux\",\"architecture\":\"amd64\",\"rootfs\":{{\"type\":null,\"diff_ids\":[\"{}\"]}},\"config\":{{}}}}",
            layer.digest
        );
        let config = put(&dir, media_type::OCI_CONFIG, config.replace(what, by));
        let manifest = format!(
            "{{\"mediaType\":null,\"subject\":0,\"config\":{},\"layers\":[{}]}}",
            json(&config),
            json(&layer)
        );
        let manifest = manifest.replace(what, by).replace("\"subject\":0,", "");
        let manifest = put(&dir, media_type::OCI_MANIFEST, manifest);
        let entry = json(&manifest).replace('}', ",\"platform\":null,\"annotations\":null}");
        let index = format!("{{\"schemaVersion\":null,\"manifests\":[{entry}]}}");
        let index = put(&dir, media_type::OCI_INDEX, index.replace(what, by));
        let reference = format!("not/real@{}", index.digest);
        let instance = OciLayoutSource::new(world.store.clone())
            .resolve("oci-layout", &reference, &list, None)
            .unwrap();
        let key = instance.cache_key(&ctx, 0).await;
        assert_eq!(key.unwrap().layers.len(), 1, "{by}");
    }
}

struct Registry {
    child: Child,
    host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn registry_server(dir: &std::path::Path) -> Option<Registry> {
    let host = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let config = dir.join("registry.yml");
    let storage = dir.join("registry").display().to_string();
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: \"{host}\"}}\n"
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = child else {
        testkit::skip::skip("docker-registry is not installed (apt-get install docker-registry)");
        return None;
    };
    let registry = Registry { child, host };
    let deadline = task::clock::monotonic() + Duration::from_secs(20);
    while TcpStream::connect(&registry.host).is_err() {
        assert!(
            task::clock::monotonic() < deadline,
            "docker-registry does not listen"
        );
        std::thread::yield_now();
    }
    Some(registry)
}

/// Pushes an image of one layer with one file.
async fn push(client: &Client, host: &str) -> Descriptor {
    let name = RepositoryName {
        domain: host.into(),
        path: "a/base".into(),
    };
    let repository = client
        .repository(name, Access::PUSH, Arc::new(Anonymous))
        .unwrap();
    let tar = Command::new("tar")
        .args(["-cf", "-", "-C", "/etc", "hostname"])
        .output()
        .unwrap()
        .stdout;
    let layer = Descriptor::of_bytes(media_type::OCI_LAYER, &tar);
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        layer.digest
    );
    let config_desc = Descriptor::of_bytes(media_type::OCI_CONFIG, config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        media_type::OCI_MANIFEST,
        json(&config_desc),
        json(&layer)
    );
    let desc = Descriptor::of_bytes(media_type::OCI_MANIFEST, manifest.as_bytes());
    for (desc, bytes) in [(&layer, tar), (&config_desc, config.into_bytes())] {
        repository
            .push_blob(
                desc,
                Arc::new(BytesSource(bytes.into())),
                &[],
                Arc::new(|_| {}),
            )
            .await
            .unwrap();
    }
    repository
        .push_manifest(&desc, manifest.into(), Some("v1"))
        .await
        .unwrap();
    desc
}

#[tokio::test]
async fn a_pulled_image_is_unpacked_when_needed_and_known_without_its_registry() {
    let Some(world) = World::new() else { return };
    let Some(server) = registry_server(world.dir.path()) else {
        return;
    };
    let client = Client::new(Config::new("test"));
    let desc = push(&client, &server.host).await;
    let ctx = world.alone();
    let source = ImageSource::new(world.store.clone(), client.clone());
    let reference = format!("{}/a/base:v1", server.host);
    let platform = Platform::new("linux", "amd64", "");
    let config = source
        .resolve_config(&reference, Some(&platform), ResolveMode::Default, &ctx)
        .await
        .unwrap();
    assert_eq!(config.digest, desc.digest);
    let wrong = attrs(&[("image.checksum", Digest::sha256("x").as_str())]);
    let wrong = source
        .resolve("docker-image", &reference, &wrong, Some(&platform))
        .unwrap();
    let error = wrong.cache_key(&ctx, 0).await.unwrap_err().to_string();
    assert!(
        error.ends_with(&format!(
            "does not match expected checksum {}",
            Digest::sha256("x")
        )),
        "{error}"
    );

    let instance = source
        .resolve("docker-image", &reference, &attrs(&[]), Some(&platform))
        .unwrap();
    let snapshot = instance.snapshot(&ctx).await.unwrap().unwrap();
    assert!(snapshot.is_lazy());
    snapshot.ensure().await.unwrap();
    assert!(
        snapshot
            .root()
            .unwrap()
            .lstat("hostname")
            .unwrap()
            .is_file()
    );

    drop(server);
    let pinned = format!("{reference}@{}", desc.digest);
    for source in [source, ImageSource::new(world.store.clone(), client)] {
        let config = source
            .resolve_config(&pinned, Some(&platform), ResolveMode::Default, &ctx)
            .await
            .unwrap();
        assert_eq!(config.digest, desc.digest);
        let other_repository = pinned.replace("a/base", "a/other");
        assert!(
            source
                .resolve_config(
                    &other_repository,
                    Some(&platform),
                    ResolveMode::Default,
                    &ctx
                )
                .await
                .is_err(),
            "another repository vouched for nothing"
        );
    }
}

/// Pushes blobs and manifests of a repository of statements.
struct Shelf {
    repository: registry::Repository,
}

impl Shelf {
    async fn blob(&self, media_type: &str, text: &str) -> Descriptor {
        let desc = Descriptor::of_bytes(media_type, text.as_bytes());
        let bytes = BytesSource(text.to_owned().into());
        self.repository
            .push_blob(&desc, Arc::new(bytes), &[], Arc::new(|_| {}))
            .await
            .unwrap();
        desc
    }

    /// A manifest with these layers.
    async fn manifest(&self, config: &str, layers: &[Descriptor]) -> Descriptor {
        let config = self.blob(media_type::OCI_CONFIG, config).await;
        let layers: Vec<String> = layers.iter().map(json).collect();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
            media_type::OCI_MANIFEST,
            json(&config),
            layers.join(",")
        );
        self.document(media_type::OCI_MANIFEST, text, None).await
    }

    async fn index(&self, title: &str, entries: &[Descriptor], tag: &str) -> Descriptor {
        let entries: Vec<String> = entries.iter().map(json).collect();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}],"annotations":{{"org.opencontainers.image.title":"{title}"}}}}"#,
            media_type::OCI_INDEX,
            entries.join(",")
        );
        self.document(media_type::OCI_INDEX, text, Some(tag)).await
    }

    async fn document(&self, media_type: &str, text: String, tag: Option<&str>) -> Descriptor {
        let desc = Descriptor::of_bytes(media_type, text.as_bytes());
        self.repository
            .push_manifest(&desc, text.into(), tag)
            .await
            .unwrap();
        desc
    }

    /// Lists referrers as registries without an API for them do.
    async fn refer(&self, subject: &Descriptor, referrers: &[Descriptor]) {
        let tag = format!("sha256-{}", subject.digest.hex());
        self.index("", referrers, &tag).await;
    }
}

fn noted(mut desc: Descriptor, artifact_type: &str, notes: &[(&str, &str)]) -> Descriptor {
    desc.artifact_type = artifact_type.into();
    desc.annotations = attrs(notes);
    desc
}

#[tokio::test]
async fn statements_of_a_hardened_image_are_what_refers_to_its_manifest() {
    const PREDICATE: &str = "in-toto.io/predicate-type";
    const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
    const IN_TOTO: &str = "application/vnd.in-toto+json";
    let Some(world) = World::new() else { return };
    let Some(server) = registry_server(world.dir.path()) else {
        return;
    };
    let client = Client::new(Config::new("test"));
    let name = RepositoryName {
        domain: server.host.clone(),
        path: "dhi/base".into(),
    };
    let repository = client
        .repository(name, Access::PUSH, Arc::new(Anonymous))
        .unwrap();
    let shelf = Shelf { repository };
    let of_host = |desc: Descriptor, notes: &[(&str, &str)]| Descriptor {
        platform: Some(Platform::new("linux", "amd64", "")),
        ..noted(desc, "", notes)
    };
    let statement = |kind: &'static str, text: &'static str| {
        let shelf = &shelf;
        async move {
            let layer = shelf.blob(IN_TOTO, text).await;
            let layer = noted(layer, "", &[(PREDICATE, kind)]);
            let manifest = shelf.manifest("{}", std::slice::from_ref(&layer)).await;
            (noted(manifest, IN_TOTO, &[(PREDICATE, kind)]), layer)
        }
    };
    let image = shelf.manifest(r#"{"os":"linux"}"#, &[]).await;
    let (sbom, _) = statement("https://spdx.dev/Document", "{\"sbom\":1}").await;
    let (provenance, provenance_layer) = statement(PROVENANCE, "{\"provenance\":1}").await;
    let layer = shelf.blob("application/json", "{\"bundle\":1}").await;
    let bundle = shelf
        .manifest("{\"b\":1}", std::slice::from_ref(&layer))
        .await;
    let bundle = noted(bundle, "application/vnd.dev.sigstore.bundle.v0.3+json", &[]);
    let other = noted(
        image.clone(),
        "application/other",
        &[(PREDICATE, PROVENANCE)],
    );
    shelf
        .refer(&image, &[other, sbom, provenance.clone()])
        .await;
    shelf
        .refer(&provenance, std::slice::from_ref(&bundle))
        .await;
    let bare = shelf.manifest(r#"{"os":"linux","a":1}"#, &[]).await;

    let build = &[("com.docker.dhi.build.id", "7")][..];
    let entry = |notes| of_host(image.clone(), notes);
    let source = ImageSource::new(world.store.clone(), client.clone());
    let ctx = world.alone();
    for (tag, title, entries, is_hardened) in [
        ("hardened", "dhi/base", vec![entry(build)], Ok(true)),
        (
            "titled",
            "dhi/base",
            vec![entry(build), noted(image.clone(), "", &[])],
            Ok(false),
        ),
        (
            "empty",
            "dhi/base",
            vec![entry(&[("com.docker.dhi.build.id", "")])],
            Ok(false),
        ),
        ("built", "other/base", vec![entry(build)], Ok(false)),
        (
            "bare",
            "dhi/base",
            vec![of_host(bare.clone(), build)],
            Err("no attestation referrers found for DHI manifest "),
        ),
    ] {
        let index = shelf.index(title, &entries, tag).await;
        let reference = format!("{}/dhi/base:{tag}", server.host);
        let platform = Platform::new("linux", "amd64", "");
        let types = [PROVENANCE.to_owned()];
        let chain = source
            .attestation_chain(&reference, Some(&platform), &types, &ctx)
            .await;
        let chain = match (chain, is_hardened) {
            (Ok(chain), Ok(_)) => chain.unwrap(),
            (Err(error), Err(words)) => {
                assert!(error.to_string().contains(words), "{error}");
                continue;
            }
            (other, _) => panic!("{tag}: {other:?}"),
        };
        assert_eq!(
            (&chain.root, &chain.image_manifest),
            (&index.digest, &image.digest)
        );
        let mut blobs = vec![&index.digest];
        if is_hardened == Ok(true) {
            assert_eq!(
                chain.attestation_manifest.as_ref(),
                Some(&provenance.digest)
            );
            assert_eq!(chain.signature_manifest.as_ref(), Some(&bundle.digest));
            blobs.extend([
                &provenance.digest,
                &bundle.digest,
                &layer.digest,
                &provenance_layer.digest,
            ]);
        } else {
            assert_eq!(chain.attestation_manifest, None, "{tag}");
        }
        let mut blobs: Vec<&str> = blobs.into_iter().map(Digest::as_str).collect();
        blobs.sort_unstable();
        let read: Vec<&str> = chain.blobs.keys().map(String::as_str).collect();
        assert_eq!(read, blobs, "{tag}");
    }
}
