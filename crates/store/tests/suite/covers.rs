use std::io::Write as _;
use std::path::Path;

use store::RefOptions;
use testkit::requires;

use crate::support::{Lab, list};

#[test]
fn a_covered_file_shows_other_contents_and_only_what_is_written_stays() {
    requires!(overlay);
    let lab = Lab::new();
    let base = lab.step(None, &["etc/", "etc/ssl/", "etc/ssl/bundle=old", "etc/x=1"]);
    let path = Path::new("etc/ssl/bundle");
    let before = base.root().unwrap().stat(path).unwrap();
    let folder = base.root().unwrap().stat("etc/ssl").unwrap();

    let mutable = lab
        .store
        .new_mutable(Some(&base), RefOptions::default())
        .unwrap();
    mutable.cover(path, b"covered", None).unwrap();
    let root = mutable.root().unwrap();
    assert_eq!(root.read(path, 100).unwrap(), b"covered");
    assert_eq!(root.read("etc/x", 100).unwrap(), b"1");
    let shown = root.stat(path).unwrap();
    let same = |a: &fstree::Meta, b: &fstree::Meta| {
        (a.mode, a.uid, a.gid, a.mtime) == (b.mode, b.uid, b.gid, b.mtime)
    };
    assert!(same(&shown, &before), "{shown:?} {before:?}");
    assert!(same(&root.stat("etc/ssl").unwrap(), &folder));
    assert_eq!(
        list(&mutable.upper().unwrap()),
        "",
        "reading leaves nothing"
    );

    // As programs do that write such a file anew.
    let mut file = root.create("etc/ssl/bundle.new", 0o644).unwrap();
    file.write_all(b"own").unwrap();
    drop(file);
    root.rename("etc/ssl/bundle.new", path).unwrap();
    drop(root);
    let top = mutable.commit().unwrap();
    assert_eq!(top.root().unwrap().read(path, 100).unwrap(), b"own");
    assert_eq!(top.root().unwrap().read("etc/x", 100).unwrap(), b"1");
}

#[test]
fn what_stands_on_nothing_or_has_no_such_file_is_not_covered() {
    requires!(overlay);
    let lab = Lab::new();
    let base = lab.step(None, &["x=1"]);
    for (parent, path) in [(None, "x"), (Some(&base), "y"), (Some(&base), "a/b")] {
        let mutable = lab.store.new_mutable(parent, RefOptions::default());
        let covered = mutable.unwrap().cover(Path::new(path), b"", None);
        assert!(covered.is_err(), "{path}");
    }
}
