//! The file op: a chain of copies, folders, files, links and removals.
//!
//! Actions see their inputs by one numbering: the op's inputs first, then the actions' results. A result that only the
//! next action reads is not committed in between; that action continues to write the same mutable ref.

pub mod key;
mod owner;

use std::sync::Arc;

use async_trait::async_trait;
use fstree::Root;
use fstree::action::{
    self, ActionError, Archives, DestParents, DirCopy, Existing, Missing, SourceLink, Wildcards,
};
use llb::pb;
use pb::file_action::Action;
use solver::{CacheMap, Op, OpCtx, OpError};
use store::{MutableRef, RefOptions, Store};

use crate::{BuildDomain, BuildOp, OpFailure, Parts, Ref};

/// Performs the actions of one `FileOp`.
#[derive(Debug)]
pub struct FileOp {
    parts: Arc<Parts>,
    op: Arc<pb::FileOp>,
    inputs: usize,
    name: String,
}

impl FileOp {
    /// Creates the op of a vertex with this name and this number of inputs.
    pub fn new(parts: Arc<Parts>, op: pb::FileOp, inputs: usize, name: &str) -> Self {
        Self {
            parts,
            op: Arc::new(op),
            inputs,
            name: name.into(),
        }
    }
}

impl BuildOp for FileOp {}

#[async_trait]
impl Op<BuildDomain> for FileOp {
    async fn cache_map(
        &self,
        _ctx: &OpCtx<BuildDomain>,
        _index: usize,
    ) -> Result<(CacheMap<BuildDomain>, bool), OpError> {
        Ok((key::plan(&self.op, self.inputs)?.into_cache_map(true), true))
    }

    async fn exec(&self, _ctx: &OpCtx<BuildDomain>, inputs: Vec<Ref>) -> Result<Vec<Ref>, OpError> {
        let _permit = self.parts.permit().await;
        for input in inputs.iter().flatten() {
            input.ensure().await.map_err(OpFailure::from)?;
        }
        let store = Arc::clone(&self.parts.store);
        let op = Arc::clone(&self.op);
        let name = self.name.clone();
        let outputs = task::blocking("file op", move || {
            Run::new(&store, &op, inputs, &name)?.outputs()
        })
        .await?;
        Ok(outputs)
    }
}

/// The state of one index: an input, or the output of an action.
#[derive(Debug)]
enum Slot {
    /// Not computed yet.
    Pending,
    /// In progress; reaching it again is a loop.
    Busy,
    /// An immutable ref; `None` for scratch.
    Committed(Ref),
    /// A mutable ref that the one reading action continues to write.
    Open(MutableRef),
}

/// A task of computing an output.
#[derive(Debug, Clone, Copy)]
enum Todo {
    /// Computes the result at this index.
    Need(usize),
    /// Performs the action at this index, whose inputs are computed.
    Act(usize),
}

struct Run<'a> {
    store: &'a Arc<Store>,
    op: &'a pb::FileOp,
    name: &'a str,
    inputs: usize,
    slots: Vec<Slot>,
    /// Indexes whose result must be committed: outputs, and inputs of more than one action.
    commit: Vec<bool>,
    outputs: Vec<usize>,
}

impl<'a> Run<'a> {
    fn new(
        store: &'a Arc<Store>,
        op: &'a pb::FileOp,
        refs: Vec<Ref>,
        name: &'a str,
    ) -> Result<Self, OpFailure> {
        let inputs = refs.len();
        let total = inputs + op.actions.len();
        let mut reads = vec![0_u32; total];
        let mut commit = vec![false; total];
        let mut outputs = std::collections::BTreeMap::new();
        for (position, action) in op.actions.iter().enumerate() {
            for index in [action.input, action.secondary_input] {
                if index < -1 || usize::try_from(index).is_ok_and(|i| i >= total) {
                    return Err(OpFailure::InvalidInput {
                        index,
                        inputs: total,
                    });
                }
                if let Some(count) = usize::try_from(index).ok().and_then(|i| reads.get_mut(i)) {
                    *count += 1;
                }
            }
            if let Ok(output) = usize::try_from(action.output) {
                if outputs.insert(output, inputs + position).is_some() {
                    return Err(OpFailure::DuplicateOutput(output));
                }
                if let Some(flag) = commit.get_mut(inputs + position) {
                    *flag = true;
                }
            }
        }
        for (flag, count) in commit.iter_mut().zip(&reads) {
            *flag |= *count > 1;
        }
        if outputs.is_empty() {
            return Err(OpFailure::NoOutputs);
        }
        for (expected, output) in outputs.keys().enumerate() {
            if expected != *output {
                return Err(OpFailure::MissingOutput(expected));
            }
        }
        let slots = refs
            .into_iter()
            .map(Slot::Committed)
            .chain(op.actions.iter().map(|_| Slot::Pending))
            .collect();
        Ok(Self {
            store,
            op,
            name,
            inputs,
            slots,
            commit,
            outputs: outputs.into_values().collect(),
        })
    }

    fn options(&self) -> RefOptions {
        RefOptions {
            description: self.name.to_owned(),
            ..RefOptions::default()
        }
    }

