//! The steps of a definition for provenance, inputs before the steps that use them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use llb::pb;
use oci::Digest;
use oci::address::redact_text;
use prost::Message as _;
use serde::Serialize;

use crate::error::AttestError;
use crate::op_json::{self, Json};
use crate::usage::{StepUsages, UsageValue};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Step {
    id: String,
    op: Json,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    #[serde(rename = "resourceUsage", skip_serializing_if = "Option::is_none")]
    usage: Option<UsageValue>,
}

/// The steps of a definition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Steps {
    #[serde(rename = "llbDefinition", skip_serializing_if = "Vec::is_empty")]
    definition: Vec<Step>,
    #[serde(rename = "digestMapping", skip_serializing_if = "BTreeMap::is_empty")]
    digests: BTreeMap<Digest, String>,
}

impl Steps {
    /// The name of the step with a digest.
    #[must_use]
    pub fn name(&self, digest: &Digest) -> Option<&str> {
        self.digests.get(digest).map(String::as_str)
    }

    /// Adds what the steps used, as far as it is known.
    pub(crate) fn set_usages(&mut self, usages: &StepUsages) {
        let by_name: HashMap<&str, &Digest> = self
            .digests
            .iter()
            .map(|(digest, name)| (name.as_str(), digest))
            .collect();
        for step in &mut self.definition {
            let digest = by_name.get(step.id.as_str());
            step.usage = digest.and_then(|digest| usages.of(digest)).cloned();
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SourceFile {
    #[serde(skip_serializing_if = "String::is_empty")]
    filename: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    language: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    #[serde(flatten)]
    steps: Steps,
}

/// Where steps stand in the user's files, and these files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SourceLocations {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    locations: BTreeMap<String, Json>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    infos: Vec<SourceFile>,
}

/// The steps of a definition, and where they are in the user's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildConfig {
    /// The steps.
    pub steps: Steps,
    pub(crate) places: Option<SourceLocations>,
}

/// Converts a definition into steps.
pub fn build_config(definition: &pb::Definition) -> Result<BuildConfig, AttestError> {
    let steps = steps(definition)?;
    let mut places = None;
    if let Some(source) = definition.source.as_ref().filter(|s| !s.infos.is_empty()) {
        let mut infos = Vec::with_capacity(source.infos.len());
        for info in &source.infos {
            infos.push(SourceFile {
                filename: info.filename.clone(),
                language: info.language.clone(),
                data: base64::engine::general_purpose::STANDARD.encode(&*file(&info.data)),
                steps: match &info.definition {
                    Some(definition) => self::steps(definition)?,
                    None => Steps::default(),
                },
            });
        }
        let mut locations = BTreeMap::new();
        for (digest, at) in &source.locations {
            let name = Digest::parse(digest).ok();
            if let Some(name) = name.as_ref().and_then(|d| steps.name(d)) {
                locations.insert(name.to_owned(), op_json::locations(at));
            }
        }
        places = Some(SourceLocations { locations, infos });
    }
    Ok(BuildConfig { steps, places })
}

/// A build file without the credentials of addresses in it.
///
/// DIFFERS: the reference publishes the file as it is.
fn file(data: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(data).map(redact_text) {
        Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(data),
    }
}

fn steps(definition: &pb::Definition) -> Result<Steps, AttestError> {
    let mut ops: HashMap<Digest, pb::Op> = HashMap::with_capacity(definition.def.len());
    let mut last = None;
    for raw in &definition.def {
        let op = pb::Op::decode(&raw[..]).map_err(|source| AttestError::Op { source })?;
        let digest = Digest::sha256(raw);
        ops.insert(digest.clone(), op);
        last = Some(digest);
    }
    let Some(last) = last else {
        return Ok(Steps::default());
    };
    let head = ops.get(&last).filter(|op| op.op.is_none());
    if head.is_none_or(|op| op.inputs.len() != 1) {
        return Err(AttestError::LastVertex);
    }
    let order = order(&ops, last)?;
    let mut out = Steps::default();
    for (at, digest) in order.iter().enumerate() {
        out.digests.insert(digest.clone(), format!("step{at}"));
    }
    for (at, digest) in order.iter().enumerate() {
        let Some(op) = ops.get(digest) else { continue };
        let input = |input: &pb::Input| {
            let digest = Digest::parse(&input.digest).ok()?;
            Some(format!("{}:{}", out.digests.get(&digest)?, input.index))
        };
        let step = Step {
            id: format!("step{at}"),
            op: op_json::op(op),
            inputs: op.inputs.iter().filter_map(input).collect(),
            usage: None,
        };
        out.definition.push(step);
    }
    Ok(out)
}

/// Sorts inputs before the ops that use them, without recursion: clients decide how deep a definition is.
fn order(ops: &HashMap<Digest, pb::Op>, last: Digest) -> Result<Vec<Digest>, AttestError> {
    let mut out = Vec::with_capacity(ops.len());
    let mut next_inputs = HashMap::from([(last.clone(), 0_usize)]);
    let mut work = vec![last];
    while let Some(top) = work.last().cloned() {
        let op = ops.get(&top).ok_or_else(|| AttestError::MissingInput {
            digest: top.to_string(),
        })?;
        let next = next_inputs.entry(top.clone()).or_default();
        let Some(input) = op.inputs.get(*next) else {
            out.push(top);
            work.pop();
            continue;
        };
        *next += 1;
        // To the reference, a text that is no digest is one that no op has. What is wrong with the text adds nothing to it.
        let digest = Digest::parse(&input.digest).map_err(|_| AttestError::MissingInput {
            digest: input.digest.clone(),
        })?;
        if !next_inputs.contains_key(&digest) {
            next_inputs.insert(digest.clone(), 0);
            work.push(digest);
        }
    }
    Ok(out)
}
