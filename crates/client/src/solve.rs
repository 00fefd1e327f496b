//! One build: a session, a solve and its status, together.

use std::collections::BTreeMap;

use proto::{control, gateway};
use session::error::code;
use session::header;
use task::Task;
use tokio::sync::mpsc;
use tonic::metadata::AsciiMetadataValue;

use crate::attach::Attachables;
use crate::connect::Client;
use crate::definition::{Definition, SourcePolicy};
use crate::failure::Failure;
use crate::session::serve;
use crate::status::{SolveStatus, from_wire};

/// How long the last messages of progress may take after the build has its answer.
const STATUS_END_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);

type Serving = Task<Result<(), Failure>>;

/// An exporter and its attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExporterSpec {
    /// `image`, `local`, `tar`, `oci`, `docker`.
    pub kind: String,
    /// Its attributes, with the names that the daemon has for them.
    pub attrs: BTreeMap<String, String>,
}

/// A place that cached steps come from or go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheSpec {
    /// `registry`, `local`, `inline`, ….
    pub kind: String,
    /// Its attributes, with the names that the daemon has for them.
    pub attrs: BTreeMap<String, String>,
}

/// What to build.
#[derive(Debug, Default)]
pub struct SolveRequest {
    /// The build's ref: its id in the daemon's history.
    pub id: String,
    /// `dockerfile.v0` or `gateway.v0`; empty where a definition is built.
    pub frontend: String,
    /// The definition to build when there is no frontend.
    pub definition: Option<Definition>,
    /// Which sources may be used.
    pub source_policy: Option<SourcePolicy>,
    /// Steps reach the network through the daemon's proxy only.
    pub proxy_network: bool,
    /// The frontend's options.
    pub attrs: BTreeMap<String, String>,
    /// The exporters that the result is handed to.
    pub exporters: Vec<ExporterSpec>,
    /// The caches that steps may be loaded from.
    pub cache_from: Vec<CacheSpec>,
    /// The caches that the build's steps are exported to.
    pub cache_to: Vec<CacheSpec>,
    /// The entitlements that the steps ask for.
    pub entitlements: Vec<String>,
    /// Builds with the same key share the files of transferred folders, so that only changes are sent.
    pub shared_key: String,
    /// Whether the daemon keeps no record of the build.
    pub internal: bool,
    /// The span that the build is a part of, as W3C's `traceparent`; empty for none.
    pub trace_parent: String,
    /// What the build's session offers to the daemon.
    pub attachables: Attachables,
}

/// A call that names the span that it is a part of.
fn traced<T>(message: T, trace_parent: &str) -> tonic::Request<T> {
    let mut call = tonic::Request::new(message);
    // One that is no header says nothing to anybody.
    if !trace_parent.is_empty()
        && let Ok(value) = AsciiMetadataValue::try_from(trace_parent)
    {
        call.metadata_mut().insert("traceparent", value);
    }
    call
}

/// The result of a build that succeeded.
#[derive(Debug, Clone, Default)]
pub struct SolveResult {
    /// The exporters' responses, such as `containerimage.digest`.
    pub response: BTreeMap<String, String>,
}

impl Client {
    /// Runs a build. Its progress goes to `status`, which is closed when there will be none; dropping the future cancels the build.
    pub async fn solve(
        &self,
        request: SolveRequest,
        status: mpsc::Sender<SolveStatus>,
    ) -> Result<SolveResult, Failure> {
        let trace_parent = request.trace_parent.clone();
        let (wire, mut serving) = self.begin(request).await?;
        let watching = self.watch(wire.r#ref.clone(), status);
        let mut control = self.control();
        let answer = tokio::select! {
            answer = control.solve(traced(wire, &trace_parent)) => answer.map_err(Failure::from),
            ended = &mut serving => Err(session_failure(ended)),
        };
        let _late = tokio::time::timeout(STATUS_END_TIMEOUT, watching).await;
        Ok(SolveResult {
            response: answer?.into_inner().exporter_response,
        })
    }

    /// Asks a frontend something in the place of a build, and returns what it says about its result.
    pub async fn ask(
        &self,
        request: SolveRequest,
        status: mpsc::Sender<SolveStatus>,
    ) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let (mut wire, mut serving) = self.begin(request).await?;
        let id = wire.r#ref.clone();
        let question = gateway::SolveRequest {
            frontend: std::mem::take(&mut wire.frontend),
            frontend_opt: std::mem::take(&mut wire.frontend_attrs),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..Default::default()
        };
        let watching = self.watch(id.clone(), status);
        let mut control = self.control();
        let answer = {
            // The build is a frame for the question: it ends when the answer is handed back.
            let solving = control.solve(wire);
            let asking = self.bridge(&id, question);
            tokio::pin!(solving, asking);
            tokio::select! {
                // Handing back ends the build, whose answer may overtake that of handing back.
                ended = &mut solving => match ended {
                    Err(status) => Err(status.into()),
                    Ok(_) => tokio::time::timeout(STATUS_END_TIMEOUT, asking).await.unwrap_or_else(|_| {
                        Err(Failure::local("the build ended before the frontend answered"))
                    }),
                },
                ended = &mut serving => Err(session_failure(ended)),
                answer = &mut asking => match answer {
                    Ok(metadata) => solving.await.map(|_| metadata).map_err(Failure::from),
                    Err(failure) => Err(failure),
                },
            }
        };
        let _late = tokio::time::timeout(STATUS_END_TIMEOUT, watching).await;
        answer
    }

