//! The debugging listener: metrics, health, and what a running daemon does at the moment.
//!
//! | module | what it does |
//! |---|---|
//! | [`address`] | who may reach the listener, and which pages are shown to them |
//! | [`server`] | HTTP/1.1 on it, bounded |
//! | [`pages`] | the answers |
//! | [`process`] | what the kernel counts of this process |
//!
//! It is bound before the state directory is opened, so that who asks for its health hears that it starts. It is closed last.

mod address;
mod pages;
mod process;
mod server;

pub(crate) use address::open;
pub(crate) use pages::{Engines, Pages};
pub(crate) use server::serve;
