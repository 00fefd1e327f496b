use std::io::Read;

use fstree::walk::Filter;
use layer::tar::{EntryKind, Header, Reader, Writer};
use layer::{Compression, CompressionKind, CreateOptions, LayerInfo};

use testkit::requires;

use crate::support::{empty, tree};

const VECTORS: &str = include_str!("data/layers.txt");

fn section(name: &str) -> &'static str {
    let start = VECTORS.split_once(&format!("[{name}]\n")).unwrap().1;
    start
        .split_once("\n[")
        .map_or(start, |(section, _)| section)
}

fn want(name: &str) -> (&'static str, u64) {
    let line = section("digests")
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")))
        .unwrap();
    let (digest, size) = line.split_once(' ').unwrap();
    (digest, size.parse().unwrap())
}

fn plain() -> CreateOptions {
    let compression = Compression {
        kind: CompressionKind::Uncompressed,
        ..Compression::default()
    };
    CreateOptions {
        compression,
        latest_time: None,
    }
}

fn entries(tar: &[u8]) -> Vec<Header> {
    let mut reader = Reader::new(tar);
    std::iter::from_fn(|| reader.next_entry().unwrap()).collect()
}

fn check(name: &str, tar: &[u8], info: &LayerInfo) {
    let (digest, size) = want(name);
    let names: Vec<String> = entries(tar)
        .iter()
        .map(|h| String::from_utf8_lossy(&h.name).into_owned())
        .collect();
    assert_eq!(
        (info.diff_id.as_str(), info.uncompressed_size),
        (digest, size),
        "{name}: {names:#?}"
    );
    assert_eq!(info.digest, info.diff_id);
}

#[test]
fn layers_have_the_diff_ids_that_buildkit_gives_them() {
    requires!(root);
    let upper = tree(section("upper"));
    let lower = tree(section("lower"));
    let mut tar = Vec::new();
    let info = layer::create(&upper.root, Some(&lower.root), &plain(), &mut tar).unwrap();
    check("overlay", &tar, &info);
    tar.clear();
    let info = layer::create(&upper.root, None, &plain(), &mut tar).unwrap();
    check("lowest", &tar, &info);

    let mut tar = Vec::new();
    layer::write_tree(&lower.root, &Filter::default(), &mut tar, &mut |_| true).unwrap();
    let (digest, size) = want("tree");
    assert_eq!(
        (oci::Digest::sha256(&tar).as_str(), tar.len() as u64),
        (digest, size),
        "{:#?}",
        entries(&tar)
    );
}

#[test]
fn compression_changes_the_blob_and_not_the_diff_id() {
    requires!(root);
    let upper = tree(section("upper"));
    let pack = |kind| {
        let mut blob = Vec::new();
        let compression = Compression {
            kind,
            ..Compression::default()
        };
        let options = CreateOptions {
            compression,
            latest_time: None,
        };
        let info = layer::create(&upper.root, None, &options, &mut blob).unwrap();
        assert_eq!(oci::Digest::sha256(&blob), info.digest);
        assert_eq!(blob.len() as u64, info.size);
        (info, blob)
    };
    let (plain, _) = pack(CompressionKind::Uncompressed);
    for kind in [CompressionKind::Gzip, CompressionKind::Zstd] {
        let (packed, blob) = pack(kind);
        assert_eq!(packed.diff_id, plain.diff_id);
        assert!(packed.size < plain.size / 4);
        let mut again = Vec::new();
        let converted =
            layer::convert(&mut blob.as_slice(), &crate::creating::plain(), &mut again).unwrap();
        assert_eq!(converted, plain);
    }
    let compression = Compression {
        kind: CompressionKind::Estargz,
        ..Compression::default()
    };
    let options = CreateOptions {
        compression,
        latest_time: None,
    };
    let error = layer::create(&empty().root, None, &options, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "compression estargz is not supported");
}

#[test]
fn times_are_held_down_while_packing_and_while_converting() {
    requires!(root);
    let upper = tree(section("upper"));
    let latest = CreateOptions {
        latest_time: Some(1_550_000_000),
        ..plain()
    };
    let mut tar = Vec::new();
    let at_once = layer::create(&upper.root, None, &latest, &mut tar).unwrap();
    for header in entries(&tar) {
        let want = match String::from_utf8_lossy(&header.name).as_ref() {
            "fresh/before" => -2,
            "fresh/exact" => 1_500_000_000,
            _ => 1_550_000_000,
        };
        assert_eq!(header.mtime, want, "{:?}", header.path());
    }
    let mut full = Vec::new();
    layer::create(&upper.root, None, &plain(), &mut full).unwrap();
    let mut out = Vec::new();
    assert_eq!(
        layer::convert(&mut full.as_slice(), &latest, &mut out).unwrap(),
        at_once
    );
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_an_error() {
    let upper = empty();
    std::fs::write(upper.dir.path().join("f"), "12345").unwrap();
    let changes = fstree::diff::tree_changes(None, &upper.root).unwrap();
    for contents in ["1234", "123456"] {
        std::fs::write(upper.dir.path().join("f"), contents).unwrap();
        let error = layer::create_from_changes(&upper.root, &changes, &plain(), &mut Vec::new())
            .unwrap_err();
        assert_eq!(error.to_string(), "f changed while it was packed");
    }
}

#[test]
fn what_the_writer_writes_the_reader_reads() {
    let long = |n: usize| vec![b'x'; n];
    let mut all = Vec::new();
    for name in [
        b"a".to_vec(),
        long(100),
        long(101),
        [&long(80)[..], b"/", &long(90)].concat(),
        "日本/ü".into(),
        long(4000),
    ] {
        for (uid, mtime, size) in [(0, 0, 0), (2_097_151, -7, 5), (2_097_152, 1 << 34, 700)] {
            let mut header = Header {
                name: name.clone(),
                uid,
                mtime,
                size,
                mode: 0o4755,
                ..Header::default()
            };
            all.push(header.clone());
            header
                .records
                .insert("SCHILY.xattr.user.x".into(), b"a\0=\nb".to_vec());
            header.uname = "ü".into();
            all.push(header.clone());
            header.kind = EntryKind::Symlink;
            header.size = 0;
            header.link = long(uid as usize % 300);
            all.push(header);
        }
    }
    let mut writer = Writer::new(Vec::new());
    for header in &all {
        writer.append(header).unwrap();
        std::io::Write::write_all(&mut writer, &vec![7; header.size as usize]).unwrap();
    }
    let tar = writer.finish().unwrap();
    assert_eq!(tar.len() % 512, 0);
    let mut reader = Reader::new(tar.as_slice());
    for header in &all {
        assert_eq!(reader.next_entry().unwrap().as_ref(), Some(header));
        let mut data = Vec::new();
        reader.read_to_end(&mut data).unwrap();
        assert_eq!(data.len() as u64, header.size);
    }
    assert_eq!(reader.next_entry().unwrap(), None);
}
