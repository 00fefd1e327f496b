//! `docker buildx` with the driver kubernetes: an API server and a kubelet of our own (`tools/kube`) start our image in pods, and buildx
//! works with it unchanged.
//!
//! ```text
//! buildx create --driver kubernetes ─► deployment ─► pods of runc ◄─ probes: buildctl debug workers
//! buildx build ─► SPDY: exec of buildctl dial-stdio ─► rbuildd in a pod
//! ```

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::certificates;
use super::{Docker, IMAGE, Options, Trouble, ensure, free_port, image, project, with_docker};
use crate::charts::Charts;
use crate::paths::{self, Module};
use crate::process::{Error, at, output, run as run_command};

const BUILDER: &str = "rbuild-kubernetes";
/// How long pods may take to end after their deployment has gone.
const PODS_END: Duration = Duration::from_secs(40);
/// Builds with random pods: all of them go to one of two pods once in 2^19 runs.
const RANDOM_BUILDS: usize = 20;

/// Runs the whole life of builders in a cluster; `false` when something of it is not as it should be.
pub(crate) fn run(options: &Options) -> Result<bool, Error> {
    with_docker("kubernetes", |docker, scratch| {
        let archive = image(options, scratch)?;
        let cluster = Cluster::start(docker, &archive)?;
        let outcome = life_in_a_cluster(docker, &cluster, scratch);
        if outcome.is_err() {
            println!("the cluster's log: {}", cluster.log());
        }
        outcome
    })
}

fn life_in_a_cluster(docker: &Docker, cluster: &Cluster, scratch: &Path) -> Result<(), Trouble> {
    let begun = Instant::now();
    let passed = |what: &str| println!("ok       {what} ({:.1} s)", begun.elapsed().as_secs_f64());
    let config = scratch.join("buildkitd.toml");
    fs::write(&config, "[worker.oci.labels]\n  tried = \"in-a-pod\"\n")
        .map_err(at("writing", &config))?;
    let create = |options: &str, more: &[&str]| {
        let options = format!("image={IMAGE},{options}");
        let mut arguments = vec!["create", "--name", BUILDER, "--driver", "kubernetes"];
        arguments.extend(["--driver-opt", &options, "--bootstrap"]);
        arguments.extend(more);
        docker.run("buildx", &arguments)
    };

    create(
        "replicas=2,loadbalance=sticky",
        &["--buildkitd-config", &config.display().to_string()],
    )?;
    let inspected = docker.run("buildx", &["inspect", BUILDER])?;
    ensure(
        inspected.contains("Status:                running") && inspected.contains("v0."),
        || inspected.clone(),
    )?;
    ensure(inspected.contains("in-a-pod"), || {
        format!("the configuration is not used: {inspected}")
    })?;
    let pods = cluster.pods()?;
    let log = cluster.log();
    for pod in &pods {
        ensure(log.contains(&format!("probe of {pod} succeeded")), || {
            format!("no probe of {pod} succeeded")
        })?;
    }
    ensure(pods.len() == 2, || format!("the pods are {pods:?}"))?;
    passed("buildx boots two pods with a configuration, and their probes succeed");

    let project = project(scratch)?;
    docker.build(BUILDER, &project, &["--load", "-t", "app:one", "."])?;
    let printed = docker.run("docker", &["run", "--rm", "--network", "host", "app:one"])?;
    ensure(printed == "built\n", || {
        format!("the image prints {printed:?}")
    })?;
    for _ in 0..3 {
        let again = docker.build(BUILDER, &project, &["--load", "-t", "app:one", "."])?;
        ensure(again.contains("CACHED"), || again.clone())?;
    }
    passed(
        "an image is built, loaded and run, and one context goes to one pod, which has it cached",
    );

    docker.run("buildx", &["du", "--builder", BUILDER])?;
    docker.run(
        "buildx",
        &["prune", "--builder", BUILDER, "--all", "--force"],
    )?;
    docker.run("buildx", &["rm", BUILDER])?;
    cluster.wait_until_empty()?;
    passed("du and prune answer, and rm leaves no pod");

    create("replicas=2,loadbalance=random", &[])?;
    let before = cluster.log().len();
    for _ in 0..RANDOM_BUILDS {
        docker.build(BUILDER, &project, &["."])?;
    }
    let log = cluster.log();
    for pod in cluster.pods()? {
        let reached = log
            .get(before..)
            .is_some_and(|since| since.contains(&format!("/pods/{pod}/exec")));
        ensure(reached, || {
            format!("none of {RANDOM_BUILDS} builds went to {pod}")
        })?;
    }
    docker.run("buildx", &["rm", BUILDER])?;
    cluster.wait_until_empty()?;
    passed("with loadbalance=random both pods build");

    for attempt in ["first", "second"] {
        create("persistent-volume-claim.requests.storage=1Gi", &[])?;
        let progress = docker.build(BUILDER, &project, &["."])?;
        ensure(progress.contains("CACHED") == (attempt == "second"), || {
            format!("the {attempt} pod of a claim: {progress}")
        })?;
        // With several pods, buildx asks one of them.
        let history = docker.run("buildx", &["history", "ls", "--builder", BUILDER])?;
        ensure(history.contains("Completed"), || history.clone())?;
        docker.run("buildx", &["rm", BUILDER])?;
        cluster.wait_until_empty()?;
    }
    passed("a stateful set's claim keeps what was built for the next pod, and there is a history");

    chart(docker, cluster, &project)?;
    passed(
        "the chart's pod serves clients with certificates and nobody else, and ends within its grace period",
    );
    Ok(())
}

