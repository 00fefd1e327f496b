//! `du`, `prune` and `prune-histories`.

use std::ops::ControlFlow;

use client::history::{HistoryEvent, HistoryEventType, HistoryRequest};
use client::{Client, PruneFilter, UsageRecord};
use gostd::tabwriter::TabWriter;
use serde::Serialize;

use super::args::{Du, Prune};
use super::template::Template;
use super::{format, print};
use crate::failure::CliError;
use crate::progress::text::bytes;
use crate::spec;

/// A record as `--format '{{json .}}'` shows it (`client.UsageInfo`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageDocument<'a> {
    id: &'a str,
    mutable: bool,
    in_use: bool,
    size: i64,
    created_at: String,
    last_used_at: Option<String>,
    usage_count: i64,
    parents: Option<&'a [String]>,
    description: &'a str,
    record_type: &'a str,
    shared: bool,
}

fn document(record: &UsageRecord) -> UsageDocument<'_> {
    UsageDocument {
        id: &record.id,
        mutable: record.mutable,
        in_use: record.in_use,
        size: record.size,
        created_at: record
            .created
            .map_or_else(|| "0001-01-01T00:00:00Z".into(), format::rfc3339_nanos),
        last_used_at: record.last_used.map(format::rfc3339_nanos),
        usage_count: record.usage_count,
        parents: (!record.parents.is_empty()).then_some(&record.parents),
        description: &record.description,
        record_type: &record.kind,
        shared: record.shared,
    }
}

const HEAD: &str = "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n";

fn row(record: &UsageRecord) -> String {
    let star = |marked: bool| if marked { "*" } else { "" };
    let id = format!("{}{}", record.id, star(record.mutable));
    let size = format!("{}{}", bytes(record.size), star(record.shared));
    format!("{id:<71}\t{:<11}\t{size}\t\n", !record.in_use)
}

fn details(record: &UsageRecord) -> String {
    let mut text = format!("ID:\t{}\n", record.id);
    if !record.parents.is_empty() {
        text += &format!("Parents:\t{}\n", record.parents.join(";"));
    }
    text += &format!(
        "Created at:\t{}\nMutable:\t{}\nReclaimable:\t{}\nShared:\t{}\nSize:\t{}\n",
        format::time(record.created),
        record.mutable,
        !record.in_use,
        record.shared,
        bytes(record.size)
    );
    if !record.description.is_empty() {
        text += &format!("Description:\t{}\n", record.description);
    }
    text += &format!("Usage count:\t{}\n", record.usage_count);
    if record.last_used.is_some() {
        text += &format!("Last used:\t{}\n", format::time(record.last_used));
    }
    if !record.kind.is_empty() {
        text += &format!("Type:\t{}\n", record.kind);
    }
    text + "\n"
}

fn summary(records: &[UsageRecord]) -> String {
    let sum = |counts: fn(&UsageRecord) -> bool| {
        let sizes = records
            .iter()
            .filter(|record| counts(record))
            .map(|record| record.size);
        sizes.fold(0_i64, i64::saturating_add)
    };
    let total = sum(|record| record.size > 0);
    let shared = sum(|record| record.shared);
    let mut text = String::new();
    if shared > 0 {
        text += &format!(
            "Shared:\t{}\nPrivate:\t{}\n",
            bytes(shared),
            bytes(total.saturating_sub(shared))
        );
    }
    let reclaimable = sum(|record| record.size > 0 && !record.in_use);
    text + &format!(
        "Reclaimable:\t{}\nTotal:\t{}\n",
        bytes(reclaimable),
        bytes(total)
    )
}

pub(super) async fn du(client: &Client, flags: Du) -> Result<(), CliError> {
    if flags.format.is_some() && flags.verbose {
        tracing::debug!("Ignoring --verbose");
    }
    let template = flags.format.as_deref().map(Template::parse).transpose()?;
    let summed = flags.filter.is_empty();
    let mut records = client.disk_usage(flags.filter).await?;
    records.sort_by(|a, b| (a.size, &a.id).cmp(&(b.size, &b.id)));
    if let Some(template) = template {
        let documents: Vec<UsageDocument<'_>> = records.iter().map(document).collect();
        return print(&(template.render(&documents)? + "\n"));
    }
    let table = if flags.verbose {
        records.iter().map(details).collect()
    } else {
        HEAD.to_owned() + &records.iter().map(row).collect::<String>()
    };
    let mut text = TabWriter::tabs().align(&table);
    if summed {
        text += &TabWriter::tabs().align(&summary(&records));
    }
    print(&text)
}

pub(super) async fn prune(client: &Client, flags: Prune) -> Result<(), CliError> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "megabytes as a person writes them; the cast saturates"
    )]
    let megabytes = |mb: f64| (mb * 1e6) as i64;
    if flags.format.is_some() && flags.verbose {
        tracing::debug!("Ignoring --verbose");
    }
    let template = flags.format.as_deref().map(Template::parse).transpose()?;
    let filter = PruneFilter {
        filters: flags.filter,
        all: flags.all,
        keep_duration: spec::duration("keep-duration", &flags.keep_duration)?,
        reserved_space: megabytes(flags.keep_storage_min),
        max_used_space: megabytes(flags.keep_storage),
        min_free_space: megabytes(flags.free_storage),
    };
    let mut total = 0_i64;
    let mut table = StreamedTable::new(HEAD);
    let mut written = Ok(());
    client
        .prune(filter, |record| {
            total = total.saturating_add(record.size);
            let text = match &template {
                Some(template) => template.render(&document(&record)).map(|line| line + "\n"),
                None if flags.verbose => Ok(TabWriter::tabs().align(&details(&record))),
                None => Ok(table.row(&row(&record))),
            };
            if written.is_ok() {
                written = text.and_then(|text| print(&text));
            }
        })
        .await?;
    written?;
    if template.is_some() {
        return Ok(());
    }
    print(&TabWriter::tabs().align(&format!("Total:\t{}\n", bytes(total))))
}

