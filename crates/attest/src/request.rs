//! The request as provenance has it: the frontend, its options, and the requests that made its inputs.

use std::collections::BTreeMap;

use llb::git_url::GitRef;
use serde::Serialize;

use crate::sources::{Secret, Sources};
use oci::address::redact;

/// Digests by algorithm.
pub(crate) type DigestSet = BTreeMap<String, String>;

/// The source of the build file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ConfigSource {
    /// The build context, if it is one that has an address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Digests of the source, if it is one of the materials.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: DigestSet,
    /// The build file in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Local {
    pub(crate) name: String,
}

/// The frontend of a request and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// The frontend; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub frontend: String,
    /// The options of the frontend, without those that do not affect the result.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// Secrets that steps were given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// Agents that steps were given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<Secret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) locals: Vec<Local>,
    /// The requests that made the inputs, as far as this daemon made them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, RequestProvenance>,
    /// The client's request, if the frontend replaced it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Box<RequestProvenance>>,
    #[serde(
        rename = "compatibilityVersion",
        skip_serializing_if = "crate::op_json::is_zero"
    )]
    pub(crate) compatibility_version: i64,
}

/// A request and where its build file came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RequestProvenance {
    /// The build file.
    #[serde(rename = "configSource")]
    pub config_source: ConfigSource,
    /// The frontend and its options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Parameters>,
}

/// Written in place of a credential.
const MASK: &str = "xxxxx";
/// Words in keys whose values are credentials.
const CREDENTIALS: [&str; 8] = [
    "token",
    "secret",
    "password",
    "passwd",
    "access_key",
    "account_key",
    "credential",
    "private_key",
];

/// Whether the value of an attribute is a credential, such as `secret_access_key` of a cache.
#[must_use]
pub fn is_credential(key: &str) -> bool {
    let key = key.to_lowercase();
    CREDENTIALS.iter().any(|name| key.contains(name))
}

/// Options that affect the result, with credentials masked.
///
/// Build arguments and labels are kept whatever their names are: the image's history has them as well.
#[must_use]
pub fn filter_args(opts: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const HOST_ONLY: &[&str] = &[
        "cgroup-parent",
        "image-resolve-mode",
        "platform",
        "cache-imports",
    ];
    let key = opts.get("contextkey").filter(|k| !k.is_empty());
    let context = key.map_or("context", String::as_str);
    opts.iter()
        .filter(|(key, _)| !HOST_ONLY.contains(&key.as_str()) && !key.starts_with("attest:"))
        .map(|(key, value)| {
            let is_context = key == context || key.starts_with("context:");
            let is_public = key.starts_with("build-arg:") || key.starts_with("label:");
            let value = if !is_public && !is_context && is_credential(key) {
                MASK.to_owned()
            } else if is_context {
                redact(value)
            } else {
                oci::address::redact_text(value).into_owned()
            };
            (key.clone(), value)
        })
        .collect()
}

impl RequestProvenance {
    /// Moves the context and the build file from the options to the config source.
    #[must_use]
    pub fn new(frontend: &str, mut args: BTreeMap<String, String>, sources: &Sources) -> Self {
        let set = |key: &str| args.get(key).is_some_and(|v| !v.is_empty());
        let context = match args.get("contextkey") {
            Some(key) if !key.is_empty() => key.clone(),
            _ if set("input:context") => "input:context".to_owned(),
            _ => "context".to_owned(),
        };
        let mut config_source = ConfigSource::default();
        if let Some(uri) = args.get(&context).filter(|v| !v.is_empty()).cloned() {
            args.remove(&context);
            let (uri, digest) = find_source(sources, &uri).unwrap_or((uri, DigestSet::new()));
            config_source.uri = redact(&uri);
            config_source.digest = digest;
        }
        if let Some(path) = args.get("filename").filter(|v| !v.is_empty()).cloned() {
            args.remove("filename");
            config_source.path = path;
        }
        Self {
            config_source,
            request: Some(Parameters {
                frontend: frontend.to_owned(),
                args,
                ..Parameters::default()
            }),
        }
    }
}

/// The source that an address names, as the address writes it, and its digests.
fn find_source(sources: &Sources, uri: &str) -> Option<(String, DigestSet)> {
    let address = git_address(uri, false).unwrap_or_else(|| uri.to_owned());
    if let Some(git) = sources.git.iter().find(|git| git.url == address) {
        let shown_address = git_address(uri, true).unwrap_or_else(|| uri.to_owned());
        return Some((shown_address, commit_digests(&git.commit)));
    }
    let http = sources.http.iter().find(|http| http.url == address)?;
    let digest = &http.digest;
    let digests = BTreeMap::from([(digest.algorithm().to_owned(), digest.hex().to_owned())]);
    Some((http.url.clone(), digests))
}

pub(crate) fn commit_digests(commit: &str) -> DigestSet {
    let name = if commit.len() == 64 { "sha256" } else { "sha1" };
    BTreeMap::from([(name.to_owned(), commit.to_owned())])
}

/// `remote#ref[:subdir]`; `None` if the text does not name a repository.
fn git_address(text: &str, with_subdir: bool) -> Option<String> {
    let git = GitRef::parse(text).ok()??;
    let mut out = git.remote;
    let subdir = gostd::path::clean(&format!("/{}", git.subdir));
    let subdir = subdir.trim_start_matches('/');
    let subdir = if with_subdir { subdir } else { "" };
    if !git.reference.is_empty() || !subdir.is_empty() {
        out.push('#');
        out.push_str(&git.reference);
    }
    if !subdir.is_empty() {
        out.push(':');
        out.push_str(subdir);
    }
    Some(out)
}

impl Parameters {
    /// Removes what minimal provenance does not contain; returns whether build arguments or labels were among it.
    pub(crate) fn scrub(&mut self) -> bool {
        let before = self.args.len();
        self.args
            .retain(|key, _| !key.starts_with("build-arg:") && !key.starts_with("label:"));
        let mut incomplete = self.args.len() != before;
        self.secrets.clear();
        self.ssh.clear();
        let root = self.root.iter_mut().filter_map(|r| r.request.as_mut());
        let inputs = self.inputs.values_mut().filter_map(|i| i.request.as_mut());
        for request in inputs.chain(root) {
            incomplete |= request.scrub();
        }
        incomplete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_attributes_are_masked() {
        let args = |key: &str, value: &str| {
            filter_args(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
        };
        for key in [
            "secret_access_key",
            "access_key_id",
            "Session_Token",
            "token",
            "cache-imports",
        ] {
            let text = format!("{:?}", args(key, "canary"));
            assert!(!text.contains("canary"), "{text}");
        }
        for key in ["target", "build-arg:TOKEN_TYPE", "label:secret"] {
            assert_eq!(args(key, "x").get(key).map(String::as_str), Some("x"));
        }
    }
}
