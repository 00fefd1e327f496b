//! The debugging listener: metrics, health, and what a running daemon is at.
//!
//! | module | what it does |
//! |---|---|
//! | [`address`] | who may reach the listener, and what he may see then |
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
