//! Keys and results: their algebra, where they are kept, and how they are asked for and exported.

pub mod cachekey;
pub mod export;
pub(crate) mod keystore;
pub(crate) mod lookup;
pub(crate) mod manager;
pub(crate) mod memory;
