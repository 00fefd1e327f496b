//! `buildctl build`: a frontend or a definition, and what becomes of the result.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{
    Attachables, CacheSpec, Client, Definition, ExporterSpec, FileTarget, Folder, FolderTarget,
    SolveRequest, SolveStatus, SourcePolicy, Target,
};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::args::Build;
use super::metrics::CacheMetrics;
use crate::build::request::{self, WrittenLayout};
use crate::build::{self, outputs};
use crate::failure::{CliError, explain};
use crate::progress;
use crate::spec;

/// How many changes may wait to be shown.
const MAX_WAITING_CHANGES: usize = 256;
/// The most bytes of a definition that is read from standard input: what a daemon takes.
const MAX_DEFINITION_BYTES: u64 = 256 << 20;

fn usage(text: impl Into<String>) -> CliError {
    CliError::Usage(text.into())
}

pub(super) async fn run(client: &Client, flags: Build) -> Result<(), CliError> {
    let started = task::clock::monotonic();
    let trace = flags.trace.as_deref().map(append).transpose()?;
    if let Some(path) = &flags.trace {
        tracing::info!("tracing logs to {}", path.display());
    }
    let mut metrics = flags
        .debug_json_cache_metrics
        .as_deref()
        .map(MetricsPlace::open)
        .transpose()?;
    let PreparedSolve { request, layouts } = prepare(&flags)?;
    let id = request.id.clone();
    let asks = request.attrs.contains_key("requestid");
    let truncate = std::env::var_os("PROGRESS_NO_TRUNC").is_some_and(|v| v.to_str() == Some("0"));
    let display = progress::display(flags.progress, truncate, "Building".into());

    let (sender, statuses) = mpsc::channel(MAX_WAITING_CHANGES);
    let (shown, to_show) = mpsc::channel(MAX_WAITING_CHANGES);
    let mut counted = CacheMetrics::default();
    let teeing = tee(statuses, shown, trace, &mut counted);
    let showing = progress::show(display, to_show);
    let outcome = if asks {
        let asking = Box::pin(client.ask(request, sender));
        let (outcome, display, written) = tokio::join!(asking, showing, teeing);
        written?;
        outcome
            .map(SolveAnswer::Metadata)
            .map_err(|failure| (failure, display))
    } else {
        let solving = Box::pin(client.solve(request, sender));
        let (outcome, display, written) = tokio::join!(solving, showing, teeing);
        written?;
        outcome
            .map(SolveAnswer::Solved)
            .map_err(|failure| (failure, display))
    };
    if let Some(path) = &flags.ref_file {
        build::write(path, &id)?;
    }
    let answer = outcome.map_err(|(failure, display)| {
        let mut page = Vec::new();
        let _in_memory = explain(&failure, display.trace(), ("", ""), false, &mut page);
        let _closed = io::stderr().lock().write_all(&page);
        CliError::Solve(failure)
    })?;
    match answer {
        SolveAnswer::Solved(result) => {
            build::enter(&layouts, &result)?;
            for (key, value) in &result.response {
                tracing::debug!("exporter response: {key}={value}");
            }
            if let Some(path) = &flags.metadata_file {
                build::write(path, &metadata(&result.response)?)?;
            }
        }
        SolveAnswer::Metadata(metadata) => show_answer(&metadata)?,
    }
    if let Some(place) = &mut metrics {
        place.write(&counted.report(started.elapsed()))?;
    }
    Ok(())
}

enum SolveAnswer {
    Solved(client::SolveResult),
    Metadata(BTreeMap<String, Vec<u8>>),
}

/// What a frontend says in the place of a result: its text, or all that it has.
fn show_answer(metadata: &BTreeMap<String, Vec<u8>>) -> Result<(), CliError> {
    if let Some(text) = metadata.get("result.txt") {
        return super::print(&String::from_utf8_lossy(text));
    }
    for (key, value) in metadata {
        if key.starts_with("result.") {
            super::print(&format!("{key}\n{}\n", String::from_utf8_lossy(value)))?;
        }
    }
    Ok(())
}

/// Hands on what a build tells, and writes it to the trace.
async fn tee(
    mut from: mpsc::Receiver<SolveStatus>,
    to: mpsc::Sender<SolveStatus>,
    mut trace: Option<File>,
    counted: &mut CacheMetrics,
) -> Result<(), CliError> {
    let mut written = Ok(());
    while let Some(status) = from.recv().await {
        counted.take(&status);
        if let Some(file) = &mut trace
            && written.is_ok()
        {
            written = writeln!(file, "{}", progress::raw::line(&status))
                .map_err(CliError::io("cannot write the trace"));
        }
        let _nobody_looks = to.send(status).await;
    }
    written
}

