//! The program rbuildd as a service manager starts it: sockets that are handed over, signals, the log, and what it refuses.
//!
//! Wants root, as the daemon does; without it the tests say that they are skipped.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything takes here: a test that waits for so long has failed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running daemon and the lines that it logs.
struct Rbuildd {
    folder: tempfile::TempDir,
    child: Child,
    lines: mpsc::Receiver<String>,
    lines_read: Vec<String>,
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        testkit::skip::skip("not root");
    }
    root
}

/// A command for a daemon with its state in `folder`, whose configuration is `rbuildd.toml` there.
fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rbuildd"));
    prepare(&mut command, folder);
    command
}

fn prepare(command: &mut Command, folder: &Path) {
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("BUILDKITD_CONFIG", folder.join("rbuildd.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
}

fn configured(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rbuildd.toml"), config).unwrap();
    folder
}

impl Rbuildd {
    /// Starts a daemon with a configuration that the state directory and the socket are added to, and waits until it is ready.
    fn start(config: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let folder = configured("");
        let head = format!("root = '{}'\n", folder.path().join("state").display());
        let config = format!("{head}{config}");
        std::fs::write(folder.path().join("rbuildd.toml"), config).unwrap();
        let mut command = command(folder.path());
        let address = format!("unix://{}", folder.path().join("rbuildd.sock").display());
        command
            .args(["--addr", &address])
            .args(args)
            .envs(env.iter().copied());
        Self::running(folder, command)
    }

    fn running(folder: tempfile::TempDir, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (to, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    return;
                }
            }
        });
        let mut daemon = Self {
            folder,
            child,
            lines,
            lines_read: Vec::new(),
        };
        daemon.line(" ready");
        daemon
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for a line that contains `words`.
    fn line(&mut self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(TIMEOUT);
            let line =
                line.unwrap_or_else(|_| panic!("no line with {words:?}: {:#?}", self.lines_read));
            self.lines_read.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Writes another configuration over the old one, and has it read.
    fn reconfigure(&self, config: &str) {
        let head = format!("root = '{}'\n", self.at("state").display());
        std::fs::write(self.at("rbuildd.toml"), format!("{head}{config}")).unwrap();
        self.signal(Signal::HUP);
    }

    /// Waits for the end; returns the exit code and all lines.
    fn ended(mut self) -> (Option<i32>, Vec<String>) {
        while let Ok(line) = self.lines.recv_timeout(TIMEOUT) {
            self.lines_read.push(line);
        }
        let code = self.child.wait().unwrap().code();
        (code, std::mem::take(&mut self.lines_read))
    }
}

impl Drop for Rbuildd {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Runs a daemon that refuses to start; returns what it says.
fn refused(folder: &Path, args: &[&str]) -> String {
    let mut child = command(folder)
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let mut stderr = child.stderr.take().unwrap();
    let (send, ended) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        let status = child.wait().unwrap();
        send.send(()).ok();
        (text, status)
    });
    // A daemon that serves in place of refusing would serve for ever.
    if ended.recv_timeout(TIMEOUT).is_err() {
        kill_process(pid, Signal::KILL).unwrap();
    }
    let (text, status) = waiting.join().unwrap();
    assert_eq!(status.code(), Some(1), "{args:?}: {text}");
    text
}

#[test]
fn a_socket_of_the_service_manager_is_served_and_left_where_it_is() {
    if !is_root() {
        return;
    }
    let folder = configured("");
    let socket = folder.path().join("manager.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // The shell moves what it has as standard input to where a service manager puts the first socket.
    let mut command = Command::new("/bin/sh");
    prepare(&mut command, folder.path());
    let state = folder.path().join("state").display().to_string();
    command
        .args([
            "-c",
            "exec 3<&0; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_rbuildd"),
        ])
        .args(["--root", &state, "--addr", "fd://"])
        .env("LISTEN_FDS", "1")
        .stdin(OwnedFd::from(listener));
    let mut daemon = Rbuildd::running(folder, command);
    assert!(
        daemon
            .lines_read
            .iter()
            .any(|line| line.contains("address=fd://")),
        "{:?}",
        daemon.lines_read
    );
    UnixStream::connect(&socket).unwrap();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    // Whoever made the socket removes it.
    assert!(socket.exists());
}

