//! The built-in frontend against answers recorded from BuildKit's own.
//!
//! `golden/dockerfile.json` holds requests and what BuildKit v0.34.2's Dockerfile frontend did with them: each definition
//! it solved (digest, name, capabilities, source lines of every vertex), what it resolved, warned of and returned.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::bridge::{
    Bridge, FileRange, FileStat, Frontend, FrontendRequest, FrontendResult, GitMeta, ImageMeta,
    Ref, ResolveOpts, SolveInput, SolveRequest, SourceMeta, Warning, WorkerInfo,
};
use frontend::error::BridgeError;
use llb::pb;
use oci::{Digest, ErrorKind, Platform};
use parking_lot::Mutex;
use prost::Message as _;
use serde::Deserialize;

#[path = "suite/contexts.rs"]
mod contexts;
#[path = "suite/gateway_image.rs"]
mod gateway_image;

#[derive(Deserialize)]
struct Golden {
    images: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize, Clone)]
struct Case {
    name: String,
    #[serde(default)]
    opts: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
    expect: Expect,
}

#[derive(Deserialize, Clone, Default, Debug, PartialEq)]
#[serde(default)]
struct Expect {
    defs: Vec<Vec<Vertex>>,
    metadata: BTreeMap<String, String>,
    resolved: Vec<String>,
    warnings: Vec<String>,
    error: String,
    sources: Vec<String>,
}

#[derive(Deserialize, Clone, Default, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(default)]
struct Vertex {
    digest: String,
    name: String,
    caps: Vec<String>,
    extra: String,
    lines: String,
}

/// Content of a file that exists and cannot be read.
const UNREADABLE: &str = "\u{1}unreadable";

#[derive(Debug)]
struct Files(BTreeMap<String, String>);

struct Fake {
    images: BTreeMap<String, String>,
    files: Arc<Files>,
    solved: Mutex<Expect>,
    dump: bool,
}

#[derive(Debug)]
struct FakeRef {
    files: Arc<Files>,
    definition: Arc<pb::Definition>,
}

