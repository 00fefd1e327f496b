//! The part of Go's templates that people give to `--format`: text, `{{.}}` with fields, `{{json …}}` and `{{range …}}`.

use serde::Serialize;
use serde_json::Value;

use crate::failure::CliError;

/// A template that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    /// A value as text, by its path below the dot.
    Value(Vec<String>),
    /// A value as JSON.
    Json(Vec<String>),
    /// The parts up to the next one of `End`, for each element.
    Range(Vec<String>),
    End,
}

impl Template {
    /// Reads a template; `json` alone means `{{json .}}`.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        let refuse = |what: &str| {
            CliError::Usage(format!(
                "--format: {what}: this program knows {{{{json .}}}}, {{{{.Field}}}}, {{{{json .Field}}}} and {{{{range .}}}}…{{{{end}}}}"
            ))
        };
        let text = if text == "json" { "{{json .}}" } else { text };
        let mut parts = Vec::new();
        let mut open = 0_usize;
        let mut rest = text;
        while let Some((before, action)) = rest.split_once("{{") {
            let Some((action, after)) = action.split_once("}}") else {
                return Err(refuse("an action is not closed"));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let words: Vec<&str> = action.split_whitespace().collect();
            parts.push(match words.as_slice() {
                ["end"] if open > 0 => {
                    open -= 1;
                    Part::End
                }
                ["json", path] => Part::Json(fields(path).ok_or_else(|| refuse(action))?),
                // One inside the other would need a stack for what nobody asks.
                ["range", path] if open == 0 => {
                    open += 1;
                    Part::Range(fields(path).ok_or_else(|| refuse(action))?)
                }
                [path] => Part::Value(fields(path).ok_or_else(|| refuse(action))?),
                _ => return Err(refuse(action)),
            });
            rest = after;
        }
        if open > 0 {
            return Err(refuse("a range has no end"));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// Writes a value as the template says.
    pub(super) fn render(&self, of: &impl Serialize) -> Result<String, CliError> {
        let mut out = String::new();
        let refuse = |error| CliError::Usage(format!("--format: {error}"));
        // Members of an object keep their order only in the text.
        let whole = serde_json::to_string(of).map_err(refuse)?;
        let dot: Value = serde_json::from_str(&whole).map_err(refuse)?;
        let mut index = 0;
        while let Some(part) = self.parts.get(index) {
            index += 1;
            if let Part::Json(path) = part
                && path.is_empty()
            {
                out.push_str(&whole);
                continue;
            }
            let Part::Range(path) = part else {
                simple(part, &dot, &mut out)?;
                continue;
            };
            let body = self.parts[index..]
                .iter()
                .take_while(|part| **part != Part::End)
                .collect::<Vec<_>>();
            index += body.len() + 1;
            for element in elements(find(&dot, path)?) {
                for part in &body {
                    simple(part, element, &mut out)?;
                }
            }
        }
        Ok(out)
    }
}

/// `.`, `.A`, `.A.B`.
fn fields(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('.')?;
    if path.is_empty() {
        return Some(Vec::new());
    }
    let names: Vec<String> = path.split('.').map(str::to_owned).collect();
    let is_name = |name: &String| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    names.iter().all(is_name).then_some(names)
}

fn simple(part: &Part, dot: &Value, out: &mut String) -> Result<(), CliError> {
    match part {
        Part::Text(text) => out.push_str(text),
        Part::Value(path) => {
            let value = find(dot, path)?;
            match value.as_str() {
                Some(text) => out.push_str(text),
                None if value.is_null() => out.push_str("<nil>"),
                None => out.push_str(&value.to_string()),
            }
        }
        Part::Json(path) => out.push_str(&find(dot, path)?.to_string()),
        Part::Range(_) | Part::End => {}
    }
    Ok(())
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    let list = value.as_array().into_iter().flatten();
    list.chain(value.as_object().into_iter().flat_map(|map| map.values()))
}

/// A field by the name that it has in Go: the names in JSON differ from it by case and underscores only.
fn find<'a>(dot: &'a Value, path: &[String]) -> Result<&'a Value, CliError> {
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let mut value = dot;
    for name in path {
        let member = value
            .as_object()
            .and_then(|map| map.iter().find(|(key, _)| plain(key) == plain(name)));
        value = match (member, value) {
            (Some((_, member)), _) => member,
            // Go leaves out empty members of a message.
            (None, Value::Object(_) | Value::Null) => &Value::Null,
            (None, _) => {
                return Err(CliError::Usage(format!(
                    "--format: can't evaluate field {name}"
                )));
            }
        };
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_shows_what_it_names() -> Result<(), CliError> {
        let value = json!([{"id": "a", "inUse": true, "size": 1, "of": {"media_type": "x<y"}}, {"id": "b", "inUse": false}]);
        for (template, expected) in [
            (
                "{{range .}}{{.ID}} {{.InUse}}\n{{end}}",
                "a true\nb false\n",
            ),
            ("{{range .}}{{.Of.MediaType}};{{end}}", "x<y;<nil>;"),
            ("{{range .}}{{json .ID}}{{end}}", "\"a\"\"b\""),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(
                Template::parse(template)?.render(&value)?,
                expected,
                "{template}"
            );
        }
        let whole = Template::parse("json")?.render(&value)?;
        assert!(whole.contains("x<y"), "{whole}");
        assert_eq!(whole, Template::parse("{{json .}}")?.render(&value)?);
        Ok(())
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for template in [
            "{{",
            "{{.ID",
            "{{end}}",
            "{{range .}}",
            "{{if .}}x{{end}}",
            "{{json}}",
            "{{.A..B}}",
            "{{printf .ID}}",
            "{{range .}}{{range .}}{{end}}{{end}}",
        ] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
        let scalar = Template::parse("{{.A.B}}").map(|t| t.render(&json!({"a": 1})));
        assert!(matches!(scalar, Ok(Err(_))));
    }
}
