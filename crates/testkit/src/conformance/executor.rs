//! [`Executor`]: one process in one container, and further ones beside it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use executor::{ContainerId, ContainerSpec, ExecError, Executor, Output, ProcessIo, ProcessSpec};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Makes the spec of a container in a root filesystem of its own that has a busybox under its names and a user `build` (1000:100); the
/// spec's process is `/bin/sh -c SCRIPT` with `PATH=/usr/bin:/bin`.
pub type MakeSpec<'a> = &'a (dyn Fn(&str) -> ContainerSpec + Sync);

/// Runs every case, one after the other.
pub async fn all(executor: &dyn Executor, shell: MakeSpec<'_>) {
    an_exit_with_any_code_is_told(executor, shell).await;
    output_is_kept_apart_and_whole(executor, shell).await;
    input_ends_with_its_source(executor, shell).await;
    the_process_has_its_words(executor, shell).await;
    an_unknown_program_or_user_is_an_error(executor, shell).await;
    start_is_told_before_the_end(executor, shell).await;
    further_processes_run_in_the_container(executor, shell).await;
    a_container_that_is_not_there_has_no_further_processes(executor).await;
    an_id_in_use_is_refused(executor, shell).await;
    a_dropped_run_ends_its_container(executor, shell).await;
}

fn collect(into: &Arc<Mutex<Vec<u8>>>) -> Output {
    let into = Arc::clone(into);
    Output::sink(move |chunk: bytes::Bytes| into.lock().extend_from_slice(&chunk))
}

/// Runs a container to its end: exit code, output and errors.
async fn run(
    executor: &dyn Executor,
    spec: ContainerSpec,
    input: &'static str,
) -> (u32, String, String) {
    let (out, err) = (Arc::default(), Arc::default());
    let io = ProcessIo {
        stdin: Some(Box::new(input.as_bytes())),
        stdout: collect(&out),
        stderr: collect(&err),
        ..ProcessIo::default()
    };
    let status = executor.run(spec, io, None).await.unwrap();
    let text = |bytes: &Mutex<Vec<u8>>| String::from_utf8_lossy(&bytes.lock()).into_owned();
    (status.code, text(&out), text(&err))
}

async fn an_exit_with_any_code_is_told(executor: &dyn Executor, shell: MakeSpec<'_>) {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
    ] {
        let mut spec = shell(script);
        // The first process of a container takes no signal that it has not asked for, so a child is killed.
        if script.starts_with("kill") {
            spec = shell(&format!("sh -c '{script}'; exit $?"));
        }
        assert_eq!(run(executor, spec, "").await.0, code, "{script}");
    }
}

async fn output_is_kept_apart_and_whole(executor: &dyn Executor, shell: MakeSpec<'_>) {
    let spec = shell("echo out; echo err >&2; head -c 300000 /dev/zero");
    let (code, out, err) = run(executor, spec, "").await;
    assert_eq!((code, out.len(), err.as_str()), (0, 300_004, "err\n"));
    assert!(out.starts_with("out\n"));
    let spec = shell("sleep 0.2; echo late; exit 3");
    assert_eq!(
        run(executor, spec, "").await,
        (3, "late\n".into(), String::new())
    );
}

async fn input_ends_with_its_source(executor: &dyn Executor, shell: MakeSpec<'_>) {
    let (code, out, _) = run(executor, shell("cat; echo end"), "typed\n").await;
    assert_eq!((code, out.as_str()), (0, "typed\nend\n"));
}

async fn the_process_has_its_words(executor: &dyn Executor, shell: MakeSpec<'_>) {
    let mut spec = shell("id -u; id -g; pwd; echo \"$A|$B\"; hostname");
    spec.process.user = "build".into();
    spec.process.cwd = "/made/here".into();
    spec.process.env.extend(["A=one two".into(), "B=".into()]);
    spec.hostname = "box".into();
    let (code, out, err) = run(executor, spec, "").await;
    assert_eq!(
        (code, out.as_str()),
        (0, "1000\n100\n/made/here\none two|\nbox\n"),
        "{err}"
    );
}

async fn an_unknown_program_or_user_is_an_error(executor: &dyn Executor, shell: MakeSpec<'_>) {
    let mut spec = shell("");
    spec.process.args = vec!["nothing-of-this-name".into()];
    let error = executor
        .run(spec, ProcessIo::default(), None)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("executable file not found in $PATH"),
        "{error}"
    );
    let mut spec = shell("true");
    spec.process.user = "nobody-of-this-name".into();
    let error = executor
        .run(spec, ProcessIo::default(), None)
        .await
        .unwrap_err();
    assert!(matches!(error, ExecError::User(_)), "{error:?}");
    let mut spec = shell("true");
    spec.process.args = Vec::new();
    let error = executor
        .run(spec, ProcessIo::default(), None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ExecError::Invalid { .. } | ExecError::Start(_)),
        "{error:?}"
    );
}

