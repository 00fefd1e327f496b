//! Stacking, merging and diffing.
//!
//! A layer's directory says what it changes over *its own* parents. Stacked on others, as a merge does, only one thing in it
//! would mean more than it should: an opaque directory hides everything below, also what its own parents never had. For such
//! layers a *patch* is made once: the same files under second names, with a whiteout for each thing that was really deleted.
//! What a merge or a diff shows is thereby what its layers would show when exported as blobs and unpacked one after another.

use std::collections::HashSet;
use std::sync::Arc;

use fstree::Root;
use rusqlite::params;

use crate::error::StoreError;
use crate::id::RefId;
use crate::patch::{says_more, write_changes};
use crate::refs::{ImmutableRef, RefOptions};
use crate::store::Store;
use crate::store::record::{Body, Record, Shape};
use crate::tar_layer::TarWriter;

/// Metadata key under which a layer names its patch; empty if it needs none.
pub(crate) const PATCH_KEY: &str = "store.patch";

/// Layers that one merge may stack. Overlayfs shows 500; this only keeps merges of merges from doubling without end.
const MAX_MERGED: usize = 2_000;

/// Diffs that may stand on each other. The files of each are made while those above wait for them.
const MAX_NESTED: usize = 64;

/// A new snapshot that is deleted on drop unless it is kept.
#[derive(Debug)]
pub(crate) struct Draft {
    store: Arc<Store>,
    id: Option<String>,
}

impl Draft {
    pub(crate) fn new(store: &Arc<Store>) -> Result<Self, StoreError> {
        let id = RefId::random().to_string();
        store.snapshots().create(&id)?;
        Ok(Self {
            store: store.clone(),
            id: Some(id),
        })
    }

    /// The same for a layer that is kept as its tar.
    pub(crate) fn of_tar(store: &Arc<Store>) -> Result<(Self, TarWriter), StoreError> {
        let id = RefId::random().to_string();
        let writer = store.snapshots().create_tar_layer(&id)?;
        let draft = Self {
            store: store.clone(),
            id: Some(id),
        };
        Ok((draft, writer))
    }

    pub(crate) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    pub(crate) fn root(&self) -> Result<Root, StoreError> {
        let fd = self.store.snapshots().upper(self.id())?;
        Root::from_fd(fd).map_err(|e| StoreError::layer("open", self.id(), e))
    }

    pub(crate) fn keep(mut self) -> String {
        let id = self.id.take().unwrap_or_default();
        self.store.snapshots().drop_work(&id);
        id
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.store.drop_snapshots(&[id]);
        }
    }
}

/// For each layer of a stack, whether it lies on exactly the layers that it was made on.
fn on_own_parents(layers: &[Arc<Record>]) -> Vec<bool> {
    let mut on_own = Vec::with_capacity(layers.len());
    for (at, layer) in layers.iter().enumerate() {
        on_own.push(match layer.shape() {
            Shape::Layer { parent: None } => at == 0,
            Shape::Layer {
                parent: Some(parent),
            } => {
                let on_last = at > 0
                    && on_own.get(at - 1) == Some(&true)
                    && layers.get(at - 1).map(|l| l.id()) == Some(parent.id());
                on_last || {
                    let own = parent.layers();
                    own.len() == at && own.iter().zip(layers).all(|(a, b)| a.id() == b.id())
                }
            }
            // Made of explicit changes, which mean the same everywhere.
            Shape::Merge { .. } | Shape::Diff { .. } => true,
        });
    }
    on_own
}

impl Record {
    fn unfit(&self, why: &'static str) -> StoreError {
        StoreError::Unfit {
            id: self.id().clone(),
            why,
        }
    }

    /// The snapshots its tree is stacked from, base first.
    pub(crate) fn stack(self: &Arc<Self>) -> Result<Vec<String>, StoreError> {
        Ok(self.stack_and_plain()?.0)
    }

