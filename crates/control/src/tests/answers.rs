//! Answers as clients in Go decode them: an entry of a map without a value is a nil pointer there.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::api::frontend::bridge::Attestation;
use engine::api::frontend::{FrontendResult, Ref};
use engine::api::{HistoryEvent, HistoryEventKind, HistoryRecord, HistoryResult};
use llb::pb;
use prost::Message;
use proto::weigh::{Holds, Shape, Shaped};
use proto::{control, gateway};

use super::double::{BridgeDouble, RefDouble};
use crate::convert;
use crate::gateway::result::{from_wire, to_wire};
use crate::gateway::test_build;

/// Walks encoded bytes along their shape and names the maps with entries that lack a value.
fn lacking(shape: &'static Shape, bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut stack = vec![(shape, bytes.to_vec())];
    while let Some((shape, bytes)) = stack.pop() {
        let fields = fields(&bytes);
        let is_map = shape.name.ends_with("Entry");
        if is_map && shape.fields[1].name == "value" && fields.iter().all(|(n, _)| *n != 2) {
            let of_messages = matches!(shape.fields[1].holds, Holds::Message(_));
            if of_messages || shape.name.ends_with(".InputEntry") {
                names.push(shape.name.to_owned());
            }
        }
        for (number, data) in fields {
            let Some(field) = shape.fields.iter().find(|f| f.number == number) else {
                continue;
            };
            // Definitions that are handed on as bytes.
            let definition = shape.name.ends_with(".Ref") || shape.name.ends_with(".InputEntry");
            match field.holds {
                Holds::Message(inner) => stack.push((inner, data)),
                Holds::Bytes if definition && number == 2 => {
                    stack.push((pb::Definition::SHAPE, data));
                }
                Holds::Bytes | Holds::Number => {}
            }
        }
    }
    names
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = prost::encoding::decode_varint(&mut bytes).unwrap();
        if key & 7 == 0 {
            prost::encoding::decode_varint(&mut bytes).unwrap();
            continue;
        }
        assert_eq!(key & 7, 2, "answers have no fixed-width numbers here");
        let length = usize::try_from(prost::encoding::decode_varint(&mut bytes).unwrap()).unwrap();
        fields.push((key >> 3, bytes[..length].to_vec()));
        bytes = &bytes[length..];
    }
    fields
}

/// A definition of which nothing is known but its ops, with a file that comes from another one.
fn bare(inner: Option<pb::Definition>) -> pb::Definition {
    let source = pb::Source {
        locations: [("sha256:a".to_owned(), pb::Locations::default())].into(),
        infos: vec![pb::SourceInfo {
            filename: "Dockerfile".into(),
            data: b"FROM scratch".to_vec(),
            language: "Dockerfile".into(),
            definition: inner,
        }],
    };
    pb::Definition {
        def: vec![b"op".to_vec(), Vec::new()],
        metadata: [("sha256:a".to_owned(), pb::OpMetadata::default())].into(),
        source: Some(source),
    }
}

#[test]
fn no_answer_has_an_entry_of_a_map_without_its_value() {
    let definition = bare(Some(bare(None)));
    // The walk finds what the generated code leaves out.
    let left_out = lacking(pb::Definition::SHAPE, &definition.encode_to_vec());
    assert_eq!(left_out.len(), 4, "{left_out:?}");

    let full = || {
        Some(Arc::new(RefDouble {
            definition: Arc::new(definition.clone()),
            files: BTreeMap::new(),
        }) as Arc<dyn Ref>)
    };
    let attestation = |content| Attestation {
        kind: 1,
        content,
        path: String::new(),
        predicate_type: String::new(),
        subjects: Vec::new(),
        metadata: BTreeMap::new(),
    };
    let attestations = [
        ("none".to_owned(), Vec::new()),
        (
            "some".to_owned(),
            vec![attestation(None), attestation(full())],
        ),
    ];
    let results = [
        FrontendResult {
            single: full(),
            attestations: attestations.into(),
            ..Default::default()
        },
        FrontendResult {
            refs: [
                ("linux/amd64".to_owned(), full()),
                ("linux/arm64".to_owned(), None),
            ]
            .into(),
            ..Default::default()
        },
    ];
    let build = test_build(Arc::new(BridgeDouble::default()));
    for result in results {
        let refs: Vec<String> = result.refs.keys().cloned().collect();
        let (wire, _) = to_wire(&build, result, true);
        let bytes = wire.encode_to_vec();
        assert_eq!(
            lacking(gateway::Result::SHAPE, &bytes),
            Vec::<String>::new()
        );
        for list in wire.attestations.values() {
            assert!(list.attestation.iter().all(|a| a.r#ref.is_some()));
        }
        // And what was sent is what is read, by us and by clients that decode whole definitions.
        let back = from_wire(&build, gateway::Result::decode(&bytes[..]).unwrap()).unwrap();
        assert_eq!(back.refs.keys().cloned().collect::<Vec<_>>(), refs);
    }
    let sent = llb::definition::to_wire(&definition);
    assert_eq!(pb::Definition::decode(&sent[..]).unwrap(), definition);

    let inputs = gateway::InputsResponse {
        definitions: vec![
            gateway::InputEntry {
                key: "base".into(),
                value: Some(sent),
            },
            gateway::InputEntry {
                key: "scratch".into(),
                value: Some(llb::definition::to_wire(&pb::Definition::default())),
            },
        ],
    };
    let bytes = inputs.encode_to_vec();
    assert_eq!(
        lacking(gateway::InputsResponse::SHAPE, &bytes),
        Vec::<String>::new()
    );

    let record = HistoryRecord {
        results: [("linux/amd64".to_owned(), HistoryResult::default())].into(),
        ..Default::default()
    };
    let event = convert::history_event(HistoryEvent {
        kind: HistoryEventKind::Complete,
        record,
    });
    let bytes = event.encode_to_vec();
    assert_eq!(
        lacking(control::BuildHistoryEvent::SHAPE, &bytes),
        Vec::<String>::new()
    );
}
