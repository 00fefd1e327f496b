//! What a request asks for beyond the solve, checked before anything runs.

use crate::api::{CacheSpec, ExporterSpec, Failure, FailureKind, SolveRequest};

const CACHES: &[&str] = &["inline", "registry", "local", "gha", "s3", "azblob"];

/// Refuses what is not built, by name.
pub(crate) fn check(request: &SolveRequest) -> Result<(), Failure> {
    if request.proxy_network {
        return Err(Failure::not_built("the proxy network"));
    }
    cache_exports(&request.cache_exports)
}

fn cache_exports(specs: &[CacheSpec]) -> Result<(), Failure> {
    for spec in specs {
        if !CACHES.contains(&spec.kind.as_str()) {
            return Err(Failure::new(
                FailureKind::Unknown,
                format!("unknown cache exporter: {:?}", spec.kind),
            ));
        }
        // DIFFERS: an inline cache is left out of the image instead of refused: the image is good without it.
        if spec.kind == "inline" {
            tracing::warn!("inline cache export is not supported: the image is made without it");
            continue;
        }
        if matches!(
            spec.attrs.get("ignore-error").map(String::as_str),
            Some("true" | "1")
        ) {
            tracing::warn!(
                kind = spec.kind,
                "cache export is not supported and its errors are to be ignored"
            );
            continue;
        }
        return Err(Failure::not_built(&format!(
            "cache export to {}",
            spec.kind
        )));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_is_refused_unless_it_was_not_insisted_on() {
        let export = |kind: &str| {
            cache_exports(&[CacheSpec {
                kind: kind.into(),
                ..CacheSpec::default()
            }])
        };
        assert!(export("inline").is_ok());
        assert_eq!(
            export("x").unwrap_err().message,
            "unknown cache exporter: \"x\""
        );
        assert_eq!(
            export("registry").unwrap_err().kind,
            FailureKind::Unimplemented
        );
    }
}
