//! Capability sets.

use std::io;

use rustix::thread as rx;
use rustix::thread::CapabilitySet;

/// A set of capabilities, one bit a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Set(pub u64);

/// Names in the order of their numbers, without the `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Set {
    /// The set of the named capabilities, without the `CAP_`; unknown names count for nothing.
    pub fn of(names: &[&str]) -> Self {
        Self(
            (0..)
                .zip(NAMES)
                .filter(|(_, name)| names.contains(name))
                .fold(0, |set, (bit, _)| set | 1u64 << bit),
        )
    }

    /// Whether the named capability is in it.
    pub fn has(self, name: &str) -> bool {
        Self::of(&[name]).0 & self.0 != 0
    }

    /// The names of its members, with the `CAP_`.
    pub fn names(self) -> Vec<String> {
        (0..)
            .zip(NAMES)
            .filter(|(bit, _)| self.0 & 1u64 << bit != 0)
            .map(|(_, name)| format!("CAP_{name}"))
            .collect()
    }
}

/// What this process may do. capget(2).
pub fn permitted() -> io::Result<Set> {
    Ok(Set(rx::capabilities(None)?.permitted.bits()))
}

/// Makes all that is permitted effective. capget(2), capset(2).
pub fn raise() -> io::Result<()> {
    let mut sets = rx::capabilities(None)?;
    sets.effective = sets.permitted;
    Ok(rx::set_capabilities(None, sets)?)
}

/// Drops everything else from the bounding set. prctl(2) PR_CAPBSET_DROP.
pub fn keep_in_bounding_set(set: Set) -> io::Result<()> {
    for bit in 0..64 {
        if set.0 & 1u64 << bit != 0 {
            continue;
        }
        let capability = CapabilitySet::from_bits_retain(1u64 << bit);
        match rx::capability_is_in_bounding_set(capability) {
            Ok(true) => rx::remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // The first number the kernel does not know ends the list.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Keeps the permitted set across the next change of user. prctl(2) PR_SET_KEEPCAPS.
pub fn keep_across_setuid(keep: bool) -> io::Result<()> {
    Ok(rx::set_keep_capabilities(keep)?)
}

/// Sets all sets of this thread. capset(2).
pub fn set(effective: Set, permitted: Set, inheritable: Set) -> io::Result<()> {
    let set = |set: Set| CapabilitySet::from_bits_retain(set.0);
    let sets = rx::CapabilitySets {
        effective: set(effective),
        permitted: set(permitted),
        inheritable: set(inheritable),
    };
    Ok(rx::set_capabilities(None, sets)?)
}

/// Makes the ambient set exactly this; each member must be permitted and inheritable. prctl(2) PR_CAP_AMBIENT.
pub fn set_ambient(set: Set) -> io::Result<()> {
    rx::clear_ambient_capability_set()?;
    for bit in (0..64).filter(|bit| set.0 & 1u64 << bit != 0) {
        rx::configure_capability_in_ambient_set(
            CapabilitySet::from_bits_retain(1u64 << bit),
            true,
        )?;
    }
    Ok(())
}
