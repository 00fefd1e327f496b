//! From the errors of the parts to [`Failure`]: one sentence, and facts from the outermost to the innermost.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most errors are of no kind that clients know, new ones too"
)]

use exporter::ExportError;
use frontend::{BridgeError, Fault, FrontendError};
use llb::pb;
use oci::error::chain;
use oci::{Digest, ErrorKind};
use ops::{BuildDomain, OpFailure};
use remotecache::CacheError;
use solver::{Phase, SolveError};
use source::SourceError;
use store::StoreError;

use crate::api::{Detail, Failure, FailureKind};

/// A part of a source file.
pub(crate) type Place = (pb::SourceInfo, Vec<pb::Range>);

/// What the solver says, with the places of the vertex in the user's files. `keep` gives names to what a failed step had
/// and left.
pub(crate) fn of_solve(
    error: &SolveError<BuildDomain>,
    places: impl FnOnce(&Digest) -> Vec<Place>,
    keep: impl Fn(&ops::Ref) -> String,
) -> Failure {
    let mut failure = Failure::of_build(kind_of_solve(error), chain(error));
    let Some(vertex) = error.vertex() else {
        return failure;
    };
    // What was given last is the innermost.
    for (info, ranges) in places(vertex).into_iter().rev() {
        failure.details.push(Detail::Source { info, ranges });
    }
    failure.details.push(Detail::Vertex {
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
        return failure;
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
            OpFailure::Process { code: found, .. } => {
                code = Some(*found);
                None
            }
            _ => None,
        };
    }
    failure.details.push(Detail::Solve {
        inputs,
        mounts,
        op,
        description: description.clone(),
        file_action,
        content_input,
    });
    failure
        .details
        .extend(code.map(|code| Detail::Exit { code }));
    failure
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

/// What a frontend says. `named` is its name and source, if it is one that clients know by name.
pub(crate) fn of_frontend(error: &FrontendError, named: Option<(&str, &str)>) -> Failure {
    let mut failure = error
        .bridge()
        .map_or_else(|| Failure::new(FailureKind::Unknown, ""), of_bridge);
    failure.message = chain(error);
    let mut outer = Vec::new();
    if let Some((name, source)) = named {
        outer.push(Detail::Frontend {
            name: name.to_owned(),
            source: source.to_owned(),
        });
    }
    for at in error.locations() {
        outer.push(Detail::Source {
            info: at.info.clone(),
            ranges: at.ranges.clone(),
        });
    }
    match error {
        FrontendError::UnsupportedSubrequest { name } => {
            failure.kind = FailureKind::Unimplemented;
            outer.push(Detail::Subrequest { name: name.clone() });
        }
        FrontendError::UnsupportedCapability { name } => {
            failure.kind = FailureKind::Unimplemented;
            outer.push(Detail::FrontendCap { name: name.clone() });
        }
        FrontendError::GatewayFrontend { .. } => failure.kind = FailureKind::Unimplemented,
        _ => {}
    }
    outer.append(&mut failure.details);
    failure.details = outer;
    failure
}

/// What the bridge says: the engine's own failure where it is one.
pub(crate) fn of_bridge(error: &BridgeError) -> Failure {
    if let Some(failure) = error.inner().downcast_ref::<Failure>() {
        return failure.clone();
    }
    let kind = match error.fault() {
        Fault::NotFound => FailureKind::NotFound,
        Fault::InvalidArgument => FailureKind::InvalidArgument,
        Fault::Canceled => FailureKind::Canceled,
        Fault::Unimplemented => FailureKind::Unimplemented,
        Fault::Other => FailureKind::Unknown,
    };
    Failure::new(kind, error.to_string())
}

impl From<Failure> for BridgeError {
    fn from(failure: Failure) -> Self {
        let fault = match failure.kind {
            FailureKind::NotFound => Fault::NotFound,
            FailureKind::InvalidArgument => Fault::InvalidArgument,
            FailureKind::Canceled => Fault::Canceled,
            FailureKind::Unimplemented => Fault::Unimplemented,
            // A client is told less than a frontend, which has to know that a file or its owner is not there.
            _ if failure.cause == ErrorKind::NotFound => Fault::NotFound,
            _ => Fault::Other,
        };
        Self::new(fault, failure)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::of_call(error.kind(), chain(&error))
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        Self::of_build(error.kind(), chain(&error))
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::NotBuilt { feature } => Self::not_built(&feature),
            error => Self::of_build(error.kind(), chain(&error)),
        }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::of_build(error.kind(), chain(&error))
    }
}
