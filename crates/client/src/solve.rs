//! One build: a session, a solve and its status, together.

use std::collections::BTreeMap;

use proto::control;
use session::error::code;
use task::Task;
use tokio::sync::mpsc;

use crate::attach::Attachables;
use crate::connect::Client;
use crate::failure::Failure;
use crate::session::serve;
use crate::status::{SolveStatus, from_wire};

/// How long the last news may take after the build has its answer.
const LAST_NEWS: std::time::Duration = std::time::Duration::from_secs(3);

/// An exporter and its attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExporterSpec {
    /// `image`, `local`, `tar`, `oci`, `docker`.
    pub kind: String,
    /// As the daemon knows them.
    pub attrs: BTreeMap<String, String>,
}

/// A place that cached steps come from or go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheSpec {
    /// `registry`, `local`, `inline`, ….
    pub kind: String,
    /// As the daemon knows them.
    pub attrs: BTreeMap<String, String>,
}

/// What to build.
#[derive(Debug, Default)]
pub struct SolveRequest {
    /// Name of the build.
    pub id: String,
    /// `dockerfile.v0` or `gateway.v0`.
    pub frontend: String,
    /// The frontend's options.
    pub attrs: BTreeMap<String, String>,
    /// What to do with the result.
    pub exporters: Vec<ExporterSpec>,
    /// Where to look for cached steps.
    pub cache_from: Vec<CacheSpec>,
    /// Where to put them.
    pub cache_to: Vec<CacheSpec>,
    /// What steps may do beyond the usual.
    pub entitlements: Vec<String>,
    /// Says which builds share transferred folders.
    pub shared_key: String,
    /// Not kept in the history.
    pub internal: bool,
    /// What the daemon may ask of us.
    pub attachables: Attachables,
}

/// What the exporters answered.
#[derive(Debug, Clone, Default)]
pub struct SolveResult {
    /// Their words.
    pub response: BTreeMap<String, String>,
}

impl Client {
    /// Builds. News go to `status`, which is closed when there will be none; dropping the future cancels the build.
    pub async fn solve(
        &self,
        request: SolveRequest,
        status: mpsc::Sender<SolveStatus>,
    ) -> Result<SolveResult, Failure> {
        let session =
            crate::id::new_id().map_err(|e| Failure::local(format!("no random bytes: {e}")))?;
        let SolveRequest {
            id,
            frontend,
            attrs,
            exporters,
            cache_from,
            cache_to,
            entitlements,
            shared_key,
            internal,
            attachables,
        } = request;
        let mut serving = Box::pin(serve(self, &session, &shared_key, attachables)).await?;
        let first = exporters.first().cloned().unwrap_or_default();
        let wire = control::SolveRequest {
            r#ref: id.clone(),
            session,
            frontend,
            frontend_attrs: attrs,
            exporter_deprecated: first.kind,
            exporter_attrs_deprecated: first.attrs,
            exporters: exporters
                .into_iter()
                .map(|e| control::Exporter {
                    r#type: e.kind,
                    attrs: e.attrs,
                })
                .collect(),
            cache: Some(control::CacheOptions {
                exports: cache_to.into_iter().map(entry).collect(),
                imports: cache_from.into_iter().map(entry).collect(),
                ..Default::default()
            }),
            entitlements,
            internal,
            ..Default::default()
        };
        let watching = self.watch(id, status);
        let mut control = self.control();
        let answer = {
            let solving = control.solve(wire);
            tokio::pin!(solving);
            tokio::select! {
                answer = &mut solving => answer.map_err(Failure::from),
                ended = &mut serving => Err(ended.err().unwrap_or_else(|| Failure::local("the session ended before the build"))),
            }
        };
        let _late = tokio::time::timeout(LAST_NEWS, watching).await;
        Ok(SolveResult {
            response: answer?.into_inner().exporter_response,
        })
    }

    fn watch(&self, id: String, to: mpsc::Sender<SolveStatus>) -> Task<()> {
        let mut control = self.control();
        task::spawn("watch the build", async move {
            // The daemon waits a little for a build that has not come yet; a slow start deserves another try.
            for _ in 0..5 {
                match control
                    .status(control::StatusRequest { r#ref: id.clone() })
                    .await
                {
                    Ok(answer) => {
                        let mut news = answer.into_inner();
                        let mut any = false;
                        loop {
                            match news.message().await {
                                Ok(Some(message)) => {
                                    any = true;
                                    if to.send(from_wire(message)).await.is_err() {
                                        return;
                                    }
                                }
                                Ok(None) => return,
                                Err(error) if any || i32::from(error.code()) == code::CANCELLED => {
                                    return;
                                }
                                Err(_) => break,
                            }
                        }
                    }
                    Err(error) if i32::from(error.code()) == code::UNIMPLEMENTED => return,
                    Err(_) => {}
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        })
    }
}

fn entry(spec: CacheSpec) -> control::CacheOptionsEntry {
    control::CacheOptionsEntry {
        r#type: spec.kind,
        attrs: spec.attrs,
    }
}
