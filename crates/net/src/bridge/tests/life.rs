//! What a step reaches, and how everything comes and goes.

use super::*;
use crate::dns::tests::{ask as query, reply};

#[test]
fn a_step_reaches_the_world_under_the_hosts_address() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let bridge = world.bridge();
        world.runtime.block_on(bridge.check()).unwrap();
        let port = within(&world.outside, || serve(Ipv4Addr::UNSPECIFIED, 0));
        for _ in 0..2 {
            let step = world.step(&bridge);
            assert!(bridge.subnet().contains(step.address().unwrap()));
            assert_eq!(call_from(&step, OUTSIDE, port).unwrap(), HOST.to_string());
            let itself = inside(&step, || {
                call(Ipv4Addr::LOCALHOST, serve(Ipv4Addr::LOCALHOST, 0))
            });
            assert_eq!(itself.unwrap(), "127.0.0.1", "its loopback interface is up");
        }
        world.close(&bridge);
        assert_eq!(remains(), (vec![], vec![]));
    });
}

#[test]
fn packets_of_steps_are_no_larger_than_the_hosts_way_out_takes() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let bridge = world.bridge();
        let step = world.step(&bridge);
        let mtu = inside(&step, || {
            let links = Socket::route().unwrap().links().unwrap();
            links
                .into_iter()
                .find(|link| link.name == INSIDE)
                .unwrap()
                .mtu
        });
        assert_eq!(mtu, 1400);
    });
}

#[test]
fn names_are_answered_by_a_resolver_on_the_hosts_loopback_interface() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, DNS_PORT)).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = resolver.recv_from(&mut buffer) {
                drop(resolver.send_to(&reply(&buffer[..length], [192, 0, 2, 9]), from));
            }
        });
        let bridge = world.open(Config {
            upstreams: Upstreams::new(&[Ipv4Addr::LOCALHOST.into()]),
            ..config()
        });
        let bridge = bridge.unwrap();
        let step = world.step(&bridge);
        let nameserver = step.nameserver().unwrap();
        assert_eq!(nameserver, bridge.gateway());
        let answer = inside(&step, move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.connect((nameserver, DNS_PORT)).unwrap();
            socket.send(&query(5, "example.com")).unwrap();
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer).unwrap();
            buffer[..length].to_vec()
        });
        assert_eq!(answer, reply(&query(5, "example.com"), [192, 0, 2, 9]));
    });
}

#[test]
fn a_network_ends_with_its_step_whoever_is_still_in_it() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let bridge = world.open(Config {
            pool_size: 0,
            ..config()
        });
        let bridge = bridge.unwrap();
        let port = within(&world.outside, || serve(Ipv4Addr::UNSPECIFIED, 0));
        let step = world.step(&bridge);
        let namespace = step.as_fd().try_clone_to_owned().unwrap();
        let address = step.address();
        assert!(within(&namespace, move || call(OUTSIDE, port)).is_ok());
        drop(step);
        wait_until_true("its link goes", || {
            within(&namespace, || {
                Socket::route().unwrap().index_of(INSIDE).is_err()
            })
        });
        assert!(within(&namespace, move || call(OUTSIDE, port)).is_err());
        // The next step has a network that nobody was in before.
        assert_ne!(world.step(&bridge).address(), address);
    });
}

#[test]
fn prepared_networks_are_handed_out_at_once_and_replaced() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let bridge = world.open(Config {
            pool_size: 3,
            ..config()
        });
        let bridge = bridge.unwrap();
        wait_until_true("three are ready", || bridge.shared.missing() == 0);
        let steps: Vec<StepNetwork> = (0..3)
            .map(|_| {
                // It is ready without anybody working for it.
                let acquired = futures::FutureExt::now_or_never(bridge.acquire());
                acquired.unwrap().unwrap()
            })
            .collect();
        let mut addresses: Vec<_> = steps.iter().map(StepNetwork::address).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 3);
        wait_until_true("three are ready again", || bridge.shared.missing() == 0);
        drop(steps);
        wait_until_true("what was used is removed", || bridge.shared.missing() == 0);
    });
}

