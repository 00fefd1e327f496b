//! Our program under the name `buildctl` beside the real one.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::daemon::Daemon;
use super::rig::{Ran, Rig, Trouble, Verdict, ensure, failed};
use super::{Case, On};
use crate::process::at;

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "rbuild under the name buildctl prints what buildctl prints",
        on: On::Ours("two clients are compared, on one daemon"),
        run: same_output,
    },
    Case {
        sentence: "rbuild under the name buildctl builds and refuses as buildctl does",
        on: On::Ours("two clients are compared, on one daemon"),
        run: same_builds,
    },
    Case {
        sentence: "a daemon that is asked for its version says so in four fields, and the client too",
        on: On::Ours("it is our program"),
        run: versions,
    },
];

/// Both clients on one daemon.
struct Clients<'a> {
    rig: &'a Rig<'a>,
    daemon: &'a Daemon<'a>,
}

impl Clients<'_> {
    fn ours(&self, arguments: &[&str]) -> Result<Ran, Trouble> {
        let program = self.rig.dir.join("buildctl");
        if !program.exists() {
            symlink(&self.rig.lab.rbuild, &program).map_err(at("linking", &program))?;
        }
        let mut command = Command::new(program);
        command
            .args(["--addr", &self.daemon.address])
            .args(arguments);
        Ok(self.rig.run(&mut command)?)
    }

    /// Lets both answer, and compares code and standard output; `forget` takes out of a line what differs by nature.
    fn compare(&self, arguments: &[&str], forget: impl Fn(&str) -> String) -> Verdict {
        let theirs = self.daemon.buildctl(arguments)?;
        let ours = self.ours(arguments)?;
        let lines = |ran: &Ran| ran.out.lines().map(&forget).collect::<Vec<String>>();
        ensure(
            (theirs.code, lines(&theirs)) == (ours.code, lines(&ours)),
            || {
                format!(
                    "{arguments:?}\n--- buildctl\n{}\n--- rbuild\n{}",
                    theirs.tail(),
                    ours.tail()
                )
            },
        )
    }
}

const PROJECT: &[(&str, &str)] = &[(
    "Dockerfile",
    "FROM busybox AS made\nARG WORD=none\nRUN --mount=type=cache,target=/c echo $WORD > /file && echo told\nFROM scratch\nCOPY --from=made /file /\n",
)];

fn same_output(rig: &Rig<'_>) -> Verdict {
    let context = rig.context("project", PROJECT)?;
    let daemon = Daemon::start(rig)?;
    let clients = Clients {
        rig,
        daemon: &daemon,
    };
    let id = rig.dir.join("id");
    let id_of = id.display().to_string();
    daemon
        .build(&context, &["--ref-file", &id_of])?
        .success("a build")?;
    let build = std::fs::read_to_string(&id).map_err(at("reading", &id))?;
    let as_it_is = str::to_owned;
    for arguments in [
        &["du"][..],
        &["du", "-v"],
        &["du", "--filter", "type==exec.cachemount"],
        &["du", "--format", "{{json .}}"],
        &[
            "du",
            "--format",
            "{{range .}}{{.ID}} {{.Size}} {{.InUse}}\n{{end}}",
        ],
        &["debug", "workers"],
        &["debug", "workers", "-v"],
        &["debug", "workers", "--format", "json"],
        &["debug", "workers", "--filter", "id==nobody"],
        &["debug", "info"],
        &["debug", "info", "--format", "{{json .}}"],
        &["debug", "histories"],
        &["debug", "ctl", &build],
        &["debug", "ctl", &build, "--pin"],
        &["debug", "histories"],
        &["debug", "ctl", &build, "--unpin"],
        &["debug", "get", "sha256:0000"],
    ] {
        clients.compare(arguments, as_it_is)?;
    }
    // Members of an object have no order.
    clients.compare(&["debug", "histories", "--format", "{{json .}}"], |line| {
        serde_json::from_str::<serde_json::Value>(line)
            .map_or_else(|error| error.to_string(), |value| value.to_string())
    })?;
    let record = clients.ours(&["debug", "histories", "--format", "{{.Record.Logs.Digest}}"])?;
    let digest = record.out.trim();
    ensure(digest.starts_with("sha256:"), || record.tail())?;
    clients.compare(&["debug", "get", digest], as_it_is)?;

    let pruned = clients.ours(&["prune", "--filter", "type==exec.cachemount"])?;
    ensure(
        pruned.ok() && pruned.out.starts_with("ID\t") && pruned.out.contains("\nTotal:\t"),
        || pruned.tail(),
    )?;
    clients.compare(&["du"], as_it_is)?;
    let forgotten = clients.ours(&["prune-histories"])?;
    ensure(forgotten.ok() && forgotten.out.contains(&build), || {
        forgotten.tail()
    })?;
    clients.compare(&["debug", "histories"], as_it_is)?;
    let pruned = clients.ours(&["prune", "--all", "--format", "{{.ID}}"])?;
    ensure(pruned.ok() && !pruned.out.contains("Total"), || {
        pruned.tail()
    })?;
    clients.compare(&["du", "-v"], as_it_is)
}

