//! From the errors of the parts to [`Failure`]: the error with its causes, its kind, and facts from the outermost to the innermost.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most errors are of no kind that clients know, new ones too"
)]

use attest::AttestError;
use executor::ExecError;
use exporter::ExportError;
use frontend::FrontendError;
use llb::pb;
use oci::{Digest, ErrorKind};
use ops::{BuildDomain, OpFailure};
use remotecache::CacheError;
use session::SessionError;
use solver::{Phase, SolveError};
use source::SourceError;
use store::StoreError;

use crate::api::{Detail, Failure};

/// A part of a source file.
pub(crate) type Place = (pb::SourceInfo, Vec<pb::Range>);

/// The failure of a solve, with the vertex's places in the user's files. `keep` names the inputs and mounts of a failed step,
/// so that clients can open them.
pub(crate) fn of_solve(
    error: SolveError<BuildDomain>,
    places: impl FnOnce(&Digest) -> Vec<Place>,
    keep: impl Fn(&ops::Ref) -> String,
) -> Failure {
    let (kind, details) = (
        kind_of_solve(&error),
        details_of_solve(&error, places, keep),
    );
    let mut failure = Failure::of_build(kind, error);
    failure.details = details;
    failure
}

/// The vertex that failed, where it stands in the user's files, what it worked on and how its process ended.
fn details_of_solve(
    error: &SolveError<BuildDomain>,
    places: impl FnOnce(&Digest) -> Vec<Place>,
    keep: impl Fn(&ops::Ref) -> String,
) -> Vec<Detail> {
    let mut details = Vec::new();
    let Some(vertex) = error.vertex() else {
        return details;
    };
    // Details are pushed from the outermost to the innermost.
    for (info, ranges) in places(vertex).into_iter().rev() {
        details.push(Detail::Source { info, ranges });
    }
    details.push(Detail::Vertex {
        digest: vertex.clone(),
    });
    let SolveError::Op {
        description,
        sys,
        phase,
        error,
        ..
    } = error
    else {
        return details;
    };
    let op = Some(Box::new((*sys.op).clone()));
    let content_input = match phase {
        Phase::SlowKey(input) => i64::try_from(*input).ok(),
        Phase::Resolve | Phase::CacheMap | Phase::Exec => None,
    };
    let (mut inputs, mut mounts) = (Vec::new(), Vec::new());
    let mut file_action = None;
    let mut code = None;
    let mut next = error.find::<OpFailure>();
    while let Some(failure) = next {
        next = match failure {
            OpFailure::Exec {
                source,
                inputs: had,
                mounts: left,
            } => {
                inputs = had.iter().map(&keep).collect();
                mounts = left.iter().map(&keep).collect();
                Some(&**source)
            }
            OpFailure::Checksum { input, .. } if content_input.is_some() => {
                inputs = vec![keep(input)];
                None
            }
            OpFailure::Action { index, source } => {
                file_action = i64::try_from(*index).ok();
                Some(&**source)
            }
            OpFailure::Process { code: exit, .. } => {
                code = Some(*exit);
                None
            }
            _ => None,
        };
    }
    details.push(Detail::Solve {
        inputs,
        mounts,
        op,
        description: description.clone(),
        file_action,
        content_input,
    });
    details.extend(code.map(|code| Detail::Exit { code }));
    details
}

/// What kind of error the solver's is.
fn kind_of_solve(error: &SolveError<BuildDomain>) -> ErrorKind {
    match error {
        SolveError::Canceled => ErrorKind::Cancelled,
        SolveError::Panic { .. } | SolveError::Inconsistent { .. } => ErrorKind::Bug,
        SolveError::Op { error, .. } => {
            if let Some(failure) = error.find::<OpFailure>() {
                failure.kind()
            } else if let Some(error) = error.find::<SourceError>() {
                error.kind()
            } else {
                ErrorKind::of_causes(error.inner())
            }
        }
        SolveError::Keys(error) => match ErrorKind::of_causes(error) {
            ErrorKind::Exhausted => ErrorKind::Exhausted,
            _ => ErrorKind::Failed,
        },
        SolveError::JobExists(_) => ErrorKind::Exists,
        SolveError::MissingOutput { .. } | SolveError::CacheMapDeps { .. } => ErrorKind::Invalid,
        _ => ErrorKind::Failed,
    }
}

/// The failure of a frontend. Kind and facts are those of the bridge's failure, where that is the cause. `named` is its name and source,
/// if it is one that clients know by name.
pub(crate) fn of_frontend(error: FrontendError, named: Option<(&str, &str)>) -> Failure {
    let mut details = Vec::new();
    if let Some((name, source)) = named {
        details.push(Detail::Frontend {
            name: name.to_owned(),
            source: source.to_owned(),
        });
    }
    for at in error.locations() {
        details.push(Detail::Source {
            info: at.info.clone(),
            ranges: at.ranges.clone(),
        });
    }
    match &error {
        FrontendError::UnsupportedSubrequest { name } => {
            details.push(Detail::Subrequest { name: name.clone() });
        }
        FrontendError::UnsupportedCapability { name } => {
            details.push(Detail::FrontendCap { name: name.clone() });
        }
        _ => {}
    }
    let mut failure = match error.bridge().map(Failure::of_bridge) {
        Some(failure) => failure.with_error(error),
        None => Failure::of_build(error.kind(), error),
    };
    details.append(&mut failure.details);
    failure.details = details;
    failure
}

/// The failure of a build for an error that says itself what kind it is.
macro_rules! failures_of_builds {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::of_build(error.kind(), error)
            }
        })*
    };
}

failures_of_builds!(ExecError, ExportError, OpFailure, SessionError, SourceError,);

impl From<AttestError> for Failure {
    fn from(error: AttestError) -> Self {
        let materials = match &error {
            AttestError::Incomplete { materials, .. } => Some(materials.clone()),
            _ => None,
        };
        let failure = Self::of_build(error.kind(), error);
        match materials {
            Some(materials) => failure.with(Detail::IncompleteMaterials { materials }),
            None => failure,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::of_call(error.kind(), error)
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::NotBuilt { feature } => Self::not_built(&feature),
            error => Self::of_build(error.kind(), error),
        }
    }
}
