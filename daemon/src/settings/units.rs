//! Go durations and BuildKit's disk space: `48h`, `1h30m`, `3600`; `10GB`, `512MiB`, `20%`.

use std::time::Duration;

use oci::ErrorKind;

/// An amount of disk space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSpace {
    /// The setting is not given.
    Unset,
    /// Bytes.
    Bytes(u64),
    /// Percent of the file system.
    Percent(u64),
    /// The smaller of a share of the file system and a number of bytes.
    Smaller {
        /// Percent of the file system.
        percent: u64,
        /// Bytes.
        bytes: u64,
    },
}

impl DiskSpace {
    /// Returns the amount in bytes on a file system of `total` bytes; a percentage is rounded as BuildKit does.
    pub fn bytes(self, total: u64) -> u64 {
        let share = |percent: u64| {
            if total == 0 {
                2_000_000_000
            } else {
                (total / 100 * percent / (1 << 30) + 1) * 1_000_000_000
            }
        };
        match self {
            Self::Unset => 0,
            Self::Bytes(bytes) => bytes,
            Self::Percent(0) => 0,
            Self::Percent(percent) => share(percent),
            Self::Smaller { percent, bytes } => share(percent).min(bytes),
        }
    }
}

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// The text is not a duration.
    #[error("invalid duration {0}: write it like 48h, 1h30m or a number of seconds")]
    Duration(String),
    /// The text is not an amount of disk space.
    #[error("invalid disk space {0}: write it like 10GB, 512MB or 20%")]
    DiskSpace(String),
}

impl UnitError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Duration(_) | Self::DiskSpace(_) => ErrorKind::Invalid,
        }
    }
}

/// Parses a Go duration, or a plain number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let bad = || UnitError::Duration(text.into());
    if text.is_empty() {
        return Ok(Duration::ZERO);
    }
    gostd::time::parse_std_duration(text)
        .or_else(|| text.parse().ok().map(Duration::from_secs))
        .ok_or_else(bad)
}

/// Parses an amount of disk space; units are powers of 1024, as `docker/go-units` reads them.
pub fn parse_disk_space(text: &str) -> Result<DiskSpace, UnitError> {
    let bad = || UnitError::DiskSpace(text.into());
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(DiskSpace::Unset);
    }
    if let Some(percent) = trimmed.strip_suffix('%') {
        return percent
            .trim()
            .parse()
            .map(DiskSpace::Percent)
            // The sentence shows how to write it; the cause could only say that it is not a number.
            .map_err(|_| bad());
    }
    let at = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(at);
    // As above: digits and dots that are no number, like `1.2.3`.
    let number: f64 = number.parse().map_err(|_| bad())?;
    let unit = unit.trim().to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float to integer cast saturates"
    )]
    let bytes = (number * 1024_f64.powi(power)) as u64;
    Ok(DiskSpace::Bytes(bytes))
}

/// A duration in the configuration file: text or seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationText(pub Duration);

/// Disk space in the configuration file: text or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpaceText(pub DiskSpace);

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Number(i64),
}

impl<'de> serde::Deserialize<'de> for DurationText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match TextOrNumber::deserialize(deserializer)? {
            TextOrNumber::Text(text) => parse_duration(&text)
                .map(Self)
                .map_err(serde::de::Error::custom),
            TextOrNumber::Number(seconds) => Ok(Self(Duration::from_secs(
                u64::try_from(seconds).unwrap_or(0),
            ))),
        }
    }
}

impl<'de> serde::Deserialize<'de> for DiskSpaceText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match TextOrNumber::deserialize(deserializer)? {
            TextOrNumber::Text(text) => parse_disk_space(&text)
                .map(Self)
                .map_err(serde::de::Error::custom),
            TextOrNumber::Number(bytes) => {
                Ok(Self(DiskSpace::Bytes(u64::try_from(bytes).unwrap_or(0))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_amounts_are_read_as_go_reads_them() {
        for (text, seconds) in [
            ("48h", 172_800.0),
            ("1h30m", 5400.0),
            ("90", 90.0),
            ("1.5s", 1.5),
            ("100ms", 0.1),
            ("", 0.0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }
        assert!(parse_duration("3 apples").is_err());
        for (text, want) in [
            ("10GB", DiskSpace::Bytes(10 << 30)),
            ("512m", DiskSpace::Bytes(512 << 20)),
            ("1KiB", DiskSpace::Bytes(1024)),
            ("20%", DiskSpace::Percent(20)),
            ("7", DiskSpace::Bytes(7)),
        ] {
            assert_eq!(parse_disk_space(text), Ok(want), "{text}");
        }
        assert!(parse_disk_space("many").is_err());
    }
}
