//! Public keys and signatures as numbers, and the check of one against the other.

use aws_lc_rs::digest::{self, Context, Digest};
use aws_lc_rs::signature::{
    self, EcdsaVerificationAlgorithm, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents,
};
use oci::ErrorKind;

use crate::cursor::without_zeros;

/// Shorter RSA keys can be broken with enough money.
const MIN_RSA_BITS: usize = 2048;
/// Longer RSA keys cost too much time to check.
const MAX_RSA_BITS: usize = 8192;
/// Bytes of an Ed25519 signature.
pub(crate) const ED25519_SIGNATURE_BYTES: usize = 64;

/// A key does not confirm a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The modulus is shorter than 2,048 bits.
    #[error("RSA key too short: {bits} bits")]
    ShortRsa {
        /// Length of the modulus.
        bits: usize,
    },
    /// The modulus is longer than 8,192 bits.
    #[error("RSA key too long: {bits} bits, {MAX_RSA_BITS} are accepted")]
    LongRsa {
        /// Length of the modulus.
        bits: usize,
    },
    /// The numbers are not a valid key.
    #[error("public key is malformed")]
    Key,
    /// The signature is of another algorithm than the key.
    #[error("public key and signature use different algorithms")]
    Algorithm,
    /// The key did not make the signature.
    #[error("{algorithm} verification failure")]
    Wrong {
        /// The algorithm's name in the message, as `RSA`.
        algorithm: &'static str,
    },
}

impl VerifyError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ShortRsa { .. }
            | Self::LongRsa { .. }
            | Self::Key
            | Self::Algorithm
            | Self::Wrong { .. } => ErrorKind::Denied,
        }
    }
}

/// The hashes that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(crate) fn context(self) -> Context {
        Context::new(match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        })
    }

    pub(crate) fn of(self, bytes: &[u8]) -> Digest {
        let mut context = self.context();
        context.update(bytes);
        context.finish()
    }
}

/// An elliptic curve of NIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyMaterial<'a> {
    /// Both without zeros at the front.
    Rsa {
        modulus: &'a [u8],
        exponent: &'a [u8],
    },
    Ecdsa {
        curve: Curve,
        point: &'a [u8],
    },
    Ed25519 {
        point: &'a [u8],
    },
}

/// A signature, by the algorithm of its key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SignatureValues<'a> {
    Rsa(&'a [u8]),
    Ecdsa { r: &'a [u8], s: &'a [u8] },
    Ed25519([u8; ED25519_SIGNATURE_BYTES]),
}

impl KeyMaterial<'_> {
    /// Whether the values are this key's signature of the digest. Ed25519 signs the bytes of the digest.
    pub(crate) fn verify(
        &self,
        hash: Hash,
        digest: &Digest,
        values: &SignatureValues<'_>,
    ) -> Result<(), VerifyError> {
        match (*self, values) {
            (KeyMaterial::Rsa { modulus, exponent }, SignatureValues::Rsa(value)) => {
                let key = rsa_key(modulus, exponent, hash)?;
                let wrong = VerifyError::Wrong { algorithm: "RSA" };
                let value = left_padded(value, modulus.len()).ok_or(wrong)?;
                // The dropped error says only that the signature is wrong.
                key.verify_digest_sig(digest, &value).map_err(|_| wrong)
            }
            (KeyMaterial::Ecdsa { curve, point }, SignatureValues::Ecdsa { r, s }) => {
                // The dropped error says only that the key is wrong.
                let key = ParsedPublicKey::new(ecdsa(curve, hash), point)
                    .map_err(|_| VerifyError::Key)?;
                key.verify_digest_sig(digest, &der_pair(r, s))
                    .map_err(|_| VerifyError::Wrong { algorithm: "ECDSA" })
            }
            (KeyMaterial::Ed25519 { .. }, SignatureValues::Ed25519(value)) => {
                self.verify_ed25519(digest.as_ref(), value)
            }
            _ => Err(VerifyError::Algorithm),
        }
    }

    /// Whether the value is this key's signature of the message itself.
    pub(crate) fn verify_ed25519(
        &self,
        message: &[u8],
        value: &[u8; ED25519_SIGNATURE_BYTES],
    ) -> Result<(), VerifyError> {
        let KeyMaterial::Ed25519 { point } = *self else {
            return Err(VerifyError::Algorithm);
        };
        // The dropped errors are the library's, which says only that it failed.
        let key = ParsedPublicKey::new(&signature::ED25519, point).map_err(|_| VerifyError::Key)?;
        key.verify_sig(message, value)
            .map_err(|_| VerifyError::Wrong { algorithm: "EdDSA" })
    }
}

fn rsa_key(modulus: &[u8], exponent: &[u8], hash: Hash) -> Result<ParsedPublicKey, VerifyError> {
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
    let bits = (modulus.len() * 8).saturating_sub(unused as usize);
    if bits < MIN_RSA_BITS {
        return Err(VerifyError::ShortRsa { bits });
    }
    if bits > MAX_RSA_BITS {
        return Err(VerifyError::LongRsa { bits });
    }
    let parameters: &'static RsaParameters = match hash {
        Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
    };
    let components = RsaPublicKeyComponents {
        n: modulus,
        e: exponent,
    };
    components
        // The dropped error is the library's, which says only that it failed.
        .to_parsed_public_key(parameters)
        .map_err(|_| VerifyError::Key)
}

