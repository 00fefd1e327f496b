//! The budget's table, measured: the same builds on our daemon and on the reference's, in turn.
//!
//! ```text
//! round ─► three times: both daemons in new state directories ─► each of some rows: ours, theirs (next round: theirs, ours)
//!       ─► stop                                         all rounds done ─► state directories away
//! ```
//!
//! The same unmodified `buildctl` drives both, so that the client's share is the same. A figure counts only when the
//! build gave the right result: [`build`] checks steps, cache hits and layers.

mod build;
mod contexts;
mod daemon;
mod figures;
mod machine;
mod plot;
mod report;
mod rows;

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::paths::{self, Module};
use crate::process::{Error, at, is_root, output};
use crate::serve::Registry;
use build::Builder;
use daemon::{Daemon, Memory, Program};
use figures::{Figures, Side};
use machine::Machine;
use rows::{Life, Measure, Row};

/// The load average above which a machine is not quiet.
const MAX_QUIET_LOAD: f64 = 0.5;
/// How long a daemon is left alone before its memory is read.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// Bytes that a round of both daemons takes, with some to spare.
const ROUND_BYTES: u64 = 6_000_000_000;

/// What to measure and where to write it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each row is measured on each daemon.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure only this row (and those that it follows from); may be given several times.
    #[arg(long, value_name = "NAME", value_parser = rows::names())]
    row: Vec<String>,
    /// Write all figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the minima as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Replace the table between the markers of a page.
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
    /// Our daemon; otherwise the one of the release profile, else the one beside this program.
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// The profile that our daemon was built with; otherwise told from its path.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Measure our daemon alone; for work on a row.
    #[arg(long)]
    only_ours: bool,
}

/// Measures and tells.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    if !is_root() {
        return Err(Error::Missing {
            what: "root".to_owned(),
            remedy: "run the bench as root: both daemons mount and start containers".to_owned(),
        });
    }
    let module = Module::find()?;
    let ours = our_daemon(options)?;
    let theirs = module.tools().join("buildkitd");
    let buildctl = module.tools().join("buildctl");
    for program in [&theirs, &buildctl] {
        if !program.is_file() {
            return Err(Error::Missing {
                what: program.display().to_string(),
                remedy: "run `rbuild-integration setup`".to_owned(),
            });
        }
    }

    let machine = Machine::look(&ours, options.profile.as_deref(), &module)?;
    eprintln!("{machine}");
    if machine.load > MAX_QUIET_LOAD {
        eprintln!(
            "warning: the machine is not quiet (load average {:.2}): figures of rows that compute or write are worth little",
            machine.load
        );
    }
    if machine.profile != "release" {
        eprintln!(
            "warning: our daemon is not known to be of the release profile ({}): good for finding factors, not for docs",
            machine.profile
        );
    }

    let work = Work::new(options.rounds)?;
    contexts::make(&work.contexts)?;
    let registry = Registry::start(0)?;
    let programs: Vec<Program> = [(Side::Ours, ours), (Side::Theirs, theirs)]
        .into_iter()
        .filter(|(side, _)| *side == Side::Ours || !options.only_ours)
        .map(|(side, file)| Program { side, file })
        .collect();
    let builder = Builder::new(&buildctl, &work.dir, &work.contexts);
    let rows = rows::chosen(&options.row);

    let mut figures = Figures::new();
    for round in 0..options.rounds {
        let mut order: Vec<&Program> = programs.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        let round = Round {
            number: round + 1,
            of: options.rounds,
            order,
            registry: registry.port,
            work: &work,
            builder: &builder,
            rows: &rows,
        };
        round.go(&mut figures)?;
    }

    let results = report::results(&rows, &figures);
    report::print(&results, &machine, std::io::stdout().is_terminal());
    let write = |file: &Path, text: String| fs::write(file, text).map_err(at("writing", file));
    if let Some(file) = &options.json {
        write(file, report::json(&results, &machine, options.rounds))?;
    }
    if let Some(file) = &options.plot {
        write(file, plot::svg(&results, &machine))?;
    }
    if let Some(file) = &options.docs {
        let page = fs::read_to_string(file).map_err(at("reading", file))?;
        let table = report::markdown(&results, &machine, options.rounds);
        write(file, report::between_markers(&page, &table)?)?;
    }
    Ok(())
}

fn our_daemon(options: &Options) -> Result<PathBuf, Error> {
    if let Some(file) = &options.daemon {
        return std::path::absolute(file).map_err(at("resolving", file));
    }
    let beside = std::env::current_exe()
        .unwrap_or_default()
        .with_file_name("rbuildd");
    let release = beside
        .parent()
        .and_then(Path::parent)
        .map(|target| target.join("release/rbuildd"));
    release
        .into_iter()
        .chain([beside])
        .find(|file| file.is_file())
        .ok_or_else(|| Error::Missing {
            what: "rbuildd".to_owned(),
            remedy: "run `cargo build --release -p rbuild-daemon`, or name one with --daemon"
                .to_owned(),
        })
}

/// One pass over all rows.
struct Round<'a> {
    number: usize,
    of: usize,
    /// Who goes first in each row.
    order: Vec<&'a Program>,
    registry: u16,
    work: &'a Work,
    builder: &'a Builder,
    rows: &'a [&'static Row],
}