fn append(path: &Path) -> Result<File, CliError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(CliError::io(format!("cannot open {}", path.display())))
}

/// Where the numbers of the cache go.
enum MetricsPlace {
    Stdout,
    Stderr,
    File(File),
}

impl MetricsPlace {
    fn open(place: &str) -> Result<Self, CliError> {
        Ok(match place {
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            path => {
                let file =
                    File::create(path).map_err(CliError::io(format!("cannot create {path}")))?;
                tracing::info!("writing JSON cache metrics to {path}");
                Self::File(file)
            }
        })
    }

    fn write(&mut self, text: &str) -> Result<(), CliError> {
        let written = match self {
            Self::Stdout => io::stdout().write_all(text.as_bytes()),
            Self::Stderr => io::stderr().write_all(text.as_bytes()),
            Self::File(file) => file.write_all(text.as_bytes()),
        };
        written.map_err(CliError::io("cannot write the cache metrics"))
    }
}

#[derive(Debug)]
struct PreparedSolve {
    request: SolveRequest,
    /// Layouts that get new entries when all went well.
    layouts: Vec<WrittenLayout>,
}

fn prepare(flags: &Build) -> Result<PreparedSolve, CliError> {
    if !flags.registry_auth_tlscontext.is_empty() {
        return Err(usage(
            "--registry-auth-tlscontext is not built: the daemon fetches tokens, with the certificates of its configuration",
        ));
    }
    for name in &flags.allow {
        allowed(name)?;
    }
    let mut offer = Attachables {
        owner: Some((
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        )),
        docker_config: request::docker_config()?,
        secrets: request::secrets(&flags.secret)?,
        ssh: request::agents(&flags.ssh)?,
        ..Attachables::default()
    };
    let mut layouts = Vec::new();
    let exporters = exporters(&flags.output, &mut offer, &mut layouts)?;
    let imports = flags.import_cache.iter().map(|text| import(text));
    let cache_from = request::offer_cache_sources(imports.collect::<Result<_, _>>()?, &mut offer)?;
    let exports = flags.export_cache.iter().map(|text| export(text));
    let cache_to =
        request::offer_cache_targets(exports.collect::<Result<_, _>>()?, &mut offer, &mut layouts)?;
    let source_policy = flags
        .source_policy_file
        .as_deref()
        .map(source_policy)
        .transpose()?;
    for (name, dir) in key_values(&flags.local, "local")? {
        if !Path::new(&dir).is_dir() {
            return Err(usage(format!("invalid local: {dir} is no folder")));
        }
        offer
            .folders
            .insert(name, Folder::from(std::path::PathBuf::from(dir)));
    }
    for text in &flags.oci_layout {
        let (name, dir) = text.split_once('=').ok_or_else(|| {
            usage(format!("invalid oci-layout: oci-layout option must be 'id=path/to/layout', instead had invalid {text}"))
        })?;
        offer.stores.insert(format!("oci:{name}"), dir.into());
    }
    let mut attrs = options(&flags.opt)?;
    let mut definition = None;
    if flags.frontend.is_empty() {
        definition = Some(stdin_definition(flags.no_cache)?);
    } else if flags.no_cache {
        attrs.insert("no-cache".into(), String::new());
    }
    let asks = attrs.contains_key("requestid");
    if asks {
        attrs
            .entry("frontend.caps".into())
            .or_insert_with(|| "moby.buildkit.frontend.subrequests".into());
    }
    Ok(PreparedSolve {
        request: SolveRequest {
            id: client::new_id().map_err(CliError::io("no random bytes"))?,
            frontend: flags.frontend.clone(),
            definition,
            source_policy,
            proxy_network: flags.proxy_network,
            attrs,
            exporters,
            cache_from,
            cache_to,
            entitlements: flags.allow.clone(),
            internal: false,
            trace_parent: crate::connection::trace_parent(),
            attachables: offer,
            ..SolveRequest::default()
        },
        layouts,
    })
}

/// Entitlements that exist (upstream `util/entitlements`).
fn allowed(name: &str) -> Result<(), CliError> {
    let kind = name.split_once('=').map_or(name, |(kind, _)| kind);
    if matches!(kind, "network.host" | "security.insecure" | "device") {
        return Ok(());
    }
    Err(usage(format!("unknown entitlement {name}")))
}

