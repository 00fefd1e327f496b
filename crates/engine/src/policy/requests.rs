//! Requests of steps on the proxy network, checked like sources.

use async_trait::async_trait;
use llb::pb;
use proxy::{PolicyError, RequestPolicy};

use super::SourcePolicies;

impl std::fmt::Debug for SourcePolicies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SourcePolicies")
    }
}

#[async_trait]
impl RequestPolicy for SourcePolicies {
    async fn check(&self, _method: &str, url: &str) -> Result<Option<String>, PolicyError> {
        let Some(evaluator) = self.evaluator(&[]) else {
            return Ok(None);
        };
        let mut source = pb::SourceOp {
            identifier: url.to_owned(),
            ..pb::SourceOp::default()
        };
        let decided = evaluator.source(&mut source, None).await;
        decided.map_err(|failure| PolicyError(failure.message()))?;
        if !source.attrs.is_empty() {
            return Err(PolicyError(format!(
                "source policy converted proxy request {url:?} with attrs, but proxy conversion only supports URL updates"
            )));
        }
        Ok((source.identifier != url).then_some(source.identifier))
    }
}
