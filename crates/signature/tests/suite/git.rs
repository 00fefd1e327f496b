//! Objects of git, recorded and such as are none.

use oci::ErrorKind;
use signature::SignatureError;
use signature::git::{GitObject, ObjectKind};

use crate::data::{AT_SIGNING, file, text};
use crate::verdicts::git_object;

#[test]
fn commits_and_tags_of_both_formats_are_checked_with_the_key_that_signed_them() {
    let (gpg, ssh) = (file("openpgp/rsa2048.pub"), file("ssh/ed25519.pub"));
    for format in ["sha1", "sha256"] {
        for (name, good, other) in [
            (
                "gpg",
                &gpg,
                "failed to read armored public key: no armored data found",
            ),
            (
                "tag-gpg",
                &gpg,
                "failed to read armored public key: no armored data found",
            ),
            (
                "ssh",
                &ssh,
                "failed to parse ssh public key: ssh: no key found",
            ),
            (
                "tag-ssh",
                &ssh,
                "failed to parse ssh public key: ssh: no key found",
            ),
            (
                "merge",
                &ssh,
                "failed to parse ssh public key: ssh: no key found",
            ),
        ] {
            let object = git_object(&format!("{format}-{name}"));
            object.verify(good, &AT_SIGNING).unwrap();
            let wrong = if good == &gpg { &ssh } else { &gpg };
            let error = object.verify(wrong, &AT_SIGNING).unwrap_err();
            assert!(
                error.to_string().starts_with(other),
                "{format} {name}: {error}"
            );
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        for name in ["unsigned", "tag-unsigned"] {
            let error = git_object(&format!("{format}-{name}")).verify(&gpg, &AT_SIGNING);
            let error = error.unwrap_err();
            assert_eq!(error.to_string(), "git object is not signed");
            assert_eq!(error.kind(), ErrorKind::Denied);
        }
    }
}

#[test]
fn another_key_of_the_right_sort_is_not_enough() {
    let error = git_object("sha1-ssh").verify(&file("ssh/other.pub"), &AT_SIGNING);
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        "failed to verify ssh signature: public key does not match"
    );
    let error = git_object("sha1-gpg").verify(&file("openpgp/ed25519.pub"), &AT_SIGNING);
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("signature by "), "{error}");
    assert!(
        error.ends_with(": openpgp: signature made by unknown entity"),
        "{error}"
    );
}

#[test]
fn what_is_signed_is_the_object_without_its_signature() {
    let commit = text("git/sha1-gpg");
    let object = git_object("sha1-gpg");
    let signed = std::str::from_utf8(object.signed()).unwrap();
    assert!(
        !signed.contains("gpgsig") && !signed.contains("PGP"),
        "{signed}"
    );
    let (head, _) = commit.split_once("gpgsig ").unwrap();
    let (_, message) = commit.split_once("\n\nby gpg").unwrap();
    assert_eq!(signed, format!("{head}\nby gpg{message}"));
    // A merged tag's signature stays: the commit's own is over it.
    let merge = git_object("sha1-merge");
    let signed = std::str::from_utf8(merge.signed()).unwrap();
    assert_eq!(signed.matches("-----BEGIN PGP SIGNATURE-----").count(), 1);
    assert!(merge.signature().unwrap().starts_with(b"-----BEGIN SSH"));
    let tag = git_object("sha1-tag-gpg");
    assert!(
        tag.signed()
            .ends_with(b"\n-----BEGIN PGP SIGNATURE-----\nquoted\n")
    );
}

