//! Steps behind a bridge.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use super::daemon::{Daemon, Setting};
use super::rig::{Rig, Trouble, Verdict, ensure, within};
use super::{Case, On};
use crate::process::at;

pub(super) const CASES: &[Case] = &[Case {
    sentence: "steps behind a bridge reach the DNS forwarder and nothing else of the host, and the bridge goes with its daemon, also a killed one",
    on: On::Ours("the reference needs programs of CNI for it, and lets steps reach the host"),
    run: behind_a_bridge,
}];

const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// Puts the switch of the kernel back that the daemon sets.
struct Forwarding(String);

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _as_it_is = fs::write(SWITCH, &self.0);
    }
}

/// The bridges of daemons of ours on this machine.
fn bridges() -> Vec<String> {
    let links = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    let ours = links.filter(|link| {
        let alias = fs::read_to_string(link.path().join("ifalias")).unwrap_or_default();
        alias.starts_with("rbuild-net ")
    });
    ours.map(|link| link.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Says who it is to everybody who calls any address of this machine.
pub(super) fn listen() -> Result<u16, Trouble> {
    let failed = |error: std::io::Error| Trouble::Failed(format!("cannot listen: {error}"));
    let listener = TcpListener::bind(("0.0.0.0", 0)).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _gone = (&stream).write_all(b"REACHED\n");
        }
    });
    Ok(port)
}

/// A Dockerfile whose steps call a port at all addresses of this machine and at that of metadata services, and ask for a name.
pub(super) fn attempts(port: u16) -> Result<String, Trouble> {
    let host: String = fs::read_to_string("/proc/net/fib_trie")
        .map_err(at("reading", Path::new("/proc/net/fib_trie")))?
        .lines()
        .filter_map(|line| line.trim().strip_prefix("|-- "))
        .filter(|address| !address.ends_with(".0") && !address.ends_with(".255"))
        .take(12)
        .collect::<Vec<_>>()
        .join(" ");
    Ok(format!(
        "FROM busybox\n\
         RUN sed 's/^/FILE /' /etc/resolv.conf; ip -o -4 addr show eth0 | sed 's/^/LINK /'\n\
         RUN g=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'); \\\n \
           for a in $g {host} 127.0.0.1 10.0.2.2 169.254.169.254; do echo TRIED; nc -w 2 $a {port} </dev/null; done; \\\n \
           nslookup rbuild.invalid $g 2>&1 | sed 's/^/NAME /'; true\n"
    ))
}

/// Whether what the steps of [`attempts`] said shows a network of their own, and that they heard nobody.
pub(super) fn nothing_reached(logs: &str) -> Verdict {
    ensure(!logs.contains("REACHED") && logs.contains("TRIED"), || {
        format!("a step reaches the host: {logs}")
    })?;
    for needed in ["FILE nameserver ", "LINK ", "NXDOMAIN"] {
        ensure(logs.contains(needed), || format!("no {needed:?} in {logs}"))?;
    }
    Ok(())
}

fn behind_a_bridge(rig: &Rig<'_>) -> Verdict {
    let before = fs::read_to_string(SWITCH).map_err(at("reading", Path::new(SWITCH)))?;
    let _restored = Forwarding(before);
    let port = listen()?;
    let others = bridges();
    let setting = Setting {
        args: ["--oci-worker-net", "bridge"].map(str::to_owned).to_vec(),
        ..Setting::default()
    };
    let mut daemon = Daemon::with(rig, setting)?;
    let of_daemon = || {
        let mut all = bridges();
        all.retain(|name| !others.contains(name));
        all
    };
    ensure(of_daemon().len() == 1, || {
        format!("the daemon has the bridges {:?}", of_daemon())
    })?;
    let text = attempts(port)?;
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    for hard in [false, true] {
        let built = daemon.build(&context, &["--no-cache"])?;
        ensure(built.ok(), || format!("the build fails: {}", built.tail()))?;
        nothing_reached(&built.progress.logs)?;
        daemon.restart(hard)?;
        ensure(of_daemon().len() == 1, || {
            format!("after a restart there are {:?}", of_daemon())
        })?;
    }
    drop(daemon);
    ensure(
        within(Duration::from_secs(5), || of_daemon().is_empty()),
        || format!("the daemon leaves {:?}", of_daemon()),
    )
}
