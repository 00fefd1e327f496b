//! The command rbuild: buildctl-compatible commands and progress display.
//!
//! `args` is the command line, `connection` finds or starts a daemon (`embedded`), `build` and `commands` do the work,
//! `progress` shows it, and `failure` says what went wrong.

pub mod args;
pub mod build;
mod commands;
mod connection;
mod embedded;
mod failure;
mod interrupt;
pub mod progress;
pub mod spec;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command, Debug};
use crate::connection::Connected;
use crate::failure::CliError;
use crate::interrupt::interrupted;

/// Runs the program: parses the command line, does what it says, and tells how it went.
#[must_use]
pub fn main() -> ExitCode {
    let program = std::env::args().next().unwrap_or_default();
    let cli = Cli::parse();
    if cli.connection.debug {
        let filter = tracing_subscriber::EnvFilter::new(
            "debug,h2=warn,hyper=warn,tower=warn,tonic=warn,rustls=warn,hyper_util=warn",
        );
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .init();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&CliError::Runtime { source: error }),
    };
    let outcome = runtime.block_on(Box::pin(run(cli, &program)));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Findings { code }) => ExitCode::from(code),
        Err(error @ CliError::Interrupted { code }) => {
            fail(&error);
            ExitCode::from(code)
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &CliError) -> ExitCode {
    // Nobody to tell is no other failure.
    let _closed = io::stderr().write_all(failure::told(error).as_bytes());
    ExitCode::FAILURE
}

async fn run(cli: Cli, program: &str) -> Result<(), CliError> {
    let Cli {
        connection,
        command,
    } = cli;
    if let Command::DialStdio = command {
        return commands::dial_stdio(&connection, program).await;
    }
    if let Command::Debug {
        what: Debug::Fsck { root, deep },
    } = &command
    {
        // No daemon is asked, and none may have the directory.
        return commands::fsck(root.clone(), *deep).await;
    }
    let allow = match &command {
        Command::Build(build) => build.entitlements(),
        Command::Du { .. } | Command::Prune(_) | Command::Debug { .. } | Command::DialStdio => {
            Vec::new()
        }
    };
    let connected = Connected::open(&connection, program, &allow).await?;
    let client = connected.client();
    let outcome = match command {
        // A build ends its display before it ends.
        Command::Build(build) => Box::pin(build::run(client, build)).await,
        other @ (Command::Du { .. }
        | Command::Prune(_)
        | Command::Debug { .. }
        | Command::DialStdio) => tokio::select! {
            outcome = small(client, other) => outcome,
            code = interrupted() => Err(CliError::Interrupted { code }),
        },
    };
    tokio::select! {
        () = connected.close() => {}
        // Somebody has no patience.
        _ = interrupted() => {}
    }
    outcome
}

async fn small(client: &client::Client, command: Command) -> Result<(), CliError> {
    match command {
        Command::Du { filter, verbose } => commands::du(client, filter, verbose).await,
        Command::Prune(flags) => commands::prune(client, flags).await,
        Command::Debug { what } => commands::debug(client, what).await,
        Command::Build(_) | Command::DialStdio => Ok(()),
    }
}
