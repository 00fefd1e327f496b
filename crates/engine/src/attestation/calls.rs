//! Calls of frontends in one build: the request, its results and its sources.
//!
//! ```text
//!   the client's request ── CallScope (root)
//!                             ├─ results of definitions
//!                             └─ CallScope (a frontend's request)
//!                                  ├─ results, the frontend's own last
//!                                  └─ CallScope …
//! ```
//!
//! A scope's requests are known to the whole daemon while its build runs, by the digest of what they gave: another
//! request that is handed the result as an input tells where it came from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use attest::{Capture, Image, Parameters, RequestProvenance, filter_args};
use exporter::PlatformEntry;
use frontend::bridge::{ResolveOpts, SourceMeta};
use frontend::{FrontendCall, FrontendResult, Ref};
use llb::pb;
use oci::Digest;
use parking_lot::Mutex;

use super::limits::{self, Budget, Nested};
use crate::api::{Failure, SolveRequest};
use crate::reference::{LazyRef, refs};

/// The call of a client's request; both names of the built-in frontend give the same call.
pub(crate) fn call_by_client(request: &SolveRequest) -> FrontendCall {
    let (frontend, opts) = (request.input.frontend_name(), &request.frontend_opts);
    let mut call = FrontendCall {
        frontend: frontend.to_owned(),
        opts: opts.clone(),
        inputs: request.frontend_inputs.clone(),
    };
    let replaces_frontend =
        |key: &String| key == "context:dockerfile.v0" || key.starts_with("context:dockerfile.v0::");
    let builtin = opts.get("source").is_some_and(|s| s == "dockerfile.v0");
    if frontend == "gateway.v0" && builtin && !opts.keys().any(replaces_frontend) {
        call.opts.remove("source");
        call.frontend = "dockerfile.v0".into();
    }
    call
}

fn is_not_empty(call: &FrontendCall) -> bool {
    *call != FrontendCall::default()
}

struct Registered {
    head: Digest,
    request: Arc<RequestProvenance>,
    nested: Nested,
}

/// The requests of all running builds, by the definition of their results.
#[derive(Default)]
pub(crate) struct Calls(Mutex<(u64, HashMap<u64, Registered>)>);

impl Calls {
    fn add(&self, head: Digest, mut request: RequestProvenance) -> u64 {
        // The request that is handed the result has a root of its own.
        if let Some(request) = &mut request.request {
            request.root = None;
        }
        let registered = Registered {
            head,
            nested: Nested::of(&request),
            request: Arc::new(request),
        };
        let mut all = self.0.lock();
        all.0 += 1;
        let id = all.0;
        all.1.insert(id, registered);
        id
    }

    /// The request whose result a definition is; none if several different requests gave it.
    fn find(&self, definition: &pb::Definition) -> Option<(Arc<RequestProvenance>, Nested)> {
        let head = llb::definition::head(definition)?;
        let all = self.0.lock();
        let mut only: Option<&Registered> = None;
        for registered in all.1.values().filter(|registered| registered.head == head) {
            if only.is_some_and(|have| have.request != registered.request) {
                return None;
            }
            only = Some(registered);
        }
        only.map(|registered| (Arc::clone(&registered.request), registered.nested))
    }
}

/// A call with its results, its sources and the calls it made.
pub(crate) struct CallScope {
    call: Option<FrontendCall>,
    root: Option<Arc<FrontendCall>>,
    calls: Arc<Calls>,
    /// Limits of the whole build.
    budget: Arc<Budget>,
    /// Number of frontends that called each other.
    depth: usize,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    images: Vec<Image>,
    results: Vec<Arc<dyn Ref>>,
    below: Vec<Arc<CallScope>>,
    records: Vec<u64>,
}

/// Address of a ref, by which refs are told apart.
fn address(reference: &Arc<dyn Ref>) -> usize {
    Arc::as_ptr(reference).cast::<()>() as usize
}