    fn outputs(mut self) -> Result<Vec<Ref>, OpFailure> {
        let outputs = std::mem::take(&mut self.outputs);
        let mut results = Vec::with_capacity(outputs.len());
        for index in outputs {
            self.compute(index)?;
            match self.slots.get(index) {
                Some(Slot::Committed(reference)) => results.push(reference.clone()),
                _ => return Err(OpFailure::MissingOutput(index)),
            }
        }
        Ok(results)
    }

    /// Computes the slot at `index`. Chains are as long as definitions, so it has a stack of its own.
    fn compute(&mut self, index: usize) -> Result<(), OpFailure> {
        let mut todo = vec![Todo::Need(index)];
        while let Some(next) = todo.pop() {
            let index = match next {
                Todo::Act(index) => {
                    self.act(index)?;
                    continue;
                }
                Todo::Need(index) => index,
            };
            match self.slots.get(index) {
                Some(Slot::Committed(_) | Slot::Open(_)) => continue,
                Some(Slot::Busy) => return Err(OpFailure::Loop(index)),
                Some(Slot::Pending) => {}
                None => {
                    return Err(OpFailure::InvalidInput {
                        index: i64::try_from(index).unwrap_or(i64::MAX),
                        inputs: self.slots.len(),
                    });
                }
            }
            self.set(index, Slot::Busy);
            todo.push(Todo::Act(index));
            let action = self.action(index)?;
            let first = todo.len();
            let read = [action.input, action.secondary_input];
            todo.extend(
                read.iter()
                    .filter_map(|i| usize::try_from(*i).ok())
                    .map(Todo::Need),
            );
            for user in owners(action).into_iter().flatten() {
                if let Some(pb::user_opt::User::ByName(user)) = &user.user {
                    // The conversion fails for negative indexes only.
                    let needed = usize::try_from(user.input)
                        .map_err(|_| OpFailure::InvalidUserIndex(user.input))?;
                    todo.push(Todo::Need(needed));
                }
            }
            // The last task is done first, so the first input is pushed last.
            if let Some(needed) = todo.get_mut(first..) {
                needed.reverse();
            }
        }
        Ok(())
    }

