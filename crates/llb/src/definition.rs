//! Bytes from a client → a checked graph.
//!
//! A vertex is named by the digest of its op's bytes **as received**; nothing here re-encodes. An input names its
//! vertex by that digest, so a cycle would need a hash collision; it is refused all the same, and nothing recurses.
//!
//! The last op of a definition is the terminal: it only points at the wanted output.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use oci::{Digest, ErrorKind};
use prost::Message;
use proto::weigh::{Refused, Shaped as _, weigh};

use crate::pb;
use crate::validate::{self, InvalidOp};

/// Most ops in one definition.
pub const MAX_OPS: usize = 1 << 20;
/// Depth limit of definitions of source files within definitions of source files.
const MAX_NESTED: usize = 32;
/// Most bytes of ops in one definition.
pub const MAX_BYTES: usize = 256 << 20;

/// Why a definition is not acceptable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// The definition has no ops.
    #[error("invalid empty definition")]
    Empty,
    /// The definition has more ops or bytes than [`MAX_OPS`] or [`MAX_BYTES`].
    #[error(
        "invalid definition with {ops} vertexes and {bytes} bytes: at most {MAX_OPS} and {MAX_BYTES} are accepted"
    )]
    TooLarge {
        /// Number of ops.
        ops: usize,
        /// Size of all ops in bytes.
        bytes: usize,
    },
    /// An op's bytes do not decode, or decode to more than the memory limit.
    #[error("failed to parse llb proto op: {source}")]
    Parse {
        /// The decoder's reason.
        source: Refused,
    },
    /// The decoded ops would take more memory than [`room_for`] their bytes.
    #[error("invalid definition: its ops have too many small parts")]
    TooHeavy,
    /// Fewer than one op and the terminal.
    #[error("invalid LLB with {count} vertexes")]
    TooFew {
        /// Number of ops.
        count: usize,
    },
    /// The terminal points at nothing.
    #[error("invalid LLB with no inputs on last vertex")]
    NoRoot,
    /// An input refers to a vertex that is not in the definition.
    #[error("invalid missing input digest {digest}")]
    MissingInput {
        /// Digest in the input.
        digest: String,
    },
    /// A negative output.
    #[error("invalid input {input} output index {index}")]
    OutputIndex {
        /// Index of the input.
        input: usize,
        /// Index of the output.
        index: i64,
    },
    /// A vertex that depends on itself.
    #[error("invalid LLB: vertex {digest} depends on itself")]
    Cycle {
        /// Digest of the vertex.
        digest: Digest,
    },
    /// A location refers to a source file that the definition does not have.
    #[error("invalid source index {index} for vertex {vertex}")]
    SourceIndex {
        /// Index of the source file.
        index: i32,
        /// Digest of the vertex that the location is for.
        vertex: String,
    },
    /// An op that breaks a structural rule.
    #[error("{source}")]
    Op {
        /// Digest of the vertex.
        vertex: Digest,
        /// The broken rule.
        source: InvalidOp,
    },
}

impl DefinitionError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty
            | Self::TooFew { .. }
            | Self::NoRoot
            | Self::MissingInput { .. }
            | Self::OutputIndex { .. }
            | Self::SourceIndex { .. } => ErrorKind::Invalid,
            Self::TooLarge { .. } | Self::TooHeavy | Self::Cycle { .. } | Self::Parse { .. } => {
                ErrorKind::Hostile
            }
            Self::Op { source, .. } => source.kind(),
        }
    }
}

/// An input edge: a node and the index of one of its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Input {
    /// Index of the node in [`Graph::nodes`].
    pub node: usize,
    /// Index of the output.
    pub output: usize,
}

/// One vertex.
#[derive(Debug, Clone)]
pub struct Node {
    /// Digest of `raw`.
    pub digest: Digest,
    /// The op as received.
    pub raw: Bytes,
    /// The op decoded.
    pub op: Arc<pb::Op>,
    /// Metadata of the vertex in the definition; the default where it has none.
    pub metadata: pb::OpMetadata,
    /// Inputs in order.
    pub inputs: Vec<Input>,
    /// Name of the vertex for people: the custom name, or one made from the op.
    pub name: String,
    /// Places of the vertex in source files.
    pub locations: Vec<pb::Location>,
}

impl Node {
    /// The name made from the op or given by the client under `llb.customname`.
    pub fn display_name(&self) -> &str {
        &self.name
    }
}

