//! What frontends answer to questions, and what builds are called while they run: the three clients, the two daemons.
//!
//! Every case asks `check`, `outline` and `targets`. What `buildx` prints on the reference's daemon is the measure: the
//! same by `buildx` on ours, the same by `rbuild`, as text and as JSON, with the same exit code and the same words on the
//! error stream; and `buildctl` must print the same on both daemons. Builds are compared by the names of their steps and
//! by their warnings.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::paths::{self, Module};
use crate::process::{Error, at, is_root};
use crate::serve::Registry;

/// How long a daemon may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Which programs to compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Our daemon; otherwise the one beside this program.
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Our client; otherwise the one beside this program.
    #[arg(long, value_name = "FILE")]
    client: Option<PathBuf>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

struct Case {
    name: &'static str,
    dockerfile: &'static str,
    flags: &'static [&'static str],
}

const fn case(name: &'static str, dockerfile: &'static str) -> Case {
    Case {
        name,
        dockerfile,
        flags: &[],
    }
}

const CASES: &[Case] = &[
    case("a clean file", "FROM scratch\nCOPY Dockerfile /\n"),
    case(
        "descriptions, arguments, secrets, agents",
        "ARG BASE=busybox:latest\n# base is where all begins\nFROM ${BASE} AS base\n# VERSION of the program\nARG VERSION=1.2\nARG EMPTY\n\
         RUN --mount=type=secret,id=tok,required --mount=type=ssh true\nRUN --mount=type=secret,id=opt true\n\
         FROM base AS build\nARG VERSION\nRUN --mount=type=ssh,id=deploy,required true\n# out is the result\nFROM scratch AS out\nCOPY --from=build /etc /\n",
    ),
    Case {
        name: "another target and other arguments",
        dockerfile: "ARG BASE=busybox\nFROM ${BASE} AS one\nARG A=1\nARG B=$A-2\nFROM one AS two\nARG C=${B:-none}\nFROM scratch\nARG D=4\n",
        flags: &[
            "--target",
            "two",
            "--build-arg",
            "A=9",
            "--build-arg",
            "BASE=busybox:1.36",
        ],
    },
    case(
        "casing, old instructions, places",
        "from scratch as First\nMAINTAINER me\nENV key value\nCOPY . /x\nWORKDIR rel\nFROM scratch as First\nExpose 80/TCP\nFROM scratch AS context\n",
    ),
    case(
        "secrets in arguments, undefined names",
        "FROM busybox\nARG API_TOKEN\nENV PASSWORD=x\nENV P=$UNSET\nENV Q=$PAHT\nCOPY $NOTHING /\nENTRYPOINT echo hi\nCMD echo there\nCMD second\n",
    ),
    case(
        "rules left out",
        "# check=skip=FromAsCasing,StageNameCasing\nFROM scratch as First\nMAINTAINER me\n",
    ),
    case(
        "all rules left out",
        "# check=skip=all\nFROM scratch as First\nMAINTAINER me\n",
    ),
    case(
        "findings are errors",
        "# check=error=true\nFROM scratch as first\nCOPY . /\n",
    ),
    case(
        "rules that are being tried",
        "# check=experimental=all\nFROM scratch\n# copy is a verb\nCOPY . /\nEXPOSE 127.0.0.1:80:80\n",
    ),
    case(
        "platforms",
        "FROM --platform=$TARGETPLATFORM scratch AS a\nFROM --platform=linux/amd64 scratch\nCOPY --from=a / /\n",
    ),
    case("an unknown instruction", "FROM scratch\nRUNN true\n"),
    case(
        "a missing stage",
        "FROM scratch AS one\nCOPY --from=tow /a /b\n",
    ),
    case("no stage", "ARG A=1\n"),
    case("an empty file", ""),
    Case {
        name: "a target that is not there",
        dockerfile: "FROM scratch AS runtime\n",
        flags: &["--target", "runtme"],
    },
];

