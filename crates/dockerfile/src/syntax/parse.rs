//! Lines to a tree.

use super::directive::{DirectiveName, DirectiveParser};
use super::heredoc::heredocs_of;
use super::source::{Lines, strip_bom};
use super::words::parse_line;
use super::{Heredoc, Node, Range, SyntaxError, SyntaxErrorKind};

/// A parsed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The root; its children are the instructions.
    pub root: Node,
    /// The escape character in force.
    pub escape: char,
    /// Empty lines in the middle of continued ones.
    pub warnings: Vec<EmptyContinuation>,
}

/// A continued line that contains an empty one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmptyContinuation {
    /// The logical line.
    pub text: String,
    /// Where it ends.
    pub range: Range,
}

impl EmptyContinuation {
    /// Returns the sentence BuildKit says.
    pub fn short(&self) -> String {
        format!("Empty continuation line found in: {}", self.text)
    }
}

/// Parses a file.
///
/// Bytes that are not UTF-8 become replacement characters.
// DIFFERS: BuildKit carries such bytes along until something fails to encode them.
pub fn parse(data: &[u8]) -> Result<Tree, SyntaxError> {
    let mut parser = Parser {
        lines: Lines::new(strip_bom(data)),
        directives: DirectiveParser::default(),
        escape: '\\',
        line: 0,
    };
    let mut root = Node::default();
    let mut warnings = Vec::new();
    let mut comments: Vec<String> = Vec::new();
    while let Some(raw) = parser.next_line() {
        if is_comment(&raw) {
            // The first byte goes, whether it is the `#` or white space in front of it.
            let mut chars = raw.chars();
            chars.next();
            match chars.as_str().trim() {
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
            }
        }
        let at = parser.line - 1;
        if parser
            .directive(trim_line_end(&raw).trim_start())
            .map_err(|kind| SyntaxError {
                kind,
                ranges: vec![Range::line(at)],
            })?
        {
            comments.pop();
        }
        if is_comment(&raw) {
            continue;
        }
        let start = parser.line;
        let Some((text, had_empty)) = parser.logical_line(trim_line_end(&raw).trim_start()) else {
            continue;
        };
        if had_empty {
            warnings.push(EmptyContinuation {
                text: text.clone(),
                range: Range::line(parser.line),
            });
        }
        let at = |kind, end| SyntaxError {
            kind,
            ranges: Range::lines(start, end),
        };
        let mut node = parse_line(&text, parser.escape).map_err(|kind| at(kind, parser.line))?;
        if text.contains("<<") && node.takes_heredocs() {
            for heredoc in heredocs_of(&text).map_err(|kind| at(kind, parser.line))? {
                node.heredocs.push(
                    parser
                        .heredoc(heredoc)
                        .map_err(|kind| at(kind, parser.line))?,
                );
            }
        }
        node.comments = std::mem::take(&mut comments);
        node.start_line = start;
        node.end_line = parser.line;
        if root.children.is_empty() {
            root.start_line = start;
        }
        root.end_line = parser.line;
        root.children.push(node);
    }
    let here = |kind| SyntaxError {
        kind,
        ranges: vec![Range::line(parser.line)],
    };
    if root.children.is_empty() {
        return Err(here(SyntaxErrorKind::NoInstructions));
    }
    if parser.lines.too_long() {
        return Err(here(SyntaxErrorKind::LineTooLong));
    }
    Ok(Tree {
        root,
        escape: parser.escape,
        warnings,
    })
}

struct Parser<'a> {
    lines: Lines<'a>,
    directives: DirectiveParser,
    escape: char,
    /// How many lines were read.
    line: usize,
}

impl Parser<'_> {
    fn next_line(&mut self) -> Option<String> {
        let line = self.lines.next()?;
        self.line += 1;
        Some(String::from_utf8_lossy(line).into_owned())
    }

    fn directive(&mut self, line: &str) -> Result<bool, SyntaxErrorKind> {
        let Some(directive) = self.directives.parse_line(line)? else {
            return Ok(false);
        };
        if directive.name == DirectiveName::Escape {
            self.escape = match directive.value.as_str() {
                "\\" => '\\',
                "`" => '`',
                _ => return Err(SyntaxErrorKind::EscapeToken(directive.value)),
            };
        }
        Ok(true)
    }

    /// Joins a line with those that continue it. Nothing is returned for an empty line.
    fn logical_line(&mut self, first: &str) -> Option<(String, bool)> {
        let (text, mut continues) = continuation(first, self.escape);
        if !continues && text.is_empty() {
            return None;
        }
        let mut text = text.to_owned();
        let mut had_empty = false;
        while continues {
            let Some(raw) = self.next_line() else { break };
            if is_comment(&raw) {
                continue;
            }
            let line = trim_line_end(&raw);
            if line.trim_start().is_empty() {
                had_empty = true;
                continue;
            }
            let (part, more) = continuation(line, self.escape);
            text.push_str(part);
            continues = more;
        }
        Some((text, had_empty))
    }

    /// Reads the contents of a heredoc.
    fn heredoc(&mut self, mut heredoc: Heredoc) -> Result<Heredoc, SyntaxErrorKind> {
        while let Some(raw) = self.next_line() {
            let line = trim_line_end(&raw);
            if (if heredoc.chomp {
                line.trim_start_matches('\t')
            } else {
                line
            }) == heredoc.name
            {
                return Ok(heredoc);
            }
            heredoc.content.push_str(&raw);
        }
        Err(SyntaxErrorKind::UnterminatedHeredoc)
    }
}

fn trim_line_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Cuts the escape that continues a line. An escape in front of it makes it a plain character.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}
