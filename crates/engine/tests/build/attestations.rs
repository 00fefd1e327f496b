//! Statements about a result, as exporters request them and as the record keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use engine::api::{Backend, ExporterSpec, HistoryQuery, SolveInput, SolveRequest};
use engine::{Engine, Settings};
use exporter::{
    About, ExportContext, ExportError, ExportSource, Exported, Exporter, ExporterInstance,
    Exporters,
};
use frontend::bridge::Attestation;
use frontend::{Bridge, Frontend, FrontendError, FrontendRequest, FrontendResult, Ref};
use futures::StreamExt as _;
use llb::build::FileChain;
use llb::pb;
use oci::Digest;
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::CompressionSpec;

use crate::{definition, engine_of, request};

/// The statements that an exporter received: type, file and document of each.
type Statements = Arc<Mutex<Vec<(String, String, Value)>>>;

/// An exporter of one file that requests all statements about it.
#[derive(Debug, Clone)]
struct StatementExporter {
    statements: Statements,
    attrs: BTreeMap<String, String>,
}

impl Exporter for StatementExporter {
    fn kind(&self) -> &'static str {
        "asking"
    }
    fn resolve(
        &self,
        _: usize,
        _: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError> {
        Ok(Arc::new(self.clone()))
    }
}

fn file() -> (String, Digest) {
    ("a".to_owned(), Digest::sha256(b"content of a"))
}

#[async_trait]
impl ExporterInstance for StatementExporter {
    fn id(&self) -> usize {
        0
    }
    fn kind(&self) -> &'static str {
        "asking"
    }
    fn name(&self) -> String {
        "asking".into()
    }
    fn attrs(&self) -> &BTreeMap<String, String> {
        &self.attrs
    }
    fn compression(&self) -> Option<CompressionSpec> {
        None
    }
    async fn export(
        &self,
        _: &ExportContext,
        source: &ExportSource,
    ) -> Result<Exported, ExportError> {
        let Some(attester) = &source.attester else {
            return Ok(Exported::default());
        };
        for platform in source.platforms()? {
            let files = [file()];
            let about = About::Files(&files);
            if !attester.attests(&platform.id, false) {
                continue;
            }
            for statement in attester.statements(&platform.id, about).await? {
                let document = serde_json::from_slice(&statement.bytes).unwrap();
                let line = (statement.predicate_type, statement.file, document);
                self.statements.lock().push(line);
            }
        }
        Ok(Exported::default())
    }
}

struct Lab {
    _dir: tempfile::TempDir,
    engine: Arc<Engine>,
    statements: Statements,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let statements = Statements::default();
        let mut exporters = Exporters::new();
        exporters.register(Arc::new(StatementExporter {
            statements: Arc::clone(&statements),
            attrs: BTreeMap::new(),
        }));
        let engine = engine_of(&dir, Settings::default(), exporters);
        Self {
            _dir: dir,
            engine,
            statements,
        }
    }

    /// Builds, and returns the statements that the exporter received.
    async fn build(
        &self,
        input: SolveInput,
        opts: &[(&str, &str)],
    ) -> Result<Vec<(String, String, Value)>, String> {
        self.statements.lock().clear();
        let exporter = ExporterSpec {
            kind: "asking".into(),
            attrs: BTreeMap::new(),
        };
        let request = SolveRequest {
            input,
            frontend_opts: opts
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            exporters: vec![exporter],
            ..request("one", Arc::default())
        };
        let answer = self.engine.solve(request).await;
        answer.map_err(|failure| failure.message())?;
        Ok(std::mem::take(&mut *self.statements.lock()))
    }
}

fn files() -> SolveInput {
    SolveInput::Definition(definition(FileChain::new().mkfile("/a", 0o644, "x")))
}

#[tokio::test]
async fn without_requested_attestations_there_are_no_statements() {
    testkit::requires!(root);
    let lab = Lab::new();
    assert_eq!(lab.build(files(), &[]).await.unwrap(), []);
    // Statements that only images carry are not made about files.
    let statements = lab
        .build(files(), &[("attest:provenance", "inline-only=true")])
        .await;
    assert_eq!(statements.unwrap(), []);
}

