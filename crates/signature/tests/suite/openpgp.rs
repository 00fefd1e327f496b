//! Recorded signatures: times, revocations, hostile text.

use std::io::Read;

use oci::ErrorKind;
use signature::openpgp::{OpenPgpError, verify_detached};
use signature::{ExpiryJudgedAt, MAX_BYTES, Policy};

use crate::data::{AT_NOW, AT_SIGNING, NOW, file, openpgp, verify};

#[test]
fn an_expired_key_counts_for_what_it_signed_before_unless_it_must_not() {
    assert_eq!(openpgp("expired", "expired", &AT_SIGNING), "");
    let verdict = openpgp("expired", "expired", &AT_NOW);
    assert!(verdict.ends_with("openpgp: key expired"), "{verdict}");
    assert!(verdict.starts_with("signature by "), "{verdict}");
    // Its owner made it last longer, after it had signed.
    assert_eq!(openpgp("expired-extended", "expired", &AT_SIGNING), "");
    assert_eq!(openpgp("expired-extended", "expired", &AT_NOW), "");
    let much_later = Policy {
        expiry: ExpiryJudgedAt::Now,
        now: NOW + 365 * 86_400,
    };
    let verdict = openpgp("expired-extended", "expired", &much_later);
    assert!(verdict.ends_with("openpgp: key expired"), "{verdict}");
}

#[test]
fn a_signature_with_an_end_counts_after_it_unless_it_must_not() {
    assert_eq!(openpgp("rsa2048", "rsa2048-limited", &AT_SIGNING), "");
    let verdict = openpgp("rsa2048", "rsa2048-limited", &AT_NOW);
    assert!(verdict.ends_with("openpgp: signature expired"), "{verdict}");
    let in_time = Policy {
        now: 1_738_368_000 + 29 * 86_400,
        ..AT_NOW
    };
    assert_eq!(openpgp("rsa2048", "rsa2048-limited", &in_time), "");
}

#[test]
fn a_signature_from_the_future_is_refused_but_for_clocks_that_differ_a_little() {
    let signed_at = 1_738_368_000;
    for expiry in [ExpiryJudgedAt::Signing, ExpiryJudgedAt::Now] {
        let at = |now| openpgp("rsa2048", "rsa2048-SHA256", &Policy { expiry, now });
        assert_eq!(at(signed_at - 300), "");
        let verdict = at(signed_at - 301);
        assert!(
            verdict.ends_with("signature creation time is in the future: 1738368000"),
            "{verdict}"
        );
        assert!(at(0).contains("in the future"));
    }
}

#[test]
fn a_revoked_key_counts_for_nothing_even_where_the_ring_has_an_older_copy() {
    assert_eq!(openpgp("revoked-before", "revoked", &AT_SIGNING), "");
    let verdict = openpgp("revoked", "revoked", &AT_SIGNING);
    assert!(
        verdict.ends_with("openpgp: signature made by revoked key: the laptop was stolen"),
        "{verdict}"
    );
    let (before, after) = (
        file("openpgp/revoked-before.pub"),
        file("openpgp/revoked.pub"),
    );
    for copies in [[&before[..], &after], [&after, &before]] {
        let ring = copies.concat();
        let verdict = verify(
            &file("message"),
            &file("openpgp/revoked.asc"),
            &ring,
            &AT_SIGNING,
        );
        assert!(verdict.contains("revoked key"), "{verdict}");
    }
}

#[test]
fn a_subkey_that_was_replaced_counts_for_what_it_signed_before_and_a_stolen_one_does_not() {
    assert_eq!(openpgp("subkeys", "subkeys", &AT_NOW), "");
    assert_eq!(openpgp("subkeys-replaced", "subkeys", &AT_SIGNING), "");
    let verdict = openpgp("subkeys-replaced", "subkeys", &AT_NOW);
    assert!(
        verdict.ends_with("openpgp: signature made by revoked key: replaced by a newer one"),
        "{verdict}"
    );
    for policy in [AT_SIGNING, AT_NOW] {
        let verdict = openpgp("stolen", "stolen", &policy);
        assert!(
            verdict.ends_with("openpgp: signature made by revoked key"),
            "{verdict}"
        );
    }
}

#[test]
fn one_user_of_two_may_be_revoked() {
    assert_eq!(openpgp("users", "users", &AT_SIGNING), "");
}

