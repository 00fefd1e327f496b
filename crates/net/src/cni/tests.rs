//! Programs that are scripted, and Debian's.

use std::io::Write as _;

use super::*;
use crate::lab::{alone, within};
use crate::link::INSIDE;

/// A folder for the log, the configuration and the state; `plugins` are the programs of the network.
struct Scene {
    folder: tempfile::TempDir,
    network: Network,
}

/// One call as the program saw it.
#[derive(Debug)]
struct Call {
    order: String,
    container: String,
    namespace: String,
    arguments: String,
    config: Value,
}

impl Call {
    fn label(&self) -> String {
        let label = self.config.get("label").and_then(Value::as_str);
        format!("{} {}", self.order, label.unwrap_or_default())
    }

    /// Whose result it was told.
    fn told(&self) -> Option<&str> {
        self.config.get("prevResult")?.get("by")?.as_str()
    }
}

impl Scene {
    /// With scripted programs: what each is called, when it fails, and how.
    fn scripted(version: &str, programs: &[[&str; 3]]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let programs: Vec<Value> = programs
            .iter()
            .map(|[label, on, does]| {
                serde_json::json!({"type": "scripted", "label": label, "on": on, "does": does, "log": log})
            })
            .collect();
        let list = serde_json::json!({"cniVersion": version, "name": "steps", "plugins": programs});
        let network = Network::parse(&list.to_string()).unwrap();
        fs::write(folder.path().join("net.conflist"), list.to_string()).unwrap();
        Self { folder, network }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state/net/cni")
    }

    fn config(&self, pool_size: usize) -> CniConfig {
        CniConfig {
            network: self.folder.path().join("net.conflist"),
            folders: vec!["/no/such/folder".into(), programs()],
            state: self.state(),
            pool_size,
        }
    }

    fn plugins(&self) -> Plugins {
        Plugins::open(self.state(), self.network.clone(), vec![programs()]).unwrap()
    }

    /// The calls since this was last asked for.
    fn calls(&self) -> Vec<Call> {
        let path = self.folder.path().join("log");
        let log = fs::read_to_string(&path).unwrap_or_default();
        drop(fs::remove_file(&path));
        let calls = log.lines().map(|line| {
            let fields: Vec<&str> = line.splitn(7, '|').collect();
            let [order, container, namespace, link, arguments, path, config] = fields[..] else {
                panic!("{line}");
            };
            assert_eq!(link, "eth0");
            assert!(path.ends_with("/tests/data/cni"), "{path}");
            Call {
                order: order.to_owned(),
                container: container.to_owned(),
                namespace: namespace.to_owned(),
                arguments: arguments.to_owned(),
                config: serde_json::from_str(config).unwrap(),
            }
        });
        calls.collect()
    }

    /// Containers that there is something of.
    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state()).unwrap().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name != "lock")
            .collect();
        names.sort();
        names
    }
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cni")
}

