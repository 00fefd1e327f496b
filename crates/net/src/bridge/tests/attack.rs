//! What a step must not reach, tried as root of its own network: it may send what it likes.

use super::*;

/// A host with a bridge, a step in it, and servers at all addresses of the host.
struct AttackedHost {
    world: World,
    bridge: Bridge,
    step: StepNetwork,
}

fn attacked_host() -> AttackedHost {
    let world = World::new();
    let bridge = world.bridge();
    let step = world.step(&bridge);
    AttackedHost {
        world,
        bridge,
        step,
    }
}

#[test]
fn a_step_reaches_no_tcp_listener_of_the_host() {
    testkit::requires!(root);
    alone(|| {
        let host_under_attack = attacked_host();
        let everywhere = serve(Ipv4Addr::UNSPECIFIED, 0);
        let loopback = serve(Ipv4Addr::LOCALHOST, 0);
        let bridge = serve(host_under_attack.bridge.gateway(), 0);
        assert!(call(HOST, everywhere).is_ok(), "the host itself does");
        for (address, port) in [
            (host_under_attack.bridge.gateway(), everywhere),
            (host_under_attack.bridge.gateway(), bridge),
            (HOST, everywhere),
            (Ipv4Addr::LOCALHOST, everywhere),
            (Ipv4Addr::LOCALHOST, loopback),
            (Ipv4Addr::new(127, 0, 0, 2), everywhere),
        ] {
            let reached = call_from(&host_under_attack.step, address, port);
            assert!(reached.is_err(), "{address}:{port} said {reached:?}");
        }
    });
}

#[test]
fn a_program_that_calls_the_host_is_refused_at_once() {
    testkit::requires!(root);
    alone(|| {
        let host_under_attack = attacked_host();
        let error = call_from(&host_under_attack.step, HOST, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable, "{error}");
    });
}

