//! Structural rules of one op, independent of the rest of the graph.
//!
//! Ops come from clients. What passes here has its parts present and its indices inside its inputs, so that the code
//! that runs it need not check again.

use oci::ErrorKind;

use crate::pb;

/// Marks an input with no content.
pub const EMPTY: i64 = -1;
/// Index of an output that no other op can use.
pub const SKIP_OUTPUT: i64 = -1;

/// Largest number of inputs of one op.
pub const MAX_INPUTS: usize = 4096;

/// Why an op is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOp {
    /// The op lacks a part that its kind needs.
    #[error("invalid {kind} op with no {missing}")]
    Missing {
        /// Kind of op.
        kind: &'static str,
        /// Name of the missing part.
        missing: &'static str,
    },
    /// A required message is missing.
    #[error("invalid nil {what}")]
    Nil {
        /// Name of the message.
        what: &'static str,
    },
    /// A source op has inputs.
    #[error("invalid source op with {count} inputs")]
    SourceInputs {
        /// Number of inputs.
        count: usize,
    },
    /// The op has more than [`MAX_INPUTS`] inputs.
    #[error("invalid op with {count} inputs: at most {MAX_INPUTS} are accepted")]
    TooManyInputs {
        /// Number of inputs.
        count: usize,
    },
    /// A merge or diff op refers to another number of inputs than its vertex has.
    #[error("invalid {kind} op with {inner} inner inputs and {outer} outer inputs")]
    InputCount {
        /// Kind of op.
        kind: &'static str,
        /// Number of inputs that the op refers to.
        inner: usize,
        /// Number of inputs of the vertex.
        outer: usize,
    },
    /// A diff without lower or upper.
    #[error("invalid diff op with nil lower or upper input")]
    DiffSides,
    /// A passthrough output refers to no input.
    #[error("invalid passthrough output input index {index}")]
    PassthroughOutput {
        /// Index in the output.
        index: i64,
    },
    /// The index is outside of the op's inputs.
    #[error("invalid {what} index {index}")]
    Index {
        /// Name of the field that has the index.
        what: &'static str,
        /// Value of the index.
        index: i64,
    },
}

impl InvalidOp {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. }
            | Self::Nil { .. }
            | Self::SourceInputs { .. }
            | Self::InputCount { .. }
            | Self::DiffSides
            | Self::PassthroughOutput { .. }
            | Self::Index { .. } => ErrorKind::Invalid,
            Self::TooManyInputs { .. } => ErrorKind::Hostile,
        }
    }
}

/// Checks `op`.
pub fn op(op: &pb::Op) -> Result<(), InvalidOp> {
    let outer = op.inputs.len();
    // DIFFERS: BuildKit takes any number, and what it costs grows with the square of it.
    if outer > MAX_INPUTS {
        return Err(InvalidOp::TooManyInputs { count: outer });
    }
    match &op.op {
        None => Ok(()),
        Some(pb::op::Op::Source(_)) => {
            if outer != 0 {
                return Err(InvalidOp::SourceInputs { count: outer });
            }
            Ok(())
        }
        Some(pb::op::Op::Exec(exec)) => exec_op(exec, outer),
        Some(pb::op::Op::File(file)) => file_op(file, outer),
        Some(pb::op::Op::Build(build)) => {
            if build.builder != EMPTY {
                index("build builder", build.builder, outer)?;
            }
            for input in build.inputs.values() {
                index("build input", input.input, outer)?;
            }
            Ok(())
        }
        Some(pb::op::Op::Merge(merge)) => {
            if merge.inputs.len() != outer {
                return Err(InvalidOp::InputCount {
                    kind: "merge",
                    inner: merge.inputs.len(),
                    outer,
                });
            }
            merge
                .inputs
                .iter()
                .try_for_each(|input| index("merge input", input.input, outer))
        }
        Some(pb::op::Op::Diff(diff)) => {
            let (Some(lower), Some(upper)) = (&diff.lower, &diff.upper) else {
                return Err(InvalidOp::DiffSides);
            };
            let sides = [lower.input, upper.input];
            let inner = sides.iter().filter(|&&side| side != EMPTY).count();
            if inner != outer {
                return Err(InvalidOp::InputCount {
                    kind: "diff",
                    inner,
                    outer,
                });
            }
            sides
                .into_iter()
                .filter(|&side| side != EMPTY)
                .try_for_each(|side| index("diff input", side, outer))
        }
        Some(pb::op::Op::Passthrough(passthrough)) => {
            if passthrough.id.is_empty() {
                return Err(InvalidOp::Missing {
                    kind: "passthrough",
                    missing: "id",
                });
            }
            if passthrough.outputs.is_empty() {
                return Err(InvalidOp::Missing {
                    kind: "passthrough",
                    missing: "outputs",
                });
            }
            match passthrough
                .outputs
                .iter()
                .find(|&&i| index("", i, outer).is_err())
            {
                Some(&index) => Err(InvalidOp::PassthroughOutput { index }),
                None => Ok(()),
            }
        }
    }
}

fn exec_op(exec: &pb::ExecOp, outer: usize) -> Result<(), InvalidOp> {
    let missing = |missing| InvalidOp::Missing {
        kind: "exec",
        missing,
    };
    let meta = exec.meta.as_ref().ok_or(missing("meta"))?;
    if meta.args.is_empty() {
        return Err(missing("args"));
    }
    if exec.mounts.is_empty() {
        return Err(missing("mounts"));
    }
    if !exec.mounts.iter().any(|mount| mount.dest == "/") {
        return Err(missing("rootfs"));
    }
    for mount in &exec.mounts {
        if mount.input != EMPTY {
            index("mount input", mount.input, outer)?;
        }
        if mount.output != SKIP_OUTPUT {
            index("mount output", mount.output, exec.mounts.len())?;
        }
    }
    Ok(())
}

fn file_op(file: &pb::FileOp, outer: usize) -> Result<(), InvalidOp> {
    if file.actions.is_empty() {
        return Err(InvalidOp::Missing {
            kind: "file",
            missing: "actions",
        });
    }
    for (at, action) in file.actions.iter().enumerate() {
        if action.action.is_none() {
            return Err(InvalidOp::Nil {
                what: "file action",
            });
        }
        // An action may use the op's inputs and the results of the actions before it.
        let reach = outer + at;
        if action.input != EMPTY {
            index("file action input", action.input, reach)?;
        }
        if action.secondary_input != EMPTY {
            index("file action secondary input", action.secondary_input, reach)?;
        }
        if action.output != SKIP_OUTPUT {
            index("file action output", action.output, file.actions.len())?;
        }
    }
    Ok(())
}

fn index(what: &'static str, index: i64, count: usize) -> Result<(), InvalidOp> {
    match usize::try_from(index) {
        Ok(at) if at < count => Ok(()),
        _ => Err(InvalidOp::Index { what, index }),
    }
}
