//! What ran before does not run again, and what is independent runs at once.

use std::path::Path;
use std::time::Duration;

use super::daemon::{Built, Daemon};
use super::image::Image;
use super::origin::Origin;
use super::progress::{Progress, Step};
use super::rig::{Rig, Trouble, Verdict, ensure, failed, within};
use super::{Case, On};
use crate::process::at;

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "a build of which nothing changed is cached whole and transfers next to nothing",
        on: On::Both,
        run: unchanged,
    },
    Case {
        sentence: "a changed file runs only the steps that see it",
        on: On::Both,
        run: changed_file,
    },
    Case {
        sentence: "what was built is cached after a restart, also after a kill",
        on: On::Both,
        run: restarted,
    },
    Case {
        sentence: "two clients that build the same at once run each step once",
        on: On::Both,
        run: two_clients,
    },
    Case {
        sentence: "a client that leaves does not take along the step that another waits for",
        on: On::Both,
        run: one_leaves,
    },
    Case {
        sentence: "independent stages run at the same time",
        on: On::Both,
        run: at_once,
    },
];

const WHEEL: &str = "FROM busybox AS builder\n\
    COPY requirements.txt /\n\
    RUN sleep 0.5 && cp /requirements.txt /wheels\n\
    FROM busybox\n\
    COPY --from=builder /wheels /wheels\n\
    RUN cat /wheels > /installed\n\
    COPY app/ /app/\n\
    RUN cat /app/main.py > /seen\n";

fn project(rig: &Rig<'_>) -> Result<std::path::PathBuf, Trouble> {
    let large = "a line of a large file\n".repeat(200_000);
    let files = [
        ("Dockerfile", WHEEL),
        ("requirements.txt", "markupsafe\n"),
        ("app/main.py", "print(1)\n"),
        ("app/data.txt", &large),
    ];
    Ok(rig.context("project", &files)?)
}

/// Bytes that came from the client.
fn transferred(progress: &Progress) -> u64 {
    let sizes = progress
        .moved
        .iter()
        .filter(|(name, _)| name.contains("transferring"));
    sizes.map(|(_, bytes)| bytes).sum()
}

fn all_cached(built: &Built) -> Verdict {
    let steps = built.progress.steps_of_dockerfile();
    let ran: Vec<&&Step> = steps
        .iter()
        .filter(|step| !step.cached && !step.name.contains("FROM"))
        .collect();
    ensure(!steps.is_empty() && ran.is_empty(), || {
        format!("every step should be cached:\n{}", built.progress.summary())
    })
}

fn unchanged(rig: &Rig<'_>) -> Verdict {
    let context = project(rig)?;
    let daemon = Daemon::start(rig)?;
    let first = daemon.build(&context, &[])?.success("the first build")?;
    ensure(transferred(&first.progress) > 4_000_000, || {
        format!("the first build tells of {:?}", first.progress.moved)
    })?;
    let again = daemon.build(&context, &[])?.success("the second build")?;
    all_cached(&again)?;
    let bytes = transferred(&again.progress);
    ensure(bytes < 2_000, || {
        format!("{bytes} bytes were transferred: {:?}", again.progress.moved)
    })?;
    // The image of a cached build is the image of the first. (Its archive names the second in which it was made.)
    let image = |name: &str| {
        let archive = daemon.archive(&context, &format!("{name}.tar"))?;
        Image::open(rig, &archive, name)
    };
    let (one, two) = (image("one")?, image("two")?);
    let same = one.config == two.config && one.layers == two.layers;
    ensure(same, || "two exports of the same build differ".to_owned())
}

fn changed_file(rig: &Rig<'_>) -> Verdict {
    let context = project(rig)?;
    let daemon = Daemon::start(rig)?;
    daemon.build(&context, &[])?.success("the first build")?;
    rig.context("project", &[("app/main.py", "print(2)\n")])?;
    let built = daemon.build(&context, &[])?.success("the second build")?;
    for (part, cached) in [
        ("RUN sleep", true),
        ("cat /wheels", true),
        ("COPY app/", false),
        ("cat /app/main.py", false),
    ] {
        let steps = built.progress.ended(part);
        ensure(
            steps.len() == 1 && steps.iter().all(|step| step.cached == cached),
            || {
                format!(
                    "{part} should {}be cached:\n{}",
                    if cached { "" } else { "not " },
                    built.progress.summary()
                )
            },
        )?;
    }
    let bytes = transferred(&built.progress);
    ensure(bytes < 10_000, || {
        format!("{bytes} bytes were transferred for one small file")
    })?;
    // A file that nothing copies changes nothing.
    rig.context("project", &[("notes.txt", "not copied\n")])?;
    all_cached(&daemon.build(&context, &[])?.success("the third build")?)
}

