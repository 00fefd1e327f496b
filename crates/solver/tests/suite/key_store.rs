//! The key store in memory passes the conformance suite of key stores.

use std::sync::Arc;

use solver::MemoryKeyStore;

#[test]
fn a_key_store_in_memory_conforms() {
    testkit::conformance::key_store::all(|| Arc::new(MemoryKeyStore::new()));
}
