//! Keys and signatures that no honest tool makes.

use signature::{ExpiryJudgedAt, Policy};

use crate::data::{AT_NOW, AT_SIGNING, verify};
use crate::packets::{
    BORN, Builder, DAY, NAME, Secret, SignatureTemplate, armored, flags, packet, seconds,
    subpacket, template,
};

const MESSAGE: &[u8] = b"message";

/// A signature of data, a month after the key was made.
fn data() -> SignatureTemplate {
    let created = BORN + 30 * DAY;
    SignatureTemplate {
        created,
        ..template(0x00, &[])
    }
}

fn signed(by: &Secret, template: &SignatureTemplate) -> Vec<u8> {
    armored("SIGNATURE", &[packet(2, &template.sign(by, MESSAGE))])
}

fn verdict(builder: &Builder<'_>, by: &Secret, policy: &Policy) -> String {
    let verdict = verify(MESSAGE, &signed(by, &data()), &builder.ring(), policy);
    verdict.replace(&format!("signature by {}: ", by.id()), "")
}

/// What is said at both times.
fn always(builder: &Builder<'_>, by: &Secret) -> String {
    let at_signing = verdict(builder, by, &AT_SIGNING);
    assert_eq!(at_signing, verdict(builder, by, &AT_NOW));
    at_signing
}

#[test]
fn a_key_confirms_itself_with_a_user() {
    let (key, other) = (Secret::new(1), Secret::new(2));
    assert_eq!(always(&Builder::new(&key), &key), "");
    assert_eq!(
        always(&Builder::new(&key), &other),
        "openpgp: signature made by unknown entity"
    );
    let new = Secret::new_notation(1);
    assert_eq!(always(&Builder::new(&new), &new), "");
    // Numbers of the same key in another notation are another key.
    assert_eq!(
        always(&Builder::new(&new), &key),
        "openpgp: signature made by unknown entity"
    );
    let missing = format!(
        "openpgp: invalid data: key {} has no user ID with a self-signature",
        key.id()
    );
    assert_eq!(always(&Builder::bare(&key), &key), missing);
    assert_eq!(always(&Builder::bare(&key).raw(13, NAME), &key), missing);
    // Behind a user that is not read, a signature belongs to nobody.
    let long = vec![b'a'; 3000];
    let builder = Builder::bare(&key).user(&long, &template(0x13, &[flags(3)]));
    assert_eq!(always(&builder, &key), missing);
    // Somebody else's word on the user is not the key's own.
    let over = Builder::over_user(&key, NAME);
    let foreign = template(0x13, &[flags(3)]).sign(&other, &over);
    let builder = Builder::bare(&key).raw(13, NAME).raw(2, &foreign);
    assert_eq!(always(&builder, &key), missing);
}

#[test]
fn a_self_signature_over_something_else_does_not_count() {
    let key = Secret::new(1);
    let over = Builder::over_user(&key, b"another user");
    let moved = template(0x13, &[flags(3)]).sign(&key, &over);
    let builder = Builder::bare(&key).raw(13, NAME).raw(2, &moved);
    assert_eq!(
        always(&builder, &key),
        format!(
            "openpgp: invalid data: user ID self-signature of key {}: openpgp: invalid signature: EdDSA verification failure",
            key.id()
        )
    );
    // Next to a good one it is no harm.
    let builder = builder.on_user(NAME, &template(0x10, &[flags(3)]));
    assert_eq!(always(&builder, &key), "");
}

#[test]
fn a_newer_self_signature_that_cannot_be_judged_is_not_overlooked() {
    let key = Secret::new(1);
    let newer = |template: SignatureTemplate| SignatureTemplate {
        created: BORN + 2 * DAY,
        ..template
    };
    let sha1 = SignatureTemplate {
        hash: 2,
        ..newer(template(0x13, &[flags(3)]))
    };
    let verdict = always(&Builder::new(&key).on_user(NAME, &sha1), &key);
    assert!(
        verdict.ends_with("rejecting weak/unknown hash: SHA-1"),
        "{verdict}"
    );
    let critical = newer(template(0x13, &[flags(3), subpacket(0x80 | 100, b"?")]));
    let verdict = always(&Builder::new(&key).on_user(NAME, &critical), &key);
    assert!(
        verdict.ends_with("unknown critical signature subpacket type 100"),
        "{verdict}"
    );
    // It is not, where it is older.
    let older = SignatureTemplate {
        created: BORN,
        ..sha1
    };
    assert_eq!(always(&Builder::new(&key).on_user(NAME, &older), &key), "");
}

