//! Compiles one pattern of a list.
//!
//! | written            | means                                                                  |
//! |--------------------|------------------------------------------------------------------------|
//! | `**` at the end    | anything                                                               |
//! | `**` and `**/`     | nothing, or anything that ends with a slash                            |
//! | `*`                | anything without a slash                                               |
//! | `?`                | one character that is no slash                                         |
//! | `[…]`, `\c`        | as in [`crate::path_match`]                                            |
//!
//! A pattern without wildcards but `**` at one end is compared as text: `**name` is then any path that ends so, and
//! `name**` any that starts so. All others run on a set of states, one step per character, so that no pattern is slow.
// DIFFERS: BuildKit pastes classes and escapes into a regular expression, where `[*]` or `\d` mean something else than
// they are documented to, and a pattern that is no regular expression fails while a build runs.

use crate::glob::{BadPattern, Class};

/// How a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MatchKind {
    Exact(String),
    StartsWith(String),
    EndsWith(String),
    Program(PatternProgram),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternStep {
    /// One character.
    Char(char),
    /// One character that is no slash.
    Any,
    /// One character of a class.
    Class(Class),
    /// Any number of characters that are no slashes.
    Star,
    /// Any number of characters.
    Rest,
    /// Nothing, or any number of characters and a slash.
    Dirs,
}

impl MatchKind {
    pub(crate) fn compile(pattern: &str) -> Result<Self, BadPattern> {
        let steps = steps(pattern)?;
        let literal = |steps: &[PatternStep]| {
            steps
                .iter()
                .map(|step| {
                    if let PatternStep::Char(c) = step {
                        Some(*c)
                    } else {
                        None
                    }
                })
                .collect::<Option<String>>()
        };
        Ok(match steps.as_slice() {
            // A backslash makes BuildKit take the long way, which differs for `**name`.
            [PatternStep::Dirs, ..] | [PatternStep::Rest]
                if !pattern.contains('\\') && steps.get(1..).and_then(literal).is_some() =>
            {
                Self::EndsWith(pattern.get(2..).unwrap_or_default().to_owned())
            }
            [head @ .., PatternStep::Rest] if literal(head).is_some() => {
                Self::StartsWith(literal(head).unwrap_or_default())
            }
            _ => match literal(&steps) {
                Some(text) => Self::Exact(text),
                None => Self::Program(PatternProgram::new(steps)),
            },
        })
    }

    /// How many steps a character of a path may take.
    pub(crate) fn steps(&self) -> usize {
        if let Self::Program(program) = self {
            program.steps.len()
        } else {
            0
        }
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::StartsWith(text) => path.starts_with(text.as_str()),
            Self::EndsWith(text) => {
                path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path)
            }
            Self::Program(program) => program.matches(path),
        }
    }
}

fn steps(pattern: &str) -> Result<Vec<PatternStep>, BadPattern> {
    let mut steps = Vec::new();
    let mut rest = pattern;
    loop {
        if let Some(tail) = rest.strip_prefix("**") {
            rest = tail.strip_prefix('/').unwrap_or(tail);
            steps.push(if rest.is_empty() {
                PatternStep::Rest
            } else {
                PatternStep::Dirs
            });
            continue;
        }
        let mut chars = rest.chars();
        let Some(c) = chars.next() else {
            return Ok(steps);
        };
        rest = chars.as_str();
        steps.push(match c {
            '*' => PatternStep::Star,
            '?' => PatternStep::Any,
            '[' => PatternStep::Class(Class::parse(&mut rest)?),
            '\\' => {
                let c = chars.next().ok_or(BadPattern)?;
                rest = chars.as_str();
                PatternStep::Char(c)
            }
            c => PatternStep::Char(c),
        });
    }
}

/// A pattern as a machine. State `i` stands in front of step `i`; the state after the last step accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PatternProgram {
    steps: Vec<PatternStep>,
    /// Text every match starts with.
    prefix: String,
    /// Text every match ends with.
    suffix: String,
}

impl PatternProgram {
    fn new(steps: Vec<PatternStep>) -> Self {
        let text = |step: &PatternStep| {
            if let PatternStep::Char(c) = step {
                Some(*c)
            } else {
                None
            }
        };
        let prefix = steps.iter().map_while(text).collect();
        let suffix: String = steps.iter().rev().map_while(text).collect();
        Self {
            steps,
            prefix,
            suffix: suffix.chars().rev().collect(),
        }
    }

    fn matches(&self, path: &str) -> bool {
        if !path.starts_with(self.prefix.as_str()) || !path.ends_with(self.suffix.as_str()) {
            return false;
        }
        if self.steps.len() < 64 {
            self.run(path, &mut Small(0), &mut Small(0))
        } else {
            self.run(
                path,
                &mut Large::new(self.steps.len()),
                &mut Large::new(self.steps.len()),
            )
        }
    }

    /// Steps two sets of states, before a character and after it. `Dirs` is left on entry and after a slash only.
    fn run<S: States>(&self, path: &str, at: &mut S, then: &mut S) -> bool {
        self.enter(0, at);
        for c in path.chars() {
            then.clear();
            for state in 0..self.steps.len() {
                if !at.has(state) {
                    continue;
                }
                match self.steps.get(state) {
                    Some(PatternStep::Char(wanted)) if *wanted == c => self.enter(state + 1, then),
                    Some(PatternStep::Any) if c != '/' => self.enter(state + 1, then),
                    Some(PatternStep::Class(class)) if class.matches(c) => {
                        self.enter(state + 1, then)
                    }
                    Some(PatternStep::Star) if c != '/' => self.enter(state, then),
                    Some(PatternStep::Rest) => self.enter(state, then),
                    Some(PatternStep::Dirs) => {
                        then.add(state);
                        if c == '/' {
                            self.enter(state + 1, then);
                        }
                    }
                    _ => {}
                }
            }
            if then.is_empty() {
                return false;
            }
            std::mem::swap(at, then);
        }
        at.has(self.steps.len())
    }

    /// Adds a state and those that follow without a character.
    fn enter<S: States>(&self, state: usize, into: &mut S) {
        let mut state = state;
        loop {
            into.add(state);
            match self.steps.get(state) {
                Some(PatternStep::Star | PatternStep::Rest | PatternStep::Dirs) => state += 1,
                _ => return,
            }
        }
    }
}

trait States {
    fn add(&mut self, state: usize);
    fn has(&self, state: usize) -> bool;
    fn clear(&mut self);
    fn is_empty(&self) -> bool;
}

struct Small(u64);

impl States for Small {
    fn add(&mut self, state: usize) {
        self.0 |= 1 << state;
    }
    fn has(&self, state: usize) -> bool {
        self.0 & (1 << state) != 0
    }
    fn clear(&mut self) {
        self.0 = 0;
    }
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

struct Large {
    set: Vec<bool>,
    any: bool,
}

impl Large {
    fn new(steps: usize) -> Self {
        Self {
            set: vec![false; steps + 1],
            any: false,
        }
    }
}

impl States for Large {
    fn add(&mut self, state: usize) {
        if let Some(bit) = self.set.get_mut(state) {
            *bit = true;
            self.any = true;
        }
    }
    fn has(&self, state: usize) -> bool {
        self.set.get(state).copied().unwrap_or_default()
    }
    fn clear(&mut self) {
        self.set.fill(false);
        self.any = false;
    }
    fn is_empty(&self) -> bool {
        !self.any
    }
}