#[test]
fn a_step_that_leaves_while_it_waits_costs_nothing() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let tiny = "10.20.0.0/29".parse().unwrap();
        let bridge = world.open(Config {
            pool_size: 0,
            subnet: Some(tiny),
            ..config()
        });
        let bridge = bridge.unwrap();
        for _ in 0..20 {
            drop(futures::FutureExt::now_or_never(bridge.acquire()));
        }
        // All five addresses can still be had, and no sixth.
        let steps: Vec<_> = (0..5).map(|_| world.step(&bridge)).collect();
        let full = world.runtime.block_on(bridge.acquire()).unwrap_err();
        assert!(
            matches!(full, NetError::Full { subnet } if subnet == tiny),
            "{full}"
        );
        drop(steps);
        wait_until_true("an address is free", || {
            world.runtime.block_on(bridge.acquire()).is_ok()
        });
    });
}

#[test]
fn a_bridge_that_is_closed_or_forgotten_leaves_nothing() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let before = names(&mut Socket::route().unwrap());
        let bridge = world.bridge();
        let step = world.step(&bridge);
        world.close(&bridge);
        assert_eq!(
            remains(),
            (vec![], vec![]),
            "although a step still has its network"
        );
        let closed = world.runtime.block_on(bridge.acquire()).unwrap_err();
        assert_eq!(closed.to_string(), "the network of steps is closed");
        drop(step);
        world.close(&bridge);
        let forgotten = world.bridge();
        drop(forgotten);
        wait_until_true("nothing is left", || remains() == (vec![], vec![]));
        assert_eq!(names(&mut Socket::route().unwrap()), before);
    });
}

/// What a killed daemon leaves: its links and table, and nobody who answers for them.
fn leftovers(bridge: &str) -> (String, String) {
    let owner = Owner::new().unwrap();
    let mut route = Socket::route().unwrap();
    let subnet = Subnet::literal([10, 10, 0, 0], 16);
    let gateway = subnet.gateway();
    let index = route.add_bridge(bridge, hardware(gateway), 1500).unwrap();
    route.set_alias(index, &owner.mark.alias()).unwrap();
    route.add_address(index, gateway, subnet).unwrap();
    route.up(index).unwrap();
    let port = owner.mark.port(7);
    let home = sys::netns::current().unwrap();
    sys::netns::unshare().unwrap();
    let namespace = sys::netns::current().unwrap();
    sys::netns::enter(&home).unwrap();
    let veth = Veth {
        name: &port,
        bridge: index,
        mtu: 1500,
        hardware: hardware(gateway),
        namespace: namespace.as_fd(),
    };
    route.add_veth(&veth).unwrap();
    // A step of an OCI runtime that outlives the daemon holds it.
    std::mem::forget(namespace);
    let rules = Rules {
        table: owner.mark.table(),
        bridge: bridge.to_owned(),
        subnet,
        hide_metadata: true,
    };
    rules.install(&mut Socket::netfilter().unwrap()).unwrap();
    (port, owner.mark.table())
}

#[test]
fn what_a_killed_daemon_left_is_removed_and_nothing_of_others() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let mut route = Socket::route().unwrap();
        let (port, table) = leftovers(DEFAULT_NAME);
        let mut others = Socket::netfilter().unwrap();
        let foreign = Rules {
            table: "rbuild".into(),
            bridge: "br0".into(),
            subnet: Subnet::literal([10, 99, 0, 0], 16),
            hide_metadata: false,
        };
        foreign.install(&mut others).unwrap();
        let host_bridge = route.add_bridge("br0", hardware(HOST), 1500).unwrap();
        route
            .set_alias(host_bridge, "of the administrator")
            .unwrap();
        assert!(remains().0.contains(&port) && remains().1.contains(&table));

        let bridge = world.bridge();
        let (links, tables) = remains();
        assert!(!links.contains(&port), "{links:?}");
        assert!(!tables.contains(&table), "{tables:?}");
        assert_eq!(
            (bridge.name(), bridge.subnet().to_string().as_str()),
            (DEFAULT_NAME, "10.10.0.0/16")
        );
        assert!(names(&mut route).contains(&"br0".to_owned()));
        assert!(tables.contains(&"rbuild".to_owned()));
    });
}

