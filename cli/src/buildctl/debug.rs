//! `buildctl debug …`.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::ops::ControlFlow;

use client::history::{BuildResultInfo, HistoryDescriptor, HistoryEvent, HistoryRequest, Time};
use client::{Client, DaemonVersion, WorkerRecord};
use gostd::tabwriter::TabWriter;
use serde::Serialize;
use tokio::sync::mpsc;

use super::args::Debug;
use super::records::{StreamedTable, history_cells, type_name};
use super::template::Template;
use super::{format, print};
use crate::failure::CliError;
use crate::progress;

/// How many changes of a build may wait to be shown.
const MAX_WAITING_CHANGES: usize = 256;

pub(super) async fn run(client: &Client, what: Debug) -> Result<(), CliError> {
    match what {
        Debug::DumpLlb => Err(not_built("dump-llb")),
        Debug::DumpMetadata => Err(not_built("dump-metadata")),
        Debug::Workers {
            filter,
            verbose,
            format,
        } => {
            if format.is_some() && verbose {
                tracing::debug!("Ignoring --verbose");
            }
            let template = format.as_deref().map(Template::parse).transpose()?;
            let workers = client.workers(filter).await?;
            print(&match template {
                Some(template) => {
                    let documents: Vec<WorkerDocument<'_>> =
                        workers.iter().map(worker_document).collect();
                    template.render(&documents)? + "\n"
                }
                None if verbose => {
                    TabWriter::tabs().align(&workers.iter().map(worker_details).collect::<String>())
                }
                None => TabWriter::tabs().align(&worker_table(&workers)),
            })
        }
        Debug::Info { format } => {
            let template = format.as_deref().map(Template::parse).transpose()?;
            let version = client.info().await?;
            print(&match template {
                Some(template) => {
                    let document = InfoDocument {
                        buildkit_version: version_document(&version),
                    };
                    template.render(&document)? + "\n"
                }
                None => TabWriter::blanks().align(&info_table(&version)),
            })
        }
        Debug::Monitor { completed, r#ref } => {
            let request = HistoryRequest {
                active_only: !completed,
                r#ref,
                ..HistoryRequest::default()
            };
            let mut written = Ok(());
            client
                .history(request, |event| {
                    written = print(&event_lines(&event));
                    if written.is_ok() {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                })
                .await?;
            written
        }
        Debug::Logs {
            build,
            progress,
            trace,
        } => logs(client, build, progress, trace).await,
        Debug::Ctl {
            build,
            pin,
            unpin,
            delete,
        } => match (pin, unpin, delete) {
            (_, _, true) => Ok(client.delete_record(build).await?),
            (true, _, false) => Ok(client.pin_record(build, true).await?),
            (false, true, false) => Ok(client.pin_record(build, false).await?),
            (false, false, false) => Err(CliError::Usage(
                "must specify one of --pin, --unpin, --delete".into(),
            )),
        },
        Debug::Get { digest } => get(client, &digest).await,
        Debug::Histories { format } => histories(client, format.as_deref()).await,
    }
}

fn not_built(command: &str) -> CliError {
    CliError::Usage(format!("debug {command} is not built in this program"))
}

async fn get(client: &Client, digest: &str) -> Result<(), CliError> {
    let digest = oci::Digest::parse(digest)
        .map_err(|error| CliError::Usage(format!("invalid digest {digest:?}: {error}")))?;
    Ok(client.read_blob(&digest, &mut tokio::io::stdout()).await?)
}

async fn logs(
    client: &Client,
    build: String,
    mode: crate::args::ProgressMode,
    trace: bool,
) -> Result<(), CliError> {
    if trace {
        let mut digest = None;
        let request = HistoryRequest {
            r#ref: build.clone(),
            ..HistoryRequest::default()
        };
        client
            .history(request, |event| {
                digest = Some(event.record.and_then(|record| record.trace));
                ControlFlow::Break(())
            })
            .await?;
        let digest = digest
            .ok_or_else(|| CliError::Usage(format!("ref {build} not found")))?
            .ok_or_else(|| CliError::Usage(format!("ref {build} does not have trace")))?;
        return get(client, &digest.digest).await;
    }
    let truncate = std::env::var_os("PROGRESS_NO_TRUNC").is_some_and(|v| v.to_str() == Some("0"));
    let mut display = progress::display(mode, truncate, "Build".into());
    let (sender, mut statuses) = mpsc::channel(MAX_WAITING_CHANGES);
    // The log is what was asked for, and goes where results go.
    let showing = async {
        while let Some(status) = statuses.recv().await {
            let mut page = Vec::new();
            let _in_memory = display.update(&status, task::clock::wall(), &mut page);
            io::stdout().write_all(&page)?;
        }
        let mut page = Vec::new();
        let _in_memory = display.finish(task::clock::wall(), &mut page);
        io::stdout().write_all(&page)
    };
    let (outcome, written) = tokio::join!(client.logs(build, sender), showing);
    outcome?;
    written.map_err(CliError::io("cannot write to standard output"))
}

async fn histories(client: &Client, format: Option<&str>) -> Result<(), CliError> {
    let template = format.map(Template::parse).transpose()?;
    let mut table = StreamedTable::new("TYPE\tREF\tCREATED\tCOMPLETED\tGENERATION\tPINNED\n");
    let request = HistoryRequest {
        early_exit: true,
        ..HistoryRequest::default()
    };
    let mut written = Ok(());
    client
        .history(request, |event| {
            let text = match &template {
                Some(template) => template
                    .render(&event_document(&event))
                    .map(|line| line + "\n"),
                None => {
                    let pinned = event.record.as_ref().is_some_and(|record| record.pinned);
                    let mut cells = history_cells(&event);
                    cells.push(if pinned { "*\n" } else { "\n" }.to_owned());
                    Ok(table.row(&cells.join("\t")))
                }
            };
            written = text.and_then(|text| print(&text));
            if written.is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .await?;
    written?;
    if template.is_none() {
        print(&table.end())?;
    }
    Ok(())
}

fn info_table(version: &DaemonVersion) -> String {
    let mut text = format!(
        "BuildKit:\t{} {} {}\n",
        version.package, version.version, version.revision
    );
    if !version.dockerfile.is_empty() {
        text += &format!("Dockerfile:\t{}\n", version.dockerfile);
    }
    text
}

fn worker_table(workers: &[WorkerRecord]) -> String {
    let rows = workers
        .iter()
        .map(|worker| format!("{}\t{}\n", worker.id, worker.platforms.join(",")));
    "ID\tPLATFORMS\n".to_owned() + &rows.collect::<String>()
}

fn worker_details(worker: &WorkerRecord) -> String {
    let mut text = format!(
        "ID:\t{}\nPlatforms:\t{}\n{}Labels:\n",
        worker.id,
        worker.platforms.join(","),
        info_table(&worker.version)
    );
    for (key, value) in &worker.labels {
        text += &format!("\t{key}:\t{value}\n");
    }
    if !worker.devices.is_empty() {
        text += "Devices:\n";
        for device in &worker.devices {
            text += &format!("\tName:\t{}\n", device.name);
            text += &if device.on_demand {
                "\tOnDemand:\ttrue\n".to_owned()
            } else {
                format!("\tAutoAllow:\t{}\n", device.auto_allow)
            };
            for (key, value) in &device.annotations {
                text += &format!("\tAnnotations:\t{key}:\t{value}\n");
            }
        }
        text.push('\n');
    }
    for (index, rule) in worker.gc.iter().enumerate() {
        text += &format!("GC Policy rule#{index}:\n\tAll:\t{}\n", rule.all);
        if !rule.filters.is_empty() {
            text += &format!("\tFilters:\t{}\n", rule.filters.join(" "));
        }
        if !rule.keep_duration.is_zero() {
            text += &format!(
                "\tKeep duration:\t{}\n",
                format::duration(rule.keep_duration)
            );
        }
        for (name, limit) in [
            ("Reserved space", rule.reserved_space),
            ("Minimum free space", rule.min_free_space),
            ("Maximum used space", rule.max_used_space),
        ] {
            if limit > 0 {
                text += &format!("\t{name}:\t{}\n", format::bytes(limit));
            }
        }
    }
    text + "\n"
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InfoDocument<'a> {
    buildkit_version: VersionDocument<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionDocument<'a> {
    package: &'a str,
    version: &'a str,
    revision: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    dockerfile_version: &'a str,
}

fn version_document(version: &DaemonVersion) -> VersionDocument<'_> {
    VersionDocument {
        package: &version.package,
        version: &version.version,
        revision: &version.revision,
        dockerfile_version: &version.dockerfile,
    }
}

/// `client.WorkerInfo`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkerDocument<'a> {
    id: &'a str,
    labels: &'a BTreeMap<String, String>,
    platforms: Vec<PlatformDocument<'a>>,
    gc_policy: Vec<PruneDocument<'a>>,
    buildkit_version: VersionDocument<'a>,
    cdi_devices: Option<Vec<DeviceDocument<'a>>>,
}

#[derive(Debug, Serialize)]
struct PlatformDocument<'a> {
    architecture: &'a str,
    os: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
}

