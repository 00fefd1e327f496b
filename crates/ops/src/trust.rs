//! The certificates that a step on the proxy network trusts, and their removal after its end.
//!
//! The step sees the image's bundle with the proxy's certificate added, in a layer that belongs to no record. A step that only reads it
//! leaves nothing behind; from a bundle that the step wrote, the certificate is removed, so that no image trusts a proxy of ours.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use fstree::{Kind, PathError, Root, Times};
use proxy::trust;
use store::{MutableRef, StoreError};

/// Why the certificate could not be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The bundle is too large to be read.
    #[error("{} exceeds {} bytes", path.display(), trust::MAX_BUNDLE)]
    Large {
        /// Path of the bundle in the root filesystem.
        path: PathBuf,
    },
    /// The step's files cannot be read or written.
    #[error(transparent)]
    Tree(#[from] PathError),
    /// The bundle cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Path of the file in the root filesystem.
        path: PathBuf,
        /// The error of the kernel.
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The bundle as a step sees it.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Its resolved path, without a leading slash; none if the image has no bundle.
    path: Option<PathBuf>,
    certificate: Vec<u8>,
}

fn limit() -> u64 {
    u64::try_from(trust::MAX_BUNDLE).unwrap_or(u64::MAX)
}

/// The first known bundle that exists, with its resolved path.
fn find(root: &Root) -> Result<Option<PathBuf>, PathError> {
    for bundle_path in trust::BUNDLES {
        let Ok(path) = root.resolve(bundle_path, true) else {
            // A loop of links, or a link to nothing.
            continue;
        };
        if root
            .lstat_opt(&path)?
            .is_some_and(|meta| meta.kind() == Kind::File)
        {
            return Ok(Some(relative(&path).to_owned()));
        }
    }
    Ok(None)
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

impl Bundle {
    /// Adds the proxy's certificate to the root that the step sees. Returns all certificates as well.
    pub(crate) fn add(
        root: &MutableRef,
        certificate: &[u8],
        ids: Option<&executor::IdMapping>,
    ) -> Result<(Self, Vec<u8>), TrustError> {
        let mut bundle = Self {
            path: None,
            certificate: certificate.to_vec(),
        };
        let Some(parent) = root.parent() else {
            return Ok((bundle, certificate.to_vec()));
        };
        let below = parent.root()?;
        let Some(path) = find(&below)? else {
            return Ok((bundle, certificate.to_vec()));
        };
        if below.stat(&path)?.size > limit() {
            return Err(TrustError::Large { path });
        }
        let original = below.read(&path, limit())?;
        let Some(contents) = trust::append(&original, certificate) else {
            return Ok((bundle, original));
        };
        root.cover(&path, &contents, ids)?;
        bundle.path = Some(path);
        Ok((bundle, contents))
    }

    /// Removes the certificate from the files of the step.
    pub(crate) fn remove(&self, root: &MutableRef) -> Result<(), TrustError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let upper = root.upper()?;
        // A bundle that the step did not write is not in its layer; one that is not a file contains no certificate.
        let Some(meta) = upper
            .lstat_opt(path)?
            .filter(|meta| meta.kind() == Kind::File)
        else {
            return Ok(());
        };
        if meta.size > limit() {
            return Err(TrustError::Large { path: path.clone() });
        }
        let written = upper.read(path, limit())?;
        let Some(cleaned) = trust::strip(&written, &self.certificate) else {
            return Ok(());
        };
        replace(&root.root()?, path, &cleaned)
    }
}

