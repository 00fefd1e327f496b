//! The OCI runtime of our own dockerd and kubelet.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{Error, at, find};

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
