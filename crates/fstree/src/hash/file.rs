//! The digest of one file.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use oci::{Digest, Digester};

use crate::dir::Dir;
use crate::stat::{Kind, MODE_IRREGULAR, MODE_SOCKET, Meta, Stat, unix_permissions};

const READ_BUFFER_BYTES: usize = 256 << 10;

/// The digest of one file in the making: metadata first, then the contents.
#[derive(Debug)]
pub struct FileHasher {
    inner: Digester,
}

impl FileHasher {
    /// Starts with the file's metadata.
    #[must_use]
    pub fn new(stat: &Stat) -> Self {
        let mode = stat.mode & !(MODE_SOCKET | MODE_IRREGULAR);
        let (letter, size, link) = match Kind::from_go_mode(mode) {
            Kind::File | Kind::Socket => ('0', stat.size, None),
            Kind::Dir => ('5', 0, None),
            Kind::Symlink => ('2', 0, Some(&stat.linkname)),
            Kind::Char => ('3', 0, None),
            Kind::Block => ('4', 0, None),
            Kind::Fifo => ('6', 0, None),
        };
        let mut inner = Digester::new();
        let mut text = String::with_capacity(128);
        let _infallible = write!(
            text,
            "namemode{}uid{}gid{}size{size}typeflag{letter}linkname",
            unix_permissions(mode),
            stat.uid,
            stat.gid
        );
        inner.update(text.as_bytes());
        if let Some(link) = link {
            inner.update(link.as_os_str().as_bytes());
        }
        text.clear();
        let _infallible = write!(
            text,
            "unamegnamedevmajor{}devminor{}",
            stat.devmajor, stat.devminor
        );
        inner.update(text.as_bytes());
        for (key, value) in &stat.xattrs {
            if xattr_counts(key) {
                inner.update(key.as_bytes());
                inner.update(value);
            }
        }
        Self { inner }
    }

    /// Adds contents.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.inner.finish()
    }
}

fn xattr_counts(key: &str) -> bool {
    // Overlay's own marks are not part of what a tree says; whether they can be seen depends on how it is mounted.
    if key.starts_with(sys::userns::overlay_xattrs()) {
        return false;
    }
    key == "security.capability" || !(key.starts_with("security.") || key.starts_with("system."))
}

/// The digest of the directory's own metadata.
pub(super) fn directory_header(dir: &Dir) -> io::Result<Digest> {
    let stat = Stat {
        xattrs: dir.own_xattrs()?,
        ..base(&dir.meta()?)
    };
    Ok(FileHasher::new(&stat).finish())
}

/// The digest of the file `name` in `dir`, read from disk.
pub(super) fn of_file(
    dir: &Dir,
    name: &std::ffi::OsStr,
    buffer: &mut Vec<u8>,
) -> io::Result<Digest> {
    let meta = dir.stat(name)?;
    let mut stat = Stat {
        xattrs: dir.xattrs(name)?,
        ..base(&meta)
    };
    if meta.is_symlink() {
        stat.linkname = dir.readlink(name)?;
        stat.mode |= 0o777;
    }
    let mut hasher = FileHasher::new(&stat);
    if meta.is_file() && meta.size > 0 {
        buffer.resize(READ_BUFFER_BYTES, 0);
        let mut file = dir.open_file(name)?;
        loop {
            match file.read(buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(buffer.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(hasher.finish())
}

// Device numbers are left out on purpose: see the table in the module above.
fn base(meta: &Meta) -> Stat {
    Stat {
        mode: meta.go_mode(),
        uid: meta.uid,
        gid: meta.gid,
        size: i64::try_from(meta.size).unwrap_or(i64::MAX),
        ..Stat::default()
    }
}
