//! What the debugging listener answers.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::Engine;
use engine::api::{CacheRecordLine, RunningBuild, WaitGraph};
use hyper::{Method, StatusCode};
use metrics::{NoLabels, StoreKind};
use oci::Digest;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::process;

/// In which part of its life the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its state is being opened.
    Starting,
    /// It takes builds.
    Serving,
    /// It finishes running builds and refuses new ones.
    Draining,
}

/// The engines there are now, each with the name of its tenant; one without a name where clients share everything.
pub(crate) type Engines = Box<dyn Fn() -> Vec<(String, Arc<Engine>)> + Send + Sync>;

/// The answers, about a daemon that may still be starting.
pub(crate) struct Pages {
    phase: Mutex<Phase>,
    engines: Mutex<Option<Arc<Engines>>>,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages")
            .field("phase", &*self.phase.lock())
            .finish_non_exhaustive()
    }
}

/// An answer that is complete before it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The page `/`: a list of the pages.
const INDEX: &str = "\
/metrics              metrics in Prometheus' form
/healthz              whether the daemon answers
/readyz               whether it takes builds
/debug/builds         builds that run (also /debug/requests)
/debug/graph          steps that somebody waits for, and what they wait for
/debug/cache/all      cache keys and their results (also /debug/cache/store)
/debug/cache/lookup   those made of ?digest=sha256:…
/debug/vars           command line and metrics as JSON
/debug/gc             gives freed memory back to the system
/debug/prune          POST: collects garbage of the state directory now, by its rules
Pages below /debug are JSON with `Accept: application/json` or `?format=json`.
";

impl Answer {
    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        let mut body = body.into();
        if !body.ends_with('\n') {
            body.push('\n');
        }
        Self {
            status,
            content_type: TEXT,
            body,
        }
    }

    fn json(value: &Value) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: JSON,
            body: format!("{value:#}\n"),
        }
    }
}

