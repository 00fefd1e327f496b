//! SSH signatures, as `ssh-keygen -Y sign` makes them (OpenSSH's `PROTOCOL.sshsig`).
//!
//! ```text
//!   armored:  "SSHSIG"  version = 1  public key  namespace  reserved  hash  (format, signature)
//!   signed:   "SSHSIG"                           namespace  ""        hash  digest of the message
//! ```
//!
//! Keys are Ed25519, ECDSA and RSA of 2,048 to 8,192 bits, and Ed25519 and ECDSA of hardware keys that were touched.

use aws_lc_rs::digest::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::ErrorKind;

use crate::VerifyError;
use crate::armor::{ArmorBlocks, ArmorError};
use crate::cursor::{Cursor, without_zeros};
use crate::material::{Curve, Hash, KeyMaterial, SignatureValues};

const MAGIC: &[u8; 6] = b"SSHSIG";
const BLOCK_LABEL: &str = "SSH SIGNATURE";
/// The namespace of git's signatures.
const NAMESPACE: &str = "git";
/// The flag that the hardware was touched.
const USER_PRESENCE_FLAG: u8 = 1;

/// An SSH signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// The signature is not armored text.
    #[error("failed to decode ssh signature PEM block: {source}")]
    Armor {
        /// The error of the armor.
        source: ArmorError,
    },
    /// The block holds something other than a signature.
    #[error("failed to decode ssh signature PEM block: it is a {label:?}")]
    Label {
        /// The label of the block.
        label: String,
    },
    /// The block's bytes are not a signature.
    #[error("failed to parse ssh signature: {source}")]
    Signature {
        /// The error of the parser.
        source: WireError,
    },
    /// The signature was made for another program than git.
    #[error(
        "unexpected SSH signature namespace: {}",
        gostd::strconv::quote(namespace)
    )]
    Namespace {
        /// The namespace in the signature.
        namespace: String,
    },
    /// None of the lines has a key.
    #[error("failed to parse ssh public key: ssh: no key found{}", source.as_ref().map(|source| format!("; last parsing error for ignored line: {source}")).unwrap_or_default())]
    PublicKey {
        /// The error of the last line.
        source: Option<WireError>,
    },
    /// The signature names another key.
    #[error("failed to verify ssh signature: public key does not match")]
    OtherKey,
    /// The key is of hardware that was not touched.
    #[error("failed to verify ssh signature: ssh: signature is missing the user presence flag")]
    NotTouched,
    /// The key did not make the signature.
    #[error("failed to verify ssh signature: {source}")]
    Wrong {
        /// The error of the check.
        source: VerifyError,
    },
}

/// Bytes are not a valid key or signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end too early, or go on after the last field.
    #[error("ssh: unmarshal error for field {field}")]
    Field {
        /// The field that was being read.
        field: &'static str,
    },
    /// The bytes do not begin with `SSHSIG`.
    #[error("invalid magic preamble")]
    Magic,
    /// Version 1 is the only one.
    #[error("unsupported signature version {version}: expected 1")]
    Version {
        /// The version in the signature.
        version: u32,
    },
    /// The hash is not accepted.
    #[error(
        "unsupported hash algorithm {}: must be \"sha256\" or \"sha512\"",
        gostd::strconv::quote(name)
    )]
    Hash {
        /// The name of the hash.
        name: String,
    },
    /// The signature's format does not belong to the key's type.
    #[error("ssh: signature type {format} for key type {key}")]
    Format {
        /// The signature's format.
        format: String,
        /// The key's type.
        key: String,
    },
    /// Keys of this type are not supported.
    #[error("ssh: unknown key algorithm: {name}")]
    KeyType {
        /// The name of the type.
        name: String,
    },
    /// The line names another type than its key.
    #[error(
        "ssh: authorized keys key type mismatch: human-readable type {}, encoded type {}",
        gostd::strconv::quote(line),
        gostd::strconv::quote(key)
    )]
    KeyTypes {
        /// The type in the line.
        line: String,
        /// The type in the key.
        key: String,
    },
    /// The key in the line is not base64.
    #[error("{source}")]
    Base64 {
        /// The error of the decoder.
        source: base64::DecodeError,
    },
}

impl SshError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Armor { .. }
            | Self::Label { .. }
            | Self::Signature { .. }
            | Self::PublicKey { .. } => ErrorKind::Invalid,
            Self::Namespace { .. } | Self::OtherKey | Self::NotTouched | Self::Wrong { .. } => {
                ErrorKind::Denied
            }
        }
    }
}

impl WireError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Field { .. }
            | Self::Magic
            | Self::Version { .. }
            | Self::Hash { .. }
            | Self::Format { .. }
            | Self::KeyType { .. }
            | Self::KeyTypes { .. }
            | Self::Base64 { .. } => ErrorKind::Invalid,
        }
    }
}

