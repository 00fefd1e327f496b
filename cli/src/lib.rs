//! The program `rbuild`: builds images and asks daemons, as BuildKit's `buildctl` does.
//!
//! `args` is the command line, `connection` finds or starts a daemon (`embedded`), `build` and `commands` do the work,
//! `progress` shows it, and `failure` says what went wrong.

pub mod args;
pub mod build;
mod buildctl;
mod commands;
mod connection;
mod embedded;
mod failure;
mod interrupt;
pub mod programs;
pub mod progress;
pub mod spec;

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use clap::Parser;
use client::Client;

use crate::args::{Cli, Command, Connection, Debug};
use crate::connection::DaemonConnection;
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
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
            .init();
    }
    if let Command::Doctor { root } = &cli.command {
        return commands::doctor(root.clone().unwrap_or_else(connection::state_directory));
    }
    // Before there is a second thread: an ordinary user's daemon in this process is root of a user namespace.
    let embeds = || connection::will_embed(&cli.connection, &program);
    if cli.command.works_on_state(embeds) {
        match daemon::rootless::enter() {
            Ok(entered) => {
                let warnings = [entered.warning(), daemon::doctor::proc_warning()];
                for warning in warnings.into_iter().flatten() {
                    let _closed = writeln!(io::stderr(), "warning: {warning}");
                }
            }
            Err(source) => return fail(&CliError::Embedded(source.into())),
        }
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
    tracing::debug!(kind = ?error.kind(), error = error as &dyn std::error::Error, "the program fails");
    // Standard error may be closed; the exit code says the same.
    let _closed = io::stderr().write_all(failure::last_lines(error).as_bytes());
    ExitCode::FAILURE
}

async fn run(cli: Cli, program: &str) -> Result<(), CliError> {
    let Cli {
        connection,
        command,
    } = cli;
    let lookup = DaemonLookup {
        connection: &connection,
        program,
    };
    match command {
        // Done before there was a second thread.
        Command::Doctor { .. } => Ok(()),
        Command::DialStdio => commands::dial_stdio(&connection, program).await,
        // No daemon is asked, and none may have the directory.
        Command::Debug {
            what: Debug::Fsck { root, deep },
        } => commands::fsck(root, deep).await,
        Command::Build(build) => {
            let allow = build.entitlements();
            // A build ends its display before it ends.
            let work = async |client: &Client| Box::pin(build::run(client, build)).await;
            with_daemon(lookup, &allow, work).await
        }
        Command::Du { filter, verbose } => {
            ask(lookup, async |client| {
                commands::du(client, filter, verbose).await
            })
            .await
        }
        Command::Prune(flags) => {
            ask(lookup, async |client| commands::prune(client, flags).await).await
        }
        Command::Debug { what: Debug::Info } => {
            ask(lookup, async |client| commands::info(client).await).await
        }
        Command::Debug {
            what: Debug::Workers { verbose },
        } => {
            ask(lookup, async |client| {
                commands::workers(client, verbose).await
            })
            .await
        }
    }
}

/// Where a daemon is looked for.
#[derive(Clone, Copy)]
struct DaemonLookup<'a> {
    connection: &'a Connection,
    /// The name that this program was started under.
    program: &'a str,
}

/// Does work with a daemon, which is stopped afterwards if it was started for it.
async fn with_daemon(
    lookup: DaemonLookup<'_>,
    allow: &[String],
    work: impl AsyncFnOnce(&Client) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let connected = DaemonConnection::open(lookup.connection, lookup.program, allow).await?;
    let outcome = work(connected.client()).await;
    tokio::select! {
        () = connected.close() => {}
        // Whoever interrupts a second time does not wait for the daemon.
        _ = interrupted() => {}
    }
    outcome
}

/// Asks a daemon something, unless the user interrupts.
async fn ask(
    lookup: DaemonLookup<'_>,
    work: impl AsyncFnOnce(&Client) -> Result<(), CliError>,
) -> Result<(), CliError> {
    with_daemon(lookup, &[], async |client| {
        tokio::select! {
            outcome = work(client) => outcome,
            code = interrupted() => Err(CliError::Interrupted { code }),
        }
    })
    .await
}
