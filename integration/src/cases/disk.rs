//! A daemon whose disk is full.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::daemon::{Daemon, Setting};
use super::rig::{Rig, Trouble, Verdict, ensure, failed, program};
use super::{Case, On};

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "a disk that is full during a step fails the step and nothing else",
        on: On::Ours("what it needs for itself fills the small disk"),
        run: during_a_step,
    },
    Case {
        sentence: "a disk that is full of results is free again after a prune",
        on: On::Both,
        run: full_of_results,
    },
    Case {
        sentence: "a disk that is full during a transfer or a pull fails that build and nothing else",
        on: On::Ours("what it needs for itself fills the small disk"),
        run: during_a_transfer,
    },
];

/// A small file system of its own; dropping it takes it away.
struct Small(PathBuf);

impl Small {
    fn make(rig: &Rig<'_>, megabytes: u32) -> Result<Self, Trouble> {
        let point = rig.folder("small")?;
        let file = rig.dir.join("small.img");
        let created = rig
            .run(
                Command::new("truncate")
                    .arg("-s")
                    .arg(format!("{megabytes}M"))
                    .arg(&file),
            )?
            .ok()
            && rig
                .run(
                    program("mkfs.ext4")?
                        .args(["-q", "-m", "0", "-O", "^has_journal"])
                        .arg(&file),
                )?
                .ok()
            && rig
                .run(
                    program("mount")?
                        .args(["-o", "loop"])
                        .arg(&file)
                        .arg(&point),
                )?
                .ok();
        if !created {
            // A kernel without loop devices.
            let size = format!("size={megabytes}M");
            let ran = rig.run(
                program("mount")?
                    .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                    .arg(&point),
            )?;
            if !ran.ok() {
                return Err(Trouble::Skipped(format!(
                    "no small file system can be mounted: {}",
                    ran.tail()
                )));
            }
        }
        Ok(Self(point))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _left = Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .stderr(Stdio::null())
            .status();
    }
}

fn start<'a>(rig: &'a Rig<'a>, small: &Small) -> Result<Daemon<'a>, Trouble> {
    Daemon::with(
        rig,
        Setting {
            root: Some(small.0.join("state")),
            ..Setting::default()
        },
    )
}

fn context(rig: &Rig<'_>, name: &str, text: &str) -> Result<PathBuf, Trouble> {
    Ok(rig.context(name, &[("Dockerfile", text)])?)
}

fn during_a_step(rig: &Rig<'_>) -> Verdict {
    let small = Small::make(rig, 64)?;
    let mut daemon = start(rig, &small)?;
    let large = context(
        rig,
        "large",
        "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=200\n",
    )?;
    let built = daemon.build(&large, &[])?;
    ensure(built.ran.code.is_some_and(|code| code != 0), || {
        built.tail()
    })?;
    let words = format!("{}{}", built.progress.logs, built.ran.err);
    ensure(words.contains("No space left on device"), || {
        format!("the reason is not told: {}", built.tail())
    })?;
    daemon.goes_on()?;
    // What the step had written is gone, also for a daemon that starts anew.
    daemon.restart(true)?;
    daemon.goes_on()?;
    let fits = context(
        rig,
        "fits",
        "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=40\n",
    )?;
    daemon
        .build(&fits, &[])?
        .success("a step of 40 MB on 64 MB")?;
    Ok(())
}

fn full_of_results(rig: &Rig<'_>) -> Verdict {
    let small = Small::make(rig, 64)?;
    let mut daemon = start(rig, &small)?;
    let mut refused = None;
    for number in 0..8 {
        let text = format!(
            "FROM busybox\nRUN dd if=/dev/zero of=/f{number} bs=1M count=14 && echo {number} > /n\n"
        );
        let built = daemon.build(&context(rig, "results", &text)?, &[])?;
        daemon.alive()?;
        if !built.ok() {
            refused = Some(built);
            break;
        }
    }
    let Some(built) = refused else {
        return failed("8 steps of 14 MB fit on a disk of 64 MB");
    };
    let words = format!("{}{}", built.progress.logs, built.ran.err).to_lowercase();
    ensure(words.contains("no space left on device"), || {
        format!("the reason is not told: {}", built.tail())
    })?;
    // A full disk must not stop a daemon from starting, nor from freeing.
    fill(&small.0)?;
    daemon.restart(true)?;
    daemon.buildctl(&["du"])?.success("du on a full disk")?;
    daemon
        .buildctl(&["prune", "--all"])?
        .success("prune on a full disk")?;
    let _removed = std::fs::remove_file(small.0.join("filler"));
    daemon.goes_on()?;
    let fits = context(
        rig,
        "fits",
        "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=40\n",
    )?;
    daemon
        .build(&fits, &[])?
        .success("a step of 40 MB after a prune")?;
    Ok(())
}

/// Takes what is left of a file system.
fn fill(point: &Path) -> Result<(), Trouble> {
    let file = point.join("filler");
    let ran = Command::new("dd")
        .arg("if=/dev/zero")
        .arg(format!("of={}", file.display()))
        .args(["bs=64k"])
        .stderr(Stdio::null())
        .status();
    ensure(ran.is_ok() && file.exists(), || {
        "the disk could not be filled".to_owned()
    })
}

fn during_a_transfer(rig: &Rig<'_>) -> Verdict {
    let small = Small::make(rig, 48)?;
    let mut daemon = start(rig, &small)?;
    let large = context(rig, "large", "FROM busybox\nCOPY large /\n")?;
    let size = Command::new("sh")
        .arg("-c")
        .arg("head -c 60000000 /dev/urandom > large")
        .current_dir(&large)
        .status();
    ensure(size.is_ok_and(|status| status.success()), || {
        "no large file".to_owned()
    })?;
    let built = daemon.build(&large, &[])?;
    ensure(built.ran.code.is_some_and(|code| code != 0), || {
        built.tail()
    })?;
    ensure(
        built.ran.err.to_lowercase().contains("no space left"),
        || format!("the reason of the transfer is not told: {}", built.tail()),
    )?;
    daemon.goes_on()?;
    // The image of Debian does not fit.
    let image = context(rig, "image", "FROM debian:bookworm-slim\nRUN true\n")?;
    let built = daemon.build(&image, &[])?;
    ensure(built.ran.code.is_some_and(|code| code != 0), || {
        built.tail()
    })?;
    ensure(
        built.ran.err.to_lowercase().contains("no space left"),
        || format!("the reason of the pull is not told: {}", built.tail()),
    )?;
    daemon.buildctl(&["prune", "--all"])?.success("prune")?;
    daemon.goes_on()
}
