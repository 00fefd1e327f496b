//! Errors of attestations.

use gostd::csv::CsvError;
use gostd::strconv::{ParseBoolError, quote};

use crate::sources::IncompleteMaterial;

/// An attestation cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// A request asks for an attestation that this program does not know.
    #[error("unknown attestation type {}", quote(kind))]
    Kind {
        /// The kind as the request names it.
        kind: String,
    },
    /// The options of an attestation are not a line of CSV.
    #[error("failed to parse {kind}: {source}")]
    Csv {
        /// `provenance` or `sbom`.
        kind: String,
        /// The error of the CSV parser.
        source: CsvError,
    },
    /// An option of an attestation has to be a truth value.
    #[error("failed to parse {key} flag {}: {source}", quote(value))]
    Flag {
        /// The name of the option.
        key: String,
        /// The value of the option.
        value: String,
        /// The error of the parser.
        source: ParseBoolError,
    },
    /// `version=` without a version.
    #[error("provenance SLSA version cannot be empty")]
    NoSlsaVersion,
    /// `version=` of a version that this program does not write.
    #[error("invalid provenance SLSA version: {version}")]
    SlsaVersion {
        /// The version as given.
        version: String,
    },
    /// `mode=` is neither `min` nor `max`.
    #[error("invalid mode {}", quote(mode))]
    Mode {
        /// The mode as given.
        mode: String,
    },
    /// `generator=` without an image.
    #[error("sbom generator cannot be empty")]
    NoGenerator,
    /// A source cannot be named.
    #[error("failed to parse ref {}: {source}", quote(reference))]
    Reference {
        /// The reference as the source has it.
        reference: String,
        /// The error of the parser.
        source: oci::ReferenceError,
    },
    /// An op of a definition cannot be decoded.
    #[error("failed to parse llb proto op: {source}")]
    Op {
        /// The error of the decoder.
        source: prost::DecodeError,
    },
    /// The last op of a definition does not name the one result.
    #[error("invalid last vertex")]
    LastVertex,
    /// An op reads the output of an op that the definition does not have.
    #[error("failed to find input {digest}")]
    MissingInput {
        /// The digest as the op names it, which may be no digest at all.
        digest: String,
    },
    /// The request demands complete materials, and some could not be captured.
    #[error("{text}")]
    Incomplete {
        /// The whole message, which lists the materials.
        text: String,
        /// The materials that are not known.
        materials: Vec<IncompleteMaterial>,
    },
    /// The predicate of a statement is not JSON.
    #[error("failed to marshal attestation: {source}")]
    Statement {
        /// The error of the parser.
        source: serde_json::Error,
    },
}

impl AttestError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Kind { .. }
            | Self::Csv { .. }
            | Self::Flag { .. }
            | Self::NoSlsaVersion
            | Self::SlsaVersion { .. }
            | Self::Mode { .. }
            | Self::NoGenerator
            | Self::Reference { .. }
            | Self::Op { .. }
            | Self::LastVertex
            | Self::MissingInput { .. }
            | Self::Incomplete { .. }
            | Self::Statement { .. } => oci::ErrorKind::Invalid,
        }
    }
}
