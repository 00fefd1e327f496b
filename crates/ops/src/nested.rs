//! A build within a build: an input holds the definition of what is built.
//!
//! The key is SHA-256 of Go's JSON of `{Type: buildkit.build.v0, Exec: the op}`; inputs take part by their own keys only. Facts of
//! `solver/llbsolver/ops/build.go` and `client/llb/llbbuild` (v0.34.2).
//!
//! What is built is a part of the vertex: it ends with the vertex, its steps are shown with the build, and the policies and rights of
//! the build hold for it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use llb::pb;
use oci::Digest;
use parking_lot::Mutex;
use serde::Serialize;
use solver::{CacheMap, Edge, Op, OpCtx, OpError, SolveError, SubBuilder, Vertex};

use crate::{BuildDomain, BuildOp, BuildRights, DepPlan, KeyPlan, OpFailure, Parts, Ref};

/// Why a build within a build did not give its result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NestedBuildError {
    /// The op names an input as its builder.
    #[error("only LLB builder is currently allowed")]
    Builder,
    /// The op names no input for the definition.
    #[error("no llb definition input {DEFINITION} found")]
    NoInput,
    /// The input is empty.
    #[error("open {file}: no such file or directory")]
    NoFile {
        /// The file that was to hold the definition.
        file: String,
    },
    /// The file holds no definition.
    #[error("{file} holds no definition: {source}")]
    Decode {
        /// The file.
        file: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its definition contains itself.
    #[error("the definition of a nested build leads back to the same build")]
    Circular,
    /// It is within too many others.
    #[error("more than {MAX_NESTED_BUILDS} builds are within each other")]
    TooDeep,
    /// Nobody wants it any more.
    #[error("the build around a nested build is over")]
    BuildIsOver,
}

impl NestedBuildError {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Builder
            | Self::NoInput
            | Self::Decode { .. }
            | Self::Circular
            | Self::TooDeep => ErrorKind::Invalid,
            Self::NoFile { .. } => ErrorKind::NotFound,
            Self::BuildIsOver => ErrorKind::Cancelled,
        }
    }
}

/// The builder that builds definitions; there is no other.
const LLB_BUILDER: i64 = -1;
/// The name of the input that has the definition, and of the file in it.
const DEFINITION: &str = "buildkit.llb.definition";
/// The attribute that names another file.
const FILENAME: &str = "llbbuild.filename";
/// The most bytes of a definition in a file, as of one in a message.
const MAX_DEFINITION_BYTES: u64 = 16 << 20;
/// How many builds may be within each other.
pub const MAX_NESTED_BUILDS: usize = 16;

/// Loads definitions that steps of a build made.
#[async_trait]
pub trait NestedLoader: Send + Sync {
    /// What `definition` wants, if the policies of the build allow its sources. It runs with `rights`, and `nesting` builds are
    /// around it.
    async fn load(
        &self,
        definition: Arc<pb::Definition>,
        rights: &BuildRights,
        nesting: usize,
    ) -> Result<Edge<BuildDomain>, OpError>;
}

/// The loader of a build, from when its policies are there until it is over.
#[derive(Default)]
pub struct LoaderSlot(OnceLock<Weak<dyn NestedLoader>>);

impl LoaderSlot {
    /// Puts the loader in, once.
    pub fn set(&self, loader: Weak<dyn NestedLoader>) {
        let is_first = self.0.set(loader).is_ok();
        debug_assert!(is_first, "a build has one loader");
    }

    fn get(&self) -> Option<Arc<dyn NestedLoader>> {
        self.0.get()?.upgrade()
    }
}

impl fmt::Debug for LoaderSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoaderSlot")
            .field(&self.0.get().is_some())
            .finish()
    }
}

/// Which nested builds wait for which: one that waits for itself would do so for ever.
#[derive(Debug, Default)]
pub(crate) struct NestedBuilds(Mutex<HashMap<Digest, Arc<[Digest]>>>);

/// A nested build that goes on.
struct Ongoing<'a> {
    all: &'a NestedBuilds,
    vertex: Digest,
}

