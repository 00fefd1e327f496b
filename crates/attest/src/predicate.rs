//! SLSA provenance: the request of a build, its materials and its steps.

use std::collections::BTreeMap;

use oci::{Descriptor, Digest, Platform};
use serde::Serialize;
use serde_json::Value;

use crate::capture::Capture;
use crate::error::AttestError;
use crate::options::{
    Mode, ProvenanceOptions, Reproducibility, SlsaVersion, UnknownMaterials, UsageSamples,
};
use crate::purl::{PurlKind, of_image};
use crate::request::{
    ConfigSource, DigestSet, Local, Parameters, RequestProvenance, commit_digests,
};
use crate::sources::{IncompleteMaterial, Sources};
use crate::steps::{BuildConfig, SourceLocations, Steps};
use crate::usage::UsageValue;
use oci::address::redact;

const TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";

/// The layers that steps wrote: by step, for each output a list of layers.
pub type Layers = BTreeMap<String, Vec<Vec<Descriptor>>>;

/// Facts about the run of the build, which the engine knows.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The build's id.
    pub invocation: String,
    /// Start of the build, as RFC 3339.
    pub started: String,
    /// End of the build, as RFC 3339.
    pub finished: String,
    /// The version of the Dockerfile frontend.
    pub dockerfile_version: String,
    /// Fields that the daemon's configuration adds.
    pub environment: BTreeMap<String, Value>,
    /// Samples of what the machine did meanwhile.
    pub machine: Vec<UsageValue>,
    /// The compatibility version in the request; zero means none and is left out.
    pub compatibility_version: i64,
}

/// Provenance of one result.
#[derive(Debug, Clone)]
pub struct Provenance {
    version: SlsaVersion,
    definition: BuildDefinition,
    builder: String,
    metadata: Metadata,
}

#[derive(Debug, Clone, Serialize)]
struct Material {
    uri: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    digest: DigestSet,
}

#[derive(Debug, Clone, Serialize)]
struct BuildDefinition {
    #[serde(rename = "buildType")]
    build_type: &'static str,
    #[serde(rename = "resolvedDependencies", skip_serializing_if = "Vec::is_empty")]
    materials: Vec<Material>,
    #[serde(rename = "externalParameters")]
    external: ExternalParameters,
    #[serde(rename = "internalParameters")]
    internal: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Serialize)]