impl Round<'_> {
    fn go(&self, figures: &mut Figures) -> Result<(), Error> {
        let mut memory: BTreeMap<Side, Memory> = BTreeMap::new();
        for life in Life::ALL {
            let rows: Vec<&Row> = self
                .rows
                .iter()
                .copied()
                .filter(|r| r.life == life)
                .collect();
            if rows.is_empty() {
                continue;
            }
            let mut daemons = Vec::new();
            for program in &self.order {
                sync()?;
                let name = format!("{}-{}-{life:?}", program.side.name(), self.number);
                let dir = self.work.dir.join(name);
                daemons.push(Daemon::start(program, &dir, self.registry)?);
            }
            for row in rows {
                for daemon in &daemons {
                    if let Some(figure) = self.figure(row, daemon)? {
                        figures.add(row.name, daemon.side, figure);
                    }
                }
                self.tell(row, figures);
            }
            std::thread::sleep(SETTLE_TIME);
            for daemon in daemons {
                let peak = memory.entry(daemon.side).or_default();
                *peak = peak.max(daemon.memory()?);
                daemon.stop()?;
            }
        }
        for row in self.rows {
            for (side, memory) in &memory {
                match row.measure {
                    Measure::After => figures.add(row.name, *side, memory.now),
                    Measure::Peak => figures.add(row.name, *side, memory.peak),
                    Measure::Start | Measure::Size | Measure::Idle | Measure::Build(_) => continue,
                }
            }
            if matches!(row.measure, Measure::After | Measure::Peak) {
                self.tell(row, figures);
            }
        }
        if !self.work.keeps {
            self.work.empty()?;
        }
        Ok(())
    }

    /// Measures; nothing for what is measured when the round is over.
    fn figure(&self, row: &Row, daemon: &Daemon) -> Result<Option<f64>, Error> {
        Ok(match &row.measure {
            Measure::Start => Some(daemon.served_after.as_secs_f64()),
            Measure::Size => Some(daemon.size()?),
            Measure::Idle => {
                std::thread::sleep(SETTLE_TIME);
                Some(daemon.memory()?.now)
            }
            Measure::Build(build) => {
                self.builder.prepare(daemon, build)?;
                sync()?;
                Some(self.builder.measure(daemon, build)?.as_secs_f64())
            }
            Measure::After | Measure::Peak => None,
        })
    }

    fn tell(&self, row: &Row, figures: &Figures) {
        let sample = figures.last(row);
        if !sample.is_empty() {
            eprintln!(
                "round {}/{}  {:16} {sample}",
                self.number, self.of, row.name
            );
        }
    }
}

/// Writes back what is dirty, so that no build pays for the one before it.
fn sync() -> Result<(), Error> {
    output(&mut Command::new("sync")).map(drop)
}

/// The folder of state directories and outputs, which goes away, and that of the contexts, which stays.
///
/// The folder is a file system of its own, ext4 with a journal, new with every run: what the machine's own file system did
/// in the minutes before would otherwise hit one daemon or the other by chance (ext4 without a journal does not take
/// inodes again soon after many files were removed, and searches). Where none can be mounted, state directories of all
/// rounds are kept to the end if there is room.
struct Work {
    dir: PathBuf,
    contexts: PathBuf,
    /// The file that the file system lies in.
    image: Option<PathBuf>,
    keeps: bool,
}

impl Work {
    fn new(rounds: usize) -> Result<Self, Error> {
        let bench = paths::cache().join("bench");
        let dir = bench.join(format!("work-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(at("making", &dir))?;
        let free = machine::free_space(&dir)?;
        let file = dir.with_extension("img");
        let image = match mount_new(&file, &dir, free / 10 * 9) {
            Ok(()) => Some(file),
            Err(error) => {
                eprintln!(
                    "warning: no file system of its own, rows that write are disturbed by what was done before: {error}"
                );
                let _left = fs::remove_file(&file);
                None
            }
        };
        let keeps = image.is_none() && free > ROUND_BYTES * (rounds as u64 + 1);
        Ok(Self {
            dir,
            contexts: bench.join("contexts"),
            image,
            keeps,
        })
    }

    /// Removes all state directories.
    fn empty(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.dir).map_err(at("reading", &self.dir))? {
            let path = entry.map_err(at("reading", &self.dir))?.path();
            let removal = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removal.map_err(at("removing", &path))?;
        }
        sync()
    }
}

/// Makes a file system of `size` bytes in a sparse file and mounts it.
fn mount_new(file: &Path, dir: &Path, size: u64) -> Result<(), Error> {
    let created = fs::File::create(file).and_then(|created| created.set_len(size));
    created.map_err(at("making", file))?;
    let tables = "lazy_itable_init=0,lazy_journal_init=0";
    output(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-N", "600000", "-E", tables])
            .arg(file),
    )?;
    output(
        Command::new("mount")
            .args(["-o", "loop"])
            .arg(file)
            .arg(dir),
    )?;
    Ok(())
}

impl Drop for Work {
    fn drop(&mut self) {
        daemon::unmount_below(&self.dir);
        let _left = fs::remove_dir_all(&self.dir);
        if let Some(image) = &self.image {
            let _left = fs::remove_file(image);
        }
    }
}
