//! The cache key of a downloaded file: SHA-256 of this JSON object.
//!
//! | field              | in     | why                                                       |
//! |--------------------|--------|-----------------------------------------------------------|
//! | `Filename`         | always | it is the file's name in the snapshot                     |
//! | `Perm, UID, GID`   | always | the file's metadata                                       |
//! | `Checksum`         | always | the content                                               |
//! | `LastModTime`      | if known | the file's time                                         |
//! | `AuthHeaderSecret` | if set | with a secret, a server may send other content            |
//! | `Header`           | if set | request headers may change the content                    |
//! | the address        | no     | equal content is equal wherever it comes from             |

use oci::Digest;
use serde::Serialize;

use crate::http::HttpIdentifier;

/// A request header that an attribute sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct HeaderField {
    #[serde(rename = "Name")]
    pub(crate) name: String,
    #[serde(rename = "Value")]
    pub(crate) value: String,
}

#[derive(Serialize)]
struct HttpKeyInputs<'a> {
    #[serde(rename = "Filename")]
    filename: &'a str,
    #[serde(rename = "Perm")]
    perm: i64,
    #[serde(rename = "UID")]
    uid: i64,
    #[serde(rename = "GID")]
    gid: i64,
    #[serde(rename = "Checksum")]
    checksum: &'a Digest,
    #[serde(rename = "LastModTime", skip_serializing_if = "String::is_empty")]
    last_mod_time: String,
    #[serde(rename = "AuthHeaderSecret", skip_serializing_if = "str::is_empty")]
    auth_header_secret: &'a str,
    #[serde(rename = "Header", skip_serializing_if = "<[HeaderField]>::is_empty")]
    header: &'a [HeaderField],
}

/// The digest of the JSON object of the module's table.
pub(crate) fn http_key(
    id: &HttpIdentifier,
    filename: &str,
    checksum: &Digest,
    modified: Option<i64>,
) -> Digest {
    let inputs = HttpKeyInputs {
        filename,
        perm: id.perm,
        uid: id.uid,
        gid: id.gid,
        checksum,
        last_mod_time: modified
            .and_then(crate::http::date::format)
            .unwrap_or_default(),
        auth_header_secret: &id.auth_header_secret,
        header: &id.header,
    };
    Digest::sha256(gostd::json::to_vec(&inputs))
}
