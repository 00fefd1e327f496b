//! Fetches layers of a registry's image when they are needed.

use async_trait::async_trait;
use oci::Descriptor;
use progress::Writer;
use registry::Repository;
use store::{BlobProvider, BlobSink, FetchError, Shown};

/// Fetches the layers of one repository and shows their progress on the vertex that asked for the image.
#[derive(Debug)]
pub(crate) struct RegistryLayers {
    repository: Repository,
    progress: Writer,
}

impl RegistryLayers {
    pub(crate) fn new(repository: Repository, progress: Writer) -> Self {
        Self {
            repository,
            progress,
        }
    }
}

#[async_trait]
impl BlobProvider for RegistryLayers {
    async fn fetch(&self, desc: &Descriptor, sink: &mut dyn BlobSink) -> Result<(), FetchError> {
        let _busy = self.progress.work();
        let status = self.progress.status(desc.digest.to_string(), "downloading");
        // The store checks the digest while it writes; here only the size is counted.
        let mut stream = self.repository.blob_unverified(desc);
        let mut current = 0_i64;
        while let Some(chunk) = stream.next().await? {
            current = current.saturating_add(i64::try_from(chunk.len()).unwrap_or(i64::MAX));
            sink.write(chunk).await?;
            status.set(current, desc.size.max(0));
        }
        Ok(())
    }

    fn busy(&self) -> Shown {
        Box::new(self.progress.work())
    }

    fn unpacking(&self, desc: &Descriptor) -> Shown {
        Box::new(
            self.progress
                .status(format!("extracting {}", desc.digest), "extracting"),
        )
    }

    fn repositories(&self) -> Vec<String> {
        vec![self.repository.name().to_string()]
    }
}
