//! Requests that cost more than they should.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::api::{
    Backend, ExporterSpec, Failure, HistoryCodec, HistoryQuery, HistoryRecord, SolveInput,
    SolveRequest,
};
use engine::{HistorySettings, Settings};
use futures::StreamExt;
use llb::validate::MAX_INPUTS;
use llb::{pb, sourcepolicy};
use progress::Event;
use prost::Message as _;

use super::{engine, engine_with};

/// A definition with this number of sources.
fn sources(count: usize) -> Arc<pb::Definition> {
    let mut definition = pb::Definition::default();
    for n in 0..count {
        let source = pb::SourceOp {
            identifier: format!("docker-image://docker.io/library/x:{n}"),
            attrs: [("k".to_owned(), "v".repeat(30))].into(),
        };
        let op = pb::Op {
            op: Some(pb::op::Op::Source(source)),
            ..pb::Op::default()
        };
        definition.def.push(op.encode_to_vec());
    }
    let input = pb::Input {
        digest: oci::Digest::sha256(&definition.def[0]).to_string(),
        index: 0,
    };
    let terminal = pb::Op {
        inputs: vec![input],
        ..pb::Op::default()
    };
    definition.def.push(terminal.encode_to_vec());
    Arc::new(definition)
}

/// Asserts that none of these tasks held a thread of the runtime for long, in processor time. Unoptimised code is given more.
fn assert_no_long_polls(names: &[&str]) {
    let limit = task::watch::MAX_POLL_TIME * if cfg!(debug_assertions) { 20 } else { 1 };
    let long_polls = task::watch::long_polls();
    let mut long = long_polls
        .iter()
        .filter(|h| names.contains(&h.name) && h.took > limit);
    assert_eq!(long.next(), None, "{long_polls:?}");
}

/// A policy that denies the last source after it has looked at everything.
fn policy(constraints: usize) -> bytes::Bytes {
    let constraint = |n| sourcepolicy::AttrConstraint {
        key: "k".into(),
        value: format!("^(v|{n})+$"),
        condition: sourcepolicy::AttrMatch::Matches.into(),
    };
    let rule = sourcepolicy::Rule {
        action: sourcepolicy::PolicyAction::Deny.into(),
        selector: Some(sourcepolicy::Selector {
            identifier: "docker-image://docker.io/library/x:199".into(),
            match_type: sourcepolicy::MatchType::Wildcard.into(),
            constraints: (0..constraints).map(constraint).collect(),
        }),
        updates: None,
    };
    let policy = sourcepolicy::Policy {
        version: 1,
        rules: vec![rule],
    };
    policy.encode_to_vec().into()
}

#[tokio::test]
async fn policies_on_many_sources_hold_no_thread_of_the_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let (definition, policy) = (sources(200), policy(2000));
    let solves = (0..4).map(|n| {
        let request = SolveRequest {
            build: format!("b{n}").into(),
            input: SolveInput::Definition(Arc::clone(&definition)),
            source_policy: Some(policy.clone()),
            ..SolveRequest::default()
        };
        task::watch::watched("policies on many sources", engine.solve(request))
    });
    // There is one thread, so each poll's processor time is measured here.
    for denied in futures::future::join_all(solves).await {
        let message = denied.unwrap_err().message();
        assert!(message.contains("denied by policy"), "{message}");
    }
    assert_no_long_polls(&["policies on many sources"]);
}

fn input(op: &Vec<u8>) -> pb::Input {
    pb::Input {
        digest: oci::Digest::sha256(op).to_string(),
        index: 0,
    }
}

/// A merge of these ops, encoded.
fn merge(ops: &[Vec<u8>]) -> Vec<u8> {
    let inputs = 0..i64::try_from(ops.len()).unwrap();
    let merge = pb::MergeOp {
        inputs: inputs.map(|input| pb::MergeInput { input }).collect(),
    };
    let op = pb::Op {
        inputs: ops.iter().map(input).collect(),
        op: Some(pb::op::Op::Merge(merge)),
        ..pb::Op::default()
    };
    op.encode_to_vec()
}

#[tokio::test]
async fn a_large_definition_holds_no_thread_of_the_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    // Near to the size limit of a message, all merged into one; none of its sources exists.
    let mut definition = (*sources(70_000)).clone();
    definition.def.pop();
    let mut layer = definition.def.clone();
    while layer.len() > 1 {
        layer = layer.chunks(MAX_INPUTS).map(merge).collect();
        definition.def.extend(layer.iter().cloned());
    }
    let terminal = pb::Op {
        inputs: vec![input(&layer[0])],
        ..pb::Op::default()
    };
    definition.def.push(terminal.encode_to_vec());
    let request = SolveRequest {
        build: "large".into(),
        input: SolveInput::Definition(Arc::new(definition)),
        ..SolveRequest::default()
    };
    let solve = task::watch::watched("a large definition", engine.solve(request));
    assert!(solve.await.is_err());
    assert_no_long_polls(&["a large definition", "solve", "schedule"]);
}

