//! Definition → vertices.
//!
//! A vertex keeps the digest of its op as received. Its op gets a platform in normal form, and its build's rights are
//! checked here, before anything runs, and once more where a container is made.

use std::collections::HashMap;
use std::sync::Arc;

use executor::cdi::{DeviceRequest, Devices};
use llb::{Graph, pb};
use oci::{Digest, Platform};
use ops::{BuildDomain, BuildRights, OpSys};
use solver::{Edge, ProgressGroup, Vertex, VertexOptions};

use crate::api::{Failure, FailureKind};
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

/// Loads a definition for a build with `rights`.
pub(crate) fn load(
    definition: &pb::Definition,
    rights: &BuildRights,
    devices: Option<&Devices>,
) -> Result<Loaded, Failure> {
    let failed = |message: String| {
        Failure::new(
            FailureKind::Unknown,
            format!("failed to load LLB: {message}"),
        )
    };
    let graph = Graph::load(definition).map_err(|e| failed(e.to_string()))?;
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
            return Err(failed(format!("unknown API capability {cap}")));
        }
        let mut op = (*node.op).clone();
        op.platform = Some(platform(op.platform.as_ref()));
        check(&op, rights).map_err(failed)?;
        self::devices(&mut op, rights, devices, &node.name).map_err(failed)?;
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

fn check(op: &pb::Op, rights: &BuildRights) -> Result<(), String> {
    let Some(pb::op::Op::Exec(exec)) = &op.op else {
        return Ok(());
    };
    if pb::SecurityMode::try_from(exec.security).is_err() {
        return Err(format!("invalid security mode {}", exec.security));
    }
    if exec.network == pb::NetMode::Host as i32 && !rights.entitlements.network_host {
        return Err("network.host is not allowed".into());
    }
    if exec.security == pb::SecurityMode::Insecure as i32 && !rights.entitlements.security_insecure
    {
        return Err("security.insecure is not allowed".into());
    }
    Ok(())
}

/// Leaves in an op the devices that it gets, by their full names: they are part of its key.
fn devices(
    op: &mut pb::Op,
    rights: &BuildRights,
    known: Option<&Devices>,
    name: &str,
) -> Result<(), String> {
    let Some(pb::op::Op::Exec(exec)) = &mut op.op else {
        return Ok(());
    };
    if exec.cdi_devices.is_empty() {
        return Ok(());
    }
    let Some(known) = known else {
        if let Some(device) = exec.cdi_devices.iter().find(|d| !d.optional) {
            let device = &device.name;
            return Err(format!(
                "CDI device {device:?} is required by step {name:?}, but CDI device support is disabled"
            ));
        }
        exec.cdi_devices.clear();
        return Ok(());
    };
    let asked: Vec<DeviceRequest> = exec
        .cdi_devices
        .iter()
        .map(|device| DeviceRequest {
            name: device.name.clone(),
            optional: device.optional,
        })
        .collect();
    let allowed = known.allowed(&asked, &rights.entitlements);
    exec.cdi_devices = allowed
        .map_err(|error| error.to_string())?
        .into_iter()
        .map(|device| pb::CdiDevice {
            name: device.name,
            optional: device.optional,
        })
        .collect();
    Ok(())
}
