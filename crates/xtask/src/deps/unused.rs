//! Dependencies that a member names and does not use.
//!
//! A library is used where its name is a word of the code: `name::…`, `name!…`, `use name;`, `extern crate name`. Comments do not
//! count. What only tests may use is looked for in all of the member's files, everything else outside of `tests` and `benches`.

use std::fs;
use std::path::Path;

use super::{Package, rust_files, short};

/// Adds a fault for every dependency whose name appears nowhere in the sources of its member.
pub(super) fn faults(packages: &[Package], faults: &mut Vec<String>) -> Result<(), String> {
    for package in packages {
        let dir = package.manifest_path.parent().unwrap_or(Path::new("."));
        let (mut code, mut tests) = (String::new(), String::new());
        for file in rust_files(dir)? {
            let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            let place = file.strip_prefix(dir).unwrap_or(&file);
            let is_test = place.starts_with("tests") || place.starts_with("benches");
            if is_test { &mut tests } else { &mut code }.push_str(&text);
        }
        for dependency in &package.dependencies {
            let name = dependency.rename.as_ref().unwrap_or(&dependency.name);
            let name = short(name).replace('-', "_");
            let in_tests = dependency.kind.as_deref() == Some("dev");
            let is_used = is_named(&code, &name) || in_tests && is_named(&tests, &name);
            if !is_used {
                faults.push(format!(
                    "{} depends on {} and does not use it",
                    short(&package.name),
                    dependency.name
                ));
            }
        }
    }
    Ok(())
}

/// Whether a library is named in some Rust code.
fn is_named(code: &str, name: &str) -> bool {
    code.lines().any(|line| {
        let line = line.split("//").next().unwrap_or(line);
        line.match_indices(name).any(|(at, _)| {
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '"';
            let before = line.get(..at).unwrap_or_default();
            let after = line.get(at + name.len()..).unwrap_or_default();
            !before.ends_with(is_word)
                && !before.ends_with('.')
                && (after.starts_with("::")
                    || after.starts_with("!")
                    || (before.ends_with("use ") || before.ends_with("extern crate "))
                        && after.starts_with([';', ' ']))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::is_named;

    #[test]
    fn a_library_is_used_where_code_names_it() {
        for line in [
            "use serde::Serialize;",
            "use serde;",
            "use serde as s;",
            "extern crate serde;",
            "let x = ::serde::de::Error;",
            "#[serde::x]",
            "serde!{}",
        ] {
            assert!(is_named(line, "serde"), "{line}");
        }
        for line in [
            "// serde::Serialize",
            "use serde_json::Value;",
            "use my_serde::X;",
            "\"serde::x\"",
            "self.serde::<T>()",
            "let serde = 1;",
        ] {
            assert!(!is_named(line, "serde"), "{line}");
        }
    }
}