/// `key=value` pairs, the last of one key wins.
fn key_values(pairs: &[String], flag: &str) -> Result<BTreeMap<String, String>, CliError> {
    pairs
        .iter()
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| usage(format!("invalid {flag}: invalid value {pair}")))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// `--opt`. A build argument without a value has that of the environment, or stays unset.
fn options(pairs: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut options = BTreeMap::new();
    if let Some(epoch) = request::variable("SOURCE_DATE_EPOCH") {
        tracing::debug!("Propagating SOURCE_DATE_EPOCH from the client env to the build arg");
        options.insert("build-arg:SOURCE_DATE_EPOCH".to_owned(), epoch);
    }
    let mut resolved = Vec::new();
    for pair in pairs {
        match pair.strip_prefix("build-arg:") {
            Some(name) if !name.is_empty() && !name.contains('=') => {
                resolved.extend(request::variable(name).map(|value| format!("{pair}={value}")));
            }
            _ => resolved.push(pair.clone()),
        }
    }
    options.extend(key_values(&resolved, "opt")?);
    Ok(options)
}

fn source_policy(path: &Path) -> Result<SourcePolicy, CliError> {
    let text = fs::read(path).map_err(CliError::io(format!("cannot read {}", path.display())))?;
    SourcePolicy::from_json(&text).map_err(|error| {
        usage(format!(
            "failed to unmarshal source-policy-file {}: {error}",
            gostd::strconv::quote(path.to_string_lossy())
        ))
    })
}

fn stdin_definition(ignore_cache: bool) -> Result<Definition, CliError> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(usage(
            "please specify --frontend or pipe LLB definition to stdin",
        ));
    }
    let mut bytes = Vec::new();
    stdin
        .lock()
        .take(MAX_DEFINITION_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(CliError::io("cannot read standard input"))?;
    if bytes.len() as u64 > MAX_DEFINITION_BYTES {
        return Err(usage(format!(
            "the definition has more than {MAX_DEFINITION_BYTES} bytes"
        )));
    }
    let mut definition = Definition::read(&bytes)?;
    if definition.is_empty() {
        return Err(usage(
            "empty definition sent to build. Specify --frontend instead?",
        ));
    }
    if ignore_cache {
        definition.ignore_cache();
    }
    Ok(definition)
}

/// The fields of a flag's value, without its `type`.
fn typed(flag: &str, text: &str) -> Result<(String, BTreeMap<String, String>), CliError> {
    let fields = gostd::csv::fields(text).map_err(|error| usage(format!("--{flag}: {error}")))?;
    let mut attrs = BTreeMap::new();
    for field in fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| usage(format!("invalid value {field}")))?;
        attrs.insert(key.to_ascii_lowercase(), value.to_owned());
    }
    let kind = attrs
        .remove("type")
        .filter(|kind| !kind.is_empty())
        .ok_or_else(|| usage(format!("--{flag} requires type=<type>")))?;
    Ok((kind, attrs))
}

/// `--import-cache`: a reference, or `type=…`.
fn import(text: &str) -> Result<CacheSpec, CliError> {
    if !text.contains("type=") {
        tracing::warn!(
            "--import-cache <ref> is deprecated. Please use --import-cache type=registry,ref=<ref>,<opt>=<optval>[,<opt>=<optval>] instead."
        );
        return Ok(spec::cache("import-cache", text)?);
    }
    let (kind, attrs) = typed("import-cache", text)?;
    Ok(CacheSpec { kind, attrs })
}

/// `--export-cache`, whose mode is `min` unless it says another.
fn export(text: &str) -> Result<CacheSpec, CliError> {
    let mut cache = if text.contains("type=") {
        let (kind, attrs) = typed("export-cache", text)?;
        CacheSpec { kind, attrs }
    } else {
        tracing::warn!(
            "--export-cache <ref> is deprecated. Please use --export-cache type=registry,ref=<ref>,<opt>=<optval>[,<opt>=<optval>] instead"
        );
        spec::cache("export-cache", text)?
    };
    cache
        .attrs
        .entry("mode".into())
        .or_insert_with(|| "min".into());
    Ok(cache)
}

