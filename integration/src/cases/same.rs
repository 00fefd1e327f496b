//! The same build, the same image: files of `same/` are built on both daemons with times pinned, and the configs of the images must
//! be the same bytes. A config names the digests of its uncompressed layers, so that equal configs are equal files, down to order,
//! owners, times and extended attributes. Builds that are refused must be refused with the same words and marked lines.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::daemon::{Daemon, Setting};
use super::image::{Image, blob, json};
use super::rig::{Ran, Rig, Trouble, Verdict, ensure, failed, program};
use super::tar::Member;
use super::tree;
use super::{Case, On};
use crate::paths;
use crate::process::{at, output};

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "builds of all kinds give the image that BuildKit gives",
        on: On::Ours("it is compared with itself"),
        run: builds,
    },
    Case {
        sentence: "bad input of all kinds is refused with BuildKit's words and lines",
        on: On::Ours("it is compared with itself"),
        run: refusals,
    },
];

/// Every time in an image is at most this, and files of contexts are older.
const EPOCH: &str = "SOURCE_DATE_EPOCH=1700000000";

/// One build of a file.
#[derive(Debug, Default)]
struct Build {
    sentence: String,
    /// `--opt` of the client.
    options: Vec<String>,
    /// Why it differs, which `docs/compat.md` argues.
    differs: Option<String>,
    /// What lies in the context: a verb and its words.
    files: Vec<String>,
    dockerfile: String,
}

fn builds(rig: &Rig<'_>) -> Verdict {
    each(rig, "builds.txt", |rig, daemons, build, context| {
        let [ours, theirs] = daemons;
        let mut sides = Vec::new();
        for (name, daemon) in [("ours", ours), ("theirs", theirs), ("crossed", theirs)] {
            let file = rig.dir.join(format!("{name}.tar"));
            let output = format!("type=oci,rewrite-timestamp=true,dest={}", file.display());
            let args = ["--output", output.as_str()];
            let ran = match name {
                "crossed" => run(daemon.rbuild_command(context, &args), daemon, build)?,
                _ => run(daemon.build_command(context, &args), daemon, build)?,
            };
            ran.success(name)?;
            let dir = rig.dir.join(name);
            let _before = fs::remove_dir_all(&dir);
            sides.push(Image::open(rig, &file, name)?);
        }
        let [ours, theirs, crossed] = &sides[..] else {
            return failed("three images were made");
        };
        let (a, b) = (configs(&ours.dir)?, configs(&theirs.dir)?);
        let c = configs(&crossed.dir)?;
        if b != c {
            // A difference on purpose is one of the daemons, not one of the clients.
            return Err(Trouble::Crossed(format!(
                "with rbuild BuildKit's daemon makes\n{c:#?}\nwith buildctl\n{b:#?}"
            )));
        }
        if a == b {
            return Ok(());
        }
        let mut lines = Vec::new();
        for (platform, config) in &b {
            match a.get(platform) {
                Some(ours) if ours != config => {
                    lines.push(format!(
                        "config of {platform}:\n{ours}\nBuildKit's:\n{config}"
                    ));
                }
                Some(_) => {}
                None => lines.push(format!("no image for {platform}")),
            }
        }
        lines.extend(
            a.keys()
                .filter(|key| !b.contains_key(*key))
                .map(|key| format!("an image for {key}")),
        );
        for number in 0..ours.layers.len().min(theirs.layers.len()) {
            if ours.diff_ids.get(number) == theirs.diff_ids.get(number) {
                continue;
            }
            let (ours, theirs) = (ours.members(number)?, theirs.members(number)?);
            for line in tree::differences(&described(&ours), &described(&theirs)) {
                lines.push(format!("layer {number}: {line}"));
            }
            let order = |members: &[Member]| -> Vec<String> {
                members
                    .iter()
                    .map(|m| String::from_utf8_lossy(&m.name).into_owned())
                    .collect()
            };
            if order(&ours) != order(&theirs) {
                lines.push(format!(
                    "layer {number}: order {:?}, BuildKit's {:?}",
                    order(&ours),
                    order(&theirs)
                ));
            }
        }
        failed(lines.join("\n"))
    })
}

