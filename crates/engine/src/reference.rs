//! A lazy ref: a result that is computed on its first use, once.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::bridge::{CacheImport, FileRange, FileStat};
use frontend::{BridgeError, FrontendResult, Ref};
use futures::future::try_join_all;
use llb::pb;
use oci::Digest;
use store::ImmutableRef;
use tokio::sync::Mutex;

use crate::api::{Failure, FailureKind};
use crate::evaluate::{Computed, Evaluator};
use crate::files::{self, ReadError};
use crate::policy::Policy;

/// A definition with its result, once it is computed.
pub(crate) struct LazyRef {
    evaluator: Arc<Evaluator>,
    /// None for a ref of a failed step, which no definition describes.
    definition: Option<Arc<pb::Definition>>,
    policies: Vec<Arc<Policy>>,
    /// Remote caches that may have the result.
    imports: Vec<CacheImport>,
    /// Locked while the result is computed: other callers wait, and continue in its place if it is dropped.
    result: Mutex<Option<Result<Arc<Computed>, Failure>>>,
}

impl LazyRef {
    /// Downcasts a ref to the engine's type. Only a client's frontend could pass a ref of another type.
    pub(crate) fn of(reference: &Arc<dyn Ref>) -> Result<&Self, Failure> {
        let lazy = reference.as_any().downcast_ref::<Self>();
        lazy.ok_or_else(|| Failure::new(FailureKind::Internal, "a ref of another engine"))
    }

    pub(crate) fn new(
        evaluator: Arc<Evaluator>,
        definition: Arc<pb::Definition>,
        policies: Vec<Arc<Policy>>,
    ) -> Arc<Self> {
        Self::importing(evaluator, definition, policies, Vec::new())
    }

    /// A ref whose result may be in these remote caches.
    pub(crate) fn importing(
        evaluator: Arc<Evaluator>,
        definition: Arc<pb::Definition>,
        policies: Vec<Arc<Policy>>,
        imports: Vec<CacheImport>,
    ) -> Arc<Self> {
        Arc::new(Self {
            evaluator,
            definition: Some(definition),
            policies,
            imports,
            result: Mutex::new(None),
        })
    }

    /// A ref with a result that no definition describes.
    pub(crate) fn of_tree(evaluator: Arc<Evaluator>, tree: ImmutableRef) -> Arc<Self> {
        Arc::new(Self {
            evaluator,
            definition: None,
            policies: Vec::new(),
            imports: Vec::new(),
            result: Mutex::new(Some(Ok(Arc::new(Computed {
                result: Some(tree),
                vertex: None,
                keys: Vec::new(),
            })))),
        })
    }

    /// The result; the first call computes it.
    pub(crate) async fn result(&self) -> Result<ops::Ref, Failure> {
        Ok(self.computed().await?.and_then(|c| c.result.clone()))
    }

    /// What went into the result; none if it is not computed yet.
    pub(crate) async fn captured(&self) -> Option<attest::Capture> {
        let computed = self.result.lock().await.as_ref()?.as_ref().ok()?.clone();
        let vertex = Arc::clone(computed.vertex.as_ref()?);
        self.evaluator.captured(vertex).await
    }

    /// The result with its vertex and cache keys; the first call computes it.
    pub(crate) async fn computed(&self) -> Result<Option<Arc<Computed>>, Failure> {
        let mut slot = self.result.lock().await;
        if let Some(computed) = &*slot {
            return computed.clone().map(Some);
        }
        let Some(definition) = &self.definition else {
            return Ok(None);
        };
        let result = self
            .evaluator
            .compute(definition, &self.policies, &self.imports)
            .await
            .map(Arc::new);
        *slot = Some(result.clone());
        result.map(Some)
    }

    async fn tree<T, F>(&self, op: &'static str, path: &str, work: F) -> Result<T, BridgeError>
    where
        T: Send + 'static,
        F: FnOnce(&ops::Root) -> Result<T, ReadError> + Send + 'static,
    {
        let Some(tree) = self.result().await? else {
            return Err(ReadError::missing(op, path).into());
        };
        self.evaluator
            .scope()
            .alive(async { tree.ensure().await.map_err(Failure::from) })
            .await?;
        Ok(task::blocking("read a file of a ref", move || work(&tree.root()?)).await?)
    }
}

/// All refs of a result.
pub(crate) fn refs(result: &FrontendResult) -> impl Iterator<Item = &Arc<dyn Ref>> {
    result.single.iter().chain(result.refs.values().flatten())
}

/// Computes all refs of a result, side by side.
pub(crate) async fn evaluate(result: &FrontendResult) -> Result<(), Failure> {
    let all = refs(result).map(|reference| async move {
        reference
            .evaluate()
            .await
            .map_err(|e| Failure::of_bridge(&e))
    });
    try_join_all(all).await?;
    Ok(())
}

#[async_trait]
impl Ref for LazyRef {
    fn definition(&self) -> Option<Arc<pb::Definition>> {
        self.definition.clone()
    }

    async fn evaluate(&self) -> Result<(), BridgeError> {
        self.result().await?;
        Ok(())
    }

    async fn read_file(&self, path: &str, range: Option<FileRange>) -> Result<Bytes, BridgeError> {
        let name = path.to_owned();
        self.tree("open", path, move |root| files::read(root, &name, range))
            .await
    }

    async fn read_dir(&self, path: &str, include: &str) -> Result<Vec<FileStat>, BridgeError> {
        // An empty result is an empty folder.
        if self.result().await?.is_none() {
            return Ok(Vec::new());
        }
        let (name, include) = (path.to_owned(), include.to_owned());
        self.tree("open", path, move |root| {
            files::list(root, &name, &include, None)
        })
        .await
    }

    async fn stat_file(&self, path: &str) -> Result<FileStat, BridgeError> {
        let name = path.to_owned();
        self.tree("lstat", path, move |root| files::lstat(root, &name))
            .await
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for LazyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let definition = self.definition.as_deref();
        let head: Option<Digest> = definition.and_then(llb::definition::head);
        f.debug_tuple("LazyRef").field(&head).finish()
    }
}
