//! Image layouts on this machine: their index is read and written here, their blobs go through the session.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use oci::image::Index;
use oci::{Descriptor, Digest};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Why a layout cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file or folder of the layout cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path of that file or folder.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// `index.json` is not an OCI index.
    #[error("{} is no index of an image layout: {source}", path.display())]
    Index {
        /// The path of that file or folder.
        path: PathBuf,
        /// The place in the file and what is wrong there.
        source: gostd::json::DecodeError,
    },
    /// The layout has no image of this name.
    #[error("could not find {name:?} in the image layout at {}; it has {present}", path.display())]
    Missing {
        /// The folder of the layout.
        path: PathBuf,
        /// The tag or digest that was looked for.
        name: String,
        /// The names that the layout has, for the message.
        present: String,
    },
}

impl LayoutError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Io { source, .. } => oci::ErrorKind::of_io(source),
            Self::Index { .. } => oci::ErrorKind::Invalid,
            Self::Missing { .. } => oci::ErrorKind::NotFound,
        }
    }
}

/// What an image is called in a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutName {
    /// A tag without a repository.
    Tag(String),
    /// A full image name with repository and tag.
    Image(String),
}

/// A folder with an image layout.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// The layout in a folder, which need not be there.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Finds the image with a tag or name.
    pub fn find(&self, name: &str) -> Result<Digest, LayoutError> {
        let index = self.index()?.unwrap_or_else(empty);
        let is = |d: &&Descriptor| {
            [REF_NAME, IMAGE_NAME]
                .iter()
                .any(|key| d.annotations.get(*key).is_some_and(|n| n == name))
        };
        if let Some(manifest) = index.manifests.iter().find(is) {
            return Ok(manifest.digest.clone());
        }
        let names: Vec<&str> = index
            .manifests
            .iter()
            .filter_map(|d| d.annotations.get(REF_NAME).map(String::as_str))
            .collect();
        Err(LayoutError::Missing {
            path: self.folder.clone(),
            name: name.to_owned(),
            present: if names.is_empty() {
                "no names".to_owned()
            } else {
                names.join(", ")
            },
        })
    }

    /// Enters an image under names; those that had them before lose them.
    pub fn put(&self, image: &Descriptor, names: &[LayoutName]) -> Result<(), LayoutError> {
        let mut index = self.index()?.unwrap_or_else(empty);
        for name in names {
            let (reference, whole) = match name {
                LayoutName::Tag(tag) => (tag.clone(), None),
                LayoutName::Image(name) => (tag_of(name), Some(name.clone())),
            };
            let old = |d: &Descriptor| {
                d.annotations.get(REF_NAME) == Some(&reference)
                    && d.annotations.get(IMAGE_NAME) == whole.as_ref()
            };
            index.manifests.retain(|d| !old(d));
            let mut entry = image.clone();
            entry.annotations.insert(REF_NAME.into(), reference);
            if let Some(whole) = whole {
                entry.annotations.insert(IMAGE_NAME.into(), whole);
            }
            index.manifests.push(entry);
        }
        self.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        self.write("index.json", &gostd::json::to_vec(&index))
    }

    fn index(&self) -> Result<Option<Index>, LayoutError> {
        let path = self.folder.join("index.json");
        match std::fs::read(&path) {
            Ok(bytes) => gostd::json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| LayoutError::Index { path, source }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LayoutError::Io { path, source }),
        }
    }

    // Beside the old file first: who reads sees the old or the new.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), LayoutError> {
        let path = self.folder.join(name);
        let written = || -> io::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            let mut part = tempfile::Builder::new()
                .prefix(&format!(".{name}."))
                .permissions(std::fs::Permissions::from_mode(0o666))
                .tempfile_in(&self.folder)?;
            io::Write::write_all(&mut part, bytes)?;
            part.persist(&path).map_err(|e| e.error)?;
            Ok(())
        };
        written().map_err(|source| LayoutError::Io {
            path: path.clone(),
            source,
        })
    }
}

fn empty() -> Index {
    Index {
        schema_version: 2,
        media_type: "application/vnd.oci.image.index.v1+json".into(),
        artifact_type: String::new(),
        manifests: Vec::new(),
        subject: None,
        annotations: BTreeMap::new(),
    }
}

// What follows the last colon of the last part.
fn tag_of(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split('@').next().and_then(|l| l.split_once(':'));
    tag.map_or("latest", |t| t.1).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_under_the_names_that_it_has_now() -> Result<(), Box<dyn std::error::Error>>
    {
        let folder = tempfile::tempdir()?;
        let layout = Layout::new(&folder.path().join("new"));
        assert!(layout.find("latest").is_err());
        let one = Descriptor::of_bytes("m", b"one");
        let two = Descriptor::of_bytes("m", b"two");
        let tag = LayoutName::Tag("latest".into());
        layout.put(
            &one,
            &[
                tag.clone(),
                LayoutName::Image("example.com:5000/a:1".into()),
            ],
        )?;
        layout.put(&two, &[tag])?;
        assert_eq!(layout.find("latest")?, two.digest);
        assert_eq!(layout.find("example.com:5000/a:1")?, one.digest);
        assert_eq!(layout.find("1")?, one.digest);
        let error = layout.find("2").expect_err("not there").to_string();
        assert!(error.contains("it has 1, latest"), "{error}");
        Ok(())
    }
}
