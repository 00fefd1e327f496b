//! Black-box cases: a daemon on a state folder of its own, real clients on its socket, and what came of it.
//!
//! ```text
//! case ─► rig (folder, daemon, origin servers) ─► clients ─► progress, trees, images, /proc ─► ok, FAILED why, skipped why
//! ```
//!
//! Every case is a sentence. The same cases run on the reference's daemon with `--reference`; a case that it fails is a
//! wrong case, apart from those that ask for more than it gives, which are marked and skipped there. With `--crossed` our
//! client builds on the reference's daemon, in every case in which the reference's client builds on ours.

mod bad_input;
mod buildctl;
mod clients;
mod daemon;
mod disk;
mod hostile;
mod image;
mod isolation;
mod leaving;
mod limits;
mod network;
mod origin;
mod progress;
mod proxy;
mod registry;
mod reuse;
mod rig;
mod rootless;
mod roundtrip;
mod same;
mod siege;
mod tar;
mod telemetry;
mod tenants;
mod tree;
mod wrong_bytes;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::RwLock;

use crate::process::{Error, is_root};
use rig::{Lab, Rig, Trouble, Verdict};

/// Which cases to run, and on which daemon.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run only the cases that have this in their sentence; may be given several times.
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
    /// Run them on the reference's daemon.
    #[arg(long)]
    reference: bool,
    /// Run them with our client on the reference's daemon.
    #[arg(long)]
    crossed: bool,
    /// Print the sentences.
    #[arg(long)]
    list: bool,
    /// Our daemon; otherwise the one beside this program.
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Our client; otherwise the one beside this program.
    #[arg(long, value_name = "FILE")]
    client: Option<PathBuf>,
    /// How many cases run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Leave the folders of failed cases.
    #[arg(long)]
    keep: bool,
}

/// On which daemons a case makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Both,
    /// Both, by words on the socket that no client says.
    Wire,
    /// With the reason why the reference is not asked.
    Ours(&'static str),
}

/// One case.
struct Case {
    sentence: &'static str,
    on: On,
    run: fn(&Rig<'_>) -> Verdict,
}

fn all_cases() -> impl Iterator<Item = &'static Case> {
    [
        clients::CASES,
        buildctl::CASES,
        reuse::CASES,
        roundtrip::CASES,
        same::CASES,
        isolation::CASES,
        rootless::CASES,
        leaving::CASES,
        limits::CASES,
        network::CASES,
        proxy::CASES,
        bad_input::CASES,
        wrong_bytes::CASES,
        disk::CASES,
        hostile::CASES,
        tenants::CASES,
        siege::CASES,
        telemetry::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Runs the chosen cases; whether none failed.
pub(crate) fn run(options: &Options) -> Result<bool, Error> {
    let cases: Vec<&Case> = all_cases()
        .filter(|case| {
            options.only.is_empty()
                || options
                    .only
                    .iter()
                    .any(|words| case.sentence.contains(words.as_str()))
        })
        .collect();
    if options.list {
        for case in cases {
            println!("{}", case.sentence);
        }
        return Ok(true);
    }
    if !is_root() {
        return Err(Error::Missing {
            what: "root".to_owned(),
            remedy: "run the cases as root: they mount and start containers".to_owned(),
        });
    }
    let lab = Lab::open(
        options.reference,
        options.crossed,
        options.daemon.clone(),
        options.client.clone(),
        options.keep,
    )?;
    let next_number = AtomicUsize::new(0);
    let (passed, failed, skipped) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some((number, case)) = {
                    let number = next_number.fetch_add(1, Ordering::SeqCst);
                    cases.get(number).map(|case| (number, case))
                } {
                    let start = Instant::now();
                    let verdict = run_case(&lab, number, case);
                    let seconds = start.elapsed().as_secs_f64();
                    match verdict {
                        Ok(()) => {
                            passed.fetch_add(1, Ordering::SeqCst);
                            println!("ok       {} ({seconds:.1} s)", case.sentence);
                        }
                        Err(Trouble::Skipped(why)) => {
                            skipped.fetch_add(1, Ordering::SeqCst);
                            println!("skipped  {}: {why}", case.sentence);
                        }
                        Err(Trouble::Failed(why) | Trouble::Crossed(why)) => {
                            failed.fetch_add(1, Ordering::SeqCst);
                            println!(
                                "FAILED   {} ({seconds:.1} s):\n{}",
                                case.sentence,
                                indented(&why)
                            );
                        }
                    }
                }
            });
        }
    });
    let (passed, failed, skipped) = (
        passed.into_inner(),
        failed.into_inner(),
        skipped.into_inner(),
    );
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0 && passed > 0)
}

fn run_case(lab: &Lab, number: usize, case: &Case) -> Verdict {
    if let (true, On::Ours(why)) = (lab.reference, case.on) {
        return Err(Trouble::Skipped(why.to_owned()));
    }
    if lab.crossed && case.on == On::Wire {
        return Err(Trouble::Skipped("no client takes part".to_owned()));
    }
    // What is timed has the machine for itself.
    static MACHINE: RwLock<()> = RwLock::new(());
    let is_timed = siege::CASES.iter().any(|timed| std::ptr::eq(timed, case));
    let _alone = is_timed.then(|| MACHINE.write());
    let _beside = (!is_timed).then(|| MACHINE.read());
    let rig = Rig::new(lab, number)?;
    // A case that stumbles over its own assumption is one failed case, not the end of all.
    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (case.run)(&rig)))
        .unwrap_or_else(|_| {
            Err(Trouble::Failed(
                "the case itself panicked, see above".to_owned(),
            ))
        });
    rig.end(&verdict);
    verdict
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| format!("         | {}", line.chars().take(400).collect::<String>()))
        .collect();
    lines.join("\n")
}
