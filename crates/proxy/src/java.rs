//! The bundle as Java reads it: a key store of Sun's format (JKS), which every version of Java since 1.2 knows without an option.
//!
//! ```text
//!   FEEDFEED  version 2  number of entries
//!   entry:    2 (a trusted certificate)  alias  milliseconds since 1970  "X.509"  length  DER
//!   SHA-1 of the password, "Mighty Aphrodite" and all of the above
//! ```
//! All numbers are big-endian, texts have a length of two bytes. The digest only tells whether the password is right; nothing is secret.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::trust::{PEM_BEGIN, PEM_END};

const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;
/// What every key store of certificates has for a password.
const PASSWORD: &str = "changeit";
const WHITENER: &[u8] = b"Mighty Aphrodite";

/// Makes a key store of the certificates of a bundle. Those that are none are left out: Java refuses a whole store for one of them.
#[must_use]
pub fn key_store(bundle: &[u8]) -> Vec<u8> {
    let certificates = certificates(bundle);
    let mut out = Vec::new();
    number(&mut out, MAGIC);
    number(&mut out, VERSION);
    number(&mut out, length(certificates.len()));
    for (index, der) in certificates.iter().enumerate() {
        number(&mut out, TRUSTED_CERTIFICATE);
        text(&mut out, &format!("certificate-{index}"));
        // No date, so that the same bundle gives the same bytes.
        out.extend_from_slice(&0_u64.to_be_bytes());
        text(&mut out, "X.509");
        number(&mut out, length(der.len()));
        out.extend_from_slice(der);
    }
    let mut digest = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for unit in PASSWORD.encode_utf16() {
        digest.update(&unit.to_be_bytes());
    }
    digest.update(WHITENER);
    digest.update(&out);
    out.extend_from_slice(digest.finish().as_ref());
    out
}

fn number(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// Bundles are smaller than [`crate::trust::MAX_BUNDLE`], so that all lengths fit.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Texts here are short and ASCII, whose bytes are the same in Java's variant of UTF-8.
fn text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The certificates of a bundle, decoded.
fn certificates(bundle: &[u8]) -> Vec<Vec<u8>> {
    let bundle = String::from_utf8_lossy(bundle);
    let mut certificates = Vec::new();
    let mut body: Option<String> = None;
    for line in bundle.lines().map(str::trim) {
        if line == PEM_BEGIN {
            body = Some(String::new());
        } else if line == PEM_END {
            let der = body.take().and_then(|body| STANDARD.decode(body).ok());
            certificates.extend(der.filter(|der| is_sequence(der)));
        } else if let Some(body) = &mut body {
            body.push_str(line);
        }
    }
    certificates
}

/// Whether this is one sequence of DER with a length of two bytes and nothing behind it, as every certificate is.
fn is_sequence(der: &[u8]) -> bool {
    let [0x30, 0x82, high, low, rest @ ..] = der else {
        return false;
    };
    rest.len() == usize::from(u16::from_be_bytes([*high, *low]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust;

    fn sequence(fill: u8) -> Vec<u8> {
        [&[0x30, 0x82, 0x01, 0x00][..], &[fill; 256]].concat()
    }

    #[test]
    fn a_store_has_every_certificate_of_the_bundle_and_a_digest() {
        let bundle = [
            b"# a comment\n".as_slice(),
            &trust::pem(&sequence(1)),
            b"\n# another\r\n",
            &trust::pem(&sequence(2)),
        ]
        .concat();
        let store = key_store(&bundle);
        let expected = |index: u8| {
            let alias = format!("certificate-{index}");
            [
                &[0, 0, 0, 2, 0, 13][..],
                alias.as_bytes(),
                &[0; 8],
                &[0, 5],
                b"X.509",
                &[0, 0, 1, 4],
                &sequence(index + 1),
            ]
            .concat()
        };
        let head = [0xFE, 0xED, 0xFE, 0xED, 0, 0, 0, 2, 0, 0, 0, 2];
        let without_digest = [&head[..], &expected(0), &expected(1)].concat();
        assert_eq!(&store[..store.len() - 20], without_digest);
        assert_eq!(store, key_store(&bundle), "the bytes are the same again");
    }

    #[test]
    fn an_empty_store_has_the_digest_that_keytool_writes() {
        // `keytool -genkeypair -storetype JKS -storepass changeit …` and `keytool -delete` of that entry leave these bytes.
        let digest = [
            0xe2, 0x68, 0x6e, 0x45, 0xfb, 0x43, 0xdf, 0xa4, 0xd9, 0x92, 0xdd, 0x41, 0xce, 0xb6,
            0xb2, 0x1c, 0x63, 0x30, 0xd7, 0x92,
        ];
        assert_eq!(&key_store(b"")[12..], digest);
    }

    #[test]
    fn what_is_no_certificate_is_left_out() {
        let cut = sequence(1).split_off(5);
        for bad in [
            trust::pem(&cut),
            trust::pem(b""),
            format!("{PEM_BEGIN}\n!!!!\n{PEM_END}\n").into_bytes(),
            format!("{PEM_BEGIN}\nMIIB\n").into_bytes(),
            format!("{PEM_END}\n{PEM_END}\n").into_bytes(),
            vec![0xff; 100],
        ] {
            assert!(certificates(&bad).is_empty(), "{bad:?}");
            let with = [bad, b"\n".to_vec(), trust::pem(&sequence(7))].concat();
            assert_eq!(certificates(&with), [sequence(7)]);
        }
    }
}
