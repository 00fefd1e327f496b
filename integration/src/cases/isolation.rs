//! What a step cannot see and cannot do.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::daemon::Daemon;
use super::rig::{Rig, Trouble, Verdict, ensure, program};
use super::{Case, On};
use crate::process::at;

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "a step sees no process, file or mount of the host",
        on: On::Both,
        run: sees_nothing,
    },
    Case {
        sentence: "a step cannot mount, load a module, write to the kernel, trace outside or read a disk",
        on: On::Both,
        run: does_nothing,
    },
    Case {
        sentence: "a step cannot read a disk through a device of an image or a cache mount",
        on: On::Both,
        run: devices,
    },
    Case {
        sentence: "secrets are seen by their step and are in no layer",
        on: On::Both,
        run: secrets,
    },
];

/// Mount points that a step may have; the last part of some depends on the kernel.
const MOUNTS: &[&str] = &[
    "/",
    "/proc",
    "/proc/",
    "/dev",
    "/dev/",
    "/sys",
    "/sys/",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
    "/tmp",
    "/run",
];

fn sees_nothing(rig: &Rig<'_>) -> Verdict {
    let secret = rig.context("host", &[("host-file", "a file of the host\n")])?;
    let path = secret.join("host-file");
    let state = rig.dir.display().to_string();
    let text = format!(
        "FROM busybox\n\
         RUN for p in /proc/[0-9]*; do echo PROCESS $(tr '\\0' ' ' < $p/cmdline); done\n\
         RUN cut -d' ' -f5 /proc/self/mountinfo | sed 's/^/MOUNT /'\n\
         RUN for f in {} {state} {} /var/run/docker.sock /run/docker.sock /run/rbuild /run/buildkit /var/lib/rbuild \\\n \
           /var/lib/buildkit /proc/1/root{}; do test -e $f && echo SEEN $f; done; true\n\
         RUN ls -l /proc/self/fd | grep -v -E ' (0|1|2|3) ->' | sed 's/^/FD /'; true\n\
         RUN ls -l /dev | sed 's/^/DEV /'; hostname | sed 's/^/HOST /'; env | sed 's/^/ENV /'\n\
         WORKDIR /proc/self/fd/7\n",
        path.display(),
        rig.run.display(),
        path.display(),
    );
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let daemon = Daemon::start(rig)?;
    let built = daemon.build(&context, &["--no-cache"])?;
    // The last line may be refused or make a folder of that name; it gives no file of the host.
    let logs = &built.progress.logs;
    let lines = |mark: &str| -> Vec<String> {
        logs.lines()
            .filter_map(|line| line.strip_prefix(mark))
            .map(|line| line.trim().to_owned())
            .collect()
    };
    let processes = lines("PROCESS ");
    ensure(!processes.is_empty() && processes.len() < 6, || {
        format!("the step sees {processes:#?}\n{}", built.tail())
    })?;
    let foreign: Vec<&String> = processes
        .iter()
        .filter(|line| !line.is_empty() && !line.contains("PROCESS") && !line.starts_with("tr"))
        .collect();
    ensure(foreign.is_empty(), || {
        format!("the step sees the processes {foreign:?}")
    })?;
    let mounts = lines("MOUNT ");
    let unknown: Vec<&String> = mounts
        .iter()
        .filter(|mount| {
            !MOUNTS.iter().any(|allowed| {
                mount == allowed
                    || allowed.len() > 1 && allowed.ends_with('/') && mount.starts_with(allowed)
            })
        })
        .collect();
    ensure(mounts.len() > 3 && unknown.is_empty(), || {
        format!("the step has the mounts {unknown:?} of {mounts:?}")
    })?;
    let visible = lines("SEEN ");
    ensure(visible.is_empty(), || format!("the step sees {visible:?}"))?;
    let open = lines("FD ");
    let open: Vec<&String> = open.iter().filter(|line| line.contains("->")).collect();
    ensure(open.is_empty(), || {
        format!("the step has the descriptors {open:?}")
    })?;
    let disks: Vec<String> = lines("DEV ")
        .into_iter()
        .filter(|line| line.starts_with('b'))
        .collect();
    ensure(disks.is_empty(), || {
        format!("the step has the block devices {disks:?}")
    })?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    ensure(!lines("HOST ").contains(&host.trim().to_owned()), || {
        format!("the step has the host's name {host}")
    })?;
    let leaked: Vec<String> = lines("ENV ")
        .into_iter()
        .filter(|line| line.contains(&state))
        .collect();
    ensure(leaked.is_empty(), || {
        format!("the step's environment tells {leaked:?}")
    })
}

/// Compiles the probe into the context, once for all of the host's compilers' ways.
fn probe(rig: &Rig<'_>, dockerfile: &str) -> Result<std::path::PathBuf, Trouble> {
    let context = rig.context(
        "project",
        &[
            ("probe.c", include_str!("probe.c")),
            ("Dockerfile", dockerfile),
        ],
    )?;
    let mut cc = program("cc")?;
    cc.args(["-static", "-O1", "-o", "probe", "probe.c"])
        .current_dir(&context);
    let ran = rig.run(&mut cc)?;
    if ran.ok() {
        return Ok(context);
    }
    Err(Trouble::Skipped(format!(
        "cc -static does not work: {}",
        ran.tail()
    )))
}

