//! IPv4 subnets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A block of addresses; its bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

/// A text that names no subnet which steps can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "subnet `{text}` cannot be used: write a private IPv4 network of 8 to 29 bits, such as 10.10.0.0/16"
)]
pub struct InvalidSubnet {
    /// The configured text.
    text: String,
}

/// The prefix lengths that a subnet for steps may have.
const ALLOWED_PREFIXES: std::ops::RangeInclusive<u8> = 8..=29;

/// Blocks that belong to private networks (RFC 1918), carriers (RFC 6598), tests (RFC 2544) or documents (RFC 5737).
const PRIVATE_BLOCKS: [Subnet; 8] = [
    Subnet::literal([10, 0, 0, 0], 8),
    Subnet::literal([172, 16, 0, 0], 12),
    Subnet::literal([192, 168, 0, 0], 16),
    Subnet::literal([100, 64, 0, 0], 10),
    Subnet::literal([198, 18, 0, 0], 15),
    Subnet::literal([192, 0, 2, 0], 24),
    Subnet::literal([198, 51, 100, 0], 24),
    Subnet::literal([203, 0, 113, 0], 24),
];

impl InvalidSubnet {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        oci::ErrorKind::Invalid
    }
}

impl Subnet {
    /// A subnet that is written in the program: `prefix` is at most 32.
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

    /// Whether steps can live in it.
    fn is_for_steps(self) -> bool {
        let private = PRIVATE_BLOCKS.iter().any(|block| block.covers(self));
        private && ALLOWED_PREFIXES.contains(&self.prefix)
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
    pub(crate) fn size(self) -> u64 {
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
    type Err = InvalidSubnet;

    /// Reads `10.10.0.0/16`; the address may be any of the block, as host-local takes it.
    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let wrong = || InvalidSubnet {
            text: text.to_owned(),
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let (Ok(address), Ok(prefix)) = (address.parse(), prefix.parse()) else {
            return Err(wrong());
        };
        Self::around(address, prefix)
            .filter(|subnet| subnet.is_for_steps())
            .ok_or_else(wrong)
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
