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
use prost::Message as _;
use solver::{Edge, ProgressGroup, Vertex, VertexOptions};

use crate::api::Failure;
use crate::failure::Place;

/// A loaded definition.
pub(crate) struct Loaded {
    /// What is wanted.
    pub(crate) edge: Edge<BuildDomain>,
    /// Where vertices stand in the user's files.
    pub(crate) places: HashMap<Digest, Vec<Place>>,
    /// Cache mounts of steps that ignore the cache, by id, each with whether it has a ref as its base: they start empty.
    pub(crate) reset_cache_mounts: HashMap<String, bool>,
}

/// Why a definition cannot be loaded.
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
    /// On the proxy network a step has the sandbox's network, the host's or none.
    #[error("failed to load LLB: network mode {0} is not allowed when proxy network is enabled")]
    NetworkMode(i32),
    #[error("failed to load LLB: {0}")]
    Devices(#[from] DeviceError),
}

impl LoadError {
    /// What kind of error it is.
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Definition(_)
            | Self::UnknownCapability(_)
            | Self::SecurityMode(_)
            | Self::NetworkMode(_) => ErrorKind::Invalid,
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

/// Loads a definition for a build with `rights`, nested in `nesting` other builds; `proxy_network` says whether its steps are on the proxy
/// network.
pub(crate) fn load(
    definition: &pb::Definition,
    rights: &BuildRights,
    nesting: usize,
    devices: Option<&Devices>,
    proxy_network: bool,
) -> Result<Loaded, LoadError> {
    let graph = Graph::load(definition)?;
    let mut vertices: Vec<Arc<Vertex<BuildDomain>>> = Vec::with_capacity(graph.nodes.len());
    let mut places = HashMap::new();
    let mut reset_cache_mounts = HashMap::new();
    let mut renamed = Renamed::default();
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
        let proxied = proxy_network && is_proxied(&op)?;
        let digest = renamed.digest(node, proxied);
        self::devices(&mut op, rights, devices, &node.name)?;
        let at: Vec<Place> = graph
            .locations_of(node)
            .map(|(info, ranges)| (info.clone(), ranges.to_vec()))
            .collect();
        if !at.is_empty() {
            places.insert(digest.clone(), at);
        }
        let metadata = &node.metadata;
        if metadata.ignore_cache {
            reset_cache_mounts.extend(cache_mounts(&op));
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
            digest,
            name: node.display_name().to_owned(),
            inputs,
            options,
            sys: Arc::new(OpSys {
                op: Arc::new(op),
                metadata: metadata.clone(),
                rights: rights.clone(),
                nesting,
                proxied,
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
        reset_cache_mounts,
    })
}

/// New digests of vertices whose digest is not that of their op as received: steps on the proxy network, and their dependents.
///
/// | input | in the digest | why |
/// |---|---|---|
/// | the op as received | yes | as everywhere |
/// | its inputs' digests in the place of those received | where they differ | vertices of one digest have the same inputs |
/// | `\0buildkit.proxy-network.v0` | behind a proxied op | a build without the proxy network does not share the vertex |
///
/// Source of the facts: `solver/llbsolver/vertex.go` `recomputeDigests` (v0.34.2).
#[derive(Debug, Default)]
struct Renamed(HashMap<String, Digest>);

impl Renamed {
    /// Returns the digest of the next vertex; a vertex comes after its inputs.
    fn digest(&mut self, node: &llb::definition::Node, proxied: bool) -> Digest {
        const SUFFIX: &[u8] = b"\0buildkit.proxy-network.v0";
        let stands_on = |input: &pb::Input| self.0.contains_key(&input.digest);
        let changed = node.op.inputs.iter().any(stands_on);
        if !proxied && !changed {
            return node.digest.clone();
        }
        let mut bytes = if changed {
            let mut op = (*node.op).clone();
            for input in &mut op.inputs {
                if let Some(new) = self.0.get(&input.digest) {
                    input.digest = new.to_string();
                }
            }
            op.encode_to_vec()
        } else {
            node.raw.to_vec()
        };
        if proxied {
            bytes.extend_from_slice(SUFFIX);
        }
        let digest = Digest::sha256(bytes);
        self.0.insert(node.digest.to_string(), digest.clone());
        digest
    }
}

/// Whether an op is a step with a network, in a build on the proxy network.
fn is_proxied(op: &pb::Op) -> Result<bool, LoadError> {
    let Some(pb::op::Op::Exec(exec)) = &op.op else {
        return Ok(false);
    };
    match pb::NetMode::try_from(exec.network) {
        Ok(pb::NetMode::Unset | pb::NetMode::Host) => Ok(true),
        Ok(pb::NetMode::None) => Ok(false),
        Err(_) => Err(LoadError::NetworkMode(exec.network)),
    }
}

/// The cache mounts of an op: each id with whether the mount has a ref as its base.
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

/// Removes from an op the devices that the build is not granted, and writes the others with their full names: they are part of its key.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(input: &str, network: i32) -> pb::Op {
        pb::Op {
            inputs: vec![pb::Input {
                digest: input.to_owned(),
                index: 0,
            }],
            op: Some(pb::op::Op::Exec(pb::ExecOp {
                meta: Some(pb::Meta {
                    args: vec!["true".into()],
                    cwd: "/".into(),
                    ..pb::Meta::default()
                }),
                mounts: vec![pb::Mount {
                    dest: "/".into(),
                    ..pb::Mount::default()
                }],
                network,
                ..pb::ExecOp::default()
            })),
            ..pb::Op::default()
        }
    }

