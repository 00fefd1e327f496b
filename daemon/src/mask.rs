//! The file mode mask of the process.

/// While it lives, files that the process makes are for its user only: sockets are opened and the state directory is made under it.
///
/// Afterwards the mask is the usual one, or a stricter one that the daemon was started with. What the daemon makes later has its
/// mode said: files of images must not depend on a mask.
#[derive(Debug)]
pub(crate) struct PrivateFiles(u32);

impl PrivateFiles {
    pub(crate) fn begin() -> Self {
        Self(sys::file::umask(0o077))
    }
}

impl Drop for PrivateFiles {
    fn drop(&mut self) {
        let _private = sys::file::umask(self.0 | 0o022);
    }
}
