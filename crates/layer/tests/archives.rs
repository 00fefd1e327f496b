//! Archives as people make them, and as nobody should.

use std::io::{Cursor, Read, Write};

use layer::tar::{EntryKind, Header, Reader, Writer};
use layer::{ApplyOptions, Compression, CompressionKind, UnpackOptions};
use oci::Digest;

use testkit::requires;

use crate::support::{empty, paths, show};

fn compressed(kind: CompressionKind, plain: &[u8]) -> Vec<u8> {
    let compression = Compression {
        kind,
        ..Compression::default()
    };
    let mut out = layer::compress::Encoder::new(Vec::new(), &compression).unwrap();
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    compressed(CompressionKind::Gzip, plain)
}

/// A header with records or a long name, and its padding; `data` is what is in it.
fn special(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let header = Header {
        name: b"special".to_vec(),
        kind: EntryKind::Other(kind),
        size: data.len() as u64,
        ..Header::default()
    };
    writer.append(&header).unwrap();
    writer.write_all(data).unwrap();
    let mut out = writer.finish().unwrap();
    out.truncate(out.len() - 1024);
    out
}

fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut size = rest + 1;
    while size != rest + size.to_string().len() {
        size += 1;
    }
    format!("{size} {key}={value}\n")
}

fn records(all: &[(&str, &str)]) -> Vec<u8> {
    let text: String = all.iter().map(|(key, value)| record(key, value)).collect();
    special(b'x', text.as_bytes())
}

fn file(name: &str, contents: &str) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let header = Header {
        name: name.into(),
        mode: 0o644,
        mtime: 1000,
        size: contents.len() as u64,
        ..Header::default()
    };
    writer.append(&header).unwrap();
    writer.write_all(contents.as_bytes()).unwrap();
    let mut out = writer.finish().unwrap();
    out.truncate(out.len() - 1024);
    out
}