fn labels(calls: &[Call]) -> Vec<String> {
    calls.iter().map(Call::label).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn programs_are_called_in_order_with_the_result_of_the_one_before_and_in_reverse_with_the_last() {
    testkit::requires!(root);
    alone(|| {
        let scene = Scene::scripted("1.0.0", &[["first", "", ""], ["second", "", ""]]);
        let mut plugins = scene.plugins();
        let namespace = plugins.make(None).unwrap();
        let Key::Container(id) = namespace.key.clone() else {
            unreachable!("it is one of CNI");
        };
        let calls = scene.calls();
        assert_eq!(labels(&calls), ["ADD first", "ADD second"]);
        let told: Vec<_> = calls.iter().map(Call::told).collect();
        assert_eq!(told, [None, Some("first")]);
        for call in &calls {
            assert_eq!(call.container, id);
            assert_eq!(call.arguments, "");
            assert_eq!(
                call.namespace,
                scene.state().join(&id).join("netns").to_str().unwrap()
            );
            assert_eq!(call.config["name"], "steps");
            assert_eq!(call.config["cniVersion"], "1.0.0");
        }
        let up = within(&namespace.fd, || {
            std::net::UdpSocket::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
        });
        assert!(up.is_ok(), "its loopback interface is up");
        plugins.remove(namespace);
        let calls = scene.calls();
        assert_eq!(labels(&calls), ["DEL second", "DEL first"]);
        assert!(
            calls
                .iter()
                .all(|call| call.told() == Some("second") && call.container == id)
        );
        assert_eq!(scene.left(), [""; 0]);
    });
}

#[test]
fn programs_of_an_old_version_are_not_told_the_result_on_delete() {
    testkit::requires!(root);
    alone(|| {
        let scene = Scene::scripted("0.3.1", &[["only", "", ""]]);
        let mut plugins = scene.plugins();
        let namespace = plugins.make(None).unwrap();
        plugins.remove(namespace);
        let calls = scene.calls();
        assert_eq!(labels(&calls), ["ADD only", "DEL only"]);
        assert!(calls.iter().all(|call| call.told().is_none()));
    });
}

#[test]
fn a_program_that_fails_has_all_of_them_called_again_to_take_away_and_its_words_are_told() {
    testkit::requires!(root);
    alone(|| {
        for (does, expected) in [
            (
                "refuse",
                "the CNI plugin `scripted` fails to ADD: no addresses; 10.1.0.0/24 (code 7)",
            ),
            (
                "break",
                "the CNI plugin `scripted` ended with exit status: 3 on ADD: iptables: command not found",
            ),
            (
                "babble",
                "the CNI plugin `scripted` answers with no result: expected value at line 1 column 1",
            ),
        ] {
            let programs = [
                ["first", "", ""],
                ["second", "ADD", does],
                ["third", "", ""],
            ];
            let scene = Scene::scripted("1.0.0", &programs);
            let error = Cni::open(scene.config(0)).unwrap_err();
            assert_eq!(error.to_string(), expected);
            let order = [
                "ADD first",
                "ADD second",
                "DEL third",
                "DEL second",
                "DEL first",
            ];
            assert_eq!(labels(&scene.calls()), order);
            assert_eq!(scene.left(), [""; 0]);
        }
    });
}

#[test]
fn a_program_that_cannot_take_away_keeps_the_others_from_nothing() {
    testkit::requires!(root);
    alone(|| {
        let scene = Scene::scripted("1.0.0", &[["first", "", ""], ["second", "DEL", "refuse"]]);
        let mut plugins = scene.plugins();
        let namespace = plugins.make(None).unwrap();
        plugins.remove(namespace);
        assert_eq!(
            labels(&scene.calls())[2..],
            ["DEL second", "DEL first"].map(str::to_owned)
        );
        assert_eq!(scene.left(), [""; 0]);
    });
}

#[test]
fn networks_are_prepared_and_go_with_the_daemon_and_names_of_containers_are_told() {
    testkit::requires!(root);
    alone(|| {
        let scene = Scene::scripted("1.0.0", &[["only", "", ""]]);
        let runtime = runtime();
        let cni = Cni::open(scene.config(1)).unwrap();
        assert_eq!(labels(&scene.calls()), ["ADD only"], "before any step");
        let ready = futures::FutureExt::now_or_never(cni.acquire(""));
        let step = ready.unwrap().unwrap();
        assert!(step.nameserver().is_none() && step.address().is_none());
        let named = runtime.block_on(cni.acquire("db")).unwrap();
        let calls = scene.calls();
        let of_db = |call: &&Call| call.arguments == "K8S_POD_NAME=db;IgnoreUnknown=1";
        assert_eq!(calls.iter().filter(of_db).count(), 1, "{calls:?}");
        // It is gone when its step is, although others are there.
        let own = calls.iter().find(of_db).unwrap().container.clone();
        drop(named);
        while scene.left().contains(&own) {
            std::thread::yield_now();
        }
        runtime.block_on(cni.close());
        drop(step);
        assert_eq!(scene.left(), [""; 0], "also what a step still had");
        let closed = runtime.block_on(cni.acquire("")).unwrap_err();
        assert_eq!(closed.to_string(), "the network of steps is closed");
    });
}

#[test]
fn what_a_killed_daemon_left_is_taken_away_as_it_was_made() {
    testkit::requires!(root);
    alone(|| {
        let scene = Scene::scripted("1.0.0", &[["first", "", ""], ["second", "", ""]]);
        let mut killed = scene.plugins();
        let lost: Vec<Namespace> = (0..2).map(|_| killed.make(Some("db")).unwrap()).collect();
        killed.attached.clear();
        drop((killed, lost));
        // A third had not got far enough to be set up.
        fs::create_dir(scene.state().join("unfinished")).unwrap();
        let left = scene.left();
        assert_eq!(left.len(), 3);
        // The machine was started anew since the first of them.
        unmount(&scene.state().join(&left[0]).join("netns")).unwrap();
        scene.calls();

        // The configuration has changed meanwhile.
        let now = Scene::scripted("1.0.0", &[["other", "", ""]]);
        let config = CniConfig {
            state: scene.state(),
            ..now.config(0)
        };
        let cni = Cni::open(config).unwrap();
        let calls = scene.calls();
        assert_eq!(calls.len(), 4, "{calls:?}");
        for call in &calls {
            assert_eq!(call.order, "DEL");
            assert_eq!(call.told(), Some("second"));
            assert_eq!(call.arguments, "K8S_POD_NAME=db;IgnoreUnknown=1");
            assert_eq!(call.namespace.is_empty(), call.container == left[0]);
        }
        assert_eq!(scene.left().len(), 1, "the one of the new daemon");
        runtime().block_on(cni.close());
        assert_eq!(scene.left(), [""; 0]);
    });
}

#[test]
fn two_daemons_do_not_share_a_folder() {
    testkit::requires!(root);
    alone(|| {
        let scene = Scene::scripted("1.0.0", &[["only", "", ""]]);
        let _first = scene.plugins();
        let second = Cni::open(scene.config(0)).unwrap_err();
        let expected = format!(
            "another daemon uses the networks of {}: give each daemon a --root of its own",
            scene.state().display()
        );
        assert_eq!(second.to_string(), expected);
    });
}

#[test]
fn a_hostname_cannot_add_arguments() {
    for (hostname, expected) in [
        (None, ""),
        (Some("db"), "K8S_POD_NAME=db;IgnoreUnknown=1"),
        (Some("db;IP=10.0.0.1"), ""),
        (Some("a=b"), ""),
    ] {
        assert_eq!(arguments(hostname), expected);
    }
}

/// Debian's folder of programs, if they are installed.
fn debian() -> Option<PathBuf> {
    let folder = Path::new("/usr/lib/cni");
    ["bridge", "host-local", "firewall"]
        .iter()
        .all(|program| folder.join(program).is_file())
        .then(|| folder.to_owned())
}

#[test]
fn the_programs_of_debian_connect_a_step_and_leave_nothing() {
    testkit::requires!(root);
    let Some(folder) = debian() else {
        testkit::skip::skip("needs Debian's package containernetworking-plugins");
        return;
    };
    alone(move || {
        let scene = Scene::scripted("1.0.0", &[["", "", ""]]);
        let leases = scene.folder.path().join("leases");
        let list = serde_json::json!({
            "cniVersion": "1.0.0", "name": "steps", "plugins": [
                {"type": "loopback"},
                {"type": "bridge", "bridge": "steps0", "isDefaultGateway": true, "ipMasq": true,
                 "ipam": {"type": "host-local", "dataDir": leases, "ranges": [[{"subnet": "10.77.0.0/24"}]]}},
                {"type": "firewall", "ingressPolicy": "same-bridge"},
            ]
        });
        let path = scene.folder.path().join("net.conflist");
        File::create(path)
            .unwrap()
            .write_all(list.to_string().as_bytes())
            .unwrap();
        let config = CniConfig {
            folders: vec![folder],
            ..scene.config(1)
        };
        let runtime = runtime();
        let cni = Cni::open(config).unwrap();
        let step = runtime.block_on(cni.acquire("")).unwrap();
        let namespace = step.as_fd().try_clone_to_owned().unwrap();
        let listener = std::net::TcpListener::bind("10.77.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let from = within(&namespace, move || {
            let stream = std::net::TcpStream::connect(("10.77.0.1", port)).unwrap();
            stream.local_addr().unwrap().ip()
        });
        let address = from.to_string();
        assert!(address.starts_with("10.77.0."), "{address}");
        let leased = |address: &str| leases.join("steps").join(address).exists();
        assert!(leased(&address));
        runtime.block_on(cni.close());
        drop(step);
        assert!(!leased(&address));
        assert!(within(&namespace, || Socket::route()
            .unwrap()
            .index_of(INSIDE)
            .is_err()));
        let rules = std::process::Command::new("iptables-save")
            .output()
            .unwrap();
        let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
        assert!(!rules.contains(&address), "{rules}");
        assert_eq!(scene.left(), [""; 0]);
    });
}
