//! Build graphs: vertices and edges.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use oci::Digest;

use crate::domain::Domain;

/// A node of a build graph: one op and its inputs.
pub struct Vertex<D: Domain> {
    /// Digest of the op's bytes as received, which name its inputs' digests: the whole definition up to here.
    pub digest: Digest,
    /// Name for people.
    pub name: String,
    /// Inputs in the op's order.
    pub inputs: Vec<Edge<D>>,
    /// Options that do not change the definition.
    pub options: VertexOptions,
    /// Data from which the resolver makes the op.
    pub sys: Arc<D::System>,
}

/// One output of a vertex.
pub struct Edge<D: Domain> {
    /// The vertex whose output it is.
    pub vertex: Arc<Vertex<D>>,
    /// Index of the output.
    pub index: usize,
}

/// Options that a client gives a vertex beside its definition.
#[derive(Debug, Clone, Default)]
pub struct VertexOptions {
    /// Whether it runs even if a result is stored.
    pub ignore_cache: bool,
    /// Whether its results may be exported as cache records; none means yes.
    pub export_cache: Option<bool>,
    /// Texts for people and tools; the solver does not read them.
    pub description: BTreeMap<String, String>,
    /// The group in which progress shows it.
    pub progress_group: Option<ProgressGroup>,
}

/// Vertices that progress shows as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Id of the group.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Whether a vertex may also be shown outside the group.
    pub weak: bool,
}

impl<D: Domain> Drop for Vertex<D> {
    /// Drops the inputs one after the other: dropping a chain of many thousands by recursion would overflow the stack.
    fn drop(&mut self) {
        let mut inputs = std::mem::take(&mut self.inputs);
        while let Some(edge) = inputs.pop() {
            if let Some(mut last) = Arc::into_inner(edge.vertex) {
                inputs.append(&mut last.inputs);
            }
        }
    }
}

impl<D: Domain> Vertex<D> {
    /// Makes a vertex without inputs and options.
    pub fn new(digest: Digest, name: impl Into<String>, sys: Arc<D::System>) -> Self {
        Self {
            digest,
            name: name.into(),
            inputs: Vec::new(),
            options: VertexOptions::default(),
            sys,
        }
    }

    /// Returns every vertex reachable from this one, each once by digest; inputs come before the vertices that use them.
    pub fn closure(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut visited = HashSet::new();
        let mut out = Vec::new();
        // Depth first without recursion: definitions come from clients and may be deep.
        let mut stack = vec![(Arc::clone(self), 0)];
        visited.insert(self.digest.clone());
        while let Some((vertex, next)) = stack.pop() {
            if let Some(input) = vertex.inputs.get(next) {
                let input = Arc::clone(&input.vertex);
                stack.push((vertex, next + 1));
                if visited.insert(input.digest.clone()) {
                    stack.push((input, 0));
                }
            } else {
                out.push(vertex);
            }
        }
        out
    }
}

impl<D: Domain> Clone for Vertex<D> {
    fn clone(&self) -> Self {
        Self {
            digest: self.digest.clone(),
            name: self.name.clone(),
            inputs: self.inputs.clone(),
            options: self.options.clone(),
            sys: Arc::clone(&self.sys),
        }
    }
}

impl<D: Domain> Clone for Edge<D> {
    fn clone(&self) -> Self {
        Self {
            vertex: Arc::clone(&self.vertex),
            index: self.index,
        }
    }
}

impl<D: Domain> fmt::Debug for Vertex<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vertex")
            .field("digest", &self.digest)
            .field("name", &self.name)
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}

impl<D: Domain> fmt::Debug for Edge<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.vertex.digest, self.index)
    }
}
