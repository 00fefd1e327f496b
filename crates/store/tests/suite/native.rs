//! Whole copies in the place of overlay mounts: the same directory is read by daemons with and without overlay.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fstree::Root;
use store::{Config, DriverKind, ImmutableRef, RefId, RefOptions, Store};
use testkit::requires;

const DRIVERS: [DriverKind; 2] = [DriverKind::Native, DriverKind::Overlay];

fn open(dir: &Path, driver: DriverKind) -> Arc<Store> {
    let config = Config {
        driver,
        ..Config::new(dir)
    };
    Store::open(config).unwrap()
}

fn close(store: Arc<Store>) {
    store.close().unwrap();
}

/// A layer that is kept, written by a shell, which does what steps do.
fn layer(store: &Arc<Store>, below: Option<&ImmutableRef>, script: &str) -> ImmutableRef {
    let options = RefOptions {
        retain: true,
        ..RefOptions::described("a layer")
    };
    let mutable = store.new_mutable(below, options).unwrap();
    let tree = mutable.mount().unwrap();
    let place = sys::mount::fd_path(std::os::fd::AsFd::as_fd(&tree));
    let ran = std::process::Command::new("sh")
        .args(["-ec", script])
        .current_dir(place)
        .status()
        .unwrap();
    assert!(ran.success(), "{script}");
    drop(tree);
    mutable.commit().unwrap()
}

/// Each path with its kind, mode, links and, for a file, contents.
fn listing(root: &Root) -> BTreeMap<String, String> {
    let walk = fstree::walk::Walk::new(root, &fstree::walk::Filter::default()).unwrap();
    walk.map(|stat| {
        let stat = stat.unwrap();
        let contents = stat
            .is_file()
            .then(|| String::from_utf8(root.read(&stat.path, 1 << 10).unwrap()).unwrap());
        let path = stat.path.display().to_string();
        (
            path,
            format!("{:o} {:?} {contents:?}", stat.mode, stat.linkname),
        )
    })
    .collect()
}

// No file with two names is written to above: overlay parts them then, and copies do not.
const BASE: &str = "echo one > a; echo gone > b; mkdir d; echo x > d/x; echo l > l1; ln l1 l2; ln -s a link; chmod 4755 a; mkdir -m 700 secret";
const ABOVE: &str = "rm b; echo more >> a; rm -r d; mkdir d; echo y > d/y; ln d/y other; chmod 640 other; chmod 711 secret";
const TOP: &str = "rm link; echo top > t; rm -r d; mkdir e; echo z > e/y";

#[test]
fn a_directory_means_the_same_with_overlay_and_without() {
    requires!(overlay);
    let mut seen = Vec::new();
    for first in DRIVERS {
        for second in DRIVERS {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path(), first);
            let base = layer(&store, None, BASE);
            let above = layer(&store, Some(&base), ABOVE);
            let before = listing(&above.root().unwrap());
            let id: RefId = above.id().clone();
            drop((base, above));
            close(store);
            let store = open(dir.path(), second);
            let above = store.get(&id).unwrap();
            assert_eq!(
                listing(&above.root().unwrap()),
                before,
                "{first:?} {second:?}"
            );
            let top = layer(&store, Some(&above), TOP);
            seen.push(listing(&top.root().unwrap()));
            drop((above, top));
            close(store);
        }
    }
    for other in &seen {
        assert_eq!(Some(other), seen.first());
    }
    let first = seen.first().unwrap();
    assert!(first.get("a").unwrap().contains("one\\nmore"), "{first:?}");
    assert!(
        !first.contains_key("b") && !first.contains_key("e/x"),
        "{first:?}"
    );
}

#[test]
fn a_step_changes_no_file_of_what_it_stands_on() {
    requires!(overlay);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), DriverKind::Native);
    assert_eq!(store.snapshotter(), "native");
    let base = layer(&store, None, "echo one > a; mkdir d; echo x > d/x");
    let above = layer(&store, Some(&base), "true");
    let before = listing(&above.root().unwrap());
    let top = layer(&store, Some(&above), "echo two >> a; chmod 600 d/x");
    assert_ne!(listing(&top.root().unwrap()), before);
    assert_eq!(listing(&above.root().unwrap()), before);
    drop((base, above, top));
    close(store);
}
