//! Registries: one in memory, honest or not, and one that keeps what is pushed.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use oci::Digest;
use serde_json::{Value, json};

use super::origin::{Origin, Request, Response};
use super::rig::within;
use crate::process::{Error, at, need};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer that is a plain tar.
pub(super) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer that is a compressed tar.
pub(super) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What a registry will serve.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    blobs: BTreeMap<String, Arc<Vec<u8>>>,
    manifests: BTreeMap<String, Arc<Vec<u8>>>,
    /// What is said to be the digest of a manifest, by its real one.
    claims: BTreeMap<String, String>,
}

/// One layer: its bytes, what they are, and the digest of the tar in them.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) media_type: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) diff_id: String,
}

impl Layer {
    /// A plain tar.
    pub(super) fn tar(bytes: Vec<u8>) -> Self {
        Self {
            media_type: TAR,
            diff_id: digest(&bytes),
            bytes,
        }
    }
}

/// Names bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    Digest::sha256(bytes).as_str().to_owned()
}

impl Shelf {
    /// Puts a blob; returns its digest.
    pub(super) fn blob(&mut self, bytes: Vec<u8>) -> String {
        let name = digest(&bytes);
        self.blobs.insert(name.clone(), Arc::new(bytes));
        name
    }

    /// Replaces the bytes of a blob without changing its name.
    pub(super) fn tamper(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(blob) = self.blobs.get_mut(name) {
            change(Arc::make_mut(blob));
        }
    }

    /// Replaces the bytes of a tag's manifest, which goes on claiming its old digest.
    pub(super) fn tamper_manifest(&mut self, tag: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(mut manifest) = self.manifests.get(tag).cloned() {
            let old = digest(&manifest);
            change(Arc::make_mut(&mut manifest));
            self.claims.insert(digest(&manifest), old.clone());
            self.manifests.insert(tag.to_owned(), Arc::clone(&manifest));
            self.manifests.insert(old, manifest);
        }
    }

    /// Puts an image of these layers; returns the digests of its manifest and its layers.
    pub(super) fn image(&mut self, tag: &str, layers: &[Layer]) -> (String, Vec<String>) {
        let config = json!({
            "architecture": oci::Platform::host().architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"]},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>()},
        })
        .to_string()
        .into_bytes();
        let size = config.len();
        let config = self.blob(config);
        let names: Vec<String> = layers
            .iter()
            .map(|layer| self.blob(layer.bytes.clone()))
            .collect();
        let described: Vec<Value> = layers
            .iter()
            .zip(&names)
            .map(|(layer, name)| json!({"mediaType": layer.media_type, "digest": name, "size": layer.bytes.len()}))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config, "size": size},
            "layers": described,
        });
        (self.manifest(tag, manifest.to_string().into_bytes()), names)
    }

    /// Puts a manifest of any bytes; returns its digest.
    pub(super) fn manifest(&mut self, tag: &str, bytes: Vec<u8>) -> String {
        let name = digest(&bytes);
        let bytes = Arc::new(bytes);
        self.manifests.insert(tag.to_owned(), Arc::clone(&bytes));
        self.manifests.insert(name.clone(), bytes);
        name
    }

    /// Opens the registry; every repository has the same things.
    pub(super) fn open(self) -> Result<Origin, Error> {
        Origin::start(move |request| self.answer(request))
    }

    /// Answers as a registry does.
    pub(super) fn answer(&self, request: &Request) -> Response {
        let path = request.path.split('?').next().unwrap_or_default();
        if path == "/v2/" {
            return Response::text(200, "{}");
        }
        let (kind, name) = match path.rsplit_once("/manifests/") {
            Some((_, name)) => (&self.manifests, name),
            None => (
                &self.blobs,
                path.rsplit_once("/blobs/").map_or("", |(_, name)| name),
            ),
        };
        let Some(body) = kind.get(name) else {
            return Response::text(
                404,
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}"#,
            );
        };
        let real = digest(body);
        let claim = self.claims.get(&real).cloned().unwrap_or(real);
        let is_manifest = path.contains("/manifests/");
        let media_type = if is_manifest {
            MANIFEST
        } else {
            "application/octet-stream"
        };
        let mut headers = vec![("Content-Type", media_type.to_owned())];
        if is_manifest {
            headers.push(("Docker-Content-Digest", claim));
        }
        Response {
            status: 200,
            headers,
            body: Arc::clone(body),
        }
    }
}

/// A registry that keeps what is pushed, in a folder.
#[derive(Debug)]
pub(super) struct Writable {
    pub(super) port: u16,
    child: Child,
}

impl Writable {
    pub(super) fn start(dir: &Path) -> Result<Self, Error> {
        let bound =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = bound.map_err(at("listening", dir))?.port();
        let config = dir.join("config.yaml");
        let text = format!(
            "version: 0.1\nlog:\n    level: error\nstorage:\n    filesystem:\n        rootdirectory: {}\nhttp:\n    addr: 127.0.0.1:{port}\n",
            dir.join("data").display(),
        );
        fs::write(&config, text).map_err(at("writing", &config))?;
        let mut command = Command::new(need("docker-registry")?);
        command
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().map_err(|source| Error::Start {
            program: "docker-registry".to_owned(),
            source,
        })?;
        let registry = Self { port, child };
        let listens = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        if within(Duration::from_secs(10), listens) {
            return Ok(registry);
        }
        Err(Error::Output {
            what: "docker-registry",
            problem: "does not listen".to_owned(),
        })
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}
