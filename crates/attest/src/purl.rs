//! Package URLs of images: `pkg:docker/busybox@latest?platform=linux%2Famd64`.

use oci::{Platform, Reference};

use crate::error::AttestError;

/// The place of an image that a package URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurlKind {
    /// In a registry.
    Docker,
    /// In a layout of the client.
    Oci,
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Names an image; `extra` are further qualifiers.
pub fn of_image(
    kind: PurlKind,
    reference: &str,
    platform: Option<&Platform>,
    extra: &[(&str, &str)],
) -> Result<String, AttestError> {
    let parsed = Reference::parse(reference).map_err(|source| AttestError::Reference {
        reference: reference.to_owned(),
        source,
    })?;
    let parsed = parsed.with_default_tag();
    let mut qualifiers = Vec::new();
    if let Some(digest) = &parsed.digest {
        qualifiers.push(("digest", digest.to_string()));
    }
    if let Some(platform) = platform {
        qualifiers.push(("platform", platform.normalize().format()));
    }
    qualifiers.extend(extra.iter().map(|(k, v)| (*k, (*v).to_owned())));
    qualifiers.sort();
    let name = Reference {
        tag: None,
        digest: None,
        ..parsed.clone()
    }
    .familiar();
    let kind = match kind {
        PurlKind::Docker => "docker",
        PurlKind::Oci => "oci",
    };
    let mut out = format!("pkg:{kind}");
    for part in name.split('/') {
        out.push('/');
        out.push_str(&escape(part));
    }
    if let Some(tag) = &parsed.tag {
        out.push('@');
        out.push_str(&escape(tag));
    }
    for (at, (key, value)) in qualifiers.iter().enumerate() {
        out.push(if at == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        out.push_str(&escape(value));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{PurlKind, of_image};
    use oci::Platform;

    #[test]
    fn images_have_package_urls() {
        let amd64 = Platform::new("linux", "amd64", "");
        let zeros = "0".repeat(64);
        for (kind, reference, platform, want) in [
            (
                PurlKind::Docker,
                "docker.io/library/busybox:latest".to_owned(),
                Some(&amd64),
                "pkg:docker/busybox@latest?platform=linux%2Famd64".to_owned(),
            ),
            (
                PurlKind::Docker,
                "localhost:5000/a/b:t".into(),
                None,
                "pkg:docker/localhost:5000/a/b@t".into(),
            ),
            (
                PurlKind::Oci,
                format!("not/real@sha256:{zeros}"),
                Some(&amd64),
                format!("pkg:oci/not/real?digest=sha256:{zeros}&platform=linux%2Famd64"),
            ),
        ] {
            assert_eq!(of_image(kind, &reference, platform, &[]).unwrap(), want);
        }
        assert!(of_image(PurlKind::Docker, "A b", None, &[]).is_err());
    }
}