#[test]
fn an_object_with_another_id_is_none() {
    let commit = file("git/sha1-gpg");
    let mut forged = commit.clone();
    *forged.last_mut().unwrap() ^= 1;
    let ids = text("git/ids");
    let id = ids
        .lines()
        .find_map(|line| line.strip_prefix("sha1-gpg commit "))
        .unwrap();
    GitObject::parse(ObjectKind::Commit, &commit, id).unwrap();
    for (kind, content, id, message) in [
        (
            ObjectKind::Commit,
            &forged,
            id,
            &*format!("checksum mismatch: expected {id}, got "),
        ),
        (
            ObjectKind::Commit,
            &commit,
            &"0".repeat(40),
            "checksum mismatch: expected 00",
        ),
        (
            ObjectKind::Commit,
            &commit,
            &"0".repeat(64),
            "checksum mismatch: expected 00",
        ),
        (ObjectKind::Commit, &commit, "", "unsupported sha length 0"),
        (
            ObjectKind::Commit,
            &commit,
            "48",
            "unsupported sha length 2",
        ),
        (
            ObjectKind::Tag,
            &commit,
            id,
            "invalid tag object: missing object header",
        ),
        (
            ObjectKind::Commit,
            &file("git/sha1-tag-gpg"),
            id,
            "invalid commit object: missing tree header",
        ),
        (
            ObjectKind::Commit,
            &Vec::new(),
            id,
            "invalid commit object: missing tree header",
        ),
        (
            ObjectKind::Commit,
            &b"tree 1\nauthor a\n\ncommitter in the message\n".to_vec(),
            id,
            "invalid commit object: missing committer header",
        ),
    ] {
        let error = GitObject::parse(kind, content, id).unwrap_err();
        assert!(error.to_string().starts_with(message), "{message}: {error}");
    }
}

/// An object of which only the split is of interest: its id is computed by the error that says it.
fn object(kind: ObjectKind, content: &str, digits: usize) -> GitObject {
    let error = GitObject::parse(kind, content.as_bytes(), &"0".repeat(digits)).unwrap_err();
    let error = error.to_string();
    let (_, id) = error.split_once("got ").unwrap();
    GitObject::parse(kind, content.as_bytes(), id).unwrap()
}

#[test]
fn of_two_signatures_the_one_for_the_format_of_the_repository_counts() {
    let commit = "tree 1\nauthor a\ngpgsig-sha256 two\n 2\n\u{20}\ncommitter c\ngpgsig one\n 1\nencoding x\n\nmessage\n gpgsig in it\n";
    for (digits, signature) in [(40, "one\n1\n"), (64, "two\n2\n\n")] {
        let object = object(ObjectKind::Commit, commit, digits);
        assert_eq!(object.signature(), Some(signature.as_bytes()), "{digits}");
        assert_eq!(
            std::str::from_utf8(object.signed()).unwrap(),
            "tree 1\nauthor a\ncommitter c\nencoding x\n\nmessage\n gpgsig in it\n"
        );
    }
    // One alone counts in both.
    let commit = "tree 1\nauthor a\ncommitter c\ngpgsig-sha256 two\n\nmessage";
    let object = object(ObjectKind::Commit, commit, 40);
    assert_eq!(object.signature(), Some(&b"two\n"[..]));
    let error = object.verify(b"", &AT_SIGNING).unwrap_err();
    assert!(matches!(error, SignatureError::Format), "{error}");
    assert_eq!(error.to_string(), "invalid signature format");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_tags_signature_is_what_starts_at_the_last_such_line() {
    let head = "object 1\ntype commit\ntag t\ntagger a\n";
    for (content, signed, signature) in [
        (
            format!("{head}\nmessage\n"),
            format!("{head}\nmessage\n"),
            None,
        ),
        (format!("{head}\n"), format!("{head}\n"), None),
        (
            format!("{head}gpgsig-sha256 other\n 1\n\nm\n-----BEGIN SSH SIGNATURE-----\na\n"),
            format!("{head}\nm\n"),
            Some("-----BEGIN SSH SIGNATURE-----\na\n"),
        ),
        (
            format!("{head}\nm\n -----BEGIN SSH SIGNATURE-----\n"),
            format!("{head}\nm\n -----BEGIN SSH SIGNATURE-----\n"),
            None,
        ),
        (
            format!("{head}\n-----BEGIN SSH SIGNATURE-----\n-----BEGIN PGP SIGNATURE-----"),
            format!("{head}\n-----BEGIN SSH SIGNATURE-----\n"),
            Some("-----BEGIN PGP SIGNATURE-----"),
        ),
    ] {
        let object = object(ObjectKind::Tag, &content, 40);
        assert_eq!(std::str::from_utf8(object.signed()).unwrap(), signed);
        assert_eq!(
            object.signature(),
            signature.map(str::as_bytes),
            "{content}"
        );
    }
}
