//! A daemon without root: the same image, and nothing of the host for a step, whatever ids its user has.
//!
//! The user is made for the case: a login, a home and lines of subordinate ids that stand in copies of the host's files, seen in a mount
//! namespace of the case's programs alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::Daemon;
use super::image::Image;
use super::rig::{CLIENT_TIMEOUT, Ran, Rig, Running, Trouble, Verdict, ensure, program, within};
use super::{Case, On, network};
use crate::process::at;

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "an ordinary user's build gives the image of root's daemon, with and without subordinate ids",
        on: On::Ours("BuildKit wants root or rootlesskit"),
        run: the_same_image,
    },
    Case {
        sentence: "a step of an ordinary user's build sees no process, no file and no listener of its user",
        on: On::Ours("BuildKit wants root or rootlesskit"),
        run: nothing_of_the_host,
    },
    Case {
        sentence: "steps of an ordinary user's daemon behind a bridge reach nothing of the host by pasta and by slirp4netns, which end with the daemon, also a killed one",
        on: On::Ours("BuildKit wants rootlesskit, and lets steps reach the host's addresses"),
        run: behind_a_bridge,
    },
    Case {
        sentence: "an ordinary user's daemon serves, ends by a signal and goes on where it was",
        on: On::Ours("BuildKit wants root or rootlesskit"),
        run: serves_and_ends,
    },
];

/// Nobody else's on any machine that we know.
const UID: u32 = 61_234;
/// The first of the subordinate ids, of which there are 65,536.
const SUBORDINATE: u32 = 700_000_000;
const EPOCH: &str = "SOURCE_DATE_EPOCH=1700000000";

/// Mounts the copies over the host's files, and becomes the user: the folder with the copies, the id, and then the command.
const LOGIN: &str = "dir=$1 uid=$2; shift 2; \
    for file in passwd group subuid subgid; do mount --bind \"$dir/$file\" /etc/$file || exit 125; done; \
    if [ -e /dev/net/tun ]; then mount --bind \"$dir/tun\" /dev/net/tun || exit 125; fi; \
    cd \"$HOME\" && exec setpriv --reuid \"$uid\" --regid \"$uid\" --init-groups \"$@\"";

/// A user of the host for one case.
struct User {
    files: PathBuf,
    home: PathBuf,
    bin: PathBuf,
    config: PathBuf,
}

impl User {
    fn new(rig: &Rig<'_>, name: &str, has_ids: bool) -> Result<Self, Trouble> {
        let files = rig.folder(&format!("{name}-etc"))?;
        for file in ["passwd", "group"] {
            let mut text = fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
            if file == "passwd" {
                text += &format!("\nrbuild-case:x:{UID}:{UID}::/nonexistent:/bin/sh\n");
            } else {
                text += &format!("\nrbuild-case:x:{UID}:\n");
            }
            write(&files.join(file), &text)?;
        }
        for file in ["subuid", "subgid"] {
            // A file to be mounted over must be there.
            let real = Path::new("/etc").join(file);
            ensure(real.exists(), || format!("{} is missing", real.display()))?;
            let line = format!("rbuild-case:{SUBORDINATE}:65536\n");
            write(&files.join(file), if has_ids { &line } else { "" })?;
        }
        // Everybody's, as udev makes it.
        let tun = files.join("tun");
        let mut made = program("mknod")?;
        let made = made.args(["-m", "666"]).arg(&tun).args(["c", "10", "200"]);
        rig.run(made)?.success("mknod")?;
        // Below the folder for sockets, which everybody may enter; the state needs a real disk only for its size.
        let home = rig.run.join(name);
        let bin = rig.run.join("bin");
        for dir in [&home, &bin] {
            fs::create_dir_all(dir).map_err(at("making", dir))?;
        }
        fs::set_permissions(&rig.run, fs::Permissions::from_mode(0o755))
            .map_err(at("opening", &rig.run))?;
        std::os::unix::fs::chown(&home, Some(UID), Some(UID)).map_err(at("giving away", &home))?;
        for (source, name) in [(&rig.lab.rbuild, "rbuild"), (&rig.lab.daemon, "rbuildd")] {
            let copy = bin.join(name);
            if !copy.exists() {
                fs::copy(source, &copy).map_err(at("copying", source))?;
            }
        }
        let config = rig.run.join("rbuildd.toml");
        let port = rig.lab.mirror.port;
        write(
            &config,
            &format!(
                "[registry.\"docker.io\"]\n  mirrors = [\"localhost:{port}\"]\n[registry.\"localhost:{port}\"]\n  http = true\n"
            ),
        )?;
        Ok(Self {
            files,
            home,
            bin,
            config,
        })
    }

