//! A dockerd of our own, and its clients.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{Error, at, need, output, run as run_command};

/// How long dockerd may take to answer.
const DOCKERD_STARTS: Duration = Duration::from_secs(60);

/// A dockerd without networks, and its clients.
#[derive(Debug)]
pub(super) struct Docker {
    process: Child,
    host: String,
    config: PathBuf,
    /// Where it mounts the network of its host.
    network: PathBuf,
    docker: PathBuf,
    buildx: PathBuf,
    /// Where buildx finds a cluster, if there is one.
    pub(super) kubeconfig: PathBuf,
    /// The OCI runtime that it starts containers with.
    pub(super) runtime: PathBuf,
}

impl Docker {
    /// Starts it in a folder and waits until it answers.
    pub(super) fn start(dockerd: &Path, scratch: &Path, buildx: PathBuf) -> Result<Self, Error> {
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
        let config = scratch.join("config");
        let plugins = config.join("cli-plugins");
        fs::create_dir_all(&plugins).map_err(at("making", &plugins))?;
        for (name, program) in [
            ("docker-buildx", buildx.clone()),
            ("docker-compose", buildx.with_file_name("docker-compose")),
        ] {
            let link = plugins.join(name);
            symlink(&program, &link).map_err(at("linking", &link))?;
        }
        let docker = Self {
            process,
            host,
            config,
            network: scratch.join("exec/netns/default"),
            docker: need("docker")?,
            buildx,
            kubeconfig: scratch.join("cluster/kubeconfig"),
            runtime,
        };
        let start = Instant::now();
        while let Err(error) = docker.run("docker", &["version"]) {
            if start.elapsed() > DOCKERD_STARTS {
                println!("{}", fs::read_to_string(&log).unwrap_or_default());
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(docker)
    }

    /// Runs `docker` or `buildx` and returns what it wrote to standard output.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        output(&mut self.command(program, arguments))
    }

    /// Builds in a folder, and returns the progress.
    pub(super) fn build(
        &self,
        builder: &str,
        project: &Path,
        arguments: &[&str],
    ) -> Result<String, Error> {
        let mut command = self.command(
            "buildx",
            &["build", "--builder", builder, "--progress", "plain"],
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

    pub(super) fn command(&self, program: &str, arguments: &[&str]) -> Command {
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
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // What a failed test left running would keep dockerd from ending.
        for container in self
            .run("docker", &["ps", "--quiet"])
            .unwrap_or_default()
            .lines()
        {
            let _gone = self.run("docker", &["rm", "--force", container]);
        }
        let _told = run_command(Command::new("kill").arg(self.process.id().to_string()));
        let _ended = self.process.wait();
        // dockerd leaves the network of the host mounted, so that its folder cannot be removed.
        let _unmounted = run_command(Command::new("umount").arg(&self.network));
    }
}
