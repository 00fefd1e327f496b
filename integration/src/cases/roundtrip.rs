//! Difficult files through layers: what other tools unpack, beside what BuildKit exports.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::daemon::{Daemon, Setting};
use super::image::Image;
use super::rig::{Rig, Trouble, Verdict, ensure, failed, program};
use super::tar::Member;
use super::tree;
use super::{Case, On};
use crate::process::{at, output};

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "difficult files come out of umoci as those that BuildKit exports",
        on: On::Ours("it is compared with itself"),
        run: beside_the_reference,
    },
    Case {
        sentence: "skopeo copies an exported image and runc runs it",
        on: On::Both,
        run: other_tools,
    },
    Case {
        sentence: "difficult files survive a registry: exported, pulled, copied and compared",
        on: On::Both,
        run: pulled_again,
    },
];

/// Makes the files, changes them in further layers, and dates what is below `/t`.
const FILES: &str = include_str!("roundtrip.Dockerfile");

fn beside_the_reference(rig: &Rig<'_>) -> Verdict {
    let context = rig.context(
        "project",
        &[("Dockerfile", FILES), ("from-client", "sent\n")],
    )?;
    let dated = context.join("from-client");
    output(
        Command::new("touch")
            .args(["-d", "@1600000001.5"])
            .arg(&dated),
    )?;
    let ours = Daemon::start(rig)?;
    let theirs = Daemon::with(
        rig,
        Setting {
            name: "b",
            program: Some(rig.lab.buildkitd()),
            ..Setting::default()
        },
    )?;
    let first = Image::open(rig, &ours.archive(&context, "ours.tar")?, "ours")?;
    let second = Image::open(rig, &theirs.archive(&context, "theirs.tar")?, "theirs")?;
    // What our client sends to BuildKit's daemon is the same context, so that all of it is cached.
    let crossed = Image::open(
        rig,
        &theirs.rbuild_archive(&context, "crossed.tar")?,
        "crossed",
    )?;
    ensure(crossed.layers == second.layers, || {
        format!(
            "with rbuild BuildKit's daemon makes {:#?}, with buildctl {:#?}",
            crossed.layers, second.layers
        )
    })?;

    ensure(first.layers.len() == second.layers.len(), || {
        format!(
            "{} layers, BuildKit makes {}",
            first.layers.len(),
            second.layers.len()
        )
    })?;
    let mut lines = Vec::new();
    for number in 0..first.layers.len() {
        let (ours, theirs) = (first.members(number)?, second.members(number)?);
        let of = |members: &[Member]| -> BTreeMap<String, String> {
            // The last layer dates what is below `t`; the others have the hours at which they were made.
            let dated = number + 1 == first.layers.len();
            members
                .iter()
                .map(|member| described(member, dated))
                .collect()
        };
        for line in tree::differences(&of(&ours), &of(&theirs)) {
            lines.push(format!("layer {number}: {line}"));
        }
        let order = |members: &[Member]| -> Vec<Vec<u8>> {
            members.iter().map(|member| member.name.clone()).collect()
        };
        if lines.is_empty() && order(&ours) != order(&theirs) {
            lines.push(format!("layer {number}: the same members in another order"));
        }
    }
    let trees = [
        unpack(rig, &first.dir, "ours")?,
        unpack(rig, &second.dir, "theirs")?,
    ];
    let [ours, theirs] = [tree::read(&trees[0], "t/")?, tree::read(&trees[1], "t/")?];
    ensure(
        ours.keys().filter(|name| name.starts_with("t/")).count() > 60,
        || {
            format!(
                "the build made only {:#?}",
                ours.keys()
                    .filter(|name| name.starts_with("t/"))
                    .collect::<Vec<_>>()
            )
        },
    )?;
    for line in tree::differences(&ours, &theirs) {
        lines.push(format!("unpacked: {line}"));
    }
    lines.truncate(30);
    ensure(lines.is_empty(), || {
        format!("ours first, BuildKit's second:\n{}", lines.join("\n"))
    })
}

/// A member as text; its time only below `t/` and only where it is determined.
fn described(member: &Member, dated: bool) -> (String, String) {
    let name = member.name.escape_ascii().to_string();
    let time = if dated && name.starts_with("t/") {
        member.mtime.as_str()
    } else {
        ""
    };
    let xattrs: Vec<String> = member
        .xattrs
        .iter()
        .map(|(key, value)| format!("{key}={}", value.escape_ascii()))
        .collect();
    let facts = format!(
        "type {} mode {:o} owner {}:{} size {} {} link {} device {}:{} time {time} {xattrs:?}",
        char::from(member.kind),
        member.mode,
        member.uid,
        member.gid,
        member.data.len(),
        oci::Digest::sha256(&member.data),
        member.link.escape_ascii(),
        member.major,
        member.minor,
    );
    (name, facts)
}

