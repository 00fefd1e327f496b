//! The exporters of a daemon, results for them, and what a client gets.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use exporter::{
    About, Attester, ExportError, ExportSource, Exported, ExporterInstance, Exporters,
    ImageExporter, LocalExporter, OciExporter, Statement, TarExporter, Variant,
};
use oci::Digest;
use registry::{Anonymous, Client, Config};

use crate::client::{World, attrs};

pub(crate) const CONFIG: &str = r#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/a"]}}"#;
pub(crate) const KINDS: [&str; 5] = ["docker", "image", "local", "oci", "tar"];

pub(crate) fn exporters(world: &World) -> Exporters {
    let mut all = Exporters::new();
    all.register(Arc::new(ImageExporter::new(
        world.store.clone(),
        Client::new(Config::new("test")),
        Arc::new(|_| Arc::new(Anonymous)),
    )));
    for variant in [Variant::Oci, Variant::Docker] {
        all.register(Arc::new(OciExporter::new(world.store.clone(), variant)));
    }
    all.register(Arc::new(LocalExporter));
    all.register(Arc::new(TarExporter));
    all
}

pub(crate) fn resolve(
    world: &World,
    kind: &str,
    list: &[(&str, &str)],
) -> Arc<dyn ExporterInstance> {
    exporters(world).resolve(kind, 3, &attrs(list)).unwrap()
}

pub(crate) async fn export(
    world: &World,
    kind: &str,
    list: &[(&str, &str)],
    source: &ExportSource,
) -> Result<Exported, ExportError> {
    *world.received.lock() = Default::default();
    resolve(world, kind, list).export(&world.ctx, source).await
}

/// The error of an export that has to fail.
pub(crate) async fn refused(
    world: &World,
    kind: &str,
    list: &[(&str, &str)],
    source: &ExportSource,
) -> String {
    match export(world, kind, list, source).await {
        Ok(_) => panic!("{kind} {list:?} exports"),
        Err(error) => error.to_string(),
    }
}

/// The names in the tar that the client got.
pub(crate) fn listing(world: &World) -> Vec<String> {
    let file = world.dir.path().join("received.tar");
    std::fs::write(&file, &world.received.lock().file).unwrap();
    let listed = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    assert!(listed.status.success());
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Paths of the files in the client's folder, which is empty again afterwards.
pub(crate) fn take_out(world: &World) -> Vec<String> {
    fn below(dir: &Path, top: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, top, out);
            } else {
                out.push(path.strip_prefix(top).unwrap().display().to_string());
            }
        }
    }
    let dir = world.dir.path().join("out");
    let mut out = Vec::new();
    below(&dir, &dir, &mut out);
    out.sort();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    out
}

pub(crate) fn document<T: serde::de::DeserializeOwned>(world: &World, digest: &Digest) -> T {
    let bytes = world.store.read_blob(digest, 1 << 20).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// Results for two platforms with one file each.
pub(crate) fn two(world: &World, files: [(&str, &str); 2]) -> ExportSource {
    let platforms = r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}},{"ID":"linux/arm64","Platform":{"os":"linux","architecture":"arm64"}}]}"#;
    let mut source = ExportSource::default();
    source
        .metadata
        .insert("refs.platforms".into(), platforms.into());
    for (arch, file) in ["amd64", "arm64"].into_iter().zip(files) {
        let id = format!("linux/{arch}");
        let config = CONFIG.replace("amd64", arch).into_bytes();
        source
            .metadata
            .insert(format!("containerimage.config/{id}"), config);
        source
            .refs
            .insert(id.clone(), Some(world.layer(None, &id, &[file])));
    }
    source
}

/// Has statements for every platform.
pub(crate) struct Statements(pub(crate) Vec<(&'static str, &'static str)>);

#[async_trait]
impl Attester for Statements {
    fn attests(&self, _platform_id: &str, _in_images: bool) -> bool {
        true
    }

    async fn statements(
        &self,
        platform_id: &str,
        about: About<'_>,
    ) -> Result<Vec<Statement>, ExportError> {
        let subject = match about {
            About::Image { manifest, .. } => manifest.digest.to_string(),
            About::Files(files) => {
                let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
                paths.join(" ")
            }
        };
        let statement = |(file, text): &(&'static str, &'static str)| {
            if *text == "fails" {
                return Err(ExportError::supplied(std::io::Error::other(
                    "no statement can be made",
                )));
            }
            Ok(Statement {
                predicate_type: format!("https://example.com/{text}"),
                file: (*file).to_owned(),
                bytes: format!("{text} of {platform_id}: {subject}").into_bytes(),
            })
        };
        self.0.iter().map(statement).collect()
    }
}

pub(crate) fn attested(
    mut source: ExportSource,
    statements: &[(&'static str, &'static str)],
) -> ExportSource {
    source.attester = Some(Arc::new(Statements(statements.to_vec())));
    source
}