type Case = (&'static str, Vec<u8>, Option<Vec<u8>>, bool);

#[test]
fn archives_are_taken_as_people_make_them() {
    requires!(root);
    let body = [file("a", "contents of a"), file("b", "b")].concat();
    let end = [0; 1024];
    let whole = [&body[..], &end].concat();
    let cut = body[..body.len() - 511].to_vec();
    let junk = b"bytes that are no archive at all";
    let (head, tail) = whole.split_at(700);
    let bzip2 = {
        let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        out.write_all(&whole).unwrap();
        out.finish().unwrap()
    };
    let packed = gzip(&whole);
    let mut wrong_sum = packed.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    let zstd = compressed(CompressionKind::Zstd, &whole);
    // What it is, its bytes, the uncompressed bytes that a layer's digest is of where it is taken as one, and whether `ADD`
    // takes it. What the reference does, with `pigz` where there is a gzip.
    let table: Vec<Case> = vec![
        ("whole", whole.clone(), Some(whole.clone()), true),
        ("no end", body.clone(), Some(body.clone()), true),
        (
            "no padding and no end",
            cut.clone(),
            Some(cut.clone()),
            true,
        ),
        (
            "half a padding",
            body[..body.len() - 100].to_vec(),
            Some(body[..body.len() - 100].to_vec()),
            true,
        ),
        (
            "one block of zeros",
            [&body[..], &[0; 512]].concat(),
            Some([&body[..], &[0; 512]].concat()),
            true,
        ),
        (
            "a record of twenty blocks",
            [&whole[..], &[0; 7168]].concat(),
            Some([&whole[..], &[0; 7168]].concat()),
            true,
        ),
        (
            "bytes after the end",
            [&whole[..], junk].concat(),
            Some([&whole[..], junk].concat()),
            true,
        ),
        ("gzip without end", gzip(&body), Some(body.clone()), true),
        ("gzip without padding", gzip(&cut), Some(cut), true),
        (
            "bytes after a gzip",
            [&packed[..], junk].concat(),
            Some(whole.clone()),
            true,
        ),
        (
            "zeros after a gzip",
            [&packed[..], &[0; 600]].concat(),
            Some(whole.clone()),
            true,
        ),
        (
            "bytes after a gzip that begin as one",
            [&packed[..], &[0x1f, 0x8b, 9, 9]].concat(),
            Some(whole.clone()),
            true,
        ),
        (
            "bytes after a gzip without end",
            [&gzip(&body)[..], junk].concat(),
            Some(body.clone()),
            true,
        ),
        (
            "members, and bytes after them",
            [gzip(head), gzip(b""), gzip(tail), junk.to_vec()].concat(),
            Some(whole.clone()),
            true,
        ),
        (
            "a gzip whose checksum is cut off",
            packed[..packed.len() - 8].to_vec(),
            None,
            true,
        ),
        ("a gzip whose checksum is wrong", wrong_sum, None, false),
        (
            "bytes after a bzip2",
            [&bzip2[..], junk].concat(),
            None,
            true,
        ),
        ("bytes after a zstd", [&zstd[..], junk].concat(), None, true),
        (
            "a header after one block of zeros",
            [&body[..], &[0; 512], &whole[..]].concat(),
            None,
            false,
        ),
        (
            "half a header",
            [&body[..], &whole[..100]].concat(),
            None,
            false,
        ),
        ("half a file", body[..520].to_vec(), None, false),
    ];
    for (what, bytes, plain, added) in table {
        let to = empty();
        let applied = layer::apply(&mut &bytes[..], &to.root, &ApplyOptions::default());
        match plain {
            Some(plain) => {
                assert_eq!(applied.unwrap().diff_id, Digest::sha256(plain), "{what}");
                assert_eq!(paths(&to.root), "a b", "{what}");
            }
            None => assert!(applied.is_err(), "{what}"),
        }
        let to = empty();
        assert!(layer::is_archive(&bytes[..]).unwrap(), "{what}");
        let unpacked = layer::unpack_archive(
            &mut &bytes[..],
            &to.root,
            "/".as_ref(),
            &UnpackOptions::default(),
        );
        assert_eq!(unpacked.is_ok(), added, "{what}");
        if added {
            let shown = show(&to.root);
            assert!(shown.starts_with("a: contents of a "), "{what}: {shown}");
        }
    }
}

#[test]
fn a_new_x_header_replaces_the_old_one() {
    // Parts of an archive; name, time and link of its first entry.
    let x = |all: &[(&str, &str)]| records(all);
    for (parts, name, mtime) in [
        (vec![x(&[("path", "long")]), file("f", "")], "long", 1000),
        (
            vec![x(&[("path", "long")]), x(&[("mtime", "5")]), file("f", "")],
            "f",
            5,
        ),
        (
            vec![x(&[("path", "one")]), x(&[("path", "two")]), file("f", "")],
            "two",
            1000,
        ),
        (
            vec![x(&[("path", "long")]), special(b'g', b""), file("f", "")],
            "f",
            1000,
        ),
        (
            vec![special(b'L', b"name\0"), special(b'g', b""), file("f", "")],
            "f",
            1000,
        ),
        (
            vec![
                special(b'L', b"one\0"),
                special(b'L', b"two\0"),
                x(&[("path", "three")]),
                file("f", ""),
            ],
            "two",
            1000,
        ),
    ] {
        let bytes = parts.concat();
        let header = Reader::new(&bytes[..]).next_entry().unwrap().unwrap();
        let entry = (header.name.as_slice(), header.mtime);
        assert_eq!(entry, (name.as_bytes(), mtime));
    }
}

#[test]
fn odd_entries_are_read_as_go_reads_them() {
    // A file whose name ends in a slash, with contents and without; a record whose name is no UTF-8.
    let mut odd = special(b'x', b"8 k\xff=vv\n11 path=a/\n");
    odd.extend(file("f", "contents"));
    odd.extend(records(&[("path", "b/")]));
    odd.extend(file("f", ""));
    odd.extend(records(&[("uid", "-2")]));
    odd.extend(file("last", "x"));
    let mut reader = Reader::new(&odd[..]);
    let mut names = Vec::new();
    while let Some(header) = reader.next_entry().unwrap() {
        assert!(matches!(header.uid, 0 | 4_294_967_294));
        let mut data = String::new();
        reader.read_to_string(&mut data).unwrap();
        names.push((String::from_utf8(header.name).unwrap(), header.kind, data));
    }
    let want = [
        ("a/", EntryKind::File, "contents"),
        ("b/", EntryKind::Dir, ""),
        ("last", EntryKind::File, "x"),
    ];
    assert_eq!(names, want.map(|(n, k, d)| (n.to_owned(), k, d.to_owned())));
}

/// Repeats a part without end, and counts the bytes that were read.
struct Endless {
    part: Vec<u8>,
    at: usize,
    read: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut from = Cursor::new(&self.part[self.at..]);
        let n = from.read(buffer)?;
        self.at = (self.at + n) % self.part.len();
        self.read += n;
        Ok(n)
    }
}

