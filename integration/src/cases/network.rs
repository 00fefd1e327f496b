//! Networks of steps: behind a bridge, by CNI, by a proxy, and what of the host they reach.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::daemon::{Daemon, Setting};
use super::rig::{Rig, Trouble, Verdict, ensure, failed, within};
use super::{Case, On};
use crate::process::at;

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "steps behind a bridge reach the DNS forwarder and nothing else of the host, and the bridge goes with its daemon, also a killed one",
        on: On::Ours("the reference needs programs of CNI for it, and lets steps reach the host"),
        run: behind_a_bridge,
    },
    Case {
        sentence: "steps with networks of their own reach no listener of the host at any of its addresses, and no other step, whatever kind of network it is",
        on: On::Ours("the reference's steps reach the host at the bridge's address"),
        run: attacks,
    },
    Case {
        sentence: "programs of CNI connect steps as their configuration says, and what they lease is given back, also after the daemon was killed",
        on: On::Both,
        run: by_cni,
    },
    Case {
        sentence: "with the network auto steps are behind a bridge, or the log says why they are not",
        on: On::Ours("the reference's auto is the host's network"),
        run: automatic,
    },
];

const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// Cases that count the bridges of this machine, one at a time.
static BRIDGES: Mutex<()> = Mutex::new(());

/// The only case with bridges; puts the switch of the kernel back that daemons set.
struct Forwarding {
    before: String,
    _alone: MutexGuard<'static, ()>,
}

impl Forwarding {
    fn alone() -> Result<Self, Trouble> {
        let alone = BRIDGES.lock();
        let before = fs::read_to_string(SWITCH).map_err(at("reading", Path::new(SWITCH)))?;
        Ok(Self {
            before,
            _alone: alone,
        })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _as_it_is = fs::write(SWITCH, &self.before);
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

/// Answers everybody who calls any address of this machine, by HTTP or without a word.
pub(super) fn listen() -> Result<u16, Trouble> {
    let unable = |error: std::io::Error| Trouble::Failed(format!("cannot listen: {error}"));
    let everywhere = TcpListener::bind("[::]:0").or_else(|_no_ipv6| TcpListener::bind("0.0.0.0:0"));
    let listener = everywhere.map_err(unable)?;
    let port = listener.local_addr().map_err(unable)?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A request that is not read would have the answer lost.
            let _at_once = stream.set_read_timeout(Some(Duration::from_millis(300)));
            let _gone = stream.read(&mut [0; 4096]);
            let _gone = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\nREACHED\n");
        }
    });
    Ok(port)
}

/// Addresses of this machine.
fn own_addresses() -> Result<Vec<String>, Trouble> {
    let table = Path::new("/proc/net/fib_trie");
    let table = fs::read_to_string(table).map_err(at("reading", table))?;
    let mut addresses: Vec<String> = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("|-- "))
        .filter(|address| !address.ends_with(".0") && !address.ends_with(".255"))
        .map(str::to_owned)
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses.truncate(12);
    Ok(addresses)
}

/// Addresses of this machine with the link by which a step would reach them.
fn own_ipv6_addresses() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let bits = table.lines().filter_map(|line| {
        let digits = line.split(' ').next()?;
        u128::from_str_radix(digits, 16).ok()
    });
    let addresses = bits.map(Ipv6Addr::from).take(6);
    addresses
        .map(|address| match address.segments() {
            [0xfe80, ..] => format!("{address}%eth0"),
            _ => address.to_string(),
        })
        .collect()
}

/// A Dockerfile whose steps call a port at all addresses of this machine and at that of metadata services, and ask for a name.
pub(super) fn attempts(port: u16) -> Result<String, Trouble> {
    let host = own_addresses()?.join(" ");
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
    let _alone = Forwarding::alone()?;
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

/// A kind of network, and what a step reaches by it.
struct Network {
    name: &'static str,
    args: &'static [&'static str],
    /// Whether a connection of its own reaches the host, and one by HTTP, for which the proxy is asked where there is one.
    reaches: [Option<bool>; 2],
}

const NETWORKS: &[Network] = &[
    // Shows that the attacks succeed where they may.
    Network {
        name: "host",
        args: &["--oci-worker-net", "host"],
        reaches: [Some(true), Some(true)],
    },
    Network {
        name: "bridge",
        args: &["--oci-worker-net", "bridge"],
        reaches: [Some(false), Some(false)],
    },
    // The proxy leaves by the host's network, as the step does without a proxy.
    Network {
        name: "proxy",
        args: &["--oci-worker-net", "host", "--proxy-network"],
        reaches: [Some(false), None],
    },
    Network {
        name: "proxy-bridge",
        args: &["--oci-worker-net", "bridge", "--proxy-network"],
        reaches: [Some(false), Some(false)],
    },
    Network {
        name: "none",
        args: &["--oci-worker-net", "none"],
        reaches: [Some(false), Some(false)],
    },
];

