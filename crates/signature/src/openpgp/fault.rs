//! What is wrong with an OpenPGP key or signature, in BuildKit's words where it refuses the same.

use std::fmt;

use oci::ErrorKind;

use crate::VerifyError;

/// A key id: the last eight bytes of the key's fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

/// A key does not confirm a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// None of the keys has the key id that the signature names.
    #[error("openpgp: signature made by unknown entity")]
    UnknownIssuer,
    /// The key that the signature names may not sign data.
    #[error("openpgp: signature made by unknown entity: key {key} is not for signing")]
    NotForSigning {
        /// The id of that key.
        key: KeyId,
    },
    /// The signature names no key.
    #[error("openpgp: invalid data: signature doesn't have an issuer")]
    NoIssuer,
    /// The bytes are not a valid key or signature.
    #[error("openpgp: invalid data: {what}")]
    Malformed {
        /// The fault, as `signature is cut off`.
        what: &'static str,
    },
    /// Key or signature are of a version that is not supported.
    #[error("openpgp: unsupported feature: {what} packet version {version}")]
    Version {
        /// `public key` or `signature`.
        what: &'static str,
        /// The version in the packet.
        version: u8,
    },
    /// The signature is of a type that is not for data.
    #[error("openpgp: unsupported feature: unsupported signature type: {kind}")]
    Kind {
        /// The type's number (RFC 9580, section 5.2.1).
        kind: u8,
    },
    /// The hash is weak or not known.
    #[error("rejecting weak/unknown hash: {}", hash_name(*id))]
    Hash {
        /// The hash's number.
        id: u8,
    },
    /// The public-key algorithm is not supported.
    #[error("rejecting unsupported pubkey algorithm: {}", algorithm_name(*id))]
    Algorithm {
        /// The algorithm's number.
        id: u8,
    },
    /// The key is on a curve that is not supported.
    #[error("rejecting unsupported pubkey algorithm: curve {}", hex(oid))]
    Curve {
        /// The curve's object identifier.
        oid: Vec<u8>,
    },
    /// The signature has a critical notation, and no notation is known.
    #[error("openpgp: invalid signature: unknown critical notation: {name}")]
    Notation {
        /// The notation's name.
        name: String,
    },
    /// The signature has a critical subpacket that is not known.
    #[error("openpgp: unsupported feature: unknown critical signature subpacket type {number}")]
    Subpacket {
        /// The subpacket's number.
        number: u8,
    },
    /// The key did not make the signature.
    #[error("openpgp: invalid signature: {source}")]
    Wrong {
        /// The error of the check.
        #[from]
        source: VerifyError,
    },
    /// A signature that binds a user, a subkey or the key itself is refused.
    #[error("openpgp: invalid data: {what} of key {key}: {source}")]
    SelfSignature {
        /// The signature, as `cross-signature`.
        what: &'static str,
        /// The id of the primary key.
        key: KeyId,
        /// The fault of the signature.
        source: Box<Fault>,
    },
    /// A signature that binds the key is missing.
    #[error("openpgp: invalid data: key {key} has no {what}")]
    Missing {
        /// The signature, as `subkey binding signature`.
        what: &'static str,
        /// The id of the primary key.
        key: KeyId,
    },
    /// The subkey has no signature over the primary key: it may be somebody else's.
    #[error("openpgp: invalid data: signing subkey is missing cross-signature")]
    NoCrossSignature,
    /// The key was revoked.
    #[error("openpgp: signature made by revoked key{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Revoked {
        /// The text in the revocation.
        reason: Option<String>,
    },
    /// The key had expired at the time that the policy names.
    #[error("openpgp: key expired")]
    KeyExpired,
    /// The signature, or one that binds the key, has expired.
    #[error("openpgp: signature expired")]
    SignatureExpired,
    /// The signature was made before the key.
    #[error("openpgp: signature is older than the key")]
    OlderThanKey,
    /// The signature's time is in the future.
    #[error("signature creation time is in the future: {created}")]
    Future {
        /// The signature's time, in seconds since 1970.
        created: u32,
    },
}

impl Fault {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Wrong { source } => source.kind(),
            Self::SelfSignature { source, .. } => source.kind(),
            Self::UnknownIssuer
            | Self::NotForSigning { .. }
            | Self::NoIssuer
            | Self::Malformed { .. }
            | Self::Version { .. }
            | Self::Kind { .. }
            | Self::Hash { .. }
            | Self::Algorithm { .. }
            | Self::Curve { .. }
            | Self::Notation { .. }
            | Self::Subpacket { .. }
            | Self::Missing { .. }
            | Self::NoCrossSignature
            | Self::Revoked { .. }
            | Self::KeyExpired
            | Self::SignatureExpired
            | Self::OlderThanKey
            | Self::Future { .. } => ErrorKind::Denied,
        }
    }
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
