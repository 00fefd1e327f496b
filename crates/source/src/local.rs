//! `local://`: a folder of the client.
//!
//! The key names the request, not the content: it is SHA-256 of this JSON object, under `session:<name>:`. Content is
//! compared by the digests of the received files.
//!
//! | field                                           | in     | why                                        |
//! |-------------------------------------------------|--------|--------------------------------------------|
//! | `SessionID`                                     | always | another client's folder is another folder  |
//! | `IncludePatterns`, `ExcludePatterns`, `FollowPaths` | always, `null` if not given | they choose the files |
//! | `MetadataTransfer`, `MetadataExceptions`        | if set | files without their contents are others    |
//! | shared key hint                                 | no     | it only finds an earlier copy of the folder |
//!
//! A received folder is kept, by name and client, and the next time only the differences are sent. Two builds that receive
//! the same folder at the same time get a copy each.
//!
//! Differences are found by metadata, as in the reference, which misses a change that keeps size and time. rbuild's client
//! is asked for marks that every change alters; for other clients the daemon can be set to ask for all contents
//! ([`LocalSource::comparing`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use fstree::hash::TreeHashes;
use fstree::walk::PatternMatcher;
use oci::{Digest, Platform, SessionId};
use parking_lot::Mutex;
use serde::Serialize;
use session::diffcopy::compare::Compare;
use session::diffcopy::marks::Marks;
use session::diffcopy::{CallSide, ReceiveOptions, WantsContents, receive};
use session::{FileSync, SyncRequest};
use store::{ImmutableRef, MutableRef, RecordType, RefId, RefOptions, Store, StoreError};

use crate::context::Context;
use crate::error::{SourceError, cause};
use crate::manager::{CacheKey, Source, SourceInstance};

/// Metadata key of a received folder: its name and client.
const META_SHARED_KEY: &str = "local.sharedKey";
/// Metadata key of a received folder: the digests of its files.
const META_HASHES: &str = "local.hashes";
/// Metadata key of a received folder: the client's marks of its files.
const META_MARKS: &str = "local.marks";
/// Metadata key that a received folder has while it is written: its digests may not be those of its files.
const META_DIRTY: &str = "local.dirty";

/// Folders whose digests and marks are kept in memory.
const MAX_STATES_IN_MEMORY: usize = 16;

/// The source of `local://`.
#[derive(Debug, Clone)]
pub struct LocalSource {
    inner: Arc<LocalSourceInner>,
}

#[derive(Debug)]
struct LocalSourceInner {
    store: Arc<Store>,
    /// How files are compared unless the definition says otherwise.
    compare: Compare,
    /// States of folders, the most recent last.
    states: Mutex<Vec<(RefId, FolderState)>>,
}

/// The digests and marks of a received folder.
#[derive(Debug, Clone, Default)]
struct FolderState {
    hashes: Arc<TreeHashes>,
    marks: Arc<Marks>,
}

impl LocalSource {
    /// Makes the source.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self::comparing(store, Compare::Metadata)
    }

    /// Makes the source with a default for how files are compared.
    #[must_use]
    pub fn comparing(store: Arc<Store>, compare: Compare) -> Self {
        Self {
            inner: Arc::new(LocalSourceInner {
                store,
                compare,
                states: Mutex::default(),
            }),
        }
    }
}

impl LocalSourceInner {
    /// The state of a folder; `None` if its digests may not be those of its files.
    fn take_state(&self, mutable: &MutableRef) -> Result<Option<FolderState>, SourceError> {
        if mutable.meta(META_DIRTY)?.is_some() {
            return Ok(None);
        }
        let in_memory = {
            let mut states = self.states.lock();
            let index = states.iter().position(|(id, _)| id == mutable.id());
            index.map(|index| states.remove(index).1)
        };
        if in_memory.is_some() {
            return Ok(in_memory);
        }
        let Some(hashes) = mutable
            .meta(META_HASHES)?
            .and_then(|bytes| TreeHashes::decode(&bytes).ok())
        else {
            return Ok(None);
        };
        let marks = mutable.meta(META_MARKS)?.unwrap_or_default();
        Ok(Some(FolderState {
            hashes: Arc::new(hashes),
            marks: Arc::new(Marks::decode(&marks)),
        }))
    }

