//! What is wrong with a key or a signature of OpenPGP. BuildKit's words, where it says the same.

use std::fmt;

use crate::VerifyError;

/// A key's short name: the last eight bytes of its fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

/// Why a key does not confirm a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// None of the keys has the name that the signature tells.
    #[error("openpgp: signature made by unknown entity")]
    UnknownIssuer,
    /// The key has it, and is not for signatures of data.
    #[error("openpgp: signature made by unknown entity: key {key} is not for signing")]
    NotForSigning {
        /// The key.
        key: KeyId,
    },
    /// The signature does not tell who made it.
    #[error("openpgp: invalid data: signature doesn't have an issuer")]
    NoIssuer,
    /// The bytes are no key, or no signature.
    #[error("openpgp: invalid data: {what}")]
    Malformed {
        /// What is wrong with them.
        what: &'static str,
    },
    /// It is of a version that is not read.
    #[error("openpgp: unsupported feature: {what} packet version {version}")]
    Version {
        /// Key or signature.
        what: &'static str,
        /// The version.
        version: u8,
    },
    /// It is of a type that says nothing about data.
    #[error("openpgp: unsupported feature: unsupported signature type: {kind}")]
    Kind {
        /// The type.
        kind: u8,
    },
    /// The hash can be forged, or is not known.
    #[error("rejecting weak/unknown hash: {}", hash_name(*id))]
    Hash {
        /// The hash's number.
        id: u8,
    },
    /// The public-key algorithm is old, or is not known.
    #[error("rejecting unsupported pubkey algorithm: {}", algorithm_name(*id))]
    Algorithm {
        /// The algorithm's number.
        id: u8,
    },
    /// The key is on a curve that is not known.
    #[error("rejecting unsupported pubkey algorithm: curve {}", hex(oid))]
    Curve {
        /// The curve's object identifier.
        oid: Vec<u8>,
    },
    /// The signature demands that a notation is understood.
    #[error("openpgp: invalid signature: unknown critical notation: {name}")]
    Notation {
        /// The notation.
        name: String,
    },
    /// The signature demands that a subpacket is understood.
    #[error("openpgp: unsupported feature: unknown critical signature subpacket type {number}")]
    Subpacket {
        /// The subpacket's number.
        number: u8,
    },
    /// The numbers do not fit.
    #[error("openpgp: invalid signature: {source}")]
    Wrong {
        /// How.
        #[from]
        source: VerifyError,
    },
    /// The key does not confirm its user, its subkey or itself.
    #[error("openpgp: invalid data: {what} of key {key}: {source}")]
    SelfSignature {
        /// Which signature.
        what: &'static str,
        /// The primary key.
        key: KeyId,
        /// What is wrong with it.
        source: Box<Fault>,
    },
    /// There is no such signature.
    #[error("openpgp: invalid data: key {key} has no {what}")]
    Missing {
        /// Which signature.
        what: &'static str,
        /// The primary key.
        key: KeyId,
    },
    /// The subkey may belong to somebody else: it does not confirm the primary key.
    #[error("openpgp: invalid data: signing subkey is missing cross-signature")]
    NoCrossSignature,
    /// The key was revoked.
    #[error("openpgp: signature made by revoked key{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Revoked {
        /// Its owner's words.
        reason: Option<String>,
    },
    /// The key had, or has, expired.
    #[error("openpgp: key expired")]
    KeyExpired,
    /// The signature, or one that binds the key, has expired.
    #[error("openpgp: signature expired")]
    SignatureExpired,
    /// The key did not exist when the signature says that it was made.
    #[error("openpgp: signature is older than the key")]
    OlderThanKey,
    /// The signature says that it will be made.
    #[error("signature creation time is in the future: {created}")]
    Future {
        /// When, in seconds since 1970.
        created: u32,
    },
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The names that Go's `crypto.Hash` prints.
fn hash_name(id: u8) -> String {
    let name = match id {
        1 => "MD5",
        2 => "SHA-1",
        3 => "RIPEMD-160",
        8 => "SHA-256",
        9 => "SHA-384",
        10 => "SHA-512",
        11 => "SHA-224",
        12 => "SHA3-256",
        14 => "SHA3-512",
        _ => return format!("unknown hash value {id}"),
    };
    name.to_owned()
}

fn algorithm_name(id: u8) -> String {
    let name = match id {
        1 => "RSA",
        2 => "RSA (encryption only)",
        3 => "RSA (signing only)",
        16 => "ElGamal",
        17 => "DSA",
        18 => "ECDH",
        19 => "ECDSA",
        22 => "EdDSA",
        25 => "X25519",
        26 => "X448",
        27 => "Ed25519",
        28 => "Ed448",
        _ => return format!("number {id}"),
    };
    name.to_owned()
}
