//! Content identities and OCI documents, byte-exact.
