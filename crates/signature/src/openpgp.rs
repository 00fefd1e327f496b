//! Detached OpenPGP signatures, as `gpg --armor --detach-sign` and `git commit -S` make them.
//!
//! | read                                   | refused by name                                            |
//! |----------------------------------------|------------------------------------------------------------|
//! | packets of version 4                   | versions 3, 5 and 6                                        |
//! | RSA of 2,048 to 8,192 bits, ECDSA on P-256, P-384 and P-521, Ed25519 | DSA, other curves, Ed448     |
//! | SHA-256, SHA-384, SHA-512; also where a key signs itself | SHA-1, MD5, SHA-224 and the others       |
//! | armored public keys, one block or several | secret keys, bytes without armor                        |
//!
//! Facts: RFC 4880 and RFC 9580; `util/pgpsign` of BuildKit v0.34.2 for what is accepted and for the messages.

mod certificate;
mod fault;
mod key;
mod packet;
mod packet_signature;

use std::io::Read;

use aws_lc_rs::digest::Context;
use oci::ErrorKind;

use crate::armor::{ArmorBlock, ArmorBlocks, ArmorError};
use crate::openpgp::certificate::{Ring, Signer};
use crate::openpgp::packet_signature::{SignaturePacket, kind};
use crate::{ExpiryJudgedAt, Policy};

pub use fault::{Fault, KeyId};
pub use packet::PacketError;

/// Seconds by which clocks may differ.
const MAX_CLOCK_SKEW_SECONDS: u64 = 300;
const PUBLIC_KEY_BLOCK: &str = "PGP PUBLIC KEY BLOCK";

/// A detached signature is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenPgpError {
    /// The signature is not armored text.
    #[error("failed to decode armored signature: {source}")]
    SignatureArmor {
        /// The error of the armor.
        source: ArmorError,
    },
    /// The signature is not a sequence of packets.
    #[error("failed to read next packet: {source}")]
    SignaturePacket {
        /// The error of the packets.
        source: PacketError,
    },
    /// None of the packets is a signature.
    #[error("no signature packet found")]
    NoSignature,
    /// The signature cannot be accepted, whatever the keys are.
    #[error("{source}")]
    Signature {
        /// The fault.
        source: Fault,
    },
    /// The keys are not armored text.
    #[error("failed to read armored public key: {source}")]
    KeyArmor {
        /// The error of the armor.
        source: ArmorError,
    },
    /// The block holds something other than public keys.
    #[error("expected public key block, got: {label}")]
    NotPublicKey {
        /// The label of the block.
        label: String,
    },
    /// The keys are not a sequence of packets.
    #[error("failed to read armored public key: {source}")]
    KeyPacket {
        /// The error of the packets.
        source: PacketError,
    },
    /// None of the keys can be read.
    #[error("failed to read armored public key: {}", source.as_ref().map_or("no key found".to_owned(), ToString::to_string))]
    NoKey {
        /// The fault of the last one.
        source: Option<Fault>,
    },
    /// No key confirms the signature.
    #[error("signature by {issuer}: {source}")]
    Signer {
        /// The key id that the signature names.
        issuer: KeyId,
        /// The fault.
        source: Fault,
    },
    /// The signed data cannot be read.
    #[error("failed to read signed data: {source}")]
    Read {
        /// The system's error.
        source: std::io::Error,
    },
}

impl OpenPgpError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::SignatureArmor { .. }
            | Self::SignaturePacket { .. }
            | Self::NoSignature
            | Self::KeyArmor { .. }
            | Self::NotPublicKey { .. }
            | Self::KeyPacket { .. }
            | Self::NoKey { .. } => ErrorKind::Invalid,
            Self::Signature { .. } | Self::Signer { .. } => ErrorKind::Denied,
            Self::Read { source } => ErrorKind::of_host(source),
        }
    }
}

/// Checks that a key of the ring made the signature over everything that the reader gives. Ring and signature are armored text of at
/// most [`MAX_BYTES`](crate::MAX_BYTES) and 1000 packets each; the signed data has no bound and is read once, or not at all when
/// the signature is refused before.
///
/// # Errors
/// When no key confirms the signature, and when the signed data cannot be read.
pub fn verify_detached(
    signed: &mut dyn Read,
    signature: &[u8],
    public_keys: &[u8],
    policy: &Policy,
) -> Result<(), OpenPgpError> {
    let block = signature_block(signature)?;
    let signatures = signatures(&block)?;
    let blocks = key_blocks(public_keys)?;
    let ring = ring(&blocks)?;
    let (signature, signers) = choose(&signatures, &ring)?;
    let issuer = signature.issuer();
    let failed = |source| match issuer {
        Some(issuer) => OpenPgpError::Signer { issuer, source },
        None => OpenPgpError::Signature { source },
    };
    if signers.is_empty() {
        return Err(failed(match issuer {
            Some(_) => Fault::UnknownIssuer,
            None => Fault::NoIssuer,
        }));
    }
    let created = u64::from(signature.created);
    if created > policy.now.saturating_add(MAX_CLOCK_SKEW_SECONDS) {
        return Err(failed(Fault::Future {
            created: signature.created,
        }));
    }
    let at = match policy.expiry {
        ExpiryJudgedAt::Signing => created,
        // With a clock that is a little late, the key of a new signature would not exist yet.
        ExpiryJudgedAt::Now => policy.now.max(created),
    };
    let mut context = signature.hash().map_err(failed)?.context();
    hash(signed, signature.kind == kind::TEXT, &mut context)
        .map_err(|source| OpenPgpError::Read { source })?;
    let digest = signature.digest(context);
    let mut fault = Fault::UnknownIssuer;
    for signer in &signers {
        let result = signature
            .check(signer.key(), &digest)
            .and_then(|()| signer.check(signature, at))
            .and_then(|()| match signature.is_expired(at) {
                true => Err(Fault::SignatureExpired),
                false => Ok(()),
            });
        match result {
            Ok(()) => return Ok(()),
            Err(error) => fault = error,
        }
    }
    Err(failed(fault))
}

