//! SSH signatures: those of ssh-keygen, and forged ones.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::ErrorKind;
use signature::ssh::verify;

use crate::data::file;

fn verdict(signed: &[u8], signature: &[u8], key: &[u8]) -> String {
    verify(signed, signature, key).map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn signatures_of_ssh_keygen_are_its_keys_and_nobody_elses() {
    let (message, other) = (file("message"), file("ssh/other.pub"));
    for name in ["ed25519", "rsa2048", "ecdsa256", "ecdsa384", "ecdsa521"] {
        let key = file(&format!("ssh/{name}.pub"));
        for hash in ["sha256", "sha512"] {
            let signature = file(&format!("ssh/{name}-{hash}.sig"));
            assert_eq!(verdict(&message, &signature, &key), "", "{name} {hash}");
            assert_eq!(
                verdict(&message, &signature, &other),
                "failed to verify ssh signature: public key does not match"
            );
            let forged = verdict(b"something else", &signature, &key);
            assert!(
                forged.starts_with("failed to verify ssh signature: "),
                "{forged}"
            );
            assert!(forged.ends_with(" verification failure"), "{forged}");
        }
    }
    let short = verdict(
        &message,
        &file("ssh/rsa1024-sha512.sig"),
        &file("ssh/rsa1024.pub"),
    );
    assert_eq!(
        short,
        "failed to verify ssh signature: RSA key too short: 1024 bits"
    );
}

#[test]
fn a_signature_that_was_made_for_files_is_none_for_git() {
    let error = verify(
        &file("message"),
        &file("ssh/ed25519-file.sig"),
        &file("ssh/ed25519.pub"),
    );
    let error = error.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unexpected SSH signature namespace: \"file\""
    );
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[test]
fn the_first_line_with_a_key_counts_whatever_options_stand_before_it() {
    let (message, signature) = (file("message"), file("ssh/ed25519-sha512.sig"));
    let key = String::from_utf8(file("ssh/ed25519.pub")).unwrap();
    let key = key.trim();
    let bare = key.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let other = String::from_utf8(file("ssh/other.pub")).unwrap();
    let data = bare.split(' ').nth(1).unwrap();
    let none = "failed to parse ssh public key: ssh: no key found";
    for (lines, expected) in [
        (bare.clone(), ""),
        (format!("# a comment\n\n  {key}\r\n{other}"), ""),
        (format!("restrict {bare}"), ""),
        (format!("command=\"a b\\\" c\",no-pty\t{bare} comment"), ""),
        (format!("nonsense\n{bare}"), ""),
        (
            format!("{other}{bare}"),
            "failed to verify ssh signature: public key does not match",
        ),
        (String::new(), none),
        ("# nothing".to_owned(), none),
        ("ssh-ed25519".to_owned(), none),
        (format!("command=\"open {bare}"), none),
        (
            "ssh-ed25519 AAAA".to_owned(),
            "failed to parse ssh public key: ssh: no key found; last parsing error for ignored line: ssh: unmarshal error for field key type",
        ),
        (
            format!("ssh-rsa {data}"),
            "failed to parse ssh public key: ssh: no key found; last parsing error for ignored line: ssh: authorized keys key type mismatch: human-readable type \"ssh-rsa\", encoded type \"ssh-ed25519\"",
        ),
        (
            "ssh-ed25519 *".to_owned(),
            "failed to parse ssh public key: ssh: no key found; last parsing error for ignored line: Invalid symbol 42, offset 0.",
        ),
    ] {
        let answer = verdict(&message, &signature, lines.as_bytes());
        if expected == none {
            assert!(answer.starts_with(none), "{lines:?}: {answer}");
        } else {
            assert_eq!(answer, expected, "{lines:?}");
        }
    }
    assert!(verdict(&message, &signature, &[0xff, b' ', 0xfe]).starts_with(none));
}

/// A signature as a test wants it.
#[derive(Clone)]
struct Parts {
    magic: &'static [u8],
    version: u32,
    key: Vec<u8>,
    namespace: &'static str,
    hash: &'static str,
    value: Vec<u8>,
    after: Vec<u8>,
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| string(part)).collect()
}

