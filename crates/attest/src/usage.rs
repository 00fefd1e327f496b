//! What steps and the machine used, as values that go into provenance.
//!
//! The shape is whatever the caller makes: the names of BuildKit's fields are known where samples are.

use std::collections::BTreeMap;

use oci::Digest;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

/// Steps whose usage provenance tells. Those beyond it are left out: samples stay in memory until the build ends.
const MAX_STEPS: usize = 1024;

/// A value of usage. Objects keep their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageValue {
    /// `null`.
    Null,
    /// A count.
    Count(u64),
    /// A number with two decimals, times 100.
    Hundredths(u64),
    /// A time, as RFC 3339.
    Time(String),
    /// Several.
    List(Vec<UsageValue>),
    /// By name.
    Object(Vec<(&'static str, UsageValue)>),
}

impl Serialize for UsageValue {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => to.serialize_unit(),
            Self::Count(count) => to.serialize_u64(*count),
            Self::Hundredths(number) if number % 100 == 0 => to.serialize_u64(number / 100),
            #[expect(
                clippy::cast_precision_loss,
                reason = "two decimals of a share or of seconds"
            )]
            Self::Hundredths(number) => to.serialize_f64(*number as f64 / 100.0),
            Self::Time(text) => to.serialize_str(text),
            Self::List(values) => to.collect_seq(values),
            Self::Object(fields) => {
                let mut map = to.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// Resource usage of steps, by the digests of their vertices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StepUsages(BTreeMap<Digest, UsageValue>);

impl StepUsages {
    /// Adds what a step used.
    pub(crate) fn insert(&mut self, step: Digest, usage: UsageValue) {
        if self.0.len() < MAX_STEPS || self.0.contains_key(&step) {
            self.0.insert(step, usage);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (step, usage) in &other.0 {
            self.insert(step.clone(), usage.clone());
        }
    }

    pub(crate) fn of(&self, step: &Digest) -> Option<&UsageValue> {
        self.0.get(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_go_writes_them() {
        let line = |name, value| (name, UsageValue::Hundredths(value));
        let value = UsageValue::Object(vec![
            ("timestamp", UsageValue::Time("2026-01-02T03:04:05Z".into())),
            ("z", UsageValue::Count(u64::MAX)),
            line("a", 0),
            line("b", 9852),
            line("c", 1200),
            line("d", 50),
            ("full", UsageValue::Null),
            ("list", UsageValue::List(vec![UsageValue::Count(1)])),
        ]);
        assert_eq!(
            String::from_utf8(gostd::json::to_vec(&value)).unwrap(),
            r#"{"timestamp":"2026-01-02T03:04:05Z","z":18446744073709551615,"a":0,"b":98.52,"c":12,"d":0.5,"full":null,"list":[1]}"#
        );
    }

    #[test]
    fn the_usage_of_so_many_steps_is_kept_and_no_more() {
        let mut usages = StepUsages::default();
        let step = |n: usize| Digest::sha256(n.to_string().as_bytes());
        for n in 0..MAX_STEPS + 5 {
            usages.insert(step(n), UsageValue::Null);
        }
        usages.insert(step(0), UsageValue::Count(1));
        assert_eq!(usages.of(&step(0)), Some(&UsageValue::Count(1)));
        assert!(usages.of(&step(MAX_STEPS - 1)).is_some());
        assert_eq!(usages.of(&step(MAX_STEPS)), None);
    }
}
