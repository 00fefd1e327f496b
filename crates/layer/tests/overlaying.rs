use std::os::fd::{AsFd, OwnedFd};

use fstree::Root;
use fstree::action::{self, Copy, DestParents, DirCopy, Missing, Mkdir, Mkfile, Remove, Wildcards};
use fstree::hash::{Options, TreeHashes};
use layer::{ApplyOptions, CreateOptions};
use sys::mount::{Attrs, Overlay, overlay};

use testkit::requires;

use crate::support::{Tree, empty, show, tree};

fn mounted(upper: &Tree, lower: &Tree) -> Root {
    let spec = Overlay {
        lower: &[upper.root.as_fd(), lower.root.as_fd()],
        upper: None,
        volatile: false,
        options: &[],
        attrs: Attrs {
            readonly: true,
            ..Attrs::default()
        },
    };
    Root::from_fd(OwnedFd::from(overlay(&spec).unwrap())).unwrap()
}

const LOWER: &str = "dir d 750 1 2\nfile d/keep 644 0 0 keep\nfile d/old 644 0 0 old\ndir gone 755 0 0\n\
                     file gone/x 644 0 0 x\ndir again 755 0 0\nfile again/x 644 0 0 x\nfile again/y 644 0 0 y\n\
                     file was-file 644 0 0 f\ndir was-dir 755 0 0\nfile was-dir/z 644 0 0 z\nlink l d\n";

#[test]
fn what_a_step_leaves_in_an_overlay_is_what_others_see_after_pulling_its_layer() {
    requires!(root);
    let lower = tree(LOWER);
    let (upper, work) = (empty(), empty());
    let spec = Overlay {
        lower: &[lower.root.as_fd()],
        upper: Some((upper.root.as_fd(), work.root.as_fd())),
        volatile: true,
        options: &[],
        attrs: Attrs::default(),
    };
    let mount = overlay(&spec);
    let mount = match mount {
        Err(e) if e.raw_os_error() == Some(22) => {
            testkit::skip::skip("no overlay on the filesystem of the temporary directory");
            return;
        }
        other => other.unwrap(),
    };
    let step = Root::from_fd(OwnedFd::from(mount)).unwrap();
    for path in ["d/old", "gone", "again", "was-file", "was-dir"] {
        action::remove(
            &step,
            &Remove {
                path: path.into(),
                missing: Missing::Refuse,
                wildcards: Wildcards::Literal,
            },
        )
        .unwrap();
    }
    let mkdir = |path: &str| Mkdir {
        path: path.into(),
        mode: 0o755,
        make_parents: true,
        owner: None,
        timestamp: None,
    };
    let mkfile = |path: &str| Mkfile {
        path: path.into(),
        mode: 0o644,
        data: b"made".to_vec(),
        owner: None,
        timestamp: Some(1_000_000_000),
    };
    action::mkdir(&step, &mkdir("/again/sub")).unwrap();
    action::mkfile(&step, &mkfile("/again/y")).unwrap();
    action::mkdir(&step, &mkdir("/was-file")).unwrap();
    action::mkfile(&step, &mkfile("/was-dir")).unwrap();
    action::mkfile(&step, &mkfile("/l/through")).unwrap();
    step.link("d/through", "d/second").unwrap();
    let other = tree(
        "dir t 1777 3 4\nfile t/cap 755 5 6 cap\nxattr t/cap security.capability 0100000200040000000000000000000000000000\nlink t/s cap\nfifo t/p 600 0 0\n",
    );
    let copy = Copy {
        src: "/".into(),
        dest: "/copied/".into(),
        dir: DirCopy::Contents,
        parents: DestParents::Create,
        ..Copy::default()
    };
    action::copy(&other.root, &step, &copy, None).unwrap();

    let mut blob = Vec::new();
    let info = layer::create(
        &upper.root,
        Some(&lower.root),
        &CreateOptions::default(),
        &mut blob,
    )
    .unwrap();
    let pulled = empty();
    let options = ApplyOptions {
        parents: vec![lower.root.clone()],
        ..ApplyOptions::default()
    };
    let applied = layer::apply(&mut blob.as_slice(), &pulled.root, &options).unwrap();
    assert_eq!(applied.diff_id, info.diff_id);

    let mount = mounted(&pulled, &lower);
    assert_eq!(show(&mount), show(&step));
    assert!(!show(&mount).contains("again/x"));
    let hash = |root: &Root| {
        TreeHashes::new()
            .checksum(root, "/", &Options::default())
            .unwrap()
    };
    assert_eq!(hash(&mount), hash(&step));
    assert_eq!(hash(&mounted(&upper, &lower)), hash(&step));
}
