//! The recorded files, and the times at which they were made.

use signature::{ExpiryJudgedAt, Policy};

/// Noon of 1 June 2025, after everything that was recorded.
pub(crate) const NOW: u64 = 1_748_779_200;

pub(crate) const AT_SIGNING: Policy = Policy {
    expiry: ExpiryJudgedAt::Signing,
    now: NOW,
};
pub(crate) const AT_NOW: Policy = Policy {
    expiry: ExpiryJudgedAt::Now,
    now: NOW,
};

pub(crate) fn file(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn text(name: &str) -> String {
    String::from_utf8(file(name)).unwrap()
}

/// What is said of a recorded signature of the recorded message; nothing if it is good.
pub(crate) fn openpgp(ring: &str, signature: &str, policy: &Policy) -> String {
    verify(
        &file("message"),
        &file(&format!("openpgp/{signature}.asc")),
        &file(&format!("openpgp/{ring}.pub")),
        policy,
    )
}

pub(crate) fn verify(signed: &[u8], signature: &[u8], ring: &[u8], policy: &Policy) -> String {
    let mut signed = signed;
    signature::openpgp::verify_detached(&mut signed, signature, ring, policy)
        .map_or_else(|error| error.to_string(), |()| String::new())
}
