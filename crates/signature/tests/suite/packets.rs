//! A small writer of OpenPGP, for keys and signatures that gpg does not make. Keys are Ed25519 from a seed.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// 1 January 2025.
pub(crate) const BORN: u32 = 1_735_689_600;
pub(crate) const DAY: u32 = 86_400;

pub(crate) struct Secret {
    pair: Ed25519KeyPair,
    /// Of the key packet.
    pub(crate) body: Vec<u8>,
    algorithm: u8,
}

impl Secret {
    /// A key in the old notation, as gpg has it.
    pub(crate) fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let oid = [9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
        let point = [&[0x01, 0x07, 0x40][..], pair.public_key().as_ref()].concat();
        let body = [&[4][..], &BORN.to_be_bytes(), &[22], &oid, &point].concat();
        Self {
            pair,
            body,
            algorithm: 22,
        }
    }

    /// The same key in the notation of RFC 9580.
    pub(crate) fn new_notation(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let point = pair.public_key().as_ref();
        let body = [&[4][..], &BORN.to_be_bytes(), &[27], point].concat();
        Self {
            pair,
            body,
            algorithm: 27,
        }
    }

    pub(crate) fn hashed(&self) -> Vec<u8> {
        let length = u16::try_from(self.body.len()).unwrap();
        [&[0x99][..], &length.to_be_bytes(), &self.body].concat()
    }

    pub(crate) fn fingerprint(&self) -> Vec<u8> {
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        context.update(&self.hashed());
        context.finish().as_ref().to_vec()
    }

    pub(crate) fn id(&self) -> String {
        let bytes = self.fingerprint();
        bytes[12..]
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect()
    }
}

/// What a signature says of itself.
#[derive(Clone)]
pub(crate) struct SignatureTemplate {
    pub(crate) kind: u8,
    pub(crate) hash: u8,
    pub(crate) created: u32,
    pub(crate) hashed: Vec<Vec<u8>>,
    pub(crate) unhashed: Vec<Vec<u8>>,
    pub(crate) with_issuer: bool,
}

pub(crate) fn template(kind: u8, subpackets: &[Vec<u8>]) -> SignatureTemplate {
    SignatureTemplate {
        kind,
        hash: 8,
        created: BORN + DAY,
        hashed: subpackets.to_vec(),
        unhashed: Vec::new(),
        with_issuer: true,
    }
}

pub(crate) fn subpacket(number: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len() + 1).unwrap();
    if length < 192 {
        [&[u8::try_from(length).unwrap(), number][..], data].concat()
    } else {
        [&[255][..], &length.to_be_bytes(), &[number], data].concat()
    }
}

pub(crate) fn flags(flags: u8) -> Vec<u8> {
    subpacket(27, &[flags])
}

pub(crate) fn seconds(number: u8, seconds: u32) -> Vec<u8> {
    subpacket(number, &seconds.to_be_bytes())
}

impl SignatureTemplate {
    /// The body of the signature packet, made by the key over the bytes.
    pub(crate) fn sign(&self, by: &Secret, over: &[u8]) -> Vec<u8> {
        let mut hashed = seconds(2, self.created);
        if self.with_issuer {
            hashed.extend(subpacket(33, &[&[4][..], &by.fingerprint()].concat()));
        }
        hashed.extend(self.hashed.concat());
        let length = u16::try_from(hashed.len()).unwrap().to_be_bytes();
        let head = [
            &[4, self.kind, by.algorithm, self.hash][..],
            &length,
            &hashed,
        ]
        .concat();
        let algorithm = match self.hash {
            2 => &SHA1_FOR_LEGACY_USE_ONLY,
            10 => &SHA512,
            _ => &SHA256,
        };
        let mut context = Context::new(algorithm);
        context.update(over);
        context.update(&head);
        context.update(&[4, 0xff]);
        context.update(&u32::try_from(head.len()).unwrap().to_be_bytes());
        let digest = context.finish();
        let value = by.pair.sign(digest.as_ref());
        let unhashed = self.unhashed.concat();
        let length = u16::try_from(unhashed.len()).unwrap().to_be_bytes();
        let numbers = match by.algorithm {
            27 => value.as_ref().to_vec(),
            _ => [
                &[1, 0][..],
                &value.as_ref()[..32],
                &[1, 0],
                &value.as_ref()[32..],
            ]
            .concat(),
        };
        [
            &head[..],
            &length,
            &unhashed,
            &digest.as_ref()[..2],
            &numbers,
        ]
        .concat()
    }
}

pub(crate) fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0xc0 | tag, 255][..], &length, body].concat()
}

pub(crate) fn armored(label: &str, packets: &[Vec<u8>]) -> Vec<u8> {
    let text = STANDARD.encode(packets.concat());
    format!("-----BEGIN PGP {label}-----\n\n{text}\n-----END PGP {label}-----\n").into_bytes()
}

/// A certificate that grows packet by packet.
pub(crate) struct Builder<'s> {
    pub(crate) primary: &'s Secret,
    pub(crate) packets: Vec<Vec<u8>>,
}

pub(crate) const NAME: &[u8] = b"user";

impl<'s> Builder<'s> {
    /// The key alone.
    pub(crate) fn bare(primary: &'s Secret) -> Self {
        let packets = vec![packet(6, &primary.body)];
        Self { primary, packets }
    }

    /// A key that certifies and signs, with a user.
    pub(crate) fn new(primary: &'s Secret) -> Self {
        Self::bare(primary).user(NAME, &template(0x13, &[flags(3)]))
    }

    pub(crate) fn over_user(primary: &Secret, name: &[u8]) -> Vec<u8> {
        let length = u32::try_from(name.len()).unwrap().to_be_bytes();
        [&primary.hashed()[..], &[0xb4], &length, name].concat()
    }

    pub(crate) fn user(mut self, name: &[u8], template: &SignatureTemplate) -> Self {
        self.packets.push(packet(13, name));
        self.on_user(name, template)
    }

    /// One more signature on a user.
    pub(crate) fn on_user(mut self, name: &[u8], template: &SignatureTemplate) -> Self {
        let over = Self::over_user(self.primary, name);
        self.packets
            .push(packet(2, &template.sign(self.primary, &over)));
        self
    }

    /// A signature over the primary key alone.
    pub(crate) fn on_key(mut self, template: &SignatureTemplate) -> Self {
        let over = self.primary.hashed();
        self.packets
            .push(packet(2, &template.sign(self.primary, &over)));
        self
    }

    /// A subkey with a binding, in which the subkey's own signature may stand.
    pub(crate) fn subkey(
        mut self,
        subkey: &Secret,
        template: &SignatureTemplate,
        cross: Option<&SignatureTemplate>,
    ) -> Self {
        self.packets.push(packet(14, &subkey.body));
        self.on_subkey(subkey, template, cross)
    }

    pub(crate) fn on_subkey(
        mut self,
        subkey: &Secret,
        template: &SignatureTemplate,
        cross: Option<&SignatureTemplate>,
    ) -> Self {
        let over = [self.primary.hashed(), subkey.hashed()].concat();
        let mut template = template.clone();
        if let Some(cross) = cross {
            template
                .unhashed
                .push(subpacket(32, &cross.sign(subkey, &over)));
        }
        self.packets
            .push(packet(2, &template.sign(self.primary, &over)));
        self
    }

    pub(crate) fn raw(mut self, tag: u8, body: &[u8]) -> Self {
        self.packets.push(packet(tag, body));
        self
    }

    pub(crate) fn ring(&self) -> Vec<u8> {
        armored("PUBLIC KEY BLOCK", &self.packets)
    }
}
