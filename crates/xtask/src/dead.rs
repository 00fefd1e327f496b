//! Public items that no other file names: dead, or public without a need.
//!
//! | what                                                              | counts as                |
//! |-------------------------------------------------------------------|--------------------------|
//! | `pub fn`, `struct`, `enum`, `trait`, `type`, `const`, `static`    | an item                  |
//! | `pub(crate)` and narrower                                         | nothing: the compiler sees to it |
//! | a word of any other file, tests and examples included             | a use                    |
//! | a word of a public signature of the same file: a public field, what a public function takes and gives, a variant | a use: the type has to be as public |
//! | a word of a `pub use`, a comment or a text                        | nothing                  |
//! | generated code (`src/gen/`), modules for tests                    | uses only                |
//!
//! Names are compared as words, so an item that shares its name with another is taken for used: what is listed is dead, and some of
//! what is dead is not listed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::deps::{self, Token, tokens};

const ITEMS: &[&str] = &[
    "fn", "struct", "enum", "trait", "type", "const", "static", "union",
];
/// Words that may stand between `pub` and the word for the item.
const QUALIFIERS: &[&str] = &["async", "unsafe", "extern", "const"];

/// A public item, and how many files beside its own name it.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    file: PathBuf,
    name: String,
}

/// Prints the public items that no other file names, and how many there are.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let mut files = Vec::new();
    for (_, folder) in deps::members(root)? {
        for file in deps::rust_files(&folder)? {
            let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            let name = file.strip_prefix(root).unwrap_or(&file).to_owned();
            files.push((name, tokens(&text)));
        }
    }
    let (total, dead) = unnamed(&files);
    for item in &dead {
        println!("{}: {}", item.file.display(), item.name);
    }
    println!(
        "{} of {total} public items are named in no other file",
        dead.len()
    );
    Ok(())
}

/// How many public items there are, and those that only their own file names.
fn unnamed(files: &[(PathBuf, Vec<Token>)]) -> (usize, Vec<Item>) {
    let mut named_in: BTreeMap<&str, BTreeSet<&Path>> = BTreeMap::new();
    let mut items = Vec::new();
    let mut total = 0;
    for (file, tokens) in files {
        for word in uses(tokens) {
            named_in.entry(word).or_default().insert(file);
        }
        if declares(file) {
            let in_signatures = signature_words(tokens);
            let own = public(tokens).into_iter();
            let own = own.filter(|name| {
                total += 1;
                !in_signatures.contains(name)
            });
            items.extend(own.map(|name| Item {
                file: file.clone(),
                name: name.to_owned(),
            }));
        }
    }
    items.retain(|item| {
        let files = named_in.get(item.name.as_str());
        files.is_none_or(|files| files.iter().all(|file| *file == item.file))
    });
    (total, items)
}

/// Whether items of a file are looked at: not those of programs, tests and generators.
fn declares(file: &Path) -> bool {
    let has = |name: &str| file.components().any(|part| part.as_os_str() == name);
    let is_test = file
        .file_stem()
        .is_some_and(|stem| stem == "tests" || stem == "cases" || stem == "main");
    has("src") && !has("gen") && !has("tests") && !has("cases") && !is_test
}

/// The names of the public items of a file, without what stands behind `#[cfg(test)]`.
fn public(tokens: &[Token]) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if !token.is("pub") || tokens.get(at + 1).is_some_and(|t| t.is_mark('(')) {
            continue;
        }
        let mut next = at + 1;
        while let Some(word) = tokens.get(next).and_then(Token::word) {
            // `const` is an item, or what a function is.
            let is_item = ITEMS.contains(&word)
                && !tokens
                    .get(next + 1)
                    .is_some_and(|t| t.is("fn") || QUALIFIERS.iter().any(|b| t.is(b)));
            if is_item {
                names.extend(tokens.get(next + 1).and_then(Token::word));
                break;
            }
            if !QUALIFIERS.contains(&word) {
                break;
            }
            next += 1;
        }
    }
    names
}

/// The words of public signatures: behind the name of what is declared and before its body. Variants of enums and methods of traits
/// are as public as what they belong to.
fn signature_words(tokens: &[Token]) -> BTreeSet<&str> {
    let mut words = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let narrowed = tokens.get(at + 1).is_some_and(|t| t.is_mark('('));
        // Types that belong to an implementation of a trait have no `pub`.
        if !(token.is("pub") && !narrowed || token.is("type")) {
            continue;
        }
        let mut rest = tokens.get(at + 1..).unwrap_or_default().iter().peekable();
        let mut body_is_public = false;
        let mut is_alias = token.is("type");
        while let Some(word) = rest.peek().and_then(|t| t.word()) {
            if !ITEMS.contains(&word) && !QUALIFIERS.contains(&word) {
                break;
            }
            body_is_public |= matches!(word, "enum" | "trait");
            is_alias |= word == "type";
            rest.next();
        }
        // The name that is declared.
        if rest.next().is_none_or(|t| t.is("use") || t.is("mod")) {
            continue;
        }
        let mut depth = 0_usize;
        let mut previous = None;
        for token in rest {
            match token {
                Token::Word(word) => {
                    words.insert(word.as_str());
                }
                Token::Mark('{') if depth == 0 && !body_is_public => break,
                Token::Mark('(' | '[' | '<' | '{') => depth += 1,
                Token::Mark('>') if previous == Some('-') => {}
                Token::Mark(')' | ']' | '>' | '}') => {
                    let Some(outer) = depth.checked_sub(1) else {
                        break;
                    };
                    depth = outer;
                    if depth == 0 && body_is_public && token.is_mark('}') {
                        break;
                    }
                }
                Token::Mark('=') if depth == 0 && !is_alias => break,
                Token::Mark(',' | ';') if depth == 0 => break,
                Token::Mark(_) | Token::PathSeparator => {}
            }
            previous = match token {
                Token::Mark(mark) => Some(*mark),
                Token::Word(_) | Token::PathSeparator => None,
            };
        }
    }
    words
}

