//! `docker buildx` with the driver kubernetes: an API server and a kubelet of our own (`tools/kube`) start our image in pods, and buildx
//! works with it unchanged.
//!
//! ```text
//! buildx create --driver kubernetes ─► deployment ─► pods of runc ◄─ probes: buildctl debug workers
//! buildx build ─► SPDY: exec of buildctl dial-stdio ─► rbuildd in a pod
//! ```

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use super::certificates;
use super::{
    Docker, IMAGE, Options, ROOTLESS_IMAGE, Trouble, ensure, free_port, image, project, variant,
    with_docker,
};
use crate::charts::Charts;
use crate::paths::{self, Module};
use crate::process::{Error, at, output, run as run_command};

const BUILDER: &str = "rbuild-kubernetes";
/// How long a pod may take from its start to its first successful probe.
const PODS_START: Duration = Duration::from_secs(40);
/// How long pods may take to end after their deployment has gone.
const PODS_END: Duration = Duration::from_secs(40);
/// Builds with random pods: all of them go to one of two pods once in 2^19 runs.
const RANDOM_BUILDS: usize = 20;

/// Runs the whole life of builders in a cluster; `false` when something of it is not as it should be.
pub(crate) fn run(options: &Options) -> Result<bool, Error> {
    with_docker("kubernetes", |docker, scratch| {
        let archive = image(options, scratch)?;
        let rootless = variant(options, scratch, "rootless")?;
        let cluster = Cluster::start(docker, &[(IMAGE, &archive), (ROOTLESS_IMAGE, &rootless)])?;
        let outcome = life_in_a_cluster(docker, &cluster, scratch);
        if outcome.is_err() {
            println!("the cluster's log: {}", cluster.log());
        }
        outcome
    })
}

fn life_in_a_cluster(docker: &Docker, cluster: &Cluster, scratch: &Path) -> Result<(), Trouble> {
    let start = Instant::now();
    let passed = |sentence: &str| {
        println!(
            "ok       {sentence} ({:.1} s)",
            start.elapsed().as_secs_f64()
        )
    };
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
        "the chart's pod serves clients with certificates and nobody else, and finishes its builds when it is told to end",
    );

    for (name, values) in [
        ("userns", "security=userNamespace"),
        ("rootless", "security=rootless,image.tag=rootless"),
    ] {
        build_in_a_pod(docker, cluster, &project, name, values)?;
        passed(&format!("a pod of the chart with {values} builds"));
    }
    Ok(())
}

