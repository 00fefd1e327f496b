//! The folder of a registry, written directly.
//!
//! The `distribution` registry keeps blobs by digest and, per repository, small files that name them. Writing those
//! needs no running registry and takes manifests as they are, foreign layers included, which a registry refuses.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use oci::{Descriptor, Digest};

use crate::process::{Error, at};

/// A registry's storage folder.
#[derive(Debug)]
pub(crate) struct Mirror {
    root: PathBuf,
}

impl Mirror {
    /// Opens the storage whose registry has `data` as its root directory.
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            root: data.join("docker/registry/v2"),
        }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let prefix = hex.get(..2).unwrap_or("00");
        self.root
            .join("blobs")
            .join(digest.algorithm())
            .join(prefix)
            .join(hex)
            .join("data")
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.root.join("repositories").join(name)
    }

    /// Whether `name:tag` is there.
    pub(crate) fn has(&self, name: &str, tag: &str) -> bool {
        self.repository(name)
            .join("_manifests/tags")
            .join(tag)
            .join("current/link")
            .is_file()
    }

    /// Puts bytes into a repository.
    pub(crate) fn put(
        &self,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, Error> {
        let digest = Digest::sha256(bytes);
        write(&self.blob(&digest), bytes)?;
        self.link_layer(name, &digest)?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }

    /// Moves a file into a repository.
    pub(crate) fn put_file(
        &self,
        name: &str,
        media_type: &str,
        file: &Path,
    ) -> Result<Descriptor, Error> {
        let (digest, size) =
            oci::Digester::of_reader(File::open(file).map_err(at("opening", file))?)
                .map_err(at("reading", file))?;
        let blob = self.blob(&digest);
        parent(&blob)?;
        fs::rename(file, &blob).map_err(at("moving", file))?;
        self.link_layer(name, &digest)?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    /// Makes a blob that is there already one of another repository too.
    pub(crate) fn link_layer(&self, name: &str, digest: &Digest) -> Result<(), Error> {
        self.link(&self.repository(name).join("_layers"), digest)
    }

    /// Puts a manifest and names it; the tag is the last thing written, so what has one is complete.
    pub(crate) fn tag(&self, name: &str, tag: &str, manifest: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::sha256(manifest);
        write(&self.blob(&digest), manifest)?;
        let manifests = self.repository(name).join("_manifests");
        self.link(&manifests.join("revisions"), &digest)?;
        let tag = manifests.join("tags").join(tag);
        self.link(&tag.join("index"), &digest)?;
        write(&tag.join("current/link"), digest.as_str().as_bytes())?;
        Ok(digest)
    }

    fn link(&self, dir: &Path, digest: &Digest) -> Result<(), Error> {
        write(
            &dir.join(digest.algorithm()).join(digest.hex()).join("link"),
            digest.as_str().as_bytes(),
        )
    }
}

fn parent(file: &Path) -> Result<(), Error> {
    let dir = file.parent().unwrap_or(file);
    fs::create_dir_all(dir).map_err(at("making", dir))
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    parent(file)?;
    fs::write(file, bytes).map_err(at("writing", file))
}
