//! Names of records: 25 random characters of base 36, the form clients know from `du`.

use std::fmt;
use std::sync::Arc;

const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const ID_CHARS: usize = 25;

/// Text that cannot name a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a record name")]
pub struct InvalidRefId {
    /// The text, of a long one the beginning.
    pub text: String,
}

/// Names one record of the store.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefId(Arc<str>);

impl RefId {
    /// Draws a new name.
    pub(crate) fn random() -> Self {
        let mut bytes = [0u8; ID_CHARS];
        let mut have = 0;
        while have < ID_CHARS {
            // 256 is not a multiple of 36; the bias over 25 characters is of no consequence for a name.
            match rustix::rand::getrandom(&mut bytes[have..], rustix::rand::GetRandomFlags::empty())
            {
                Ok(n) => have += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => panic!("the kernel has a random source: {e}"),
            }
        }
        let text: String = bytes
            .iter()
            .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
            .collect();
        Self(text.into())
    }

    /// Parses a name: lower case letters and digits, 1 to 64 of them.
    pub fn parse(text: &str) -> Result<Self, InvalidRefId> {
        let good = !text.is_empty()
            && text.len() <= 64
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if good {
            Ok(Self(text.into()))
        } else {
            Err(InvalidRefId {
                text: text.chars().take(80).collect(),
            })
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RefId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for RefId {
    type Err = InvalidRefId;
    fn from_str(text: &str) -> Result<Self, InvalidRefId> {
        Self::parse(text)
    }
}
