//! The program `rbuild`.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::launcher_dispatch();
    cli::main()
}
