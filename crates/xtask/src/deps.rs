//! The rules of `layers.toml`: who may depend on whom, and what may stand where.
//!
//! Edges come from `cargo metadata`, so what is checked is what cargo would build. The rest is read as text.

mod modules;
mod reach;
mod tokens;
mod unused;

pub(crate) use tokens::{Token, tokens};

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// No source file is longer, but for those that the table names with a reason.
const MAX_FILE_LINES: usize = 700;
/// Where lengths and `unsafe` are looked for.
const SOURCES: &[&str] = &["crates", "daemon", "cli", "integration", "proto"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    /// What each member may depend on inside the workspace.
    layers: BTreeMap<String, BTreeSet<String>>,
    /// What its tests may use beside.
    #[serde(default)]
    dev: BTreeMap<String, BTreeSet<String>>,
    /// Libraries that only the named members may use.
    #[serde(default)]
    external: BTreeMap<String, BTreeSet<String>>,
    /// Libraries and members that only the named members may reach, through whatever they depend on.
    #[serde(default)]
    reached_by: BTreeMap<String, BTreeSet<String>>,
    /// Circles between the modules of a member that are not untied yet. They may only shrink.
    #[serde(default)]
    circles: BTreeMap<String, BTreeSet<BTreeSet<String>>>,
    /// Members that may hold `unsafe`.
    #[serde(default)]
    unsafe_in: BTreeSet<String>,
    /// Files longer than the rest, with the reason.
    #[serde(default)]
    long_files: BTreeMap<String, String>,
    /// Floors of tests, which `test_lines` reads.
    #[serde(default, rename = "tests")]
    _tests: toml::Table,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    rename: Option<String>,
    kind: Option<String>,
}

/// Checks the workspace at `root` against its table.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let root = root
        .canonicalize()
        .map_err(|e| format!("{}: {e}", root.display()))?;
    let text = fs::read_to_string(root.join("layers.toml"))
        .map_err(|e| format!("cannot read layers.toml: {e}"))?;
    let table: Table = toml::from_str(&text).map_err(|e| format!("layers.toml: {e}"))?;
    let packages: Metadata = metadata(&root, &["--no-deps"])?;
    let packages = packages.packages;
    let mut faults = Vec::new();
    acyclic(&table, &mut faults);
    edges(&table, &packages, &mut faults);
    let (graph, members) = reach::graph(&metadata(&root, &[])?);
    unused::faults(&packages, &mut faults)?;
    reach::faults(&table.reached_by, &graph, &members, &mut faults);
    for package in &packages {
        let member = short(&package.name);
        let src = package.manifest_path.parent().unwrap_or(&root).join("src");
        let files = rust_files(&src)?;
        for file in &files {
            source(&table, &root, member, file, &mut faults)?;
        }
        let circles = modules::circles(&modules::edges(&module_files(&src, &files)?));
        circle_faults(member, &circles, table.circles.get(member), &mut faults);
    }
    for file in table
        .long_files
        .keys()
        .filter(|file| !root.join(file).exists())
    {
        faults.push(format!("layers.toml excepts {file}, which is not there"));
    }
    if faults.is_empty() {
        println!("{} members keep to layers.toml", packages.len());
        return Ok(());
    }
    Err(format!(
        "layers.toml is not kept:\n  {}",
        faults.join("\n  ")
    ))
}

fn edges(table: &Table, packages: &[Package], faults: &mut Vec<String>) {
    let members: BTreeSet<&str> = packages.iter().map(|p| short(&p.name)).collect();
    let none = BTreeSet::new();
    for package in packages {
        let from = short(&package.name);
        let Some(allowed) = table.layers.get(from) else {
            faults.push(format!("{from} has no line under [layers]"));
            continue;
        };
        let beside = table.dev.get(from).unwrap_or(&none);
        for dependency in &package.dependencies {
            let to = short(&dependency.name);
            let in_tests = dependency.kind.as_deref() == Some("dev");
            let is_allowed = allowed.contains(to) || (in_tests && beside.contains(to));
            if dependency.name.starts_with("rbuild-") && members.contains(to) && !is_allowed {
                faults.push(format!("{from} may not depend on {to}"));
            }
            if let Some(users) = table.external.get(&dependency.name)
                && !users.contains(from)
            {
                faults.push(format!(
                    "{from} may not use {}: only {users:?} may",
                    dependency.name
                ));
            }
        }
    }
}

