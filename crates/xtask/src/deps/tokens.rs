//! Rust source as a list of words and marks, without comments and literals: as much as finding paths needs.

/// One word or mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A name or a keyword, raw names without their `r#`.
    Word(String),
    /// `::`, which takes part in every path.
    PathSeparator,
    /// Any other mark.
    Mark(char),
}

impl Token {
    pub(crate) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own == word)
    }

    pub(crate) fn is_mark(&self, mark: char) -> bool {
        *self == Self::Mark(mark)
    }

    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::PathSeparator | Self::Mark(_) => None,
        }
    }
}

/// Splits source that the compiler accepts.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        if c.is_whitespace() {
            at += 1;
        } else if c == '/' && next == Some('/') {
            at = position(&chars, at, |c| c == '\n');
        } else if c == '/' && next == Some('*') {
            at = block_comment_end(&chars, at);
        } else if c == '"' {
            at = string_end(&chars, at);
        } else if c == '\'' {
            at = quote_end(&chars, at);
        } else if c == '_' || c.is_alphabetic() {
            let end = position(&chars, at, |c| c != '_' && !c.is_alphanumeric());
            let word: String = chars.get(at..end).unwrap_or_default().iter().collect();
            let hashes = position(&chars, end, |c| c != '#');
            let opens_string = chars.get(hashes) == Some(&'"');
            if matches!(word.as_str(), "r" | "br" | "cr") && opens_string {
                at = raw_string_end(&chars, hashes, hashes - end);
            } else if word == "r" && hashes == end + 1 {
                // A raw name: the word follows.
                at = hashes;
            } else if matches!(word.as_str(), "b" | "c") && chars.get(end) == Some(&'"') {
                at = string_end(&chars, end);
            } else if word == "b" && chars.get(end) == Some(&'\'') {
                at = quote_end(&chars, end);
            } else {
                tokens.push(Token::Word(word));
                at = end;
            }
        } else if c.is_numeric() {
            at = position(&chars, at, |c| c != '_' && !c.is_alphanumeric());
        } else if c == ':' && next == Some(':') {
            tokens.push(Token::PathSeparator);
            at += 2;
        } else {
            tokens.push(Token::Mark(c));
            at += 1;
        }
    }
    tokens
}

/// The first place from `start` on that holds such a character; the end if none does.
fn position(chars: &[char], start: usize, is_match: impl Fn(char) -> bool) -> usize {
    let rest = chars.get(start..).unwrap_or_default();
    rest.iter()
        .position(|c| is_match(*c))
        .map_or(chars.len(), |offset| start + offset)
}

/// Comments of blocks hold each other.
fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(c) = chars.get(at) {
        match (c, chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn string_end(chars: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(c) = chars.get(at) {
        match c {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn raw_string_end(chars: &[char], quote: usize, hashes: usize) -> usize {
    let mut at = quote + 1;
    while at < chars.len() {
        let closes = chars.get(at) == Some(&'"')
            && (1..=hashes).all(|offset| chars.get(at + offset) == Some(&'#'));
        if closes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

/// A character literal, or a lifetime, which has no second quote.
fn quote_end(chars: &[char], quote: usize) -> usize {
    if chars.get(quote + 1) == Some(&'\\') {
        return position(chars, quote + 3, |c| c == '\'') + 1;
    }
    if chars.get(quote + 2) == Some(&'\'') {
        return quote + 3;
    }
    quote + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        let words = tokens(source);
        words
            .iter()
            .filter_map(|t| t.word().map(str::to_owned))
            .collect()
    }

    #[test]
    fn comments_and_literals_hold_no_words() {
        for (source, expected) in [
            ("a // b\nc", vec!["a", "c"]),
            ("a /* b /* c */ d */ e", vec!["a", "e"]),
            ("a \"b \\\" c\" d", vec!["a", "d"]),
            ("a r#\"b \" c\"# d", vec!["a", "d"]),
            ("a b\"c\" b'd' e", vec!["a", "e"]),
            ("a '\\'' b '\"' c", vec!["a", "b", "c"]),
            ("a<'b> c", vec!["a", "b", "c"]),
            ("r#type 0x1f_u8 a", vec!["type", "a"]),
        ] {
            assert_eq!(words(source), expected, "{source}");
        }
    }

    #[test]
    fn marks_and_separators_stand_where_they_are_written() {
        let mark = |c| Token::Mark(c);
        let word = |text: &str| Token::Word(text.to_owned());
        let separator = Token::PathSeparator;
        for (source, expected) in [
            ("a::b", vec![word("a"), separator.clone(), word("b")]),
            ("a: b", vec![word("a"), mark(':'), word("b")]),
            ("::a", vec![separator.clone(), word("a")]),
            ("a<'b>", vec![word("a"), mark('<'), word("b"), mark('>')]),
            ("x!{}", vec![word("x"), mark('!'), mark('{'), mark('}')]),
            ("é_1 + 2", vec![word("é_1"), mark('+')]),
            ("", vec![]),
        ] {
            assert_eq!(tokens(source), expected, "{source}");
        }
    }

    #[test]
    fn a_literal_or_comment_without_an_end_takes_the_rest_and_nothing_before_it() {
        for source in [
            "a \"b",
            "a r#\"b\"",
            "a /* b",
            "a /* b /* c */",
            "a '\\",
            "a \"b\\",
        ] {
            assert_eq!(words(source), ["a"], "{source}");
        }
    }
}