#[tokio::test]
async fn provenance_has_the_requested_version_and_mode() {
    testkit::requires!(root);
    let lab = Lab::new();
    for (value, kind, name, pointer, has_steps) in [
        (
            "mode=min",
            "https://slsa.dev/provenance/v1",
            "provenance.json",
            "/buildDefinition/internalParameters/buildConfig",
            false,
        ),
        (
            "mode=max",
            "https://slsa.dev/provenance/v1",
            "provenance.json",
            "/buildDefinition/internalParameters/buildConfig",
            true,
        ),
        (
            "version=v0.2,mode=min",
            "https://slsa.dev/provenance/v0.2",
            "provenance.json",
            "/buildConfig",
            false,
        ),
        (
            "version=v0.2,mode=max,filename=own.json",
            "https://slsa.dev/provenance/v0.2",
            "own.json",
            "/buildConfig",
            true,
        ),
    ] {
        let opts = [("attest:provenance", value)];
        let statements = lab.build(files(), &opts).await.unwrap();
        let [(predicate_type, file_name, document)] = &statements[..] else {
            panic!("{value}: {statements:?}");
        };
        assert_eq!(
            (predicate_type.as_str(), file_name.as_str()),
            (kind, name),
            "{value}"
        );
        assert_eq!(document["_type"], "https://in-toto.io/Statement/v1");
        let (path, digest) = file();
        assert_eq!(
            document["subject"],
            json!([{ "name": path, "digest": { "sha256": digest.hex() } }]),
            "{value}"
        );
        let steps = document["predicate"].pointer(pointer);
        assert_eq!(steps.is_some(), has_steps, "{value}: {document}");
        if let Some(steps) = steps {
            let action = "/llbDefinition/0/op/Op/file/actions/0/Action/mkfile/path";
            assert_eq!(steps.pointer(action).unwrap(), "/a", "{steps}");
        }
    }
    for (value, want) in [
        ("mode=most", "invalid mode \"most\""),
        ("version=2", "invalid provenance SLSA version: 2"),
        (
            "\"mode",
            "failed to parse provenance: parse error on line 1, column 2: extraneous or missing \" in quoted-field",
        ),
    ] {
        let refused = lab.build(files(), &[("attest:provenance", value)]).await;
        assert_eq!(refused.unwrap_err(), want);
    }
    let unknown = lab.build(files(), &[("attest:vuln", "")]).await;
    assert_eq!(unknown.unwrap_err(), "unknown attestation type \"vuln\"");
}

#[tokio::test]
async fn the_record_has_provenance_whatever_was_requested() {
    testkit::requires!(root);
    let lab = Lab::new();
    lab.build(files(), &[]).await.unwrap();
    let query = HistoryQuery {
        end: engine::api::HistoryEnd::AfterList,
        ..HistoryQuery::default()
    };
    let mut events = lab.engine.history(query).await.unwrap();
    let record = events.next().await.unwrap().unwrap().record;
    let attestations = record.result.unwrap().attestations;
    let [provenance] = &attestations[..] else {
        panic!("{attestations:?}");
    };
    assert_eq!(
        provenance.annotations["in-toto.io/predicate-type"],
        "https://slsa.dev/provenance/v1"
    );
    let blob = lab.engine.history_blob(&provenance.digest).await.unwrap();
    let bytes: Vec<_> = (blob.read)(0).await.unwrap().collect().await;
    let bytes: Vec<u8> = bytes
        .into_iter()
        .flat_map(|piece| piece.unwrap().to_vec())
        .collect();
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let steps = &document["buildDefinition"]["internalParameters"]["buildConfig"];
    assert!(steps["llbDefinition"].is_array(), "{document}");
}

/// A frontend whose result has attestations over a tree of its own.
struct Stating {
    tree: Arc<pb::Definition>,
    make: fn(Option<Arc<dyn Ref>>) -> Attestation,
}

#[async_trait]
impl Frontend for Stating {
    async fn solve(
        &self,
        bridge: Arc<dyn Bridge>,
        _: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        let request = frontend::SolveRequest::of_definition(Arc::clone(&self.tree));
        let mut result = bridge.solve(request.clone()).await?;
        let content = bridge.solve(request).await?.single;
        let id = oci::Platform::host().normalize().format_all();
        result.attestations.insert(id, vec![(self.make)(content)]);
        Ok(result)
    }
}

fn stating(files: &[(&str, &str)], make: fn(Option<Arc<dyn Ref>>) -> Attestation) -> SolveInput {
    let chain = files.iter().fold(FileChain::new(), |chain, (path, text)| {
        if path.contains("/d/") {
            return chain
                .mkdir("/d", 0o755, true, None, None)
                .mkfile(path, 0o644, *text);
        }
        chain.mkfile(path, 0o644, *text)
    });
    SolveInput::ClientFrontend(Arc::new(Stating {
        tree: definition(chain),
        make,
    }))
}

fn in_toto(content: Option<Arc<dyn Ref>>) -> Attestation {
    Attestation {
        content,
        path: "a".into(),
        predicate_type: "https://example.com/x".into(),
        ..Attestation::default()
    }
}

