//! One measured build, and whether it did what it should.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::contexts;
use super::daemon::Daemon;
use super::rows::{Build, From};
use crate::process::{Error, at, output};

/// Drives daemons with the unmodified client.
#[derive(Debug)]
pub(super) struct Builder {
    buildctl: PathBuf,
    contexts: PathBuf,
    tar: PathBuf,
    progress: PathBuf,
}

impl Builder {
    /// Prepares for builds that leave their output in `work`.
    pub(super) fn new(buildctl: &Path, work: &Path, contexts: &Path) -> Self {
        Self {
            buildctl: buildctl.to_owned(),
            contexts: contexts.to_owned(),
            tar: work.join("out.tar"),
            progress: work.join("progress.json"),
        }
    }

    /// Brings the daemon into the state that the build starts from.
    pub(super) fn prepare(&self, daemon: &Daemon, build: &Build) -> Result<(), Error> {
        if self.tar.exists() {
            fs::remove_file(&self.tar).map_err(at("removing", &self.tar))?;
        }
        if build.from == From::Base {
            output(self.build(daemon, "base").arg("--progress=plain"))?;
        }
        Ok(())
    }

    /// Builds, checks, and returns the time from the client's start to its end.
    pub(super) fn measure(&self, daemon: &Daemon, build: &Build) -> Result<Duration, Error> {
        let mut command = self.build(daemon, build.context);
        command.arg("--progress=rawjson");
        if build.layers.is_some() {
            command
                .arg("--output")
                .arg(format!("type=oci,dest={}", self.tar.display()));
        }
        let progress = File::create(&self.progress).map_err(at("creating", &self.progress))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(progress);
        let start = Instant::now();
        let status = command.status().map_err(|source| Error::Start {
            program: self.buildctl.display().to_string(),
            source,
        })?;
        let elapsed = start.elapsed();

        let progress = fs::read_to_string(&self.progress).map_err(at("reading", &self.progress))?;
        if !status.success() {
            let last = progress.lines().last().unwrap_or_default();
            return Err(wrong(daemon, build, format!("{status}: {last}")));
        }
        let steps = Steps::of(&progress);
        let want = match build.from {
            From::Cache => Steps {
                executed: 0,
                cached: build.steps,
            },
            From::Nothing | From::Base => Steps {
                executed: build.steps,
                cached: 0,
            },
        };
        if steps != want {
            return Err(wrong(daemon, build, format!("{steps:?}, not {want:?}")));
        }
        if let Some(want) = build.layers {
            let (layers, size) = self.exported()?;
            if layers != want || size < build.least {
                let problem = format!(
                    "an image of {layers} layers in {size} bytes, not {want} in at least {}",
                    build.least
                );
                return Err(wrong(daemon, build, problem));
            }
        }
        Ok(elapsed)
    }

    fn client(&self, daemon: &Daemon) -> Command {
        let mut command = Command::new(&self.buildctl);
        command.arg("--addr").arg(&daemon.address);
        command
    }

    fn build(&self, daemon: &Daemon, name: &str) -> Command {
        let mut command = self.client(daemon);
        let local = |what: &str, dir: PathBuf| format!("{what}={}", dir.display());
        command
            .args(["build", "--frontend", "dockerfile.v0", "--local"])
            .arg(local("context", contexts::context(&self.contexts, name)))
            .arg("--local")
            .arg(local(
                "dockerfile",
                contexts::dockerfile(&self.contexts, name),
            ));
        command
    }

    /// Returns the number of layers of the exported image, and the file's size.
    fn exported(&self) -> Result<(usize, u64), Error> {
        let size = fs::metadata(&self.tar)
            .map_err(at("reading", &self.tar))?
            .len();
        let member = |name: &str| -> Result<Value, Error> {
            let text = output(Command::new("tar").arg("-xOf").arg(&self.tar).arg(name))?;
            serde_json::from_str(&text).map_err(|error| Error::Output {
                what: "the exported image",
                problem: format!("{name}: {error}"),
            })
        };
        let index = member("index.json")?;
        let digest = index
            .pointer("/manifests/0/digest")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let manifest = member(&format!("blobs/{}", digest.replace(':', "/")))?;
        let layers = manifest
            .get("layers")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        Ok((layers, size))
    }
}

fn wrong(daemon: &Daemon, build: &Build, problem: String) -> Error {
    Error::Output {
        what: "a measured build",
        problem: format!("{} on {}: {problem}", build.context, daemon.side),
    }
}

/// How many `RUN` and `COPY` steps were done, and how many taken from the cache.
#[derive(Debug, PartialEq, Eq)]
struct Steps {
    executed: usize,
    cached: usize,
}

impl Steps {
    /// Counts the steps of a progress stream, one JSON object a line.
    fn of(progress: &str) -> Self {
        let mut steps = BTreeMap::new();
        for line in progress.lines() {
            let Ok(status) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let vertices = status.get("vertexes").and_then(Value::as_array);
            for vertex in vertices.into_iter().flatten() {
                let text = |key| vertex.get(key).and_then(Value::as_str).unwrap_or_default();
                let name = text("name");
                if (name.contains("] RUN ") || name.contains("] COPY "))
                    && !text("completed").is_empty()
                {
                    let cached = vertex.get("cached").and_then(Value::as_bool) == Some(true);
                    *steps.entry(text("digest").to_owned()).or_insert(false) |= cached;
                }
            }
        }
        let cached = steps.values().filter(|cached| **cached).count();
        Self {
            executed: steps.len() - cached,
            cached,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Steps;

    #[test]
    fn steps_are_counted_once_and_only_when_they_completed() {
        let progress = r#"{"vertexes":[{"digest":"a","name":"[1/2] RUN echo"},{"digest":"i","name":"[internal] load","completed":"t"}]}
{"vertexes":[{"digest":"a","name":"[1/2] RUN echo","completed":"t"},{"digest":"b","name":"[2/2] COPY . /","completed":"t","cached":true}]}
{"vertexes":[{"digest":"a","name":"[1/2] RUN echo","completed":"t"}]}"#;
        let want = Steps {
            executed: 1,
            cached: 1,
        };
        assert_eq!(Steps::of(progress), want);
    }
}
