//! The program rbuildd, from its command line to its exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::settings::{Args, Defaults, Settings};

/// Runs the daemon until it is told to stop, with the command line and the environment of the process.
///
/// The caller has called [`crate::launcher_dispatch`] before.
#[must_use]
pub fn main() -> ExitCode {
    let program = std::env::args().next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    if name == "buildkitd" && says_version(std::env::args().nth(1).as_deref()) {
        let line = format!("{name} {}\n", crate::wire::version_line());
        return match std::io::stdout().write_all(line.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
    }
    let args = Args::parse();
    // Before there is a second thread.
    let entered = match crate::rootless::enter() {
        Ok(entered) => entered,
        Err(error) => return fail(&error),
    };
    let warnings = [entered.warning(), crate::doctor::proc_warning()];
    let defaults = Defaults::here(&program);
    let mut settings = match Settings::load(&args, &defaults) {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    match crate::otel::from_environment(name) {
        Ok(otlp) => settings.otlp = otlp,
        Err(error) => return fail(&error),
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment is read where the process begins"
    )]
    let directives = std::env::var("RUST_LOG").ok();
    crate::logs::begin(&settings, directives.as_deref());
    for warning in warnings.into_iter().flatten() {
        tracing::warn!("{warning}");
    }
    let reread = move || match Settings::load(&args, &defaults) {
        Ok(settings) => crate::logs::change(&settings, directives.as_deref()),
        Err(error) => {
            let error = oci::error::chain(&error);
            tracing::warn!(
                error,
                "the configuration cannot be read again: the log level stays"
            );
        }
    };
    let stop = match crate::signals::listen(settings.drain_timeout, reread) {
        Ok(stop) => stop,
        Err(error) => return fail(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome = runtime.block_on(async {
        let (ready, _) = tokio::sync::oneshot::channel();
        crate::run(settings, ready, stop).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("rbuildd: {}", oci::error::chain(error));
    ExitCode::FAILURE
}

/// Whether the first argument asks for the version. `buildkitd` answers with four fields where `rbuildd` has two.
fn says_version(argument: Option<&str>) -> bool {
    matches!(argument, Some("--version" | "-v" | "-version"))
}
