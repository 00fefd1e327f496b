//! How much of each member is test, and the floors that `layers.toml` gives under `[tests]`.
//!
//! | line                                                              | counts as |
//! |-------------------------------------------------------------------|-----------|
//! | blank, or nothing but a comment                                   | nothing   |
//! | generated (`src/gen/` of a member)                                | nothing   |
//! | in a `tests/` folder, in a file `tests.rs`                        | test      |
//! | in an item or in the file of a module behind `#[cfg(test)]`       | test      |
//! | any other                                                         | code      |
//!
//! Members that are tests as a whole (`[tests] not-counted`) are neither part of the sum nor held to a floor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::deps;

/// The part of `layers.toml` that this check reads.
#[derive(Debug, Deserialize)]
struct LayersFile {
    tests: Floors,
}

/// What `[tests]` in `layers.toml` says. Ratios are test lines per code line.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Floors {
    /// The least ratio of the whole workspace.
    overall: f64,
    /// The least ratio of a member that has no line of its own.
    each: f64,
    /// Members whose ratio is not held to a floor.
    without_floor: BTreeSet<String>,
    /// Members that are tests themselves.
    not_counted: BTreeSet<String>,
    /// Members that do not reach `each` yet, with what they have reached. These only rise, and a line goes when `each` is reached.
    #[serde(default)]
    reached: BTreeMap<String, f64>,
}

/// Lines of one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    code: usize,
    test: usize,
}

impl Lines {
    fn add(&mut self, other: Self) {
        self.code += other.code;
        self.test += other.test;
    }

    fn ratio(self) -> f64 {
        let part = |lines: usize| f64::from(u32::try_from(lines).unwrap_or(u32::MAX));
        part(self.test) / part(self.code.max(1))
    }
}

/// Prints the figures of every member of the workspace at `root` and compares them with the floors.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let text = fs::read_to_string(root.join("layers.toml"))
        .map_err(|e| format!("cannot read layers.toml: {e}"))?;
    let floors = toml::from_str::<LayersFile>(&text)
        .map_err(|e| format!("layers.toml: {e}"))?
        .tests;
    let mut members = BTreeMap::new();
    for (name, folder) in deps::members(root)? {
        members.insert(name, count_member(&folder)?);
    }
    println!("{:<14}{:>8}{:>8}{:>8}", "crate", "code", "test", "ratio");
    let mut sum = Lines::default();
    for (name, lines) in &members {
        let note = if floors.not_counted.contains(name) {
            "  (is a test itself, not counted)"
        } else {
            sum.add(*lines);
            ""
        };
        println!(
            "{name:<14}{:>8}{:>8}{:>8.2}{note}",
            lines.code,
            lines.test,
            lines.ratio()
        );
    }
    println!(
        "{:<14}{:>8}{:>8}{:>8.3}",
        "all",
        sum.code,
        sum.test,
        sum.ratio()
    );
    let faults = check(&floors, &members, sum);
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!(
        "tests are below the floors of layers.toml:\n  {}",
        faults.join("\n  ")
    ))
}

fn check(floors: &Floors, members: &BTreeMap<String, Lines>, sum: Lines) -> Vec<String> {
    let mut faults = Vec::new();
    if sum.ratio() < floors.overall {
        faults.push(format!(
            "all members together have {:.3} test lines per code line, the floor is {}",
            sum.ratio(),
            floors.overall
        ));
    }
    for (name, lines) in members {
        if floors.without_floor.contains(name) || floors.not_counted.contains(name) {
            continue;
        }
        let floor = floors.reached.get(name).copied().unwrap_or(floors.each);
        if lines.ratio() < floor {
            faults.push(format!(
                "{name} has {:.3} test lines per code line, its floor is {floor}",
                lines.ratio()
            ));
        }
        if floors.reached.contains_key(name) && lines.ratio() >= floors.each {
            faults.push(format!(
                "{name} has reached {}: its line under [tests.reached] goes",
                floors.each
            ));
        }
    }
    for name in floors
        .reached
        .keys()
        .chain(&floors.without_floor)
        .chain(&floors.not_counted)
        .filter(|name| !members.contains_key(*name))
    {
        faults.push(format!("[tests] names {name}, which is not a member"));
    }
    faults
}

/// Counts the lines of the member whose manifest lies in `folder`.
fn count_member(folder: &Path) -> Result<Lines, String> {
    let mut files = Vec::new();
    for part in ["src", "tests", "benches"] {
        if folder.join(part).is_dir() {
            files.extend(deps::rust_files(&folder.join(part))?);
        }
    }
    let mut texts = Vec::new();
    let mut test_modules = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        test_modules.extend(test_module_files(&file, &text));
        texts.push((file, text));
    }
    let mut sum = Lines::default();
    for (file, text) in &texts {
        let inside = file.strip_prefix(folder).unwrap_or(file);
        if inside.starts_with("src/gen") {
            continue;
        }
        let lines = count_text(text);
        if is_test_file(inside) || test_modules.iter().any(|module| is_below(file, module)) {
            sum.test += lines.code + lines.test;
        } else {
            sum.add(lines);
        }
    }
    Ok(sum)
}

/// Whether `file` is the module file `module` or lies in the folder of its submodules.
fn is_below(file: &Path, module: &Path) -> bool {
    file == module || file.starts_with(module.with_extension(""))
}

fn is_test_file(inside: &Path) -> bool {
    inside.file_name().is_some_and(|name| name == "tests.rs")
        || inside.components().any(|part| part.as_os_str() == "tests")
}

