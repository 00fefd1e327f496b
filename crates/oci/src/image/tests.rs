use serde::Serialize;
use serde::de::DeserializeOwned;

use gostd::json::{DecodeError, MAX_VALUES, from_slice, to_vec};

use super::*;

/// `\xNN` in the table stands for a byte.
fn bytes_of(line: &str) -> Vec<u8> {
    let mut parts = line.split("\\x");
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (byte, rest) = part.split_at(2);
        out.push(u8::from_str_radix(byte, 16).unwrap());
        out.extend(rest.as_bytes());
    }
    out
}

fn again<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<String, DecodeError> {
    let text = String::from_utf8(to_vec(&from_slice::<T>(bytes)?)).unwrap();
    // Go has two empty lists.
    Ok(["layers", "manifests", "diff_ids"]
        .iter()
        .fold(text, |text, list| {
            text.replace(&format!("\"{list}\":[]"), &format!("\"{list}\":null"))
        }))
}

#[test]
fn documents_of_others_are_read_as_go_reads_them() {
    let mut kind = "";
    let mut document = "";
    let mut checked = 0;
    for line in include_str!("documents.txt").lines() {
        if let "[config]" | "[manifest]" | "[index]" = line {
            kind = line;
            continue;
        }
        let is_result = line.starts_with("= ") || line.starts_with("! ");
        if !is_result {
            document = line;
            continue;
        }
        let bytes = bytes_of(document);
        let encoded = match kind {
            "[config]" => again::<ImageConfig>(&bytes),
            "[manifest]" => again::<Manifest>(&bytes),
            _ => again::<Index>(&bytes),
        };
        checked += 1;
        if let Some(want) = line.strip_prefix("= ") {
            let want = ["layers", "manifests", "diff_ids"]
                .iter()
                .fold(want.to_owned(), |text, list| {
                    text.replace(&format!("\"{list}\":[]"), &format!("\"{list}\":null"))
                });
            assert_eq!(encoded.as_deref(), Ok(want.as_str()), "{document}");
            continue;
        }
        let want = line.strip_prefix("! ").unwrap_or_default();
        // Times are read where they count.
        if want.starts_with("parsing time") {
            continue;
        }
        let error = encoded.unwrap_err().to_string();
        if want.starts_with("json: ") {
            assert!(error.contains("where a"), "{document}: {error}");
        } else if !want.starts_with("Time.") {
            assert_eq!(error, want, "{document}");
        }
    }
    assert!(checked > 90, "{checked}");
}

#[test]
fn a_document_is_bounded_in_depth_and_in_values() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let inside = |depth: usize| format!("{{\"unknown\":{}}}", nested(depth));
    // Deeper than any stack, where nobody asks for it, and where it is kept.
    assert!(from_slice::<ImageConfig>(inside(9_999).as_bytes()).is_ok());
    let config = |text: &str| from_slice::<ImageConfig>(text.as_bytes()).unwrap_err();
    assert_eq!(config(&inside(10_000)), DecodeError::Depth);
    assert_eq!(config(&nested(5_000_000)), DecodeError::Depth);
    assert_eq!(config(&"{\"a\":".repeat(5_000_000)), DecodeError::Depth);
    let any = |text: &str| from_slice::<serde_json::Value>(text.as_bytes());
    assert!(any(&nested(128)).is_ok());
    assert_eq!(any(&nested(9_000)), Err(DecodeError::Depth));
    let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
    assert_eq!(config(&many), DecodeError::Values(MAX_VALUES));
    let many = format!("{{\"unknown\":[{}0]}}", "0,".repeat(MAX_VALUES - 4));
    assert!(from_slice::<ImageConfig>(many.as_bytes()).is_ok());
}

#[test]
fn what_is_in_the_way_of_a_field_is_named() {
    let error =
        from_slice::<ImageConfig>(br#"{"config":{"Healthcheck":{"Retries":"3"}}}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.Healthcheck.Retries: cannot unmarshal string where a number is wanted"
    );
}

#[test]
fn config_fields_are_written_in_go_order() {
    let config = ImageConfig {
        platform: Platform::new("linux", "amd64", ""),
        rootfs: RootFs {
            kind: "layers".into(),
            diff_ids: vec![],
        },
        config: ContainerConfig {
            cmd: vec!["sh".into()],
            ..ContainerConfig::default()
        },
        ..ImageConfig::default()
    };
    assert_eq!(
        String::from_utf8(to_vec(&config)).unwrap(),
        r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{"Cmd":["sh"]}}"#
    );
}
