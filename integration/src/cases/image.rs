//! Images in OCI archives, read as any tool would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::rig::{Rig, Trouble, failed, program};
use super::tar::{self, Member};
use crate::process::{at, output};

/// An archive that was taken apart.
#[derive(Debug)]
pub(super) struct Image {
    /// The OCI layout.
    pub(super) dir: PathBuf,
    pub(super) config: Value,
    /// Digests of the blobs.
    pub(super) layers: Vec<String>,
    pub(super) diff_ids: Vec<String>,
}

impl Image {
    /// Takes `archive` apart into the folder `name`.
    pub(super) fn open(rig: &Rig<'_>, archive: &Path, name: &str) -> Result<Self, Trouble> {
        let dir = rig.folder(name)?;
        output(
            Command::new("tar")
                .arg("-xf")
                .arg(archive)
                .arg("-C")
                .arg(&dir),
        )?;
        Self::of_layout(dir)
    }

    /// Reads the only image of an OCI layout.
    pub(super) fn of_layout(dir: PathBuf) -> Result<Self, Trouble> {
        let mut document = json(&dir.join("index.json"))?;
        while let Some(next) = first(&document) {
            document = json(&blob(&dir, &next))?;
        }
        let Some(config) = document.pointer("/config/digest").and_then(Value::as_str) else {
            return failed(format!("no manifest in {}: {document}", dir.display()));
        };
        let config = json(&blob(&dir, config))?;
        let layers = strings(document.get("layers"), |layer| layer.get("digest"));
        let diff_ids = strings(config.pointer("/rootfs/diff_ids"), Some);
        Ok(Self {
            dir,
            config,
            layers,
            diff_ids,
        })
    }

    /// Returns the members of a layer.
    pub(super) fn members(&self, layer: usize) -> Result<Vec<Member>, Trouble> {
        let Some(name) = self.layers.get(layer) else {
            return failed(format!("there is no layer {layer}"));
        };
        let file = blob(&self.dir, name);
        let mut command = program("gzip")?;
        let bytes = command
            .arg("-dc")
            .stdin(fs::File::open(&file).map_err(at("opening", &file))?)
            .output();
        match bytes {
            Ok(output) if output.status.success() => {
                tar::read(&output.stdout).map_err(Trouble::Failed)
            }
            other => failed(format!("unpacking {name}: {other:?}")),
        }
    }
}

/// The first image of an index; attestations follow the image that they are about.
fn first(document: &Value) -> Option<String> {
    let digest = document.pointer("/manifests/0/digest")?.as_str()?;
    Some(digest.to_owned())
}

fn strings<'a>(
    list: Option<&'a Value>,
    pick: impl Fn(&'a Value) -> Option<&'a Value>,
) -> Vec<String> {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|item| Some(pick(item)?.as_str()?.to_owned()))
        .collect()
}

pub(super) fn blob(dir: &Path, digest: &str) -> PathBuf {
    dir.join("blobs").join(digest.replace(':', "/"))
}

pub(super) fn json(file: &Path) -> Result<Value, Trouble> {
    let text = fs::read_to_string(file).map_err(at("reading", file))?;
    serde_json::from_str(&text).or_else(|error| failed(format!("{}: {error}", file.display())))
}
