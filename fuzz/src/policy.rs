//! Source policies: a policy and a source, and what the one says of the other.

use llb::pb;
use prost::Message as _;

/// Two bytes of length, the policy, the source.
pub(crate) fn policy(input: &[u8]) {
    let Some((length, rest)) = input.split_first_chunk::<2>() else {
        return;
    };
    let (policy, source) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let Ok(mut source) = pb::SourceOp::decode(source) else {
        return;
    };
    let _refused = engine::apply_encoded_policy(policy, &mut source);
}
