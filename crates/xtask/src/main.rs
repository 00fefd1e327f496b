//! Chores of the workspace: generated code, the table of layers, documentation, tests and errors.

#![expect(clippy::print_stdout, reason = "a program for a terminal")]

#[cfg(test)]
mod cases;
mod dead;
mod deps;
mod docs;
mod errors;
mod proto;
mod shapes;
mod test_lines;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let result = match words.as_slice() {
        ["proto"] => proto::run(&root, false),
        ["proto", "--check"] => proto::run(&root, true),
        ["deps"] => deps::run(&root),
        ["deps", member] => deps::show(&root, member),
        ["docs"] => docs::run(&root, false),
        ["docs", "--check"] => docs::run(&root, true),
        ["tests"] => test_lines::run(&root),
        ["errors"] => errors::run(&root),
        ["dead"] => dead::run(&root),
        _ => Err(
            "usage: xtask proto [--check] | deps [MEMBER] | docs [--check] | tests | errors | dead"
                .to_owned(),
        ),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("xtask: {text}");
            ExitCode::FAILURE
        }
    }
}
