//! The attestations that a request asks for, with their options.

use gostd::csv::CsvError;

use std::collections::BTreeMap;

use crate::error::AttestError;

/// The scanner of SBOMs if the request names none.
const DEFAULT_SCANNER: &str = "docker/buildkit-syft-scanner:stable-1";

/// A version of SLSA provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlsaVersion {
    /// `v1`.
    #[default]
    V1,
    /// `v0.2`.
    V02,
}

impl SlsaVersion {
    /// The type URL of the version's predicates.
    #[must_use]
    pub fn predicate_type(self) -> &'static str {
        match self {
            Self::V1 => "https://slsa.dev/provenance/v1",
            Self::V02 => "https://slsa.dev/provenance/v0.2",
        }
    }
}

/// How much provenance contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The request without its arguments, and the materials.
    Min,
    /// The whole request, with the steps and their layers.
    #[default]
    Max,
}

/// The results that carry provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carriers {
    /// Images, and folders and archives as a file of their own.
    #[default]
    All,
    /// Images only (`inline-only`).
    Images,
}

/// Whether the user claims that the build is reproducible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reproducibility {
    /// No claim.
    #[default]
    Unclaimed,
    /// The build gives the same result again (`reproducible`).
    Claimed,
}

/// The effect of unknown materials on the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownMaterials {
    /// Provenance says that its materials are incomplete.
    #[default]
    Stated,
    /// The build fails (`complete-materials`).
    Refused,
}

/// Whether provenance has the resource usage of steps and of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UsageSamples {
    /// Usage is not captured.
    #[default]
    LeftOut,
    /// Usage is captured (`capture-usage`).
    Captured,
}

/// The options of provenance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProvenanceOptions {
    /// The version of the predicate.
    pub version: SlsaVersion,
    /// How much it contains.
    pub mode: Mode,
    /// The results that carry provenance.
    pub carriers: Carriers,
    /// Whether the user claims that the build is reproducible.
    pub reproducibility: Reproducibility,
    /// The effect of unknown materials.
    pub unknown_materials: UnknownMaterials,
    /// Whether it tells what was used.
    pub usage: UsageSamples,
    /// The builder's name, as the user gives it.
    pub builder_id: String,
    /// The file beside exported files; empty for `provenance.json`.
    pub filename: String,
}

/// The options of an SBOM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SbomOptions {
    /// The reference of the scanner's image.
    pub generator: String,
    /// Further options by name, which the scanner gets in its environment.
    pub parameters: BTreeMap<String, String>,
}

/// The attestations that a request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attests {
    /// Provenance.
    pub provenance: Option<ProvenanceOptions>,
    /// An SBOM.
    pub sbom: Option<SbomOptions>,
}

impl Attests {
    /// Reads the options of a request.
    pub fn parse(opts: &BTreeMap<String, String>) -> Result<Self, AttestError> {
        let mut out = Self::default();
        let mut values_by_kind = BTreeMap::new();
        for (key, value) in opts {
            let kind = key
                .strip_prefix("attest:")
                .or_else(|| key.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
            if let Some(kind) = kind {
                values_by_kind.insert(kind.to_lowercase(), value);
            }
        }
        for (kind, value) in values_by_kind {
            let fields = match pairs(value) {
                Ok(fields) => fields,
                Err(source) => return Err(AttestError::Csv { kind, source }),
            };
            match kind.as_str() {
                "provenance" => out.provenance = Some(provenance(fields)?),
                "sbom" => out.sbom = Some(sbom(fields)?),
                _ => return Err(AttestError::Kind { kind }),
            }
        }
        Ok(out)
    }
}

/// `a=b,"c=d,e"`.
fn pairs(text: &str) -> Result<BTreeMap<String, String>, CsvError> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let pair = |field: String| {
        let (key, value) = field.split_once('=').unwrap_or((&field, ""));
        (key.to_owned(), value.to_owned())
    };
    Ok(gostd::csv::fields(text)?.into_iter().map(pair).collect())
}

