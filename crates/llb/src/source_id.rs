//! Source identifiers and their attributes, typed.
//!
//! The wire has `scheme://…` and a map of texts; what is not understood in the map is left alone, as BuildKit does, so
//! that newer clients can say more than we know.

use std::collections::BTreeMap;

use oci::{Digest, ErrorKind, Platform, SessionId};
use serde::de::DeserializeOwned;

use crate::build::vertex::platform_from_pb;
use crate::git_url::{GitUrl, GitUrlError};
use crate::pb;
use gostd::path;
use gostd::strconv::quote;

/// Why a source identifier or its attributes do not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceIdError {
    /// No `://`.
    #[error("failed to parse {0}: invalid")]
    Malformed(String),
    /// The scheme does not exist.
    #[error("unknown scheme {0}: not found")]
    UnknownScheme(String),
    /// An invalid reference.
    #[error("invalid reference {}", quote(.0))]
    Reference(String),
    /// A reference without tag or digest.
    #[error("object required")]
    ObjectRequired,
    /// An attribute has a value it cannot have.
    #[error("invalid {name} {value}")]
    Attr {
        /// The attribute in words.
        name: &'static str,
        /// Value of the attribute.
        value: String,
    },
    /// The git URL does not parse.
    #[error("{0}")]
    GitUrl(#[from] GitUrlError),
    /// The URL of the attribute is not the one of the identifier.
    #[error("git.fullurl does not match source identifier")]
    GitUrlMismatch,
    /// Git would read the reference as an option.
    #[error("invalid git ref {}", quote(.0))]
    GitRef(String),
    /// Attributes that exclude each other.
    #[error("{0}")]
    Conflict(&'static str),
}

impl SourceIdError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed(_)
            | Self::UnknownScheme(_)
            | Self::Reference(_)
            | Self::ObjectRequired
            | Self::Attr { .. }
            | Self::GitUrlMismatch
            | Self::GitRef(_)
            | Self::Conflict(_) => ErrorKind::Invalid,
            Self::GitUrl(error) => error.kind(),
        }
    }
}

/// A parsed source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceId {
    /// An image in a registry.
    Image(ImageSource),
    /// An image in a client's OCI layout.
    OciLayout(OciLayoutSource),
    /// One blob of a registry or of a client's OCI layout.
    Blob(BlobSource),
    /// A git repository.
    Git(GitSource),
    /// A client's directory.
    Local(LocalSource),
    /// A file from the web.
    Http(HttpSource),
}

/// An image of a registry, and the options of resolving it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSource {
    /// `host/path`.
    pub locator: String,
    /// `tag`, `tag@digest` or `@digest`.
    pub object: String,
    /// Platform whose manifest is taken from an index; none for the worker's.
    pub platform: Option<Platform>,
    /// `default`, `pull` or `local`.
    pub resolve_mode: String,
    /// `regular`, `internal` or `frontend`.
    pub record_type: String,
    /// Largest number of layers that are taken; none for all.
    pub layer_limit: Option<usize>,
    /// Digest that the image must have.
    pub checksum: Option<Digest>,
}

impl ImageSource {
    /// The whole reference.
    pub fn reference(&self) -> String {
        join_reference(&self.locator, &self.object)
    }

    /// The digest of the reference, if it has one.
    pub fn digest(&self) -> Option<Digest> {
        Digest::parse(self.object.split_once('@')?.1).ok()
    }
}

/// An image in a client's OCI layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciLayoutSource {
    /// `host/path`.
    pub locator: String,
    /// `tag`, `tag@digest` or `@digest`.
    pub object: String,
    /// Platform whose manifest is taken from an index; none for the worker's.
    pub platform: Option<Platform>,
    /// Session that serves the layout; empty for any of the build's.
    pub session_id: SessionId,
    /// Name of the store in that session.
    pub store_id: String,
    /// Largest number of layers that are taken; none for all.
    pub layer_limit: Option<usize>,
}

impl OciLayoutSource {
    /// The whole reference.
    pub fn reference(&self) -> String {
        join_reference(&self.locator, &self.object)
    }

    /// The digest of the reference, if it has one.
    pub fn digest(&self) -> Option<Digest> {
        Digest::parse(self.object.split_once('@')?.1).ok()
    }
}

/// One blob as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobSource {
    /// Whether the blob is in a client's OCI layout instead of a registry.
    pub oci_layout: bool,
    /// `host/path`.
    pub locator: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Session that serves the layout; empty for any of the build's.
    pub session_id: SessionId,
    /// Name of the store in that session.
    pub store_id: String,
    /// Name, mode and owner of the file.
    pub file: FileAttrs,
}