#[async_trait]
impl Ref for FakeRef {
    fn definition(&self) -> Option<Arc<pb::Definition>> {
        Some(Arc::clone(&self.definition))
    }
    async fn evaluate(&self) -> Result<(), BridgeError> {
        Ok(())
    }
    async fn read_file(&self, path: &str, _range: Option<FileRange>) -> Result<Bytes, BridgeError> {
        let missing = || {
            BridgeError::new(
                ErrorKind::NotFound,
                format!("open /{path}: no such file or directory"),
            )
        };
        let text = self.files.0.get(path).ok_or_else(missing)?;
        if text == UNREADABLE {
            let message = format!("read /{path}: input/output error");
            return Err(BridgeError::new(ErrorKind::Failed, message));
        }
        Ok(Bytes::from(text.clone()))
    }
    async fn read_dir(&self, _path: &str, _include: &str) -> Result<Vec<FileStat>, BridgeError> {
        Ok(Vec::new())
    }
    async fn stat_file(&self, path: &str) -> Result<FileStat, BridgeError> {
        let data = self.read_file(path, None).await?;
        Ok(FileStat {
            path: path.to_owned(),
            size: i64::try_from(data.len()).unwrap(),
            ..FileStat::default()
        })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn lines(ranges: &[pb::Range]) -> String {
    let line = |position: &Option<pb::Position>| position.as_ref().map_or(0, |p| p.line);
    ranges
        .iter()
        .map(|r| format!("{}-{}", line(&r.start), line(&r.end)))
        .collect::<Vec<_>>()
        .join(",")
}

fn describe(definition: &pb::Definition) -> Vec<Vertex> {
    let count = definition.def.len();
    let vertex = |(at, raw): (usize, &[u8])| {
        let digest = Digest::sha256(raw);
        let mut vertex = Vertex {
            digest: digest.hex()[..16].to_owned(),
            ..Vertex::default()
        };
        match definition.metadata.get(digest.as_str()) {
            Some(metadata) => {
                vertex.name = metadata
                    .description
                    .get("llb.customname")
                    .cloned()
                    .unwrap_or_default();
                vertex.caps = metadata.caps.keys().cloned().collect();
                if metadata.ignore_cache {
                    vertex.extra.push_str("ignorecache ");
                }
                if let Some(command) = metadata.description.get("com.docker.dockerfile.v1.command")
                {
                    let _ = write!(vertex.extra, "cmd={command}");
                }
                if let Some(group) = &metadata.progress_group {
                    let _ = write!(vertex.extra, " group={} weak={}", group.name, group.weak);
                }
            }
            None if at + 1 != count => vertex.extra.push_str("NOMETA"),
            None => {}
        }
        if let Some(locations) = definition
            .source
            .as_ref()
            .and_then(|s| s.locations.get(digest.as_str()))
        {
            vertex.lines = locations
                .locations
                .iter()
                .map(|l| lines(&l.ranges))
                .collect::<Vec<_>>()
                .join("|");
        }
        vertex
    };
    definition
        .def
        .iter()
        .map(|raw| &raw[..])
        .enumerate()
        .map(vertex)
        .collect()
}

#[async_trait]
impl Bridge for Fake {
    fn workers(&self) -> Vec<WorkerInfo> {
        vec![WorkerInfo {
            id: "w".into(),
            platforms: vec![Platform::new("linux", "amd64", "")],
            ..WorkerInfo::default()
        }]
    }

    async fn solve(&self, request: SolveRequest) -> Result<FrontendResult, BridgeError> {
        let SolveInput::Definition(definition) = request.input else {
            return Err(BridgeError::new(
                ErrorKind::Unsupported,
                "unsupported frontend",
            ));
        };
        if self.dump {
            for raw in &definition.def {
                eprintln!(
                    "{} {:?}",
                    &Digest::sha256(raw).hex()[..16],
                    pb::Op::decode(&raw[..]).unwrap()
                );
            }
        }
        self.solved.lock().defs.push(describe(&definition));
        let files = Arc::clone(&self.files);
        let single = (!definition.def.is_empty())
            .then(|| Arc::new(FakeRef { files, definition }) as Arc<dyn Ref>);
        Ok(FrontendResult {
            single,
            ..FrontendResult::default()
        })
    }

    async fn resolve_source(
        &self,
        source: pb::SourceOp,
        opts: ResolveOpts,
    ) -> Result<SourceMeta, BridgeError> {
        let platform = opts.image.as_ref().and_then(|image| image.platform.clone());
        let platform = platform.map_or_else(String::new, |p| {
            format!("{}/{}/{}", p.os, p.architecture, p.variant)
        });
        self.solved.lock().resolved.push(format!(
            "{}|{platform}|{}",
            source.identifier, opts.log_name
        ));
        let mut meta = SourceMeta {
            op: source.clone(),
            ..SourceMeta::default()
        };
        if source.identifier.starts_with("git://") {
            let commit = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 1 +0000\ncommitter C <c@d> 1700000000 +0000\n\nmsg\n";
            meta.git = Some(GitMeta {
                commit_object: Bytes::from_static(commit),
                ..GitMeta::default()
            });
            return Ok(meta);
        }
        let id = source.identifier.split_once("://").unwrap().1;
        let config = self
            .images
            .get(&format!("{id}|{platform}"))
            .or_else(|| self.images.get(id));
        let missing = || BridgeError::new(ErrorKind::NotFound, format!("{id}: not found"));
        let config = Bytes::from(config.ok_or_else(missing)?.clone());
        meta.image = Some(ImageMeta {
            digest: Digest::sha256(id),
            config,
            attestations: None,
        });
        Ok(meta)
    }

    async fn warn(&self, _vertex: &Digest, warning: Warning) -> Result<(), BridgeError> {
        let text = String::from_utf8(warning.short.to_vec()).unwrap();
        self.solved.lock().warnings.push(format!(
            "{text}|{}|{}",
            lines(&warning.ranges),
            warning.url
        ));
        Ok(())
    }
}

async fn run(golden: &Golden, case: &Case, dump: bool) -> Expect {
    let files = Arc::new(Files(case.files.clone()));
    let fake = Arc::new(Fake {
        images: golden.images.clone(),
        files,
        solved: Mutex::default(),
        dump,
    });
    let request = FrontendRequest {
        opts: case.opts.clone(),
        session_id: "session-1".into(),
        ..FrontendRequest::default()
    };
    let bridge: Arc<dyn Bridge> = Arc::<Fake>::clone(&fake);
    let result = frontend::Dockerfile::default().solve(bridge, request).await;
    let mut solved = std::mem::take(&mut *fake.solved.lock());
    match result {
        Ok(result) => {
            for (key, value) in result.metadata {
                solved
                    .metadata
                    .insert(key, String::from_utf8(value.to_vec()).unwrap());
            }
            for key in result.refs.keys() {
                solved.metadata.insert(format!("ref:{key}"), "1".into());
            }
        }
        Err(error) => {
            solved.error = error.to_string();
            solved.sources = error
                .locations()
                .iter()
                .map(|at| format!("{}:{}", at.info.filename, lines(&at.ranges)))
                .collect();
        }
    }
    solved.resolved.sort();
    if let Some(tail) = solved.defs.get_mut(2..) {
        tail.sort_by_key(|def| def.first().map(|vertex| vertex.digest.clone()));
    }
    solved
}

fn compare(name: &str, actual: &Expect, want: &Expect, out: &mut String) {
    let mut say = |what: &str, actual: &dyn std::fmt::Debug, want: &dyn std::fmt::Debug| {
        let _ = writeln!(out, "{name}: {what}\n   actual {actual:?}\n  want {want:?}");
    };
    if actual.defs.len() != want.defs.len() {
        say(
            "number of definitions",
            &actual.defs.len(),
            &want.defs.len(),
        );
    }
    for (at, (actual, want)) in actual.defs.iter().zip(&want.defs).enumerate() {
        for (row, (actual, want)) in actual.iter().zip(want).enumerate() {
            if actual != want {
                say(&format!("definition {at} vertex {row}"), actual, want);
            }
        }
        if actual.len() != want.len() {
            say(
                &format!("definition {at} length"),
                &actual.len(),
                &want.len(),
            );
        }
    }
    for key in actual.metadata.keys().chain(
        want.metadata
            .keys()
            .filter(|key| !actual.metadata.contains_key(*key)),
    ) {
        if actual.metadata.get(key) != want.metadata.get(key) {
            say(
                &format!("metadata {key}"),
                &actual.metadata.get(key),
                &want.metadata.get(key),
            );
        }
    }
    if actual.resolved != want.resolved {
        say("resolved", &actual.resolved, &want.resolved);
    }
    if actual.warnings != want.warnings {
        say("warnings", &actual.warnings, &want.warnings);
    }
    if (&actual.error, &actual.sources) != (&want.error, &want.sources) {
        say(
            "error",
            &(&actual.error, &actual.sources),
            &(&want.error, &want.sources),
        );
    }
}

#[tokio::test]
async fn definitions_and_results_are_those_of_buildkit() {
    let golden: Golden = serde_json::from_str(include_str!("golden/dockerfile.json")).unwrap();
    let mut out = String::new();
    let mut bad = 0;
    for case in &golden.cases {
        let actual = run(&golden, case, false).await;
        let mut want = case.expect.clone();
        if let Some(tail) = want.defs.get_mut(2..) {
            tail.sort_by_key(|def| def.first().map(|vertex| vertex.digest.clone()));
        }
        let before = out.len();
        compare(&case.name, &actual, &want, &mut out);
        bad += usize::from(out.len() > before);
    }
    assert!(
        out.is_empty(),
        "{bad} of {} cases differ:\n{out}",
        golden.cases.len()
    );
}

/// A small random generator with a seed, so that a failing mutation can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count.max(1)
    }
}