/// The device that the host's root file system is on, as far as it has one.
fn host_disk(path: &Path) -> Result<(u32, u32), Trouble> {
    let device = path.metadata().map_err(at("looking at", path))?.dev();
    Ok((rustix::fs::major(device), rustix::fs::minor(device)))
}

fn does_nothing(rig: &Rig<'_>) -> Verdict {
    let (major, minor) = host_disk(&rig.dir)?;
    let me = std::process::id();
    let text = format!(
        "FROM scratch\nCOPY probe /probe\nRUN [\"/probe\", \"{me}\", \"{major}\", \"{minor}\"]\n"
    );
    let context = probe(rig, &text)?;
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let mut daemon = Daemon::start(rig)?;
    let built = daemon.build(&context, &[])?.success("the probe")?;
    let logs = &built.progress.logs;
    ensure(logs.contains("TRIED "), || format!("the probe says {logs}"))?;
    // The reference lets steps write to their control groups where the host has the old hierarchies.
    let is_excused = |line: &str| rig.lab.reference && line.contains("cgroup");
    let broken: Vec<&str> = logs
        .lines()
        .filter(|line| line.starts_with("BROKE OUT") && !is_excused(line))
        .collect();
    ensure(broken.is_empty(), || {
        format!("{}\n{logs}", broken.join("\n"))
    })?;
    // Docker's default set, and a filter.
    for want in [
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "Seccomp:\t2",
    ] {
        ensure(logs.contains(want), || {
            format!("{want:?} is not what the step has:\n{logs}")
        })?;
    }
    let after = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    ensure(before == after, || {
        format!("core_pattern was {before:?}, is {after:?}")
    })?;
    daemon.goes_on()
}

fn devices(rig: &Rig<'_>) -> Verdict {
    let (major, minor) = host_disk(&rig.dir)?;
    let text = format!(
        "FROM busybox AS made\n\
         RUN mknod /disk b {major} {minor} && mknod /mem c 1 1 && mknod /null c 1 3\n\
         RUN --mount=type=cache,target=/c mknod /c/disk b {major} {minor}\n\
         FROM busybox\n\
         COPY --from=made /disk /mem /null /d/\n\
         RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/tmpfs --mount=from=made,target=/m,rw \\\n \
           mknod /tmpfs/disk b {major} {minor}; \\\n \
           for f in /d/disk /d/mem /c/disk /m/disk /m/mem /tmpfs/disk; do \\\n \
             dd if=$f of=/dev/null bs=512 count=1 2>/dev/null && echo READ $f; \\\n \
             dd if=/dev/zero of=$f bs=1 count=0 2>/dev/null && echo OPENED FOR WRITING $f; done; ls -l /d; echo LOOKED\n"
    );
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let daemon = Daemon::start(rig)?;
    let built = daemon.build(&context, &[])?.success("the build")?;
    let logs = &built.progress.logs;
    ensure(
        logs.contains("LOOKED") && !logs.contains("READ /") && !logs.contains("WRITING /"),
        || format!("the step says:\n{logs}"),
    )
}

fn secrets(rig: &Rig<'_>) -> Verdict {
    let canary = format!("canary-{}-of-the-secret", std::process::id());
    let text = "FROM busybox\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token | sed 's/^/BYTES /'; stat -c 'MODE %a' /run/secrets/token\n\
                RUN test ! -e /run/secrets/token && ls -a /run/secrets 2>/dev/null; echo GONE\n";
    let context = rig.context("project", &[("Dockerfile", text)])?;
    let file = rig.context("secret", &[("token", &canary)])?.join("token");
    let daemon = Daemon::start(rig)?;
    let archive = rig.dir.join("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let secret = format!("id=token,src={}", file.display());
    let built = daemon
        .build(&context, &["--secret", &secret, "--output", &output])?
        .success("the build")?;
    let logs = &built.progress.logs;
    let bytes = format!("BYTES {}", canary.len());
    ensure(
        logs.contains(&bytes) && logs.contains("MODE 400") && logs.contains("GONE"),
        || format!("the steps say:\n{logs}"),
    )?;
    let image = super::image::Image::open(rig, &archive, "image")?;
    for layer in 1..image.layers.len() {
        for member in image.members(layer)? {
            let holds = member
                .data
                .windows(canary.len())
                .any(|window| window == canary.as_bytes());
            ensure(!holds, || {
                format!(
                    "{} of layer {layer} holds the secret",
                    member.name.escape_ascii()
                )
            })?;
        }
    }
    // Nor anywhere in the state directory.
    let ran = rig.run(
        program("grep")?
            .args(["-rlaF", "-D", "skip", &canary])
            .arg(&daemon.root),
    )?;
    ensure(ran.out.is_empty(), || {
        format!("the secret is in {}", ran.out)
    })
}
