//! Packets of public keys (RFC 9580, section 5.5).

use aws_lc_rs::digest;

use crate::cursor::Cursor;
use crate::material::{Curve, KeyMaterial};
use crate::openpgp::fault::{Fault, KeyId};

/// Bytes of a key packet that are accepted; RSA of 8,192 bits takes 1,040.
const MAX_KEY_BYTES: usize = 16 << 10;

const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const OID_P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const OID_ED25519: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

/// A public key of version 4.
#[derive(Debug, Clone)]
pub(crate) struct KeyPacket<'a> {
    /// The packet's body, which fingerprints and signatures are made over.
    pub(crate) body: &'a [u8],
    /// Creation time, in seconds since 1970.
    pub(crate) created: u32,
    pub(crate) algorithm: u8,
    pub(crate) fingerprint: [u8; 20],
    /// The numbers, or why the key cannot be used.
    pub(crate) material: Result<KeyMaterial<'a>, Fault>,
}

impl<'a> KeyPacket<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, Fault> {
        let malformed = |what| Fault::Malformed { what };
        let mut cursor = Cursor::new(body);
        let version = cursor.u8().ok_or(malformed("public key is empty"))?;
        if version != 4 {
            let what = "public key";
            return Err(Fault::Version { what, version });
        }
        if body.len() > MAX_KEY_BYTES {
            return Err(malformed("public key is too large"));
        }
        let head = cursor.u32().zip(cursor.u8());
        let (created, algorithm) = head.ok_or(malformed("public key is cut off"))?;
        Ok(Self {
            body,
            created,
            algorithm,
            fingerprint: fingerprint(body),
            material: material(algorithm, cursor),
        })
    }

    pub(crate) fn id(&self) -> KeyId {
        let (_, id) = self
            .fingerprint
            .split_last_chunk()
            .expect("a fingerprint has twenty bytes");
        KeyId(u64::from_be_bytes(*id))
    }

    /// Hashes the key as fingerprints and signatures do.
    pub(crate) fn hashed_into(&self, context: &mut digest::Context) {
        hashed_into(self.body, context);
    }
}

fn hashed_into(body: &[u8], context: &mut digest::Context) {
    let length = u16::try_from(body.len()).expect("the length was checked when it was decoded");
    context.update(&[0x99]);
    context.update(&length.to_be_bytes());
    context.update(body);
}

fn fingerprint(body: &[u8]) -> [u8; 20] {
    // SHA-1 names keys of version 4; nothing here trusts it to be more than a name.
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hashed_into(body, &mut context);
    let digest = context.finish();
    *digest
        .as_ref()
        .first_chunk()
        .expect("SHA-1 has twenty bytes")
}

fn material(algorithm: u8, mut cursor: Cursor<'_>) -> Result<KeyMaterial<'_>, Fault> {
    let cut_off = Fault::Malformed {
        what: "public key is cut off",
    };
    match algorithm {
        1 | 3 => {
            let (modulus, exponent) = cursor.mpi().zip(cursor.mpi()).ok_or(cut_off)?;
            Ok(KeyMaterial::Rsa { modulus, exponent })
        }
        19 | 22 => {
            let length = cursor.u8().ok_or(cut_off.clone())?;
            let oid = cursor.take(usize::from(length)).ok_or(cut_off.clone())?;
            let point = cursor.mpi().ok_or(cut_off)?;
            let curve = match (algorithm, oid) {
                (19, OID_P256) => Curve::P256,
                (19, OID_P384) => Curve::P384,
                (19, OID_P521) => Curve::P521,
                (22, OID_ED25519) => {
                    // The prefix says that the point is in its own format.
                    let point = point.strip_prefix(&[0x40]).ok_or(Fault::Malformed {
                        what: "point of an Ed25519 key",
                    })?;
                    return Ok(KeyMaterial::Ed25519 { point });
                }
                _ => {
                    return Err(Fault::Curve {
                        oid: oid.to_owned(),
                    });
                }
            };
            Ok(KeyMaterial::Ecdsa { curve, point })
        }
        27 => {
            let point = cursor.take(32).ok_or(cut_off)?;
            Ok(KeyMaterial::Ed25519 { point })
        }
        id => Err(Fault::Algorithm { id }),
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyPacket, MAX_KEY_BYTES};

    fn fault(body: &[u8]) -> String {
        match KeyPacket::decode(body) {
            Err(fault) => fault.to_string(),
            Ok(key) => key.material.map_or_else(
                |fault| fault.to_string(),
                |material| format!("{material:?}"),
            ),
        }
    }

    #[test]
    fn keys_that_are_none_say_why() {
        let head = |algorithm| vec![4, 0, 0, 0, 1, algorithm];
        let with = |algorithm, cursor: &[u8]| [&head(algorithm)[..], cursor].concat();
        let huge = [4].repeat(MAX_KEY_BYTES + 1);
        for (body, message) in [
            (vec![], "openpgp: invalid data: public key is empty"),
            (
                vec![3, 1],
                "openpgp: unsupported feature: public key packet version 3",
            ),
            (
                vec![6, 1],
                "openpgp: unsupported feature: public key packet version 6",
            ),
            (vec![4, 1], "openpgp: invalid data: public key is cut off"),
            (huge, "openpgp: invalid data: public key is too large"),
            (head(1), "openpgp: invalid data: public key is cut off"),
            (
                with(1, &[0, 9, 1, 1]),
                "openpgp: invalid data: public key is cut off",
            ),
            (head(17), "rejecting unsupported pubkey algorithm: DSA"),
            (
                head(99),
                "rejecting unsupported pubkey algorithm: number 99",
            ),
            (
                with(19, &[2, 0x2a, 0x03, 0, 0]),
                "rejecting unsupported pubkey algorithm: curve 2a03",
            ),
            (
                with(19, &[9]),
                "openpgp: invalid data: public key is cut off",
            ),
            (
                with(22, &[&[9][..], super::OID_ED25519, &[0, 1, 1]].concat()),
                "openpgp: invalid data: point of an Ed25519 key",
            ),
            (
                with(27, &[1; 31]),
                "openpgp: invalid data: public key is cut off",
            ),
        ] {
            assert_eq!(fault(&body), message, "{body:?}");
        }
    }

    #[test]
    fn an_ecdsa_curve_does_not_become_one_of_eddsa() {
        let body = [&[4, 0, 0, 0, 1, 22, 8][..], super::OID_P256, &[0, 1, 1]].concat();
        assert!(fault(&body).starts_with("rejecting unsupported pubkey algorithm: curve 2a86"));
        let body = [&[4, 0, 0, 0, 1, 19, 8][..], super::OID_P256, &[0, 3, 4]].concat();
        assert_eq!(fault(&body), "Ecdsa { curve: P256, point: [4] }");
    }
}
