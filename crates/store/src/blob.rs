//! Blobs: files named by the digest of their bytes.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use oci::{Digest, Digester};
use rusqlite::{OptionalExtension, params};

use crate::error::StoreError;
use crate::id::RefId;
use crate::lease::Lease;
use crate::store::Store;
use crate::usage::{from_nanos, to_nanos};

/// The row of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// The digest of its bytes, which names it.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was committed.
    pub created: SystemTime,
}

/// A blob that is being written. Dropped without a commit, it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    store: Arc<Store>,
    lease: Lease,
    path: PathBuf,
    file: File,
    /// `None` if the caller computes the digest; see [`BlobWriter::commit_as`].
    digester: Option<Digester>,
    size: u64,
    is_committed: bool,
}

impl Store {
    /// Starts writing a blob; the lease protects it once it is committed.
    pub fn blob_writer(self: &Arc<Self>, lease: &Lease) -> Result<BlobWriter, StoreError> {
        self.new_writer(lease, Some(Digester::new()))
    }

    /// Starts writing a blob whose digest the caller computes; see [`BlobWriter::commit_as`].
    pub(crate) fn unhashed_writer(
        self: &Arc<Self>,
        lease: &Lease,
    ) -> Result<BlobWriter, StoreError> {
        self.new_writer(lease, None)
    }

    fn new_writer(
        self: &Arc<Self>,
        lease: &Lease,
        digester: Option<Digester>,
    ) -> Result<BlobWriter, StoreError> {
        let path = self.root().join("ingest").join(RefId::random().as_str());
        let file = crate::format::private_file()
            .create_new(true)
            .open(&path)
            .map_err(|e| StoreError::io("create", &path, e))?;
        Ok(BlobWriter {
            store: self.clone(),
            lease: lease.clone(),
            path,
            file,
            digester,
            size: 0,
            is_committed: false,
        })
    }

    /// Writes a small blob in one go.
    pub fn put_blob(self: &Arc<Self>, lease: &Lease, bytes: &[u8]) -> Result<BlobInfo, StoreError> {
        let digest = Digest::sha256(bytes);
        lease.hold(&digest);
        if let Some(info) = self.blob_info(&digest)? {
            return Ok(info);
        }
        let mut writer = self.blob_writer(lease)?;
        writer
            .write_all(bytes)
            .map_err(|e| StoreError::io("write", &writer.path, e))?;
        writer.commit(Some(&digest))
    }

    /// Returns the row of a blob, if the store has it.
    pub fn blob_info(&self, digest: &Digest) -> Result<Option<BlobInfo>, StoreError> {
        self.db().read(|c| {
            let mut s = c.prepare_cached("SELECT size, created FROM blobs WHERE digest = ?1")?;
            let row = s
                .query_row([digest.as_str()], |r| Ok((r.get::<_, i64>(0)?, r.get(1)?)))
                .optional()?;
            Ok(row.map(|(size, created)| BlobInfo {
                digest: digest.clone(),
                size: size.unsigned_abs(),
                created: from_nanos(created),
            }))
        })
    }

