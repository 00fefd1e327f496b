//! Results of frontends between their wire and domain forms.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::api::frontend::bridge::Attestation;
use engine::api::frontend::{FrontendResult, Ref};
use proto::gateway as wire;
use proto::gateway::result::Result as Refs;
use tonic::Status;

use crate::gateway::build::Build;

/// The message of a result, and the id of its single ref. `with_definitions` is unset for old clients, which cannot read refs
/// with definitions.
pub(crate) fn to_wire(
    build: &Build,
    result: FrontendResult,
    with_definitions: bool,
) -> (wire::Result, String) {
    let wire_ref = |reference: Option<Arc<dyn Ref>>| match reference {
        Some(reference) => {
            let def = reference.definition().filter(|_| with_definitions);
            wire::Ref {
                id: build.keep(reference),
                def: def.map(|d| llb::definition::to_wire(&d)),
            }
        }
        None => wire::Ref::default(),
    };
    let mut default = String::new();
    let refs = if result.refs.is_empty() {
        let single = wire_ref(result.single);
        default.clone_from(&single.id);
        if with_definitions {
            Refs::Ref(single)
        } else {
            Refs::RefDeprecated(single.id)
        }
    } else {
        let refs: BTreeMap<String, wire::Ref> = result
            .refs
            .into_iter()
            .map(|(k, r)| (k, wire_ref(r)))
            .collect();
        if with_definitions {
            let entry = |(key, wire_ref)| wire::RefMapEntry {
                key,
                value: Some(wire_ref),
            };
            Refs::Refs(wire::RefMap {
                refs: refs.into_iter().map(entry).collect(),
            })
        } else {
            Refs::RefsDeprecated(wire::RefMapDeprecated {
                refs: refs.into_iter().map(|(k, r)| (k, r.id)).collect(),
            })
        }
    };
    // Clients look into each list, and into the ref of each attestation: neither may be left out because it is empty.
    let listed = result
        .attestations
        .into_iter()
        .filter(|(_, l)| !l.is_empty());
    let attestations = listed.map(|(key, list)| {
        let attestation = list.into_iter().map(|a| wire::Attestation {
            kind: a.kind,
            metadata: a
                .metadata
                .into_iter()
                .map(|(k, v)| (k, v.to_vec()))
                .collect(),
            r#ref: Some(wire_ref(a.content)),
            path: a.path,
            in_toto_predicate_type: a.predicate_type,
            in_toto_subjects: a
                .subjects
                .into_iter()
                .map(|(kind, name, digest)| wire::InTotoSubject { kind, digest, name })
                .collect(),
        });
        (
            key,
            wire::Attestations {
                attestation: attestation.collect(),
            },
        )
    });
    let wire = wire::Result {
        attestations: attestations.collect(),
        metadata: result
            .metadata
            .into_iter()
            .map(|(k, v)| (k, v.to_vec()))
            .collect(),
        result: Some(refs),
    };
    (wire, default)
}

/// The result that a frontend returned. Ids that are not refs of `build` are refused.
pub(crate) fn from_wire(build: &Build, wire: wire::Result) -> Result<FrontendResult, Status> {
    let mut result = FrontendResult {
        metadata: wire
            .metadata
            .into_iter()
            .map(|(k, v)| (k, v.into()))
            .collect(),
        ..Default::default()
    };
    match wire.result {
        None => {}
        Some(Refs::RefDeprecated(id)) => result.single = build.returned(&id)?,
        Some(Refs::Ref(reference)) => result.single = build.returned(&reference.id)?,
        Some(Refs::RefsDeprecated(map)) => {
            for (key, id) in map.refs {
                result.refs.insert(key, build.returned(&id)?);
            }
        }
        Some(Refs::Refs(map)) => {
            for wire::RefMapEntry { key, value } in map.refs {
                let id = value.map(|reference| reference.id).unwrap_or_default();
                result.refs.insert(key, build.returned(&id)?);
            }
        }
    }
    for (key, list) in wire.attestations {
        let mut attestations = Vec::with_capacity(list.attestation.len());
        for a in list.attestation {
            attestations.push(Attestation {
                kind: a.kind,
                content: match a.r#ref {
                    Some(reference) => build.returned(&reference.id)?,
                    None => None,
                },
                path: a.path,
                predicate_type: a.in_toto_predicate_type,
                subjects: a
                    .in_toto_subjects
                    .into_iter()
                    .map(|s| (s.kind, s.name, s.digest))
                    .collect(),
                metadata: a.metadata.into_iter().map(|(k, v)| (k, v.into())).collect(),
            });
        }
        result.attestations.insert(key, attestations);
    }
    Ok(result)
}