#[tokio::test]
async fn mangled_dockerfiles_are_answered() {
    let golden: Golden = serde_json::from_str(include_str!("golden/dockerfile.json")).unwrap();
    let lines: Vec<&str> = golden
        .cases
        .iter()
        .filter_map(|case| case.files.get("Dockerfile"))
        .flat_map(|f| f.lines())
        .collect();
    let mut random = Random(7);
    for _ in 0..600 {
        let mut case = golden.cases[random.below(golden.cases.len())].clone();
        let Some(text) = case.files.get("Dockerfile") else {
            continue;
        };
        let mut own: Vec<&str> = text.lines().collect();
        for _ in 0..4 {
            let at = random.below(own.len() + 1);
            match random.below(3) {
                0 if at < own.len() => drop(own.remove(at)),
                1 if at < own.len() => own.swap(at, 0),
                _ => own.insert(at, lines[random.below(lines.len())]),
            }
        }
        let mut text = own.join("\n");
        let mut at = random.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.insert_str(
            at,
            ["$", "${", "\\", "\"", "<<", "=", "[", "--from=", " "][random.below(9)],
        );
        case.files.insert("Dockerfile".into(), text);
        drop(run(&golden, &case, false).await);
    }
}

#[tokio::test]
async fn hostile_files_end_in_an_error() {
    let mut golden: Golden = serde_json::from_str(include_str!("golden/dockerfile.json")).unwrap();
    // An image whose trigger copies from itself.
    let image = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{"OnBuild":["COPY --from=loop / /"]}}"#;
    golden
        .images
        .insert("docker.io/library/loop:latest".into(), image.into());
    let mut case = golden.cases[0].clone();
    case.opts.clear();
    let many = |line: &str, count: usize| format!("FROM alpine AS a\n{}", line.repeat(count));
    let chain: String = (0..9_000)
        .map(|i| format!("FROM s{i} AS s{}\nARG A{i}\n", i + 1))
        .collect();
    for (text, want) in [
        ("FROM loop\n".to_owned(), ""),
        (many("ENV A=$A$A\n", 30_000), "dockerfile is too large"),
        (many("RUN x\n", 15_000), ""),
        (many("ENV A=${A:-x}$A\n", 100), "expands to more than"),
        (
            format!("FROM alpine AS s0\n{chain}"),
            "dockerfile is too large",
        ),
    ] {
        case.files.insert("Dockerfile".into(), text);
        let actual = run(&golden, &case, false).await;
        assert!(
            actual.error.contains(want) && want.is_empty() == actual.error.is_empty(),
            "{want:?}: {}",
            actual.error
        );
    }
}