/// A checked definition: every node reachable from the root, inputs before their users.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The nodes, inputs before users.
    pub nodes: Vec<Node>,
    /// The output that the terminal points at.
    pub root: Input,
    /// The source files that locations point into.
    pub sources: Vec<pb::SourceInfo>,
}

impl Graph {
    /// Decodes and checks a definition.
    pub fn load(definition: &pb::Definition) -> Result<Self, DefinitionError> {
        let count = definition.def.len();
        if count == 0 {
            return Err(DefinitionError::Empty);
        }
        let bytes = definition.def.iter().map(|op| op.len()).sum();
        if count > MAX_OPS || bytes > MAX_BYTES {
            return Err(DefinitionError::TooLarge { ops: count, bytes });
        }
        check_locations(definition.source.as_ref())?;

        let mut raws: Vec<(Digest, Bytes, Arc<pb::Op>)> = Vec::with_capacity(count);
        let mut by_digest: HashMap<Digest, usize> = HashMap::with_capacity(count);
        let mut last = 0;
        let mut room = room_for(bytes);
        for raw in &definition.def {
            let raw = Bytes::from(raw.clone());
            let op = decode_op(&raw, &mut room)?;
            for (input, edge) in op.inputs.iter().enumerate() {
                if edge.index < 0 {
                    return Err(DefinitionError::OutputIndex {
                        input,
                        index: edge.index,
                    });
                }
            }
            let digest = Digest::sha256(&raw);
            last = *by_digest.entry(digest.clone()).or_insert_with(|| {
                raws.push((digest, raw, Arc::new(op)));
                raws.len() - 1
            });
        }
        for (_, _, op) in &raws {
            if let Some(edge) = op
                .inputs
                .iter()
                .find(|edge| !by_digest.contains_key(edge.digest.as_str()))
            {
                return Err(DefinitionError::MissingInput {
                    digest: edge.digest.clone(),
                });
            }
        }
        if raws.len() < 2 {
            return Err(DefinitionError::TooFew { count: raws.len() });
        }
        let terminal = Arc::clone(&raws[last].2);
        let root_input = terminal.inputs.first().ok_or(DefinitionError::NoRoot)?;
        let find = |digest: &str| {
            by_digest
                .get(digest)
                .copied()
                .ok_or_else(|| DefinitionError::MissingInput {
                    digest: digest.to_owned(),
                })
        };
        let root = find(&root_input.digest)?;
        if root == last {
            return Err(DefinitionError::Cycle {
                digest: raws[last].0.clone(),
            });
        }

        // Depth first with our own stack; `place` is where a finished node went.
        let mut nodes: Vec<Node> = Vec::with_capacity(raws.len());
        let mut place: Vec<Option<usize>> = vec![None; raws.len()];
        let mut open = vec![false; raws.len()];
        let mut stack = vec![(root, 0_usize)];
        open[root] = true;
        while let Some((at, next)) = stack.pop() {
            let (digest, raw, op) = &raws[at];
            if let Some(edge) = op.inputs.get(next) {
                stack.push((at, next + 1));
                let input = find(&edge.digest)?;
                if place[input].is_none() {
                    if open[input] {
                        return Err(DefinitionError::Cycle {
                            digest: raws[input].0.clone(),
                        });
                    }
                    open[input] = true;
                    stack.push((input, 0));
                }
                continue;
            }
            validate::op(op).map_err(|source| DefinitionError::Op {
                vertex: digest.clone(),
                source,
            })?;
            let mut inputs = Vec::with_capacity(op.inputs.len());
            for edge in &op.inputs {
                let node = find(&edge.digest)?;
                inputs.push(Input {
                    node: place[node].expect("inputs are finished before their users"),
                    output: usize::try_from(edge.index).unwrap_or(usize::MAX),
                });
            }
            let metadata = definition
                .metadata
                .get(digest.as_str())
                .cloned()
                .unwrap_or_default();
            let name = metadata
                .description
                .get("llb.customname")
                .cloned()
                .unwrap_or_else(|| op_name(op, &inputs, &nodes));
            let name = oci::address::redacted(name);
            let locations = definition
                .source
                .as_ref()
                .and_then(|source| source.locations.get(digest.as_str()))
                .map(|locations| locations.locations.clone())
                .unwrap_or_default();
            place[at] = Some(nodes.len());
            nodes.push(Node {
                digest: digest.clone(),
                raw: raw.clone(),
                op: Arc::clone(op),
                metadata,
                inputs,
                name,
                locations,
            });
        }
        let root = Input {
            node: place[root].expect("the root was visited"),
            output: usize::try_from(root_input.index).unwrap_or(usize::MAX),
        };
        let sources = definition
            .source
            .as_ref()
            .map(|source| source.infos.clone())
            .unwrap_or_default();
        Ok(Self {
            nodes,
            root,
            sources,
        })
    }