#[test]
fn only_keys_for_signing_sign() {
    let key = Secret::new(1);
    let not = format!(
        "openpgp: signature made by unknown entity: key {} is not for signing",
        key.id()
    );
    for (subpackets, expected) in [
        (vec![], &not[..]),
        (vec![flags(0x01)], &not),
        (vec![flags(0xfd)], &not),
        (vec![subpacket(27, &[])], &not),
        (vec![flags(0x02)], ""),
        (vec![subpacket(27, &[3, 0xff])], ""),
    ] {
        let builder = Builder::bare(&key).user(NAME, &template(0x13, &subpackets));
        assert_eq!(always(&builder, &key), expected, "{subpackets:?}");
    }
    // Flags on the key itself count where those on the user say nothing.
    let builder = Builder::bare(&key)
        .on_key(&template(0x1f, &[flags(2)]))
        .user(NAME, &template(0x13, &[]));
    assert_eq!(always(&builder, &key), "");
    // Flags that nobody signed say nothing.
    let mut unsigned = template(0x13, &[]);
    unsigned.unhashed.push(flags(3));
    let builder = Builder::bare(&key).user(NAME, &unsigned);
    assert_eq!(always(&builder, &key), not);
}

#[test]
fn a_signing_subkey_and_its_primary_key_confirm_each_other() {
    let (key, subkey, thief) = (Secret::new(1), Secret::new(2), Secret::new(3));
    let (binding, cross) = (template(0x18, &[flags(2)]), template(0x19, &[]));
    let good = Builder::new(&key).subkey(&subkey, &binding, Some(&cross));
    assert_eq!(always(&good, &subkey), "");
    let without = Builder::new(&key).subkey(&subkey, &binding, None);
    assert_eq!(
        always(&without, &subkey),
        "openpgp: invalid data: signing subkey is missing cross-signature"
    );
    // A thief binds somebody else's key: he has no signature of it over his own.
    let over = [key.hashed(), subkey.hashed()].concat();
    let mut stolen = binding.clone();
    stolen
        .unhashed
        .push(subpacket(32, &cross.sign(&subkey, &over)));
    let builder = Builder::new(&thief).subkey(&subkey, &stolen, None);
    let verdict = always(&builder, &subkey);
    assert!(verdict.contains("cross-signature of key"), "{verdict}");
    assert!(verdict.ends_with("EdDSA verification failure"), "{verdict}");
    for (cross, end) in [
        (
            SignatureTemplate {
                hash: 2,
                ..cross.clone()
            },
            "rejecting weak/unknown hash: SHA-1",
        ),
        (
            template(0x18, &[]),
            "openpgp: unsupported feature: unsupported signature type: 24",
        ),
        (
            template(0x19, &[seconds(3, 1)]),
            "openpgp: signature expired",
        ),
        (
            template(
                0x19,
                &[subpacket(0x80 | 20, &[0, 0, 0, 0, 0, 1, 0, 0, b'n'])],
            ),
            "unknown critical notation: n",
        ),
    ] {
        let builder = Builder::new(&key).subkey(&subkey, &binding, Some(&cross));
        let verdict = always(&builder, &subkey);
        assert!(verdict.contains("cross-signature of key"), "{verdict}");
        assert!(verdict.ends_with(end), "{verdict}");
    }
    // Bytes that are no signature.
    let mut broken = binding.clone();
    broken.unhashed.push(subpacket(32, &[4, 0x19]));
    let verdict = always(&Builder::new(&key).subkey(&subkey, &broken, None), &subkey);
    assert!(verdict.ends_with("signature is cut off"), "{verdict}");
    // A subkey that nobody bound, and one that is for something else.
    let builder = Builder::new(&key).raw(14, &subkey.body);
    let verdict = always(&builder, &subkey);
    assert!(
        verdict.ends_with("has no subkey binding signature"),
        "{verdict}"
    );
    let builder = Builder::new(&key).subkey(&subkey, &template(0x18, &[flags(12)]), None);
    let verdict = always(&builder, &subkey);
    assert!(verdict.ends_with("is not for signing"), "{verdict}");
    // A subkey of a key that does not confirm itself.
    let builder = Builder::bare(&key).subkey(&subkey, &binding, Some(&cross));
    let verdict = always(&builder, &subkey);
    assert!(
        verdict.ends_with("has no user ID with a self-signature"),
        "{verdict}"
    );
}

