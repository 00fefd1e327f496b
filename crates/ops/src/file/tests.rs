use pb::file_action::Action;
use store::Config;

use super::*;

/// Number of actions whose recursion would overflow the stack.
const LONG_CHAIN: usize = 5_000;
/// A quarter of the smallest stack of a thread.
const STACK_BYTES: usize = 512 << 10;

fn mkdir(input: usize, path: &str, output: i64) -> pb::FileAction {
    pb::FileAction {
        input: i64::try_from(input).unwrap_or(-1),
        secondary_input: -1,
        output,
        action: Some(Action::Mkdir(pb::FileActionMkDir {
            path: path.to_owned(),
            mode: 0o755,
            make_parents: true,
            timestamp: -1,
            ..pb::FileActionMkDir::default()
        })),
    }
}

/// Performs actions on scratch, with a small stack.
fn perform(actions: Vec<pb::FileAction>) -> Result<usize, String> {
    let dir = tempfile::tempdir().expect("the folder can be made");
    let store = Store::open(Config::new(dir.path())).expect("the store opens");
    let op = pb::FileOp { actions };
    let run = move || {
        let run = Run::new(&store, &op, vec![None], "actions").map_err(|e| e.to_string())?;
        let results = run.outputs().map_err(|e| e.to_string())?;
        let result = results.first().cloned().flatten().expect("there is one");
        let root = result.root().expect("it is mounted");
        Ok(root
            .dir("/")
            .expect("it is there")
            .entries()
            .expect("it is readable")
            .len())
    };
    let thread = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(run);
    thread
        .expect("a thread starts")
        .join()
        .expect("it does not panic")
}

#[test]
fn long_chains_of_actions_need_no_stack_and_loops_are_refused() {
    testkit::requires!(root);
    // The input has index 0, so the action at `n` has the index `n + 1`.
    let chain = |last: usize| (0..last).map(|n| mkdir(n, &format!("/d{}", n % 50), -1));
    let backwards = (0..LONG_CHAIN).map(|n| mkdir(n + 2, "/d", -1));
    for (case, actions, want) in [
        (
            "each on the one before",
            chain(LONG_CHAIN)
                .chain([mkdir(LONG_CHAIN, "/last", 0)])
                .collect(),
            Ok(51),
        ),
        (
            "each on the one after",
            [mkdir(2, "/last", 0)]
                .into_iter()
                .chain(backwards.skip(1))
                .chain([mkdir(0, "/first", -1)])
                .collect(),
            Ok(3),
        ),
        (
            "a loop of all",
            chain(LONG_CHAIN)
                .skip(1)
                .chain([mkdir(1, "/x", 0)])
                .collect(),
            Err("loop from index 1"),
        ),
        (
            "on itself",
            vec![mkdir(1, "/x", 0)],
            Err("loop from index 1"),
        ),
        (
            "a loop of two",
            vec![mkdir(2, "/x", -1), mkdir(1, "/y", 0)],
            Err("loop from index"),
        ),
    ] {
        match (perform(actions), want) {
            (Ok(actual), Ok(want)) => assert_eq!(actual, want, "{case}"),
            (Err(actual), Err(want)) => assert!(actual.contains(want), "{case}: {actual}"),
            (actual, want) => panic!("{case}: {actual:?}, not {want:?}"),
        }
    }
}
