//! Tools: Debian packages, the reference's programs, its suites' test binaries.

use std::process::Command;

use crate::paths::{self, MODULE};
use crate::process::{Error, at, find, is_root, run as run_command};
use crate::suite::SUITES;

/// A program that we use and the Debian package that has it.
const PACKAGES: &[(&str, &str)] = &[
    ("runc", "runc"),
    ("crun", "crun"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("docker-registry", "docker-registry"),
    ("busybox", "busybox-static"),
    ("debootstrap", "debootstrap"),
    ("jq", "jq"),
    ("git", "git"),
    ("curl", "curl"),
    ("ssh", "openssh-client"),
    // Programs of CNI, which are in no folder of commands.
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
    // Keys of the suites' signed sources.
    ("gpg", "gnupg"),
];

/// Programs by import path, and the folder whose module pins their versions: what agrees on no version of a library has a module of its
/// own.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("buildctl", "github.com/moby/buildkit/cmd/buildctl", "tools"),
    (
        "buildkitd",
        "github.com/moby/buildkit/cmd/buildkitd",
        "tools",
    ),
    (
        "dockerfile-frontend",
        "github.com/moby/buildkit/frontend/dockerfile/cmd/dockerfile-frontend",
        "tools",
    ),
    ("buildx", "github.com/docker/buildx/cmd/buildx", "tools"),
    (
        "docker-compose",
        "github.com/docker/compose/v5/cmd",
        "tools/compose",
    ),
    ("helm", "helm.sh/helm/v3/cmd/helm", "tools/charts"),
    (
        "kubeconform",
        "github.com/yannh/kubeconform/cmd/kubeconform",
        "tools/charts",
    ),
];

/// Gets what is missing.
pub(crate) fn run() -> Result<(), Error> {
    packages()?;
    let module = paths::Module::find()?;
    let tools = module.tools();
    std::fs::create_dir_all(&tools).map_err(at("making", &tools))?;

    for (name, package, module) in PROGRAMS {
        let target = tools.join(name);
        if target.is_file() {
            continue;
        }
        let version = paths::version_of(package, module)?;
        println!("building {name} {version}");
        // Static, so that the frontend's program also runs in an image of its own.
        run_command(
            paths::go_in(module, &["build", "-trimpath", "-ldflags"])?
                // Compose asks buildx for its version.
                .arg(format!(
                    "-X github.com/docker/buildx/version.Version={version}"
                ))
                .arg("-o")
                .arg(&target)
                .arg(package)
                .env("CGO_ENABLED", "0"),
        )?;
    }
    for suite in SUITES {
        let target = tools.join(suite.binary());
        if target.is_file() {
            continue;
        }
        println!("building the tests of {} {}", suite.package, module.version);
        run_command(
            paths::go(&["test", "-c", "-o"])?
                .arg(&target)
                .arg(format!("{MODULE}/{}", suite.package)),
        )?;
    }
    println!("tools of {} are in {}", module.version, tools.display());
    Ok(())
}

fn packages() -> Result<(), Error> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let remedy = format!(
        "apt-get install --no-install-recommends {}",
        missing.join(" ")
    );
    if !is_root() || find("apt-get").is_none() {
        return Err(Error::Missing {
            what: missing.join(", "),
            remedy,
        });
    }
    println!(
        "these packages of Debian are not here and will be installed: {}",
        missing.join(" ")
    );
    let install = |update: bool| {
        if update {
            run_command(Command::new("apt-get").args(["update", "-q"]))?;
        }
        run_command(
            Command::new("apt-get")
                .args(["install", "-y", "-q", "--no-install-recommends"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    install(false).or_else(|_stale_lists| install(true))
}
