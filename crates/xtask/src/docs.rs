//! The reference tables of the pages: flags, environment and keys, as the programs declare them; and completions for shells and manual
//! pages, in `packaging/completions` and `packaging/man`.
//!
//! A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`. What stands there is written by `docs` and compared by
//! `docs --check`. The tables come from an example of the client, which is linked with both programs' declarations: the chores are not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Pages with tables.
const PAGES: &[&str] = &[
    "docs/configuration.md",
    "docs/operating.md",
    "docs/using.md",
];
const START: &str = "<!-- table: ";
const END: &str = "<!-- end of table -->";

/// Folders of files that the declarations make, below `packaging`.
const FOLDERS: &[&str] = &["completions", "man"];

/// Writes the tables into the pages and the generated files, or compares them.
pub(crate) fn run(root: &Path, check: bool) -> Result<(), String> {
    let fresh = root.join("target/docs");
    let _of_an_earlier_run = fs::remove_dir_all(&fresh);
    fill(root, &reference(root, &fresh)?, check)?;
    for folder in FOLDERS {
        replace(
            &fresh.join(folder),
            &root.join("packaging").join(folder),
            check,
        )?;
    }
    Ok(())
}

/// Makes a folder's files those of another one, or compares them.
pub(crate) fn replace(fresh: &Path, folder: &Path, check: bool) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("cannot compare {}: {error}", folder.display());
    let (new, old) = (
        contents(fresh).map_err(cannot)?,
        contents(folder).unwrap_or_default(),
    );
    if new == old {
        return Ok(());
    }
    if check {
        let differ = |name: &&String| new.get(*name) != old.get(*name);
        let mut names: Vec<&String> = new.keys().chain(old.keys()).filter(differ).collect();
        names.sort();
        names.dedup();
        return Err(format!(
            "{names:?} in {} are not those of the code: run `cargo run -p rbuild-xtask -- docs` and commit the result",
            folder.display()
        ));
    }
    fs::create_dir_all(folder).map_err(cannot)?;
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        fs::remove_file(folder.join(name)).map_err(cannot)?;
    }
    for (name, text) in new {
        fs::write(folder.join(name), text).map_err(cannot)?;
    }
    Ok(())
}

/// The files of a folder by their names.
fn contents(dir: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, fs::read(entry.path())?);
    }
    Ok(files)
}

/// Puts the tables of `reference` into the pages, or compares them.
pub(crate) fn fill(root: &Path, reference: &str, check: bool) -> Result<(), String> {
    let tables = tables(reference);
    let mut shown = Vec::new();
    let mut stale = Vec::new();
    for page in PAGES {
        let path = root.join(page);
        let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {page}: {e}"))?;
        let fresh = filled(&text, &tables, &mut shown).map_err(|e| format!("{page}: {e}"))?;
        if fresh == text {
            continue;
        }
        stale.push(*page);
        if !check {
            fs::write(&path, fresh).map_err(|e| format!("cannot write {page}: {e}"))?;
        }
    }
    if let Some(missing) = tables.keys().find(|name| !shown.contains(*name)) {
        return Err(format!("no page has the table {missing:?}"));
    }
    if check && !stale.is_empty() {
        return Err(format!(
            "tables of {stale:?} are not those of the code: run `cargo run -p rbuild-xtask -- docs` and commit the result"
        ));
    }
    println!("{} tables in {PAGES:?}", shown.len());
    Ok(())
}

/// Returns what the example prints, after it has written its files into a folder.
fn reference(root: &Path, dir: &Path) -> Result<String, String> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args([
            "run",
            "-q",
            "-p",
            "rbuild-cli",
            "--example",
            "reference",
            "--",
        ])
        .arg(dir)
        .current_dir(root)
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the example reference: {}", text.trim()));
    }
    String::from_utf8(output.stdout).map_err(|e| e.to_string())
}

/// The tables by their names.
fn tables(text: &str) -> BTreeMap<String, String> {
    let mut tables = BTreeMap::new();
    for part in text.split("table: ").skip(1) {
        if let Some((name, table)) = part.split_once('\n') {
            tables.insert(name.to_owned(), table.to_owned());
        }
    }
    tables
}

/// A page with its tables in place.
fn filled(
    page: &str,
    tables: &BTreeMap<String, String>,
    shown: &mut Vec<String>,
) -> Result<String, String> {
    let mut fresh = String::new();
    let mut rest = page;
    while let Some((before, from)) = rest.split_once(START) {
        let (name, from) = from.split_once(" -->\n").ok_or("a table has no name")?;
        let (_, after) = from
            .split_once(END)
            .ok_or_else(|| format!("the table {name:?} has no end"))?;
        let table = tables
            .get(name)
            .ok_or_else(|| format!("nothing declares the table {name:?}"))?;
        fresh.push_str(&format!("{before}{START}{name} -->\n{table}{END}"));
        shown.push(name.to_owned());
        rest = after;
    }
    fresh.push_str(rest);
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_put_between_their_marks_and_what_is_around_stays() {
        let tables = tables("table: a\n| x |\ntable: b\n| y |\n");
        let page = "1\n<!-- table: b -->\nold\n<!-- end of table -->\n2\n<!-- table: a -->\n<!-- end of table -->\n3\n";
        let mut shown = Vec::new();
        assert_eq!(
            filled(page, &tables, &mut shown).expect("a page"),
            "1\n<!-- table: b -->\n| y |\n<!-- end of table -->\n2\n<!-- table: a -->\n| x |\n<!-- end of table -->\n3\n"
        );
        assert_eq!(shown, ["b", "a"]);
    }

    #[test]
    fn a_folder_becomes_what_the_code_makes_and_a_check_names_what_differs() {
        let dir = tempfile::tempdir().expect("a folder");
        let (fresh, folder) = (dir.path().join("fresh"), dir.path().join("folder"));
        fs::create_dir_all(&fresh).expect("a folder");
        fs::create_dir_all(&folder).expect("a folder");
        for (file, text) in [
            ("fresh/a", "1"),
            ("fresh/b", "2"),
            ("folder/b", "0"),
            ("folder/c", "3"),
        ] {
            fs::write(dir.path().join(file), text).expect("a file");
        }
        let stale = replace(&fresh, &folder, true).expect_err("the folders differ");
        assert!(stale.starts_with("[\"a\", \"b\", \"c\"]"), "{stale}");
        replace(&fresh, &folder, false).expect("a copy");
        replace(&fresh, &folder, true).expect("equal folders");
        assert!(!folder.join("c").exists());
    }

    #[test]
    fn a_table_that_is_unknown_or_open_is_an_error() {
        let tables = tables("table: a\n| x |\n");
        for page in [
            "<!-- table: b -->\n<!-- end of table -->",
            "<!-- table: a -->\n| x |",
        ] {
            assert!(filled(page, &tables, &mut Vec::new()).is_err(), "{page}");
        }
    }
}