    /// A command of the user's.
    fn command(&self, name: &str, args: &[&str]) -> Result<Command, Trouble> {
        let mut command = program("unshare")?;
        command
            .args(["-m", "sh", "-c", LOGIN, "login"])
            .arg(&self.files)
            .arg(UID.to_string())
            .arg(self.bin.join(name))
            .args(args)
            .env("HOME", &self.home)
            .env("USER", "rbuild-case")
            .env("XDG_RUNTIME_DIR", self.home.join("run"))
            .env("BUILDKITD_CONFIG", &self.config)
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("BUILDKIT_HOST")
            .env_remove("RBUILD_ROOT");
        Ok(command)
    }

    /// Builds a context with the daemon inside the client; returns what it said and the archive.
    fn build(&self, rig: &Rig<'_>, context: &Path) -> Result<(Ran, PathBuf), Trouble> {
        let file = self.home.join("image.tar");
        let output = format!("type=oci,rewrite-timestamp=true,dest={}", file.display());
        let context = context.display().to_string();
        let args = [
            "build",
            "--progress",
            "plain",
            "--build-arg",
            EPOCH,
            "-o",
            &output,
            &context,
        ];
        Ok((rig.run(&mut self.command("rbuild", &args)?)?, file))
    }
}

fn write(file: &Path, text: &str) -> Verdict {
    fs::write(file, text).map_err(at("writing", file))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).map_err(at("opening", file))?;
    Ok(())
}

/// A folder of the case's that everybody may read.
fn readable(rig: &Rig<'_>, name: &str, files: &[(&str, &str)]) -> Result<PathBuf, Trouble> {
    let dir = rig.run.join(name);
    fs::create_dir_all(&dir).map_err(at("making", &dir))?;
    for (file, text) in files {
        write(&dir.join(file), text)?;
    }
    Ok(dir)
}

/// Layers replaced, removed and opaque; links, owners of the base image, a cache mount, and a stage that is copied from.
const DOCKERFILE: &str = "FROM debian:bookworm-slim AS tools\n\
    ARG SOURCE_DATE_EPOCH\n\
    RUN mkdir -p /out/a && echo one > /out/a/one && ln /out/a/one /out/a/two && chmod 4755 /out/a/two && chown 0:0 /out\n\
    RUN --mount=type=cache,target=/cache echo kept > /cache/file && cp /cache/file /out/cached\n\
    RUN rm -rf /out/a && mkdir /out/a && echo new > /out/a/three && rm /etc/motd /etc/issue\n\
    FROM debian:bookworm-slim\n\
    RUN rm -rf /usr/share/doc && mkdir /usr/share/doc && touch /usr/share/doc/none\n\
    COPY --from=tools /out /out\n\
    COPY greeting /etc/greeting\n\
    RUN touch /out/a/four && rm /out/a/three && id -u > /who && stat -c %a /tmp > /mode\n\
    USER nobody\n\
    CMD [\"cat\", \"/etc/greeting\"]\n";

