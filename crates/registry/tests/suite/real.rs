//! Against Debian's `docker-registry`: what we push can be pulled, and is not pushed twice.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oci::{Descriptor, Digest, media_type};
use registry::{Access, Anonymous, BlobSource, BytesSource, FileSource, Pushed};

use crate::scripted::open;

struct Registry {
    child: Child,
    host: String,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn start() -> Option<Registry> {
    let dir = tempfile::tempdir().unwrap();
    let host = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let config = dir.path().join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n",
        dir.path().join("data").display()
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
    let registry = Registry {
        child,
        host,
        _dir: dir,
    };
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

fn quiet() -> Arc<dyn Fn(u64) + Send + Sync> {
    Arc::new(|_| {})
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled_and_is_pushed_once() {
    let Some(real) = start() else { return };
    let repository = open(&real.host, "team/app", Access::PUSH, Arc::new(Anonymous));
    let mut file = tempfile::tempfile().unwrap();
    let data: Vec<u8> = (0..700_000_u32).map(|i| (i * 7 % 253) as u8).collect();
    file.write_all(&data).unwrap();
    let layer = Descriptor::of_bytes(media_type::OCI_LAYER_GZIP, &data);
    let source: Arc<dyn BlobSource> = Arc::new(FileSource(Arc::new(file)));
    assert_eq!(
        repository
            .push_blob(&layer, source.clone(), &[], quiet())
            .await
            .unwrap(),
        Pushed::Sent
    );
    assert_eq!(
        repository
            .push_blob(&layer, source.clone(), &[], quiet())
            .await
            .unwrap(),
        Pushed::Existed
    );

    let other_repository = open(&real.host, "team/other", Access::PUSH, Arc::new(Anonymous));
    let mounted = other_repository
        .push_blob(&layer, source, &["team/app".to_owned()], quiet())
        .await
        .unwrap();
    assert_eq!(mounted, Pushed::Mounted("team/app".into()));

    let config = Bytes::from_static(b"{}");
    let config_desc = Descriptor::of_bytes(media_type::OCI_CONFIG, &config);
    repository
        .push_blob(&config_desc, Arc::new(BytesSource(config)), &[], quiet())
        .await
        .unwrap();
    let manifest = oci::Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.into(),
        artifact_type: String::new(),
        config: config_desc,
        layers: vec![layer.clone()],
        subject: None,
        annotations: Default::default(),
    };
    let bytes = Bytes::from(serde_json::to_vec(&manifest).unwrap());
    let desc = Descriptor::of_bytes(media_type::OCI_MANIFEST, &bytes);
    assert_eq!(
        repository
            .push_manifest(&desc, bytes.clone(), Some("v1"))
            .await
            .unwrap(),
        Pushed::Sent
    );
    assert_eq!(
        repository
            .push_manifest(&desc, bytes.clone(), Some("v1"))
            .await
            .unwrap(),
        Pushed::Existed
    );
    assert_eq!(
        repository
            .push_manifest(&desc, bytes.clone(), None)
            .await
            .unwrap(),
        Pushed::Existed
    );

    let reader = open(&real.host, "team/app", Access::PULL, Arc::new(Anonymous));
    assert_eq!(reader.resolve(Some("v1"), None).await.unwrap(), desc);
    assert_eq!(
        reader.resolve(None, Some(&desc.digest)).await.unwrap(),
        desc
    );
    assert_eq!(reader.manifest(&desc).await.unwrap(), bytes);
    let mut stream = reader.blob(&layer);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(Digest::sha256(&bytes), layer.digest);
    assert!(
        reader
            .referrers(&desc.digest, None, &[])
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        reader
            .resolve(Some("v2"), None)
            .await
            .unwrap_err()
            .is_not_found()
    );
}