    fn keep_state(&self, id: &RefId, folder: &FolderState) {
        let mut states = self.states.lock();
        states.retain(|(other, _)| other != id);
        if states.len() >= MAX_STATES_IN_MEMORY {
            states.remove(0);
        }
        let folder = FolderState {
            hashes: Arc::clone(&folder.hashes),
            marks: Arc::new(folder.marks.next()),
        };
        states.push((id.clone(), folder));
    }
}

/// An identifier and its attributes, parsed.
#[derive(Debug, Clone, Default)]
struct LocalIdentifier {
    name: String,
    session: SessionId,
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    follow: Option<Vec<String>>,
    shared_key_hint: String,
    compare: Compare,
    metadata_only: bool,
    metadata_exceptions: Option<Vec<String>>,
}

#[derive(Serialize)]
struct LocalKeyInputs<'a> {
    #[serde(rename = "SessionID")]
    session: &'a str,
    #[serde(rename = "IncludePatterns")]
    include: &'a Option<Vec<String>>,
    #[serde(rename = "ExcludePatterns")]
    exclude: &'a Option<Vec<String>>,
    #[serde(rename = "FollowPaths")]
    follow: &'a Option<Vec<String>>,
    #[serde(
        rename = "MetadataTransfer",
        skip_serializing_if = "std::ops::Not::not"
    )]
    metadata_only: bool,
    #[serde(
        rename = "MetadataExceptions",
        skip_serializing_if = "<[String]>::is_empty"
    )]
    metadata_exceptions: &'a [String],
}

impl LocalIdentifier {
    fn parse(reference: &str, attrs: &BTreeMap<String, String>) -> Result<Self, SourceError> {
        let mut out = Self {
            name: reference.to_owned(),
            ..Self::default()
        };
        for (name, value) in attrs {
            match name.as_str() {
                "local.session" => match value.split_once(':') {
                    Some((prefix, session)) => {
                        out.name = format!("{prefix}-{}", out.name);
                        out.session = session.into();
                    }
                    None => out.session = value.as_str().into(),
                },
                "local.includepattern" => out.include = list("local.includepattern", value)?,
                "local.excludepatterns" => out.exclude = list("local.excludepatterns", value)?,
                "local.followpaths" => out.follow = list("local.followpaths", value)?,
                "local.sharedkeyhint" => out.shared_key_hint = value.clone(),
                "local.differ" => {
                    out.compare = if value == "none" {
                        Compare::Nothing
                    } else {
                        Compare::Metadata
                    };
                }
                "local.metadatatransfer" => {
                    out.metadata_only = gostd::strconv::is_true(value);
                }
                "local.metadatatransferexclude" => {
                    out.metadata_exceptions = list("local.metadatatransferexclude", value)?
                }
                _ => {}
            }
        }
        Ok(out)
    }

    /// For a folder whose files are only listed: which files are sent with contents all the same.
    fn with_contents(&self) -> Result<Option<WantsContents>, SourceError> {
        if !self.metadata_only {
            return Ok(None);
        }
        let patterns = self.metadata_exceptions.iter().flatten();
        let matcher = PatternMatcher::new(patterns).map_err(|e| SourceError::Attribute {
            name: "local.metadatatransferexclude",
            source: cause(e),
        })?;
        Ok(Some(Arc::new(move |path: &Path| {
            matcher.matches_or_parent_matches(&path.to_string_lossy())
        })))
    }

    fn key(&self, session: &str) -> (String, Digest) {
        let inputs = LocalKeyInputs {
            session,
            include: &self.include,
            exclude: &self.exclude,
            follow: &self.follow,
            metadata_only: self.metadata_only,
            metadata_exceptions: self.metadata_exceptions.as_deref().unwrap_or_default(),
        };
        let digest = Digest::sha256(gostd::json::to_vec(&inputs));
        (format!("session:{}:{digest}", self.name), digest)
    }
}

