//! `rbuild build`: from flags to a request, and from the answer to files.

mod call;
pub(crate) mod context;
#[cfg(test)]
mod flags;
pub(crate) mod outputs;
pub(crate) mod request;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Failure, Layout, LayoutName, SolveResult};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::args::{Build, ProgressMode};
use crate::build::call::{CallOutcome, FrontendCall};
use crate::build::request::WrittenLayout;
use crate::failure::{CliError, explain, show_warnings};
use crate::interrupt::interrupted;
use crate::progress::text::harmless;
use crate::progress::{self, Display};

/// How many changes may wait to be shown.
const MAX_WAITING_CHANGES: usize = 256;
const WITHOUT_OUTPUT: &str = "built, and kept for the next build only; for an image use --load (docker), --push (registry) or -o type=oci,dest=FILE; for its files use -o DIR\n";

/// Why there is no result.
enum Stop {
    Failed(Failure),
    Interrupted(u8),
}

impl Build {
    /// What the frontend is asked in the place of a build.
    fn question(&self) -> Result<Option<FrontendCall>, CliError> {
        let method = match (&self.call, self.check) {
            (Some(method), _) => method.as_str(),
            (None, true) => "check",
            (None, false) => return Ok(None),
        };
        FrontendCall::parse(method)
    }
}

/// Builds. Ends early when the user wants it.
pub(crate) async fn run(client: &Client, flags: Build) -> Result<(), CliError> {
    let question = flags.question()?;
    let prepared = Box::pin(request::prepare(&flags, question)).await?;
    let mode = if flags.quiet {
        ProgressMode::Quiet
    } else {
        flags.progress
    };
    let truncate = std::env::var_os("PROGRESS_NO_TRUNC").is_some_and(|v| v.to_str() == Some("0"));
    let title = if question.is_some() {
        "Asking"
    } else {
        "Building"
    };
    let display = progress::display(mode, truncate, title.into());
    let (sender, news) = mpsc::channel(MAX_WAITING_CHANGES);
    let id = prepared.request.id.clone();
    let dockerfile = prepared.dockerfile;
    if let Some(call) = question {
        let asking = unless_interrupted(Box::pin(client.ask(prepared.request, sender)));
        let (outcome, display) = tokio::join!(asking, progress::show(display, news));
        let answer = outcome.map_err(|stop| end(stop, display.as_ref(), mode))?;
        return match call.show(&answer, &dockerfile, &mut io::stdout().lock())? {
            CallOutcome::Fine => Ok(()),
            CallOutcome::Findings(code) => Err(CliError::Findings { code }),
        };
    }
    let idle = prepared.request.exporters.is_empty();
    let folders = outputs::folders(&prepared.request.attachables);
    let solving = unless_interrupted(Box::pin(client.solve(prepared.request, sender)));
    let (outcome, display) = tokio::join!(solving, progress::show(display, news));
    let result = outcome.map_err(|stop| end(stop, display.as_ref(), mode))?;
    drop(prepared.temporary);
    enter(&prepared.layouts, &result)?;
    if shows(mode) {
        let mut page = Vec::new();
        let _in_memory = show_warnings(display.trace(), yellow(), &mut page);
        let _closed = io::stderr().lock().write_all(&page);
    }
    finish(&flags, &id, &result)?;
    if mode != ProgressMode::Rawjson {
        let report: String = folders
            .iter()
            .filter_map(outputs::left_out_report)
            .collect();
        let _closed = io::stderr().lock().write_all(report.as_bytes());
    }
    if idle && shows(mode) {
        let (on, off) = yellow();
        let _closed = write!(io::stderr().lock(), "\n{on}{WITHOUT_OUTPUT}{off}");
    }
    Ok(())
}

async fn unless_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Stop> {
    tokio::select! {
        done = work => done.map_err(Stop::Failed),
        code = interrupted() => Err(Stop::Interrupted(code)),
    }
}

