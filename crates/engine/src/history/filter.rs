//! Filters on build records, as clients write them: `status=error`, `startedAt>1h`, several in a line of CSV.

use std::time::SystemTime;

use gostd::Timestamp;
use gostd::time::parse_duration;
use store::Filters;

use crate::api::{Failure, FailureKind, HistoryRecord};

/// A record has to match one of the alternatives; an empty filter matches every record.
pub(super) struct RecordFilter(Vec<Alternative>);

/// A record has to match all conditions.
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
    /// Seconds since 1970, or the nanoseconds of a duration.
    value: i64,
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(FailureKind::InvalidArgument, error)
}

fn seconds(time: SystemTime) -> i64 {
    Timestamp::from(time).seconds()
}

fn nanos_between(started: SystemTime, completed: SystemTime) -> i64 {
    let nanos = completed
        .duration_since(started)
        .unwrap_or_default()
        .as_nanos();
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

/// Seconds since 1970 of a time in RFC 3339, or of a duration before `now`.
fn point_in_time(text: &str, now: SystemTime) -> Option<i64> {
    match parse_duration(text) {
        Ok(nanos) => {
            let now = Timestamp::from(now);
            let total = i128::from(now.seconds()) * NANOS_PER_SECOND + i128::from(now.nanos())
                - i128::from(nanos);
            i64::try_from(total.div_euclid(NANOS_PER_SECOND)).ok()
        }
        Err(_) => Some(Timestamp::parse(text)?.seconds()),
    }
}

const NANOS_PER_SECOND: i128 = 1_000_000_000;

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
        let limit = match field {
            Field::Duration => parse_duration(value).ok(),
            Field::Started | Field::Completed => point_in_time(value, now),
        };
        let value = limit.ok_or_else(|| invalid(format!("invalid {what} {value}")))?;
        Ok(Some(Self { field, op, value }))
    }

    fn fits(&self, record: &HistoryRecord) -> bool {
        let value = match self.field {
            Field::Started => record.created.map_or(0, seconds),
            Field::Completed => record.completed.map_or(0, seconds),
            Field::Duration => record
                .created
                .zip(record.completed)
                .map_or(0, |(started, completed)| nanos_between(started, completed)),
        };
        match self.op {
            ">=" => value >= self.value,
            "<=" => value <= self.value,
            ">" => value > self.value,
            _ => value < self.value,
        }
    }
}

impl RecordFilter {
    /// Reads filters; durations count back from `now`.
    pub(super) fn parse(texts: &[String], now: SystemTime) -> Result<Self, Failure> {
        let mut alternatives = Vec::with_capacity(texts.len());
        for text in texts {
            let (mut times, mut words) = (Vec::new(), Vec::new());
            let fields = gostd::csv::fields(text).map_err(invalid)?;
            for field in &fields {
                match Time::parse(field, now)? {
                    Some(time) => times.push(time),
                    None => words.push(field.as_str()),
                }
            }
            let words = (!words.is_empty())
                .then(|| Filters::parse(&[words.join(",")]))
                .transpose()
                .map_err(|e| {
                    invalid(e).during(format!("failed to parse history filters {text}"))
                })?;
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
        "ref" => Some(record.build.to_string()),
        "status" => {
            // DIFFERS: BuildKit takes every error whose sentence has "context canceled" in it for a cancelled build.
            let status = match (&record.completed, &record.error) {
                (None, _) => "running",
                (Some(_), None) => "completed",
                (Some(_), Some(e)) if e.kind == FailureKind::Canceled => "canceled",
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
    use std::time::Duration;

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
        assert!(fits(&["startedAt>=1970-01-12T13:36:40Z"]));
        assert!(!fits(&["startedAt>1970-01-12T13:36:40Z"]));
        assert!(RecordFilter::parse(&["duration>x".into()], now).is_err());
        assert!(RecordFilter::parse(&["startedAt>yesterday".into()], now).is_err());
    }

    #[test]
    fn a_filter_is_a_line_of_csv() {
        let record = |build: &str| HistoryRecord {
            build: build.into(),
            completed: Some(SystemTime::UNIX_EPOCH),
            ..HistoryRecord::default()
        };
        let parse = |text: &str| RecordFilter::parse(&[text.to_owned()], SystemTime::UNIX_EPOCH);
        for (text, build, want) in [
            ("ref==a,status==completed", "a", true),
            ("ref==b,status==completed", "a", false),
            ("\"ref==a\",\"status==completed\"", "a", true),
            ("\"ref~=^(a|b)$\"", "b", true),
            // A quoted field has quotes of the filter language inside.
            ("\"ref==\"\"a,b\"\"\"", "a,b", true),
            ("\"ref==\"\"a,b\"\"\"", "a", false),
        ] {
            let filter = parse(text).unwrap();
            assert_eq!(filter.fits(&record(build)), want, "{text} {build}");
        }
        for text in ["", "\"ref==a", "ref==\"a\"", "\"ref==a\"x", "ref==a,"] {
            let Err(error) = parse(text) else {
                panic!("{text} is taken");
            };
            assert_eq!(error.kind, FailureKind::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn a_build_that_has_not_ended_has_no_times_and_runs() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let running = HistoryRecord {
            created: Some(now),
            ..HistoryRecord::default()
        };
        for (text, want) in [
            ("status=running", true),
            ("status!=running", false),
            ("completedAt>1s", false),
            ("completedAt<1s", true),
            ("duration<=0s", true),
            ("duration>0s", false),
            ("startedAt<=0s", true),
            ("startedAt>=1m", true),
            ("unknown", false),
            ("unknown!=x", true),
        ] {
            let filter = RecordFilter::parse(&[text.to_owned()], now).unwrap();
            assert_eq!(filter.fits(&running), want, "{text}");
        }
    }

    #[test]
    fn a_repository_is_what_the_client_says_or_a_context_that_is_one() {
        let of = |attrs: &[(&str, &str)]| {
            let record = HistoryRecord {
                frontend_attrs: attrs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
                ..HistoryRecord::default()
            };
            value(&record, &["repository".to_owned()])
        };
        for (attrs, want) in [
            (&[][..], None),
            (
                &[("vcs:source", "x"), ("context", "https://h/y")][..],
                Some("x"),
            ),
            (
                &[("context", "https://h/y.git")][..],
                Some("https://h/y.git"),
            ),
            (&[("context", "git@h:y")][..], Some("git@h:y")),
            (&[("context", "/home/me/y")][..], None),
        ] {
            assert_eq!(of(attrs).as_deref(), want, "{attrs:?}");
        }
    }
}
