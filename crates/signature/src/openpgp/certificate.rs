//! Certificates: a primary key, its users and its subkeys, each with signatures that bind it (RFC 9580, section 10.1).
//!
//! Reading only sorts packets. The bindings of a key are checked when a signature names that key, so that other keys of a ring
//! cost nothing. A signature that cannot be checked never helps a key: such a binding is ignored, such a revocation counts.

use aws_lc_rs::digest::Context;

use crate::openpgp::fault::{Fault, KeyId};
use crate::openpgp::key::KeyPacket;
use crate::openpgp::packet::{
    PUBLIC_KEY, PUBLIC_SUBKEY, Packet, PacketError, Packets, SIGNATURE, USER_ID,
};
use crate::openpgp::packet_signature::{FLAG_SIGN, SignaturePacket, kind};

/// Bytes of a user's name that are accepted. It is hashed again for each signature that follows it.
const MAX_USER_ID_BYTES: usize = 2048;

/// A signature packet that follows a key, a user or a subkey.
#[derive(Debug)]
enum AttachedSignature<'a> {
    Read(Box<SignaturePacket<'a>>),
    /// A signature of another version, or a malformed one; with its type, if that can be read.
    Unreadable {
        kind: Option<u8>,
    },
}

impl<'a> AttachedSignature<'a> {
    fn decode(body: &'a [u8]) -> Self {
        match SignaturePacket::decode(body) {
            Ok(signature) => Self::Read(Box::new(signature)),
            // Version 3 has a length before the type.
            Err(_) => Self::Unreadable {
                kind: body
                    .get(if body.first() == Some(&3) { 2 } else { 1 })
                    .copied(),
            },
        }
    }

    fn is_unreadable(&self, of_kind: u8) -> bool {
        matches!(self, Self::Unreadable { kind } if *kind == Some(of_kind))
    }
}

/// A primary key, a user's name or a subkey, with the signatures that follow it.
#[derive(Debug)]
struct Component<'a, T> {
    of: T,
    signatures: Vec<AttachedSignature<'a>>,
}

impl<'a, T> Component<'a, T> {
    fn new(of: T) -> Self {
        Self {
            of,
            signatures: Vec::new(),
        }
    }

    fn readable(&self) -> impl Iterator<Item = &SignaturePacket<'a>> {
        self.signatures
            .iter()
            .filter_map(|attached| match attached {
                AttachedSignature::Read(signature) => Some(signature.as_ref()),
                AttachedSignature::Unreadable { .. } => None,
            })
    }
}

/// A primary key with what belongs to it.
#[derive(Debug)]
pub(crate) struct Certificate<'a> {
    primary: Component<'a, KeyPacket<'a>>,
    users: Vec<Component<'a, &'a [u8]>>,
    subkeys: Vec<Component<'a, KeyPacket<'a>>>,
}

/// The component to which the next signatures belong.
#[derive(Debug, Clone, Copy)]
enum AttachPoint {
    Primary(usize),
    User(usize, usize),
    Subkey(usize, usize),
    /// After a packet that is skipped.
    Nowhere(Option<usize>),
}

impl AttachPoint {
    fn certificate(self) -> Option<usize> {
        match self {
            Self::Primary(at) | Self::User(at, _) | Self::Subkey(at, _) => Some(at),
            Self::Nowhere(at) => at,
        }
    }
}

/// All certificates that the user names.
#[derive(Debug, Default)]
pub(crate) struct Ring<'a> {
    certificates: Vec<Certificate<'a>>,
    /// The fault of the last certificate that was skipped.
    pub(crate) skipped: Option<Fault>,
}

