//! What the solver leaves to those who use it: the types of a domain, and what vertices and ops are.

pub(crate) mod error;
pub(crate) mod op;
pub(crate) mod vertex;

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;

use async_trait::async_trait;

use crate::domain::error::OpError;
use crate::domain::op::{CacheMap, NullSink, Op, OpCtx, VertexSink};

/// The types of one use of the solver. The solver hands their values on and looks into none of them; every vertex, op, result
/// and job of a [`Solver`](crate::Solver) is of one domain, so nothing has to be cast back.
pub trait Domain: Sized + Send + Sync + 'static {
    /// One output of an op. Clones name the same output.
    type Result: Clone + Send + Sync + 'static;
    /// The data of a vertex that its op is made from.
    type System: Send + Sync + 'static;
    /// What vertices do; may be a `dyn` trait.
    type Op: Op<Self> + ?Sized;
    /// What a job brings for the ops and sinks of its vertices.
    type Job: Send + Sync + 'static;
    /// Where the progress of a vertex is reported.
    type Sink: VertexSink<Self::Job>;
    /// What a cache map leaves for loads of results, such as who can fetch a lazy layer. It has no part in keys.
    type Hint: Clone + Send + Sync + 'static;
}

/// The domain of those who keep keys and results and run no ops: key stores and caches by themselves.
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

/// The op of vertices that are never run; there is no value of it.
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
