//! Parser directives: `# name=value` lines at the very top of a file.
//!
//! The first line that is anything else ends them. Names ignore case; each may stand once.

use super::source::{Lines, strip_bom};
use super::{Range, SyntaxErrorKind};

/// The directives that a Dockerfile may open with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DirectiveName {
    /// The frontend to use.
    Syntax,
    /// The escape character.
    Escape,
    /// Configuration of the linter.
    Check,
}

impl DirectiveName {
    /// Returns the name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Escape => "escape",
            Self::Check => "check",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Syntax, Self::Escape, Self::Check]
            .into_iter()
            .find(|name| name.as_str().eq_ignore_ascii_case(text))
    }
}

/// A directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Name of the directive.
    pub name: DirectiveName,
    /// Its value.
    pub value: String,
    /// Its line.
    pub line: usize,
}

/// The value of a directive and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocatedDirective {
    /// The value up to the first space.
    pub word: String,
    /// The whole value.
    pub value: String,
    /// Lines of the directive.
    pub ranges: Vec<Range>,
}

/// Reads directives line by line, up to the first line that is none.
#[derive(Debug, Clone)]
pub struct DirectiveParser {
    line: usize,
    comment: &'static str,
    earlier: Vec<DirectiveName>,
    past_directives: bool,
}

impl Default for DirectiveParser {
    fn default() -> Self {
        Self::with_comment("#", 0)
    }
}

impl DirectiveParser {
    /// Makes a parser for another start of a comment, after `line` lines.
    pub fn with_comment(comment: &'static str, line: usize) -> Self {
        Self {
            line,
            comment,
            earlier: Vec::new(),
            past_directives: false,
        }
    }

    /// Reads the next line.
    pub fn parse_line(&mut self, line: &str) -> Result<Option<Directive>, SyntaxErrorKind> {
        self.line += 1;
        if self.past_directives {
            return Ok(None);
        }
        let Some((name, value)) = line.strip_prefix(self.comment).and_then(assignment) else {
            self.past_directives = true;
            return Ok(None);
        };
        if self.earlier.contains(&name) {
            return Err(SyntaxErrorKind::DuplicateDirective(name.as_str()));
        }
        self.earlier.push(name);
        Ok(Some(Directive {
            name,
            value: value.to_owned(),
            line: self.line,
        }))
    }

    /// Reads the directives of a whole file, up to the first that is wrong.
    fn parse_all(mut self, data: &[u8]) -> Vec<Directive> {
        let mut directives = Vec::new();
        for line in Lines::new(data) {
            let line = String::from_utf8_lossy(line);
            let line = line.strip_suffix('\n').unwrap_or(&line);
            match self.parse_line(line.strip_suffix('\r').unwrap_or(line)) {
                Ok(directive) => directives.extend(directive),
                Err(_) => break,
            }
            if self.past_directives {
                break;
            }
        }
        directives
    }
}

/// `name = value` with nothing in front but white space.
fn assignment(text: &str) -> Option<(DirectiveName, &str)> {
    let space = |c: char| matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ');
    let (name, value) = text.trim_start().split_once('=')?;
    let value = value.trim_matches(space);
    let name = DirectiveName::parse(name.trim_end_matches(space))?;
    (!value.is_empty() && !value.contains('\n')).then_some((name, value))
}

/// Finds the syntax a file asks for.
///
/// Besides `# syntax=`, `// syntax=` and a JSON object with a `syntax` member count, so that files that are no
/// Dockerfiles can name their frontend. A first line with `#!` is skipped.
pub fn detect_syntax(data: &[u8]) -> Option<LocatedDirective> {
    find(DirectiveName::Syntax, data, true)
}

/// Finds a directive in a Dockerfile.
pub fn find_directive(name: DirectiveName, data: &[u8]) -> Option<LocatedDirective> {
    find(name, data, false)
}

fn find(name: DirectiveName, data: &[u8], any_format: bool) -> Option<LocatedDirective> {
    let data = strip_bom(data);
    let (data, line) = skip_shebang(data);
    let in_comments = |comment| {
        DirectiveParser::with_comment(comment, line)
            .parse_all(data)
            .into_iter()
            .find(|directive| directive.name == name)
            .map(|directive| located(&directive))
    };
    if let Some(directive) = in_comments("#") {
        return Some(directive);
    }
    if !any_format {
        return None;
    }
    if let Some(directive) = in_comments("//") {
        return Some(directive);
    }
    let Members { syntax: value } = serde_json::from_slice(data).ok()?;
    let value = value.filter(|_| name == DirectiveName::Syntax)?;
    Some(LocatedDirective {
        word: value.clone(),
        value,
        ranges: vec![Range::line(line)],
    })
}

/// The member of a JSON file that names the frontend.
#[derive(serde::Deserialize)]
struct Members {
    syntax: Option<String>,
}

fn located(directive: &Directive) -> LocatedDirective {
    let value = &directive.value;
    LocatedDirective {
        word: value.split(' ').next().unwrap_or(value).to_owned(),
        value: value.clone(),
        ranges: vec![Range::line(directive.line)],
    }
}

fn skip_shebang(data: &[u8]) -> (&[u8], usize) {
    if !data.starts_with(b"#!") {
        return (data, 0);
    }
    let rest = data
        .iter()
        .position(|byte| *byte == b'\n')
        .and_then(|end| data.get(end + 1..));
    (rest.unwrap_or_default(), 1)
}
