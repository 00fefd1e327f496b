use oci::{Digest, Platform};

use crate::image::key::image_key;

#[test]
fn the_image_key_is_the_digest_of_the_json_that_the_reference_writes() {
    let root = Digest::sha256(b"x");
    let json = format!(
        "{{\"Digest\":\"{root}\",\"OS\":\"linux\",\"Arch\":\"arm64\",\"Variant\":\"v8\",\"Limit\":2}}"
    );
    assert_eq!(
        image_key(&root, &Platform::new("linux", "arm64", "v8"), Some(2)),
        Digest::sha256(json)
    );
    let json = format!("{{\"Digest\":\"{root}\",\"OS\":\"linux\",\"Arch\":\"amd64\"}}");
    assert_eq!(
        image_key(&root, &Platform::new("linux", "amd64", ""), None),
        Digest::sha256(json)
    );
}
