//! The filter every confined step runs under, compiled to BPF.
//!
//! One section per architecture the kernel runs programs of; within it a binary search over ranges of numbers, so a call costs some ten
//! instructions. An architecture that has no section ends the process.

mod numbers;
mod profile;

use std::collections::BTreeMap;

use sys::caps;
use sys::seccomp::Instruction;

use numbers::NUMBERS;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Allow,
    Refuse,
    Unknown,
    IfSocketFamily,
    IfPersonality,
    IfNoNamespace,
}

/// The architectures that the filter of this one covers: the number in `seccomp_data` and the column of the table.
const ARCHITECTURES: &[(u32, usize)] = if cfg!(target_arch = "x86_64") {
    &[(0xc000_003e, 0), (0x4000_0003, 1)]
} else if cfg!(target_arch = "aarch64") {
    &[(0xc000_00b7, 2), (0x4000_0028, 3)]
} else {
    &[]
};

const X86_64: u32 = 0xc000_003e;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_GREATER: u16 = 0x25;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_FIRST_ARGUMENT: u32 = 16;

/// Compiles the filter for a process with these capabilities; `None` on an architecture without a table, which must then not run
/// confined steps.
pub fn compile(capabilities: caps::Set) -> Option<Vec<Instruction>> {
    if ARCHITECTURES.is_empty() {
        return None;
    }
    let mut code = vec![op(LOAD, OFFSET_ARCHITECTURE)];
    for (architecture, column) in ARCHITECTURES {
        let section = section(*architecture, *column, capabilities);
        // Over the section unless it is this architecture's.
        code.push(jump(JUMP_EQUAL, *architecture, 1, 0));
        code.push(op(JUMP, u32::try_from(section.len()).ok()?));
        code.extend(section);
    }
    code.push(op(RETURN, RET_KILL_PROCESS));
    (code.len() <= 4096).then_some(code)
}

