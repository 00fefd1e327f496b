//! Formats whose readers are functions of bytes.

use std::io::{Read, sink};
use std::path::Path;

use layer::tar::Reader;
use llb::pb;
use prost::Message as _;

/// A sparse file may claim any size: nobody reads all of its zeros.
const CONTENT: u64 = 1 << 20;
const ENTRIES: usize = 10_000;

pub(crate) fn tar(input: &[u8]) {
    entries(input);
    let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
    let root = session::diffcopy::Root::open(folder.path()).expect("the folder was just made");
    let mut stream = input;
    let _refused = layer::unpack_archive(
        &mut stream,
        &root,
        Path::new("/"),
        &layer::UnpackOptions::default(),
    );
}

fn entries(input: &[u8]) {
    let mut reader = Reader::new(input);
    for _ in 0..ENTRIES {
        let Ok(Some(_header)) = reader.next_entry() else {
            return;
        };
        if std::io::copy(&mut reader.by_ref().take(CONTENT), &mut sink()).is_err() {
            return;
        }
    }
}

/// The records as an extended header of a file, so that a mutation need not get block sizes and sums right.
pub(crate) fn pax(input: &[u8]) {
    let mut archive = Vec::new();
    block(&mut archive, b'x', input.len());
    archive.extend(input);
    archive.resize(archive.len().next_multiple_of(512), 0);
    block(&mut archive, b'0', 4);
    archive.extend(b"text");
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    entries(&archive);
}

fn block(out: &mut Vec<u8>, kind: u8, size: usize) {
    let mut head = [0_u8; 512];
    let fields: [(usize, String); 5] = [
        (0, "name".to_owned()),
        (100, "0000644\0".to_owned()),
        (124, format!("{size:011o}\0")),
        (148, "        ".to_owned()),
        (257, "ustar\x0000".to_owned()),
    ];
    for (at, text) in fields {
        for (place, byte) in head.iter_mut().skip(at).zip(text.bytes()) {
            *place = byte;
        }
    }
    if let Some(place) = head.get_mut(156) {
        *place = kind;
    }
    let sum: u64 = head.iter().map(|byte| u64::from(*byte)).sum();
    for (place, byte) in head
        .iter_mut()
        .skip(148)
        .zip(format!("{sum:06o}\0 ").bytes())
    {
        *place = byte;
    }
    out.extend(head);
}

pub(crate) fn definition(input: &[u8]) {
    let Ok(definition) = pb::Definition::decode(input) else {
        return;
    };
    let _head = llb::definition::head(&definition);
    let Ok(graph) = llb::Graph::load(&definition) else {
        return;
    };
    let _root = graph.root_node();
    for bytes in &definition.def {
        let Ok(op) = pb::Op::decode(bytes.as_ref()) else {
            continue;
        };
        if let Some(pb::op::Op::Source(source)) = &op.op {
            let platform = op.platform.as_ref();
            let _refused = llb::source_id::SourceId::parse(source, platform);
        }
    }
}

pub(crate) fn git_address(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let _refused = llb::git_url::GitUrl::parse(text);
    let _refused = llb::git_url::GitRef::parse(text);
    let source = pb::SourceOp {
        identifier: format!("git://{text}"),
        attrs: [("git.fullurl".to_owned(), text.to_owned())].into(),
    };
    let _refused = llb::source_id::SourceId::parse(&source, None);
}

pub(crate) fn documents(input: &[u8]) {
    use gostd::json::from_slice;
    let _refused = from_slice::<oci::Index>(input);
    let _refused = from_slice::<oci::Manifest>(input);
    let _refused = from_slice::<oci::ImageConfig>(input);
}
