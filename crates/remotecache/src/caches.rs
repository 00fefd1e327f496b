//! Caches by their kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oci::Digest;
use progress::Writer;
use registry::{Access, Client};
use session::{Group, SessionManager};
use solver::CacheManager;
use solver::export::ExportMode;
use store::{CompressionAttributes, Store};

use crate::CacheDomain;
use crate::attrs::{Attrs, Documents};
use crate::error::{AttributeError, CacheError};
use crate::import;
use crate::place::Place;
use crate::place::folder::Folder;
use crate::place::registry::{CredentialsOf, Registry};

/// Kinds that clients know and that this daemon does not build.
const NOT_BUILT: &[&str] = &["gha", "s3", "azblob"];

/// The caches that a daemon can write and read.
#[derive(Clone)]
pub struct Caches {
    store: Arc<Store>,
    client: Client,
    credentials: CredentialsOf,
    sessions: Arc<SessionManager>,
}

/// The context in which a cache is read or written.
#[derive(Debug, Clone)]
pub struct CacheContext {
    /// Sessions of the build's clients.
    pub sessions: Group,
    /// Progress of the vertex that shows the work.
    pub progress: Writer,
}

/// One cache to be written.
#[derive(Debug)]
pub struct CacheExporter {
    pub(crate) target: ExportTarget,
    pub(crate) mode: ExportMode,
    pub(crate) ignores_errors: bool,
}

#[derive(Debug)]
pub(crate) enum ExportTarget {
    /// The configs of the images that the build exports.
    Inline,
    Place {
        place: Arc<dyn Place>,
        /// Title of the vertex.
        title: &'static str,
        compression: CompressionAttributes,
        documents: Documents,
    },
}

impl CacheExporter {
    /// The title of the vertex, such as `exporting cache to registry`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.target {
            ExportTarget::Inline => "exporting inline cache",
            ExportTarget::Place { title, .. } => title,
        }
    }

    /// Whether the records go into exported images instead of a cache of their own.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        matches!(self.target, ExportTarget::Inline)
    }

    /// Whether the build succeeds if the export fails.
    #[must_use]
    pub fn ignores_errors(&self) -> bool {
        self.ignores_errors
    }
}

/// Time limit for reading the records of one cache; several caches are read side by side.
pub(crate) const IMPORT_TIMEOUT: Duration = Duration::from_secs(60);

