//! The program as people call it, with the daemon inside of it: flags, contexts, outputs, errors, exit codes.
//!
//! Wants root (steps are mounted and started) and a static busybox; without them it says so and passes.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

type TestResult = Result<(), Box<dyn Error>>;

const DOCKERFILE: &str = "\
FROM scratch AS base
COPY busybox /bin/sh
FROM base AS runtime
ARG VERSION=0
RUN --mount=type=secret,id=tok IFS= read -r secret < /run/secrets/tok; echo \"$VERSION $secret\" > /said
FROM scratch AS files
COPY --from=runtime /said /said
FROM base AS broken
RUN echo before; \\
    exit 7
FROM scratch AS named
COPY --from=more hi /hi
FROM scratch as tiny
COPY Dockerfile /
";

struct Bench {
    folder: tempfile::TempDir,
}

struct ProgramOutput {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
    took: Duration,
}

impl Bench {
    fn new() -> Result<Option<Self>, Box<dyn Error>> {
        if !rustix::process::geteuid().is_root() {
            testkit::skip::skip("not root");
            return Ok(None);
        }
        let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find(|p| Path::new(p).is_file())
        else {
            testkit::skip::skip("no busybox (Debian: busybox-static)");
            return Ok(None);
        };
        let bench = Self {
            folder: tempfile::tempdir()?,
        };
        fs::create_dir_all(bench.at("ctx"))?;
        fs::create_dir_all(bench.at("more"))?;
        fs::copy(busybox, bench.at("ctx/busybox"))?;
        fs::write(bench.at("ctx/Dockerfile"), DOCKERFILE)?;
        fs::write(bench.at("more/hi"), "hi")?;
        fs::write(bench.at("tok"), "from a file\n")?;
        Ok(Some(bench))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Result<String, Box<dyn Error>> {
        fs::read_to_string(self.at(name)).map_err(|e| format!("{name}: {e}").into())
    }

    fn rbuild(&self, args: &str, input: &[u8]) -> Result<ProgramOutput, Box<dyn Error>> {
        let begun = task::clock::monotonic();
        let mut child = Command::new(env!("CARGO_BIN_EXE_rbuild"))
            .args(args.split_whitespace())
            .current_dir(self.folder.path())
            .env("RBUILD_ROOT", self.at("state"))
            .env("TOK", "from a variable\n")
            .env_remove("RBUILD_HOST")
            .env_remove("BUILDKIT_HOST")
            .env_remove("BUILDKITD_CONFIG")
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever does not read it does not want it.
            let _unread = stdin.write_all(input);
        }
        let output = child.wait_with_output()?;
        Ok(ProgramOutput {
            code: output.status.code(),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: begun.elapsed(),
        })
    }

    fn builds(&self, args: &str) -> Result<ProgramOutput, Box<dyn Error>> {
        let output = self.rbuild(&format!("build --progress plain {args}"), b"")?;
        if output.code == Some(0) {
            Ok(output)
        } else {
            Err(format!("{args}: {:?}\n{}", output.code, output.err).into())
        }
    }
}

fn tar(folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let tar = Command::new("tar")
        .args(["c", "-C"])
        .arg(folder)
        .arg(".")
        .output()?;
    Ok(tar.stdout)
}

