//! Keys and results: their algebra, their stores, look-ups and export.

pub mod cachekey;
pub mod export;
pub(crate) mod keystore;
pub(crate) mod lookup;
pub(crate) mod manager;
pub(crate) mod memory;
