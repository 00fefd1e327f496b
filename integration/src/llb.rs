//! The same definitions: what both daemons' Dockerfile frontends make of the corpus, without running any of it.
//!
//! A program on the reference's client package (`tools/llb`) solves every Dockerfile of `llb/corpus` in a gateway and
//! writes down the definitions. Digests of steps, their names, capabilities and source lines, image configs, warnings,
//! errors and the lines that these mark must be equal.

mod compare;
mod corpus;
mod standins;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::paths::{self, Module};
use crate::process::{Error, at, run as run_command};
use crate::serve::Registry;

/// Which programs and cases.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Our daemon; otherwise the one beside this program.
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Take the cases of this folder instead of the corpus; `--example fuzz` of `rbuild-dockerfile` writes some.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Write both daemons' answers into this folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Compares; returns whether all is equal.
pub(crate) fn run(options: &Options) -> Result<bool, Error> {
    let corpus_folder = || paths::source().join("llb/corpus");
    let mut cases = corpus::load(&options.corpus.clone().unwrap_or_else(corpus_folder))?;
    if let Some(only) = &options.only {
        cases.retain(|case| case.name.contains(only.as_str()));
    }
    let tools = Module::find()?.tools();
    let program = tools.join("llb");
    run_command(
        paths::go(&["build", "-trimpath", "-o"])?
            .arg(&program)
            .arg("./llb")
            .env("CGO_ENABLED", "0"),
    )?;
    let work = std::env::temp_dir().join(format!("rbllb{}", std::process::id()));
    let result = (|| {
        standins::make(&work.join("mirror"))?;
        let registry = Registry::start_on(&work.join("mirror"), 0)?;
        let ours = options.daemon.clone().unwrap_or_else(|| {
            std::env::current_exe()
                .unwrap_or_default()
                .with_file_name("rbuildd")
        });
        let mut answers_of_both = Vec::new();
        for (side, daemon) in [("reference", tools.join("buildkitd")), ("ours", ours)] {
            let daemon = Daemon::start(&daemon, &work.join(side), registry.port)?;
            let answers = ask(&program, &daemon.address, &cases)?;
            if let Some(keep) = &options.keep {
                fs::create_dir_all(keep).map_err(at("making", keep))?;
                let file = keep.join(format!("{side}.json"));
                let text: String = answers.iter().map(|a| format!("{a}\n")).collect();
                fs::write(&file, text).map_err(at("writing", &file))?;
            }
            answers_of_both.push(answers);
        }
        let [reference, ours] = answers_of_both.try_into().expect("two daemons were asked");
        Ok(compare::all(&cases, &reference, &ours))
    })();
    let _left = fs::remove_dir_all(&work);
    result
}

/// Asks a daemon about all cases.
fn ask(program: &Path, address: &str, cases: &[corpus::Case]) -> Result<Vec<Value>, Error> {
    let start = |source| Error::Start {
        program: program.display().to_string(),
        source,
    };
    let mut child = Command::new(program)
        .arg(address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let mut input = child.stdin.take().expect("the input is a pipe");
    let text = Value::from_iter(cases.iter().map(corpus::Case::to_json)).to_string();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(start)?;
    let written = writer.join().is_ok_and(|written| written.is_ok());
    if !output.status.success() || !written {
        return Err(Error::Failed {
            program: program.display().to_string(),
            status: output.status.to_string(),
            output: format!(" on {address}"),
        });
    }
    serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Output {
            what: "the answers of tools/llb",
            problem: error.to_string(),
        })
}

/// A daemon on an empty state folder.
#[derive(Debug)]
struct Daemon {
    address: String,
    child: Child,
}

impl Daemon {
    fn start(program: &Path, dir: &Path, registry: u16) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(at("making", dir))?;
        let config = dir.join("daemon.toml");
        let hosts = [
            "docker.io",
            "gcr.io",
            "mcr.microsoft.com",
            "ghcr.io",
            "quay.io",
        ];
        let mirrors: String = hosts
            .iter()
            .map(|host| format!("[registry.\"{host}\"]\n  mirrors = [\"localhost:{registry}\"]\n"))
            .collect();
        let text = format!(
            "[worker.oci]\n  enabled = true\n  gc = false\n[worker.containerd]\n  enabled = false\n\
             {mirrors}[registry.\"localhost:{registry}\"]\n  http = true\n"
        );
        fs::write(&config, text).map_err(at("writing", &config))?;
        let log = dir.join("log");
        let log = File::create(&log).map_err(at("creating", &log))?;
        let address = format!("unix://{}", dir.join("s").display());
        let child = Command::new(program)
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(dir.join("state"))
            .arg("--addr")
            .arg(&address)
            .arg("--otel-socket-path")
            .arg(dir.join("otel"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|source| Error::Start {
                program: program.display().to_string(),
                source,
            })?;
        Ok(Self { address, child })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _gone_already = Command::new("kill").args(["-TERM", &pid]).status();
        for _ in 0..1000 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}
