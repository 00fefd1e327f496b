//! Opens records by name, makes new ones, and imports layers.

use std::sync::Arc;

use oci::{Descriptor, Digest};
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::StoreError;
use crate::id::RefId;
use crate::key_rows;
use crate::kind::RecordType;
use crate::provider::BlobProvider;
use crate::refs::{ImmutableRef, LayerDesc, MutableRef, RefOptions};
use crate::store::record::{Body, Record, Shape};
use crate::store::{LiveRecords, Store};
use crate::usage::from_nanos;

/// Metadata of a layer whose first blob was made here.
pub(crate) const ORIGIN_KEY: &str = "layer.origin";
/// The origin of a layer that was made here.
pub(crate) const BUILT: &[u8] = b"built";
/// The origin of a layer that was made here and also came with an image or a cache.
pub(crate) const SHARED: &[u8] = b"shared";

struct RecordRow {
    kind: i64,
    body: Body,
    parents: Vec<(i64, RefId)>,
}

fn read_row(c: &Connection, id: &RefId) -> Result<RecordRow, StoreError> {
    let mut s = c.prepare_cached(
        "SELECT kind, mutable, retain, snapshot, twin, record_type, description, created, size, chain_id, diff_id, lazy
         FROM refs WHERE id = ?1",
    )?;
    let digest = |text: Option<String>| text.and_then(|t| Digest::parse(&t).ok());
    let row = s
        .query_row([id.as_str()], |r| {
            let body = Body {
                mutable: r.get(1)?,
                retain: r.get(2)?,
                snapshot: r.get(3)?,
                twin: r
                    .get::<_, Option<String>>(4)?
                    .and_then(|t| RefId::parse(&t).ok()),
                record_type: RecordType::parse(&r.get::<_, String>(5)?),
                description: r.get(6)?,
                created: from_nanos(r.get(7)?),
                size: r.get(8)?,
                chain_id: digest(r.get(9)?),
                diff_id: digest(r.get(10)?),
                lazy: r.get(11)?,
                stored: true,
            };
            Ok((r.get(0)?, body))
        })
        .optional()?;
    let Some((kind, body)) = row else {
        return Err(StoreError::NotFound { id: id.to_string() });
    };
    let mut s = c.prepare_cached(
        "SELECT position, parent FROM parents WHERE child = ?1 ORDER BY position",
    )?;
    let mut parents = Vec::new();
    for row in s.query_map([id.as_str()], |r| Ok((r.get(0)?, r.get::<_, String>(1)?)))? {
        let (position, parent) = row?;
        parents.push((position, RefId::parse(&parent)?));
    }
    Ok(RecordRow {
        kind,
        body,
        parents,
    })
}

impl Store {
    /// Returns the record of that name; it and what it stands on are loaded unless they are in memory.
    pub(crate) fn load(
        self: &Arc<Self>,
        live: &mut LiveRecords,
        id: &RefId,
    ) -> Result<Arc<Record>, StoreError> {
        // Parents first, with an explicit stack: chains may be long.
        let mut pending = vec![id.clone()];
        let mut hold = Vec::new();
        while let Some(next) = pending.last().cloned() {
            if let Some(record) = live.get(&next) {
                hold.push(record);
                pending.pop();
                continue;
            }
            let row = self.db().read(|c| read_row(c, &next))?;
            // Held from here on: what was live a moment ago need not be so now.
            let parents: Vec<(i64, Option<Arc<Record>>)> = row
                .parents
                .iter()
                .map(|(at, p)| (*at, live.get(p)))
                .collect();
            let missing: Vec<RefId> = row
                .parents
                .iter()
                .zip(&parents)
                .filter(|(_, (_, record))| record.is_none())
                .map(|((_, p), _)| p.clone())
                .collect();
            if !missing.is_empty() {
                hold.extend(parents.into_iter().filter_map(|(_, record)| record));
                if pending.len() > 100_000 {
                    return Err(StoreError::Unfit {
                        id: id.clone(),
                        why: "stands on itself",
                    });
                }
                pending.extend(missing);
                continue;
            }
            let mut present = parents
                .into_iter()
                .filter_map(|(at, present)| present.map(|r| (at, r)));
            let shape = match row.kind {
                0 => Shape::Layer {
                    parent: present.next().map(|(_, r)| r),
                },
                1 => Shape::Merge {
                    parents: present.map(|(_, r)| r).collect(),
                },
                _ => {
                    let (mut lower, mut upper) = (None, None);
                    for (at, record) in present {
                        if at == 0 {
                            lower = Some(record)
                        } else {
                            upper = Some(record)
                        }
                    }
                    Shape::Diff { lower, upper }
                }
            };
            let record = Record::new(self.clone(), next, shape, row.body);
            live.put(&record);
            hold.push(record);
            pending.pop();
        }
        live.get(id)
            .ok_or_else(|| StoreError::NotFound { id: id.to_string() })
    }