/// Checks that the key of an `authorized_keys` line made the armored signature over the bytes, for git.
///
/// # Errors
/// When it did not.
pub fn verify(signed: &[u8], signature: &[u8], authorized_key: &[u8]) -> Result<(), SshError> {
    let armor = |source| SshError::Armor { source };
    let mut blocks = ArmorBlocks::new(signature).map_err(armor)?;
    let block = blocks.next().unwrap_or(Err(ArmorError::Missing));
    let block = block.map_err(armor)?;
    if block.label != BLOCK_LABEL {
        return Err(SshError::Label { label: block.label });
    }
    let signature =
        SshSignature::decode(&block.bytes).map_err(|source| SshError::Signature { source })?;
    if signature.namespace != NAMESPACE.as_bytes() {
        return Err(SshError::Namespace {
            namespace: String::from_utf8_lossy(signature.namespace).into_owned(),
        });
    }
    let key = authorized(authorized_key)?;
    if key != signature.key {
        return Err(SshError::OtherKey);
    }
    let mut message = MAGIC.to_vec();
    let digest = signature.hash.of(signed);
    for string in [
        NAMESPACE.as_bytes(),
        b"",
        signature.hash_name,
        digest.as_ref(),
    ] {
        push_string(&mut message, string);
    }
    signature.verify(&message)
}

fn push_string(out: &mut Vec<u8>, string: &[u8]) {
    let length = u32::try_from(string.len()).expect("names and digests are short");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(string);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn field<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or(WireError::Field { field })
}

fn end(name: &'static str, cursor: Cursor<'_>) -> Result<(), WireError> {
    field(name, cursor.is_empty().then_some(()))
}

/// A number without its sign and zeros; there are no negative ones.
fn number<'a>(name: &'static str, bytes: &mut Cursor<'a>) -> Result<&'a [u8], WireError> {
    let number = field(name, bytes.string())?;
    let is_negative = number.first().is_some_and(|byte| *byte >= 0x80);
    field(name, (!is_negative).then(|| without_zeros(number)))
}

/// The key of the first line that has one. Options before it restrict logins, not signatures.
fn authorized(lines: &[u8]) -> Result<Vec<u8>, SshError> {
    let mut last = None;
    let lines = String::from_utf8_lossy(lines);
    for line in lines.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        for line in [Some(line), after_options(line)].into_iter().flatten() {
            let mut words = line.split_ascii_whitespace();
            let (Some(name), Some(key)) = (words.next(), words.next()) else {
                continue;
            };
            match authorized_key(name, key) {
                Ok(key) => return Ok(key),
                Err(error) => last = Some(error),
            }
        }
    }
    Err(SshError::PublicKey { source: last })
}

fn authorized_key(name: &str, key: &str) -> Result<Vec<u8>, WireError> {
    let bytes = STANDARD.decode(key);
    let bytes = bytes.map_err(|source| WireError::Base64 { source })?;
    let key = PublicKey::decode(&bytes)?;
    if key.name != name.as_bytes() {
        return Err(WireError::KeyTypes {
            line: name.to_owned(),
            key: text(key.name),
        });
    }
    Ok(bytes)
}

/// The rest of a line after its first word; blanks in quotes belong to the word.
fn after_options(line: &str) -> Option<&str> {
    let (mut is_quoted, mut last) = (false, ' ');
    for (at, c) in line.char_indices() {
        match c {
            '"' if last != '\\' => is_quoted = !is_quoted,
            ' ' | '\t' if !is_quoted => return line.get(at..).map(str::trim_start),
            _ => {}
        }
        last = c;
    }
    None
}

/// A key in the form of `authorized_keys` lines and of signatures.
#[derive(Debug)]
struct PublicKey<'a> {
    name: &'a [u8],
    material: KeyMaterial<'a>,
    /// The application of a hardware key.
    application: Option<&'a [u8]>,
}

impl<'a> PublicKey<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Cursor::new(bytes);
        let name = field("key type", fields.string())?;
        let curve = match name {
            b"ecdsa-sha2-nistp256" | b"sk-ecdsa-sha2-nistp256@openssh.com" => {
                Some((Curve::P256, &b"nistp256"[..]))
            }
            b"ecdsa-sha2-nistp384" => Some((Curve::P384, &b"nistp384"[..])),
            b"ecdsa-sha2-nistp521" => Some((Curve::P521, &b"nistp521"[..])),
            _ => None,
        };
        let material = match (name, curve) {
            (_, Some((curve, curve_name))) => {
                let curve_in_key = field("curve", fields.string())?;
                field("curve", (curve_in_key == curve_name).then_some(()))?;
                let point = field("point", fields.string())?;
                KeyMaterial::Ecdsa { curve, point }
            }
            (b"ssh-ed25519" | b"sk-ssh-ed25519@openssh.com", None) => KeyMaterial::Ed25519 {
                point: field("point", fields.string())?,
            },
            (b"ssh-rsa", None) => {
                let exponent = number("exponent", &mut fields)?;
                let modulus = number("modulus", &mut fields)?;
                KeyMaterial::Rsa { modulus, exponent }
            }
            _ => return Err(WireError::KeyType { name: text(name) }),
        };
        let application = if name.starts_with(b"sk-") {
            Some(field("application", fields.string())?)
        } else {
            None
        };
        end("key", fields)?;
        Ok(Self {
            name,
            material,
            application,
        })
    }
}