fn the_same_image(rig: &Rig<'_>) -> Verdict {
    let files = [("Dockerfile", DOCKERFILE), ("greeting", "hello\n")];
    let context = readable(rig, "context", &files)?;
    let daemon = Daemon::start(rig)?;
    let file = rig.dir.join("root.tar");
    let output = format!("type=oci,rewrite-timestamp=true,dest={}", file.display());
    let args = ["--build-arg", EPOCH, "--output", &output];
    let mut command = daemon.rbuild_command(&context, &args);
    rig.run(&mut command)?.success("root's build")?;
    let expected = Image::open(rig, &file, "root")?;
    for (name, has_ids) in [("ids", true), ("one", false)] {
        let user = User::new(rig, name, has_ids)?;
        let (ran, file) = user.build(rig, &context)?;
        let ran = ran.success(name)?;
        ensure(ran.err.contains("one user id") != has_ids, || {
            format!(
                "{name}: a warning is expected exactly without subordinate ids: {}",
                ran.err
            )
        })?;
        let image = Image::open(rig, &file, name)?;
        ensure(image.diff_ids == expected.diff_ids, || {
            format!(
                "{name}: layers {:?}, root's {:?}",
                image.diff_ids, expected.diff_ids
            )
        })?;
        ensure(image.config == expected.config, || {
            format!(
                "{name}: config {}, root's {}",
                image.config, expected.config
            )
        })?;
    }
    Ok(())
}

/// Every line says what the step could do that it must not.
const ATTACKS: &str = "FROM debian:bookworm-slim\n\
    RUN --network=none set -e; \
    [ \"$$\" = 1 ] || echo \"ATTACK: process number $$\"; \
    [ \"$(ls /proc | grep -c '^[0-9]')\" -le 4 ] || echo 'ATTACK: sees processes'; \
    kill -0 2 2>/dev/null && echo 'ATTACK: signals'; \
    mknod /dev/mine b 7 0 2>/dev/null && echo 'ATTACK: makes a device'; \
    mount -t tmpfs none /mnt 2>/dev/null && echo 'ATTACK: mounts'; \
    mount -o remount,rw /sys 2>/dev/null && echo 'ATTACK: remounts'; \
    unshare -U true 2>/dev/null && echo 'ATTACK: makes a user namespace'; \
    echo 1 2>/dev/null > /proc/sys/kernel/core_pattern && echo 'ATTACK: writes sysctls'; \
    echo 2>/dev/null > /proc/sysrq-trigger && echo 'ATTACK: sysrq'; \
    touch /sys/x 2>/dev/null && echo 'ATTACK: writes /sys'; \
    (exec 3<>/dev/tcp/127.0.0.1/PORT) 2>/dev/null && echo 'ATTACK: reaches a listener'; \
    [ -e SECRET ] && echo 'ATTACK: sees the host'; \
    [ -z \"$SECRET_OF_USER\" ] || echo 'ATTACK: has the environment'; \
    echo tried-everything\n";

fn nothing_of_the_host(rig: &Rig<'_>) -> Verdict {
    let secret = readable(rig, "secret", &[("file", "secret")])?;
    let text = ATTACKS
        .replace("PORT", &rig.lab.mirror.port.to_string())
        .replace("SECRET ", &format!("{} ", secret.join("file").display()));
    let text = format!("# syntax=docker/dockerfile:1\n{text}").replace(
        "RUN --network=none set",
        "SHELL [\"/bin/bash\", \"-c\"]\nRUN --network=none set",
    );
    let context = readable(rig, "context", &[("Dockerfile", &text)])?;
    for (name, has_ids) in [("ids", true), ("one", false)] {
        let user = User::new(rig, name, has_ids)?;
        let context = context.display().to_string();
        let mut command = user.command("rbuild", &["build", "--progress", "plain", &context])?;
        let ran = rig.run(command.env("SECRET_OF_USER", "x"))?.success(name)?;
        let is_of_step = |line: &&str| line.contains("tried-everything") && !line.contains("echo");
        ensure(ran.err.lines().any(|line| is_of_step(&line)), || {
            format!("{name}: the step said nothing: {}", ran.tail())
        })?;
        let succeeded: Vec<&str> = ran
            .err
            .lines()
            .filter(|line| line.contains("ATTACK") && !line.contains("echo"))
            .collect();
        ensure(succeeded.is_empty(), || format!("{name}: {succeeded:?}"))?;
    }
    Ok(())
}

