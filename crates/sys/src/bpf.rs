//! Device control of v2 control groups, which is a BPF program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::raw;

/// Devices that may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Block devices; else character devices.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number; `None` is all of that major.
    pub minor: Option<u32>,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
}

impl DeviceRule {
    /// A character device that may be read and written.
    pub const fn character(major: u32, minor: Option<u32>) -> Self {
        Self {
            block: false,
            major,
            minor,
            read: true,
            write: true,
        }
    }
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
const MOVE_REGISTER: u8 = 0xbf;
const EXIT: u8 = 0x95;

fn op(code: u8, registers: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction {
        code,
        registers,
        offset,
        immediate: immediate.cast_signed(),
    }
}

/// How many instructions each rule has.
const INSTRUCTIONS_PER_RULE: usize = 8;

/// Any node may be made; only the listed devices may be opened, and only in the way that is listed.
fn device_code(allowed: &[DeviceRule]) -> Vec<Instruction> {
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
    let rules = code.len();
    for device in allowed {
        // The bits of access that this rule does not give: mknod is 1, reading 2, writing 4.
        let missing = u32::from(!device.read) << 1 | u32::from(!device.write) << 2;
        code.extend([
            op(JUMP_NOT_EQUAL, 0x02, 7, if device.block { 1 } else { 2 }),
            op(JUMP_NOT_EQUAL, 0x04, 6, device.major),
            match device.minor {
                Some(minor) => op(JUMP_NOT_EQUAL, 0x05, 5, minor),
                // Nothing to compare; all rules are of one length.
                None => op(MOVE, 0, 0, 1),
            },
            op(MOVE_REGISTER, 0x36, 0, 0),
            op(AND, 0x06, 0, missing),
            op(JUMP_NOT_EQUAL, 0x06, 2, 0),
        ]);
        code.extend(allow);
    }
    debug_assert_eq!(code.len(), rules + allowed.len() * INSTRUCTIONS_PER_RULE);
    code.extend([op(MOVE, 0, 0, 0), op(EXIT, 0, 0, 0)]);
    code
}

/// Loads a program that lets any node be made and only the listed devices be opened. bpf(2) BPF_PROG_LOAD, Linux 4.15.
pub fn load_device_program(allowed: &[DeviceRule]) -> io::Result<DeviceProgram> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel gives a program: access and type, major, minor.
    type Context = [u32; 3];

    /// Runs a program the way that the kernel does, as far as these programs need it.
    fn run(code: &[Instruction], context: Context) -> u32 {
        let mut registers = [0_u32; 11];
        let mut at = 0;
        loop {
            let instruction = code[at];
            let target = usize::from(instruction.registers & 0xf);
            let source = usize::from(instruction.registers >> 4);
            let immediate = instruction.immediate.cast_unsigned();
            at += 1;
            match instruction.code {
                LOAD_WORD => {
                    assert_eq!(source, 1, "the context is in register 1");
                    registers[target] = context[usize::try_from(instruction.offset / 4).unwrap()];
                }
                AND => registers[target] &= immediate,
                SHIFT_RIGHT => registers[target] >>= immediate,
                JUMP_NOT_EQUAL => {
                    if registers[target] != immediate {
                        at += usize::try_from(instruction.offset).unwrap();
                    }
                }
                MOVE => registers[target] = immediate,
                MOVE_REGISTER => registers[target] = registers[source],
                EXIT => return registers[0],
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    const MAKE: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;
    const BLOCK: u32 = 1;
    const CHARACTER: u32 = 2;

    #[test]
    fn a_device_is_opened_only_as_a_rule_says_and_any_node_may_be_made() {
        let rules = [
            DeviceRule::character(1, Some(3)),
            DeviceRule::character(136, None),
            DeviceRule {
                block: true,
                major: 7,
                minor: Some(0),
                read: true,
                write: false,
            },
            DeviceRule {
                block: false,
                major: 10,
                minor: Some(200),
                read: false,
                write: true,
            },
        ];
        let code = device_code(&rules);
        let allows =
            |access, kind, major, minor| run(&code, [access << 16 | kind, major, minor]) == 1;
        for (access, kind, major, minor, allowed) in [
            (READ | WRITE, CHARACTER, 1, 3, true),
            (READ, CHARACTER, 1, 3, true),
            (READ | WRITE | MAKE, CHARACTER, 1, 3, true),
            (READ, CHARACTER, 1, 5, false),
            (READ, BLOCK, 1, 3, false),
            (READ | WRITE, CHARACTER, 136, 0, true),
            (READ | WRITE, CHARACTER, 136, 12345, true),
            (READ | WRITE, CHARACTER, 137, 0, false),
            (READ, BLOCK, 7, 0, true),
            (WRITE, BLOCK, 7, 0, false),
            (READ | WRITE, BLOCK, 7, 0, false),
            (WRITE, CHARACTER, 10, 200, true),
            (READ, CHARACTER, 10, 200, false),
            // Making a node opens nothing.
            (MAKE, BLOCK, 8, 0, true),
            (MAKE, CHARACTER, 1, 1, true),
            (MAKE | READ, BLOCK, 8, 0, false),
        ] {
            assert_eq!(
                allows(access, kind, major, minor),
                allowed,
                "{access} {kind} {major}:{minor}"
            );
        }
    }

    #[test]
    fn without_rules_nothing_is_opened() {
        let code = device_code(&[]);
        for access in [READ, WRITE, READ | WRITE] {
            assert_eq!(run(&code, [access << 16 | CHARACTER, 1, 3]), 0);
        }
        assert_eq!(run(&code, [MAKE << 16 | CHARACTER, 1, 3]), 1);
    }

    #[test]
    fn the_first_rule_that_fits_does_not_hide_a_later_one() {
        let read_only = DeviceRule {
            write: false,
            ..DeviceRule::character(1, Some(3))
        };
        let code = device_code(&[read_only, DeviceRule::character(1, None)]);
        assert_eq!(run(&code, [WRITE << 16 | CHARACTER, 1, 3]), 1);
    }
}