#[test]
fn a_binding_of_the_wrong_type_or_by_another_key_is_none() {
    let (key, subkey, other) = (Secret::new(1), Secret::new(2), Secret::new(3));
    let cross = template(0x19, &[]);
    for kind in [0x00, 0x10, 0x1f, 0x19] {
        let builder =
            Builder::new(&key).subkey(&subkey, &template(kind, &[flags(2)]), Some(&cross));
        let verdict = always(&builder, &subkey);
        assert!(
            verdict.ends_with("has no subkey binding signature"),
            "{verdict}"
        );
    }
    let over = [key.hashed(), subkey.hashed()].concat();
    let by_itself = template(0x18, &[flags(2)]).sign(&subkey, &over);
    let by_other = template(0x18, &[flags(2)]).sign(&other, &over);
    for body in [by_itself, by_other] {
        let builder = Builder::new(&key).raw(14, &subkey.body).raw(2, &body);
        let verdict = always(&builder, &subkey);
        assert!(
            verdict.ends_with("has no subkey binding signature"),
            "{verdict}"
        );
    }
    // No issuer: it may be anybody's, and counts as nobody's.
    let anonymous = SignatureTemplate {
        with_issuer: false,
        ..template(0x13, &[flags(3)])
    };
    let verdict = always(&Builder::bare(&key).user(NAME, &anonymous), &key);
    assert!(
        verdict.ends_with("has no user ID with a self-signature"),
        "{verdict}"
    );
}

#[test]
fn keys_are_over_when_they_say_so() {
    let (key, subkey) = (Secret::new(1), Secret::new(2));
    let (cross, lasting) = (template(0x19, &[]), template(0x18, &[flags(2)]));
    let short = |kind, days| template(kind, &[flags(3), seconds(9, days * DAY)]);
    let primary = |days| Builder::bare(&key).user(NAME, &short(0x13, days));
    let with_subkey = |days| Builder::new(&key).subkey(&subkey, &short(0x18, days), Some(&cross));
    let expired = "openpgp: key expired";
    // The data is signed on day 30.
    assert_eq!(always(&primary(29), &key), expired);
    assert_eq!(verdict(&primary(30), &key, &AT_SIGNING), "");
    assert_eq!(verdict(&primary(30), &key, &AT_NOW), expired);
    assert_eq!(always(&primary(0), &key), "");
    assert_eq!(always(&with_subkey(29), &subkey), expired);
    assert_eq!(verdict(&with_subkey(30), &subkey, &AT_SIGNING), "");
    assert_eq!(verdict(&with_subkey(30), &subkey, &AT_NOW), expired);
    // The end of the primary key is the end of its subkeys.
    let builder = primary(29).subkey(&subkey, &lasting, Some(&cross));
    assert_eq!(always(&builder, &subkey), expired);
    // An end on the key itself counts where the user's signature has none.
    let on_key = Builder::bare(&key)
        .on_key(&template(0x1f, &[seconds(9, DAY)]))
        .user(NAME, &template(0x13, &[flags(3)]));
    assert_eq!(always(&on_key, &key), expired);
    // The newest word counts, also when it makes the key's life shorter.
    let newer = SignatureTemplate {
        created: BORN + 40 * DAY,
        ..short(0x13, 10)
    };
    assert_eq!(
        always(&Builder::new(&key).on_user(NAME, &newer), &key),
        expired
    );
    let longer = SignatureTemplate {
        created: BORN + 40 * DAY,
        ..short(0x13, 3650)
    };
    assert_eq!(always(&primary(1).on_user(NAME, &longer), &key), "");
    // Bindings have ends of their own.
    let binding = template(0x18, &[flags(2), seconds(3, DAY)]);
    let builder = Builder::new(&key).subkey(&subkey, &binding, Some(&cross));
    assert_eq!(always(&builder, &subkey), "openpgp: signature expired");
}

