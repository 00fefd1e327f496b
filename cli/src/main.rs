//! The program rbuild, under all of its names.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::launcher_dispatch();
    cli::programs::main()
}
