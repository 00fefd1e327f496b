//! Durations as Go's `time` package reads and writes them, in nanoseconds.

use std::time::Duration;

/// Why a text is no duration. Printed as Go prints it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDurationError {
    /// It has another form, or is too long for 64 bits of nanoseconds.
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    /// A number has no unit.
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    /// A unit that Go does not know.
    #[error("time: unknown unit {} in duration {}", quote(unit), quote(text))]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Quotes as that package does, which is not as `strconv` does: bytes beyond ASCII and controls become `\xNN`.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=0x7f => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The largest magnitude: that of the smallest duration.
const MAX: u64 = 1 << 63;

/// Reads a duration such as `1h2m3.5s` or `-20ms` as nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, ParseDurationError> {
    let invalid = || ParseDurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, tail) = split_digits(rest);
        let (fraction, tail) = tail.strip_prefix('.').map_or(("", tail), split_digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let whole = whole_number(whole).ok_or_else(invalid)?;
        let unit_end = tail
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        if unit.is_empty() {
            return Err(ParseDurationError::MissingUnit(text.to_owned()));
        }
        let Some(&(_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(ParseDurationError::UnknownUnit {
                unit: unit.to_owned(),
                text: text.to_owned(),
            });
        };
        total = whole
            .checked_mul(nanos)
            .and_then(|part| part.checked_add(fraction_of(fraction, nanos)))
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= MAX)
            .ok_or_else(invalid)?;
        rest = tail;
    }
    match i64::try_from(total) {
        Ok(nanos) if negative => Ok(-nanos),
        Ok(nanos) => Ok(nanos),
        Err(_) if negative => Ok(i64::MIN),
        Err(_) => Err(invalid()),
    }
}

/// As [`parse_duration`], for places where a time before now makes no sense: `None` for what is negative as well.
#[must_use]
pub fn parse_std_duration(text: &str) -> Option<Duration> {
    let nanos = parse_duration(text).ok()?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// No digits are zero.
fn whole_number(digits: &str) -> Option<u64> {
    if digits.is_empty() {
        return Some(0);
    }
    digits.parse().ok().filter(|number| *number <= MAX)
}

/// The nanoseconds of a fraction of a unit. Go computes them as a float, so a third of an hour is exactly 20 minutes.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let mut value: u64 = 0;
    let mut scale = 1.0_f64;
    for digit in digits.bytes() {
        // Digits that no longer fit cannot change a count of nanoseconds.
        let next = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit - b'0')))
            .filter(|value| *value <= MAX);
        let Some(next) = next else { break };
        value = next;
        scale *= 10.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as Go does it; the result is below one unit"
    )]
    let nanos = (value as f64 * (unit as f64 / scale)) as u64;
    nanos
}

/// Writes a duration as Go does: `1h30m0s`, `1.5s`, `20ms`, `0s`.
#[must_use]
pub fn format_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let with_fraction = |value: u64, unit: u64| {
        let (whole, rest) = (value / unit, value % unit);
        if rest == 0 {
            return whole.to_string();
        }
        let digits = unit.ilog10() as usize;
        format!(
            "{whole}.{}",
            format!("{rest:0digits$}").trim_end_matches('0')
        )
    };
    let body = match total {
        0..1_000 => format!("{total}ns"),
        1_000..1_000_000 => format!("{}µs", with_fraction(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", with_fraction(total, 1_000_000)),
        _ => {
            let seconds = total / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let below_minute = with_fraction(
                total - (hours * 3600 + minutes * 60) * 1_000_000_000,
                1_000_000_000,
            );
            match (hours, minutes) {
                (0, 0) => format!("{below_minute}s"),
                (0, m) => format!("{m}m{below_minute}s"),
                (h, m) => format!("{h}h{m}m{below_minute}s"),
            }
        }
    };
    format!("{sign}{body}")
}
