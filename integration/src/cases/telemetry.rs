//! What operators see: metrics by Prometheus' parser, spans and metrics by OpenTelemetry's messages, and how a daemon stops.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::daemon::{Daemon, Setting};
use super::rig::{Rig, Trouble, Verdict, ensure, failed, within};
use super::{Case, On};
use crate::paths;
use crate::process::{Error, at};

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "metrics of a daemon that built are read by the parser of Prometheus and say what was built",
        on: On::Ours("its metrics have other labels, and its debugging address is no socket"),
        run: scraped,
    },
    Case {
        sentence: "spans of builds and metrics reach a collector over gRPC and over HTTP",
        on: On::Ours("its spans have other names"),
        run: collected,
    },
    Case {
        sentence: "a daemon that is told to stop finishes the build that runs and takes no other",
        on: On::Ours("it has no readiness, and takes no more connections"),
        run: drained,
    },
];

const PROGRAM: &str = include_str!("../../tools/telemetry/telemetry.py");
/// Packages of PyPI that read what the daemon tells.
const PACKAGES: [&str; 4] = [
    "prometheus-client==0.23.1",
    "opentelemetry-proto==1.38.0",
    "grpcio==1.76.0",
    "protobuf==6.33.0",
];
/// Longer than a collector of a loaded machine takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The interpreter of an environment that has the packages, which is made when it is not there.
fn python() -> Result<PathBuf, Error> {
    static ONE_AT_A_TIME: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock();
    let folder = paths::cache().join("tools/telemetry");
    let python = folder.join("bin/python3");
    let has_all = || {
        let check = "import grpc, prometheus_client.parser, opentelemetry.proto.trace.v1.trace_pb2";
        let mut command = Command::new(&python);
        let checked = command.args(["-c", check]).stderr(Stdio::null()).status();
        checked.is_ok_and(|status| status.success())
    };
    if has_all() {
        return Ok(python);
    }
    let created = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&folder)
        .status();
    let installed = Command::new(folder.join("bin/pip"))
        .args(["install", "-q", "--disable-pip-version-check"])
        .args(PACKAGES)
        .stderr(Stdio::null())
        .status();
    let steps = [created, installed];
    if steps
        .iter()
        .all(|status| status.as_ref().is_ok_and(|s| s.success()))
        && has_all()
    {
        return Ok(python);
    }
    Err(Error::Missing {
        what: "a reader of metrics and spans".to_owned(),
        remedy: format!("pip must be able to install {}", PACKAGES.join(" ")),
    })
}

fn program(rig: &Rig<'_>) -> Result<PathBuf, Error> {
    let file = rig.dir.join("telemetry.py");
    fs::write(&file, PROGRAM).map_err(at("writing", &file))?;
    Ok(file)
}

/// A daemon with a debugging listener at the socket that is returned.
fn observed<'a>(
    rig: &'a Rig<'_>,
    env: Vec<(String, String)>,
) -> Result<(Daemon<'a>, PathBuf), Trouble> {
    let socket = rig.run.join("d");
    let setting = Setting {
        args: vec!["--debugaddr".into(), format!("unix://{}", socket.display())],
        env,
        ..Setting::default()
    };
    Ok((Daemon::with(rig, setting)?, socket))
}

fn parse(line: &str) -> Result<Value, Trouble> {
    serde_json::from_str(line).or_else(|error| failed(format!("no JSON ({error}): {line}")))
}