#[test]
fn a_key_signs_nothing_before_it_is_made() {
    let key = Secret::new(1);
    let early = SignatureTemplate {
        created: BORN - 1,
        ..data()
    };
    for policy in [AT_SIGNING, AT_NOW] {
        let verdict = verify(
            MESSAGE,
            &signed(&key, &early),
            &Builder::new(&key).ring(),
            &policy,
        );
        assert!(
            verdict.ends_with("openpgp: signature is older than the key"),
            "{verdict}"
        );
    }
}

#[test]
fn revocations_count_and_those_that_cannot_be_checked_count_too() {
    let (key, other) = (Secret::new(1), Secret::new(2));
    let reason = |code: u8, text: &str| {
        template(0x20, &[subpacket(29, &[&[code], text.as_bytes()].concat())])
    };
    let bare = |body: &[u8]| {
        Builder::bare(&key)
            .raw(2, body)
            .user(NAME, &template(0x13, &[flags(3)]))
    };
    let revoked = "openpgp: signature made by revoked key";
    let late = SignatureTemplate {
        created: BORN + 60 * DAY,
        ..reason(1, "")
    };
    for (template, expected) in [
        (reason(0, ""), revoked.to_owned()),
        (reason(2, "stolen"), format!("{revoked}: stolen")),
        (template(0x20, &[]), revoked.to_owned()),
        // BuildKit, too, takes a primary key that was ever revoked for nothing.
        (late, revoked.to_owned()),
    ] {
        let body = template.sign(&key, &key.hashed());
        assert_eq!(always(&bare(&body), &key), expected);
    }
    let sha1 = SignatureTemplate {
        hash: 2,
        ..reason(2, "")
    };
    for (body, end) in [
        (
            sha1.sign(&key, &key.hashed()),
            "rejecting weak/unknown hash: SHA-1",
        ),
        (
            reason(2, "").sign(&other, &key.hashed()),
            "EdDSA verification failure",
        ),
        (
            vec![3, 5, 0x20, 0, 0, 0, 0],
            "has no revocation that can be read",
        ),
        (vec![6, 0x20], "has no revocation that can be read"),
        (vec![4, 0x20, 22], "has no revocation that can be read"),
    ] {
        let verdict = always(&bare(&body), &key);
        assert!(verdict.ends_with(end), "{verdict}");
    }
    // A signature of another sort that cannot be read is no harm.
    assert_eq!(always(&bare(&[3, 5, 0x10]), &key), "");
    assert_eq!(always(&bare(&[]), &key), "");
}

#[test]
fn subkeys_are_revoked_for_good_or_from_a_day_on() {
    let (key, subkey) = (Secret::new(1), Secret::new(2));
    let base = || {
        Builder::new(&key).subkey(
            &subkey,
            &template(0x18, &[flags(2)]),
            Some(&template(0x19, &[])),
        )
    };
    let revoked = "openpgp: signature made by revoked key";
    let on_day = |day: u32, code: Option<u8>| SignatureTemplate {
        created: BORN + day * DAY,
        ..template(
            0x28,
            &code
                .map(|code| subpacket(29, &[code]))
                .into_iter()
                .collect::<Vec<_>>(),
        )
    };
    for (code, is_soft) in [
        (None, false),
        (Some(0), false),
        (Some(1), true),
        (Some(2), false),
        (Some(3), true),
        (Some(200), false),
    ] {
        let before = base().on_subkey(&subkey, &on_day(29, code), None);
        assert_eq!(always(&before, &subkey), revoked, "{code:?}");
        let after = base().on_subkey(&subkey, &on_day(31, code), None);
        assert_eq!(verdict(&after, &subkey, &AT_NOW), revoked, "{code:?}");
        let at_signing = verdict(&after, &subkey, &AT_SIGNING);
        assert_eq!(at_signing, if is_soft { "" } else { revoked }, "{code:?}");
    }
    let sha1 = SignatureTemplate {
        hash: 2,
        ..on_day(31, Some(1))
    };
    let verdict = always(&base().on_subkey(&subkey, &sha1, None), &subkey);
    assert!(verdict.contains("subkey revocation of key"), "{verdict}");
    let verdict = always(&base().raw(2, &[3, 5, 0x28]), &subkey);
    assert!(
        verdict.ends_with("has no revocation that can be read"),
        "{verdict}"
    );
    // The primary key stays what it was.
    let builder = base().on_subkey(&subkey, &on_day(29, None), None);
    assert_eq!(always(&builder, &key), "");
}

