//! The statements about a result: those of its frontend, and those that the daemon adds.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use attest::{Attests, Carriers, PurlKind, Statement, SubjectKind, SubjectSpec};
use exporter::{About, Attester, ExportError};
use frontend::bridge::Attestation;
use oci::Digest;
use serde::Deserialize;
use store::ImmutableRef;

use super::provenance::{self, ProvenanceBuilder, Subject};
use super::sbom;
use crate::api::{Failure, FailureKind};
use crate::reference::LazyRef;

/// Size limit of one statement in bytes.
const MAX_STATEMENT_BYTES: u64 = 80 << 20;
/// Size limit of all statements in one folder in bytes; they are in memory together.
const MAX_BUNDLE_BYTES: u64 = 160 << 20;
/// `gatewayapi.AttestationKind`: one statement.
const KIND_IN_TOTO: i32 = 0;
/// `gatewayapi.AttestationKind`: a folder of statements.
const KIND_BUNDLE: i32 = 1;

fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
    Failure::new(FailureKind::Unknown, error)
}

fn wrong(reason: impl Into<Box<dyn Error + Send + Sync>>) -> ExportError {
    ExportError::Supplied {
        source: Arc::from(reason.into()),
    }
}

enum Content {
    /// A tree that the build computes; none is an empty tree.
    Files(Option<ImmutableRef>),
    Bytes(Vec<u8>),
    Provenance(Arc<ProvenanceBuilder>),
}

/// One attestation, or a folder of them.
struct Item {
    bundle: bool,
    path: String,
    predicate_type: String,
    subjects: Vec<SubjectSpec>,
    carriers: Carriers,
    /// The scan that other scans of the folder add to, by its file name.
    core: Option<String>,
    content: Arc<Content>,
}

/// The attestations of a result.
pub(crate) struct Attestations {
    by_platform: BTreeMap<String, Vec<Item>>,
    version: String,
}

fn subjects(subjects: &[(i32, String, Vec<String>)]) -> Result<Vec<SubjectSpec>, Failure> {
    let subject = |(kind, name, digests): &(i32, String, Vec<String>)| {
        let kind = match kind {
            0 => SubjectKind::SelfResult,
            1 => SubjectKind::Raw,
            unknown => {
                return Err(failed(format!(
                    "unknown attestation subject type {unknown}"
                )));
            }
        };
        let digests = digests.iter().map(|d| Digest::parse(d).map_err(failed));
        Ok(SubjectSpec {
            kind,
            name: name.clone(),
            digests: digests.collect::<Result<_, _>>()?,
        })
    };
    subjects.iter().map(subject).collect()
}

async fn item(attestation: &Attestation) -> Result<Item, Failure> {
    let bundle = match attestation.kind {
        KIND_IN_TOTO => false,
        KIND_BUNDLE => true,
        unknown => return Err(failed(format!("unknown attestation kind {unknown}"))),
    };
    let content = attestation.content.as_ref().map(LazyRef::of);
    let Some(Ok(content)) = content else {
        return Err(failed(if bundle {
            "no ref provided for attestation bundle"
        } else {
            "attestation does not have available content"
        }));
    };
    if !bundle && attestation.path.is_empty() {
        return Err(failed("attestation does not have set path"));
    }
    if !bundle && is_provenance(&attestation.predicate_type) {
        return Err(failed("frontend may not set provenance attestations"));
    }
    let meta = |key: &str| {
        attestation
            .metadata
            .get(key)
            .map(|v| String::from_utf8_lossy(v))
    };
    Ok(Item {
        bundle,
        path: attestation.path.clone(),
        predicate_type: attestation.predicate_type.clone(),
        subjects: subjects(&attestation.subjects)?,
        carriers: if meta("inline-only").is_some_and(|v| v == "true") {
            Carriers::Images
        } else {
            Carriers::All
        },
        core: meta("sbom-core").map(std::borrow::Cow::into_owned),
        content: Arc::new(Content::Files(content.result().await?)),
    })
}

fn is_provenance(predicate_type: &str) -> bool {
    predicate_type.starts_with("https://slsa.dev/provenance/")
}

