//! Devices by the Container Device Interface: what the machine's administrator describes in files, a build may ask for by name.
//!
//! ```text
//!  spec files (JSON, YAML) ─► Devices ─► list: what clients are told
//!  what a build was granted ─────┤
//!  what a step asks for ─────────┴────► allowed (when a definition is loaded) ─► inject (when a container is made)
//! ```
//!
//! A device is `vendor.com/class=name`. A step asks for that, for `vendor.com/class` (the first), `vendor.com/class=*` (all),
//! or for a class that devices claim by an annotation. Files are read again when a file or folder has changed.
//!
//! Facts: the CDI specification 1.1, and `solver/llbsolver/cdidevices` of BuildKit v0.34.2.

mod edits;
mod scan;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::{DeviceRights, Entitlements};
use crate::injection::Injection;
use scan::{DeviceTable, Stamp};
use spec::Edits;

/// The annotation by which a device claims a class of BuildKit's.
const CLASS_ANNOTATION: &str = "org.mobyproject.buildkit.device.class";
/// The annotation by which a device needs no entitlement.
const AUTO_ALLOW_ANNOTATION: &str = "org.mobyproject.buildkit.device.autoallow";

/// Where devices are described and which need no entitlement.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Folders of spec files; what a later one says of a device counts.
    pub spec_dirs: Vec<PathBuf>,
    /// Devices, or all devices of a kind, that every build may have.
    pub auto_allowed: Vec<String>,
}

/// A device that a step asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    /// A device, a kind, a kind with `=*`, or a class.
    pub name: String,
    /// Whether the step runs without the device where the machine does not have it.
    pub optional: bool,
}

/// A device that the machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// `vendor.com/class=name`.
    pub name: String,
    /// Whether every build may have it without an entitlement.
    pub auto_allow: bool,
    /// The annotations of its file, those of the device over those of the file.
    pub annotations: BTreeMap<String, String>,
}

/// Why a step cannot have its devices.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No file describes the device.
    #[error("required device {name:?} is not registered")]
    NotRegistered {
        /// The name that the step asked for.
        name: String,
    },
    /// The build was not granted these devices.
    #[error("{}", refusal(.names))]
    NotAllowed {
        /// The full names of the devices.
        names: Vec<String>,
    },
    /// The device's file asks for something that is not built.
    #[error("CDI device {device} asks for {feature}, which rbuild does not support yet")]
    NotBuilt {
        /// The full name of the device.
        device: String,
        /// The part of the specification that the file uses.
        feature: String,
    },
    /// A node of the host is not there.
    #[error("failed to stat CDI host device {path:?}: {source}")]
    Stat {
        /// The path of the node on the host.
        path: String,
        /// The error of the system call, or why the node on the host cannot be used.
        source: std::io::Error,
    },
    /// A file or folder of the host cannot be mounted.
    #[error(
        "cannot mount {path:?} for CDI device {device}: {}",
        oci::error::errno_text(source)
    )]
    Mount {
        /// The full name of the device.
        device: String,
        /// The path on the host.
        path: String,
        /// The error of the system call.
        source: std::io::Error,
    },
}

fn refusal(names: &[String]) -> String {
    match names {
        [one] => format!("device {one} is requested by the build but not allowed"),
        several => format!(
            "devices {} are requested by the build but not allowed",
            several.join(", ")
        ),
    }
}

/// One device of a spec file.
#[derive(Debug)]
struct DescribedDevice {
    annotations: BTreeMap<String, String>,
    /// The edits of the whole file, applied once if several of its devices are asked for.
    common: Arc<Edits>,
    device_edits: Edits,
}

/// The machine's devices.
#[derive(Debug)]
pub struct Devices {
    config: Config,
    auto_allowed: BTreeSet<String>,
    table: Mutex<(Option<Stamp>, Arc<DeviceTable>)>,
}

impl Devices {
    /// Reads the files once, so that the log tells early what is wrong with them.
    pub fn new(config: Config) -> Arc<Self> {
        let devices = Self {
            auto_allowed: config.auto_allowed.iter().cloned().collect(),
            config,
            table: Mutex::default(),
        };
        drop(devices.table());
        Arc::new(devices)
    }

    /// The devices of the files as they are now.
    fn table(&self) -> Arc<DeviceTable> {
        let stamp = scan::stamp(&self.config.spec_dirs);
        let mut table = self.table.lock();
        if table.0.as_ref() != Some(&stamp) {
            *table = (
                Some(stamp),
                Arc::new(scan::read_all(&self.config.spec_dirs)),
            );
        }
        Arc::clone(&table.1)
    }

    /// All devices, by name.
    pub fn list(&self) -> Vec<DeviceInfo> {
        let info = |(name, device): (&String, &DescribedDevice)| DeviceInfo {
            name: name.clone(),
            auto_allow: self.needs_no_grant(name, device),
            annotations: device.annotations.clone(),
        };
        self.table().iter().map(info).collect()
    }

    fn needs_no_grant(&self, name: &str, device: &DescribedDevice) -> bool {
        let annotated = device
            .annotations
            .get(AUTO_ALLOW_ANNOTATION)
            .is_some_and(|value| gostd::strconv::is_true(value));
        annotated || self.auto_allowed.contains(name) || self.auto_allowed.contains(kind(name))
    }