fn signature_block(text: &[u8]) -> Result<ArmorBlock, OpenPgpError> {
    let armor = |source| OpenPgpError::SignatureArmor { source };
    let mut blocks = ArmorBlocks::new(text).map_err(armor)?;
    let block = blocks.next().unwrap_or(Err(ArmorError::Missing));
    block.map_err(armor)
}

/// The signatures of a block; as in BuildKit, the first packet must be a signature.
fn signatures(block: &ArmorBlock) -> Result<Vec<SignaturePacket<'_>>, OpenPgpError> {
    let mut signatures = Vec::new();
    for packet in packet::Packets::new(&block.bytes, &mut 0) {
        let packet = packet.map_err(|source| OpenPgpError::SignaturePacket { source })?;
        let signature = match packet.tag {
            packet::SIGNATURE => SignaturePacket::decode(packet.body),
            _ => Err(Fault::Malformed {
                what: "non signature packet found",
            }),
        };
        signatures.push(signature.map_err(|source| OpenPgpError::Signature { source })?);
    }
    if signatures.is_empty() {
        return Err(OpenPgpError::NoSignature);
    }
    Ok(signatures)
}

fn key_blocks(text: &[u8]) -> Result<Vec<ArmorBlock>, OpenPgpError> {
    let armor = |source| OpenPgpError::KeyArmor { source };
    let mut blocks = Vec::new();
    for block in ArmorBlocks::new(text).map_err(armor)? {
        let block = block.map_err(armor)?;
        // DIFFERS: BuildKit takes secret keys here as well, which nobody should hand to a daemon.
        if block.label != PUBLIC_KEY_BLOCK {
            return Err(OpenPgpError::NotPublicKey { label: block.label });
        }
        blocks.push(block);
    }
    if blocks.is_empty() {
        return Err(armor(ArmorError::Missing));
    }
    Ok(blocks)
}

fn ring(blocks: &[ArmorBlock]) -> Result<Ring<'_>, OpenPgpError> {
    let (mut ring, mut packets) = (Ring::default(), 0);
    for block in blocks {
        ring.read(packet::Packets::new(&block.bytes, &mut packets))
            .map_err(|source| OpenPgpError::KeyPacket { source })?;
    }
    if ring.is_empty() {
        return Err(OpenPgpError::NoKey {
            source: ring.skipped,
        });
    }
    Ok(ring)
}

/// The first signature that names a key of the ring; else the first, without a key. Those before it must be acceptable, too.
fn choose<'s, 'a, 'r, 'k>(
    signatures: &'s [SignaturePacket<'a>],
    ring: &'r Ring<'k>,
) -> Result<(&'s SignaturePacket<'a>, Vec<Signer<'r, 'k>>), OpenPgpError> {
    let refused = |source| OpenPgpError::Signature { source };
    for signature in signatures {
        signature.check_algorithms().map_err(refused)?;
        let signers = ring.signers(signature);
        if !signers.is_empty() {
            if !matches!(signature.kind, kind::BINARY | kind::TEXT) {
                let kind = signature.kind;
                return Err(refused(Fault::Kind { kind }));
            }
            return Ok((signature, signers));
        }
    }
    let first = signatures.first().ok_or(OpenPgpError::NoSignature)?;
    Ok((first, Vec::new()))
}

/// Hashes the signed data; of text, every end of a line as carriage return and line feed.
fn hash(signed: &mut dyn Read, is_text: bool, context: &mut Context) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut last = 0;
    loop {
        let length = match signed.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let (bytes, _) = buffer.split_at(length);
        if !is_text {
            context.update(bytes);
            continue;
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match line {
                [] => {}
                [b'\n'] if last == b'\r' => context.update(b"\n"),
                [text @ .., b'\n'] if text.last() != Some(&b'\r') => {
                    context.update(text);
                    context.update(b"\r\n");
                }
                line => context.update(line),
            }
            last = line.last().copied().unwrap_or(last);
        }
    }
}