/// Calls all addresses in each way; a line `CALL WAY ADDRESS ANSWER` each.
fn calls(addresses: &str, port: u16) -> String {
    format!(
        "FROM busybox\n\
         RUN p=${{HTTP_PROXY#http://}}; get() {{ printf 'GET %s HTTP/1.0\\r\\n\\r\\n' $1 | nc -w 3 $2 $3 2>/dev/null | grep -o REACHED; }}; \\\n \
         for a in {addresses} $(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'); do \\\n \
           echo CALL own $a $(nc -w 2 $a {port} </dev/null 2>/dev/null | grep -o REACHED); \\\n \
           case $a in *:*) u=[${{a%%%*}}];; *) u=$a;; esac; \\\n \
           if [ -n \"$p\" ]; then r=$(get http://$u:{port}/ ${{p%:*}} ${{p#*:}}); else r=$(get / $a {port}); fi; \\\n \
           echo CALL http $a $r; \\\n \
         done\n"
    )
}

/// A step that listens, beside one that looks for it at the first addresses of its network.
const STEPS: &str = r#"FROM busybox AS victim
RUN own=$(ip -o -4 addr show eth0 | sed 's/.*inet \([0-9.]*\).*/\1/'); (while :; do nc -l -p 4711 -e echo ANSWERS; done) & \
  sleep 1; echo VICTIM $own $(nc -w 2 $own 4711 </dev/null | head -1); sleep 16
FROM busybox AS attacker
RUN own=$(ip -o -4 addr show eth0 | sed 's/.*inet \([0-9.]*\).*/\1/'); sleep 2; for i in $(seq 2 12); do a=${own%.*}.$i; \
  [ $a = "$own" ] || echo STEP $a $(nc -w 1 $a 4711 </dev/null 2>/dev/null | head -1); done
FROM attacker
RUN --mount=from=victim,target=/victim true
"#;

fn attacks(rig: &Rig<'_>) -> Verdict {
    let _alone = Forwarding::alone()?;
    let port = listen()?;
    let addresses = own_addresses()?;
    let all = format!(
        "{} {} 127.0.0.2 169.254.169.254",
        addresses.join(" "),
        own_ipv6_addresses().join(" ")
    );
    let context = rig.context("project", &[("Dockerfile", &calls(&all, port))])?;
    let steps = rig.context("steps", &[("Dockerfile", STEPS)])?;
    for network in NETWORKS {
        let setting = Setting {
            args: network.args.iter().map(|arg| (*arg).to_owned()).collect(),
            name: network.name,
            ..Setting::default()
        };
        let daemon = Daemon::with(rig, setting)?;
        let built = daemon.build(&context, &["--no-cache"])?;
        let logs = built.success(network.name)?.progress.logs;
        judge(network, &logs, &addresses).map_err(|trouble| trouble.about(network.name))?;
        if network.name == "bridge" {
            let built = daemon.build(&steps, &["--no-cache"])?;
            apart(&built.success("two steps")?.progress.logs)?;
        }
    }
    Ok(())
}

/// Judges steps by [`STEPS`].
fn apart(logs: &str) -> Verdict {
    let listens = |line: &str| {
        let victim = line.strip_prefix("VICTIM ")?;
        victim.strip_suffix(" ANSWERS").map(str::to_owned)
    };
    let Some(victim) = logs.lines().find_map(listens) else {
        return failed(format!("the other step does not listen: {logs}"));
    };
    let calls = || logs.lines().filter_map(|line| line.strip_prefix("STEP "));
    let called = calls().any(|line| line.split(' ').next() == Some(victim.as_str()));
    ensure(called, || format!("nobody looked for it: {logs}"))?;
    let met = calls().find(|line| line.ends_with("ANSWERS"));
    ensure(met.is_none(), || format!("steps meet: {met:?}"))
}

fn judge(network: &Network, logs: &str, addresses: &[String]) -> Verdict {
    let mut reached: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for line in logs.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["CALL", way, address, answer @ ..] = words.as_slice() {
            reached.insert((way, address), answer == ["REACHED"]);
        }
    }
    for (way, expected) in ["own", "http"].into_iter().zip(network.reaches) {
        let Some(expected) = expected else { continue };
        for address in addresses {
            let outcome = reached.get(&(way, address.as_str()));
            ensure(outcome == Some(&expected), || {
                format!("by its {way} call of {address} a step gets {outcome:?}: {logs}")
            })?;
        }
        if !expected {
            let wrong = reached.iter().find(|((by, _), got)| *by == way && **got);
            ensure(wrong.is_none(), || {
                format!("a step reaches {wrong:?}: {logs}")
            })?;
        }
    }
    Ok(())
}

