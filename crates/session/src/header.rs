//! Names and values of the request headers that both sides of a session use.
//!
//! Values with other than printable ASCII are escaped as in a query string, and `<name>-encoded: 1` says so.

use gostd::url::{query_escape, query_unescape};

/// Id of the session.
pub const SESSION_ID: &str = "x-docker-expose-session-uuid";
/// Shared key of the session.
pub const SESSION_SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
/// Whether the shared key is escaped.
pub const SESSION_SHARED_KEY_ENCODED: &str = "x-docker-expose-session-sharedkey-encoded";
/// One header for each method that the client serves.
pub const SESSION_METHOD: &str = "x-docker-expose-session-grpc-method";
/// Milliseconds between health checks (tests of the reference set it).
pub const SESSION_HEALTH_TIMEOUT: &str = "x-buildkit-session-health-custom-timeout";
/// Name of the requested folder.
pub const DIR_NAME: &str = "dir-name";
/// Patterns of the requested files.
pub const INCLUDE: &str = "include-patterns";
/// Patterns of files to leave out.
pub const EXCLUDE: &str = "exclude-patterns";
/// Paths whose symlinks are followed.
pub const FOLLOW: &str = "followpaths";
/// Requests marks of changes (an extension of this project; other clients ignore it).
pub const CHANGE_MARKS: &str = "x-rbuild-change-marks";
/// Prefix of values that go with an exported file.
pub const EXPORTER_METADATA: &str = "exporter-md-";
/// Index of the exporter in the request.
pub const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
/// Set if all platforms come as one tree.
pub const EXPORTER_MULTI_PLATFORM: &str = "buildkit-exporter-multi-platform";
/// Name of the client's content store.
pub const CONTENT_STORE: &str = "buildkit-attachable-store-id";
/// Id of the SSH agent.
pub const SSH_ID: &str = "buildkit.ssh.id";
/// Host part of an upload's URL.
pub const UPLOAD_HOST: &str = "urlhost";
/// Path part of an upload's URL.
pub const UPLOAD_PATH: &str = "urlpath";
/// Build that the call of a frontend belongs to.
pub const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// Escapes a list of values if one of them needs it; all or none are escaped.
#[must_use]
pub fn encode_list(values: &[String]) -> (Vec<String>, bool) {
    // Control characters cannot travel in a header either, so they are escaped as well.
    if values
        .iter()
        .all(|v| v.bytes().all(|b| (0x20..0x7f).contains(&b)))
    {
        return (values.to_vec(), false);
    }
    (values.iter().map(|v| query_escape(v)).collect(), true)
}

/// Escapes one value if it needs it.
#[must_use]
pub fn encode(value: &str) -> (String, bool) {
    if value.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        (value.to_owned(), false)
    } else {
        (query_escape(value), true)
    }
}

/// Removes the escapes if the sender set `encoded`.
#[must_use]
pub fn decode(value: &str, encoded: bool) -> String {
    if encoded {
        query_unescape(value)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_else(|| value.to_owned())
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_header() {
        for value in ["plain", "with blank", "ünïcode/%+&", "tab\there", ""] {
            let (text, encoded) = encode(value);
            assert!(text.is_ascii());
            assert_eq!(decode(&text, encoded), value);
        }
        assert_eq!(encode("ä b"), ("%C3%A4+b".to_owned(), true));
        assert_eq!(decode("%zz", true), "%zz");
    }
}
