//! The program of the fuzz targets: a fuzzer with the feature `libfuzzer`, a player of inputs without it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people: its streams are its output"
)]
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(feature = "libfuzzer")]
mod driver {
    use std::sync::OnceLock;

    use rbuild_fuzz::{TARGETS, Target};

    static TARGET: OnceLock<Target> = OnceLock::new();

    fn target() -> Target {
        *TARGET.get_or_init(|| {
            let name = std::env::var_os("RBUILD_FUZZ").unwrap_or_default();
            Target::named(&name.to_string_lossy()).unwrap_or_else(|| {
                let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
                panic!("RBUILD_FUZZ must name a target: {}", names.join(", "))
            })
        })
    }

    libfuzzer_sys::fuzz_target!(|input: &[u8]| target().run(input));
}

#[cfg(not(feature = "libfuzzer"))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    use rbuild_fuzz::{TARGETS, Target};

    let mut args = std::env::args().skip(1);
    let Some(target) = args.next().as_deref().and_then(Target::named) else {
        eprintln!("usage: rbuild-fuzz TARGET FILE…\n\ntargets:");
        for target in TARGETS {
            eprintln!("  {:<12} {}", target.name, target.reads);
        }
        return ExitCode::from(2);
    };
    for file in args {
        match std::fs::read(&file) {
            Ok(input) => target.run(&input),
            Err(error) => {
                eprintln!("cannot read {file}: {error}");
                return ExitCode::FAILURE;
            }
        }
        println!("{file}: held");
    }
    ExitCode::SUCCESS
}
