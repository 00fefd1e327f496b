//! From a solve request to a definition.
//!
//! A frontend turns options and inputs into LLB by asking a [`Bridge`]: the one solve it belongs to. The engine implements
//! the bridge, this crate holds the traits, the values that cross them, and the built-in Dockerfile frontend.

pub mod bridge;
pub mod builtin;
pub mod error;
pub mod gateway;
pub mod gateway_image;
mod places;
mod reference;

pub use bridge::{
    Bridge, Frontend, FrontendCall, FrontendRequest, FrontendResult, Ref, SolveInput, SolveRequest,
};
pub use builtin::Dockerfile;
pub use error::{BridgeError, FrontendError, resolving};
pub use places::SourceLocation;