    /// The node that the terminal points at.
    pub fn root_node(&self) -> &Node {
        &self.nodes[self.root.node]
    }

    /// The source places of a node, each with the file it is in.
    pub fn locations_of<'a>(
        &'a self,
        node: &'a Node,
    ) -> impl Iterator<Item = (&'a pb::SourceInfo, &'a [pb::Range])> + 'a {
        node.locations.iter().filter_map(|location| {
            let info = self
                .sources
                .get(usize::try_from(location.source_index).ok()?)?;
            Some((info, location.ranges.as_slice()))
        })
    }
}

/// What the ops of a definition of so many bytes may take in memory. Ops have many fields, so small ones grow more than messages do.
fn room_for(bytes: usize) -> usize {
    (64 << 20) + bytes.saturating_mul(8)
}

fn decode_op(raw: &[u8], room: &mut usize) -> Result<pb::Op, DefinitionError> {
    let weight = weigh(pb::Op::SHAPE, raw, *room).ok_or(DefinitionError::TooHeavy)?;
    *room -= weight.min(*room);
    pb::Op::decode(raw).map_err(|error| DefinitionError::Parse {
        source: error.into(),
    })
}

/// Decodes the ops of a definition without checks, within the memory limit.
pub fn ops(definition: &pb::Definition) -> Result<Vec<pb::Op>, DefinitionError> {
    let mut room = room_for(definition.def.iter().map(Vec::len).sum());
    let ops = definition.def.iter();
    ops.map(|raw| decode_op(raw, &mut room)).collect()
}

/// Decodes a definition, within the memory limit. [`Graph::load`] checks its contents.
pub fn decode(encoded: &[u8]) -> Result<pb::Definition, Refused> {
    proto::weigh::decode(encoded)
}

/// Decodes a policy, within the memory limit.
pub fn decode_policy(encoded: &[u8]) -> Result<crate::sourcepolicy::Policy, Refused> {
    proto::weigh::decode(encoded)
}

/// Digest of the vertex that a definition's terminal points at; none for an empty definition.
pub fn head(definition: &pb::Definition) -> Option<Digest> {
    let last = definition.def.last()?;
    let op = pb::Op::decode(&last[..]).ok()?;
    Digest::parse(&op.inputs.first()?.digest).ok()
}

/// Writes a definition for clients in Go.
///
/// The values of its maps are written even if they are empty. The generated code leaves them out, whereupon clients find the key with
/// no value and refuse the definition (`invalid nil source locations`).
pub fn to_wire(definition: &pb::Definition) -> Vec<u8> {
    to_wire_in(definition, MAX_NESTED)
}

/// `nested` is the depth of definitions of files within definitions of files.
fn to_wire_in(definition: &pb::Definition, nested: usize) -> Vec<u8> {
    use prost::encoding::{bytes, message};
    let mut out = Vec::with_capacity(definition.encoded_len() + 2 * definition.metadata.len());
    bytes::encode_repeated(1, &definition.def, &mut out);
    for (digest, metadata) in &definition.metadata {
        map_entry(2, digest, metadata, &mut out);
    }
    if let Some(source) = &definition.source {
        let mut places = Vec::with_capacity(source.encoded_len() + 2 * source.locations.len());
        for (digest, locations) in &source.locations {
            map_entry(1, digest, locations, &mut places);
        }
        for info in &source.infos {
            // A definition in here is that of the file itself, written in the same way.
            let own = info.definition.as_ref().filter(|_| nested > 0);
            let own = own.map(|own| to_wire_in(own, nested - 1));
            let mut written = pb::SourceInfo {
                definition: None,
                ..info.clone()
            }
            .encode_to_vec();
            if let Some(own) = own {
                bytes::encode(3, &own, &mut written);
            }
            bytes::encode(2, &written, &mut places);
        }
        bytes::encode(3, &places, &mut out);
    }
    return out;

    fn map_entry(field: u32, key: &String, value: &impl Message, out: &mut Vec<u8>) {
        let mut entry = Vec::new();
        prost::encoding::string::encode(1, key, &mut entry);
        message::encode(2, value, &mut entry);
        bytes::encode(field, &entry, out);
    }
}

