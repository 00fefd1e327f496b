//! The layer blobs of a record: made from snapshots, or as they were pulled.
//!
//! Every form of a layer that exists is kept beside the others. The first one made or pulled is the one that exports get,
//! unless they force a compression, or ask for one and the layer was made here.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Write};
use std::sync::Arc;
use std::time::SystemTime;

use fstree::Root;
use futures::stream::{self, StreamExt, TryStreamExt};
use layer::CreateOptions;
use oci::{Descriptor, Digest};
use rusqlite::params;

use crate::blob::BlobWriter;
use crate::error::StoreError;
use crate::lease::Lease;
use crate::provider::BlobProvider;
use crate::refs::lazy::{LayerRow, fetch_blob};
use crate::refs::{BUILT, ImmutableRef, ORIGIN_KEY, SHARED, put_layer_blob};
use crate::store::record::{Record, Shape};

pub use layer::{
    AttributeError, Compression as CompressionSpec, CompressionAttributes, CompressionKind,
};

/// Layers of one chain that are packed at a time; each compresses on all cores.
const MAX_PACKED_AT_ONCE: usize = 3;

/// Which form of a layer is preferred, unless the compression is forced.
#[derive(Debug, Clone, Copy)]
enum PreferredForm<'a> {
    /// A form that exists.
    Any,
    /// The given compression if the layer was made here. Layers of the base image are excepted, by their diff ids if known.
    IfBuilt(Option<&'a BTreeSet<Digest>>),
}

/// One layer of an image. While it is held, its blob is not pruned.
#[derive(Debug, Clone)]
pub struct LayerBlob {
    /// The descriptor of the blob: OCI media type, annotations as they were pulled or made.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed bytes.
    pub diff_id: Digest,
    /// What made the layer, for the image's history.
    pub description: String,
    /// When the layer was made.
    pub created: SystemTime,
    record: Arc<Record>,
    lease: Lease,
}

impl LayerBlob {
    fn new(record: &Arc<Record>, row: LayerRow, lease: &Lease) -> Self {
        lease.hold(&row.descriptor.digest);
        let (description, created) = {
            let body = record.body.lock();
            (body.description.clone(), body.created)
        };
        Self {
            descriptor: row.descriptor,
            diff_id: row.diff_id,
            description,
            created,
            record: record.clone(),
            lease: lease.clone(),
        }
    }

    /// Returns the record of the layer.
    pub fn layer(&self) -> ImmutableRef {
        ImmutableRef::quiet(self.record.clone())
    }

    /// Returns whether the store has the bytes.
    pub fn is_local(&self) -> Result<bool, StoreError> {
        Ok(self
            .record
            .store()
            .blob_info(&self.descriptor.digest)?
            .is_some())
    }

    /// Returns a provider that can fetch the bytes.
    pub fn provider(&self) -> Option<Arc<dyn BlobProvider>> {
        self.record.provider(&self.descriptor.digest)
    }

    /// Returns repositories known to hold the blob.
    pub fn repositories(&self) -> Vec<String> {
        self.provider()
            .map(|p| p.repositories())
            .unwrap_or_default()
    }

