use std::io::Write;

use layer::tar::{EntryKind, Header, Writer};
use layer::{Applied, ApplyError, ApplyOptions, CreateOptions, Whiteouts};

use testkit::requires;

use crate::support::{Tree, empty, paths, show, tree};

fn apply(tar: &[u8], to: &Tree, options: &ApplyOptions) -> Result<Applied, ApplyError> {
    layer::apply(&mut &*tar, &to.root, options)
}

fn overlay() -> ApplyOptions {
    ApplyOptions::default()
}

fn entry(name: &str, kind: EntryKind, rest: &str) -> (Header, Vec<u8>) {
    let mut header = Header {
        name: name.into(),
        kind,
        mode: 0o644,
        mtime: 1000,
        ..Header::default()
    };
    let mut data = Vec::new();
    match kind {
        EntryKind::File => {
            data = rest.into();
            header.size = data.len() as u64;
        }
        EntryKind::HardLink | EntryKind::Symlink => header.link = rest.into(),
        _ => header.mode = 0o755,
    }
    (header, data)
}

fn tar(entries: &[(&str, EntryKind, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, kind, rest) in entries {
        let (header, data) = entry(name, *kind, rest);
        writer.append(&header).unwrap();
        writer.write_all(&data).unwrap();
    }
    writer.finish().unwrap()
}

use EntryKind::{Dir, File, HardLink, Symlink};

#[test]
fn a_snapshot_survives_the_way_to_a_layer_and_back() {
    requires!(root);
    let vectors = include_str!("data/layers.txt");
    let listing = |name: &str| {
        let start = vectors.split_once(&format!("[{name}]\n")).unwrap().1;
        start
            .split_once("\n[")
            .map_or(start, |(section, _)| section)
            .to_owned()
    };
    let upper = tree(&listing("upper"));
    let lower = tree(&listing("lower"));
    let mut blob = Vec::new();
    let info = layer::create(
        &upper.root,
        Some(&lower.root),
        &CreateOptions::default(),
        &mut blob,
    )
    .unwrap();

    let back = empty();
    let applied = apply(&blob, &back, &overlay()).unwrap();
    assert_eq!(
        (&applied.diff_id, applied.uncompressed_size),
        (&info.diff_id, info.uncompressed_size)
    );
    let mut again = Vec::new();
    let info_again = layer::create(
        &back.root,
        Some(&lower.root),
        &CreateOptions::default(),
        &mut again,
    )
    .unwrap();
    assert_eq!(
        info_again,
        info,
        "{}\n{}",
        show(&upper.root),
        show(&back.root)
    );
    assert!(paths(&back.root).contains("-etc/passwd"));

    // Onto the lower tree itself: whiteouts remove.
    let removing = ApplyOptions {
        whiteouts: Whiteouts::Remove,
        ..overlay()
    };
    let merged = tree(&listing("lower"));
    apply(&blob, &merged, &removing).unwrap();
    let shown = paths(&merged.root);
    assert!(
        shown.starts_with("etc/ etc/ssl/ etc/ssl/certs/ etc/ssl/certs/ca etc/ssl/certs/new fresh/"),
        "{shown}"
    );
    assert!(shown.ends_with("op/ op/both op/new"), "{shown}");
}

#[test]
fn whiteouts_become_what_overlayfs_understands_in_any_order() {
    requires!(root);
    for (entries, want) in [
        (&[("d/", Dir, ""), ("d/.wh.f", File, "")][..], "d/ -d/f"),
        (
            &[("d/.wh..wh..opq", File, ""), ("d/new", File, "n")],
            "d/! d/new",
        ),
        (&[(".wh.f", File, ""), ("f", File, "x")], "f"),
        (&[("f", File, "x"), (".wh.f", File, "")], "f"),
        (
            &[(".wh.d", File, ""), ("d/", Dir, ""), ("d/x", File, "")],
            "d/! d/x",
        ),
        (&[(".wh.d", File, ""), ("d/x", File, "")], "d/! d/x"),
        (
            &[("d/", Dir, ""), ("d/x", File, ""), (".wh.d", File, "")],
            "d/! d/x",
        ),
        (&[(".wh..wh.plnk", File, ""), ("f", File, "")], "f"),
    ] {
        let to = empty();
        apply(&tar(entries), &to, &overlay()).unwrap();
        assert_eq!(paths(&to.root), want, "{entries:?}");
    }
    let to = tree("dir d 755 0 0\nfile d/old 644 0 0\nfile f 644 0 0\n");
    let removing = ApplyOptions {
        whiteouts: Whiteouts::Remove,
        ..overlay()
    };
    apply(
        &tar(&[
            ("d/new", File, ""),
            ("d/.wh..wh..opq", File, ""),
            (".wh.f", File, ""),
        ]),
        &to,
        &removing,
    )
    .unwrap();
    assert_eq!(paths(&to.root), "d/ d/new");
    let literal = ApplyOptions {
        whiteouts: Whiteouts::Literal,
        ..overlay()
    };
    let to = empty();
    apply(&tar(&[(".wh.f", File, "")]), &to, &literal).unwrap();
    assert_eq!(paths(&to.root), ".wh.f");
}

#[test]
fn what_is_in_the_way_is_replaced_and_directories_are_merged() {
    requires!(root);
    for (entries, want) in [
        (
            &[("a", File, "1"), ("a/", Dir, ""), ("a/b", File, "2")][..],
            "a/ a/b",
        ),
        (&[("a/", Dir, ""), ("a/b", File, ""), ("a", File, "")], "a"),
        (
            &[("a/", Dir, ""), ("a/b", File, ""), ("a/", Dir, "")],
            "a/ a/b",
        ),
        (
            &[
                ("a", File, ""),
                ("a", Symlink, "/etc/passwd"),
                ("a", File, "x"),
            ],
            "a",
        ),
        (
            &[("./", Dir, ""), ("./a", File, ""), ("/abs", File, "")],
            "a abs",
        ),
        (
            &[
                ("a", File, "x"),
                ("b", HardLink, "a"),
                ("b", HardLink, "a"),
                ("a", HardLink, "a"),
            ],
            "a b",
        ),
        (
            &[
                ("real/", Dir, ""),
                ("l", Symlink, "/real"),
                ("l/f", File, ""),
            ],
            "l@ real/ real/f",
        ),
        (
            &[("l", Symlink, "not/yet"), ("l/f", File, "")],
            "l@ not/ not/yet/ not/yet/f",
        ),
    ] {
        let to = empty();
        apply(&tar(entries), &to, &overlay()).unwrap();
        assert_eq!(paths(&to.root), want, "{entries:?}");
    }
}

#[test]
fn layers_below_lend_their_directories_and_the_targets_of_hard_links() {
    requires!(root);
    let below =
        tree("dir d 1777 3 4\nxattr d user.x y\nfile d/f 4750 5 6 below\ndir d/e 700 1 1\n");
    let options = ApplyOptions {
        parents: vec![empty().root, below.root.clone()],
        ..overlay()
    };
    let to = empty();
    apply(
        &tar(&[("d/e/x", File, "x"), ("d/g", HardLink, "d/f")]),
        &to,
        &options,
    )
    .unwrap();
    let shown = show(&to.root);
    assert!(shown.starts_with("d/ 1777 3:4"), "{shown}");
    assert!(shown.contains("d/e/ 700 1:1"), "{shown}");
    assert!(
        shown.contains("d/f: below 4750 5:6") && shown.contains("d/g = d/f"),
        "{shown}"
    );
    let to = empty();
    let error = apply(&tar(&[("d/g", HardLink, "d/f")]), &to, &overlay())
        .unwrap_err()
        .to_string();
    assert_eq!(error, "link d/f: no such file or directory");
}

#[test]
fn archives_for_add_are_unpacked_where_they_are_sent_and_for_whom() {
    requires!(root);
    use fstree::action::{self, Archives, Copy, DestParents};
    let source = empty();
    let archive = tar(&[
        ("bin/", Dir, ""),
        ("bin/x", File, "x"),
        ("../../up", File, "u"),
    ]);
    std::fs::write(source.dir.path().join("a.tar"), &archive).unwrap();
    let mut gzip =
        layer::compress::Encoder::new(Vec::new(), &layer::Compression::default()).unwrap();
    gzip.write_all(&archive).unwrap();
    std::fs::write(source.dir.path().join("b.tgz"), gzip.finish().unwrap()).unwrap();
    std::fs::write(source.dir.path().join("c.tar"), "no archive at all").unwrap();
    for (name, want) in [
        ("a.tar", "to/ to/bin/ to/bin/x to/up"),
        ("b.tgz", "to/ to/bin/ to/bin/x to/up"),
        ("c.tar", "to/ to/c.tar"),
    ] {
        let dest = empty();
        let copy = Copy {
            src: name.to_owned(),
            dest: "/to/".to_owned(),
            parents: DestParents::Create,
            archives: Archives::Unpack,
            owner: Some(fstree::Owner { uid: 7, gid: 8 }),
            ..Copy::default()
        };
        action::copy(
            &source.root,
            &dest.root,
            &copy,
            Some(&layer::ArchiveUnpacker),
        )
        .unwrap();
        assert_eq!(paths(&dest.root), want);
        assert_eq!(
            show(&dest.root)
                .lines()
                .filter(|l| l.contains(" 7:8 "))
                .count(),
            want.split(' ').count()
        );
    }
}

#[test]
fn sparse_files_of_all_notations_keep_their_holes() {
    requires!(root);
    let packed = include_bytes!("data/sparse.tar.gz");
    let to = empty();
    apply(packed, &to, &overlay()).unwrap();
    for name in ["gnu", "pax00", "pax01", "pax10"] {
        let contents = std::fs::read(to.dir.path().join(name)).unwrap();
        assert_eq!(contents.len(), 3_000_000, "{name}");
        assert_eq!(&contents[..5], b"start", "{name}");
        assert_eq!(&contents[1_500_000..1_500_006], b"middle", "{name}");
        assert_eq!(contents.iter().filter(|b| **b != 0).count(), 11, "{name}");
        assert!(
            to.root.lstat(name).unwrap().blocks * 512 < 1_000_000,
            "{name}"
        );
    }
}