const BUILDS: &[Case] = &[
    case(
        "stages, mounts, heredocs",
        "FROM busybox:latest AS base\nRUN echo one; echo two >&2\nRUN <<EOF\necho three\nEOF\nFROM base AS left\nRUN --mount=type=cache,target=/c echo left\n\
         FROM base AS right\nWORKDIR /r\nRUN echo right\nFROM scratch\nCOPY --from=left /etc/passwd /l\nCOPY --from=right --chmod=600 /etc/passwd /r\nCOPY --link Dockerfile /d\n",
    ),
    case(
        "warnings",
        "from scratch as First\nMAINTAINER me\nENV key value\nCOPY Dockerfile /x\n",
    ),
    case(
        "a step that fails",
        "FROM busybox\nRUN echo fine\nRUN echo before; \\\n    exit 7\nRUN echo never\n",
    ),
];

/// What a program did.
#[derive(Debug, PartialEq, Eq, Clone)]
struct ClientOutput {
    code: Option<i32>,
    out: String,
    err: String,
}

struct Bench {
    buildctl: PathBuf,
    buildx: PathBuf,
    rbuild: PathBuf,
    ours: String,
    theirs: String,
    config: PathBuf,
    context: PathBuf,
}

/// Compares; false if there is a difference.
pub(crate) fn run(options: &Options) -> Result<bool, Error> {
    if !is_root() {
        return Err(Error::Missing {
            what: "root".to_owned(),
            remedy: "run this as root: both daemons mount and start containers".to_owned(),
        });
    }
    let tools = Module::find()?.tools();
    let beside = |option: &Option<PathBuf>, name: &str| -> Result<PathBuf, Error> {
        let file = option.clone().or_else(|| {
            let me = std::env::current_exe().ok()?;
            Some(me.with_file_name(name))
        });
        file.filter(|f| f.is_file()).ok_or_else(|| Error::Missing {
            what: name.to_owned(),
            remedy: format!("build it, or name it with a flag ({name})"),
        })
    };
    let work = std::env::temp_dir().join(format!("rbq{}", std::process::id()));
    fs::create_dir_all(&work).map_err(at("making", &work))?;
    let _work = Folder(work.clone());
    let registry = Registry::start(0)?;
    let ours = Daemon::start(
        &beside(&options.daemon, "rbuildd")?,
        &work,
        "o",
        registry.port,
    )?;
    let theirs = Daemon::start(&tools.join("buildkitd"), &work, "t", registry.port)?;
    let bench = Bench {
        buildctl: tools.join("buildctl"),
        buildx: tools.join("buildx"),
        rbuild: beside(&options.client, "rbuild")?,
        ours: ours.address.clone(),
        theirs: theirs.address.clone(),
        config: work.join("buildx"),
        context: work.join("context"),
    };
    fs::create_dir_all(&bench.context).map_err(at("making", &bench.context))?;
    for (name, address) in [("ours", &bench.ours), ("theirs", &bench.theirs)] {
        let created = bench.call(
            Command::new(&bench.buildx)
                .args(["create", "--name", name, "--driver", "remote", address]),
        )?;
        if created.code != Some(0) {
            return Err(Error::Output {
                what: "buildx create",
                problem: created.err,
            });
        }
    }
    let is_chosen = |case: &&Case| {
        options
            .only
            .as_ref()
            .is_none_or(|o| case.name.contains(o.as_str()))
    };
    let mut differences = 0;
    let mut compared = 0;
    for case in CASES.iter().filter(is_chosen) {
        bench.put(case)?;
        differences += bench.questions(case, &mut compared)?;
    }
    for case in BUILDS.iter().filter(is_chosen) {
        bench.put(case)?;
        differences += bench.build(case, &mut compared)?;
    }
    drop((ours, theirs, registry));
    println!("calls: {compared} comparisons, {differences} differences");
    Ok(differences == 0 && compared > 0)
}

impl Bench {
    fn put(&self, case: &Case) -> Result<(), Error> {
        let file = self.context.join("Dockerfile");
        fs::write(&file, case.dockerfile).map_err(at("writing", &file))
    }

