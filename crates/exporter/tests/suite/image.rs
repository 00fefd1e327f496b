use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use exporter::{ExportSource, Exporter, ImageExporter, OciExporter, Variant};
use oci::{Descriptor, Index, Manifest};
use registry::{Access, Anonymous, Client, Config, RepositoryName};

use crate::client::{World, attrs, single};

const CONFIG: &str = r#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/a"]},"history":[{"created_by":"COPY a","comment":"buildkit.dockerfile.v0"}]}"#;

fn unpack(world: &World, name: &str) -> std::path::PathBuf {
    let dir = world.dir.path().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let file = world.dir.path().join(format!("{name}.tar"));
    std::fs::write(&file, std::mem::take(&mut world.received.lock().file)).unwrap();
    assert!(
        Command::new("tar")
            .arg("-xf")
            .arg(&file)
            .arg("-C")
            .arg(&dir)
            .status()
            .unwrap()
            .success()
    );
    dir
}

fn read<T: serde::de::DeserializeOwned>(dir: &std::path::Path, desc: &Descriptor) -> T {
    let bytes = std::fs::read(dir.join("blobs/sha256").join(desc.digest.hex())).unwrap();
    assert_eq!(oci::Digest::sha256(&bytes), desc.digest);
    assert_eq!(bytes.len() as u64, desc.len());
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn an_archive_holds_the_image_and_its_names() {
    let Some(world) = World::new() else { return };
    let base = world.layer(None, "base", &[("a.txt", "one")]);
    let top = world.layer(Some(&base), "RUN make", &[("d/b.txt", "two")]);
    let exporter = OciExporter::new(world.store.clone(), Variant::Docker);
    let list = attrs(&[
        ("name", "busybox,localhost:5000/x:t"),
        ("annotation.org.a", "b"),
        ("source-date-epoch", "1000000000"),
    ]);
    let instance = exporter.resolve(0, &list).unwrap();
    assert_eq!(instance.name(), "exporting to docker image format");
    let exported = instance
        .export(&world.ctx, &single(top, CONFIG))
        .await
        .unwrap();
    assert_eq!(
        exported.response["image.name"],
        "docker.io/library/busybox:latest,localhost:5000/x:t"
    );
    assert_eq!(world.received.lock().metadata, exported.response);
    let dir = unpack(&world, "docker");
    let index: Index =
        serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    let names: Vec<_> = index
        .manifests
        .iter()
        .map(|m| m.annotations["org.opencontainers.image.ref.name"].as_str())
        .collect();
    assert_eq!(names, ["latest", "t"]);
    assert_eq!(
        index.manifests[0].annotations["org.opencontainers.image.created"],
        "2001-09-09T01:46:40Z"
    );
    assert_eq!(
        index.manifests[0].digest.to_string(),
        exported.response["containerimage.digest"]
    );
    let manifest: Manifest = read(&dir, &index.manifests[0]);
    assert_eq!(manifest.annotations["org.a"], "b");
    assert_eq!(
        manifest.config.digest.to_string(),
        exported.response["containerimage.config.digest"]
    );
    let config: serde_json::Value = read(&dir, &manifest.config);
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    assert_eq!(config["history"][1]["created_by"], "RUN make");
    assert_eq!(config["history"][0]["created"], "2001-09-09T01:46:40Z");
    let docker: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(
        docker[0]["RepoTags"],
        serde_json::json!(["busybox:latest", "localhost:5000/x:t"])
    );
    assert_eq!(docker[0]["Layers"].as_array().unwrap().len(), 2);
    for layer in &manifest.layers {
        let file = dir.join("blobs/sha256").join(layer.digest.hex());
        assert!(
            Command::new("tar")
                .arg("-tzf")
                .arg(file)
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success()
        );
    }
}

#[tokio::test]
async fn layers_of_the_build_follow_the_compression_and_those_of_the_base_stay() {
    let Some(world) = World::new() else { return };
    let base = world.layer(None, "base", &[("a.txt", "one")]);
    let top = world.layer(Some(&base), "RUN make", &[("d/b.txt", "two")]);
    let exporter = OciExporter::new(world.store.clone(), Variant::Oci);
    let mut base_config = String::new();
    for (at, (list, kinds)) in [
        (attrs(&[]), ["tar+gzip", "tar+gzip"]),
        (attrs(&[("compression", "zstd")]), ["tar+gzip", "tar+zstd"]),
        (
            attrs(&[("compression", "uncompressed")]),
            ["tar+gzip", "tar"],
        ),
        (attrs(&[]), ["tar+gzip", "tar+gzip"]),
        (
            attrs(&[("compression", "zstd"), ("force-compression", "true")]),
            ["tar+zstd", "tar+zstd"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let instance = exporter.resolve(0, &list).unwrap();
        let mut source = single(top.clone(), CONFIG);
        if at > 0 {
            source.metadata.insert(
                "containerimage.base.config".into(),
                base_config.clone().into_bytes(),
            );
        }
        instance.export(&world.ctx, &source).await.unwrap();
        let dir = unpack(&world, &format!("case{at}"));
        let bytes = std::fs::read(dir.join("index.json")).unwrap();
        let index: Index = serde_json::from_slice(&bytes).unwrap();
        let manifest: Manifest = read(&dir, &index.manifests[0]);
        let exported_kinds: Vec<&str> = manifest
            .layers
            .iter()
            .map(|l| l.media_type.rsplit_once('.').unwrap().1)
            .collect();
        assert_eq!(exported_kinds, kinds, "{list:?}");
        let config: serde_json::Value = read(&dir, &manifest.config);
        let diff_id = &config["rootfs"]["diff_ids"][0];
        base_config = format!("{{\"rootfs\":{{\"diff_ids\":[{diff_id}]}},\"history\":null}}");
    }
}

#[tokio::test]
async fn several_platforms_are_an_index_and_equal_builds_are_equal_images() {
    let Some(world) = World::new() else { return };
    let (amd, arm) = (
        world.layer(None, "amd", &[("a", "amd")]),
        world.layer(None, "arm", &[("a", "arm")]),
    );
    let platforms = r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}},{"ID":"linux/arm64","Platform":{"os":"linux","architecture":"arm64"}}]}"#;
    let mut source = ExportSource::default();
    source.refs.insert("linux/amd64".into(), Some(amd));
    source.refs.insert("linux/arm64".into(), Some(arm));
    source
        .metadata
        .insert("refs.platforms".into(), platforms.into());
    for arch in ["amd64", "arm64"] {
        let config = CONFIG.replace("amd64", arch);
        source.metadata.insert(
            format!("containerimage.config/linux/{arch}"),
            config.into_bytes(),
        );
    }
    let exporter = OciExporter::new(world.store.clone(), Variant::Oci);
    let instance = exporter
        .resolve(0, &attrs(&[("tar", "false"), ("compression", "zstd")]))
        .unwrap();
    let first = instance.export(&world.ctx, &source).await.unwrap();
    // Two layers, two configs, two manifests, one index; what points at others comes after them.
    let blobs = std::mem::take(&mut world.received.lock().blobs);
    assert_eq!(blobs.len(), 7);
    assert_eq!(
        blobs[6].0.to_string(),
        first.response["containerimage.digest"]
    );
    let second = instance.export(&world.ctx, &source).await.unwrap();
    assert_eq!(
        first.response["containerimage.digest"],
        second.response["containerimage.digest"]
    );
    assert!(!first.response.contains_key("containerimage.config.digest"));
    let docker = OciExporter::new(world.store.clone(), Variant::Docker)
        .resolve(0, &attrs(&[]))
        .unwrap();
    let error = docker
        .export(&world.ctx, &source)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "docker exporter does not currently support exporting manifest lists"
    );
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