/// Installs the chart with a TCP listener and builds over it with the driver remote.
fn chart(docker: &Docker, cluster: &Cluster, project: &Path) -> Result<(), Trouble> {
    let dir = cluster.dir.join("chart");
    fs::create_dir_all(&dir).map_err(at("making", &dir))?;
    certificates::make(&dir)?;
    let secret = SECRET.iter().map(|(key, file)| {
        let file = dir.join(file);
        let text = fs::read_to_string(&file).map_err(at("reading", &file))?;
        Ok(format!("  {key}: {}\n", serde_json::Value::from(text)))
    });
    let secret = secret.collect::<Result<String, Error>>()?;
    let port = free_port()?;
    let address = format!("tcp://127.0.0.1:{port}");
    let values = format!(
        "tls.enabled=true,tls.secretName=release-tls,service.port={port},drain.preStopSeconds=1,metrics.enabled=false"
    );
    let rendered = Charts::find()?.render("release", &["--set", &values])?;
    let manifests = dir.join("manifests.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: release-tls\nstringData:\n{secret}---\n{rendered}"
    );
    fs::write(&manifests, text).map_err(at("writing", &manifests))?;
    cluster.manifests("apply", &manifests)?;

    let file = |name: &str| dir.join(name).display().to_string();
    let options = format!(
        "cacert={},cert={},key={}",
        file("ca.pem"),
        file("client.pem"),
        file("client-key.pem")
    );
    docker.run(
        "buildx",
        &[
            "create",
            "--name",
            BUILDER,
            "--driver",
            "remote",
            "--driver-opt",
            &options,
            "--bootstrap",
            &address,
        ],
    )?;
    docker.build(BUILDER, project, &["."])?;
    docker.run("buildx", &["rm", BUILDER])?;
    let stranger = format!("cacert={}", file("ca.pem"));
    docker.run(
        "buildx",
        &[
            "create",
            "--name",
            BUILDER,
            "--driver",
            "remote",
            "--driver-opt",
            &stranger,
            &address,
        ],
    )?;
    let refused = docker.build(BUILDER, project, &["."]);
    ensure(refused.is_err(), || {
        "a client without a certificate may build".to_owned()
    })?;
    docker.run("buildx", &["rm", BUILDER])?;
    cluster.manifests("delete", &manifests)?;
    cluster.wait_until_empty()?;
    ensure(!cluster.log().contains("killed: true"), || {
        "a pod did not end by its signal".to_owned()
    })
}

/// The keys of a secret with certificates, and the files for them.
const SECRET: [(&str, &str); 3] = [
    ("ca.crt", "ca.pem"),
    ("tls.crt", "server.pem"),
    ("tls.key", "server-key.pem"),
];

/// The cluster of `tools/kube`; dropping it ends its pods.
struct Cluster {
    process: Child,
    dir: PathBuf,
}

impl Cluster {
    fn start(docker: &Docker, archive: &Path) -> Result<Self, Error> {
        let dir = docker.kubeconfig.parent().unwrap_or(archive);
        fs::create_dir_all(dir).map_err(at("making", dir))?;
        let program = Module::find()?.tools().join("kube");
        run_command(
            paths::go(&["build", "-trimpath", "-o"])?
                .arg(&program)
                .arg("./kube")
                .env("CGO_ENABLED", "0"),
        )?;
        let log = dir.join("log");
        let to_log = fs::File::create(&log).map_err(at("creating", &log))?;
        let start = |source| Error::Start {
            program: "kube".to_owned(),
            source,
        };
        let mut process = Command::new(&program)
            .arg("--state")
            .arg(dir)
            .arg("--image")
            .arg(format!("{IMAGE}={}", archive.display()))
            .arg("--runtime")
            .arg(&docker.runtime)
            // It ends when this pipe does, with us at the latest.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(to_log)
            .spawn()
            .map_err(start)?;
        let mut first = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut first)
                .map_err(start)?;
        }
        let cluster = Self {
            process,
            dir: dir.to_owned(),
        };
        if first == "ready\n" {
            return Ok(cluster);
        }
        Err(Error::Output {
            what: "the cluster did not start",
            problem: cluster.log(),
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Applies or deletes the objects of a file.
    fn manifests(&self, verb: &str, file: &Path) -> Result<(), Error> {
        output(
            Command::new(Module::find()?.tools().join("kube"))
                .arg("--state")
                .arg(&self.dir)
                .arg(verb)
                .arg(file),
        )?;
        Ok(())
    }

    /// The names of the pods that have a root mounted.
    fn pods(&self) -> Result<Vec<String>, Error> {
        let dir = self.dir.join("pods");
        let mut pods = Vec::new();
        for entry in fs::read_dir(&dir).map_err(at("reading", &dir))? {
            let entry = entry.map_err(at("reading", &dir))?;
            if entry.path().join("rootfs").exists() {
                pods.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(pods)
    }

    fn wait_until_empty(&self) -> Result<(), Trouble> {
        let begun = Instant::now();
        loop {
            let pods = self.pods()?;
            if pods.is_empty() {
                return Ok(());
            }
            ensure(begun.elapsed() < PODS_END, || {
                format!("{pods:?} do not end")
            })?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ended = self.process.wait();
    }
}