/// `client.PruneInfo`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PruneDocument<'a> {
    all: bool,
    filter: Option<&'a [String]>,
    keep_duration: u128,
    reserved_space: i64,
    max_used_space: i64,
    min_free_space: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceDocument<'a> {
    name: &'a str,
    auto_allow: bool,
    annotations: &'a BTreeMap<String, String>,
    on_demand: bool,
}

fn worker_document(worker: &WorkerRecord) -> WorkerDocument<'_> {
    let platform = |text| {
        let mut parts = str::splitn(text, 3, '/');
        let os = parts.next().unwrap_or_default();
        PlatformDocument {
            architecture: parts.next().unwrap_or_default(),
            os,
            variant: parts.next(),
        }
    };
    let devices = worker.devices.iter().map(|device| DeviceDocument {
        name: &device.name,
        auto_allow: device.auto_allow,
        annotations: &device.annotations,
        on_demand: device.on_demand,
    });
    let rules = worker.gc.iter().map(|rule| PruneDocument {
        all: rule.all,
        filter: (!rule.filters.is_empty()).then_some(&rule.filters),
        keep_duration: rule.keep_duration.as_nanos(),
        reserved_space: rule.reserved_space,
        max_used_space: rule.max_used_space,
        min_free_space: rule.min_free_space,
    });
    WorkerDocument {
        id: &worker.id,
        labels: &worker.labels,
        platforms: worker
            .platforms
            .iter()
            .map(|text| platform(text.as_str()))
            .collect(),
        gc_policy: rules.collect(),
        buildkit_version: version_document(&worker.version),
        cdi_devices: (!worker.devices.is_empty()).then(|| devices.collect()),
    }
}

