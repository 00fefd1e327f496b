//! Network and security modes of a container, and the one place where they are granted (P1, P12).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Which network a step gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// What the worker is configured to give.
    #[default]
    Sandbox,
    /// The host's network; needs the entitlement `network.host`.
    Host,
    /// A network with nothing but loopback.
    None,
}

/// How a step is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecurityMode {
    /// Default capabilities, seccomp, masked paths.
    #[default]
    Sandbox,
    /// All capabilities and no filter; needs the entitlement `security.insecure`.
    Insecure,
}

/// Paths that a confined container does not see: a file shows /dev/null, a directory nothing.
pub(crate) const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that a confined container cannot write to.
pub(crate) const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A number from the wire that names no mode. It is an error, never a default (P12).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} mode {value}")]
pub struct UnknownMode {
    /// Which kind of mode: `network mode` or `security mode`.
    pub what: &'static str,
    /// The number that the client sent.
    pub value: i32,
}

impl TryFrom<i32> for NetworkMode {
    type Error = UnknownMode;

    /// The numbers of `pb.NetMode`.
    fn try_from(value: i32) -> Result<Self, UnknownMode> {
        match value {
            0 => Ok(Self::Sandbox),
            1 => Ok(Self::Host),
            2 => Ok(Self::None),
            _ => Err(UnknownMode {
                what: "network",
                value,
            }),
        }
    }
}

impl TryFrom<i32> for SecurityMode {
    type Error = UnknownMode;

    /// The numbers of `pb.SecurityMode`.
    fn try_from(value: i32) -> Result<Self, UnknownMode> {
        match value {
            0 => Ok(Self::Sandbox),
            1 => Ok(Self::Insecure),
            _ => Err(UnknownMode {
                what: "security",
                value,
            }),
        }
    }
}

/// The devices a build was granted, as an entitlement says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceRights {
    /// Whether the build may have every device; [`Self::names`] is not looked at then.
    pub all: bool,
    /// Devices, kinds or classes; each with the name that takes its place, or nothing.
    pub names: BTreeMap<String, String>,
}

/// What a build was granted: asked for by its client and allowed by the daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entitlements {
    /// `network.host`
    pub network_host: bool,
    /// `security.insecure`
    pub security_insecure: bool,
    /// `device`: which devices beside those that every build may have.
    pub devices: Option<DeviceRights>,
}

impl Entitlements {
    /// Checks the modes a step wants against what its build was granted.
    pub fn access(&self, network: NetworkMode, security: SecurityMode) -> Result<Access, Denied> {
        if network == NetworkMode::Host && !self.network_host {
            return Err(Denied {
                entitlement: "network.host",
            });
        }
        if security == SecurityMode::Insecure && !self.security_insecure {
            return Err(Denied {
                entitlement: "security.insecure",
            });
        }
        Ok(Access { network, security })
    }
}

/// A checked choice of modes. Only [`Entitlements::access`] makes one, so no spec exists that nobody checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    network: NetworkMode,
    security: SecurityMode,
}

impl Access {
    /// The default modes, which need no entitlement.
    pub const SANDBOX: Self = Self {
        network: NetworkMode::Sandbox,
        security: SecurityMode::Sandbox,
    };

    /// The network mode.
    pub fn network(&self) -> NetworkMode {
        self.network
    }

    /// The security mode.
    pub fn security(&self) -> SecurityMode {
        self.security
    }
}

impl UnknownMode {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        oci::ErrorKind::Invalid
    }
}

/// A mode whose entitlement the build does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entitlement} is not allowed")]
pub struct Denied {
    /// The name of the missing entitlement, as clients ask for it.
    pub entitlement: &'static str,
}

impl Denied {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        oci::ErrorKind::Denied
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sandbox => "sandbox",
            Self::Host => "host",
            Self::None => "none",
        })
    }
}

impl FromStr for NetworkMode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text {
            "sandbox" | "default" | "" => Ok(Self::Sandbox),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            _ => Err(UnknownMode {
                what: "network",
                value: -1,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_mode_number_is_an_error_and_a_missing_entitlement_denies() {
        for value in [-1, 2, 3, i32::MAX] {
            assert!(SecurityMode::try_from(value).is_err());
        }
        assert!(NetworkMode::try_from(3).is_err());
        let nothing = Entitlements::default();
        assert_eq!(
            nothing
                .access(NetworkMode::Host, SecurityMode::Sandbox)
                .unwrap_err()
                .to_string(),
            "network.host is not allowed"
        );
        assert_eq!(
            nothing
                .access(NetworkMode::Sandbox, SecurityMode::Insecure)
                .unwrap_err()
                .to_string(),
            "security.insecure is not allowed"
        );
        assert_eq!(
            nothing.access(NetworkMode::Sandbox, SecurityMode::Sandbox),
            Ok(Access::SANDBOX)
        );
    }

    #[test]
    fn each_pair_of_modes_needs_exactly_its_entitlements() {
        use {NetworkMode as N, SecurityMode as S};
        for network in [N::Sandbox, N::Host, N::None] {
            for security in [S::Sandbox, S::Insecure] {
                for (network_host, security_insecure) in
                    [(false, false), (true, false), (false, true), (true, true)]
                {
                    let granted = Entitlements {
                        network_host,
                        security_insecure,
                        devices: None,
                    };
                    let allowed = (network != N::Host || network_host)
                        && (security != S::Insecure || security_insecure);
                    let access = granted.access(network, security);
                    assert_eq!(
                        access.is_ok(),
                        allowed,
                        "{network} {security:?} {granted:?}"
                    );
                    if let Ok(access) = access {
                        assert_eq!((access.network(), access.security()), (network, security));
                    }
                }
            }
        }
    }

    #[test]
    fn modes_have_words_and_numbers() {
        for (number, word, mode) in [
            (0, "sandbox", NetworkMode::Sandbox),
            (1, "host", NetworkMode::Host),
            (2, "none", NetworkMode::None),
        ] {
            assert_eq!(NetworkMode::try_from(number), Ok(mode));
            assert_eq!(word.parse(), Ok(mode));
            assert_eq!(mode.to_string(), word);
        }
        assert_eq!("default".parse(), Ok(NetworkMode::Sandbox));
        assert_eq!("".parse(), Ok(NetworkMode::Sandbox));
        assert_eq!(
            "bridge".parse::<NetworkMode>().unwrap_err().to_string(),
            "unknown network mode -1"
        );
        assert_eq!(
            SecurityMode::try_from(7).unwrap_err().to_string(),
            "unknown security mode 7"
        );
    }
}
