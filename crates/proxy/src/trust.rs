//! The certificates that programs of a step trust: where they look for them, and how ours gets there and goes again.
//!
//! The bundle that a step sees is the image's with our certificate between two lines of BuildKit's words. Nothing of it is written into
//! the image's files; where a program of the step wrote the bundle anew from what it saw, [`strip`] takes ours out of that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bundles of distributions, in the order in which BuildKit looks for them; the first that is there is the system's.
pub const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The largest bundle that is read, in bytes.
pub const MAX_BUNDLE: usize = 10 << 20;

/// Where a step sees a copy of the bundle that no program of it writes. Below `/dev`, which is the container's own, so that the place
/// needs no mount point in the image.
pub const MOUNTED_BUNDLE: &str = "/dev/buildkit-proxy-ca.pem";
/// Where Java finds the certificates of that copy.
pub const MOUNTED_JAVA_STORE: &str = "/dev/buildkit-proxy-ca.jks";
/// Where apt reads that copy's name.
pub const MOUNTED_APT_CONFIG: &str = "/dev/buildkit-proxy-apt.conf";

/// Variables that name a bundle, of programs that do not read the system's.
pub const BUNDLE_VARIABLES: [&str; 7] = [
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
];
/// apt knows no variable for a bundle, only one for a file of its configuration.
pub const APT_VARIABLE: &str = "APT_CONFIG";
/// Options of every virtual machine of Java, which reads neither a bundle nor the variables that name a proxy.
pub const JAVA_VARIABLE: &str = "JAVA_TOOL_OPTIONS";
/// Has node's own modules go by the proxy of the variables, from node 22.21 and 24 on; what it trusts is in [`BUNDLE_VARIABLES`].
pub const NODE_PROXY_VARIABLE: &str = "NODE_USE_ENV_PROXY";

const BEGIN: &[u8] = b"\n# buildkit proxy CA begin\n";
const END: &[u8] = b"# buildkit proxy CA end\n";
pub(crate) const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
pub(crate) const PEM_END: &str = "-----END CERTIFICATE-----";

/// What [`MOUNTED_APT_CONFIG`] says.
#[must_use]
pub fn apt_config() -> String {
    format!("Acquire::https::CAInfo \"{MOUNTED_BUNDLE}\";\n")
}

/// What [`JAVA_VARIABLE`] says.
#[must_use]
pub fn java_options() -> String {
    let (address, port) = (crate::ADDRESS, crate::PORT);
    format!(
        "-Djavax.net.ssl.trustStore={MOUNTED_JAVA_STORE} -Djavax.net.ssl.trustStoreType=JKS \
         -Dhttp.proxyHost={address} -Dhttp.proxyPort={port} -Dhttps.proxyHost={address} -Dhttps.proxyPort={port}"
    )
}

/// A certificate as text.
pub(crate) fn pem(der: &[u8]) -> Vec<u8> {
    let mut out = format!("{PEM_BEGIN}\n");
    let body = STANDARD.encode(der);
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(PEM_END);
    out.push('\n');
    out.into_bytes()
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// The bundle with a certificate at its end; nothing if it is in there already.
#[must_use]
pub fn append(bundle: &[u8], certificate: &[u8]) -> Option<Vec<u8>> {
    if position(bundle, certificate).is_some() {
        return None;
    }
    Some([bundle, BEGIN, certificate, END].concat())
}

/// A bundle without the certificate, however often it is in there and whatever else was done to it; nothing if it is not.
#[must_use]
pub fn strip(bundle: &[u8], certificate: &[u8]) -> Option<Vec<u8>> {
    let block = [BEGIN, certificate, END].concat();
    let once = remove_all(bundle, &block);
    let twice = remove_all(once.as_deref().unwrap_or(bundle), certificate);
    twice.or(once)
}

fn remove_all(text: &[u8], part: &[u8]) -> Option<Vec<u8>> {
    let mut rest = text;
    let mut out = Vec::new();
    let mut any = false;
    while let Some(at) = position(rest, part) {
        any = true;
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    any.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn what_was_appended_is_taken_out_again_byte_for_byte() {
        for bundle in ["", "original bundle", "original bundle\n"] {
            let with = append(bundle.as_bytes(), CERTIFICATE).unwrap();
            let text = String::from_utf8(with.clone()).unwrap();
            assert!(text.contains("\n# buildkit proxy CA begin\n-----BEGIN"));
            assert!(append(&with, CERTIFICATE).is_none(), "once is enough");
            assert_eq!(strip(&with, CERTIFICATE).unwrap(), bundle.as_bytes());
            assert_eq!(strip(bundle.as_bytes(), CERTIFICATE), None);
        }
    }

    #[test]
    fn what_a_step_changed_stays_and_ours_goes_from_every_place() {
        let with = append(b"original\n", CERTIFICATE).unwrap();
        let changed = [b"first\n", with.as_slice(), b"last\n", CERTIFICATE].concat();
        assert_eq!(
            strip(&changed, CERTIFICATE).unwrap(),
            b"first\noriginal\nlast\n"
        );
        // A program that keeps certificates and no comments.
        let bare = [b"a\n", CERTIFICATE, b"b\n"].concat();
        assert_eq!(strip(&bare, CERTIFICATE).unwrap(), b"a\nb\n");
    }

    #[test]
    fn text_has_lines_of_64_characters() {
        let text = String::from_utf8(pem(&[7; 100])).unwrap();
        let lines: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lines, [27, 64, 64, 8, 25]);
    }
}
