//! IPv4 subnets: which one steps get, and who has which address of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::error::NetError;

/// A block of addresses; its bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

/// The smallest and the largest number of bits that a subnet of steps may have in common.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=29;

/// Blocks that belong to private networks (RFC 1918), carriers (RFC 6598), tests (RFC 2544) or documents (RFC 5737).
const PRIVATE: [Subnet; 8] = [
    Subnet::literal([10, 0, 0, 0], 8),
    Subnet::literal([172, 16, 0, 0], 12),
    Subnet::literal([192, 168, 0, 0], 16),
    Subnet::literal([100, 64, 0, 0], 10),
    Subnet::literal([198, 18, 0, 0], 15),
    Subnet::literal([192, 0, 2, 0], 24),
    Subnet::literal([198, 51, 100, 0], 24),
    Subnet::literal([203, 0, 113, 0], 24),
];

impl Subnet {
    /// Of what is written in the program: `prefix` is at most 32.
    pub(crate) const fn literal(base: [u8; 4], prefix: u8) -> Self {
        Self {
            base: u32::from_be_bytes(base),
            prefix,
        }
    }

    /// The block that an address lies in. `None` for a prefix of more than 32 bits.
    pub(crate) fn around(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = mask(prefix)?;
        Some(Self {
            base: u32::from(address) & mask,
            prefix,
        })
    }

    /// Checks that steps can live in it.
    pub(crate) fn for_steps(self) -> Result<Self, NetError> {
        let private = PRIVATE.iter().any(|block| block.covers(self));
        if private && PREFIXES.contains(&self.prefix) {
            Ok(self)
        } else {
            Err(NetError::Subnet {
                text: self.to_string(),
            })
        }
    }

    /// The number of bits that all addresses have in common.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its first address.
    #[must_use]
    pub fn base(self) -> Ipv4Addr {
        self.base.into()
    }

    /// The bits that all addresses have in common, set.
    pub(crate) fn mask(self) -> Ipv4Addr {
        mask(self.prefix).unwrap_or(u32::MAX).into()
    }

    /// The first address that a host can have: the bridge's.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        self.base.wrapping_add(1).into()
    }

    /// Whether an address is one of it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Self::around(address, self.prefix) == Some(self)
    }

    fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.base())
    }

    /// Whether an address is in both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// How many addresses it has.
    fn size(self) -> u64 {
        1u64 << (32 - u32::from(self.prefix.min(32)))
    }
}

fn mask(prefix: u8) -> Option<u32> {
    match prefix {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - u32::from(prefix))),
        _ => None,
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = NetError;

    /// Reads `10.10.0.0/16`; the address may be any of the block, as host-local takes it.
    fn from_str(text: &str) -> Result<Self, NetError> {
        let wrong = || NetError::Subnet {
            text: text.to_owned(),
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let (Ok(address), Ok(prefix)) = (address.parse(), prefix.parse()) else {
            return Err(wrong());
        };
        Self::around(address, prefix)
            .and_then(|subnet| subnet.for_steps().ok())
            .ok_or_else(wrong)
    }
}

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
        let mut routes = routes.iter().filter(|route| route.prefix > 1);
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

/// Who has which address. An address that was given back is taken again as late as possible, for others may still send to it.
#[derive(Debug)]
pub(crate) struct Addresses {
    subnet: Subnet,
    used: BTreeSet<u32>,
    /// The offset that is tried next.
    next: u64,
}

/// Before: the block itself and the bridge. The last one is for everybody.
const FIRST: u64 = 2;

impl Addresses {
    pub(crate) fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            used: BTreeSet::new(),
            next: FIRST,
        }
    }

    /// Takes an address.
    pub(crate) fn take(&mut self) -> Result<Ipv4Addr, NetError> {
        let end = self.subnet.size() - 1;
        let full = NetError::Full {
            subnet: self.subnet,
        };
        if self.used.len() as u64 >= end - FIRST {
            return Err(full);
        }
        for offset in (self.next..end).chain(FIRST..self.next) {
            let address = self
                .subnet
                .base
                .wrapping_add(u32::try_from(offset).unwrap_or(u32::MAX));
            if self.used.insert(address) {
                self.next = if offset + 1 < end { offset + 1 } else { FIRST };
                return Ok(address.into());
            }
        }
        Err(full)
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&u32::from(address));
    }
}

