//! Prints the reference tables of the documentation, each behind a line that names it, and writes completions for shells and manual
//! pages into the folder that is given. All is made of the declarations that the programs themselves use;
//! `cargo run -p rbuild-xtask -- docs` puts it where it belongs.

#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::path::Path;
use std::{env, fs, io};

use clap::{Arg, ArgAction, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

fn main() -> io::Result<()> {
    if let Some(dir) = env::args_os().nth(1) {
        files(Path::new(&dir))?;
    }
    println!("table: flags of rbuildd");
    daemon_flags(&daemon::Args::command());
    println!("table: keys of rbuildd.toml");
    keys();
    println!("table: metrics");
    print!("{}", daemon::metrics_table());
    println!("table: flags of rbuild build");
    let mut program = cli::args::Cli::command();
    program.build();
    if let Some(build) = program.find_subcommand("build") {
        client_flags(build);
    }
    Ok(())
}

/// Writes `completions` and `man` below a folder.
fn files(dir: &Path) -> io::Result<()> {
    let completions = dir.join("completions");
    let manual = dir.join("man");
    fs::create_dir_all(&completions)?;
    fs::create_dir_all(&manual)?;
    let mut programs = [cli::args::Cli::command(), daemon::Args::command()];
    for (program, name) in programs.iter_mut().zip(["rbuild", "rbuildd"]) {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, program, name, &mut text);
            fs::write(completions.join(format!("{name}.{shell}")), text)?;
        }
    }
    let client = cli::args::Cli::command()
        .disable_help_subcommand(true)
        .mut_subcommands(|command| command.disable_help_subcommand(true));
    clap_mangen::generate_to(client, &manual)?;
    let page = Man::new(daemon::Args::command()).section("8");
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs::write(manual.join("rbuildd.8"), text)
}

/// Flags with the environment that stands for them.
fn daemon_flags(program: &Command) {
    println!("| flag | environment | meaning |\n|---|---|---|");
    for arg in program.get_arguments().filter(|arg| is_own(arg)) {
        println!(
            "| {} | {} | {} |",
            flag(arg),
            environment(arg),
            meaning(arg)
        );
    }
}

fn keys() {
    println!("| key | meaning |\n|---|---|");
    for key in daemon::settings::file::keys() {
        println!("| `{}` | {} |", key.path, cell(key.meaning));
    }
    for path in daemon::settings::file::UNSUPPORTED {
        println!("| `{path}` | not supported |");
    }
}

/// Flags by the groups of `--help`.
fn client_flags(program: &Command) {
    println!("| group | flag | environment | meaning |\n|---|---|---|---|");
    let mut headings: Vec<Option<&str>> = Vec::new();
    let args: Vec<&Arg> = program
        .get_arguments()
        .filter(|arg| is_own(arg) && !arg.is_hide_set())
        .collect();
    for arg in &args {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        let group = heading.unwrap_or("Options").trim_end_matches(" options");
        for arg in args.iter().filter(|arg| arg.get_help_heading() == heading) {
            println!(
                "| {} | {} | {} | {} |",
                group.to_lowercase(),
                flag(arg),
                environment(arg),
                meaning(arg)
            );
        }
    }
}

fn is_own(arg: &Arg) -> bool {
    arg.get_long().is_some() && !matches!(arg.get_id().as_str(), "help" | "version")
}

fn flag(arg: &Arg) -> String {
    let long = arg.get_long().unwrap_or_default();
    let short = arg.get_short();
    let value = match (arg.get_action(), arg.get_value_names()) {
        (ArgAction::SetTrue, _) | (_, None) => String::new(),
        (_, Some(names)) => format!(" {}", names.join(" ").replace('|', "\\|")),
    };
    match short {
        Some(short) => format!("`-{short}`, `--{long}`{value}"),
        None => format!("`--{long}`{value}"),
    }
}

fn environment(arg: &Arg) -> String {
    let name = arg.get_env().map(|name| name.to_string_lossy());
    name.map_or_else(String::new, |name| format!("`{name}`"))
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults = arg.get_default_values();
    let mut text = cell(&help);
    if !defaults.is_empty() && arg.get_action().takes_values() {
        let shown: Vec<_> = defaults.iter().map(|d| d.to_string_lossy()).collect();
        text.push_str(&format!(" (default `{}`)", shown.join(" ")));
    }
    text
}

/// Text that ends no cell and opens no element of HTML.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('\n', " ")
}
