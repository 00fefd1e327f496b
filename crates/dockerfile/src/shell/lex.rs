//! The expansion of words.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::env::Env;
use super::error::{ShellError, ShellErrorKind};
use super::glob::Star;
use super::{MAX_DEPTH, MAX_RESULT, MAX_TOTAL, glob};

/// How words are expanded.
#[derive(Debug, Clone)]
pub struct Lexer {
    /// The escape character.
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escapes stay in the result.
    pub raw_escapes: bool,
    /// Quotes are plain characters.
    pub skip_process_quotes: bool,
    /// Variables that are not set stay as they were written.
    pub skip_unset_env: bool,
    /// Bytes of all results so far, those of clones included.
    pub(crate) spent: Arc<AtomicUsize>,
}

/// An expanded word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// The whole result.
    pub result: String,
    /// The result, cut at white space that is neither quoted nor escaped.
    pub words: Vec<String>,
    /// Variables that are set and were replaced.
    pub matched: BTreeSet<String>,
    /// Variables that were looked up and are not set.
    pub unmatched: BTreeSet<String>,
}

impl Lexer {
    /// Makes a lexer that removes quotes and escapes.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            skip_process_quotes: false,
            skip_unset_env: false,
            spent: Arc::default(),
        }
    }

    /// Adds the length of a result to the total and fails over the limit.
    pub(crate) fn spend(&self, bytes: usize) -> Result<(), ShellErrorKind> {
        let before = self.spent.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_TOTAL {
            return Err(ShellErrorKind::TooMuch);
        }
        Ok(())
    }

    /// Expands a word.
    pub fn process(&self, word: &str, env: &dyn Env) -> Result<Word, ShellError> {
        let mut run = Run {
            lexer: self,
            env,
            rest: Chars::new(word),
            raw_escapes: self.raw_escapes,
            depth: 0,
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        };
        let outcome = run.until(None, self.raw_escapes, false);
        let outcome = outcome.and_then(|outcome| self.spend(outcome.0.len()).map(|()| outcome));
        match outcome {
            Ok((result, words)) => Ok(Word {
                result,
                words,
                matched: run.matched,
                unmatched: run.unmatched,
            }),
            Err(kind) => Err(ShellError {
                word: word.into(),
                kind,
                so_far: Box::new(Word {
                    matched: run.matched,
                    unmatched: run.unmatched,
                    ..Word::default()
                }),
            }),
        }
    }

    /// Expands a word and returns the whole.
    pub fn process_word(&self, word: &str, env: &dyn Env) -> Result<String, ShellError> {
        self.process(word, env).map(|word| word.result)
    }

    /// Expands a word and returns its parts.
    pub fn process_words(&self, word: &str, env: &dyn Env) -> Result<Vec<String>, ShellError> {
        self.process(word, env).map(|word| word.words)
    }
}

struct Chars<'a> {
    rest: &'a str,
}

impl<'a> Chars<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }
}

/// Words under construction. A quoted empty string does not make a word.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    open: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.open.push(c);
        } else if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.done.push(self.open);
        }
        self.done
    }
}

struct Run<'a> {
    lexer: &'a Lexer,
    env: &'a dyn Env,
    rest: Chars<'a>,
    raw_escapes: bool,
    depth: usize,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

type Lexed<T> = Result<T, ShellErrorKind>;

