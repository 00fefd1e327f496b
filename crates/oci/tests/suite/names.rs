//! References (`tests/data/references.json`, written by `integration/tools/buildkit`) and digests.

use oci::{Digest, DigestError, Reference, ReferenceError};
use serde_json::{Value, json};

const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What our parser says in the form of the recording.
fn answer(text: &str) -> Result<Value, String> {
    let reference = Reference::parse(text).map_err(|error| error.to_string())?;
    Ok(json!({
        "name": reference.name(),
        "domain": reference.domain,
        "path": reference.path,
        "familiar": reference.familiar(),
        "text": reference.to_string(),
        "tagged": reference.clone().with_default_tag().to_string(),
    }))
}

#[test]
fn every_reference_is_normalised_as_distribution_does_it() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../data/references.json"))
        .expect("the vectors are JSON");
    assert!(vectors.len() > 80, "{}", vectors.len());
    let mut differences = Vec::new();
    for vector in &vectors {
        let text = vector["in"].as_str().expect("a text");
        let want = match vector["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(vector["out"].clone()),
        };
        let actual = answer(text);
        if actual != want {
            differences.push(format!(
                "{text:?}:\n  {actual:?}\n  the reference says\n  {want:?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_normalised_reference_is_read_as_itself() {
    for text in [
        "alpine",
        "user/image:tag",
        "localhost:5000/x",
        &format!("ghcr.io/a/b:c@sha256:{SHA256}"),
    ] {
        let reference = Reference::parse(text).expect("a reference");
        let again = Reference::parse(&reference.to_string()).expect("a reference");
        assert_eq!(again, reference);
        let short = Reference::parse(&reference.familiar()).expect("a reference");
        assert_eq!(short, reference);
        let tagged = reference.clone().with_default_tag();
        assert_eq!(tagged.clone().with_default_tag(), tagged);
        assert!(tagged.tag.is_some() || tagged.digest.is_some());
    }
}

#[test]
fn refusals_of_references_are_told_apart() {
    for (text, want) in [
        ("a/B", ReferenceError::UpperCase("a/B".into())),
        (SHA256, ReferenceError::BareId(SHA256.into())),
        ("a@sha256:abc", ReferenceError::Format),
        ("a:", ReferenceError::Format),
        ("", ReferenceError::Format),
    ] {
        assert_eq!(Reference::parse(text), Err(want), "{text}");
    }
    // A first part with capitals is a host.
    let host = Reference::parse("A/b").map(|reference| reference.domain);
    assert_eq!(host, Ok("A".to_owned()));
}

#[test]
fn digests_have_an_algorithm_and_as_many_digits_as_it_gives() {
    let [sha384, sha512] = [96, 128].map(|length| "a".repeat(length));
    for text in [
        format!("sha256:{SHA256}"),
        format!("sha384:{sha384}"),
        format!("sha512:{sha512}"),
    ] {
        let digest = Digest::parse(&text).expect("a digest");
        assert_eq!(digest.as_str(), text);
        assert_eq!(format!("{}:{}", digest.algorithm(), digest.hex()), text);
        assert_eq!(text.parse::<Digest>().as_ref(), Ok(&digest));
        let json = serde_json::to_string(&digest).expect("it is written");
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(
            serde_json::from_str::<Digest>(&json).expect("it is read"),
            digest
        );
    }
    for (text, want) in [
        (String::new(), DigestError::Format),
        ("sha256".into(), DigestError::Format),
        (SHA256.into(), DigestError::Format),
        ("sha256:".into(), DigestError::Format),
        (format!(":{SHA256}"), DigestError::Format),
        (format!("sha256:{}", &SHA256[1..]), DigestError::Length),
        (format!("sha256:{SHA256}0"), DigestError::Length),
        (format!("sha512:{SHA256}"), DigestError::Length),
        (
            format!("sha256:{}", SHA256.to_uppercase()),
            DigestError::Format,
        ),
        (format!("sha256:{}g", &SHA256[1..]), DigestError::Format),
        (format!("sha256: {}", &SHA256[1..]), DigestError::Format),
        (format!("sha256:{}é", &SHA256[2..]), DigestError::Format),
        (format!("md5:{}", &SHA256[..32]), DigestError::Algorithm),
        (format!("blake3:{SHA256}"), DigestError::Algorithm),
        (format!("SHA256:{SHA256}"), DigestError::Format),
        (format!("sha256:{SHA256}\n"), DigestError::Length),
        (format!("../..:{SHA256}"), DigestError::Format),
    ] {
        assert_eq!(Digest::parse(&text), Err(want), "{text:?}");
    }
}

#[test]
fn a_digest_of_a_stream_is_that_of_its_bytes() {
    let empty = Digest::sha256(b"");
    assert_eq!(empty.hex(), SHA256);
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (digest, length) = oci::Digester::of_reader(bytes.as_slice()).expect("bytes can be read");
    assert_eq!((digest, length), (Digest::sha256(&bytes), 200_000));
    let mut parts = oci::Digester::new();
    for part in bytes.chunks(999) {
        parts.update(part);
    }
    assert_eq!(parts.finish(), Digest::sha256(&bytes));
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("broken"))
        }
    }
    assert!(oci::Digester::of_reader(Broken).is_err());
}

#[test]
fn keys_of_caches_are_no_names_of_bytes() {
    let key = Digest::key("random:abc");
    assert_eq!((key.algorithm(), key.hex()), ("random", "abc"));
    assert_eq!(Digest::parse(key.as_str()), Err(DigestError::Algorithm));
    let bare = Digest::key("bare");
    assert_eq!((bare.algorithm(), bare.hex()), ("", "bare"));
    assert_eq!(
        Digest::from_sha256_bytes(&[0xe3, 0x0b]).as_str(),
        "sha256:e30b"
    );
}

#[test]
fn what_is_written_wrong_is_invalid_and_what_is_not_built_is_unsupported() {
    use oci::{Digest, ErrorKind, Platform, Reference};
    let hex = "d41d8cd98f00b204e9800998ecf8427e";
    for (text, kind) in [
        ("sha256", ErrorKind::Invalid),
        ("sha256:12", ErrorKind::Invalid),
        (&format!("md5:{hex}"), ErrorKind::Unsupported),
    ] {
        assert_eq!(Digest::parse(text).unwrap_err().kind(), kind, "{text}");
    }
    let long = "a".repeat(256);
    for text in ["", "UPPER", &format!("{hex}{hex}"), &long, "x@sha256:12"] {
        let error = Reference::parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}: {error}");
    }
    for (text, kind) in [
        ("li!nux/amd64", ErrorKind::Invalid),
        ("linux/a/b/c", ErrorKind::Invalid),
        ("nonsense", ErrorKind::Invalid),
        ("linux/*", ErrorKind::Unsupported),
    ] {
        let error = Platform::parse(text).unwrap_err();
        assert_eq!(error.kind(), kind, "{text}: {error}");
    }
}