impl NestedBuilds {
    /// Notes that `vertex` waits for the vertices `within`, unless one of them waits for `vertex`.
    fn enter(&self, vertex: &Digest, within: Vec<Digest>) -> Result<Ongoing<'_>, NestedBuildError> {
        let mut waiting = self.0.lock();
        let mut seen = HashSet::new();
        let mut open: Vec<Digest> = within.clone();
        while let Some(next) = open.pop() {
            if next == *vertex {
                return Err(NestedBuildError::Circular);
            }
            if let Some(further) = waiting.get(&next)
                && seen.insert(next)
            {
                open.extend(further.iter().cloned());
            }
        }
        waiting.insert(vertex.clone(), within.into());
        Ok(Ongoing {
            all: self,
            vertex: vertex.clone(),
        })
    }
}

impl Drop for Ongoing<'_> {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.vertex);
    }
}

/// Builds the definition that an input holds.
pub struct NestedOp {
    parts: Arc<Parts>,
    op: pb::BuildOp,
    rights: BuildRights,
    /// Builds around this one.
    nesting: usize,
    inputs: usize,
    builder: Arc<dyn SubBuilder<BuildDomain>>,
}

impl fmt::Debug for NestedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NestedOp")
            .field("op", &self.op)
            .field("nesting", &self.nesting)
            .finish_non_exhaustive()
    }
}

impl NestedOp {
    /// Makes the op of `vertex`, whose op is `op`; `builder` builds as a part of it.
    pub fn new(
        parts: Arc<Parts>,
        op: pb::BuildOp,
        vertex: &Vertex<BuildDomain>,
        builder: Arc<dyn SubBuilder<BuildDomain>>,
    ) -> Self {
        Self {
            parts,
            op,
            rights: vertex.sys.rights.clone(),
            nesting: vertex.sys.nesting,
            inputs: vertex.inputs.len(),
            builder,
        }
    }

    async fn definition(&self, inputs: Vec<Ref>) -> Result<pb::Definition, OpFailure> {
        if self.op.builder != LLB_BUILDER {
            return Err(NestedBuildError::Builder.into());
        }
        let input = self.op.inputs.get(DEFINITION);
        let index = input.ok_or(NestedBuildError::NoInput)?.input;
        let file = self
            .op
            .attrs
            .get(FILENAME)
            .map_or(DEFINITION, String::as_str)
            .to_owned();
        let tree = usize::try_from(index)
            .ok()
            .and_then(|index| inputs.into_iter().nth(index))
            .ok_or(OpFailure::MissingInput(index))?;
        let tree = tree.ok_or_else(|| NestedBuildError::NoFile { file: file.clone() })?;
        tree.ensure().await?;
        task::blocking("read the definition of a nested build", move || {
            let bytes = tree
                .root()?
                .read(&file, MAX_DEFINITION_BYTES)
                .map_err(|error| OpFailure::Tree(Box::new(error)))?;
            llb::definition::decode(&bytes).map_err(|source| {
                NestedBuildError::Decode {
                    file,
                    source: Box::new(source),
                }
                .into()
            })
        })
        .await
    }
}

/// Returns the key of the op.
pub fn plan(op: &pb::BuildOp, inputs: usize) -> KeyPlan {
    #[derive(Serialize)]
    struct Input {
        #[serde(skip_serializing_if = "is_zero")]
        input: i64,
    }
    // The field `def` is left out: neither client nor daemon uses it.
    #[derive(Serialize)]
    struct Exec<'a> {
        #[serde(skip_serializing_if = "is_zero")]
        builder: i64,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        inputs: BTreeMap<&'a str, Input>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        attrs: BTreeMap<&'a str, &'a str>,
    }
    #[derive(Serialize)]
    struct Key<'a> {
        #[serde(rename = "Type")]
        kind: &'static str,
        #[serde(rename = "Exec")]
        exec: Exec<'a>,
    }
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands over references"
    )]
    fn is_zero(number: &i64) -> bool {
        *number == 0
    }
    let json = gostd::json::to_vec(&Key {
        kind: "buildkit.build.v0",
        exec: Exec {
            builder: op.builder,
            inputs: op
                .inputs
                .iter()
                .map(|(name, input)| (name.as_str(), Input { input: input.input }))
                .collect(),
            attrs: op
                .attrs
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
        },
    });
    KeyPlan {
        digest: Digest::sha256(json),
        deps: vec![DepPlan::default(); inputs],
    }
}

