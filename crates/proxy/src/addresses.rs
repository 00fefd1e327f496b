//! The addresses that a step's proxy may connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a step may reach by its proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What the host reaches, its own listeners among it: a step with the host's network.
    Host,
    /// The same without the services at which providers of machines tell their credentials.
    HostWithoutMetadata,
    /// What lies beyond the host: behind the bridge, whose rules of nftables hold besides.
    Beyond,
}

/// Where providers of machines tell their credentials, beside the link-local addresses: what the bridge's rules hide.
const METADATA_V4: [Ipv4Addr; 2] = [
    // Alibaba's, and the server of Azure's agent.
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];
/// Amazon's, by IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

impl Reach {
    /// Whether a connection may be made.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Host => true,
            Self::HostWithoutMetadata => !is_metadata(address),
            Self::Beyond => {
                let multicast = match address {
                    IpAddr::V4(v4) => v4.is_broadcast() || v4.is_multicast(),
                    IpAddr::V6(v6) => v6.is_multicast(),
                };
                !(is_metadata(address)
                    || address.is_loopback()
                    || address.is_unspecified()
                    || multicast)
            }
        }
    }
}

/// Everything link-local counts: 169.254.169.254 and its neighbours.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_reaches_what_its_mode_means_and_no_other_writing_of_an_address_helps() {
        use Reach::{Beyond, Host, HostWithoutMetadata};
        for (address, reached) in [
            (
                "203.0.113.7",
                &[Host, HostWithoutMetadata, Beyond] as &[Reach],
            ),
            ("10.1.2.3", &[Host, HostWithoutMetadata, Beyond]),
            ("127.0.0.1", &[Host, HostWithoutMetadata]),
            ("::1", &[Host, HostWithoutMetadata]),
            ("::ffff:127.0.0.1", &[Host, HostWithoutMetadata]),
            ("0.0.0.0", &[Host, HostWithoutMetadata]),
            ("224.0.0.1", &[Host, HostWithoutMetadata]),
            ("169.254.169.254", &[Host]),
            ("::ffff:169.254.169.254", &[Host]),
            ("169.254.170.2", &[Host]),
            ("100.100.100.200", &[Host]),
            ("168.63.129.16", &[Host]),
            ("fd00:ec2::254", &[Host]),
            ("fe80::1", &[Host]),
        ] {
            for reach in [Host, HostWithoutMetadata, Beyond] {
                assert_eq!(
                    reach.allows(address.parse().unwrap()),
                    reached.contains(&reach),
                    "{reach:?} {address}"
                );
            }
        }
    }
}
