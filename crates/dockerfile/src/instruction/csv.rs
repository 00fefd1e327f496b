//! One line of comma separated values.

/// Splits a line into fields. Quotes count at the start of a field only.
pub(super) fn fields(line: &str) -> Result<Vec<String>, String> {
    let wrong = |column: usize, what: &str| {
        Err(format!(
            "parse error on line 1, column {}: {what}",
            column + 1
        ))
    };
    let line = line
        .strip_suffix('\n')
        .map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err("EOF".to_owned());
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
                return wrong(at + quote, "bare \" in non-quoted-field");
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
                return wrong(at, "extraneous or missing \" in quoted-field");
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
                return wrong(
                    line.len() - tail.len() - 1,
                    "extraneous or missing \" in quoted-field",
                );
            };
            rest = next;
            break;
        }
    }
}
