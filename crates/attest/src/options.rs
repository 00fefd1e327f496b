//! Which attestations a request asks for.

use gostd::csv::CsvError;
use gostd::strconv::quote;

use std::collections::BTreeMap;

use crate::error::AttestError;

const SCANNER: &str = "docker/buildkit-syft-scanner:stable-1";

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
    /// The type of its predicates.
    #[must_use]
    pub fn predicate_type(self) -> &'static str {
        match self {
            Self::V1 => "https://slsa.dev/provenance/v1",
            Self::V02 => "https://slsa.dev/provenance/v0.2",
        }
    }
}

/// How much provenance tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The request without its arguments, and the materials.
    Min,
    /// All, with the steps and the layers they gave.
    #[default]
    Max,
}

/// What is asked of provenance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProvenanceOptions {
    /// Which predicate.
    pub version: SlsaVersion,
    /// How much of it.
    pub mode: Mode,
    /// Whether only images carry it.
    pub inline_only: bool,
    /// Whether the user says that the build is reproducible.
    pub reproducible: bool,
    /// Whether unknown materials fail the build.
    pub complete_materials: bool,
    /// Who the user says builds.
    pub builder_id: String,
    /// The file beside exported files; empty for `provenance.json`.
    pub filename: String,
}

/// What is asked of an SBOM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SbomOptions {
    /// The image of the scanner.
    pub generator: String,
    /// What it is told.
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
        let mut found = BTreeMap::new();
        for (key, value) in opts {
            let kind = key
                .strip_prefix("attest:")
                .or_else(|| key.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
            if let Some(kind) = kind {
                found.insert(kind.to_lowercase(), value);
            }
        }
        for (kind, value) in found {
            let fields = pairs(value)
                .map_err(|_| AttestError::option(format!("failed to parse {kind}: invalid csv")))?;
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
        gostd::strconv::parse_bool(value).map_err(|e| {
            AttestError::option(format!("failed to parse {key} flag {}: {e}", quote(value)))
        })
    };
    for (key, value) in fields {
        match key.as_str() {
            "version" => {
                out.version = match value.as_str() {
                    "v1" => SlsaVersion::V1,
                    "v0.2" => SlsaVersion::V02,
                    "" => {
                        return Err(AttestError::option(
                            "provenance SLSA version cannot be empty",
                        ));
                    }
                    other => {
                        return Err(AttestError::option(format!(
                            "invalid provenance SLSA version: {other}"
                        )));
                    }
                }
            }
            "mode" => {
                out.mode = match value.as_str() {
                    "min" => Mode::Min,
                    "max" | "full" => Mode::Max,
                    other => {
                        return Err(AttestError::option(format!(
                            "invalid mode {}",
                            quote(other)
                        )));
                    }
                }
            }
            "inline-only" => out.inline_only = gostd::strconv::is_true(&value),
            "reproducible" => out.reproducible = flag(&key, &value)?,
            "complete-materials" => out.complete_materials = flag(&key, &value)?,
            "builder-id" => out.builder_id = value,
            "filename" => out.filename = value,
            _ => {}
        }
    }
    Ok(out)
}

fn sbom(mut fields: BTreeMap<String, String>) -> Result<SbomOptions, AttestError> {
    let generator = fields.remove("generator").unwrap_or_else(|| SCANNER.into());
    if generator.is_empty() {
        return Err(AttestError::option("sbom generator cannot be empty"));
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
    fn what_is_asked_for_is_read_from_the_options() {
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
