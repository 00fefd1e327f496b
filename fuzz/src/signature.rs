//! Signatures and the keys that they are checked with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signature::git::{GitObject, ObjectKind};
use signature::{ExpiryJudgedAt, Policy, openpgp, ssh};

const POLICY: Policy = Policy {
    expiry: ExpiryJudgedAt::Now,
    now: 1_748_779_200,
};

/// What the signatures of the corpus are over.
const MESSAGE: &[u8] = b"What is signed.\nOn two lines, the second without an end.";

/// The first byte says what the others are: OpenPGP packets, SSH's bytes, a commit, a tag, or text. Packets come as the length of the
/// signature in two bytes, the signature and the ring, and are armored here, so that a mutation need not get base64 and sums right.
pub(crate) fn check(input: &[u8]) {
    match input {
        [0, rest @ ..] => {
            if let Some((signature, ring)) = two(rest) {
                let signature = armored("PGP SIGNATURE", signature);
                let ring = armored("PGP PUBLIC KEY BLOCK", ring);
                let mut signed = MESSAGE;
                let _refused = openpgp::verify_detached(&mut signed, &signature, &ring, &POLICY);
            }
        }
        [1, rest @ ..] => {
            if let Some((signature, key)) = two(rest) {
                let signature = armored("SSH SIGNATURE", signature);
                let _refused = ssh::verify(MESSAGE, &signature, key);
            }
        }
        [2, rest @ ..] => object(ObjectKind::Commit, rest),
        [3, rest @ ..] => object(ObjectKind::Tag, rest),
        [_, rest @ ..] => {
            if let Some((signature, keys)) = two(rest) {
                let mut signed = MESSAGE;
                let _refused = openpgp::verify_detached(&mut signed, signature, keys, &POLICY);
                let _refused = ssh::verify(MESSAGE, signature, keys);
            }
        }
        [] => {}
    }
}

fn two(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn armored(label: &str, bytes: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(bytes);
    format!("-----BEGIN {label}-----\n\n{text}\n-----END {label}-----\n").into_bytes()
}

/// An object is only checked under its own id, which the error tells.
fn object(kind: ObjectKind, content: &[u8]) {
    for zeros in [40, 64] {
        let Err(error) = GitObject::parse(kind, content, &"0".repeat(zeros)) else {
            continue;
        };
        let signature::git::ObjectError::Id { actual, .. } = error else {
            continue;
        };
        let object = GitObject::parse(kind, content, &actual).expect("the id is its own");
        assert!(object.signed().len() <= content.len());
        let _refused = object.verify(b"", &POLICY);
    }
}
