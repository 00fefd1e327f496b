//! Content identities and OCI documents, byte-exact.
//!
//! Everything here is vocabulary: digests, descriptors, platforms, image references and the JSON documents of the
//! OCI image specification, written the way Go's encoder writes them so that our documents have BuildKit's digests.

pub mod address;
pub mod descriptor;
pub mod digest;
pub mod error;
pub mod image;
pub mod media_type;
pub mod platform;
pub mod reference;
mod session_id;

pub use descriptor::Descriptor;
pub use digest::{Digest, DigestError, Digester};
pub use error::ErrorKind;
pub use image::{ContainerConfig, Healthcheck, History, ImageConfig, Index, Manifest, RootFs};
pub use platform::{Platform, PlatformError, PlatformMatcher};
pub use reference::{Reference, ReferenceError};
pub use session_id::SessionId;