    async fn bridge(
        &self,
        id: &str,
        question: gateway::SolveRequest,
    ) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let build = AsciiMetadataValue::try_from(id)
            .map_err(|error| Failure::because("invalid name of a build", error))?;
        let mut bridge = self.gateway();
        let mut call = tonic::Request::new(question);
        call.metadata_mut().insert(header::BUILD_ID, build.clone());
        let result = bridge.solve(call).await?.into_inner().result;
        let metadata = result
            .as_ref()
            .map(|r| r.metadata.clone())
            .unwrap_or_default();
        let mut call = tonic::Request::new(gateway::ReturnRequest {
            result,
            error: None,
        });
        call.metadata_mut().insert(header::BUILD_ID, build);
        bridge.r#return(call).await?;
        Ok(metadata)
    }

    async fn begin(
        &self,
        request: SolveRequest,
    ) -> Result<(control::SolveRequest, Serving), Failure> {
        let session =
            crate::id::new_id().map_err(|error| Failure::because("no random bytes", error))?;
        let shared_key = &request.shared_key;
        let serving = serve(self, &session, shared_key, request.attachables).await?;
        let first = request.exporters.first().cloned().unwrap_or_default();
        let exporters = request.exporters.into_iter().map(|e| control::Exporter {
            r#type: e.kind,
            attrs: e.attrs,
        });
        let wire = control::SolveRequest {
            r#ref: request.id,
            session,
            frontend: request.frontend,
            frontend_attrs: frontend_attrs(request.attrs, &request.cache_from),
            exporter_deprecated: first.kind,
            exporter_attrs_deprecated: first.attrs,
            exporters: exporters.collect(),
            cache: Some(control::CacheOptions {
                exports: request.cache_to.into_iter().map(entry).collect(),
                imports: request.cache_from.into_iter().map(entry).collect(),
                ..Default::default()
            }),
            entitlements: request.entitlements,
            internal: request.internal,
            definition: request.definition.map(|definition| definition.0),
            source_policy: request.source_policy.map(|policy| policy.0),
            proxy_network: request.proxy_network,
            ..Default::default()
        };
        Ok((wire, serving))
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
                        let mut statuses = answer.into_inner();
                        let mut has_messages = false;
                        loop {
                            match statuses.message().await {
                                Ok(Some(message)) => {
                                    has_messages = true;
                                    if to.send(from_wire(message)).await.is_err() {
                                        return;
                                    }
                                }
                                Ok(None) => return,
                                Err(error)
                                    if has_messages
                                        || i32::from(error.code()) == code::CANCELLED =>
                                {
                                    return;
                                }
                                Err(_) => break,
                            }
                        }
                    }
                    Err(error) if i32::from(error.code()) == code::UNIMPLEMENTED => return,
                    Err(_) => {}
                }
                task::clock::sleep(std::time::Duration::from_millis(200)).await;
            }
        })
    }
}

// A frontend is told the places of the cache by itself: it hands them on with what it wants built.
fn frontend_attrs(
    mut attrs: BTreeMap<String, String>,
    imports: &[CacheSpec],
) -> BTreeMap<String, String> {
    if !imports.is_empty() {
        let imports: Vec<_> = imports
            .iter()
            .map(|c| serde_json::json!({ "Type": c.kind, "Attrs": c.attrs }))
            .collect();
        let text = serde_json::Value::from(imports).to_string();
        attrs.entry("cache-imports".into()).or_insert(text);
    }
    attrs
}

fn session_failure(session_end: Result<(), Failure>) -> Failure {
    let failure = session_end.err();
    failure.unwrap_or_else(|| Failure::local("the session ended before the build"))
}

fn entry(spec: CacheSpec) -> control::CacheOptionsEntry {
    control::CacheOptionsEntry {
        r#type: spec.kind,
        attrs: spec.attrs,
    }
}