#[test]
fn a_key_whose_users_are_all_revoked_signs_nothing_from_then_on() {
    let key = Secret::new(1);
    let revocation = |day: u32| SignatureTemplate {
        created: BORN + day * DAY,
        ..template(0x30, &[subpacket(29, b"\x20left")])
    };
    let gone = Builder::new(&key).on_user(NAME, &revocation(2));
    assert_eq!(
        always(&gone, &key),
        "openpgp: signature made by revoked key: left"
    );
    let later = Builder::new(&key).on_user(NAME, &revocation(31));
    assert_eq!(verdict(&later, &key, &AT_SIGNING), "");
    assert!(verdict(&later, &key, &AT_NOW).contains("revoked"));
    let one_left = gone.user(b"second", &template(0x13, &[flags(3)]));
    assert_eq!(always(&one_left, &key), "");
}

#[test]
fn the_preferred_user_says_what_the_key_is_for() {
    let key = Secret::new(1);
    let preferred = template(0x13, &[flags(1), subpacket(25, &[1])]);
    let newer = SignatureTemplate {
        created: BORN + 2 * DAY,
        ..template(0x13, &[flags(3)])
    };
    let builder = Builder::bare(&key)
        .user(b"first", &preferred)
        .user(b"second", &newer);
    let said_of = always(&builder, &key);
    assert!(said_of.ends_with("is not for signing"), "{said_of}");
    let plain = template(0x13, &[flags(1)]);
    let builder = Builder::bare(&key)
        .user(b"first", &plain)
        .user(b"second", &newer);
    assert_eq!(always(&builder, &key), "");
}

#[test]
fn parts_of_a_certificate_are_brought_together() {
    let (key, subkey) = (Secret::new(1), Secret::new(2));
    let without_user = Builder::bare(&key)
        .subkey(
            &subkey,
            &template(0x18, &[flags(2)]),
            Some(&template(0x19, &[])),
        )
        .ring();
    let ring = [&Builder::new(&key).ring()[..], &without_user].concat();
    let signature = signed(&subkey, &data());
    assert_eq!(verify(MESSAGE, &signature, &ring, &AT_SIGNING), "");
    let revoked = Builder::bare(&key)
        .raw(14, &subkey.body)
        .on_subkey(&subkey, &template(0x28, &[]), None)
        .ring();
    let ring = [&ring[..], &revoked].concat();
    assert!(verify(MESSAGE, &signature, &ring, &AT_SIGNING).contains("revoked"));
}

#[test]
fn packets_that_say_nothing_do_not_part_a_user_from_its_signature() {
    let key = Secret::new(1);
    let over = Builder::over_user(&key, NAME);
    let body = template(0x13, &[flags(3)]).sign(&key, &over);
    for tag in [10, 12, 21] {
        let builder = Builder::bare(&key)
            .raw(13, NAME)
            .raw(tag, b"x")
            .raw(2, &body);
        assert_eq!(always(&builder, &key), "", "{tag}");
    }
    // A picture of the user does, and its signatures are its own.
    let builder = Builder::bare(&key)
        .raw(13, NAME)
        .raw(17, b"x")
        .raw(2, &body);
    assert_ne!(always(&builder, &key), "");
    // What comes before any key belongs to none.
    let mut builder = Builder::new(&key);
    builder.packets.insert(0, packet(2, &body));
    builder.packets.insert(0, packet(13, NAME));
    builder.packets.insert(0, packet(14, &key.body));
    assert_eq!(always(&builder, &key), "");
}