#[test]
fn a_hangup_changes_what_is_logged_while_the_daemon_runs_and_a_broken_file_changes_nothing() {
    if !is_root() {
        return;
    }
    let mut daemon = Rbuildd::start("", &[], &[]);
    panic_free(&daemon);
    daemon.reconfigure("[log]\nlevel = 'debug'\n");
    let changed = daemon.line("log level changed");
    assert!(changed.contains("level=\"debug\""), "{changed}");
    daemon.reconfigure("[log]\nlevel = 'loud'\n");
    let line = daemon.line("cannot be read again");
    assert!(
        line.contains("unsupported log level \\\"loud\\\""),
        "{line}"
    );
    daemon.reconfigure("[log]\nlevel = 'error'\n");
    // The line that says so is a warning, which the new level does not let through: the daemon's next word is none.
    daemon.reconfigure("[log]\nlevel = 'info'\n");
    let changed = daemon.line("log level changed");
    assert!(changed.contains("level=\"info\""), "{changed}");
    daemon.signal(Signal::TERM);
    let (code, lines) = daemon.ended();
    assert_eq!(code, Some(0), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("stopping")),
        "{lines:#?}"
    );
}

fn panic_free(daemon: &Rbuildd) {
    let panics: Vec<_> = daemon
        .lines_read
        .iter()
        .filter(|line| line.contains("panicked"))
        .collect();
    assert!(panics.is_empty(), "{panics:?}");
}

#[test]
fn a_flag_lies_over_the_environment_and_that_over_the_file_also_when_it_is_read_again() {
    if !is_root() {
        return;
    }
    let config = "[log]\nlevel = 'error'\n";
    let env = [("BUILDKITD_LOG_LEVEL", "debug")];
    let mut of_environment = Rbuildd::start(config, &[], &env);
    of_environment.signal(Signal::HUP);
    let changed = of_environment.line("log level changed");
    assert!(changed.contains("level=\"debug\""), "{changed}");
    drop(of_environment);
    let mut of_flag = Rbuildd::start(config, &["--log-level=info"], &env);
    of_flag.reconfigure("[log]\nlevel = 'trace'\n");
    let changed = of_flag.line("log level changed");
    assert!(
        changed.contains("level=\"info\""),
        "the flag lies over the file still: {changed}"
    );
}

#[test]
fn directives_of_the_environment_count_before_the_level_and_stay_when_it_changes() {
    if !is_root() {
        return;
    }
    let env = [("RUST_LOG", "daemon=debug")];
    let mut daemon = Rbuildd::start("[log]\nformat = 'json'\n", &["--log-level=info"], &env);
    let lines: Vec<serde_json::Value> = daemon
        .lines_read
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let of = |level: &str| -> Vec<&str> {
        let of_level = lines.iter().filter(|line| line["level"] == level);
        of_level
            .filter_map(|line| line["target"].as_str())
            .collect()
    };
    assert!(
        of("DEBUG")
            .iter()
            .all(|target| target.starts_with("daemon")),
        "{lines:#?}"
    );
    assert!(!of("INFO").is_empty());
    daemon.signal(Signal::HUP);
    let changed = daemon.line("log level changed");
    let changed: serde_json::Value = serde_json::from_str(&changed).unwrap();
    assert_eq!(changed["fields"]["level"], "info");
}

#[test]
fn stopping_removes_the_socket_and_a_second_daemon_takes_the_state_over() {
    if !is_root() {
        return;
    }
    let daemon = Rbuildd::start("", &[], &[]);
    let socket = daemon.at("rbuildd.sock");
    let state = daemon.at("state").display().to_string();
    let address = format!("unix://{}", socket.display());
    let open = UnixStream::connect(&socket).unwrap();
    // While it runs, nobody else gets its socket or its state.
    let same_socket = refused(daemon.folder.path(), &["--addr", &address]);
    assert!(
        same_socket.contains("another daemon answers there"),
        "{same_socket}"
    );
    let other = format!("unix://{}", daemon.at("other.sock").display());
    let same_state = refused(daemon.folder.path(), &["--addr", &other, "--root", &state]);
    assert!(
        same_state.contains("rbuildd: cannot open the state directory"),
        "{same_state}"
    );
    daemon.signal(Signal::INT);
    let folder = {
        let mut daemon = daemon;
        daemon.line("stopping");
        let code = daemon.child.wait().unwrap().code();
        assert_eq!(
            code,
            Some(0),
            "a client that stays connected holds nothing up"
        );
        std::mem::replace(&mut daemon.folder, tempfile::tempdir().unwrap())
    };
    drop(open);
    assert!(!socket.exists());
    let mut command = command(folder.path());
    command.args(["--addr", &address, "--root", &state]);
    let again = Rbuildd::running(folder, command);
    panic_free(&again);
    let dirty: Vec<_> = again
        .lines_read
        .iter()
        .filter(|line| line.contains("not closed"))
        .collect();
    assert!(dirty.is_empty(), "{dirty:?}");
}

