//! The types that a user of the solver defines: a domain, and its vertices and ops.

pub(crate) mod error;
pub(crate) mod op;
pub(crate) mod vertex;

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;

use async_trait::async_trait;

use crate::domain::error::OpError;
use crate::domain::op::{CacheMap, NullSink, Op, OpCtx, VertexSink};

/// The types of one use of the solver, which passes their values on without looking into them; every vertex, op, result
/// and job of a [`Solver`](crate::Solver) is of one domain, so nothing has to be cast back.
pub trait Domain: Sized + Send + Sync + 'static {
    /// One output of an op. Clones name the same output.
    type Result: Clone + Send + Sync + 'static;
    /// The data from which the resolver makes a vertex's op.
    type System: Send + Sync + 'static;
    /// What vertices do; may be a `dyn` trait.
    type Op: Op<Self> + ?Sized;
    /// The value that a job gives to the ops and sinks of its vertices.
    type Job: Send + Sync + 'static;
    /// Where the progress of a vertex is reported.
    type Sink: VertexSink<Self::Job>;
    /// A value in a cache map for loads of results, such as the provider of a lazy layer. It is no part of keys.
    type Hint: Clone + Send + Sync + 'static;
}

/// A domain without ops: for key stores and caches by themselves.
pub struct ResultsOnly<R, S = NullSink>(PhantomData<fn() -> (R, S)>);

impl<R, S> Domain for ResultsOnly<R, S>
where
    R: Clone + Send + Sync + 'static,
    S: VertexSink<()>,
{
    type Result = R;
    type System = ();
    type Op = NoOp;
    type Job = ();
    type Sink = S;
    type Hint = ();
}

impl<R, S> fmt::Debug for ResultsOnly<R, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResultsOnly")
    }
}

/// The op of vertices that never run; the type has no value.
#[derive(Debug)]
pub struct NoOp(Infallible);

#[async_trait]
impl<D: Domain> Op<D> for NoOp {
    async fn cache_map(
        &self,
        _ctx: &OpCtx<D>,
        _index: usize,
    ) -> Result<(CacheMap<D>, bool), OpError> {
        match self.0 {}
    }

    async fn exec(
        &self,
        _ctx: &OpCtx<D>,
        _inputs: Vec<D::Result>,
    ) -> Result<Vec<D::Result>, OpError> {
        match self.0 {}
    }
}
