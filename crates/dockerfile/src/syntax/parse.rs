//! Lines to a tree.

use super::directive::{DirectiveName, DirectiveParser};
use super::heredoc::heredocs_of;
use super::source::{Lines, strip_bom};
use super::words::parse_line;
use super::{
    CarriageReturn, Heredoc, MAX_COMMENTS, MAX_INSTRUCTION, MAX_INSTRUCTIONS, MAX_WORDS, Node,
    Range, SyntaxError, SyntaxErrorKind,
};

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
    /// Lines of the continued line.
    pub range: Range,
}

impl EmptyContinuation {
    /// Returns BuildKit's sentence for it.
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
        crlf: false,
    };
    let mut root = Node::default();
    let mut warnings = Vec::new();
    let mut comments: Vec<String> = Vec::new();
    let mut words = 0;
    while let Some(raw) = parser.next_line() {
        if is_comment(&raw) {
            // The first byte goes, whether it is the `#` or white space in front of it.
            let mut chars = raw.chars();
            chars.next();
            match chars.as_str().trim() {
                "" => comments.clear(),
                comment if comments.len() < MAX_COMMENTS => comments.push(comment.to_owned()),
                _ => {}
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
        let limit = |count, what, most| {
            let error = at_lines(SyntaxErrorKind::TooLarge { what, most }, start, parser.line);
            if count > most { Err(error) } else { Ok(()) }
        };
        limit(text.len(), "bytes in an instruction", MAX_INSTRUCTION)?;
        limit(root.children.len() + 1, "instructions", MAX_INSTRUCTIONS)?;
        if had_empty {
            warnings.push(EmptyContinuation {
                text: text.clone(),
                range: Range::line(parser.line),
            });
        }
        let at = |kind, end| at_lines(kind, start, end);
        let mut node = parse_line(&text, parser.escape).map_err(|kind| at(kind, parser.line))?;
        words += node.args.len() + node.flags.len();
        limit(words, "words", MAX_WORDS)?;
        if text.trim().contains('\r') {
            node.carriage_returns.push(CarriageReturn {
                heredoc: None,
                ranges: Range::lines(start, parser.line),
            });
        }
        if text.contains("<<") && node.takes_heredocs() {
            let ends = match (node.is_script(), parser.crlf) {
                (true, _) => LineEnds::Script,
                (false, true) => LineEnds::File,
                (false, false) => LineEnds::Content,
            };
            for heredoc in heredocs_of(&text).map_err(|kind| at(kind, parser.line))? {
                let (heredoc, carriage_returns) = parser
                    .heredoc(heredoc, ends)
                    .map_err(|kind| at(kind, parser.line))?;
                node.heredocs.push(heredoc);
                node.carriage_returns.extend(carriage_returns);
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
    let at_last_line = |kind| SyntaxError {
        kind,
        ranges: vec![Range::line(parser.line)],
    };
    if root.children.is_empty() {
        return Err(at_last_line(SyntaxErrorKind::NoInstructions));
    }
    if parser.lines.too_long() {
        return Err(at_last_line(SyntaxErrorKind::LineTooLong));
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
    /// Whether the last of them ended in a carriage return and a line feed.
    crlf: bool,
}

/// How carriage returns at the ends of a heredoc's lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnds {
    /// All are cut: the heredoc is the script of a step, and shells take them for parts of words.
    Script,
    /// The one of a line's end is cut: the line that starts the heredoc ends in one too, and so does each line of the file.
    File,
    /// They are content: the line that starts the heredoc has none.
    Content,
}

impl Parser<'_> {
    fn next_line(&mut self) -> Option<String> {
        let line = self.lines.next()?;
        self.line += 1;
        self.crlf = line.ends_with(b"\r\n");
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
            // One that is too long is refused by the caller, and needs no more of it.
            if text.len() <= MAX_INSTRUCTION {
                text.push_str(part);
            }
            continues = more;
        }
        Some((text, had_empty))
    }

    /// Reads the contents of a heredoc. Beside it comes which of its lines have carriage returns left, if any.
    // DIFFERS: BuildKit keeps every carriage return, so that a Dockerfile with Windows' line ends puts them into steps.
    fn heredoc(
        &mut self,
        mut heredoc: Heredoc,
        ends: LineEnds,
    ) -> Result<(Heredoc, Option<CarriageReturn>), SyntaxErrorKind> {
        let mut carriage_returns: Option<(usize, usize)> = None;
        while let Some(raw) = self.next_line() {
            let line = trim_line_end(&raw);
            if (if heredoc.chomp {
                line.trim_start_matches('\t')
            } else {
                line
            }) == heredoc.name
            {
                let carriage_returns = carriage_returns.map(|(first, last)| CarriageReturn {
                    heredoc: Some(heredoc.name.clone()),
                    ranges: Range::lines(first, last),
                });
                return Ok((heredoc, carriage_returns));
            }
            let text = match (ends, raw.strip_suffix("\r\n")) {
                (LineEnds::Script, Some(_)) => line,
                (LineEnds::File, Some(text)) => text,
                (LineEnds::Content, _) | (_, None) => raw.strip_suffix('\n').unwrap_or(&raw),
            };
            heredoc.content.push_str(text);
            if raw.ends_with('\n') {
                heredoc.content.push('\n');
            }
            if text.contains('\r') {
                carriage_returns = Some((
                    carriage_returns.map_or(self.line, |(first, _)| first),
                    self.line,
                ));
            }
        }
        Err(SyntaxErrorKind::UnterminatedHeredoc)
    }
}

fn at_lines(kind: SyntaxErrorKind, start: usize, end: usize) -> SyntaxError {
    SyntaxError {
        kind,
        ranges: Range::lines(start, end),
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