/// Unpacks an OCI layout with umoci; returns the root file system.
fn unpack(rig: &Rig<'_>, layout: &Path, name: &str) -> Result<PathBuf, Trouble> {
    let bundle = rig.dir.join(format!("bundle-{name}"));
    // umoci wants a name, and edits the layout, so it gets a copy of the index.
    let index = layout.join("index.json");
    let mut document: Value = fs::read_to_string(&index)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    if let Some(first) = document.pointer_mut("/manifests/0") {
        first["annotations"] = json!({"org.opencontainers.image.ref.name": "cases"});
    }
    fs::write(&index, document.to_string()).map_err(at("writing", &index))?;
    let image = format!("{}:cases", layout.display());
    rig.run(
        program("umoci")?
            .args(["unpack", "--image", &image])
            .arg(&bundle),
    )?
    .success("umoci unpack")?;
    Ok(bundle.join("rootfs"))
}

fn other_tools(rig: &Rig<'_>) -> Verdict {
    let text = "FROM busybox\nRUN echo hello > /greeting && rm -r /bin/vi && ln /greeting /again\nENV WHO=world\nWORKDIR /work\n\
                CMD [\"sh\", \"-c\", \"cat /greeting; echo $WHO; pwd; test -e /bin/vi || echo gone\"]\n";
    let context = rig.context("project", &[("Dockerfile", text)])?;
    let daemon = Daemon::start(rig)?;
    let archive = daemon.archive(&context, "image.tar")?;
    let copy = rig.dir.join("copy");
    rig.run(
        program("skopeo")?
            .args(["copy", "--insecure-policy"])
            .arg(format!("oci-archive:{}", archive.display()))
            .arg(format!("oci:{}:cases", copy.display())),
    )?
    .success("skopeo copy")?;
    let docker = rig.dir.join("docker.tar");
    let output = format!("type=docker,name=cases:1,dest={}", docker.display());
    daemon
        .build(&context, &["--output", &output])?
        .success("the docker archive")?;
    rig.run(
        program("skopeo")?
            .args(["inspect", "--raw"])
            .arg(format!("docker-archive:{}", docker.display())),
    )?
    .success("skopeo inspect of the docker archive")?;

    let rootfs = unpack(rig, &copy, "run")?;
    let bundle = rootfs.parent().unwrap_or(&rootfs).to_owned();
    let config = bundle.join("config.json");
    let mut document: Value = fs::read_to_string(&config)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    document["process"]["terminal"] = json!(false);
    fs::write(&config, document.to_string()).map_err(at("writing", &config))?;
    let name = format!("rbuild-cases-{}", std::process::id());
    let ran = rig.run(
        program("runc")?
            .arg("--root")
            .arg(rig.run.join("runc"))
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(&name),
    )?;
    let output = ran.success("runc run")?.out;
    let want = "hello\nworld\n/work\ngone\n";
    ensure(output == want, || {
        format!("the container says {output:?}, not {want:?}")
    })
}

fn pulled_again(rig: &Rig<'_>) -> Verdict {
    let store = rig.folder("registry")?;
    let registry = super::registry::Writable::start(&store)?;
    let setting = Setting {
        http: vec![registry.port],
        ..Setting::default()
    };
    let daemon = Daemon::with(rig, setting)?;
    let context = rig.context(
        "project",
        &[("Dockerfile", FILES), ("from-client", "sent\n")],
    )?;
    let name = format!("localhost:{}/cases/files:1", registry.port);
    let push = format!("type=image,name={name},push=true");
    daemon
        .build(&context, &["--output", &push])?
        .success("the build that pushes")?;
    let built = Image::open(rig, &daemon.archive(&context, "made.tar")?, "made")?;
    let want = tree::read(&unpack(rig, &built.dir, "made")?, "t/")?;

    daemon.buildctl(&["prune", "--all"])?.success("prune")?;
    // A step makes the daemon unpack the image and mount it; what the step sees is packed by tar itself.
    let text = format!("FROM {name}\nRUN true\n");
    let again = rig.context("again", &[("Dockerfile", &text)])?;
    let pulled = Image::open(rig, &daemon.archive(&again, "pulled.tar")?, "pulled")?;
    if !pulled.layers.starts_with(&built.layers) {
        return failed(format!(
            "pulled layers {:#?} are not {:#?}",
            pulled.layers, built.layers
        ));
    }
    // And all of it copied into one new layer.
    let text = format!("FROM {name} AS made\nFROM scratch\nCOPY --from=made /t /t\n");
    let copied = rig.context("copied", &[("Dockerfile", &text)])?;
    let copied = Image::open(rig, &daemon.archive(&copied, "copied.tar")?, "copied")?;
    let unpacked = tree::read(&unpack(rig, &copied.dir, "copied")?, "t/")?;
    let below = |tree: tree::Tree| -> tree::Tree {
        tree.into_iter()
            .filter(|(name, _)| name.starts_with("t/"))
            .collect()
    };
    let (mut unpacked, mut want) = (below(unpacked), below(want));
    if rig.lab.reference {
        // It makes a character device of the copy.
        unpacked.remove("t/kinds/block");
        want.remove("t/kinds/block");
    }
    let lines = tree::differences(&unpacked, &want);
    ensure(lines.is_empty(), || {
        format!("copied first, made second:\n{}", lines.join("\n"))
    })
}
