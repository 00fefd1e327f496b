//! How Go writes values.

use std::time::{Duration, SystemTime};

/// `%v` of a `time.Time` in UTC: `2026-01-02 03:04:05.678 +0000 UTC`.
pub(super) fn time(time: Option<SystemTime>) -> String {
    let Some(time) = time else {
        return "0001-01-01 00:00:00 +0000 UTC".to_owned();
    };
    let text = rfc3339_nanos(time);
    format!(
        "{} +0000 UTC",
        text.trim_end_matches('Z').replacen('T', " ", 1)
    )
}

/// `time.RFC3339Nano` in UTC.
pub(super) fn rfc3339_nanos(time: SystemTime) -> String {
    gostd::Timestamp::from(time).to_string()
}

/// `time.RFC3339`, seconds only.
///
/// DIFFERS: in UTC, where `buildctl` takes the zone of the machine.
pub(super) fn rfc3339(seconds: i64) -> String {
    gostd::Timestamp::from_seconds(seconds).to_string()
}

/// `%v` of a `time.Duration`.
pub(super) fn duration(of: Duration) -> String {
    gostd::time::format_duration(i64::try_from(of.as_nanos()).unwrap_or(i64::MAX))
}

/// `%g` of a number of bytes with its unit (github.com/tonistiigi/units): as many digits as it takes.
pub(super) fn bytes(count: i64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut power = 0_usize;
    let mut divisor = 1_i64;
    while power + 1 < UNITS.len() && count.unsigned_abs() / divisor.unsigned_abs() >= 1000 {
        divisor = divisor.saturating_mul(1000);
        power += 1;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "the reference counts in floats too"
    )]
    let value = count as f64 / divisor as f64;
    format!("{value}{}", UNITS[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_go_writes_them() {
        let at = |nanos| Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
        assert_eq!(time(at(1_500_000_000)), "1970-01-01 00:00:01.5 +0000 UTC");
        assert_eq!(time(at(0)), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(time(None), "0001-01-01 00:00:00 +0000 UTC");
        assert_eq!(rfc3339(86_400), "1970-01-02T00:00:00Z");
        assert_eq!(duration(Duration::from_secs(172_800)), "48h0m0s");
        for (count, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (536_870_912, "536.870912MB"),
            (10_000_000_000, "10GB"),
            (-5000, "-5kB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
