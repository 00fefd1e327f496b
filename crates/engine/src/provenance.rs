//! Who asked for which result, and what went into it.
//!
//! ```text
//!   the client's request ── Scope (root)
//!                             ├─ results of definitions
//!                             └─ Scope (a frontend's request)
//!                                  ├─ results, the frontend's own last
//!                                  └─ Scope …
//! ```
//!
//! A scope's requests are known to the whole daemon while its build runs, by the digest of what they gave: another
//! request that is handed the result as an input tells where it came from.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use attest::{Capture, Image, Parameters, RequestProvenance, filter_args};
use exporter::PlatformEntry;
use frontend::bridge::{ResolveOpts, SourceMeta};
use frontend::{FrontendResult, Ref};
use llb::pb;
use oci::Digest;
use ops::{BuildDomain, BuildOp};
use parking_lot::Mutex;
use solver::{Job, KeyInfo, Vertex};

use crate::api::{Failure, FailureKind};
use crate::bridge::refs;
use crate::reference::LazyRef;
use crate::spent::{self, Spent, Told};

/// Reads what the daemon's owner adds to provenance: objects in the `.json` files of a folder, later ones over earlier
/// ones. A folder that is not there adds nothing.
pub fn provenance_env(dir: &Path) -> io::Result<BTreeMap<String, serde_json::Value>> {
    let mut out = BTreeMap::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(out),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file)?;
        let read: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&bytes).map_err(|e| {
                let name = file.display();
                io::Error::other(format!("failed to parse {name}: {e}"))
            })?;
        out.extend(read);
    }
    Ok(out)
}

/// A result and how the solver knows it.
pub(crate) struct Computed {
    pub(crate) result: ops::Ref,
    /// None for what was not computed.
    pub(crate) vertex: Option<Arc<Vertex<BuildDomain>>>,
    pub(crate) keys: Vec<KeyInfo<BuildDomain>>,
}

/// What went into a vertex of a job.
pub(crate) fn capture(job: &Job<BuildDomain>, vertex: &Vertex<BuildDomain>) -> Capture {
    let mut out = Capture::new();
    for (vertex, op) in job.ops(vertex) {
        let pin = match &*op {
            BuildOp::Source(source) => source.pin(),
            BuildOp::Exec(_) | BuildOp::File(_) | BuildOp::Combine(_) => String::new(),
        };
        out.op(&vertex.sys.op, &pin);
    }
    out
}

/// A request.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) frontend: String,
    pub(crate) opts: BTreeMap<String, String>,
    pub(crate) inputs: BTreeMap<String, Arc<pb::Definition>>,
}

impl Asked {
    /// A client's request; the builtin frontend by its other name is the same.
    pub(crate) fn by_client(
        frontend: &str,
        opts: &BTreeMap<String, String>,
        inputs: &BTreeMap<String, Arc<pb::Definition>>,
    ) -> Self {
        let mut out = Self {
            frontend: frontend.to_owned(),
            opts: opts.clone(),
            inputs: inputs.clone(),
        };
        let named = |key: &String| {
            key == "context:dockerfile.v0" || key.starts_with("context:dockerfile.v0::")
        };
        let builtin = opts.get("source").is_some_and(|s| s == "dockerfile.v0");
        if frontend == "gateway.v0" && builtin && !opts.keys().any(named) {
            out.opts.remove("source");
            out.frontend = "dockerfile.v0".into();
        }
        out
    }

    fn says_something(&self) -> bool {
        !self.frontend.is_empty() || !self.opts.is_empty() || !self.inputs.is_empty()
    }
}

struct Known {
    head: Digest,
    request: Arc<RequestProvenance>,
    told: Told,
}

/// The requests of all builds that run, by what they gave.
#[derive(Default)]
pub(crate) struct Requests(Mutex<(u64, HashMap<u64, Known>)>);

impl Requests {
    fn add(&self, head: Digest, mut request: RequestProvenance) -> u64 {
        // Who is handed the result has a root of its own.
        if let Some(request) = &mut request.request {
            request.root = None;
        }
        let known = Known {
            head,
            told: Told::of(&request),
            request: Arc::new(request),
        };
        let mut all = self.0.lock();
        all.0 += 1;
        let id = all.0;
        all.1.insert(id, known);
        id
    }

    /// The request that gave a definition; none if several that differ did.
    fn find(&self, definition: &pb::Definition) -> Option<(Arc<RequestProvenance>, Told)> {
        let head = llb::definition::head(definition)?;
        let all = self.0.lock();
        let mut found: Option<&Known> = None;
        for known in all.1.values().filter(|known| known.head == head) {
            if found.is_some_and(|have| have.request != known.request) {
                return None;
            }
            found = Some(known);
        }
        found.map(|known| (Arc::clone(&known.request), known.told))
    }
}

