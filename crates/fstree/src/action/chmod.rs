//! Symbolic mode changes, as chmod(1) takes them.

use super::ActionError;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const USER: u32 = 0o700;
const GROUP: u32 = 0o070;
const OTHER: u32 = 0o007;
// What a change without a `who` part is about; the sticky bit must be named.
const STANDARD: u32 = SETUID | SETGID | USER | GROUP | OTHER;

/// A parsed mode change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange {
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Set(u32),
    Clear(u32),
    // Sets the bits where the file was executable by someone before, or is a directory.
    SetIfExecutable(u32),
    // Copies the bits of one class (its shift) to the classes in the mask.
    Copy { from: u32, to: u32, op: u8 },
}

impl ModeChange {
    /// Reads `755`, `u=rwX,go-w` and the like.
    pub fn parse(text: &str) -> Result<Self, ActionError> {
        let bad = || ActionError::Mode(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            // The sentence names the mode; the cause could only say that a digit is not octal.
            let mode = u32::from_str_radix(text, 8).map_err(|_| bad())?;
            if mode & !0o7777 != 0 {
                return Err(bad());
            }
            return Ok(Self {
                steps: vec![Step::Clear(0o7777), Step::Set(mode)],
            });
        }
        let mut steps = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause.as_bytes(), &mut steps).ok_or_else(bad)?;
        }
        Ok(Self { steps })
    }

    /// The permission bits (`07777`) after the change.
    #[must_use]
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let before = mode & 0o7777;
        let mut changed = before;
        for step in &self.steps {
            match *step {
                Step::Set(bits) => changed |= bits,
                Step::Clear(bits) => changed &= !bits,
                Step::SetIfExecutable(bits) if before & 0o111 != 0 || is_dir => changed |= bits,
                Step::SetIfExecutable(_) => {}
                Step::Copy { from, to, op } => {
                    let value = (changed >> from) & OTHER;
                    let spread = (value | value << 3 | value << 6) & to;
                    changed = match op {
                        b'+' => changed | spread,
                        b'-' => changed & !spread,
                        _ => changed & !to | spread,
                    };
                }
            }
        }
        changed
    }
}

fn parse_clause(clause: &[u8], steps: &mut Vec<Step>) -> Option<()> {
    let mut rest = clause;
    let mut who = 0;
    while let Some((class, tail)) = rest.split_first() {
        who |= match class {
            b'a' => STANDARD,
            b'u' => SETUID | USER,
            b'g' => SETGID | GROUP,
            b'o' => OTHER,
            _ => break,
        };
        rest = tail;
    }
    if rest.is_empty() {
        return None;
    }
    while let Some((op, tail)) = rest.split_first() {
        if !matches!(op, b'+' | b'-' | b'=') {
            return None;
        }
        rest = parse_permissions(*op, who, tail, steps);
    }
    Some(())
}

fn parse_permissions<'a>(
    op: u8,
    mut who: u32,
    mut rest: &'a [u8],
    steps: &mut Vec<Step>,
) -> &'a [u8] {
    let only_other = who != 0 && who & !OTHER == 0;
    let mut bits = 0;
    let mut executable = 0;
    let mut assigned = false;
    loop {
        match rest.first() {
            Some(b'r') => bits |= 0o444,
            Some(b'w') => bits |= 0o222,
            Some(b'x') => bits |= 0o111,
            Some(b'X') if op == b'-' => bits |= 0o111,
            Some(b'X') => executable = 0o111,
            Some(b's') if !only_other => bits |= SETUID | SETGID,
            Some(b't') if !only_other => {
                who |= STICKY;
                bits |= STICKY;
            }
            Some(b's' | b't') => {}
            Some(class @ (b'u' | b'g' | b'o')) => {
                if bits != 0 {
                    push(op, who, bits, steps);
                    bits = 0;
                }
                assigned |= op == b'=';
                if executable != 0 {
                    steps.push(Step::SetIfExecutable(masked(who, executable)));
                    executable = 0;
                }
                let from = match class {
                    b'u' => 6,
                    b'g' => 3,
                    _ => 0,
                };
                steps.push(Step::Copy {
                    from,
                    to: classes(who),
                    op,
                });
            }
            _ => break,
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    if bits != 0 || op == b'=' && !assigned {
        push(op, who, bits, steps);
    }
    if executable != 0 {
        steps.push(Step::SetIfExecutable(masked(who, executable)));
    }
    rest
}

fn push(op: u8, who: u32, bits: u32, steps: &mut Vec<Step>) {
    if op == b'=' {
        steps.push(Step::Clear(if who == 0 { STANDARD } else { who }));
    }
    let bits = masked(who, bits);
    steps.push(if op == b'-' {
        Step::Clear(bits)
    } else {
        Step::Set(bits)
    });
}

fn masked(who: u32, bits: u32) -> u32 {
    if who == 0 { bits } else { who & bits }
}

fn classes(who: u32) -> u32 {
    if who == 0 {
        return 0o777;
    }
    [(0o400, USER), (0o040, GROUP), (0o004, OTHER)]
        .iter()
        .filter(|(r, _)| who & r != 0)
        .fold(0, |all, (_, c)| all | c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_those_of_chmod() {
        for (text, mode, dir, want) in [
            ("755", 0o100_644, false, 0o755),
            ("4711", 0o644, false, 0o4711),
            ("go-w", 0o666, false, 0o644),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a+X", 0o644, false, 0o644),
            ("+x", 0o644, false, 0o755),
            ("u+s,g+s", 0o755, false, 0o6755),
            ("+t", 0o777, true, 0o1777),
            ("o+t", 0o777, true, 0o777),
            ("go=u", 0o640, false, 0o666),
            ("g=u-w", 0o644, false, 0o644),
            ("go=", 0o777, false, 0o700),
            ("=r", 0o6777, false, 0o444),
            ("u-x+w", 0o555, false, 0o655),
        ] {
            assert_eq!(
                ModeChange::parse(text).unwrap().apply(mode, dir),
                want,
                "{text} on {mode:o}"
            );
        }
        for text in ["", "u", "x", "u=rwx,", "99999", "u+q", "8"] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}