/// An attribute is not a JSON list.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {source}")]
struct AttributeJson {
    name: &'static str,
    source: serde_json::Error,
}

/// Parses a JSON list; `null` is `None`.
fn list(name: &'static str, value: &str) -> Result<Option<Vec<String>>, SourceError> {
    serde_json::from_str(value).map_err(|e| SourceError::Attribute {
        name,
        source: cause(AttributeJson { name, source: e }),
    })
}

impl Source for LocalSource {
    fn schemes(&self) -> &'static [&'static str] {
        &["local"]
    }

    fn resolve(
        &self,
        _scheme: &str,
        reference: &str,
        attrs: &BTreeMap<String, String>,
        _platform: Option<&Platform>,
    ) -> Result<Arc<dyn SourceInstance>, SourceError> {
        Ok(Arc::new(LocalInstance {
            inner: self.inner.clone(),
            id: LocalIdentifier::parse(reference, attrs)?,
        }))
    }
}

#[derive(Debug)]
struct LocalInstance {
    inner: Arc<LocalSourceInner>,
    id: LocalIdentifier,
}

impl LocalInstance {
    /// The session that the identifier names, else the first of the build's that answers.
    async fn session(&self, ctx: &Context) -> Result<Arc<dyn FileSync>, SourceError> {
        if !self.id.session.is_empty()
            && let Ok(session) = ctx.sessions.named(&self.id.session).await
        {
            return Ok(session);
        }
        Ok(ctx.sessions.first().await.map_err(SourceError::session)?)
    }

    /// The folder as it was received before, unless another build uses it; else a new one.
    fn open(&self, shared_key: &str) -> Result<(MutableRef, FolderState), SourceError> {
        for id in self
            .inner
            .store
            .find_meta(META_SHARED_KEY, shared_key.as_bytes())?
        {
            let mutable = match self.inner.store.get_mutable(&id) {
                Ok(mutable) => mutable,
                // Another build uses it, or it was deleted.
                Err(
                    StoreError::Locked { .. }
                    | StoreError::NotFound { .. }
                    | StoreError::Unfit { .. },
                ) => continue,
                Err(error) => return Err(error.into()),
            };
            // Without all digests the folder cannot be compared, and is received anew.
            match self.inner.take_state(&mutable)? {
                Some(state) => return Ok((mutable, state)),
                None => mutable.set_retain(false)?,
            }
        }
        let options = RefOptions {
            description: format!("local source for {}", self.id.name),
            record_type: RecordType::LocalSource,
            retain: true,
            ..RefOptions::default()
        };
        Ok((
            self.inner.store.new_mutable(None, options)?,
            FolderState::default(),
        ))
    }

    async fn receive(
        &self,
        ctx: &Context,
        session: &dyn FileSync,
    ) -> Result<ImmutableRef, SourceError> {
        let LocalIdentifier {
            name,
            shared_key_hint,
            ..
        } = &self.id;
        let mut shared_key = format!("{name}:{shared_key_hint}:{}", session.shared_key());
        if self.id.metadata_only {
            shared_key.push_str(":metadata");
        }
        let (mutable, state) = self.open(&shared_key)?;
        // Set before a file changes: a process that dies now leaves a folder that is not trusted.
        mutable.set_meta(META_DIRTY, b"1")?;
        mutable.set_retain(true)?;
        let fill_result = self.fill(ctx, session, &mutable, &state).await;
        let store_result = fill_result.and_then(|changed| {
            if changed {
                mutable.set_meta(META_HASHES, &state.hashes.encode())?;
                mutable.set_meta(META_SHARED_KEY, shared_key.as_bytes())?;
            }
            if let Some(marks) = state.marks.encode() {
                mutable.set_meta(META_MARKS, &marks)?;
            }
            Ok(self.inner.store.clear_meta(mutable.id(), META_DIRTY)?)
        });
        if let Err(error) = store_result {
            mutable.set_retain(false)?;
            return Err(error);
        }
        self.inner.keep_state(mutable.id(), &state);
        let shared = mutable.commit_shared()?;
        shared.set_hashes(state.hashes)?;
        Ok(shared)
    }