struct ExternalParameters {
    #[serde(rename = "configSource")]
    config_source: ConfigSource,
    request: Parameters,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Completeness {
    request: bool,
    #[serde(rename = "resolvedDependencies")]
    materials: bool,
}

#[derive(Debug, Clone, Default, Serialize)]
struct BuildKit {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    vcs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<SourceLocations>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    layers: Layers,
    #[serde(rename = "sysUsage", skip_serializing_if = "Vec::is_empty")]
    machine: Vec<UsageValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
}

/// How steps reached the network.
#[derive(Debug, Clone, Serialize)]
struct Network {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<ProxyNetwork>,
}

#[derive(Debug, Clone, Serialize)]
struct ProxyNetwork {
    incomplete: Vec<IncompleteMaterial>,
}

#[derive(Debug, Clone)]
struct Metadata {
    run: Run,
    buildkit: BuildKit,
    hermetic: bool,
    complete: Completeness,
    reproducible: bool,
    dockerfile: String,
    platform: String,
    target: String,
    steps: Option<Steps>,
}

fn digests(digest: &Digest) -> DigestSet {
    BTreeMap::from([(digest.algorithm().to_owned(), digest.hex().to_owned())])
}

fn materials(sources: &Sources) -> Result<Vec<Material>, AttestError> {
    let kind = |local| {
        if local {
            PurlKind::Oci
        } else {
            PurlKind::Docker
        }
    };
    let mut out = Vec::new();
    for image in &sources.images {
        out.push(Material {
            uri: of_image(
                kind(image.local),
                &image.reference,
                image.platform.as_ref(),
                &[],
            )?,
            digest: digests(&image.digest),
        });
    }
    for blob in &sources.blobs {
        out.push(Material {
            uri: of_image(
                kind(blob.local),
                &blob.reference,
                None,
                &[("ref_type", "blob")],
            )?,
            digest: digests(&blob.digest),
        });
    }
    for git in &sources.git {
        out.push(Material {
            uri: git.url.clone(),
            digest: commit_digests(&git.commit),
        });
        let Some((scheme, rest)) = git.bundle.split_once("://") else {
            continue;
        };
        let Some((reference, Ok(digest))) = rest
            .rsplit_once('@')
            .map(|(reference, digest)| (reference, Digest::parse(digest)))
        else {
            continue;
        };
        out.push(Material {
            uri: of_image(
                kind(scheme == "oci-layout+blob"),
                reference,
                None,
                &[("ref_type", "bundle"), ("vcs_url", &git.url)],
            )?,
            digest: digests(&digest),
        });
    }
    for http in &sources.http {
        out.push(Material {
            uri: http.url.clone(),
            digest: digests(&http.digest),
        });
    }
    Ok(out)
}

impl Provenance {
    /// Describes the build that `capture` recorded. [`Mode::Max`] needs `config`.
    pub fn new(
        capture: &Capture,
        options: &ProvenanceOptions,
        config: Option<BuildConfig>,
        run: Run,
    ) -> Result<Self, AttestError> {
        let sources = capture.sources();
        let client_request = &capture.request;
        let described = RequestProvenance::new(
            &client_request.frontend,
            client_request.args.clone(),
            sources,
        );
        let mut request = client_request.clone();
        let described_request = described.request.unwrap_or_default();
        (request.frontend, request.args) = (described_request.frontend, described_request.args);
        let mut buildkit = BuildKit::default();
        request.args.retain(|key, value| {
            let Some(name) = key.strip_prefix("vcs:") else {
                return true;
            };
            if !value.is_empty() {
                let shown_value = if name == "source" {
                    redact(value)
                } else {
                    value.clone()
                };
                buildkit.vcs.insert(name.to_owned(), shown_value);
            }
            false
        });
        request.locals = sources
            .local
            .iter()
            .map(|name| Local { name: name.clone() })
            .collect();
        request.compatibility_version = run.compatibility_version;
        let all_known = !capture.incomplete && sources.local.is_empty();
        if options.unknown_materials == UnknownMaterials::Refused && !all_known {
            return Err(incomplete(capture));
        }
        buildkit.network = capture.of_proxy_network().map(|requests| Network {
            mode: "proxy",
            proxy: (!requests.is_empty()).then(|| ProxyNetwork {
                incomplete: requests.to_vec(),
            }),
        });
        let mut complete = Completeness {
            request: !client_request.frontend.is_empty(),
            materials: all_known,
        };
        let dockerfile = if client_request.frontend == "dockerfile.v0" {
            run.dockerfile_version.clone()
        } else {
            String::new()
        };
        if options.usage == UsageSamples::Captured {
            buildkit.machine.clone_from(&run.machine);
        }
        let mut steps = None;
        match options.mode {
            Mode::Min => {
                if request.scrub() {
                    complete.request = false;
                }
            }
            Mode::Max => {
                let mut config = config.unwrap_or_default();
                if options.usage == UsageSamples::Captured {
                    config.steps.set_usages(capture.usages());
                }
                steps = Some(config.steps);
                buildkit.source = config.places;
            }
        }
        let external = ExternalParameters {
            config_source: described.config_source,
            request,
        };
        Ok(Self {
            version: options.version,
            definition: BuildDefinition {
                build_type: TYPE_V1,
                materials: materials(sources)?,
                external,
                internal: BTreeMap::new(),
            },
            builder: options.builder_id.clone(),
            metadata: Metadata {
                hermetic: all_known && !capture.used_network(),
                run,
                buildkit,
                complete,
                reproducible: options.reproducibility == Reproducibility::Claimed,
                dockerfile,
                platform: Platform::host().normalize().format(),
                target: capture.target_platform.clone(),
                steps,
            },
        })
    }

