//! A cache in a repository of a registry.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Descriptor, Reference};
use progress::{StatusGuard, Writer};
use registry::{
    Access, BlobSource, ByteStream, BytesSource, Client, Credentials, FileSource, Repository,
    SentFn,
};
use session::Group;
use store::{BlobSink, FetchError, LayerBlob};

use super::{DocumentRole, Place, check_size};
use crate::error::CacheError;

/// Creates credentials for a registry from the sessions of a build.
pub type CredentialsOf = Arc<dyn Fn(&Group) -> Arc<dyn Credentials> + Send + Sync>;

/// A repository and the name of the cache in it.
pub(crate) struct Registry {
    repository: Repository,
    credentials: CredentialsOf,
    reference: Reference,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Opens a repository, without sending anything yet.
    pub(crate) fn new(
        client: &Client,
        credentials: &CredentialsOf,
        reference: Reference,
        access: Access,
        sessions: &Group,
    ) -> Result<Self, registry::Error> {
        let repository = client.repository(&reference, access, credentials(sessions))?;
        Ok(Self {
            repository,
            credentials: Arc::clone(credentials),
            reference,
        })
    }

    /// Shows waits for the registry at a vertex.
    pub(crate) fn shown_on(mut self, progress: &Writer) -> Self {
        let progress = progress.clone();
        let observer = registry::WaitObserver::new(move |host| {
            Box::new(progress.status(format!("waiting for {host}"), "waiting"))
        });
        self.repository = self.repository.with_observer(observer);
        self
    }

    /// The descriptor of the root that the reference names.
    pub(crate) async fn resolve(&self) -> Result<Descriptor, CacheError> {
        let Reference { tag, digest, .. } = &self.reference;
        Ok(self
            .repository
            .resolve(tag.as_deref(), digest.as_ref())
            .await?)
    }
}

#[async_trait]
impl Place for Registry {
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, CacheError> {
        check_size(desc)?;
        Ok(self.repository.manifest(desc).await?)
    }

    async fn layer(
        &self,
        desc: &Descriptor,
        sessions: &Group,
        sink: &mut dyn BlobSink,
        status: &StatusGuard,
    ) -> Result<(), FetchError> {
        let repository = self
            .repository
            .with_credentials((self.credentials)(sessions));
        let mut stream = repository.blob_unverified(desc);
        let mut current = 0_i64;
        while let Some(chunk) = stream.next().await? {
            current = current.saturating_add(i64::try_from(chunk.len()).unwrap_or(i64::MAX));
            sink.write(chunk).await?;
            status.set(current, desc.size);
        }
        Ok(())
    }

    fn is_permanent(&self) -> bool {
        true
    }

    fn repositories(&self) -> Vec<String> {
        vec![self.repository.name().to_string()]
    }

    async fn put_layer(&self, desc: &Descriptor, blob: &LayerBlob) -> Result<(), CacheError> {
        // Other repositories of the same registry may have the layer to mount from.
        let prefix = format!("{}/", self.repository.name().domain);
        let from: Vec<String> = blob
            .repositories()
            .iter()
            .filter_map(|r| r.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect();
        let source = Arc::new(LazyBlob(blob.clone()));
        self.repository
            .push_blob(desc, source, &from, quiet())
            .await?;
        Ok(())
    }

    async fn put_document(
        &self,
        desc: &Descriptor,
        bytes: Bytes,
        role: DocumentRole,
    ) -> Result<(), CacheError> {
        match role {
            DocumentRole::Config => {
                let source = Arc::new(BytesSource(bytes));
                self.repository
                    .push_blob(desc, source, &[], quiet())
                    .await?;
            }
            DocumentRole::Root => {
                let tag = self.reference.tag.as_deref();
                self.repository.push_manifest(desc, bytes, tag).await?;
            }
        }
        Ok(())
    }
}

fn quiet() -> SentFn {
    Arc::new(|_| {})
}

/// A layer that is downloaded only if the registry lacks it.
struct LazyBlob(LayerBlob);

#[async_trait]
impl BlobSource for LazyBlob {
    async fn open(&self) -> std::io::Result<ByteStream> {
        let file = self.0.open().await.map_err(std::io::Error::other)?;
        FileSource(Arc::new(file)).open().await
    }
}
