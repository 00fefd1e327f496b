//! Steps whose build is over: nothing of them is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::rig::{Rig, Trouble, Verdict, ensure, failed, mounts_below, processes_with, within};
use super::{Case, On};
use crate::process::at;

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "a step cannot outlive its build",
        on: On::Both,
        run: outlive,
    },
    Case {
        sentence: "a killed client takes its step along within two seconds and leaves nothing",
        on: On::Both,
        run: killed_client,
    },
    Case {
        sentence: "an interrupted client takes its step along within two seconds and leaves nothing",
        on: On::Both,
        run: interrupted_client,
    },
    Case {
        sentence: "a killed daemon takes its steps along",
        on: On::Ours("the reference leaves steps to runc, which leaves them running"),
        run: killed_daemon,
    },
];

/// A number that is on the command line of the case's processes only.
fn marker(rig: &Rig<'_>) -> String {
    let hash = rig.dir.as_os_str().len() as u64 * 7919 + u64::from(std::process::id());
    let number = rig
        .dir
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("0")
        .to_owned();
    format!("7{hash:07}{number:0>3}")
}

fn outlive(rig: &Rig<'_>) -> Verdict {
    let mark = marker(rig);
    let text = format!(
        "FROM busybox\nRUN setsid sh -c 'trap \"\" TERM HUP INT; sleep {mark}' >/dev/null 2>&1 & \\\n \
         (setsid nohup sleep {mark} >/dev/null 2>&1 &); sleep 0.3; echo left behind\n"
    );
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let daemon = Daemon::start(rig)?;
    let running = daemon.begin(&context, &[])?;
    let has_started = within(Duration::from_secs(20), || !in_containers(&mark).is_empty());
    let built = super::daemon::Built::wait(running)?.success("the build")?;
    ensure(
        has_started || built.progress.logs.contains("left behind"),
        || built.tail(),
    )?;
    let is_gone = within(Duration::from_secs(1), || in_containers(&mark).is_empty());
    ensure(is_gone, || {
        format!("processes of the step live on: {:?}", in_containers(&mark))
    })
}

fn killed_client(rig: &Rig<'_>) -> Verdict {
    leaves(rig, "-KILL")
}

fn interrupted_client(rig: &Rig<'_>) -> Verdict {
    leaves(rig, "-INT")
}

fn leaves(rig: &Rig<'_>, signal: &str) -> Verdict {
    let mark = marker(rig);
    let mut daemon = Daemon::start(rig)?;
    daemon.goes_on()?;
    let before = Left::look(&daemon);
    let text = sleeping(&mark);
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let mut running = daemon.begin(&context, &[])?;
    let groups = wait_for_processes(&mark)?;
    let client = running.child.id().to_string();
    let killed = Command::new("kill").args([signal, &client]).status();
    killed.map_err(at("killing", Path::new("a client")))?;
    let when = Instant::now();
    let is_gone = within(Duration::from_secs(2), || in_containers(&mark).is_empty());
    ensure(is_gone, || {
        format!("two seconds after the client: {:?}", in_containers(&mark))
    })?;
    let took = when.elapsed();
    let _reaped = within(Duration::from_secs(5), || {
        running
            .child
            .try_wait()
            .is_ok_and(|status| status.is_some())
    });
    let _gone_already = running.child.kill();
    let clean = within(Duration::from_secs(2).saturating_sub(took), || {
        Left::look(&daemon) == before && groups.iter().all(|group| !group.exists())
    });
    ensure(clean, || {
        let groups: Vec<&PathBuf> = groups.iter().filter(|group| group.exists()).collect();
        format!(
            "left are {:?}, before there were {before:?}; cgroups {groups:?}",
            Left::look(&daemon)
        )
    })?;
    daemon.goes_on()
}

fn killed_daemon(rig: &Rig<'_>) -> Verdict {
    let mark = marker(rig);
    let mut daemon = Daemon::start(rig)?;
    let text = sleeping(&mark);
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let mut running = daemon.begin(&context, &[])?;
    let groups = wait_for_processes(&mark)?;
    daemon.restart(true)?;
    let _gone_already = running.child.kill();
    let _reaped = running.child.wait();
    let is_gone = within(Duration::from_secs(2), || in_containers(&mark).is_empty());
    ensure(is_gone, || {
        format!("two seconds after the daemon: {:?}", in_containers(&mark))
    })?;
    let clean = within(Duration::from_secs(2), || {
        groups.iter().all(|group| !group.exists())
    });
    ensure(clean, || format!("cgroups are left: {groups:?}"))?;
    let mounts = mounts_below("self", &daemon.root);
    ensure(mounts.is_empty(), || format!("mounts are left: {mounts:?}"))?;
    daemon.goes_on()
}

/// A step of several processes, two of them daemons.
fn sleeping(mark: &str) -> String {
    format!(
        "FROM busybox\nRUN (setsid sleep {mark} >/dev/null 2>&1 &); setsid sh -c 'trap \"\" TERM INT HUP; sleep {mark}' & sleep {mark}\n"
    )
}

/// Processes of containers with the marker: clients, which only have it in their files, are left out.
fn in_containers(mark: &str) -> Vec<(u32, String)> {
    processes_with(mark)
        .into_iter()
        .map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .collect()
}

/// Waits for the step's processes; returns the folders of their control groups.
fn wait_for_processes(mark: &str) -> Result<BTreeSet<PathBuf>, Trouble> {
    if !within(Duration::from_secs(20), || in_containers(mark).len() >= 3) {
        return failed(format!(
            "the step does not begin: {:?}",
            in_containers(mark)
        ));
    }
    let mine = groups_of("self");
    let of_step = in_containers(mark)
        .into_iter()
        .flat_map(|(pid, _)| groups_of(&pid.to_string()));
    Ok(of_step
        .filter(|group| !mine.contains(group) && group.exists())
        .collect())
}

/// The folders of a process's control groups, in both hierarchies.
fn groups_of(process: &str) -> BTreeSet<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let path = path.trim_start_matches('/');
            let root = Path::new("/sys/fs/cgroup");
            // The group at the top belongs to no step.
            (!path.is_empty()).then(|| match controllers.trim_start_matches("name=") {
                "" if root.join("unified").is_dir() => root.join("unified").join(path),
                "" => root.join(path),
                controller => root.join(controller).join(path),
            })
        })
        .collect()
}

/// What a step could leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    on_host: Vec<PathBuf>,
    in_daemon: Vec<PathBuf>,
}

impl Left {
    fn look(daemon: &Daemon<'_>) -> Self {
        Self {
            on_host: mounts_below("self", &daemon.root),
            in_daemon: mounts_below(&daemon.pid().to_string(), &daemon.root),
        }
    }
}
