//! Signatures of git objects and of files, checked against public keys that the user names. Nothing is ever signed here.
//!
//! ```text
//!   git object ─► git: signed bytes, signature ─┬─► openpgp: armor ─► packets ─► keys, self-signatures ─┐
//!   file and detached signature ────────────────┘                                                       ├─► material: RSA, ECDSA, Ed25519
//!                                               └─► ssh: SSHSIG and a line of authorized_keys ──────────┘
//! ```
//!
//! Signatures and keys are hostile input: both are bounded in bytes and packets, nothing is decompressed, nothing recurses, and
//! there are at most as many public-key operations as packets.

mod armor;
mod cursor;
mod error;
pub mod git;
mod material;
pub mod openpgp;
pub mod ssh;

pub use armor::{ArmorError, MAX_BYTES};
pub use error::SignatureError;
pub use material::VerifyError;

/// The time at which a key must not have expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryJudgedAt {
    /// The time of the signature: a release stays valid when its key expires.
    Signing,
    /// The time of the check.
    Now,
}

/// Conditions on an OpenPGP signature besides that a key made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The time at which keys must not have expired.
    pub expiry: ExpiryJudgedAt,
    /// The time of the check, in seconds since 1970.
    pub now: u64,
}
