//! Which subnet steps get, and which of its addresses are in use.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::error::NetError;
use crate::subnet::Subnet;

/// What steps get when the configuration names none, in this order: BuildKit's own first. Left out are the usual ones of k3s (10.42 and
/// 10.43), podman (10.88, 10.89) and Docker (172.17 to 172.19).
fn candidates() -> impl Iterator<Item = Subnet> {
    let ten = (10..=41).chain(44..=87).map(|second| [10, second, 0, 0]);
    let others = (20..=31).map(|second| [172, second, 0, 0]);
    let large = ten.chain(others).map(|base| Subnet::literal(base, 16));
    let small = (200..=223).map(|third| Subnet::literal([192, 168, third, 0], 24));
    large.chain(small)
}

/// Chooses the subnet: the configured one, which must be free, or the first that no route of the host leads into.
pub(crate) fn choose(configured: Option<Subnet>, routes: &[Subnet]) -> Result<Subnet, NetError> {
    let used = |subnet: Subnet| {
        // A default route, or halves of one as tunnels make them, leads everywhere and says nothing about who is there.
        let mut routes = routes.iter().filter(|route| route.prefix() > 1);
        routes.find(|route| route.overlaps(subnet)).copied()
    };
    match configured {
        Some(subnet) => match used(subnet) {
            Some(route) => Err(NetError::SubnetUsed { subnet, route }),
            None => Ok(subnet),
        },
        None => candidates()
            .find(|subnet| used(*subnet).is_none())
            .ok_or(NetError::NoSubnet),
    }
}

/// The addresses of a subnet that are in use. A released address is taken again as late as possible, for others may still send to it.
#[derive(Debug)]
pub(crate) struct Addresses {
    subnet: Subnet,
    used: BTreeSet<u32>,
    /// The offset that is tried next.
    next: u64,
}

/// The offset of the first address that a step can have: before it are the block's own address and the bridge's. The last address of
/// the block is its broadcast address.
const FIRST_OFFSET: u64 = 2;

impl Addresses {
    pub(crate) fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            used: BTreeSet::new(),
            next: FIRST_OFFSET,
        }
    }

    /// Takes the next free address.
    pub(crate) fn take(&mut self) -> Result<Ipv4Addr, NetError> {
        let end = self.subnet.size() - 1;
        let full = NetError::Full {
            subnet: self.subnet,
        };
        if self.used.len() as u64 >= end - FIRST_OFFSET {
            return Err(full);
        }
        for offset in (self.next..end).chain(FIRST_OFFSET..self.next) {
            let base = u32::from(self.subnet.base());
            let address = base.wrapping_add(u32::try_from(offset).unwrap_or(u32::MAX));
            if self.used.insert(address) {
                self.next = if offset + 1 < end {
                    offset + 1
                } else {
                    FIRST_OFFSET
                };
                return Ok(address.into());
            }
        }
        Err(full)
    }

    /// Makes an address free again; one that is not of the subnet changes nothing.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&u32::from(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn route(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').unwrap();
        Subnet::around(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_first_subnet_that_no_route_leads_into_is_chosen() {
        let check = |routes: &[&str], expected: &str| {
            let routes: Vec<Subnet> = routes.iter().map(|text| route(text)).collect();
            assert_eq!(choose(None, &routes).unwrap().to_string(), expected);
        };
        check(&[], "10.10.0.0/16");
        check(&["0.0.0.0/0", "192.0.2.0/24"], "10.10.0.0/16");
        check(&["0.0.0.0/1", "128.0.0.0/1"], "10.10.0.0/16");
        check(&["10.10.0.0/16"], "10.11.0.0/16");
        check(&["10.10.3.4/32", "10.11.0.0/17"], "10.12.0.0/16");
        check(&["10.0.0.0/12"], "10.16.0.0/16");
        check(&["10.0.0.0/8"], "172.20.0.0/16");
        check(&["10.0.0.0/8", "172.16.0.0/12"], "192.168.200.0/24");
        let routes = [
            route("10.0.0.0/8"),
            route("172.16.0.0/12"),
            route("192.168.0.0/16"),
        ];
        assert!(matches!(choose(None, &routes), Err(NetError::NoSubnet)));
    }

    #[test]
    fn a_configured_subnet_is_taken_or_refused_with_the_route() {
        let configured = subnet("10.20.0.0/16");
        assert_eq!(
            choose(Some(configured), &[route("10.10.0.0/16")]).unwrap(),
            configured
        );
        let error = choose(
            Some(configured),
            &[route("0.0.0.0/0"), route("10.20.5.0/24")],
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "subnet 10.20.0.0/16 is used already: this host has a route to 10.20.5.0/24"
        );
    }

    #[test]
    fn an_address_comes_again_when_all_others_had_their_turn() {
        let mut addresses = Addresses::new(subnet("192.168.200.0/29"));
        let take = |addresses: &mut Addresses| addresses.take().map(|it| it.octets()[3]);
        let taken: Vec<u8> = (0..5).map(|_| take(&mut addresses).unwrap()).collect();
        assert_eq!(taken, [2, 3, 4, 5, 6]);
        let error = take(&mut addresses).unwrap_err();
        assert_eq!(
            error.to_string(),
            "all addresses of 192.168.200.0/29 are used by steps: set a larger worker.oci.bridgeSubnet"
        );
        for last_octet in [3, 5] {
            addresses.release(Ipv4Addr::new(192, 168, 200, last_octet));
        }
        assert_eq!(take(&mut addresses).unwrap(), 3);
        addresses.release(Ipv4Addr::new(192, 168, 200, 3));
        assert_eq!(
            take(&mut addresses).unwrap(),
            5,
            "not the one that has just been used"
        );
        assert_eq!(take(&mut addresses).unwrap(), 3);
        assert!(take(&mut addresses).is_err());
        // It is not of the subnet.
        addresses.release(Ipv4Addr::new(8, 8, 8, 8));
        assert!(take(&mut addresses).is_err());
    }
}
