//! Encoded vertices of a definition that a client hands to a frontend as an input.

use std::sync::Arc;

use bytes::Bytes;
use oci::Digest;

use super::BuildError;
use super::state::State;
use super::vertex::{Constraints, Kind, Marshalled, Output, SourceMap, Vertex, platform_from_pb};
use crate::definition::Graph;
use crate::pb;

#[derive(Debug)]
pub(crate) struct EncodedOp {
    digest: Digest,
    raw: Bytes,
    pub(crate) inputs: Vec<Output>,
}

impl EncodedOp {
    pub(crate) fn marshal(&self, constraints: &Constraints) -> Marshalled {
        Marshalled {
            digest: self.digest.clone(),
            raw: self.raw.clone(),
            metadata: constraints.metadata.clone(),
        }
    }
}

/// The state of a definition's terminal op; scratch for a definition without ops.
pub fn state_from_definition(definition: &pb::Definition) -> Result<State, BuildError> {
    if definition.def.is_empty() {
        return Ok(State::scratch());
    }
    let graph = Graph::load(definition).map_err(|error| BuildError::Definition(Arc::new(error)))?;
    let maps: Vec<Arc<SourceMap>> = graph
        .sources
        .iter()
        .map(|info| {
            Arc::new(SourceMap {
                filename: info.filename.clone(),
                language: info.language.clone(),
                data: Bytes::from(info.data.to_vec()),
                definition: info.definition.clone().map(Arc::new),
            })
        })
        .collect();
    let mut vertices: Vec<(Arc<Vertex>, Option<oci::Platform>)> =
        Vec::with_capacity(graph.nodes.len());
    let output = |vertices: &[(Arc<Vertex>, Option<oci::Platform>)],
                  input: crate::definition::Input| {
        let (vertex, platform) = &vertices[input.node];
        Output::new(
            Arc::clone(vertex),
            i64::try_from(input.output).unwrap_or(i64::MAX),
            platform.clone(),
        )
    };
    for node in &graph.nodes {
        let inputs = node
            .inputs
            .iter()
            .map(|&input| output(&vertices, input))
            .collect();
        let locations = node
            .locations
            .iter()
            .filter_map(|location| {
                let map = maps.get(usize::try_from(location.source_index).ok()?)?;
                Some((Arc::clone(map), location.ranges.clone()))
            })
            .collect();
        let constraints = Constraints {
            metadata: node.metadata.clone(),
            locations,
            ..Constraints::default()
        };
        let op = EncodedOp {
            digest: node.digest.clone(),
            raw: node.raw.clone(),
            inputs,
        };
        let platform = node.op.platform.as_ref().map(platform_from_pb);
        vertices.push((Vertex::new(Kind::Encoded(op), constraints), platform));
    }
    Ok(State::new(Some(output(&vertices, graph.root))))
}
