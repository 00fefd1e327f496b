//! Encodes ops as Go's deterministic marshal does.
//!
//! Go writes the fields of a message by number and a `oneof` after them; prost writes the `oneof` at its lowest number.
//! `Op` is the one message with plain fields after its `oneof`, so it is written in two parts.

use bytes::Bytes;
use oci::{Digest, Platform};
use prost::Message;

use super::vertex::{Constraints, Marshalled, platform_to_pb};
use crate::definition::merge_metadata;
use crate::pb;

/// Encodes `op` as Go does.
pub fn op(mut op: pb::Op) -> Bytes {
    let kind = op.op.take();
    let mut out = op.encode_to_vec();
    if let Some(kind) = kind {
        kind.encode(&mut out);
    }
    out.into()
}

/// Finishes a vertex: constraints, encoding, digest, metadata.
pub(crate) fn finish(
    inputs: Vec<pb::Input>,
    kind: pb::op::Op,
    platform: Option<&Platform>,
    constraints: &Constraints,
    caps: &[&str],
) -> Marshalled {
    let raw = op(pb::Op {
        inputs,
        platform: platform.map(platform_to_pb),
        constraints: Some(pb::WorkerConstraints::default()),
        op: Some(kind),
    });
    let mut metadata = pb::OpMetadata::default();
    merge_metadata(&mut metadata, &constraints.metadata);
    metadata
        .caps
        .extend(caps.iter().map(|cap| ((*cap).to_owned(), true)));
    Marshalled {
        digest: Digest::sha256(&raw),
        raw,
        metadata,
    }
}
