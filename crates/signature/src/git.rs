//! Commits and tags as git stores them: their signed bytes and their signature.
//!
//! ```text
//!   commit: headers, among them `gpgsig` with its continuation lines    signed: all but these lines
//!   tag:    headers, message, armored signature at the end              signed: all before the armor, without such headers
//! ```
//!
//! Facts: git's `remove_signature` and `parse_signed_buffer`; `util/gitutil/gitobject` of BuildKit v0.34.2 for the words.

use std::fmt;

use aws_lc_rs::digest;
use oci::ErrorKind;

use crate::{Policy, SignatureError, openpgp, ssh};

const BEGIN_PGP: &str = "-----BEGIN PGP SIGNATURE-----";
const BEGIN_SSH: &str = "-----BEGIN SSH SIGNATURE-----";

/// The type of a signed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A commit.
    Commit,
    /// An annotated tag.
    Tag,
}

impl ObjectKind {
    /// The name of the type in git.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tag => "tag",
        }
    }

    fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Commit => &["tree", "author", "committer"],
            Self::Tag => &["object", "type", "tag", "tagger"],
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bytes are not a valid object, or not the object of the id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// A header is missing that every object of the type has.
    #[error("invalid {kind} object: missing {header} header")]
    Header {
        /// The type of the object.
        kind: ObjectKind,
        /// The name of the header.
        header: &'static str,
    },
    /// The id is neither of SHA-1 nor of SHA-256.
    #[error("unsupported sha length {length}")]
    IdLength {
        /// Digits of the id.
        length: usize,
    },
    /// The digest of the bytes is not the id.
    #[error("checksum mismatch: expected {expected}, got {actual}")]
    Id {
        /// The id that was given.
        expected: String,
        /// The id of the bytes.
        actual: String,
    },
}

impl ObjectError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Header { .. } | Self::Id { .. } => ErrorKind::Hostile,
            Self::IdLength { .. } => ErrorKind::Invalid,
        }
    }
}

/// A commit or a tag whose content has the given id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitObject {
    signature: Option<Vec<u8>>,
    signed: Vec<u8>,
}

impl GitObject {
    /// Parses the content of an object, as `git cat-file` prints it, and checks it against the id: hexadecimal, 40 digits in a
    /// repository of SHA-1 and 64 in one of SHA-256.
    ///
    /// # Errors
    /// When headers are missing, or the content has another id.
    pub fn parse(kind: ObjectKind, content: &[u8], id: &str) -> Result<Self, ObjectError> {
        let object = Self::split(kind, content, id.len() == 64)?;
        check_id(kind, content, id)?;
        Ok(object)
    }

    fn split(kind: ObjectKind, content: &[u8], is_sha256: bool) -> Result<Self, ObjectError> {
        let end = match kind {
            ObjectKind::Commit => content.len(),
            ObjectKind::Tag => start_of_armor(content),
        };
        let (head, armor) = content.split_at(end);
        let mut signed = Vec::with_capacity(head.len());
        let mut signatures = [None::<Vec<u8>>, None];
        let mut missing = kind.headers().to_vec();
        let mut lines = head.split_inclusive(|byte| *byte == b'\n');
        let mut current = None;
        for line in lines.by_ref() {
            let is_continuation = line.starts_with(b" ");
            if !is_continuation {
                let (name, _) = split_at_blank(line);
                missing.retain(|header| header.as_bytes() != name);
                current = match name {
                    b"gpgsig" => Some(0),
                    b"gpgsig-sha256" => Some(1),
                    _ => None,
                };
            }
            if let Some(at) = current {
                let signature: &mut Option<Vec<u8>> = &mut signatures[at];
                let (_, value) = split_at_blank(line);
                signature.get_or_insert_default().extend_from_slice(value);
            } else {
                signed.extend_from_slice(line);
            }
            if line == b"\n" {
                break;
            }
        }
        lines.for_each(|line| signed.extend_from_slice(line));
        if let Some(header) = missing.first() {
            return Err(ObjectError::Header { kind, header });
        }
        let [sha1, sha256] = signatures;
        let signature = match kind {
            // DIFFERS: an object may have a signature for each hash. BuildKit takes the first, git the one for the repository's hash;
            // the other is over the content of another repository.
            ObjectKind::Commit if is_sha256 => sha256.or(sha1),
            ObjectKind::Commit => sha1.or(sha256),
            ObjectKind::Tag => (!armor.is_empty()).then(|| armor.to_owned()),
        };
        Ok(Self { signature, signed })
    }

    /// The bytes that a signature is over.
    #[must_use]
    pub fn signed(&self) -> &[u8] {
        &self.signed
    }

    /// The signature, armored.
    #[must_use]
    pub fn signature(&self) -> Option<&[u8]> {
        self.signature.as_deref()
    }

    /// Checks that one of the keys signed the object: armored OpenPGP keys for an OpenPGP signature, a line of `authorized_keys`
    /// for an SSH signature.
    ///
    /// # Errors
    /// When there is no signature, or none of the keys made it.
    pub fn verify(&self, public_keys: &[u8], policy: &Policy) -> Result<(), SignatureError> {
        let signature = self.signature().ok_or(SignatureError::NotSigned)?;
        if signature.starts_with(BEGIN_PGP.as_bytes()) {
            let mut signed = self.signed();
            openpgp::verify_detached(&mut signed, signature, public_keys, policy)?;
        } else if signature.starts_with(BEGIN_SSH.as_bytes()) {
            ssh::verify(self.signed(), signature, public_keys)?;
        } else {
            return Err(SignatureError::Format);
        }
        Ok(())
    }
}

/// Splits a line at its first blank.
fn split_at_blank(line: &[u8]) -> (&[u8], &[u8]) {
    let at = line.iter().position(|byte| *byte == b' ');
    match at {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &[]),
    }
}

/// Offset of a tag's signature; the content's length if there is none.
fn start_of_armor(content: &[u8]) -> usize {
    // DIFFERS: BuildKit takes the first such line, git the last: a message may quote a signature.
    let (mut at, mut start) = (0, content.len());
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if text == BEGIN_PGP.as_bytes() || text == BEGIN_SSH.as_bytes() {
            start = at;
        }
        at += line.len();
    }
    start
}

fn check_id(kind: ObjectKind, content: &[u8], id: &str) -> Result<(), ObjectError> {
    let algorithm = match id.len() {
        40 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        64 => &digest::SHA256,
        length => return Err(ObjectError::IdLength { length }),
    };
    let mut context = digest::Context::new(algorithm);
    context.update(format!("{kind} {}\0", content.len()).as_bytes());
    context.update(content);
    let digest = context.finish();
    let actual: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    if actual != id {
        return Err(ObjectError::Id {
            expected: id.to_owned(),
            actual,
        });
    }
    Ok(())
}