/// Replaces a file, keeping its owner, mode, times and attributes and those of its directory.
fn replace(tree: &Root, path: &Path, contents: &[u8]) -> Result<(), TrustError> {
    let (dir, name) = tree.named("replace", path)?;
    let (outer, folder) = match path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        Some(parent) => {
            let (outer, folder) = tree.named("replace", parent)?;
            (Some(outer), folder)
        }
        None => (None, name.clone()),
    };
    let replace = || -> std::io::Result<()> {
        let before = dir.meta()?;
        let meta = dir.stat(&name)?;
        let temporary = std::ffi::OsString::from(format!(".buildkit-ca-{}", meta.ino));
        let mut file = dir.create_file(&temporary, 0o600)?;
        let written = file.write_all(contents).and_then(|()| {
            dir.chown(&temporary, meta.uid, meta.gid)?;
            dir.chmod(&temporary, meta.mode & 0o7777)?;
            for (key, value) in dir.xattrs(&name)? {
                dir.set_xattr(&temporary, &key, &value)?;
            }
            dir.set_times(&temporary, Times::both(meta.mtime))?;
            dir.rename(&temporary, &dir, &name)
        });
        if let Err(error) = written {
            dir.unlink(&temporary)?;
            return Err(error);
        }
        if let Some(outer) = &outer {
            outer.set_times(&folder, Times::both(before.mtime))?;
        }
        Ok(())
    };
    replace().map_err(|source| TrustError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::{Config, ImmutableRef, RefOptions, Store};

    use super::*;

    const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const PATH: &str = "etc/ssl/certs/ca-certificates.crt";

    fn base(store: &Arc<Store>, path: &str, contents: &[u8]) -> ImmutableRef {
        let mutable = store.new_mutable(None, RefOptions::default()).unwrap();
        let root = mutable.root().unwrap();
        root.mkdir_all(Path::new(path).parent().unwrap(), 0o755, None, None)
            .unwrap();
        let mut file = root.create(path, 0o644).unwrap();
        file.write_all(contents).unwrap();
        drop((file, root));
        mutable.commit().unwrap()
    }

    fn store() -> (tempfile::TempDir, Arc<Store>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Config::new(dir.path())).unwrap();
        (dir, store)
    }

    fn on(store: &Arc<Store>, base: &ImmutableRef) -> MutableRef {
        store
            .new_mutable(Some(base), RefOptions::default())
            .unwrap()
    }

    fn write(root: &MutableRef, contents: &[u8]) {
        let tree = root.root().unwrap();
        let mut file = tree.create("etc/ssl/certs/new", 0o640).unwrap();
        file.write_all(contents).unwrap();
        tree.rename("etc/ssl/certs/new", PATH).unwrap();
    }

    #[test]
    fn a_step_sees_the_certificate_and_leaves_nothing_if_it_only_reads() {
        testkit::requires!(overlay);
        let (_dir, store) = store();
        let base = base(&store, PATH, b"image\n");
        let root = on(&store, &base);
        let (bundle, all) = Bundle::add(&root, CERTIFICATE, None).unwrap();
        assert_eq!(root.root().unwrap().read(PATH, 1000).unwrap(), all);
        assert!(all.starts_with(b"image\n") && all.len() > CERTIFICATE.len());
        bundle.remove(&root).unwrap();
        assert!(root.upper().unwrap().lstat_opt("etc").unwrap().is_none());
    }

    #[test]
    fn changes_of_a_step_to_the_bundle_stay_without_the_certificate() {
        testkit::requires!(overlay);
        let (_dir, store) = store();
        let base = base(&store, PATH, b"image\n");
        let root = on(&store, &base);
        let (bundle, all) = Bundle::add(&root, CERTIFICATE, None).unwrap();
        write(&root, &[all.as_slice(), b"own\n"].concat());
        let before = root.root().unwrap().stat(PATH).unwrap();
        bundle.remove(&root).unwrap();
        let committed = root.commit().unwrap().root().unwrap();
        assert_eq!(committed.read(PATH, 1000).unwrap(), b"image\nown\n");
        let after = committed.stat(PATH).unwrap();
        assert_eq!((after.mode, after.mtime), (before.mode, before.mtime));
        assert!(committed.lstat_opt("etc/ssl/certs/new").unwrap().is_none());
    }

    #[test]
    fn a_bundle_that_became_too_large_is_an_error_with_its_path() {
        testkit::requires!(overlay);
        let (_dir, store) = store();
        let base = base(&store, PATH, b"image\n");
        let root = on(&store, &base);
        let (bundle, _) = Bundle::add(&root, CERTIFICATE, None).unwrap();
        write(&root, &vec![0; trust::MAX_BUNDLE + 1]);
        assert_eq!(
            bundle.remove(&root).unwrap_err().to_string(),
            format!("{PATH} exceeds 10485760 bytes")
        );
    }

    #[test]
    fn without_a_bundle_nothing_is_added_and_links_are_resolved() {
        testkit::requires!(overlay);
        let (_dir, store) = store();
        let none = base(&store, "etc/hosts", b"");
        let root = on(&store, &none);
        let (bundle, all) = Bundle::add(&root, CERTIFICATE, None).unwrap();
        assert_eq!((all.as_slice(), &bundle.path), (CERTIFICATE, &None));
        bundle.remove(&root).unwrap();

        let real = "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem";
        let base = base(&store, real, b"image\n");
        let linked = on(&store, &base);
        let tree = linked.root().unwrap();
        tree.mkdir_all("etc/pki/tls/certs", 0o755, None, None)
            .unwrap();
        let target = format!("/{real}");
        tree.symlink(&target, "etc/pki/tls/certs/ca-bundle.crt")
            .unwrap();
        drop(tree);
        let base = linked.commit().unwrap();
        let (bundle, _) = Bundle::add(&on(&store, &base), CERTIFICATE, None).unwrap();
        assert_eq!(bundle.path.as_deref(), Some(Path::new(real)));
    }
}
