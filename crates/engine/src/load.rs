//! Definition → vertices.
//!
//! A vertex keeps the digest of its op as received. Its op gets a platform in normal form, and its build's rights are
//! checked here, before anything runs, and once more where a container is made.

use std::collections::HashMap;
use std::sync::Arc;

use executor::cdi::{DeviceError, DeviceRequest, Devices};
use llb::definition::DefinitionError;
use llb::{Graph, pb};
use oci::{Digest, ErrorKind, Platform};
use ops::{BuildDomain, BuildRights, OpSys};
use solver::{Edge, ProgressGroup, Vertex, VertexOptions};

use crate::api::Failure;
use crate::failure::Place;

/// A loaded definition.
pub(crate) struct Loaded {
    /// What is wanted.
    pub(crate) edge: Edge<BuildDomain>,
    /// Where vertices stand in the user's files.
    pub(crate) places: HashMap<Digest, Vec<Place>>,
    /// Cache mounts of steps whose cache is to be ignored, by id, and whether they are on top of a ref: they begin empty.
    pub(crate) unwanted: HashMap<String, bool>,
}

/// Why a definition is not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("failed to load LLB: {0}")]
    Definition(#[from] DefinitionError),
    #[error("failed to load LLB: unknown API capability {0}")]
    UnknownCapability(String),
    #[error("failed to load LLB: invalid security mode {0}")]
    SecurityMode(i32),
    /// The build was not granted the entitlement.
    #[error("failed to load LLB: {0} is not allowed")]
    NotGranted(&'static str),
    #[error(
        "failed to load LLB: CDI device {device:?} is required by step {step:?}, but CDI device support is disabled"
    )]
    DevicesDisabled { device: String, step: String },
    #[error("failed to load LLB: {0}")]
    Devices(#[from] DeviceError),
}

impl LoadError {
    /// What kind of error it is.
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Definition(_) | Self::UnknownCapability(_) | Self::SecurityMode(_) => {
                ErrorKind::Invalid
            }
            Self::NotGranted(_) => ErrorKind::Denied,
            Self::DevicesDisabled { .. } => ErrorKind::NotFound,
            Self::Devices(error) => error.kind(),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::of_build(error.kind(), error)
    }
}

/// Loads a definition for a build with `rights` that is within `nesting` others.
pub(crate) fn load(
    definition: &pb::Definition,
    rights: &BuildRights,
    nesting: usize,
    devices: Option<&Devices>,
) -> Result<Loaded, LoadError> {
    let graph = Graph::load(definition)?;
    let mut vertices: Vec<Arc<Vertex<BuildDomain>>> = Vec::with_capacity(graph.nodes.len());
    let mut places = HashMap::new();
    let mut unwanted = HashMap::new();
    for node in &graph.nodes {
        if let Some(cap) = node
            .metadata
            .caps
            .keys()
            .find(|cap| !llb::caps::LLB.contains(&cap.as_str()))
        {
            return Err(LoadError::UnknownCapability(cap.clone()));
        }
        let mut op = (*node.op).clone();
        op.platform = Some(platform(op.platform.as_ref()));
        check(&op, rights)?;
        self::devices(&mut op, rights, devices, &node.name)?;
        let at: Vec<Place> = graph
            .locations_of(node)
            .map(|(info, ranges)| (info.clone(), ranges.to_vec()))
            .collect();
        if !at.is_empty() {
            places.insert(node.digest.clone(), at);
        }
        let metadata = &node.metadata;
        if metadata.ignore_cache {
            unwanted.extend(cache_mounts(&op));
        }
        let options = VertexOptions {
            ignore_cache: metadata.ignore_cache,
            export_cache: metadata.export_cache.as_ref().map(|e| e.value),
            description: metadata.description.clone().into_iter().collect(),
            progress_group: metadata.progress_group.as_ref().map(|g| ProgressGroup {
                id: g.id.clone(),
                name: g.name.clone(),
                weak: g.weak,
            }),
        };
        let inputs = node
            .inputs
            .iter()
            .filter_map(|input| {
                Some(Edge {
                    vertex: Arc::clone(vertices.get(input.node)?),
                    index: input.output,
                })
            })
            .collect();
        vertices.push(Arc::new(Vertex {
            digest: node.digest.clone(),
            name: node.display_name().to_owned(),
            inputs,
            options,
            sys: Arc::new(OpSys {
                op: Arc::new(op),
                metadata: metadata.clone(),
                rights: rights.clone(),
                nesting,
            }),
        }));
    }
    let root = vertices
        .get(graph.root.node)
        .expect("the root is one of the nodes");
    Ok(Loaded {
        edge: Edge {
            vertex: Arc::clone(root),
            index: graph.root.output,
        },
        places,
        unwanted,
    })
}

/// The cache mounts of an op: their ids, and whether they are on top of a ref.
fn cache_mounts(op: &pb::Op) -> Vec<(String, bool)> {
    let Some(pb::op::Op::Exec(exec)) = &op.op else {
        return Vec::new();
    };
    exec.mounts
        .iter()
        .filter(|mount| mount.mount_type == pb::MountType::Cache as i32)
        .filter_map(|mount| {
            let id = &mount.cache_opt.as_ref()?.id;
            let id = if id.is_empty() { &mount.dest } else { id };
            Some((id.clone(), mount.input >= 0))
        })
        .collect()
}

fn platform(wire: Option<&pb::Platform>) -> pb::Platform {
    let platform = wire.map_or_else(Platform::host, |p| Platform {
        os: p.os.clone(),
        architecture: p.architecture.clone(),
        variant: p.variant.clone(),
        os_version: p.os_version.clone(),
        os_features: p.os_features.clone(),
    });
    let platform = platform.normalize();
    pb::Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    }
}

fn check(op: &pb::Op, rights: &BuildRights) -> Result<(), LoadError> {
    let Some(pb::op::Op::Exec(exec)) = &op.op else {
        return Ok(());
    };
    if pb::SecurityMode::try_from(exec.security).is_err() {
        return Err(LoadError::SecurityMode(exec.security));
    }
    if exec.network == pb::NetMode::Host as i32 && !rights.entitlements.network_host {
        return Err(LoadError::NotGranted("network.host"));
    }
    if exec.security == pb::SecurityMode::Insecure as i32 && !rights.entitlements.security_insecure
    {
        return Err(LoadError::NotGranted("security.insecure"));
    }
    Ok(())
}

/// Leaves in an op the devices that it gets, by their full names: they are part of its key.
fn devices(
    op: &mut pb::Op,
    rights: &BuildRights,
    host_devices: Option<&Devices>,
    name: &str,
) -> Result<(), LoadError> {
    let Some(pb::op::Op::Exec(exec)) = &mut op.op else {
        return Ok(());
    };
    if exec.cdi_devices.is_empty() {
        return Ok(());
    }
    let Some(host_devices) = host_devices else {
        if let Some(device) = exec.cdi_devices.iter().find(|d| !d.optional) {
            return Err(LoadError::DevicesDisabled {
                device: device.name.clone(),
                step: name.to_owned(),
            });
        }
        exec.cdi_devices.clear();
        return Ok(());
    };
    let requested: Vec<DeviceRequest> = exec
        .cdi_devices
        .iter()
        .map(|device| DeviceRequest {
            name: device.name.clone(),
            optional: device.optional,
        })
        .collect();
    let allowed = host_devices.allowed(&requested, &rights.entitlements);
    exec.cdi_devices = allowed?
        .into_iter()
        .map(|device| pb::CdiDevice {
            name: device.name,
            optional: device.optional,
        })
        .collect();
    Ok(())
}
