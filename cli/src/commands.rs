//! Everything but building.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use client::{Client, PruneFilter, UsageRecord, WorkerRecord};

use crate::args::{Connection, Prune};
use crate::connection;
use crate::failure::CliError;
use crate::progress::text::{bytes, harmless_lines, seconds};
use crate::spec;

pub(crate) async fn dial_stdio(connection: &Connection, program: &str) -> Result<(), CliError> {
    let address = connection::address(connection, program)?;
    Client::relay(&address, &mut tokio::io::stdin(), &mut tokio::io::stdout()).await?;
    Ok(())
}

// Everything here has words of the daemon in it.
fn print(text: &str) -> Result<(), CliError> {
    io::stdout()
        .lock()
        .write_all(harmless_lines(text).as_bytes())
        .map_err(CliError::io("cannot write to standard output"))
}

fn ago(time: Option<SystemTime>, now: SystemTime) -> String {
    let Some(time) = time else {
        return String::new();
    };
    let s = seconds(time, now);
    let (count, unit) = match s {
        s if s < 60.0 => (s, "second"),
        s if s < 3600.0 => (s / 60.0, "minute"),
        s if s < 86400.0 => (s / 3600.0, "hour"),
        s => (s / 86400.0, "day"),
    };
    let count = format!("{:.0}", count.floor());
    let plural = if count == "1" { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

fn verbose(r: &UsageRecord, now: SystemTime) -> String {
    let mut text = format!("ID:\t\t{}\n", r.id);
    if !r.parents.is_empty() {
        text += &format!("Parents:\t{}\n", r.parents.join(", "));
    }
    text += &format!(
        "Created at:\t{}\nMutable:\t{}\nReclaimable:\t{}\nShared:\t\t{}\nSize:\t\t{}\n",
        r.created
            .map_or_else(String::new, crate::progress::raw::rfc3339),
        r.mutable,
        !r.in_use,
        r.shared,
        bytes(r.size)
    );
    if !r.description.is_empty() {
        text += &format!("Description:\t{}\n", r.description);
    }
    text += &format!("Usage count:\t{}\n", r.usage_count);
    if r.last_used.is_some() {
        text += &format!("Last used:\t{}\n", ago(r.last_used, now));
    }
    text + &format!("Type:\t\t{}\n\n", r.kind)
}

fn row(r: &UsageRecord, now: SystemTime) -> String {
    let id = format!("{}{}", r.id, if r.mutable { "*" } else { "" });
    let size = format!("{}{}", bytes(r.size), if r.shared { "*" } else { "" });
    format!(
        "{id:<75}\t{:<11}\t{size:<11}\t{}\n",
        !r.in_use,
        ago(r.last_used, now)
    )
}

fn head() -> String {
    format!(
        "{:<75}\t{:<11}\t{:<11}\tLAST ACCESSED\n",
        "ID", "RECLAIMABLE", "SIZE"
    )
}

pub(crate) async fn du(
    client: &Client,
    filter: Vec<String>,
    detailed: bool,
) -> Result<(), CliError> {
    let records = client.disk_usage(filter).await?;
    print(&usage_table(&records, detailed, task::clock::wall()))
}

fn usage_table(records: &[UsageRecord], detailed: bool, now: SystemTime) -> String {
    let mut text = if detailed { String::new() } else { head() };
    let line = if detailed { verbose } else { row };
    text.extend(records.iter().map(|record| line(record, now)));
    let sum = |counts: fn(&UsageRecord) -> bool| {
        let sizes = records.iter().filter(|r| counts(r)).map(|r| r.size);
        sizes.fold(0i64, i64::saturating_add)
    };
    let shared = sum(|r| r.shared);
    if shared > 0 {
        text += &format!(
            "Shared:\t\t{}\nPrivate:\t{}\n",
            bytes(shared),
            bytes(sum(|r| !r.shared))
        );
    }
    text + &format!(
        "Reclaimable:\t{}\nTotal:\t\t{}\n",
        bytes(sum(|r| !r.in_use)),
        bytes(sum(|_| true))
    )
}

pub(crate) async fn prune(client: &Client, flags: Prune) -> Result<(), CliError> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "megabytes as a person writes them; the cast saturates"
    )]
    let megabytes = |mb: f64| (mb * 1e6) as i64;
    let filter = PruneFilter {
        filters: flags.filter,
        all: flags.all,
        keep_duration: spec::duration("keep-duration", &flags.keep_duration)?,
        reserved_space: megabytes(flags.reserved_space),
        max_used_space: megabytes(flags.max_used_space),
        min_free_space: megabytes(flags.min_free_space),
    };
    let mut total = 0i64;
    let mut any = false;
    let mut closed = Ok(());
    client
        .prune(filter, |record| {
            total = total.saturating_add(record.size);
            let first = !std::mem::replace(&mut any, true);
            let now = task::clock::wall();
            let text = match (flags.verbose, first) {
                (true, _) => verbose(&record, now),
                (false, true) => head() + &row(&record, now),
                (false, false) => row(&record, now),
            };
            if closed.is_ok() {
                closed = print(&text);
            }
        })
        .await?;
    closed?;
    print(&format!("Total:\t{}\n", bytes(total)))
}