    /// Fetches the bytes unless the store has them.
    pub async fn ensure(&self) -> Result<(), StoreError> {
        if self.is_local()? {
            return Ok(());
        }
        let digest = &self.descriptor.digest;
        let mut last_error = StoreError::NoProvider {
            digest: digest.clone(),
        };
        let _lock = self.record.blob_work.lock().await;
        for provider in self.record.providers(digest) {
            let store = self.record.store();
            match fetch_blob(store, &self.lease, &self.descriptor, &provider).await {
                Ok(_) => return Ok(()),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// Opens the blob, and fetches it first unless the store has it.
    pub async fn open(&self) -> Result<File, StoreError> {
        self.ensure().await?;
        self.record.store().open_blob(&self.descriptor.digest)
    }
}

impl ImmutableRef {
    /// Returns the blobs of all layers, base first, making those that do not exist, several at a time. Lazy layers are not
    /// fetched unless `force` demands another compression than they have.
    pub async fn blobs(&self, compression: CompressionSpec) -> Result<Vec<LayerBlob>, StoreError> {
        self.blobs_in_form(compression, PreferredForm::Any).await
    }

    /// As [`Self::blobs`], but layers that were made here get the given compression although they exist with another one. What
    /// came with a base image stays as it is: that is what has its diff id in `base`, or, where the base is not known, what has
    /// been brought by an image or a cache.
    // DIFFERS: the reference takes what exists, so that the option does nothing where a layer was exported before.
    pub async fn blobs_as_asked(
        &self,
        compression: CompressionSpec,
        base: Option<&BTreeSet<Digest>>,
    ) -> Result<Vec<LayerBlob>, StoreError> {
        self.blobs_in_form(compression, PreferredForm::IfBuilt(base))
            .await
    }

    async fn blobs_in_form(
        &self,
        compression: CompressionSpec,
        form: PreferredForm<'_>,
    ) -> Result<Vec<LayerBlob>, StoreError> {
        let lease = self.store().lease();
        let jobs = self.record().layers().into_iter().map(|layer| {
            let lease = lease.clone();
            async move {
                let row = layer.layer_blob(compression, form, &lease).await?;
                Ok::<_, StoreError>(LayerBlob::new(&layer, row, &lease))
            }
        });
        let blobs: Vec<LayerBlob> = stream::iter(jobs)
            .buffered(MAX_PACKED_AT_ONCE)
            .try_collect()
            .await?;
        for blob in &blobs {
            blob.record.learn_diff_id(&blob.diff_id)?;
        }
        Ok(blobs)
    }

    /// As [`Self::blobs`], with layers rewritten so that no file is later than `latest`, in seconds since 1970. Layers whose
    /// diff id is in `kept` (those of a base image) stay as they are.
    pub async fn blobs_not_after(
        &self,
        compression: CompressionSpec,
        latest: i64,
        base_layers: &BTreeSet<Digest>,
    ) -> Result<Vec<LayerBlob>, StoreError> {
        let lease = self.store().lease();
        let mut out = Vec::new();
        for layer in self.record().layers() {
            let row = layer
                .clamped_blob(compression, latest, base_layers, &lease)
                .await?;
            out.push(LayerBlob::new(&layer, row, &lease));
        }
        Ok(out)
    }

    /// Returns the blobs of all layers if each layer has one already, in the store or at a provider; packs nothing.
    pub fn known_blobs(&self) -> Result<Option<Vec<LayerBlob>>, StoreError> {
        let lease = self.store().lease();
        let mut out = Vec::new();
        // From the top: a pulled base has blobs, what was built on it most likely has none.
        for layer in self.record().layers().into_iter().rev() {
            let Some(row) = layer.layer_rows()?.into_iter().next() else {
                return Ok(None);
            };
            out.push(LayerBlob::new(&layer, row, &lease));
        }
        out.reverse();
        Ok(Some(out))
    }

    /// Returns all forms in which the blob of the topmost layer exists, the preferred one first.
    pub fn blob_variants(&self) -> Result<Vec<LayerBlob>, StoreError> {
        let lease = self.store().lease();
        let Some(layer) = self.record().layers().pop() else {
            return Ok(Vec::new());
        };
        Ok(layer
            .layer_rows()?
            .into_iter()
            .map(|row| LayerBlob::new(&layer, row, &lease))
            .collect())
    }
}

impl Record {
    /// Finds or makes the blob of this one layer.
    async fn layer_blob(
        self: &Arc<Self>,
        spec: CompressionSpec,
        form: PreferredForm<'_>,
        lease: &Lease,
    ) -> Result<LayerRow, StoreError> {
        let _lock = self.blob_work.lock().await;
        let rows = self.layer_rows()?;
        for row in &rows {
            lease.hold(&row.descriptor.digest);
        }
        let must_convert = self.must_convert(&rows, form)?;
        let can_be_had =
            |row: &&LayerRow| row.local || self.provider(&row.descriptor.digest).is_some();
        let fitting = if spec.force || must_convert {
            let mut rows = rows.iter().filter(|row| row.variant == spec.kind.name());
            rows.find(can_be_had)
        } else {
            // A blob that neither the store nor a provider has is of no use.
            rows.iter().find(can_be_had).or(rows.first())
        };
        if let Some(row) = fitting {
            return Ok(row.clone());
        }
        if !rows.is_empty() {
            let from = self.fetch_any(lease).await?;
            let (record, lease) = (self.clone(), lease.clone());
            return task::blocking("store-convert", move || {
                let options = CreateOptions {
                    compression: spec,
                    latest_time: None,
                };
                record.convert(&from, &options, spec.kind.name(), &lease)
            })
            .await;
        }
        self.ensure().await?;
        for parent in self.parents() {
            parent.ensure().await?;
        }
        let (record, lease) = (self.clone(), lease.clone());
        task::blocking("store-pack", move || record.pack(spec, &lease)).await
    }

    /// Whether this layer must have the given compression, and can be converted from a blob in the store.
    fn must_convert(&self, rows: &[LayerRow], form: PreferredForm<'_>) -> Result<bool, StoreError> {
        let (Some(preferred), PreferredForm::IfBuilt(base)) = (rows.first(), form) else {
            return Ok(false);
        };
        let origin = self.store().meta(self.id(), ORIGIN_KEY)?;
        let was_made_here = match (origin.as_deref(), base) {
            (Some(BUILT), None) => true,
            (Some(BUILT | SHARED), Some(base)) => !base.contains(&preferred.diff_id),
            _ => false,
        };
        Ok(was_made_here && rows.iter().any(|row| row.local))
    }

    fn pack(
        self: &Arc<Self>,
        spec: CompressionSpec,
        lease: &Lease,
    ) -> Result<LayerRow, StoreError> {
        let fail = |e| StoreError::layer("pack", self.id().as_str(), e);
        let snapshot = self.body.lock().snapshot.clone();
        let snapshot = snapshot.ok_or(StoreError::Unfit {
            id: self.id().clone(),
            why: "is not unpacked",
        })?;
        let upper = Root::from_fd(self.store().snapshots().upper(&snapshot)?)
            .map_err(|e| StoreError::layer("pack", self.id().as_str(), e))?;
        let lower = self.lower_view()?;
        let options = CreateOptions {
            compression: spec,
            ..CreateOptions::default()
        };
        let mut out =
            std::io::BufWriter::with_capacity(256 << 10, self.store().unhashed_writer(lease)?);
        let info = layer::create(&upper, lower.as_ref(), &options, &mut out).map_err(fail)?;
        let writer = unwrap_writer(out)?;
        writer.commit_as(info.digest.clone())?;
        let descriptor = Descriptor::new(info.media_type, info.digest, info.size);
        let row = self.keep_blob(descriptor, info.diff_id, spec.kind.name(), 0)?;
        self.store().set_meta(self.id(), ORIGIN_KEY, BUILT)?;
        Ok(row)
    }

    /// Makes another form of a blob: with another compression, or with no file later than a time.
    fn convert(
        self: &Arc<Self>,
        from: &LayerRow,
        options: &CreateOptions,
        variant: &str,
        lease: &Lease,
    ) -> Result<LayerRow, StoreError> {
        let of = from.descriptor.digest.as_str();
        let mut source =
            BufReader::with_capacity(256 << 10, self.store().open_blob(&from.descriptor.digest)?);
        let mut out =
            std::io::BufWriter::with_capacity(256 << 10, self.store().unhashed_writer(lease)?);
        let info = layer::convert(&mut source, options, &mut out)
            .map_err(|e| StoreError::layer("convert", of, e))?;
        if options.latest_time.is_none() && info.diff_id != from.diff_id {
            return Err(StoreError::DigestMismatch {
                want: from.diff_id.clone(),
                got: info.diff_id,
            });
        }
        unwrap_writer(out)?.commit_as(info.digest.clone())?;
        self.keep_blob(
            Descriptor::new(info.media_type, info.digest, info.size),
            info.diff_id,
            variant,
            1,
        )
    }

    /// Finds or makes the blob of this layer in which no file is later than `latest`.
    async fn clamped_blob(
        self: &Arc<Self>,
        spec: CompressionSpec,
        latest: i64,
        base_layers: &BTreeSet<Digest>,
        lease: &Lease,
    ) -> Result<LayerRow, StoreError> {
        let from = self.layer_blob(spec, PreferredForm::Any, lease).await?;
        if base_layers.contains(&from.diff_id) {
            return Ok(from);
        }
        let _lock = self.blob_work.lock().await;
        let variant = format!("{}@{latest}", spec.kind.name());
        if let Some(row) = self
            .all_layer_rows()?
            .into_iter()
            .find(|row| row.variant == variant)
        {
            lease.hold(&row.descriptor.digest);
            return Ok(row);
        }
        let from = self.fetch_any(lease).await?;
        let options = CreateOptions {
            compression: spec,
            latest_time: Some(latest),
        };
        let (record, lease) = (self.clone(), lease.clone());
        task::blocking("store-convert", move || {
            record.convert(&from, &options, &variant, &lease)
        })
        .await
    }

    fn keep_blob(
        &self,
        descriptor: Descriptor,
        diff_id: Digest,
        variant: &str,
        rank: i64,
    ) -> Result<LayerRow, StoreError> {
        self.store().write(|c| {
            put_layer_blob(c, self.id(), &descriptor, &diff_id, variant, rank)?;
            c.prepare_cached("UPDATE refs SET size = -1 WHERE id = ?1")?
                .execute([self.id().as_str()])?;
            Ok(())
        })?;
        self.body.lock().size = -1;
        Ok(LayerRow {
            descriptor,
            diff_id,
            variant: variant.to_owned(),
            local: true,
        })
    }

    /// Records the diff id of a layer, and with it the chain id, by which a pulled layer with the same bytes finds this one.
    fn learn_diff_id(&self, diff_id: &Digest) -> Result<(), StoreError> {
        if self.body.lock().chain_id.is_some() {
            return Ok(());
        }
        let chain_id = match self.shape() {
            Shape::Layer { parent: None } => diff_id.clone(),
            Shape::Layer {
                parent: Some(parent),
            } => {
                let Some(parent_chain_id) = parent.body.lock().chain_id.clone() else {
                    return Ok(());
                };
                Digest::sha256(format!("{parent_chain_id} {diff_id}"))
            }
            Shape::Merge { .. } | Shape::Diff { .. } => return Ok(()),
        };
        self.store().later(|c| {
            c.prepare_cached("UPDATE refs SET chain_id = ?2, diff_id = ?3 WHERE id = ?1")?
                .execute(params![
                    self.id().as_str(),
                    chain_id.as_str(),
                    diff_id.as_str()
                ])?;
            Ok(())
        })?;
        let mut body = self.body.lock();
        body.chain_id = Some(chain_id);
        body.diff_id = Some(diff_id.clone());
        Ok(())
    }
}

fn unwrap_writer(mut out: std::io::BufWriter<BlobWriter>) -> Result<BlobWriter, StoreError> {
    let fail = |e| StoreError::io("write", "blob", e);
    out.flush().map_err(fail)?;
    out.into_inner().map_err(|e| fail(e.into_error()))
}
