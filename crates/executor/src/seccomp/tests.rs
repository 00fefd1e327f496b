use super::*;

/// Runs a filter as the kernel would.
fn run(code: &[Instruction], architecture: u32, number: u32, argument: u64) -> u32 {
    run_with(code, architecture, number, &[argument])
}

fn run_with(code: &[Instruction], architecture: u32, number: u32, args: &[u64]) -> u32 {
    let (mut at, mut acc) = (0usize, 0u32);
    loop {
        let i = code[at];
        at += 1;
        let test = match i.code {
            LOAD => {
                acc = match i.k {
                    OFFSET_NUMBER => number,
                    OFFSET_ARCHITECTURE => architecture,
                    other => {
                        let index = (other - OFFSET_FIRST_ARGUMENT) / 8;
                        let value = args[usize::try_from(index).unwrap()];
                        let high = other % 8 == 4;
                        u32::try_from(if high {
                            value >> 32
                        } else {
                            value & 0xffff_ffff
                        })
                        .unwrap()
                    }
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
            AND => {
                acc &= i.k;
                continue;
            }
            other => panic!("operation {other}"),
        };
        at += usize::from(if test { i.jt } else { i.jf });
    }
}

/// The filter of a machine with the capabilities that steps have.
fn filter(machine: Machine, variant: Variant) -> Vec<Instruction> {
    assemble(machine, crate::launcher::default_capabilities(), variant).unwrap()
}

const OK: u32 = RET_ALLOW;
const NO: u32 = RET_ERRNO | EPERM;
const NEW: u32 = RET_ERRNO | ENOSYS;
const I386: u32 = 0x4000_0003;

#[test]
fn the_filter_decides_as_dockers_profile_does() {
    let code = filter(Machine::X86_64, Variant::Plain);
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
    let admin = assemble(Machine::X86_64, caps::Set(u64::MAX), Variant::Plain).unwrap();
    assert_eq!(run(&admin, X86_64, 165, 0), OK, "mount with SYS_ADMIN");
    assert_eq!(
        run(&admin, X86_64, 56, 0x1000_0011),
        OK,
        "clone with SYS_ADMIN"
    );
}

#[test]
fn a_supervised_process_asks_for_devices_raw_sockets_and_addresses_and_may_nothing_more() {
    const ASK: u32 = RET_USER_NOTIF;
    let code = filter(Machine::X86_64, Variant::Supervised);
    let cases: &[(u32, u32, &[u64], u32, &str)] = &[
        (
            X86_64,
            133,
            &[0, 0o020_666],
            ASK,
            "mknod of a character device",
        ),
        (X86_64, 133, &[0, 0o060_600], ASK, "mknod of a block device"),
        (X86_64, 133, &[0, 0o010_666], OK, "mknod of a fifo"),
        (X86_64, 133, &[0, 0o100_666], OK, "mknod of a file"),
        (
            X86_64,
            133,
            &[0, 0xffff_0000 | 0o020_666],
            ASK,
            "mknod with bits that the kernel drops",
        ),
        (X86_64, 259, &[0, 0, 0o020_666], ASK, "mknodat of a device"),
        (
            X86_64,
            259,
            &[0, 0o020_666, 0o140_666],
            OK,
            "mknodat of a socket",
        ),
        (X86_64, 41, &[2, 3, 1], ASK, "a raw socket"),
        (
            X86_64,
            41,
            &[10, 3 | 0o2_004_000, 58],
            ASK,
            "a raw socket with flags",
        ),
        (X86_64, 41, &[2, 1, 0], OK, "TCP"),
        (X86_64, 41, &[10, 2, 0], OK, "UDP"),
        (X86_64, 41, &[17, 2, 0], ASK, "a packet socket"),
        (X86_64, 41, &[1, 3, 0], OK, "raw of another family"),
        (X86_64, 41, &[38, 3, 0], NO, "AF_ALG"),
        (
            X86_64,
            41,
            &[1 << 32 | 2, 3, 0],
            NO,
            "a family with high bits",
        ),
        (X86_64, 49, &[3, 0, 16], ASK, "bind to an internet address"),
        (X86_64, 49, &[3, 0, 12], OK, "bind to a netlink address"),
        (
            X86_64,
            49,
            &[3, 0, u64::MAX],
            ASK,
            "bind to a senseless length",
        ),
        (I386, 14, &[0, 0o020_666], ASK, "i386 mknod"),
        (I386, 297, &[0, 0, 0o060_666], ASK, "i386 mknodat"),
        (I386, 359, &[2, 3, 1], ASK, "i386 socket"),
        (I386, 361, &[3, 0, 16], ASK, "i386 bind"),
        (X86_64, 0x4000_0085, &[0, 0o020_666], NEW, "x32 mknod"),
    ];
    for (architecture, number, args, want, what) in cases {
        assert_eq!(
            run_with(&code, *architecture, *number, args),
            *want,
            "{what}"
        );
    }
    let plain = filter(Machine::X86_64, Variant::Plain);
    for number in 0..600 {
        for (architecture, args) in [(X86_64, [2; 6]), (I386, [2; 6]), (X86_64, [38; 6])] {
            let [asks, plain] = [&code, &plain].map(|c| run_with(c, architecture, number, &args));
            assert!(asks == plain || (asks, plain) == (ASK, OK), "call {number}");
            let call = supervised_on(Machine::X86_64, architecture, number);
            assert!(
                asks != ASK || call.is_some(),
                "call {number} has no supervisor"
            );
        }
    }
}

#[test]
fn a_pretending_filter_changes_no_owner_and_no_id_and_is_otherwise_the_plain_one() {
    const DONE: u32 = RET_ERRNO;
    let pretending = filter(Machine::X86_64, Variant::Pretending);
    let plain = filter(Machine::X86_64, Variant::Plain);
    for (architecture, number, what) in [
        (X86_64, 92, "chown"),
        (X86_64, 260, "fchownat"),
        (X86_64, 105, "setuid"),
        (X86_64, 116, "setgroups"),
        (X86_64, 117, "setresuid"),
        (I386, 212, "i386 chown32"),
        (I386, 213, "i386 setuid32"),
    ] {
        assert_eq!(run(&pretending, architecture, number, 0), DONE, "{what}");
    }
    for number in 0..600 {
        for architecture in [X86_64, I386] {
            let [pretends, plain] =
                [&pretending, &plain].map(|code| run_with(code, architecture, number, &[2; 6]));
            assert!(
                pretends == plain || (pretends, plain) == (DONE, OK),
                "call {number}"
            );
        }
    }
}

#[test]
fn the_filter_of_arm64_decides_as_that_of_x86_64() {
    const ARM64: u32 = 0xc000_00b7;
    const ARM: u32 = 0x4000_0028;
    let code = filter(Machine::Aarch64, Variant::Plain);
    let cases: &[(u32, u32, u64, u32, &str)] = &[
        (ARM64, 63, 0, OK, "read"),
        (ARM64, 40, 0, NO, "mount"),
        (ARM64, 51, 0, OK, "chroot, with its capability"),
        (ARM64, 435, 0, NEW, "clone3"),
        (ARM64, 220, 0x11, OK, "clone as fork does it"),
        (ARM64, 220, 0x1000_0011, NO, "clone into a user namespace"),
        (ARM64, 198, 2, OK, "socket AF_INET"),
        (ARM64, 198, 38, NO, "socket AF_ALG"),
        (ARM64, 92, 0x4_0000, NO, "personality ADDR_NO_RANDOMIZE"),
        (ARM64, 97, 0, NO, "unshare"),
        (ARM64, 5000, 0, NEW, "a call of the far future"),
        (ARM, 3, 0, OK, "arm read"),
        (ARM, 21, 0, NO, "arm mount"),
        (ARM, 0xf_0005, 0, OK, "arm set_tls"),
        (X86_64, 0, 0, RET_KILL_PROCESS, "a program of x86-64"),
    ];
    for (architecture, number, argument, action, what) in cases {
        let decided = run(&code, *architecture, *number, *argument);
        assert_eq!(decided, *action, "{what}");
    }
    let supervised = filter(Machine::Aarch64, Variant::Supervised);
    let mknodat = run_with(&supervised, ARM64, 33, &[0, 0, 0o020_666]);
    assert_eq!(mknodat, RET_USER_NOTIF, "mknodat of a device");
    assert!(supervised_on(Machine::Aarch64, ARM64, 33).is_some());
    let pretending = filter(Machine::Aarch64, Variant::Pretending);
    assert_eq!(run(&pretending, ARM64, 54, 0), RET_ERRNO, "fchownat");
}

/// Numbers that a header of Linux gives, by name. `__NR3264_` is what a machine of 64 bits calls without the number.
fn header_numbers(path: &str) -> BTreeMap<String, i32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut numbers = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some("#define"), Some(name), Some(number)) =
            (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let name = name
            .strip_prefix("__NR_")
            .or(name.strip_prefix("__NR3264_"));
        if let (Some(name), Ok(number)) = (name, number.parse()) {
            numbers.entry(name.to_owned()).or_insert(number);
        }
    }
    numbers
}

