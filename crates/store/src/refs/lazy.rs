//! Makes the files of records: fetches and unpacks lazy layers, makes diffs and patches.
//!
//! All layers of a chain are fetched side by side. Unpacking follows from the base up, because a layer may leave out directories
//! that it expects below. Work that is abandoned half-way leaves a draft that removes itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use fstree::Root;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use layer::index::IndexError;
use layer::{ApplyOptions, Whiteouts};
use oci::{Descriptor, Digest};
use rusqlite::params;
use tokio::sync::mpsc;

use crate::blob::{BlobInfo, BlobWriter};
use crate::error::StoreError;
use crate::lease::Lease;
use crate::provider::{BlobProvider, BlobSink};
use crate::refs::merge::Draft;
use crate::store::Store;
use crate::store::record::{Record, Shape};

/// Layers of one chain that are fetched at a time.
const MAX_FETCHES_AT_ONCE: usize = 8;
/// Bytes that are collected before a blocking thread writes and hashes them.
const BATCH_BYTES: usize = 1 << 20;

/// Layers that are unpacked while they are fetched. Each has a thread of its own: a slow provider must not hold one of the
/// few threads for blocking work.
static UNPACKING_THREADS: LazyLock<task::Permits> = LazyLock::new(|| task::Permits::new(256));

/// A form of a layer and its providers.
type Fetchable = (LayerRow, Vec<Arc<dyn BlobProvider>>);

/// A blob that is a form of a layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerRow {
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) variant: String,
    pub(crate) local: bool,
}

impl Record {
    /// The known forms of this layer, the preferred one first. Those with rewritten times are other layers, and not among them.
    pub(crate) fn layer_rows(&self) -> Result<Vec<LayerRow>, StoreError> {
        let mut rows = self.all_layer_rows()?;
        rows.retain(|row| !row.variant.contains('@'));
        Ok(rows)
    }