impl Pages {
    /// Pages of a daemon that is starting.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            phase: Mutex::new(Phase::Starting),
            engines: Mutex::new(None),
        })
    }

    /// Called when the daemon takes builds; `engines` are looked up for each request.
    pub(crate) fn serving(&self, engines: Engines) {
        *self.engines.lock() = Some(Arc::new(engines));
        *self.phase.lock() = Phase::Serving;
    }

    /// Called when the daemon takes no more builds.
    pub(crate) fn draining(&self) {
        metrics::DRAINING.set(NoLabels, 1);
        *self.phase.lock() = Phase::Draining;
    }

    fn engines(&self) -> Vec<(String, Arc<Engine>)> {
        let engines = self.engines.lock().clone();
        engines.map_or_else(Vec::new, |engines| engines())
    }

    /// Answers one request.
    pub(super) async fn answer(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        wants_json: bool,
    ) -> Answer {
        let is_change = path == "/debug/prune";
        let is_allowed = match *method {
            Method::GET | Method::HEAD => !is_change,
            Method::POST => is_change || path == "/debug/gc" || path == "/debug/cache/load",
            _ => false,
        };
        if let Some(missing) = not_built(path) {
            return Answer::text(StatusCode::NOT_IMPLEMENTED, missing);
        }
        if !is_allowed {
            return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        }
        match path {
            "/" | "/debug" | "/debug/" => Answer::text(StatusCode::OK, INDEX),
            "/healthz" => Answer::text(StatusCode::OK, "ok"),
            "/readyz" => self.readiness(),
            "/metrics" => {
                self.measure().await;
                Answer {
                    status: StatusCode::OK,
                    content_type: metrics::text::CONTENT_TYPE,
                    body: metrics::text::exposition(),
                }
            }
            "/debug/vars" => {
                self.measure().await;
                Answer::json(&vars())
            }
            "/debug/builds" | "/debug/requests" => self.builds(wants_json),
            "/debug/graph" => self.graph(wants_json),
            "/debug/cache/all" | "/debug/cache/store" => self.cache(None, wants_json).await,
            "/debug/cache/lookup" => match wanted_digest(query) {
                Ok(digest) => self.cache(Some(digest), wants_json).await,
                Err(why) => Answer::text(StatusCode::BAD_REQUEST, why),
            },
            "/debug/gc" => {
                task::blocking("hand freed memory back", sys::memory::trim_heap).await;
                Answer::text(StatusCode::OK, "freed memory was given back")
            }
            "/debug/prune" => {
                for (_, engine) in self.engines() {
                    engine.collect_garbage().await;
                }
                Answer::text(StatusCode::OK, "garbage was collected")
            }
            _ => Answer::text(StatusCode::NOT_FOUND, format!("no such page\n\n{INDEX}")),
        }
    }

    fn readiness(&self) -> Answer {
        match *self.phase.lock() {
            Phase::Serving => Answer::text(StatusCode::OK, "ok"),
            Phase::Starting => Answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "starting: the state directory is being opened",
            ),
            Phase::Draining => Answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "draining: builds that run are finished, and no more are taken",
            ),
        }
    }

    /// Updates the metrics that are measured at a request and not counted as things happen.
    async fn measure(&self) {
        task::blocking("measure the process", process::measure).await;
        let (mut used, mut limit, mut free) = (0_i64, 0_i64, 0);
        for (_, engine) in self.engines() {
            match engine.store_size().await {
                Ok(size) => {
                    used = used.saturating_add(size.used);
                    limit = limit.saturating_add(size.limit);
                    free = size.disk_free;
                }
                Err(error) => tracing::warn!(%error, "the state directory cannot be measured"),
            }
        }
        metrics::STORE_SIZE.set(StoreKind::Used, used);
        metrics::STORE_SIZE.set(StoreKind::Limit, limit);
        metrics::STORE_SIZE.set(StoreKind::DiskFree, free);
    }

    fn builds(&self, wants_json: bool) -> Answer {
        let engines = self.engines();
        let builds: Vec<(&String, RunningBuild)> = engines
            .iter()
            .flat_map(|(tenant, engine)| engine.running().into_iter().map(move |b| (tenant, b)))
            .collect();
        let now = task::clock::Clock::real().system();
        if wants_json {
            let rows = builds.iter().map(|(tenant, build)| {
                json!({
                    "ref": build.build.as_str(),
                    "frontend": build.frontend,
                    "seconds": build.started.map(|at| seconds_between(at, now)),
                    "tenant": tenant,
                })
            });
            return Answer::json(&json!({ "builds": rows.collect::<Vec<_>>() }));
        }
        let mut text = format!("{} builds run\n", builds.len());
        for (tenant, build) in builds {
            let seconds = build.started.map_or(0.0, |at| seconds_between(at, now));
            line(
                &mut text,
                format_args!("{} {seconds:.1}s {} {tenant}", build.build, build.frontend),
            );
        }
        Answer::text(StatusCode::OK, text)
    }

    fn graph(&self, wants_json: bool) -> Answer {
        let engines = self.engines();
        let graphs: Vec<_> = engines
            .iter()
            .map(|(t, e)| (t.as_str(), e.waits()))
            .collect();
        if wants_json {
            return Answer::json(&graph_json(&graphs));
        }
        Answer::text(StatusCode::OK, graph_text(&graphs))
    }

    async fn cache(&self, of: Option<Digest>, wants_json: bool) -> Answer {
        let mut records = Vec::new();
        let mut has_more = false;
        for (_, engine) in self.engines() {
            match engine.cache_records(of.clone()).await {
                Ok(lines) => {
                    records.extend(lines.records);
                    has_more |= lines.has_more;
                }
                Err(error) => {
                    return Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
                }
            }
        }
        if of.is_some() && records.is_empty() {
            return Answer::text(StatusCode::NOT_FOUND, "no cache key is made of this digest");
        }
        if wants_json {
            let rows: Vec<_> = records.iter().map(record_json).collect();
            return Answer::json(&json!({ "records": rows, "truncated": has_more }));
        }
        let mut text = String::new();
        for record in &records {
            record_text(&mut text, record);
        }
        if has_more {
            text.push_str("there are more\n");
        }
        Answer::text(StatusCode::OK, text)
    }
}

/// A sentence about a page that BuildKit has and this daemon has not.
fn not_built(path: &str) -> Option<&'static str> {
    if path.starts_with("/debug/pprof") {
        return Some(
            "profiles of Go's runtime do not exist here: use `perf record -p` on the daemon, and /metrics for memory and processor time",
        );
    }
    if path.starts_with("/debug/flight") {
        return Some(
            "the flight recorder of Go's runtime does not exist here: spans of builds are sent by OTLP (OTEL_EXPORTER_OTLP_ENDPOINT)",
        );
    }
    match path {
        "/debug/events" => {
            Some("Go's event log does not exist here: run the daemon with --log-level debug")
        }
        "/debug/compaction" => Some(
            "compaction of bbolt databases does not exist here: the index of the state directory is one SQLite database that uses its free pages again",
        ),
        "/debug/cache/load" => Some("reading a cache configuration for its keys is not built"),
        _ => None,
    }
}

