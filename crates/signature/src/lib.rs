//! Signatures of git objects and of files, checked against public keys that the user names. Nothing is ever signed here.
//!
//! ```text
//!   git object ─► git: signed bytes, signature ─┬─► openpgp: armor ─► packets ─► keys, self-signatures ─┐
//!   file and detached signature ────────────────┘                                                       ├─► material: RSA, ECDSA, Ed25519
//!                                               └─► ssh: SSHSIG and a line of authorized_keys ──────────┘
//! ```
//!
//! Signature and keys may come from strangers: both have a bound in bytes and packets, nothing is decompressed, nothing recurses,
//! and the number of public-key operations is bounded by the number of packets.

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

/// When a key must not have expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryJudgedAt {
    /// When it signed: a release stays good when its key ends.
    Signing,
    /// Now.
    Now,
}

/// What an OpenPGP signature has to satisfy beyond being right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When keys must not have expired.
    pub expiry: ExpiryJudgedAt,
    /// The time, in seconds since 1970.
    pub now: u64,
}
