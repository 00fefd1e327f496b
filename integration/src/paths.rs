//! Where things lie: the cache of tools and images, the committed lists.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{Error, need, output};

/// The import path of the module whose suites we run.
pub(crate) const MODULE: &str = "github.com/moby/buildkit";

/// Returns the folder for everything that can be made again: `RBUILD_CACHE`, else `~/.cache/rbuild`.
pub(crate) fn cache() -> PathBuf {
    if let Some(dir) = std::env::var_os("RBUILD_CACHE") {
        return PathBuf::from(dir);
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache").join("rbuild")
}

/// Returns this crate's folder in the source tree.
pub(crate) fn source() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the folder that the suites take as their mirror; the registry's storage is `data` in it.
pub(crate) fn mirror() -> PathBuf {
    cache().join("mirror")
}

/// The reference's module: its version and where its sources lie.
#[derive(Debug)]
pub(crate) struct Module {
    /// As in `go.mod`, with its `v`.
    pub(crate) version: String,
    /// The module's folder in Go's cache.
    pub(crate) dir: PathBuf,
}

impl Module {
    /// Asks Go for the module, fetching it when it is not there.
    pub(crate) fn find() -> Result<Self, Error> {
        output(&mut go(&["mod", "download", MODULE])?)?;
        let text = output(&mut go(&[
            "list",
            "-m",
            "-f",
            "{{.Version}} {{.Dir}}",
            MODULE,
        ])?)?;
        let (version, dir) = text.trim().split_once(' ').ok_or_else(|| Error::Output {
            what: "go list",
            problem: format!("unexpected answer {text:?}"),
        })?;
        Ok(Self {
            version: version.to_owned(),
            dir: PathBuf::from(dir),
        })
    }

    /// Returns the folder of built tools of this version.
    pub(crate) fn tools(&self) -> PathBuf {
        cache().join("tools").join(&self.version)
    }
}

/// Returns the version of the module that has a package, as the module in a folder of this crate pins it.
pub(crate) fn version_of(package: &str, folder: &str) -> Result<String, Error> {
    let text = output(&mut go_in(
        folder,
        &["list", "-f", "{{.Module.Version}}", package],
    )?)?;
    Ok(text.trim().to_owned())
}

/// Prepares a `go` command in the folder of the pinned tools.
pub(crate) fn go(args: &[&str]) -> Result<Command, Error> {
    go_in("tools", args)
}

/// Prepares a `go` command in a folder of this crate.
pub(crate) fn go_in(folder: &str, args: &[&str]) -> Result<Command, Error> {
    let Ok(program) = need("go") else {
        return Err(Error::Missing {
            what: "go".to_owned(),
            remedy: "install Go (https://go.dev/dl) and have `go` in PATH".to_owned(),
        });
    };
    let mut command = Command::new(program);
    command.args(args).current_dir(source().join(folder));
    Ok(command)
}