/// A host that no test reaches.
#[derive(Debug)]
struct NoHost;

#[async_trait]
impl frontend::gateway_image::FrontendHost for NoHost {
    async fn serve(
        &self,
        _bridge: Arc<dyn Bridge>,
        _inputs: BTreeMap<String, Arc<pb::Definition>>,
        _stream: tokio::io::DuplexStream,
    ) -> Option<Result<FrontendResult, BridgeError>> {
        None
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_resolved_has_the_same_error_wherever_it_is_named() {
    let golden: Golden = serde_json::from_str(include_str!("golden/dockerfile.json")).unwrap();
    let digest = Digest::sha256("x");
    for (image, reference) in [
        ("does/not:exist", "docker.io/does/not:exist".to_owned()),
        ("does/not", "docker.io/does/not:latest".to_owned()),
        (
            &format!("does/not:1.2@{digest}"),
            format!("docker.io/does/not:1.2@{digest}"),
        ),
    ] {
        let want =
            format!("failed to resolve source metadata for {reference}: {reference}: not found");
        let mut case = golden.cases[0].clone();
        case.opts.clear();
        let text = format!("FROM {image}\n");
        case.files.insert("Dockerfile".into(), text);
        let error = run(&golden, &case, false).await.error;
        assert!(error.ends_with(&want), "{error}\n{want}");
        let fake = Arc::new(Fake {
            images: BTreeMap::new(),
            files: Arc::new(Files(BTreeMap::new())),
            solved: Mutex::default(),
            dump: false,
        });
        let image = frontend::gateway_image::ImageFrontend {
            image: image.to_owned(),
            allowed: Vec::new(),
            host: Arc::new(NoHost),
        };
        let error = image.solve(fake, FrontendRequest::default()).await;
        assert_eq!(error.unwrap_err().to_string(), want);
    }
}

#[tokio::test]
async fn the_ignore_file_of_a_repository_counts_for_a_git_context() {
    let golden: Golden = serde_json::from_str(include_str!("golden/dockerfile.json")).unwrap();
    let step_name = "[internal] leave out what .dockerignore names";
    let context = "https://github.com/o/r.git#main";
    let own = "Dockerfile.dockerignore";
    // The options, the ignore file, and whether files are left out.
    for (opts, file, text, left_out) in [
        (vec![("context", context)], ".dockerignore", "*.md\n", true),
        (vec![("context", context)], own, "*.md\n", true),
        (
            vec![("context", context)],
            ".dockerignore",
            "# nothing\n",
            false,
        ),
        (vec![("context", context)], "other", "*.md\n", false),
        (
            vec![("context", context), ("contextsubdir", "sub")],
            "sub/.dockerignore",
            "*.md\n",
            true,
        ),
        (
            vec![("context", context), ("contextsubdir", "sub")],
            ".dockerignore",
            "*.md\n",
            false,
        ),
        (
            vec![
                ("context", context),
                ("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1"),
            ],
            ".dockerignore",
            ".git\n",
            true,
        ),
    ] {
        let mut case = golden.cases[0].clone();
        case.opts = opts
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        case.files.clear();
        case.files
            .insert("Dockerfile".into(), "FROM scratch\nCOPY . /\n".into());
        case.files.insert(file.into(), text.into());
        let actual = run(&golden, &case, false).await;
        assert_eq!(actual.error, "", "{opts:?} {file}");
        let is_filtered = actual
            .defs
            .iter()
            .flatten()
            .any(|vertex| vertex.name == step_name);
        assert_eq!(is_filtered, left_out, "{opts:?} {file}");
    }
}

#[tokio::test]
async fn only_a_missing_ignore_file_means_that_there_is_none() {
    let golden: Golden = serde_json::from_str(include_str!("golden/dockerfile.json")).unwrap();
    let context = "https://github.com/o/r.git#main";
    let within = "failed to read dockerignore patterns: ";
    for (opts, file, error) in [
        (vec![], "other", String::new()),
        (
            vec![],
            ".dockerignore",
            "read /.dockerignore: input/output error".to_owned(),
        ),
        (
            vec![],
            "Dockerfile.dockerignore",
            format!("{within}read /Dockerfile.dockerignore: input/output error"),
        ),
        (
            vec![("context", context)],
            ".dockerignore",
            "read /.dockerignore: input/output error".to_owned(),
        ),
    ] {
        let mut case = golden.cases[0].clone();
        case.opts = opts
            .iter()
            .map(|(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        case.files.clear();
        case.files
            .insert("Dockerfile".into(), "FROM scratch\nCOPY . /\n".into());
        case.files.insert(file.into(), UNREADABLE.into());
        let actual = run(&golden, &case, false).await;
        assert_eq!(actual.error, error, "{opts:?} {file}");
    }
}

#[tokio::test]
async fn no_credential_of_an_address_is_in_a_name_or_in_the_image() {
    let golden: Golden = serde_json::from_str(include_str!("golden/dockerfile.json")).unwrap();
    let mut case = golden.cases[0].clone();
    let context = "https://u:CANARY@h.example/r.git#main";
    case.opts = [("context", context), ("context:more", context)]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let text = "FROM scratch\n\
        ARG HOST=u:CANARY@h.example\n\
        ADD https://$HOST/file https://u:CANARY@h.example/other /\n\
        ADD https://CANARY@h.example/r.git#v1 /r\n\
        COPY --from=more . /more\n\
        RUN [\"fetch\", \"https://u:CANARY@h.example/x\"]\n";
    case.files = [("Dockerfile".to_owned(), text.to_owned())].into();
    let actual = run(&golden, &case, false).await;
    assert_eq!(actual.error, "");
    let mut names: Vec<&str> = actual
        .defs
        .iter()
        .flatten()
        .map(|v| v.name.as_str())
        .collect();
    names.extend(actual.metadata.values().map(String::as_str));
    let definitions_text = names.join("\n");
    // The value of an argument is no address.
    let definitions_text = definitions_text.replace("HOST=u:CANARY@h.example", "");
    assert!(!definitions_text.contains("CANARY"), "{definitions_text}");
    assert!(
        definitions_text.contains("ADD https://xxxxx:xxxxx@h.example/"),
        "{definitions_text}"
    );
}