#[test]
fn headers_before_an_entry_are_bounded() {
    let large = "v".repeat((1 << 20) - 100);
    let many: String = (0..50_000).map(|i| record(&format!("k{i}"), "v")).collect();
    let mut sparse = special(b'S', b"");
    sparse[257..265].copy_from_slice(b"ustar  \0");
    sparse[482] = 1;
    let sum: u32 = sparse
        .iter()
        .enumerate()
        .map(|(i, b)| {
            if (148..156).contains(&i) {
                32
            } else {
                u32::from(*b)
            }
        })
        .sum();
    sparse[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut more = vec![0; 512];
    more[504] = 1;
    for (what, first, part, want) in [
        (
            "records",
            vec![],
            records(&[("comment", &large)]),
            "invalid tar: too many headers before an entry",
        ),
        (
            "many records",
            vec![],
            special(b'x', many.as_bytes()),
            "invalid tar: too many headers before an entry",
        ),
        (
            "empty records",
            vec![],
            special(b'x', b""),
            "invalid tar: too many headers before an entry",
        ),
        (
            "long names",
            vec![],
            special(b'L', large.as_bytes()),
            "invalid tar: too many headers before an entry",
        ),
        (
            "long links and names",
            vec![],
            [special(b'K', large.as_bytes()), special(b'L', b"n")].concat(),
            "invalid tar: too many headers before an entry",
        ),
        (
            "blocks of a sparse map without pieces",
            sparse,
            more,
            "invalid tar: sparse map too long",
        ),
    ] {
        let mut endless = Endless {
            part,
            at: 0,
            read: 0,
        };
        let error = Reader::new(Cursor::new(first).chain(&mut endless))
            .next_entry()
            .unwrap_err();
        assert_eq!(error.to_string(), want, "{what}");
        assert!(
            endless.read <= 6 << 20,
            "{what}: {} bytes read",
            endless.read
        );
    }
    for kind in [b'x', b'g', b'L', b'K'] {
        let mut announced = special(kind, b"");
        announced[124..136].copy_from_slice(b"00010000000\0");
        let sum: u32 = announced
            .iter()
            .enumerate()
            .map(|(i, b)| {
                if (148..156).contains(&i) {
                    32
                } else {
                    u32::from(*b)
                }
            })
            .sum();
        announced[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let endless = std::io::repeat(b' ');
        let error = Reader::new(Cursor::new(announced).chain(endless))
            .next_entry()
            .unwrap_err();
        assert_eq!(error.to_string(), "invalid tar: records too long");
    }
}

#[test]
fn a_sparse_file_keeps_its_content() {
    requires!(root);
    // Made by GNU tar; digests as Go's `archive/tar` reads them.
    let want = [
        (
            "middle",
            "010b8404b1d8f6f984c0be8edc442b2c4aa32a3828891a85161279973d6a49ac",
        ),
        (
            "pieces",
            "f4e7fcde6a6dc15d3cbebe2e4e4cc84f4b6138f8775e1749b93685aed592cb69",
        ),
        (
            "hole",
            "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58",
        ),
        (
            "starts",
            "e578995f7e6d48a292ecbc1f02d30324081ab70a14f161a743cd85489d1a8ec8",
        ),
        (
            "ends",
            "2b6b223c7738ae357ee9b8b18789807185817af04fbc13983dc2df34bff6e434",
        ),
        (
            "dense",
            "d6a98598212ed729f5b9a4d1b7ff4dcc1341bbfc740993325b9107298521422f",
        ),
    ];
    for (form, packed) in [
        ("gnu", &include_bytes!("data/sparse-gnu.tar.gz")[..]),
        ("0.0", include_bytes!("data/sparse-pax-0.0.tar.gz")),
        ("0.1", include_bytes!("data/sparse-pax-0.1.tar.gz")),
        ("1.0", include_bytes!("data/sparse-pax-1.0.tar.gz")),
    ] {
        let (layer, archive, rewritten) = (empty(), empty(), empty());
        layer::apply(&mut &*packed, &layer.root, &ApplyOptions::default()).unwrap();
        layer::unpack_archive(
            &mut &*packed,
            &archive.root,
            "/".as_ref(),
            &UnpackOptions::default(),
        )
        .unwrap();
        let mut blob = Vec::new();
        let options = layer::CreateOptions {
            latest_time: Some(7),
            ..layer::CreateOptions::default()
        };
        layer::convert(&mut &*packed, &options, &mut blob).unwrap();
        layer::apply(&mut &*blob, &rewritten.root, &ApplyOptions::default()).unwrap();
        for tree in [&layer, &archive, &rewritten] {
            for (name, digest) in want {
                let contents = std::fs::read(tree.dir.path().join(name)).unwrap();
                assert_eq!(Digest::sha256(contents).hex(), digest, "{form} {name}");
            }
        }
    }
    // Made by hand: records, what the archive has of the file, the file.
    let at = |size: usize, pieces: &[(usize, &str)]| {
        let mut out = vec![0; size];
        for (offset, text) in pieces {
            out[*offset..offset + text.len()].copy_from_slice(text.as_bytes());
        }
        out
    };
    let table = format!("2\n100\n3\n300\n3\n{}onetwo", "\0".repeat(512 - 14));
    for (all, stored, file_is) in [
        (
            &[
                ("GNU.sparse.size", "400"),
                ("GNU.sparse.numblocks", "2"),
                ("GNU.sparse.map", "100,3,300,3"),
            ][..],
            "onetwo",
            at(400, &[(100, "one"), (300, "two")]),
        ),
        (
            &[
                ("GNU.sparse.major", "0"),
                ("GNU.sparse.minor", "1"),
                ("GNU.sparse.name", "f"),
                ("GNU.sparse.realsize", "400"),
                ("GNU.sparse.numblocks", "1"),
                ("GNU.sparse.map", "397,3"),
            ],
            "one",
            at(400, &[(397, "one")]),
        ),
        (
            &[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.realsize", "400"),
            ],
            &table,
            at(400, &[(100, "one"), (300, "two")]),
        ),
        (
            &[("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,3")],
            "one",
            b"one".to_vec(),
        ),
        (
            &[("GNU.sparse.major", "2"), ("GNU.sparse.name", "other")],
            "one",
            b"one".to_vec(),
        ),
    ] {
        let to = empty();
        let bytes = [records(all), file("f", stored)].concat();
        layer::apply(&mut &bytes[..], &to.root, &ApplyOptions::default()).unwrap();
        let contents = std::fs::read(to.dir.path().join("f")).unwrap();
        assert!(contents == file_is, "{all:?}");
    }
    let huge = (1_u64 << 40).to_string();
    let map = format!("{huge},3");
    let size = ((1_u64 << 40) + 4).to_string();
    let bytes = [
        records(&[("GNU.sparse.size", &size), ("GNU.sparse.map", &map)]),
        file("f", "one"),
    ]
    .concat();
    let error = Reader::new(&bytes[..]).next_entry().unwrap_err();
    assert_eq!(error.to_string(), "invalid tar: sparse files too large");
}

#[test]
fn a_stream_cannot_demand_more_memory_than_readers_of_the_format_give() {
    // The header of an xz block says how large the dictionary is, up to 4 GiB (40). This one is of `xz -9`: 64 MiB (28).
    let archive = include_bytes!("data/one.tar.xz").to_vec();
    assert_eq!((archive[16], archive[12]), (28, 2));
    for (size, is_readable) in [(28, true), (30, true), (32, false), (40, false)] {
        let mut packed = archive.clone();
        packed[16] = size;
        let sum = crc32fast::hash(&packed[12..20]).to_le_bytes();
        packed[20..24].copy_from_slice(&sum);
        let is_archive = layer::is_archive(&packed[..]);
        assert_eq!(
            is_archive.is_ok_and(|is_archive| is_archive),
            is_readable,
            "{size}"
        );
    }
    // A zstd frame whose window is 256 MiB, where `zstd` by itself takes 128 MiB.
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    zstd.window_log(28).unwrap();
    zstd.write_all(&[file("a", "a"), vec![0; 1024]].concat())
        .unwrap();
    let packed = zstd.finish().unwrap();
    let error = layer::is_archive(&packed[..]).unwrap_err();
    assert!(error.to_string().contains("too much memory"), "{error}");
    assert!(!layer::is_archive(&b"no archive at all"[..]).unwrap());
}

#[test]
fn directories_get_their_times_however_many_there_are() {
    requires!(root);
    // More than are kept at a time: their own entries first, then what is in them, and the first of them told twice.
    let mut writer = Writer::new(Vec::new());
    let long = vec!["d".repeat(250); 12].join("/");
    let dirs = 3_000_i64;
    let dir = |at: i64| format!("{long}/{at}/");
    let mut add = |name: String, kind, mtime| {
        let header = Header {
            name: name.into(),
            kind,
            mode: 0o755,
            mtime,
            ..Header::default()
        };
        writer.append(&header).unwrap();
    };
    add(format!("{long}/"), EntryKind::Dir, 5);
    for at in 0..dirs {
        add(dir(at), EntryKind::Dir, at);
    }
    for at in (0..dirs).step_by(100) {
        add(format!("{}new/file", dir(at)), EntryKind::File, 1);
    }
    add(dir(0), EntryKind::Dir, 77);
    let bytes = writer.finish().unwrap();
    let to = empty();
    layer::apply(&mut &bytes[..], &to.root, &ApplyOptions::default()).unwrap();
    let seconds = |path: &str| {
        let meta = std::fs::metadata(to.dir.path().join(path)).unwrap();
        std::os::unix::fs::MetadataExt::mtime(&meta)
    };
    assert_eq!(seconds(&long), 5);
    assert_eq!(seconds(&dir(0)), 77);
    for at in [1, 99, 100, 101, 200, 1_500, dirs - 100, dirs - 1] {
        assert_eq!(seconds(&dir(at)), at, "{at}");
    }
}
