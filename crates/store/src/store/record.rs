//! The record behind the handles: a row of the index in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use oci::Digest;
use parking_lot::Mutex;
use rusqlite::{Connection, params};

use crate::error::StoreError;
use crate::id::RefId;
use crate::kind::{RecordType, RefKind};
use crate::provider::BlobProvider;
use crate::store::Store;
use crate::usage::to_nanos;

/// Providers of a blob that are kept.
const MAX_PROVIDERS: usize = 4;

/// The parents of a record. They never change.
#[derive(Debug)]
pub(crate) enum Shape {
    Layer {
        parent: Option<Arc<Record>>,
    },
    Merge {
        parents: Vec<Arc<Record>>,
    },
    Diff {
        lower: Option<Arc<Record>>,
        upper: Option<Arc<Record>>,
    },
}

impl Shape {
    fn parents(&self) -> impl Iterator<Item = &Arc<Record>> {
        let (some, many, more) = match self {
            Self::Layer { parent } => (parent, &[][..], &None),
            Self::Merge { parents } => (&None, &parents[..], &None),
            Self::Diff { lower, upper } => (lower, &[][..], upper),
        };
        some.iter().chain(many).chain(more)
    }
}

/// The columns of a record's row that can change.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) mutable: bool,
    pub(crate) retain: bool,
    /// Directory of its own files; none while lazy, and for merges.
    pub(crate) snapshot: Option<String>,
    /// For an immutable twin: the mutable that shares the snapshot.
    pub(crate) twin: Option<RefId>,
    pub(crate) record_type: RecordType,
    pub(crate) description: String,
    pub(crate) created: SystemTime,
    /// Bytes on disk; -1 when not known yet.
    pub(crate) size: i64,
    pub(crate) chain_id: Option<Digest>,
    pub(crate) diff_id: Option<Digest>,
    /// Whether the layer is not unpacked: there is only its blob, in the store or at a provider.
    pub(crate) lazy: bool,
    /// Whether the index has a row for it.
    pub(crate) stored: bool,
}

