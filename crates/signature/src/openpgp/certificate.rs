//! Certificates: a primary key, its users and its subkeys, each with signatures that bind it (RFC 9580, section 10.1).
//!
//! Reading only sorts packets. What binds a key is checked when a signature names that key, so that a ring costs nothing for keys
//! that nobody asks about. What cannot be checked never helps a key: a binding does not count, and a revocation counts.

use aws_lc_rs::digest::Context;

use crate::openpgp::fault::{Fault, KeyId};
use crate::openpgp::key::Key;
use crate::openpgp::packet::{
    PUBLIC_KEY, PUBLIC_SUBKEY, Packet, PacketError, Packets, SIGNATURE, USER_ID,
};
use crate::openpgp::packet_signature::{FLAG_SIGN, Signature, kind};

/// How long the name of a user is read. It is hashed anew for each signature behind it.
const MAX_USER_ID_BYTES: usize = 2048;

/// A signature packet behind a key, a user or a subkey.
#[derive(Debug)]
enum Attached<'a> {
    Read(Box<Signature<'a>>),
    /// One of another version, or malformed; its type, where that can be told.
    Unreadable {
        kind: Option<u8>,
    },
}

impl<'a> Attached<'a> {
    fn decode(body: &'a [u8]) -> Self {
        match Signature::decode(body) {
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

/// A user's name, a subkey, or neither, with the signatures behind it.
#[derive(Debug)]
struct Component<'a, T> {
    of: T,
    signatures: Vec<Attached<'a>>,
}

impl<'a, T> Component<'a, T> {
    fn new(of: T) -> Self {
        Self {
            of,
            signatures: Vec::new(),
        }
    }

    fn readable(&self) -> impl Iterator<Item = &Signature<'a>> {
        self.signatures
            .iter()
            .filter_map(|attached| match attached {
                Attached::Read(signature) => Some(signature.as_ref()),
                Attached::Unreadable { .. } => None,
            })
    }
}

/// A primary key with what belongs to it.
#[derive(Debug)]
pub(crate) struct Certificate<'a> {
    primary: Component<'a, Key<'a>>,
    users: Vec<Component<'a, &'a [u8]>>,
    subkeys: Vec<Component<'a, Key<'a>>>,
}

/// Where the signatures that come next belong.
#[derive(Debug, Clone, Copy)]
enum Place {
    Primary(usize),
    User(usize, usize),
    Subkey(usize, usize),
    /// Behind something that is not read.
    Nowhere(Option<usize>),
}

impl Place {
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
    /// Why the last one that was left out was left out.
    pub(crate) left_out: Option<Fault>,
}

impl<'a> Ring<'a> {
    /// Adds the certificates of the packets. Parts of one certificate that come in several places are brought together, so that
    /// a revocation in one copy counts for all.
    pub(crate) fn read(&mut self, packets: Packets<'a, '_>) -> Result<(), PacketError> {
        let mut place = Place::Nowhere(None);
        for packet in packets {
            let Packet { tag, body } = packet?;
            place = match (tag, place.certificate()) {
                (PUBLIC_KEY, _) => match Key::decode(body) {
                    Ok(key) => Place::Primary(self.certificate(key)),
                    Err(fault) => {
                        self.left_out = Some(fault);
                        Place::Nowhere(None)
                    }
                },
                (USER_ID, Some(at)) if body.len() <= MAX_USER_ID_BYTES => {
                    let users = &mut self.certificates[at].users;
                    Place::User(at, position(users, body, |one, other| one == other))
                }
                (PUBLIC_SUBKEY, Some(at)) => match Key::decode(body) {
                    Ok(key) => {
                        let subkeys = &mut self.certificates[at].subkeys;
                        Place::Subkey(
                            at,
                            position(subkeys, key, |one, other| one.body == other.body),
                        )
                    }
                    Err(_) => Place::Nowhere(Some(at)),
                },
                (SIGNATURE, Some(_)) => {
                    self.attach(place, Attached::decode(body));
                    place
                }
                // Trust of a local ring, markers and padding stand between other packets and say nothing.
                (10 | 12 | 21, _) => place,
                (_, at) => Place::Nowhere(at),
            };
        }
        Ok(())
    }

    fn certificate(&mut self, key: Key<'a>) -> usize {
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

    fn attach(&mut self, place: Place, signature: Attached<'a>) {
        let signatures = match place {
            Place::Primary(at) => &mut self.certificates[at].primary.signatures,
            Place::User(at, user) => &mut self.certificates[at].users[user].signatures,
            Place::Subkey(at, subkey) => &mut self.certificates[at].subkeys[subkey].signatures,
            Place::Nowhere(_) => return,
        };
        signatures.push(signature);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The keys that say to have made the signature.
    pub(crate) fn signers<'r>(&'r self, signature: &Signature<'_>) -> Vec<Signer<'r, 'a>> {
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

/// What a certificate says of a key of its own.
#[derive(Debug)]
struct Binding<'r, 'a> {
    signature: &'r Signature<'a>,
    flags: Option<u8>,
    key_lifetime: u32,
}

/// A key that may have made a signature.
#[derive(Debug)]
pub(crate) struct Signer<'r, 'a> {
    certificate: &'r Certificate<'a>,
    /// The subkey that is meant; else the primary key.
    subkey: Option<&'r Component<'a, Key<'a>>>,
}

impl<'a> Signer<'_, 'a> {
    pub(crate) fn key(&self) -> &Key<'a> {
        self.subkey
            .map_or(&self.certificate.primary.of, |subkey| &subkey.of)
    }

    /// Whether the key may sign data, and neither it nor its primary key is revoked or was over at the time, in seconds since
    /// 1970.
    pub(crate) fn check(&self, signed: &Signature<'_>, at: u64) -> Result<(), Fault> {
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

    /// What the certificate says of its primary key: behind the user that it prefers, else behind the key itself.
    fn primary_binding(&self, at: u64) -> Result<Binding<'_, 'a>, Fault> {
        let mut chosen: Option<&Signature<'a>> = None;
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
            let rank = |signature: &Signature<'_>| (signature.is_primary_user, signature.created);
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
        subkey: &'r Component<'a, Key<'a>>,
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
            // Without it anybody could call somebody else's signing key a subkey of his own.
            let embedded = signature.embedded.ok_or(Fault::NoCrossSignature)?;
            let crossed = Signature::decode(embedded).and_then(|cross| {
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

    /// The newest signature of the primary key's own of some types that is right. One that is newer and cannot be judged, because
    /// its hash does not count or it demands what is not understood, is an error: it may say that the key is over.
    fn newest<'r, T>(
        &self,
        component: &'r Component<'a, T>,
        is_kind: impl Fn(u8) -> bool,
        hashed: impl Fn(&mut Context),
    ) -> Result<Option<&'r Signature<'a>>, Fault> {
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
        subkey: &Component<'a, Key<'a>>,
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
            // A key that was replaced was good before; one that was stolen, or whose owner does not say, was not.
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

    fn check_readable(&self, signatures: &[Attached<'a>], kind: u8) -> Result<(), Fault> {
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

fn reason(revocation: &Signature<'_>) -> Option<String> {
    let text = &revocation.reason.as_ref()?.text;
    (!text.is_empty()).then(|| text.clone())
}
