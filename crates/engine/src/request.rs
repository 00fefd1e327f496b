//! What a request asks for beyond the solve, checked before anything runs.

use crate::api::{ExporterSpec, Failure, SolveRequest};

/// Refuses what is not built, by name.
pub(crate) fn check(request: &SolveRequest) -> Result<(), Failure> {
    if request.proxy_network {
        return Err(Failure::not_built("the proxy network"));
    }
    Ok(())
}

/// The exporters, with the time of the build where they name none.
pub(crate) fn exporters(request: &SolveRequest) -> Vec<ExporterSpec> {
    let mut specs = request.exporters.clone();
    // Other values, such as `context`, are for the frontend, which tells exporters the time.
    let is_time = |value: &&String| value.is_empty() || value.parse::<i64>().is_ok();
    let epoch = request.frontend_opts.get("build-arg:SOURCE_DATE_EPOCH");
    if let Some(epoch) = epoch.filter(is_time) {
        for spec in &mut specs {
            spec.attrs
                .entry("source-date-epoch".into())
                .or_insert_with(|| epoch.clone());
        }
    }
    specs
}
