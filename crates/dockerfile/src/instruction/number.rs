//! Sizes and counts as Go reads them.

use super::InstructionError;

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

/// Reads a 32 bit count, with the error Go gives.
pub(super) fn int32(text: &str) -> Result<i32, InstructionError> {
    gostd::strconv::parse_int(text).map_err(|source| InstructionError::NotANumber {
        value: text.to_owned(),
        source,
    })
}

/// Reads an unsigned number of at most 32 bits without a sign.
pub(super) fn uint32(text: &str, radix: u32) -> Option<u32> {
    if text.starts_with('+') {
        None
    } else {
        u32::from_str_radix(text, radix).ok()
    }
}