/// Says what this host lacks for builds; fails if none can run. The process must have one thread.
pub(crate) fn doctor(root: PathBuf) -> ExitCode {
    let report = daemon::doctor::Report::of(&daemon::doctor::Facts::gather(&root));
    match print(&report.text()) {
        Ok(()) if report.can_build() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Checks a state directory; fails if something is wrong that starting the daemon does not put right.
pub(crate) async fn fsck(root: PathBuf, deep: bool) -> Result<(), CliError> {
    let place = root.display().to_string();
    let report =
        task::blocking("check a state directory", move || daemon::fsck(&root, deep)).await?;
    let mut text = String::new();
    for finding in &report.findings {
        let mended = if finding.heals {
            " (mended when the daemon starts)"
        } else {
            ""
        };
        text += &format!("{}: {}{mended}\n", finding.subject, finding.problem);
    }
    text += &format!(
        "{} records and {} blobs checked\n",
        report.records, report.blobs
    );
    print(&text)?;
    if report.is_damaged() {
        return Err(CliError::Damaged { root: place });
    }
    Ok(())
}

pub(crate) async fn info(client: &Client) -> Result<(), CliError> {
    let version = client.info().await?;
    print(&format!(
        "BuildKit:\t{} {} {}\n",
        version.package, version.version, version.revision
    ))
}

pub(crate) async fn workers(client: &Client, detailed: bool) -> Result<(), CliError> {
    let workers = client.workers(Vec::new()).await?;
    print(&worker_table(&workers, detailed))
}

fn worker_table(workers: &[WorkerRecord], detailed: bool) -> String {
    let mut text = String::new();
    if !detailed {
        text += "ID\t\t\t\tPLATFORMS\n";
    }
    for worker in workers {
        if !detailed {
            text += &format!("{}\t{}\n", worker.id, worker.platforms.join(","));
            continue;
        }
        text += &format!(
            "ID:\t\t{}\nPlatforms:\t{}\nBuildKit:\t{} {} {}\nLabels:\n",
            worker.id,
            worker.platforms.join(","),
            worker.version.package,
            worker.version.version,
            worker.version.revision
        );
        for (key, value) in &worker.labels {
            text += &format!("\t{key}:\t{value}\n");
        }
        for (index, rule) in worker.gc.iter().enumerate() {
            text += &format!(
                "GC Policy rule#{index}:\n\tAll:\t{}\n\tFilters:\t{}\n\tKeep duration:\t{:?}\n\tReserved space:\t{}\n\tMax used space:\t{}\n\tMin free space:\t{}\n",
                rule.all,
                rule.filters.join(" "),
                rule.keep_duration,
                bytes(rule.reserved_space),
                bytes(rule.max_used_space),
                bytes(rule.min_free_space)
            );
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