/// The programs that carry packets for the case's user.
fn carriers() -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_user = processes.filter(|process| {
        let uid = std::os::unix::fs::MetadataExt::uid;
        process.metadata().is_ok_and(|it| uid(&it) == UID)
    });
    of_user
        .filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
        .filter(|line| line.contains("tap0"))
        .collect()
}

fn behind_a_bridge(rig: &Rig<'_>) -> Verdict {
    for program_name in ["pasta", "slirp4netns"] {
        drop(program(program_name)?);
    }
    let port = network::listen()?;
    let files = [("Dockerfile", network::attempts(port)?)];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let context = readable(rig, "context", &files)?.display().to_string();
    for (name, uplink, has_ids) in [
        ("pasta", "pasta", true),
        ("slirp", "slirp4netns", true),
        ("one", "auto", false),
    ] {
        let user = User::new(rig, name, has_ids)?;
        let text = fs::read_to_string(&user.config).unwrap_or_default();
        let keys =
            format!("[worker.oci]\n  networkMode = \"bridge\"\n  bridgeUplink = \"{uplink}\"\n");
        write(&user.config, &format!("{text}{keys}"))?;
        let socket = user.home.join("run/rbuild/rbuildd.sock");
        let daemon = Running::start(&rig.dir, &mut user.command("rbuildd", &[])?)?;
        let there = within(CLIENT_TIMEOUT, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        ensure(there, || {
            format!("{name}: nobody listens: {}", daemon.so_far())
        })?;
        let args = ["build", "--progress", "plain", "--no-cache", &context];
        let ran = rig.run(&mut user.command("rbuild", &args)?);
        let carrying = carriers();
        let pid = rustix::process::Pid::from_child(&daemon.child);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)
            .map_err(|errno| Trouble::Failed(errno.to_string()))?;
        daemon.wait(CLIENT_TIMEOUT)?;
        let ran = ran?.success(name)?;
        let said = |line: &&str| !line.contains("RUN ");
        let logs: Vec<&str> = ran.err.lines().filter(said).collect();
        network::nothing_reached(&logs.join("\n"))?;
        ensure(carrying.len() == 1, || {
            format!("{name}: these carry packets: {carrying:?}")
        })?;
        // The kernel ends what carried its packets.
        ensure(within(CLIENT_TIMEOUT, || carriers().is_empty()), || {
            format!("{name}: the daemon leaves {:?}", carriers())
        })?;
    }
    Ok(())
}

fn serves_and_ends(rig: &Rig<'_>) -> Verdict {
    let files = [("Dockerfile", "FROM busybox\nRUN date +%s%N > /made\n")];
    let context = readable(rig, "context", &files)?.display().to_string();
    let user = User::new(rig, "ids", true)?;
    let socket = user.home.join("run/rbuild/rbuildd.sock");
    let mut results = Vec::new();
    for round in ["first", "second"] {
        let daemon = Running::start(&rig.dir, &mut user.command("rbuildd", &[])?)?;
        let is_listening = within(CLIENT_TIMEOUT, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        ensure(is_listening, || {
            format!(
                "{round}: nobody listens at {}: {}",
                socket.display(),
                daemon.so_far()
            )
        })?;
        let file = user.home.join(format!("{round}.tar"));
        let output = format!("type=oci,dest={}", file.display());
        let args = ["build", "--progress", "plain", "-o", &output, &context];
        let ran = rig
            .run(&mut user.command("rbuild", &args)?)?
            .success(round)?;
        ensure(round == "first" || ran.err.contains("CACHED"), || {
            format!("{round}: {}", ran.err)
        })?;
        results.push(Image::open(rig, &file, round)?.diff_ids);
        // The process that was started is the daemon: no helper is around it.
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&daemon.child),
            rustix::process::Signal::TERM,
        )
        .map_err(|errno| Trouble::Failed(errno.to_string()))?;
        let exit = daemon.wait(CLIENT_TIMEOUT)?;
        ensure(exit.code == Some(0), || format!("{round}: {}", exit.tail()))?;
    }
    ensure(results.first() == results.get(1), || {
        format!("the step ran again: {results:?}")
    })
}