/// Name, mode and owner of a file that a source makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileAttrs {
    /// File name; empty for one that follows from the source.
    pub filename: String,
    /// Permission bits; zero for the default.
    pub perm: i64,
    /// User id of the owner.
    pub uid: i64,
    /// Group id of the owner.
    pub gid: i64,
}

/// A git repository. The booleans are independent options of the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitSource {
    /// URL that is passed to git.
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Subdirectory of the repository; empty for the root.
    pub subdir: String,
    /// Commit that the reference must resolve to, or a prefix of it; empty for any.
    pub checksum: String,
    /// Whether `.git` is kept.
    pub keep_git_dir: bool,
    /// Id of the secret that has a token.
    pub auth_token_secret: String,
    /// Id of the secret that has an `Authorization` header.
    pub auth_header_secret: String,
    /// Id of the ssh agent; empty for none.
    pub mount_ssh_sock: String,
    /// Contents of ssh's `known_hosts`.
    pub known_ssh_hosts: String,
    /// Whether submodules are left out.
    pub skip_submodules: bool,
    /// Modification time of files: `checkout` or `commit`; empty for the default.
    pub mtime: String,
    /// Whether git shows its advice.
    pub advice: bool,
    /// Whether `checksum` is fetched without resolving the reference first.
    pub fetch_by_commit: bool,
    /// Address of a blob that has a bundle of the repository; empty to fetch from `remote`.
    pub bundle: String,
    /// Session that serves the bundle.
    pub bundle_session_id: SessionId,
    /// Name of the bundle's store in that session.
    pub bundle_store_id: String,
    /// Whether the result is a bundle instead of a tree.
    pub checkout_bundle: bool,
    /// Signature rules for the commit.
    pub verify: Option<GitVerify>,
}

/// Signature rules of a git source. The booleans are independent options of the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitVerify {
    /// Accepted public keys, as text.
    pub pub_key: String,
    /// Whether expired keys are refused.
    pub reject_expired: bool,
    /// Whether the reference must be a signed tag.
    pub require_signed_tag: bool,
    /// Whether the commit's signature is checked even if the tag has one.
    pub ignore_signed_tag: bool,
}

/// A client's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalSource {
    /// Name of the directory in the session.
    pub name: String,
    /// Session that has the directory; empty for any of the build's.
    pub session_id: SessionId,
    /// Patterns of files to take; empty for all.
    pub include: Vec<String>,
    /// Patterns of files to leave out.
    pub exclude: Vec<String>,
    /// Paths to take, with the targets of their symlinks; empty for all.
    pub follow_paths: Vec<String>,
    /// Key of the earlier copy that the transfer may update.
    pub shared_key_hint: String,
    /// Whether files are sent even if their metadata is unchanged.
    pub differ_none: bool,
    /// Whether only metadata is transferred.
    pub metadata_only: bool,
    /// Patterns of files that are transferred with contents all the same.
    pub metadata_exceptions: Vec<String>,
}

/// A file from the web.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpSource {
    /// The URL.
    pub url: String,
    /// Digest that the file must have.
    pub checksum: Option<Digest>,
    /// Name, mode and owner of the file.
    pub file: FileAttrs,
    /// Id of the secret that has an `Authorization` header.
    pub auth_header_secret: String,
    /// Headers to send, sorted by canonical name.
    pub headers: Vec<(String, String)>,
    /// Public key and detached signature to check with.
    pub signature: Option<(String, String)>,
}

impl SourceId {
    /// Parses a source op.
    pub fn parse(
        op: &pb::SourceOp,
        platform: Option<&pb::Platform>,
    ) -> Result<Self, SourceIdError> {
        let (scheme, rest) = op
            .identifier
            .split_once("://")
            .ok_or_else(|| SourceIdError::Malformed(op.identifier.clone()))?;
        let attrs = Attrs(&op.attrs);
        let platform = platform.map(platform_from_pb);
        match scheme {
            "docker-image" => {
                let (locator, object) = split_reference(rest)?;
                Ok(Self::Image(ImageSource {
                    locator,
                    object,
                    platform,
                    resolve_mode: attrs.one_of(
                        "image.resolvemode",
                        "resolvemode:",
                        &["default", "pull", "local"],
                    )?,
                    record_type: attrs.one_of(
                        "image.recordtype",
                        "record type",
                        &["regular", "internal", "frontend"],
                    )?,
                    layer_limit: attrs.layer_limit("image.layerlimit")?,
                    checksum: attrs.digest("image.checksum", "image checksum")?,
                }))
            }
            "oci-layout" => {
                let (locator, object) = split_reference(rest)?;
                Ok(Self::OciLayout(OciLayoutSource {
                    locator,
                    object,
                    platform,
                    session_id: attrs.text("oci.session").into(),
                    store_id: attrs.text("oci.store"),
                    layer_limit: attrs.layer_limit("oci.layerlimit")?,
                }))
            }
            "docker-image+blob" | "oci-layout+blob" => {
                let (locator, object) = split_reference(rest)?;
                let digest = object
                    .strip_prefix('@')
                    .and_then(|digest| Digest::parse(digest).ok());
                Ok(Self::Blob(BlobSource {
                    oci_layout: scheme == "oci-layout+blob",
                    locator,
                    digest: digest.ok_or_else(|| SourceIdError::Reference(rest.to_owned()))?,
                    session_id: attrs.text("oci.session").into(),
                    store_id: attrs.text("oci.store"),
                    file: attrs.file()?,
                }))
            }
            "git" => Ok(Self::Git(git(rest, &attrs)?)),
            "local" => Ok(Self::Local(local(rest, &attrs)?)),
            "http" | "https" => Ok(Self::Http(http(&op.identifier, &attrs)?)),
            other => Err(SourceIdError::UnknownScheme(other.to_owned())),
        }
    }
}