fn scraped(rig: &Rig<'_>) -> Verdict {
    let (python, program) = (python()?, program(rig)?);
    let (daemon, socket) = observed(rig, Vec::new())?;
    let text = "FROM busybox\nRUN echo measured > /a\nRUN sleep 0.2\n";
    let context = rig.context("measured", &[("Dockerfile", text)])?;
    let bad = rig.context("bad", &[("Dockerfile", "FROM busybox\nRUN false\n")])?;
    for _ in 0..2 {
        daemon.build(&context, &[])?.success("a build")?;
    }
    daemon.build(&bad, &[])?;
    let mut scrape = Command::new(&python);
    scrape.arg(&program).arg("scrape").arg(&socket);
    let ran = rig.run(&mut scrape)?.success("the parser of Prometheus")?;
    let told = parse(&ran.out)?;
    let value = |name: &str| told["samples"][name].as_f64().unwrap_or(-1.0);
    for (name, least, most) in [
        ("buildkit_builds_total{status=success}", 2.0, 2.0),
        (
            "buildkit_builds_total{error_code=Unknown,status=failure}",
            1.0,
            1.0,
        ),
        (
            "buildkit_build_duration_seconds_count{status=success}",
            2.0,
            2.0,
        ),
        ("buildkit_builds_steps_total{kind=cached}", 2.0, 9.0),
        (
            "rpc_server_call_duration_seconds_count{rpc_method=moby.buildkit.v1.Control/Solve,rpc_system_name=grpc}",
            3.0,
            9.0,
        ),
        ("rbuild_builds_active", 0.0, 0.0),
        ("rbuild_steps_queued", 0.0, 0.0),
        ("rbuild_steps_running", 0.0, 0.0),
        ("rbuild_phase_duration_seconds_count{phase=queue}", 3.0, 9.0),
        ("rbuild_phase_duration_seconds_count{phase=exec}", 3.0, 3.0),
        ("rbuild_phase_duration_seconds_sum{phase=exec}", 0.2, 60.0),
        (
            "rbuild_phase_duration_seconds_count{phase=commit}",
            2.0,
            2.0,
        ),
        ("rbuild_phase_duration_seconds_count{phase=pull}", 1.0, 9.0),
        ("rbuild_cache_hits_total{kind=local}", 1.0, 9.0),
        ("rbuild_cache_misses_total", 2.0, 20.0),
        (
            "rbuild_transferred_bytes_total{direction=in,peer=registry}",
            1000.0,
            1e9,
        ),
        (
            "rbuild_transferred_bytes_total{direction=in,peer=client}",
            10.0,
            1e6,
        ),
        ("rbuild_store_size_bytes{kind=used}", 1000.0, 1e11),
        ("process_resident_memory_bytes", 1e6, 1e10),
        ("rbuild_info{version=0.1.0}", 1.0, 1.0),
    ] {
        let value = value(name);
        ensure((least..=most).contains(&value), || {
            format!("{name} is {value} and not between {least} and {most}")
        })?;
    }
    let kind = told["types"]["rbuild_phase_duration_seconds"].as_str();
    ensure(kind == Some("histogram"), || format!("phases are {kind:?}"))
}

/// A collector that ends with its case.
struct Collector {
    child: Child,
    grpc: u16,
    http: u16,
    file: PathBuf,
}

