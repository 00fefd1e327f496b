//! A client that misbehaves in every way at once, next to an honest one.
//!
//! ```text
//! honest builds alone ─► figures ─► 500 hostile builds (tools/hostile) ║ honest builds ─► figures again
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::daemon::{Daemon, Setting};
use super::origin::{Origin, Response};
use super::registry::{GZIP, Layer, Shelf, digest};
use super::rig::{Rig, Running, Trouble, Verdict, ensure, failed, mounts_below, within};
use super::tar::{self, Member};
use super::{Case, On};
use crate::paths::{self, Module};
use crate::process::{at, run as run_command};

pub(super) const CASES: &[Case] = &[Case {
    sentence: "500 builds that misbehave leave honest builds right, at most twice as slow, and nothing behind",
    on: On::Ours("the reference ends or fills up under some of the attacks"),
    run: siege,
}];

/// How many hostile builds there are.
const HOSTILE_BUILDS: usize = 500;
/// How many of them run at a time.
const BUILDS_AT_ONCE: usize = 2;
/// How long the hostile builds may take together.
const ATTACKS_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a daemon may take until it is what it was before.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

fn siege(rig: &Rig<'_>) -> Verdict {
    let program = client()?;
    let files = archives(rig)?;
    let origin = registry()?;
    let mut daemon = Daemon::with(
        rig,
        Setting {
            http: vec![origin.port],
            ..Setting::default()
        },
    )?;
    let mut honest = Honest {
        rig,
        number: 0,
        times: Vec::new(),
    };
    for _ in 0..15 {
        honest.build(&daemon)?;
    }
    // The first builds pull and warm up.
    let alone = median(honest.times.split_off(5));
    prune(&daemon)?;
    let before = Usage::of(&daemon)?;

    let start = Instant::now();
    let mut hostile = Running::start(
        &rig.dir,
        Command::new(&program)
            .arg("-addr")
            .arg(&daemon.address)
            .arg("-registry")
            .arg(origin.port.to_string())
            .arg("-files")
            .arg(&files)
            .arg("-count")
            .arg(HOSTILE_BUILDS.to_string())
            .arg("-parallel")
            .arg(BUILDS_AT_ONCE.to_string()),
    )?;
    honest.times.clear();
    while hostile
        .child
        .try_wait()
        .map_err(at("waiting for", &program))?
        .is_none()
    {
        honest.build(&daemon)?;
        daemon.alive()?;
        ensure(start.elapsed() < ATTACKS_TIMEOUT, || {
            format!(
                "the hostile builds do not end within {ATTACKS_TIMEOUT:?}: {}",
                hostile.so_far()
            )
        })?;
    }
    let ran = hostile.wait(Duration::from_secs(1))?;
    let count = ran
        .out
        .lines()
        .filter(|line| line.contains(" ms: "))
        .count();
    ensure(ran.ok() && count == HOSTILE_BUILDS, || {
        format!("of the hostile builds: {}", ran.tail())
    })?;
    ensure(!ran.out.contains("LEAK"), || ran.tail())?;
    let beside = median(std::mem::take(&mut honest.times));
    daemon.goes_on()?;

    prune(&daemon)?;
    let mut after = Usage::of(&daemon)?;
    let recovered = within(RECOVERY_TIMEOUT, || {
        if let Ok(usage) = Usage::of(&daemon) {
            after = usage;
        }
        after.is_back_to(&before)
    });
    println!(
        "figures  {HOSTILE_BUILDS} hostile builds in {:.0} s; honest builds {alone:.3} s alone, {beside:.3} s beside them; before {before}; after {after}; at most {} MB",
        start.elapsed().as_secs_f64(),
        daemon.peak_memory() >> 20,
    );
    ensure(recovered, || {
        format!(
            "before the attacks: {before}\nafter them:         {after}\n{}",
            daemon.log_tail()
        )
    })?;
    ensure(beside <= 2.0 * alone, || {
        format!("honest builds took {alone:.3} s alone and {beside:.3} s beside the hostile ones")
    })
}