#[test]
fn one_byte_of_difference_in_what_is_signed_is_noticed() {
    let (signature, ring) = (
        file("openpgp/rsa2048-SHA256.asc"),
        file("openpgp/rsa2048.pub"),
    );
    let message = file("message");
    for forged in [
        [&message[..], b"\n"].concat(),
        message[1..].to_vec(),
        Vec::new(),
        message
            .iter()
            .map(|b| if *b == b'.' { b'!' } else { *b })
            .collect(),
    ] {
        let verdict = verify(&forged, &signature, &ring, &AT_SIGNING);
        assert!(
            verdict.ends_with("openpgp: invalid signature: RSA verification failure"),
            "{verdict}"
        );
    }
}

#[test]
fn text_signatures_are_over_lines_whatever_ends_them() {
    let (signature, ring) = (
        file("openpgp/rsa2048-text.asc"),
        file("openpgp/rsa2048.pub"),
    );
    let message = String::from_utf8(file("message")).unwrap();
    let windows = message.replace('\n', "\r\n");
    let old_mac = message.replace('\n', "\r");
    for (text, is_good) in [(&message, true), (&windows, true), (&old_mac, false)] {
        let verdict = verify(text.as_bytes(), &signature, &ring, &AT_SIGNING);
        assert_eq!(verdict.is_empty(), is_good, "{text:?}: {verdict}");
        // The same, where each read gives one byte.
        let mut bytes = OneByOne(text.as_bytes());
        let verdict = verify_detached(&mut bytes, &signature, &ring, &AT_SIGNING);
        assert_eq!(verdict.is_ok(), is_good, "{text:?}");
    }
    let binary = file("openpgp/rsa2048-SHA256.asc");
    assert_ne!(verify(windows.as_bytes(), &binary, &ring, &AT_SIGNING), "");
}

struct OneByOne<'a>(&'a [u8]);

impl Read for OneByOne<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(&mut buffer[..1])
    }
}

#[test]
fn a_notation_that_must_be_understood_is_not() {
    assert_eq!(openpgp("rsa2048", "rsa2048-notation", &AT_SIGNING), "");
    let verdict = openpgp("rsa2048", "rsa2048-critical", &AT_SIGNING);
    assert!(
        verdict
            .ends_with("openpgp: invalid signature: unknown critical notation: name@example.com"),
        "{verdict}"
    );
}

#[test]
fn weak_hashes_are_refused_by_name_before_the_keys_matter() {
    for (signature, name) in [
        ("SHA1", "SHA-1"),
        ("SHA224", "SHA-224"),
        ("RIPEMD160", "RIPEMD-160"),
    ] {
        for ring in ["rsa2048", "ed25519"] {
            let verdict = openpgp(ring, &format!("rsa2048-{signature}"), &AT_SIGNING);
            assert_eq!(verdict, format!("rejecting weak/unknown hash: {name}"));
        }
    }
}

#[test]
fn keys_that_are_none_are_refused_with_the_words_of_buildkit() {
    let signature = file("openpgp/rsa2048-SHA256.asc");
    let ring = String::from_utf8(file("openpgp/rsa2048.pub")).unwrap();
    for (ring, message) in [
        (
            String::new(),
            "failed to read armored public key: no armored data found",
        ),
        (
            String::from_utf8(file("ssh/ed25519.pub")).unwrap(),
            "failed to read armored public key: no armored data found",
        ),
        (
            ring.replace("PUBLIC KEY", "PRIVATE KEY"),
            "expected public key block, got: PGP PRIVATE KEY BLOCK",
        ),
        (
            String::from_utf8(signature.clone()).unwrap(),
            "expected public key block, got: PGP SIGNATURE",
        ),
        (
            ring[..ring.len() / 2].to_owned(),
            "failed to read armored public key: armor invalid: `PGP PUBLIC KEY BLOCK` does not end",
        ),
        (
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n\n-----END PGP PUBLIC KEY BLOCK-----"
                .to_owned(),
            "failed to read armored public key: no key found",
        ),
        (
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----"
                .to_owned(),
            "failed to read armored public key: openpgp: invalid data: tag byte does not have MSB set",
        ),
        (
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxgMDAAA=\n-----END PGP PUBLIC KEY BLOCK-----"
                .to_owned(),
            "failed to read armored public key: openpgp: unsupported feature: public key packet version 3",
        ),
    ] {
        let verdict = verify(b"", &signature, ring.as_bytes(), &AT_SIGNING);
        assert_eq!(verdict, message, "{ring}");
    }
    // A broken block is no reason to leave out what it may have said.
    let both = [
        &file("openpgp/rsa2048.pub")[..],
        &file("openpgp/ed25519.pub")[..300],
    ]
    .concat();
    let verdict = verify(&file("message"), &signature, &both, &AT_SIGNING);
    assert!(verdict.contains("does not end"), "{verdict}");
}