pub(super) async fn prune_histories(client: &Client, format: Option<&str>) -> Result<(), CliError> {
    let template = format.map(Template::parse).transpose()?;
    let mut events = Vec::new();
    let request = HistoryRequest {
        early_exit: true,
        ..HistoryRequest::default()
    };
    client
        .history(request, |event| {
            events.push(event);
            ControlFlow::Continue(())
        })
        .await?;
    let mut table = StreamedTable::new("TYPE\tREF\tCREATED\tCOMPLETED\tGENERATION\n");
    let mut failed = None;
    for event in &events {
        let Some(record) = event.record.as_ref().filter(|record| !record.pinned) else {
            continue;
        };
        if let Err(failure) = client.delete_record(record.r#ref.clone()).await {
            failed.get_or_insert(failure);
            continue;
        }
        match &template {
            Some(template) => {
                print(&(template.render(&super::debug::event_document(event))? + "\n"))?
            }
            None => print(&table.row(&(history_cells(event).join("\t") + "\n")))?,
        }
    }
    if template.is_none() {
        print(&table.end())?;
    }
    failed.map_or(Ok(()), |failure| Err(failure.into()))
}

/// A table whose rows are written as they come: the head is aligned with the first of them only, as the reference does it.
#[derive(Debug)]
pub(super) struct StreamedTable {
    head: &'static str,
}

impl StreamedTable {
    pub(super) fn new(head: &'static str) -> Self {
        Self { head }
    }

    pub(super) fn row(&mut self, row: &str) -> String {
        let head = std::mem::take(&mut self.head);
        TabWriter::tabs().align(&(head.to_owned() + row))
    }

    /// The head of a table without rows.
    pub(super) fn end(self) -> String {
        TabWriter::tabs().align(self.head)
    }
}

/// Type, build, times and generation of a record.
pub(super) fn history_cells(event: &HistoryEvent) -> Vec<String> {
    let record = event.record.clone().unwrap_or_default();
    let time = |time: Option<client::history::Time>| {
        time.map_or_else(String::new, |time| format::rfc3339(time.seconds))
    };
    vec![
        type_name(event).to_owned(),
        record.r#ref,
        time(record.created_at),
        time(record.completed_at),
        record.generation.to_string(),
    ]
}

pub(super) fn type_name(event: &HistoryEvent) -> &'static str {
    match event.r#type() {
        HistoryEventType::Started => "STARTED",
        HistoryEventType::Complete => "COMPLETE",
        HistoryEventType::Deleted => "DELETED",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn record(id: &str, size: i64) -> UsageRecord {
        UsageRecord {
            id: id.into(),
            mutable: false,
            in_use: false,
            shared: false,
            size,
            parents: Vec::new(),
            created: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
            last_used: None,
            usage_count: 2,
            description: String::new(),
            kind: "regular".into(),
        }
    }

    #[test]
    fn a_record_is_shown_as_a_row_with_details_and_as_json() -> Result<(), CliError> {
        let mut of = record("abc", 4096);
        assert_eq!(
            row(&of),
            format!("abc{}\ttrue       \t4.10kB\t\n", " ".repeat(68))
        );
        of.mutable = true;
        of.shared = true;
        of.in_use = true;
        of.parents = vec!["p".into(), "q".into()];
        of.last_used = of.created;
        of.description = "pulled".into();
        assert_eq!(
            details(&of),
            "ID:\tabc\nParents:\tp;q\nCreated at:\t1970-01-01 00:00:01 +0000 UTC\nMutable:\ttrue\nReclaimable:\tfalse\nShared:\ttrue\n\
             Size:\t4.10kB\nDescription:\tpulled\nUsage count:\t2\nLast used:\t1970-01-01 00:00:01 +0000 UTC\nType:\tregular\n\n"
        );
        assert!(row(&of).starts_with("abc* "));
        assert_eq!(
            Template::parse("json")?.render(&document(&of))?,
            r#"{"id":"abc","mutable":true,"inUse":true,"size":4096,"createdAt":"1970-01-01T00:00:01Z","lastUsedAt":"1970-01-01T00:00:01Z","usageCount":2,"parents":["p","q"],"description":"pulled","recordType":"regular","shared":true}"#
        );
        Ok(())
    }

    #[test]
    fn sizes_that_are_not_known_count_as_nothing() {
        let mut records = vec![record("a", 1000), record("b", -1), record("c", 2000)];
        assert_eq!(summary(&records), "Reclaimable:\t3.00kB\nTotal:\t3.00kB\n");
        records[2].shared = true;
        records[0].in_use = true;
        assert_eq!(
            summary(&records),
            "Shared:\t2.00kB\nPrivate:\t1.00kB\nReclaimable:\t2.00kB\nTotal:\t3.00kB\n"
        );
    }
}