fn shows(mode: ProgressMode) -> bool {
    !matches!(mode, ProgressMode::Quiet | ProgressMode::Rawjson)
}

// How a line that matters begins and ends.
fn yellow() -> (&'static str, &'static str) {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    if io::stderr().is_terminal() && !plain {
        ("\u{1b}[33m", "\u{1b}[0m")
    } else {
        ("", "")
    }
}

// Shows where a failure comes from; what is left is its sentence.
fn end(stop: Stop, display: &dyn Display, mode: ProgressMode) -> CliError {
    let failure = match stop {
        Stop::Failed(failure) => failure,
        Stop::Interrupted(code) => return CliError::Interrupted { code },
    };
    if mode != ProgressMode::Rawjson {
        let mut page = Vec::new();
        let _in_memory = explain(&failure, display.trace(), yellow(), shows(mode), &mut page);
        // Standard error may be closed; the exit code says the same.
        let _closed = io::stderr().lock().write_all(&page);
    }
    CliError::Build(failure)
}

// Enters what was written into layouts into their indexes.
pub(crate) fn enter(layouts: &[WrittenLayout], result: &SolveResult) -> Result<(), CliError> {
    let response = &result.response;
    let image = response
        .get("containerimage.descriptor")
        .and_then(|text| STANDARD.decode(text).ok());
    let cache = response
        .get("cache.manifest")
        .map(|t| t.clone().into_bytes());
    for layout in layouts {
        let (folder, json, names) = match layout {
            WrittenLayout::Cache(folder, tag) => {
                (folder, &cache, vec![LayoutName::Tag(tag.clone())])
            }
            WrittenLayout::Image(folder) => {
                let names = response.get("image.name").map_or_else(
                    || vec![LayoutName::Tag("latest".into())],
                    |metadata| {
                        metadata
                            .split(',')
                            .map(|n| LayoutName::Image(n.into()))
                            .collect()
                    },
                );
                (folder, &image, names)
            }
        };
        let Some(json) = json else { continue };
        let descriptor = serde_json::from_slice(json)
            .map_err(|source| CliError::answer("the daemon's answer is no descriptor", source))?;
        Layout::new(folder).put(&descriptor, &names)?;
    }
    Ok(())
}

fn image_id(result: &SolveResult) -> Option<&String> {
    let response = &result.response;
    response
        .get("containerimage.config.digest")
        .or_else(|| response.get("containerimage.digest"))
}

fn finish(flags: &Build, id: &str, result: &SolveResult) -> Result<(), CliError> {
    if let Some(path) = &flags.iidfile {
        write(path, image_id(result).map_or("", String::as_str))?;
    }
    if let Some(path) = &flags.metadata_file {
        let mut text = serde_json::to_string_pretty(&metadata(id, result))
            .map_err(|source| CliError::answer("cannot write the metadata as JSON", source))?;
        text.push('\n');
        write(path, &text)?;
    }
    if flags.quiet
        && let Some(id) = image_id(result)
    {
        writeln!(io::stdout().lock(), "{}", harmless(id))
            .map_err(CliError::io("cannot write to standard output"))?;
    }
    Ok(())
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(CliError::io(format!("cannot write {}", path.display())))
}

// Values that are JSON, plain or in base64, are written as JSON.
fn metadata(id: &str, result: &SolveResult) -> Value {
    let object = |bytes: &[u8]| {
        serde_json::from_slice::<Value>(bytes)
            .ok()
            .filter(|v| v.is_object() || v.is_array())
    };
    let mut metadata = Map::new();
    metadata.insert("rbuild.build.ref".into(), id.into());
    for (key, value) in &result.response {
        let decoded = object(value.as_bytes())
            .or_else(|| STANDARD.decode(value).ok().and_then(|raw| object(&raw)))
            .unwrap_or_else(|| value.clone().into());
        metadata.insert(key.clone(), decoded);
    }
    Value::Object(metadata)
}
