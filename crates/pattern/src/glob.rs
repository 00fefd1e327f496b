//! Go's `path.Match`.

/// A pattern is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Returns whether all of `name` matches.
///
/// `*` and `?` do not match a slash, `[…]` is a class (`^` negates it, it may match a slash), `\` takes the next
/// character literally. A malformed pattern is an error whether or not the malformed part was reached.
// DIFFERS: Go's `filepath.Match` looks at a pattern only as far as the name goes; `path.Match` looks at all, and so do we.
pub fn path_match(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    check(pattern)?;
    let mut pattern = pattern.as_bytes();
    let mut name = name.as_bytes();
    'chunks: while !pattern.is_empty() {
        let (star, chunk, rest) = next_chunk(pattern);
        pattern = rest;
        if star && chunk.is_empty() {
            return Ok(!name.contains(&b'/'));
        }
        let last = pattern.is_empty();
        if let Some(tail) = match_chunk(chunk, name).filter(|tail| tail.is_empty() || !last) {
            name = tail;
            continue;
        }
        if star {
            let reach = name
                .iter()
                .position(|byte| *byte == b'/')
                .unwrap_or(name.len());
            for start in 1..=reach {
                let from = name.get(start..).unwrap_or_default();
                if let Some(tail) = match_chunk(chunk, from).filter(|tail| tail.is_empty() || !last)
                {
                    name = tail;
                    continue 'chunks;
                }
            }
        }
        return Ok(false);
    }
    Ok(name.is_empty())
}

/// Refuses a malformed pattern.
pub(crate) fn check(pattern: &str) -> Result<(), BadPattern> {
    let mut rest = pattern;
    while let Some(c) = take(&mut rest) {
        match c {
            '\\' => {
                take(&mut rest).ok_or(BadPattern)?;
            }
            '[' => {
                Class::parse(&mut rest)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn take(text: &mut &str) -> Option<char> {
    let mut chars = text.chars();
    let next = chars.next();
    *text = chars.as_str();
    next
}

/// A character class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    /// Reads a class after its `[`.
    pub(crate) fn parse(rest: &mut &str) -> Result<Self, BadPattern> {
        let mut class = Self {
            negated: false,
            ranges: Vec::new(),
        };
        if let Some(tail) = rest.strip_prefix('^') {
            class.negated = true;
            *rest = tail;
        }
        loop {
            if !class.ranges.is_empty()
                && let Some(tail) = rest.strip_prefix(']')
            {
                *rest = tail;
                return Ok(class);
            }
            let low = Self::member(rest)?;
            let high = match rest.strip_prefix('-') {
                Some(tail) => {
                    *rest = tail;
                    Self::member(rest)?
                }
                None => low,
            };
            class.ranges.push((low, high));
        }
    }

    fn member(rest: &mut &str) -> Result<char, BadPattern> {
        let c = match take(rest) {
            None | Some('-' | ']') => return Err(BadPattern),
            Some('\\') => take(rest).ok_or(BadPattern)?,
            Some(c) => c,
        };
        if rest.is_empty() {
            Err(BadPattern)
        } else {
            Ok(c)
        }
    }

    pub(crate) fn matches(&self, c: char) -> bool {
        self.ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&c))
            != self.negated
    }
}

/// Splits off the stars in front and what follows up to the next one.
fn next_chunk(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    let rest = pattern.get(stars..).unwrap_or_default();
    let mut in_class = false;
    let mut escaped = false;
    for (at, byte) in rest.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => {
                let (chunk, tail) = rest.split_at(at);
                return (stars > 0, chunk, tail);
            }
            _ => {}
        }
    }
    (stars > 0, rest, &[])
}

/// Matches a chunk without stars at the start of a name and returns what is left of the name.
fn match_chunk<'a>(chunk: &[u8], name: &'a [u8]) -> Option<&'a [u8]> {
    // A chunk is cut at ASCII only, so it is text; a name may be cut inside of a character.
    let mut chunk = std::str::from_utf8(chunk).ok()?;
    let mut name = name;
    while let Some(c) = take(&mut chunk) {
        match c {
            '?' => {
                let (c, tail) = decode(name)?;
                if c == '/' {
                    return None;
                }
                name = tail;
            }
            '[' => {
                let class = Class::parse(&mut chunk).ok()?;
                let (c, tail) = decode(name)?;
                if !class.matches(c) {
                    return None;
                }
                name = tail;
            }
            c => {
                let c = if c == '\\' { take(&mut chunk)? } else { c };
                name = name.strip_prefix(c.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
        }
    }
    Some(name)
}

/// Reads a character; a byte that starts none counts as a replacement character.
fn decode(name: &[u8]) -> Option<(char, &[u8])> {
    let (first, _) = name.split_first()?;
    let width = match first {
        0..=0x7f => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 0,
    };
    let whole = name
        .split_at_checked(width)
        .and_then(|(c, tail)| Some((std::str::from_utf8(c).ok()?.chars().next()?, tail)));
    whole.or_else(|| Some((char::REPLACEMENT_CHARACTER, name.get(1..)?)))
}

#[cfg(test)]
mod tests;