/// A decoded signature.
#[derive(Debug)]
struct SshSignature<'a> {
    /// The encoded key, as in an `authorized_keys` line.
    key: &'a [u8],
    public_key: PublicKey<'a>,
    namespace: &'a [u8],
    hash: Hash,
    hash_name: &'a [u8],
    /// The hash that the key itself signs, where that is not the curve's or Ed25519's own.
    key_hash: Hash,
    value: Cursor<'a>,
    /// What the hardware adds: its flags and its counter.
    added: Option<(u8, u32)>,
}

impl<'a> SshSignature<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Cursor::new(bytes);
        if fields.array::<6>().as_ref() != Some(MAGIC) {
            return Err(WireError::Magic);
        }
        let version = field("version", fields.u32())?;
        if version != 1 {
            return Err(WireError::Version { version });
        }
        let key = field("public key", fields.string())?;
        let namespace = field("namespace", fields.string())?;
        let _reserved = field("reserved", fields.string())?;
        let hash_name = field("hash", fields.string())?;
        let hash = match hash_name {
            b"sha256" => Hash::Sha256,
            b"sha512" => Hash::Sha512,
            name => return Err(WireError::Hash { name: text(name) }),
        };
        let mut value = Cursor::new(field("signature", fields.string())?);
        end("signature", fields)?;
        let public_key = PublicKey::decode(key)?;
        let format = field("format", value.string())?;
        let key_hash = match (public_key.material, format) {
            (KeyMaterial::Rsa { .. }, b"rsa-sha2-256") => Hash::Sha256,
            (KeyMaterial::Rsa { .. }, b"rsa-sha2-512") => Hash::Sha512,
            (KeyMaterial::Ecdsa { curve, .. }, format) if format == public_key.name => {
                match curve {
                    Curve::P256 => Hash::Sha256,
                    Curve::P384 => Hash::Sha384,
                    Curve::P521 => Hash::Sha512,
                }
            }
            (KeyMaterial::Ed25519 { .. }, format) if format == public_key.name => Hash::Sha256,
            (_, format) => {
                return Err(WireError::Format {
                    format: text(format),
                    key: text(public_key.name),
                });
            }
        };
        let bytes = field("signature", value.string())?;
        let added = match public_key.application {
            Some(_) => Some(field("flags", value.u8().zip(value.u32()))?),
            None => None,
        };
        end("signature", value)?;
        Ok(Self {
            key,
            public_key,
            namespace,
            hash,
            hash_name,
            key_hash,
            value: Cursor::new(bytes),
            added,
        })
    }

    fn verify(&self, message: &[u8]) -> Result<(), SshError> {
        let by_hardware;
        let message = match self.public_key.application.zip(self.added) {
            Some((_, (flags, _))) if flags & USER_PRESENCE_FLAG == 0 => {
                return Err(SshError::NotTouched);
            }
            Some((application, (flags, counter))) => {
                let hash = |bytes| -> Digest { Hash::Sha256.of(bytes) };
                by_hardware = [
                    hash(application).as_ref(),
                    &[flags],
                    &counter.to_be_bytes(),
                    hash(message).as_ref(),
                ]
                .concat();
                &by_hardware
            }
            None => message,
        };
        let mut value = self.value;
        let material = &self.public_key.material;
        let checked = match material {
            KeyMaterial::Ed25519 { .. } => match value.remaining().try_into() {
                Ok(value) => material.verify_ed25519(message, value),
                Err(_) => Err(VerifyError::Wrong { algorithm: "EdDSA" }),
            },
            KeyMaterial::Rsa { .. } => {
                let values = SignatureValues::Rsa(value.remaining());
                material.verify(self.key_hash, &self.key_hash.of(message), &values)
            }
            KeyMaterial::Ecdsa { .. } => {
                let pair = number("r", &mut value)
                    .and_then(|r| Ok((r, number("s", &mut value)?)))
                    .and_then(|pair| end("s", value).map(|()| pair));
                let (r, s) = pair.map_err(|source| SshError::Signature { source })?;
                let values = SignatureValues::Ecdsa { r, s };
                material.verify(self.key_hash, &self.key_hash.of(message), &values)
            }
        };
        checked.map_err(|source| SshError::Wrong { source })
    }
}