    /// As [`Self::stack`], and whether a single one may be shown as it lies.
    pub(crate) fn stack_and_plain(self: &Arc<Self>) -> Result<(Vec<String>, bool), StoreError> {
        let layers = self.layers();
        let home = on_own_parents(&layers);
        let mut stack = Vec::with_capacity(layers.len());
        let mut plain = true;
        for (layer, home) in layers.iter().zip(home) {
            let (own, foreign) = {
                let body = layer.body.lock();
                (body.snapshot.clone(), body.chain_id.is_some())
            };
            let own = own.ok_or_else(|| layer.unfit("is not unpacked"))?;
            // A layer from elsewhere may delete what is not there: a diff that was exported does.
            plain &= home && !foreign && matches!(layer.shape(), Shape::Layer { parent: None });
            stack.push(if home {
                own
            } else {
                match self.store().meta(layer.id(), PATCH_KEY)? {
                    Some(patch) if patch.is_empty() => own,
                    // The dropped error says only where the bytes are wrong.
                    Some(patch) => {
                        String::from_utf8(patch).map_err(|_| layer.unfit("has a damaged patch"))?
                    }
                    None => return Err(layer.unfit("is not prepared for a merge")),
                }
            });
        }
        // Overlay takes no directory twice. If a layer is stacked twice, the upper one alone has the same effect.
        let mut snapshots = HashSet::new();
        stack.reverse();
        stack.retain(|snapshot| snapshots.insert(snapshot.clone()));
        stack.reverse();
        Ok((stack, plain))
    }

    /// The layers of its stack that still need a patch.
    pub(crate) fn unpatched(self: &Arc<Self>) -> Result<Vec<Arc<Self>>, StoreError> {
        let layers = self.layers();
        let home = on_own_parents(&layers);
        let mut out = Vec::new();
        for (layer, home) in layers.into_iter().zip(home) {
            if !home && self.store().meta(layer.id(), PATCH_KEY)?.is_none() {
                out.push(layer);
            }
        }
        Ok(out)
    }

    fn view(self: &Arc<Self>) -> Result<Root, StoreError> {
        let (stack, plain) = self.stack_and_plain()?;
        let mount = self.store().snapshots().view(&stack, plain)?;
        Root::from_fd(mount.into()).map_err(|e| StoreError::layer("open", self.id().as_str(), e))
    }

    /// The tree below this layer, to find out what the layer changes.
    pub(crate) fn lower_view(&self) -> Result<Option<Root>, StoreError> {
        let lower = match self.shape() {
            Shape::Layer { parent } => parent.as_ref(),
            Shape::Diff { lower, .. } => lower.as_ref(),
            Shape::Merge { .. } => None,
        };
        lower.map(Self::view).transpose()
    }

    /// Makes the patch of this layer, whose own parents are unpacked. Blocks.
    pub(crate) fn make_patch(self: &Arc<Self>) -> Result<(), StoreError> {
        let store = self.store();
        let own = self
            .body
            .lock()
            .snapshot
            .clone()
            .ok_or_else(|| self.unfit("is not unpacked"))?;
        let fail = |e| StoreError::layer("prepare for a merge", self.id().as_str(), e);
        let upper = Root::from_fd(store.snapshots().upper(&own)?).map_err(fail)?;
        let changes = fstree::diff::overlay_changes(&upper, self.lower_view()?.as_ref())
            .map_err(|e| StoreError::layer("diff", self.id().as_str(), e))?;
        let patch = if says_more(&upper, &changes)
            .map_err(|e| StoreError::io("read", store.snapshots().upper_path(&own), e))?
        {
            let draft = Draft::new(store)?;
            write_changes(&upper, &changes, &draft.root()?, true).map_err(fail)?;
            draft.keep()
        } else {
            String::new()
        };
        store.write(|c| {
            let mut s = c.prepare_cached(
                "INSERT OR REPLACE INTO meta(ref, key, value) VALUES(?1, ?2, ?3)",
            )?;
            s.execute(params![self.id().as_str(), PATCH_KEY, patch.as_bytes()])?;
            Ok(())
        })
    }

    /// Makes the files of a diff that is a layer of its own; both sides are unpacked. Blocks.
    pub(crate) fn make_diff(self: &Arc<Self>) -> Result<(), StoreError> {
        let Shape::Diff { lower, upper } = self.shape() else {
            return Ok(());
        };
        let store = self.store();
        let draft = Draft::new(store)?;
        let lower = lower.as_ref().map(Self::view).transpose()?;
        let upper = match upper {
            Some(upper) => upper.view()?,
            None => {
                let mount = store.snapshots().view(&[], true)?;
                Root::from_fd(mount.into())
                    .map_err(|e| StoreError::layer("open", self.id().as_str(), e))?
            }
        };
        let changes = fstree::diff::tree_changes(lower.as_ref(), &upper)
            .map_err(|e| StoreError::layer("diff", self.id().as_str(), e))?;
        write_changes(&upper, &changes, &draft.root()?, false)
            .map_err(|e| StoreError::layer("diff", self.id().as_str(), e))?;
        let snapshot = draft.keep();
        let committed = store.write(|c| {
            let mut s = c.prepare_cached(
                "UPDATE refs SET snapshot = ?2, synced = 0, size = -1 WHERE id = ?1",
            )?;
            s.execute(params![self.id().as_str(), snapshot])?;
            Ok(())
        });
        if committed.is_err() {
            store.drop_snapshots(&[snapshot]);
            return committed;
        }
        self.body.lock().snapshot = Some(snapshot);
        store.note_unsynced();
        Ok(())
    }
}