/// Collects the attestations of a result; none if there are none. `version` is the daemon's, for the tools of an SBOM.
pub(crate) async fn collect(
    subject: &Subject<'_>,
    attests: &Attests,
    version: &str,
) -> Result<Option<Attestations>, Failure> {
    let mut by_platform: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for (id, list) in &subject.result.attestations {
        for attestation in list {
            let items = by_platform.entry(id.clone()).or_default();
            items.push(item(attestation).await?);
        }
    }
    if let Some(options) = &attests.provenance {
        for (id, builder) in provenance::builders(subject, options).await? {
            let file = if options.filename.is_empty() {
                "provenance.json"
            } else {
                &options.filename
            };
            by_platform.entry(id).or_default().push(Item {
                bundle: false,
                path: file.to_owned(),
                predicate_type: builder.predicate_type().to_owned(),
                subjects: Vec::new(),
                carriers: options.carriers,
                core: None,
                content: Arc::new(Content::Provenance(Arc::new(builder))),
            });
        }
    }
    Ok((!by_platform.is_empty()).then(|| Attestations {
        by_platform,
        version: version.to_owned(),
    }))
}

/// Reads a regular file of a ref, bounded.
fn read(tree: &ImmutableRef, path: &str) -> Result<Vec<u8>, ExportError> {
    let at =
        |e: &dyn std::fmt::Display| wrong(format!("cannot read in-toto attestation: {path}: {e}"));
    let root = tree.root().map_err(|e| at(&e))?;
    let meta = root.stat(path).map_err(|e| at(&e))?;
    if !meta.is_file() {
        return Err(at(&"not a regular file"));
    }
    let mut file = root
        .open_file(path)
        .map_err(|e| at(&e))?
        .take(MAX_STATEMENT_BYTES + 1);
    let mut out = Vec::new();
    file.read_to_end(&mut out).map_err(|e| at(&e))?;
    if out.len() as u64 > MAX_STATEMENT_BYTES {
        return Err(wrong(format!("{path} exceeds {MAX_STATEMENT_BYTES} bytes")));
    }
    Ok(out)
}

/// A statement as frontends write it into a folder.
#[derive(Deserialize)]
struct Written {
    #[serde(rename = "predicateType", default)]
    predicate_type: String,
    #[serde(default)]
    subject: Vec<attest::Subject>,
}

/// The statements in a folder, each an attestation of its own.
fn unbundle(tree: &ImmutableRef, item: &Item) -> Result<Vec<Item>, ExportError> {
    let root = tree.root().map_err(wrong)?;
    let top = Path::new("/").join(&item.path);
    let dir = root.dir(&top).map_err(wrong)?;
    let mut names: Vec<_> = dir
        .entries()
        .map_err(wrong)?
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.sort();
    let mut bytes_left = MAX_BUNDLE_BYTES;
    let mut out = Vec::new();
    for name in names {
        let path = Path::new(&item.path).join(&name);
        let path = path.to_string_lossy().into_owned();
        let bytes = read(tree, &format!("/{path}"))?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        bytes_left = bytes_left.checked_sub(length).ok_or_else(|| {
            wrong(format!(
                "attestation bundle exceeds {MAX_BUNDLE_BYTES} bytes"
            ))
        })?;
        let written: Written = gostd::json::from_slice(&bytes)
            .map_err(|e| wrong(format!("cannot decode in-toto statement: {e}")))?;
        if !item.predicate_type.is_empty() && written.predicate_type != item.predicate_type {
            return Err(wrong(format!(
                "bundle entry {} does not match required predicate type {}",
                written.predicate_type, item.predicate_type
            )));
        }
        if is_provenance(&written.predicate_type) {
            return Err(wrong("frontend may not bundle provenance attestations"));
        }
        let mut specs = Vec::new();
        for subject in &written.subject {
            let digests = subject
                .digest
                .iter()
                .filter_map(|(algorithm, hex)| Digest::parse(&format!("{algorithm}:{hex}")).ok());
            specs.push(SubjectSpec {
                kind: SubjectKind::Raw,
                name: subject.name.clone(),
                digests: digests.collect(),
            });
        }
        let predicate = gostd::json::raw_field(&bytes, "predicate").map_err(wrong)?;
        let predicate = predicate.filter(|raw| *raw != b"null").map(<[u8]>::to_vec);
        out.push(Item {
            bundle: false,
            path,
            predicate_type: written.predicate_type,
            subjects: specs,
            carriers: item.carriers,
            core: item.core.clone(),
            content: Arc::new(Content::Bytes(predicate.unwrap_or_default())),
        });
    }
    Ok(out)
}

