//! Device control of v2 control groups, which is a BPF program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::raw;

/// A character device that may be opened; `minor` `None` is all of that major.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CharDevice {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: Option<u32>,
}

/// A loaded program that decides about devices.
#[derive(Debug)]
pub struct DeviceProgram(OwnedFd);

#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x55;
const MOVE: u8 = 0xb7;
const EXIT: u8 = 0x95;

fn op(code: u8, registers: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction {
        code,
        registers,
        offset,
        immediate: immediate.cast_signed(),
    }
}

/// Any node may be made; only the listed character devices may be opened; block devices never.
fn device_code(allowed: &[CharDevice]) -> Vec<Instruction> {
    let allow = [op(MOVE, 0, 0, 1), op(EXIT, 0, 0, 0)];
    // r2 type, r3 access, r4 major, r5 minor of the context in r1: { access << 16 | type, major, minor }.
    let mut code = vec![
        op(LOAD_WORD, 0x12, 0, 0),
        op(AND, 0x02, 0, 0xffff),
        op(LOAD_WORD, 0x13, 0, 0),
        op(SHIFT_RIGHT, 0x03, 0, 16),
        op(LOAD_WORD, 0x14, 4, 0),
        op(LOAD_WORD, 0x15, 8, 0),
        // Access is mknod alone.
        op(JUMP_NOT_EQUAL, 0x03, 2, 1),
    ];
    code.extend(allow);
    // Not a character device.
    code.extend([op(
        JUMP_NOT_EQUAL,
        0x02,
        i16::try_from(allowed.len()).unwrap_or(0) * 4,
        2,
    )]);
    let rules = code.len();
    for device in allowed {
        match device.minor {
            Some(minor) => code.extend([
                op(JUMP_NOT_EQUAL, 0x04, 3, device.major),
                op(JUMP_NOT_EQUAL, 0x05, 2, minor),
            ]),
            // Padded, so that every rule has four instructions.
            None => code.extend([op(JUMP_NOT_EQUAL, 0x04, 3, device.major), op(MOVE, 0, 0, 1)]),
        }
        code.extend(allow);
    }
    debug_assert_eq!(code.len(), rules + allowed.len() * 4);
    code.extend([op(MOVE, 0, 0, 0), op(EXIT, 0, 0, 0)]);
    code
}

/// Loads a program that lets any node be made and only the listed devices be opened. bpf(2) BPF_PROG_LOAD, Linux 4.15.
pub fn load_device_program(allowed: &[CharDevice]) -> io::Result<DeviceProgram> {
    let code = device_code(allowed);
    let attr = LoadAttr {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(code.len()).map_err(io::Error::other)?,
        instructions: code.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        ..LoadAttr::default()
    };
    // SAFETY: `attr`, the instructions and the licence live through the call; the kernel reads them, verifies the code and writes nothing.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            size_of::<LoadAttr>(),
        )
    };
    raw::owned(ret).map(DeviceProgram)
}

/// Attaches the program to a control group, beside those of its ancestors. bpf(2) BPF_PROG_ATTACH.
pub fn attach_device_program(program: &DeviceProgram, cgroup: impl AsFd) -> io::Result<()> {
    let attr = AttachAttr {
        target: cgroup.as_fd().as_raw_fd().cast_unsigned(),
        program: program.0.as_raw_fd().cast_unsigned(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        replace: 0,
    };
    // SAFETY: `attr` lives through the call and both descriptors are open; the kernel writes nothing.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attr,
            size_of::<AttachAttr>(),
        )
    };
    raw::check(ret).map(drop)
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

#[derive(Default)]
#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct AttachAttr {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replace: u32,
}
