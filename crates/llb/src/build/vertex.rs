//! Vertices under construction, their outputs, and what is known about them besides their op.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use oci::{Digest, Platform};

use super::encoded::EncodedOp;
use super::exec::ExecOp;
use super::file::FileOp;
use super::merge::{DiffOp, MergeOp};
use super::source::SourceOp;
use super::state::State;
use crate::pb;

/// A vertex not yet marshalled.
#[derive(Debug)]
pub struct Vertex {
    pub(crate) kind: Kind,
    pub(crate) constraints: Constraints,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Source(SourceOp),
    Exec(Box<ExecOp>),
    File(FileOp),
    Merge(MergeOp),
    Diff(DiffOp),
    Encoded(EncodedOp),
}

impl Vertex {
    pub(crate) fn new(kind: Kind, constraints: Constraints) -> Arc<Self> {
        Arc::new(Self { kind, constraints })
    }

    /// Inputs in the order in which a definition lists their ops.
    pub(crate) fn inputs(&self) -> Vec<&Output> {
        match &self.kind {
            Kind::Source(_) => Vec::new(),
            Kind::Exec(op) => op.inputs(),
            Kind::File(op) => op.inputs(),
            Kind::Merge(op) => op.inputs.iter().collect(),
            Kind::Diff(op) => op.lower.iter().chain(&op.upper).collect(),
            Kind::Encoded(op) => op.inputs.iter().collect(),
        }
    }

    fn take_outputs(&mut self) -> Vec<Output> {
        match &mut self.kind {
            Kind::Source(_) => Vec::new(),
            Kind::Exec(op) => op.take_outputs(),
            Kind::File(op) => op.take_outputs(),
            Kind::Merge(op) => std::mem::take(&mut op.inputs),
            Kind::Diff(op) => op.lower.take().into_iter().chain(op.upper.take()).collect(),
            Kind::Encoded(op) => std::mem::take(&mut op.inputs),
        }
    }
}

impl Drop for Vertex {
    // A chain of vertices is as long as the Dockerfile that made it: take it apart without recursion.
    fn drop(&mut self) {
        let mut pending = self.take_outputs();
        while let Some(output) = pending.pop() {
            if let Inner::Vertex { vertex, .. } = output.0
                && let Some(mut vertex) = Arc::into_inner(vertex)
            {
                pending.append(&mut vertex.take_outputs());
            }
        }
    }
}

/// One output of a vertex.
#[derive(Clone, Debug)]
pub struct Output(pub(crate) Inner);

#[derive(Clone, Debug)]
pub(crate) enum Inner {
    Vertex {
        vertex: Arc<Vertex>,
        index: Index,
        platform: Option<Platform>,
    },
    Late(Late),
}

/// Which output, or why there is none to build on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    At(i64),
    Unusable(Arc<str>),
}

impl Output {
    pub(crate) fn new(vertex: Arc<Vertex>, index: i64, platform: Option<Platform>) -> Self {
        Self(Inner::Vertex {
            vertex,
            index: Index::At(index),
            platform,
        })
    }

    /// An output whose vertex becomes known before marshalling.
    pub fn late(late: &Late) -> Self {
        Self(Inner::Late(late.clone()))
    }

    pub(crate) fn platform(&self) -> Option<&Platform> {
        match &self.0 {
            Inner::Vertex { platform, .. } => platform.as_ref(),
            Inner::Late(_) => None,
        }
    }
}

/// An output to be decided later: the build context, whose paths are known only when all stages were read.
#[derive(Clone, Default)]
pub struct Late(Arc<OnceLock<Option<Output>>>);

impl Late {
    /// An undecided output.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides it; a second decision is ignored. A scratch state makes it empty.
    pub fn set(&self, state: &State) {
        drop(self.0.set(state.output().cloned()));
    }

    /// The decision, if any.
    pub(crate) fn get(&self) -> Option<&Option<Output>> {
        self.0.get()
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() {
            "Late(set)"
        } else {
            "Late(unset)"
        })
    }
}

/// A source file that vertices point into.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceMap {
    /// Its name.
    pub filename: String,
    /// Its language, `Dockerfile`.
    pub language: String,
    /// Its text.
    pub data: Bytes,
    /// The definition it was read from.
    pub definition: Option<Arc<pb::Definition>>,
}

impl SourceMap {
    /// The wire form.
    pub fn to_info(&self) -> pb::SourceInfo {
        pb::SourceInfo {
            filename: self.filename.clone(),
            data: self.data.to_vec(),
            definition: self.definition.as_deref().cloned(),
            language: self.language.clone(),
        }
    }
}

/// What is said about a vertex beside its op: platform, metadata and places in source files.
#[derive(Debug, Clone, Default)]
pub struct Constraints {
    /// Platform of the op; none takes the state's or the definition's.
    pub platform: Option<Platform>,
    /// Name, cache policy, capabilities.
    pub metadata: pb::OpMetadata,
    /// Places in source files.
    pub locations: Vec<(Arc<SourceMap>, Vec<pb::Range>)>,
    /// Makes a local source without a session unique.
    pub local_unique_id: String,
}

impl Constraints {
    /// No name, platform or metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// A vertex shown as `name`.
    pub fn named(name: impl Into<String>) -> Self {
        Self::new().name(name)
    }

    /// A vertex shown as `[internal] name`.
    pub fn internal(name: &str) -> Self {
        Self::named(format!("[internal] {name}"))
    }

    /// Shows the vertex as `name`.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        self.describe("llb.customname", name)
    }

    /// Adds a free text under `key`, without the credentials of addresses in it.
    #[must_use]
    pub fn describe(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata
            .description
            .insert(key.to_owned(), oci::address::redacted(value.into()));
        self
    }

    /// Sets the platform.
    #[must_use]
    pub fn platform(mut self, platform: &Platform) -> Self {
        self.platform = Some(platform.clone());
        self
    }

    /// Runs the vertex even if its result is known, when `ignore` is set.
    #[must_use]
    pub fn ignore_cache(mut self, ignore: bool) -> Self {
        self.metadata.ignore_cache |= ignore;
        self
    }

    /// Shows the vertex as part of a group.
    #[must_use]
    pub fn progress_group(mut self, id: &str, name: &str, weak: bool) -> Self {
        self.metadata.progress_group = Some(pb::ProgressGroup {
            id: id.to_owned(),
            name: name.to_owned(),
            weak,
        });
        self
    }

    /// Sets resource limits, which are in no digest.
    #[must_use]
    pub fn resources(mut self, resources: Option<pb::LinuxResources>) -> Self {
        if resources.is_some() {
            self.metadata.linux_resources = resources;
        }
        self
    }

    /// Adds a place in a source file.
    #[must_use]
    pub fn at(mut self, map: Option<&Arc<SourceMap>>, ranges: Vec<pb::Range>) -> Self {
        if let Some(map) = map {
            self.locations.push((Arc::clone(map), ranges));
        }
        self
    }

    pub(crate) fn cap(&mut self, id: &str) {
        self.metadata.caps.insert(id.to_owned(), true);
    }
}

/// The wire form of a platform.
pub fn platform_to_pb(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// A platform from the wire, as it is.
pub fn platform_from_pb(platform: &pb::Platform) -> Platform {
    Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// A marshalled vertex.
#[derive(Debug, Clone)]
pub(crate) struct Marshalled {
    pub(crate) digest: Digest,
    pub(crate) raw: Bytes,
    pub(crate) metadata: pb::OpMetadata,
}
