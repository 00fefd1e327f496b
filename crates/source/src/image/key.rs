//! The cache key of an image.
//!
//! SHA-256 of this JSON object, as Go's encoder writes it:
//!
//! | field        | in             | why                                                                     |
//! |--------------|----------------|-------------------------------------------------------------------------|
//! | `Digest`     | always         | the root document: an index stays one key for all who use it           |
//! | `OS`, `Arch` | always         | an index holds several images                                          |
//! | `Variant`, `OSVersion`, `OSFeatures` | if set | as above                                               |
//! | `Limit`      | if set         | fewer layers are other content                                         |
//! | name, tag    | no             | the digest says it all                                                  |
//! | diff ids     | no             | they are claims until the layers are unpacked (a bad pull must not poison) |

use oci::{Digest, Platform};
use serde::Serialize;

#[derive(Serialize)]
struct ImageKeyInputs<'a> {
    #[serde(rename = "Digest")]
    digest: &'a Digest,
    #[serde(rename = "OS")]
    os: &'a str,
    #[serde(rename = "Arch")]
    arch: &'a str,
    #[serde(rename = "Variant", skip_serializing_if = "str::is_empty")]
    variant: &'a str,
    #[serde(rename = "OSVersion", skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    #[serde(rename = "OSFeatures", skip_serializing_if = "<[String]>::is_empty")]
    os_features: &'a [String],
    #[serde(rename = "Limit", skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

pub(crate) fn image_key(root: &Digest, platform: &Platform, limit: Option<usize>) -> Digest {
    let inputs = ImageKeyInputs {
        digest: root,
        os: &platform.os,
        arch: &platform.architecture,
        variant: &platform.variant,
        os_version: &platform.os_version,
        os_features: &platform.os_features,
        limit,
    };
    Digest::sha256(gostd::json::to_vec(&inputs))
}
