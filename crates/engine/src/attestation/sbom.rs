//! Software bills of materials: runs a scanner over each result and notes which layer each file came from.

use std::collections::BTreeMap;
use std::sync::Arc;

use attest::SbomOptions;
use exporter::PlatformEntry;
use frontend::bridge::{Attestation, ImageResolveOpts, ResolveOpts};
use frontend::{FrontendResult, Ref};
use llb::build::{Constraints, ImageOpts, MarshalOptions, Mount, MountContent, Run, State};
use llb::pb;
use oci::{ImageConfig, Platform};
use store::LayerBlob;

use crate::api::{Failure, FailureKind};
use crate::evaluate::Evaluator;
use crate::policy::SourcePolicies;
use crate::reference::LazyRef;

/// The type of SPDX documents.
pub(super) const SPDX_PREDICATE: &str = "https://spdx.dev/Document";

/// Name of the scan of the result itself; scans of further trees add to it.
const CORE_NAME: &str = "sbom";
const SOURCES_DIR: &str = "/run/src";
const OUT_DIR: &str = "/run/out/";

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(FailureKind::Unknown, error)
}

/// What scanning needs of a build.
pub(crate) struct Scanner<'a> {
    /// Computes the scans.
    pub(crate) evaluator: &'a Arc<Evaluator>,
    /// Resolves the scanner's image, if policies allow it.
    pub(crate) policies: &'a SourcePolicies,
    /// The platform that scanners run on.
    pub(crate) platform: &'a Platform,
    /// The options of the frontend.
    pub(crate) frontend_opts: &'a BTreeMap<String, String>,
}

/// Adds an SBOM to each result that is not empty, unless the frontend made one.
pub(crate) async fn scan(
    scanner: &Scanner<'_>,
    result: &mut FrontendResult,
    platforms: &[PlatformEntry],
    options: &SbomOptions,
) -> Result<(), Failure> {
    let has = |a: &Attestation| a.predicate_type == SPDX_PREDICATE;
    if result.attestations.values().flatten().any(has) {
        return Ok(());
    }
    let platform = scanner.platform;
    let (reference, config) = scanner.image(options).await?;
    let args: Vec<String> = [config.config.entrypoint.clone(), config.config.cmd.clone()]
        .into_iter()
        .flatten()
        .collect();
    if args.is_empty() {
        return Err(failed(format!("scanner {reference} does not have cmd")));
    }
    let image = llb::build::image(
        &reference,
        &ImageOpts::default(),
        Constraints::new().platform(platform),
    )
    .map_err(failed)?;
    for entry in platforms {
        let target = match result.refs.get(&entry.id) {
            Some(target) => target.as_ref(),
            None if result.refs.len() == 1 => result.refs.values().next().and_then(Option::as_ref),
            None => result.single.as_ref(),
        };
        let Some(definition) = target.and_then(|target| target.definition()) else {
            continue;
        };
        let target = llb::build::state_from_definition(&definition).map_err(failed)?;
        let further = result.scan.get(&entry.id);
        let extras = further.into_iter().flat_map(|targets| &targets.extras);
        let state = |(name, definition): (_, &Arc<pb::Definition>)| {
            let state = llb::build::state_from_definition(definition).map_err(failed)?;
            Ok((String::as_str(name), state))
        };
        let extras = extras.map(state).collect::<Result<Vec<_>, Failure>>()?;
        let scan = Scan {
            image: &image,
            reference: &reference,
            config: &config,
            args: &args,
            options,
            no_cache: scanner
                .frontend_opts
                .get("no-cache")
                .is_some_and(String::is_empty)
                || further.is_some_and(|targets| targets.ignore_cache),
            platform,
        }
        .of(&entry.id, &target, &extras)?;
        let scanned = LazyRef::new(Arc::clone(scanner.evaluator), Arc::new(scan), Vec::new());
        scanned.result().await?;
        let text = |text: &'static str| bytes::Bytes::from_static(text.as_bytes());
        let list = result.attestations.entry(entry.id.clone()).or_default();
        list.push(Attestation {
            kind: 1,
            content: Some(scanned as Arc<dyn Ref>),
            predicate_type: SPDX_PREDICATE.into(),
            metadata: BTreeMap::from([
                ("reason".to_owned(), text("sbom")),
                ("sbom-core".to_owned(), text(CORE_NAME)),
            ]),
            ..Attestation::default()
        });
    }
    Ok(())
}

impl Scanner<'_> {
    /// The scanner's image, fixed, and its config.
    async fn image(&self, options: &SbomOptions) -> Result<(String, ImageConfig), Failure> {
        let source = pb::SourceOp {
            identifier: format!("docker-image://{}", options.generator),
            ..pb::SourceOp::default()
        };
        let mode = self.frontend_opts.get("image-resolve-mode").cloned();
        let resolve_opts = ResolveOpts {
            image: Some(ImageResolveOpts {
                platform: Some(self.platform.clone()),
                resolve_mode: mode.unwrap_or_default(),
                ..ImageResolveOpts::default()
            }),
            ..ResolveOpts::default()
        };
        let context = frontend::resolving(&source.identifier);
        let resolved = self.policies.resolve(source, resolve_opts).await;
        let meta = resolved.map_err(|e| e.during(context))?;
        let reference = meta.op.identifier.strip_prefix("docker-image://");
        let reference = reference.unwrap_or(&options.generator).to_owned();
        let image = meta
            .image
            .ok_or_else(|| failed("the scanner's reference does not resolve to an image"))?;
        let config = gostd::json::from_slice(&image.config).map_err(failed)?;
        Ok((reference, config))
    }
}

