//! Sources: images, client directories, OCI layouts, http.

use std::collections::BTreeMap;

use oci::{Digest, Platform, Reference, SessionId};

use super::BuildError;
use super::encode;
use super::marshal::Marshaller;
use super::state::State;
use super::vertex::{Constraints, Kind, Marshalled, Output, Vertex};
use crate::pb;

#[derive(Debug)]
pub(crate) struct SourceOp {
    identifier: String,
    attrs: BTreeMap<String, String>,
}

/// Where an image may be taken from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResolveMode {
    /// The daemon decides.
    #[default]
    Default,
    /// The registry is asked.
    ForcePull,
    /// What is there is taken.
    PreferLocal,
}

impl ResolveMode {
    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::ForcePull => "pull",
            Self::PreferLocal => "local",
        }
    }
}

/// How to take an image.
#[derive(Debug, Clone, Default)]
pub struct ImageOpts {
    /// Where from.
    pub resolve_mode: ResolveMode,
    /// `internal` for images the user did not ask for.
    pub record_type: String,
    /// Digest it must have.
    pub checksum: Option<Digest>,
}

/// A state from a source op. `platform` is the state's too.
pub fn source(
    identifier: &str,
    attrs: BTreeMap<String, String>,
    constraints: Constraints,
) -> State {
    let platform = constraints.platform.clone();
    let op = SourceOp {
        identifier: identifier.to_owned(),
        attrs,
    };
    let vertex = Vertex::new(Kind::Source(op), constraints);
    State::new(Some(Output::new(vertex, 0, platform)))
}

/// An image from a registry.
pub fn image(
    reference: &str,
    opts: &ImageOpts,
    mut constraints: Constraints,
) -> Result<State, BuildError> {
    let reference = Reference::parse(reference)
        .map_err(BuildError::Reference)?
        .with_default_tag();
    constraints.cap("source.image");
    let mut attrs = BTreeMap::new();
    if opts.resolve_mode != ResolveMode::Default {
        attrs.insert(
            "image.resolvemode".into(),
            opts.resolve_mode.as_str().into(),
        );
        if opts.resolve_mode == ResolveMode::ForcePull {
            constraints.cap("source.image.resolvemode");
        }
    }
    if !opts.record_type.is_empty() {
        attrs.insert("image.recordtype".into(), opts.record_type.clone());
    }
    if let Some(checksum) = &opts.checksum {
        attrs.insert("image.checksum".into(), checksum.to_string());
        constraints.cap("source.image.checksum");
    }
    Ok(source(
        &format!("docker-image://{reference}"),
        attrs,
        constraints,
    ))
}

/// An image in a client's OCI layout.
#[derive(Debug, Clone, Default)]
pub struct OciLayoutOpts {
    /// Session that serves it.
    pub session_id: SessionId,
    /// Which of its stores.
    pub store_id: String,
    /// Most layers to take.
    pub layer_limit: Option<u32>,
}

/// An image in a client's OCI layout, `name@digest`.
pub fn oci_layout(reference: &str, opts: &OciLayoutOpts, mut constraints: Constraints) -> State {
    let mut attrs = BTreeMap::new();
    put(&mut attrs, "oci.session", opts.session_id.as_str());
    put(&mut attrs, "oci.store", &opts.store_id);
    if let Some(limit) = opts.layer_limit {
        attrs.insert("oci.layerlimit".into(), limit.to_string());
    }
    constraints.cap("source.ocilayout");
    source(&format!("oci-layout://{reference}"), attrs, constraints)
}

/// What to take of a client's directory.
#[derive(Debug, Clone, Default)]
pub struct LocalOpts {
    /// Session that has it.
    pub session_id: SessionId,
    /// Only what matches.
    pub include: Vec<String>,
    /// Not what matches.
    pub exclude: Vec<String>,
    /// These paths and what symlinks in them lead to.
    pub follow_paths: Vec<String>,
    /// Which earlier copy may be updated.
    pub shared_key_hint: String,
    /// Send files even when their metadata is unchanged.
    pub differ_none: bool,
}

/// A client's directory.
pub fn local(name: &str, opts: &LocalOpts, mut constraints: Constraints) -> State {
    let mut attrs = BTreeMap::new();
    if put(&mut attrs, "local.session", opts.session_id.as_str()) {
        constraints.cap("source.local.sessionid");
    }
    if put_list(&mut attrs, "local.includepattern", &opts.include) {
        constraints.cap("source.local.includepatterns");
    }
    if put_list(&mut attrs, "local.followpaths", &opts.follow_paths) {
        constraints.cap("source.local.followpaths");
    }
    if put_list(&mut attrs, "local.excludepatterns", &opts.exclude) {
        constraints.cap("source.local.excludepatterns");
    }
    if put(&mut attrs, "local.sharedkeyhint", &opts.shared_key_hint) {
        constraints.cap("source.local.sharedkeyhint");
    }
    if opts.differ_none {
        attrs.insert("local.differ".into(), "none".into());
    }
    constraints.cap("source.local");
    source(&format!("local://{name}"), attrs, constraints)
}

/// How to fetch over http.
#[derive(Debug, Clone, Default)]
pub struct HttpOpts {
    /// Digest it must have.
    pub checksum: Option<Digest>,
    /// Name of the file.
    pub filename: String,
}

/// A file from the web.
pub fn http(url: &str, opts: &HttpOpts, mut constraints: Constraints) -> State {
    let mut attrs = BTreeMap::new();
    if let Some(checksum) = &opts.checksum {
        attrs.insert("http.checksum".into(), checksum.to_string());
        constraints.cap("source.http.checksum");
    }
    put(&mut attrs, "http.filename", &opts.filename);
    constraints.cap("source.http");
    source(url, attrs, constraints)
}

fn put(attrs: &mut BTreeMap<String, String>, key: &str, value: &str) -> bool {
    if value.is_empty() {
        return false;
    }
    attrs.insert(key.to_owned(), value.to_owned());
    true
}

fn put_list(attrs: &mut BTreeMap<String, String>, key: &str, values: &[String]) -> bool {
    if values.is_empty() {
        return false;
    }
    let json = gostd::json::to_vec(values);
    attrs.insert(key.to_owned(), String::from_utf8_lossy(&json).into_owned());
    true
}

impl SourceOp {
    pub(crate) fn marshal(&self, m: &Marshaller<'_>, constraints: &Constraints) -> Marshalled {
        let mut attrs = self.attrs.clone();
        let mut caps = Vec::new();
        if self.identifier.starts_with("local://") && !attrs.contains_key("local.session") {
            let own = &constraints.local_unique_id;
            let unique = if own.is_empty() {
                &m.options.local_unique_id
            } else {
                own
            };
            attrs.insert("local.unique".into(), unique.clone());
            caps.push("source.local.unique");
        }
        let specific = self.identifier.starts_with("docker-image://")
            || self.identifier.starts_with("oci-layout://");
        let platform: Option<&Platform> =
            specific.then(|| constraints.platform.as_ref().unwrap_or(&m.options.platform));
        let op = pb::op::Op::Source(pb::SourceOp {
            identifier: self.identifier.clone(),
            attrs,
        });
        encode::finish(Vec::new(), op, platform, constraints, &caps)
    }
}
