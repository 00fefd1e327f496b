//! From an output to a definition.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use oci::{Digest, Platform};
use prost::Message;

use super::BuildError;
use super::vertex::{Index, Inner, Kind, Marshalled, Output, SourceMap, Vertex};
use crate::definition::{MAX_BYTES, merge_metadata};
use crate::pb;

/// What a definition assumes where its ops say nothing.
#[derive(Debug, Clone)]
pub struct MarshalOptions {
    /// Platform of ops without one.
    pub platform: Platform,
    /// The daemon fills in `PATH`: then ops say so by a capability and leave it out.
    pub sets_default_path: bool,
    /// Makes local sources without a session unique.
    pub local_unique_id: String,
}

impl Default for MarshalOptions {
    fn default() -> Self {
        Self {
            platform: Platform::host().normalize(),
            sets_default_path: true,
            local_unique_id: String::new(),
        }
    }
}

/// Writes the definition of `output`; an empty definition for scratch.
pub fn marshal(
    output: Option<&Output>,
    options: &MarshalOptions,
) -> Result<pb::Definition, BuildError> {
    let mut marshaller = Marshaller {
        options,
        digest_of_vertex: HashMap::new(),
        digests: HashSet::new(),
        bytes: 0,
        definition: pb::Definition::default(),
        sources: Sources::default(),
    };
    let Some(output) = output else {
        return Ok(marshaller.definition);
    };
    let Some(output) = resolve(output)? else {
        return Ok(marshaller.definition);
    };
    let Inner::Vertex { vertex, .. } = &output.0 else {
        return Err(BuildError::Unset);
    };
    marshaller.walk(vertex)?;
    let terminal = pb::Op {
        inputs: vec![marshaller.input(output)?.expect("a vertex output")],
        ..pb::Op::default()
    };
    let raw = terminal.encode_to_vec();
    let digest = Digest::sha256(&raw);
    marshaller.definition.def.push(raw);
    marshaller.finish(&digest);
    Ok(marshaller.definition)
}

/// Follows late outputs to the decided one.
pub(crate) fn resolve(output: &Output) -> Result<Option<&Output>, BuildError> {
    let mut at = output;
    loop {
        match &at.0 {
            Inner::Vertex { .. } => return Ok(Some(at)),
            Inner::Late(late) => match late.get() {
                Some(Some(next)) => at = next,
                Some(None) => return Ok(None),
                None => return Err(BuildError::Unset),
            },
        }
    }
}

pub(crate) struct Marshaller<'a> {
    pub(crate) options: &'a MarshalOptions,
    digest_of_vertex: HashMap<*const Vertex, Digest>,
    digests: HashSet<Digest>,
    /// Of the ops until now.
    bytes: usize,
    definition: pb::Definition,
    sources: Sources,
}

impl Marshaller<'_> {
    fn walk(&mut self, root: &Arc<Vertex>) -> Result<(), BuildError> {
        let mut stack: Vec<(&Vertex, Vec<&Output>, usize)> = vec![(root, root.inputs(), 0)];
        while let Some((vertex, inputs, next)) = stack.pop() {
            if let Some(&input) = inputs.get(next) {
                stack.push((vertex, inputs, next + 1));
                if let Some(Output(Inner::Vertex { vertex, .. })) = resolve(input)?
                    && !self.digest_of_vertex.contains_key(&Arc::as_ptr(vertex))
                {
                    stack.push((vertex, vertex.inputs(), 0));
                }
                continue;
            }
            if self
                .digest_of_vertex
                .contains_key(&std::ptr::from_ref(vertex))
            {
                continue;
            }
            let Marshalled {
                digest,
                raw,
                metadata,
            } = match &vertex.kind {
                Kind::Source(op) => op.marshal(self, &vertex.constraints),
                Kind::Exec(op) => op.marshal(self, &vertex.constraints)?,
                Kind::File(op) => op.marshal(self, &vertex.constraints)?,
                Kind::Merge(op) => op.marshal(self, &vertex.constraints)?,
                Kind::Diff(op) => op.marshal(self, &vertex.constraints)?,
                Kind::Encoded(op) => op.marshal(&vertex.constraints),
            };
            self.digest_of_vertex
                .insert(std::ptr::from_ref(vertex), digest.clone());
            merge_metadata(
                self.definition
                    .metadata
                    .entry(digest.to_string())
                    .or_default(),
                &metadata,
            );
            self.sources.add(&digest, &vertex.constraints.locations);
            if self.digests.insert(digest) {
                self.bytes += raw.len();
                if self.bytes > MAX_BYTES {
                    return Err(BuildError::TooLarge);
                }
                self.definition.def.push(raw.to_vec());
            }
        }
        Ok(())
    }

    /// The wire form of an input whose vertex was marshalled; none for scratch.
    pub(crate) fn input(&self, output: &Output) -> Result<Option<pb::Input>, BuildError> {
        let Some(Output(Inner::Vertex { vertex, index, .. })) = resolve(output)? else {
            return Ok(None);
        };
        let index = match index {
            Index::At(index) => *index,
            Index::Unusable(target) => {
                return Err(BuildError::NoOutput {
                    target: target.to_string(),
                });
            }
        };
        let digest = self
            .digest_of_vertex
            .get(&Arc::as_ptr(vertex))
            .expect("inputs are marshalled before their users");
        Ok(Some(pb::Input {
            digest: digest.to_string(),
            index,
        }))
    }

    fn finish(&mut self, terminal: &Digest) {
        let mut caps: BTreeMap<String, bool> = BTreeMap::new();
        for cap in ["constraints", "platform"] {
            caps.insert(cap.into(), true);
        }
        for metadata in self.definition.metadata.values() {
            if metadata.ignore_cache {
                caps.insert("meta.ignorecache".into(), true);
            }
            if !metadata.description.is_empty() {
                caps.insert("meta.description".into(), true);
            }
            if metadata.export_cache.is_some() {
                caps.insert("meta.exportcache".into(), true);
            }
        }
        let entry = self
            .definition
            .metadata
            .entry(terminal.to_string())
            .or_default();
        entry.caps.extend(caps);
        self.definition.source = Some(std::mem::take(&mut self.sources).finish());
    }
}

/// Collects the places of vertices in source files, each file once.
#[derive(Default)]
struct Sources {
    maps: Vec<Arc<SourceMap>>,
    locations: BTreeMap<String, pb::Locations>,
}

impl Sources {
    fn add(&mut self, vertex: &Digest, locations: &[(Arc<SourceMap>, Vec<pb::Range>)]) {
        let entry = self.locations.entry(vertex.to_string()).or_default();
        for (map, ranges) in locations {
            let existing = self
                .maps
                .iter()
                .position(|have| Arc::ptr_eq(have, map) || same_file(have, map));
            let index = existing.unwrap_or_else(|| {
                self.maps.push(Arc::clone(map));
                self.maps.len() - 1
            });
            entry.locations.push(pb::Location {
                source_index: i32::try_from(index).unwrap_or(i32::MAX),
                ranges: ranges.clone(),
            });
        }
    }

    fn finish(self) -> pb::Source {
        pb::Source {
            locations: self.locations,
            infos: self.maps.iter().map(|map| map.to_info()).collect(),
        }
    }
}

fn same_file(a: &SourceMap, b: &SourceMap) -> bool {
    let last = |map: &SourceMap| {
        map.definition
            .as_ref()
            .and_then(|definition| definition.def.last().cloned())
    };
    a.filename == b.filename
        && a.language == b.language
        && a.data == b.data
        && (a.definition.is_none() || b.definition.is_none() || last(a) == last(b))
}