fn git(rest: &str, attrs: &Attrs<'_>) -> Result<GitSource, SourceIdError> {
    let id = GitUrl::parse(&GitUrl::with_transport(rest))?;
    let mut remote = id.remote.clone();
    if let Some(full) = attrs.get("git.fullurl") {
        let full = GitUrl::parse(&GitUrl::with_transport(full))?;
        if !full.same_repository(&id) {
            return Err(SourceIdError::GitUrlMismatch);
        }
        remote = full.remote;
    }
    let flag = |name| attrs.get(name) == Some("true");
    let signed = [
        "git.sig.pubkey",
        "git.sig.rejectexpired",
        "git.sig.requiresignedtag",
        "git.sig.ignoresignedtag",
    ];
    let verify = signed
        .iter()
        .any(|name| attrs.get(name).is_some())
        .then(|| GitVerify {
            pub_key: attrs.text("git.sig.pubkey"),
            reject_expired: flag("git.sig.rejectexpired"),
            require_signed_tag: flag("git.sig.requiresignedtag"),
            ignore_signed_tag: flag("git.sig.ignoresignedtag"),
        });
    let source = GitSource {
        remote,
        reference: id.reference,
        subdir: id.subdir,
        checksum: attrs.text("git.checksum"),
        keep_git_dir: flag("git.keepgitdir"),
        auth_token_secret: attrs.text("git.authtokensecret"),
        auth_header_secret: attrs.text("git.authheadersecret"),
        mount_ssh_sock: attrs.text("git.mountsshsock"),
        known_ssh_hosts: attrs.text("git.knownsshhosts"),
        skip_submodules: flag("git.skipsubmodules"),
        mtime: attrs.text("git.mtime"),
        advice: flag("git.advice"),
        fetch_by_commit: flag("git.fetchbycommit"),
        bundle: attrs.text("git.bundle"),
        bundle_session_id: attrs.text("oci.session").into(),
        bundle_store_id: attrs.text("oci.store"),
        checkout_bundle: flag("git.checkoutbundle"),
        verify,
    };
    if source.reference.starts_with('-') {
        return Err(SourceIdError::GitRef(source.reference));
    }
    if !source.bundle.is_empty() && source.checksum.is_empty() {
        return Err(SourceIdError::Conflict(
            "git.bundle requires git.checksum to be set",
        ));
    }
    if source.checkout_bundle && source.keep_git_dir {
        return Err(SourceIdError::Conflict(
            "git.checkoutbundle is incompatible with git.keepgitdir",
        ));
    }
    if source.checkout_bundle && !source.subdir.is_empty() {
        return Err(SourceIdError::Conflict(
            "git.checkoutbundle is incompatible with git.subdir",
        ));
    }
    Ok(source)
}

fn local(name: &str, attrs: &Attrs<'_>) -> Result<LocalSource, SourceIdError> {
    let mut name = name.to_owned();
    let mut session_id = attrs.text("local.session");
    if let Some((prefix, session)) = session_id.split_once(':') {
        name = format!("{prefix}-{name}");
        session_id = session.to_owned();
    }
    Ok(LocalSource {
        name,
        session_id: session_id.into(),
        include: attrs.list("local.includepattern")?,
        exclude: attrs.list("local.excludepatterns")?,
        follow_paths: attrs.list("local.followpaths")?,
        shared_key_hint: attrs.text("local.sharedkeyhint"),
        differ_none: attrs.get("local.differ") == Some("none"),
        // BuildKit's sentence ends with the value; the cause says no more.
        metadata_only: match attrs.get("local.metadatatransfer") {
            None => false,
            Some(value) => gostd::strconv::parse_bool(value).map_err(|_| SourceIdError::Attr {
                name: "value for local.metadatatransfer",
                value: value.to_owned(),
            })?,
        },
        metadata_exceptions: attrs.list("local.metadatatransferexclude")?,
    })
}

