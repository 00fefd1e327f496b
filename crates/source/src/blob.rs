//! `docker-image+blob://` and `oci-layout+blob://`: one blob of a repository, or of a store of the client, as a file.
//!
//! The key is SHA-256 of this JSON object, as Go's encoder writes it:
//!
//! | field                | in     | why                                     |
//! |----------------------|--------|-----------------------------------------|
//! | `Version`            | always | `v1`; names the formula                 |
//! | `Digest`             | always | the content                             |
//! | `Filename`           | always | the tree holds it under this name       |
//! | `Perm`, `UID`, `GID` | always | they are in the tree too                |
//! | repository, store    | no     | the digest says it all                  |
//!
//! Facts: `source/containerblob` of BuildKit v0.34.2.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fstree::dir::Times;
use llb::pb;
use llb::source_id::{BlobSource as BlobId, SourceId};
use oci::{Descriptor, Digest, Digester, Platform};
use serde::Serialize;
use store::{BlobProvider, BlobSink, ImmutableRef, RefOptions, Store};

use crate::context::Context;
use crate::error::{SourceError, cause};
use crate::http::name::safe;
use crate::image::ImageSource;
use crate::image::spec::Spec;
use crate::manager::{CacheKey, Source, SourceInstance};
use crate::oci_layout::{LayoutStore, provider as layout_provider};

/// The source of single blobs.
#[derive(Debug, Clone)]
pub struct BlobSource {
    store: Arc<Store>,
    images: ImageSource,
}

impl BlobSource {
    /// Makes the source; `images` fetches the blobs of registries.
    #[must_use]
    pub fn new(store: Arc<Store>, images: ImageSource) -> Self {
        Self { store, images }
    }
}

impl Source for BlobSource {
    fn schemes(&self) -> &'static [&'static str] {
        &["docker-image+blob", "oci-layout+blob"]
    }

    fn resolve(
        &self,
        scheme: &str,
        reference: &str,
        attrs: &BTreeMap<String, String>,
        _platform: Option<&Platform>,
    ) -> Result<Arc<dyn SourceInstance>, SourceError> {
        let identifier = format!("{scheme}://{reference}");
        let op = pb::SourceOp {
            identifier: identifier.clone(),
            attrs: attrs.clone(),
        };
        let malformed = |source| SourceError::Reference {
            reference: identifier.clone(),
            source,
        };
        let id = match SourceId::parse(&op, None) {
            Ok(SourceId::Blob(id)) => id,
            Ok(_) => return Err(SourceError::Identifier { identifier }),
            Err(error) => return Err(malformed(cause(error))),
        };
        if id.oci_layout && id.store_id.is_empty() {
            return Err(malformed(cause("oci-layout blob source requires store id")));
        }
        Ok(Arc::new(BlobInstance {
            source: self.clone(),
            spec: Spec::parse(reference)?,
            id,
        }))
    }
}

impl BlobSource {
    fn provider(
        &self,
        id: &BlobId,
        spec: &Spec,
        ctx: &Context,
    ) -> Result<Arc<dyn BlobProvider>, SourceError> {
        if !id.oci_layout {
            return self.images.blobs_of(spec, ctx);
        }
        let layout = LayoutStore {
            session: id.session_id.clone(),
            store: id.store_id.clone(),
        };
        Ok(layout_provider(spec, &layout, ctx))
    }

    /// Writes the blob's bytes into a new file; they must have its digest.
    pub(crate) async fn download(
        &self,
        id: &BlobId,
        file: File,
        ctx: &Context,
    ) -> Result<File, SourceError> {
        let expected = &id.digest;
        let spec = Spec::parse(&format!("{}@{expected}", id.locator))?;
        let failed = |source| SourceError::Reference {
            reference: spec.to_string(),
            source,
        };
        let mut desc = Descriptor::new("", expected.clone(), 0);
        // The identifier does not say how large the blob is.
        desc.size = -1;
        let mut sink = DigestingFile {
            file: Some(file),
            digester: Digester::new(),
            written: 0,
        };
        self.provider(id, &spec, ctx)?
            .fetch(&desc, &mut sink)
            .await
            .map_err(|error| failed(cause(error)))?;
        let digest = sink.digester.finish();
        if digest != *expected {
            return Err(failed(cause(format!(
                "blob digest mismatch: expected {expected}, got {digest}"
            ))));
        }
        sink.file.ok_or_else(|| failed(cause("the file is gone")))
    }
}

