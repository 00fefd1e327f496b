//! The capture: the sources, secrets and requests of a result.

use llb::pb;
use llb::source_id::SourceId;
use oci::{Digest, Platform, Reference};

use crate::error::AttestError;
use crate::request::Parameters;
use crate::sources::{Blob, Git, Http, Image, IncompleteMaterial, Secret, Sources};
use crate::usage::{StepUsages, UsageValue};
use oci::address::redact;

/// The sources, secrets and requests that went into a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// The request.
    pub request: Parameters,
    /// The platform of the result, where it is known.
    pub target_platform: String,
    /// Whether there were ops whose sources are not known.
    pub incomplete: bool,
    sources: Sources,
    network: bool,
    /// Whether steps were on the proxy network, and which of their requests are no materials.
    proxy: Option<Vec<IncompleteMaterial>>,
    usages: StepUsages,
}

/// Sources, or secrets, of one kind that provenance lists; with more of them its materials are incomplete.
const MAX_SOURCES_PER_KIND: usize = 1024;

fn add_secret(to: &mut Vec<Secret>, id: &str, optional: bool) {
    let is_full = to.len() >= MAX_SOURCES_PER_KIND;
    match to.iter_mut().find(|secret| secret.id == id) {
        Some(secret) => secret.optional &= optional,
        // Looking for an id among the others takes time in proportion to their number, so the number is bounded.
        None if is_full => {}
        None => to.push(Secret {
            id: id.to_owned(),
            optional,
        }),
    }
}

fn push_bounded<T>(to: &mut Vec<T>, source: T, incomplete: &mut bool) {
    if to.len() < MAX_SOURCES_PER_KIND {
        to.push(source);
    } else {
        *incomplete = true;
    }
}

fn same_platform(a: Option<&Platform>, b: Option<&Platform>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            (&a.os, &a.architecture, &a.variant, &a.os_version)
                == (&b.os, &b.architecture, &b.variant, &b.os_version)
        }
        _ => false,
    }
}

impl Capture {
    /// A capture without sources.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The sources.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Adds the sources and secrets of an op; `pin` is the digest or commit that a source was resolved to.
    pub fn op(&mut self, op: &pb::Op, pin: &str) {
        match &op.op {
            Some(pb::op::Op::Source(source)) => self.source(source, op.platform.as_ref(), pin),
            Some(pb::op::Op::Exec(exec)) => self.exec(exec),
            Some(pb::op::Op::Build(_)) => self.incomplete = true,
            _ => {}
        }
    }

    fn exec(&mut self, exec: &pb::ExecOp) {
        for mount in &exec.mounts {
            if mount.mount_type == pb::MountType::Secret as i32 {
                let secret = mount.secret_opt.clone().unwrap_or_default();
                add_secret(&mut self.request.secrets, &secret.id, secret.optional);
            }
            if mount.mount_type == pb::MountType::Ssh as i32 {
                let agent = mount.ssh_opt.clone().unwrap_or_default();
                self.agent(&agent.id, agent.optional);
            }
        }
        for secret in &exec.secretenv {
            add_secret(&mut self.request.secrets, &secret.id, secret.optional);
        }
        self.network |= exec.network != pb::NetMode::None as i32;
    }

    fn agent(&mut self, id: &str, optional: bool) {
        let id = if id.is_empty() { "default" } else { id };
        add_secret(&mut self.request.ssh, id, optional);
    }

    fn source(&mut self, source: &pb::SourceOp, platform: Option<&pb::Platform>, pin: &str) {
        // The solver refuses a source that cannot be parsed, so it has no part in the result.
        let Ok(id) = SourceId::parse(source, platform) else {
            return;
        };
        match (id, Digest::parse(pin)) {
            (SourceId::Image(image), Ok(digest)) => self.image(Image {
                reference: image.reference(),
                platform: image.platform,
                digest,
                local: false,
            }),
            (SourceId::OciLayout(image), Ok(digest)) => self.image(Image {
                reference: image.reference(),
                platform: image.platform,
                digest,
                local: true,
            }),
            (SourceId::Http(http), Ok(digest)) => self.http(Http {
                url: redact(&http.url),
                digest,
            }),
            (SourceId::Blob(blob), Ok(digest)) => self.blob(Blob {
                reference: format!("{}@{}", blob.locator, blob.digest),
                digest,
                local: blob.oci_layout,
            }),
            (SourceId::Git(git), _) if !pin.is_empty() => {
                let mut url = git.remote;
                if !git.reference.is_empty() {
                    url = format!("{url}#{}", git.reference);
                }
                self.git(Git {
                    url: redact(&url),
                    commit: pin.to_owned(),
                    bundle: git.bundle,
                });
                for secret in [&git.auth_token_secret, &git.auth_header_secret] {
                    if !secret.is_empty() {
                        add_secret(&mut self.request.secrets, secret, true);
                    }
                }
                if !git.mount_ssh_sock.is_empty() {
                    self.agent(&git.mount_ssh_sock, true);
                }
            }
            (SourceId::Local(local), _) => self.local(local.name),
            _ => {}
        }
    }