#[test]
fn flags_contexts_and_outputs_do_what_they_say() -> TestResult {
    let Some(bench) = Bench::new()? else {
        return Ok(());
    };
    let first =
        bench.builds("--target files --build-arg VERSION=3 --secret id=tok,src=tok -o out1 ctx")?;
    assert_eq!(bench.read("out1/said")?, "3 from a file\n");
    assert!(
        first.err.contains("[runtime 1/1] RUN --mount"),
        "{}",
        first.err
    );
    assert!(!first.err.contains("exit 7"), "{}", first.err);

    bench.builds("--target files --no-cache --secret id=tok,env=TOK -o out2 ctx")?;
    assert_eq!(bench.read("out2/said")?, "0 from a variable\n");

    bench.builds("--target named --build-context more=more -o out3 ctx")?;
    assert_eq!(bench.read("out3/hi")?, "hi");

    let again =
        bench.builds("--target files --secret id=tok,env=TOK -o type=tar,dest=files.tar ctx")?;
    assert_eq!(
        again.err.matches("\n#5 CACHED\n").count(),
        1,
        "{}",
        again.err
    );
    assert!(fs::metadata(bench.at("files.tar"))?.len() > 512);
    assert!(again.took < Duration::from_secs(5), "{:?}", again.took);

    bench.builds("--target base -t a:1 -t example.com/b:2 -o type=oci,dest=lay,tar=false --metadata-file md.json --iidfile iid ctx")?;
    let metadata: serde_json::Value = serde_json::from_str(&bench.read("md.json")?)?;
    assert_eq!(
        metadata["image.name"],
        "docker.io/library/a:1,example.com/b:2"
    );
    assert_eq!(metadata["containerimage.config.digest"], bench.read("iid")?);
    let index: serde_json::Value = serde_json::from_str(&bench.read("lay/index.json")?)?;
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));

    fs::write(bench.at("Lay"), "FROM lay\nCOPY hi /hi\n")?;
    bench.builds("-f Lay --build-context lay=oci-layout://lay:2 -o out4 more")?;
    assert!(bench.at("out4/bin/sh").is_file() && bench.at("out4/hi").is_file());

    let piped = bench.rbuild(
        "build --target named --build-context more=more -o out5 -",
        &tar(&bench.at("ctx"))?,
    )?;
    assert_eq!(piped.code, Some(0), "{}", piped.err);
    assert_eq!(bench.read("out5/hi")?, "hi");
    for (name, args) in [("out6", "-f - -o out6 more"), ("out7", "-f - -o - more")] {
        let piped = bench.rbuild(&format!("build {args}"), b"FROM scratch\nCOPY hi /piped\n")?;
        assert_eq!(piped.code, Some(0), "{}", piped.err);
        let there = bench.at(name).join("piped").is_file() || piped.out.starts_with(b"piped\0");
        assert!(there, "{name}");
    }

    fs::write(bench.at("out6/stale"), "")?;
    bench.builds("--target tiny -o type=local,dest=out6,mode=delete ctx")?;
    assert!(!bench.at("out6/stale").exists() && bench.at("out6/Dockerfile").is_file());

    let multi = bench.builds(
        "--target base --platform linux/amd64,linux/arm64 -o type=oci,dest=multi.tar ctx",
    )?;
    assert!(
        multi.err.contains("exporting manifest list sha256:"),
        "{}",
        multi.err
    );
    Ok(())
}

#[test]
fn failures_say_where_why_and_what_to_do_next() -> TestResult {
    let Some(bench) = Bench::new()? else {
        return Ok(());
    };
    let cases: [(&str, i32, &[&str]); 13] = [
        (
            "build --target broken ctx",
            1,
            &[
                "------\n > [broken 1/1] RUN echo before;     exit 7:\n0.",
                " before\n------\n",
                "Dockerfile:9\n--------------------\n   8 |     FROM base AS broken\n   9 | >>> RUN echo before; \\\n  10 | >>>     exit 7\n",
                "ERROR: failed to build: failed to solve: process \"/bin/sh -c echo before;     exit 7\" did not complete successfully: exit code: 7\n",
            ],
        ),
        (
            "build --target tiny ctx",
            0,
            &[
                "\n 1 warning found (use --check to expand):\n - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 13)\n",
                "\nbuilt, and kept for the next build only; ",
            ],
        ),
        ("build --check --build-context more=more ctx", 1, &[]),
        ("build --call outline --target runtime ctx", 0, &[]),
        (
            "build --call outlines ctx",
            1,
            &["unknown method \"outlines\""],
        ),
        (
            "build /no/such/folder",
            1,
            &["path \"/no/such/folder\" not found"],
        ),
        (
            "build -f none ctx",
            1,
            &["failed to read dockerfile: open ./none"],
        ),
        (
            "build --secret id=x,src=/none ctx",
            1,
            &["secret x: /none: No such file"],
        ),
        (
            "build --ssh default ctx",
            1,
            &["make sure SSH_AUTH_SOCK is set, or name"],
        ),
        ("build --push ctx", 1, &["add -t NAME"]),
        (
            "build -t Not:A:Name ctx",
            1,
            &["invalid tag \"Not:A:Name\""],
        ),
        ("build --progres plain ctx", 2, &["'--progress'"]),
        (
            "--addr unix:///none.sock build ctx",
            1,
            &[
                "cannot connect to unix:///none.sock: No such file",
                "is a daemon running there?",
            ],
        ),
    ];
    for (args, code, words) in cases {
        let output = bench.rbuild(args, b"")?;
        assert_eq!(output.code, Some(code), "{args}: {}", output.err);
        for word in words {
            assert!(
                output.err.contains(word),
                "{args}: no {word:?} in {}",
                output.err
            );
        }
    }
    let check = bench.rbuild(
        "build --progress quiet --check --build-context more=more ctx",
        b"",
    )?;
    let text = String::from_utf8_lossy(&check.out).into_owned();
    assert!(
        text.starts_with("Check complete, 1 warning has been found!\n\nWARNING: FromAsCasing"),
        "{text}"
    );
    assert!(text.contains("\nctx/Dockerfile:13\n"), "{text}");
    assert_eq!(check.err, "");
    Ok(())
}

