//! Digests: `algorithm:hex` names of bytes.
//!
//! The grammar is the one of the OCI image specification's descriptor section; sha256 is the algorithm that is computed,
//! sha384 and sha512 are accepted as names. `random:` and other tags that BuildKit uses as *cache key* digests are
//! not content digests but share the type: they pass [`Digest::key`].

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::Arc;

use sha2::Digest as _;
use sha2::Sha256;

use crate::ErrorKind;

/// The name of some bytes: algorithm and lower-case hex.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

/// A text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The text has no `algorithm:hex` form.
    #[error("invalid checksum digest format")]
    Format,
    /// The algorithm is not known.
    #[error("unsupported digest algorithm")]
    Algorithm,
    /// The hex part has the wrong length for the algorithm.
    #[error("invalid checksum digest length")]
    Length,
}

impl DigestError {
    /// What kind of error it is: the text is wrong in any case.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Format | Self::Length => ErrorKind::Invalid,
            Self::Algorithm => ErrorKind::Unsupported,
        }
    }
}

impl Digest {
    /// Returns the SHA-256 digest of `bytes`.
    pub fn sha256(bytes: impl AsRef<[u8]>) -> Self {
        let mut digester = Digester::new();
        digester.update(bytes.as_ref());
        digester.finish()
    }

    /// Parses a content digest; refuses unknown algorithms.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::Format)?;
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ if is_digest_shaped(algorithm, hex) => return Err(DigestError::Algorithm),
            _ => return Err(DigestError::Format),
        };
        if hex.is_empty() {
            return Err(DigestError::Format);
        }
        if hex.len() != length {
            return Err(DigestError::Length);
        }
        if !hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(DigestError::Format);
        }
        Ok(Self(Arc::from(text)))
    }

    /// Makes a digest for use in cache keys from any text, e.g. `random:…`; it names no bytes.
    pub fn key(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// Makes a digest from the raw 32 bytes of a SHA-256 sum.
    pub fn from_sha256_bytes(sum: &[u8]) -> Self {
        let digit = |half: u8| {
            char::from(if half < 10 {
                b'0' + half
            } else {
                b'a' + half - 10
            })
        };
        let mut text = String::with_capacity(7 + sum.len() * 2);
        text.push_str("sha256:");
        for byte in sum {
            text.push(digit(byte >> 4));
            text.push(digit(byte & 15));
        }
        Self(Arc::from(text))
    }

    /// Returns the algorithm, `sha256` as a rule.
    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(a, _)| a)
    }

    /// Returns what stands behind the colon.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(_, h)| h)
    }

    /// Returns the whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Digest {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Digest {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Computes a SHA-256 digest piece by piece; also an [`io::Write`].
#[derive(Clone, Default)]
pub struct Digester(Sha256);

impl Digester {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of all bytes added.
    pub fn finish(self) -> Digest {
        Digest::from_sha256_bytes(&self.0.finalize())
    }

    /// Reads `reader` to its end and returns the digest of its bytes and their number.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Digest, u64)> {
        let mut digester = Self::new();
        let mut buffer = vec![0_u8; 256 << 10];
        let mut total = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok((digester.finish(), total)),
                Ok(n) => {
                    digester.update(buffer.get(..n).unwrap_or_default());
                    total += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

impl io::Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether it is a digest of some algorithm (image-spec, descriptor.md, "Digests").
fn is_digest_shaped(algorithm: &str, encoded: &str) -> bool {
    let component = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    let encoded_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
    algorithm.split(['+', '.', '_', '-']).all(component)
        && !encoded.is_empty()
        && encoded.bytes().all(encoded_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_parsed_by_the_specification() {
        let empty = Digest::sha256(b"");
        assert_eq!(
            empty.as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(Digest::parse(empty.as_str()), Ok(empty.clone()));
        for (text, want) in [
            ("", DigestError::Format),
            ("sha256", DigestError::Format),
            (
                "md5:d41d8cd98f00b204e9800998ecf8427e",
                DigestError::Algorithm,
            ),
            ("sha256:e3", DigestError::Length),
            ("sha256:../../../etc/passwd", DigestError::Length),
            ("SHA256:e3", DigestError::Format),
            ("b+c.d:e_-=", DigestError::Algorithm),
        ] {
            assert_eq!(Digest::parse(text), Err(want), "{text}");
        }
    }
}
