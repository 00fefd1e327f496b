//! Armor: bytes as base64 between two marker lines, in OpenPGP's form (RFC 9580, section 6.2) and SSH's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::ErrorKind;

/// Bytes of armored text that are accepted, of keys or of a signature.
pub const MAX_BYTES: usize = 1 << 20;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// A text is not an armored block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArmorError {
    /// The text has no block.
    #[error("no armored data found")]
    Missing,
    /// The text is larger than [`MAX_BYTES`].
    #[error("armored text of {bytes} bytes is larger than {MAX_BYTES}")]
    TooLarge {
        /// Bytes of the text.
        bytes: usize,
    },
    /// The text is not UTF-8.
    #[error("armor invalid: {source}")]
    Text {
        /// The error of the decoder.
        source: std::str::Utf8Error,
    },
    /// No empty line follows the headers.
    #[error("armor invalid: no empty line behind the headers of `{label}`")]
    Headers {
        /// The label of the block, as `PGP SIGNATURE`.
        label: String,
    },
    /// The line that ends the block is missing.
    #[error("armor invalid: `{label}` does not end")]
    Unfinished {
        /// The label of the block, as `PGP SIGNATURE`.
        label: String,
    },
    /// The block is not base64.
    #[error("armor invalid: {source}")]
    Base64 {
        /// The error of the decoder.
        source: base64::DecodeError,
    },
    /// The checksum of OpenPGP's armor does not match the bytes.
    #[error("armor invalid: checksum does not match")]
    Checksum,
}

impl ArmorError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing
            | Self::TooLarge { .. }
            | Self::Text { .. }
            | Self::Headers { .. }
            | Self::Unfinished { .. }
            | Self::Base64 { .. }
            | Self::Checksum => ErrorKind::Invalid,
        }
    }
}

/// A block: its label, as `PGP SIGNATURE`, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArmorBlock {
    pub(crate) label: String,
    pub(crate) bytes: Vec<u8>,
}

/// The blocks of a text, in order. Text between them is skipped.
#[derive(Debug, Clone)]
pub(crate) struct ArmorBlocks<'a> {
    lines: std::str::Lines<'a>,
}

impl<'a> ArmorBlocks<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Result<Self, ArmorError> {
        if text.len() > MAX_BYTES {
            return Err(ArmorError::TooLarge { bytes: text.len() });
        }
        let text = std::str::from_utf8(text).map_err(|source| ArmorError::Text { source })?;
        Ok(Self {
            lines: text.lines(),
        })
    }

    fn block(&mut self, label: &str) -> Result<Vec<u8>, ArmorError> {
        // SSH's armor has no headers and no empty line.
        if label.starts_with("PGP ") {
            loop {
                match self.lines.next().map(str::trim) {
                    Some("") => break,
                    Some(line) if line.contains(':') => {}
                    _ => {
                        let label = label.to_owned();
                        return Err(ArmorError::Headers { label });
                    }
                }
            }
        }
        let decode = |text: &str| {
            let bytes = STANDARD.decode(text);
            bytes.map_err(|source| ArmorError::Base64 { source })
        };
        let (mut text, mut checksum) = (String::new(), None);
        for line in self.lines.by_ref() {
            let line = line.trim();
            if line
                .strip_prefix(END)
                .and_then(|end| end.strip_suffix(DASHES))
                == Some(label)
            {
                let bytes = decode(&text)?;
                return match checksum {
                    Some(sum) if decode(sum)? != crc24(&bytes) => Err(ArmorError::Checksum),
                    _ => Ok(bytes),
                };
            }
            match line.strip_prefix('=') {
                Some(sum) if sum.len() == 4 && checksum.is_none() => checksum = Some(sum),
                _ if checksum.is_some() => break,
                _ => text.push_str(line),
            }
        }
        Err(ArmorError::Unfinished {
            label: label.to_owned(),
        })
    }
}

impl Iterator for ArmorBlocks<'_> {
    type Item = Result<ArmorBlock, ArmorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let label = self.lines.by_ref().find_map(|line| {
            let line = line.trim();
            line.strip_prefix(BEGIN)?.strip_suffix(DASHES)
        })?;
        let bytes = self.block(label);
        Some(bytes.map(|bytes| ArmorBlock {
            label: label.to_owned(),
            bytes,
        }))
    }
}

