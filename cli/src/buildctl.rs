//! The program under the name `buildctl`: the commands, flags and output of BuildKit's client.
//!
//! Scripts, health probes and the drivers of `docker buildx` call it (`buildctl debug workers`, `buildctl dial-stdio`). What it prints
//! to standard output is compared with the real one byte for byte; progress and errors are worded as `rbuild` words them.

mod args;
mod build;
mod debug;
mod format;
mod log;
mod metrics;
mod records;
mod template;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use client::Client;

use self::args::{Arguments, Command};
use crate::connection;
use crate::failure::{self, CalledAs, CliError};
use crate::interrupt::interrupted;
use crate::progress::text::harmless_lines;

/// Runs the program, without the name that it was called by.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments =
        match Arguments::try_parse_from(std::iter::once("buildctl".into()).chain(arguments)) {
            Ok(arguments) => arguments,
            Err(error) => {
                let _closed = error.print();
                return if error.use_stderr() {
                    ExitCode::FAILURE
                } else {
                    ExitCode::SUCCESS
                };
            }
        };
    if arguments.version {
        return match print(&format!("buildctl {}\n", daemon::version_line())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
    }
    if let Err(error) = log::begin(
        arguments.connection.log_format(),
        arguments.connection.debug(),
    ) {
        return fail(&error);
    }
    let Some(command) = arguments.command else {
        let _closed = Arguments::command().print_help();
        return ExitCode::SUCCESS;
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(source) => return fail(&CliError::Runtime { source }),
    };
    let outcome = runtime.block_on(run(&arguments.connection, command));
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &CliError) -> ExitCode {
    let text = format!("error: {}\n", harmless_lines(&error.to_string()));
    let _closed = io::stderr().write_all(text.as_bytes());
    if let Some(hint) = failure::hint_line(error, CalledAs::Buildctl) {
        let _closed = io::stderr().write_all(hint.as_bytes());
    }
    ExitCode::FAILURE
}

async fn run(connection: &args::Connection, command: Command) -> Result<(), CliError> {
    let reach = connection.reach();
    if let Command::DialStdio = command {
        return crate::commands::dial_stdio(&reach, "buildctl").await;
    }
    let client = connection::named_or_default(&reach, "buildctl", connection.patience()).await?;
    tokio::select! {
        outcome = Box::pin(execute(&client, command)) => outcome,
        code = interrupted() => Err(CliError::Interrupted { code }),
    }
}

async fn execute(client: &Client, command: Command) -> Result<(), CliError> {
    match command {
        Command::Du(flags) => records::du(client, flags).await,
        Command::Prune(flags) => records::prune(client, flags).await,
        Command::PruneHistories { format } => {
            records::prune_histories(client, format.as_deref()).await
        }
        Command::Build(flags) => build::run(client, *flags).await,
        Command::Debug { what } => debug::run(client, what).await,
        Command::DialStdio => Ok(()),
    }
}

/// Writes words of a daemon to standard output.
fn print(text: &str) -> Result<(), CliError> {
    io::stdout()
        .lock()
        .write_all(harmless_lines(text).as_bytes())
        .map_err(CliError::io("cannot write to standard output"))
}