/// A record that a handle or another record holds.
pub(crate) struct Record {
    store: Arc<Store>,
    id: RefId,
    shape: Shape,
    /// Depth of diffs below it whose files did not exist when it was made.
    nesting: usize,
    pub(crate) body: Mutex<Body>,
    /// Providers by blob, the latest last.
    providers: Mutex<HashMap<Digest, Vec<Arc<dyn BlobProvider>>>>,
    /// Held by the one task that makes the record's files; the others wait for the outcome. Held across awaits, hence not a parking_lot lock.
    pub(crate) work: tokio::sync::Mutex<()>,
    /// The same for the record's blobs.
    pub(crate) blob_work: tokio::sync::Mutex<()>,
    /// Whether a handle held it, not only a child: that counts as a use when the record is dropped.
    used: AtomicBool,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Record {
    pub(crate) fn new(store: Arc<Store>, id: RefId, shape: Shape, body: Body) -> Arc<Self> {
        let below = shape.parents().map(|p| match p.body.lock().snapshot {
            Some(_) => 0,
            None => p.nesting,
        });
        let nesting = below.max().unwrap_or(0) + usize::from(matches!(shape, Shape::Diff { .. }));
        Arc::new(Self {
            store,
            id,
            shape,
            nesting,
            body: Mutex::new(body),
            providers: Mutex::default(),
            work: tokio::sync::Mutex::default(),
            blob_work: tokio::sync::Mutex::default(),
            used: AtomicBool::new(false),
        })
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(crate) fn id(&self) -> &RefId {
        &self.id
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn kind(&self) -> RefKind {
        match self.shape {
            Shape::Layer { .. } => RefKind::Layer,
            Shape::Merge { .. } => RefKind::Merge,
            Shape::Diff { .. } => RefKind::Diff,
        }
    }

    /// Depth of diffs, itself included, whose files wait for each other to be made.
    pub(crate) fn nesting(&self) -> usize {
        self.nesting
    }

    /// What it stands on, in order.
    pub(crate) fn parents(&self) -> Vec<&Arc<Self>> {
        self.shape.parents().collect()
    }

    /// Adds a provider of a blob. Several are kept, because one of them may be wrong or gone.
    pub(crate) fn add_provider(&self, digest: &Digest, provider: Arc<dyn BlobProvider>) {
        let mut providers = self.providers.lock();
        let of_blob = providers.entry(digest.clone()).or_default();
        of_blob.retain(|p| !Arc::ptr_eq(p, &provider));
        if of_blob.len() >= MAX_PROVIDERS {
            of_blob.remove(0);
        }
        of_blob.push(provider);
    }

    /// The providers of a blob, the latest first.
    pub(crate) fn providers(&self, digest: &Digest) -> Vec<Arc<dyn BlobProvider>> {
        let providers = self.providers.lock();
        let of_blob = providers.get(digest).into_iter().flatten();
        of_blob.rev().cloned().collect()
    }

    /// Drops the providers of a blob.
    pub(crate) fn drop_providers(&self, digest: &Digest) {
        self.providers.lock().remove(digest);
    }

    pub(crate) fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// The layers its tree is stacked from, base first. A diff that is exactly one layer of its upper is that layer; any other
    /// diff is a layer of its own.
    pub(crate) fn layers(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut out = Vec::new();
        // An explicit stack: chains may be long. Pushed in reverse, so that the base comes out first.
        enum Visit<'a> {
            Visit(&'a Arc<Record>),
            Emit(&'a Arc<Record>),
        }
        let mut todo = vec![Visit::Visit(self)];
        while let Some(next) = todo.pop() {
            match next {
                Visit::Emit(r) => out.push(r.clone()),
                Visit::Visit(r) => match &r.shape {
                    Shape::Layer { parent } => {
                        todo.push(Visit::Emit(r));
                        todo.extend(parent.as_ref().map(Visit::Visit));
                    }
                    Shape::Merge { parents } => todo.extend(parents.iter().rev().map(Visit::Visit)),
                    Shape::Diff { .. } => out.push(r.diff_layer().unwrap_or(r).clone()),
                },
            }
        }
        out
    }

    /// The one layer that a diff amounts to, if it does.
    pub(crate) fn diff_layer(&self) -> Option<&Arc<Self>> {
        let Shape::Diff {
            lower,
            upper: Some(upper),
        } = &self.shape
        else {
            return None;
        };
        let Shape::Layer { parent } = &upper.shape else {
            return None;
        };
        let same = match (lower, parent) {
            (None, None) => true,
            (Some(lower), Some(parent)) => lower.id == parent.id,
            _ => false,
        };
        same.then_some(upper)
    }

    /// Writes the row and those of its parents' edges.
    pub(crate) fn insert(&self, c: &Connection, body: &Body) -> Result<(), StoreError> {
        let mut s = c.prepare_cached(
            "INSERT INTO refs(id, kind, mutable, retain, snapshot, twin, record_type, description, created, used, uses, size,
                              chain_id, diff_id, lazy, synced)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL, 0, ?10, ?11, ?12, ?13, 0)",
        )?;
        let kind = match self.kind() {
            RefKind::Layer => 0,
            RefKind::Merge => 1,
            RefKind::Diff => 2,
        };
        s.execute(params![
            self.id.as_str(),
            kind,
            body.mutable,
            body.retain,
            body.snapshot,
            body.twin.as_ref().map(RefId::as_str),
            body.record_type.as_str(),
            body.description,
            to_nanos(body.created),
            body.size,
            body.chain_id.as_ref().map(Digest::as_str),
            body.diff_id.as_ref().map(Digest::as_str),
            body.lazy,
        ])?;
        let mut s =
            c.prepare_cached("INSERT INTO parents(child, position, parent) VALUES(?1, ?2, ?3)")?;
        match &self.shape {
            Shape::Diff { lower, upper } => {
                for (position, parent) in (0_i64..).zip([lower, upper]) {
                    if let Some(parent) = parent {
                        s.execute(params![self.id.as_str(), position, parent.id.as_str()])?;
                    }
                }
            }
            Shape::Layer { .. } | Shape::Merge { .. } => {
                for (position, parent) in (0_i64..).zip(self.parents()) {
                    s.execute(params![self.id.as_str(), position, parent.id.as_str()])?;
                }
            }
        }
        Ok(())
    }
}

impl Shape {
    fn into_parents(self) -> impl Iterator<Item = Arc<Record>> {
        let (first, second, rest) = match self {
            Self::Layer { parent } => (parent, None, Vec::new()),
            Self::Merge { parents } => (None, None, parents),
            Self::Diff { lower, upper } => (lower, upper, Vec::new()),
        };
        first.into_iter().chain(second).chain(rest)
    }
}

/// Drops the parents of a record in a loop: chains may be long, and each would drop the next recursively.
fn drop_parents(shape: &mut Shape) {
    let old_shape = std::mem::replace(shape, Shape::Layer { parent: None });
    let mut todo: Vec<Arc<Record>> = old_shape.into_parents().collect();
    while let Some(parent) = todo.pop() {
        if let Some(mut last) = Arc::into_inner(parent) {
            let old_shape = std::mem::replace(&mut last.shape, Shape::Layer { parent: None });
            todo.extend(old_shape.into_parents());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        drop_parents(&mut self.shape);
        let body = self.body.get_mut();
        if !body.stored {
            // A step's mutable that was never committed.
            if let Some(snapshot) = body.snapshot.take() {
                self.store.drop_snapshots(&[snapshot]);
            }
            return;
        }
        if *self.used.get_mut() {
            let id = self.id.as_str();
            let now = to_nanos(task::clock::wall());
            let queued = self.store.later(|c| {
                c.prepare_cached("UPDATE refs SET used = ?2, uses = uses + 1 WHERE id = ?1")?
                    .execute(params![id, now])?;
                Ok(())
            });
            if let Err(e) = queued {
                tracing::debug!(id = %self.id, error = %e, "use not counted");
            }
        }
    }
}