    /// A source, a step with this network, a step without network, and the terminal.
    fn definition(network: i32) -> (pb::Definition, Vec<String>) {
        let source = pb::Op {
            op: Some(pb::op::Op::Source(pb::SourceOp {
                identifier: "docker-image://docker.io/library/busybox:latest".into(),
                ..pb::SourceOp::default()
            })),
            ..pb::Op::default()
        };
        let digest = |op: &pb::Op| Digest::sha256(op.encode_to_vec()).to_string();
        let step = exec(&digest(&source), network);
        let offline = exec(&digest(&step), pb::NetMode::None as i32);
        let terminal = pb::Op {
            inputs: vec![pb::Input {
                digest: digest(&offline),
                index: 0,
            }],
            ..pb::Op::default()
        };
        let ops = [source, step, offline];
        let digests = ops.iter().map(digest).collect();
        let def = ops.iter().chain([&terminal]);
        let def = def.map(prost::Message::encode_to_vec).collect();
        let definition = pb::Definition {
            def,
            ..pb::Definition::default()
        };
        (definition, digests)
    }

    /// Digests of the vertices from the last step to the source, each with whether it is proxied.
    fn loaded(network: i32, proxy: bool) -> Result<Vec<(String, bool)>, LoadError> {
        let (definition, _) = definition(network);
        let loaded = load(&definition, &BuildRights::default(), 0, None, proxy)?;
        let mut out = Vec::new();
        let mut next = Some(loaded.edge.vertex);
        while let Some(vertex) = next {
            out.push((vertex.digest.to_string(), vertex.sys.proxied));
            next = vertex.inputs.first().map(|edge| Arc::clone(&edge.vertex));
        }
        Ok(out)
    }

    #[test]
    fn steps_on_the_proxy_network_and_what_stands_on_them_have_digests_of_their_own() {
        let (definition, digests) = definition(0);
        let [source, step, offline] = digests.as_slice() else {
            panic!("{digests:?}");
        };
        let without = loaded(0, false).unwrap();
        let expected = [offline, step, source].map(|digest| (digest.clone(), false));
        assert_eq!(without, expected);

        let suffixed = [
            &definition.def[1],
            b"\0buildkit.proxy-network.v0".as_slice(),
        ]
        .concat();
        let proxied = Digest::sha256(suffixed).to_string();
        let renamed = exec(&proxied, pb::NetMode::None as i32).encode_to_vec();
        assert_eq!(
            loaded(0, true).unwrap(),
            [
                (Digest::sha256(renamed).to_string(), false),
                (proxied, true),
                (source.clone(), false)
            ]
        );
    }

    #[test]
    fn without_a_network_a_step_is_not_proxied_and_an_unknown_network_is_refused() {
        let none = pb::NetMode::None as i32;
        assert_eq!(loaded(none, true).unwrap(), loaded(none, false).unwrap());
        assert!(loaded(7, false).is_ok());
        assert_eq!(
            loaded(7, true).unwrap_err().to_string(),
            "failed to load LLB: network mode 7 is not allowed when proxy network is enabled"
        );
    }
}
