//! Points in time as Go's encoder writes them in documents.
//!
//! `time.Time` is written as RFC 3339 with the offset it was read with (`Z` for zero) and a fraction without trailing zeros.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::strconv::quote;
use jiff::SignedDuration;
use jiff::civil::DateTime;

/// A point in time with the offset it is written in.
///
/// `{}` writes the fraction without trailing zeros, `{:.9}` always nine digits of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
    offset_minutes: i32,
}

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
/// Go's layout up to the fraction; a zero stands for any digit.
const LAYOUT: &[u8; 19] = b"0000-00-00T00:00:00";

impl Timestamp {
    /// Seconds since 1970, in UTC.
    #[must_use]
    pub fn from_seconds(seconds: i64) -> Self {
        Self {
            seconds,
            nanos: 0,
            offset_minutes: 0,
        }
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        self.seconds
    }

    /// Nanoseconds past [`Self::seconds`], below a billion.
    #[must_use]
    pub fn nanos(&self) -> u32 {
        self.nanos
    }

    /// Whether it is later than `other`.
    #[must_use]
    pub fn is_after(&self, other: &Self) -> bool {
        (self.seconds, self.nanos) > (other.seconds, other.nanos)
    }

    /// Reads RFC 3339 in the one form that Go takes; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let head = text.get(..19)?;
        let fits = head.bytes().zip(LAYOUT).all(|(byte, want)| match want {
            b'0' => byte.is_ascii_digit(),
            want => byte == *want,
        });
        if !fits {
            return None;
        }
        let number = |at: usize| -> Option<i8> { head.get(at..at + 2)?.parse().ok() };
        let date_time = DateTime::new(
            head.get(..4)?.parse().ok()?,
            number(5)?,
            number(8)?,
            number(11)?,
            number(14)?,
            number(17)?,
            0,
        );
        let local = date_time.ok()?.duration_since(EPOCH).as_secs();
        let mut rest = text.get(19..)?;
        let mut nanos = 0;
        if let Some(fraction) = rest.strip_prefix('.') {
            let end = fraction
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(fraction.len());
            let (digits, tail) = fraction.split_at(end);
            if digits.is_empty() {
                return None;
            }
            let nine: String = digits
                .chars()
                .chain(std::iter::repeat('0'))
                .take(9)
                .collect();
            nanos = nine.parse().ok()?;
            rest = tail;
        }
        let offset_minutes = if rest == "Z" {
            0
        } else {
            let negative = match rest.as_bytes().first()? {
                b'+' => false,
                b'-' => true,
                _ => return None,
            };
            let (hours, minutes) = rest.get(1..)?.split_once(':')?;
            if hours.len() != 2 || minutes.len() != 2 {
                return None;
            }
            let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
            if hours > 24 || minutes > 60 {
                return None;
            }
            let offset = hours * 60 + minutes;
            if negative { -offset } else { offset }
        };
        Some(Self {
            seconds: local - i64::from(offset_minutes) * 60,
            nanos,
            offset_minutes,
        })
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let (since, before) = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => (since, false),
            Err(error) => (error.duration(), true),
        };
        let mut seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let mut nanos = since.subsec_nanos();
        if before {
            seconds = -seconds;
            if nanos > 0 {
                (seconds, nanos) = (seconds - 1, 1_000_000_000 - nanos);
            }
        }
        Self {
            seconds,
            nanos,
            offset_minutes: 0,
        }
    }
}

impl From<Timestamp> for SystemTime {
    /// A time that the system cannot tell becomes 1970.
    fn from(time: Timestamp) -> Self {
        let seconds = Duration::from_secs(time.seconds.unsigned_abs());
        let whole = if time.seconds >= 0 {
            UNIX_EPOCH.checked_add(seconds)
        } else {
            UNIX_EPOCH.checked_sub(seconds)
        };
        whole
            .and_then(|t| t.checked_add(Duration::from_nanos(time.nanos.into())))
            .unwrap_or(UNIX_EPOCH)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!("parsing time {}: not RFC 3339", quote(&text)))
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.seconds + i64::from(self.offset_minutes) * 60;
        // Years that have no four digits are not written by Go either; here they become the nearest that have.
        let date_time = EPOCH
            .checked_add(SignedDuration::from_secs(local))
            .unwrap_or(if local < 0 {
                DateTime::MIN
            } else {
                DateTime::MAX
            });
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            date_time.year(),
            date_time.month(),
            date_time.day(),
            date_time.hour(),
            date_time.minute(),
            date_time.second()
        )?;
        let digits = format!("{:09}", self.nanos);
        match f.precision() {
            Some(0) => {}
            Some(count) => write!(f, ".{}", digits.get(..count).unwrap_or(&digits))?,
            None if self.nanos > 0 => write!(f, ".{}", digits.trim_end_matches('0'))?,
            None => {}
        }
        if self.offset_minutes == 0 {
            return f.write_str("Z");
        }
        let sign = if self.offset_minutes < 0 { '-' } else { '+' };
        let offset = self.offset_minutes.abs();
        write!(f, "{sign}{:02}:{:02}", offset / 60, offset % 60)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
