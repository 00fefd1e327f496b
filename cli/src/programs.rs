//! One program with several names, as BuildKit's images have several programs.
//!
//! | name | what it is |
//! |---|---|
//! | `rbuild` | the client with a daemon inside |
//! | `rbuildd`, `buildkitd` | the daemon, with its own default places or with those of BuildKit |
//! | `buildctl` | BuildKit's client: commands, flags, output |
//! | `rootlesskit` | starts the program that stands after its flags: a daemon of ours needs no helper around it |

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// Runs the program whose name it was called by.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let called = called.to_string_lossy();
    match called.rsplit('/').next().unwrap_or_default() {
        "buildctl" => crate::buildctl::main(arguments),
        "buildkitd" | "rbuildd" => daemon::program::main(),
        "rootlesskit" => rootlesskit(arguments.collect()),
        _ => crate::main(),
    }
}

/// Flags of rootlesskit 3 that take a value, which may be the next argument.
const WITH_VALUE: [&str; 18] = [
    "state-dir",
    "net",
    "mtu",
    "cidr",
    "ifname",
    "port-driver",
    "publish",
    "p",
    "copy-up",
    "copy-up-mode",
    "propagation",
    "slirp4netns-binary",
    "slirp4netns-sandbox",
    "slirp4netns-seccomp",
    "pasta-binary",
    "lxc-user-nic-binary",
    "subid-source",
    "evacuate-cgroup2",
];

fn rootlesskit(arguments: Vec<OsString>) -> ExitCode {
    let mut command = after_flags(&arguments).iter();
    let Some(program) = command.next() else {
        eprintln!(
            "rootlesskit: no command; this is a stand-in that starts what follows its flags, as in: rootlesskit buildkitd"
        );
        return ExitCode::FAILURE;
    };
    // Comes back only if it fails.
    let error = Command::new(program).args(command).exec();
    eprintln!("rootlesskit: cannot start {}: {error}", program.display());
    ExitCode::FAILURE
}

/// The command that stands behind flags.
fn after_flags(arguments: &[OsString]) -> &[OsString] {
    let mut index = 0;
    while let Some(argument) = arguments.get(index) {
        let text = argument.to_string_lossy();
        if text == "--" {
            index += 1;
            break;
        }
        let Some(flag) = text.strip_prefix('-') else {
            break;
        };
        let flag = flag.trim_start_matches('-');
        index += if WITH_VALUE.contains(&flag) { 2 } else { 1 };
    }
    arguments.get(index..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_rootlesskit_stands_after_its_flags() {
        for (line, command) in [
            ("buildkitd --debug", "buildkitd --debug"),
            ("--net=host buildkitd", "buildkitd"),
            (
                "--net host --copy-up=/etc --disable-host-loopback buildkitd --addr x",
                "buildkitd --addr x",
            ),
            ("-p 127.0.0.1:1:1/tcp -- --odd", "--odd"),
            ("--net", ""),
            ("", ""),
        ] {
            let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let expected: Vec<OsString> = command.split_whitespace().map(OsString::from).collect();
            assert_eq!(after_flags(&arguments), expected, "{line}");
        }
    }
}