    /// Receives the folder, and returns whether anything changed.
    async fn fill(
        &self,
        ctx: &Context,
        session: &dyn FileSync,
        mutable: &MutableRef,
        state: &FolderState,
    ) -> Result<bool, SourceError> {
        let id = &self.id;
        let compare = match id.compare {
            Compare::Metadata => self.inner.compare,
            chosen @ (Compare::Contents | Compare::Nothing) => chosen,
        };
        let request = SyncRequest {
            name: id.name.clone(),
            include: id.include.clone().unwrap_or_default(),
            exclude: id.exclude.clone().unwrap_or_default(),
            follow: id.follow.clone().unwrap_or_default(),
            // A list of metadata has what the client's files have and no more.
            change_marks: !id.metadata_only,
        };
        let status = Arc::new(
            ctx.progress
                .status(format!("transferring {}:", id.name), "transferring"),
        );
        let bytes_status = status.clone();
        let bytes_received = metrics::TRANSFERRED.follow(metrics::Transfer::FromClient);
        let options = ReceiveOptions {
            name: format!("cannot receive `{}`", id.name),
            side: CallSide::Caller,
            share: ctx.sessions.share(session.id()),
            compare,
            hashes: Some(state.hashes.clone()),
            marks: Some(state.marks.clone()),
            progress: Some(Arc::new(move |bytes| {
                bytes_received.reach(bytes);
                bytes_status.set(i64::try_from(bytes).unwrap_or(i64::MAX), 0)
            })),
            metadata_only: self.id.with_contents()?,
            ..ReceiveOptions::default()
        };
        let stream = session
            .diff_copy(request)
            .await
            .map_err(SourceError::session)?;
        let received = receive(stream, mutable.root()?, options)
            .await
            .map_err(SourceError::session)?;
        tracing::debug!(name = %id.name, ?received, "local source received");
        drop(status);
        Ok(received.changed > 0 || state.hashes.is_dirty() || mutable.meta(META_HASHES)?.is_none())
    }
}

#[async_trait]
impl SourceInstance for LocalInstance {
    async fn cache_key(&self, ctx: &Context, _index: usize) -> Result<CacheKey, SourceError> {
        let session = if self.id.session.is_empty() {
            ctx.sessions.ids().first().cloned().unwrap_or_default()
        } else {
            self.id.session.clone()
        };
        if session.is_empty() {
            return Err(SourceError::session(
                "could not access local files without session",
            ));
        }
        let (key, digest) = self.id.key(session.as_str());
        Ok(CacheKey::new(key, digest.to_string()))
    }

    async fn snapshot(&self, ctx: &Context) -> Result<Option<ImmutableRef>, SourceError> {
        let session = self.session(ctx).await?;
        self.receive(ctx, &*session).await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::LocalIdentifier;
    use oci::Digest;
    use std::collections::BTreeMap;

    #[test]
    fn the_key_is_the_digest_of_the_json_that_the_reference_writes() {
        let attrs = BTreeMap::from([
            ("local.session".to_owned(), "prefix:sid".to_owned()),
            ("local.includepattern".to_owned(), "[\"a<b\"]".to_owned()),
            ("local.followpaths".to_owned(), "null".to_owned()),
        ]);
        let id = LocalIdentifier::parse("context", &attrs).unwrap();
        let json = r#"{"SessionID":"sid","IncludePatterns":["a\u003cb"],"ExcludePatterns":null,"FollowPaths":null}"#;
        let digest = Digest::sha256(json);
        assert_eq!(
            id.key(id.session.as_str()),
            (format!("session:prefix-context:{digest}"), digest)
        );
    }
}