    /// Adds an image.
    pub fn image(&mut self, image: Image) {
        let is_same = |other: &Image| {
            other.reference == image.reference
                && other.local == image.local
                && same_platform(other.platform.as_ref(), image.platform.as_ref())
        };
        if !self.sources.images.iter().any(is_same) {
            push_bounded(&mut self.sources.images, image, &mut self.incomplete);
        }
    }

    fn blob(&mut self, blob: Blob) {
        let is_same = |other: &Blob| other.reference == blob.reference && other.local == blob.local;
        if !self.sources.blobs.iter().any(is_same) {
            push_bounded(&mut self.sources.blobs, blob, &mut self.incomplete);
        }
    }

    fn git(&mut self, git: Git) {
        let is_same = |other: &Git| other.url == git.url && other.bundle == git.bundle;
        if !self.sources.git.iter().any(is_same) {
            push_bounded(&mut self.sources.git, git, &mut self.incomplete);
        }
    }

    fn http(&mut self, http: Http) {
        if !self.sources.http.iter().any(|other| other.url == http.url) {
            push_bounded(&mut self.sources.http, http, &mut self.incomplete);
        }
    }

    fn local(&mut self, name: String) {
        if !self.sources.local.contains(&name) {
            push_bounded(&mut self.sources.local, name, &mut self.incomplete);
        }
    }

    /// Adds what went into another result of the build.
    pub fn merge(&mut self, other: &Self) {
        let sources = other.sources.clone();
        sources.images.into_iter().for_each(|i| self.image(i));
        sources.blobs.into_iter().for_each(|b| self.blob(b));
        sources.git.into_iter().for_each(|g| self.git(g));
        sources.http.into_iter().for_each(|h| self.http(h));
        sources.local.into_iter().for_each(|l| self.local(l));
        for secret in &other.request.secrets {
            add_secret(&mut self.request.secrets, &secret.id, secret.optional);
        }
        for agent in &other.request.ssh {
            add_secret(&mut self.request.ssh, &agent.id, agent.optional);
        }
        self.network |= other.network;
        self.incomplete |= other.incomplete;
        self.usages.merge(&other.usages);
        if let Some(requests) = &other.proxy {
            self.proxy_network();
            for request in requests {
                self.incomplete_material(request.clone());
            }
        }
    }

    /// Adds what a step used, by the digest of its vertex.
    pub fn usage(&mut self, step: Digest, usage: UsageValue) {
        self.usages.insert(step, usage);
    }

    pub(crate) fn usages(&self) -> &StepUsages {
        &self.usages
    }

    /// Takes note that a step was on the proxy network.
    pub fn proxy_network(&mut self) {
        self.proxy.get_or_insert_default();
    }

    /// Adds what a step got by the proxy network.
    pub fn download(&mut self, url: &str, digest: Digest) {
        self.http(Http {
            url: url.to_owned(),
            digest,
        });
    }

    /// Adds a request of a step that is no material.
    pub fn incomplete_material(&mut self, request: IncompleteMaterial) {
        self.incomplete = true;
        let requests = self.proxy.get_or_insert_default();
        if requests.len() < MAX_SOURCES_PER_KIND && !requests.contains(&request) {
            requests.push(request);
        }
    }

    /// Whether steps were on the proxy network, and which of their requests are no materials.
    pub(crate) fn of_proxy_network(&self) -> Option<&[IncompleteMaterial]> {
        self.proxy.as_deref()
    }

    /// Leaves out images named by digest that are there by tag as well, and sorts all.
    pub fn settle(&mut self) -> Result<(), AttestError> {
        let parse = |text: &str| {
            Reference::parse(text).map_err(|source| AttestError::Reference {
                reference: text.to_owned(),
                source,
            })
        };
        let tagged = |r: &Reference| {
            let tag = r.tag.clone().unwrap_or_else(|| "latest".into());
            (r.name(), tag)
        };
        let mut by_tag = Vec::new();
        for image in &self.sources.images {
            let reference = parse(&image.reference)?;
            if reference.digest.is_none() {
                by_tag.push(tagged(&reference));
            }
        }
        let mut images = Vec::with_capacity(self.sources.images.len());
        for image in std::mem::take(&mut self.sources.images) {
            let reference = parse(&image.reference)?;
            if reference.digest.is_none() || !by_tag.contains(&tagged(&reference)) {
                images.push(image);
            }
        }
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        self.sources.images = images;
        self.sources
            .blobs
            .sort_by(|a, b| a.reference.cmp(&b.reference));
        self.sources.git.sort_by(|a, b| a.url.cmp(&b.url));
        self.sources.http.sort_by(|a, b| a.url.cmp(&b.url));
        self.sources.local.sort();
        if let Some(requests) = &mut self.proxy {
            requests.sort();
        }
        self.request.secrets.sort_by(|a, b| a.id.cmp(&b.id));
        self.request.ssh.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(())
    }

    pub(crate) fn used_network(&self) -> bool {
        self.network
    }
}