    /// Adds the layers that steps wrote.
    pub fn set_layers(&mut self, layers: Layers) {
        self.metadata.buildkit.layers = layers;
    }

    /// The steps of the build, which only [`Mode::Max`] has.
    #[must_use]
    pub fn steps(&self) -> Option<&Steps> {
        self.metadata.steps.as_ref()
    }

    /// The type URL of the predicate.
    #[must_use]
    pub fn predicate_type(&self) -> &'static str {
        self.version.predicate_type()
    }

    /// The predicate as indented JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        match self.version {
            SlsaVersion::V1 => self.v1(),
            SlsaVersion::V02 => self.v02(),
        }
    }

    fn v1(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct PredicateV1 {
            #[serde(rename = "buildDefinition")]
            definition: BuildDefinition,
            #[serde(rename = "runDetails")]
            details: Details,
        }
        #[derive(Serialize)]
        struct Details {
            builder: Builder,
            metadata: MetadataV1,
        }
        #[derive(Serialize)]
        struct MetadataV1 {
            #[serde(rename = "invocationId", skip_serializing_if = "String::is_empty")]
            invocation: String,
            #[serde(rename = "startedOn", skip_serializing_if = "String::is_empty")]
            started: String,
            #[serde(rename = "finishedOn", skip_serializing_if = "String::is_empty")]
            finished: String,
            buildkit_metadata: BuildKit,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            buildkit_hermetic: bool,
            buildkit_completeness: Completeness,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            buildkit_reproducible: bool,
        }
        let meta = &self.metadata;
        let mut definition = self.definition.clone();
        let mut internal = meta.run.environment.clone();
        let mut put = |key: &str, value: Value| internal.insert(key.to_owned(), value);
        put("builderPlatform", meta.platform.clone().into());
        if !meta.dockerfile.is_empty() {
            put("dockerfileVersion", meta.dockerfile.clone().into());
        }
        if let Some(steps) = &meta.steps {
            let steps = serde_json::to_value(steps).unwrap_or_default();
            put("buildConfig", steps);
        }
        internal.remove("targetPlatform");
        if !meta.target.is_empty() {
            internal.insert("targetPlatform".into(), meta.target.clone().into());
        }
        definition.internal = internal;
        gostd::json::to_vec_indent(
            &PredicateV1 {
                definition,
                details: Details {
                    builder: Builder {
                        id: self.builder.clone(),
                    },
                    metadata: MetadataV1 {
                        invocation: meta.run.invocation.clone(),
                        started: meta.run.started.clone(),
                        finished: meta.run.finished.clone(),
                        buildkit_metadata: meta.buildkit.clone(),
                        buildkit_hermetic: meta.hermetic,
                        buildkit_completeness: meta.complete,
                        buildkit_reproducible: meta.reproducible,
                    },
                },
            },
            "  ",
        )
    }

    fn v02(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct PredicateV02 {
            builder: Builder,
            #[serde(rename = "buildType")]
            build_type: &'static str,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            materials: Vec<Material>,
            invocation: Invocation,
            #[serde(rename = "buildConfig", skip_serializing_if = "Option::is_none")]
            config: Option<Steps>,
            metadata: MetadataV02,
        }
        #[derive(Serialize)]
        struct Invocation {
            #[serde(rename = "configSource")]
            config_source: Config,
            parameters: Parameters,
            environment: BTreeMap<String, Value>,
        }
        #[derive(Serialize)]
        struct Config {
            #[serde(skip_serializing_if = "String::is_empty")]
            uri: String,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            digest: DigestSet,
            #[serde(rename = "entryPoint", skip_serializing_if = "String::is_empty")]
            path: String,
        }
        #[derive(Serialize)]
        struct MetadataV02 {
            #[serde(rename = "buildInvocationID", skip_serializing_if = "String::is_empty")]
            invocation: String,
            #[serde(rename = "buildStartedOn", skip_serializing_if = "String::is_empty")]
            started: String,
            #[serde(rename = "buildFinishedOn", skip_serializing_if = "String::is_empty")]
            finished: String,
            completeness: CompletenessV02,
            reproducible: bool,
            #[serde(rename = "https://mobyproject.org/buildkit@v1#metadata")]
            buildkit: BuildKit,
            #[serde(
                rename = "https://mobyproject.org/buildkit@v1#hermetic",
                skip_serializing_if = "std::ops::Not::not"
            )]
            hermetic: bool,
        }
        #[derive(Serialize)]
        struct CompletenessV02 {
            parameters: bool,
            environment: bool,
            materials: bool,
        }
        let meta = &self.metadata;
        let source = self.definition.external.config_source.clone();
        let mut environment = meta.run.environment.clone();
        environment.insert("platform".into(), meta.platform.clone().into());
        if !meta.dockerfile.is_empty() {
            environment.insert("dockerfileVersion".into(), meta.dockerfile.clone().into());
        }
        gostd::json::to_vec_indent(
            &PredicateV02 {
                builder: Builder {
                    id: self.builder.clone(),
                },
                build_type: TYPE_V02,
                materials: self.definition.materials.clone(),
                invocation: Invocation {
                    config_source: Config {
                        uri: source.uri,
                        digest: source.digest,
                        path: source.path,
                    },
                    parameters: self.definition.external.request.clone(),
                    environment,
                },
                config: meta.steps.clone(),
                metadata: MetadataV02 {
                    invocation: meta.run.invocation.clone(),
                    started: meta.run.started.clone(),
                    finished: meta.run.finished.clone(),
                    completeness: CompletenessV02 {
                        parameters: meta.complete.request,
                        environment: true,
                        materials: meta.complete.materials,
                    },
                    reproducible: meta.reproducible,
                    buildkit: meta.buildkit.clone(),
                    hermetic: meta.hermetic,
                },
            },
            "  ",
        )
    }
}

