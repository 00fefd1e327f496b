//! Subrequests: outline, targets and lint of a Dockerfile, without building it.

use dockerfile::outline::{self, Report};

use super::Build;
use super::context::{Context, Entrypoint};
use super::resolver::Resolver;
use crate::bridge::FrontendResult;
use crate::error::FrontendError;

/// Answers the subrequest `name`.
pub(crate) async fn answer(
    build: &Build,
    context: &Context,
    entrypoint: &Entrypoint,
    name: &str,
) -> Result<FrontendResult, FrontendError> {
    let data = &entrypoint.map.data;
    let resolver = Resolver::new(build, context);
    let options = || build.lower_options(entrypoint, None);
    let failed = |error| FrontendError::from_lower(error, None);
    let mut status = None;
    let report = match name {
        "frontend.subrequests.describe" => outline::describe(),
        "frontend.outline" => outline::outline(data, options(), &resolver)
            .await
            .map_err(failed)?,
        "frontend.targets" => outline::targets(data).map_err(failed)?,
        "frontend.lint" => {
            let lint = outline::lint(data, options(), &resolver).await;
            status = Some(lint.status);
            lint.report
        }
        other => {
            return Err(FrontendError::UnsupportedSubrequest {
                name: other.to_owned(),
            });
        }
    };
    let Report {
        json,
        text,
        version,
    } = report;
    let mut result = FrontendResult::default();
    result.metadata.insert("result.json".into(), json.into());
    result.metadata.insert("result.txt".into(), text.into());
    result
        .metadata
        .insert("version".into(), version.as_bytes().into());
    if let Some(status) = status {
        result
            .metadata
            .insert("result.statuscode".into(), status.to_string().into());
    }
    Ok(result)
}
