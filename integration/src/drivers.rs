//! `docker buildx` with the driver docker-container: a real dockerd starts our image, and buildx works with it unchanged. The driver
//! kubernetes is in `drivers/kubernetes.rs`.
//!
//! ```text
//! packaging/image/make ─► docker load ─► buildx create, build --load, bake, history, du, prune, restart, stop, rm
//! ```

mod certificates;
mod compose;
mod docker;
pub(crate) mod kubernetes;
mod registry;
pub(crate) mod runtime;
mod upgrade;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::paths::{self, Module};
use crate::process::{Error, at, is_root, need, output};
use docker::Docker;
use registry::free_port;

/// What the drivers are tried with.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The program that is put into the image; otherwise the `rbuild` beside this program.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Keep the image's archive there.
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// Take the archive that is there, if it is newer than the program.
    #[arg(long, requires = "archive")]
    reuse: bool,
}

/// The most bytes of the image, compressed.
const MAX_IMAGE_BYTES: u64 = 60 << 20;
const IMAGE: &str = "rbuild:latest";
const ROOTLESS_IMAGE: &str = "rbuild:rootless";
const BUILDER: &str = "rbuild-drivers";
const ROOTLESS_BUILDER: &str = "rbuild-rootless";
const CONTAINER: &str = "buildx_buildkit_rbuild-drivers0";

/// Runs the whole life of a builder; `false` when something of it is not as it should be.
pub(crate) fn run(options: &Options) -> Result<bool, Error> {
    with_docker("drivers", |docker, scratch| {
        let outcome = life_of_a_builder(docker, options, scratch);
        if outcome.is_err() {
            let log = docker.run("docker", &["logs", "--tail", "40", CONTAINER]);
            println!(
                "the builder's log: {}",
                log.unwrap_or_else(|error| error.to_string())
            );
        }
        outcome
    })
}