    /// Opens a blob to read.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        if self.blob_info(digest)?.is_none() {
            return Err(StoreError::NoBlob {
                digest: digest.clone(),
            });
        }
        let path = self.blob_path(digest);
        File::open(&path).map_err(|e| {
            if e.kind() == io::ErrorKind::NotFound {
                StoreError::NoBlob {
                    digest: digest.clone(),
                }
            } else {
                StoreError::io("open", path, e)
            }
        })
    }

    /// Reads a small blob whole; refuses one larger than `limit`.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let file = self.open_blob(digest)?;
        let mut out = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, limit + 1), &mut out)
            .map_err(|e| StoreError::io("read", self.blob_path(digest), e))?;
        if out.len() as u64 > limit {
            return Err(StoreError::SizeMismatch {
                digest: digest.clone(),
                want: limit,
                got: out.len() as u64,
            });
        }
        Ok(out)
    }

    /// Protects a blob until [`Self::unpin_blobs`] for the same `owner`: a name that the caller chooses, as `history:<id>`.
    pub fn pin_blob(&self, owner: &str, digest: &Digest) -> Result<(), StoreError> {
        self.write(|c| {
            c.prepare_cached("INSERT OR IGNORE INTO pins(owner, digest) VALUES(?1, ?2)")?
                .execute(params![owner, digest.as_str()])?;
            Ok(())
        })
    }

    /// Ends the protection of all blobs that `owner` pinned.
    pub fn unpin_blobs(&self, owner: &str) -> Result<(), StoreError> {
        self.write(|c| {
            c.prepare_cached("DELETE FROM pins WHERE owner = ?1")?
                .execute([owner])?;
            Ok(())
        })
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("blobs/sha256").join(digest.hex())
    }

    /// Removes one blob unless a pin, a lease or an unpacked record names it. Lazy records do not count: they could not be unpacked from it.
    pub(crate) fn drop_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let _gate = self.blob_gate.write();
        if self.held().holds(digest) {
            return Ok(());
        }
        let removed = self.write(|c| {
            let mut s = c.prepare_cached(
                "DELETE FROM blobs WHERE digest = ?1 AND digest NOT IN (SELECT digest FROM pins)
                   AND (SELECT count(*) FROM layer_blobs WHERE layer_blobs.digest = ?1) <= 1
                   AND NOT EXISTS (SELECT 1 FROM layer_blobs JOIN refs ON refs.id = layer_blobs.ref
                                   WHERE layer_blobs.digest = ?1 AND refs.lazy = 0)",
            )?;
            Ok(s.execute([digest.as_str()])?)
        })?;
        if removed > 0 {
            let _gone = std::fs::remove_file(self.blob_path(digest));
        }
        Ok(())
    }

    /// Removes blobs that no record, pin or lease names. Returns the bytes freed.
    pub(crate) fn sweep_blobs(&self) -> Result<u64, StoreError> {
        let _gate = self.blob_gate.write();
        let removed: Vec<(String, i64)> = self.write(|c| {
            let mut s = c.prepare_cached(
                "SELECT digest, size FROM blobs WHERE digest NOT IN (SELECT digest FROM layer_blobs)
                 AND digest NOT IN (SELECT digest FROM pins)",
            )?;
            let rows = s
                .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
                .collect::<Result<Vec<(String, i64)>, _>>()?;
            let mut removed = Vec::new();
            for (digest, size) in rows {
                if Digest::parse(&digest).is_ok_and(|d| self.held().holds(&d)) {
                    continue;
                }
                c.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?
                    .execute([&digest])?;
                removed.push((digest, size));
            }
            Ok(removed)
        })?;
        let mut freed = 0;
        for (digest, size) in removed {
            if let Ok(digest) = Digest::parse(&digest)
                && std::fs::remove_file(self.blob_path(&digest)).is_ok()
            {
                freed += size.unsigned_abs();
            }
        }
        Ok(freed)
    }
}

impl BlobWriter {
    /// Returns how many bytes have been written.
    pub fn written(&self) -> u64 {
        self.size
    }

    /// Finishes the blob under its digest. If the store has the blob already, the new copy is dropped.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<BlobInfo, StoreError> {
        let digest = self.digester.take().unwrap_or_default().finish();
        if let Some(want) = expected
            && *want != digest
        {
            return Err(StoreError::DigestMismatch {
                want: want.clone(),
                got: digest,
            });
        }
        self.commit_as(digest)
    }

    /// Finishes a blob under a digest that the caller has computed or checked.
    pub(crate) fn commit_as(mut self, digest: Digest) -> Result<BlobInfo, StoreError> {
        self.lease.hold(&digest);
        let store = self.store.clone();
        let _gate = store.blob_gate.read();
        if let Some(info) = self.store.blob_info(&digest)? {
            return Ok(info);
        }
        let to = self.store.blob_path(&digest);
        std::fs::rename(&self.path, &to).map_err(|e| StoreError::io("name blob", &to, e))?;
        self.is_committed = true;
        let created = task::clock::wall();
        let size = i64::try_from(self.size).unwrap_or(i64::MAX);
        self.store.write(|c| {
            c.prepare_cached(
                "INSERT OR IGNORE INTO blobs(digest, size, created, synced) VALUES(?1, ?2, ?3, 0)",
            )?
            .execute(params![digest.as_str(), size, to_nanos(created)])?;
            Ok(())
        })?;
        self.store.note_unsynced();
        Ok(BlobInfo {
            digest,
            size: self.size,
            created,
        })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        if let Some(digester) = &mut self.digester {
            digester.update(buf.get(..n).unwrap_or_default());
        }
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.is_committed {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}