fn same_builds(rig: &Rig<'_>) -> Verdict {
    let context = rig.context("project", PROJECT)?;
    let daemon = Daemon::start(rig)?;
    let clients = Clients {
        rig,
        daemon: &daemon,
    };
    let local = |name: &str| format!("{name}={}", context.display());
    let (sources, dockerfile) = (local("context"), local("dockerfile"));
    let build = |more: &[&str]| -> Vec<String> {
        [
            "build",
            "--progress=plain",
            "--frontend",
            "dockerfile.v0",
            "--local",
            &sources,
            "--local",
            &dockerfile,
        ]
        .iter()
        .chain(more)
        .map(|word| (*word).to_owned())
        .collect()
    };
    let run = |ours: bool, more: &[&str]| -> Result<Ran, Trouble> {
        let words = build(more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if ours {
            clients.ours(&words)
        } else {
            Ok(daemon.buildctl(&words)?)
        }
    };
    let mut results = Vec::new();
    for ours in [false, true] {
        let of = |name: &str| rig.dir.join(format!("{name}-{ours}"));
        let (archive, metadata, folder) = (of("archive"), of("metadata"), of("folder"));
        let output = format!(
            "type=oci,name=registry.example/made,dest={}",
            archive.display()
        );
        let tree = format!("type=local,dest={}", folder.display());
        let metadata_file = metadata.display().to_string();
        run(
            ours,
            &[
                "--opt",
                "build-arg:WORD=one",
                "--output",
                &output,
                "--output",
                &tree,
                "--metadata-file",
                &metadata_file,
            ],
        )?
        .success("a build")?;
        let file = folder.join("file");
        let metadata: serde_json::Value = std::fs::read(&metadata)
            .map_err(at("reading", &metadata))
            .map(|bytes| serde_json::from_slice(&bytes).unwrap_or_default())?;
        results.push((
            std::fs::read_to_string(&file).map_err(at("reading", &file))?,
            metadata["containerimage.config.digest"].clone(),
            metadata
                .as_object()
                .map(|all| all.keys().cloned().collect::<Vec<_>>()),
        ));
    }
    ensure(
        results[0] == results[1] && results[0].0 == "one\n" && results[0].1.is_string(),
        || format!("{results:?}"),
    )?;

    for (what, more) in [
        ("an output without a type", &["--output", "dest=x"][..]),
        ("an output without a place", &["--output", "type=local"]),
        ("an unknown frontend", &["--frontend", "nothing.v0"]),
        ("a target that is not there", &["--opt", "target=nowhere"]),
        ("an entitlement that is none", &["--allow", "everything"]),
        ("an option without a value", &["--opt", "x"]),
    ] {
        let last = |ran: &Ran| {
            ran.err
                .lines()
                .filter(|line| line.starts_with("error: "))
                .map(str::to_owned)
                .next_back()
        };
        let (theirs, ours) = (run(false, more)?, run(true, more)?);
        ensure(
            theirs.code == ours.code && last(&theirs) == last(&ours),
            || {
                format!(
                    "{what}\n--- buildctl\n{}\n--- rbuild\n{}",
                    theirs.tail(),
                    ours.tail()
                )
            },
        )?;
    }
    // What a frontend is asked in the place of a build.
    let question = ["--opt", "requestid=frontend.targets"];
    let (theirs, ours) = (run(false, &question)?, run(true, &question)?);
    ensure(theirs.ok() && theirs.out == ours.out, || {
        format!(
            "--- buildctl\n{}\n--- rbuild\n{}",
            theirs.tail(),
            ours.tail()
        )
    })
}

fn versions(rig: &Rig<'_>) -> Verdict {
    for name in ["buildkitd", "buildctl"] {
        let program = rig.dir.join(name);
        symlink(&rig.lab.rbuild, &program).map_err(at("linking", &program))?;
        let ran = rig.run(Command::new(&program).arg("--version"))?;
        let fields: Vec<&str> = ran.out.split_whitespace().collect();
        ensure(
            ran.ok() && fields.len() == 4 && fields[0] == name && fields[2].starts_with("v0."),
            || ran.tail(),
        )?;
    }
    let program = rig.dir.join("rootlesskit");
    symlink(&rig.lab.rbuild, &program).map_err(at("linking", &program))?;
    let ran = rig.run(Command::new(&program).args(["--net=host", "echo", "started"]))?;
    if ran.out != "started\n" {
        return failed(ran.tail());
    }
    Ok(())
}