/// A descriptor as Go's `%s` shows the message.
fn descriptor(of: &HistoryDescriptor) -> String {
    format!(
        "media_type:{} digest:{} size:{}",
        gostd::strconv::quote(&of.media_type),
        gostd::strconv::quote(&of.digest),
        of.size
    )
}

fn event_lines(event: &HistoryEvent) -> String {
    let record = event.record.clone().unwrap_or_default();
    let mut text = format!("event: {} ref:{}\n", type_name(event), record.r#ref);
    if record.num_total_steps != 0 {
        text += &format!(
            "  cache: {}/{}\n",
            record.num_cached_steps, record.num_total_steps
        );
    }
    if record.num_warnings != 0 {
        text += &format!("  warnings: {}\n", record.num_warnings);
    }
    for (name, blob) in [("logs", &record.logs), ("trace", &record.trace)] {
        if let Some(blob) = blob {
            text += &format!("  {name}: {}\n", descriptor(blob));
        }
    }
    if let Some(result) = &record.result {
        text += &result_lines("", result);
    }
    for (key, result) in &record.results {
        text += &result_lines(&format!("[{key}] "), result);
    }
    text
}

fn result_lines(of: &str, result: &BuildResultInfo) -> String {
    let mut blobs: Vec<&HistoryDescriptor> = result.results.values().collect();
    if blobs.is_empty() {
        blobs.extend(&result.result_deprecated);
    }
    let line =
        |kind: &str, blob: &HistoryDescriptor| format!("  {of}{kind}: {}\n", descriptor(blob));
    let results = blobs.iter().map(|blob| line("descriptor", blob));
    let attestations = result
        .attestations
        .iter()
        .map(|blob| line("attestation", blob));
    results.chain(attestations).collect()
}

/// An event as Go's encoder writes the message: names of the protocol, nothing that is empty.
pub(super) fn event_document(event: &HistoryEvent) -> serde_json::Value {
    let mut document = JsonMembers::default();
    document.number("type", i64::from(event.r#type));
    if let Some(record) = &event.record {
        let mut members = JsonMembers::default();
        members.text("Ref", &record.r#ref);
        members.text("Frontend", &record.frontend);
        members.map("FrontendAttrs", &record.frontend_attrs);
        let exporters = record.exporters.iter().map(|exporter| {
            let mut members = JsonMembers::default();
            members.text("Type", &exporter.r#type);
            members.map("Attrs", &exporter.attrs);
            members.value()
        });
        members.list("Exporters", exporters.collect());
        if let Some(error) = &record.error {
            let mut status = JsonMembers::default();
            status.number("code", i64::from(error.code));
            status.text("message", &error.message);
            members.set("error", status.value());
        }
        members.time("CreatedAt", record.created_at);
        members.time("CompletedAt", record.completed_at);
        members.blob("logs", record.logs.as_ref());
        members.map("ExporterResponse", &record.exporter_response);
        if let Some(result) = &record.result {
            members.set("Result", result_document(result));
        }
        if !record.results.is_empty() {
            let results = record
                .results
                .iter()
                .map(|(key, result)| (key.clone(), result_document(result)));
            members.set("Results", serde_json::Value::Object(results.collect()));
        }
        members.number("Generation", i64::from(record.generation));
        members.blob("trace", record.trace.as_ref());
        if record.pinned {
            members.set("pinned", true.into());
        }
        members.number("numCachedSteps", i64::from(record.num_cached_steps));
        members.number("numTotalSteps", i64::from(record.num_total_steps));
        members.number("numCompletedSteps", i64::from(record.num_completed_steps));
        members.blob("externalError", record.external_error.as_ref());
        members.number("numWarnings", i64::from(record.num_warnings));
        document.set("record", members.value());
    }
    document.value()
}

fn result_document(result: &BuildResultInfo) -> serde_json::Value {
    let mut members = JsonMembers::default();
    members.blob("ResultDeprecated", result.result_deprecated.as_ref());
    members.list(
        "Attestations",
        result.attestations.iter().map(blob_document).collect(),
    );
    if !result.results.is_empty() {
        let results = result
            .results
            .iter()
            .map(|(index, blob)| (index.to_string(), blob_document(blob)));
        members.set("Results", serde_json::Value::Object(results.collect()));
    }
    members.value()
}

fn blob_document(blob: &HistoryDescriptor) -> serde_json::Value {
    let mut members = JsonMembers::default();
    members.text("media_type", &blob.media_type);
    members.text("digest", &blob.digest);
    members.number("size", blob.size);
    members.map("annotations", &blob.annotations);
    members.value()
}

/// Members of an object, without those that are empty.
#[derive(Debug, Default)]
struct JsonMembers(serde_json::Map<String, serde_json::Value>);

impl JsonMembers {
    fn set(&mut self, name: &str, value: serde_json::Value) {
        self.0.insert(name.to_owned(), value);
    }

    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.set(name, value.into());
        }
    }

    fn number(&mut self, name: &str, value: i64) {
        if value != 0 {
            self.set(name, value.into());
        }
    }

    fn map(&mut self, name: &str, map: &BTreeMap<String, String>) {
        if !map.is_empty() {
            self.set(
                name,
                map.iter()
                    .map(|(key, value)| (key.clone(), value.clone().into()))
                    .collect::<serde_json::Map<_, serde_json::Value>>()
                    .into(),
            );
        }
    }

    fn list(&mut self, name: &str, list: Vec<serde_json::Value>) {
        if !list.is_empty() {
            self.set(name, list.into());
        }
    }

    fn blob(&mut self, name: &str, blob: Option<&HistoryDescriptor>) {
        if let Some(blob) = blob {
            self.set(name, blob_document(blob));
        }
    }

    fn time(&mut self, name: &str, time: Option<Time>) {
        if let Some(time) = time {
            let mut members = Self::default();
            members.number("seconds", time.seconds);
            members.number("nanos", i64::from(time.nanos));
            self.set(name, members.value());
        }
    }

    fn value(self) -> serde_json::Value {
        self.0.into()
    }
}
