//! Owners that others write.

use std::ffi::OsStr;

use fstree::Root;

#[test]
fn an_owner_that_means_as_it_is_changes_nothing_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let root = Root::open(folder.path()).unwrap();
    let dir = root.dir("/").unwrap();
    let before = root.lstat("file").unwrap();
    dir.chown(OsStr::new("file"), u32::MAX, u32::MAX).unwrap();
    dir.set_own_owner(u32::MAX, u32::MAX).unwrap();
    let after = root.lstat("file").unwrap();
    assert_eq!((before.uid, before.gid), (after.uid, after.gid));
}