#[derive(Debug, Clone, Serialize)]
struct Builder {
    id: String,
}

fn incomplete(capture: &Capture) -> AttestError {
    let sources = capture.sources();
    let requests = capture.of_proxy_network().unwrap_or_default();
    let mut text = "provenance materials are incomplete\n\nThe build requested complete provenance materials, but not all dependencies could be captured.".to_owned();
    let mut materials = Vec::with_capacity(sources.local.len() + requests.len());
    if !sources.local.is_empty() {
        text.push_str("\n\nUncaptured local sources:");
    }
    for name in &sources.local {
        let display_name = if name.is_empty() { "<unnamed>" } else { name };
        text.push_str(&format!("\n  - {display_name}\n    reason: local_source"));
        materials.push(IncompleteMaterial {
            name: name.clone(),
            reason: "local_source".to_owned(),
            ..IncompleteMaterial::default()
        });
    }
    if !requests.is_empty() {
        text.push_str("\n\nUncaptured requests:");
    }
    for request in requests {
        let IncompleteMaterial {
            op,
            name,
            method,
            uri,
            reason,
        } = request;
        let display_name = [name, op, uri].into_iter().find(|part| !part.is_empty());
        text.push_str(&format!("\n  - {}", display_name.unwrap_or(uri)));
        for (label, value) in [("method", method), ("url", uri), ("reason", reason)] {
            if !value.is_empty() {
                text.push_str(&format!("\n    {label}: {value}"));
            }
        }
        materials.push(request.clone());
    }
    AttestError::Incomplete { text, materials }
}

#[cfg(test)]
mod tests;