    pub(crate) fn all_layer_rows(&self) -> Result<Vec<LayerRow>, StoreError> {
        self.store().db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT descriptor, layer_blobs.diff_id, variant, blobs.digest IS NOT NULL FROM layer_blobs
                 LEFT JOIN blobs ON blobs.digest = layer_blobs.digest WHERE ref = ?1 ORDER BY rank, layer_blobs.digest",
            )?;
            let mut out = Vec::new();
            let mut rows = s.query([self.id().as_str()])?;
            while let Some(r) = rows.next()? {
                let text: String = r.get(0)?;
                let descriptor = serde_json::from_str(&text)
                    .map_err(|e| StoreError::layer("read the record of", self.id().as_str(), e))?;
                let diff_id = Digest::parse(&r.get::<_, String>(1)?)
                    .map_err(|e| StoreError::layer("read the record of", self.id().as_str(), e))?;
                out.push(LayerRow { descriptor, diff_id, variant: r.get(2)?, local: r.get(3)? });
            }
            Ok(out)
        })
    }

    pub(crate) fn provider(&self, digest: &Digest) -> Option<Arc<dyn BlobProvider>> {
        self.providers(digest).into_iter().next()
    }

    /// Returns whether some form of this layer is in the store or can be fetched.
    pub(crate) fn can_fetch(&self) -> bool {
        self.layer_rows().is_ok_and(|rows| {
            rows.iter()
                .any(|row| row.local || self.provider(&row.descriptor.digest).is_some())
        })
    }

    /// Makes everything that mounting this record needs.
    pub(crate) async fn ensure(self: &Arc<Self>) -> Result<(), StoreError> {
        let missing: Vec<_> = self
            .layers()
            .into_iter()
            .filter(|l| l.body.lock().snapshot.is_none())
            .collect();
        if !missing.is_empty() {
            let mut work = stream::iter(missing.into_iter().map(Self::materialize))
                .buffer_unordered(MAX_FETCHES_AT_ONCE);
            while let Some(()) = work.try_next().await? {}
        }
        if !matches!(self.shape(), Shape::Layer { parent: None }) {
            for layer in self.unpatched()? {
                layer.patch().await?;
            }
        }
        Ok(())
    }

    /// Makes the files of this one layer.
    fn materialize(self: Arc<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            let _lock = self.work.lock().await;
            if self.body.lock().snapshot.is_some() {
                return Ok(());
            }
            match self.shape() {
                Shape::Layer { .. } => loop {
                    if self.store().share_files(&self)? {
                        return Ok(());
                    }
                    let Err(error) = self.unlazy().await else {
                        return Ok(());
                    };
                    // A blob that is not this layer is dropped from its forms, and the next one is tried.
                    let Some(bad) = bad_form(&error) else {
                        return Err(error);
                    };
                    // Its providers are asked again only if an image names the blob again.
                    self.drop_providers(&bad);
                    let has_others = self.layer_rows()?.len() > 1;
                    if has_others {
                        self.disown(&bad)?;
                    }
                    self.store().drop_blob(&bad)?;
                    if !has_others || !self.can_fetch() {
                        return Err(error);
                    }
                },
                Shape::Diff { .. } => {
                    for parent in self.parents() {
                        parent.ensure_boxed().await?;
                    }
                    let record = self.clone();
                    task::blocking("store-diff", move || record.make_diff()).await
                }
                Shape::Merge { .. } => Ok(()),
            }
        })
    }

    fn ensure_boxed<'a>(self: &'a Arc<Self>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.ensure())
    }

    async fn patch(self: &Arc<Self>) -> Result<(), StoreError> {
        let _lock = self.work.lock().await;
        if self
            .store()
            .meta(self.id(), crate::refs::PATCH_KEY)?
            .is_some()
        {
            return Ok(());
        }
        for parent in self.parents() {
            parent.ensure_boxed().await?;
        }
        let record = self.clone();
        task::blocking("store-patch", move || record.make_patch()).await
    }

    /// Fetches and unpacks this layer. The caller holds `work`.
    async fn unlazy(self: &Arc<Self>) -> Result<(), StoreError> {
        let lease = self.store().lease();
        let rows = self.layer_rows()?;
        let first = rows
            .iter()
            .find_map(|row| self.provider(&row.descriptor.digest));
        let _busy = first.map(|provider| provider.busy());
        if let Some((row, providers)) = self.streamable()? {
            let mut last_error = None;
            for provider in providers {
                let lease = lease.clone();
                match self.unpack_as_it_comes(row.clone(), &provider, lease).await {
                    Err(error) if is_of_provider(&error) => last_error = Some(error),
                    done => return done,
                }
            }
            if let Some(error) = last_error {
                return Err(error);
            }
        }
        let row = self.fetch_any(&lease).await?;
        for parent in self.parents() {
            parent.ensure_boxed().await?;
        }
        let record = self.clone();
        let provider = self.provider(&row.descriptor.digest);
        task::blocking("store-unpack", move || {
            let _lease = lease;
            let _shown = provider.map(|p| p.unpacking(&row.descriptor));
            let blob = record.store().open_blob(&row.descriptor.digest)?;
            let unpacked = record.unpack(&mut BufReader::with_capacity(256 << 10, blob), &row)?;
            record.adopt(unpacked)
        })
        .await
    }

    /// The form and its providers, if the layer can be unpacked while it is fetched: it is the only form, it is not in the
    /// store, and all layers below are unpacked.
    fn streamable(&self) -> Result<Option<Fetchable>, StoreError> {
        let waits = self
            .parents()
            .iter()
            .any(|p| p.layers().iter().any(|l| l.body.lock().snapshot.is_none()));
        let mut rows = self.layer_rows()?;
        let (Some(row), true, false) = (rows.pop(), rows.is_empty(), waits) else {
            return Ok(None);
        };
        if row.local {
            return Ok(None);
        }
        let providers = self.providers(&row.descriptor.digest);
        Ok((!providers.is_empty()).then_some((row, providers)))
    }

    async fn unpack_as_it_comes(
        self: &Arc<Self>,
        row: LayerRow,
        provider: &Arc<dyn BlobProvider>,
        lease: Lease,
    ) -> Result<(), StoreError> {
        let (tee, chunks) = mpsc::channel(32);
        let record = self.clone();
        let descriptor = row.descriptor.clone();
        let shows = Arc::clone(provider);
        let place = UNPACKING_THREADS.acquire().await;
        let unpacking = task::thread("store-unpack", move || {
            let _place = place;
            let mut stream = BufReader::with_capacity(
                256 << 10,
                ChunkReader {
                    chunks,
                    current: Bytes::new(),
                    complete: false,
                },
            );
            // Progress starts with the first bytes; an error here comes again below.
            let _first = stream.fill_buf().is_ok();
            let _shown = shows.unpacking(&row.descriptor);
            record.unpack(&mut stream, &row)
        })
        .map_err(|e| StoreError::io("start a thread for", "a layer", e))?;
        let mut tee_closed = false;
        let fetched = fetch_and_tee(
            self.store(),
            &lease,
            &descriptor,
            provider,
            Some(tee),
            &mut tee_closed,
        )
        .await;
        let unpacked = unpacking.await;
        // A fetch that ended because unpacking failed is not the cause.
        if !tee_closed {
            fetched?;
        }
        self.adopt(unpacked?)
    }

    /// Fetches some form of this layer unless the store has one.
    pub(crate) async fn fetch_any(&self, lease: &Lease) -> Result<LayerRow, StoreError> {
        let rows = self.layer_rows()?;
        for row in &rows {
            lease.hold(&row.descriptor.digest);
            if self.store().blob_info(&row.descriptor.digest)?.is_some() {
                return Ok(row.clone());
            }
        }
        let mut last_error = None;
        for row in rows {
            let providers = self.providers(&row.descriptor.digest);
            if providers.is_empty() {
                last_error.get_or_insert(StoreError::NoProvider {
                    digest: row.descriptor.digest.clone(),
                });
            }
            for provider in providers {
                match fetch_blob(self.store(), lease, &row.descriptor, &provider).await {
                    Ok(_) => return Ok(row),
                    Err(e) => last_error = Some(e),
                }
            }
        }
        Err(last_error.unwrap_or(StoreError::Unfit {
            id: self.id().clone(),
            why: "is lazy and has no blob",
        }))
    }

    /// Unpacks a form of this layer, whose parents are unpacked. Blocks.
    fn unpack(
        self: &Arc<Self>,
        stream: &mut (dyn Read + Send),
        row: &LayerRow,
    ) -> Result<Draft, StoreError> {
        let store = self.store();
        let of = row.descriptor.digest.as_str();
        let mut parents = Vec::new();
        if let Shape::Layer {
            parent: Some(parent),
        } = self.shape()
        {
            for snapshot in parent.stack()?.iter().rev() {
                let fd = store.snapshots().upper(snapshot)?;
                parents.push(Root::from_fd(fd).map_err(|e| StoreError::layer("unpack", of, e))?);
            }
        }
        let (draft, diff_id) = if store.snapshots().keeps_tars() {
            keep_tar(store, stream, row, parents)?
        } else {
            let draft = Draft::new(store)?;
            let diff_id = unpack_into(store, &draft, stream, row, parents)?;
            (draft, diff_id)
        };
        if diff_id != row.diff_id {
            return Err(StoreError::DiffId {
                layer: row.descriptor.digest.clone(),
                want: row.diff_id.clone(),
                got: diff_id,
            });
        }
        Ok(draft)
    }

    /// Drops a blob from the forms of this layer.
    fn disown(&self, digest: &Digest) -> Result<(), StoreError> {
        self.store().write(|c| {
            let mut s =
                c.prepare_cached("DELETE FROM layer_blobs WHERE ref = ?1 AND digest = ?2")?;
            s.execute(params![self.id().as_str(), digest.as_str()])?;
            Ok(())
        })
    }

    /// Makes the unpacked files of a draft those of this layer.
    fn adopt(&self, draft: Draft) -> Result<(), StoreError> {
        let store = self.store();
        let snapshot = draft.keep();
        let result = store.write(|c| {
            let mut s = c.prepare_cached(
                "UPDATE refs SET snapshot = ?2, lazy = 0, size = -1, synced = 0 WHERE id = ?1",
            )?;
            s.execute(params![self.id().as_str(), snapshot])?;
            Ok(())
        });
        if result.is_err() {
            store.drop_snapshots(&[snapshot]);
            return result;
        }
        {
            let mut body = self.body.lock();
            body.snapshot = Some(snapshot);
            body.lazy = false;
            body.size = -1;
        }
        store.note_unsynced();
        Ok(())
    }

    /// Bytes on disk of this record's own files and blobs. Blocks while counting.
    pub(crate) fn size(&self) -> Result<i64, StoreError> {
        let (known, snapshot, mutable) = {
            let body = self.body.lock();
            (body.size, body.snapshot.clone(), body.mutable)
        };
        if known >= 0 && !mutable {
            return Ok(known);
        }
        let size = measure(self.store(), self.id().as_str(), snapshot.as_deref())?;
        self.body.lock().size = size;
        if !mutable {
            self.store().later(|c| {
                c.prepare_cached("UPDATE refs SET size = ?2 WHERE id = ?1")?
                    .execute(params![self.id().as_str(), size])?;
                Ok(())
            })?;
        }
        Ok(size)
    }
}

