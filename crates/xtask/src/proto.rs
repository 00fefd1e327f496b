//! Generates `proto/src/gen` from `proto/protos`, with no `protoc` on the machine.
//!
//! Every .proto file becomes one flat Rust module of the same name. Files are generated one at a time; what a file uses
//! from another is mapped to that file's module. So two files may share a wire package (`auth` and `filesync` do).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

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

/// Regenerates the committed code, or compares it with what would be generated.
pub(crate) fn run(root: &Path, check: bool) -> Result<(), String> {
    let fresh = generate(root)?;
    let dir = root.join("proto/src/gen");
    let committed = read_dir(&dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))?;
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
        fs::remove_file(dir.join(name)).map_err(|e| e.to_string())?;
    }
    for (name, text) in &fresh {
        if committed.get(name) != Some(text) {
            fs::write(dir.join(name), text).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

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
        let module = name.trim_end_matches(".proto");
        let out = scratch.join(module);
        fs::create_dir(&out).map_err(|e| e.to_string())?;
        let package = all
            .file
            .iter()
            .find(|f| f.name() == name)
            .ok_or_else(|| format!("{name} was not compiled"))?
            .package()
            .to_owned();
        // The generator must see every message, but writes only those that are not mapped elsewhere.
        let mut set = FileDescriptorSet {
            file: all.file.clone(),
        };
        set.file
            .iter_mut()
            .filter(|f| f.name() != name)
            .for_each(|f| f.service.clear());
        let mut builder = tonic_prost_build::configure()
            .out_dir(&out)
            .btree_map(".")
            .emit_rerun_if_changed(false)
            .codec_path("crate::weigh::Codec")
            .skip_debug(SECRET.iter().copied());
        for path in SHARED_BYTES {
            builder = builder.bytes(path);
        }
        for other in all
            .file
            .iter()
            .filter(|f| f.name() != name && !f.package().starts_with("google.protobuf"))
        {
            for (wire, rust) in externs(other) {
                builder = builder.extern_path(wire, rust);
            }
        }
        builder
            .compile_fds(set)
            .map_err(|e| format!("{name}: {e}"))?;
        let path = out.join(format!("{package}.rs"));
        let text = fs::read_to_string(&path).map_err(|e| format!("{name}: {e}"))?;
        fresh.insert(format!("{module}.rs"), text);
    }
    fs::remove_dir_all(&scratch).map_err(|e| e.to_string())?;
    fresh.insert("shapes.rs".into(), crate::shapes::generate(&all)?);
    Ok(fresh)
}

/// Where the top-level types of a file live in Rust.
fn externs(file: &FileDescriptorProto) -> Vec<(String, String)> {
    let module = file.name().trim_end_matches(".proto");
    let messages = file.message_type.iter().map(DescriptorProto::name);
    let enums = file.enum_type.iter().map(|e| e.name());
    messages
        .chain(enums)
        .map(|n| {
            (
                format!(".{}.{n}", file.package()),
                format!("crate::{module}::{}", camel(n)),
            )
        })
        .collect()
}

/// `APICap` becomes `ApiCap` and `HostIP` becomes `HostIp`, as the generator names its types.
pub(crate) fn camel(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (i, c) in chars.iter().enumerate() {
        let after_upper = i > 0 && chars.get(i - 1).is_some_and(|p| p.is_uppercase());
        let before_lower = chars.get(i + 1).is_some_and(|n| n.is_lowercase());
        if c.is_uppercase() && after_upper && !before_lower {
            text.extend(c.to_lowercase());
        } else {
            text.push(*c);
        }
    }
    text
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
