//! The rule for errors, which docs/ARCHITECTURE.md states: `Display` says what its level knows and then its cause, and
//! `source` returns that cause.
//!
//! The attributes of `thiserror` are read from the text of all members. What is refused:
//!
//! - a cause (a field `source`, or one with `#[source]` or `#[from]`) that the message does not print;
//! - an error in a field that is no cause, so that nobody can walk to it;
//! - an error of any type (`dyn Error`, or one of a library that keeps causes out of its words) that is printed without `oci::error::chain` or `innermost`;
//! - a hand-written `impl Error` that the list below does not give a reason for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::deps::rust_files;

/// `impl Error` without `thiserror`, by type, with the reason.
const HAND_WRITTEN: &[(&str, &str)] = &[
    (
        "BridgeError",
        "its cause is of any type and shared, and has to be found behind the sharing",
    ),
    (
        "ConnectionError",
        "its sentence leaves out that of the library, which repeats an address with its query",
    ),
    (
        "DecodeError",
        "serde's trait for making an error, which is not std's",
    ),
];

/// Fields that the rule leaves alone, with the reason.
const EXCEPTED: &[(&str, &str)] = &[
    (
        "Error::Status.errors",
        "a registry's answer: data that its message lists",
    ),
    (
        "Level.cause",
        "a test's error that is as terse as those of libraries",
    ),
];

/// Libraries whose errors say only their own level.
const TERSE: &[&str] = &["reqwest", "tonic", "hyper", "dyn"];

#[derive(Debug, Clone, PartialEq)]
enum ErrorToken {
    Word(String),
    Text(String),
    Mark(char),
}

/// Checks all members below `root`.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let mut files = Vec::new();
    for top in ["crates", "daemon", "cli", "integration", "proto", "fuzz"] {
        files.extend(rust_files(&root.join(top))?);
    }
    let mut sources = Vec::new();
    for file in files {
        if file.components().any(|part| part.as_os_str() == "gen") {
            continue;
        }
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file);
        sources.push((name.display().to_string(), tokens(&text)));
    }
    let (types, faults) = check(&sources);
    if faults.is_empty() {
        println!("{types} error types keep the rule for causes");
        return Ok(());
    }
    Err(format!(
        "an error does not keep its cause (see \"Errors\" in docs/ARCHITECTURE.md):\n  {}",
        faults.join("\n  ")
    ))
}

/// How many error types there are, and what is wrong with them.
fn check(sources: &[(String, Vec<ErrorToken>)]) -> (usize, Vec<String>) {
    let mut items = Vec::new();
    let mut faults = Vec::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    names.insert("Error".to_owned());
    for (file, tokens) in sources {
        for item in derived(tokens) {
            names.insert(item.name.clone());
            items.push((file, item));
        }
        for name in hand_written(tokens) {
            if !HAND_WRITTEN.iter().any(|(listed, _)| *listed == name) {
                faults.push(format!(
                    "{file}: `impl Error for {name}` is written by hand: derive it, or list it with a reason in xtask"
                ));
            }
            names.insert(name);
        }
    }
    for (file, item) in &items {
        for variant in &item.variants {
            let place = format!("{file}: {}", variant.path(&item.name));
            variant.check(&place, &names, &mut faults);
        }
    }
    (items.len(), faults)
}

struct Item {
    name: String,
    variants: Vec<Variant>,
}

/// A variant of an enum, or a struct.
struct Variant {
    /// Empty for a struct.
    name: String,
    /// What stands in `#[error(…)]`.
    message: Vec<ErrorToken>,
    fields: Vec<Field>,
}

struct Field {
    /// The name, or the position.
    name: String,
    /// Whether `thiserror` takes it for the cause.
    is_cause: bool,
    kind: Vec<ErrorToken>,
}

impl Variant {
    fn path(&self, item: &str) -> String {
        if self.name.is_empty() {
            item.to_owned()
        } else {
            format!("{item}::{}", self.name)
        }
    }