/// Keeps a layer as its tar, or unpacks it where its index cannot be made. Returns the digest of the tar. Blocks.
fn keep_tar(
    store: &Arc<Store>,
    stream: &mut (dyn Read + Send),
    row: &LayerRow,
    parents: Vec<Root>,
) -> Result<(Draft, Digest), StoreError> {
    let (draft, writer) = Draft::of_tar(store)?;
    let now = crate::usage::to_nanos(task::clock::wall()) / 1_000_000_000;
    match writer.write(stream, &parents, now) {
        Ok(diff_id) => Ok((draft, diff_id)),
        Err(IndexError::NeedsFolder(reason)) => {
            tracing::debug!(layer = %row.descriptor.digest, ?reason, "a layer is unpacked");
            let tar = writer.into_tar();
            let mut tar = tar.map_err(|e| StoreError::io("read", "a layer", e))?;
            store.snapshots().make_folder(draft.id())?;
            let diff_id = unpack_into(store, &draft, &mut tar, row, parents)?;
            Ok((draft, diff_id))
        }
        Err(error) => Err(StoreError::Unpack {
            layer: row.descriptor.digest.clone(),
            source: Arc::new(error),
        }),
    }
}

/// Unpacks a layer into the folder of a draft. Returns the digest of the uncompressed layer. Blocks.
fn unpack_into(
    store: &Arc<Store>,
    draft: &Draft,
    stream: &mut (dyn Read + Send),
    row: &LayerRow,
    parents: Vec<Root>,
) -> Result<Digest, StoreError> {
    let options = ApplyOptions {
        whiteouts: Whiteouts::Overlay,
        parents,
        ..ApplyOptions::default()
    };
    let applied =
        layer::apply(stream, &draft.root()?, &options).map_err(|e| StoreError::Unpack {
            layer: row.descriptor.digest.clone(),
            source: Arc::new(e),
        })?;
    store.check_depth(draft.id())?;
    Ok(applied.diff_id)
}