    /// Returns a handle of an immutable record.
    pub fn get(self: &Arc<Self>, id: &RefId) -> Result<ImmutableRef, StoreError> {
        let record = self.load(&mut self.live().lock(), id)?;
        if record.body.lock().mutable {
            return Err(StoreError::Unfit {
                id: id.clone(),
                why: "is mutable",
            });
        }
        Ok(ImmutableRef::new(record))
    }

    /// Returns whether a record of that name exists.
    pub fn exists(&self, id: &RefId) -> Result<bool, StoreError> {
        if self.live().lock().has(id) {
            return Ok(true);
        }
        self.db().read(|c| {
            Ok(c.prepare_cached("SELECT 1 FROM refs WHERE id = ?1")?
                .exists([id.as_str()])?)
        })
    }

    /// Opens a kept mutable record again. Only one may have it open, and nobody may hold its twin.
    pub fn get_mutable(self: &Arc<Self>, id: &RefId) -> Result<MutableRef, StoreError> {
        let mut live = self.live().lock();
        if live.has(id) {
            return Err(StoreError::Locked { id: id.clone() });
        }
        let twin: Option<String> = self.db().read(|c| {
            Ok(c.prepare_cached("SELECT id FROM refs WHERE twin = ?1")?
                .query_row([id.as_str()], |r| r.get(0))
                .optional()?)
        })?;
        if let Some(twin) = twin {
            let twin = RefId::parse(&twin)?;
            if live.has(&twin) {
                return Err(StoreError::Locked { id: id.clone() });
            }
            self.write(|c| {
                delete_rows(c, twin.as_str())?;
                c.prepare_cached("UPDATE refs SET size = -1 WHERE id = ?1")?
                    .execute([id.as_str()])?;
                Ok(())
            })?;
        }
        let record = self.load(&mut live, id)?;
        drop(live);
        if !record.body.lock().mutable {
            return Err(StoreError::Unfit {
                id: id.clone(),
                why: "is immutable",
            });
        }
        record.body.lock().size = -1;
        Ok(MutableRef::new(record))
    }

