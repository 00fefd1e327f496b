//! Steps behind a bridge: with the launcher, in a user namespace, and with an OCI runtime. The host is a network namespace of the test,
//! in which its threads, the launcher and everything else start.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

use net::{Bridge, Upstreams};

use super::users::{IDS, ids_of, spec_for};
use super::*;

/// Runs `test` in a runtime whose threads are in a new network namespace.
fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let name = std::thread::current().name().map(str::to_owned);
    let thread = std::thread::Builder::new().name(name.unwrap_or_default());
    let running = thread.spawn(|| {
        sys::netns::unshare().unwrap();
        let up = std::process::Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        if up.is_err() {
            testkit::skip::skip("needs the program ip");
            return;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = running.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

fn bridge() -> Arc<Bridge> {
    let config = net::Config {
        on_firewall: net::OnFirewall::Warn,
        name: None,
        subnet: None,
        pool_size: 1,
        reveal_metadata: false,
        upstreams: Upstreams::new(&[]),
    };
    Arc::new(Bridge::open(config).unwrap())
}

/// A server of the host that says hello, on all its addresses.
fn host_server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            drop(stream.write_all(b"REACHED\n"));
            drop(stream.read(&mut [0; 1]));
        }
    });
    port
}

/// What a step finds: its links and address, who answers names, and that the host's server is out of reach.
fn script(port: u16) -> String {
    format!(
        "alias cut='busybox cut' nc='busybox nc' nslookup='busybox nslookup'\n ip -o link | cut -d: -f2 | cut -d@ -f1; ip -o -4 addr show eth0 | grep -c '10.10.0.[0-9]*/16'; \
         grep nameserver /etc/resolv.conf; ip route | grep default; \
         for at in 127.0.0.1 10.10.0.1; do nc -w 2 $at {port} </dev/null 2>/dev/null; done; \
         nslookup rbuild.invalid 10.10.0.1 2>&1 | grep -q NXDOMAIN && echo answered"
    )
}

const SEEN: &str =
    " lo\n eth0\n1\nnameserver 10.10.0.1\ndefault via 10.10.0.1 dev eth0 \nanswered\n";

/// Without what differs between versions of busybox.
fn normal(text: &str) -> String {
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[test]
fn a_step_behind_a_bridge_has_its_own_network_and_not_the_hosts() {
    testkit::requires!(root, busybox);
    alone(|| async {
        let Some(tree) = Tree::new() else { return };
        let bridge = bridge();
        let launcher = Launcher::new(Config {
            sandbox_network: SandboxNetwork::Bridge(Arc::clone(&bridge)),
            ..Config::host_network()
        });
        let port = host_server();
        for _ in 0..3 {
            let output = text(&launcher, tree.shell(&script(port))).await;
            assert_eq!(normal(&output), normal(SEEN));
        }
        // The other modes are what they were.
        let granted = Entitlements {
            network_host: true,
            ..Entitlements::default()
        };
        let shell =
            format!("ip -o link | grep -c eth0; busybox nc -w 2 127.0.0.1 {port} </dev/null");
        for (mode, expected) in [
            (NetworkMode::Host, "0\nREACHED\n"),
            (NetworkMode::None, "0\n"),
        ] {
            let mut spec = tree.shell(&shell);
            spec.access = granted.access(mode, SecurityMode::Sandbox).unwrap();
            let (_, output) = run(&launcher, spec).await.unwrap();
            assert!(output.starts_with(expected), "{mode}: {output}");
            assert_eq!(output.contains("REACHED"), mode == NetworkMode::Host);
        }
        // And the launcher is back where it was.
        let output = text(&launcher, tree.shell(&script(port))).await;
        assert_eq!(normal(&output), normal(SEEN));
        bridge.close().await;
        let closed = run(&launcher, tree.shell("true")).await.unwrap_err();
        assert_eq!(
            closed.to_string(),
            "cannot give a step its network: the network of steps is closed"
        );
        assert_eq!(closed.kind(), oci::ErrorKind::Unavailable);
    });
}

#[test]
fn a_step_in_a_user_namespace_has_the_same_network() {
    testkit::requires!(root, busybox);
    alone(|| async {
        let Some(tree) = Tree::new() else { return };
        let bridge = bridge();
        let launcher = Launcher::new(Config {
            sandbox_network: SandboxNetwork::Bridge(Arc::clone(&bridge)),
            user_namespace: Some(IDS),
            ..Config::host_network()
        });
        let Some(ids) = ids_of(&launcher, &tree) else {
            return;
        };
        let port = host_server();
        let script = format!(
            "{}; ip link set eth0 down 2>/dev/null && echo CHANGED",
            script(port)
        );
        let (_, output) = run(&launcher, spec_for(&tree, &script, Some(&ids)))
            .await
            .unwrap();
        assert_eq!(normal(&output), normal(SEEN));
        bridge.close().await;
    });
}

#[test]
fn a_step_of_an_oci_runtime_has_the_same_network() {
    testkit::requires!(root, busybox, runc);
    alone(|| async {
        let Some(tree) = Tree::new() else { return };
        let bridge = bridge();
        let root = tempfile::tempdir().unwrap();
        let network = SandboxNetwork::Bridge(Arc::clone(&bridge));
        let runtime = oci_runtime_on("/usr/sbin/runc", root.path().join("runc"), network);
        let port = host_server();
        let (status, output) = run_on(&*runtime, tree.shell(&script(port))).await.unwrap();
        assert_eq!((status.code, normal(&output)), (0, normal(SEEN)));
        bridge.close().await;
    });
}