fn exporters(
    specs: &[String],
    offer: &mut Attachables,
    layouts: &mut Vec<WrittenLayout>,
) -> Result<Vec<ExporterSpec>, CliError> {
    let mut exporters = Vec::new();
    for text in specs {
        let (kind, mut attrs) = typed("output", text)?;
        if let Some(place) = attrs.get("output") {
            return Err(usage(format!(
                "output={place} not supported for --output, you meant dest={place}?"
            )));
        }
        let is_layout = attrs
            .get("tar")
            .is_some_and(|v| gostd::strconv::parse_bool(v) == Ok(false));
        let dest = attrs.get("dest").cloned().unwrap_or_default();
        match kind.as_str() {
            "local" => {
                let dest = folder(&kind, &mut attrs)?;
                let mirror = attrs.get("mode").is_some_and(|mode| mode == "delete");
                let special = attrs
                    .remove("special")
                    .is_some_and(|v| gostd::strconv::is_true(&v));
                offer.targets.insert(
                    exporters.len(),
                    Target::Folder(FolderTarget {
                        path: dest.into(),
                        mirror,
                        special,
                        ..FolderTarget::default()
                    }),
                );
            }
            "oci" | "docker" if is_layout => {
                let dest = folder(&kind, &mut attrs)?;
                outputs::offer_layout(&dest, offer)?;
                layouts.push(WrittenLayout::Image(dest.into()));
            }
            "tar" | "oci" | "docker" => {
                let target = match dest.as_str() {
                    "" | "-" if io::stdout().is_terminal() => {
                        return Err(usage(format!(
                            "invalid output option: output: output file is required for {kind} exporter. refusing to write to console"
                        )));
                    }
                    "" | "-" => FileTarget::Stdout,
                    path if Path::new(path).is_dir() => {
                        return Err(usage(
                            "invalid output option: output: destination file is a directory",
                        ));
                    }
                    path => FileTarget::File(path.into()),
                };
                attrs.remove("dest");
                offer.targets.insert(exporters.len(), Target::Bytes(target));
            }
            _ if !dest.is_empty() => {
                return Err(usage(format!(
                    "invalid output option: output: output {dest} is not supported by {kind} exporter"
                )));
            }
            _ => {}
        }
        exporters.push(ExporterSpec { kind, attrs });
    }
    Ok(exporters)
}

fn folder(kind: &str, attrs: &mut BTreeMap<String, String>) -> Result<String, CliError> {
    attrs
        .remove("dest")
        .filter(|dest| !dest.is_empty())
        .ok_or_else(|| {
            usage(format!(
                "invalid output option: output: output directory is required for {kind} exporter"
            ))
        })
}

