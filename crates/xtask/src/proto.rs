//! Generates `proto/src/gen` and `crates/services/src/gen` from `proto/protos`, with no `protoc` on the machine.
//!
//! Every .proto file becomes one flat Rust module of messages in `proto`, and one of clients and servers in `services` if it has a
//! service. Files are generated one at a time; what a file uses from another is mapped to that file's module. So two files may
//! share a wire package (`auth` and `filesync` do).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::shapes::camel;

/// Fields whose bytes are handed on without a copy.
const SHARED_BYTES: &[&str] = &[
    ".moby.buildkit.v1.BytesMessage.data",
    ".moby.filesync.v1.BytesMessage.data",
    ".moby.sshforward.v1.BytesMessage.data",
    ".moby.upload.v1.BytesMessage.data",
    ".fsutil.types.Packet.data",
    ".moby.buildkit.v1.VertexLog.msg",
    ".moby.buildkit.v1.frontend.FdMessage.data",
    ".moby.buildkit.v1.frontend.ReadFileResponse.Data",
    ".containerd.services.content.v1.ReadContentResponse.data",
];

/// Messages that carry secrets: their `Debug` is written by hand in the crate and prints no value.
const SECRET: &[&str] = &[
    ".moby.filesync.v1.CredentialsResponse",
    ".moby.filesync.v1.FetchTokenResponse",
    ".moby.buildkit.secrets.v1.GetSecretResponse",
];

/// Where messages are, seen from the root of the workspace.
const MESSAGES: &str = "proto/src/gen";
/// Where clients and servers are.
const SERVICES: &str = "crates/services/src/gen";

/// Regenerates the committed code, or compares it with what would be generated.
pub(crate) fn run(root: &Path, check: bool) -> Result<(), String> {
    let fresh = generate(root)?;
    let mut committed = BTreeMap::new();
    for folder in [MESSAGES, SERVICES] {
        let files = read_dir(&root.join(folder)).map_err(|e| format!("{folder}: {e}"))?;
        committed.extend(
            files
                .into_iter()
                .map(|(name, text)| (format!("{folder}/{name}"), text)),
        );
    }
    if check {
        let stale: Vec<&String> = fresh
            .iter()
            .filter(|(name, text)| committed.get(*name) != Some(text))
            .map(|(name, _)| name)
            .chain(committed.keys().filter(|name| !fresh.contains_key(*name)))
            .collect();
        if stale.is_empty() {
            return Ok(());
        }
        return Err(format!(
            "generated code differs for {stale:?}: run `cargo run -p rbuild-xtask -- proto` and commit the result"
        ));
    }
    for name in committed.keys().filter(|name| !fresh.contains_key(*name)) {
        fs::remove_file(root.join(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    for (name, text) in &fresh {
        if committed.get(name) != Some(text) {
            fs::write(root.join(name), text).map_err(|e| format!("{name}: {e}"))?;
        }
    }
    Ok(())
}

/// Every generated file, by its path below the root of the workspace.
fn generate(root: &Path) -> Result<BTreeMap<String, String>, String> {
    let protos = root.join("proto/protos");
    let names: Vec<String> = read_dir(&protos)
        .map_err(|e| e.to_string())?
        .into_keys()
        .filter(|n| n.ends_with(".proto"))
        .collect();
    let all = protox::compile(&names, [&protos]).map_err(|e| e.to_string())?;
    let scratch = scratch_dir().map_err(|e| e.to_string())?;
    let mut fresh = BTreeMap::new();
    for name in &names {
        let file = all
            .file
            .iter()
            .find(|f| f.name() == name)
            .ok_or_else(|| format!("{name} was not compiled"))?;
        let module = name.trim_end_matches(".proto");
        for kind in [Kind::Messages, Kind::Services] {
            if kind == Kind::Services && file.service.is_empty() {
                continue;
            }
            let folder = kind.folder();
            let out = scratch.join(folder).join(module);
            fs::create_dir_all(&out).map_err(|e| e.to_string())?;
            let text = generate_file(&all, file, kind, &out).map_err(|e| format!("{name}: {e}"))?;
            fresh.insert(format!("{folder}/{module}.rs"), text);
        }
    }
    fs::remove_dir_all(&scratch).map_err(|e| e.to_string())?;
    let shapes = crate::shapes::generate(&all)?;
    fresh.insert(format!("{MESSAGES}/shapes.rs"), shapes);
    Ok(fresh)
}

/// What of a file is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Messages,
    Services,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Messages => MESSAGES,
            Self::Services => SERVICES,
        }
    }

    /// Where generated code finds the messages.
    fn messages(self) -> &'static str {
        match self {
            Self::Messages => "crate",
            Self::Services => "::proto",
        }
    }
}

/// The code of one file; `out` is an empty folder for the generator.
fn generate_file(
    all: &FileDescriptorSet,
    file: &FileDescriptorProto,
    kind: Kind,
    out: &Path,
) -> Result<String, String> {
    // The generator must see every message, but writes only those that are not mapped elsewhere.
    let mut set = all.clone();
    for other in &mut set.file {
        if kind == Kind::Messages || other.name() != file.name() {
            other.service.clear();
        }
    }
    let mut builder = tonic_prost_build::configure()
        .out_dir(out)
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .codec_path("crate::codec::Codec")
        .skip_debug(SECRET.iter().copied());
    for path in SHARED_BYTES {
        builder = builder.bytes(path);
    }
    for other in &all.file {
        let is_written_here = kind == Kind::Messages && other.name() == file.name();
        if is_written_here || other.package().starts_with("google.protobuf") {
            continue;
        }
        for (wire, rust) in externs(other, kind.messages()) {
            builder = builder.extern_path(wire, rust);
        }
    }
    builder.compile_fds(set).map_err(|e| e.to_string())?;
    let path = out.join(format!("{}.rs", file.package()));
    fs::read_to_string(&path).map_err(|e| e.to_string())
}

/// Where the top-level types of a file live in Rust.
fn externs(file: &FileDescriptorProto, library: &str) -> Vec<(String, String)> {
    let module = file.name().trim_end_matches(".proto");
    let messages = file.message_type.iter().map(DescriptorProto::name);
    let enums = file.enum_type.iter().map(|e| e.name());
    messages
        .chain(enums)
        .map(|n| {
            (
                format!(".{}.{n}", file.package()),
                format!("{library}::{module}::{}", camel(n)),
            )
        })
        .collect()
}

fn scratch_dir() -> io::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("rbuild-xtask-proto-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn read_dir(dir: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.insert(
                entry.file_name().to_string_lossy().into_owned(),
                fs::read_to_string(entry.path())?,
            );
        }
    }
    Ok(files)
}
