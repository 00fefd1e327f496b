//! What steps are limited to, and what they are told about it.

use super::daemon::{Daemon, Setting};
use super::rig::{Rig, Verdict, ensure};
use super::{Case, On};

pub(super) const CASES: &[Case] = &[Case {
    sentence: "a step has the memory and the processes that the daemon gives it, and is told why the kernel ended it",
    on: On::Ours("its daemon limits no steps"),
    run: limited,
}];

const TABLES: &str = "[worker.oci.steps]\n  memory = \"48MB\"\n  pids = 20\n  cpus = 1.5\n";

fn limited(rig: &Rig<'_>) -> Verdict {
    let setting = Setting {
        tables: TABLES.to_owned(),
        ..Setting::default()
    };
    let daemon = Daemon::with(rig, setting)?;
    let build = |run: &str| {
        let text = format!("FROM busybox\nRUN {run}\n");
        let context = rig.context("project", &[("Dockerfile", &text)])?;
        daemon.build(&context, &[])
    };
    let modest = build("echo fine")?;
    ensure(modest.ok(), || {
        format!("a small step fails: {}", modest.tail())
    })?;
    // awk doubles a text until the kernel ends it.
    let greedy = build(
        "awk 'BEGIN { s = \"0123456789abcdef\"; while (length(s) < 1000000000) s = s s; print length(s) }'",
    )?;
    ensure(!greedy.ok(), || {
        "a step has more memory than its limit".to_owned()
    })?;
    let output = greedy.progress.logs.clone() + &greedy.tail();
    for words in [
        "the kernel ended a process of this step because there was no memory left: the step had 48 MiB and is limited to 48",
        "did not complete successfully: cannot allocate memory",
    ] {
        ensure(output.contains(words), || {
            format!("no {words:?} in {output}")
        })?;
    }
    let forking = build("i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all $i")?;
    ensure(!forking.progress.logs.contains("all 40"), || {
        "a step starts more processes than its limit".to_owned()
    })
}
