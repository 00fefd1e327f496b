//! The services of connected clients, as traits, and the protocol cores without I/O.
//!
//! ```text
//!   source, exporter, ops ──► Group ──► SessionManager ──► dyn Session ──(control)──► the client
//!                                                             │
//!   diffcopy::receive / send  ◄── PacketStream ◄──────────────┘
//! ```
//!
//! A [`Session`] is one connected client. A [`Group`] names the sessions that may answer for a step, in order. Nothing here
//! knows the wire: `control` implements [`Session`] over the tunnel, tests implement it in memory.
//!
//! # Invariants
//! - Data of clients is hostile: `diffcopy` checks order, names and ids of all packets.
//! - Secrets have no `Debug`.

pub mod diffcopy;
pub mod error;
pub mod group;
pub mod header;
mod kind;
pub mod manager;
pub mod method;
pub mod packet;
pub mod stream;
pub mod traits;
pub mod transfers;
pub mod wire;

pub use error::{CallError, SessionError};
pub use group::Group;
pub use kind::kind_of;
pub use manager::{Registration, SessionManager};
pub use packet::Packet;
pub use stream::{ByteSink, ByteStream, Duplex, PacketStream};
pub use traits::{
    Auth, BlobInfo, BlobWrite, ClientExports, Connection, ContentStore, ExporterRequest, FileSend,
    FileSync, Login, Secret, Secrets, Session, SourcePolicy, Ssh, SyncRequest, Token, TokenRequest,
    Upload, UploadTarget,
};
pub use transfers::{TransferLimits, TransferShare, Transfers};