    fn call(&self, command: &mut Command) -> Result<ClientOutput, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = command
            .current_dir(self.context.parent().unwrap_or(&self.context))
            .env("BUILDX_CONFIG", &self.config)
            .env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
            .env_remove("RBUILD_HOST")
            .env_remove("BUILDKIT_HOST")
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Start { program, source })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // The session code of Go's clients complains when a session ends as soon as it began, on either daemon.
        let err = text(&output.stderr)
            .lines()
            .filter(|l| !l.contains(" http2: server"))
            .fold(String::new(), |all, l| all + l + "\n");
        Ok(ClientOutput {
            code: output.status.code(),
            out: text(&output.stdout),
            err: err.trim_end().to_owned(),
        })
    }

    fn buildx(&self, builder: &str, progress: &str, flags: &[&str]) -> Result<ClientOutput, Error> {
        let mut command = Command::new(&self.buildx);
        command
            .args(["build", "--builder", builder, "--progress", progress])
            .args(flags)
            .arg("context");
        self.call(&mut command)
    }

    fn rbuild(&self, progress: &str, flags: &[&str]) -> Result<ClientOutput, Error> {
        let mut command = Command::new(&self.rbuild);
        command
            .args(["--addr", &self.ours, "build", "--progress", progress])
            .args(flags)
            .arg("context");
        self.call(&mut command)
    }

    fn buildctl(
        &self,
        address: &str,
        progress: &str,
        options: &[String],
    ) -> Result<ClientOutput, Error> {
        let mut command = Command::new(&self.buildctl);
        command.args(["--addr", address, "build", "--frontend", "dockerfile.v0"]);
        command.args([
            "--local",
            "context=context",
            "--local",
            "dockerfile=context",
        ]);
        command.args(["--progress", progress]);
        for option in options {
            command.args(["--opt", option]);
        }
        self.call(&mut command)
    }

    // Asks everything and returns how many answers differ.
    fn questions(&self, case: &Case, compared: &mut usize) -> Result<usize, Error> {
        let mut differences = 0;
        let mut compare = |what: String, want: &ClientOutput, actual: &ClientOutput| {
            *compared += 1;
            differences += usize::from(!same(&format!("{}: {what}", case.name), want, actual));
        };
        for method in ["check", "outline", "targets"] {
            for format in ["", ",format=json"] {
                let call = format!("--call={method}{format}");
                let mut flags = vec![call.as_str()];
                flags.extend(case.flags);
                let want = answer(self.buildx("theirs", "quiet", &flags)?);
                let ours = answer(self.buildx("ours", "quiet", &flags)?);
                compare(format!("{call} by buildx on both daemons"), &want, &ours);
                let rbuild = answer(self.rbuild("quiet", &flags)?);
                compare(format!("{call} by rbuild"), &want, &rbuild);
            }
            let options = frontend_options(method, case.flags);
            let want = answer(self.buildctl(&self.theirs, "plain", &options)?);
            let ours = answer(self.buildctl(&self.ours, "plain", &options)?);
            compare(
                format!("{method} by buildctl"),
                &without_progress(want),
                &without_progress(ours),
            );
        }
        Ok(differences)
    }

    // Builds everywhere and returns in how many ways the builds are shown differently.
    fn build(&self, case: &Case, compared: &mut usize) -> Result<usize, Error> {
        let mut differences = 0;
        let mut compare = |what: &str, want: &ClientOutput, actual: &ClientOutput| {
            *compared += 1;
            differences += usize::from(!same(&format!("{}: {what}", case.name), want, actual));
        };
        let want = steps(&self.buildctl(&self.theirs, "rawjson", &[])?);
        let ours = steps(&self.buildctl(&self.ours, "rawjson", &[])?);
        compare(
            "steps and warnings by buildctl on both daemons",
            &want,
            &ours,
        );
        let buildx = steps(&self.buildx("ours", "rawjson", case.flags)?);
        compare("steps and warnings by buildx", &want, &buildx);
        let rbuild = steps(&self.rbuild("rawjson", case.flags)?);
        compare("steps and warnings by rbuild", &want, &rbuild);
        let want = endings(self.buildx("ours", "plain", case.flags)?);
        let rbuild = endings(self.rbuild("plain", case.flags)?);
        compare("the end of plain progress by rbuild", &want, &rbuild);
        Ok(differences)
    }
}