#[test]
fn the_numbers_are_those_of_the_kernels_headers() {
    // Column of the table, header of Debian's linux-libc-dev.
    let headers = [
        (0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        (1, "/usr/include/x86_64-linux-gnu/asm/unistd_32.h"),
        // arm64 has the numbers of all newer machines.
        (2, "/usr/include/asm-generic/unistd.h"),
    ];
    for (column, header) in headers {
        let numbers = header_numbers(header);
        if numbers.len() < 200 {
            testkit::skip::skip(&format!("no {header} (apt-get install linux-libc-dev)"));
            return;
        }
        for (name, row) in NUMBERS {
            let number = row[column];
            match numbers.get(*name) {
                // Of machines of 32 bits, in the same header.
                Some(403..=423) if column == 2 && number == -1 => {}
                Some(of_header) => assert_eq!(number, *of_header, "{name} in {header}"),
                // The header is older than the call, or the machine does not have it.
                None => {
                    let is_new = number > 440 || *name == "uretprobe";
                    assert!(number == -1 || is_new || column == 2, "{name}: {number}");
                }
            }
        }
    }
}

#[test]
fn every_name_in_the_profile_has_a_number() {
    for name in IDS.iter().chain(profile::ALLOWED).chain(
        profile::WITH_CAPABILITY
            .iter()
            .flat_map(|(_, names)| *names),
    ) {
        assert!(NUMBERS.iter().any(|(known, _)| known == name), "{name}");
    }
}