#[tokio::test]
async fn an_image_is_pushed_under_all_its_names_in_finalize() {
    let Some(world) = World::new() else { return };
    let Some(server) = registry_server(world.dir.path()) else {
        return;
    };
    let client = Client::new(Config::new("test"));
    let exporter = ImageExporter::new(
        world.store.clone(),
        client.clone(),
        Arc::new(|_| Arc::new(Anonymous)),
    );
    let host = &server.host;
    let list = attrs(&[
        ("name", &format!("{host}/a/app:v1,{host}/a/app:v2")),
        ("push", "true"),
        ("compression", "uncompressed"),
    ]);
    let instance = exporter.resolve(0, &list).unwrap();
    let base = world.layer(None, "base", &[("a.txt", "one")]);
    let exported = instance
        .export(&world.ctx, &single(base, CONFIG))
        .await
        .unwrap();
    let name = RepositoryName {
        domain: host.clone(),
        path: "a/app".into(),
    };
    let repository = client
        .repository(name, Access::PULL, Arc::new(Anonymous))
        .unwrap();
    assert!(
        repository
            .resolve(Some("v1"), None)
            .await
            .unwrap_err()
            .is_not_found(),
        "nothing is pushed before finalize"
    );
    exported.finalize.unwrap().run(&world.ctx).await.unwrap();
    for tag in ["v1", "v2"] {
        let desc = repository.resolve(Some(tag), None).await.unwrap();
        assert_eq!(
            desc.digest.to_string(),
            exported.response["containerimage.digest"]
        );
        let manifest: Manifest =
            serde_json::from_slice(&repository.manifest(&desc).await.unwrap()).unwrap();
        assert_eq!(
            manifest.layers[0].media_type,
            "application/vnd.oci.image.layer.v1.tar"
        );
        assert!(
            repository
                .blob(&manifest.layers[0])
                .next()
                .await
                .unwrap()
                .is_some()
        );
    }
    let by_digest = exporter
        .resolve(
            0,
            &attrs(&[
                ("name", &format!("{host}/a/b:t")),
                ("push", "true"),
                ("push-by-digest", "true"),
            ]),
        )
        .unwrap();
    let exported = by_digest
        .export(
            &world.ctx,
            &single(world.layer(None, "x", &[("x", "y")]), CONFIG),
        )
        .await
        .unwrap();
    let error = exported
        .finalize
        .unwrap()
        .run(&world.ctx)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!("failed to push {host}/a/b:t: can't push tagged ref {host}/a/b:t by digest")
    );
}