fn check_locations(source: Option<&pb::Source>) -> Result<(), DefinitionError> {
    let Some(source) = source else { return Ok(()) };
    for (vertex, locations) in &source.locations {
        for location in &locations.locations {
            let index = location.source_index;
            if usize::try_from(index).map_or(true, |at| at >= source.infos.len()) {
                return Err(DefinitionError::SourceIndex {
                    index,
                    vertex: vertex.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Size limit of a name that is joined from other names, in bytes.
const MAX_JOINED_NAME: usize = 1 << 10;

/// Cuts a name that is made of names, which would double with each merge of merges.
fn short(mut name: String) -> String {
    if name.len() > MAX_JOINED_NAME {
        name.truncate(name.floor_char_boundary(MAX_JOINED_NAME));
        name.push('…');
    }
    name
}

/// The name of a vertex without a custom name.
fn op_name(op: &pb::Op, inputs: &[Input], nodes: &[Node]) -> String {
    let input_name = |at: i64| -> String {
        if at == validate::EMPTY {
            return "scratch".into();
        }
        let node = usize::try_from(at)
            .ok()
            .and_then(|at| inputs.get(at))
            .and_then(|input| nodes.get(input.node));
        format!("({})", node.map_or("", |node| node.name.as_str()))
    };
    match &op.op {
        Some(pb::op::Op::Source(source)) => source.identifier.clone(),
        Some(pb::op::Op::Exec(exec)) => exec
            .meta
            .as_ref()
            .map(|meta| meta.args.join(" "))
            .unwrap_or_default(),
        Some(pb::op::Op::File(file)) => file
            .actions
            .iter()
            .filter_map(action_name)
            .collect::<Vec<_>>()
            .join(", "),
        Some(pb::op::Op::Build(_)) => "build".into(),
        Some(pb::op::Op::Merge(_)) => {
            let names: Vec<&str> = inputs
                .iter()
                .take(MAX_JOINED_NAME)
                .filter_map(|input| nodes.get(input.node))
                .map(|node| node.name.as_str())
                .collect();
            short(format!("merge ({})", names.join(", ")))
        }
        Some(pb::op::Op::Diff(diff)) => {
            let lower = diff
                .lower
                .as_ref()
                .map_or(validate::EMPTY, |side| side.input);
            let upper = diff
                .upper
                .as_ref()
                .map_or(validate::EMPTY, |side| side.input);
            short(format!(
                "diff {} -> {}",
                input_name(lower),
                input_name(upper)
            ))
        }
        Some(pb::op::Op::Passthrough(passthrough)) => format!("passthrough {}", passthrough.id),
        None => "unknown".into(),
    }
}

fn action_name(action: &pb::FileAction) -> Option<String> {
    use pb::file_action::Action;
    Some(match action.action.as_ref()? {
        Action::Mkdir(a) => format!("mkdir {}", a.path),
        Action::Mkfile(a) => format!("mkfile {}", a.path),
        Action::Symlink(a) => format!("symlink {} -> {}", a.newpath, a.oldpath),
        Action::Rm(a) => format!("rm {}", a.path),
        Action::Copy(a) => format!("copy {} {}", a.src, a.dest),
    })
}

/// Joins the metadata of one vertex from several places, the later winning.
pub fn merge_metadata(into: &mut pb::OpMetadata, from: &pb::OpMetadata) {
    into.ignore_cache |= from.ignore_cache;
    into.description
        .extend(from.description.iter().map(|(k, v)| (k.clone(), v.clone())));
    if from.export_cache.is_some() {
        into.export_cache = from.export_cache;
    }
    let caps: BTreeMap<String, bool> = from.caps.keys().map(|k| (k.clone(), true)).collect();
    into.caps.extend(caps);
    if from.progress_group.is_some() {
        into.progress_group = from.progress_group.clone();
    }
    if from.linux_resources.is_some() {
        into.linux_resources = from.linux_resources.clone();
    }
}
