//! `docker buildx` with the driver docker-container: a real dockerd starts our image, and buildx works with it unchanged.
//!
//! ```text
//! packaging/image/make ─► docker load ─► buildx create, build --load, bake, history, du, prune, restart, stop, rm
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::paths::{self, Module};
use crate::process::{Error, at, find, is_root, need, output, run as run_command};

/// What the drivers are tried with.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The program that is put into the image; otherwise the `rbuild` beside this program.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Keep the image's archive there.
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
}

/// The most bytes of the image, compressed.
const IMAGE_BYTES: u64 = 60 << 20;
/// How long dockerd may take to answer.
const DOCKERD_STARTS: Duration = Duration::from_secs(60);
const IMAGE: &str = "rbuild:latest";
const BUILDER: &str = "rbuild-drivers";
const CONTAINER: &str = "buildx_buildkit_rbuild-drivers0";

/// Runs the whole life of a builder; `false` when something of it is not as it should be.
pub(crate) fn run(options: &Options) -> Result<bool, Error> {
    if !is_root() {
        return Err(Error::Missing {
            what: "root".to_owned(),
            remedy: "dockerd wants it".to_owned(),
        });
    }
    let dockerd = need("dockerd")?;
    let module = Module::find()?;
    let scratch = paths::cache().join(format!("drivers-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(at("making", &scratch))?;
    let docker = Docker::start(&dockerd, &scratch, module.tools().join("buildx"))?;
    let program = options.program.clone().unwrap_or_else(|| {
        std::env::current_exe()
            .unwrap_or_default()
            .with_file_name("rbuild")
    });
    let archive = options
        .archive
        .clone()
        .unwrap_or_else(|| scratch.join("image.tar"));
    let outcome = life_of_a_builder(&docker, &program, &archive, &scratch);
    if outcome.is_err() {
        let log = docker.run("docker", &["logs", "--tail", "40", CONTAINER]);
        println!(
            "the builder's log: {}",
            log.unwrap_or_else(|error| error.to_string())
        );
    }
    drop(docker);
    let _left_behind = fs::remove_dir_all(&scratch);
    match outcome {
        Ok(()) => Ok(true),
        Err(Trouble::Wrong(why)) => {
            println!("FAILED   {why}");
            Ok(false)
        }
        Err(Trouble::Error(error)) => Err(error),
    }
}

enum Trouble {
    Wrong(String),
    Error(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            // A client that fails is what this is about.
            error @ Error::Failed { .. } => Self::Wrong(error.to_string()),
            error @ (Error::Io { .. }
            | Error::Start { .. }
            | Error::Output { .. }
            | Error::Missing { .. }) => Self::Error(error),
        }
    }
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), Trouble> {
    if holds {
        Ok(())
    } else {
        Err(Trouble::Wrong(why()))
    }
}

fn life_of_a_builder(
    docker: &Docker,
    program: &Path,
    archive: &Path,
    scratch: &Path,
) -> Result<(), Trouble> {
    let begun = Instant::now();
    let done = |what: &str| println!("ok       {what} ({:.1} s)", begun.elapsed().as_secs_f64());
    let make = paths::source().join("../packaging/image/make");
    output(
        Command::new(&make)
            .arg(program)
            .arg(archive)
            .env("RBUILD_ROOT", scratch.join("state")),
    )?;
    let size = fs::metadata(archive).map_err(at("reading", archive))?.len();
    ensure(size <= IMAGE_BYTES, || {
        format!("the image has {} MB", size >> 20)
    })?;
    done(&format!(
        "the image is made by rbuild of Debian's packages: {} MB",
        size >> 20
    ));

    docker.run("docker", &["load", "-i", &archive.display().to_string()])?;
    let image = format!("image={IMAGE},network=host");
    docker.run(
        "buildx",
        &[
            "create",
            "--name",
            BUILDER,
            "--driver",
            "docker-container",
            "--driver-opt",
            &image,
            "--bootstrap",
        ],
    )?;
    let inspected = docker.run("buildx", &["inspect", BUILDER])?;
    ensure(
        inspected.contains("Status:                running") && inspected.contains("v0."),
        || inspected.clone(),
    )?;
    done("buildx boots the image with the driver docker-container");

    let project = project(scratch)?;
    docker.build(&project, &["--load", "-t", "app:one", "."])?;
    let said = docker.run("docker", &["run", "--rm", "--network", "host", "app:one"])?;
    ensure(said == "built\n", || format!("the image says {said:?}"))?;
    let again = docker.build(&project, &["--load", "-t", "app:one", "."])?;
    ensure(again.contains("CACHED"), || again.clone())?;
    done("an image is built, loaded and run, and is cached the second time");

    output(
        docker
            .command(
                "buildx",
                &["bake", "--builder", BUILDER, "--progress", "plain"],
            )
            .current_dir(&project),
    )?;
    let images = docker.run(
        "docker",
        &["images", "--format", "{{.Repository}}:{{.Tag}}"],
    )?;
    ensure(
        images.contains("baked:a") && images.contains("baked:b"),
        || images.clone(),
    )?;
    let history = docker.run("buildx", &["history", "ls", "--builder", BUILDER])?;
    ensure(history.matches("Completed").count() >= 4, || {
        history.clone()
    })?;
    done("bake builds two targets, and the history has all builds");

    docker.run("docker", &["restart", CONTAINER])?;
    let after = docker.build(&project, &["-t", "app:one", "--load", "."])?;
    ensure(after.contains("CACHED"), || {
        format!("nothing is cached after a restart: {after}")
    })?;
    docker.run("buildx", &["stop", BUILDER])?;
    let after = docker.build(&project, &["-t", "app:one", "--load", "."])?;
    ensure(after.contains("CACHED"), || {
        format!("nothing is cached after a stop: {after}")
    })?;
    done("what was built is cached after a restart and after a stop");

    let kept = docker.run("buildx", &["du", "--builder", BUILDER])?;
    ensure(!kept.contains("Total:\t\t0B"), || kept.clone())?;
    docker.run(
        "buildx",
        &["prune", "--builder", BUILDER, "--all", "--force"],
    )?;
    let kept = docker.run("buildx", &["du", "--builder", BUILDER])?;
    ensure(kept.contains("0B"), || kept.clone())?;
    done("du shows what is kept, and prune removes it");

    let daemonless = docker.run(
        "docker",
        &[
            "run",
            "--rm",
            "--privileged",
            "--network",
            "host",
            "--volume",
            &format!("{}:/project", project.display()),
            "--entrypoint",
            "buildctl-daemonless.sh",
            IMAGE,
            "build",
            "--frontend",
            "dockerfile.v0",
            "--local",
            "context=/project",
            "--local",
            "dockerfile=/project",
            "--output",
            "type=tar,dest=/project/out.tar",
        ],
    );
    daemonless?;
    ensure(project.join("out.tar").is_file(), || {
        "buildctl-daemonless.sh wrote nothing".to_owned()
    })?;
    done("buildctl-daemonless.sh builds without a daemon");

    docker.run("buildx", &["rm", BUILDER])?;
    let left = docker.run("docker", &["ps", "--all", "--quiet"])?
        + &docker.run("docker", &["volume", "ls", "--quiet"])?;
    ensure(left.trim().is_empty(), || format!("rm leaves {left}"))?;
    done("rm leaves neither container nor volume");
    Ok(())
}

/// A project that needs no registry.
fn project(scratch: &Path) -> Result<PathBuf, Error> {
    let dir = scratch.join("project");
    fs::create_dir_all(&dir).map_err(at("making", &dir))?;
    let busybox = need("busybox")?;
    fs::copy(&busybox, dir.join("busybox")).map_err(at("copying", &busybox))?;
    let dockerfile = "FROM scratch AS base\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
                      FROM base AS made\nRUN --mount=type=cache,target=/cache echo built > /said\nFROM base\nCOPY --from=made /said /said\n\
                      CMD [\"cat\", \"/said\"]\n";
    let bake = "group \"default\" {\n  targets = [\"a\", \"b\"]\n}\ntarget \"a\" {\n  tags = [\"baked:a\"]\n  output = [\"type=docker\"]\n}\n\
                target \"b\" {\n  tags = [\"baked:b\"]\n  output = [\"type=docker\"]\n}\n";
    for (name, text) in [
        ("Dockerfile", dockerfile),
        ("docker-bake.hcl", bake),
        (".dockerignore", "out.tar\n"),
    ] {
        let file = dir.join(name);
        fs::write(&file, text).map_err(at("writing", &file))?;
    }
    Ok(dir)
}

/// A dockerd of our own, without networks, and its clients.
struct Docker {
    process: Child,
    host: String,
    config: PathBuf,
    /// Where it mounts the network of its host.
    network: PathBuf,
    docker: PathBuf,
    buildx: PathBuf,
}

impl Docker {
    fn start(dockerd: &Path, scratch: &Path, buildx: PathBuf) -> Result<Self, Error> {
        // Machines that lack a capability cannot start what asks for all of them.
        let runtime = scratch.join("runtime");
        let ours = std::env::current_exe().map_err(at("finding", Path::new("this program")))?;
        fs::write(
            &runtime,
            format!("#!/bin/sh\nexec {} oci-runtime \"$@\"\n", ours.display()),
        )
        .map_err(at("writing", &runtime))?;
        run_command(Command::new("chmod").arg("755").arg(&runtime))?;
        let host = format!("unix://{}", scratch.join("docker.sock").display());
        let log = scratch.join("dockerd.log");
        let to_log = fs::File::create(&log).map_err(at("creating", &log))?;
        let process = Command::new(dockerd)
            .arg(format!("--add-runtime=held={}", runtime.display()))
            .args([
                "--default-runtime=held",
                "--iptables=false",
                "--bridge=none",
                "--host",
                &host,
            ])
            .arg(format!("--data-root={}", scratch.join("docker").display()))
            .arg(format!("--exec-root={}", scratch.join("exec").display()))
            .arg(format!(
                "--pidfile={}",
                scratch.join("docker.pid").display()
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(to_log)
            .spawn()
            .map_err(|source| Error::Start {
                program: "dockerd".to_owned(),
                source,
            })?;
        let docker = Self {
            process,
            host,
            config: scratch.join("config"),
            network: scratch.join("exec/netns/default"),
            docker: need("docker")?,
            buildx,
        };
        let begun = Instant::now();
        while let Err(error) = docker.run("docker", &["version"]) {
            if begun.elapsed() > DOCKERD_STARTS {
                println!("{}", fs::read_to_string(&log).unwrap_or_default());
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(docker)
    }

    /// Runs `docker` or `buildx` and returns what it wrote to standard output.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        output(&mut self.command(program, arguments))
    }

    /// Builds in a folder, and returns the progress.
    fn build(&self, project: &Path, arguments: &[&str]) -> Result<String, Error> {
        let mut command = self.command(
            "buildx",
            &["build", "--builder", BUILDER, "--progress", "plain"],
        );
        command.args(arguments).current_dir(project);
        let ran = command.output().map_err(|source| Error::Start {
            program: "buildx".to_owned(),
            source,
        })?;
        let progress = String::from_utf8_lossy(&ran.stderr).into_owned();
        if ran.status.success() {
            return Ok(progress);
        }
        Err(Error::Failed {
            program: "buildx build".to_owned(),
            status: ran.status.to_string(),
            output: progress,
        })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(if program == "docker" {
            &self.docker
        } else {
            &self.buildx
        });
        command
            .args(arguments)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", &self.config)
            .env("BUILDX_CONFIG", self.config.join("buildx"))
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _gone = self.run("buildx", &["rm", BUILDER]);
        let _told = run_command(Command::new("kill").arg(self.process.id().to_string()));
        let _ended = self.process.wait();
        // dockerd leaves the network of the host mounted, so that its folder cannot be removed.
        let _unmounted = run_command(Command::new("umount").arg(&self.network));
    }
}

/// An OCI runtime for machines whose bounding set lacks a capability: runc, with what the machine does not have taken out of the bundle
/// or of the request to start a process.
pub(crate) fn oci_runtime(arguments: &[String]) -> Result<bool, Error> {
    use std::os::unix::process::CommandExt as _;
    let value_of = |flags: [&str; 2]| {
        arguments.iter().enumerate().find_map(|(index, argument)| {
            flags
                .iter()
                .find_map(|flag| match argument.strip_prefix(flag) {
                    Some("") => arguments.get(index + 1).cloned(),
                    Some(rest) => rest.strip_prefix('=').map(str::to_owned),
                    None => None,
                })
        })
    };
    let is = |command: &str| arguments.iter().any(|argument| argument == command);
    if let Some(bundle) = value_of(["--bundle", "-b"]).filter(|_| is("create")) {
        hold(
            &Path::new(&bundle).join("config.json"),
            "/process/capabilities",
        )?;
    }
    if let Some(process) = value_of(["--process", "-p"]).filter(|_| is("exec")) {
        hold(Path::new(&process), "/capabilities")?;
    }
    let runc = find("runc").unwrap_or_else(|| "runc".into());
    let source = Command::new(runc).args(arguments).exec();
    Err(Error::Start {
        program: "runc".to_owned(),
        source,
    })
}

/// Takes out of the sets of a document what this machine's bounding set does not have.
fn hold(file: &Path, sets: &str) -> Result<(), Error> {
    let status = Path::new("/proc/self/status");
    let text = fs::read_to_string(status).map_err(at("reading", status))?;
    let bounding = text
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    let is_here = |name: &serde_json::Value| {
        let name = name.as_str().unwrap_or_default().trim_start_matches("CAP_");
        let bit = sys::caps::NAMES.iter().position(|known| *known == name);
        bit.is_none_or(|bit| bounding >> bit & 1 == 1)
    };
    let bytes = fs::read(file).map_err(at("reading", file))?;
    let mut document: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| Error::Output {
            what: "a bundle",
            problem: error.to_string(),
        })?;
    let sets = document
        .pointer_mut(sets)
        .and_then(serde_json::Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()) {
        if let Some(names) = set.as_array_mut() {
            names.retain(is_here);
        }
    }
    fs::write(file, document.to_string()).map_err(at("writing", file))
}
