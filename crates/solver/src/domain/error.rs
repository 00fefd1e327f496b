//! What goes wrong, and where.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use oci::Digest;

use crate::domain::Domain;
use crate::domain::vertex::Vertex;

/// An op's own error, shared by everyone who waits for the op. Made from any error with `?`.
#[derive(Clone)]
pub struct OpError(Arc<dyn Error + Send + Sync + 'static>);

impl OpError {
    /// Returns the error inside.
    pub fn inner(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }

    /// Returns the error inside, if it is of type `T`.
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// Finds an error of type `T` in the chain of causes.
    pub fn find<T: Error + 'static>(&self) -> Option<&T> {
        let mut next: Option<&(dyn Error + 'static)> = Some(&*self.0);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

// `Error` itself cannot be implemented beside the conversion from all errors; what derefs to one can be a cause.
impl std::ops::Deref for OpError {
    type Target = dyn Error + Send + Sync + 'static;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for OpError {
    fn from(error: E) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The key store could not do its work.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", oci::error::chain(.0.as_ref()))]
pub struct KeyStoreError(#[source] Arc<dyn Error + Send + Sync + 'static>);

impl KeyStoreError {
    /// Wraps the storage's error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync + 'static>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

/// What an op was asked for when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Finding the op for the vertex.
    Resolve,
    /// How it is cached.
    CacheMap,
    /// The content digest of the input with this index.
    SlowKey(usize),
    /// Its results.
    Exec,
}

/// Why a build gave no result.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SolveError<D: Domain> {
    /// An op failed.
    #[error("{}{}", phase.prefix(), oci::error::chain(error.inner()))]
    Op {
        /// The vertex as the client knows it.
        vertex: Digest,
        /// Its name.
        name: String,
        /// Its description.
        description: std::collections::BTreeMap<String, String>,
        /// Its op.
        sys: Arc<D::System>,
        /// What it was asked for.
        phase: Phase,
        /// What it said.
        #[source]
        error: OpError,
    },
    /// An op gave fewer results than an edge's index.
    #[error("invalid response from exec need {index} index but {got} results received")]
    MissingOutput {
        /// The vertex.
        vertex: Digest,
        /// The index asked for.
        index: usize,
        /// How many results there are.
        got: usize,
    },
    /// An op described other inputs than its vertex has.
    #[error("invalid cache map: expected dependency count {want}, got {got}")]
    CacheMapDeps {
        /// The vertex.
        vertex: Digest,
        /// Inputs of the vertex.
        want: usize,
        /// Inputs in the cache map.
        got: usize,
    },
    /// Keys or results could not be read or kept.
    #[error("error on cache query: {0}")]
    Keys(#[from] KeyStoreError),
    /// A task panicked.
    #[error("panic in `{name}`: {message}")]
    Panic {
        /// Name of the vertex.
        name: String,
        /// What the panic said.
        message: String,
    },
    /// A vertex reads one that is not active: a fault of the solver.
    #[error("failed to get edge: inconsistent graph state in edge {vertex} {index}")]
    Inconsistent {
        /// The vertex that is read.
        vertex: String,
        /// Its output.
        index: usize,
    },
    /// A job with the id exists.
    #[error("job ID {0} exists")]
    JobExists(String),
    /// The job was discarded, or the solver closed, before the build ended.
    #[error("context canceled")]
    Canceled,
}

impl<D: Domain> SolveError<D> {
    pub(crate) fn op(
        vertex: &Vertex<D>,
        client_digest: &Digest,
        phase: Phase,
        error: OpError,
    ) -> Self {
        Self::Op {
            vertex: client_digest.clone(),
            name: vertex.name.clone(),
            description: vertex.options.description.clone(),
            sys: Arc::clone(&vertex.sys),
            phase,
            error,
        }
    }

    /// Returns the vertex that failed, if it was one.
    pub fn vertex(&self) -> Option<&Digest> {
        match self {
            Self::Op { vertex, .. }
            | Self::MissingOutput { vertex, .. }
            | Self::CacheMapDeps { vertex, .. } => Some(vertex),
            Self::Keys(_)
            | Self::Panic { .. }
            | Self::Inconsistent { .. }
            | Self::JobExists(_)
            | Self::Canceled => None,
        }
    }
}

impl<D: Domain> Clone for SolveError<D> {
    fn clone(&self) -> Self {
        match self {
            Self::Op {
                vertex,
                name,
                description,
                sys,
                phase,
                error,
            } => Self::Op {
                vertex: vertex.clone(),
                name: name.clone(),
                description: description.clone(),
                sys: Arc::clone(sys),
                phase: *phase,
                error: error.clone(),
            },
            Self::MissingOutput { vertex, index, got } => Self::MissingOutput {
                vertex: vertex.clone(),
                index: *index,
                got: *got,
            },
            Self::CacheMapDeps { vertex, want, got } => Self::CacheMapDeps {
                vertex: vertex.clone(),
                want: *want,
                got: *got,
            },
            Self::Keys(error) => Self::Keys(error.clone()),
            Self::Panic { name, message } => Self::Panic {
                name: name.clone(),
                message: message.clone(),
            },
            Self::Inconsistent { vertex, index } => Self::Inconsistent {
                vertex: vertex.clone(),
                index: *index,
            },
            Self::JobExists(id) => Self::JobExists(id.clone()),
            Self::Canceled => Self::Canceled,
        }
    }
}

impl Phase {
    fn prefix(self) -> &'static str {
        match self {
            Self::CacheMap => "failed to load cache key: ",
            Self::SlowKey(_) => "failed to compute cache key: ",
            Self::Resolve | Self::Exec => "",
        }
    }
}

impl<D: Domain> fmt::Debug for SolveError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vertex() {
            Some(vertex) => write!(f, "{self} (vertex {vertex})"),
            None => fmt::Display::fmt(self, f),
        }
    }
}
