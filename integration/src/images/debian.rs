//! Debian's own base system, by debootstrap, and Python on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rootfs;
use crate::process::{Error, at, need, run};

const SUITE: &str = "bookworm";
const ARCHIVE: &str = "http://deb.debian.org/debian";

/// Makes `work/<name>` by `make` unless it is there complete; half-made ones are thrown away.
fn once(
    work: &Path,
    name: &str,
    make: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let (root, done) = (work.join(name), work.join(format!("{name}.done")));
    if done.is_file() && root.is_dir() {
        return Ok(root);
    }
    if root.exists() {
        fs::remove_dir_all(&root).map_err(at("emptying", &root))?;
    }
    make(&root)?;
    fs::write(&done, b"").map_err(at("writing", &done))?;
    Ok(root)
}

/// Returns the root file system of a minimal Debian.
pub(super) fn base(work: &Path) -> Result<PathBuf, Error> {
    let root = once(work, "debian", |root| {
        println!("bootstrapping Debian {SUITE}, a few minutes");
        run(Command::new(need("debootstrap")?)
            .args(["--variant=minbase", SUITE])
            .arg(root)
            .arg(ARCHIVE))
    })?;
    tidy(&root)?;
    Ok(root)
}

/// Returns Debian with Python, pip and venv, under the names that the official image has them too.
pub(super) fn python(work: &Path) -> Result<PathBuf, Error> {
    let base = base(work)?;
    let root = once(work, "python", |root| {
        println!("installing Python, a minute");
        run(Command::new("cp").arg("-a").arg(&base).arg(root))?;
        fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf"))
            .map_err(at("copying", Path::new("/etc/resolv.conf")))?;
        let chroot = |script: &str| {
            run(Command::new(need("chroot")?)
                .arg(root)
                .args(["sh", "-ec", script])
                .env("DEBIAN_FRONTEND", "noninteractive")
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
        };
        chroot(
            "apt-get update -q && apt-get install -y -q --no-install-recommends ca-certificates python3 python3-pip python3-venv",
        )
    })?;
    tidy(&root)?;
    rootfs::folder(&root.join("usr/local/bin"), 0o755)?;
    for (name, target) in [
        ("python", "python3"),
        ("python3", "python3"),
        ("pip", "pip3"),
        ("pip3", "pip3"),
    ] {
        rootfs::symlink(
            &format!("/usr/bin/{target}"),
            &root.join("usr/local/bin").join(name),
        )?;
    }
    let lib = root.join("usr/lib");
    for entry in fs::read_dir(&lib).map_err(at("reading", &lib))?.flatten() {
        // Debian's mark that pip should keep out; the official image has none.
        rootfs::remove(&entry.path().join("EXTERNALLY-MANAGED"))?;
    }
    Ok(root)
}

/// Takes out what belongs to the making and sets what images of Debian set.
fn tidy(root: &Path) -> Result<(), Error> {
    for dir in [
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "var/lib/apt/lists",
        "var/cache/apt",
        "var/cache/ldconfig",
        "var/log",
    ] {
        let dir = root.join(dir);
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            rootfs::remove(&entry.path())?;
        }
    }
    for name in [
        "etc/resolv.conf",
        "etc/hostname",
        "etc/machine-id",
        "var/lib/dbus/machine-id",
    ] {
        rootfs::remove(&root.join(name))?;
    }
    rootfs::folder(&root.join("var/cache/apt/archives/partial"), 0o755)?;
    rootfs::folder(&root.join("var/lib/apt/lists/partial"), 0o755)?;
    rootfs::folder(&root.join("var/log/apt"), 0o755)?;
    // No service starts in an image.
    rootfs::file(
        &root.join("usr/sbin/policy-rc.d"),
        "#!/bin/sh\nexit 101\n",
        0o755,
    )?;
    rootfs::file(
        &root.join("etc/apt/apt.conf.d/90image"),
        "Acquire::Languages \"none\";\nDir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\n\
         APT::Sandbox::User \"root\";\nDPkg::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb\"; };\n",
        0o644,
    )?;
    rootfs::file(
        &root.join("etc/dpkg/dpkg.cfg.d/90image"),
        "force-unsafe-io\n",
        0o644,
    )
}
