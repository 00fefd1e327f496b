//! What an op of a client must have, one rule at a time.

use llb::pb;
use llb::validate::{MAX_INPUTS, op as check};

fn op(inputs: usize, op: pb::op::Op) -> pb::Op {
    pb::Op {
        inputs: vec![pb::Input::default(); inputs],
        op: Some(op),
        ..pb::Op::default()
    }
}

fn exec(inputs: usize, change: impl FnOnce(&mut pb::ExecOp)) -> pb::Op {
    let mut exec = pb::ExecOp {
        meta: Some(pb::Meta {
            args: vec!["/bin/true".into()],
            ..pb::Meta::default()
        }),
        mounts: vec![pb::Mount {
            dest: "/".into(),
            ..pb::Mount::default()
        }],
        ..pb::ExecOp::default()
    };
    change(&mut exec);
    op(inputs, pb::op::Op::Exec(exec))
}

fn action(input: i64, secondary_input: i64, output: i64) -> pb::FileAction {
    pb::FileAction {
        input,
        secondary_input,
        output,
        action: Some(pb::file_action::Action::Mkdir(
            pb::FileActionMkDir::default(),
        )),
    }
}

fn file(inputs: usize, actions: Vec<pb::FileAction>) -> pb::Op {
    op(inputs, pb::op::Op::File(pb::FileOp { actions }))
}

fn merge(inputs: usize, indexes: &[i64]) -> pb::Op {
    let inner = indexes.iter().map(|&input| pb::MergeInput { input });
    let merge = pb::MergeOp {
        inputs: inner.collect(),
    };
    op(inputs, pb::op::Op::Merge(merge))
}

fn diff(inputs: usize, lower: Option<i64>, upper: Option<i64>) -> pb::Op {
    let diff = pb::DiffOp {
        lower: lower.map(|input| pb::LowerDiffInput { input }),
        upper: upper.map(|input| pb::UpperDiffInput { input }),
    };
    op(inputs, pb::op::Op::Diff(diff))
}

fn passthrough(inputs: usize, id: &str, outputs: &[i64]) -> pb::Op {
    let passthrough = pb::PassthroughOp {
        id: id.into(),
        outputs: outputs.to_vec(),
    };
    op(inputs, pb::op::Op::Passthrough(passthrough))
}

fn build(inputs: usize, builder: i64, input: Option<i64>) -> pb::Op {
    let mut build = pb::BuildOp {
        builder,
        ..pb::BuildOp::default()
    };
    if let Some(input) = input {
        build.inputs.insert("x".into(), pb::BuildInput { input });
    }
    op(inputs, pb::op::Op::Build(build))
}

#[test]
fn each_op_has_what_it_needs_and_points_at_what_there_is() {
    let source = || pb::op::Op::Source(pb::SourceOp::default());
    let mut no_action = action(-1, -1, -1);
    no_action.action = None;
    let cases = [
        (
            "a head",
            pb::Op {
                inputs: vec![pb::Input::default()],
                ..pb::Op::default()
            },
            "",
        ),
        ("a source", op(0, source()), ""),
        (
            "a source with inputs",
            op(2, source()),
            "invalid source op with 2 inputs",
        ),
        ("an exec", exec(1, |_| {}), ""),
        (
            "an exec without meta",
            exec(1, |e| e.meta = None),
            "invalid exec op with no meta",
        ),
        (
            "an exec without args",
            exec(1, |e| e.meta = Some(pb::Meta::default())),
            "invalid exec op with no args",
        ),
        (
            "an exec without mounts",
            exec(1, |e| e.mounts.clear()),
            "invalid exec op with no mounts",
        ),
        (
            "an exec without a root",
            exec(1, |e| e.mounts[0].dest = "/x".into()),
            "invalid exec op with no rootfs",
        ),
        (
            "a mount of nothing",
            exec(0, |e| e.mounts[0].input = -1),
            "",
        ),
        (
            "a mount of what is not there",
            exec(1, |e| e.mounts[0].input = 1),
            "invalid mount input index 1",
        ),
        (
            "a mount of a negative input",
            exec(1, |e| e.mounts[0].input = -2),
            "invalid mount input index -2",
        ),
        (
            "a mount without output",
            exec(1, |e| e.mounts[0].output = -1),
            "",
        ),
        (
            "more outputs than mounts",
            exec(1, |e| e.mounts[0].output = 1),
            "invalid mount output index 1",
        ),
        ("a file op", file(1, vec![action(0, -1, 0)]), ""),
        (
            "no actions",
            file(1, vec![]),
            "invalid file op with no actions",
        ),
        (
            "an action that is none",
            file(1, vec![no_action]),
            "invalid nil file action",
        ),
        (
            "an action on the one before",
            file(1, vec![action(0, -1, -1), action(1, -1, 0)]),
            "",
        ),
        (
            "an action on itself",
            file(1, vec![action(1, -1, 0)]),
            "invalid file action input index 1",
        ),
        (
            "a copy from itself",
            file(1, vec![action(0, 1, 0)]),
            "invalid file action secondary input index 1",
        ),
        (
            "more outputs than actions",
            file(1, vec![action(0, -1, 1)]),
            "invalid file action output index 1",
        ),
        ("a merge", merge(2, &[1, 0]), ""),
        (
            "a merge with less",
            merge(2, &[0]),
            "invalid merge op with 1 inner inputs and 2 outer inputs",
        ),
        (
            "a merge of what is not there",
            merge(2, &[0, 2]),
            "invalid merge input index 2",
        ),
        ("a diff", diff(2, Some(0), Some(1)), ""),
        ("a diff from nothing", diff(1, Some(-1), Some(0)), ""),
        ("a diff of nothing", diff(0, Some(-1), Some(-1)), ""),
        (
            "a diff without a side",
            diff(1, None, Some(0)),
            "invalid diff op with nil lower or upper input",
        ),
        (
            "a diff with more",
            diff(3, Some(0), Some(1)),
            "invalid diff op with 2 inner inputs and 3 outer inputs",
        ),
        (
            "a diff of what is not there",
            diff(2, Some(0), Some(2)),
            "invalid diff input index 2",
        ),
        ("a passthrough", passthrough(2, "x", &[1, 0, 1]), ""),
        (
            "a passthrough without id",
            passthrough(1, "", &[0]),
            "invalid passthrough op with no id",
        ),
        (
            "a passthrough of nothing",
            passthrough(1, "x", &[]),
            "invalid passthrough op with no outputs",
        ),
        (
            "a passthrough of what is not there",
            passthrough(1, "x", &[0, -1]),
            "invalid passthrough output input index -1",
        ),
        ("a build", build(1, 0, Some(0)), ""),
        ("a build by the built-in frontend", build(0, -1, None), ""),
        (
            "a build by what is not there",
            build(1, 1, None),
            "invalid build builder index 1",
        ),
        (
            "a build of what is not there",
            build(1, 0, Some(1)),
            "invalid build input index 1",
        ),
        (
            "as many inputs as can be",
            merge(MAX_INPUTS, &vec![0; MAX_INPUTS]),
            "",
        ),
        (
            "more inputs than can be",
            merge(MAX_INPUTS + 1, &vec![0; MAX_INPUTS + 1]),
            "invalid op with 4097 inputs: at most 4096 are accepted",
        ),
    ];
    for (what, op, want) in cases {
        let answer = check(&op).err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(answer, want, "{what}");
    }
}