#[tokio::test]
async fn a_frontend_s_statement_is_a_file_about_subjects_that_it_names() {
    testkit::requires!(root);
    let lab = Lab::new();
    let statements = lab
        .build(stating(&[("/a", "{\"z\":1,\"b\":[2]}")], in_toto), &[])
        .await
        .unwrap();
    let [(kind, path, document)] = &statements[..] else {
        panic!("{statements:?}");
    };
    assert_eq!(
        (kind.as_str(), path.as_str()),
        ("https://example.com/x", "a")
    );
    assert_eq!(document["predicate"], json!({ "z": 1, "b": [2] }));

    let with_subject = |content| Attestation {
        subjects: vec![(
            1,
            "other".into(),
            vec![Digest::sha256(b"other").to_string()],
        )],
        ..in_toto(content)
    };
    let statements = lab
        .build(stating(&[("/a", "{}")], with_subject), &[])
        .await
        .unwrap();
    assert_eq!(
        statements[0].2["subject"],
        json!([{ "name": "other", "digest": { "sha256": Digest::sha256(b"other").hex() } }])
    );
}

#[tokio::test]
async fn a_folder_of_statements_is_one_statement_for_each_file() {
    testkit::requires!(root);
    let lab = Lab::new();
    let bundle = |content| Attestation {
        kind: 1,
        content,
        path: "d".into(),
        ..Attestation::default()
    };
    let statement = |kind: &str, predicate: &str| {
        format!(
            "{{\"predicateType\":\"{kind}\",\"subject\":[{{\"name\":\"n\",\"digest\":{{\"sha256\":\"{}\",\"odd\":\"x\"}}}}],\"predicate\":{predicate}}}",
            Digest::sha256(b"n").hex()
        )
    };
    let (first, second) = (statement("t1", "{\"a\":1}"), statement("t2", "null"));
    let files = [
        ("/d/2.json", second.as_str()),
        ("/d/1.json", first.as_str()),
    ];
    let statements = lab.build(stating(&files, bundle), &[]).await.unwrap();
    let lines: Vec<_> = statements
        .iter()
        .map(|(kind, path, document)| (kind.as_str(), path.as_str(), document["predicate"].clone()))
        .collect();
    assert_eq!(
        lines,
        [
            ("t1", "d/1.json", json!({ "a": 1 })),
            ("t2", "d/2.json", Value::Null)
        ]
    );
    assert_eq!(statements[0].2["subject"][0]["name"], "n");

    let of_type = |content| Attestation {
        predicate_type: "t2".into(),
        kind: 1,
        content,
        path: "d".into(),
        ..Attestation::default()
    };
    let provenance = statement("https://slsa.dev/provenance/v1", "{}");
    type Make = fn(Option<Arc<dyn Ref>>) -> Attestation;
    for (files, make, want) in [
        (
            [("/d/1.json", first.as_str())],
            of_type as Make,
            "bundle entry t1 does not match required predicate type t2",
        ),
        (
            [("/d/1.json", "no json")],
            bundle as Make,
            "cannot decode in-toto statement: ",
        ),
        (
            [("/d/1.json", provenance.as_str())],
            bundle as Make,
            "frontend may not bundle provenance attestations",
        ),
    ] {
        let error = lab.build(stating(&files, make), &[]).await.unwrap_err();
        assert!(error.contains(want), "{error}");
    }
}

#[tokio::test]
async fn malformed_statements_of_a_frontend_fail_the_build() {
    testkit::requires!(root);
    let lab = Lab::new();
    type Make = fn(Option<Arc<dyn Ref>>) -> Attestation;
    let cases: [(&str, Make, &str); 8] = [
        (
            "{}",
            |c| Attestation {
                kind: 7,
                ..in_toto(c)
            },
            "unknown attestation kind 7",
        ),
        (
            "{}",
            |_| in_toto(None),
            "attestation does not have available content",
        ),
        (
            "{}",
            |_| Attestation {
                kind: 1,
                ..in_toto(None)
            },
            "no ref provided for attestation bundle",
        ),
        (
            "{}",
            |c| Attestation {
                path: String::new(),
                ..in_toto(c)
            },
            "attestation does not have set path",
        ),
        (
            "{}",
            |c| Attestation {
                predicate_type: "https://slsa.dev/provenance/v1".into(),
                ..in_toto(c)
            },
            "frontend may not set provenance attestations",
        ),
        (
            "{}",
            |c| Attestation {
                subjects: vec![(9, String::new(), Vec::new())],
                ..in_toto(c)
            },
            "unknown attestation subject type 9",
        ),
        (
            "{}",
            |c| Attestation {
                path: "none".into(),
                ..in_toto(c)
            },
            "cannot read in-toto attestation: none: ",
        ),
        ("{", in_toto, "failed to marshal attestation: "),
    ];
    for (text, make, want) in cases {
        let error = lab
            .build(stating(&[("/a", text)], make), &[])
            .await
            .unwrap_err();
        assert!(error.contains(want), "{want}: {error}");
    }
    let inline = |content| Attestation {
        metadata: [("inline-only".to_owned(), Bytes::from_static(b"true"))].into(),
        ..in_toto(content)
    };
    let statements = lab.build(stating(&[("/a", "{}")], inline), &[]).await;
    assert_eq!(statements.unwrap(), []);
}
