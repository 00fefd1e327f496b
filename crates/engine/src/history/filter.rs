//! Filters on build records, as clients write them: `status=error`, `startedAt>1h`, several joined by commas.

use std::time::{Duration, SystemTime};

use store::Filters;

use crate::api::{Failure, FailureKind, HistoryRecord};

/// One of the alternatives must fit; none fits all.
pub(super) struct RecordFilter(Vec<Alternative>);

/// All of it must fit.
struct Alternative {
    times: Vec<Time>,
    words: Option<Filters>,
}

enum Field {
    Started,
    Completed,
    Duration,
}

struct Time {
    field: Field,
    op: &'static str,
    /// Seconds since 1970, or of a duration.
    value: f64,
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureKind::InvalidArgument, message)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// A duration as Go writes it: `1h30m`, `1.5s`, `200ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(letters)?;
        let unit = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    (!text.is_empty())
        .then(|| Duration::try_from_secs_f64(total).ok())
        .flatten()
}

impl Time {
    fn parse(text: &str, now: SystemTime) -> Result<Option<Self>, Failure> {
        let Some((op, (key, value))) = [">=", "<=", ">", "<"]
            .into_iter()
            .find_map(|op| Some((op, text.split_once(op)?)))
        else {
            return Ok(None);
        };
        let (field, what) = match key {
            "startedAt" => (Field::Started, "time"),
            "completedAt" => (Field::Completed, "time"),
            "duration" => (Field::Duration, "duration"),
            _ => return Ok(None),
        };
        let length = duration(value).ok_or_else(|| invalid(format!("invalid {what} {value}")))?;
        let value = match field {
            Field::Duration => length.as_secs_f64(),
            Field::Started | Field::Completed => (seconds(now) - length.as_secs_f64()).floor(),
        };
        Ok(Some(Self { field, op, value }))
    }

    fn fits(&self, record: &HistoryRecord) -> bool {
        let started = record.created.map_or(0.0, seconds);
        let completed = record.completed.map_or(0.0, seconds);
        let is = match self.field {
            Field::Started => started.floor(),
            Field::Completed => completed.floor(),
            Field::Duration if record.completed.is_some() => completed - started,
            Field::Duration => 0.0,
        };
        match self.op {
            ">=" => is >= self.value,
            "<=" => is <= self.value,
            ">" => is > self.value,
            _ => is < self.value,
        }
    }
}

impl RecordFilter {
    /// Reads filters; durations count back from `now`.
    pub(super) fn parse(texts: &[String], now: SystemTime) -> Result<Self, Failure> {
        let mut alternatives = Vec::with_capacity(texts.len());
        for text in texts {
            let (mut times, mut words) = (Vec::new(), Vec::new());
            for field in text.split(',') {
                match Time::parse(field, now)? {
                    Some(time) => times.push(time),
                    None => words.push(field),
                }
            }
            let words = (!words.is_empty())
                .then(|| Filters::parse(&[words.join(",")]))
                .transpose()
                .map_err(|e| invalid(format!("failed to parse history filters {text}: {e}")))?;
            alternatives.push(Alternative { times, words });
        }
        Ok(Self(alternatives))
    }

    /// Whether a record is wanted.
    pub(super) fn fits(&self, record: &HistoryRecord) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|alternative| {
                alternative.times.iter().all(|time| time.fits(record))
                    && alternative
                        .words
                        .as_ref()
                        .is_none_or(|words| words.matches(|path| value(record, path)))
            })
    }
}

fn value(record: &HistoryRecord, path: &[String]) -> Option<String> {
    match path.first().map(String::as_str)? {
        "ref" => Some(record.build.clone()),
        "status" => {
            let status = match (&record.completed, &record.error) {
                (None, _) => "running",
                (Some(_), None) => "completed",
                (Some(_), Some(e)) if e.message.contains("context canceled") => "canceled",
                (Some(_), Some(_)) => "error",
            };
            Some(status.into())
        }
        "repository" => {
            let attrs = &record.frontend_attrs;
            let remote = attrs.get("vcs:source").or_else(|| {
                let context = attrs.get("context")?;
                let is_git = context.contains("://") || context.starts_with("git@");
                is_git.then_some(context)
            })?;
            Some(remote.clone())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_chosen_by_status_and_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let record = HistoryRecord {
            build: "b".into(),
            created: Some(now - Duration::from_secs(600)),
            completed: Some(now - Duration::from_secs(540)),
            ..HistoryRecord::default()
        };
        let fits = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
            RecordFilter::parse(&texts, now).unwrap().fits(&record)
        };
        assert!(fits(&[]) && fits(&["status=completed"]) && fits(&["ref==b", "status==error"]));
        assert!(!fits(&["status=error"]));
        assert!(fits(&["startedAt>15m,duration>=1m"]) && !fits(&["startedAt>5m"]));
        assert!(!fits(&["status=completed,duration>1m0.5s"]));
        assert!(RecordFilter::parse(&["duration>x".into()], now).is_err());
    }
}
