//! What the layers below say of a folder.

use std::io;
use std::path::{Path, PathBuf};

use erofs::{Attributes, Xattr};
use fstree::{PathError, Root};

/// The layers below one that is indexed, as one tree.
pub trait Below: std::fmt::Debug + Sync {
    /// The metadata of the folder at `path`, links on the way followed inside of the tree. None where there is no folder.
    fn folder(&self, path: &Path) -> Result<Option<Attributes>, BelowError>;
}

/// The layers below could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {} of the layers below: {source}", path.display())]
pub struct BelowError {
    /// Path of the file inside of the layers.
    pub path: PathBuf,
    /// Why it cannot be read.
    pub source: io::Error,
}

impl BelowError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        oci::ErrorKind::of_host(&self.source)
    }
}

impl From<PathError> for BelowError {
    fn from(error: PathError) -> Self {
        Self {
            path: error.path,
            source: error.source,
        }
    }
}

/// Roots of the layers below, topmost first.
impl Below for Vec<Root> {
    fn folder(&self, path: &Path) -> Result<Option<Attributes>, BelowError> {
        for root in self {
            let Some(meta) = root.stat_opt(path)? else {
                continue;
            };
            if !meta.is_dir() {
                return Ok(None);
            }
            let dir = root.dir(path)?;
            let of_path = |source| BelowError {
                path: path.to_owned(),
                source,
            };
            let xattrs: Vec<Xattr> = dir
                .own_xattrs()
                .map_err(of_path)?
                .into_iter()
                .filter(|(key, _)| !key.starts_with("trusted."))
                .map(|(key, value)| (key.into_bytes().into(), value.into()))
                .collect();
            return Ok(Some(Attributes {
                permissions: u16::try_from(meta.mode & 0o7777).unwrap_or_default(),
                uid: meta.uid,
                gid: meta.gid,
                seconds: meta.mtime.div_euclid(1_000_000_000),
                nanoseconds: u32::try_from(meta.mtime.rem_euclid(1_000_000_000))
                    .unwrap_or_default(),
                xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
            }));
        }
        Ok(None)
    }
}