impl Run<'_> {
    /// Expands up to `stop`, which is consumed, or to the end.
    ///
    /// `pattern` is for globs: an escape that quotes made literal is doubled, since the glob is read once more.
    fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
        pattern: bool,
    ) -> Lexed<(String, Vec<String>)> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ShellErrorKind::TooDeep);
        }
        let before = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.run(stop, pattern);
        self.raw_escapes = before;
        self.depth -= 1;
        result
    }

    fn run(&mut self, stop: Option<char>, pattern: bool) -> Lexed<(String, Vec<String>)> {
        let mut result = String::new();
        let mut words = Words::default();
        while let Some(c) = self.rest.peek() {
            if result.len() > MAX_RESULT {
                return Err(ShellErrorKind::TooLong);
            }
            if Some(c) == stop {
                self.rest.next();
                return Ok((result, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    result.push_str(&value);
                    value.chars().for_each(|c| words.push(c));
                }
                '<' => {
                    let text = self.angle();
                    result.push_str(&text);
                    words.open.push_str(&text);
                }
                '\'' | '"' if !self.lexer.skip_process_quotes => {
                    let text = if c == '"' {
                        self.double_quote(pattern)?
                    } else {
                        self.single_quote(pattern)?
                    };
                    result.push_str(&text);
                    words.open.push_str(&text);
                }
                c => {
                    self.rest.next();
                    if c != self.lexer.escape {
                        words.push(c);
                        result.push(c);
                        continue;
                    }
                    if self.raw_escapes {
                        words.open.push(c);
                        result.push(c);
                    }
                    let Some(escaped) = self.rest.next() else {
                        break;
                    };
                    words.open.push(escaped);
                    result.push(escaped);
                }
            }
        }
        match stop {
            Some(stop) => Err(ShellErrorKind::Unterminated(stop)),
            None if result.len() > MAX_RESULT => Err(ShellErrorKind::TooLong),
            None => Ok((result, words.finish())),
        }
    }

    fn single_quote(&mut self, pattern: bool) -> Lexed<String> {
        let mut result = String::new();
        let quote = self.rest.next();
        if self.lexer.raw_quotes {
            result.extend(quote);
        }
        loop {
            let c = self.rest.next().ok_or(ShellErrorKind::SingleQuote)?;
            if c == '\'' {
                if self.lexer.raw_quotes {
                    result.push(c);
                }
                return Ok(result);
            }
            if pattern && c == self.lexer.escape {
                result.push(c);
            }
            result.push(c);
        }
    }

    fn double_quote(&mut self, pattern: bool) -> Lexed<String> {
        let mut result = String::new();
        let quote = self.rest.next();
        if self.lexer.raw_quotes {
            result.extend(quote);
        }
        loop {
            if result.len() > MAX_RESULT {
                return Err(ShellErrorKind::TooLong);
            }
            match self.rest.peek().ok_or(ShellErrorKind::DoubleQuote)? {
                '"' => {
                    let quote = self.rest.next();
                    if self.lexer.raw_quotes {
                        result.extend(quote);
                    }
                    return Ok(result);
                }
                '$' => result.push_str(&self.dollar()?),
                c => {
                    self.rest.next();
                    if c != self.lexer.escape {
                        result.push(c);
                        continue;
                    }
                    match self.rest.peek() {
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == self.lexer.escape => {
                            if self.raw_escapes {
                                result.push(c);
                            }
                            self.rest.next();
                            result.push(next);
                        }
                        Some(_) => {
                            if self.raw_escapes && (!self.lexer.raw_quotes || pattern) {
                                result.push(c);
                            }
                            result.push(c);
                        }
                    }
                }
            }
        }
    }

    /// `<` and `<<`; white space after the latter belongs to the heredoc's word.
    fn angle(&mut self) -> String {
        self.rest.next();
        if self.rest.peek() != Some('<') {
            return "<".to_owned();
        }
        self.rest.next();
        let mut text = String::from("<<");
        while let Some(space) = self.rest.peek().filter(|c| matches!(c, '\t' | '\r' | ' ')) {
            self.rest.next();
            text.push(space);
        }
        text
    }

    fn get(&mut self, name: &str) -> Lexed<Option<String>> {
        let env = self.env;
        let value = env.get(name);
        let set = if value.is_some() {
            &mut self.matched
        } else {
            &mut self.unmatched
        };
        if !set.contains(name) {
            set.insert(name.to_owned());
        }
        self.lexer.spend(value.map_or(0, str::len))?;
        Ok(value.map(str::to_owned))
    }

    fn dollar(&mut self) -> Lexed<String> {
        self.rest.next();
        if self.rest.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.get(&name)? {
                Some(value) => value,
                None if self.lexer.skip_unset_env => format!("${name}"),
                None => String::new(),
            });
        }
        self.rest.next();
        match self.rest.peek() {
            None => return Err(ShellErrorKind::MissingBrace),
            Some('{' | '}' | ':') => return Err(ShellErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            Some('}') => Ok(match self.get(&name)? {
                Some(value) => value,
                None if self.lexer.skip_unset_env => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => {
                let modifier = self.rest.next();
                self.modified(&name, modifier, true)
            }
            modifier @ Some('+' | '-' | '?' | '#' | '%') => self.modified(&name, modifier, false),
            Some('/') => self.replaced(&name),
            other => Err(ShellErrorKind::Modifier(String::from(
                other.unwrap_or(char::REPLACEMENT_CHARACTER),
            ))),
        }
    }

    /// An operand of `${…}`, up to `stop`.
    fn operand(
        &mut self,
        stop: char,
        raw: bool,
        pattern: bool,
        missing: ShellErrorKind,
    ) -> Lexed<String> {
        match self.until(Some(stop), raw, pattern) {
            Ok((word, _)) => Ok(word),
            Err(
                error @ (ShellErrorKind::TooDeep
                | ShellErrorKind::TooLong
                | ShellErrorKind::TooMuch),
            ) => Err(error),
            Err(_) if self.rest.peek().is_none() => Err(missing),
            Err(error) => Err(error),
        }
    }

    fn modified(&mut self, name: &str, modifier: Option<char>, colon: bool) -> Lexed<String> {
        let operator = modifier.unwrap_or(char::REPLACEMENT_CHARACTER);
        let text = if colon {
            format!(":{operator}")
        } else {
            String::from(operator)
        };
        let glob = matches!(operator, '#' | '%');
        if colon && glob {
            return Err(ShellErrorKind::Modifier(text));
        }
        let word = self.operand('}', glob, glob, ShellErrorKind::MissingBrace)?;
        let value = self.get(name)?;
        if value.is_none() && self.lexer.skip_unset_env {
            return Ok(format!("${{{name}{text}{word}}}"));
        }
        let missing = value
            .as_deref()
            .is_none_or(|value| colon && value.is_empty());
        match operator {
            '-' if missing => Ok(word),
            '-' => Ok(value.unwrap_or_default()),
            '+' if missing => Ok(String::new()),
            '+' => Ok(word),
            '?' if missing => {
                let message = match () {
                    () if !word.is_empty() => word,
                    () if value.is_none() => "is not allowed to be unset".to_owned(),
                    () => "is not allowed to be empty".to_owned(),
                };
                Err(ShellErrorKind::Required {
                    name: name.to_owned(),
                    message,
                })
            }
            '?' => Ok(value.unwrap_or_default()),
            '#' | '%' => {
                let value = value.unwrap_or_default();
                let (pattern, star) = word
                    .strip_prefix(operator)
                    .map_or((word.as_str(), Star::Shortest), |pattern| {
                        (pattern, Star::Longest)
                    });
                self.lexer.spend(glob::cost(pattern, &value))?;
                if operator == '#' {
                    glob::trim_prefix(pattern, &value, star)
                } else {
                    glob::trim_suffix(pattern, &value, star)
                }
            }
            _ => Err(ShellErrorKind::Modifier(text)),
        }
    }

    fn replaced(&mut self, name: &str) -> Lexed<String> {
        let all = self.rest.peek() == Some('/');
        if all {
            self.rest.next();
        }
        let pattern = self.operand('/', true, true, ShellErrorKind::MissingSlash)?;
        let replacement = self.operand('}', true, false, ShellErrorKind::MissingBrace)?;
        match self.get(name)? {
            None if self.lexer.skip_unset_env => Ok(format!("${{{name}/{pattern}/{replacement}}}")),
            value => {
                let value = value.unwrap_or_default();
                // One replacement for each character at most, so this bounds the result before it is made.
                if all
                    && replacement
                        .len()
                        .saturating_mul(value.len().saturating_add(1))
                        > MAX_RESULT * 8
                {
                    return Err(ShellErrorKind::TooLong);
                }
                self.lexer.spend(glob::cost(&pattern, &value))?;
                glob::replace(&pattern, &value, &replacement, all)
            }
        }
    }

    /// Reads a name: digits, one special parameter, or letters, digits and underscores.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if self.rest.peek().is_some_and(is_digit) {
            while let Some(c) = self.rest.peek().filter(|c| is_digit(*c)) {
                self.rest.next();
                name.push(c);
            }
            return name;
        }
        if let Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) = self.rest.peek() {
            self.rest.next();
            return String::from(c);
        }
        while let Some(c) = self
            .rest
            .peek()
            .filter(|c| *c == '_' || is_letter(*c) || is_digit(*c))
        {
            self.rest.next();
            name.push(c);
        }
        name
    }
}

fn in_class(class: &LazyLock<Regex>, c: char) -> bool {
    class.is_match(c.encode_utf8(&mut [0; 4]))
}

fn is_letter(c: char) -> bool {
    static LETTER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\p{L}$").expect("the class exists"));
    if c.is_ascii() {
        c.is_ascii_alphabetic()
    } else {
        in_class(&LETTER, c)
    }
}

fn is_digit(c: char) -> bool {
    static DIGIT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\p{Nd}$").expect("the class exists"));
    if c.is_ascii() {
        c.is_ascii_digit()
    } else {
        in_class(&DIGIT, c)
    }
}