fn provenance(fields: BTreeMap<String, String>) -> Result<ProvenanceOptions, AttestError> {
    let mut out = ProvenanceOptions::default();
    let flag = |key: &str, value: &str| {
        gostd::strconv::parse_bool(value).map_err(|source| AttestError::Flag {
            key: key.to_owned(),
            value: value.to_owned(),
            source,
        })
    };
    for (key, value) in fields {
        match key.as_str() {
            "version" => {
                out.version = match value.as_str() {
                    "v1" => SlsaVersion::V1,
                    "v0.2" => SlsaVersion::V02,
                    "" => {
                        return Err(AttestError::NoSlsaVersion);
                    }
                    other => {
                        return Err(AttestError::SlsaVersion {
                            version: other.to_owned(),
                        });
                    }
                }
            }
            "mode" => {
                out.mode = match value.as_str() {
                    "min" => Mode::Min,
                    "max" | "full" => Mode::Max,
                    other => {
                        return Err(AttestError::Mode {
                            mode: other.to_owned(),
                        });
                    }
                }
            }
            "inline-only" => {
                out.carriers = if gostd::strconv::is_true(&value) {
                    Carriers::Images
                } else {
                    Carriers::All
                }
            }
            "reproducible" => {
                out.reproducibility = if flag(&key, &value)? {
                    Reproducibility::Claimed
                } else {
                    Reproducibility::Unclaimed
                }
            }
            "complete-materials" => {
                out.unknown_materials = if flag(&key, &value)? {
                    UnknownMaterials::Refused
                } else {
                    UnknownMaterials::Stated
                }
            }
            "capture-usage" => {
                out.usage = if gostd::strconv::is_true(&value) {
                    UsageSamples::Captured
                } else {
                    UsageSamples::LeftOut
                }
            }
            "builder-id" => out.builder_id = value,
            "filename" => out.filename = value,
            _ => {}
        }
    }
    Ok(out)
}

fn sbom(mut fields: BTreeMap<String, String>) -> Result<SbomOptions, AttestError> {
    let generator = fields
        .remove("generator")
        .unwrap_or_else(|| DEFAULT_SCANNER.into());
    if generator.is_empty() {
        return Err(AttestError::NoGenerator);
    }
    let reference = oci::Reference::parse(&generator).map_err(|source| AttestError::Reference {
        reference: generator.clone(),
        source,
    })?;
    Ok(SbomOptions {
        generator: reference.with_default_tag().to_string(),
        parameters: fields,
    })
}

#[cfg(test)]
mod tests {
    use super::{Attests, Mode, SlsaVersion};
    use std::collections::BTreeMap;

    fn parse(key: &str, value: &str) -> Result<Attests, String> {
        let opts = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        Attests::parse(&opts).map_err(|e| e.to_string())
    }

    #[test]
    fn requested_attestations_are_read_from_the_options() {
        let all = parse("attest:provenance", "").unwrap().provenance.unwrap();
        assert_eq!((all.mode, all.version), (Mode::Max, SlsaVersion::V1));
        let min = parse(
            "build-arg:BUILDKIT_ATTEST_PROVENANCE",
            "mode=min,version=v0.2,\"builder-id=a,b\"",
        );
        let min = min.unwrap().provenance.unwrap();
        assert_eq!((min.mode, min.version), (Mode::Min, SlsaVersion::V02));
        assert_eq!(min.builder_id, "a,b");
        let sbom = parse("attest:sbom", "generator=scan,X=1").unwrap().sbom;
        let sbom = sbom.unwrap();
        assert_eq!(sbom.generator, "docker.io/library/scan:latest");
        assert_eq!(sbom.parameters.get("X").map(String::as_str), Some("1"));
        for (key, value, want) in [
            ("attest:x", "", "unknown attestation type \"x\""),
            ("attest:provenance", "mode=some", "invalid mode \"some\""),
            (
                "attest:provenance",
                "version=v9",
                "invalid provenance SLSA version: v9",
            ),
            (
                "attest:sbom",
                "generator=",
                "sbom generator cannot be empty",
            ),
        ] {
            assert_eq!(parse(key, value).unwrap_err(), want);
        }
        assert_eq!(parse("build-arg:X", "").unwrap(), Attests::default());
    }
}