/// The table itself has no circle: members are taken away as soon as all they need is gone.
fn acyclic(table: &Table, faults: &mut Vec<String>) {
    let mut left = table.layers.clone();
    loop {
        let gone: Vec<String> = left
            .iter()
            .filter(|(_, needs)| needs.iter().all(|n| !left.contains_key(n)))
            .map(|(name, _)| name.clone())
            .collect();
        if gone.is_empty() {
            break;
        }
        left.retain(|name, _| !gone.contains(name));
    }
    if !left.is_empty() {
        faults.push(format!("[layers] has a circle among {:?}", left.keys()));
    }
}

/// The files of the library of a member, or of its program if it has no library.
fn module_files(src: &Path, files: &[PathBuf]) -> Result<Vec<modules::ModuleFile>, String> {
    let root = ["lib.rs", "main.rs"].map(|name| src.join(name));
    let root = root.iter().find(|file| files.contains(file));
    let mut read = Vec::new();
    for file in files {
        let below = file.strip_prefix(src).unwrap_or(file).with_extension("");
        let parts = below.iter().map(|part| part.to_string_lossy().into_owned());
        let path: Vec<String> = parts.collect();
        let is_program = below == Path::new("main") || below.starts_with("bin");
        if Some(file) != root && is_program {
            continue;
        }
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let path = if Some(file) == root { Vec::new() } else { path };
        read.push(modules::ModuleFile { path, text });
    }
    Ok(read)
}

/// Prints which modules of a member name which, circles first.
pub(crate) fn show(root: &Path, member: &str) -> Result<(), String> {
    let root = root
        .canonicalize()
        .map_err(|e| format!("{}: {e}", root.display()))?;
    let members = members(&root)?;
    let folder = members.iter().find(|(name, _)| name == member);
    let (_, folder) = folder.ok_or_else(|| format!("{member} is no member"))?;
    let src = folder.join("src");
    let edges = modules::edges(&module_files(&src, &rust_files(&src)?)?);
    for circle in modules::circles(&edges) {
        println!("circle of {circle:?}");
        for (from, targets) in edges.iter().filter(|(from, _)| circle.contains(*from)) {
            let inside: Vec<&String> = targets.intersection(&circle).collect();
            println!("  {from} → {inside:?}");
        }
    }
    println!("all modules");
    for (from, targets) in &edges {
        println!("  {from} → {targets:?}");
    }
    Ok(())
}

/// Circles that the table does not have, and rows of the table that are no circles any more.
fn circle_faults(
    member: &str,
    circles: &[BTreeSet<String>],
    listed: Option<&BTreeSet<BTreeSet<String>>>,
    faults: &mut Vec<String>,
) {
    let none = BTreeSet::new();
    let listed = listed.unwrap_or(&none);
    for circle in circles {
        match listed.iter().find(|row| circle.is_subset(row)) {
            Some(row) if row == circle => {}
            Some(_) => faults.push(format!(
                "the circle between modules of {member} has shrunk: [circles] has to say {circle:?}"
            )),
            None => faults.push(format!(
                "modules of {member} depend on each other in a circle: {circle:?} (`xtask deps {member}` shows who names whom)"
            )),
        }
    }
    for row in listed {
        if !circles.iter().any(|circle| circle.is_subset(row)) {
            faults.push(format!(
                "modules of {member} are no circle any more: remove {row:?} from [circles]"
            ));
        }
    }
}