/// Installs the chart without a listener and without root of the node, and builds by a command in the pod.
fn build_in_a_pod(
    docker: &Docker,
    cluster: &Cluster,
    project: &Path,
    release: &str,
    values: &str,
) -> Result<(), Trouble> {
    let volume = format!(
        "extraVolumes[0].name=project,extraVolumes[0].hostPath.path={},extraVolumeMounts[0].name=project,extraVolumeMounts[0].mountPath=/project",
        project.display()
    );
    let common = "persistence.enabled=false,metrics.enabled=false,drain.preStopSeconds=1";
    let rendered = Charts::find()?.render(
        release,
        &["--set", common, "--set", values, "--set", &volume],
    )?;
    let manifests = cluster.dir.join(format!("{release}.yaml"));
    fs::write(&manifests, rendered).map_err(at("writing", &manifests))?;
    cluster.manifests("apply", &manifests)?;
    let pod = cluster.wait_for_a_ready_pod(release)?;
    let build = "buildctl build --progress plain --frontend dockerfile.v0 --local context=/project --local dockerfile=/project \
                 --output type=tar,dest=/tmp/out.tar 2>&1 && tar -tf /tmp/out.tar";
    let printed = output(
        Command::new(&docker.runtime)
            .arg("exec")
            .arg(format!("kube-{}-{pod}", cluster.process.id()))
            .args(["sh", "-c", build]),
    )?;
    ensure(printed.contains("greeting"), || printed.clone())?;
    cluster.manifests("delete", &manifests)?;
    cluster.wait_until_empty()
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
    let metrics = free_port()?;
    let values = format!(
        "tls.enabled=true,tls.secretName=release-tls,service.port={port},drain.preStopSeconds=1,metrics.port={metrics},\
         autoscaling.hpa.enabled=true"
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
    let create = [
        "create",
        "--name",
        BUILDER,
        "--driver",
        "remote",
        "--driver-opt",
        &options,
        "--bootstrap",
        &address,
    ];
    docker.run("buildx", &create)?;
    docker.build(BUILDER, project, &["."])?;
    docker.run("buildx", &["rm", BUILDER])?;
    let page = get(metrics, "/metrics")?;
    ensure(
        rendered.contains(SCALING_METRIC) && page.contains(SCALING_METRIC),
        || format!("the chart scales by a metric that is not there: {page}"),
    )?;
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

    // A pod that is told to end finishes what it builds.
    docker.run("buildx", &create)?;
    let slow = project.join("slow.Dockerfile");
    fs::write(&slow, SLOW).map_err(at("writing", &slow))?;
    let mut build = docker.command("buildx", &["build", "--builder", BUILDER]);
    build.args(["--progress=plain", "-f", "slow.Dockerfile", "."]);
    let mut build = Progress::of(build.current_dir(project))?;
    build.wait_for("begun")?;
    cluster.manifests("delete", &manifests)?;
    let rest = build.finish()?;
    ensure(rest.contains("over"), || {
        format!("the build was not finished: {rest}")
    })?;
    docker.run("buildx", &["rm", BUILDER])?;
    cluster.wait_until_empty()?;
    ensure(!cluster.log().contains("killed: true"), || {
        "a pod did not end by its signal".to_owned()
    })
}

/// What the chart's autoscalers look at.
const SCALING_METRIC: &str = "rbuild_builds_active";

/// Returns a page of a port of the loopback interface, with its headers.
fn get(port: u16, path: &str) -> Result<String, Error> {
    let place = Path::new(path);
    let mut connection =
        TcpStream::connect(("127.0.0.1", port)).map_err(at("connecting for", place))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .map_err(at("asking for", place))?;
    let mut page = String::new();
    connection
        .read_to_string(&mut page)
        .map_err(at("reading", place))?;
    Ok(page)
}

/// A step that takes longer than the hook before the signal.
const SLOW: &str = "FROM scratch\nCOPY busybox /bin/busybox\n\
                    RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo begun; /bin/busybox sleep 6; echo over\"]\n";

/// A build that runs, by the lines of its progress.
struct Progress {
    process: Child,
    lines: BufReader<ChildStderr>,
}

impl Progress {
    fn of(command: &mut Command) -> Result<Self, Error> {
        let start = |source| Error::Start {
            program: "buildx".to_owned(),
            source,
        };
        let mut process = command.stderr(Stdio::piped()).spawn().map_err(start)?;
        let stderr = process.stderr.take().ok_or_else(|| Error::Output {
            what: "buildx",
            problem: "it has no progress".to_owned(),
        })?;
        Ok(Self {
            process,
            lines: BufReader::new(stderr),
        })
    }

    /// Reads until the output of a step has this text.
    fn wait_for(&mut self, text: &str) -> Result<(), Trouble> {
        let mut seen = String::new();
        loop {
            let from = seen.len();
            let count = self.lines.read_line(&mut seen).unwrap_or_default();
            ensure(count > 0, || {
                format!("the build ended before {text}: {seen}")
            })?;
            // Steps print behind their number and time; the name of a step has none.
            let line = seen.get(from..).unwrap_or_default().trim_end();
            if line.ends_with(&format!(" {text}")) && !line.contains("sleep") {
                return Ok(());
            }
        }
    }

    /// Waits for the end, and returns the rest of the progress; a build that fails is an error.
    fn finish(mut self) -> Result<String, Error> {
        let mut rest = String::new();
        let _ended = self.lines.read_to_string(&mut rest);
        let status = self.process.wait().map_err(|source| Error::Start {
            program: "buildx".to_owned(),
            source,
        })?;
        if status.success() {
            return Ok(rest);
        }
        Err(Error::Failed {
            program: "buildx build".to_owned(),
            status: status.to_string(),
            output: rest,
        })
    }
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
    fn start(docker: &Docker, images: &[(&str, &Path)]) -> Result<Self, Error> {
        let dir = docker.kubeconfig.parent().unwrap_or(&docker.kubeconfig);
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
            .args(images.iter().flat_map(|(name, archive)| {
                [
                    "--image".to_owned(),
                    format!("{name}={}", archive.display()),
                ]
            }))
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

    /// Waits for the first successful probe of a pod of a release and returns the pod's name.
    fn wait_for_a_ready_pod(&self, release: &str) -> Result<String, Trouble> {
        let start = Instant::now();
        let mark = format!("probe of {release}-");
        loop {
            let log = self.log();
            let ready = log
                .lines()
                .filter(|line| line.contains(" succeeded after "))
                .find_map(|line| line.split_once(&mark));
            if let Some((_, rest)) = ready {
                let rest = rest.split_whitespace().next().unwrap_or_default();
                return Ok(format!("{release}-{rest}"));
            }
            ensure(start.elapsed() < PODS_START, || {
                let pod_logs = self.pods().unwrap_or_default();
                let texts: Vec<String> = pod_logs
                    .iter()
                    .map(|pod| {
                        fs::read_to_string(self.dir.join("pods").join(pod).join("log"))
                            .unwrap_or_default()
                    })
                    .collect();
                format!("no pod of {release} gets ready: {texts:?}")
            })?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn wait_until_empty(&self) -> Result<(), Trouble> {
        let start = Instant::now();
        loop {
            let pods = self.pods()?;
            if pods.is_empty() {
                return Ok(());
            }
            ensure(start.elapsed() < PODS_END, || {
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