fn refusals(rig: &Rig<'_>) -> Verdict {
    each(rig, "refused.txt", |_, [ours, theirs], build, context| {
        let a = run(ours.build_command(context, &[]), ours, build)?;
        let b = run(theirs.build_command(context, &[]), theirs, build)?;
        ensure(!a.ok() && !b.ok(), || {
            format!("exit codes {:?} and {:?}", a.code, b.code)
        })?;
        let c = run(theirs.rbuild_command(context, &[]), theirs, build)?;
        let (rbuild_reason, want) = (reason(&words(&c)), reason(&words(&b)));
        if c.ok() || !rbuild_reason.contains(&want) {
            return Err(Trouble::Crossed(format!(
                "rbuild on BuildKit's daemon says {rbuild_reason:?}, buildctl {want:?}"
            )));
        }
        let (a, b) = (words(&a), words(&b));
        ensure(a == b, || format!("{a}\nBuildKit:\n{b}"))
    })
}

/// Runs `check` for each build of a file; fails with everything that was found.
fn each(
    rig: &Rig<'_>,
    file: &str,
    check: impl Fn(&Rig<'_>, [&Daemon<'_>; 2], &Build, &Path) -> Verdict,
) -> Verdict {
    let file = paths::source().join("same").join(file);
    let text = fs::read_to_string(&file).map_err(at("reading", &file))?;
    let builds = parse(&text);
    let ours = Daemon::start(rig)?;
    let theirs = Daemon::with(
        rig,
        Setting {
            name: "b",
            program: Some(rig.lab.buildkitd()),
            ..Setting::default()
        },
    )?;
    let mut wrong = Vec::new();
    for (number, build) in builds.iter().enumerate() {
        let context = rig.folder(&format!("context-{number}"))?;
        make(&context, build).map_err(|trouble| trouble.about(&build.sentence))?;
        match check(rig, [&ours, &theirs], build, &context) {
            Ok(()) if build.differs.is_none() => {}
            Ok(()) => wrong.push(format!(
                "== {}: is equal now: take the line `differs` away",
                build.sentence
            )),
            Err(Trouble::Failed(_)) if build.differs.is_some() => {}
            Err(Trouble::Failed(why)) => wrong.push(format!("== {}: {why}", build.sentence)),
            Err(Trouble::Crossed(why)) => wrong.push(format!("== {}: {why}", build.sentence)),
            Err(skipped @ Trouble::Skipped(_)) => return Err(skipped),
        }
    }
    ensure(wrong.is_empty(), || {
        format!(
            "{} of {} differ\n{}",
            wrong.len(),
            builds.len(),
            wrong.join("\n")
        )
    })
}

fn run(mut command: Command, daemon: &Daemon<'_>, build: &Build) -> Result<Ran, Trouble> {
    command.args(["--opt", &format!("build-arg:{EPOCH}")]);
    for option in &build.options {
        command.arg("--opt").arg(option);
    }
    Ok(daemon.rig.run(&mut command)?)
}

/// `=== sentence`, then lines of directives that begin with `- `, then the Dockerfile.
fn parse(text: &str) -> Vec<Build> {
    let mut builds: Vec<Build> = Vec::new();
    for line in text.lines() {
        if let Some(sentence) = line.strip_prefix("=== ") {
            builds.push(Build {
                sentence: sentence.to_owned(),
                ..Build::default()
            });
            continue;
        }
        let Some(build) = builds.last_mut() else {
            continue;
        };
        match line.strip_prefix("- ") {
            Some(directive) if build.dockerfile.is_empty() => {
                match directive.strip_prefix("opt ") {
                    Some(option) => build.options.push(option.to_owned()),
                    None => match directive.strip_prefix("differs ") {
                        Some(why) => build.differs = Some(why.to_owned()),
                        None => build.files.push(directive.to_owned()),
                    },
                }
            }
            _ => {
                build.dockerfile.push_str(line);
                build.dockerfile.push('\n');
            }
        }
    }
    builds
}