/// Builds the hostile client.
fn client() -> Result<PathBuf, Trouble> {
    let program = Module::find()?.tools().join("hostile");
    run_command(
        paths::go(&["build", "-trimpath", "-o"])?
            .arg(&program)
            .arg("./hostile")
            .env("CGO_ENABLED", "0"),
    )?;
    Ok(program)
}

/// An honest user: a small project whose result is looked at.
struct Honest<'a> {
    rig: &'a Rig<'a>,
    number: usize,
    times: Vec<f64>,
}

impl Honest<'_> {
    /// Builds something new, times it, and compares what came out.
    fn build(&mut self, daemon: &Daemon<'_>) -> Verdict {
        self.number += 1;
        let number = self.number;
        let text = "FROM busybox AS made\nWORKDIR /src\nCOPY . .\nRUN cat input > one && seq 20000 | sha256sum > two\n\
                    RUN cat one two > /result\nFROM scratch\nCOPY --from=made /result /\n";
        let input = format!("input of build {number}\n");
        let context = self
            .rig
            .context("honest", &[("Dockerfile", text), ("input", &input)])?;
        let out = self.rig.dir.join("honest-out");
        let output = format!("type=local,dest={}", out.display());
        let start = Instant::now();
        daemon
            .build(&context, &["--output", &output])?
            .success("an honest build")?;
        self.times.push(start.elapsed().as_secs_f64());
        let file = out.join("result");
        let result = fs::read_to_string(&file).map_err(at("reading", &file))?;
        ensure(
            result.starts_with(&input) && result.len() > input.len() + 60,
            || format!("honest build {number} made {result:?}"),
        )
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn prune(daemon: &Daemon<'_>) -> Verdict {
    let histories = daemon.buildctl(&["prune-histories"])?;
    ensure(histories.ok(), || histories.tail())?;
    let ran = daemon.buildctl(&["prune", "--all"])?;
    ensure(ran.ok(), || ran.tail())?;
    let trash = daemon.root.join("trash");
    let empty = || fs::read_dir(&trash).is_ok_and(|mut entries| entries.next().is_none());
    ensure(within(RECOVERY_TIMEOUT, empty), || {
        format!("{} does not become empty", trash.display())
    })
}

/// What a daemon uses.
#[derive(Debug, Clone)]
struct Usage {
    memory: u64,
    descriptors: usize,
    mounts: usize,
    processes: usize,
    disk: u64,
}

/// What heaps, threads and connections to the index may keep of what is in use during the attacks.
const KEPT_MEMORY: u64 = 16 << 20;
const KEPT_DESCRIPTORS: usize = 8;
/// The index and its log may have about a megabyte each that is free.
const KEPT_DISK: u64 = 4 << 20;

impl Usage {
    fn of(daemon: &Daemon<'_>) -> Result<Self, Trouble> {
        let proc = PathBuf::from(format!("/proc/{}", daemon.pid()));
        let status = proc.join("status");
        let text = fs::read_to_string(&status).map_err(at("reading", &status))?;
        let memory = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kilobytes| kilobytes.parse::<u64>().ok());
        let Some(memory) = memory else {
            return failed(format!("no memory in {}", status.display()));
        };
        let fds = proc.join("fd");
        Ok(Self {
            memory: memory << 10,
            descriptors: fs::read_dir(&fds).map_err(at("listing", &fds))?.count(),
            mounts: mounts_below(&daemon.pid().to_string(), &daemon.root).len()
                + mounts_below("self", &daemon.root).len(),
            processes: descendants(daemon.pid()),
            disk: disk(&daemon.root),
        })
    }

    fn is_back_to(&self, before: &Self) -> bool {
        self.memory <= before.memory + KEPT_MEMORY
            && self.descriptors <= before.descriptors + KEPT_DESCRIPTORS
            && self.mounts <= before.mounts
            && self.processes <= before.processes
            && self.disk <= before.disk + KEPT_DISK
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} MB of memory, {} descriptors, {} mounts, {} processes, {} MB of disk",
            self.memory >> 20,
            self.descriptors,
            self.mounts,
            self.processes,
            self.disk >> 20
        )
    }
}