#[test]
fn the_signature_of_data_has_to_be_one() {
    let (key, other) = (Secret::new(1), Secret::new(2));
    let ring = Builder::new(&key).ring();
    let with = |template: SignatureTemplate| {
        verify(MESSAGE, &signed(&key, &template), &ring, &AT_SIGNING)
            .replace(&format!("signature by {}: ", key.id()), "")
    };
    for kind in [0x02, 0x10, 0x18, 0x40, 0x50] {
        assert_eq!(
            with(SignatureTemplate { kind, ..data() }),
            format!("openpgp: unsupported feature: unsupported signature type: {kind}")
        );
    }
    assert_eq!(
        with(SignatureTemplate { hash: 2, ..data() }),
        "rejecting weak/unknown hash: SHA-1"
    );
    assert_eq!(
        with(SignatureTemplate { hash: 99, ..data() }),
        "rejecting weak/unknown hash: unknown hash value 99"
    );
    assert_eq!(with(SignatureTemplate { hash: 10, ..data() }), "");
    assert_eq!(
        with(SignatureTemplate {
            with_issuer: false,
            ..data()
        }),
        "openpgp: invalid data: signature doesn't have an issuer"
    );
    // The issuer may stand where nobody signed it: the numbers decide.
    let fingerprint = [&[4][..], &key.fingerprint()].concat();
    let mut unsigned = SignatureTemplate {
        with_issuer: false,
        ..data()
    };
    unsigned.unhashed.push(subpacket(33, &fingerprint));
    assert_eq!(with(unsigned.clone()), "");
    unsigned.unhashed = vec![subpacket(16, &key.fingerprint()[12..])];
    assert_eq!(with(unsigned.clone()), "");
    let forged = signed(&other, &unsigned);
    let verdict = verify(MESSAGE, &forged, &ring, &AT_SIGNING);
    assert!(verdict.ends_with("EdDSA verification failure"), "{verdict}");
    for (subpackets, expected) in [
        (vec![subpacket(100, b"")], ""),
        (
            vec![subpacket(0x80 | 100, b"")],
            "openpgp: unsupported feature: unknown critical signature subpacket type 100",
        ),
        (vec![subpacket(0x80 | 28, b"user")], ""),
        (
            vec![subpacket(0x80 | 20, b"\0\0\0\0\0\x05")],
            "openpgp: invalid data: notation data subpacket with bad length",
        ),
        (
            vec![subpacket(2, b"abc")],
            "openpgp: invalid data: time subpacket with bad length",
        ),
        (
            vec![subpacket(9, b"abcde")],
            "openpgp: invalid data: time subpacket with bad length",
        ),
        (
            vec![subpacket(16, b"short")],
            "openpgp: invalid data: issuer subpacket with bad length",
        ),
        (
            vec![subpacket(33, b"\x04short")],
            "openpgp: invalid data: bad fingerprint length",
        ),
        (
            vec![subpacket(29, b"")],
            "openpgp: invalid data: empty revocation reason subpacket",
        ),
        (
            vec![subpacket(32, b"a"), subpacket(32, b"b")],
            "openpgp: invalid data: cannot have multiple embedded signatures",
        ),
        (
            vec![vec![0]],
            "openpgp: invalid data: zero length signature subpacket",
        ),
        (
            vec![vec![200]],
            "openpgp: invalid data: signature subpacket truncated",
        ),
        (
            vec![vec![9, 1]],
            "openpgp: invalid data: signature subpacket truncated",
        ),
        (
            vec![vec![255, 255, 255, 255, 255, 1]],
            "openpgp: invalid data: signature subpacket truncated",
        ),
        (vec![subpacket(28, &[b'a'; 300])], ""),
    ] {
        let template = SignatureTemplate {
            hashed: subpackets.clone(),
            ..data()
        };
        assert_eq!(with(template), expected, "{subpackets:?}");
    }
}

