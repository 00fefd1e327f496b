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
    /// It returns 0 and does nothing.
    Pretend,
    IfSocketFamily,
    IfPersonality,
    IfNoNamespace,
    /// A node that is no device is made; a device's is asked for. The argument is the one with the mode.
    AskForDevice(u32),
    /// As [`Self::IfSocketFamily`], but packet sockets and raw ones of the internet are asked for.
    AskForRawSocket,
    /// Asked for, unless the address is too short for one of the internet.
    AskForAddress,
}

/// A call that a process in a user namespace has answered by the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Supervised {
    /// mknod(path, mode, device)
    Mknod,
    /// mknodat(folder, path, mode, device)
    Mknodat,
    /// socket(family, type, protocol)
    Socket,
    /// bind(socket, address, length)
    Bind,
}

/// Calls that change owners of files and ids of processes.
const IDS: [&str; 25] = [
    "chown",
    "chown32",
    "fchown",
    "fchown32",
    "fchownat",
    "lchown",
    "lchown32",
    "setfsgid",
    "setfsgid32",
    "setfsuid",
    "setfsuid32",
    "setgid",
    "setgid32",
    "setgroups",
    "setgroups32",
    "setregid",
    "setregid32",
    "setresgid",
    "setresgid32",
    "setresuid",
    "setresuid32",
    "setreuid",
    "setreuid32",
    "setuid",
    "setuid32",
];

const SUPERVISED: [(&str, Supervised, Action); 4] = [
    ("mknod", Supervised::Mknod, Action::AskForDevice(1)),
    ("mknodat", Supervised::Mknodat, Action::AskForDevice(2)),
    ("socket", Supervised::Socket, Action::AskForRawSocket),
    ("bind", Supervised::Bind, Action::AskForAddress),
];

/// The call that a notification is about.
pub(crate) fn supervised(architecture: u32, number: u32) -> Option<Supervised> {
    supervised_on(Machine::THIS?, architecture, number)
}

fn supervised_on(machine: Machine, architecture: u32, number: u32) -> Option<Supervised> {
    let mut architectures = machine.architectures().into_iter();
    let (_, column) = architectures.find(|(number, _)| *number == architecture)?;
    SUPERVISED.iter().find_map(|(name, call, _)| {
        let (_, numbers) = NUMBERS.iter().find(|(other, _)| other == name)?;
        let call_number = u32::try_from(*numbers.get(column)?).ok()?;
        (call_number == number).then_some(*call)
    })
}

/// A machine that steps run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// The one that this program was built for. None: there is no profile for it, and steps do not start.
    const THIS: Option<Self> = if cfg!(target_arch = "x86_64") {
        Some(Self::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Self::Aarch64)
    } else {
        None
    };

    /// The architectures whose programs it runs: the number in `seccomp_data` (`AUDIT_ARCH_*`) and the column of the table.
    fn architectures(self) -> [(u32, usize); 2] {
        match self {
            Self::X86_64 => [(X86_64, 0), (0x4000_0003, 1)],
            Self::Aarch64 => [(0xc000_00b7, 2), (0x4000_0028, 3)],
        }
    }

    /// The same in the words of the OCI runtime specification.
    fn oci_architectures(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            Self::Aarch64 => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        }
    }
}

const X86_64: u32 = 0xc000_003e;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_GREATER: u16 = 0x25;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
const AND: u16 = 0x54;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_FIRST_ARGUMENT: u32 = 16;

/// The low half of an argument.
const fn argument(index: u32) -> u32 {
    OFFSET_FIRST_ARGUMENT + 8 * index
}

/// The bits of a mode that tell a file's type, and those of devices.
const TYPE_BITS: u32 = 0xf000;
const CHARACTER_DEVICE: u32 = 0x2000;
const BLOCK_DEVICE: u32 = 0x6000;
/// Families and the type of sockets that need CAP_NET_RAW.
const FAMILY_INET: u32 = 2;
const FAMILY_INET6: u32 = 10;
const FAMILY_PACKET: u32 = 17;
const SOCKET_RAW: u32 = 3;
/// The bits of a socket's type that are no flags.
const SOCKET_TYPE_BITS: u32 = 0xf;
/// The shortest address of the internet, struct sockaddr_in.
const MIN_ADDRESS_BYTES: u32 = 16;

/// Compiles the filter for a process with these capabilities; `None` on an architecture without a table, which must then not run
/// confined steps.
pub fn compile(capabilities: caps::Set) -> Option<Vec<Instruction>> {
    assemble(Machine::THIS?, capabilities, Variant::Plain)
}

