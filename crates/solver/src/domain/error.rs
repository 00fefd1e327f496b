//! Errors of ops, key stores and builds.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use oci::Digest;

use crate::domain::Domain;
use crate::domain::vertex::Vertex;

/// An op's own error, shared by all who wait for the op. `?` makes it from any error.
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
            if let Some(cause) = error.downcast_ref() {
                return Some(cause);
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

/// A key store failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", oci::error::chain(.0.as_ref()))]
pub struct KeyStoreError(#[source] Arc<dyn Error + Send + Sync + 'static>);

impl KeyStoreError {
    /// Wraps the storage's error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync + 'static>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

/// The call of an op that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Finding the op for the vertex.
    Resolve,
    /// Computing the cache map.
    CacheMap,
    /// The content digest of the input with this index.
    SlowKey(usize),
    /// Computing the outputs.
    Exec,
}

/// Why a build failed.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SolveError<D: Domain> {
    /// An op failed.
    #[error("{}{}", phase.prefix(), oci::error::chain(error.inner()))]
    Op {
        /// Digest of the vertex as the client knows it.
        vertex: Digest,
        /// Name of the vertex.
        name: String,
        /// Description of the vertex, for people and tools.
        description: std::collections::BTreeMap<String, String>,
        /// Data of the vertex.
        sys: Arc<D::System>,
        /// The call that failed.
        phase: Phase,
        /// The op's error.
        #[source]
        error: OpError,
    },
    /// An op returned fewer outputs than the index of an edge.
    #[error("invalid response from exec need {index} index but {got} results received")]
    MissingOutput {
        /// Digest of the vertex.
        vertex: Digest,
        /// Index of the requested output.
        index: usize,
        /// Number of outputs.
        got: usize,
    },
    /// A cache map has a different number of inputs than the vertex.
    #[error("invalid cache map: expected dependency count {want}, got {got}")]
    CacheMapDeps {
        /// Digest of the vertex.
        vertex: Digest,
        /// Number of the vertex's inputs.
        want: usize,
        /// Number of inputs in the cache map.
        got: usize,
    },
    /// Reading or writing keys or results failed.
    #[error("error on cache query: {0}")]
    Keys(#[from] KeyStoreError),
    /// A task panicked.
    #[error("panic in `{name}`: {message}")]
    Panic {
        /// Name of the vertex.
        name: String,
        /// Message of the panic.
        message: String,
    },
    /// The input of a vertex is not active: a bug of the solver.
    #[error("failed to get edge: inconsistent graph state in edge {vertex} {index}")]
    Inconsistent {
        /// Digest of the input's vertex.
        vertex: String,
        /// Index of its output.
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

    /// Returns the digest of the failed vertex; none if the error belongs to no vertex.
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