#[test]
fn what_a_daemon_refuses_is_one_line_with_the_place_and_the_remedy() {
    let folder = configured("root = 3\n");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let file = at("rbuildd.toml");
    let refusal = refused(folder.path(), &[]);
    assert!(
        refusal.starts_with(&format!("rbuildd: configuration {file}: ")),
        "{refusal}"
    );
    assert!(refusal.contains("line 1"), "{refusal}");
    std::fs::write(&file, "").unwrap();
    let socket = format!("unix://{}", at("rbuildd.sock"));
    let root = at("state");
    let cases: [(&[&str], &str); 7] = [
        (
            &["--config", "/no/such/file"],
            "cannot read the configuration /no/such/file: ",
        ),
        (
            &["--log-level", "loud"],
            "use trace, debug, info, warn or error",
        ),
        (
            &["--oci-worker=false", "--addr", &socket],
            "the worker is switched off",
        ),
        (
            &["--addr", "tcp://0.0.0.0:1"],
            "give --tlscert, --tlskey and --tlscacert",
        ),
        (
            &["--addr", "tcp://127.0.0.1:1"],
            "insist with --allow-insecure-loopback",
        ),
        (
            &["--addr", &socket, "--oci-worker-net=moon"],
            "network mode \"moon\" is not known: use auto, bridge, cni, host or none",
        ),
        (
            &["--addr", &socket, "--oci-worker-snapshotter=moon"],
            "use auto, overlayfs or native",
        ),
    ];
    for (args, words) in cases {
        let args = [args, &["--root", &root]].concat();
        let refusal = refused(folder.path(), &args);
        let last = refusal.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("rbuildd: ") && last.contains(words),
            "{args:?}: {refusal}"
        );
    }
}

/// One request to the debugging listener; returns the status line and the body.
fn ask(socket: &Path, method: &str, path: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn the_debugging_listener_answers_metrics_and_health_and_goes_with_the_daemon() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("debug.sock");
    let address = format!("unix://{}", socket.display());
    let daemon = Rbuildd::start("", &["--debugaddr", &address], &[]);
    for (method, path, status, words) in [
        ("GET", "/healthz", "200 OK", "ok"),
        ("GET", "/readyz", "200 OK", "ok"),
        (
            "GET",
            "/metrics",
            "200 OK",
            "rbuild_store_size_bytes{kind=\"used\"} ",
        ),
        ("GET", "/debug/graph", "200 OK", "0 steps are waited for"),
        (
            "GET",
            "/debug/pprof/",
            "501 Not Implemented",
            "profiles of Go",
        ),
        ("POST", "/debug/prune", "200 OK", "garbage was collected"),
        ("PUT", "/metrics", "405 Method Not Allowed", "not allowed"),
    ] {
        let (line, body) = ask(&socket, method, path);
        assert_eq!(line, format!("HTTP/1.1 {status}"), "{path}");
        assert!(body.contains(words), "{path}: {body}");
    }
    let size = ask(&socket, "GET", "/metrics").1;
    let used = size
        .lines()
        .find_map(|line| line.strip_prefix("rbuild_store_size_bytes{kind=\"used\"} "))
        .unwrap();
    assert!(used.parse::<u64>().unwrap() > 0, "{used}");
    daemon.signal(Signal::TERM);
    let (code, lines) = daemon.ended();
    assert_eq!(code, Some(0), "{lines:#?}");
    assert!(!socket.exists());
}