/// The hardware address that belongs to an address: locally administered, and another one for every address of a host.
pub(crate) fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x72, a, b, c, d]
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
    fn subnets_of_steps_are_private_and_neither_tiny_nor_huge() {
        for (text, expected) in [
            ("10.10.0.0/16", "10.10.0.0/16"),
            ("10.10.7.9/16", "10.10.0.0/16"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("172.31.0.0/29", "172.31.0.0/29"),
            ("100.64.0.0/10", "100.64.0.0/10"),
        ] {
            assert_eq!(subnet(text).to_string(), expected);
        }
        for text in [
            "",
            "10.10.0.0",
            "10.10.0.0/",
            "10.10.0.0/33",
            "10.10.0.0/256",
            "10.10.0.0/30",
            "10.0.0.0/7",
            "8.8.8.0/24",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/8",
            "0.0.0.0/0",
            "fd00::/64",
            "10.10.0/16",
            "10.10.0.0/-1",
        ] {
            let error = text.parse::<Subnet>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
            assert_eq!(error.kind(), oci::ErrorKind::Invalid);
        }
    }

    #[test]
    fn a_subnet_knows_its_addresses() {
        let block = subnet("10.10.0.0/16");
        assert_eq!(block.gateway(), Ipv4Addr::new(10, 10, 0, 1));
        assert_eq!(block.mask(), Ipv4Addr::new(255, 255, 0, 0));
        assert!(block.contains(Ipv4Addr::new(10, 10, 255, 255)));
        assert!(!block.contains(Ipv4Addr::new(10, 11, 0, 0)));
        assert_eq!(route("1.2.3.4/0").mask(), Ipv4Addr::UNSPECIFIED);
        assert_eq!(route("1.2.3.4/32").mask(), Ipv4Addr::BROADCAST);
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
        let all = [
            route("10.0.0.0/8"),
            route("172.16.0.0/12"),
            route("192.168.0.0/16"),
        ];
        assert!(matches!(choose(None, &all), Err(NetError::NoSubnet)));
    }

    #[test]
    fn a_configured_subnet_is_taken_or_refused_with_the_route() {
        let configured = Some(subnet("10.20.0.0/16"));
        assert_eq!(
            choose(configured, &[route("10.10.0.0/16")]).unwrap(),
            configured.unwrap()
        );
        let error = choose(configured, &[route("0.0.0.0/0"), route("10.20.5.0/24")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "subnet 10.20.0.0/16 is used already: this host has a route to 10.20.5.0/24"
        );
    }

    #[test]
    fn an_address_comes_again_when_all_others_had_their_turn() {
        let mut addresses = Addresses::new(subnet("192.168.200.0/29"));
        let take = |addresses: &mut Addresses| addresses.take().map(|it| it.octets()[3]);
        let all: Vec<u8> = (0..5).map(|_| take(&mut addresses).unwrap()).collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        let error = take(&mut addresses).unwrap_err();
        assert_eq!(
            error.to_string(),
            "all addresses of 192.168.200.0/29 are used by steps: set a larger worker.oci.bridgeSubnet"
        );
        for last in [3, 5] {
            addresses.release(Ipv4Addr::new(192, 168, 200, last));
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
        // What is not ours changes nothing.
        addresses.release(Ipv4Addr::new(8, 8, 8, 8));
        assert!(take(&mut addresses).is_err());
    }

    #[test]
    fn hardware_addresses_are_of_one_card_and_local() {
        let [first, ..] = hardware(Ipv4Addr::new(10, 10, 0, 7));
        assert_eq!(first & 1, 0, "not a group");
        assert_eq!(first & 2, 2, "locally administered");
        assert_ne!(
            hardware(Ipv4Addr::new(10, 10, 0, 7)),
            hardware(Ipv4Addr::new(10, 10, 1, 7))
        );
    }
}