#[derive(Debug)]
struct BlobInstance {
    source: BlobSource,
    spec: Spec,
    id: BlobId,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BlobKeyInputs<'a> {
    version: &'static str,
    digest: &'a Digest,
    filename: &'a str,
    perm: i64,
    #[serde(rename = "UID")]
    uid: i64,
    #[serde(rename = "GID")]
    gid: i64,
}

fn key(id: &BlobId) -> Digest {
    Digest::sha256(gostd::json::to_vec(&BlobKeyInputs {
        version: "v1",
        digest: &id.digest,
        filename: &id.file.filename,
        perm: id.file.perm,
        uid: id.file.uid,
        gid: id.file.gid,
    }))
}

#[async_trait]
impl SourceInstance for BlobInstance {
    async fn cache_key(&self, _ctx: &Context, _index: usize) -> Result<CacheKey, SourceError> {
        Ok(CacheKey::new(
            key(&self.id).to_string(),
            self.id.digest.to_string(),
        ))
    }

    async fn snapshot(&self, ctx: &Context) -> Result<Option<ImmutableRef>, SourceError> {
        let options = RefOptions {
            description: format!("blob {}", self.spec),
            ..RefOptions::default()
        };
        let mutable = self.source.store.new_mutable(None, options)?;
        let file = &self.id.file;
        let name = if file.filename.is_empty() {
            self.id.digest.hex().to_owned()
        } else {
            safe(&file.filename)
        };
        let mode = match u32::try_from(file.perm & 0o7777) {
            Ok(0) | Err(_) => 0o600,
            Ok(mode) => mode,
        };
        let opened = mutable
            .root()?
            .create(&name, mode)
            .map_err(|e| SourceError::path(format!("create {name}"), e))?;
        let opened = self.source.download(&self.id, opened, ctx).await?;
        let id = |id: i64| u32::try_from(id).unwrap_or(0);
        let owner = (id(file.uid), id(file.gid));
        let finish = || -> io::Result<()> {
            if owner != (0, 0) {
                fstree::dir::set_file_owner(&opened, owner.0, owner.1)?;
                fstree::dir::set_file_mode(&opened, mode)?;
            }
            fstree::dir::set_file_times(&opened, Times::both(0))
        };
        finish().map_err(|e| SourceError::io(format!("set metadata of {name}"), e))?;
        drop(opened);
        Ok(Some(mutable.commit()?))
    }
}

/// Writes chunks to a file and hashes them.
struct DigestingFile {
    /// `None` while a chunk is being written.
    file: Option<File>,
    digester: Digester,
    written: u64,
}

#[async_trait]
impl BlobSink for DigestingFile {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        use std::io::Write as _;
        let mut file = self.file.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut digester = std::mem::take(&mut self.digester);
        self.written = self.written.saturating_add(chunk.len() as u64);
        let (file, digester, result) = task::blocking("blob", move || {
            digester.update(&chunk);
            let result = file.write_all(&chunk);
            (file, digester, result)
        })
        .await;
        self.file = Some(file);
        self.digester = digester;
        result
    }

    fn written(&self) -> u64 {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_digest_of_the_json_that_the_reference_writes() {
        let digest = Digest::sha256(b"x");
        let op = pb::SourceOp {
            identifier: format!("docker-image+blob://docker.io/library/busybox@{digest}"),
            attrs: BTreeMap::from([
                ("http.filename".to_owned(), "payload.tgz".to_owned()),
                ("http.perm".to_owned(), "0640".to_owned()),
                ("http.uid".to_owned(), "1000".to_owned()),
            ]),
        };
        let Ok(SourceId::Blob(id)) = SourceId::parse(&op, None) else {
            panic!("no blob")
        };
        let json = format!(
            r#"{{"Version":"v1","Digest":"{digest}","Filename":"payload.tgz","Perm":416,"UID":1000,"GID":0}}"#
        );
        assert_eq!(key(&id), Digest::sha256(json));
    }
}