/// OpenPGP's checksum (RFC 9580, section 6.1.1).
fn crc24(bytes: &[u8]) -> [u8; 3] {
    let mut sum: u32 = 0x00b7_04ce;
    for byte in bytes {
        sum ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            sum <<= 1;
            if sum & 0x0100_0000 != 0 {
                sum ^= 0x0186_4cfb;
            }
        }
    }
    let [_, high, middle, low] = sum.to_be_bytes();
    [high, middle, low]
}

#[cfg(test)]
mod tests {
    use super::{ArmorBlock, ArmorBlocks, ArmorError, MAX_BYTES, crc24};

    fn read(text: &str) -> Vec<Result<ArmorBlock, ArmorError>> {
        match ArmorBlocks::new(text.as_bytes()) {
            Ok(blocks) => blocks.collect(),
            Err(error) => vec![Err(error)],
        }
    }

    fn block(label: &str, bytes: &[u8]) -> Result<ArmorBlock, ArmorError> {
        Ok(ArmorBlock {
            label: label.to_owned(),
            bytes: bytes.to_owned(),
        })
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc24(b""), [0xb7, 0x04, 0xce]);
        assert_eq!(crc24(b"123456789"), [0x21, 0xcf, 0x02]);
    }

    #[test]
    fn blocks_are_found_between_other_text_and_their_headers_are_left_out() {
        let text = "words\n\n-----BEGIN PGP A-----\r\nVersion: 1\r\nComment:\r\n\r\nMTIz\r\nNDU2Nzg5\r\n=Ic8C\r\n-----END PGP A-----\r\n\
                    more\n  -----BEGIN PGP B-----\n \nMTI=\n-----END PGP B-----\n-----BEGIN SSH C-----\nMTIz\n-----END SSH C-----";
        let blocks = [
            block("PGP A", b"123456789"),
            block("PGP B", b"12"),
            block("SSH C", b"123"),
        ];
        assert_eq!(read(text), blocks);
        assert_eq!(read(""), []);
        assert_eq!(read("-----BEGIN PGP A\n"), []);
    }

    #[test]
    fn a_broken_block_says_what_is_broken() {
        for (text, message) in [
            (
                "-----BEGIN PGP A-----\n\nMTIzNDU2Nzg5\n=Ic8D\n-----END PGP A-----",
                "armor invalid: checksum does not match",
            ),
            (
                "-----BEGIN PGP A-----\nMTIz\n-----END PGP A-----",
                "armor invalid: no empty line behind the headers of `PGP A`",
            ),
            (
                "-----BEGIN PGP A-----",
                "armor invalid: no empty line behind the headers of `PGP A`",
            ),
            (
                "-----BEGIN PGP A-----\n\nMTIz\n-----END PGP B-----",
                "armor invalid: `PGP A` does not end",
            ),
            (
                "-----BEGIN PGP A-----\n\nMTIz\n=Ic8C\nMTIz\n-----END PGP A-----",
                "armor invalid: `PGP A` does not end",
            ),
            (
                "-----BEGIN SSH A-----\n\nMT*z\n-----END SSH A-----",
                "armor invalid: Invalid symbol 42, offset 2.",
            ),
            (
                "-----BEGIN SSH A-----\n\nMTI\n-----END SSH A-----",
                "armor invalid: Invalid padding",
            ),
        ] {
            let Some(Err(error)) = read(text).pop() else {
                panic!("{text:?} is read");
            };
            assert_eq!(error.to_string(), message, "{text:?}");
        }
    }

    #[test]
    fn text_beyond_the_bound_and_bytes_that_are_no_text_are_refused() {
        let Some(Err(error)) = read(&"a".repeat(MAX_BYTES + 1)).pop() else {
            panic!("too much is read");
        };
        assert_eq!(
            error,
            ArmorError::TooLarge {
                bytes: MAX_BYTES + 1
            }
        );
        assert!(read(&"a\n".repeat(MAX_BYTES / 2)).is_empty());
        assert!(matches!(
            ArmorBlocks::new(&[0xff]),
            Err(ArmorError::Text { .. })
        ));
    }
}
