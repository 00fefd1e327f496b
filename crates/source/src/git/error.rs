//! What git, a remote or the attributes of a git source say that cannot be used.

use std::time::Duration;

use crate::error::{SourceError, cause};

/// Why a git source is refused, or what git gave for it. It is the cause of [`SourceError::GitAnswer`].
#[derive(Debug, thiserror::Error)]
pub(super) enum GitRefusal {
    /// The commit is not the one that the checksum demands.
    #[error("expected checksum to match {expected}, got {actual}")]
    Checksum {
        /// The checksum or the beginning of one.
        expected: String,
        /// The commit, or `<tag> or <commit>`.
        actual: String,
    },
    #[error("invalid checksum {checksum} for Git URL, expected hex commit hash")]
    MalformedChecksum { checksum: String },
    #[error("invalid git ref {reference:?}")]
    MalformedReference { reference: String },
    #[error("invalid commit sha {object:?}")]
    MalformedCommit { object: String },
    #[error("fetch-by-commit requires a checksum or a commit SHA ref")]
    FetchByCommitOfNothing,
    #[error("fetch-by-commit requires a full commit SHA checksum, got {checksum:?}")]
    FetchByShortCommit { checksum: String },
    #[error("repository does not contain ref {reference}, output: {listing:?}")]
    NoReference {
        reference: String,
        /// What `git ls-remote` wrote.
        listing: String,
    },
    #[error("could not find default branch for repository: {remote}")]
    NoDefaultBranch { remote: String },
    #[error(
        "fetched ref {reference} does not match expected commit {commit} and commit can not be found in the repository"
    )]
    CommitGone { reference: String, commit: String },
    #[error("expected commit or tag object, got {kind}")]
    ObjectKind { kind: String },
    #[error("the remote says that tag {tag} points at {claimed}, and it points at {commit}")]
    TagElsewhere {
        tag: String,
        claimed: String,
        commit: String,
    },
    #[error("failed to parse commit timestamp {text:?}")]
    CommitTime { text: String },
    #[error("invalid subdir {subdir}: git subpath {subdir:?} contains non-directory {part:?}")]
    SubdirNotDirectory { subdir: String, part: String },
    #[error("{doing}: output is not text")]
    OutputNotText { doing: String },
    #[error("{doing}: {host} said nothing for {}s", waited.as_secs())]
    Silent {
        doing: String,
        host: String,
        waited: Duration,
    },
    #[error("{doing}: {host} was not done within {}s", waited.as_secs())]
    TooLong {
        doing: String,
        host: String,
        waited: Duration,
    },
    #[error("failed to parse git.bundle locator {locator:?}: missing scheme")]
    BundleWithoutScheme { locator: String },
    #[error(
        "git.bundle locator scheme {scheme:?} is not supported; expected \"docker-image+blob\" or \"oci-layout+blob\""
    )]
    BundleScheme { scheme: String },
    #[error("git.bundle locator {locator:?}: digest algorithm not supported, expected \"sha256\"")]
    BundleAlgorithm { locator: String },
    #[error("failed to parse git.bundle locator {locator:?}: {source}")]
    BundleLocator {
        locator: String,
        source: llb::source_id::SourceIdError,
    },
    #[error("git.bundle requires git.checksum to be set")]
    BundleWithoutChecksum,
    #[error(
        "git.bundle without a branch or tag requires a full commit SHA checksum, got {checksum:?}"
    )]
    BundleOfShortCommit { checksum: String },
    #[error("git.checkoutbundle is incompatible with {attribute}")]
    CheckoutBundleWith { attribute: &'static str },
    #[error("{doing}: no refs found")]
    EmptyBundle { doing: String },
    #[error("commit {commit} not found in bundle {bundle}")]
    CommitNotInBundle {
        commit: String,
        /// The bundle's locator with its digest.
        bundle: String,
    },
}

impl From<GitRefusal> for SourceError {
    fn from(refusal: GitRefusal) -> Self {
        Self::GitAnswer {
            source: cause(refusal),
        }
    }
}
