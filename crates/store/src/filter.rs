//! The filter language of `du` and `prune`: `field`, `field==value`, `field!=value`, `field~=regexp`, joined by commas
//! (all must hold); of several filters one must hold. Values may be quoted.

use oci::ErrorKind;
use regex::Regex;

/// A malformed filter.
#[derive(Debug, Clone, thiserror::Error)]
#[error("invalid filter {filter:?}: {source}")]
pub struct FilterError {
    /// The whole filter.
    pub filter: String,
    /// The fault.
    pub source: FilterProblem,
}

impl FilterError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.source.kind()
    }
}

/// What is wrong with a filter.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FilterProblem {
    /// A quoted value does not end.
    #[error("unclosed quote")]
    UnclosedQuote,
    /// A field name is missing.
    #[error("expected a field")]
    NoField,
    /// Nothing follows the operator.
    #[error("expected a value")]
    NoValue,
    /// Something other than a comma follows a term.
    #[error("expected a comma between terms")]
    NoComma,
    /// A pattern cannot be compiled.
    #[error("{0}")]
    Pattern(#[source] regex::Error),
}

impl FilterProblem {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnclosedQuote
            | Self::NoField
            | Self::NoValue
            | Self::NoComma
            | Self::Pattern(_) => ErrorKind::Invalid,
        }
    }
}

#[derive(Debug, Clone)]
enum TermTest {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

#[derive(Debug, Clone)]
struct Term {
    field: Vec<String>,
    test: TermTest,
}

/// A parsed list of filters.
#[derive(Debug, Clone, Default)]
pub struct Filters(Vec<Vec<Term>>);

impl Filters {
    /// Parses filters; an empty list matches everything.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self, FilterError> {
        let mut any = Vec::with_capacity(filters.len());
        for text in filters {
            any.push(parse_one(text.as_ref())?);
        }
        Ok(Self(any))
    }

    /// Returns whether something matches; `lookup` returns a field's text if the field is present.
    pub fn matches(&self, lookup: impl Fn(&[String]) -> Option<String>) -> bool {
        if self.0.is_empty() {
            return true;
        }
        self.0.iter().any(|terms| {
            terms.iter().all(|term| {
                let value = lookup(&term.field);
                match &term.test {
                    TermTest::Present => value.is_some(),
                    TermTest::Equal(want) => value.as_ref() == Some(want),
                    TermTest::NotEqual(want) => value.unwrap_or_default() != *want,
                    TermTest::Matches(re) => value.is_some_and(|text| re.is_match(&text)),
                }
            })
        })
    }
}

/// Reads a filter from the front.
struct FilterScanner<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> FilterScanner<'a> {
    fn fail<T>(&self, source: FilterProblem) -> Result<T, FilterError> {
        Err(FilterError {
            filter: self.text.to_owned(),
            source,
        })
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn take_while(&mut self, good: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !good(c)).unwrap_or(self.rest.len());
        let (head, tail) = self.rest.split_at(end);
        self.rest = tail;
        head
    }

    fn quoted(&mut self, quote: char) -> Result<String, FilterError> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.rest = &self.rest[at + c.len_utf8()..];
                return Ok(out);
            }
            if c == '\\' {
                match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    Some((_, other)) => {
                        // In a pattern an unknown escape belongs to the pattern.
                        if other != quote && other != '\\' {
                            out.push('\\');
                        }
                        out.push(other);
                    }
                    None => break,
                }
            } else {
                out.push(c);
            }
        }
        self.fail(FilterProblem::UnclosedQuote)
    }

    fn word(&mut self) -> Result<String, FilterError> {
        if self.rest.starts_with('"') {
            return self.quoted('"');
        }
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_' || c == '-');
        if word.is_empty() {
            self.fail(FilterProblem::NoField)
        } else {
            Ok(word.to_owned())
        }
    }

    fn value(&mut self) -> Result<String, FilterError> {
        match self.rest.chars().next() {
            Some('"') => self.quoted('"'),
            Some(q @ ('/' | '|')) => self.quoted(q),
            _ => {
                let value = self.take_while(|c| c != ',' && c != '"' && !c.is_whitespace());
                if value.is_empty() {
                    self.fail(FilterProblem::NoValue)
                } else {
                    Ok(value.to_owned())
                }
            }
        }
    }
}

fn parse_one(text: &str) -> Result<Vec<Term>, FilterError> {
    let mut scan = FilterScanner { text, rest: text };
    let mut terms = Vec::new();
    if text.is_empty() {
        return Ok(terms);
    }
    loop {
        let mut field = vec![scan.word()?];
        while scan.eat(".") {
            field.push(scan.word()?);
        }
        let test = if scan.eat("==") || scan.eat("=") {
            TermTest::Equal(scan.value()?)
        } else if scan.eat("!=") {
            TermTest::NotEqual(scan.value()?)
        } else if scan.eat("~=") {
            let pattern = scan.value()?;
            match regex::RegexBuilder::new(&pattern)
                .size_limit(1 << 20)
                .build()
            {
                Ok(re) => TermTest::Matches(re),
                Err(e) => return scan.fail(FilterProblem::Pattern(e)),
            }
        } else {
            TermTest::Present
        };
        terms.push(Term { field, test });
        if scan.rest.is_empty() {
            return Ok(terms);
        }
        if !scan.eat(",") {
            return scan.fail(FilterProblem::NoComma);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filters: &[&str], expected: bool) {
        let parsed = Filters::parse(filters).unwrap();
        let matches = parsed.matches(|field| match field.first().map(String::as_str) {
            Some("type") => Some("source.local".to_owned()),
            Some("id") => Some("abc".to_owned()),
            Some("mutable") => Some(String::new()),
            _ => None,
        });
        assert_eq!(matches, expected, "{filters:?}");
    }

    #[test]
    fn filters_select_as_clients_expect() {
        for (filters, expected) in [
            (&[][..], true),
            (&[""], true),
            (&["type==source.local"], true),
            (&["type=source.local"], true),
            (&["type==regular"], false),
            (&["type==regular", "id~=^a"], true),
            (&["type==source.local,id==x"], false),
            (&["type!=regular,mutable"], true),
            (&["immutable"], false),
            (&["inuse!=x"], true),
            (&["id==\"abc\""], true),
            (&["id~=\"a.c\",type~=/^source\\./"], true),
        ] {
            check(filters, expected);
        }
    }

    #[test]
    fn broken_filters_are_refused() {
        for filter in ["==x", "id==", "id==\"x", "id~=(", "id==a b", "id,,type"] {
            assert!(Filters::parse(&[filter]).is_err(), "{filter}");
        }
    }
}
