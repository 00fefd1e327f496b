//! The daemon's program.

use std::process::ExitCode;

use clap::Parser as _;
use daemon::{Args, Defaults, Settings};

fn main() -> ExitCode {
    daemon::launcher_dispatch();
    let program = std::env::args().next().unwrap_or_default();
    let args = Args::parse();
    let settings = match Settings::load(&args, &Defaults::of(&program)) {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment is read where the process begins"
    )]
    let directives = std::env::var("RUST_LOG").ok();
    daemon::logs::begin(&settings, directives.as_deref());
    let reread = move || match Settings::load(&args, &Defaults::of(&program)) {
        Ok(settings) => daemon::logs::change(&settings, directives.as_deref()),
        Err(error) => {
            let error = oci::error::chain(&error);
            tracing::warn!(
                error,
                "the configuration cannot be read again: the log level stays"
            );
        }
    };
    let stop = match daemon::signals::heard(reread) {
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
        daemon::run(settings, ready, stop).await
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
