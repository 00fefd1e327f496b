//! The daemon's program.

use std::process::ExitCode;

use clap::Parser as _;
use daemon::{Args, Defaults, Settings};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    daemon::launcher_dispatch();
    let program = std::env::args().next().unwrap_or_default();
    let args = Args::parse();
    let settings = match Settings::load(&args, &Defaults::of(&program)) {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    log_to_stderr(&settings);
    let stop = match daemon::signals::heard() {
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

fn log_to_stderr(settings: &Settings) {
    let level = &settings.log_level;
    let filter = EnvFilter::new(format!(
        "{level},h2=warn,hyper=warn,tower=warn,tonic=warn,rustls=warn,reqwest=warn,hyper_util=warn"
    ));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if settings.log_json {
        logs.json().init();
    } else {
        logs.with_ansi(false).init();
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("rbuildd: {}", oci::error::chain(error));
    ExitCode::FAILURE
}
