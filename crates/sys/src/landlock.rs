//! Landlock: what a process gives up for good, itself and all its children.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::raw;

/// struct landlock_ruleset_attr as of ABI 6.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const CREATE_RULESET_VERSION: u32 = 1;
/// The ABI that brought scopes.
const ABI_SCOPES: libc::c_long = 6;

/// A rule set whose processes reach no abstract unix socket that a process outside of it made. Files, ports and signals are not
/// touched. landlock_create_ruleset(2); `None` on kernels before Linux 6.12 and without Landlock.
pub fn scope_abstract_sockets() -> io::Result<Option<OwnedFd>> {
    let nothing = std::ptr::null::<RulesetAttr>();
    // SAFETY: a null rule set of size zero with this flag asks for a number only.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            nothing,
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    if abi < ABI_SCOPES {
        return Ok(None);
    }
    let attr = RulesetAttr {
        handled_access_fs: 0,
        handled_access_net: 0,
        scoped: SCOPE_ABSTRACT_UNIX_SOCKET,
    };
    // SAFETY: `attr` lives through the call, has the kernel's layout and its size is passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attr,
            size_of::<RulesetAttr>(),
            0u32,
        )
    };
    raw::owned(ret).map(Some)
}

/// Puts this thread under the rule set for good. landlock_restrict_self(2). Needs CAP_SYS_ADMIN or no_new_privs.
pub fn restrict_self(ruleset: impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call and the flags are a plain number.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_landlock_restrict_self,
            ruleset.as_fd().as_raw_fd(),
            0u32,
        )
    };
    raw::check(ret).map(drop)
}