fn armored(parts: &Parts) -> Vec<u8> {
    let bytes = [
        parts.magic.to_vec(),
        parts.version.to_be_bytes().to_vec(),
        string(&parts.key),
        strings(&[parts.namespace.as_bytes(), b"", parts.hash.as_bytes()]),
        string(&parts.value),
        parts.after.clone(),
    ]
    .concat();
    let text = STANDARD.encode(bytes);
    format!("-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n").into_bytes()
}

fn signed_message(hash: &str, message: &[u8]) -> Vec<u8> {
    let digest = digest(if hash == "sha256" { &SHA256 } else { &SHA512 }, message);
    let strings = strings(&[b"git", b"", hash.as_bytes(), digest.as_ref()]);
    [b"SSHSIG", &strings[..]].concat()
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn ed25519() -> Parts {
    let pair = pair();
    let value = pair.sign(&signed_message("sha512", b"message"));
    Parts {
        magic: b"SSHSIG",
        version: 1,
        key: strings(&[b"ssh-ed25519", pair.public_key().as_ref()]),
        namespace: "git",
        hash: "sha512",
        value: strings(&[b"ssh-ed25519", value.as_ref()]),
        after: Vec::new(),
    }
}

fn line(parts: &Parts) -> String {
    let length = usize::try_from(u32::from_be_bytes(*parts.key.first_chunk().unwrap())).unwrap();
    let name = std::str::from_utf8(&parts.key[4..4 + length]).unwrap();
    format!("{name} {}", STANDARD.encode(&parts.key))
}

#[test]
fn each_part_of_a_signature_has_to_be_right() {
    let good = ed25519();
    let key = line(&good);
    assert_eq!(verdict(b"message", &armored(&good), key.as_bytes()), "");
    let changed = |change: &dyn Fn(&mut Parts)| {
        let mut parts = good.clone();
        change(&mut parts);
        verdict(b"message", &armored(&parts), key.as_bytes())
    };
    let parse = "failed to parse ssh signature: ";
    for (answer, expected) in [
        (
            changed(&|p| p.magic = b"SSHSIH"),
            format!("{parse}invalid magic preamble"),
        ),
        (
            changed(&|p| p.version = 2),
            format!("{parse}unsupported signature version 2: expected 1"),
        ),
        (
            changed(&|p| p.hash = "sha1"),
            format!("{parse}unsupported hash algorithm \"sha1\": must be \"sha256\" or \"sha512\""),
        ),
        (
            changed(&|p| p.after = vec![0]),
            format!("{parse}ssh: unmarshal error for field signature"),
        ),
        (
            changed(&|p| p.value.push(0)),
            format!("{parse}ssh: unmarshal error for field signature"),
        ),
        (
            changed(&|p| p.value.truncate(40)),
            format!("{parse}ssh: unmarshal error for field signature"),
        ),
        (
            changed(&|p| p.value = strings(&[b"ssh-rsa", b"1"])),
            format!("{parse}ssh: signature type ssh-rsa for key type ssh-ed25519"),
        ),
        (
            changed(&|p| p.key.push(0)),
            format!("{parse}ssh: unmarshal error for field key"),
        ),
        (
            changed(&|p| p.key = strings(&[b"ssh-dss", b"1"])),
            format!("{parse}ssh: unknown key algorithm: ssh-dss"),
        ),
        (
            changed(&|p| p.key = strings(&[b"ssh-ed25519-cert-v01@openssh.com", b"1"])),
            format!("{parse}ssh: unknown key algorithm: ssh-ed25519-cert-v01@openssh.com"),
        ),
        (
            changed(&|p| p.key = strings(&[b"ecdsa-sha2-nistp256", b"nistp384", b"1"])),
            format!("{parse}ssh: unmarshal error for field curve"),
        ),
        // A negative modulus.
        (
            changed(&|p| p.key = strings(&[b"ssh-rsa", &[1, 0, 1], &[0x80, 1]])),
            format!("{parse}ssh: unmarshal error for field modulus"),
        ),
        (
            changed(&|p| p.namespace = "file"),
            "unexpected SSH signature namespace: \"file\"".to_owned(),
        ),
        // What was signed with one hash does not become signed with the other.
        (
            changed(&|p| p.hash = "sha256"),
            "failed to verify ssh signature: EdDSA verification failure".to_owned(),
        ),
        (
            changed(&|p| p.value = strings(&[b"ssh-ed25519", &[1; 63]])),
            "failed to verify ssh signature: EdDSA verification failure".to_owned(),
        ),
    ] {
        assert_eq!(answer, expected);
    }
    let truncated = armored(&good);
    for at in (0..truncated.len() - 30).step_by(5) {
        assert_ne!(verdict(b"message", &truncated[..at], key.as_bytes()), "");
    }
    let label = verdict(
        b"message",
        b"-----BEGIN SSH SIGNATURES-----\n-----END SSH SIGNATURES-----",
        b"",
    );
    assert_eq!(
        label,
        "failed to decode ssh signature PEM block: it is a \"SSH SIGNATURES\""
    );
}

#[test]
fn rsa_by_sha1_is_refused_whatever_the_key() {
    let modulus = [&[0][..], &[0xc5; 256]].concat();
    let parts = Parts {
        key: strings(&[b"ssh-rsa", &[1, 0, 1], &modulus]),
        value: strings(&[b"ssh-rsa", &[1; 256]]),
        ..ed25519()
    };
    let answer = verdict(b"message", &armored(&parts), line(&parts).as_bytes());
    assert_eq!(
        answer,
        "failed to parse ssh signature: ssh: signature type ssh-rsa for key type ssh-rsa"
    );
}

#[test]
fn ecdsa_numbers_that_are_none_are_refused() {
    let signature = file("ssh/ecdsa256-sha256.sig");
    let key = file("ssh/ecdsa256.pub");
    let point_key = String::from_utf8(key.clone()).unwrap();
    let point = STANDARD
        .decode(point_key.split(' ').nth(1).unwrap())
        .unwrap();
    assert_eq!(verdict(&file("message"), &signature, &key), "");
    let with = |r: &[u8], s: &[u8], after: &[u8]| {
        let numbers = [strings(&[r, s]), after.to_vec()].concat();
        let parts = Parts {
            key: point.clone(),
            value: strings(&[b"ecdsa-sha2-nistp256", &numbers]),
            ..ed25519()
        };
        verdict(&file("message"), &armored(&parts), &key)
    };
    let wrong = "failed to verify ssh signature: ECDSA verification failure";
    let parse = "failed to parse ssh signature: ssh: unmarshal error for field ";
    assert_eq!(with(&[1], &[1], &[]), wrong);
    assert_eq!(with(&[0], &[0], &[]), wrong);
    assert_eq!(with(&[], &[], &[]), wrong);
    assert_eq!(with(&[1; 400], &[1; 400], &[]), wrong);
    assert_eq!(with(&[0xff], &[1], &[]), format!("{parse}r"));
    assert_eq!(with(&[1], &[1], &[0]), format!("{parse}s"));
}

#[test]
fn keys_of_hardware_count_when_it_was_touched() {
    let pair = pair();
    let sign = |flags: u8, signed: &[u8]| {
        let counter = 5_u32.to_be_bytes();
        let application = digest(&SHA256, b"ssh:");
        let message = digest(&SHA256, signed);
        let bytes = [application.as_ref(), &[flags], &counter, message.as_ref()].concat();
        let value = pair.sign(&bytes);
        let mut parts = ed25519();
        let name = b"sk-ssh-ed25519@openssh.com";
        parts.key = strings(&[name, pair.public_key().as_ref(), b"ssh:"]);
        parts.value = [
            strings(&[name, value.as_ref()]),
            vec![flags],
            counter.to_vec(),
        ]
        .concat();
        parts
    };
    let message = signed_message("sha512", b"message");
    let touched = sign(1, &message);
    let key = line(&touched);
    assert_eq!(verdict(b"message", &armored(&touched), key.as_bytes()), "");
    let other = verdict(b"massage", &armored(&touched), key.as_bytes());
    assert_eq!(
        other,
        "failed to verify ssh signature: EdDSA verification failure"
    );
    let untouched = sign(0, &message);
    assert_eq!(
        verdict(b"message", &armored(&untouched), key.as_bytes()),
        "failed to verify ssh signature: ssh: signature is missing the user presence flag"
    );
    let mut without = touched.clone();
    without.value.truncate(without.value.len() - 5);
    assert_eq!(
        verdict(b"message", &armored(&without), key.as_bytes()),
        "failed to parse ssh signature: ssh: unmarshal error for field flags"
    );
}