impl Collector {
    fn start(rig: &Rig<'_>) -> Result<Self, Trouble> {
        let (python, program) = (python()?, program(rig)?);
        let file = rig.dir.join("collected");
        let mut command = Command::new(&python);
        command.arg(&program).arg("collect").arg(&file);
        let child = command.stdout(Stdio::piped()).spawn();
        let child = child.map_err(|source| Error::Start {
            program: python.display().to_string(),
            source,
        })?;
        let mut collector = Self {
            child,
            grpc: 0,
            http: 0,
            file,
        };
        let mut line = String::new();
        if let Some(out) = collector.child.stdout.take() {
            let read = BufReader::new(out).read_line(&mut line);
            read.or_else(|error| failed(format!("the collector says nothing: {error}")))?;
        }
        let mut ports = line.split_whitespace().map(str::parse);
        let (Some(Ok(grpc)), Some(Ok(http))) = (ports.next(), ports.next()) else {
            return failed(format!("the collector does not start: {line:?}"));
        };
        (collector.grpc, collector.http) = (grpc, http);
        Ok(collector)
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str);
        lines.filter_map(Result::ok).collect()
    }

    /// Waits until a line of those that came over `over` fits; returns it.
    fn wait(
        &self,
        over: &str,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value, Trouble> {
        let mut line = None;
        within(PATIENCE, || {
            let mut lines = self.lines().into_iter();
            line = lines.find(|line| line["over"] == over && fits(line));
            line.is_some()
        });
        line.map_or_else(
            || {
                failed(format!(
                    "{what} did not come over {over}: {:?}",
                    self.lines()
                ))
            },
            Ok,
        )
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn collected(rig: &Rig<'_>) -> Verdict {
    let collector = Collector::start(rig)?;
    let text = "FROM busybox\nRUN echo traced\nRUN false\n";
    let context = rig.context("traced", &[("Dockerfile", text)])?;
    for (over, protocol, port) in [
        ("grpc", "grpc", collector.grpc),
        ("http", "http/protobuf", collector.http),
    ] {
        let env = [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://127.0.0.1:{port}"),
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "300".to_owned()),
            ("OTEL_SERVICE_NAME", format!("builder-{over}")),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value));
        let (daemon, _) = observed(rig, env.to_vec())?;
        daemon.build(&context, &[])?;
        let root = collector.wait(over, "the span of the build", |line| {
            line["span"] == "moby.buildkit.v1.Control/Solve" && line["error"] != ""
        })?;
        ensure(root["service"] == format!("builder-{over}"), || {
            format!("the service is called {}", root["service"])
        })?;
        let step = collector.wait(over, "the span of the failed step", |line| {
            line["trace"] == root["trace"]
                && line["span"]
                    .as_str()
                    .is_some_and(|name| name.contains("RUN false"))
        })?;
        ensure(step["parent"] == root["id"], || {
            format!("the step {step} is no part of the build {root}")
        })?;
        let error = step["error"].as_str().unwrap_or_default();
        ensure(error.contains("exit code: 1"), || {
            format!("the step's span says {error:?}")
        })?;
        let builds = collector.wait(over, "the count of builds", |line| {
            line["metric"] == "buildkit.builds"
        })?;
        ensure(
            builds["kind"] == "sum" && builds["temporality"] == 1 && builds["value"] == 1,
            || format!("builds are told as {builds}"),
        )?;
        let took = collector.wait(over, "the duration of the build", |line| {
            line["metric"] == "buildkit.build.duration"
        })?;
        ensure(took["kind"] == "histogram" && took["unit"] == "s", || {
            format!("the duration is told as {took}")
        })?;
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut ours = daemon.rbuild_command(&context, &[]);
        rig.run(ours.env("TRACEPARENT", parent))?;
        collector.wait(over, "the span of a build of a traced client", |line| {
            line["trace"] == "0af7651916cd43dd8448eb211c80319c"
                && line["parent"] == "b7ad6b7169203331"
        })?;
        drop(daemon);
        // What was told once is not told again, also not when the daemon ends.
        let lines = collector.lines();
        let build_counts = lines
            .iter()
            .filter(|l| l["over"] == over && l["metric"] == "buildkit.builds");
        let sum: i64 = build_counts.filter_map(|line| line["value"].as_i64()).sum();
        ensure(sum == 2, || format!("{sum} builds are told of two"))?;
    }
    Ok(())
}

fn drained(rig: &Rig<'_>) -> Verdict {
    let (mut daemon, socket) = observed(rig, Vec::new())?;
    let long = "FROM busybox\nRUN echo begun && sleep 3 && echo ended > /a\n";
    let long = rig.context("long", &[("Dockerfile", long)])?;
    let short = rig.context("short", &[("Dockerfile", "FROM busybox\nRUN echo short\n")])?;
    let running = daemon.begin(&long, &[])?;
    ensure(
        within(PATIENCE, || running.so_far().contains("begun")),
        || format!("the build does not begin: {}", running.so_far()),
    )?;
    let pid = daemon.pid().to_string();
    let _gone_already = Command::new("kill").args(["-TERM", &pid]).status();
    let readiness = || {
        let mut ask = Command::new("curl");
        ask.args(["-sS", "--unix-socket"]).arg(&socket);
        rig.run(ask.arg("http://x/readyz"))
    };
    ensure(
        within(PATIENCE, || {
            readiness().is_ok_and(|ran| ran.out.starts_with("draining"))
        }),
        || "the daemon does not say that it drains".to_owned(),
    )?;
    let refused = daemon.build(&short, &[])?;
    let message = refused.tail();
    ensure(
        !refused.ok() && message.contains("the daemon is stopping and takes no more builds"),
        || format!("a build while the daemon stops: {message}"),
    )?;
    let ran = running.wait(PATIENCE)?;
    ensure(ran.ok(), || {
        format!("the build that ran fails: {}", ran.tail())
    })?;
    ensure(within(PATIENCE, || daemon.alive().is_err()), || {
        "the daemon does not end after its last build".to_owned()
    })
}
