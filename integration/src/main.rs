//! `rbuild-integration`: the reference's own test suites, run against our daemon.
//!
//! `setup` gets the tools, `images` makes stand-ins for the images that the suites take from a registry, `conformance`
//! runs a suite and compares, `cases` and `calls` drive daemons with real clients, `drivers` and `kubernetes` make our image and
//! let a real dockerd or a small cluster start it, `bench` measures both daemons in turn, `serve-mirror` offers the images to builds made by hand. Each
//! leaves alone what it finds done. Nothing here is part of the product.
#![allow(
    clippy::disallowed_methods,
    reason = "it drives processes and measures them in real time, as its environment says"
)]
#![allow(
    clippy::print_stdout,
    reason = "a command for people: standard output is its output"
)]

mod bench;
mod callcases;
mod cases;
mod causes;
mod charts;
mod conformance;
mod drivers;
mod images;
mod llb;
mod mirror;
mod outcome;
mod package;
mod paths;
mod process;
mod serve;
mod setup;
mod suite;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The reference's test suites and stand-in images.
#[derive(Debug, Parser)]
#[command(name = "rbuild-integration", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Get Debian packages, the reference's programs and its test binaries.
    Setup,
    /// Make the stand-in images into the mirror's folder.
    Images,
    /// Run the reference's suites against our daemon and compare with the committed lists.
    Conformance(conformance::Options),
    /// Measure our daemon beside the reference's, row by row of the budget's table.
    Bench(bench::Options),
    /// Compare the three clients' answers to questions, and how they show builds, on both daemons.
    Calls(callcases::Options),
    /// Drive a daemon with real clients: acceptance, case by case.
    Cases(cases::Options),
    /// Make our image and let `docker buildx` work with it through a real dockerd.
    Drivers(drivers::Options),
    /// Let `docker buildx` work with our image through a small cluster of Kubernetes' API.
    Kubernetes(drivers::Options),
    /// Check our manifests and what our chart renders by Kubernetes' schemas.
    Charts,
    /// Make the Debian package, install it into a root of its own and look at what is in it.
    Package(package::Options),
    /// The OCI runtime of that dockerd: runc without capabilities that the machine does not have.
    #[command(hide = true, disable_help_flag = true)]
    OciRuntime {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Compare what both daemons' Dockerfile frontends make of the corpus.
    Llb(llb::Options),
    /// Serve the stand-in images to builds made by hand, until interrupted.
    ServeMirror(serve::Options),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        Command::Setup => setup::run().map(|()| true),
        Command::Images => images::run().map(|()| true),
        Command::Conformance(options) => conformance::run(&options),
        Command::Bench(options) => bench::run(&options).map(|()| true),
        Command::Calls(options) => callcases::run(&options),
        Command::Cases(options) => cases::run(&options),
        Command::Drivers(options) => drivers::run(&options),
        Command::Charts => charts::run(),
        Command::Package(options) => package::run(&options),
        Command::Kubernetes(options) => drivers::kubernetes::run(&options),
        Command::OciRuntime { arguments } => drivers::runtime::oci_runtime(&arguments),
        Command::Llb(options) => llb::run(&options),
        Command::ServeMirror(options) => serve::run(&options).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rbuild-integration: {error}");
            ExitCode::from(2)
        }
    }
}