impl<'a> Ring<'a> {
    /// Adds the certificates of the packets. Copies of one certificate are merged, so that a revocation in one copy counts for
    /// all.
    pub(crate) fn read(&mut self, packets: Packets<'a, '_>) -> Result<(), PacketError> {
        let mut place = AttachPoint::Nowhere(None);
        for packet in packets {
            let Packet { tag, body } = packet?;
            place = match (tag, place.certificate()) {
                (PUBLIC_KEY, _) => match KeyPacket::decode(body) {
                    Ok(key) => AttachPoint::Primary(self.certificate(key)),
                    Err(fault) => {
                        self.skipped = Some(fault);
                        AttachPoint::Nowhere(None)
                    }
                },
                (USER_ID, Some(at)) if body.len() <= MAX_USER_ID_BYTES => {
                    let users = &mut self.certificates[at].users;
                    AttachPoint::User(at, position(users, body, |one, other| one == other))
                }
                (PUBLIC_SUBKEY, Some(at)) => match KeyPacket::decode(body) {
                    Ok(key) => {
                        let subkeys = &mut self.certificates[at].subkeys;
                        AttachPoint::Subkey(
                            at,
                            position(subkeys, key, |one, other| one.body == other.body),
                        )
                    }
                    Err(_) => AttachPoint::Nowhere(Some(at)),
                },
                (SIGNATURE, Some(_)) => {
                    self.attach(place, AttachedSignature::decode(body));
                    place
                }
                // Trust of a local ring, markers and padding may stand between other packets and do not matter.
                (10 | 12 | 21, _) => place,
                (_, at) => AttachPoint::Nowhere(at),
            };
        }
        Ok(())
    }

    fn certificate(&mut self, key: KeyPacket<'a>) -> usize {
        let same = |certificate: &Certificate<'_>| certificate.primary.of.body == key.body;
        self.certificates.iter().position(same).unwrap_or_else(|| {
            self.certificates.push(Certificate {
                primary: Component::new(key),
                users: Vec::new(),
                subkeys: Vec::new(),
            });
            self.certificates.len() - 1
        })
    }

    fn attach(&mut self, place: AttachPoint, signature: AttachedSignature<'a>) {
        let signatures = match place {
            AttachPoint::Primary(at) => &mut self.certificates[at].primary.signatures,
            AttachPoint::User(at, user) => &mut self.certificates[at].users[user].signatures,
            AttachPoint::Subkey(at, subkey) => {
                &mut self.certificates[at].subkeys[subkey].signatures
            }
            AttachPoint::Nowhere(_) => return,
        };
        signatures.push(signature);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The keys that the signature names as its maker.
    pub(crate) fn signers<'r>(&'r self, signature: &SignaturePacket<'_>) -> Vec<Signer<'r, 'a>> {
        let mut signers = Vec::new();
        for certificate in &self.certificates {
            if signature.is_by(&certificate.primary.of) {
                signers.push(Signer {
                    certificate,
                    subkey: None,
                });
            }
            for subkey in &certificate.subkeys {
                if signature.is_by(&subkey.of) {
                    signers.push(Signer {
                        certificate,
                        subkey: Some(subkey),
                    });
                }
            }
        }
        signers
    }
}

fn position<'a, T>(
    components: &mut Vec<Component<'a, T>>,
    part: T,
    same: impl Fn(&T, &T) -> bool,
) -> usize {
    let index = components
        .iter()
        .position(|component| same(&component.of, &part));
    index.unwrap_or_else(|| {
        components.push(Component::new(part));
        components.len() - 1
    })
}

/// The signature that binds a key to its certificate, and its conditions.
#[derive(Debug)]
struct Binding<'r, 'a> {
    signature: &'r SignaturePacket<'a>,
    flags: Option<u8>,
    key_lifetime: u32,
}

/// A key that may have made a signature.
#[derive(Debug)]
pub(crate) struct Signer<'r, 'a> {
    certificate: &'r Certificate<'a>,
    /// The subkey; `None` for the primary key.
    subkey: Option<&'r Component<'a, KeyPacket<'a>>>,
}

