//! A registry whose certificate is of an authority that only the builder's configuration names, and which asks clients for theirs.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Docker, IMAGE, Trouble, certificates, ensure};
use crate::process::{Error, at, need};

const BUILDER: &str = "rbuild-registry";
/// How long a registry may take to listen.
const REGISTRY_START: Duration = Duration::from_secs(20);

/// Pushes to the registry and builds from what was pushed, with the configuration and without.
pub(super) fn run(docker: &Docker, project: &Path, scratch: &Path) -> Result<(), Trouble> {
    let dir = scratch.join("registry");
    fs::create_dir_all(&dir).map_err(at("making", &dir))?;
    certificates::make(&dir)?;
    let registry = TlsRegistry::start(&dir)?;
    let host = format!("localhost:{}", registry.port);
    let file = |name: &str| dir.join(name).display().to_string();
    // A registry on this machine is spoken to without TLS otherwise.
    let bare = format!("[registry.\"{host}\"]\n  http = false\n");
    let certificates = format!(
        "{bare}  ca = [\"{}\"]\n  [[registry.\"{host}\".keypair]]\n    cert = \"{}\"\n    key = \"{}\"\n",
        file("ca.pem"),
        file("client.pem"),
        file("client-key.pem")
    );
    let (without, with) = (file("without.toml"), file("with.toml"));
    for (config, text) in [(&without, bare), (&with, certificates)] {
        fs::write(config, text).map_err(at("writing", Path::new(config)))?;
    }
    let options = format!("image={IMAGE},network=host");
    let create = |config: &str| {
        docker.run(
            "buildx",
            &[
                "create",
                "--name",
                BUILDER,
                "--driver",
                "docker-container",
                "--driver-opt",
                &options,
                "--buildkitd-config",
                config,
                "--bootstrap",
            ],
        )
    };
    let tag = format!("{host}/app:one");
    let push = ["--push", "-t", &tag, "."];

    create(&without)?;
    let refused = docker.build(BUILDER, project, &push);
    docker.run("buildx", &["rm", BUILDER])?;
    ensure(
        matches!(&refused, Err(Error::Failed { output, .. }) if output.contains("certificate")),
        || format!("a registry of an unknown authority: {refused:?}"),
    )?;

    create(&with)?;
    docker.build(BUILDER, project, &push)?;
    let from = dir.join("project");
    fs::create_dir_all(&from).map_err(at("making", &from))?;
    let dockerfile = from.join("Dockerfile");
    fs::write(&dockerfile, format!("FROM {tag}\nRUN cat /greeting\n"))
        .map_err(at("writing", &dockerfile))?;
    docker.run(
        "buildx",
        &["prune", "--builder", BUILDER, "--all", "--force"],
    )?;
    docker.build(BUILDER, &from, &["."])?;
    docker.run("buildx", &["rm", BUILDER])?;
    Ok(())
}

/// Debian's registry with TLS; dropping it ends it.
struct TlsRegistry {
    port: u16,
    process: Child,
}

impl TlsRegistry {
    fn start(dir: &Path) -> Result<Self, Error> {
        let program = need("docker-registry")?;
        let port = super::free_port()?;
        let config = dir.join("registry.yaml");
        let place = dir.display();
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {place}/data\nhttp:\n  addr: 127.0.0.1:{port}\n  tls:\n    \
             certificate: {place}/server.pem\n    key: {place}/server-key.pem\n    clientcas:\n      - {place}/ca.pem\n"
        );
        fs::write(&config, text).map_err(at("writing", &config))?;
        let process = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| Error::Start {
                program: "docker-registry".to_owned(),
                source,
            })?;
        let registry = Self { port, process };
        let start = Instant::now();
        while let Err(error) = TcpStream::connect(("127.0.0.1", port)) {
            if start.elapsed() > REGISTRY_START {
                return Err(at("connecting to", dir)(error));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }
}

impl Drop for TlsRegistry {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Returns a port of the loopback interface that was free a moment ago.
pub(super) fn free_port() -> Result<u16, Error> {
    let place = Path::new("127.0.0.1:0");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(at("listening on", place))?;
    let address = listener.local_addr().map_err(at("listening on", place))?;
    Ok(address.port())
}
