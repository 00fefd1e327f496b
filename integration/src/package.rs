//! The Debian package: made without a network, installed into a root of its own, and what is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::paths;
use crate::process::{Error, at, find, is_root, need, output, run as run_command};

/// Which program.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The program that is put into the package; otherwise the `rbuild` beside this program.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// What the package's scripts run, by busybox.
const SCRIPT_PROGRAMS: [&str; 4] = ["sh", "grep", "rm", "true"];
/// As much of adduser as they need: `addgroup --system NAME`.
const ADDGROUP: &str = "#!/bin/sh\necho \"$2:x:999:\" >>/etc/group\n";

/// Makes, installs, looks and purges; `false` when something is not as it should be.
pub(crate) fn run(options: &Options) -> Result<bool, Error> {
    if !is_root() {
        return Err(Error::Missing {
            what: "root".to_owned(),
            remedy: "dpkg installs as root".to_owned(),
        });
    }
    let program = options.program.clone().unwrap_or_else(|| {
        std::env::current_exe()
            .unwrap_or_default()
            .with_file_name("rbuild")
    });
    let scratch = paths::cache().join(format!("package-{}", std::process::id()));
    fs::create_dir_all(&scratch).map_err(at("making", &scratch))?;
    let outcome = life_of_a_package(&program, &scratch);
    let _left_behind = fs::remove_dir_all(&scratch);
    match outcome {
        Ok(()) => Ok(true),
        Err(error @ (Error::Failed { .. } | Error::Output { .. })) => {
            println!("FAILED   {error}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn life_of_a_package(program: &Path, scratch: &Path) -> Result<(), Error> {
    let package = scratch.join("rbuild.deb");
    let again = scratch.join("again.deb");
    for file in [&package, &again] {
        output(
            Command::new(paths::source().join("../packaging/debian/make"))
                .arg(program)
                .arg(file)
                .env("DEB_COMPRESSION", "none"),
        )?;
    }
    let bytes = |file: &Path| fs::read(file).map_err(at("reading", file));
    ensure(bytes(&package)? == bytes(&again)?, || {
        "two packages of one program differ".to_owned()
    })?;
    println!("ok       the package is made twice, byte for byte");

    let root = scratch_root(scratch)?;
    let dpkg = |arguments: &[&str]| {
        output(
            Command::new("dpkg")
                .arg(format!("--root={}", root.display()))
                // Nothing that it depends on is in this root.
                .arg("--force-depends")
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    let file = package.display().to_string();
    dpkg(&["--install", &file])?;
    let installed = root.join("usr/bin/rbuildd");
    let version = output(Command::new(&installed).arg("--version"))?;
    ensure(version.starts_with("rbuildd "), || version.clone())?;
    let buildctl = root.join("usr/lib/rbuild/bin/buildctl");
    let version = output(Command::new(&buildctl).arg("--version"))?;
    ensure(version.split_whitespace().count() == 4, || version.clone())?;
    let group = root.join("etc/group");
    let groups = fs::read_to_string(&group).map_err(at("reading", &group))?;
    ensure(groups.contains("rbuild:"), || groups.clone())?;
    println!("ok       it installs, its programs start by their names, and the group is there");

    units(&root)?;
    manual(&root)?;
    completions(&root)?;

    let config = root.join("etc/rbuild/rbuildd.toml");
    fs::write(&config, "root = \"/elsewhere\"\n").map_err(at("writing", &config))?;
    dpkg(&["--install", &file])?;
    let text = fs::read_to_string(&config).map_err(at("reading", &config))?;
    ensure(text.contains("elsewhere"), || {
        "an upgrade replaces a configuration that was changed".to_owned()
    })?;
    dpkg(&["--remove", "rbuild"])?;
    ensure(config.is_file() && !installed.exists(), || {
        "a removal takes the programs and leaves the configuration".to_owned()
    })?;
    dpkg(&["--purge", "rbuild"])?;
    ensure(!root.join("etc/rbuild").exists(), || {
        "a purge leaves the configuration".to_owned()
    })?;
    println!("ok       a changed configuration stays until the package is purged");
    Ok(())
}

/// Makes a root with what dpkg and the package's scripts need.
fn scratch_root(scratch: &Path) -> Result<PathBuf, Error> {
    let root = scratch.join("root");
    for dir in [
        "bin",
        "etc",
        "run",
        "var/lib/dpkg/updates",
        "var/lib/dpkg/info",
    ] {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).map_err(at("making", &dir))?;
    }
    for file in ["var/lib/dpkg/status", "var/lib/dpkg/available", "etc/group"] {
        let file = root.join(file);
        fs::write(&file, "").map_err(at("writing", &file))?;
    }
    let busybox = need("busybox")?;
    for name in SCRIPT_PROGRAMS {
        let file = root.join("bin").join(name);
        fs::copy(&busybox, &file).map_err(at("copying", &busybox))?;
    }
    let file = root.join("bin/addgroup");
    fs::write(&file, ADDGROUP).map_err(at("writing", &file))?;
    run_command(Command::new("chmod").arg("755").arg(&file))?;
    Ok(root)
}

fn units(root: &Path) -> Result<(), Error> {
    if find("systemd-analyze").is_none() {
        println!("skipped  units: systemd-analyze is not installed");
        return Ok(());
    }
    for (manager, dir) in [("--system", "system"), ("--user", "user")] {
        let dir = root.join("usr/lib/systemd").join(dir);
        for entry in fs::read_dir(&dir).map_err(at("reading", &dir))? {
            let unit = entry.map_err(at("reading", &dir))?.path();
            // The program is where the unit says in this root only.
            let text = fs::read_to_string(&unit).map_err(at("reading", &unit))?;
            let moved = text.replace("ExecStart=", &format!("ExecStart={}", root.display()));
            fs::write(&unit, &moved).map_err(at("writing", &unit))?;
            let verify = |unit: &Path| {
                let mut command = Command::new("systemd-analyze");
                command.args(["verify", "--man=no", "--recursive-errors=no", manager]);
                command.env("XDG_RUNTIME_DIR", root.join("run"));
                command.env("SYSTEMD_UNIT_PATH", format!("{}:", dir.display()));
                output(command.arg(unit))
            };
            verify(&unit)?;
            fs::write(&unit, text).map_err(at("writing", &unit))?;
        }
    }
    println!("ok       systemd-analyze finds nothing wrong with the units");
    Ok(())
}

/// Every page is one that the formatter has no warning about.
fn manual(root: &Path) -> Result<(), Error> {
    if find("man").is_none() {
        println!("skipped  manual: man is not installed");
        return Ok(());
    }
    let mut pages = 0;
    for section in ["man1", "man8"] {
        let dir = root.join("usr/share/man").join(section);
        for entry in fs::read_dir(&dir).map_err(at("reading", &dir))? {
            let page = entry.map_err(at("reading", &dir))?.path();
            let ran = Command::new("man")
                .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
                .arg(&page)
                .env("MANROFFSEQ", "")
                .env("MANWIDTH", "100")
                .output()
                .map_err(|source| Error::Start {
                    program: "man".to_owned(),
                    source,
                })?;
            let warnings = String::from_utf8_lossy(&ran.stderr);
            ensure(ran.status.success() && warnings.is_empty(), || {
                format!("{}: {warnings}", page.display())
            })?;
            pages += 1;
        }
    }
    ensure(pages > 8, || format!("there are {pages} manual pages"))?;
    println!("ok       {pages} manual pages without a warning");
    Ok(())
}

/// What bash offers behind the beginning of a command.
fn completions(root: &Path) -> Result<(), Error> {
    let script = "source \"$1\"; COMP_WORDS=(rbuild bui); COMP_CWORD=1; COMPREPLY=(); _rbuild rbuild bui rbuild; echo \"${COMPREPLY[*]}\"";
    let offers = output(
        Command::new("bash")
            .args(["-c", script, "bash"])
            .arg(root.join("usr/share/bash-completion/completions/rbuild")),
    )?;
    ensure(offers.trim() == "build", || {
        format!("bash offers {offers:?}")
    })?;
    for (shell, file) in [
        ("zsh", "zsh/vendor-completions/_rbuild"),
        ("fish", "fish/vendor_completions.d/rbuild.fish"),
    ] {
        let file = root.join("usr/share").join(file);
        let text = fs::read_to_string(&file).map_err(at("reading", &file))?;
        ensure(text.contains("build"), || file.display().to_string())?;
        if find(shell).is_some() {
            run_command(Command::new(shell).arg("-n").arg(&file))?;
        }
    }
    println!("ok       completions: bash offers what it should, zsh and fish have theirs");
    Ok(())
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), Error> {
    if holds {
        return Ok(());
    }
    Err(Error::Output {
        what: "the package",
        problem: why(),
    })
}