/// Counts the processes below one.
fn descendants(of: u32) -> usize {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name before it may have spaces and brackets of its own.
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1))
            .and_then(|number| number.parse::<u32>().ok());
        parents.push((pid, parent.unwrap_or(0)));
    }
    let mut family = vec![of];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    family.len() - 1
}

/// The bytes that a folder takes on its disk, as far as it stands still.
fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut folders = vec![dir.to_path_buf()];
    let mut linked = BTreeSet::new();
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            // Programs of busybox are links to one file.
            if metadata.nlink() < 2 || metadata.is_dir() || linked.insert(metadata.ino()) {
                bytes += metadata.blocks() * 512;
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

/// A registry with images that are broken, and one that never answers.
fn registry() -> Result<Origin, Trouble> {
    let mut shelf = Shelf::default();
    let good = tar::write(&[Member::file("good", &[b'g'; 40_000])]);
    let garbage = Layer {
        media_type: GZIP,
        bytes: b"\x1f\x8b\x08\x00garbage that is no stream".to_vec(),
        diff_id: digest(&good),
    };
    shelf.image("garbage", &[garbage]);
    let (_, layers) = shelf.image("short", &[Layer::tar(good)]);
    for layer in layers {
        shelf.tamper(&layer, |bytes| bytes.truncate(10_000));
    }
    let origin = Origin::start(move |request| {
        if request.path.contains("/attack/stall/") {
            // Longer than its client stays.
            std::thread::sleep(Duration::from_secs(20));
            return Response::text(404, "{}");
        }
        shelf.answer(request)
    })?;
    Ok(origin)
}

/// Folders with a Dockerfile and an archive each.
fn archives(rig: &Rig<'_>) -> Result<PathBuf, Trouble> {
    let dockerfile = "FROM scratch\nADD archive.tar /\n";
    let files = rig.folder("archives")?;
    for name in ["deep", "pax"] {
        rig.context(&format!("archives/{name}"), &[("Dockerfile", dockerfile)])?;
    }
    let deep = files.join("deep/archive.tar");
    fs::write(&deep, tar::write(&deep_members())).map_err(at("writing", &deep))?;

    // Each header is replaced by the next one; kept all together they are 800 MB.
    let mut header = Vec::new();
    let mut records = String::new();
    tar::record(&mut records, "comment", &"c".repeat(900_000));
    tar::pax(&mut header, records.as_bytes());
    let mut end = Vec::new();
    tar::append(&mut end, &Member::file("x", b"y"));
    for (name, bytes) in [("header", &header), ("end", &end)] {
        let file = rig.dir.join(name);
        fs::write(&file, bytes).map_err(at("writing", &file))?;
    }
    let script = "(for n in $(seq 900); do cat header; done; cat end; head -c 1024 /dev/zero) | gzip -1 > archives/pax/archive.tar";
    let ran = rig.run(
        Command::new("sh")
            .args(["-c", script])
            .current_dir(&rig.dir),
    )?;
    ensure(ran.ok(), || ran.tail())?;
    Ok(files)
}

/// Folders whose depth is reached through links, so that no name is long.
fn deep_members() -> Vec<Member> {
    let steps = ["d"; 300].join("/");
    let mut members = vec![Member::new(b'5', &format!("l0/{steps}"))];
    for level in 1..20 {
        members.push(Member::link(
            b'2',
            &format!("l{level}"),
            &format!("l{}/{steps}", level - 1),
        ));
        members.push(Member::new(b'5', &format!("l{level}/{steps}")));
    }
    members
}