    fn check(&self, place: &str, errors: &BTreeSet<String>, faults: &mut Vec<String>) {
        let is_transparent =
            self.message.first() == Some(&ErrorToken::Word("transparent".to_owned()));
        for field in &self.fields {
            let words = || {
                field.kind.iter().filter_map(|token| match token {
                    ErrorToken::Word(word) => Some(word.as_str()),
                    ErrorToken::Text(_) | ErrorToken::Mark(_) => None,
                })
            };
            let is_error = words().any(|word| errors.contains(word) || word.ends_with("Error"));
            let path = format!(
                "{}.{}",
                place.rsplit(' ').next().unwrap_or(place),
                field.name
            );
            if is_transparent || EXCEPTED.iter().any(|(excepted, _)| *excepted == path) {
                continue;
            }
            if is_error && !field.is_cause {
                faults.push(format!(
                    "{place}: the error in `{}` is no cause: name it `source`, or mark it with #[source] or #[from]",
                    field.name
                ));
            }
            if field.is_cause && !self.prints(&field.name) {
                faults.push(format!("{place}: the message does not print its cause"));
            }
            let is_terse = words().any(|word| TERSE.contains(&word));
            let is_chained = self
                .message
                .iter()
                .any(|token| matches!(token, ErrorToken::Word(word) if word == "chain" || word == "innermost"));
            if field.is_cause && is_terse && !is_chained {
                faults.push(format!(
                    "{place}: the cause may keep its own causes out of its words: print it with `oci::error::chain`"
                ));
            }
        }
    }

    fn prints(&self, field: &str) -> bool {
        let is_position = field.chars().all(|c| c.is_ascii_digit());
        for (at, token) in self.message.iter().enumerate() {
            match token {
                ErrorToken::Text(text) => {
                    let in_braces = |close| text.contains(&format!("{{{field}{close}"));
                    if in_braces('}') || in_braces(':') {
                        return true;
                    }
                }
                ErrorToken::Word(word) if word == field => {
                    let after_dot = at > 0 && self.message[at - 1] == ErrorToken::Mark('.');
                    if after_dot || !is_position {
                        return true;
                    }
                }
                ErrorToken::Word(_) | ErrorToken::Mark(_) => {}
            }
        }
        false
    }
}

/// The types that derive `Error`.
fn derived(tokens: &[ErrorToken]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some((inside, after)) = attribute(tokens, at) else {
            at += 1;
            continue;
        };
        at = after;
        let derives = inside.first() == Some(&ErrorToken::Word("derive".to_owned()))
            && inside.contains(&ErrorToken::Word("Error".to_owned()));
        if derives && let Some((item, end)) = item(tokens, at) {
            items.push(item);
            at = end;
        }
    }
    items
}

fn item(tokens: &[ErrorToken], mut at: usize) -> Option<(Item, usize)> {
    let mut message = Vec::new();
    while let Some((inside, after)) = attribute(tokens, at) {
        if let Some(words) = message_of(inside) {
            message = words.to_vec();
        }
        at = after;
    }
    at = after_visibility(tokens, at);
    let is_enum = match tokens.get(at)? {
        ErrorToken::Word(word) if word == "enum" => true,
        ErrorToken::Word(word) if word == "struct" => false,
        ErrorToken::Word(_) | ErrorToken::Text(_) | ErrorToken::Mark(_) => return None,
    };
    let Some(ErrorToken::Word(name)) = tokens.get(at + 1) else {
        return None;
    };
    at += 2;
    while !matches!(tokens.get(at)?, ErrorToken::Mark('{' | '(' | ';')) {
        at += 1;
    }
    let (body, end) = group(tokens, at).unwrap_or((&[], at));
    let variants = if is_enum {
        variants(body)
    } else {
        vec![Variant {
            name: String::new(),
            message,
            fields: fields(body),
        }]
    };
    let name = name.clone();
    Some((Item { name, variants }, end))
}

fn variants(body: &[ErrorToken]) -> Vec<Variant> {
    let mut all = Vec::new();
    let mut at = 0;
    let mut message = Vec::new();
    while at < body.len() {
        if let Some((inside, after)) = attribute(body, at) {
            if let Some(words) = message_of(inside) {
                message = words.to_vec();
            }
            at = after;
            continue;
        }
        let ErrorToken::Word(name) = &body[at] else {
            at += 1;
            continue;
        };
        let (inside, after) = group(body, at + 1).unwrap_or((&[], at + 1));
        all.push(Variant {
            name: name.clone(),
            message: std::mem::take(&mut message),
            fields: fields(inside),
        });
        at = after;
    }
    all
}