fn ecdsa(curve: Curve, hash: Hash) -> &'static EcdsaVerificationAlgorithm {
    match (curve, hash) {
        (Curve::P256, Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (Curve::P256, Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (Curve::P256, Hash::Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        (Curve::P384, Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (Curve::P384, Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (Curve::P384, Hash::Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        (Curve::P521, Hash::Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
        (Curve::P521, Hash::Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
        (Curve::P521, Hash::Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
    }
}

/// A number padded with zeros in front to a length; `None` if it is longer.
pub(crate) fn left_padded(value: &[u8], length: usize) -> Option<Vec<u8>> {
    let zeros = length.checked_sub(value.len())?;
    let mut padded = vec![0; zeros];
    padded.extend_from_slice(value);
    Some(padded)
}

/// Two numbers as a DER sequence, the form that the library takes.
fn der_pair(r: &[u8], s: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::with_capacity(r.len() + s.len() + 12);
    for number in [r, s] {
        let number = without_zeros(number);
        let sign: &[u8] = match number.first() {
            Some(byte) if *byte < 0x80 => &[],
            _ => &[0],
        };
        numbers.push(0x02);
        der_length(&mut numbers, sign.len() + number.len());
        numbers.extend_from_slice(sign);
        numbers.extend_from_slice(number);
    }
    let mut sequence = vec![0x30];
    der_length(&mut sequence, numbers.len());
    sequence.extend(numbers);
    sequence
}

fn der_length(out: &mut Vec<u8>, length: usize) {
    let bytes = length.to_be_bytes();
    let bytes = without_zeros(&bytes);
    match (bytes, u8::try_from(bytes.len())) {
        ([], _) => out.push(0),
        ([short], _) if *short < 0x80 => out.push(*short),
        (_, Ok(count)) => {
            out.push(0x80 | count);
            out.extend_from_slice(bytes);
        }
        (_, Err(_)) => unreachable!("a length has at most eight bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Hash, KeyMaterial, SignatureValues, VerifyError, der_pair, left_padded};

    #[test]
    fn numbers_become_positive_integers_of_a_sequence() {
        assert_eq!(der_pair(&[1], &[0x80]), [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        assert_eq!(der_pair(&[0, 0, 5], &[]), [0x30, 6, 2, 1, 5, 2, 1, 0]);
        let long = der_pair(&[0x7f; 66], &[0x7f; 66]);
        assert_eq!(long.get(..5), Some(&[0x30, 0x81, 136, 2, 66][..]));
        let longer = der_pair(&[0x7f; 300], &[1]);
        assert_eq!(
            longer.get(..8),
            Some(&[0x30, 0x82, 1, 0x33, 2, 0x82, 1, 0x2c][..])
        );
        assert_eq!(left_padded(&[1, 2], 3), Some(vec![0, 1, 2]));
        assert_eq!(left_padded(&[1, 2], 1), None);
    }

    #[test]
    fn keys_that_are_none_and_signatures_of_another_sort_are_refused_by_name() {
        let digest = Hash::Sha256.of(b"");
        let (short, long) = (vec![0xff; 255], vec![1; 1025]);
        let (even, zero) = (vec![0xfe; 256], vec![]);
        let rsa = |modulus| KeyMaterial::Rsa {
            modulus,
            exponent: &[1, 0, 1],
        };
        let point = KeyMaterial::Ecdsa {
            curve: super::Curve::P256,
            point: &[4; 65],
        };
        let ed = KeyMaterial::Ed25519 { point: &[1; 31] };
        for (key, values, error) in [
            (
                rsa(&short),
                SignatureValues::Rsa(&[1]),
                VerifyError::ShortRsa { bits: 2040 },
            ),
            (
                rsa(&zero),
                SignatureValues::Rsa(&[1]),
                VerifyError::ShortRsa { bits: 0 },
            ),
            (
                rsa(&long),
                SignatureValues::Rsa(&[1]),
                VerifyError::LongRsa { bits: 8193 },
            ),
            (
                rsa(&even),
                SignatureValues::Ed25519([0; 64]),
                VerifyError::Algorithm,
            ),
            (
                point,
                SignatureValues::Ecdsa { r: &[1], s: &[1] },
                VerifyError::Key,
            ),
            (point, SignatureValues::Rsa(&[1]), VerifyError::Algorithm),
            (ed, SignatureValues::Ed25519([0; 64]), VerifyError::Key),
            (ed, SignatureValues::Rsa(&[1]), VerifyError::Algorithm),
        ] {
            assert_eq!(key.verify(Hash::Sha256, &digest, &values), Err(error));
        }
        assert_eq!(
            point.verify_ed25519(b"", &[0; 64]),
            Err(VerifyError::Algorithm)
        );
        // What of the numbers the library does not take for a key confirms nothing either.
        let number = SignatureValues::Rsa(&[1]);
        assert!(rsa(&even).verify(Hash::Sha256, &digest, &number).is_err());
        let long_value = vec![1; 300];
        let odd = vec![0xff; 256];
        let wrong = rsa(&odd).verify(Hash::Sha512, &digest, &SignatureValues::Rsa(&long_value));
        assert_eq!(wrong, Err(VerifyError::Wrong { algorithm: "RSA" }));
    }
}
