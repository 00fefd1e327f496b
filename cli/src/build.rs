//! `rbuild build`: from flags to a request, and from the answer to files.

pub(crate) mod context;
pub(crate) mod request;
pub mod spec;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Failure, SolveResult};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::args::{Build, ProgressMode};
use crate::failure::{CliError, explain};
use crate::progress::{self, Display};

/// How many changes may wait to be shown.
const NEWS: usize = 256;

/// Builds.
pub(crate) async fn run(client: &Client, flags: Build) -> Result<(), CliError> {
    let prepared = Box::pin(request::prepare(&flags)).await?;
    let mode = if flags.quiet {
        ProgressMode::Quiet
    } else {
        flags.progress
    };
    let truncate = std::env::var_os("PROGRESS_NO_TRUNC").is_some_and(|v| v.to_str() == Some("0"));
    let display = progress::display(mode, truncate, "Building".into());
    let (sender, news) = mpsc::channel(NEWS);
    let id = prepared.request.id.clone();
    if flags.question()?.is_some() {
        let asking = Box::pin(client.ask(prepared.request, sender));
        let (outcome, display) = tokio::join!(asking, progress::show(display, news));
        return match outcome {
            Ok(said) => answer(&flags, &said),
            Err(failure) => Err(told(failure, display.as_ref(), mode)?),
        };
    }
    let idle = prepared.request.exporters.is_empty();
    let solving = Box::pin(client.solve(prepared.request, sender));
    let (outcome, display) = tokio::join!(solving, progress::show(display, news));
    let result = match outcome {
        Ok(result) => result,
        Err(failure) => return Err(told(failure, display.as_ref(), mode)?),
    };
    drop(prepared.temporary);
    finish(&flags, &id, &result)?;
    if idle && !matches!(mode, ProgressMode::Quiet | ProgressMode::Rawjson) {
        let hint = "built, and kept for the next build only; for an image use --load (docker), --push (registry) or -o type=oci,dest=FILE; for its files use -o DIR\n";
        let bold = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let line = if bold {
            format!("\n\u{1b}[33m{hint}\u{1b}[0m")
        } else {
            format!("\n{hint}")
        };
        let _closed = io::stderr().lock().write_all(line.as_bytes());
    }
    Ok(())
}

// Shows where a failure comes from; what is left is its sentence.
fn told(failure: Failure, display: &dyn Display, mode: ProgressMode) -> Result<CliError, CliError> {
    if mode != ProgressMode::Rawjson {
        let mut page = Vec::new();
        explain(&failure, display, &mut page)
            .and_then(|()| io::stderr().lock().write_all(&page))
            .map_err(CliError::io("cannot write to standard error"))?;
    }
    Ok(CliError::Build(failure))
}

// What a frontend said in the place of a build: its text, or its JSON if that is wanted.
fn answer(flags: &Build, said: &BTreeMap<String, Vec<u8>>) -> Result<(), CliError> {
    let json = flags
        .call
        .as_deref()
        .is_some_and(|c| c.split(',').any(|part| part == "format=json"));
    let key = if json { "result.json" } else { "result.txt" };
    let text = said
        .get(key)
        .ok_or_else(|| CliError::Usage(format!("the frontend did not answer with {key}")))?;
    let mut out = io::stdout().lock();
    out.write_all(text)
        .and_then(|()| {
            if text.is_empty() && !json {
                writeln!(out, "Check complete, no warnings found.")
            } else if text.ends_with(b"\n") {
                Ok(())
            } else {
                writeln!(out)
            }
        })
        .map_err(CliError::io("cannot write to standard output"))?;
    let failed = said
        .get("result.statuscode")
        .is_some_and(|code| code != b"0");
    if failed {
        return Err(CliError::Usage("lint violations found".into()));
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
            .map_err(|e| CliError::Usage(e.to_string()))?;
        text.push('\n');
        write(path, &text)?;
    }
    if flags.quiet
        && let Some(id) = image_id(result)
    {
        writeln!(io::stdout().lock(), "{id}")
            .map_err(CliError::io("cannot write to standard output"))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(CliError::io(format!("cannot write {}", path.display())))
}

// Values that are JSON, plain or in base64, are written as JSON.
fn metadata(id: &str, result: &SolveResult) -> Value {
    let object = |bytes: &[u8]| {
        serde_json::from_slice::<Value>(bytes)
            .ok()
            .filter(|v| v.is_object() || v.is_array())
    };
    let mut all = Map::new();
    all.insert("rbuild.build.ref".into(), id.into());
    for (key, value) in &result.response {
        let decoded = object(value.as_bytes())
            .or_else(|| STANDARD.decode(value).ok().and_then(|raw| object(&raw)))
            .unwrap_or_else(|| value.clone().into());
        all.insert(key.clone(), decoded);
    }
    Value::Object(all)
}
