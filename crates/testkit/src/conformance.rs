//! What every implementation of a trait must do. Each function is one case, and fails by panicking.

pub mod executor;
pub mod key_store;
pub mod session;
pub mod snapshots;