fn automatic(rig: &Rig<'_>) -> Verdict {
    let _alone = Forwarding::alone()?;
    let others = bridges();
    let setting = Setting {
        worker: "networkMode = \"auto\"\n".to_owned(),
        ..Setting::default()
    };
    let daemon = Daemon::with(rig, setting)?;
    let has_bridge = bridges().len() > others.len();
    let log = daemon.log_tail();
    let says_why = log.contains("steps share the host's network, for a bridge does not work here");
    ensure(has_bridge != says_why, || {
        format!("bridge: {has_bridge}, reason: {says_why}; {log}")
    })?;
    let context = rig.context(
        "project",
        &[(
            "Dockerfile",
            "FROM busybox\nRUN ip -o -4 addr | sed 's/^/LINK /'\n",
        )],
    )?;
    let built = daemon
        .build(&context, &["--no-cache"])?
        .success("the build")?;
    let behind = built.progress.logs.contains(" inet 10.1");
    ensure(behind == has_bridge, || built.progress.logs.clone())
}

/// The bridge that the programs of a case make, which they leave.
struct MadeByPlugins(String);

impl Drop for MadeByPlugins {
    fn drop(&mut self) {
        let _gone_already = Command::new("ip").args(["link", "del", &self.0]).status();
    }
}

fn by_cni(rig: &Rig<'_>) -> Verdict {
    let folder = Path::new("/usr/lib/cni");
    if !folder.join("host-local").is_file() {
        return Err(Trouble::Skipped(
            "needs Debian's package containernetworking-plugins".to_owned(),
        ));
    }
    let port = listen()?;
    let number = std::process::id() % 200 + 20;
    let bridge = MadeByPlugins(format!("rbcni{number}"));
    let (name, leases) = (&bridge.0, rig.folder("leases")?);
    let config = rig.dir.join("net.conflist");
    let list = format!(
        "{{\"cniVersion\": \"1.0.0\", \"name\": \"steps\", \"plugins\": [\
         {{\"type\": \"bridge\", \"bridge\": \"{name}\", \"isDefaultGateway\": true, \
           \"ipam\": {{\"type\": \"host-local\", \"dataDir\": \"{}\", \"ranges\": [[{{\"subnet\": \"10.87.{number}.0/24\"}}]]}}}}]}}",
        leases.display()
    );
    fs::write(&config, list).map_err(at("writing", &config))?;
    let setting = Setting {
        // No mode: the configuration that is there says it.
        worker: format!(
            "  cniConfigPath = \"{}\"\n  cniBinaryPath = \"{}\"\n  cniPoolSize = 1\n",
            config.display(),
            folder.display()
        ),
        ..Setting::default()
    };
    let mut daemon = Daemon::with(rig, setting)?;
    // The file of a lease is called as the address, and says which container has it.
    let leased = || -> Vec<String> {
        let files = fs::read_dir(leases.join("steps"))
            .into_iter()
            .flatten()
            .flatten();
        let leases = files.filter(|file| file.file_name().to_string_lossy().starts_with("10."));
        leases
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .collect()
    };
    let text = format!(
        "FROM busybox\n\
         RUN ip -o -4 addr | sed 's/^/LINK /'; \\\n \
           for a in 127.0.0.1 10.87.{number}.1; do echo CALL $a $(nc -w 2 $a {port} </dev/null | grep -o REACHED); done\n"
    );
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    for round in 0..2 {
        let built = daemon
            .build(&context, &["--no-cache"])?
            .success("the build")?;
        let logs = &built.progress.logs;
        // The programs do what they are configured to do, which is to let steps reach the host by the bridge.
        for needed in [
            &format!(" inet 10.87.{number}."),
            "CALL 127.0.0.1\n",
            &format!("CALL 10.87.{number}.1 REACHED\n"),
        ] {
            ensure(logs.contains(needed), || format!("no {needed:?} in {logs}"))?;
        }
        let before = leased();
        ensure(!before.is_empty(), || "nothing is leased".to_owned())?;
        if round == 0 {
            daemon.restart(true)?;
            let stay = || leased().iter().any(|lease| before.contains(lease));
            ensure(within(Duration::from_secs(10), || !stay()), || {
                format!("leases of a killed daemon stay: {:?}", leased())
            })?;
        }
    }
    drop(daemon);
    ensure(
        within(Duration::from_secs(5), || leased().is_empty()),
        || format!("leases stay: {:?}", leased()),
    )
}