impl CallScope {
    /// The scope of a build.
    pub(crate) fn root(call: FrontendCall, calls: &Arc<Calls>) -> Arc<Self> {
        Arc::new(Self {
            call: None,
            root: Some(Arc::new(call)),
            calls: Arc::clone(calls),
            budget: Arc::default(),
            depth: 0,
            answers: Mutex::default(),
        })
    }

    /// The scope of a request that is made in this one.
    pub(crate) fn inner(&self, call: FrontendCall) -> Result<Arc<Self>, Failure> {
        limits::check_depth(self.depth + 1)?;
        let inputs = call.inputs.values().map(|d| limits::of_definition(d));
        self.budget
            .spend(limits::of_options(&call.opts) + inputs.sum::<usize>())?;
        let root = self.root.clone().filter(|r| is_not_empty(r));
        let root = root.or_else(|| {
            let own = self.call.as_ref()?;
            Some(Arc::new(own.clone()))
        });
        Ok(Arc::new(Self {
            call: Some(call),
            root,
            calls: Arc::clone(&self.calls),
            budget: Arc::clone(&self.budget),
            depth: self.depth + 1,
            answers: Mutex::default(),
        }))
    }

    /// Counts a definition that is about to be solved.
    pub(crate) fn spend(&self, definition: &pb::Definition) -> Result<(), Failure> {
        self.budget.spend(limits::of_definition(definition))
    }

    /// Records a result of this scope.
    pub(crate) fn add_results(&self, result: &FrontendResult) {
        self.answers.lock().results.extend(refs(result).cloned());
    }

    /// Records a call that was answered in this scope.
    pub(crate) fn answered(&self, inner: Arc<Self>) {
        self.answers.lock().below.push(inner);
    }

    /// Records a source that was resolved.
    pub(crate) fn resolved(&self, opts: &ResolveOpts, meta: &SourceMeta) {
        let Some(image) = &meta.image else { return };
        let identifier = meta.op.identifier.as_str();
        let reference = identifier.strip_prefix("docker-image://");
        let layout = identifier.strip_prefix("oci-layout://");
        let of_image = opts.image.as_ref().and_then(|o| o.platform.clone());
        let of_layout = || opts.oci_layout.as_ref().and_then(|o| o.platform.clone());
        self.answers.lock().images.push(Image {
            reference: reference.or(layout).unwrap_or(identifier).to_owned(),
            platform: of_image.or_else(of_layout),
            digest: image.digest.clone(),
            local: reference.is_none(),
        });
    }

    /// Makes the results known to other requests, which may be handed them as inputs.
    pub(crate) async fn register(self: &Arc<Self>, result: &FrontendResult) {
        for reference in refs(result) {
            let Some(head) = reference
                .definition()
                .as_deref()
                .and_then(llb::definition::head)
            else {
                continue;
            };
            let Some(scope) = self.find(reference) else {
                continue;
            };
            let captured = match LazyRef::of(reference) {
                Ok(lazy) => lazy.captured().await.unwrap_or_default(),
                Err(_) => Capture::new(),
            };
            if let Some(request) = scope.request(&captured) {
                let id = self.calls.add(head, request);
                self.answers.lock().records.push(id);
            }
        }
    }

    /// Forgets the calls of the build, which has ended.
    pub(crate) fn release(&self) {
        let answers = std::mem::take(&mut *self.answers.lock());
        let mut all = self.calls.0.lock();
        for id in &answers.records {
            all.1.remove(id);
        }
        drop(all);
        for inner in &answers.below {
            inner.release();
        }
    }

    /// The scope whose result a ref is.
    fn find(self: &Arc<Self>, reference: &Arc<dyn Ref>) -> Option<Arc<Self>> {
        let answers = self.answers.lock();
        if let Some(scope) = answers.below.iter().find_map(|below| below.find(reference)) {
            return Some(scope);
        }
        let own = answers
            .results
            .iter()
            .any(|r| address(r) == address(reference));
        own.then(|| Arc::clone(self))
    }