impl Item {
    /// Whether it is the scan that other scans of its folder add to.
    fn is_core(&self) -> bool {
        let base = self.path.rsplit('/').next().unwrap_or_default();
        let stem = base.split('.').next().unwrap_or_default();
        self.core.as_deref() == Some(stem)
    }

    async fn bytes(&self) -> Result<Vec<u8>, ExportError> {
        match &*self.content {
            Content::Bytes(bytes) => Ok(bytes.clone()),
            Content::Provenance(builder) => builder.predicate().await,
            Content::Files(None) => Err(wrong(format!(
                "cannot read in-toto attestation: {}: no such file or directory",
                self.path
            ))),
            Content::Files(Some(tree)) => {
                tree.ensure().await?;
                let (tree, path) = (tree.clone(), self.path.clone());
                task::blocking("attestation", move || read(&tree, &path)).await
            }
        }
    }
}

#[async_trait]
impl Attester for Attestations {
    fn attests(&self, platform_id: &str, in_images: bool) -> bool {
        self.by_platform.get(platform_id).is_some_and(|items| {
            items
                .iter()
                .any(|item| in_images || item.carriers == Carriers::All)
        })
    }

    async fn statements(
        &self,
        platform_id: &str,
        about: About<'_>,
    ) -> Result<Vec<exporter::Statement>, ExportError> {
        let exported: Vec<attest::Subject> = match about {
            About::Files(files) => files
                .iter()
                .map(|(n, d)| attest::Subject::new(n, d))
                .collect(),
            About::Image {
                platform,
                manifest,
                names,
                ..
            } => {
                let subject = |name: &String| {
                    let name =
                        attest::of_image(PurlKind::Docker, name, Some(&platform.platform), &[]);
                    Ok(attest::Subject::new(name.map_err(wrong)?, &manifest.digest))
                };
                names
                    .iter()
                    .map(subject)
                    .collect::<Result<_, ExportError>>()?
            }
        };
        let in_images = matches!(about, About::Image { .. });
        let mut flat: Vec<Item> = Vec::new();
        let items = self.by_platform.get(platform_id).into_iter().flatten();
        for item in items.filter(|item| in_images || item.carriers == Carriers::All) {
            if !item.bundle {
                flat.push(item.shared());
                continue;
            }
            let Content::Files(tree) = &*item.content else {
                continue;
            };
            let Some(tree) = tree else { continue };
            tree.ensure().await?;
            let (tree, item) = (tree.clone(), item.shared());
            let parts = task::blocking("attestations", move || unbundle(&tree, &item));
            flat.extend(parts.await?);
        }
        flat.sort_by_key(|item| !item.is_core());
        let mut out = Vec::with_capacity(flat.len());
        for item in flat {
            let mut predicate = item.bytes().await?;
            if let About::Image { layers, .. } = about
                && item.predicate_type == sbom::SPDX_PREDICATE
                && item.is_core()
            {
                predicate = sbom::supplement(predicate, layers, &self.version).await;
            }
            let statement =
                Statement::new(&item.predicate_type, &predicate, &item.subjects, &exported)
                    .map_err(wrong)?;
            let bytes = if in_images {
                statement.compact()
            } else {
                statement.pretty()
            };
            out.push(exporter::Statement {
                predicate_type: item.predicate_type.clone(),
                file: item.path.clone(),
                bytes,
            });
        }
        Ok(out)
    }
}

impl Item {
    fn shared(&self) -> Self {
        Self {
            bundle: self.bundle,
            path: self.path.clone(),
            predicate_type: self.predicate_type.clone(),
            subjects: self.subjects.clone(),
            carriers: self.carriers,
            core: self.core.clone(),
            content: Arc::clone(&self.content),
        }
    }
}