impl<'a> Signer<'_, 'a> {
    pub(crate) fn key(&self) -> &KeyPacket<'a> {
        self.subkey
            .map_or(&self.certificate.primary.of, |subkey| &subkey.of)
    }

    /// Checks that the key may sign data, and that neither it nor its primary key is revoked or was expired at the time, in
    /// seconds since 1970.
    pub(crate) fn check(&self, signed: &SignaturePacket<'_>, at: u64) -> Result<(), Fault> {
        let certificate = self.certificate;
        let primary = certificate.primary_binding(at)?;
        let subkey = match self.subkey {
            Some(subkey) => Some((subkey, certificate.subkey_binding(subkey, at)?)),
            None => None,
        };
        let signing = subkey.as_ref().map_or(&primary, |(_, binding)| binding);
        if signing.flags.unwrap_or_default() & FLAG_SIGN == 0 {
            return Err(Fault::NotForSigning {
                key: self.key().id(),
            });
        }
        certificate.check_not_revoked()?;
        if let Some((subkey, _)) = subkey {
            certificate.check_subkey_not_revoked(subkey, at)?;
        }
        let bindings = [
            Some((&certificate.primary.of, &primary)),
            subkey
                .as_ref()
                .map(|(subkey, binding)| (&subkey.of, binding)),
        ];
        for (key, binding) in bindings.into_iter().flatten() {
            if signed.created < key.created {
                return Err(Fault::OlderThanKey);
            }
            let end = u64::from(key.created) + u64::from(binding.key_lifetime);
            if binding.key_lifetime != 0 && at > end {
                return Err(Fault::KeyExpired);
            }
            if binding.signature.is_expired(at) {
                return Err(Fault::SignatureExpired);
            }
        }
        Ok(())
    }
}

impl<'a> Certificate<'a> {
    fn id(&self) -> KeyId {
        self.primary.of.id()
    }

    /// The binding of the primary key: from the preferred user's certification, completed by a direct-key signature.
    fn primary_binding(&self, at: u64) -> Result<Binding<'_, 'a>, Fault> {
        let mut chosen: Option<&SignaturePacket<'a>> = None;
        let (mut revoked, mut fault) = (None, None);
        for user in &self.users {
            let hashed = |context: &mut Context| {
                self.primary.of.hashed_into(context);
                let length = u32::try_from(user.of.len()).expect("the length of names is bounded");
                context.update(&[0xb4]);
                context.update(&length.to_be_bytes());
                context.update(user.of);
            };
            let is_certification =
                |kind| (kind::CERTIFICATION_FIRST..=kind::CERTIFICATION_LAST).contains(&kind);
            let signature = match self.newest(user, is_certification, hashed) {
                Ok(Some(signature)) => signature,
                Ok(None) => continue,
                Err(error) => {
                    fault = Some(error);
                    continue;
                }
            };
            let revocation = user.readable().find(|signature| {
                signature.kind == kind::CERTIFICATION_REVOCATION
                    && signature.is_by(&self.primary.of)
                    && u64::from(signature.created) <= at
            });
            if let Some(revocation) = revocation {
                revoked = Some(reason(revocation));
                continue;
            }
            let rank =
                |signature: &SignaturePacket<'_>| (signature.is_primary_user, signature.created);
            if chosen.is_none_or(|chosen| rank(signature) > rank(chosen)) {
                chosen = Some(signature);
            }
        }
        let Some(signature) = chosen else {
            return Err(match (revoked, fault) {
                (Some(reason), _) => Fault::Revoked { reason },
                (None, Some(source)) => self.unbound("user ID self-signature", source),
                (None, None) => Fault::Missing {
                    what: "user ID with a self-signature",
                    key: self.id(),
                },
            });
        };
        let on_key = self
            .newest(
                &self.primary,
                |kind| kind == kind::DIRECT_KEY,
                |context| self.primary.of.hashed_into(context),
            )
            .map_err(|source| self.unbound("direct-key self-signature", source))?;
        Ok(Binding {
            signature,
            flags: signature.flags.or(on_key.and_then(|on_key| on_key.flags)),
            key_lifetime: signature
                .key_lifetime
                .or(on_key.and_then(|on_key| on_key.key_lifetime))
                .unwrap_or_default(),
        })
    }