    /// Deletes a kept mutable record: at once, or when its handle is dropped. Does nothing if there is none.
    pub fn retire(self: &Arc<Self>, id: &RefId) -> Result<(), StoreError> {
        let record = self.live().lock().get(id);
        if let Some(record) = record {
            record.body.lock().retain = false;
            self.write(|c| {
                c.prepare_cached("UPDATE refs SET retain = 0 WHERE id = ?1 AND mutable = 1")?
                    .execute([id.as_str()])?;
                Ok(())
            })?;
            // Its handle may have been dropped just before, and kept it.
            drop(record);
        }
        match self.get_mutable(id) {
            Ok(unused) => unused.set_retain(false),
            Err(StoreError::Locked { .. } | StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a mutable record on top of `parent`, or of nothing.
    pub fn new_mutable(
        self: &Arc<Self>,
        parent: Option<&ImmutableRef>,
        options: RefOptions,
    ) -> Result<MutableRef, StoreError> {
        if let Some(parent) = parent {
            self.settle(parent.record())?;
        }
        let id = RefId::random();
        let snapshot = id.to_string();
        self.snapshots().create(&snapshot)?;
        let body = Body {
            mutable: true,
            retain: options.retain,
            snapshot: Some(snapshot),
            twin: None,
            record_type: options.record_type,
            description: options.description,
            created: options.created.unwrap_or_else(task::clock::wall),
            size: -1,
            chain_id: None,
            diff_id: None,
            lazy: false,
            stored: false,
        };
        let parent = parent.map(|p| p.record().clone());
        let record = Record::new(self.clone(), id, Shape::Layer { parent }, body);
        if options.retain {
            let body = record.body.lock().clone();
            self.write(|c| record.insert(c, &body))?;
            record.body.lock().stored = true;
        }
        self.live().lock().put(&record);
        Ok(MutableRef::new(record))
    }

    /// Deletes the mutable half of a twin, because a record is being made on the immutable one.
    pub(crate) fn settle(&self, record: &Arc<Record>) -> Result<(), StoreError> {
        let twin = record.body.lock().twin.clone();
        let Some(twin) = twin else { return Ok(()) };
        self.write(|c| {
            delete_rows(c, twin.as_str())?;
            c.prepare_cached("UPDATE refs SET twin = NULL WHERE id = ?1")?
                .execute([record.id().as_str()])?;
            Ok(())
        })?;
        record.body.lock().twin = None;
        Ok(())
    }

    /// Makes a record of a layer that exists elsewhere, on top of `parent`. Nothing is fetched before it is needed.
    ///
    /// What an image says of a layer is only a claim until the layer is unpacked. So a record belongs to one blob on one parent:
    /// the record of another image, whose blob may be anything, is never taken in its place, and neither are its size and media
    /// type. Layers that *are* the same, by the chain of their diff ids, share their files as soon as one of them has been
    /// unpacked and verified.
    pub fn import_layer(
        self: &Arc<Self>,
        parent: Option<&ImmutableRef>,
        layer: LayerDesc,
        provider: Arc<dyn BlobProvider>,
    ) -> Result<ImmutableRef, StoreError> {
        let chain_id = match parent {
            None => layer.diff_id.clone(),
            Some(parent) => {
                self.settle(parent.record())?;
                let parent_chain_id = parent.record().body.lock().chain_id.clone();
                let Some(parent_chain_id) = parent_chain_id else {
                    return Err(StoreError::Unfit {
                        id: parent.id().clone(),
                        why: "has no chain id to import a layer on",
                    });
                };
                Digest::sha256(format!("{parent_chain_id} {}", layer.diff_id))
            }
        };
        let mut descriptor = layer.descriptor;
        descriptor.annotations.extend(layer.annotations);
        let mut live = self.live().lock();
        let parent = parent.map(|p| p.record().clone());
        let existing = self.imported(&chain_id, parent.as_deref(), &descriptor)?;
        let record = match existing {
            Some(id) => {
                let record = self.load(&mut live, &id)?;
                record.mark_shared()?;
                record
            }
            None => {
                let mut body = Body {
                    mutable: false,
                    retain: true,
                    snapshot: None,
                    twin: None,
                    record_type: layer.record_type,
                    description: layer.description,
                    created: layer.created.unwrap_or_else(task::clock::wall),
                    size: -1,
                    chain_id: Some(chain_id.clone()),
                    diff_id: Some(layer.diff_id.clone()),
                    lazy: true,
                    stored: true,
                };
                let id = RefId::random();
                let variant = variant_of(&descriptor);
                // A crash loses at most the row of a layer that was not fetched yet.
                let record = self.later(|c| {
                    // Looked for and named in one transaction, so that the files do not go in between.
                    body.snapshot = unpacked(c, &chain_id)?;
                    body.lazy = body.snapshot.is_none();
                    let shape = Shape::Layer { parent };
                    let record = Record::new(self.clone(), id, shape, body.clone());
                    record.insert(c, &body)?;
                    put_layer_blob(c, record.id(), &descriptor, &layer.diff_id, variant, 0)?;
                    Ok(record)
                })?;
                live.put(&record);
                if !body.lazy {
                    self.note_unsynced();
                }
                record
            }
        };
        drop(live);
        record.add_provider(&descriptor.digest, provider);
        Ok(ImmutableRef::new(record))
    }

    /// The record of exactly this blob on exactly this parent.
    fn imported(
        &self,
        chain_id: &Digest,
        parent: Option<&Record>,
        descriptor: &Descriptor,
    ) -> Result<Option<RefId>, StoreError> {
        let parent = parent.map(|p| p.id().as_str());
        let candidates: Vec<(String, String)> = self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT refs.id, layer_blobs.descriptor FROM refs JOIN layer_blobs ON layer_blobs.ref = refs.id
                 WHERE chain_id = ?1 AND mutable = 0 AND layer_blobs.digest = ?2
                   AND (SELECT parent FROM parents WHERE child = refs.id) IS ?3 ORDER BY lazy",
            )?;
            let key = params![chain_id.as_str(), descriptor.digest.as_str(), parent];
            let rows = s.query_map(key, |r| Ok((r.get(0)?, r.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        for (id, text) in candidates {
            let existing: Descriptor = serde_json::from_str(&text)
                .map_err(|e| StoreError::layer("read the record of", id.as_str(), e))?;
            if existing.size == descriptor.size && existing.media_type == descriptor.media_type {
                return Ok(Some(RefId::parse(&id)?));
            }
        }
        Ok(None)
    }

    /// Gives a layer the files of another record of the same chain, if one has been unpacked. Returns whether it did.
    pub(crate) fn share_files(&self, record: &Record) -> Result<bool, StoreError> {
        let chain_id = record.body.lock().chain_id.clone();
        let Some(chain_id) = chain_id else {
            return Ok(false);
        };
        let snapshot = self.write(|c| {
            let snapshot = unpacked(c, &chain_id)?;
            if let Some(snapshot) = &snapshot {
                let mut s = c.prepare_cached(
                    "UPDATE refs SET snapshot = ?2, lazy = 0, size = -1, synced = 0 WHERE id = ?1",
                )?;
                s.execute([record.id().as_str(), snapshot])?;
            }
            Ok(snapshot)
        })?;
        let Some(snapshot) = snapshot else {
            return Ok(false);
        };
        let mut body = record.body.lock();
        body.snapshot = Some(snapshot);
        body.lazy = false;
        body.size = -1;
        drop(body);
        self.note_unsynced();
        Ok(true)
    }
}

/// The name of a form of a layer: its compression.
fn variant_of(descriptor: &Descriptor) -> &'static str {
    let media_type = descriptor.media_type.as_str();
    if descriptor
        .annotations
        .contains_key("containerd.io/snapshot/stargz/toc.digest")
    {
        "estargz"
    } else if media_type.ends_with("gzip") {
        "gzip"
    } else if media_type.ends_with("zstd") {
        "zstd"
    } else {
        "uncompressed"
    }
}

impl Record {
    /// Records that this layer also came with an image or a cache.
    fn mark_shared(&self) -> Result<(), StoreError> {
        match self.store().meta(self.id(), ORIGIN_KEY)?.as_deref() {
            Some(BUILT) => self.store().set_meta(self.id(), ORIGIN_KEY, SHARED),
            _ => Ok(()),
        }
    }
}

/// The snapshot of a layer of this chain that has been unpacked and verified, or was made here.
fn unpacked(c: &Connection, chain_id: &Digest) -> Result<Option<String>, StoreError> {
    let mut s = c.prepare_cached(
        "SELECT snapshot FROM refs WHERE chain_id = ?1 AND mutable = 0 AND lazy = 0 AND kind = 0 AND twin IS NULL
           AND snapshot IS NOT NULL LIMIT 1",
    )?;
    Ok(s.query_row([chain_id.as_str()], |r| r.get(0)).optional()?)
}

/// Adds a blob to the forms of a layer. The lowest rank is the preferred one.
pub(crate) fn put_layer_blob(
    c: &Connection,
    id: &RefId,
    descriptor: &Descriptor,
    diff_id: &Digest,
    variant: &str,
    rank: i64,
) -> Result<(), StoreError> {
    let mut s = c.prepare_cached(
        "INSERT INTO layer_blobs(ref, digest, rank, variant, descriptor, diff_id) VALUES(?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET rank = min(rank, excluded.rank)",
    )?;
    let text = serde_json::to_string(descriptor)
        .map_err(|e| StoreError::layer("record", descriptor.digest.as_str(), e))?;
    s.execute(params![
        id.as_str(),
        descriptor.digest.as_str(),
        rank,
        variant,
        text,
        diff_id.as_str()
    ])?;
    Ok(())
}

/// Deletes a record's rows; returns the snapshots that nothing names any more.
pub(crate) fn delete_rows(c: &Connection, id: &str) -> Result<Vec<String>, StoreError> {
    let snapshot: Option<Option<String>> = c
        .prepare_cached("SELECT snapshot FROM refs WHERE id = ?1")?
        .query_row([id], |r| r.get(0))
        .optional()?;
    let mut unnamed: Vec<String> = c
        .prepare_cached("SELECT CAST(value AS TEXT) FROM meta WHERE ref = ?1 AND key = ?2")?
        .query_map(params![id, crate::refs::PATCH_KEY], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    for sql in [
        "DELETE FROM refs WHERE id = ?1",
        "DELETE FROM parents WHERE child = ?1",
        "DELETE FROM meta WHERE ref = ?1",
        "DELETE FROM layer_blobs WHERE ref = ?1",
    ] {
        c.prepare_cached(sql)?.execute([id])?;
    }
    if let Some(Some(snapshot)) = snapshot
        && !c
            .prepare_cached("SELECT 1 FROM refs WHERE snapshot = ?1")?
            .exists([&snapshot])?
    {
        unnamed.push(snapshot);
    }
    for key in unnamed.iter().map(String::as_str).chain([id]) {
        c.prepare_cached("DELETE FROM content_hashes WHERE key = ?1")?
            .execute([key])?;
    }
    key_rows::release(c, id)?;
    Ok(unnamed)
}