struct Scan<'a> {
    image: &'a State,
    reference: &'a str,
    config: &'a ImageConfig,
    args: &'a [String],
    options: &'a SbomOptions,
    no_cache: bool,
    platform: &'a Platform,
}

impl Scan<'_> {
    /// The scan of one result and of further trees, each by its name.
    fn of(
        &self,
        name: &str,
        target: &State,
        extras: &[(&str, State)],
    ) -> Result<pb::Definition, Failure> {
        let core = format!("{SOURCES_DIR}/core/{CORE_NAME}");
        let mut env = self.config.config.env.clone();
        env.push(format!("BUILDKIT_SCAN_DESTINATION={OUT_DIR}"));
        env.push(format!("BUILDKIT_SCAN_SOURCE={core}"));
        if !extras.is_empty() {
            env.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={SOURCES_DIR}/extras"));
        }
        for (key, value) in &self.options.parameters {
            env.push(format!("BUILDKIT_SCAN_{key}={value}"));
        }
        let constraints = Constraints::new()
            .name(format!("[{name}] generating sbom using {}", self.reference))
            .platform(self.platform)
            .ignore_cache(self.no_cache);
        let tmp = Mount {
            content: MountContent::Tmpfs { size: 0 },
            ..Mount::new("/tmp", &State::scratch())
        };
        let source = Mount {
            readonly: true,
            ..Mount::new(core, target)
        };
        let run = Run::new(self.image, self.args.to_vec(), constraints)
            .with(|state| {
                let state = state.dir(&self.config.config.working_dir);
                env.iter().fold(state, |state, variable| {
                    let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
                    state.add_env(key, value)
                })
            })
            .mount(tmp)
            .mount(source);
        let run = extras.iter().fold(run, |run, (name, state)| {
            run.mount(Mount {
                readonly: true,
                ..Mount::new(format!("{SOURCES_DIR}/extras/{CORE_NAME}-{name}"), state)
            })
        });
        let run = run.mount(Mount::new(OUT_DIR, &State::scratch()));
        let (_, mounts) = run.outputs();
        llb::build::marshal(mounts.last(), &MarshalOptions::default()).map_err(failed)
    }
}

/// Values in an SPDX document that is extended, about fifteen for each file. The document is in memory as a whole.
const MAX_SPDX_VALUES: usize = 1 << 21;

/// Adds to each file of an SPDX document the layer that it came from. A document that cannot be read, or has too many values, stays
/// as it is.
pub(super) async fn supplement(document: Vec<u8>, layers: &[LayerBlob], version: &str) -> Vec<u8> {
    let mut uppers = Vec::with_capacity(layers.len());
    for layer in layers.iter().rev() {
        if layer.layer().ensure().await.is_err() {
            return document;
        }
        uppers.push((layer.layer(), layer.descriptor.digest.to_string()));
    }
    let creator = format!("Tool: buildkit-{version}");
    let supplemented = task::blocking("sbom layers", move || {
        let read = gostd::json::from_slice_with::<serde_json::Value>(&document, MAX_SPDX_VALUES);
        let Ok(mut read) = read else {
            return document;
        };
        let find = |name: &str| {
            let path = std::path::Path::new("/").join(name.trim_start_matches(['.', '/']));
            let has = |(layer, _): &&(store::ImmutableRef, String)| {
                layer.upper().is_ok_and(|root| root.lstat(&path).is_ok())
            };
            uppers.iter().find(has).map(|(_, digest)| digest.clone())
        };
        let files = |value: &mut serde_json::Value| {
            for file in value.as_array_mut().into_iter().flatten() {
                let Some(fields) = file.as_object_mut() else {
                    continue;
                };
                let commented = fields
                    .get("comment")
                    .and_then(|c| c.as_str())
                    .is_some_and(|c| !c.is_empty());
                let name = fields.get("fileName").and_then(|n| n.as_str());
                if let Some(layer) = name.filter(|_| !commented).and_then(find) {
                    fields.insert("comment".into(), format!("layerID: {layer}").into());
                }
            }
        };
        if let Some(list) = read.get_mut("files") {
            files(list);
        }
        if let Some(info) = read.as_object_mut() {
            let info = info
                .entry("creationInfo")
                .or_insert_with(|| serde_json::json!({}));
            if let Some(info) = info.as_object_mut() {
                let creators = info
                    .entry("creators")
                    .or_insert_with(|| serde_json::json!([]));
                if let Some(creators) = creators.as_array_mut() {
                    creators.push(creator.into());
                }
            }
        }
        gostd::json::to_vec(&read)
    });
    supplemented.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_sbom_with_very_many_values_stays_as_it_is() {
        let many = format!("[{}0]", "0,".repeat(MAX_SPDX_VALUES)).into_bytes();
        assert!(supplement(many.clone(), &[], "1").await == many);
        let text = br#"{"files":null,"creationInfo":{"creators":["\ud800"]}}"#.to_vec();
        let changed = supplement(text, &[], "1").await;
        assert_eq!(
            String::from_utf8(changed).unwrap(),
            "{\"creationInfo\":{\"creators\":[\"\u{fffd}\",\"Tool: buildkit-1\"]},\"files\":null}"
        );
    }
}
