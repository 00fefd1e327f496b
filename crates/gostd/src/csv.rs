//! One line of comma separated values, as Go's `encoding/csv` reads it through `go-csvvalue`.
//!
//! The crate `csv` is not used: it takes the bare quotes that Go refuses, and clients are shown Go's words for them.

/// Why a line cannot be read. Printed as Go prints it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsvError {
    /// There is no line.
    #[error("EOF")]
    Empty,
    /// A field that does not begin with a quote has one inside.
    #[error("parse error on line 1, column {column}: bare \" in non-quoted-field")]
    BareQuote {
        /// Of the quote, in bytes from 1.
        column: usize,
    },
    /// A quoted field does not end, or goes on after its end.
    #[error("parse error on line 1, column {column}: extraneous or missing \" in quoted-field")]
    Quote {
        /// Where that is noticed, in bytes from 1.
        column: usize,
    },
}

/// Splits a line into fields. Quotes count at the start of a field only.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    let line = line
        .strip_suffix('\n')
        .map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let at = line.len() - rest.len();
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, tail) = rest
                .split_once(',')
                .map_or((rest, None), |(field, tail)| (field, Some(tail)));
            if let Some(quote) = field.find('"') {
                return Err(CsvError::BareQuote {
                    column: at + quote + 1,
                });
            }
            fields.push(field.to_owned());
            match tail {
                Some(tail) => rest = tail,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        rest = quoted;
        loop {
            let at = line.len() - rest.len();
            let Some((text, tail)) = rest.split_once('"') else {
                return Err(CsvError::Quote { column: at + 1 });
            };
            field.push_str(text);
            if let Some(tail) = tail.strip_prefix('"') {
                field.push('"');
                rest = tail;
                continue;
            }
            fields.push(field);
            if tail.is_empty() {
                return Ok(fields);
            }
            let Some(next) = tail.strip_prefix(',') else {
                return Err(CsvError::Quote {
                    column: line.len() - tail.len(),
                });
            };
            rest = next;
            break;
        }
    }
}