    fn action(&self, index: usize) -> Result<&'a pb::FileAction, OpFailure> {
        let op = self.op;
        let action = index
            .checked_sub(self.inputs)
            .and_then(|i| op.actions.get(i));
        action.ok_or(OpFailure::NoAction)
    }

    /// Performs an action whose inputs are computed.
    fn act(&mut self, index: usize) -> Result<(), OpFailure> {
        let action = self.action(index)?;
        let target = self.target(action)?;
        let result = target
            .root()
            .map_err(OpFailure::from)
            .and_then(|root| self.perform(&root, action));
        if let Err(error) = result {
            return Err(self.failed(index - self.inputs, action.secondary_input, target, error));
        }
        let slot = if self.commit.get(index).copied().unwrap_or(true) {
            Slot::Committed(Some(target.commit()?))
        } else {
            Slot::Open(target)
        };
        self.set(index, slot);
        Ok(())
    }

    /// The failure of an action with refs that clients can look at: the op's inputs, and a ref
    /// for each action, set only for those that the failed one used.
    fn failed(
        &mut self,
        at: usize,
        secondary: i64,
        target: MutableRef,
        error: OpFailure,
    ) -> OpFailure {
        let mut mounts: Vec<Ref> = vec![None; self.op.actions.len()];
        if let Some(place) = mounts.get_mut(at) {
            *place = target.commit().ok();
        }
        if let Ok(index) = usize::try_from(secondary)
            && let Some(place) = index
                .checked_sub(self.inputs)
                .and_then(|i| mounts.get_mut(i))
            && let Some(slot) = self.slots.get_mut(index)
        {
            *place = match std::mem::replace(slot, Slot::Busy) {
                Slot::Committed(reference) => reference,
                Slot::Open(open) => open.commit().ok(),
                Slot::Pending | Slot::Busy => None,
            };
        }
        let inputs = self.slots.iter().take(self.inputs).map(|slot| match slot {
            Slot::Committed(reference) => reference.clone(),
            Slot::Open(_) | Slot::Pending | Slot::Busy => None,
        });
        OpFailure::Exec {
            inputs: inputs.collect(),
            mounts,
            source: Box::new(OpFailure::Action {
                index: at,
                source: Box::new(error),
            }),
        }
    }

    fn set(&mut self, index: usize, slot: Slot) {
        if let Some(place) = self.slots.get_mut(index) {
            *place = slot;
        }
    }

    /// Returns the ref that the action writes: the open one of the action before, or a new one over the input.
    fn target(&mut self, action: &pb::FileAction) -> Result<MutableRef, OpFailure> {
        let mut parent = None;
        if let Ok(index) = usize::try_from(action.input) {
            match self.slots.get_mut(index) {
                Some(slot @ Slot::Open(_)) => {
                    if let Slot::Open(open) = std::mem::replace(slot, Slot::Busy) {
                        return Ok(open);
                    }
                }
                Some(Slot::Committed(reference)) => parent = reference.clone(),
                Some(Slot::Pending | Slot::Busy) | None => return Err(OpFailure::Loop(index)),
            }
        }
        Ok(self.store.new_mutable(parent.as_ref(), self.options())?)
    }

    /// Opens the ref at an index for reading; none for scratch.
    fn read(&self, index: i64) -> Result<Option<Root>, OpFailure> {
        let Ok(index) = usize::try_from(index) else {
            return Ok(None);
        };
        match self.slots.get(index) {
            Some(Slot::Committed(Some(reference))) => Ok(Some(reference.root()?)),
            Some(Slot::Committed(None)) => Ok(None),
            Some(Slot::Open(open)) => Ok(Some(open.root()?)),
            Some(Slot::Pending | Slot::Busy) | None => Err(OpFailure::Loop(index)),
        }
    }

    fn perform(&self, root: &Root, action: &pb::FileAction) -> Result<(), OpFailure> {
        let owner = |owner: Option<&pb::ChownOpt>| owner::resolve(owner, |index| self.read(index));
        match action.action.as_ref().ok_or(OpFailure::NoAction)? {
            Action::Mkdir(a) => action::mkdir(
                root,
                &action::Mkdir {
                    path: a.path.clone(),
                    mode: mode_bits(a.mode),
                    make_parents: a.make_parents,
                    owner: owner(a.owner.as_ref())?,
                    timestamp: timestamp(a.timestamp),
                },
            )?,
            Action::Mkfile(a) => action::mkfile(
                root,
                &action::Mkfile {
                    path: a.path.clone(),
                    mode: mode_bits(a.mode),
                    data: a.data.clone(),
                    owner: owner(a.owner.as_ref())?,
                    timestamp: timestamp(a.timestamp),
                },
            )?,
            Action::Symlink(a) => action::symlink(
                root,
                &action::Symlink {
                    oldpath: a.oldpath.clone(),
                    newpath: a.newpath.clone(),
                    owner: owner(a.owner.as_ref())?,
                    timestamp: timestamp(a.timestamp),
                },
            )?,
            Action::Rm(a) => action::remove(
                root,
                &action::Remove {
                    path: a.path.clone(),
                    missing: missing(a.allow_not_found),
                    wildcards: wildcards(a.allow_wildcard),
                },
            )?,
            Action::Copy(a) => {
                let empty;
                let source = match self.read(action.secondary_input)? {
                    Some(source) => source,
                    None => {
                        empty = self.store.new_mutable(None, self.options())?;
                        empty.root()?
                    }
                };
                action::copy(
                    &source,
                    root,
                    &action::Copy {
                        src: a.src.clone(),
                        dest: a.dest.clone(),
                        owner: owner(a.owner.as_ref())?,
                        mode: u32::try_from(a.mode).ok(),
                        mode_str: a.mode_str.clone(),
                        link: if a.follow_symlink {
                            SourceLink::Follow
                        } else {
                            SourceLink::Copy
                        },
                        dir: if a.dir_copy_contents {
                            DirCopy::Contents
                        } else {
                            DirCopy::Itself
                        },
                        archives: if a.attempt_unpack_docker_compatibility {
                            Archives::Unpack
                        } else {
                            Archives::Copy
                        },
                        parents: if a.create_dest_path {
                            DestParents::Create
                        } else {
                            DestParents::Require
                        },
                        wildcards: wildcards(a.allow_wildcard),
                        missing: missing(a.allow_empty_wildcard),
                        timestamp: timestamp(a.timestamp),
                        include: a.include_patterns.clone(),
                        exclude: a.exclude_patterns.clone(),
                        existing: if a.always_replace_existing_dest_paths {
                            Existing::Replace
                        } else {
                            Existing::Merge
                        },
                    },
                    Some(&layer::unpack::ArchiveUnpacker),
                )?;
            }
        }
        Ok(())
    }
}

fn owners(action: &pb::FileAction) -> [Option<&pb::UserOpt>; 2] {
    let owner = match action.action.as_ref() {
        Some(Action::Mkdir(a)) => a.owner.as_ref(),
        Some(Action::Mkfile(a)) => a.owner.as_ref(),
        Some(Action::Symlink(a)) => a.owner.as_ref(),
        Some(Action::Copy(a)) => a.owner.as_ref(),
        Some(Action::Rm(_)) | None => None,
    };
    owner.map_or([None, None], |o| [o.user.as_ref(), o.group.as_ref()])
}

fn mode_bits(mode: i32) -> u32 {
    u32::try_from(mode & 0o777).unwrap_or(0)
}

fn timestamp(nanoseconds: i64) -> Option<i64> {
    (nanoseconds != -1).then_some(nanoseconds)
}

impl From<ActionError> for OpFailure {
    fn from(source: ActionError) -> Self {
        Self::File(Box::new(source))
    }
}

fn wildcards(allowed: bool) -> Wildcards {
    if allowed {
        Wildcards::Match
    } else {
        Wildcards::Literal
    }
}

fn missing(allowed: bool) -> Missing {
    if allowed {
        Missing::Allow
    } else {
        Missing::Refuse
    }
}

#[cfg(test)]
mod tests;