#[test]
fn of_several_signatures_the_first_by_a_known_key_decides() {
    let (key, other) = (Secret::new(1), Secret::new(2));
    let ring = Builder::new(&key).ring();
    let body = |by: &Secret, template: &SignatureTemplate| packet(2, &template.sign(by, MESSAGE));
    let weak = SignatureTemplate { hash: 2, ..data() };
    let limited = SignatureTemplate {
        hashed: vec![seconds(3, DAY)],
        ..data()
    };
    for (packets, policy, end) in [
        (vec![body(&other, &data()), body(&key, &data())], AT_NOW, ""),
        (
            vec![body(&other, &weak), body(&key, &data())],
            AT_NOW,
            "rejecting weak/unknown hash: SHA-1",
        ),
        (
            vec![body(&other, &data()), body(&key, &weak)],
            AT_NOW,
            "rejecting weak/unknown hash: SHA-1",
        ),
        (
            vec![body(&key, &limited), body(&key, &data())],
            AT_NOW,
            "openpgp: signature expired",
        ),
        (vec![body(&key, &limited)], AT_SIGNING, ""),
        (
            vec![body(&other, &data()), body(&other, &data())],
            AT_NOW,
            "openpgp: signature made by unknown entity",
        ),
        (
            vec![body(&key, &data()), packet(13, b"x")],
            AT_NOW,
            "non signature packet found",
        ),
    ] {
        let verdict = verify(MESSAGE, &armored("SIGNATURE", &packets), &ring, &policy);
        assert_eq!(verdict.is_empty(), end.is_empty(), "{verdict}");
        assert!(verdict.ends_with(end), "{verdict}");
    }
}

#[test]
fn numbers_that_lost_the_zeros_at_their_front_are_the_same_numbers() {
    let key = Secret::new(1);
    let ring = Builder::new(&key).ring();
    // The first notation that has such a zero: one in 128 signatures has.
    let (body, at) = (0..5000)
        .find_map(|text: u32| {
            let template = SignatureTemplate {
                hashed: vec![subpacket(28, text.to_string().as_bytes())],
                ..data()
            };
            let body = template.sign(&key, MESSAGE);
            let at = body.len() - 34;
            (body[at + 2] == 0).then_some((body, at))
        })
        .unwrap();
    let mut shorter = body.clone();
    shorter.splice(at..at + 3, [0, 248]);
    for body in [body, shorter] {
        let signature = armored("SIGNATURE", &[packet(2, &body)]);
        assert_eq!(verify(MESSAGE, &signature, &ring, &AT_SIGNING), "");
    }
    let mut longer = data().sign(&key, MESSAGE);
    let at = longer.len() - 34;
    longer.splice(at..at + 2, [1, 8, 1]);
    let signature = armored("SIGNATURE", &[packet(2, &longer)]);
    let verdict = verify(MESSAGE, &signature, &ring, &AT_SIGNING);
    assert!(
        verdict.ends_with("numbers of an EdDSA signature are too long"),
        "{verdict}"
    );
}

#[test]
fn the_cost_of_a_hostile_ring_is_bounded() {
    let (key, other) = (Secret::new(1), Secret::new(2));
    // As many self-signatures as are read, each by the right name, each wrong, over the longest name.
    let name = [b'a'; 2048];
    let wrong = template(0x13, &[flags(3)]).sign(&key, b"nothing");
    let mut builder = Builder::bare(&key).raw(13, &name);
    for _ in 0..990 {
        builder = builder.raw(2, &wrong);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "measures how long an input takes"
    )]
    let begun = std::time::Instant::now();
    assert_ne!(always(&builder, &key), "");
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    // Nobody asks about the keys that a signature does not name.
    assert!(always(&builder, &other).contains("unknown entity"));
    let policy = Policy {
        expiry: ExpiryJudgedAt::Now,
        now: u64::MAX,
    };
    assert_eq!(verdict(&Builder::new(&key), &key, &policy), "");
}