fn frontend_options(method: &str, flags: &[&str]) -> Vec<String> {
    let method = if method == "check" { "lint" } else { method };
    let mut all = vec![
        format!("requestid=frontend.{method}"),
        "frontend.caps=moby.buildkit.frontend.subrequests".to_owned(),
    ];
    for pair in flags.chunks(2) {
        match pair {
            ["--target", stage] => all.push(format!("target={stage}")),
            ["--build-arg", arg] => all.push(format!("build-arg:{arg}")),
            _ => {}
        }
    }
    all
}

// An answer without what names the session, which are definitions of the Dockerfile's source, and without what depends on
// the order in which two goroutines of buildx end: when a build fails, `client/solve.go` of BuildKit reports either the
// error of the solve or that of the function which asked for it, whichever comes first.
fn answer(mut output: ClientOutput) -> ClientOutput {
    output.err = output
        .err
        .replace("failed to run Build function: ", "failed to solve: ");
    if let Ok(mut json) = serde_json::from_str::<Value>(&output.out) {
        if let Some(sources) = json.get_mut("sources").and_then(Value::as_array_mut) {
            for source in sources.iter_mut().filter_map(Value::as_object_mut) {
                let _names_the_session = source.remove("definition");
            }
        }
        output.out = format!("{json:#}");
    }
    output
}

// Without progress, which is timed.
fn without_progress(mut output: ClientOutput) -> ClientOutput {
    let lines = output.err.lines();
    let lines = lines.filter(|l| !l.starts_with('#') && !l.is_empty());
    output.err = lines.map(|l| format!("{l}\n")).collect();
    output
}

// The names of a build's steps and its warnings, sorted.
fn steps(output: &ClientOutput) -> ClientOutput {
    let mut names = BTreeSet::new();
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    for line in output.err.lines() {
        let Ok(change) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let list = |key: &str| change.get(key).and_then(Value::as_array).cloned();
        for vertex in list("vertexes").unwrap_or_default() {
            names.extend(text(&vertex, "name"));
        }
        for warning in list("warnings").unwrap_or_default() {
            // As it is on the wire: base64.
            names.extend(text(&warning, "short").map(|short| format!("warning {short}")));
        }
    }
    ClientOutput {
        code: output.code.map(|code| i32::from(code != 0)),
        out: names.into_iter().map(|n| n + "\n").collect(),
        err: String::new(),
    }
}

// What follows the steps: the end of a failed step's output, the warnings, the marked lines, the error.
fn endings(output: ClientOutput) -> ClientOutput {
    let mut ending = String::new();
    let mut is_ending = false;
    for line in output.err.lines() {
        let carets = line.starts_with("     | ");
        let ours =
            carets || line.starts_with("built, and kept") || line.starts_with("WARNING: No output");
        is_ending |= line.starts_with("------")
            || line.contains(" found (use ")
            || line.starts_with("Dockerfile:");
        if is_ending && !ours && !line.is_empty() && !line.starts_with('#') {
            let line = line.replace("\u{1b}[33m", "").replace("\u{1b}[0m", "");
            let line = line.replace("(use docker --debug to expand)", "(use --check to expand)");
            ending += &without_time(&line);
            ending.push('\n');
        }
    }
    ClientOutput {
        code: output.code,
        out: String::new(),
        err: ending,
    }
}

fn without_time(line: &str) -> String {
    match line.split_once(' ') {
        Some((time, rest)) if time.contains('.') && time.parse::<f64>().is_ok() => rest.to_owned(),
        _ => line.to_owned(),
    }
}

