//! Packets of signatures, version 4 (RFC 9580, section 5.2).

use aws_lc_rs::digest::{Context, Digest};

use crate::cursor::Cursor;
use crate::material::{ED25519_SIGNATURE_BYTES, Hash, SignatureValues, left_padded};
use crate::openpgp::fault::{Fault, KeyId};
use crate::openpgp::key::KeyPacket;
use crate::openpgp::packet::length;

/// Types of signatures (section 5.2.1).
pub(crate) mod kind {
    pub(crate) const BINARY: u8 = 0x00;
    pub(crate) const TEXT: u8 = 0x01;
    pub(crate) const CERTIFICATION_FIRST: u8 = 0x10;
    pub(crate) const CERTIFICATION_LAST: u8 = 0x13;
    pub(crate) const SUBKEY_BINDING: u8 = 0x18;
    pub(crate) const PRIMARY_KEY_BINDING: u8 = 0x19;
    pub(crate) const DIRECT_KEY: u8 = 0x1f;
    pub(crate) const KEY_REVOCATION: u8 = 0x20;
    pub(crate) const SUBKEY_REVOCATION: u8 = 0x28;
    pub(crate) const CERTIFICATION_REVOCATION: u8 = 0x30;
}

/// The key may sign data.
pub(crate) const FLAG_SIGN: u8 = 0x02;

/// Why a key was revoked (section 5.2.3.31).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevocationReason {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl RevocationReason {
    /// Whether earlier signatures stay valid: the key was replaced, or is not used any more.
    pub(crate) fn is_soft(&self) -> bool {
        matches!(self.code, 1 | 3)
    }
}

/// A signature of version 4.
#[derive(Debug, Clone)]
pub(crate) struct SignaturePacket<'a> {
    pub(crate) kind: u8,
    pub(crate) algorithm: u8,
    hash: u8,
    /// The part of the packet that is signed, from its version on.
    hashed: &'a [u8],
    /// Creation time, in seconds since 1970.
    pub(crate) created: u32,
    /// Seconds after `created`; zero is for ever.
    lifetime: u32,
    /// Lifetime of the bound key, in seconds after the key's creation; zero is for ever.
    pub(crate) key_lifetime: Option<u32>,
    issuer: Option<KeyId>,
    issuer_fingerprint: Option<[u8; 20]>,
    pub(crate) flags: Option<u8>,
    pub(crate) is_primary_user: bool,
    pub(crate) reason: Option<RevocationReason>,
    /// The signature of the subkey over the primary key.
    pub(crate) embedded: Option<&'a [u8]>,
    /// A critical subpacket or notation that is not known: the signature must not be accepted.
    unknown_critical: Option<Fault>,
    numbers: Cursor<'a>,
}

fn malformed(what: &'static str) -> Fault {
    Fault::Malformed { what }
}