fn source(
    table: &Table,
    root: &Path,
    member: &str,
    file: &Path,
    faults: &mut Vec<String>,
) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let name = file
        .strip_prefix(root)
        .unwrap_or(file)
        .display()
        .to_string();
    if !SOURCES.iter().any(|top| name.starts_with(top)) {
        return Ok(());
    }
    let lines = text.lines().count();
    let generated = name.contains("/src/gen/");
    if lines > MAX_FILE_LINES && !generated && !table.long_files.contains_key(&name) {
        faults.push(format!(
            "{name} has {lines} lines, {MAX_FILE_LINES} are allowed: split it, or except it with a reason"
        ));
    }
    if !table.unsafe_in.contains(member)
        && let Some(at) = text.lines().position(has_unsafe)
    {
        faults.push(format!(
            "{name}:{} is unsafe, which belongs into {:?}",
            at + 1,
            table.unsafe_in
        ));
    }
    Ok(())
}

/// Whether a line opens something unsafe. Comments and words that merely contain it do not count.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or(line);
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("unsafe") {
        let starts = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"');
        let after_word = after.trim_start();
        let opens = ["{", "fn ", "impl ", "extern ", "trait ", "("]
            .iter()
            .any(|next| after_word.starts_with(next));
        if starts && opens {
            return true;
        }
        rest = after;
    }
    false
}

fn metadata<T: serde::de::DeserializeOwned>(root: &Path, options: &[&str]) -> Result<T, String> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1"])
        .args(options)
        .current_dir(root)
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))
}

/// The name and the folder of every member of the workspace at `root`.
pub(crate) fn members(root: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let folder = |package: &Package| {
        let folder = package.manifest_path.parent();
        folder.unwrap_or(&package.manifest_path).to_owned()
    };
    let packages: Metadata = metadata(root, &["--no-deps"])?;
    let packages = packages.packages;
    Ok(packages
        .iter()
        .map(|package| (short(&package.name).to_owned(), folder(package)))
        .collect())
}

fn short(package: &str) -> &str {
    package.strip_prefix("rbuild-").unwrap_or(package)
}

/// Every file of Rust below `dir`, in order.
pub(crate) fn rust_files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let entries = fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| format!("{}: {e}", dir.display()))?.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_is_seen_in_code_and_not_in_words() {
        // Written with a gap, or this file would find itself.
        let whole = |line: &str| line.replace("un-safe", "unsafe");
        for line in [
            "un-safe { x() }",
            "    pub un-safe fn f()",
            "#[un-safe(no_mangle)]",
            "un-safe impl Send for X {}",
        ] {
            assert!(has_unsafe(&whole(line)), "{line}");
        }
        for line in [
            "// un-safe { }",
            "un-safe_code = 1",
            "let un-safety = 1;",
            "#![forbid(un-safe_code)]",
            "\"un-safe (\"",
        ] {
            assert!(!has_unsafe(&whole(line)), "{line}");
        }
    }

    #[test]
    fn a_circle_is_named() {
        let table: Table =
            toml::from_str("[layers]\na = [\"b\"]\nb = [\"a\"]\nc = []").expect("a table");
        let mut faults = Vec::new();
        acyclic(&table, &mut faults);
        assert_eq!(faults.len(), 1);
    }

    #[test]
    fn circles_of_modules_may_only_shrink() {
        let set =
            |modules: &str| -> BTreeSet<String> { modules.split(' ').map(str::to_owned).collect() };
        for (circles, listed, expected) in [
            (vec![], vec![], ""),
            (vec!["a b"], vec![], "depend on each other"),
            (vec!["a b"], vec!["a b"], ""),
            (vec!["a b c"], vec!["a b"], "depend on each other"),
            (vec!["a b"], vec!["a b c"], "has shrunk"),
            (vec![], vec!["a b"], "no circle any more"),
        ] {
            let circles_found: Vec<_> = circles.iter().map(|c| set(c)).collect();
            let rows: BTreeSet<_> = listed.iter().map(|c| set(c)).collect();
            let mut faults = Vec::new();
            circle_faults("x", &circles_found, Some(&rows), &mut faults);
            let is_as_expected = match faults.first() {
                None => expected.is_empty(),
                Some(fault) => !expected.is_empty() && fault.contains(expected),
            };
            assert!(is_as_expected, "{circles:?} {listed:?}: {faults:?}");
        }
    }
}
