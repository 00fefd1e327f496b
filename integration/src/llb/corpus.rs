//! The corpus: many Dockerfiles in few files.
//!
//! ```text
//! === a name
//! opt target=release          what the client says beside the Dockerfile
//! --- Dockerfile              a file of the context, up to the next line that begins so
//! FROM scratch
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::{Error, at};

/// A Dockerfile, its context and what the client says.
#[derive(Debug, Default)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) opts: BTreeMap<String, String>,
    pub(super) files: BTreeMap<String, String>,
}

impl Case {
    /// Returns it as the program takes it.
    pub(super) fn to_json(&self) -> Value {
        // With a command line, the file's own `# syntax=` counts as followed already.
        let mut opts = self.opts.clone();
        opts.entry("cmdline".to_owned())
            .or_insert_with(|| "docker/dockerfile:1".to_owned());
        json!({"name": self.name, "opts": opts, "files": self.files})
    }
}

/// Reads all files of the folder, in order.
pub(super) fn load(dir: &Path) -> Result<Vec<Case>, Error> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .map_err(at("reading", dir))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(at("reading", &file))?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let parsed = parse(&text).map_err(|problem| Error::Output {
            what: "the corpus",
            problem: format!("{}: {problem}", file.display()),
        })?;
        cases.extend(parsed.into_iter().map(|case| Case {
            name: format!("{stem}: {}", case.name),
            ..case
        }));
    }
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    if names.len() != cases.len() {
        return Err(Error::Output {
            what: "the corpus",
            problem: "two cases have one name".to_owned(),
        });
    }
    Ok(cases)
}

fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let mut open: Option<String> = None;
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end_matches('\n');
        if let Some(name) = bare.strip_prefix("=== ") {
            open = None;
            cases.push(Case {
                name: name.to_owned(),
                ..Case::default()
            });
            continue;
        }
        let Some(case) = cases.last_mut() else {
            if bare.is_empty() || bare.starts_with('#') {
                continue;
            }
            return Err(format!("line {}: text before the first case", at + 1));
        };
        if let Some(file) = bare.strip_prefix("--- ") {
            case.files.insert(file.to_owned(), String::new());
            open = Some(file.to_owned());
        } else if let Some(content) = open.as_ref().and_then(|file| case.files.get_mut(file)) {
            content.push_str(line);
        } else if let Some((key, value)) = bare
            .strip_prefix("opt ")
            .and_then(|rest| rest.split_once('='))
        {
            case.opts.insert(key.to_owned(), value.to_owned());
        } else {
            return Err(format!(
                "line {}: {bare:?} is neither an option nor of a file",
                at + 1
            ));
        }
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_options_and_files() {
        let cases = parse("# words\n=== one\nopt a:b=c=d\n--- Dockerfile\nFROM x\n\n--- b\nc\n=== two\n--- Dockerfile\n").expect("the text is well formed");
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[0].opts["a:b"], "c=d");
        assert_eq!(cases[0].files["Dockerfile"], "FROM x\n\n");
        assert_eq!(cases[0].files["b"], "c\n");
        assert!(parse("=== one\nnonsense\n").is_err());
    }

    #[test]
    fn the_corpus_is_large() {
        let cases =
            load(&crate::paths::source().join("llb/corpus")).expect("the corpus is well formed");
        assert!(cases.len() >= 225, "{} cases", cases.len());
    }
}