/// What was asked, and what it gave.
pub(crate) struct Scope {
    asked: Option<Asked>,
    root: Option<Arc<Asked>>,
    requests: Arc<Requests>,
    /// Of the whole build.
    spent: Arc<Spent>,
    /// How many frontends called each other.
    depth: usize,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    images: Vec<Image>,
    results: Vec<Arc<dyn Ref>>,
    below: Vec<Arc<Scope>>,
    records: Vec<u64>,
}

/// Tells refs apart.
fn address(found: &Arc<dyn Ref>) -> usize {
    Arc::as_ptr(found).cast::<()>() as usize
}

impl Scope {
    /// The scope of a build.
    pub(crate) fn root(asked: Asked, requests: &Arc<Requests>) -> Arc<Self> {
        Arc::new(Self {
            asked: None,
            root: Some(Arc::new(asked)),
            requests: Arc::clone(requests),
            spent: Arc::default(),
            depth: 0,
            made: Mutex::default(),
        })
    }

    /// The scope of a request that is made in this one.
    pub(crate) fn inner(&self, asked: Asked) -> Result<Arc<Self>, Failure> {
        spent::check_depth(self.depth + 1)?;
        let inputs = asked.inputs.values().map(|d| spent::of_definition(d));
        self.spent
            .spend(spent::of_options(&asked.opts) + inputs.sum::<usize>())?;
        let root = self.root.clone().filter(|r| r.says_something());
        let root = root.or_else(|| {
            let own = self.asked.as_ref()?;
            Some(Arc::new(Asked {
                frontend: own.frontend.clone(),
                opts: own.opts.clone(),
                inputs: own.inputs.clone(),
            }))
        });
        Ok(Arc::new(Self {
            asked: Some(asked),
            root,
            requests: Arc::clone(&self.requests),
            spent: Arc::clone(&self.spent),
            depth: self.depth + 1,
            made: Mutex::default(),
        }))
    }

    /// Counts a definition that is to be solved.
    pub(crate) fn spend(&self, definition: &pb::Definition) -> Result<(), Failure> {
        self.spent.spend(spent::of_definition(definition))
    }

    /// Takes note of a result that was made in this scope.
    pub(crate) fn made(&self, result: &FrontendResult) {
        self.made.lock().results.extend(refs(result).cloned());
    }

    /// Takes note of a request that was answered in this scope.
    pub(crate) fn answered(&self, inner: Arc<Self>) {
        self.made.lock().below.push(inner);
    }

    /// Takes note of a source that was resolved.
    pub(crate) fn resolved(&self, opts: &ResolveOpts, meta: &SourceMeta) {
        let Some(image) = &meta.image else { return };
        let identifier = meta.op.identifier.as_str();
        let reference = identifier.strip_prefix("docker-image://");
        let layout = identifier.strip_prefix("oci-layout://");
        let of_image = opts.image.as_ref().and_then(|o| o.platform.clone());
        let of_layout = || opts.oci_layout.as_ref().and_then(|o| o.platform.clone());
        self.made.lock().images.push(Image {
            reference: reference.or(layout).unwrap_or(identifier).to_owned(),
            platform: of_image.or_else(of_layout),
            digest: image.digest.clone(),
            local: reference.is_none(),
        });
    }

    /// Lets other requests know where the refs of a result came from.
    pub(crate) async fn register(self: &Arc<Self>, result: &FrontendResult) {
        for found in refs(result) {
            let Some(head) = found
                .definition()
                .as_deref()
                .and_then(llb::definition::head)
            else {
                continue;
            };
            let Some(scope) = self.find(found) else {
                continue;
            };
            let captured = match LazyRef::of(found) {
                Some(lazy) => lazy.captured().await.unwrap_or_default(),
                None => Capture::new(),
            };
            if let Some(request) = scope.request(&captured) {
                let id = self.requests.add(head, request);
                self.made.lock().records.push(id);
            }
        }
    }

    /// Forgets who asked for what; the build is over.
    pub(crate) fn release(&self) {
        let made = std::mem::take(&mut *self.made.lock());
        let mut all = self.requests.0.lock();
        for id in &made.records {
            all.1.remove(id);
        }
        drop(all);
        for inner in &made.below {
            inner.release();
        }
    }

    /// The scope whose result a ref is.
    fn find(self: &Arc<Self>, found: &Arc<dyn Ref>) -> Option<Arc<Self>> {
        let made = self.made.lock();
        if let Some(scope) = made.below.iter().find_map(|below| below.find(found)) {
            return Some(scope);
        }
        let own = made.results.iter().any(|r| address(r) == address(found));
        own.then(|| Arc::clone(self))
    }

    fn all(&self, refs: &mut Vec<Arc<dyn Ref>>, images: &mut Vec<Image>) {
        let made = self.made.lock();
        refs.extend(made.results.iter().cloned());
        images.extend(made.images.iter().cloned());
        for below in &made.below {
            below.all(refs, images);
        }
    }