impl Store {
    fn composed(
        self: &Arc<Self>,
        shape: Shape,
        options: RefOptions,
    ) -> Result<ImmutableRef, StoreError> {
        let body = Body {
            mutable: false,
            retain: true,
            snapshot: None,
            twin: None,
            record_type: options.record_type,
            description: options.description,
            created: options.created.unwrap_or_else(task::clock::wall),
            size: -1,
            chain_id: None,
            diff_id: None,
            lazy: false,
            stored: true,
        };
        let record = Record::new(self.clone(), RefId::random(), shape, body.clone());
        if record.nesting() > MAX_NESTED {
            return Err(StoreError::Unfit {
                id: record.id().clone(),
                why: "a diff of more than 64 diffs one inside the other is not supported: compute it in fewer steps",
            });
        }
        for parent in record.parents() {
            self.settle(parent)?;
        }
        self.later(|c| record.insert(c, &body))?;
        self.live().lock().put(&record);
        Ok(ImmutableRef::new(record))
    }

    /// Stacks records; later ones win, and their deletions apply to earlier ones. A merge of nothing is the empty tree, `None`;
    /// a merge of one record is that record.
    pub fn merge(
        self: &Arc<Self>,
        parents: &[ImmutableRef],
        options: RefOptions,
    ) -> Result<Option<ImmutableRef>, StoreError> {
        if let [single] = parents {
            return Ok(Some(single.clone()));
        }
        let mut flat = Vec::new();
        for parent in parents {
            match parent.record().shape() {
                Shape::Merge { parents } => flat.extend(parents.iter().cloned()),
                Shape::Layer { .. } | Shape::Diff { .. } => flat.push(parent.record().clone()),
            }
        }
        if flat.is_empty() {
            return Ok(None);
        }
        if flat.len() > MAX_MERGED {
            // Merges of merges double with every level.
            return Err(StoreError::Unfit {
                id: parents[0].id().clone(),
                why: "a merge of more than 2,000 layers is not supported: merge fewer",
            });
        }
        self.composed(Shape::Merge { parents: flat }, options)
            .map(Some)
    }

    /// What `upper` changes over `lower`; `None` stands for the empty tree.
    ///
    /// Where lower is what upper was built on, the result is the layers in between, so that their blobs are used again.
    pub fn diff(
        self: &Arc<Self>,
        lower: Option<&ImmutableRef>,
        upper: Option<&ImmutableRef>,
        options: RefOptions,
    ) -> Result<Option<ImmutableRef>, StoreError> {
        let (lower, upper) = match (lower, upper) {
            (None, None) => return Ok(None),
            (None, Some(upper)) => return Ok(Some(upper.clone())),
            (Some(lower), upper) => (lower, upper),
        };
        if let Some(upper) = upper {
            let below = lower.record().layers();
            let above = upper.record().layers();
            let ancestor = above.len() > below.len() + 1
                && below.iter().zip(&above).all(|(a, b)| a.id() == b.id());
            if ancestor {
                let mut parts = Vec::new();
                for layer in above.into_iter().skip(below.len()) {
                    parts.push(match layer.shape() {
                        Shape::Layer {
                            parent: Some(parent),
                        } => {
                            let description = format!(
                                "diff {:?} -> {:?}",
                                parent.id().as_str(),
                                layer.id().as_str()
                            );
                            let shape = Shape::Diff {
                                lower: Some(parent.clone()),
                                upper: Some(layer.clone()),
                            };
                            self.composed(
                                shape,
                                RefOptions {
                                    description,
                                    ..RefOptions::default()
                                },
                            )?
                        }
                        Shape::Layer { parent: None }
                        | Shape::Merge { .. }
                        | Shape::Diff { .. } => ImmutableRef::new(layer),
                    });
                }
                return self.merge(&parts, options);
            }
        }
        let shape = Shape::Diff {
            lower: Some(lower.record().clone()),
            upper: upper.map(|u| u.record().clone()),
        };
        self.composed(shape, options).map(Some)
    }
}