/// Counts the bytes of a record's snapshot, patch and local blobs.
pub(crate) fn measure(store: &Store, id: &str, snapshot: Option<&str>) -> Result<i64, StoreError> {
    let patch: Option<String> = store.db().read(|c| {
        let mut s =
            c.prepare_cached("SELECT CAST(value AS TEXT) FROM meta WHERE ref = ?1 AND key = ?2")?;
        Ok(rusqlite::OptionalExtension::optional(
            s.query_row([id, crate::refs::PATCH_KEY], |r| r.get(0)),
        )?)
    })?;
    let mut total = 0_i64;
    for snapshot in snapshot
        .into_iter()
        .chain(patch.as_deref().filter(|p| !p.is_empty()))
    {
        total = total.saturating_add(store.snapshots().disk_size(snapshot)?);
    }
    let blobs: i64 = store.db().read(|c| {
        let mut s = c.prepare_cached(
            "SELECT coalesce(sum(blobs.size), 0) FROM layer_blobs JOIN blobs ON blobs.digest = layer_blobs.digest
             WHERE layer_blobs.ref = ?1",
        )?;
        Ok(s.query_row([id], |r| r.get(0))?)
    })?;
    Ok(total.saturating_add(blobs))
}

/// The blob that, by this error, is not the layer. (A full disk looks the same; then the blob is fetched again later, which does
/// no harm.)
fn bad_form(error: &StoreError) -> Option<Digest> {
    if let StoreError::DiffId { layer, .. } | StoreError::Unpack { layer, .. } = error {
        Some(layer.clone())
    } else {
        None
    }
}

/// Whether another provider may give other bytes: unpacking may fail before the digest is known to be wrong.
fn is_of_provider(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Fetch { .. }
            | StoreError::SizeMismatch { .. }
            | StoreError::DigestMismatch { .. }
            | StoreError::Unpack { .. }
    )
}

/// Messages of a fetch to the unpacker. A fetch that fails or is cancelled closes the channel without `All`.
enum Fetched {
    Chunk(Bytes),
    /// All bytes of the descriptor have come.
    All,
}