impl Caches {
    /// Combines the parts that caches use.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        client: Client,
        credentials: CredentialsOf,
        sessions: Arc<SessionManager>,
    ) -> Self {
        Self {
            store,
            client,
            credentials,
            sessions,
        }
    }

    /// Parses the attributes of a cache to be written.
    pub fn exporter(
        &self,
        kind: &str,
        attrs: &BTreeMap<String, String>,
        sessions: &Group,
    ) -> Result<CacheExporter, CacheError> {
        let attrs = Attrs::new(attrs);
        let bad = |source| CacheError::Attributes {
            kind: kind.to_owned(),
            role: "exporter",
            source,
        };
        let (place, title): (Arc<dyn Place>, _) = match kind {
            "inline" => {
                return Ok(CacheExporter {
                    target: ExportTarget::Inline,
                    mode: ExportMode::Min,
                    ignores_errors: attrs.ignores_errors(),
                });
            }
            "registry" => {
                let insecure = attrs.flag("registry.insecure").map_err(bad)?;
                let access = Access::PUSH.insecure(insecure.unwrap_or(false));
                let reference = attrs.reference().map_err(bad)?;
                let registry =
                    Registry::new(&self.client, &self.credentials, reference, access, sessions)?;
                (Arc::new(registry), "exporting cache to registry")
            }
            "local" => {
                let dest = attrs
                    .text("dest")
                    .ok_or_else(|| bad(AttributeError::NoDest))?;
                let folder = Folder::new(sessions.clone(), dest);
                (Arc::new(folder), "exporting cache to client directory")
            }
            known if NOT_BUILT.contains(&known) => {
                return Err(CacheError::NotBuilt {
                    feature: format!("cache export to {kind}"),
                });
            }
            _ => {
                return Err(CacheError::UnknownExporter {
                    kind: kind.to_owned(),
                });
            }
        };
        Ok(CacheExporter {
            target: ExportTarget::Place {
                place,
                title,
                compression: attrs.compression().map_err(bad)?,
                documents: attrs.documents().map_err(bad)?,
            },
            mode: attrs.mode(),
            ignores_errors: attrs.ignores_errors(),
        })
    }

    /// The name of a cache to be read: imports of one name within a build are the same.
    #[must_use]
    pub fn name_of(kind: &str, attrs: &BTreeMap<String, String>) -> String {
        match attrs.get("ref").filter(|r| !r.is_empty()) {
            Some(reference) if kind == "registry" => reference.clone(),
            _ => {
                let digest = Digest::sha256(format!("{kind} {attrs:?}"));
                let short = digest.hex().get(..16).unwrap_or_default();
                let number = u64::from_str_radix(short, 16).unwrap_or_default();
                format!("{kind}:{number}")
            }
        }
    }

    /// Reads the records of a cache, for a minute at most, because a build can do without them. Their
    /// results are downloaded when they are needed.
    pub async fn import<D: CacheDomain>(
        &self,
        kind: &str,
        attrs: &BTreeMap<String, String>,
        context: &CacheContext,
    ) -> Result<Arc<CacheManager<D>>, CacheError> {
        let name = Self::name_of(kind, attrs);
        let reading = self.read(&name, kind, attrs, context);
        tokio::time::timeout(IMPORT_TIMEOUT, reading)
            .await
            .unwrap_or_else(|_| {
                Err(CacheError::TimedOut {
                    name,
                    seconds: IMPORT_TIMEOUT.as_secs(),
                })
            })
    }

    async fn read<D: CacheDomain>(
        &self,
        name: &str,
        kind: &str,
        attrs: &BTreeMap<String, String>,
        context: &CacheContext,
    ) -> Result<Arc<CacheManager<D>>, CacheError> {
        let attrs = Attrs::new(attrs);
        let bad = |source| CacheError::Attributes {
            kind: kind.to_owned(),
            role: "importer",
            source,
        };
        let (place, root): (Arc<dyn Place>, _) = match kind {
            "registry" => {
                let insecure = attrs.flag("registry.insecure").map_err(bad)?;
                let access = Access::PULL.insecure(insecure.unwrap_or(false));
                let reference = attrs.reference().map_err(bad)?;
                let sessions = &context.sessions;
                let registry =
                    Registry::new(&self.client, &self.credentials, reference, access, sessions)?
                        .shown_on(&context.progress);
                let resolved = registry.resolve().await;
                let root = resolved.map_err(|e| bad(AttributeError::Root(Box::new(e))))?;
                (Arc::new(registry), root)
            }
            "local" => {
                let digest = attrs
                    .text("digest")
                    .ok_or_else(|| bad(AttributeError::NoDigest))?;
                let digest = Digest::parse(digest).map_err(|e| bad(e.into()))?;
                let src = attrs
                    .text("src")
                    .ok_or_else(|| bad(AttributeError::NoSource))?;
                let folder = Folder::new(context.sessions.clone(), src);
                let described = folder.describe(&digest).await;
                let root = described.map_err(|e| bad(AttributeError::Root(Box::new(e))))?;
                (Arc::new(folder), root)
            }
            known if NOT_BUILT.contains(&known) => {
                return Err(CacheError::NotBuilt {
                    feature: format!("cache import from {kind}"),
                });
            }
            _ => {
                return Err(CacheError::UnknownImporter {
                    kind: kind.to_owned(),
                });
            }
        };
        // A cache that has changed since another build read it has another id.
        let id = format!("{name}@{}", root.digest);
        let chains = import::read(&*place, &root, &context.progress).await?;
        let parts = (Arc::clone(&self.store), Arc::clone(&self.sessions));
        Ok(task::blocking("index cache records", move || {
            crate::imported::manager(id, &chains, place, parts)
        })
        .await)
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