    fn all(&self, refs: &mut Vec<Arc<dyn Ref>>, images: &mut Vec<Image>) {
        let answers = self.answers.lock();
        refs.extend(answers.results.iter().cloned());
        images.extend(answers.images.iter().cloned());
        for below in &answers.below {
            below.all(refs, images);
        }
    }

    fn inputs(
        &self,
        inputs: &BTreeMap<String, Arc<pb::Definition>>,
    ) -> BTreeMap<String, RequestProvenance> {
        let nested = |(name, definition): (&String, &Arc<pb::Definition>)| {
            let (request, size) = self.calls.find(definition)?;
            Some((name.clone(), request, size))
        };
        limits::fitting(inputs.iter().filter_map(nested))
    }

    fn describe(&self, call: &FrontendCall, captured: &Capture) -> RequestProvenance {
        let args = filter_args(&call.opts);
        let mut out = RequestProvenance::new(&call.frontend, args, captured.sources());
        if let Some(request) = &mut out.request {
            request.inputs = self.inputs(&call.inputs);
        }
        out
    }

    /// The client's request, if it names a frontend or options.
    fn root_request(&self, captured: &Capture) -> Option<RequestProvenance> {
        let root = self.root.as_ref().filter(|r| is_not_empty(r))?;
        let out = self.describe(root, captured);
        let empty =
            |r: &Parameters| r.frontend.is_empty() && r.args.is_empty() && r.inputs.is_empty();
        (!out.request.as_ref().is_some_and(empty)).then_some(out)
    }

    /// This scope's request.
    fn request(&self, captured: &Capture) -> Option<RequestProvenance> {
        let mut out = self.describe(self.call.as_ref()?, captured);
        let root = self.root_request(captured).filter(|root| *root != out);
        if let Some(request) = &mut out.request {
            request.root = root.map(Box::new);
        }
        Some(out)
    }

    /// What went into a computed ref, together with this scope's request.
    async fn of_ref(&self, reference: &Arc<dyn Ref>) -> Option<Capture> {
        let mut out = LazyRef::of(reference).ok()?.captured().await?;
        let Some(call) = &self.call else {
            return Some(out);
        };
        out.request.frontend = call.frontend.clone();
        out.request.args = filter_args(&call.opts);
        out.request.inputs = self.inputs(&call.inputs);
        let own = self.describe(call, &out);
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
            let (reference, is_map) = match result.refs.get(id) {
                Some(reference) => (reference.as_ref(), true),
                None if result.refs.len() == 1 => {
                    (result.refs.values().next().and_then(Option::as_ref), true)
                }
                None => (result.single.as_ref(), false),
            };
            let Some(reference) = reference else { continue };
            let scope = self.find(reference).unwrap_or_else(|| Arc::clone(self));
            let Some(mut capture) = scope.of_ref(reference).await else {
                continue;
            };
            let (mut scope_refs, mut images) = (Vec::new(), Vec::new());
            scope.all(&mut scope_refs, &mut images);
            let mut merged = of_result.clone();
            for scope_ref in &scope_refs {
                let at = address(scope_ref);
                if merged.contains(&at) {
                    continue;
                }
                merged.push(at);
                if let Some(captured) = scope.of_ref(scope_ref).await {
                    capture.merge(&captured);
                }
            }
            if is_map {
                images = of_platform(images, &platform.platform, platforms);
            }
            images.into_iter().for_each(|image| capture.image(image));
            capture.settle()?;
            capture.target_platform = platform.platform.format_all();
            out.insert(id.to_owned(), (capture, Arc::clone(reference)));
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
    let is_kept: Vec<bool> = images.iter().map(keep).collect();
    let mut is_kept = is_kept.into_iter();
    images
        .into_iter()
        .filter(|_| is_kept.next().unwrap_or(true))
        .collect()
}