/// Reads chunks from a channel. A stream that breaks off is an error: the part of a layer must not pass for all of it.
struct ChunkReader {
    chunks: mpsc::Receiver<Fetched>,
    current: Bytes,
    complete: bool,
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() && !self.complete {
            match self.chunks.blocking_recv() {
                Some(Fetched::Chunk(next)) => self.current = next,
                Some(Fetched::All) => self.complete = true,
                None => return Err(std::io::Error::other("the fetch was given up")),
            }
        }
        let n = self.current.len().min(buf.len());
        let (head, room) = (self.current.split_to(n), buf.get_mut(..n));
        if let Some(room) = room {
            room.copy_from_slice(&head);
        }
        Ok(n)
    }
}

/// Receives a blob from a provider, in batches that a blocking thread writes and hashes.
struct BlobIngest {
    writer: Option<BlobWriter>,
    batch: Vec<Bytes>,
    batched: usize,
    received: u64,
    limit: u64,
    /// Gets every chunk as well.
    tee: Option<mpsc::Sender<Fetched>>,
    /// Whether the receiver of `tee` is gone.
    tee_closed: bool,
}

impl BlobIngest {
    async fn drain(&mut self) -> std::io::Result<()> {
        let Some(mut writer) = self.writer.take() else {
            return Err(std::io::Error::other("an earlier write failed"));
        };
        let batch = std::mem::take(&mut self.batch);
        self.batched = 0;
        let written = task::blocking("store-ingest", move || {
            for chunk in batch {
                writer.write_all(&chunk)?;
            }
            Ok::<_, std::io::Error>(writer)
        });
        self.writer = Some(written.await?);
        Ok(())
    }
}

#[async_trait]
impl BlobSink for BlobIngest {
    async fn write(&mut self, chunk: Bytes) -> std::io::Result<()> {
        self.received += chunk.len() as u64;
        if self.received > self.limit {
            return Err(std::io::Error::other("more bytes than were announced"));
        }
        if let Some(tee) = &self.tee
            && tee.send(Fetched::Chunk(chunk.clone())).await.is_err()
        {
            self.tee_closed = true;
            return Err(std::io::Error::other("unpacking failed"));
        }
        self.batched += chunk.len();
        self.batch.push(chunk);
        if self.batched >= BATCH_BYTES {
            self.drain().await
        } else {
            Ok(())
        }
    }

    fn written(&self) -> u64 {
        self.received
    }
}

/// Fetches a blob into the store and checks it against its descriptor.
pub(crate) async fn fetch_blob(
    store: &Arc<Store>,
    lease: &Lease,
    descriptor: &Descriptor,
    provider: &Arc<dyn BlobProvider>,
) -> Result<BlobInfo, StoreError> {
    lease.hold(&descriptor.digest);
    if let Some(info) = store.blob_info(&descriptor.digest)? {
        return Ok(info);
    }
    fetch_and_tee(store, lease, descriptor, provider, None, &mut false).await
}

/// As [`fetch_blob`], while the bytes also go to `tee`. `tee_closed` is set when its other end was closed early.
async fn fetch_and_tee(
    store: &Arc<Store>,
    lease: &Lease,
    descriptor: &Descriptor,
    provider: &Arc<dyn BlobProvider>,
    tee: Option<mpsc::Sender<Fetched>>,
    tee_closed: &mut bool,
) -> Result<BlobInfo, StoreError> {
    let digest = &descriptor.digest;
    let limit = descriptor.len();
    let writer = Some(store.blob_writer(lease)?);
    let mut sink = BlobIngest {
        writer,
        batch: Vec::new(),
        batched: 0,
        received: 0,
        limit,
        tee,
        tee_closed: false,
    };
    let start = task::clock::monotonic();
    let fetched = provider.fetch(descriptor, &mut sink).await;
    metrics::PHASE_DURATION.observe(metrics::Phase::Pull, start.elapsed());
    let tee = sink.tee.take();
    *tee_closed = sink.tee_closed;
    fetched.map_err(|e| StoreError::Fetch {
        digest: digest.clone(),
        source: Arc::from(e),
    })?;
    if sink.received != limit {
        return Err(StoreError::SizeMismatch {
            digest: digest.clone(),
            want: limit,
            got: sink.received,
        });
    }
    if let Some(tee) = tee {
        // An unpacker that is gone reports its own error.
        let _sent = tee.send(Fetched::All).await;
    }
    let fail = |e| StoreError::io("write blob", store.blob_path(digest), e);
    sink.drain().await.map_err(fail)?;
    let Some(writer) = sink.writer.take() else {
        return Err(fail(std::io::Error::other("an earlier write failed")));
    };
    writer.commit(Some(digest))
}
