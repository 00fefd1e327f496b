//! What an export is refused for: attributes that cannot be, results that do not fit, configs that lack something.

use oci::ErrorKind;

/// An attribute has a value that it cannot have, or contradicts another.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExportAttributeError {
    /// `annotation-<place>` names no part of an image.
    #[error("unrecognized annotation type {place}")]
    AnnotationPlace {
        /// The part that was named.
        place: String,
    },
    /// Docker's media types cannot express what another option asks for.
    #[error("exporter option \"{option}\" conflicts with \"oci-mediatypes=false\"")]
    NeedsOciTypes {
        /// The other option with its value, as `oci-artifact=true`.
        option: String,
    },
    /// A push by digest of a name that has a tag or a digest already.
    #[error("failed to push {name}: can't push tagged ref {reference} by digest")]
    TaggedPushByDigest {
        /// The name as it was given.
        name: String,
        /// The name in full.
        reference: oci::Reference,
    },
    /// BuildKit's sentence has the value and not Go's words for it.
    #[error("non-bool value for platform-split: {value}")]
    PlatformSplit {
        /// The value as it was given.
        value: String,
    },
    /// `mode` is neither `copy` nor `delete`.
    #[error("invalid local exporter mode {mode:?}")]
    LocalMode {
        /// The value as it was given.
        mode: String,
    },
    /// `src` without a value.
    #[error("empty value for src; omit it to export the entire filesystem")]
    EmptySource,
}

impl ExportAttributeError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::AnnotationPlace { .. }
            | Self::NeedsOciTypes { .. }
            | Self::TaggedPushByDigest { .. }
            | Self::PlatformSplit { .. }
            | Self::LocalMode { .. }
            | Self::EmptySource => ErrorKind::Invalid,
        }
    }
}

/// The build's result does not fit the exporter or its attributes.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExportResultError {
    /// Results by platform, without the metadata that says which platforms they are for.
    #[error("unable to export multiple refs, missing platforms mapping")]
    NoPlatformMap,
    /// Several platforms in the metadata and one result.
    #[error("unable to export multiple platforms without map")]
    PlatformsWithoutResults,
    /// Several platforms in the metadata, and one result for an image.
    #[error("cannot export multiple platforms without multi-platform enabled")]
    NotMultiPlatform,
    /// `docker load` takes one platform.
    #[error("docker exporter does not currently support exporting manifest lists")]
    DockerManifestList,
    /// The metadata about platforms has none.
    #[error("invalid empty platforms index for exporter")]
    EmptyPlatforms,
    /// A platform in the metadata has no id.
    #[error("invalid empty platform key for exporter")]
    EmptyPlatformId,
    /// A platform in the metadata lacks its operating system or architecture.
    #[error("invalid platform value {id} for exporter")]
    IncompletePlatform {
        /// The id of the platform.
        id: String,
    },
    /// The image config has one of operating system and architecture.
    #[error("invalid image config: os and architecture must be specified together")]
    IncompleteConfigPlatform,
    /// An annotation for a platform that has no result.
    #[error("invalid annotation: no platform {platform} found in source")]
    AnnotationPlatform {
        /// The platform in the annotation's key.
        platform: String,
    },
    /// Annotations that Docker's media types have no place for.
    #[error("cannot export annotations with \"oci-mediatypes=false\"")]
    AnnotationsNeedOciTypes,
    /// Annotations of an index, and no index.
    #[error("index annotations not supported for single platform export")]
    IndexAnnotations,
    /// Attestations that Docker's media types have no place for.
    #[error("cannot export attestations with \"oci-mediatypes=false\"")]
    AttestationsNeedOciTypes,
    /// The documents of an image lack its own manifest.
    #[error("the image has no manifest")]
    NoManifest,
    /// A layer in the store is not as long as its descriptor says.
    #[error("unexpected copy size {received}, expected {expected}")]
    LayerSize {
        /// Bytes so far.
        received: u64,
        /// Bytes in the descriptor.
        expected: u64,
    },
    /// Two platforms have the same file and share a folder.
    #[error("cannot overwrite {} from {first} with {second} when split option is disabled", path.display())]
    Overwrite {
        /// The path in the client's folder.
        path: std::path::PathBuf,
        /// The id of the platform that had it first.
        first: String,
        /// The id of the other platform.
        second: String,
    },
    /// The folder of the result that `src` names is not there.
    #[error("src={path}: no such file or directory")]
    NoSource {
        /// The value of `src`.
        path: String,
    },
    /// The file of a statement would lie outside of the exported folder.
    #[error("invalid attestation path name {name}")]
    StatementPath {
        /// The name with the attribute's prefix.
        name: String,
    },
    /// Two statements have the same file.
    #[error("duplicate attestation path name {name}")]
    DuplicateStatement {
        /// The name with the attribute's prefix.
        name: String,
    },
}

impl ExportResultError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoPlatformMap
            | Self::PlatformsWithoutResults
            | Self::NotMultiPlatform
            | Self::DockerManifestList
            | Self::EmptyPlatforms
            | Self::EmptyPlatformId
            | Self::IncompletePlatform { .. }
            | Self::IncompleteConfigPlatform
            | Self::AnnotationPlatform { .. }
            | Self::AnnotationsNeedOciTypes
            | Self::IndexAnnotations
            | Self::AttestationsNeedOciTypes
            | Self::NoManifest
            | Self::LayerSize { .. }
            | Self::Overwrite { .. }
            | Self::NoSource { .. }
            | Self::StatementPath { .. }
            | Self::DuplicateStatement { .. } => ErrorKind::Invalid,
        }
    }
}

/// The frontend's image config cannot be completed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ImageConfigError {
    /// The config is JSON's `null`.
    #[error("invalid null image config for export")]
    Null,
    /// The config has no operating system.
    #[error("invalid image config for export: missing os")]
    NoOs,
    /// The config has no architecture.
    #[error("invalid image config for export: missing architecture")]
    NoArchitecture,
    /// `created` is no time.
    #[error("failed to unmarshal creation time {text:?}")]
    Created {
        /// The value in the config.
        text: String,
    },
    /// `created` of a history entry is no time.
    #[error("failed to unmarshal history from config: parsing time {text:?}")]
    HistoryTime {
        /// The value in the config.
        text: String,
    },
}

impl ImageConfigError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Null
            | Self::NoOs
            | Self::NoArchitecture
            | Self::Created { .. }
            | Self::HistoryTime { .. } => ErrorKind::Invalid,
        }
    }
}