fn restarted(rig: &Rig<'_>) -> Verdict {
    let context = project(rig)?;
    let mut daemon = Daemon::start(rig)?;
    daemon.build(&context, &[])?.success("the first build")?;
    for hard in [false, true] {
        daemon.restart(hard)?;
        let built = daemon
            .build(&context, &[])?
            .success("a build after a restart")?;
        all_cached(&built)?;
    }
    // Killed as soon as the client has its answer.
    rig.context("project", &[("app/main.py", "print(3)\n")])?;
    daemon.build(&context, &[])?.success("a changed build")?;
    daemon.restart(true)?;
    all_cached(
        &daemon
            .build(&context, &[])?
            .success("a build after a kill")?,
    )?;
    daemon.goes_on()
}

/// Steps that tell a server of the harness that they run.
fn counted(origin: &Origin) -> String {
    let port = origin.port;
    let tell = |name: &str| format!("wget -q -O /dev/null http://127.0.0.1:{port}/{name}");
    format!(
        "FROM busybox AS a\nCOPY input /\nRUN {} && sleep 0.7 && echo a > /a\n\
         FROM busybox AS b\nCOPY input /\nRUN {} && sleep 0.7 && echo b > /b\n\
         FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN {}\n",
        tell("a"),
        tell("b"),
        tell("c")
    )
}

fn two_clients(rig: &Rig<'_>) -> Verdict {
    let origin = Origin::counter()?;
    let text = counted(&origin);
    let files = [("Dockerfile", text.as_str()), ("input", "the same\n")];
    // Two folders, as two machines would have them.
    let contexts = [rig.context("one", &files)?, rig.context("two", &files)?];
    let daemon = Daemon::start(rig)?;
    let running: Result<Vec<_>, _> = contexts
        .iter()
        .map(|context| daemon.begin(context, &[]))
        .collect();
    for client in running? {
        Built::wait(client)?.success("one of two clients")?;
    }
    let counts = origin.counts();
    let once = ["/a", "/b", "/c"]
        .iter()
        .all(|path| counts.get(*path) == Some(&1));
    ensure(once && counts.len() == 3, || {
        format!("steps ran so often: {counts:?}")
    })
}

fn one_leaves(rig: &Rig<'_>) -> Verdict {
    let origin = Origin::counter()?;
    let text = format!(
        "FROM busybox\nRUN wget -q -O /dev/null http://127.0.0.1:{}/begun && sleep 2 && echo done > /done\n",
        origin.port
    );
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let daemon = Daemon::start(rig)?;
    let mut first = daemon.begin(&context, &[])?;
    if !within(Duration::from_secs(20), || origin.when("/begun").is_some()) {
        let _gone_already = first.child.kill();
        return failed(format!("the step does not begin: {}", first.so_far()));
    }
    let second = daemon.begin(&context, &[])?;
    let joined = within(Duration::from_secs(1), || second.so_far().contains("wget"));
    first
        .child
        .kill()
        .map_err(at("killing", Path::new("a client")))?;
    let _reaped = first.child.wait();
    let built = Built::wait(second)?.success("the client that stayed")?;
    ensure(joined, || {
        format!(
            "the second client did not see the step:\n{}",
            built.progress.summary()
        )
    })?;
    let counts = origin.counts();
    ensure(counts.get("/begun") == Some(&1), || {
        format!("the step ran so often: {counts:?}")
    })
}

fn at_once(rig: &Rig<'_>) -> Verdict {
    let stages = ["a", "b", "c", "d"];
    let mut text = String::new();
    for stage in stages {
        text.push_str(&format!(
            "FROM busybox AS {stage}\nRUN sleep 1.2 && echo {stage} > /{stage}\n"
        ));
    }
    text.push_str("FROM scratch\n");
    for stage in stages {
        text.push_str(&format!("COPY --from={stage} /{stage} /\n"));
    }
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let daemon = Daemon::start(rig)?;
    let built = daemon.build(&context, &[])?.success("the build")?;
    let steps = built.progress.ended("RUN sleep");
    let latest_start = steps
        .iter()
        .filter_map(|step| step.started)
        .fold(f64::MIN, f64::max);
    let earliest_end = steps
        .iter()
        .filter_map(|step| step.completed)
        .fold(f64::MAX, f64::min);
    ensure(
        steps.len() == stages.len() && latest_start < earliest_end,
        || {
            format!(
                "the last begins at {latest_start}, the first ends at {earliest_end}:\n{}",
                built.progress.summary()
            )
        },
    )
}
