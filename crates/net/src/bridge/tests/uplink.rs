//! A bridge in a network of ours whose packets a program carries: the host is that of the other tests, in which we have no rights.

use super::*;
use crate::lab;
use crate::uplink::{Carrier, CarrierKind};

const SLIRP_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const SLIRP_RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// Opens a bridge behind this program, on a machine that has it.
fn behind(world: &World, kind: CarrierKind) -> Bridge {
    let path = std::path::Path::new("/usr/bin").join(kind.program());
    let _entered = world.runtime.enter();
    let uplink = Uplink::open(Carrier { kind, path }).unwrap();
    Bridge::open_behind(config(), uplink).unwrap()
}

fn is_installed(kind: CarrierKind) -> bool {
    let program = kind.program();
    let there = std::path::Path::new("/usr/bin").join(program).exists();
    if !there {
        testkit::skip::skip(&format!("needs {program}"));
    }
    there
}

fn a_step_reaches_the_outside_and_nothing_of_the_host(kind: CarrierKind) {
    let world = World::new();
    let outside = within(&world.outside, || serve(OUTSIDE, 0));
    let everywhere = serve(Ipv4Addr::UNSPECIFIED, 0);
    let metadata = within(&world.outside, || serve(METADATA, 0));
    let bridge = behind(&world, kind);
    let step = world.step(&bridge);
    // The host's own socket calls. The caller does not close its end first: pasta of early 2023 may forget such a connection.
    let heard = inside(&step, move || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&(OUTSIDE, outside).into(), LONG)?;
        stream.set_read_timeout(Some(LONG))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    assert_eq!(heard.unwrap(), HOST.to_string());
    let gateway = bridge.gateway();
    let answered = inside(&step, move || ask((gateway, DNS_PORT).into()));
    answered.unwrap();
    // An address that the host has later.
    const LATER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    let mut host = Socket::route().unwrap();
    let block = Subnet::literal([198, 51, 100, 0], 24);
    host.add_address(LOOPBACK, LATER, block).unwrap();
    assert!(call(LATER, everywhere).is_ok(), "the host itself does");
    let refused = |address: Ipv4Addr| {
        let step = step.as_fd().try_clone_to_owned().unwrap();
        within(&step, move || call_within(SHORT, address, everywhere)).is_err()
    };
    let begun = task::clock::monotonic();
    while !refused(LATER) {
        assert!(begun.elapsed() < LONG, "{LATER} is not hidden");
    }
    for address in [
        HOST,
        gateway,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(127, 0, 0, 2),
        SLIRP_HOST,
        SLIRP_RESOLVER,
    ] {
        assert!(refused(address), "{address}");
    }
    let reached = inside(&step, move || call_within(SHORT, METADATA, metadata));
    assert!(reached.is_err(), "the metadata service says {reached:?}");
    world.close(&bridge);
}

#[test]
fn with_pasta_a_step_reaches_the_outside_and_nothing_of_the_host() {
    testkit::requires!(root);
    if is_installed(CarrierKind::Pasta) && lab::is_root_of_users() {
        alone(|| a_step_reaches_the_outside_and_nothing_of_the_host(CarrierKind::Pasta));
    }
}

#[test]
fn with_slirp4netns_a_step_reaches_the_outside_and_nothing_of_the_host() {
    testkit::requires!(root);
    if is_installed(CarrierKind::Slirp) && lab::is_root_of_users() {
        alone(|| a_step_reaches_the_outside_and_nothing_of_the_host(CarrierKind::Slirp));
    }
}

#[test]
fn a_program_that_cannot_carry_packets_is_named_with_its_words() {
    testkit::requires!(root);
    alone(|| {
        let carrier = Carrier {
            kind: CarrierKind::Pasta,
            path: "/nonexistent".into(),
        };
        let error = Uplink::open(carrier).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`pasta`, which is to carry the packets of steps, ended: No such file or directory (os error 2)"
        );
    });
}
