//! Transfers of which most files are only listed: `local.metadatatransfer`.
//!
//! Every file's metadata goes into the file `.fsutil-metadata` at the top, each as its length in four bytes, the low one first, and the
//! protocol's `Stat` message. Files are made only where they are asked for, and the folders above them.
//!
//! Facts: `receive.go` of tonistiigi/fsutil.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use fstree::Stat;

use crate::diffcopy::receiver::ProtocolError;

/// Name of the file with the list.
pub(super) const LISTING_FILE: &str = ".fsutil-metadata";
/// Size limit of the list in bytes.
const MAX_LISTING_BYTES: usize = 256 << 20;

/// Decides which files are transferred with their contents.
pub type WantsContents = Arc<dyn Fn(&Path) -> bool + Send + Sync>;

/// The list of a tree of which most files are only listed.
pub(super) struct Listing {
    wants_contents: WantsContents,
    /// Folders that were not created yet, each inside the one before.
    folders: Vec<(u32, Stat)>,
    list: Vec<u8>,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("bytes", &self.list.len())
            .finish_non_exhaustive()
    }
}

impl Listing {
    pub(super) fn new(wants_contents: WantsContents) -> Self {
        Self {
            wants_contents,
            folders: Vec::new(),
            list: Vec::new(),
        }
    }

    /// Takes the next listed file; returns the files to create now, in order.
    pub(super) fn take(&mut self, id: u32, stat: Stat) -> Result<Vec<(u32, Stat)>, ProtocolError> {
        // A file of the client with this name would be mistaken for the list.
        if stat.path.as_os_str() == LISTING_FILE {
            return Ok(Vec::new());
        }
        let message = encode(&stat);
        // The dropped error says only that the number is out of range.
        let length = u32::try_from(message.len()).map_err(|_| ProtocolError::TooManyFiles)?;
        if self.list.len().saturating_add(message.len()) > MAX_LISTING_BYTES {
            return Err(ProtocolError::TooManyFiles);
        }
        self.list.extend_from_slice(&length.to_le_bytes());
        self.list.extend_from_slice(&message);
        let above = stat.path.parent().unwrap_or(Path::new(""));
        while self
            .folders
            .last()
            .is_some_and(|(_, last)| last.path != above)
        {
            self.folders.pop();
        }
        if (self.wants_contents)(&stat.path) {
            let mut files = std::mem::take(&mut self.folders);
            files.push((id, stat));
            return Ok(files);
        }
        if stat.is_dir() {
            self.folders.push((id, stat));
        }
        Ok(Vec::new())
    }

    /// The bytes of the list's file.
    pub(super) fn contents(&self) -> &[u8] {
        &self.list
    }
}

/// Encodes the protocol's `Stat` message: fields in order, without those that are zero.
fn encode(stat: &Stat) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let path = stat.path.as_os_str().as_bytes();
    bytes(&mut out, 1, path);
    number(&mut out, 2, u64::from(stat.mode));
    number(&mut out, 3, u64::from(stat.uid));
    number(&mut out, 4, u64::from(stat.gid));
    number(&mut out, 5, stat.size.cast_unsigned());
    number(&mut out, 6, stat.mod_time.cast_unsigned());
    bytes(&mut out, 7, stat.linkname.as_os_str().as_bytes());
    number(&mut out, 8, stat.devmajor.cast_unsigned());
    number(&mut out, 9, stat.devminor.cast_unsigned());
    for (key, value) in &stat.xattrs {
        let mut entry = Vec::new();
        bytes(&mut entry, 1, key.as_bytes());
        bytes(&mut entry, 2, value);
        bytes(&mut out, 10, &entry);
    }
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        varint(out, field << 3);
        varint(out, value);
    }
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    if !value.is_empty() {
        varint(out, field << 3 | 2);
        varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wanted_files_and_the_folders_above_them_are_made_and_all_are_listed() {
        let dir = 1 << 31;
        let mut listing = Listing::new(Arc::new(|path: &Path| path.ends_with("x")));
        let mut made = Vec::new();
        for (id, (path, mode)) in [
            ("a", dir),
            ("a/b", dir),
            ("a/b/y", 0),
            ("a/c", dir),
            ("a/c/x", 0),
            ("a/c/y", 0),
            ("d", dir),
            ("x", 0),
            (LISTING_FILE, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let stat = Stat {
                path: path.into(),
                mode,
                ..Stat::default()
            };
            let now = listing.take(u32::try_from(id).unwrap(), stat).unwrap();
            made.extend(
                now.into_iter()
                    .map(|(id, s)| format!("{id}:{}", s.path.display())),
            );
        }
        assert_eq!(made, ["0:a", "3:a/c", "4:a/c/x", "7:x"]);
        assert!(listing.contents().starts_with(b"\x09\0\0\0\x0a\x01a\x10"));
    }

    #[test]
    fn a_message_is_what_others_write() {
        let stat = Stat {
            path: "foo".into(),
            mode: 0o602,
            uid: 300,
            size: 3,
            mod_time: 1,
            xattrs: [("user.k".to_owned(), b"v".to_vec())].into(),
            ..Stat::default()
        };
        assert_eq!(
            encode(&stat),
            b"\x0a\x03foo\x10\x82\x03\x18\xac\x02\x28\x03\x30\x01\x52\x0b\x0a\x06user.k\x12\x01v"
        );
    }
}
