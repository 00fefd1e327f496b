use std::path::Path;

use fstree::Root;

use crate::support::{os, tree};

#[test]
fn no_path_leads_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let t = tree("");
    let at = |name: &str| t.dir.path().join(name);
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at("d/f"), "inside").unwrap();
    std::os::unix::fs::symlink(outside.path(), at("out")).unwrap();
    std::os::unix::fs::symlink("../../../../../../etc", at("d/up")).unwrap();
    std::os::unix::fs::symlink("/d/f", at("abs")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root", at("magic")).unwrap();

    assert!(t.root.read("out/secret", 100).is_err());
    assert!(t.root.read("d/up/passwd", 100).is_err());
    assert!(t.root.read("magic/etc/passwd", 100).is_err());
    assert!(t.root.dir(outside.path()).is_err());
    assert_eq!(t.root.read("../../abs", 100).unwrap(), b"inside");
    assert!(t.root.read("d/f", 3).is_err(), "longer than the limit");
    assert!(t.root.open_file("d").is_err());

    // What is made through the link is made inside.
    let created = t
        .root
        .mkdir_all(Path::new("out/new/dir"), 0o700, None, None)
        .unwrap();
    assert!(!created.is_empty());
    assert!(!outside.path().join("new").exists());
    t.root.create("d/up/../../made", 0o644).ok();
    assert!(!Path::new("/made").exists());

    // Removing a link removes the link.
    t.root.remove_all("out").unwrap();
    t.root.remove_all("d/up").unwrap();
    assert!(outside.path().join("secret").exists());
    assert!(t.root.remove_all("/").is_err());
    assert!(t.root.remove_all("not/there").is_ok());
}

#[test]
fn names_in_a_directory_are_single_names_and_are_not_followed() {
    let t = tree("");
    std::fs::create_dir(t.dir.path().join("d")).unwrap();
    std::os::unix::fs::symlink("d", t.dir.path().join("l")).unwrap();
    let dir = t.root.dir("/").unwrap();
    for name in ["", ".", "..", "a/b", "/etc"] {
        assert!(dir.stat(os(name)).is_err(), "{name}");
        assert!(dir.create_file(os(name), 0o644).is_err(), "{name}");
    }
    assert!(dir.open_dir(os("l")).is_err());
    assert!(dir.chmod(os("l"), 0o700).is_err());
    assert!(dir.stat(os("l")).unwrap().is_symlink());
}

#[test]
fn a_path_resolves_as_in_a_shell_that_lives_in_the_root() {
    let t = tree("");
    std::fs::create_dir_all(t.dir.path().join("a/b")).unwrap();
    for (name, target) in [
        ("abs", "/a"),
        ("a/rel", "b/../.."),
        ("gone", "x/y"),
        ("one", "two"),
        ("two", "one"),
        ("a/out", "../../../../a/b"),
    ] {
        std::os::unix::fs::symlink(target, t.dir.path().join(name)).unwrap();
    }
    for (path, follow, want) in [
        ("", true, "/"),
        ("../..", true, "/"),
        ("abs", true, "/a"),
        ("abs", false, "/abs"),
        ("abs/b", false, "/a/b"),
        ("a/rel", true, "/"),
        ("a/rel/abs/b", true, "/a/b"),
        ("a/out/new", true, "/a/b/new"),
        ("gone/z", true, "/x/y/z"),
        ("gone", false, "/gone"),
        ("./missing//./x/", true, "/missing/x"),
    ] {
        assert_eq!(
            t.root.resolve(path, follow).unwrap(),
            Path::new(want),
            "{path}"
        );
    }
    assert_eq!(
        t.root.resolve("one", true).unwrap_err().to_string(),
        "readlink one: too many levels of symbolic links"
    );
}

#[test]
fn a_root_can_be_a_directory_inside_another() {
    let t = tree("");
    std::fs::create_dir_all(t.dir.path().join("a/b")).unwrap();
    std::fs::write(t.dir.path().join("top"), "top").unwrap();
    std::os::unix::fs::symlink("../../top", t.dir.path().join("a/l")).unwrap();
    let sub = t.root.subroot("a").unwrap();
    assert!(sub.read("l", 10).is_err());
    assert!(sub.stat("b").unwrap().is_dir());
    assert!(Root::open(t.dir.path().join("top")).is_err());
}
