//! Installs system call filters.

use std::io;

use crate::raw;

/// One instruction of classic BPF, as struct sock_filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

/// Puts a filter on this thread for good. seccomp(2), Linux 3.17. Needs CAP_SYS_ADMIN or no_new_privs.
pub fn install(filter: &[Instruction]) -> io::Result<()> {
    install_with(filter, 0).map(drop)
}

/// The same with more flags; returns what the call returns.
pub(crate) fn install_with(
    filter: &[Instruction],
    flags: libc::c_ulong,
) -> io::Result<libc::c_long> {
    let program = Program {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr(),
    };
    // SAFETY: `program` and the instructions it points to live through the call, and the kernel copies and verifies them.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | flags,
            &raw const program,
        )
    };
    raw::check(ret)
}

const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