/// The same profile in the words of the OCI runtime specification, for runtimes that compile it themselves.
pub fn oci_profile(capabilities: caps::Set) -> serde_json::Value {
    use serde_json::json;
    let mut names: Vec<&str> = profile::ALLOWED.to_vec();
    let mut refused = vec!["clone3"];
    for (capability, more) in profile::WITH_CAPABILITY {
        if capabilities.has(capability) {
            names.extend(*more);
            refused.retain(|name| !more.contains(name));
        }
    }
    let allow = "SCMP_ACT_ALLOW";
    let when = |name: &str, value: u64, op: &str| json!({"names": [name], "action": allow, "args": [{"index": 0, "value": value, "op": op}]});
    let mut rules = vec![json!({"names": names, "action": allow})];
    rules.extend(
        profile::PERSONALITIES.map(|value| when("personality", value.into(), "SCMP_CMP_EQ")),
    );
    rules.push(when(
        "socket",
        u64::from(profile::LAST_COMMON_FAMILY) + 1,
        "SCMP_CMP_LT",
    ));
    rules
        .extend(profile::FURTHER_FAMILIES.map(|value| when("socket", value.into(), "SCMP_CMP_EQ")));
    if !refused.is_empty() {
        rules.push(when(
            "clone",
            profile::CLONE_NAMESPACES.into(),
            "SCMP_CMP_MASKED_EQ",
        ));
        rules.push(json!({"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    let architectures = if cfg!(target_arch = "x86_64") {
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    } else {
        json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    };
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "architectures": architectures, "syscalls": rules})
}

fn op(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn section(architecture: u32, column: usize, capabilities: caps::Set) -> Vec<Instruction> {
    let mut code = vec![op(LOAD, OFFSET_NUMBER)];
    if architecture == X86_64 {
        // DIFFERS: x32 programs get ENOSYS, as from a kernel without x32, where Docker's profile lets them run on kernels with it.
        code.push(jump(JUMP_GREATER_EQUAL, 0x4000_0000, 0, 1));
        code.push(op(RETURN, RET_ERRNO | ENOSYS));
    }
    code.extend(search(&ranges(&actions(column, capabilities))));
    code
}

/// What happens to each number that is named at all.
fn actions(column: usize, capabilities: caps::Set) -> BTreeMap<u32, Action> {
    let mut by_name: BTreeMap<&str, Action> = profile::ALLOWED
        .iter()
        .map(|name| (*name, Action::Allow))
        .collect();
    by_name.insert("socket", Action::IfSocketFamily);
    by_name.insert("personality", Action::IfPersonality);
    by_name.insert("clone", Action::IfNoNamespace);
    by_name.insert("clone3", Action::Unknown);
    for (capability, names) in profile::WITH_CAPABILITY {
        for name in *names {
            if capabilities.has(capability) {
                by_name.insert(name, Action::Allow);
            } else {
                by_name.entry(name).or_insert(Action::Refuse);
            }
        }
    }
    let number = |numbers: &[i32; 4]| {
        numbers
            .get(column)
            .and_then(|number| u32::try_from(*number).ok())
    };
    NUMBERS
        .iter()
        .filter_map(|(name, numbers)| Some((number(numbers)?, *by_name.get(name)?)))
        .collect()
}

/// The numbers as ranges: each entry holds from its number to the next entry's.
fn ranges(actions: &BTreeMap<u32, Action>) -> Vec<(u32, Action)> {
    let mut ranges = vec![(0, Action::Refuse)];
    let mut push = |from, action| {
        if ranges.last().is_some_and(|(_, last)| *last == action) {
            return;
        }
        ranges.retain(|(start, _)| *start != from);
        ranges.push((from, action));
    };
    let mut next = 0;
    // arm has a few private calls far above the common ones; they do not make everything in between known.
    let newest = actions
        .keys()
        .copied()
        .filter(|number| *number < 0xf_0000)
        .max()
        .unwrap_or(0);
    for (number, action) in actions {
        if *number > next {
            push(
                next,
                if next > newest {
                    Action::Unknown
                } else {
                    Action::Refuse
                },
            );
        }
        push(*number, *action);
        next = number + 1;
    }
    push(next, Action::Unknown);
    ranges
}

/// A binary search over the ranges, with the action of each at its leaf.
fn search(ranges: &[(u32, Action)]) -> Vec<Instruction> {
    let middle = ranges.len() / 2;
    let (below, above) = ranges.split_at(middle);
    let Some((border, action)) = above.first() else {
        return act(Action::Refuse);
    };
    if below.is_empty() {
        return act(*action);
    }
    let (below, above) = (search(below), search(above));
    let mut code = Vec::with_capacity(below.len() + above.len() + 2);
    match u8::try_from(below.len()) {
        Ok(over) => code.push(jump(JUMP_GREATER_EQUAL, *border, over, 0)),
        Err(_) => {
            code.push(jump(JUMP_GREATER_EQUAL, *border, 0, 1));
            code.push(op(JUMP, u32::try_from(below.len()).unwrap_or(u32::MAX)));
        }
    }
    code.extend(below);
    code.extend(above);
    code
}

fn act(action: Action) -> Vec<Instruction> {
    let allow = op(RETURN, RET_ALLOW);
    let refuse = op(RETURN, RET_ERRNO | EPERM);
    let load_low = op(LOAD, OFFSET_FIRST_ARGUMENT);
    let load_high = op(LOAD, OFFSET_FIRST_ARGUMENT + 4);
    let among = |values: &[u32]| -> Vec<Instruction> {
        let count = values.len();
        let to_allow = |index: usize| u8::try_from(count - index).unwrap_or(u8::MAX);
        let mut code: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(index, value)| jump(JUMP_EQUAL, *value, to_allow(index), 0))
            .collect();
        code.extend([refuse, allow]);
        code
    };
    match action {
        Action::Allow => vec![allow],
        Action::Refuse => vec![refuse],
        Action::Unknown => vec![op(RETURN, RET_ERRNO | ENOSYS)],
        Action::IfNoNamespace => vec![
            load_low,
            jump(JUMP_SET, profile::CLONE_NAMESPACES, 0, 1),
            refuse,
            allow,
        ],
        Action::IfPersonality => {
            let mut code = vec![load_high, jump(JUMP_EQUAL, 0, 1, 0), refuse, load_low];
            code.extend(among(&profile::PERSONALITIES));
            code
        }
        Action::IfSocketFamily => {
            let mut code = vec![load_high, jump(JUMP_EQUAL, 0, 1, 0), refuse, load_low];
            code.extend([jump(JUMP_GREATER, profile::LAST_COMMON_FAMILY, 1, 0), allow]);
            code.extend(among(&profile::FURTHER_FAMILIES));
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel would.
    fn run(code: &[Instruction], architecture: u32, number: u32, argument: u64) -> u32 {
        let (mut at, mut acc) = (0usize, 0u32);
        loop {
            let i = code[at];
            at += 1;
            let test = match i.code {
                LOAD => {
                    acc = match i.k {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCHITECTURE => architecture,
                        OFFSET_FIRST_ARGUMENT => u32::try_from(argument & 0xffff_ffff).unwrap(),
                        20 => u32::try_from(argument >> 32).unwrap(),
                        other => panic!("loads {other}"),
                    };
                    continue;
                }
                JUMP => {
                    at += i.k as usize;
                    continue;
                }
                RETURN => return i.k,
                JUMP_EQUAL => acc == i.k,
                JUMP_GREATER_EQUAL => acc >= i.k,
                JUMP_GREATER => acc > i.k,
                JUMP_SET => acc & i.k != 0,
                other => panic!("operation {other}"),
            };
            at += usize::from(if test { i.jt } else { i.jf });
        }
    }

    const OK: u32 = RET_ALLOW;
    const NO: u32 = RET_ERRNO | EPERM;
    const NEW: u32 = RET_ERRNO | ENOSYS;
    const I386: u32 = 0x4000_0003;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_filter_decides_as_dockers_profile_does() {
        let code = compile(crate::launcher::default_capabilities()).unwrap();
        let cases: &[(u32, u32, u64, u32, &str)] = &[
            (X86_64, 0, 0, OK, "read"),
            (X86_64, 165, 0, NO, "mount"),
            (X86_64, 161, 0, OK, "chroot, with its capability"),
            (X86_64, 304, 0, NO, "open_by_handle_at"),
            (
                X86_64,
                435,
                0,
                NEW,
                "clone3, so that libc falls back to clone",
            ),
            (X86_64, 56, 0x11, OK, "clone as fork does it"),
            (X86_64, 56, 0x1000_0011, NO, "clone into a user namespace"),
            (X86_64, 41, 2, OK, "socket AF_INET"),
            (X86_64, 41, 38, NO, "socket AF_ALG"),
            (X86_64, 41, 40, NO, "socket AF_VSOCK"),
            (X86_64, 41, 44, OK, "socket AF_XDP"),
            (X86_64, 41, 46, NO, "socket of an unknown family"),
            (X86_64, 41, 1 << 32 | 38, NO, "socket with high bits"),
            (X86_64, 135, 0xffff_ffff, OK, "personality asked for"),
            (X86_64, 135, 0x4_0000, NO, "personality ADDR_NO_RANDOMIZE"),
            (X86_64, 425, 0, NO, "io_uring_setup"),
            (X86_64, 248, 0, NO, "add_key"),
            (X86_64, 250, 0, NO, "keyctl"),
            (X86_64, 272, 0, NO, "unshare"),
            (X86_64, 321, 0, NO, "bpf"),
            (X86_64, 334, 0, OK, "rseq"),
            (X86_64, 467, 0, NEW, "a call newer than the profile"),
            (X86_64, 5000, 0, NEW, "a call of the far future"),
            (X86_64, 0x4000_0000, 0, NEW, "x32 read"),
            (I386, 3, 0, OK, "i386 read"),
            (I386, 21, 0, NO, "i386 mount"),
            (I386, 359, 38, NO, "i386 socket AF_ALG"),
            (
                I386,
                120,
                0x1000_0000,
                NO,
                "i386 clone into a user namespace",
            ),
            (
                0xc000_00b7,
                63,
                0,
                RET_KILL_PROCESS,
                "an architecture this machine does not run",
            ),
        ];
        for (architecture, number, argument, want, what) in cases {
            assert_eq!(
                run(&code, *architecture, *number, *argument),
                *want,
                "{what}"
            );
        }
        let admin = compile(caps::Set(u64::MAX)).unwrap();
        assert_eq!(run(&admin, X86_64, 165, 0), OK, "mount with SYS_ADMIN");
        assert_eq!(
            run(&admin, X86_64, 56, 0x1000_0011),
            OK,
            "clone with SYS_ADMIN"
        );
    }

    #[test]
    fn every_name_in_the_profile_has_a_number() {
        for name in profile::ALLOWED.iter().chain(
            profile::WITH_CAPABILITY
                .iter()
                .flat_map(|(_, names)| *names),
        ) {
            assert!(NUMBERS.iter().any(|(known, _)| known == name), "{name}");
        }
    }
}