fn same(what: &str, want: &ClientOutput, actual: &ClientOutput) -> bool {
    if want == actual {
        return true;
    }
    println!("different: {what}");
    if want.code != actual.code {
        println!(
            "  exit code {:?} in the place of {:?}",
            actual.code, want.code
        );
    }
    for (stream, want, actual) in [
        ("output", &want.out, &actual.out),
        ("errors", &want.err, &actual.err),
    ] {
        let (want, actual): (Vec<&str>, Vec<&str>) =
            (want.lines().collect(), actual.lines().collect());
        let at = want.iter().zip(&actual).take_while(|(w, g)| w == g).count();
        if at < want.len() || at < actual.len() {
            println!("  {stream}, line {}:", at + 1);
            println!("    - {}", want.get(at).unwrap_or(&"(end)"));
            println!("    + {}", actual.get(at).unwrap_or(&"(end)"));
        }
    }
    false
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}

struct Daemon {
    address: String,
    child: Child,
}

impl Daemon {
    fn start(program: &Path, work: &Path, name: &str, registry: u16) -> Result<Self, Error> {
        let config = work.join(format!("{name}.toml"));
        let text = format!(
            "[worker.oci]\n  enabled = true\n  gc = false\n[worker.containerd]\n  enabled = false\n\
             [registry.\"docker.io\"]\n  mirrors = [\"localhost:{registry}\"]\n[registry.\"localhost:{registry}\"]\n  http = true\n"
        );
        fs::write(&config, text).map_err(at("writing", &config))?;
        let logs = paths::cache().join("logs");
        fs::create_dir_all(&logs).map_err(at("making", &logs))?;
        let log = logs.join(format!("calls-{name}.log"));
        let socket = work.join(format!("{name}.sock"));
        let address = format!("unix://{}", socket.display());
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        path.push(":/usr/sbin:/sbin");
        let child = Command::new(program)
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(work.join(name))
            .args(["--addr", &address])
            .arg("--otel-socket-path")
            .arg(work.join(format!("{name}.otel")))
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).map_err(at("creating", &log))?)
            .spawn()
            .map_err(|source| Error::Start {
                program: program.display().to_string(),
                source,
            })?;
        let mut daemon = Self { address, child };
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let ended = daemon.child.try_wait().ok().flatten();
            if ended.is_some() || start.elapsed() > START_TIMEOUT {
                return Err(Error::Failed {
                    program: program.display().to_string(),
                    status: ended.map_or("does not serve".to_owned(), |s| s.to_string()),
                    output: format!(": see {}", log.display()),
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _gone_already = Command::new("kill").args(["-TERM", &pid]).status();
        let start = Instant::now();
        while start.elapsed() < START_TIMEOUT && self.child.try_wait().ok().flatten().is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_for_no_reason_of_ours_is_left_out() {
        let output = |out: &str, err: &str| ClientOutput {
            code: Some(0),
            out: out.into(),
            err: err.into(),
        };
        let one = answer(output(
            r#"{"sources":[{"data":"x","definition":{"def":["1"]}}]}"#,
            "",
        ));
        let two = answer(output(
            r#"{"sources":[{"data":"x","definition":{"def":["2"]}}]}"#,
            "",
        ));
        assert_eq!(one, two);
        let one = answer(output("", "ERROR: failed to run Build function: no stage"));
        let two = answer(output("", "ERROR: failed to solve: no stage"));
        assert_eq!(one, two);
        let one = endings(output(
            "",
            "#1 [a]\n------\n > a:\n0.120 hi\n------\n\n 1 warning found (use docker --debug to expand):\n - x\n",
        ));
        let two = endings(output(
            "",
            "#1 [b]\n------\n > a:\n0.003 hi\n------\n\n 1 warning found (use --check to expand):\n - x\n",
        ));
        assert_eq!(one, two);
        assert!(one.err.contains("hi\n"));
    }
}
