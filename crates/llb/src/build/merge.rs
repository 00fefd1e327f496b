//! Merge and diff of file systems.

use super::BuildError;
use super::encode;
use super::marshal::{Marshaller, resolve};
use super::state::State;
use super::vertex::{Constraints, Kind, Marshalled, Output, Vertex};
use crate::pb;
use crate::validate::EMPTY;

#[derive(Debug)]
pub(crate) struct MergeOp {
    pub(crate) inputs: Vec<Output>,
}

#[derive(Debug)]
pub(crate) struct DiffOp {
    pub(crate) lower: Option<Output>,
    pub(crate) upper: Option<Output>,
}

/// Lays states over each other, the first lowest. Scratch states do not count.
pub fn merge(inputs: &[&State], mut constraints: Constraints) -> State {
    let present: Vec<&&State> = inputs
        .iter()
        .filter(|state| state.output().is_some())
        .collect();
    match present.as_slice() {
        [] => State::scratch(),
        [only] => (**only).clone(),
        [first, ..] => {
            constraints.cap("mergeop");
            let op = MergeOp {
                inputs: present
                    .iter()
                    .filter_map(|state| state.output().cloned())
                    .collect(),
            };
            let vertex = Vertex::new(Kind::Merge(op), constraints);
            first.with_output(Some(Output::new(vertex, 0, None)))
        }
    }
}

/// What `upper` has over `lower`.
pub fn diff(lower: &State, upper: &State, mut constraints: Constraints) -> State {
    if lower.output().is_none() {
        return if upper.output().is_none() {
            State::scratch()
        } else {
            upper.clone()
        };
    }
    constraints.cap("diffop");
    let op = DiffOp {
        lower: lower.output().cloned(),
        upper: upper.output().cloned(),
    };
    let vertex = Vertex::new(Kind::Diff(op), constraints);
    lower.with_output(Some(Output::new(vertex, 0, None)))
}

impl MergeOp {
    pub(crate) fn marshal(
        &self,
        m: &Marshaller<'_>,
        constraints: &Constraints,
    ) -> Result<Marshalled, BuildError> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            inputs.extend(m.input(input)?);
        }
        let inner = (0..inputs.len())
            .map(|at| pb::MergeInput {
                input: i64::try_from(at).unwrap_or(i64::MAX),
            })
            .collect();
        let op = pb::op::Op::Merge(pb::MergeOp { inputs: inner });
        Ok(encode::finish(inputs, op, None, constraints, &[]))
    }
}

impl DiffOp {
    pub(crate) fn marshal(
        &self,
        m: &Marshaller<'_>,
        constraints: &Constraints,
    ) -> Result<Marshalled, BuildError> {
        let mut inputs = Vec::with_capacity(2);
        let mut side = |output: &Option<Output>| -> Result<i64, BuildError> {
            let Some(output) = output.as_ref().map(resolve).transpose()?.flatten() else {
                return Ok(EMPTY);
            };
            inputs.extend(m.input(output)?);
            Ok(i64::try_from(inputs.len()).unwrap_or(i64::MAX) - 1)
        };
        let lower = side(&self.lower)?;
        let upper = side(&self.upper)?;
        let op = pb::op::Op::Diff(pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: lower }),
            upper: Some(pb::UpperDiffInput { input: upper }),
        });
        Ok(encode::finish(inputs, op, None, constraints, &[]))
    }
}
