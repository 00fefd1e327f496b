//! Every key with every signature: gpg's word and BuildKit's word against ours.

use signature::git::{GitObject, ObjectKind};

use crate::data::{AT_NOW, AT_SIGNING, file, openpgp, text};

/// Good for gpg, and not here, with the reason.
const STRICTER_THAN_GPG: &[(&str, &str, &str)] = &[
    ("both", "rsa2048-RIPEMD160", "weak/unknown hash"),
    ("both", "rsa2048-SHA1", "weak/unknown hash"),
    ("both", "rsa2048-SHA224", "weak/unknown hash"),
    ("concatenated", "rsa2048-RIPEMD160", "weak/unknown hash"),
    ("concatenated", "rsa2048-SHA1", "weak/unknown hash"),
    ("concatenated", "rsa2048-SHA224", "weak/unknown hash"),
    ("rsa2048", "rsa2048-RIPEMD160", "weak/unknown hash"),
    ("rsa2048", "rsa2048-SHA1", "weak/unknown hash"),
    ("rsa2048", "rsa2048-SHA224", "weak/unknown hash"),
    ("dsa", "dsa", "pubkey algorithm: DSA"),
    ("p256k1", "p256k1", "pubkey algorithm: curve 2b8104000a"),
    ("short", "short", "RSA key too short: 1024 bits"),
    ("sha1", "sha1", "weak/unknown hash: SHA-1"),
];

#[test]
fn what_gpg_calls_good_today_is_good_but_for_weak_algorithms() {
    let mut stricter = Vec::new();
    let mut pairs = 0;
    for line in text("verdicts").lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [verdict, ring, signature] = words[..] else {
            panic!("{line}");
        };
        pairs += 1;
        let our_verdict = openpgp(ring, signature, &AT_NOW);
        match (verdict, our_verdict.is_empty()) {
            ("good", true) | ("bad", false) => {}
            ("good", false) => stricter.push((ring.to_owned(), signature.to_owned(), our_verdict)),
            _ => panic!("{line}: {our_verdict}"),
        }
    }
    assert!(pairs > 500, "{pairs}");
    assert_eq!(stricter.len(), STRICTER_THAN_GPG.len(), "{stricter:#?}");
    for (ring, signature, reason) in STRICTER_THAN_GPG {
        let known = stricter.iter().any(|(one, other, our_verdict)| {
            one == ring && other == signature && our_verdict.contains(reason)
        });
        assert!(known, "{ring} {signature}: {stricter:#?}");
    }
}

/// What BuildKit says and we do not, with what we say.
const UNLIKE_BUILDKIT: &[(&str, &str, &str)] = &[
    // A key that made its owner's word anew is as good as before: BuildKit calls its signature expired.
    ("openpgp/expired-extended.pub", "openpgp/expired.asc", ""),
    // A block that follows another without an empty line, which BuildKit's reader loses.
    ("openpgp/concatenated.pub", "openpgp/rsa2048-", ""),
    (
        "openpgp/concatenated.pub",
        "openpgp/rsa2048-critical.asc",
        "unknown critical notation",
    ),
    // Self-signatures by SHA-1.
    (
        "openpgp/sha1.pub",
        "openpgp/sha1.asc",
        "rejecting weak/unknown hash: SHA-1",
    ),
    // Curves of no standard.
    (
        "openpgp/p256k1.pub",
        "openpgp/p256k1.asc",
        "rejecting unsupported pubkey algorithm",
    ),
    // RSA keys that are too short for OpenPGP are too short for SSH.
    (
        "ssh/rsa1024.pub",
        "ssh/rsa1024-sha256.sig",
        "RSA key too short: 1024 bits",
    ),
    (
        "ssh/rsa1024.pub",
        "ssh/rsa1024-sha512.sig",
        "RSA key too short: 1024 bits",
    ),
    // The message of this tag quotes the start of a signature; git takes the last.
    ("openpgp/rsa2048.pub", "git/sha1-tag-gpg", ""),
    ("openpgp/rsa2048.pub", "git/sha256-tag-gpg", ""),
];

#[test]
fn what_buildkit_says_is_said_but_for_the_differences_that_have_a_reason() {
    let message = file("message");
    let mut unlike = Vec::new();
    for line in text("verdicts-buildkit").lines() {
        let mut words = line.splitn(4, ' ');
        let (Some(verdict), Some(key), Some(signature)) =
            (words.next(), words.next(), words.next())
        else {
            panic!("{line}");
        };
        let our_verdict = if signature.starts_with("openpgp/") {
            crate::data::verify(&message, &file(signature), &file(key), &AT_SIGNING)
        } else if signature.starts_with("ssh/") {
            signature::ssh::verify(&message, &file(signature), &file(key))
                .map_or_else(|error| error.to_string(), |()| String::new())
        } else {
            let object = git_object(signature);
            object
                .verify(&file(key), &AT_SIGNING)
                .map_or_else(|error| error.to_string(), |()| String::new())
        };
        let is_alike = match (verdict, words.next()) {
            ("good", None) => our_verdict.is_empty(),
            ("bad", Some(error)) => !our_verdict.is_empty() && same_sentence(&our_verdict, error),
            _ => panic!("{line}"),
        };
        if !is_alike {
            unlike.push((line.to_owned(), our_verdict));
        }
    }
    let is_known = |(line, our_verdict): &(String, String), known: &(&str, &str, &str)| {
        let (key, signature, words) = *known;
        line.contains(&format!(" {key} {signature}"))
            && (our_verdict == words || (!words.is_empty() && our_verdict.contains(words)))
    };
    for pair in &unlike {
        let known = UNLIKE_BUILDKIT.iter().any(|known| is_known(pair, known));
        assert!(known, "{pair:#?}");
    }
    for known in UNLIKE_BUILDKIT {
        let is_used = unlike.iter().any(|pair| is_known(pair, known));
        assert!(is_used, "alike by now: {known:?}");
    }
}

/// Beginnings of sentences that end otherwise: BuildKit names algorithms by number, says where base64 ends in Go's words, and leaves out why
/// a key was revoked.
const SAME_BEGINNING: &[&str] = &[
    "rejecting unsupported pubkey algorithm",
    "failed to read armored public key",
    "failed to parse ssh public key: ssh: no key found",
    "openpgp: signature made by revoked key",
    // Where the key's algorithm is not read, nothing is said of the signature.
    "RSA key too short: 1024 bits",
];

fn same_sentence(our_verdict: &str, error: &str) -> bool {
    // BuildKit leaves out zeros at the front of a key's name.
    let our_verdict = our_verdict.replace("signature by 0", "signature by ");
    our_verdict == error
        // A hash that it does not know at all makes BuildKit overlook the signature.
        || (error == "no signature packet found" && our_verdict.ends_with("hash: RIPEMD-160"))
        || SAME_BEGINNING
            .iter()
            .any(|start| our_verdict.contains(start) && error.contains(start))
}

pub(crate) fn git_object(name: &str) -> GitObject {
    let short = name.trim_start_matches("git/");
    let ids = text("git/ids");
    let line = ids
        .lines()
        .find(|line| line.split(' ').next() == Some(short))
        .unwrap_or_else(|| panic!("{short} has no id"));
    let words: Vec<_> = line.split(' ').collect();
    let kind = match words[1] {
        "commit" => ObjectKind::Commit,
        _ => ObjectKind::Tag,
    };
    GitObject::parse(kind, &file(&format!("git/{short}")), words[2]).unwrap()
}