async fn start_is_told_before_the_end(executor: &dyn Executor, shell: MakeSpec<'_>) {
    let (started, is_started) = oneshot::channel();
    // Ends when its input does, which is after the start was told.
    let (input, theirs) = tokio::io::duplex(64);
    let io = ProcessIo {
        stdin: Some(Box::new(theirs)),
        ..ProcessIo::default()
    };
    let run = executor.run(shell("cat"), io, Some(started));
    let close = async {
        is_started.await.unwrap();
        drop(input);
    };
    let (status, ()) = tokio::join!(run, close);
    assert_eq!(status.unwrap().code, 0);
    // Whoever wanted to know may be gone.
    let (started, is_started) = oneshot::channel();
    drop(is_started);
    let status = executor
        .run(shell("exit 4"), ProcessIo::default(), Some(started))
        .await;
    assert_eq!(status.unwrap().code, 4);
}

fn process(args: &[&str]) -> ProcessSpec {
    ProcessSpec {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..ProcessSpec::default()
    }
}

/// A container that runs until its input ends, while `work` is done with its id.
async fn beside<T>(
    executor: &dyn Executor,
    spec: ContainerSpec,
    work: impl AsyncFnOnce(&ContainerId) -> T,
) -> T {
    let id = spec.id.clone();
    let (started, is_started) = oneshot::channel();
    let (input, theirs) = tokio::io::duplex(64);
    let io = ProcessIo {
        stdin: Some(Box::new(theirs)),
        ..ProcessIo::default()
    };
    let run = executor.run(spec, io, Some(started));
    let work = async {
        is_started.await.unwrap();
        let answer = work(&id).await;
        drop(input);
        answer
    };
    let (status, answer) = tokio::join!(run, work);
    status.unwrap();
    answer
}

async fn further_processes_run_in_the_container(executor: &dyn Executor, shell: MakeSpec<'_>) {
    let mut spec = shell("echo first > /tmp/x; cat");
    spec.process.env.push("A=1".into());
    beside(executor, spec, async |id| {
        let out = Arc::default();
        let io = ProcessIo {
            stdin: Some(Box::new(&b"typed\n"[..])),
            stdout: collect(&out),
            ..ProcessIo::default()
        };
        let script = "while ! test -s /tmp/x; do sleep 0.01; done; cat /tmp/x -; echo $A; exit 5";
        let status = executor
            .exec(id, process(&["sh", "-c", script]), io)
            .await
            .unwrap();
        assert_eq!(status.code, 5);
        assert_eq!(String::from_utf8_lossy(&out.lock()), "first\ntyped\n1\n");
        let mut other = process(&["sh", "-c", "test \"$(id -u):$B:$(pwd)\" = 1000:2:/tmp"]);
        other.user = "build".into();
        other.env = vec!["PATH=/usr/bin:/bin".into(), "B=2".into()];
        other.cwd = "/tmp".into();
        let status = executor
            .exec(id, other, ProcessIo::default())
            .await
            .unwrap();
        assert_eq!(status.code, 0);
        let error = executor
            .exec(id, process(&["nothing-of-this-name"]), ProcessIo::default())
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("executable file not found in $PATH"),
            "{error}"
        );
    })
    .await;
}

async fn a_container_that_is_not_there_has_no_further_processes(executor: &dyn Executor) {
    let id = ContainerId::new("nothing").unwrap();
    let error = executor
        .exec(&id, process(&["true"]), ProcessIo::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ExecError::NotFound { .. }), "{error:?}");
}

async fn an_id_in_use_is_refused(executor: &dyn Executor, shell: MakeSpec<'_>) {
    beside(executor, shell("cat"), async |id| {
        let mut second = shell("true");
        second.id = id.clone();
        let error = executor
            .run(second, ProcessIo::default(), None)
            .await
            .unwrap_err();
        assert!(matches!(error, ExecError::Exists { .. }), "{error:?}");
    })
    .await;
}

async fn a_dropped_run_ends_its_container(executor: &dyn Executor, shell: MakeSpec<'_>) {
    let spec = shell("cat");
    let id = spec.id.clone();
    let (started, is_started) = oneshot::channel();
    let (_input, theirs) = tokio::io::duplex(64);
    let io = ProcessIo {
        stdin: Some(Box::new(theirs)),
        ..ProcessIo::default()
    };
    {
        let mut run = pin!(executor.run(spec, io, Some(started)));
        let mut is_started = pin!(is_started);
        std::future::poll_fn(|cx| {
            assert!(
                run.as_mut().poll(cx).is_pending(),
                "it runs until its input ends"
            );
            match is_started.as_mut().poll(cx) {
                Poll::Ready(started) => {
                    started.unwrap();
                    Poll::Ready(())
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }
    let error = executor
        .exec(&id, process(&["true"]), ProcessIo::default())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ExecError::NotFound { .. } | ExecError::Stopped { .. }
        ),
        "{error:?}"
    );
    // The executor goes on. When the name is free again is not promised: a runtime tidies up behind the caller's back.
    let status = executor
        .run(shell("exit 6"), ProcessIo::default(), None)
        .await;
    assert_eq!(status.unwrap().code, 6);
}
