//! A client of the distribution protocol.
//!
//! ```text
//!   Client ── hosts of a namespace (mirrors first) ── one HTTP client per TLS setting
//!     └─ Repository (name + access + Credentials)
//!          ├─ resolve   tag or digest → descriptor        HEAD, then GET where HEAD says too little
//!          ├─ manifest  descriptor → verified bytes
//!          ├─ blob      descriptor → verified stream, resumed with Range when the connection breaks
//!          ├─ push_blob / push_manifest                   what is there already is not sent
//!          └─ referrers
//! ```
//!
//! Invariants:
//! - A login is asked for the exact host that sent the challenge and is sent to that host (or the token realm that the
//!   host named) only. Redirects are followed here, not by the HTTP library, and carry no authorization to another origin.
//!   A challenge counts only from that host's own origin, and none that came after a redirect had left it. TLS is never
//!   left by a redirect.
//! - Bytes that reach the caller of `manifest` are the bytes of the digest. A blob stream ends with an error, never with
//!   an end, when size or digest differ.
//! - What a registry sends is bounded: manifests, error bodies, tokens, redirects; and so is the time that it may take
//!   (see `waiting`).

mod access;
mod address;
mod auth;
mod blob;
mod client;
mod config;
mod connection;
mod credentials;
mod error;
mod host;
mod limit;
mod push;
mod referrers;
mod request;
mod resolve;
mod retry;
mod transport;
mod waiting;

pub use access::Access;
pub use blob::BlobStream;
pub use client::{Client, Repository, RepositoryName};
pub use config::{Config, HostConfig, KeyPair};
pub use connection::ConnectionError;
pub use credentials::{
    Anonymous, CredentialError, Credentials, Login, StaticLogin, Token, TokenRequest,
};
pub use error::{ApiError, Cause, Error};
pub use push::{BlobSource, ByteStream, BytesSource, FileSource, Pushed, SentFn, is_skipped};
pub use referrers::PREDICATE_TYPE;
pub use resolve::MAX_MANIFEST_SIZE;
pub use waiting::{ANSWER_TIMEOUT, BodyPace, ShownWait, Stalled, WaitObserver, waiting};
