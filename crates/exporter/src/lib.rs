//! Exporters: they bring results of builds out of the store, to clients and registries.
//!
//! ```text
//!   attributes ── Exporter::resolve ──► ExporterInstance ── export(ExportSource) ──► Exported { response, descriptor, finalize }
//!
//!   image     ┐                          ┌─ names and pushes
//!   oci       ├─ writer: layers, config, ┼─ one tar to the client, or its content store
//!   docker    ┘  manifest, index         └─ the same with manifest.json
//!   local, tar   the tree itself
//! ```
//!
//! Documents have the bytes that the reference writes, so that equal layers give equal image digests. Layers are made,
//! pushed and sent as streams; nothing holds one in memory.

mod annotations;
mod archive;
mod client;
mod config;
mod documents;
mod error;
mod image;
mod local;
mod manager;
mod oci_archive;
mod options;
mod platforms;
mod push;
mod tarball;
mod tree;
mod writer;

pub use annotations::{AnnotationGroup, Annotations};
pub use documents::public_layer;
pub use error::{ExportAttributeError, ExportError, ExportResultError, ImageConfigError};
pub use gostd::Timestamp;
pub use image::{CredentialsOf, ImageExporter};
pub use local::LocalExporter;
pub use manager::{
    About, Attester, ExportContext, ExportSource, Exported, Exporter, ExporterInstance, Exporters,
    Finalize, InlineCache, Statement,
};
pub use oci_archive::{OciExporter, Variant};
pub use options::ImageOptions;
pub use platforms::{PlatformEntry, platforms_of};
pub use tarball::TarExporter;