/// Calls `body` with a dockerd and a folder, both of which go afterwards.
fn with_docker(
    name: &str,
    body: impl FnOnce(&Docker, &Path) -> Result<(), Trouble>,
) -> Result<bool, Error> {
    if !is_root() {
        return Err(Error::Missing {
            what: "root".to_owned(),
            remedy: "dockerd wants it".to_owned(),
        });
    }
    let dockerd = need("dockerd")?;
    let module = Module::find()?;
    // Where everybody may go: root of a user namespace is nobody to the folders of this machine.
    let scratch = std::env::temp_dir().join(format!("rbuild-{name}-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(at("making", &scratch))?;
    let docker = Docker::start(&dockerd, &scratch, module.tools().join("buildx"))?;
    let outcome = body(&docker, &scratch);
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

/// Has our image made, or takes the archive of an earlier run if it is newer than the program; returns the archive.
fn image(options: &Options, scratch: &Path) -> Result<PathBuf, Trouble> {
    let archive = options
        .archive
        .clone()
        .unwrap_or_else(|| scratch.join("image.tar"));
    let program = options.program();
    let changed = |file: &Path| fs::metadata(file).and_then(|metadata| metadata.modified());
    let is_fresh = options.reuse
        && matches!((changed(&archive), changed(&program)), (Ok(archive_time), Ok(program_time)) if archive_time > program_time);
    if !is_fresh {
        make(&program, &[], &archive, scratch)?;
    }
    Ok(archive)
}

/// Has a variant of our image made; returns the archive.
fn variant(options: &Options, scratch: &Path, name: &str) -> Result<PathBuf, Trouble> {
    let archive = scratch.join(format!("{name}.tar"));
    make(&options.program(), &["--variant", name], &archive, scratch)?;
    Ok(archive)
}

fn make(program: &Path, arguments: &[&str], archive: &Path, scratch: &Path) -> Result<(), Error> {
    output(
        Command::new(paths::source().join("../packaging/image/make"))
            .args(arguments)
            .arg(program)
            .arg(archive)
            .env("RBUILD_ROOT", scratch.join("state")),
    )?;
    Ok(())
}

impl Options {
    fn program(&self) -> PathBuf {
        self.program.clone().unwrap_or_else(|| {
            std::env::current_exe()
                .unwrap_or_default()
                .with_file_name("rbuild")
        })
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

fn life_of_a_builder(docker: &Docker, options: &Options, scratch: &Path) -> Result<(), Trouble> {
    let start = Instant::now();
    let passed = |sentence: &str| {
        println!(
            "ok       {sentence} ({:.1} s)",
            start.elapsed().as_secs_f64()
        )
    };
    let archive = &image(options, scratch)?;
    let size = fs::metadata(archive).map_err(at("reading", archive))?.len();
    ensure(size <= MAX_IMAGE_BYTES, || {
        format!("the image has {} MB", size >> 20)
    })?;
    passed(&format!(
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
    passed("buildx boots the image with the driver docker-container");

    let project = project(scratch)?;
    docker.build(BUILDER, &project, &["--load", "-t", "app:one", "."])?;
    let greeting = docker.run("docker", &["run", "--rm", "--network", "host", "app:one"])?;
    ensure(greeting == "built\n", || {
        format!("the image says {greeting:?}")
    })?;
    let again = docker.build(BUILDER, &project, &["--load", "-t", "app:one", "."])?;
    ensure(again.contains("CACHED"), || again.clone())?;
    passed("an image is built, loaded and run, and is cached the second time");

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
    passed("bake builds two targets, and the history has all builds");

    compose::run(docker, &project)?;
    passed("docker compose builds two services, one from the other, and starts one");

    docker.run("docker", &["restart", CONTAINER])?;
    let after = docker.build(BUILDER, &project, &["-t", "app:one", "--load", "."])?;
    ensure(after.contains("CACHED"), || {
        format!("nothing is cached after a restart: {after}")
    })?;
    docker.run("buildx", &["stop", BUILDER])?;
    let after = docker.build(BUILDER, &project, &["-t", "app:one", "--load", "."])?;
    ensure(after.contains("CACHED"), || {
        format!("nothing is cached after a stop: {after}")
    })?;
    passed("what was built is cached after a restart and after a stop");

    let usage = docker.run("buildx", &["du", "--builder", BUILDER])?;
    ensure(!usage.contains("Total:\t\t0B"), || usage.clone())?;
    docker.run(
        "buildx",
        &["prune", "--builder", BUILDER, "--all", "--force"],
    )?;
    let usage = docker.run("buildx", &["du", "--builder", BUILDER])?;
    ensure(usage.contains("0B"), || usage.clone())?;
    passed("du shows what is kept, and prune removes it");

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
    passed("buildctl-daemonless.sh builds without a daemon");

    docker.run("buildx", &["rm", BUILDER])?;
    let leftovers = docker.run("docker", &["ps", "--all", "--quiet"])?
        + &docker.run("docker", &["volume", "ls", "--quiet"])?;
    ensure(leftovers.trim().is_empty(), || {
        format!("rm leaves {leftovers}")
    })?;
    passed("rm leaves neither container nor volume");

    registry::run(docker, &project, scratch)?;
    passed("a registry with TLS is used by the configuration that buildx sends, and by that alone");
    rootless(docker, options, &project, scratch)?;
    passed("the image of the variant rootless builds as an ordinary user");
    upgrade::run(docker, &project)?;
    passed("a container of buildkitd is replaced on its volume");
    Ok(())
}

/// Builds with the image of an ordinary user.
fn rootless(
    docker: &Docker,
    options: &Options,
    project: &Path,
    scratch: &Path,
) -> Result<(), Trouble> {
    let archive = variant(options, scratch, "rootless")?;
    docker.run("docker", &["load", "-i", &archive.display().to_string()])?;
    let image = format!("image={ROOTLESS_IMAGE},network=host");
    let create = [
        "create",
        "--name",
        ROOTLESS_BUILDER,
        "--driver",
        "docker-container",
        "--driver-opt",
        &image,
        "--bootstrap",
    ];
    docker.run("buildx", &create)?;
    docker.build(
        ROOTLESS_BUILDER,
        project,
        &["--load", "-t", "app:rootless", "."],
    )?;
    let printed = docker.run(
        "docker",
        &["run", "--rm", "--network", "host", "app:rootless"],
    )?;
    ensure(printed == "built\n", || {
        format!("the image prints {printed:?}")
    })?;
    let container = format!("buildx_buildkit_{ROOTLESS_BUILDER}0");
    let user = docker.run("docker", &["exec", &container, "id", "-u"])?;
    ensure(user == "1000\n", || format!("it runs as {user}"))?;
    docker.run("buildx", &["rm", ROOTLESS_BUILDER])?;
    Ok(())
}

/// A project that needs no registry.
fn project(scratch: &Path) -> Result<PathBuf, Error> {
    let dir = scratch.join("project");
    fs::create_dir_all(&dir).map_err(at("making", &dir))?;
    let busybox = need("busybox")?;
    fs::copy(&busybox, dir.join("busybox")).map_err(at("copying", &busybox))?;
    let dockerfile = "FROM scratch AS base\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
                      FROM base AS made\nRUN --mount=type=cache,target=/cache echo built > /greeting\nFROM base\nCOPY --from=made /greeting /greeting\n\
                      CMD [\"cat\", \"/greeting\"]\n";
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