#[tokio::test]
async fn a_definition_as_deep_as_a_message_allows_neither_crashes_nor_holds_a_thread() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    // Each op stands on the one before, and the first is an unknown source.
    let mut definition = (*sources(1)).clone();
    definition.def.pop();
    for n in 0..30_000 {
        definition.def.push(merge(&definition.def[n..=n]));
    }
    let terminal = pb::Op {
        inputs: vec![input(&definition.def[30_000])],
        ..pb::Op::default()
    };
    definition.def.push(terminal.encode_to_vec());
    for build in ["deep", "deep again"] {
        let request = SolveRequest {
            build: build.into(),
            input: SolveInput::Definition(Arc::new(definition.clone())),
            ..SolveRequest::default()
        };
        let solve = task::watch::watched("a deep definition", engine.solve(request));
        assert!(solve.await.is_err());
    }
    assert_no_long_polls(&["a deep definition", "solve", "schedule"]);
}

/// A codec that writes a record's name and length only, and counts records that are read.
#[derive(Debug, Default)]
struct Counting {
    read: AtomicUsize,
    longest: AtomicUsize,
}

impl HistoryCodec for Counting {
    fn log(&self, _: Vec<Event>) -> Vec<u8> {
        Vec::new()
    }
    fn events(&self, _: &[u8]) -> Vec<Event> {
        Vec::new()
    }
    fn error(&self, failure: &Failure) -> Vec<u8> {
        failure.message().into_bytes()
    }
    fn record(&self, record: &HistoryRecord) -> Vec<u8> {
        let length = format!("{record:?}").len();
        self.longest.fetch_max(length, Ordering::SeqCst);
        record.build.to_string().into_bytes()
    }
    fn parse(&self, record: &[u8]) -> Option<HistoryRecord> {
        self.read.fetch_add(1, Ordering::SeqCst);
        Some(HistoryRecord {
            build: String::from_utf8(record.to_vec()).ok()?.into(),
            ..HistoryRecord::default()
        })
    }
}

#[tokio::test]
async fn refused_requests_leave_short_records_and_ending_a_build_reads_none() {
    let dir = tempfile::tempdir().unwrap();
    let codec = Arc::new(Counting::default());
    let settings = Settings {
        history: HistorySettings {
            max_entries: 10,
            codec: Some(codec.clone()),
            ..HistorySettings::default()
        },
        ..Settings::default()
    };
    let engine = engine_with(&dir, settings);
    let long = "x".repeat(10 << 20);
    for n in 0..40_u32 {
        let attrs: BTreeMap<String, String> = [("k".to_owned(), long.clone())].into();
        let request = SolveRequest {
            build: format!("b{n:02}").into(),
            input: SolveInput::Frontend(if n.is_multiple_of(2) {
                long.clone()
            } else {
                "none".into()
            }),
            frontend_opts: attrs.clone(),
            exporters: vec![ExporterSpec {
                kind: long.clone(),
                attrs,
            }],
            ..SolveRequest::default()
        };
        assert!(engine.solve(request).await.is_err());
    }
    assert!(codec.longest.load(Ordering::SeqCst) < 512 << 10);
    assert_eq!(codec.read.load(Ordering::SeqCst), 0);

    // A query for three records reads one page.
    let query = HistoryQuery {
        end: engine::api::HistoryEnd::AfterList,
        limit: 3,
        ..HistoryQuery::default()
    };
    let three: Vec<_> = engine.history(query).await.unwrap().collect().await;
    let names: Vec<_> = three
        .into_iter()
        .map(|e| e.unwrap().record.build.to_string())
        .collect();
    assert_eq!(names, ["b39", "b38", "b37"]);
    assert!(codec.read.load(Ordering::SeqCst) <= 16);
    // A query for all records gets each once.
    let query = HistoryQuery {
        end: engine::api::HistoryEnd::AfterList,
        ..HistoryQuery::default()
    };
    let all: Vec<_> = engine.history(query).await.unwrap().collect().await;
    let names: Vec<_> = all
        .into_iter()
        .map(|e| e.unwrap().record.build.to_string())
        .collect();
    let all_names: Vec<_> = (0..40).rev().map(|n| format!("b{n:02}")).collect();
    assert_eq!(names, all_names);

    let refused = SolveRequest {
        build: long.into(),
        ..SolveRequest::default()
    };
    let message = engine.solve(refused).await.unwrap_err().message();
    assert!(
        message.contains("the name of the build") && message.len() < 200,
        "{message}"
    );
}
