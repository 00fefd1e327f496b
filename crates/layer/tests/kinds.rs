//! Every kind of entry over every kind of file that is there already, and trailers of broken archives.

use std::io::Write;

use layer::tar::{EntryKind, Header, Writer};
use layer::{ApplyError, ApplyOptions, Whiteouts};
use oci::ErrorKind;
use testkit::requires;

use crate::support::{empty, paths, tree};

fn archive(entries: &[(&str, EntryKind, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, kind, rest) in entries {
        let mut header = Header {
            name: (*name).into(),
            kind: *kind,
            mode: 0o755,
            ..Header::default()
        };
        match kind {
            EntryKind::File => header.size = rest.len() as u64,
            EntryKind::Char | EntryKind::Block => (header.devmajor, header.devminor) = (1, 3),
            _ => header.link = (*rest).into(),
        }
        writer.append(&header).unwrap();
        if *kind == EntryKind::File {
            writer.write_all(rest.as_bytes()).unwrap();
        }
    }
    writer.finish().unwrap()
}

use EntryKind::{Block, Char, Dir, Fifo, File, HardLink, Symlink};

/// What an entry named `n` is, with what it leaves.
const ENTRIES: &[(EntryKind, &str, &str)] = &[
    (File, "text", "n"),
    (Dir, "", "n/"),
    (Symlink, "elsewhere", "n@"),
    (HardLink, "other", "n"),
    (Char, "", "n:Char"),
    (Block, "", "n:Block"),
    (Fifo, "", "n:Fifo"),
];

#[test]
fn an_entry_replaces_whatever_has_its_name_and_a_directory_is_merged_into() {
    requires!(root);
    let there = [
        "",
        "file n 644 0 0 old\n",
        "dir n 755 0 0\nfile n/in 644 0 0 i\n",
        "link n other\n",
        "fifo n 644 0 0\n",
        "char n 644 0 0 1 5\n",
    ];
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove, Whiteouts::Literal] {
        for (kind, rest, left) in ENTRIES {
            for before in there {
                let to = tree(&format!("file other 600 0 0 other\n{before}"));
                let options = ApplyOptions {
                    whiteouts,
                    ..ApplyOptions::default()
                };
                let bytes = archive(&[("n", *kind, rest)]);
                layer::apply(&mut bytes.as_slice(), &to.root, &options).unwrap();
                let merged = *kind == Dir && before.starts_with("dir");
                let want = if merged {
                    "n/ n/in other".to_owned()
                } else {
                    format!("{left} other")
                };
                assert_eq!(paths(&to.root), want, "{kind:?} over {before:?}");
                // Nothing was written through a link or into another name.
                assert_eq!(to.root.read("other", 10).unwrap(), b"other");
                let names = to.root.lstat("other").unwrap().nlink;
                assert_eq!(names, if *kind == HardLink { 2 } else { 1 });
            }
        }
    }
}

#[test]
fn a_whiteout_hides_or_removes_every_kind_and_says_nothing_of_what_never_was() {
    requires!(root);
    for before in [
        "",
        "file n 644 0 0 old\n",
        "dir n 755 0 0\ndir n/deep 755 0 0\nfile n/deep/in 644 0 0 i\n",
        "link n other\n",
        "fifo n 644 0 0\n",
    ] {
        // Into an overlay each layer is unpacked by itself: what is there came with the same layer, and stays.
        let is_alone = before.is_empty();
        for (whiteouts, left) in [
            (Whiteouts::Remove, "other"),
            (Whiteouts::Overlay, "-n other"),
        ] {
            if whiteouts == Whiteouts::Overlay && !is_alone {
                continue;
            }
            let to = tree(&format!("file other 600 0 0 other\n{before}"));
            let options = ApplyOptions {
                whiteouts,
                ..ApplyOptions::default()
            };
            let bytes = archive(&[(".wh.n", File, "")]);
            layer::apply(&mut bytes.as_slice(), &to.root, &options).unwrap();
            assert_eq!(paths(&to.root), left, "{before:?} {whiteouts:?}");
        }
    }
}

#[test]
fn errors_say_whose_fault_it_is() {
    requires!(root);
    let whole = archive(&[("a", File, "text")]);
    let check = |what: &str, bytes: &[u8], limit: Option<u64>, kind: ErrorKind| {
        let options = ApplyOptions {
            limit,
            ..ApplyOptions::default()
        };
        let applied = layer::apply(&mut &*bytes, &empty().root, &options);
        let error: ApplyError = applied.unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
    };
    check("too large", &whole, Some(3), ErrorKind::Exhausted);
    check("text", &[b'x'; 2048], None, ErrorKind::Hostile);
    let link_to_root = archive(&[("l", HardLink, "/")]);
    check(
        "a link to the root",
        &link_to_root,
        None,
        ErrorKind::Hostile,
    );
    let link_to_nothing = archive(&[("l", HardLink, "nothing")]);
    check(
        "a link to nothing",
        &link_to_nothing,
        None,
        ErrorKind::NotFound,
    );
    check(
        "half a gzip header",
        &[0x1f, 0x8b, 8],
        None,
        ErrorKind::Invalid,
    );
    let mut wrong_sum = whole;
    wrong_sum[0] = b'b';
    check("a wrong checksum", &wrong_sum, None, ErrorKind::Hostile);
}