    fn inputs(
        &self,
        inputs: &BTreeMap<String, Arc<pb::Definition>>,
    ) -> BTreeMap<String, RequestProvenance> {
        let found = |(name, definition): (&String, &Arc<pb::Definition>)| {
            let (request, told) = self.requests.find(definition)?;
            Some((name.clone(), request, told))
        };
        spent::fitting(inputs.iter().filter_map(found))
    }

    fn told(&self, asked: &Asked, captured: &Capture) -> RequestProvenance {
        let args = filter_args(&asked.opts);
        let mut out = RequestProvenance::new(&asked.frontend, args, captured.sources());
        if let Some(request) = &mut out.request {
            request.inputs = self.inputs(&asked.inputs);
        }
        out
    }

    /// The client's request, if it says something.
    fn root_request(&self, captured: &Capture) -> Option<RequestProvenance> {
        let root = self.root.as_ref().filter(|r| r.says_something())?;
        let out = self.told(root, captured);
        let empty =
            |r: &Parameters| r.frontend.is_empty() && r.args.is_empty() && r.inputs.is_empty();
        (!out.request.as_ref().is_some_and(empty)).then_some(out)
    }

    /// This scope's request.
    fn request(&self, captured: &Capture) -> Option<RequestProvenance> {
        let mut out = self.told(self.asked.as_ref()?, captured);
        let root = self.root_request(captured).filter(|root| *root != out);
        if let Some(request) = &mut out.request {
            request.root = root.map(Box::new);
        }
        Some(out)
    }

    /// What went into a ref that was computed, with this scope's request.
    async fn of_ref(&self, found: &Arc<dyn Ref>) -> Option<Capture> {
        let mut out = LazyRef::of(found)?.captured().await?;
        let Some(asked) = &self.asked else {
            return Some(out);
        };
        out.request.frontend = asked.frontend.clone();
        out.request.args = filter_args(&asked.opts);
        out.request.inputs = self.inputs(&asked.inputs);
        let own = self.told(asked, &out);
        let root = self.root_request(&out).filter(|root| *root != own);
        out.request.root = root.map(Box::new);
        Some(out)
    }

    /// What went into each result, by platform id; a single result has the id of its platform.
    pub(crate) async fn captures(
        self: &Arc<Self>,
        result: &FrontendResult,
        platforms: &[PlatformEntry],
    ) -> Result<BTreeMap<String, (Capture, Arc<dyn Ref>)>, Failure> {
        let of_result: Vec<usize> = refs(result)
            .chain(
                result
                    .attestations
                    .values()
                    .flatten()
                    .filter_map(|a| a.content.as_ref()),
            )
            .map(address)
            .collect();
        let mut out = BTreeMap::new();
        for platform in platforms {
            let id = platform.id.as_str();
            let (found, is_map) = match result.refs.get(id) {
                Some(found) => (found.as_ref(), true),
                None if result.refs.len() == 1 => {
                    (result.refs.values().next().and_then(Option::as_ref), true)
                }
                None => (result.single.as_ref(), false),
            };
            let Some(found) = found else { continue };
            let scope = self.find(found).unwrap_or_else(|| Arc::clone(self));
            let Some(mut capture) = scope.of_ref(found).await else {
                continue;
            };
            let (mut others, mut images) = (Vec::new(), Vec::new());
            scope.all(&mut others, &mut images);
            let mut seen = of_result.clone();
            for other in &others {
                let at = address(other);
                if seen.contains(&at) {
                    continue;
                }
                seen.push(at);
                if let Some(captured) = scope.of_ref(other).await {
                    capture.merge(&captured);
                }
            }
            if is_map {
                images = of_platform(images, &platform.platform, platforms);
            }
            images.into_iter().for_each(|image| capture.image(image));
            capture
                .settle()
                .map_err(|e| Failure::new(FailureKind::Unknown, e.to_string()))?;
            capture.target_platform = platform.platform.format_all();
            out.insert(id.to_owned(), (capture, Arc::clone(found)));
        }
        Ok(out)
    }
}

/// Leaves out images of other platforms, where an image was resolved for all platforms of the result.
fn of_platform(
    images: Vec<Image>,
    current: &oci::Platform,
    platforms: &[PlatformEntry],
) -> Vec<Image> {
    let everywhere = |reference: &str| {
        platforms.iter().all(|p| {
            let matcher = p.platform.matcher();
            images.iter().any(|image| {
                let fits = |have: &oci::Platform| matcher.matches(have);
                image.reference == reference && image.platform.as_ref().is_some_and(fits)
            })
        })
    };
    let keep = |image: &Image| match &image.platform {
        Some(have) if everywhere(&image.reference) => {
            have.os == current.os && have.architecture == current.architecture
        }
        _ => true,
    };
    let kept: Vec<bool> = images.iter().map(keep).collect();
    let mut kept = kept.into_iter();
    images
        .into_iter()
        .filter(|_| kept.next().unwrap_or(true))
        .collect()
}
