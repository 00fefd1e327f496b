//! The grammar of each instruction's line: flags, words, pairs, JSON.

use super::line::Line;
use super::{MAX_WORDS, Node, SyntaxErrorKind};
use crate::text::{split_all_blank, split_blank};

type Parsed<T> = Result<T, SyntaxErrorKind>;

/// The arguments of an instruction, and whether they were JSON.
type Args = (Vec<Node>, bool);

/// Parses a logical line.
pub(super) fn parse_line(line: &str, escape: char) -> Parsed<Node> {
    let Line { name, flags, args } = Line::split(line, escape);
    let (args, json) = arguments(name, args, escape)?;
    Ok(Node {
        value: name.to_owned(),
        original: line.to_owned(),
        flags,
        args,
        json,
        ..Node::default()
    })
}

fn arguments(name: &str, rest: &str, escape: char) -> Parsed<Args> {
    let plain = |args| Ok((args, false));
    match name.to_lowercase().as_str() {
        "add" | "copy" | "volume" => Ok(match json(rest)? {
            Some(args) => (args, true),
            None => (blank_separated(rest)?, false),
        }),
        "cmd" | "entrypoint" | "run" | "shell" => json_or_text(rest),
        "healthcheck" => healthcheck(rest),
        "env" => plain(pairs(rest, "ENV", escape)?),
        "label" => plain(pairs(rest, "LABEL", escape)?),
        "arg" => plain(
            few(words(rest, escape))?
                .into_iter()
                .map(Node::word)
                .collect(),
        ),
        "expose" | "from" => plain(blank_separated(rest)?),
        "maintainer" | "stopsignal" | "user" | "workdir" => plain(text(rest)),
        "onbuild" if rest.is_empty() => plain(Vec::new()),
        "onbuild" => plain(vec![Node {
            children: vec![onbuild(rest, escape)?],
            ..Node::default()
        }]),
        // Whether the instruction exists is asked later, where the answer can name near ones.
        _ => plain(vec![Node::default()]),
    }
}

/// An inner instruction. `ONBUILD ONBUILD…` is refused later; here it must only not recurse without end.
fn onbuild(rest: &str, escape: char) -> Parsed<Node> {
    let line = Line::split(rest, escape);
    if !line.name.eq_ignore_ascii_case("onbuild") {
        return parse_line(rest, escape);
    }
    Ok(Node {
        value: line.name.to_owned(),
        original: rest.to_owned(),
        flags: line.flags,
        args: text(line.args),
        ..Node::default()
    })
}

fn text(rest: &str) -> Vec<Node> {
    if rest.is_empty() {
        Vec::new()
    } else {
        vec![Node::word(rest)]
    }
}

fn blank_separated(rest: &str) -> Parsed<Vec<Node>> {
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let words = few(split_all_blank(rest))?;
    Ok(words.into_iter().map(Node::word).collect())
}

/// Refuses too many words before nodes are made of them.
fn few<T>(words: Vec<T>) -> Parsed<Vec<T>> {
    if words.len() > MAX_WORDS {
        return Err(SyntaxErrorKind::TooLarge {
            what: "words",
            most: MAX_WORDS,
        });
    }
    Ok(words)
}

/// A JSON array of strings; nothing for whatever is not a JSON array.
fn json(rest: &str) -> Parsed<Option<Vec<Node>>> {
    let rest = rest.trim_start();
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else {
        return Ok(None);
    };
    few(values)?
        .into_iter()
        .map(|value| {
            if let serde_json::Value::String(text) = value {
                Ok(Node::word(text))
            } else {
                Err(SyntaxErrorKind::NotStringArray)
            }
        })
        .collect::<Parsed<_>>()
        .map(Some)
}

fn json_or_text(rest: &str) -> Parsed<Args> {
    Ok(match json(rest)? {
        Some(args) => (args, true),
        None => (text(rest), false),
    })
}

fn healthcheck(rest: &str) -> Parsed<Args> {
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if kind.is_empty() {
        return Ok((Vec::new(), false));
    }
    let (mut args, json) = json_or_text(command.trim_start())?;
    args.insert(0, Node::word(kind));
    Ok((args, json))
}

/// `key=value…`, or the old `key value`. Each pair is three words: key, value, and `=` or nothing.
fn pairs(rest: &str, name: &'static str, escape: char) -> Parsed<Vec<Node>> {
    let words = few(words(rest, escape))?;
    let Some(first) = words.first() else {
        return Ok(Vec::new());
    };
    if !first.contains('=') {
        let (key, value) = split_blank(rest).ok_or(SyntaxErrorKind::TwoArguments(name))?;
        return Ok(vec![Node::word(key), Node::word(value), Node::word("")]);
    }
    let mut nodes = Vec::with_capacity(words.len() * 3);
    for word in words {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| SyntaxErrorKind::NoEquals(word.clone()))?;
        nodes.extend([Node::word(key), Node::word(value), Node::word("=")]);
    }
    Ok(nodes)
}

/// Words with their quotes and escapes; white space inside of quotes or after an escape does not separate.
pub(super) fn words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut quoted = false;
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(word.take().filter(|word| quoted || !word.is_empty()));
            quoted = false;
            continue;
        }
        let word = word.get_or_insert_with(String::new);
        if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '\'' | '"') {
            quote = Some(c);
            quoted = true;
        }
        if c == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            if let Some(escaped) = chars.next() {
                word.push(c);
                word.push(escaped);
            }
            continue;
        }
        word.push(c);
    }
    words.extend(word.filter(|word| quoted || !word.is_empty()));
    words
}