#[test]
fn what_is_kept_is_listed_and_removed() -> TestResult {
    let Some(bench) = Bench::new()? else {
        return Ok(());
    };
    bench.builds("--target base ctx")?;
    let text = |output: ProgramOutput| String::from_utf8_lossy(&output.out).into_owned();
    let listed = text(bench.rbuild("du", b"")?);
    assert!(
        listed.starts_with("ID ") && listed.contains("\nTotal:"),
        "{listed}"
    );
    let workers = text(bench.rbuild("debug workers -v", b"")?);
    assert!(
        workers.contains("linux/") && workers.contains("GC Policy rule#0:"),
        "{workers}"
    );
    let removed = text(bench.rbuild("prune --all", b"")?);
    assert!(
        removed.contains("\nTotal:\t") && !removed.contains("Total:\t0B"),
        "{removed}"
    );
    let left = text(bench.rbuild("du", b"")?);
    assert!(left.contains("Total:\t\t0B"), "{left}");
    Ok(())
}

#[test]
fn a_daemon_inside_the_program_goes_with_the_command_and_leaves_nothing_but_its_state() -> TestResult
{
    let Some(bench) = Bench::new()? else {
        return Ok(());
    };
    fs::create_dir(bench.at("tmp"))?;
    let run = |args: &str, root: &str| {
        Command::new(env!("CARGO_BIN_EXE_rbuild"))
            .args(args.split_whitespace())
            .current_dir(bench.folder.path())
            .env("RBUILD_ROOT", bench.at(root))
            .env("TMPDIR", bench.at("tmp"))
            .env_remove("RBUILD_HOST")
            .env_remove("BUILDKIT_HOST")
            .env_remove("BUILDKITD_CONFIG")
            .stdin(Stdio::null())
            .output()
    };
    for (args, code) in [
        ("debug info", 0),
        ("du", 0),
        ("build --progress quiet --target tiny ctx", 0),
        ("build --progress quiet --target broken ctx", 1),
        ("du", 0),
    ] {
        let output = run(args, "state")?;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args}: {err}");
        let left: Vec<_> = fs::read_dir(bench.at("tmp"))?.collect();
        assert!(left.is_empty(), "{args} leaves {left:?}");
    }
    // A state directory that cannot be one is said with its place; nobody is told to start a daemon.
    fs::write(bench.at("file"), "")?;
    let output = run("du", "file")?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(
        err.starts_with("ERROR: cannot start a daemon in this process: "),
        "{err}"
    );
    assert!(
        err.contains("/file") && !err.contains("is a daemon running"),
        "{err}"
    );
    assert!(fs::read_dir(bench.at("tmp"))?.next().is_none());
    Ok(())
}

#[test]
fn the_log_says_why_a_step_runs_and_which_job_and_session_a_line_is_of() -> TestResult {
    let Some(bench) = Bench::new()? else {
        return Ok(());
    };
    let build = "--debug build --progress quiet --target tiny ctx";
    let first = bench.rbuild(build, b"")?;
    assert_eq!(first.code, Some(0), "{}", first.err);
    let has = |output: &ProgramOutput, words: &[&str]| {
        let line = |line: &&str| words.iter().all(|word| line.contains(word));
        output.err.lines().any(|l| line(&l))
    };
    assert!(
        has(&first, &["cache key missed", "vertex"]),
        "{}",
        first.err
    );
    assert!(
        has(&first, &["session{id=", "session started"]),
        "{}",
        first.err
    );
    assert!(
        !first.err.contains('\u{1b}'),
        "a file gets no colours: {}",
        first.err
    );
    assert!(has(&first, &["job{build="]), "{}", first.err);
    let again = bench.rbuild(build, b"")?;
    assert!(has(&again, &["cache key found", "vertex"]), "{}", again.err);
    Ok(())
}
