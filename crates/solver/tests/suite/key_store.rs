//! The key store in memory against the suite of all key stores.

use std::sync::Arc;

use solver::MemoryKeyStore;

#[test]
fn a_key_store_in_memory_does_what_every_key_store_does() {
    testkit::conformance::key_store::all(|| Arc::new(MemoryKeyStore::new()));
}