/// The words of a file, but for those that a `pub use` only hands on.
fn uses(tokens: &[Token]) -> BTreeSet<&str> {
    let mut words = BTreeSet::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let hands_on = token.is("pub") && tokens.get(at + 1).is_some_and(|t| t.is("use"));
        if hands_on {
            let rest = tokens.get(at..).unwrap_or_default();
            at += rest
                .iter()
                .position(|t| t.is_mark(';'))
                .unwrap_or(rest.len());
        } else {
            words.extend(token.word());
        }
        at += 1;
    }
    words
}

#[cfg(test)]
mod cases {
    use super::*;

    fn dead(files: &[(&str, &str)]) -> (usize, Vec<String>) {
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| (PathBuf::from(name), tokens(text)))
            .collect();
        let (total, dead) = unnamed(&files);
        let words = dead
            .iter()
            .map(|i| format!("{} {}", i.file.display(), i.name));
        (total, words.collect())
    }

    #[test]
    fn an_item_is_alive_when_any_other_file_names_it() {
        let used = "pub fn used() {} pub struct Dead; pub(crate) fn own() {} fn private() {}";
        for (other, count) in [
            ("fn f() { a::used() }", 1),
            ("use a::{used, Dead};", 0),
            ("fn f() { x.used::<Dead>() }", 0),
            ("pub use a::{used, Dead};", 2),
            ("// used Dead", 2),
            ("const T: &str = \"used Dead\";", 2),
        ] {
            let (total, dead) = dead(&[("a/src/lib.rs", used), ("b/src/lib.rs", other)]);
            assert_eq!((total, dead.len()), (2, count), "{other}: {dead:?}");
        }
    }

    #[test]
    fn a_type_of_a_public_signature_has_to_be_public() {
        for (text, dead_items) in [
            ("pub struct X; pub struct S { pub x: X }", 1),
            ("pub struct X; pub struct S { pub a: M<u8, X>, b: u8 }", 1),
            ("pub struct X; pub struct S { x: X }", 2),
            ("pub struct X; pub struct S { pub a: u8, x: X }", 2),
            ("pub struct X; pub fn f(x: &X) {}", 1),
            ("pub struct X; pub fn f(a: u8) -> Result<(), X> {}", 1),
            ("pub struct X; pub fn f() where u8: Into<X> {}", 1),
            ("pub struct X; pub fn f() { X }", 2),
            ("pub struct X; fn f(x: X) {}", 1),
            ("pub struct X; pub(crate) fn f(x: X) {}", 1),
            ("pub struct X; pub enum E { A, B(X) }", 1),
            ("pub struct X; enum E { A, B(X) }", 1),
            ("pub struct X; pub trait T { fn f(&self) -> X; }", 1),
            ("pub struct X; pub type T = Vec<X>;", 1),
            ("pub struct X; impl T for u8 { type Out = X; }", 0),
            ("pub struct X; pub const C: u8 = X::C;", 2),
            ("pub struct X; pub const C: X = f();", 1),
        ] {
            let text = format!("{text} fn last() {{}}");
            let (_, dead) = dead(&[("a/src/lib.rs", text.as_str())]);
            assert_eq!(dead.len(), dead_items, "{text}: {dead:?}");
        }
    }

    #[test]
    fn a_test_of_another_file_is_a_use_and_declares_nothing() {
        let files = [
            ("a/src/lib.rs", "pub fn f() {}"),
            ("a/tests/suite.rs", "pub fn helper() { a::f() }"),
            ("a/src/cases.rs", "pub fn kit() {}"),
            ("a/src/gen/x.rs", "pub fn made() {}"),
            ("a/src/main.rs", "pub fn program() {}"),
        ];
        assert_eq!(dead(&files), (1, vec![]));
        assert_eq!(dead(&files[..1]), (1, vec!["a/src/lib.rs f".to_owned()]));
    }

    #[test]
    fn every_way_of_declaring_is_seen() {
        for (text, name) in [
            ("pub fn x() {}", "x"),
            ("pub async fn x() {}", "x"),
            ("pub const fn x() {}", "x"),
            (concat!("pub un", "safe extern \"C\" fn x() {}"), "x"),
            ("pub const x: u8 = 1;", "x"),
            ("pub static x: u8 = 1;", "x"),
            ("pub struct x<T>(T);", "x"),
            ("pub enum x {}", "x"),
            ("pub trait x {}", "x"),
            ("pub type x = u8;", "x"),
        ] {
            assert_eq!(
                dead(&[("a/src/lib.rs", text)]).1,
                [format!("a/src/lib.rs {name}")]
            );
        }
        for text in [
            "pub mod x;",
            "pub use x;",
            "struct S { pub x: u8 }",
            "pub(super) fn x() {}",
        ] {
            assert_eq!(dead(&[("a/src/lib.rs", text)]).0, 0, "{text}");
        }
    }
}
