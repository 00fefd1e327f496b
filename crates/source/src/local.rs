//! `local://`: a folder of the client.
//!
//! The key is a promise, not a name of content: SHA-256 of this JSON object, under `session:<name>:`. Content is compared by
//! the digests of what arrived.
//!
//! | field                                           | in     | why                                        |
//! |-------------------------------------------------|--------|--------------------------------------------|
//! | `SessionID`                                     | always | another client's folder is another folder  |
//! | `IncludePatterns`, `ExcludePatterns`, `FollowPaths` | always, `null` if not given | they choose the files |
//! | `MetadataTransfer`, `MetadataExceptions`        | if set | files without their contents are others    |
//! | shared key hint                                 | no     | it only finds what was received before     |
//!
//! What was received is kept, by folder and client, and the next time only what differs travels. Two builds that want the
//! same folder at the same time get a copy each.
//!
//! What differs is seen by metadata, as in the reference, and two files can look alike that are not. Our client is asked for
//! marks that no change leaves as they were; of others the daemon may be told to ask for all contents
//! ([`LocalSource::comparing`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use fstree::hash::TreeHashes;
use fstree::walk::PatternMatcher;
use oci::{Digest, Platform};
use parking_lot::Mutex;
use serde::Serialize;
use session::diffcopy::compare::Compare;
use session::diffcopy::marks::Marks;
use session::diffcopy::{ReceiveOptions, Side, WantsContents, receive};
use session::{FileSync, SyncRequest};
use store::{ImmutableRef, MutableRef, RecordType, RefId, RefOptions, Store, StoreError};

use crate::context::Context;
use crate::error::{SourceError, cause};
use crate::manager::{CacheKey, Source, SourceInstance};

/// Metadata key of a received folder: whose it is.
const META_SHARED_KEY: &str = "local.sharedKey";
/// Metadata key of a received folder: the digests of what is in it.
const META_HASHES: &str = "local.hashes";
/// Metadata key of a received folder: the client's marks of its files.
const META_MARKS: &str = "local.marks";
/// Metadata key of a received folder, there while it is being written: files and digests may differ.
const META_DIRTY: &str = "local.dirty";

/// Of how many folders the digests and marks are at hand without reading them from the index.
const MAX_STATES_AT_HAND: usize = 16;

/// Folders of clients.
#[derive(Debug, Clone)]
pub struct LocalSource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    /// How files are compared unless the definition says otherwise.
    compare: Compare,
    /// States of folders, the most recent last.
    states: Mutex<Vec<(RefId, FolderState)>>,
}

/// What a received folder holds, as it was when it was received.
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

    /// Makes the source; files are compared in this way unless the definition says otherwise.
    #[must_use]
    pub fn comparing(store: Arc<Store>, compare: Compare) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                compare,
                states: Mutex::default(),
            }),
        }
    }
}

impl Inner {
    /// The state of a folder with the digests of all that is in it; `None` where files and digests may differ.
    fn take_state(&self, mutable: &MutableRef) -> Result<Option<FolderState>, SourceError> {
        if mutable.meta(META_DIRTY)?.is_some() {
            return Ok(None);
        }
        let at_hand = {
            let mut states = self.states.lock();
            let index = states.iter().position(|(id, _)| id == mutable.id());
            index.map(|index| states.remove(index).1)
        };
        if at_hand.is_some() {
            return Ok(at_hand);
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
        if states.len() >= MAX_STATES_AT_HAND {
            states.remove(0);
        }
        let folder = FolderState {
            hashes: Arc::clone(&folder.hashes),
            marks: Arc::new(folder.marks.next()),
        };
        states.push((id.clone(), folder));
    }
}

/// What an identifier and its attributes say.
#[derive(Debug, Clone, Default)]
struct LocalIdentifier {
    name: String,
    session: String,
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
                        out.session = session.to_owned();
                    }
                    None => out.session = value.clone(),
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

    /// Of a folder of which files are listed only: whose contents are wanted all the same.
    fn contents_wanted(&self) -> Result<Option<WantsContents>, SourceError> {
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

/// An attribute that should be a JSON list.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {source}")]
struct AttributeJson {
    name: &'static str,
    source: serde_json::Error,
}

/// Reads a JSON list; `null` is none.
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
    inner: Arc<Inner>,
    id: LocalIdentifier,
}

impl LocalInstance {
    /// The session that is named, else whichever of the build's is there.
    async fn session(&self, ctx: &Context) -> Result<Arc<dyn FileSync>, SourceError> {
        if !self.id.session.is_empty()
            && let Ok(session) = ctx.sessions.named(&self.id.session).await
        {
            return Ok(session);
        }
        Ok(ctx.sessions.first().await.map_err(SourceError::session)?)
    }

    /// The folder as it was received before, if nobody is using it; else a new one.
    fn open(&self, shared_key: &str) -> Result<(MutableRef, FolderState), SourceError> {
        for id in self
            .inner
            .store
            .find_meta(META_SHARED_KEY, shared_key.as_bytes())?
        {
            let mutable = match self.inner.store.get_mutable(&id) {
                Ok(mutable) => mutable,
                // In use by another build, or gone since.
                Err(
                    StoreError::Locked { .. }
                    | StoreError::NotFound { .. }
                    | StoreError::Unfit { .. },
                ) => continue,
                Err(error) => return Err(error.into()),
            };
            // Without digests of all of it the tree is of no use, and is received anew.
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
        // The mark is in the index before a file changes: a process that dies now leaves a folder that is not trusted.
        mutable.set_meta(META_DIRTY, b"1")?;
        mutable.set_retain(true)?;
        let filled = self.fill(ctx, session, &mutable, &state).await;
        let stored = filled.and_then(|changed| {
            if changed {
                mutable.set_meta(META_HASHES, &state.hashes.encode())?;
                mutable.set_meta(META_SHARED_KEY, shared_key.as_bytes())?;
            }
            if let Some(marks) = state.marks.encode() {
                mutable.set_meta(META_MARKS, &marks)?;
            }
            Ok(self.inner.store.clear_meta(mutable.id(), META_DIRTY)?)
        });
        if let Err(error) = stored {
            mutable.set_retain(false)?;
            return Err(error);
        }
        self.inner.keep_state(mutable.id(), &state);
        let twin = mutable.commit_shared()?;
        twin.set_hashes(state.hashes)?;
        Ok(twin)
    }

    /// Receives the folder; says whether anything is different now.
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
        let shown = status.clone();
        let counted = metrics::TRANSFERRED.follow(metrics::Transfer::FromClient);
        let options = ReceiveOptions {
            name: format!("cannot receive `{}`", id.name),
            side: Side::Caller,
            share: ctx.sessions.share(session.id()),
            compare,
            hashes: Some(state.hashes.clone()),
            marks: Some(state.marks.clone()),
            progress: Some(Arc::new(move |bytes| {
                counted.reach(bytes);
                shown.set(i64::try_from(bytes).unwrap_or(i64::MAX), 0)
            })),
            metadata_only: self.id.contents_wanted()?,
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
        let session = match self.id.session.as_str() {
            "" => ctx.sessions.ids().first().cloned().unwrap_or_default(),
            named => named.to_owned(),
        };
        if session.is_empty() {
            return Err(SourceError::session(
                "could not access local files without session",
            ));
        }
        let (key, digest) = self.id.key(&session);
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
            id.key(&id.session),
            (format!("session:prefix-context:{digest}"), digest)
        );
    }
}
