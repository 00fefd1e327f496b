//! A registry on the mirror's folder, for builds made by hand and for the bench.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::paths;
use crate::process::{Error, at, need};

/// How to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Port on the loopback interface; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// A registry that serves the stand-in images; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Where on the loopback interface it listens.
    pub(crate) port: u16,
    child: Child,
    /// Held open, because a registry that cannot log ends.
    log: Option<BufReader<ChildStderr>>,
}

impl Registry {
    /// Starts a registry and waits until it listens.
    pub(crate) fn start(port: u16) -> Result<Self, Error> {
        Self::start_on(&paths::mirror(), port)
    }

    /// Starts a registry on another folder than the mirror's: its storage is `data` in it.
    pub(crate) fn start_on(folder: &Path, port: u16) -> Result<Self, Error> {
        let mut registry = Self::spawn(folder, port)?;
        let mut log = registry.log.take().expect("a new registry has its log");
        let mut line = String::new();
        while log.read_line(&mut line).is_ok_and(|n| n > 0) {
            if let Some(port) = listening(&line) {
                registry.port = port;
                // It logs every request, and a full pipe would stop it.
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Ok(registry);
            }
            line.clear();
        }
        Err(registry.ended())
    }

    fn spawn(folder: &Path, port: u16) -> Result<Self, Error> {
        let program = need("docker-registry")?;
        let data = folder.join("data");
        if !data.is_dir() {
            return Err(Error::Missing {
                what: "the mirror".to_owned(),
                remedy: "run `rbuild-integration images`".to_owned(),
            });
        }
        let config = folder.join("serve.yaml");
        let text = format!(
            "version: 0.1\nloglevel: info\nstorage:\n    filesystem:\n        rootdirectory: {}\nhttp:\n    addr: 127.0.0.1:{port}\n",
            data.display(),
        );
        std::fs::write(&config, text).map_err(at("writing", &config))?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        let log = child.stderr.take().map(BufReader::new);
        Ok(Self { port, child, log })
    }

    fn ended(&mut self) -> Error {
        match self.child.wait() {
            Ok(status) => Error::Failed {
                program: "docker-registry".to_owned(),
                status: status.to_string(),
                output: String::new(),
            },
            Err(source) => start(source),
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Serves until the registry ends or we are interrupted.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let mut registry = Registry::spawn(&paths::mirror(), options.port)?;
    let log = registry.log.take().expect("a new registry has its log");
    for line in log.lines().map_while(Result::ok) {
        if let Some(port) = listening(&line) {
            println!("# registry with the stand-in images on localhost:{port}; in buildkitd.toml:");
            println!("[registry.\"docker.io\"]\n  mirrors = [\"localhost:{port}\"]");
            println!("[registry.\"localhost:{port}\"]\n  http = true");
            std::io::stdout().flush().map_err(start)?;
        } else if line.contains("level=error") || line.contains("fatal") || line.contains("panic") {
            eprintln!("{line}");
        }
    }
    Err(registry.ended())
}

fn start(source: std::io::Error) -> Error {
    Error::Start {
        program: "docker-registry".to_owned(),
        source,
    }
}

fn listening(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_port_is_read_from_the_registrys_log() {
        let line = r#"time="2024-05-01T00:00:00Z" level=info msg="listening on 127.0.0.1:40123" go.version=go1.19"#;
        assert_eq!(super::listening(line), Some(40123));
        assert_eq!(super::listening("level=info msg=\"starting\""), None);
    }
}
