//! Heredocs.

use std::sync::LazyLock;

use regex::Regex;

use super::SyntaxErrorKind;
use crate::shell::{EnvList, Lexer};

/// A heredoc.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The name, which is also the terminator.
    pub name: String,
    /// The number in front of `<<`.
    pub file_descriptor: u64,
    /// The name was not quoted: variables in the contents are replaced.
    pub expand: bool,
    /// `<<-`: leading tabs are to be cut.
    pub chomp: bool,
    /// The contents with their line ends.
    pub content: String,
}

/// Reads a word as the start of a heredoc. Nothing is returned for other words.
pub fn parse_heredoc(word: &str) -> Result<Option<Heredoc>, SyntaxErrorKind> {
    static START: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)$").expect("the pattern is well formed")
    });
    let Some(parts) = START.captures(word) else {
        return Ok(None);
    };
    let part = |index| parts.get(index).map_or("", |part| part.as_str());
    let rest = part(3);
    if rest.is_empty() {
        return Ok(None);
    }
    let number = part(1);
    let file_descriptor = if number.is_empty() {
        0
    } else {
        number.parse().unwrap_or(u64::MAX)
    };

    let none = EnvList::default();
    let mut lexer = Lexer::new('\\');
    lexer.skip_unset_env = true;
    let plain = lexer.process_words(rest, &none)?;
    let [name] = plain.as_slice() else {
        return Ok(None);
    };
    lexer.raw_quotes = true;
    let raw = lexer.process_words(rest, &none)?;
    let [raw_name] = raw.as_slice() else {
        return Err(SyntaxErrorKind::HeredocName(rest.to_owned()));
    };
    // A quote that is gone without raw mode was a quote: the name is quoted in some part, so nothing is expanded.
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(name) == quotes(raw_name);
    Ok(Some(Heredoc {
        name: name.clone(),
        file_descriptor,
        expand,
        chomp: part(2) == "-",
        content: String::new(),
    }))
}

/// Finds the heredocs that a line starts.
pub(super) fn heredocs_of(line: &str) -> Result<Vec<Heredoc>, SyntaxErrorKind> {
    let lexer = Lexer {
        raw_quotes: true,
        raw_escapes: true,
        skip_unset_env: true,
        ..Lexer::new('\\')
    };
    // A line that does not lex has no heredocs; the shell may know better what to do with it.
    let words = lexer
        .process_words(line, &EnvList::default())
        .unwrap_or_default();
    words
        .iter()
        .filter_map(|word| parse_heredoc(word).transpose())
        .collect()
}

/// Cuts the tabs at the start of each line.
pub fn chomp(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| line.trim_start_matches('\t'))
        .collect()
}
