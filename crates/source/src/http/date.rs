//! HTTP dates: `Sun, 06 Nov 1994 08:49:37 GMT`, and the two older forms that a reader must know (RFC 9110, 5.6.7).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Parses a date into seconds since 1970; `None` for an earlier one.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(text)
        .or_else(|error| match in_gmt(text) {
            Some(text) => httpdate::parse_http_date(&text),
            None => Err(error),
        })
        .ok()?;
    let since_epoch = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since_epoch.as_secs()).ok()
}

/// Some servers write another zone, as in `Sunday, 06-Nov-94 08:49:37 UTC`, and mean GMT.
fn in_gmt(text: &str) -> Option<String> {
    let (date, zone) = text.rsplit_once(' ')?;
    let is_zone = (3..=4).contains(&zone.len()) && zone.bytes().all(|b| b.is_ascii_uppercase());
    (is_zone && date.contains("day, ")).then(|| format!("{date} GMT"))
}

/// Formats a date as RFC 9110 demands; `None` for a year of more than four digits.
pub(crate) fn format(seconds: i64) -> Option<String> {
    const END_OF_9999: u64 = 253_402_300_800;
    let seconds = u64::try_from(seconds).ok().filter(|s| *s < END_OF_9999)?;
    let time: SystemTime = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Some(httpdate::fmt_http_date(time))
}

#[cfg(test)]
mod tests {
    use super::{format, parse};

    #[test]
    fn all_forms_are_one_date() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 UTC",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text), Some(784_111_777), "{text}");
        }
        for (seconds, want) in [
            (784_111_777, Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            (0, Some("Thu, 01 Jan 1970 00:00:00 GMT")),
            (253_402_300_799, Some("Fri, 31 Dec 9999 23:59:59 GMT")),
            (253_402_300_800, None),
            (-1, None),
        ] {
            assert_eq!(format(seconds).as_deref(), want);
        }
        for bad in [
            "",
            "Sun, 06 Nov 1994",
            "Sun, 99 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1960 08:49:37 GMT",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