#[test]
fn several_daemons_have_a_bridge_each() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let bridges: Vec<Bridge> = (0..3).map(|_| world.bridge()).collect();
        let names: Vec<_> = bridges.iter().map(Bridge::name).collect();
        assert_eq!(names, ["buildkit0", "buildkit1", "buildkit2"]);
        let subnets: Vec<_> = bridges.iter().map(|it| it.subnet().to_string()).collect();
        assert_eq!(subnets, ["10.10.0.0/16", "10.11.0.0/16", "10.12.0.0/16"]);
        let port = within(&world.outside, || serve(Ipv4Addr::UNSPECIFIED, 0));
        for bridge in &bridges {
            world.runtime.block_on(bridge.check()).unwrap();
            assert!(call_from(&world.step(bridge), OUTSIDE, port).is_ok());
        }
        let [first, others @ ..] = bridges.as_slice() else {
            unreachable!("there are three");
        };
        world.close(first);
        for bridge in others {
            assert!(call_from(&world.step(bridge), OUTSIDE, port).is_ok());
        }
    });
}

#[test]
fn what_is_configured_and_cannot_be_had_is_refused_and_nothing_stays() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let mut route = Socket::route().unwrap();
        let foreign_bridge = route.add_bridge("buildkit7", hardware(HOST), 1500).unwrap();
        route.set_alias(foreign_bridge, "of somebody").unwrap();
        let check = |config: Config, expected: &str| {
            let error = world.open(config).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(remains(), (vec!["buildkit7".to_owned()], vec![]));
        };
        check(
            Config {
                name: Some("buildkit7".into()),
                ..config()
            },
            "network interface `buildkit7` exists already and was not made by this daemon: set another worker.oci.bridgeName, or remove it",
        );
        for name in ["", "a/b", "sixteen-letters-", ".", "..", "a b", "é"] {
            let expected = format!(
                "bridge name `{name}` cannot be used: it needs 1 to 15 letters, digits, `-`, `_` or `.`"
            );
            check(
                Config {
                    name: Some(name.into()),
                    ..config()
                },
                &expected,
            );
        }
        check(
            Config {
                subnet: Some(UPLINK),
                ..config()
            },
            "subnet 192.0.2.0/24 is used already: this host has a route to 192.0.2.0/24",
        );
        // Somebody has the port of the forwarder at every address, also at ours.
        let _occupied_port = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DNS_PORT)).unwrap();
        check(
            config(),
            "cannot listen for DNS queries of steps on the bridge: address already in use",
        );
    });
}

#[test]
fn a_firewall_that_stops_names_is_found_by_the_check() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let bridge = world.bridge();
        let drop_dns = Command::new("iptables")
            .args(["-A", "INPUT", "-i", bridge.name(), "-j", "REJECT"])
            .status();
        if !drop_dns.is_ok_and(|status| status.success()) {
            testkit::skip::skip("needs the program iptables");
            return;
        }
        let error = world.runtime.block_on(bridge.check()).unwrap_err();
        let text = error.to_string();
        let expected = "the DNS forwarder at 10.10.0.1 does not answer a step";
        assert!(text.starts_with(expected), "{text}");
    });
}

#[test]
fn a_bridge_that_must_work_is_not_made_behind_a_firewall_that_may_drop_what_it_forwards() {
    testkit::requires!(root);
    alone(|| {
        let world = World::new();
        let forwarding = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        // A new network has it from the one that the machine began with.
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let close = Command::new("iptables")
            .args(["-P", "FORWARD", "DROP"])
            .status();
        if !close.is_ok_and(|status| status.success()) {
            testkit::skip::skip("needs the program iptables");
            return;
        }
        let error = world.open(Config {
            on_firewall: OnFirewall::Refuse,
            ..config()
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            "a firewall of this host drops forwarded packets unless told otherwise (table `filter`, chain `FORWARD`)"
        );
        assert_eq!(remains(), (vec![], vec![]));
        assert_eq!(forwarding().trim(), "0", "nothing of the host was changed");
        drop(world.bridge());
        assert_eq!(forwarding().trim(), "1");
    });
}

#[test]
fn the_way_out_with_the_smallest_metric_decides_about_sizes() {
    let link = |index, mtu| Link {
        index,
        mtu,
        ..Link::default()
    };
    let way = |link, metric| Route {
        to: Subnet::literal([0; 4], 0),
        link,
        metric,
    };
    let links = [link(1, 65_536), link(2, 1500), link(3, 1420), link(4, 68)];
    for (ways, expected) in [
        (vec![], 1500),
        (vec![way(2, 100), way(3, 50)], 1420),
        (vec![way(1, 0)], 65_535),
        (vec![way(4, 0)], 576),
        (vec![way(9, 0)], 1500),
    ] {
        assert_eq!(uplink_mtu(&links, &ways), expected, "{ways:?}");
    }
}