    fn subkey_binding<'r>(
        &self,
        subkey: &'r Component<'a, KeyPacket<'a>>,
        at: u64,
    ) -> Result<Binding<'r, 'a>, Fault> {
        let hash_both = |context: &mut Context| {
            self.primary.of.hashed_into(context);
            subkey.of.hashed_into(context);
        };
        let signature = self
            .newest(subkey, |kind| kind == kind::SUBKEY_BINDING, hash_both)
            .map_err(|source| self.unbound("subkey binding signature", source))?
            .ok_or(Fault::Missing {
                what: "subkey binding signature",
                key: self.id(),
            })?;
        if signature.flags.unwrap_or_default() & FLAG_SIGN != 0 {
            // Without it anybody could bind somebody else's signing key to his own certificate.
            let embedded = signature.embedded.ok_or(Fault::NoCrossSignature)?;
            let crossed = SignaturePacket::decode(embedded).and_then(|cross| {
                if cross.kind != kind::PRIMARY_KEY_BINDING {
                    return Err(Fault::Kind { kind: cross.kind });
                }
                if cross.is_expired(at) {
                    return Err(Fault::SignatureExpired);
                }
                cross.check_over(&subkey.of, hash_both)
            });
            crossed.map_err(|source| self.unbound("cross-signature", source))?;
        }
        Ok(Binding {
            signature,
            flags: signature.flags,
            key_lifetime: signature.key_lifetime.unwrap_or_default(),
        })
    }

    /// The newest valid signature of some types by the primary key. A newer one that cannot be judged, because of its hash or a
    /// critical part, is an error: it may end the key.
    fn newest<'r, T>(
        &self,
        component: &'r Component<'a, T>,
        is_kind: impl Fn(u8) -> bool,
        hashed: impl Fn(&mut Context),
    ) -> Result<Option<&'r SignaturePacket<'a>>, Fault> {
        let primary = &self.primary.of;
        let mut signatures: Vec<_> = component
            .readable()
            .filter(|signature| is_kind(signature.kind) && signature.is_by(primary))
            .collect();
        signatures.sort_by_key(|signature| std::cmp::Reverse(signature.created));
        let mut last = None;
        for signature in signatures {
            match signature.check_over(primary, &hashed) {
                Ok(()) => return Ok(Some(signature)),
                Err(fault @ Fault::Wrong { .. }) => last = Some(fault),
                Err(fault) => return Err(fault),
            }
        }
        last.map_or(Ok(None), Err)
    }

    fn check_not_revoked(&self) -> Result<(), Fault> {
        let revocation = self
            .primary
            .readable()
            .find(|signature| signature.kind == kind::KEY_REVOCATION);
        if let Some(revocation) = revocation {
            // BuildKit, too, refuses keys whose revocation it cannot check: another key may have been allowed to revoke them.
            let checked = revocation.check_over(&self.primary.of, |context| {
                self.primary.of.hashed_into(context);
            });
            return Err(match checked {
                Ok(()) => Fault::Revoked {
                    reason: reason(revocation),
                },
                Err(source) => self.unbound("revocation", source),
            });
        }
        self.check_readable(&self.primary.signatures, kind::KEY_REVOCATION)
    }

    fn check_subkey_not_revoked(
        &self,
        subkey: &Component<'a, KeyPacket<'a>>,
        at: u64,
    ) -> Result<(), Fault> {
        for revocation in subkey.readable() {
            if revocation.kind != kind::SUBKEY_REVOCATION {
                continue;
            }
            revocation
                .check_over(&self.primary.of, |context| {
                    self.primary.of.hashed_into(context);
                    subkey.of.hashed_into(context);
                })
                .map_err(|source| self.unbound("subkey revocation", source))?;
            // A key that was replaced was good before; one that was stolen, or revoked without a reason, was not.
            let is_soft = revocation
                .reason
                .as_ref()
                .is_some_and(|reason| reason.is_soft());
            if !is_soft || u64::from(revocation.created) <= at {
                return Err(Fault::Revoked {
                    reason: reason(revocation),
                });
            }
        }
        self.check_readable(&subkey.signatures, kind::SUBKEY_REVOCATION)
    }

    fn check_readable(&self, signatures: &[AttachedSignature<'a>], kind: u8) -> Result<(), Fault> {
        if signatures
            .iter()
            .any(|attached| attached.is_unreadable(kind))
        {
            let what = "revocation that can be read";
            let key = self.id();
            return Err(Fault::Missing { what, key });
        }
        Ok(())
    }

    fn unbound(&self, what: &'static str, source: Fault) -> Fault {
        Fault::SelfSignature {
            what,
            key: self.id(),
            source: Box::new(source),
        }
    }
}

fn reason(revocation: &SignaturePacket<'_>) -> Option<String> {
    let text = &revocation.reason.as_ref()?.text;
    (!text.is_empty()).then(|| text.clone())
}
