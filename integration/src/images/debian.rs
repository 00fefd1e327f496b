//! Debian's own base system, by debootstrap, and on it Python or programs that fetch packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rootfs;
use crate::process::{Error, at, need, output, run};

const SUITE: &str = "bookworm";
const ARCHIVE: &str = "http://deb.debian.org/debian";

/// npm as its own registry has it, with the digest; Debian's package of it brings hundreds of others.
const NPM: (&str, &str) = (
    "https://registry.npmjs.org/npm/-/npm-10.9.9.tgz",
    "sha256:c80bd097147cce32e31010b791bab8c71a26a5e10668210ec9d2e7f4c7cea2a1",
);

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
        install(
            &base,
            root,
            "ca-certificates python3 python3-pip python3-venv",
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

/// Returns Debian with git, curl, node, npm and cargo.
pub(super) fn fetchers(work: &Path) -> Result<PathBuf, Error> {
    let base = base(work)?;
    let root = once(work, "fetchers", |root| {
        println!("installing programs that fetch packages, a minute");
        install(&base, root, "ca-certificates curl git nodejs")?;
        npm(root)?;
        cargo(root)
    })?;
    tidy(&root)?;
    Ok(root)
}

/// Copies the base system to `root` and installs packages there.
fn install(base: &Path, root: &Path, packages: &str) -> Result<(), Error> {
    run(Command::new("cp").arg("-a").arg(base).arg(root))?;
    fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf"))
        .map_err(at("copying", Path::new("/etc/resolv.conf")))?;
    run(Command::new(need("chroot")?)
        .arg(root)
        .args(["sh", "-ec"])
        .arg(format!(
            "apt-get update -q && apt-get install -y -q --no-install-recommends {packages}"
        ))
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
}

/// Unpacks npm where its own installer puts it.
fn npm(root: &Path) -> Result<(), Error> {
    let (url, expected) = NPM;
    let archive = root.join("tmp/npm.tgz");
    run(Command::new(need("curl")?)
        .args(["-fsSL", "--retry", "3", "-o"])
        .arg(&archive)
        .arg(url))?;
    let file = fs::File::open(&archive).map_err(at("opening", &archive))?;
    let (digest, _) = oci::Digester::of_reader(file).map_err(at("reading", &archive))?;
    if digest.as_str() != expected {
        return Err(Error::Output {
            what: "npm",
            problem: format!("{url} has the digest {digest}, expected {expected}"),
        });
    }
    let folder = root.join("usr/local/lib/node_modules/npm");
    rootfs::folder(&folder, 0o755)?;
    run(Command::new("tar")
        .args(["--no-same-owner", "--strip-components=1", "-xzf"])
        .arg(&archive)
        .arg("-C")
        .arg(&folder))?;
    rootfs::symlink(
        "../lib/node_modules/npm/bin/npm-cli.js",
        &root.join("usr/local/bin/npm"),
    )
}

/// Copies this toolchain's cargo, which needs nothing but the C library; Debian's knows no registries over HTTP alone.
fn cargo(root: &Path) -> Result<(), Error> {
    let sysroot = output(Command::new(need("rustc")?).args(["--print", "sysroot"]))?;
    let program = Path::new(sysroot.trim()).join("bin/cargo");
    let target = root.join("usr/local/bin/cargo");
    fs::copy(&program, &target).map_err(at("copying", &program))?;
    Ok(())
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
