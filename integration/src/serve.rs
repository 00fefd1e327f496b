//! A registry on the mirror's folder for builds made by hand.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::paths;
use crate::process::{Error, at, need};

/// How to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Port on the loopback interface; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Serves until the registry ends or we are interrupted.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let registry = need("docker-registry")?;
    let data = paths::mirror().join("data");
    if !data.is_dir() {
        return Err(Error::Missing {
            what: "the mirror".to_owned(),
            remedy: "run `rbuild-integration images`".to_owned(),
        });
    }
    let config = paths::mirror().join("serve.yaml");
    let text = format!(
        "version: 0.1\nloglevel: info\nstorage:\n    filesystem:\n        rootdirectory: {}\nhttp:\n    addr: 127.0.0.1:{}\n",
        data.display(),
        options.port
    );
    std::fs::write(&config, text).map_err(at("writing", &config))?;
    let start = |source| Error::Start {
        program: "docker-registry".to_owned(),
        source,
    };
    let mut child = Command::new(registry)
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let stderr = child.stderr.take().expect("the error stream was piped");
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Some(port) = port(&line) {
            println!("# registry with the stand-in images on localhost:{port}; in buildkitd.toml:");
            println!("[registry.\"docker.io\"]\n  mirrors = [\"localhost:{port}\"]");
            println!("[registry.\"localhost:{port}\"]\n  http = true");
            std::io::stdout().flush().map_err(start)?;
        } else if line.contains("level=error") || line.contains("fatal") || line.contains("panic") {
            eprintln!("{line}");
        }
    }
    let status = child.wait().map_err(start)?;
    Err(Error::Failed {
        program: "docker-registry".to_owned(),
        status: status.to_string(),
        output: String::new(),
    })
}

fn port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_port_is_read_from_the_registrys_log() {
        let line = r#"time="2024-05-01T00:00:00Z" level=info msg="listening on 127.0.0.1:40123" go.version=go1.19"#;
        assert_eq!(super::port(line), Some(40123));
        assert_eq!(super::port("level=info msg=\"starting\""), None);
    }
}
