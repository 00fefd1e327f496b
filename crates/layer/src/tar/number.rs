//! Numbers in headers.

/// True when `n` can be written in a field of `width` bytes as octal digits and a NUL.
pub(super) fn fits_octal(width: usize, n: i64) -> bool {
    n >= 0 && (width >= 22 || n < 1_i64 << ((width - 1) * 3))
}

/// Writes octal digits with zeros in front and a NUL behind; zero when the number does not fit.
pub(super) fn write_octal(field: &mut [u8], n: i64) {
    let n = if fits_octal(field.len(), n) { n } else { 0 };
    let digits = field.len().saturating_sub(1);
    let text = format!("{n:0digits$o}");
    for (to, from) in field.iter_mut().zip(text.bytes().chain([0])) {
        *to = from;
    }
}

/// Reads octal digits, or base-256 when the first bit says so. `None` for anything else or an overflow.
pub(super) fn read(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => read_binary(field),
        _ => read_octal(field),
    }
}

fn read_octal(field: &[u8]) -> Option<i64> {
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b));
    let Some(start) = start else { return Some(0) };
    let digits = field.get(start..)?;
    let end = digits.iter().rposition(|b| !blank(b))?;
    let digits = digits.get(..=end)?;
    let digits = digits.split(|b| *b == 0).next()?;
    let mut n: u64 = 0;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 8)?;
        n = n.checked_mul(8)?.checked_add(u64::from(digit))?;
    }
    i64::try_from(n).ok()
}

fn read_binary(field: &[u8]) -> Option<i64> {
    let negative = field.first()? & 0x40 != 0;
    let invert = if negative { 0xff } else { 0 };
    let mut n: u64 = 0;
    for (i, byte) in field.iter().enumerate() {
        let mut byte = byte ^ invert;
        if i == 0 {
            byte &= 0x7f;
        }
        if n >> 56 != 0 {
            return None;
        }
        n = n << 8 | u64::from(byte);
    }
    let n = i64::try_from(n).ok()?;
    Some(if negative { !n } else { n })
}

/// Reads the decimal number of a PAX record.
pub(super) fn read_decimal(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads a PAX time: seconds, and nanoseconds counted forward from them.
pub(super) fn read_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    let mut ns: u32 = 0;
    let mut digits = fraction.bytes();
    for _ in 0..9 {
        let digit = digits.next().unwrap_or(b'0');
        ns = ns * 10 + u32::from(digit.checked_sub(b'0').filter(|d| *d < 10)?);
    }
    if !digits.all(|d| d.is_ascii_digit()) {
        return None;
    }
    if seconds.starts_with('-') && ns > 0 {
        return Some((whole.checked_sub(1)?, 1_000_000_000 - ns));
    }
    Some((whole, ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_notation_are_read() {
        assert_eq!(read(b"0000644\0"), Some(0o644));
        assert_eq!(read(b"  644 \0\0"), Some(0o644));
        assert_eq!(read(b"\0\0\0\0"), Some(0));
        assert_eq!(read(b"\x80\0\0\0\0\0\x20\0"), Some(0x2000));
        assert_eq!(read(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(
            read(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            None
        );
        assert_eq!(read(b"12x4"), None);
        assert_eq!(read_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(read_time(b"10.000000001"), Some((10, 1)));
        assert_eq!(read_time(b"10.x"), None);
    }
}