/// The vertices of nested builds in the graph of `edge`, that of `edge` among them.
fn nested_within(edge: &Edge<BuildDomain>) -> Vec<Digest> {
    let mut seen = HashSet::from([edge.vertex.digest.clone()]);
    let mut open = vec![Arc::clone(&edge.vertex)];
    let mut nested = Vec::new();
    while let Some(vertex) = open.pop() {
        if matches!(vertex.sys.op.op, Some(pb::op::Op::Build(_))) {
            nested.push(vertex.digest.clone());
        }
        for input in &vertex.inputs {
            if seen.insert(input.vertex.digest.clone()) {
                open.push(Arc::clone(&input.vertex));
            }
        }
    }
    nested
}

impl BuildOp for NestedOp {}

#[async_trait]
impl Op<BuildDomain> for NestedOp {
    async fn cache_map(
        &self,
        _ctx: &OpCtx<BuildDomain>,
        _index: usize,
    ) -> Result<(CacheMap<BuildDomain>, bool), OpError> {
        Ok((plan(&self.op, self.inputs).into_cache_map(false), true))
    }

    // It takes no turn of its own: what it builds does.
    async fn exec(&self, ctx: &OpCtx<BuildDomain>, inputs: Vec<Ref>) -> Result<Vec<Ref>, OpError> {
        if self.nesting >= MAX_NESTED_BUILDS {
            return Err(OpFailure::from(NestedBuildError::TooDeep).into());
        }
        let definition = Arc::new(self.definition(inputs).await?);
        let jobs = ctx.job_values();
        let loader = jobs.iter().find_map(|job| job.nested.get());
        let loader = loader.ok_or(OpFailure::from(NestedBuildError::BuildIsOver))?;
        let edge = loader
            .load(definition, &self.rights, self.nesting + 1)
            .await?;
        let within = nested_within(&edge);
        let _ongoing = self
            .parts
            .nested
            .enter(&ctx.vertex.digest, within)
            .map_err(OpFailure::from)?;
        match self.builder.build(edge).await {
            Ok(result) => Ok(vec![result]),
            // What failed within fails this, in its own words: errors that are within each other as builds are would be shown
            // as often as there are ways through them.
            Err(SolveError::Op { error, .. }) => Err(error),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    #[test]
    fn a_build_that_waits_for_itself_is_refused_however_many_are_between() {
        let all = NestedBuilds::default();
        let names = |names: &[&str]| names.iter().map(|name| digest(name)).collect::<Vec<_>>();
        assert!(all.enter(&digest("a"), names(&["a"])).is_err());
        let first = all.enter(&digest("a"), names(&["b", "x"])).unwrap();
        let _second = all.enter(&digest("b"), names(&["c"])).unwrap();
        assert!(all.enter(&digest("c"), names(&["y", "a"])).is_err());
        let _other = all.enter(&digest("z"), names(&["a"])).unwrap();
        drop(first);
        assert!(all.enter(&digest("c"), names(&["y", "a"])).is_ok());
    }

    #[test]
    fn the_key_is_that_of_gos_json() {
        let mut op = pb::BuildOp {
            builder: LLB_BUILDER,
            inputs: [(DEFINITION.to_owned(), pb::BuildInput { input: 0 })].into(),
            ..pb::BuildOp::default()
        };
        let key = |op: &pb::BuildOp| plan(op, 1).digest;
        let json = |text: &str| Digest::sha256(text.as_bytes());
        assert_eq!(
            key(&op),
            json(
                r#"{"Type":"buildkit.build.v0","Exec":{"builder":-1,"inputs":{"buildkit.llb.definition":{}}}}"#
            )
        );
        op.attrs.insert(FILENAME.to_owned(), "a/b".to_owned());
        op.inputs
            .insert("x".to_owned(), pb::BuildInput { input: 2 });
        assert_eq!(
            key(&op),
            json(
                r#"{"Type":"buildkit.build.v0","Exec":{"builder":-1,"inputs":{"buildkit.llb.definition":{},"x":{"input":2}},"attrs":{"llbbuild.filename":"a/b"}}}"#
            )
        );
        assert_eq!(plan(&op, 3).deps.len(), 3);
    }
}