impl<'a> SignaturePacket<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, Fault> {
        let cut_off = || malformed("signature is cut off");
        let mut cursor = Cursor::new(body);
        let version = cursor.u8().ok_or_else(cut_off)?;
        if version != 4 {
            let what = "signature";
            return Err(Fault::Version { what, version });
        }
        let [kind, algorithm, hash] = cursor.array().ok_or_else(cut_off)?;
        let hashed_length = usize::from(cursor.u16().ok_or_else(cut_off)?);
        let hashed_subpackets = cursor.take(hashed_length).ok_or_else(cut_off)?;
        let (hashed, _) = body.split_at(6 + hashed_length);
        let unhashed_length = usize::from(cursor.u16().ok_or_else(cut_off)?);
        let unhashed_subpackets = cursor.take(unhashed_length).ok_or_else(cut_off)?;
        // Two bytes of the digest, which allow a quick check; the full one is made anyway.
        cursor.u16().ok_or_else(cut_off)?;
        let mut signature = Self {
            kind,
            algorithm,
            hash,
            hashed,
            created: 0,
            lifetime: 0,
            key_lifetime: None,
            issuer: None,
            issuer_fingerprint: None,
            flags: None,
            is_primary_user: false,
            reason: None,
            embedded: None,
            unknown_critical: None,
            numbers: cursor,
        };
        let mut created = None;
        let mut subpackets = Cursor::new(hashed_subpackets);
        while !subpackets.is_empty() {
            let (number, data) = subpacket(&mut subpackets)?;
            if number & 0x7f == 2 {
                created = Some(seconds(data)?);
            } else {
                signature.take_hashed(number, data)?;
            }
        }
        signature.created = created.ok_or(malformed("no creation time in signature"))?;
        // The unhashed ones are not signed: they help to find the key, or are signatures themselves.
        let mut subpackets = Cursor::new(unhashed_subpackets);
        while !subpackets.is_empty() {
            let (number, data) = subpacket(&mut subpackets)?;
            signature.take_any(number & 0x7f, data)?;
        }
        Ok(signature)
    }

    fn take_hashed(&mut self, number: u8, data: &'a [u8]) -> Result<(), Fault> {
        let is_critical = number & 0x80 != 0;
        match number & 0x7f {
            3 => self.lifetime = seconds(data)?,
            9 => self.key_lifetime = Some(seconds(data)?),
            20 if is_critical => {
                let mut cursor = Cursor::new(data);
                let name = cursor
                    .take(4)
                    .and_then(|_flags| cursor.u16().zip(cursor.u16()))
                    .and_then(|(name, _value)| cursor.take(usize::from(name)))
                    .ok_or(malformed("notation data subpacket with bad length"))?;
                self.unknown_critical = Some(Fault::Notation {
                    name: String::from_utf8_lossy(name).into_owned(),
                });
            }
            25 => self.is_primary_user = data.first().is_some_and(|byte| *byte != 0),
            27 => self.flags = Some(data.first().copied().unwrap_or_default()),
            29 => {
                let (code, text) = data
                    .split_first()
                    .ok_or(malformed("empty revocation reason subpacket"))?;
                self.reason = Some(RevocationReason {
                    code: *code,
                    text: String::from_utf8_lossy(text).into_owned(),
                });
            }
            number @ (16 | 32 | 33) => self.take_any(number, data)?,
            // Known and not needed: exportability, trust, preferences, servers, features, recipients and the like.
            4..=7 | 11 | 12 | 20..=24 | 26 | 28 | 30 | 31 | 34 | 35 | 37 | 39 => {}
            number if is_critical => self.unknown_critical = Some(Fault::Subpacket { number }),
            _ => {}
        }
        Ok(())
    }

    /// Reads a subpacket that may also stand in the unsigned part. The signed part was read first and wins.
    fn take_any(&mut self, number: u8, data: &'a [u8]) -> Result<(), Fault> {
        match number {
            16 => {
                // The dropped errors here say only that the length is another.
                let id = <[u8; 8]>::try_from(data);
                let id = id.map_err(|_| malformed("issuer subpacket with bad length"))?;
                self.issuer.get_or_insert(KeyId(u64::from_be_bytes(id)));
            }
            // Fingerprints of other versions name keys that are not read.
            33 => {
                if let Some((4, fingerprint)) = data.split_first() {
                    let fingerprint = <[u8; 20]>::try_from(fingerprint);
                    let fingerprint =
                        fingerprint.map_err(|_| malformed("bad fingerprint length"))?;
                    self.issuer_fingerprint.get_or_insert(fingerprint);
                }
            }
            32 if self.embedded.is_some() => {
                return Err(malformed("cannot have multiple embedded signatures"));
            }
            32 => self.embedded = Some(data),
            _ => {}
        }
        Ok(())
    }

    /// The key id that the signature names as its maker.
    pub(crate) fn issuer(&self) -> Option<KeyId> {
        let of_fingerprint = self.issuer_fingerprint.map(|fingerprint| {
            let (_, id) = fingerprint
                .split_last_chunk()
                .expect("a fingerprint has twenty bytes");
            KeyId(u64::from_be_bytes(*id))
        });
        of_fingerprint.or(self.issuer)
    }

    /// Whether the signature names the key as its maker.
    pub(crate) fn is_by(&self, key: &KeyPacket<'_>) -> bool {
        match (self.issuer_fingerprint, self.issuer) {
            (Some(fingerprint), _) => fingerprint == key.fingerprint,
            (None, issuer) => issuer == Some(key.id()),
        }
    }

    /// Whether it is expired at the time, in seconds since 1970.
    pub(crate) fn is_expired(&self, at: u64) -> bool {
        self.lifetime != 0 && at > u64::from(self.created) + u64::from(self.lifetime)
    }

    /// Its hash, if that is accepted.
    pub(crate) fn hash(&self) -> Result<Hash, Fault> {
        match self.hash {
            8 => Ok(Hash::Sha256),
            9 => Ok(Hash::Sha384),
            10 => Ok(Hash::Sha512),
            id => Err(Fault::Hash { id }),
        }
    }

    /// Refuses hashes and algorithms that are not accepted.
    pub(crate) fn check_algorithms(&self) -> Result<(), Fault> {
        self.hash()?;
        match self.algorithm {
            1 | 3 | 19 | 22 | 27 => Ok(()),
            id => Err(Fault::Algorithm { id }),
        }
    }

    /// Finishes the digest: after the data, the signed part of the packet is hashed.
    pub(crate) fn digest(&self, mut context: Context) -> Digest {
        let length = u32::try_from(self.hashed.len()).expect("its length has two bytes");
        context.update(self.hashed);
        context.update(&[4, 0xff]);
        context.update(&length.to_be_bytes());
        context.finish()
    }

    /// Checks that the key made it over the digest, and that it has no unknown critical part.
    pub(crate) fn check(&self, key: &KeyPacket<'_>, digest: &Digest) -> Result<(), Fault> {
        if let Some(unknown_critical) = &self.unknown_critical {
            return Err(unknown_critical.clone());
        }
        let hash = self.hash()?;
        let material = key.material.as_ref().map_err(Clone::clone)?;
        if self.algorithm != key.algorithm {
            return Err(Fault::Wrong {
                source: crate::VerifyError::Algorithm,
            });
        }
        material.verify(hash, digest, &self.values()?)?;
        Ok(())
    }

    /// Checks that the key made it over the data that `hashed` adds to the digest.
    pub(crate) fn check_over(
        &self,
        key: &KeyPacket<'_>,
        hashed: impl FnOnce(&mut Context),
    ) -> Result<(), Fault> {
        let mut context = self.hash()?.context();
        hashed(&mut context);
        self.check(key, &self.digest(context))
    }

    fn values(&self) -> Result<SignatureValues<'a>, Fault> {
        let cut_off = malformed("signature is cut off");
        let mut cursor = self.numbers;
        match self.algorithm {
            1 | 3 => Ok(SignatureValues::Rsa(cursor.mpi().ok_or(cut_off)?)),
            19 => {
                let (r, s) = cursor.mpi().zip(cursor.mpi()).ok_or(cut_off)?;
                Ok(SignatureValues::Ecdsa { r, s })
            }
            22 => {
                let (r, s) = cursor.mpi().zip(cursor.mpi()).ok_or(cut_off)?;
                // Integers are stored without leading zeros.
                left_padded(r, 32)
                    .zip(left_padded(s, 32))
                    .and_then(|(r, s)| {
                        <[u8; ED25519_SIGNATURE_BYTES]>::try_from([r, s].concat()).ok()
                    })
                    .map(SignatureValues::Ed25519)
                    .ok_or(malformed("numbers of an EdDSA signature are too long"))
            }
            27 => cursor.array().map(SignatureValues::Ed25519).ok_or(cut_off),
            id => Err(Fault::Algorithm { id }),
        }
    }
}

fn subpacket<'a>(bytes: &mut Cursor<'a>) -> Result<(u8, &'a [u8]), Fault> {
    let truncated = malformed("signature subpacket truncated");
    let first = bytes.u8().ok_or(truncated.clone())?;
    let length = length(first, bytes).ok_or(truncated.clone())?;
    // The dropped error says only that the number is out of range.
    let length = usize::try_from(length).map_err(|_| truncated.clone())?;
    let body = bytes.take(length).ok_or(truncated)?;
    match body.split_first() {
        Some((number, data)) => Ok((*number, data)),
        None => Err(malformed("zero length signature subpacket")),
    }
}

fn seconds(data: &[u8]) -> Result<u32, Fault> {
    let bytes = <[u8; 4]>::try_from(data);
    bytes
        .map(u32::from_be_bytes)
        .map_err(|_| malformed("time subpacket with bad length"))
}
