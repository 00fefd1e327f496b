//! A result that is computed when somebody asks for it, once.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::bridge::{CacheImport, FileRange, FileStat};
use frontend::{BridgeError, Ref};
use llb::pb;
use oci::Digest;
use store::ImmutableRef;
use tokio::sync::Mutex;

use crate::api::Failure;
use crate::build::Build;
use crate::files::{self, ReadError};
use crate::policy::Policy;
use crate::provenance::Computed;

/// A definition and what it gave.
pub(crate) struct LazyRef {
    build: Arc<Build>,
    /// None for what a failed step left.
    definition: Option<Arc<pb::Definition>>,
    policies: Vec<Arc<Policy>>,
    /// Caches that may know the result.
    imports: Vec<CacheImport>,
    /// Held while the result is computed: others wait, and go on in its place if it is dropped.
    result: Mutex<Option<Result<Arc<Computed>, Failure>>>,
}

impl LazyRef {
    /// Returns the engine's own type of a ref that a frontend held; none for a ref of another engine.
    pub(crate) fn of(reference: &Arc<dyn Ref>) -> Option<&Self> {
        reference.as_any().downcast_ref()
    }

    pub(crate) fn new(
        build: Arc<Build>,
        definition: Arc<pb::Definition>,
        policies: Vec<Arc<Policy>>,
    ) -> Arc<Self> {
        Self::importing(build, definition, policies, Vec::new())
    }

    /// A definition whose result may be in these caches.
    pub(crate) fn importing(
        build: Arc<Build>,
        definition: Arc<pb::Definition>,
        policies: Vec<Arc<Policy>>,
        imports: Vec<CacheImport>,
    ) -> Arc<Self> {
        Arc::new(Self {
            build,
            definition: Some(definition),
            policies,
            imports,
            result: Mutex::new(None),
        })
    }

    /// A result that is there already and that no definition describes.
    pub(crate) fn known(build: Arc<Build>, found: ImmutableRef) -> Arc<Self> {
        Arc::new(Self {
            build,
            definition: None,
            policies: Vec::new(),
            imports: Vec::new(),
            result: Mutex::new(Some(Ok(Arc::new(Computed {
                result: Some(found),
                vertex: None,
                keys: Vec::new(),
            })))),
        })
    }

    /// The result, computed if it is not there yet.
    pub(crate) async fn result(&self) -> Result<ops::Ref, Failure> {
        Ok(self.computed().await?.and_then(|c| c.result.clone()))
    }

    /// What went into the result, if it is there already.
    pub(crate) async fn captured(&self) -> Option<attest::Capture> {
        let computed = self.result.lock().await.as_ref()?.as_ref().ok()?.clone();
        let vertex = Arc::clone(computed.vertex.as_ref()?);
        let build = Arc::clone(&self.build);
        task::blocking("capture", move || build.captured(&vertex)).await
    }

    /// The result as the solver knows it.
    pub(crate) async fn computed(&self) -> Result<Option<Arc<Computed>>, Failure> {
        let mut known = self.result.lock().await;
        if let Some(known) = &*known {
            return known.clone().map(Some);
        }
        let Some(definition) = &self.definition else {
            return Ok(None);
        };
        let result = self
            .build
            .compute(definition, &self.policies, &self.imports)
            .await
            .map(Arc::new);
        *known = Some(result.clone());
        result.map(Some)
    }

    async fn tree<T, F>(&self, op: &'static str, path: &str, work: F) -> Result<T, BridgeError>
    where
        T: Send + 'static,
        F: FnOnce(&ops::Root) -> Result<T, ReadError> + Send + 'static,
    {
        let Some(found) = self.result().await? else {
            return Err(ReadError::missing(op, path).into());
        };
        self.build
            .alive(async { found.ensure().await.map_err(Failure::from) })
            .await?;
        Ok(task::blocking("read a file of a ref", move || {
            work(&found.root().map_err(ReadError::new)?)
        })
        .await?)
    }
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
        // Nothing at all is an empty folder.
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