fn wanted_digest(query: &str) -> Result<Digest, String> {
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("digest="));
    let value = value
        .filter(|value| !value.is_empty())
        .ok_or("digest query parameter is required")?;
    let value = value.replace("%3A", ":").replace("%3a", ":");
    Digest::parse(&value).map_err(|error| format!("invalid digest: {error}"))
}

/// What Go's `expvar` shows, with the metrics in the place of the runtime's statistics.
fn vars() -> Value {
    let mut values = serde_json::Map::new();
    for family in metrics::FAMILIES {
        for sample in family.instrument.samples() {
            let labels: Vec<_> = sample
                .labels
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            let mut name = family.name.to_owned();
            if !labels.is_empty() {
                name = format!("{name}{{{}}}", labels.join(","));
            }
            let value = match sample.value {
                metrics::Value::Counter(value) => json!(value),
                metrics::Value::Gauge(value) => json!(value),
                metrics::Value::Histogram { buckets, sum } => {
                    json!({ "count": buckets.iter().sum::<u64>(), "sum": sum })
                }
            };
            values.insert(name, value);
        }
    }
    let command: Vec<_> = std::env::args().collect();
    json!({ "cmdline": command, "version": env!("CARGO_PKG_VERSION"), "metrics": values })
}

fn seconds_between(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64()
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(text, "{words}").expect("a string takes everything");
}

/// Names of steps are clients' words: what acts on a terminal is left out.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).collect()
}

fn graph_json(graphs: &[(&str, WaitGraph)]) -> Value {
    let nodes = graphs.iter().flat_map(|(tenant, graph)| {
        graph.nodes.iter().map(move |node| {
            let waits_for: Vec<_> = node.waits_for.iter().map(Digest::as_str).collect();
            json!({
                "digest": node.digest.as_str(),
                "name": node.name,
                "builds": node.jobs,
                "activity": node.activity.as_str(),
                "waitsFor": waits_for,
                "tenant": tenant,
            })
        })
    });
    let has_more = graphs.iter().any(|(_, graph)| graph.has_more);
    json!({ "nodes": nodes.collect::<Vec<_>>(), "truncated": has_more })
}

/// Edges that run first, then those that wait, each with the names of those it waits for.
fn graph_text(graphs: &[(&str, WaitGraph)]) -> String {
    let mut text = String::new();
    for (tenant, graph) in graphs {
        if !tenant.is_empty() {
            line(&mut text, format_args!("tenant {tenant}"));
        }
        let names: std::collections::HashMap<&Digest, String> = graph
            .nodes
            .iter()
            .map(|node| (&node.digest, plain(&node.name)))
            .collect();
        let mut nodes: Vec<_> = graph.nodes.iter().collect();
        nodes.sort_by_key(|node| std::cmp::Reverse(node.activity));
        line(
            &mut text,
            format_args!("{} steps are waited for", nodes.len()),
        );
        for node in nodes {
            line(
                &mut text,
                format_args!(
                    "{} [{}] {}",
                    short(&node.digest),
                    node.activity.as_str(),
                    plain(&node.name)
                ),
            );
            line(
                &mut text,
                format_args!("    builds: {}", node.jobs.join(" ")),
            );
            for input in &node.waits_for {
                let name = names.get(input).map_or("", String::as_str);
                line(
                    &mut text,
                    format_args!("    waits for {} {name}", short(input)),
                );
            }
        }
        if graph.has_more {
            text.push_str("there are more\n");
        }
    }
    text
}

fn short(digest: &Digest) -> &str {
    digest.hex().get(..12).unwrap_or_default()
}

fn record_json(record: &CacheRecordLine) -> Value {
    let results = record.results.iter().map(|(id, made)| {
        let seconds = made
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        json!({ "id": id, "createdAt": seconds })
    });
    let parents = record.parents.iter().map(|parent| {
        json!({
            "input": parent.input,
            "key": parent.key,
            "digest": parent.digest.as_str(),
            "selector": parent.selector.as_ref().map(Digest::as_str),
        })
    });
    json!({
        "key": record.key,
        "results": results.collect::<Vec<_>>(),
        "parents": parents.collect::<Vec<_>>(),
    })
}

fn record_text(text: &mut String, record: &CacheRecordLine) {
    line(text, format_args!("{}", record.key));
    for (id, _) in &record.results {
        line(text, format_args!("  result {id}"));
    }
    for parent in &record.parents {
        line(
            text,
            format_args!(
                "  input {} of {}: {}",
                parent.input, parent.key, parent.digest
            ),
        );
        if let Some(selector) = &parent.selector {
            line(text, format_args!("    selector {selector}"));
        }
    }
}

#[cfg(test)]
mod tests;
