//! The daemon's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::launcher_dispatch();
    daemon::program::main()
}