/// The files of modules that `text` declares behind `#[cfg(test)]`.
fn test_module_files(file: &Path, text: &str) -> Vec<PathBuf> {
    let stem = file.file_stem().unwrap_or_default();
    let parent = file.parent().unwrap_or(Path::new(""));
    let folder = if stem == "lib" || stem == "main" {
        parent.to_owned()
    } else {
        parent.join(stem)
    };
    let mut files = Vec::new();
    let mut behind = false;
    for line in text.lines().map(str::trim) {
        if line == "#[cfg(test)]" {
            behind = true;
        } else if behind && !line.starts_with("#[") {
            behind = false;
            let module = line
                .rsplit_once("mod ")
                .and_then(|(_, rest)| rest.strip_suffix(';'));
            if let Some(name) = module {
                files.push(folder.join(name).with_extension("rs"));
            }
        }
    }
    files
}

/// Counts one file of formatted code: an item ends with a line of its own indentation that closes it.
fn count_text(text: &str) -> Lines {
    let mut lines = Lines::default();
    let mut item: Option<usize> = None;
    for line in text.lines() {
        let word = line.trim();
        if word.is_empty() || word.starts_with("//") {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        if word == "#[cfg(test)]" && item.is_none() {
            item = Some(indent);
        }
        let Some(start) = item else {
            lines.code += 1;
            continue;
        };
        lines.test += 1;
        let closes = word.ends_with(';') || word.ends_with('}') || word.ends_with(',');
        if indent == start && closes {
            item = None;
        }
    }
    lines
}

#[cfg(test)]
mod cases {
    use super::*;

    fn floors(text: &str) -> Floors {
        toml::from_str::<LayersFile>(text).expect("a table").tests
    }

    #[test]
    fn what_stands_behind_cfg_test_is_test() {
        let text = "\
//! A module.

use a::b;

#[cfg(test)]
use a::c;

struct S {
    a: u32,
    #[cfg(test)]
    count: u32,
}

#[cfg(test)]
mod tests {
    // Words.
    #[test]
    fn one() {
        two();
    }
}
fn after() {}
";
        assert_eq!(count_text(text), Lines { code: 5, test: 11 });
    }

    #[test]
    fn the_file_of_a_test_module_and_its_submodules_are_tests() {
        let text = "#[cfg(test)]\n#[path_is_not_followed]\nmod double;\nmod code;\n#[cfg(test)]\npub(crate) mod kit;\n";
        let files = test_module_files(Path::new("x/src/part.rs"), text);
        assert_eq!(
            files,
            [
                PathBuf::from("x/src/part/double.rs"),
                PathBuf::from("x/src/part/kit.rs")
            ]
        );
        let root = test_module_files(Path::new("x/src/lib.rs"), "#[cfg(test)]\nmod double;\n");
        assert_eq!(root, [PathBuf::from("x/src/double.rs")]);
        assert!(is_below(Path::new("x/src/double/a.rs"), &root[0]));
        assert!(!is_below(Path::new("x/src/doubled.rs"), &root[0]));
    }

    #[test]
    fn tests_are_known_by_their_place() {
        for (file, test) in [
            ("tests/suite.rs", true),
            ("tests/suite/a.rs", true),
            ("src/edge/tests.rs", true),
            ("src/tests/answers.rs", true),
            ("src/tests_of_time.rs", false),
            ("src/lib.rs", false),
        ] {
            assert_eq!(is_test_file(Path::new(file)), test, "{file}");
        }
    }

    #[test]
    fn a_member_below_its_floor_and_a_line_that_is_no_longer_needed_are_faults() {
        let floors = floors(
            "[tests]\noverall = 0.5\neach = 0.3\nwithout-floor = [\"p\"]\nnot-counted = [\"i\"]\n\
             [tests.reached]\na = 0.1\nb = 0.2\n",
        );
        let lines = |code, test| Lines { code, test };
        let member = |name: &str, lines| (name.to_owned(), lines);
        let good = BTreeMap::from([
            member("a", lines(100, 10)),
            member("b", lines(100, 29)),
            member("c", lines(100, 30)),
            member("p", lines(100, 0)),
            member("i", lines(100, 0)),
        ]);
        assert_eq!(
            check(&floors, &good, lines(100, 50)),
            Vec::<String>::new(),
            "every floor is kept"
        );
        let mut bad = good.clone();
        bad.insert("a".to_owned(), lines(100, 9));
        bad.insert("b".to_owned(), lines(100, 30));
        bad.insert("c".to_owned(), lines(100, 29));
        bad.remove("i");
        assert_eq!(
            check(&floors, &bad, lines(100, 49)),
            [
                "all members together have 0.490 test lines per code line, the floor is 0.5",
                "a has 0.090 test lines per code line, its floor is 0.1",
                "b has reached 0.3: its line under [tests.reached] goes",
                "c has 0.290 test lines per code line, its floor is 0.3",
                "[tests] names i, which is not a member",
            ]
        );
    }

    #[test]
    fn blank_lines_and_comments_are_no_lines_and_an_item_ends_at_its_own_indentation() {
        for (text, code, test) in [
            ("", 0, 0),
            ("\n\n// a\n/// b\n//! c\n", 0, 0),
            ("fn f() {\n}\n", 2, 0),
            ("#[cfg(test)]\nmod tests;\nfn f() {}\n", 1, 2),
            (
                "#[cfg(test)]\nuse a::{\n    b,\n    c,\n};\nfn f() {}\n",
                1,
                5,
            ),
            (
                "#[cfg(test)]\nmod tests {\n    use a;\n}\nfn f() {}\n",
                1,
                4,
            ),
            ("#[cfg(not(test))]\nfn f() {}\n", 2, 0),
            ("enum E {\n    #[cfg(test)]\n    A,\n    B,\n}\n", 3, 2),
        ] {
            assert_eq!(count_text(text), Lines { code, test }, "{text}");
        }
    }
}