fn fields(body: &[ErrorToken]) -> Vec<Field> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let mut is_cause = false;
        while let Some((inside, after)) = attribute(body, at) {
            is_cause |=
                matches!(inside, [ErrorToken::Word(word)] if word == "from" || word == "source");
            at = after;
        }
        at = after_visibility(body, at);
        let end = end_of_field(body, at);
        let part = &body[at..end];
        at = end + 1;
        let (name, kind) = match part {
            [] => continue,
            [ErrorToken::Word(name), ErrorToken::Mark(':'), kind @ ..]
                if kind.first() != Some(&ErrorToken::Mark(':')) =>
            {
                (name.clone(), kind)
            }
            kind => (all.len().to_string(), kind),
        };
        all.push(Field {
            is_cause: is_cause || name == "source",
            name,
            kind: kind.to_vec(),
        });
    }
    all
}

/// Where the comma after a field stands; one between angle brackets is not it.
fn end_of_field(body: &[ErrorToken], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < body.len() {
        match body[at] {
            ErrorToken::Mark('<' | '(' | '[') => depth += 1,
            ErrorToken::Mark('>' | ')' | ']') => depth = depth.saturating_sub(1),
            ErrorToken::Mark(',') if depth == 0 => return at,
            ErrorToken::Mark(_) | ErrorToken::Word(_) | ErrorToken::Text(_) => {}
        }
        at += 1;
    }
    at
}

fn message_of(attribute: &[ErrorToken]) -> Option<&[ErrorToken]> {
    match attribute {
        [
            ErrorToken::Word(word),
            ErrorToken::Mark('('),
            inside @ ..,
            ErrorToken::Mark(')'),
        ] if word == "error" => Some(inside),
        _ => None,
    }
}

fn after_visibility(tokens: &[ErrorToken], at: usize) -> usize {
    if tokens.get(at) != Some(&ErrorToken::Word("pub".to_owned())) {
        return at;
    }
    match group(tokens, at + 1) {
        Some(([ErrorToken::Word(word), ..], after))
            if matches!(word.as_str(), "crate" | "super" | "in") =>
        {
            after
        }
        _ => at + 1,
    }
}

/// The inside of the attribute at `at`, and what follows it.
fn attribute(tokens: &[ErrorToken], at: usize) -> Option<(&[ErrorToken], usize)> {
    if tokens.get(at) != Some(&ErrorToken::Mark('#'))
        || tokens.get(at + 1) != Some(&ErrorToken::Mark('['))
    {
        return None;
    }
    group(tokens, at + 1)
}

/// The inside of the brackets that open at `at`, and what follows them.
fn group(tokens: &[ErrorToken], at: usize) -> Option<(&[ErrorToken], usize)> {
    if !matches!(tokens.get(at)?, ErrorToken::Mark('(' | '[' | '{')) {
        return None;
    }
    let mut depth = 0_usize;
    for (offset, token) in tokens[at..].iter().enumerate() {
        match token {
            ErrorToken::Mark('(' | '[' | '{') => depth += 1,
            ErrorToken::Mark(')' | ']' | '}') => depth -= 1,
            ErrorToken::Mark(_) | ErrorToken::Word(_) | ErrorToken::Text(_) => {}
        }
        if depth == 0 {
            return Some((&tokens[at + 1..at + offset], at + offset + 1));
        }
    }
    None
}

/// The types of `impl … Error for Type`.
fn hand_written(tokens: &[ErrorToken]) -> Vec<String> {
    tokens
        .windows(3)
        .enumerate()
        .filter_map(|(at, window)| match window {
            [
                ErrorToken::Word(error),
                ErrorToken::Word(word),
                ErrorToken::Word(name),
            ] if error == "Error" && word == "for" => {
                let before = &tokens[at.saturating_sub(12)..at];
                let is_impl = before
                    .iter()
                    .rev()
                    .take_while(|t| !matches!(t, ErrorToken::Mark('{' | '}' | ';')))
                    .any(|t| *t == ErrorToken::Word("impl".to_owned()));
                is_impl.then(|| name.clone())
            }
            _ => None,
        })
        .collect()
}

