//! The sources of a result by kind, and the secrets that its steps were given.

use oci::{Digest, Platform};
use serde::Serialize;

/// A secret or an SSH agent that steps could use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// The id by which the client knows it.
    pub id: String,
    /// Whether no step requires it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The reference, as the source names it.
    pub reference: String,
    /// The requested platform.
    pub platform: Option<Platform>,
    /// The digest that the reference was resolved to.
    pub digest: Digest,
    /// Whether it came from a layout of the client.
    pub local: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) reference: String,
    pub(crate) digest: Digest,
    pub(crate) local: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Git {
    pub(crate) url: String,
    pub(crate) commit: String,
    pub(crate) bundle: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Http {
    pub(crate) url: String,
    pub(crate) digest: Digest,
}

/// A request of a step, or a source, that no digest identifies. The order is the reference's.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct IncompleteMaterial {
    /// Digest of the step's vertex.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The step's arguments, or the name of a source.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `GET` and so on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// The address of the request, without credentials.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// The reason, as one of the reference's codes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Sources by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    pub(crate) images: Vec<Image>,
    pub(crate) blobs: Vec<Blob>,
    pub(crate) git: Vec<Git>,
    pub(crate) http: Vec<Http>,
    pub(crate) local: Vec<String>,
}
