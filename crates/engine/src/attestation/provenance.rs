//! Provenance of results: the requests that led to them, and their sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use attest::{Attests, Layers, Mode, Provenance, ProvenanceOptions, Run, UsageSamples};
use exporter::{ExportError, PlatformEntry};
use frontend::FrontendResult;
use oci::Descriptor;
use store::{Lease, Store};

use super::calls::CallScope;
use crate::api::{Failure, FailureKind};
use crate::evaluate::Computed;
use crate::reference::LazyRef;
use crate::scope::BuildScope;

/// A result to be attested.
pub(crate) struct Subject<'a> {
    /// The build whose result it is.
    pub(crate) scope: &'a Arc<BuildScope>,
    /// The requests that led to it.
    pub(crate) calls: &'a Arc<CallScope>,
    /// The result of the frontend.
    pub(crate) result: &'a FrontendResult,
    /// The platforms of the result.
    pub(crate) platforms: &'a [PlatformEntry],
    /// When and by whom it was built.
    pub(crate) run: &'a Run,
}

/// Provenance that is finished when an exporter reads it: only then all layers are known.
pub(crate) struct ProvenanceBuilder {
    scope: Arc<BuildScope>,
    computed: Option<Arc<Computed>>,
    provenance: Arc<Provenance>,
}

/// Provenance of each result, by platform id.
pub(super) async fn builders(
    subject: &Subject<'_>,
    options: &ProvenanceOptions,
) -> Result<Vec<(String, ProvenanceBuilder)>, Failure> {
    let mut out = Vec::new();
    let captures = subject.calls.captures(subject.result, subject.platforms);
    for (id, (capture, reference)) in captures.await? {
        let computed = match LazyRef::of(&reference) {
            Ok(lazy) => lazy.computed().await?,
            Err(_) => None,
        };
        let config = match (options.mode, reference.definition()) {
            (Mode::Max, Some(definition)) => {
                let write = move || attest::build_config(&definition);
                let written = task::blocking("write steps down", write).await;
                Some(written?)
            }
            _ => None,
        };
        let run = subject.run.clone();
        let provenance = Provenance::new(&capture, options, config, run)?;
        let builder = ProvenanceBuilder {
            scope: Arc::clone(subject.scope),
            computed,
            provenance: Arc::new(provenance),
        };
        out.push((id, builder));
    }
    Ok(out)
}

/// Provenance of each result for the build's record, by platform id, in blobs that `lease` holds. It is as complete as possible,
/// whatever provenance the client requested.
pub(crate) async fn for_record(
    subject: &Subject<'_>,
    attests: &Attests,
    store: &Arc<Store>,
    lease: &Lease,
) -> Result<BTreeMap<String, Descriptor>, Failure> {
    let requested = attests.provenance.as_ref();
    let options = ProvenanceOptions {
        builder_id: requested.map(|p| p.builder_id.clone()).unwrap_or_default(),
        usage: UsageSamples::Captured,
        ..ProvenanceOptions::default()
    };
    let mut out = BTreeMap::new();
    for (id, builder) in builders(subject, &options).await? {
        let bytes = builder.predicate().await?;
        let (store, lease) = (Arc::clone(store), lease.clone());
        let mut blob = task::blocking("keep provenance", move || {
            store.put_blob(&lease, &bytes)?;
            Ok::<_, Failure>(Descriptor::of_bytes("application/vnd.in-toto+json", &bytes))
        })
        .await?;
        let kind = builder.predicate_type().to_owned();
        blob.annotations
            .insert("in-toto.io/predicate-type".to_owned(), kind);
        out.insert(id, blob);
    }
    Ok(out)
}

impl ProvenanceBuilder {
    /// The type of the predicate.
    pub(super) fn predicate_type(&self) -> &str {
        self.provenance.predicate_type()
    }

    /// The predicate as JSON, with the layers that are known by now.
    pub(super) async fn predicate(&self) -> Result<Vec<u8>, ExportError> {
        let provenance = Arc::clone(&self.provenance);
        let layers = match provenance.steps() {
            Some(_) => Some(
                self.layers(&provenance)
                    .await
                    .map_err(ExportError::supplied)?,
            ),
            None => None,
        };
        let write = move || match layers {
            None => provenance.to_json(),
            Some(layers) => {
                let mut provenance = Provenance::clone(&provenance);
                provenance.set_layers(layers);
                provenance.to_json()
            }
        };
        Ok(task::blocking("write provenance", write).await)
    }

    /// The layers of the steps' results, as far as they exist by now.
    async fn layers(&self, provenance: &Provenance) -> Result<Layers, Failure> {
        let mut out = Layers::new();
        let (Some(computed), Some(steps)) = (&self.computed, provenance.steps()) else {
            return Ok(out);
        };
        let Some(ctx) = computed
            .vertex
            .as_ref()
            .and_then(|vertex| self.scope.op_ctx(vertex))
        else {
            return Ok(out);
        };
        let options = solver::export::ExportOptions {
            mode: solver::export::ExportMode::RemoteOnly,
            roots: solver::export::RootResults::Exported,
            backlinks: solver::export::Backlinks::Ignored,
        };
        let keys = computed.keys.get(..1).unwrap_or_default().to_vec();
        let export = move || solver::export::export(&keys, options);
        let chains = task::blocking("export keys", export)
            .await
            .map_err(|e| Failure::new(FailureKind::Unknown, e))?;
        for result in chains.records.iter().flat_map(|r| &r.results) {
            let Some(name) = result.vertex.as_ref().and_then(|v| steps.name(v)) else {
                continue;
            };
            let loaded = result.manager.results().load(&result.stored, &ctx).await;
            let Ok(Some(tree)) = loaded else { continue };
            let Some(blobs) = tree.known_blobs()? else {
                continue;
            };
            let chain: Vec<_> = blobs
                .into_iter()
                .map(|blob| exporter::public_layer(&blob.descriptor))
                .collect();
            let chains = out.entry(format!("{name}:{}", result.output)).or_default();
            let same = |have: &Vec<oci::Descriptor>| {
                have.iter()
                    .map(|d| &d.digest)
                    .eq(chain.iter().map(|d| &d.digest))
            };
            if !chain.is_empty() && !chains.iter().any(same) {
                chains.push(chain);
            }
        }
        out.retain(|_, chains| !chains.is_empty());
        Ok(out)
    }
}
