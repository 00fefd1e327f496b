//! The state directory: records, snapshots and blobs, what protects them, and how they are pruned.
//!
//! ```text
//! <root>/
//!   format.json              version of this layout, checked at open
//!   lock                     held by the one process that has the directory open
//!   index.db (-wal, -shm)    SQLite: refs, parents, blobs, metadata, cache keys, history
//!   blobs/sha256/<hex>       content, named by digest
//!   ingest/                  blobs being written; emptied at open
//!   snapshots/<id>/fs        what one layer adds (an overlay upper: whiteouts, opaque marks)
//!   snapshots/<id>/tar       or: the layer's uncompressed tar,
//!   snapshots/<id>/index     and an index through which the kernel mounts it; see `tar_layer`
//!   snapshots/<id>/work      overlay's scratch space while the layer is mutable
//!   snapshots/<id>/tree      with the snapshotter native: the whole tree while the layer is mutable
//!   snapshots/<id>/view-…    and whole trees to read; see `native`
//!   native-trees             there are such trees
//!   trash/                   directories on their way out; emptied in the background
//!   empty/                   the empty tree, root of scratch views
//!   git/                     where git sees repositories while it works, and unpacks bundles
//! ```
//!
//! All of it is closed to other users of the host, also where it was open before: it holds what steps were given.
//!
//! # What is durable, and when
//!
//! The index is SQLite in WAL mode with `synchronous=NORMAL`. A process that dies (`kill -9`) loses nothing that was
//! committed: rows are in the page cache as much as the files are. Cache keys, usage counters and other rows whose loss costs
//! only a cache miss are written lazily into an open transaction, which the next commit or a 20 ms timer completes.
//!
//! A machine that dies is another matter, and nobody wants an fsync per build step. So every row that vouches for files
//! (refs with a snapshot, blobs) is born with `synced = 0`. A background thread, some seconds after the first such row, calls
//! `syncfs` on the state directory and only then sets `synced = 1` on the rows that were committed before the call. At open the
//! kernel's boot id is compared with the one of the last owner: if it is the same, all rows are good; if the machine has been
//! restarted in between, rows that were never synced are dropped with everything built on them. Closing in order syncs.
//! So a power cut loses at most the work of the last seconds, and never lets a torn layer pass for a good one.
//!
//! # What protects what
//!
//! A live handle ([`ImmutableRef`], [`MutableRef`], [`Lease`]) protects its record and, through parents, all it stands on.
//! A record protects its snapshot and the blobs made from it. What no record, pin or lease names may be pruned.
//!
//! Lock order: `live` (table of live records), then the database writer. Records are never dropped under `live`.

mod blob;
mod budget;
mod chain;
mod cover;
mod damage;
mod db;
mod error;
mod filter;
mod format;
mod fsck;
mod gc;
mod hash;
mod history;
mod id;
mod key_rows;
mod keys;
mod kind;
mod lease;
mod lifecycle;
mod mapped;
mod meta;
mod native;
mod patch;
mod policy;
mod provider;
mod recover;
mod refs;
mod room;
mod snapshot;
mod space;
mod store;
mod tar_layer;
mod trash;
mod tree_hashes;
mod usage;

pub use blob::{BlobInfo, BlobWriter};
pub use chain::{
    AttributeError, CompressionAttributes, CompressionKind, CompressionSpec, LayerBlob,
};
pub use error::{OpenError, StoreError};
pub use filter::{FilterError, FilterProblem, Filters};
pub use fsck::{Finding, FsckReport, fsck};
pub use history::HistoryRecord;
pub use id::{InvalidRefId, RefId};
pub use keys::StoreResult;
pub use kind::{RecordType, RefKind};
pub use lease::Lease;
pub use lifecycle::Config;
pub use policy::{DiskSpace, DiskStat, GcPolicy, PruneOptions};
pub use provider::{BlobProvider, BlobSink, FetchError, Shown};
pub use refs::{HashOptions, ImmutableRef, LayerDesc, MutableRef, RefOptions};
pub use snapshot::{DriverKind, MountFd};
pub use store::Store;
pub use tar_layer::LayerForm;
pub use usage::UsageRecord;