/// Words, texts and marks of a source file, without comments.
fn tokens(source: &str) -> Vec<ErrorToken> {
    let chars: Vec<char> = source.chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        if c == '/' && next == Some('/') {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if c == '/' && next == Some('*') {
            while at < chars.len() && !(chars[at] == '*' && chars.get(at + 1) == Some(&'/')) {
                at += 1;
            }
            at += 2;
        } else if let Some((text, after)) = raw_text(&chars, at) {
            out.push(ErrorToken::Text(text));
            at = after;
        } else if c == '"' {
            let start = at + 1;
            at = start;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            out.push(ErrorToken::Text(
                chars[start..at.min(chars.len())].iter().collect(),
            ));
            at += 1;
        } else if c == '\'' {
            at = after_quote(&chars, at);
        } else if c.is_alphanumeric() || c == '_' {
            let start = at;
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
            out.push(ErrorToken::Word(chars[start..at].iter().collect()));
        } else {
            if !c.is_whitespace() {
                out.push(ErrorToken::Mark(c));
            }
            at += 1;
        }
    }
    out
}

/// What follows a character or a lifetime.
fn after_quote(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let mut end = at + 3;
            while end < chars.len() && chars[end] != '\'' {
                end += 1;
            }
            end + 1
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

fn raw_text(chars: &[char], at: usize) -> Option<(String, usize)> {
    if chars[at] != 'r' || (at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')) {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let start = at + 1 + hashes;
    if chars.get(start) != Some(&'"') {
        return None;
    }
    let mut end = start + 1;
    while end < chars.len() {
        let closes = chars[end] == '"'
            && chars[end + 1..]
                .iter()
                .take(hashes)
                .filter(|c| **c == '#')
                .count()
                == hashes;
        if closes {
            return Some((chars[start + 1..end].iter().collect(), end + 1 + hashes));
        }
        end += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(source: &str) -> Vec<String> {
        check(&[("a.rs".to_owned(), tokens(source))]).1
    }

    #[test]
    fn errors_that_keep_their_causes_pass() {
        let source = r##"
            /// Doc with "a quote.
            #[derive(Debug, thiserror::Error)]
            #[non_exhaustive]
            pub enum Good {
                #[error("cannot read {}: {source}", path.display())]
                Read { path: PathBuf, source: io::Error },
                #[error(transparent)]
                Other(#[from] OtherError),
                #[error("index: {0}")]
                Index(#[source] Arc<rusqlite::Error>),
                #[error(r#"no "{name}": {}"#, chain(.source.as_ref()))]
                Any { name: String, source: Box<dyn Error + Send + Sync> },
                #[error("{}", words(.0))]
                Words(#[source] io::Error),
                #[error("alone")]
                Alone,
            }
            #[derive(Debug, Error)]
            #[error("{op}: {}", errno_text(source))]
            pub struct PathError { pub(crate) op: &'static str, source: io::Error }
        "##;
        assert_eq!(faults(source), Vec::<String>::new());
    }

    #[test]
    fn errors_that_lose_a_cause_are_refused() {
        for (source, fault) in [
            (
                r#"#[derive(Error)] enum E { #[error("cannot read")] Read { source: io::Error } }"#,
                "a.rs: E::Read: the message does not print its cause",
            ),
            (
                r#"#[derive(Error)] enum E { #[error("cannot read")] Read(#[from] io::Error) }"#,
                "a.rs: E::Read: the message does not print its cause",
            ),
            (
                r#"#[derive(Error)] enum E { #[error("{0}: {1}")] Read(String, io::Error) }"#,
                "a.rs: E::Read: the error in `1` is no cause: name it `source`, or mark it with #[source] or #[from]",
            ),
            (
                r#"#[derive(Error)] #[error("{source}")] struct S { source: Box<dyn Error> }"#,
                "a.rs: S: the cause may keep its own causes out of its words: print it with `oci::error::chain`",
            ),
            (
                "impl std::error::Error for Mine {}",
                "a.rs: `impl Error for Mine` is written by hand: derive it, or list it with a reason in xtask",
            ),
        ] {
            assert_eq!(faults(source), [fault]);
        }
    }

    #[test]
    fn a_cause_is_printed_by_its_name_or_its_position_in_any_form() {
        for (message, field) in [
            (r#""cannot read: {source}""#, "{ source: io::Error }"),
            (r#""cannot read: {source:#}""#, "{ source: io::Error }"),
            (
                r#""cannot read: {}", errno_text(source)"#,
                "{ source: io::Error }",
            ),
            (
                r#""cannot read: {}", errno_text(.source)"#,
                "{ source: io::Error }",
            ),
            (r#""cannot read: {0}""#, "(#[source] io::Error)"),
            (r#""cannot read: {0:?}""#, "(#[from] io::Error)"),
            (r#""cannot read: {}", words(.0)"#, "(#[from] io::Error)"),
            (r#""{1}: {0}""#, "(String, #[source] io::Error)"),
            ("transparent", "(#[from] io::Error)"),
        ] {
            let source = format!("#[derive(Error)] enum E {{ #[error({message})] Read {field} }}");
            assert_eq!(faults(&source), Vec::<String>::new(), "{source}");
        }
        for (message, field) in [
            (r#""cannot read: {sources}""#, "{ source: io::Error }"),
            (r#""cannot read: source""#, "{ source: io::Error }"),
            (r#""cannot read: {1}""#, "(#[source] io::Error, u8)"),
            (r#""cannot read: {}", 0"#, "(#[source] io::Error)"),
        ] {
            let source = format!("#[derive(Error)] enum E {{ #[error({message})] Read {field} }}");
            assert_eq!(
                faults(&source),
                ["a.rs: E::Read: the message does not print its cause"],
                "{source}"
            );
        }
    }

    #[test]
    fn an_error_is_known_in_any_field_and_what_only_sounds_like_one_is_not() {
        for (field, is_error) in [
            ("Read(u8, io::Error)", true),
            ("Read(u8, Box<io::Error>)", true),
            ("Read(u8, Option<Arc<ParseError>>)", true),
            ("Read { path: String, cause: Mine }", true),
            ("Read(u8, ErrorKind)", false),
            ("Read(u8, HashMap<String, u8>)", false),
            ("Read { errors: u8 }", false),
            ("Read", false),
        ] {
            let source = format!(
                "#[derive(Error)] #[error(\"x\")] struct Mine; #[derive(Error)] enum E {{ #[error(\"x\")] {field} }}"
            );
            let report = faults(&source);
            assert_eq!(!report.is_empty(), is_error, "{source}: {report:?}");
            assert!(
                report.iter().all(|fault| fault.contains("is no cause")),
                "{report:?}"
            );
        }
    }

    #[test]
    fn an_error_of_any_type_is_printed_with_its_chain() {
        for (kind, message, is_kept) in [
            ("Box<dyn Error>", r#""{source}""#, false),
            ("Box<dyn Error>", r#""{}", chain(source)"#, true),
            ("reqwest::Error", r#""{source}""#, false),
            (
                "reqwest::Error",
                r#""{}", oci::error::innermost(source)"#,
                true,
            ),
            ("tonic::transport::Error", r#""{source}""#, false),
            ("hyper::Error", r#""{source}""#, false),
            ("io::Error", r#""{source}""#, true),
        ] {
            let source =
                format!("#[derive(Error)] #[error({message})] struct S {{ source: {kind} }}");
            assert_eq!(faults(&source).is_empty(), is_kept, "{source}");
        }
    }

    #[test]
    fn what_is_listed_with_a_reason_and_what_derives_no_error_is_left_alone() {
        for source in [
            "impl std::error::Error for BridgeError {}",
            "#[derive(Debug, Clone)] enum E { Read(io::Error) }",
            "#[derive(Debug)] struct S { source: io::Error }",
            "fn f() -> Result<(), io::Error> { Ok(()) }",
            "// impl Error for Mine {}",
            "const T: &str = \"impl Error for Mine {}\";",
        ] {
            assert_eq!(faults(source), Vec::<String>::new(), "{source}");
        }
        let two = [
            (
                "a.rs".to_owned(),
                tokens("#[derive(Error)] #[error(\"x\")] pub struct Foreign;"),
            ),
            (
                "b.rs".to_owned(),
                tokens("#[derive(Error)] enum E { #[error(\"x\")] A(u8, Foreign) }"),
            ),
        ];
        let (types, report) = check(&two);
        assert_eq!(types, 2);
        assert!(
            report.len() == 1 && report[0].starts_with("b.rs: E::A: the error in `1` is no cause"),
            "{report:?}"
        );
    }
}
