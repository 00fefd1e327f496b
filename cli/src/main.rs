//! The command rbuild: buildctl-compatible commands and progress display.

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::launcher_dispatch();
    cli::main()
}
