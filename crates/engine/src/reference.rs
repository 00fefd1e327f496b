//! A result that is computed when somebody asks for it, once.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::bridge::{FileRange, FileStat};
use frontend::{BridgeError, Fault, Ref};
use llb::pb;
use oci::Digest;
use store::ImmutableRef;
use tokio::sync::Mutex;

use crate::api::{Failure, FailureKind};
use crate::build::Build;

/// The most that is read of a file at once.
const MAX_FILE: u64 = 16 << 20;
/// The most entries of a folder that are listed.
const MAX_ENTRIES: usize = 1 << 20;

/// A definition and what it gave.
pub(crate) struct LazyRef {
    build: Arc<Build>,
    definition: Arc<pb::Definition>,
    /// Held while the result is computed: others wait, and go on in its place if it is dropped.
    result: Mutex<Option<Result<ops::Ref, Failure>>>,
}

impl LazyRef {
    pub(crate) fn new(build: Arc<Build>, definition: Arc<pb::Definition>) -> Arc<Self> {
        Arc::new(Self {
            build,
            definition,
            result: Mutex::new(None),
        })
    }

    /// The result, computed if it is not there yet.
    pub(crate) async fn result(&self) -> Result<ops::Ref, Failure> {
        let mut known = self.result.lock().await;
        if let Some(known) = &*known {
            return known.clone();
        }
        let result = self.build.compute(&self.definition).await;
        *known = Some(result.clone());
        result
    }

    async fn tree<T, F>(&self, op: &'static str, path: &str, work: F) -> Result<T, BridgeError>
    where
        T: Send + 'static,
        F: FnOnce(ImmutableRef) -> Result<T, ReadError> + Send + 'static,
    {
        let Some(found) = self.result().await? else {
            return Err(ReadError::missing(op, path).into());
        };
        self.build
            .alive(async { found.ensure().await.map_err(Failure::from) })
            .await?;
        Ok(task::blocking("read a file of a ref", move || work(found)).await?)
    }
}

/// A file that could not be read.
struct ReadError {
    missing: bool,
    message: String,
}

impl ReadError {
    fn new(error: impl fmt::Display) -> Self {
        let message = error.to_string();
        Self {
            missing: message.ends_with("no such file or directory"),
            message,
        }
    }

    fn missing(op: &str, path: &str) -> Self {
        Self {
            missing: true,
            message: format!("{op} {path}: no such file or directory"),
        }
    }
}

impl From<ReadError> for BridgeError {
    fn from(error: ReadError) -> Self {
        let fault = if error.missing {
            Fault::NotFound
        } else {
            Fault::Other
        };
        Self::new(fault, Failure::new(FailureKind::Unknown, error.message))
    }
}

#[async_trait]
impl Ref for LazyRef {
    fn definition(&self) -> Option<Arc<pb::Definition>> {
        Some(Arc::clone(&self.definition))
    }

    async fn evaluate(&self) -> Result<(), BridgeError> {
        self.result().await?;
        Ok(())
    }

    async fn read_file(&self, path: &str, range: Option<FileRange>) -> Result<Bytes, BridgeError> {
        let name = path.to_owned();
        self.tree("open", path, move |found| {
            let root = found.root().map_err(ReadError::new)?;
            let mut file = root.open_file(&name).map_err(ReadError::new)?;
            let range = range.unwrap_or(FileRange {
                offset: 0,
                length: 0,
            });
            // One byte more is given to those who ask for it to find out that a file is too large.
            let all = range.length == 0;
            let wanted = if all {
                MAX_FILE + 1
            } else {
                range.length.min(MAX_FILE + 1)
            };
            let too_long = || {
                ReadError::new(format!(
                    "{name} exceeds maximum allowed size of {MAX_FILE} bytes"
                ))
            };
            let failed = |e: std::io::Error| ReadError::new(format!("read {name}: {e}"));
            file.seek(SeekFrom::Start(range.offset)).map_err(failed)?;
            let mut bytes = Vec::new();
            file.take(wanted).read_to_end(&mut bytes).map_err(failed)?;
            if bytes.len() as u64 > MAX_FILE && (all || range.length > MAX_FILE + 1) {
                return Err(too_long());
            }
            Ok(Bytes::from(bytes))
        })
        .await
    }