#[test]
fn signatures_that_are_none_are_refused_with_the_words_of_buildkit() {
    let ring = file("openpgp/rsa2048.pub");
    let block = |text: &str| {
        format!("-----BEGIN PGP SIGNATURE-----\n\n{text}\n-----END PGP SIGNATURE-----")
    };
    for (signature, message) in [
        (
            String::new(),
            "failed to decode armored signature: no armored data found",
        ),
        (
            block("A"),
            "failed to decode armored signature: armor invalid: Invalid input length: 1",
        ),
        (block(""), "no signature packet found"),
        (
            block("AAAA"),
            "failed to read next packet: openpgp: invalid data: tag byte does not have MSB set",
        ),
        (
            block("wgQEAAA="),
            "failed to read next packet: openpgp: invalid data: packet is cut off",
        ),
        (
            block("wgMEAAEI"),
            "openpgp: invalid data: signature is cut off",
        ),
        (
            block("wgMDAAEI"),
            "openpgp: unsupported feature: signature packet version 3",
        ),
        (
            block("wgMGAAEI"),
            "openpgp: unsupported feature: signature packet version 6",
        ),
        (
            block("xgMEAAEI"),
            "openpgp: invalid data: non signature packet found",
        ),
        // Compressed data, which nobody unpacks here.
        (
            block("yAMBAAAA"),
            "openpgp: invalid data: non signature packet found",
        ),
    ] {
        let verdict = verify(b"", signature.as_bytes(), &ring, &AT_SIGNING);
        assert_eq!(verdict, message, "{signature}");
    }
}

#[test]
fn rings_and_signatures_beyond_the_bound_are_not_read() {
    let (signature, ring) = (
        file("openpgp/rsa2048-SHA256.asc"),
        file("openpgp/rsa2048.pub"),
    );
    let fill = vec![b'\n'; MAX_BYTES];
    let verdict = verify(b"", &signature, &[&ring[..], &fill].concat(), &AT_SIGNING);
    assert!(verdict.contains("is larger than 1048576"), "{verdict}");
    let verdict = verify(b"", &[&signature[..], &fill].concat(), &ring, &AT_SIGNING);
    assert!(verdict.contains("is larger than 1048576"), "{verdict}");
    // As many copies as fit are one certificate; their packets are counted across the blocks.
    let copies = ring.repeat(300);
    let message = file("message");
    assert_eq!(verify(&message, &signature, &copies, &AT_SIGNING), "");
    let verdict = verify(&message, &signature, &ring.repeat(400), &AT_SIGNING);
    assert_eq!(
        verdict,
        "failed to read armored public key: more than 1000 packets"
    );
}

#[test]
fn every_place_where_text_can_be_cut_or_broken_is_an_error_and_no_panic() {
    let message = file("message");
    let (signature, ring) = (file("openpgp/subkeys.asc"), file("openpgp/subkeys.pub"));
    assert_eq!(verify(&message, &signature, &ring, &AT_SIGNING), "");
    for at in (0..signature.len() - 1).step_by(7) {
        assert_ne!(
            verify(&message, &signature[..at], &ring, &AT_SIGNING),
            "",
            "{at}"
        );
    }
    for at in (0..ring.len() - 1).step_by(61) {
        assert_ne!(
            verify(&message, &signature, &ring[..at], &AT_SIGNING),
            "",
            "{at}"
        );
    }
}

#[test]
fn kinds_tell_who_has_to_act() {
    let mut signed = &b""[..];
    let (ring, signature) = (
        file("openpgp/rsa2048.pub"),
        file("openpgp/rsa2048-SHA256.asc"),
    );
    let error = verify_detached(&mut signed, &signature, &ring, &AT_SIGNING).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(matches!(error, OpenPgpError::Signer { .. }));
    let error = verify_detached(&mut signed, &ring, &ring, &AT_SIGNING).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let error = verify_detached(&mut signed, b"", &ring, &AT_SIGNING).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = verify_detached(&mut Broken, &signature, &ring, &AT_SIGNING).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(
        error.to_string(),
        "failed to read signed data: No space left on device (os error 28)"
    );
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::from_raw_os_error(28))
    }
}
