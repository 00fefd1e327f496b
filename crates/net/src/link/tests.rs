use std::os::fd::AsFd as _;

use super::*;
use crate::lab;
use crate::subnet::hardware;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 7);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
const SUBNET: Subnet = Subnet::literal([10, 10, 0, 0], 16);

fn link(socket: &mut Socket, name: &str) -> Option<Link> {
    let links = socket.links().unwrap();
    links.into_iter().find(|link| link.name == name)
}

/// The attributes of a link's part as a port of a bridge.
fn port_data(socket: &mut Socket, port: Index) -> Vec<(u16, Vec<u8>)> {
    let question = Message::new(GET_LINK, 0, &link_header(port.0, false));
    let read = |body: &[u8]| {
        let info = attribute(body.get(LINK_HEADER_BYTES..).unwrap(), IFLA_LINKINFO).unwrap();
        let data = attribute(info, INFO_SLAVE_DATA).unwrap();
        let attributes = message::attributes(data);
        attributes
            .map(|(kind, value)| (kind, value.to_vec()))
            .collect()
    };
    socket.question(question, read).unwrap()
}

#[test]
fn a_bridge_is_made_marked_and_removed() {
    testkit::requires!(root);
    lab::alone(|| {
        let mut socket = Socket::route().unwrap();
        let bridge = socket.add_bridge("b0", hardware(GATEWAY), 1400).unwrap();
        socket.set_alias(bridge, "mine").unwrap();
        socket.no_ipv6_address(bridge).unwrap();
        socket.add_address(bridge, GATEWAY, SUBNET).unwrap();
        socket.up(bridge).unwrap();
        let expected = Link {
            index: bridge.0,
            name: "b0".into(),
            alias: "mine".into(),
            group: GROUP,
            mtu: 1400,
            operating: false,
            kind: "bridge".into(),
        };
        assert_eq!(link(&mut socket, "b0"), Some(expected));
        let way = |socket: &mut Socket| {
            let routes = socket.routes().unwrap();
            routes.into_iter().find(|route| route.to == SUBNET)
        };
        assert_eq!(way(&mut socket).unwrap().link, bridge.0);
        let again = socket.add_bridge("b0", hardware(GATEWAY), 1400);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        socket.delete(bridge).unwrap();
        socket.delete(bridge).unwrap();
        assert_eq!(link(&mut socket, "b0"), None);
        assert_eq!(way(&mut socket), None);
    });
}

#[test]
fn a_pair_of_links_reaches_into_a_namespace_and_its_port_is_confined() {
    testkit::requires!(root);
    lab::alone(|| {
        let mut host = Socket::route().unwrap();
        let bridge = host.add_bridge("b0", hardware(GATEWAY), 1500).unwrap();
        let home = sys::netns::current().unwrap();
        sys::netns::unshare().unwrap();
        let namespace = sys::netns::current().unwrap();
        let mut inside = Socket::route().unwrap();
        sys::netns::enter(&home).unwrap();
        let veth = Veth {
            name: "rb0a1b2c000007",
            bridge,
            mtu: 1400,
            hardware: hardware(ADDRESS),
            namespace: namespace.as_fd(),
        };
        let port = host.add_veth(&veth).unwrap();
        host.confine(port, hardware(ADDRESS)).unwrap();
        let port_link = link(&mut host, veth.name).unwrap();
        assert_eq!(
            (port_link.group, port_link.mtu, port_link.kind.as_str()),
            (GROUP, 1400, "veth")
        );
        assert_eq!(link(&mut host, INSIDE), None, "the other end is not here");

        let data = port_data(&mut host, port);
        for (what, kind, value) in [
            ("isolated", BRPORT_ISOLATED, 1u8),
            ("learning", BRPORT_LEARNING, 0),
            ("unicast flood", BRPORT_UNICAST_FLOOD, 0),
            ("multicast flood", BRPORT_MCAST_FLOOD, 0),
            ("broadcast flood", BRPORT_BCAST_FLOOD, 0),
            ("locked", BRPORT_LOCKED, 1),
        ] {
            let attribute = data.iter().find(|(each, _)| *each == kind);
            assert_eq!(
                attribute.map(|(_, value)| value.as_slice()),
                Some(&[value][..]),
                "{what}"
            );
        }

        let eth0 = inside.index_of(INSIDE).unwrap();
        assert_eq!(link(&mut inside, INSIDE).unwrap().mtu, 1400);
        inside.no_ipv6_address(eth0).unwrap();
        inside.add_address(eth0, ADDRESS, SUBNET).unwrap();
        inside.up(eth0).unwrap();
        inside
            .add_neighbour(eth0, GATEWAY, hardware(GATEWAY))
            .unwrap();
        inside.add_default_route(GATEWAY).unwrap();
        let everywhere = Subnet::literal([0; 4], 0);
        let mut routes = inside.routes().unwrap().into_iter();
        let default = routes.find(|route| route.to == everywhere).unwrap();
        assert_eq!((default.link, default.metric), (eth0.0, 0));

        assert!(!host.operates(port).unwrap(), "this end is down");
        host.up(port).unwrap();
        while !(host.operates(port).unwrap() && inside.operates(eth0).unwrap()) {
            std::thread::yield_now();
        }

        host.delete(port).unwrap();
        assert_eq!(
            inside.index_of(INSIDE).unwrap_err().raw_os_error(),
            Some(19)
        );
    });
}

#[test]
fn a_neighbour_is_written_over_and_forgotten() {
    testkit::requires!(root);
    lab::alone(|| {
        let mut socket = Socket::route().unwrap();
        let bridge = socket.add_bridge("b0", hardware(GATEWAY), 1500).unwrap();
        socket
            .add_neighbour(bridge, ADDRESS, hardware(ADDRESS))
            .unwrap();
        socket
            .add_neighbour(bridge, ADDRESS, hardware(GATEWAY))
            .unwrap();
        socket.delete_neighbour(bridge, ADDRESS).unwrap();
        let error = socket.delete_neighbour(bridge, ADDRESS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn what_is_not_there_is_an_error_and_the_socket_works_on() {
    testkit::requires!(root);
    lab::alone(|| {
        let mut socket = Socket::route().unwrap();
        for _ in 0..3 {
            assert_eq!(
                socket.index_of("nobody").unwrap_err().raw_os_error(),
                Some(19)
            );
            assert!(socket.up(Index(4711)).is_err());
            assert!(
                socket.add_default_route(GATEWAY).is_err(),
                "nobody leads there"
            );
            assert_eq!(socket.index_of("lo").unwrap(), LOOPBACK);
        }
    });
}

#[test]
fn messages_of_the_kernel_that_are_cut_are_not_read() {
    assert_eq!(read_link(&[0; LINK_HEADER_BYTES - 1]), None);
    assert_eq!(read_link(&[0; LINK_HEADER_BYTES]), Some(Link::default()));
    assert_eq!(read_route(&[AF_INET; ROUTE_HEADER_BYTES - 1]), None);
    // Of IPv6, and with a prefix that no address has.
    assert_eq!(read_route(&[10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    assert_eq!(
        read_route(&[AF_INET, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        None
    );
    let default = Route {
        to: Subnet::literal([0; 4], 0),
        link: 0,
        metric: 0,
    };
    assert_eq!(
        read_route(&[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Some(default)
    );
}