#[test]
fn a_step_reaches_no_udp_listener_of_the_host() {
    testkit::requires!(root);
    alone(|| {
        let host_under_attack = attacked_host();
        let host = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        host.set_nonblocking(true).unwrap();
        let port = host.local_addr().unwrap().port();
        let gateway = host_under_attack.bridge.gateway();
        let forwarder = SocketAddr::new(gateway.into(), DNS_PORT);
        inside(&host_under_attack.step, move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            for address in [
                gateway,
                HOST,
                Ipv4Addr::BROADCAST,
                Ipv4Addr::new(10, 10, 255, 255),
            ] {
                socket.set_broadcast(true).unwrap();
                // Some are refused when they are sent.
                drop(socket.send_to(b"hello", (address, port)));
                drop(socket.send_to(b"hello", (address, port)));
            }
            // What was sent before has arrived when this is answered.
            ask(forwarder).unwrap();
        });
        let received = host.recv_from(&mut [0; 16]);
        assert_eq!(received.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn a_step_reaches_no_other_step() {
    testkit::requires!(root);
    alone(|| {
        let AttackedHost {
            world,
            bridge,
            step,
        } = attacked_host();
        let victim = world.step(&bridge);
        let port = inside(&victim, || serve(Ipv4Addr::UNSPECIFIED, 0));
        let (address, gateway) = (victim.address().unwrap(), bridge.gateway());
        assert!(call_from(&victim, address, port).is_ok(), "itself");
        assert!(inside(&step, move || call_within(SHORT, address, port)).is_err());
        // By way of the host, and past it, with all that is known of the victim.
        for hardware_address in [hardware(gateway), hardware(address)] {
            let reached = inside(&step, move || {
                let mut socket = Socket::route().unwrap();
                let link = socket.index_of(INSIDE).unwrap();
                socket
                    .add_neighbour(link, address, hardware_address)
                    .unwrap();
                call_within(SHORT, address, port)
            });
            assert!(reached.is_err(), "{reached:?}");
        }
    });
}

#[test]
fn a_step_of_another_daemon_is_out_of_reach_too() {
    testkit::requires!(root);
    alone(|| {
        let AttackedHost { world, step, .. } = attacked_host();
        let other_bridge = world.bridge();
        let victim = world.step(&other_bridge);
        let port = inside(&victim, || serve(Ipv4Addr::UNSPECIFIED, 0));
        let server = serve(Ipv4Addr::UNSPECIFIED, 0);
        assert!(call_from(&step, victim.address().unwrap(), port).is_err());
        assert!(call_from(&step, other_bridge.gateway(), server).is_err());
        let forwarder = SocketAddr::new(other_bridge.gateway().into(), DNS_PORT);
        assert!(inside(&step, move || ask(forwarder)).is_err());
    });
}

#[test]
fn metadata_services_are_out_of_reach_unless_wanted() {
    testkit::requires!(root);
    alone(|| {
        let AttackedHost {
            world,
            bridge,
            step,
        } = attacked_host();
        let port = within(&world.outside, || serve(Ipv4Addr::UNSPECIFIED, 0));
        assert!(call_from(&step, OUTSIDE, port).is_ok());
        let refused = call_from(&step, METADATA, port).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::HostUnreachable);
        drop(step);
        world.close(&bridge);
        let revealed = world.open(Config {
            reveal_metadata: true,
            ..config()
        });
        let revealed = revealed.unwrap();
        assert!(call_from(&world.step(&revealed), METADATA, port).is_ok());
    });
}

#[test]
fn nobody_outside_reaches_a_step_or_the_forwarder() {
    testkit::requires!(root);
    alone(|| {
        let AttackedHost {
            world,
            bridge,
            step,
        } = attacked_host();
        let port = inside(&step, || serve(Ipv4Addr::UNSPECIFIED, 0));
        let (address, gateway) = (step.address().unwrap(), bridge.gateway());
        within(&world.outside, move || {
            Socket::route().unwrap().add_default_route(HOST).unwrap();
            assert!(call_within(SHORT, address, port).is_err());
            let forwarder = SocketAddr::new(gateway.into(), DNS_PORT);
            assert!(ask(forwarder).is_err());
        });
        let forwarder = SocketAddr::new(gateway.into(), DNS_PORT);
        assert!(ask(forwarder).is_err(), "neither does the host itself");
    });
}

#[test]
fn what_claims_to_come_from_elsewhere_goes_nowhere() {
    testkit::requires!(root);
    alone(|| {
        let host_under_attack = attacked_host();
        let listener = within(&host_under_attack.world.outside, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        });
        let port = listener.local_addr().unwrap().port();
        let forged = Ipv4Addr::new(192, 0, 2, 77);
        inside(&host_under_attack.step, move || {
            let mut socket = Socket::route().unwrap();
            let everybody = Subnet::literal([192, 0, 2, 77], 32);
            socket.add_address(LOOPBACK, forged, everybody).unwrap();
            let liar = UdpSocket::bind((forged, 0)).unwrap();
            drop(liar.send_to(b"lie", (OUTSIDE, port)));
            let honest = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            honest.send_to(b"truth", (OUTSIDE, port)).unwrap();
        });
        let mut datagram = [0; 16];
        let mut length = 0;
        wait_until_true("the honest one arrives", || {
            match listener.recv(&mut datagram) {
                Ok(received) => {
                    length = received;
                    true
                }
                Err(_) => false,
            }
        });
        assert_eq!(&datagram[..length], b"truth");
    });
}

#[test]
fn frames_of_another_hardware_address_are_dropped() {
    testkit::requires!(root);
    alone(|| {
        let AttackedHost {
            world,
            bridge,
            step,
        } = attacked_host();
        let victim = world.step(&bridge);
        let port = within(&world.outside, || serve(Ipv4Addr::UNSPECIFIED, 0));
        let stolen = hardware(victim.address().unwrap());
        let reached = inside(&step, move || {
            let set = |arguments: &[&str]| Command::new("ip").args(arguments).status();
            let text: Vec<_> = stolen.iter().map(|byte| format!("{byte:02x}")).collect();
            let address = text.join(":");
            if set(&["link", "set", INSIDE, "address", &address]).is_err() {
                testkit::skip::skip("needs the program ip");
                return Err(io::ErrorKind::Unsupported.into());
            }
            call_within(SHORT, OUTSIDE, port)
        });
        assert!(reached.is_err(), "{reached:?}");
        assert_eq!(call_from(&victim, OUTSIDE, port).unwrap(), HOST.to_string());
    });
}

#[test]
fn ports_that_the_host_redirects_are_listeners_of_the_host() {
    testkit::requires!(root);
    alone(|| {
        let host_under_attack = attacked_host();
        let port = within(&host_under_attack.world.outside, || {
            serve(Ipv4Addr::UNSPECIFIED, 0)
        });
        let to = format!("{OUTSIDE}:{port}");
        let redirect = Command::new("iptables")
            .args([
                "-t",
                "nat",
                "-A",
                "PREROUTING",
                "-p",
                "tcp",
                "--dport",
                "5555",
            ])
            .args(["-j", "DNAT", "--to-destination", &to])
            .status();
        if !redirect.is_ok_and(|status| status.success()) {
            testkit::skip::skip("needs the program iptables");
            return;
        }
        assert!(call_from(&host_under_attack.step, OUTSIDE, port).is_ok());
        assert!(call_from(&host_under_attack.step, HOST, 5555).is_err());
        assert!(
            call_from(
                &host_under_attack.step,
                host_under_attack.bridge.gateway(),
                5555
            )
            .is_err()
        );
    });
}

#[test]
fn there_is_no_ipv6_inside() {
    testkit::requires!(root);
    alone(|| {
        let host_under_attack = attacked_host();
        let addresses = || fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
        let of_step = inside(&host_under_attack.step, addresses);
        assert!(!of_step.contains(INSIDE), "{of_step}");
        let of_host = addresses();
        assert!(
            !of_host.contains(host_under_attack.bridge.name()),
            "{of_host}"
        );
        assert!(
            !of_host.lines().any(|line| line.contains(" rb")),
            "{of_host}"
        );
    });
}