fn http(url: &str, attrs: &Attrs<'_>) -> Result<HttpSource, SourceIdError> {
    let headers = [
        ("Accept", "http.header.accept"),
        ("User-Agent", "http.header.user-agent"),
    ]
    .into_iter()
    .filter_map(|(name, key)| Some((name.to_owned(), attrs.get(key)?.to_owned())))
    .collect();
    let (key, signature) = (
        attrs.text("http.sig.pubkey"),
        attrs.text("http.sig.signature"),
    );
    if key.is_empty() != signature.is_empty() {
        return Err(SourceIdError::Conflict(
            "http signature verification requires both pubkey and signature",
        ));
    }
    Ok(HttpSource {
        url: url.to_owned(),
        checksum: attrs.digest("http.checksum", "http checksum")?,
        file: attrs.file()?,
        auth_header_secret: attrs.text("http.authheadersecret"),
        headers,
        signature: (!key.is_empty()).then_some((key, signature)),
    })
}

/// `host/path` and what follows: the wire's references are normalized already, so nothing is filled in.
fn split_reference(text: &str) -> Result<(String, String), SourceIdError> {
    let bad = || SourceIdError::Reference(text.to_owned());
    if text.contains("://") {
        return Err(bad());
    }
    let (host, path) = match text.find('/') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    if host.is_empty() || host.contains(['@', ' ']) {
        return Err(bad());
    }
    let (path, object) = match path.find([':', '@']) {
        Some(at) => path.split_at(at),
        None => (path, ""),
    };
    if path.split('/').any(|part| part == "..") {
        return Err(bad());
    }
    let object = object.strip_prefix(':').unwrap_or(object);
    if object.is_empty() {
        return Err(SourceIdError::ObjectRequired);
    }
    Ok((path::join(&[host, path]), object.to_owned()))
}

fn join_reference(locator: &str, object: &str) -> String {
    let separator = if object.is_empty() || object.starts_with('@') {
        ""
    } else {
        ":"
    };
    format!("{locator}{separator}{object}")
}

struct Attrs<'a>(&'a BTreeMap<String, String>);

impl Attrs<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    fn one_of(
        &self,
        key: &str,
        name: &'static str,
        words: &[&str],
    ) -> Result<String, SourceIdError> {
        match self.get(key).filter(|value| !value.is_empty()) {
            None => Ok(words.first().copied().unwrap_or_default().to_owned()),
            Some(value) if words.contains(&value) => Ok(value.to_owned()),
            Some(value) => Err(SourceIdError::Attr {
                name,
                value: value.to_owned(),
            }),
        }
    }

    fn layer_limit(&self, key: &str) -> Result<Option<usize>, SourceIdError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(limit) if limit > 0 => Ok(Some(limit)),
            _ => Err(SourceIdError::Attr {
                name: "layer limit",
                value: value.to_owned(),
            }),
        }
    }

    // Here and below, BuildKit's sentence names attribute and value, and the cause could only repeat that the value is malformed.
    fn digest(&self, key: &str, name: &'static str) -> Result<Option<Digest>, SourceIdError> {
        self.get(key)
            .map(|value| {
                Digest::parse(value).map_err(|_| SourceIdError::Attr {
                    name,
                    value: value.to_owned(),
                })
            })
            .transpose()
    }

    fn list<T: DeserializeOwned>(&self, key: &'static str) -> Result<Vec<T>, SourceIdError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        gostd::json::from_slice::<Option<Vec<T>>>(value.as_bytes())
            .map(Option::unwrap_or_default)
            .map_err(|_| SourceIdError::Attr {
                name: key,
                value: value.to_owned(),
            })
    }

    fn file(&self) -> Result<FileAttrs, SourceIdError> {
        let number = |key: &'static str| -> Result<i64, SourceIdError> {
            let Some(value) = self.get(key) else {
                return Ok(0);
            };
            let parsed = match value.strip_prefix('0').filter(|rest| !rest.is_empty()) {
                Some(rest) if rest.starts_with(['x', 'X']) => {
                    i64::from_str_radix(rest.get(1..).unwrap_or_default(), 16)
                }
                Some(rest) => i64::from_str_radix(rest.trim_start_matches(['o', 'O']), 8),
                None => value.parse(),
            };
            parsed.map_err(|_| SourceIdError::Attr {
                name: key,
                value: value.to_owned(),
            })
        };
        Ok(FileAttrs {
            filename: self.text("http.filename"),
            perm: number("http.perm")?,
            uid: number("http.uid")?,
            gid: number("http.gid")?,
        })
    }
}
