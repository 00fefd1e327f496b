//! Disk usage of records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::id::RefId;
use crate::kind::RecordType;

/// One line of `du`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// The record's name.
    pub id: RefId,
    /// Whether it can still be written.
    pub mutable: bool,
    /// Whether a build holds it, or a record that stands on it.
    pub in_use: bool,
    /// Bytes on disk of its own files and blobs.
    pub size: i64,
    /// The records that it stands on.
    pub parents: Vec<RefId>,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last used; `None` if never.
    pub last_used: Option<SystemTime>,
    /// How many times it was used.
    pub usage_count: i64,
    /// What made it, as `du` shows it.
    pub description: String,
    /// The type of its content.
    pub record_type: RecordType,
    /// Whether something outside of the store uses the same bytes.
    pub shared: bool,
}

impl UsageRecord {
    /// Returns the text of a filter's field, if the field is present.
    pub(crate) fn field(&self, path: &[String]) -> Option<String> {
        let flag = |set: bool| set.then(String::new);
        let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        match path.first()?.as_str() {
            "id" => text(self.id.as_str()),
            "parents" => {
                let all: Vec<&str> = self.parents.iter().map(RefId::as_str).collect();
                text(&all.join(";"))
            }
            "description" => text(&self.description),
            "inuse" => flag(self.in_use),
            "mutable" => flag(self.mutable),
            "immutable" => flag(!self.mutable),
            "type" => text(self.record_type.as_str()),
            "shared" => flag(self.shared),
            "private" => flag(!self.shared),
            _ => None,
        }
    }
}

/// Nanoseconds since 1970, as kept in the index.
pub(crate) fn to_nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(d) => i64::try_from(d.as_nanos()).unwrap_or(i64::MAX),
        Err(e) => i64::try_from(e.duration().as_nanos()).map_or(i64::MIN, |n| -n),
    }
}

/// The time that [`to_nanos`] was given.
pub(crate) fn from_nanos(nanos: i64) -> SystemTime {
    let d = Duration::from_nanos(nanos.unsigned_abs());
    if nanos >= 0 {
        UNIX_EPOCH + d
    } else {
        UNIX_EPOCH - d
    }
}