    async fn read_dir(&self, path: &str, include: &str) -> Result<Vec<FileStat>, BridgeError> {
        let (name, include) = (path.to_owned(), include.to_owned());
        self.tree("open", path, move |found| {
            let root = found.root().map_err(ReadError::new)?;
            let dir = root.dir(&name).map_err(ReadError::new)?;
            let failed = |e: std::io::Error| ReadError::new(format!("readdir {name}: {e}"));
            let mut entries = dir.entries().map_err(failed)?;
            if entries.len() > MAX_ENTRIES {
                return Err(ReadError::new(format!(
                    "{name} has more than {MAX_ENTRIES} entries"
                )));
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            let mut wanted = Vec::new();
            for entry in entries {
                let shown = entry.name.to_string_lossy().into_owned();
                if include.is_empty() || matches(include.as_bytes(), shown.as_bytes()) {
                    wanted.push((Path::new(&name).join(&entry.name), shown));
                }
            }
            look(&found, wanted)
        })
        .await
    }

    async fn stat_file(&self, path: &str) -> Result<FileStat, BridgeError> {
        let name = path.to_owned();
        self.tree("lstat", path, move |found| {
            let base = Path::new(&name)
                .file_name()
                .map_or("/".into(), |n| n.to_string_lossy().into_owned());
            let found = look(&found, vec![(PathBuf::from(&name), base)])?;
            found
                .into_iter()
                .next()
                .ok_or_else(|| ReadError::missing("lstat", &name))
        })
        .await
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Looks at files, each to be shown by a name.
fn look(found: &ImmutableRef, wanted: Vec<(PathBuf, String)>) -> Result<Vec<FileStat>, ReadError> {
    let root = found.root().map_err(ReadError::new)?;
    let mut out = Vec::with_capacity(wanted.len());
    for (path, shown) in wanted {
        let meta = root.lstat(&path).map_err(ReadError::new)?;
        let linkname = if meta.is_symlink() {
            root.readlink(&path)
                .map_err(ReadError::new)?
                .to_string_lossy()
                .into_owned()
        } else {
            String::new()
        };
        let xattrs = match root.parent(&path).map_err(ReadError::new)? {
            Some((dir, name)) => dir.xattrs(&name).unwrap_or_default(),
            None => BTreeMap::default(),
        };
        let device = !(meta.is_file() || meta.is_dir() || meta.is_symlink());
        out.push(FileStat {
            path: shown,
            mode: meta.go_mode(),
            uid: meta.uid,
            gid: meta.gid,
            size: if meta.is_dir() {
                0
            } else {
                i64::try_from(meta.size).unwrap_or(i64::MAX)
            },
            mod_time: meta.mtime,
            linkname,
            devmajor: if device { i64::from(meta.rdev.0) } else { 0 },
            devminor: if device { i64::from(meta.rdev.1) } else { 0 },
            xattrs,
        });
    }
    Ok(out)
}

/// Whether a name fits a pattern with `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || name.get(n) == Some(c) => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    p = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|c| *c == b'*')
}

impl fmt::Debug for LazyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head: Option<Digest> = llb::definition::head(&self.definition);
        f.debug_tuple("LazyRef").field(&head).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn names_are_chosen_by_pattern() {
        assert!(matches(b"*.txt", b"a.txt") && matches(b"a?c*", b"abcd") && matches(b"*", b""));
        assert!(!matches(b"*.txt", b"a.txt2") && !matches(b"", b"a") && !matches(b"a", b""));
    }
}