/// Makes the context: `f MODE PATH TEXT`, `d MODE PATH`, `l PATH TARGET`, `h PATH TARGET`, `p PATH`, `o UID:GID PATH`,
/// `x PATH NAME=VALUE`. `\s`, `\n` and `\x01` in words stand for what they stand for.
fn make(context: &Path, build: &Build) -> Verdict {
    let place = |word: &str| -> PathBuf { context.join(plain(word)) };
    for line in &build.files {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let tool = |name: &str, args: &[&str], file: &Path| -> Verdict {
            output(program(name)?.args(args).arg(file))?;
            Ok(())
        };
        match words[..] {
            ["f", mode, path, ref text @ ..] => {
                let file = place(path);
                let parent = file.parent().unwrap_or(context);
                fs::create_dir_all(parent).map_err(at("making", parent))?;
                fs::write(&file, plain(text.first().unwrap_or(&"")))
                    .map_err(at("writing", &file))?;
                chmod(&file, mode)?;
            }
            ["d", mode, path] => {
                fs::create_dir_all(place(path)).map_err(at("making", &place(path)))?;
                chmod(&place(path), mode)?;
            }
            ["l", path, target] => {
                let file = place(path);
                std::os::unix::fs::symlink(plain(target), &file).map_err(at("linking", &file))?;
            }
            ["h", path, target] => {
                fs::hard_link(place(target), place(path)).map_err(at("linking", &place(path)))?;
            }
            ["p", path] => tool("mkfifo", &[], &place(path))?,
            ["o", owner, path] => tool("chown", &["-h", owner], &place(path))?,
            ["x", path, pair] => {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                tool("setfattr", &["-h", "-n", name, "-v", value], &place(path))?;
            }
            _ => return failed(format!("a directive that nobody knows: {line}")),
        }
    }
    let file = context.join("Dockerfile");
    if !file.exists() {
        fs::write(&file, &build.dockerfile).map_err(at("writing", &file))?;
    }
    // Deepest first, so that making an entry does not date its folder again.
    output(Command::new("find").arg(context).args([
        "-depth",
        "-exec",
        "touch",
        "-h",
        "-d",
        "@1600000000.25",
        "{}",
        "+",
    ]))?;
    Ok(())
}

fn chmod(file: &Path, mode: &str) -> Verdict {
    let Ok(mode) = u32::from_str_radix(mode, 8) else {
        return failed(format!("no mode: {mode}"));
    };
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).map_err(at("chmod", file))?;
    Ok(())
}

fn plain(word: &str) -> String {
    word.replace("\\s", " ")
        .replace("\\n", "\n")
        .replace("\\x01", "\u{1}")
}

/// The configs of all images of a layout, by platform.
fn configs(dir: &Path) -> Result<BTreeMap<String, String>, Trouble> {
    let mut configs = BTreeMap::new();
    let mut todo = vec![json(&dir.join("index.json"))?];
    while let Some(document) = todo.pop() {
        for next in document
            .get("manifests")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if let Some(digest) = next.get("digest").and_then(Value::as_str) {
                todo.push(json(&blob(dir, digest))?);
            }
        }
        if let Some(digest) = document.pointer("/config/digest").and_then(Value::as_str) {
            let file = blob(dir, digest);
            let text = fs::read_to_string(&file).map_err(at("reading", &file))?;
            let config = json(&file)?;
            let part = |name: &str| {
                config
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            configs.insert(
                format!("{}/{}{}", part("os"), part("architecture"), part("variant")),
                text,
            );
        }
    }
    Ok(configs)
}

fn described(members: &[Member]) -> BTreeMap<String, String> {
    members
        .iter()
        .map(|m| {
            let text = String::from_utf8_lossy(&m.data).chars().take(60).collect::<String>();
            let link = String::from_utf8_lossy(&m.link).into_owned();
            let description = format!(
                "kind {} mode {:o} {}:{} at {} link {link:?} device {}:{} xattrs {:?} {} bytes {text:?}",
                char::from(m.kind), m.mode, m.uid, m.gid, m.mtime, m.major, m.minor, m.xattrs, m.data.len()
            );
            (String::from_utf8_lossy(&m.name).into_owned(), description)
        })
        .collect()
}

/// What a client says at the end, without progress and without names that are drawn at random.
fn words(ran: &Ran) -> String {
    let mut out = Vec::new();
    for line in ran.err.lines().chain(ran.out.lines()) {
        if line.starts_with('{') || line.trim().is_empty() {
            continue;
        }
        let mut words = Vec::new();
        let mut before = "";
        for word in line.split(' ') {
            words.push(if before == "ref" { "…" } else { word });
            before = word;
        }
        out.push(words.join(" "));
    }
    out.join("\n")
}

/// Why a build failed, in the daemon's words.
fn reason(words: &str) -> String {
    let solve_error = words
        .lines()
        .find_map(|line| line.split_once("failed to solve: "));
    solve_error.map_or("", |(_, reason)| reason).to_owned()
}