/// The same for the steps of a daemon that has one id: calls that change owners and ids do nothing and say that they did, so that package
/// managers work, which fail otherwise. Files stay the daemon's, and processes root.
pub(crate) fn compile_pretending(capabilities: caps::Set) -> Option<Vec<Instruction>> {
    assemble(Machine::THIS?, capabilities, Variant::Pretending)
}

/// The same for a process in a user namespace: what takes a capability over what belongs to the host is asked for. Nothing is allowed
/// that the other filter refuses.
pub(crate) fn compile_supervised(capabilities: caps::Set) -> Option<Vec<Instruction>> {
    assemble(Machine::THIS?, capabilities, Variant::Supervised)
}

/// Which filter it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Plain,
    Supervised,
    Pretending,
}

fn assemble(
    machine: Machine,
    capabilities: caps::Set,
    variant: Variant,
) -> Option<Vec<Instruction>> {
    let mut code = vec![op(LOAD, OFFSET_ARCHITECTURE)];
    for (architecture, column) in machine.architectures() {
        let section = section(architecture, actions(column, capabilities, variant));
        // Over the section unless it is this architecture's.
        code.push(jump(JUMP_EQUAL, architecture, 1, 0));
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
    let architectures = Machine::THIS.map_or(&[][..], Machine::oci_architectures);
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

fn section(architecture: u32, actions: BTreeMap<u32, Action>) -> Vec<Instruction> {
    let mut code = vec![op(LOAD, OFFSET_NUMBER)];
    if architecture == X86_64 {
        // DIFFERS: x32 programs get ENOSYS, as from a kernel without x32, where Docker's profile lets them run on kernels with it.
        code.push(jump(JUMP_GREATER_EQUAL, 0x4000_0000, 0, 1));
        code.push(op(RETURN, RET_ERRNO | ENOSYS));
    }
    code.extend(search(&ranges(&actions)));
    code
}

/// What happens to each number that is named at all.
fn actions(column: usize, capabilities: caps::Set, variant: Variant) -> BTreeMap<u32, Action> {
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
    match variant {
        Variant::Plain => {}
        Variant::Supervised => by_name.extend(SUPERVISED.map(|(name, _, action)| (name, action))),
        Variant::Pretending => by_name.extend(IDS.map(|name| (name, Action::Pretend))),
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
    let ask = op(RETURN, RET_USER_NOTIF);
    let load_low = op(LOAD, argument(0));
    let load_high = op(LOAD, argument(0) + 4);
    let allow_only = |values: &[u32]| -> Vec<Instruction> {
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
        Action::Pretend => vec![op(RETURN, RET_ERRNO)],
        Action::IfNoNamespace => vec![
            load_low,
            jump(JUMP_SET, profile::CLONE_NAMESPACES, 0, 1),
            refuse,
            allow,
        ],
        Action::IfPersonality => {
            let mut code = vec![load_high, jump(JUMP_EQUAL, 0, 1, 0), refuse, load_low];
            code.extend(allow_only(&profile::PERSONALITIES));
            code
        }
        // The kernel takes 16 bits of a mode, so what is above cannot hide a device.
        Action::AskForDevice(mode) => vec![
            op(LOAD, argument(mode)),
            op(AND, TYPE_BITS),
            jump(JUMP_EQUAL, CHARACTER_DEVICE, 1, 0),
            jump(JUMP_EQUAL, BLOCK_DEVICE, 0, 1),
            ask,
            allow,
        ],
        Action::AskForAddress => vec![
            op(LOAD, argument(2)),
            jump(JUMP_GREATER_EQUAL, MIN_ADDRESS_BYTES, 0, 1),
            ask,
            allow,
        ],
        Action::AskForRawSocket | Action::IfSocketFamily => {
            let mut code = vec![load_high, jump(JUMP_EQUAL, 0, 1, 0), refuse, load_low];
            if action == Action::AskForRawSocket {
                code.extend([
                    jump(JUMP_EQUAL, FAMILY_PACKET, 0, 1),
                    ask,
                    jump(JUMP_EQUAL, FAMILY_INET, 1, 0),
                    jump(JUMP_EQUAL, FAMILY_INET6, 0, 5),
                    op(LOAD, argument(1)),
                    op(AND, SOCKET_TYPE_BITS),
                    jump(JUMP_EQUAL, SOCKET_RAW, 0, 1),
                    ask,
                    allow,
                ]);
            }
            code.extend([jump(JUMP_GREATER, profile::LAST_COMMON_FAMILY, 1, 0), allow]);
            code.extend(allow_only(&profile::FURTHER_FAMILIES));
            code
        }
    }
}

#[cfg(test)]
mod tests;