    /// What of the requested devices a step of a build with these rights gets, by full name; a device it may not have is an error.
    ///
    /// A name that the entitlement replaces stands for what replaces it.
    pub fn allowed(
        &self,
        requests: &[DeviceRequest],
        rights: &Entitlements,
    ) -> Result<Vec<DeviceRequest>, DeviceError> {
        let grant = rights.devices.as_ref();
        if grant.is_some_and(|grant| grant.all) {
            return Ok(requests.to_vec());
        }
        let table = self.table();
        let mut out = Vec::new();
        let mut plain = Vec::new();
        for request in requests {
            match grant.and_then(|grant| grant.names.get(&request.name)) {
                Some(name) if !name.is_empty() => out.push(DeviceRequest {
                    name: name.clone(),
                    optional: request.optional,
                }),
                _ => plain.push(request.clone()),
            }
        }
        let names = find(&table, &plain)?;
        self.refuse_others(&table, &names, grant)?;
        out.extend(names.into_iter().map(|name| DeviceRequest {
            name,
            optional: false,
        }));
        Ok(out)
    }

    fn refuse_others(
        &self,
        table: &DeviceTable,
        names: &[String],
        grant: Option<&DeviceRights>,
    ) -> Result<(), DeviceError> {
        if names.is_empty() || grant.is_some_and(|grant| grant.all) {
            return Ok(());
        }
        // DIFFERS: a granted name that this machine does not have grants nothing; BuildKit fails the build, also for every name that
        // only stands for another.
        let granted: Vec<DeviceRequest> = grant
            .into_iter()
            .flat_map(|grant| &grant.names)
            .map(|(name, replacement)| DeviceRequest {
                name: if replacement.is_empty() {
                    name
                } else {
                    replacement
                }
                .clone(),
                optional: true,
            })
            .collect();
        let granted: BTreeSet<String> = find(table, &granted)?.into_iter().collect();
        let is_free = |name: &String| {
            table
                .get(name)
                .is_some_and(|device| self.needs_no_grant(name, device))
        };
        let refused: Vec<String> = names
            .iter()
            .filter(|name| !granted.contains(*name) && !is_free(name))
            .cloned()
            .collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(DeviceError::NotAllowed { names: refused })
        }
    }

    /// What a container must be given for these devices. The rights are checked again, at the one place where that is made (P1).
    ///
    /// Blocks a little: files and nodes of the host are looked at.
    pub fn inject(
        &self,
        requests: &[DeviceRequest],
        rights: &Entitlements,
    ) -> Result<Injection, DeviceError> {
        let table = self.table();
        let names = find(&table, requests)?;
        self.refuse_others(&table, &names, rights.devices.as_ref())?;
        let mut injection = Injection::default();
        let mut applied: Vec<&Arc<Edits>> = Vec::new();
        for name in &names {
            let Some(device) = table.get(name) else {
                continue;
            };
            if !applied
                .iter()
                .any(|common| Arc::ptr_eq(common, &device.common))
            {
                injection.add(name, &device.common)?;
                applied.push(&device.common);
            }
            injection.add(name, &device.device_edits)?;
        }
        injection.sort();
        Ok(injection)
    }
}

fn kind(name: &str) -> &str {
    name.split_once('=').map_or(name, |(kind, _)| kind)
}

/// The full names of what is asked for, each once.
fn find(table: &DeviceTable, requests: &[DeviceRequest]) -> Result<Vec<String>, DeviceError> {
    let mut out: Vec<String> = Vec::new();
    for request in requests {
        let (kind, name) = request
            .name
            .split_once('=')
            .unwrap_or((request.name.as_str(), ""));
        let qualified = kind
            .split_once('/')
            .is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty());
        let of_kind = || {
            table
                .keys()
                .filter(move |key| {
                    key.split_once('=')
                        .is_some_and(|(key_kind, _)| key_kind == kind)
                })
                .cloned()
        };
        let mut matches: Vec<String> = match name {
            _ if !qualified => Vec::new(),
            "" => of_kind().take(1).collect(),
            "*" => of_kind().collect(),
            _ => table
                .keys()
                .filter(|key| **key == request.name)
                .cloned()
                .collect(),
        };
        if matches.is_empty() {
            matches = table
                .iter()
                .filter(|(_, device)| {
                    device.annotations.get(CLASS_ANNOTATION) == Some(&request.name)
                })
                .map(|(key, _)| key.clone())
                .collect();
        }
        if matches.is_empty() {
            if !request.optional {
                return Err(DeviceError::NotRegistered {
                    name: request.name.clone(),
                });
            }
            tracing::warn!(device = request.name, "optional device is not registered");
        }
        for name in matches {
            if !out.contains(&name) {
                out.push(name);
            }
        }
    }
    Ok(out)
}

impl DeviceError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::NotRegistered { .. } => ErrorKind::NotFound,
            Self::NotAllowed { .. } => ErrorKind::Denied,
            Self::NotBuilt { .. } => ErrorKind::Unsupported,
            Self::Stat { .. } => ErrorKind::System,
            Self::Mount { source, .. } => ErrorKind::of_host(source),
        }
    }
}

#[cfg(test)]
mod tests;
