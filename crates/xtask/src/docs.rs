//! Whether `docs/configuration.md` names every flag and every key of the daemon.
//!
//! Both are read from the sources as text: the chores do not link the daemon.

use std::fs;
use std::path::Path;

const PAGE: &str = "docs/configuration.md";
const FLAGS: &str = "daemon/src/settings/args.rs";
const KEYS: &str = "daemon/src/settings/file.rs";

/// Fails with the list of what the page does not name.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let read = |name: &str| {
        fs::read_to_string(root.join(name)).map_err(|e| format!("cannot read {name}: {e}"))
    };
    let page = read(PAGE)?;
    let flags = flags(&read(FLAGS)?);
    let keys = keys(&read(KEYS)?);
    if flags.is_empty() || keys.is_empty() {
        return Err(format!(
            "no flags in {FLAGS} or no keys in {KEYS}: has their form changed?"
        ));
    }
    let missing: Vec<&String> = flags
        .iter()
        .chain(&keys)
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    if missing.is_empty() {
        println!("{PAGE} names {} flags and {} keys", flags.len(), keys.len());
        return Ok(());
    }
    Err(format!("{PAGE} does not name {missing:?}"))
}

/// `pub log_level: …` in the struct of arguments is the flag `--log-level`.
fn flags(source: &str) -> Vec<String> {
    let fields = source
        .split_once("pub struct Args {")
        .map_or("", |(_, rest)| rest);
    let fields = fields.split("\n}").next().unwrap_or("");
    fields
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'))
        .map(|(name, _)| format!("--{}", name.replace('_', "-")))
        .collect()
}

/// The first of the two strings of each row.
fn keys(source: &str) -> Vec<String> {
    let rows = source
        .split_once("pub const KEYS")
        .map_or("", |(_, rest)| rest);
    let rows = rows.split("\n];").next().unwrap_or("");
    // The formatter puts a row that is too long onto several lines, its bracket on the first.
    let mut is_open = false;
    let mut keys = Vec::new();
    for line in rows.lines().map(str::trim) {
        let row = line.strip_prefix('(').or(is_open.then_some(line));
        is_open = line == "(";
        let key = row.and_then(|row| row.strip_prefix('"')?.split_once('"'));
        keys.extend(key.map(|(key, _)| key.to_owned()));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_sources() {
        assert_eq!(
            flags("pub struct Args {\n    /// x\n    pub log_level: Option<String>,\n}\n"),
            ["--log-level"]
        );
        assert_eq!(
            keys(
                "pub const KEYS: &[(&str, &str)] = &[\n    (\"grpc.tls.ca\", \"x\"),\n    (\n        \"isolation\",\n        \"y\",\n    ),\n];\n"
            ),
            ["grpc.tls.ca", "isolation"]
        );
    }
}