/// What exporters answered, as `--metadata-file` has it: objects that came in base64 as objects, all else as it came.
fn metadata(response: &BTreeMap<String, String>) -> Result<String, CliError> {
    let object = |text: &str| {
        let bytes = STANDARD.decode(text).ok()?;
        let object: Map<String, Value> = serde_json::from_slice(&bytes).ok()?;
        (!object.is_empty()).then_some(Value::Object(object))
    };
    let members: Map<String, Value> = response
        .iter()
        .map(|(key, text)| {
            (
                key.clone(),
                object(text).unwrap_or_else(|| text.clone().into()),
            )
        })
        .collect();
    serde_json::to_string_pretty(&members).map_err(|error| usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::{Arguments, Command};
    use super::*;

    fn prepared(argv: &[&str]) -> Result<PreparedSolve, CliError> {
        let argv = ["buildctl", "build"].iter().chain(argv);
        let arguments =
            Arguments::try_parse_from(argv).map_err(|error| usage(error.to_string()))?;
        match arguments.command {
            Some(Command::Build(flags)) => prepare(&flags),
            other => Err(usage(format!("{other:?} is no build"))),
        }
    }

    #[test]
    fn flags_become_a_request() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let here = dir.path().to_str().ok_or("path")?;
        let policy = dir.path().join("policy.json");
        fs::write(&policy, r#"{"rules": [{"action": "DENY"}]}"#)?;
        let secret = dir.path().join("secret");
        fs::write(&secret, "s")?;
        let prepared = prepared(&[
            "--frontend",
            "dockerfile.v0",
            "--opt",
            "target=t",
            "--opt",
            "build-arg:A=1=2",
            "--opt",
            "build-arg:PATH",
            "--opt",
            "build-arg:NOT_SET_ANYWHERE",
            "--no-cache",
            "--local",
            &format!("context={here}"),
            "--oci-layout",
            &format!("base={here}"),
            "--output",
            &format!("type=oci,dest={here}/x.tar,Name=n"),
            "-o",
            "type=image,name=a,push=true",
            "--output",
            &format!("type=local,dest={here}/out"),
            "--export-cache",
            "type=registry,ref=r",
            "--import-cache",
            "r2",
            "--allow",
            "network.host",
            "--secret",
            &format!("id=s,src={}", secret.display()),
            "--source-policy-file",
            policy.to_str().ok_or("path")?,
            "--proxy-network",
        ])?;
        let request = &prepared.request;
        assert_eq!(request.frontend, "dockerfile.v0");
        assert_eq!(request.attrs["target"], "t");
        assert_eq!(request.attrs["no-cache"], "");
        assert_eq!(request.attrs["build-arg:A"], "1=2");
        assert_eq!(
            Some(&request.attrs["build-arg:PATH"]),
            request::variable("PATH").as_ref()
        );
        assert!(!request.attrs.contains_key("build-arg:NOT_SET_ANYWHERE"));
        let kinds: Vec<&str> = request.exporters.iter().map(|e| e.kind.as_str()).collect();
        assert_eq!(kinds, ["oci", "image", "local"]);
        assert_eq!(
            request.exporters[0].attrs,
            [("name".to_owned(), "n".to_owned())].into()
        );
        assert!(matches!(
            request.attachables.targets[&0],
            Target::Bytes(FileTarget::File(_))
        ));
        assert!(matches!(request.attachables.targets[&2], Target::Folder(_)));
        assert!(request.attachables.folders.contains_key("context"));
        assert!(request.attachables.stores.contains_key("oci:base"));
        assert_eq!(request.cache_to[0].attrs["mode"], "min");
        assert_eq!(request.cache_from[0].attrs["ref"], "r2");
        assert_eq!(request.entitlements, ["network.host"]);
        assert!(request.source_policy.is_some() && request.proxy_network);
        Ok(())
    }

    #[test]
    fn a_question_to_a_frontend_says_that_it_is_one() -> Result<(), CliError> {
        let prepared = prepared(&[
            "--frontend",
            "dockerfile.v0",
            "--opt",
            "requestid=frontend.outline",
        ])?;
        assert_eq!(
            prepared.request.attrs["frontend.caps"],
            "moby.buildkit.frontend.subrequests"
        );
        Ok(())
    }

    #[test]
    fn what_cannot_be_sent_is_refused_in_the_words_of_the_reference() {
        for (argv, words) in [
            (&["--output", "dest=x"][..], "--output requires type=<type>"),
            (
                &["--output", "type=local"],
                "output directory is required for local exporter",
            ),
            (
                &["--output", "type=image,dest=x"],
                "output x is not supported by image exporter",
            ),
            (
                &["--output", "type=tar,dest=/"],
                "destination file is a directory",
            ),
            (
                &["--output", "type=tar,output=x"],
                "output=x not supported for --output, you meant dest=x?",
            ),
            (
                &["--output", "type=oci,tar=false"],
                "output directory is required for oci exporter",
            ),
            (&["--output", "oci"], "invalid value oci"),
            (
                &["--export-cache", "type="],
                "--export-cache requires type=<type>",
            ),
            (&["--import-cache", "type=registry,x"], "invalid value x"),
            (&["--opt", "x"], "invalid opt: invalid value x"),
            (&["--local", "x"], "invalid local: invalid value x"),
            (&["--local", "x=/no/such/folder"], "is no folder"),
            (
                &["--oci-layout", "x"],
                "oci-layout option must be 'id=path/to/layout', instead had invalid x",
            ),
            (&["--allow", "everything"], "unknown entitlement everything"),
            (
                &["--source-policy-file", "/dev/null"],
                "failed to unmarshal source-policy-file \"/dev/null\"",
            ),
            (
                &["--source-policy-file", "/no/such"],
                "cannot read /no/such",
            ),
            (
                &["--registry-auth-tlscontext", "host=x"],
                "--registry-auth-tlscontext is not built",
            ),
        ] {
            let argv: Vec<&str> = ["--frontend", "dockerfile.v0"]
                .iter()
                .chain(argv)
                .copied()
                .collect();
            match prepared(&argv) {
                Ok(prepared) => panic!("{argv:?}: {prepared:?}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(words), "{argv:?}: {text}");
                }
            }
        }
    }

    #[test]
    fn objects_in_base64_are_objects_in_the_metadata_file() -> Result<(), CliError> {
        let response = [
            ("digest", "sha256:ab"),
            ("number", "MTI="),
            ("empty", "e30="),
            ("list", "W10="),
            ("object", "eyJmb28iOm51bGwsImJhciI6ImJheiJ9"),
        ];
        let response = response
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        assert_eq!(
            metadata(&response)?,
            "{\n  \"digest\": \"sha256:ab\",\n  \"empty\": \"e30=\",\n  \"list\": \"W10=\",\n  \"number\": \"MTI=\",\n  \
             \"object\": {\n    \"bar\": \"baz\",\n    \"foo\": null\n  }\n}"
        );
        Ok(())
    }
}
