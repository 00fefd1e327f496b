use std::io::{Read, Write};
use std::path::Path;

use layer::tar::{EntryKind, Header, Reader, Writer};
use layer::{ApplyError, ApplyOptions};
use proptest::prelude::*;

use testkit::requires;

use crate::support::{empty, paths};

fn tar(entries: &[(&str, EntryKind, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, kind, rest) in entries {
        let mut header = Header {
            name: (*name).into(),
            kind: *kind,
            mode: 0o755,
            ..Header::default()
        };
        if *kind == EntryKind::File {
            header.size = rest.len() as u64;
        } else {
            header.link = (*rest).into();
        }
        writer.append(&header).unwrap();
        if *kind == EntryKind::File {
            writer.write_all(rest.as_bytes()).unwrap();
        }
    }
    writer.finish().unwrap()
}

#[test]
fn no_entry_reaches_outside() {
    use EntryKind::{Dir, File, HardLink, Symlink};
    requires!(root);
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("victim"), "whole").unwrap();
    let out = outside.path().to_str().unwrap();
    let victim = format!("{out}/victim");
    let up = format!("../../../../../../../..{victim}");
    for entries in [
        vec![(victim.as_str(), File, "broken")],
        vec![(up.as_str(), File, "broken")],
        vec![("l", Symlink, victim.as_str()), ("l", File, "broken")],
        vec![
            ("d", Symlink, out),
            ("d/victim", File, "broken"),
            ("d/new", File, "n"),
        ],
        vec![
            ("d", Symlink, "../../../../../../../../.."),
            (&format!("d{victim}"), File, "broken"),
        ],
        vec![
            ("d", Symlink, out),
            ("d/", Dir, ""),
            ("d/victim", File, "broken"),
        ],
        vec![("h", HardLink, victim.as_str()), ("h", File, "broken")],
        vec![
            ("d", Symlink, out),
            ("h", HardLink, "d/victim"),
            ("h", File, "broken"),
        ],
        vec![("d", Symlink, out), ("d/.wh.victim", File, "")],
        vec![("d", Symlink, out), ("d/.wh..wh..opq", File, "")],
        vec![
            ("p", Symlink, "/proc/self/root"),
            (&format!("p{victim}"), File, "broken"),
        ],
        vec![("a", Symlink, "b"), ("b", Symlink, "a"), ("a/x", File, "x")],
    ] {
        for whiteouts in [
            layer::Whiteouts::Overlay,
            layer::Whiteouts::Remove,
            layer::Whiteouts::Literal,
        ] {
            let to = empty();
            let options = ApplyOptions {
                whiteouts,
                ..ApplyOptions::default()
            };
            // Whether it is refused or lands inside, nothing outside changes.
            layer::apply(&mut tar(&entries).as_slice(), &to.root, &options).ok();
            assert_eq!(
                std::fs::read_to_string(Path::new(&victim)).unwrap(),
                "whole",
                "{entries:?}"
            );
            assert_eq!(
                std::fs::read_dir(outside.path()).unwrap().count(),
                1,
                "{entries:?}"
            );
            assert_eq!(
                std::fs::metadata(&victim)
                    .map(|m| std::os::unix::fs::MetadataExt::nlink(&m))
                    .unwrap(),
                1
            );
        }
    }
}

#[test]
fn entries_that_mean_nothing_good_are_refused() {
    use EntryKind::{Dir, File, HardLink, Other};
    requires!(root);
    for (entries, want) in [
        (
            &[(".wh..", File, "")][..],
            "invalid entry .wh..: invalid whiteout name",
        ),
        (
            &[(".wh.", File, "")],
            "invalid entry .wh.: invalid whiteout name",
        ),
        (
            &[("d/", Dir, ""), ("h", HardLink, "d")],
            "invalid entry h: a hard link to what is no file",
        ),
        (
            &[(".wh.f", File, ""), ("h", HardLink, "f")],
            "invalid entry h: a hard link to what is no file",
        ),
        (
            &[("h", HardLink, "/")],
            "invalid entry h: a hard link to the root",
        ),
        (
            &[("q", Other(b'Q'), "")],
            "invalid entry q: unhandled tar header type",
        ),
        (
            &[("f", File, "f"), ("f/x", File, "x")],
            "mkparent f: not a directory",
        ),
    ] {
        let error = layer::apply(
            &mut tar(entries).as_slice(),
            &empty().root,
            &ApplyOptions::default(),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), want);
    }
    let limited = ApplyOptions {
        limit: Some(5),
        ..ApplyOptions::default()
    };
    let to = empty();
    let error = layer::apply(
        &mut tar(&[("a", File, "1234"), ("b", File, "12")]).as_slice(),
        &to.root,
        &limited,
    );
    assert!(matches!(error, Err(ApplyError::TooLarge { limit: 5 })));
    assert_eq!(paths(&to.root), "a");
}

#[test]
fn an_archive_cut_anywhere_is_an_error_or_an_end_never_a_panic() {
    let whole = tar(&[
        ("a", EntryKind::File, "some contents"),
        (&"n".repeat(300), EntryKind::File, "x"),
    ]);
    for cut in 0..whole.len() {
        let mut reader = Reader::new(&whole[..cut]);
        while let Ok(Some(_)) = reader.next_entry() {
            reader.read_to_end(&mut Vec::new()).ok();
        }
    }
    let gzip = {
        let mut out =
            layer::compress::Encoder::new(Vec::new(), &layer::Compression::default()).unwrap();
        out.write_all(&whole).unwrap();
        out.finish().unwrap()
    };
    for cut in [1, 5, 11, gzip.len() / 2, gzip.len() - 1] {
        let to = empty();
        assert!(
            layer::apply(&mut &gzip[..cut], &to.root, &ApplyOptions::default()).is_err(),
            "{cut}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(seed in proptest::collection::vec(any::<(u16, u8)>(), 0..40)) {
        let mut bytes = tar(&[
            ("a", EntryKind::File, "contents"),
            (&"n".repeat(200), EntryKind::Symlink, &"l".repeat(200)),
            ("dir/", EntryKind::Dir, ""),
        ]);
        for (at, value) in seed {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
            // Keep the checksum right, so that more than it is tested.
            let block = at / 512 * 512;
            bytes[block + 148..block + 156].fill(b' ');
            let sum: u32 = bytes[block..block + 512].iter().map(|b| u32::from(*b)).sum();
            let text = format!("{sum:06o}\0 ");
            bytes[block + 148..block + 156].copy_from_slice(text.as_bytes());
        }
        let mut reader = Reader::new(bytes.as_slice());
        for _ in 0..100 {
            match reader.next_entry() {
                Ok(Some(_)) => { reader.read_to_end(&mut Vec::new()).ok(); }
                Ok(None) | Err(_) => break,
            }
        }
    }
}
