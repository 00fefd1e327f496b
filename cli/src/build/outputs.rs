//! From flags to exporters, and where what they send goes.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use client::{Attachables, ExporterSpec, FileTarget, FolderTarget, Target};

use super::request::{WrittenLayout, key_value};
use crate::args::Build;
use crate::failure::CliError;
use crate::progress::text::harmless;
use crate::spec;

// Asked before the build: after it is late to hear that nobody takes the image.
fn docker_answers() -> Result<(), String> {
    let output = std::process::Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdin(std::process::Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            Err(format!("docker says: {}", reason.trim()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("there is no docker here".into())
        }
        Err(error) => Err(format!("docker: {error}")),
    }
}

/// Offers a folder that the image is written into as a layout.
pub(crate) fn offer_layout(dest: &str, offer: &mut Attachables) -> Result<(), CliError> {
    if offer.stores.insert("export".into(), dest.into()).is_some() {
        return Err(CliError::Usage(
            "only one output with tar=false can be written at a time".into(),
        ));
    }
    Ok(())
}

/// Turns `-o`, `--push` and `--load` into exporters; where their files go is put into `offer` and `layouts`.
pub(super) fn outputs(
    flags: &Build,
    offer: &mut Attachables,
    layouts: &mut Vec<WrittenLayout>,
) -> Result<Vec<ExporterSpec>, CliError> {
    for tag in &flags.tag {
        oci::reference::Reference::parse(tag).map_err(|source| CliError::Tag {
            tag: tag.clone(),
            source,
        })?;
    }
    let mut specs: Vec<ExporterSpec> = Vec::new();
    for text in &flags.output {
        specs.push(spec::output(text)?);
    }
    specs.retain(|s| s.kind != "cacheonly");
    if flags.push {
        match specs.iter_mut().find(|s| s.kind == "image") {
            Some(image) => {
                image.attrs.insert("push".into(), "true".into());
            }
            None => specs.push(ExporterSpec {
                kind: "image".into(),
                attrs: [("push".to_owned(), "true".to_owned())].into(),
            }),
        }
    }
    if flags.load && !specs.iter().any(|s| s.kind == "docker") {
        specs.push(ExporterSpec {
            kind: "docker".into(),
            attrs: BTreeMap::new(),
        });
    }
    for (index, spec) in specs.iter_mut().enumerate() {
        let dest = spec.attrs.remove("dest");
        let is_layout = spec.attrs.get("tar").is_some_and(|v| v == "false");
        if is_layout && matches!(spec.kind.as_str(), "oci" | "docker") {
            let dest = dest.filter(|d| d != "-").ok_or_else(|| {
                CliError::Usage(format!("-o type={},tar=false wants dest=FOLDER", spec.kind))
            })?;
            offer_layout(&dest, offer)?;
            layouts.push(WrittenLayout::Image(dest.into()));
        } else if let Some(target) = target(&spec.kind, dest, &mut spec.attrs)? {
            offer.targets.insert(index, target);
        }
        if matches!(spec.kind.as_str(), "image" | "oci" | "docker") {
            if !flags.tag.is_empty() {
                let names = flags.tag.join(",");
                spec.attrs.entry("name".into()).or_insert(names);
            }
            for text in &flags.annotation {
                key_value("annotation", text, "annotation.", &mut spec.attrs)?;
            }
        }
        let pushes = spec.attrs.get("push").is_some_and(|v| v == "true");
        if pushes && !spec.attrs.contains_key("name") {
            return Err(CliError::Usage(
                "tag is needed when pushing to registry: add -t NAME".into(),
            ));
        }
    }
    Ok(specs)
}

fn target(
    kind: &str,
    dest: Option<String>,
    attrs: &mut BTreeMap<String, String>,
) -> Result<Option<Target>, CliError> {
    Ok(Some(match (kind, dest) {
        ("local", Some(dest)) => {
            // The daemon is told as well: it sends several platforms as one tree then, or each would remove the others.
            let mirror = match attrs.get("mode").map(String::as_str) {
                None | Some("" | "copy") => false,
                Some("delete") => true,
                Some(mode) => {
                    return Err(CliError::Usage(format!(
                        "invalid mode {mode:?} of -o type=local: use copy or delete (removes what the result does not have)"
                    )));
                }
            };
            let special = match attrs.remove("special").as_deref() {
                None | Some("" | "false" | "0") => false,
                Some("true" | "1") => true,
                Some(value) => {
                    return Err(CliError::Usage(format!(
                        "invalid special {value:?} of -o type=local: true writes device files, set-user-id and set-group-id bits and file capabilities of the result, false leaves them out"
                    )));
                }
            };
            Target::Folder(FolderTarget {
                path: dest.into(),
                mirror,
                special,
                ..FolderTarget::default()
            })
        }
        ("tar" | "oci" | "docker", Some(dest)) if dest == "-" => {
            if std::io::stdout().is_terminal() {
                return Err(CliError::Usage(
                    "dest file is required: refusing to write an archive to a terminal".into(),
                ));
            }
            Target::Bytes(FileTarget::Stdout)
        }
        ("tar" | "oci" | "docker", Some(dest)) => Target::Bytes(FileTarget::File(dest.into())),
        ("docker", None) => {
            if let Err(why) = docker_answers() {
                return Err(CliError::Usage(format!(
                    "cannot load the image: {why}; write an archive with -o type=docker,dest=FILE"
                )));
            }
            Target::Bytes(FileTarget::Program(vec!["docker".into(), "load".into()]))
        }
        _ => return Ok(None),
    }))
}

/// The folders that are written.
pub(super) fn folders(offer: &Attachables) -> Vec<FolderTarget> {
    let folder = |target: &Target| match target {
        Target::Folder(folder) => Some(folder.clone()),
        Target::Bytes(_) => None,
    };
    offer.targets.values().filter_map(folder).collect()
}

/// Says what of a result was left out of a folder.
pub(super) fn left_out_report(folder: &FolderTarget) -> Option<String> {
    let left_out = folder.left_out.files();
    let first = left_out.first?;
    let count = |n: u64, one: &str, many: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {many}")),
    };
    let parts: Vec<String> = [
        count(
            left_out.devices,
            "device file was left out",
            "device files were left out",
        ),
        count(
            left_out.privileged,
            "file lost its set-user-id, set-group-id bit or capabilities",
            "files lost their set-user-id, set-group-id bits or capabilities",
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    Some(format!(
        "{}: {} (first: {}); -o type=local,dest=…,special=true writes them\n",
        folder.path.display(),
        parts.join(", "),
        harmless(&first.display().to_string())
    ))
}
