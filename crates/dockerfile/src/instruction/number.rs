//! Sizes, times and counts as Go reads them.

use super::InstructionError;
use crate::text::quote;

/// Reads a size such as `512`, `64m`, `1.5 GiB`; units are powers of 1024.
pub(super) fn size(text: &str) -> Option<i64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (mut number, suffix) = text.split_at_checked(last + 1)?;
    number = number.strip_suffix(' ').unwrap_or(number);
    let number: f64 = number.parse().ok()?;
    if number < 0.0 || !number.is_finite() {
        return None;
    }
    let factor: f64 = match suffix.to_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1_048_576.0,
        "g" | "gb" | "gib" => 1_073_741_824.0,
        "t" | "tb" | "tib" => 1_099_511_627_776.0,
        "p" | "pb" | "pib" => 1_125_899_906_842_624.0,
        _ => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a conversion from float saturates, which is the answer wanted"
    )]
    Some((number * factor) as i64)
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

/// Reads a time such as `1h2m3.5s` as nanoseconds.
pub(super) fn duration(text: &str) -> Result<i64, InstructionError> {
    let invalid = || InstructionError::Duration(format!("time: invalid duration {}", quote(text)));
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
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let whole_end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (whole, tail) = rest.split_at(whole_end);
        let (fraction, tail) = match tail.strip_prefix('.') {
            Some(tail) => tail.split_at(
                tail.find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(tail.len()),
            ),
            None => ("", tail),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = tail
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        if unit.is_empty() {
            return Err(InstructionError::Duration(format!(
                "time: missing unit in duration {}",
                quote(text)
            )));
        }
        let Some(&(_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(InstructionError::Duration(format!(
                "time: unknown unit {} in duration {}",
                quote(unit),
                quote(text)
            )));
        };
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| invalid())?
        };
        // Digits past the 18th cannot change a count of nanoseconds.
        let digits = fraction.get(..fraction.len().min(18)).unwrap_or_default();
        let scale = u128::from(scale);
        let part = digits
            .bytes()
            .rev()
            .fold((0u128, 1u128), |(sum, power), digit| {
                (sum + u128::from(digit - b'0') * power, power * 10)
            });
        total = whole
            .checked_mul(scale)
            .and_then(|whole| whole.checked_add(part.0 * scale / part.1))
            .and_then(|part| total.checked_add(part))
            .ok_or_else(invalid)?;
        rest = tail;
    }
    let total = i64::try_from(total).map_err(|_| invalid())?;
    Ok(if negative { -total } else { total })
}

/// Reads a 32 bit count, with the error Go gives.
pub(super) fn int32(text: &str) -> Result<i32, InstructionError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let fail = |reason| InstructionError::NotANumber {
        value: text.to_owned(),
        reason,
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fail("invalid syntax"));
    }
    text.parse().map_err(|_| fail("value out of range"))
}

/// Reads an unsigned number of at most 32 bits without a sign.
pub(super) fn uint32(text: &str, radix: u32) -> Option<u32> {
    if text.starts_with('+') {
        None
    } else {
        u32::from_str_radix(text, radix).ok()
    }
}
