//! A spec file: the document of the CDI specification, checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use gostd::json::null_as_default as or_default;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::DescribedDevice;
use crate::injection::Hook;

/// Versions, oldest first.
const SUPPORTED_VERSIONS: [&str; 10] = [
    "0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
];
/// The most bytes of annotations of a file or device.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CdiDocument {
    cdi_version: String,
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    devices: Vec<DocumentDevice>,
    #[serde(default, deserialize_with = "or_default")]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DocumentDevice {
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    container_edits: Edits,
}

/// What a container is given.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Edits {
    #[serde(deserialize_with = "or_default")]
    pub(super) env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) device_nodes: Vec<DeviceNode>,
    #[serde(deserialize_with = "or_default")]
    pub(super) net_devices: Vec<IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    pub(super) hooks: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub(super) mounts: Vec<BindMount>,
    pub(super) intel_rdt: Option<IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    pub(super) additional_gids: Vec<u32>,
}

/// A device node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct DeviceNode {
    pub(super) path: String,
    pub(super) host_path: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) major: i64,
    pub(super) minor: i64,
    pub(super) file_mode: Option<u32>,
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// Something of the host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct BindMount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) options: Vec<String>,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

/// The points of a container's life, as the OCI runtime specification names them.
const HOOK_NAMES: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// Reads a file's text; JSON is YAML too. Only the first document counts, as it does for others.
pub(super) fn parse(text: &str) -> Result<Vec<(String, DescribedDevice)>, String> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
    };
    let document: CdiDocument = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| format!("no CDI document: {error}"))?;
    check(document)
}

fn check(document: CdiDocument) -> Result<Vec<(String, DescribedDevice)>, String> {
    let version = document
        .cdi_version
        .strip_prefix('v')
        .unwrap_or(&document.cdi_version);
    let version = SUPPORTED_VERSIONS
        .iter()
        .position(|supported| *supported == version)
        .ok_or_else(|| format!("invalid version {:?}", document.cdi_version))?;
    let least = least_version(&document);
    if version < least {
        let least = SUPPORTED_VERSIONS.get(least).unwrap_or(&"");
        return Err(format!("the spec version must be at least v{least}"));
    }
    let (vendor, class) = document
        .kind
        .split_once('/')
        .ok_or_else(|| format!("invalid kind {:?}", document.kind))?;
    check_name("vendor", vendor)?;
    check_name("class", class)?;
    check_annotations(&document.annotations)?;
    document.container_edits.check()?;
    if document.devices.is_empty() {
        return Err("invalid spec, no devices".into());
    }
    let common = Arc::new(document.container_edits);
    let mut out: Vec<(String, DescribedDevice)> = Vec::with_capacity(document.devices.len());
    let mut names = std::collections::BTreeSet::new();
    for device in document.devices {
        let name = &device.name;
        check_device_name(name)?;
        if !names.insert(name.clone()) {
            return Err(format!("invalid spec, multiple device {name:?}"));
        }
        check_annotations(&device.annotations)?;
        if device.container_edits.is_empty() {
            return Err(format!("device {name:?}: empty device edits"));
        }
        device
            .container_edits
            .check()
            .map_err(|reason| format!("device {name:?}: {reason}"))?;
        let mut all = document.annotations.clone();
        all.extend(device.annotations);
        out.push((
            format!("{}={name}", document.kind),
            DescribedDevice {
                annotations: all,
                common: Arc::clone(&common),
                device_edits: device.container_edits,
            },
        ));
    }
    Ok(out)
}

/// The oldest version that has what the document uses, as a place in [`SUPPORTED_VERSIONS`].
fn least_version(document: &CdiDocument) -> usize {
    let edits = || {
        document
            .devices
            .iter()
            .map(|device| &device.container_edits)
            .chain([&document.container_edits])
    };
    let class = document.kind.split_once('/').map_or("", |(_, class)| class);
    let annotated = |device: &DocumentDevice| !device.annotations.is_empty();
    if edits().any(|e| !e.net_devices.is_empty()) {
        9
    } else if edits().any(|e| e.intel_rdt.is_some() || !e.additional_gids.is_empty()) {
        6
    } else if !document.annotations.is_empty()
        || document.devices.iter().any(annotated)
        || class.contains('.')
    {
        5
    } else if edits()
        .flat_map(|e| &e.device_nodes)
        .any(|node| !node.host_path.is_empty())
        || document
            .devices
            .iter()
            .any(|device| device.name.starts_with(|c: char| c.is_ascii_digit()))
    {
        4
    } else if edits()
        .flat_map(|e| &e.mounts)
        .any(|mount| !mount.kind.is_empty())
    {
        3
    } else {
        2
    }
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    check_word(name, |c| c.is_ascii_alphabetic(), "_-.")
        .map_err(|reason| format!("invalid {what}: {reason}"))
}

fn check_device_name(name: &str) -> Result<(), String> {
    check_word(name, |c| c.is_ascii_alphanumeric(), "_-.:")
        .map_err(|reason| format!("invalid device name: {reason}"))
}

fn check_word(name: &str, first: impl Fn(char) -> bool, inside: &str) -> Result<(), String> {
    let fine = name.starts_with(first)
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || inside.contains(c));
    if fine {
        Ok(())
    } else {
        Err(format!("{name:?}"))
    }
}

fn check_annotations(annotations: &BTreeMap<String, String>) -> Result<(), String> {
    let size: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if size > MAX_ANNOTATION_BYTES {
        return Err(format!(
            "annotations size {size} is larger than limit {MAX_ANNOTATION_BYTES}"
        ));
    }
    Ok(())
}

impl Edits {
    fn is_empty(&self) -> bool {
        self.env.is_empty()
            && self.device_nodes.is_empty()
            && self.net_devices.is_empty()
            && self.hooks.is_empty()
            && self.mounts.is_empty()
            && self.intel_rdt.is_none()
            && self.additional_gids.is_empty()
    }

    fn check(&self) -> Result<(), String> {
        let hooks = self.hooks.iter().flat_map(|hook| &hook.env);
        if let Some(wrong) = self
            .env
            .iter()
            .chain(hooks)
            .find(|entry| entry.find('=').is_none_or(|at| at == 0) || entry.contains('\0'))
        {
            return Err(format!("invalid environment variable {wrong:?}"));
        }
        for node in &self.device_nodes {
            if node.path.is_empty() {
                return Err("invalid (empty) device path".into());
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                return Err(format!(
                    "device {:?}: invalid type {:?}",
                    node.path, node.kind
                ));
            }
            let access = node.permissions.as_str();
            if access != "none" && !access.chars().all(|c| "rwm".contains(c)) {
                return Err(format!(
                    "device {:?}: invalid permissions {access:?}",
                    node.path
                ));
            }
        }
        for hook in &self.hooks {
            if !HOOK_NAMES.contains(&hook.hook_name.as_str()) {
                return Err(format!("invalid hook name {:?}", hook.hook_name));
            }
            if hook.path.is_empty() {
                return Err(format!("invalid hook {:?} with empty path", hook.hook_name));
            }
        }
        for mount in &self.mounts {
            if mount.host_path.is_empty() || mount.container_path.is_empty() {
                return Err("invalid mount, empty path".into());
            }
        }
        Ok(())
    }
}
