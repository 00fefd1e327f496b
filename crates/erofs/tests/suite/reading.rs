//! An image is read as its tree was built.

use erofs::{BlockSize, FileKind, Image, Inode};
use proptest::prelude::*;

use crate::model::Model;

fn walk(image: &Image<&[u8]>, model: &Model, block_size: BlockSize) {
    let mut pending = vec![(Vec::new(), image.root().unwrap())];
    let mut names = 0;
    let mut nids = std::collections::BTreeMap::new();
    while let Some((path, inode)) = pending.pop() {
        let target = model.links.get(&path).unwrap_or(&path);
        let node = &model.nodes[target];
        let what = path.escape_ascii().to_string();
        assert_eq!(inode.kind, node.kind, "{what}");
        assert_eq!(inode.attributes, node.attributes, "{what}");
        assert_eq!(inode.links, model.links_of(target), "{what}");
        assert_eq!(
            *nids.entry(target.clone()).or_insert(inode.nid),
            inode.nid,
            "{what}"
        );
        match node.kind {
            FileKind::Folder => {
                for entry in image.entries(&inode).unwrap() {
                    names += 1;
                    let child = image.inode(entry.nid).unwrap();
                    let by_name = image.lookup(&inode, &entry.name).unwrap();
                    assert_eq!(by_name.as_ref(), Some(&child), "{what}");
                    pending.push(([path.as_slice(), b"/", &entry.name].concat(), child));
                }
                for absent in [&b"absent"[..], b"", b"\xff\xff", b"\x01"] {
                    assert_eq!(image.lookup(&inode, absent).unwrap(), None, "{what}");
                }
            }
            FileKind::File => {
                assert_eq!(content(image, &inode, &model.device), node.bytes, "{what}")
            }
            FileKind::Symlink => assert_eq!(image.target(&inode).unwrap(), node.bytes, "{what}"),
            FileKind::CharDevice | FileKind::BlockDevice => {
                assert_eq!(inode.device_number(), node.number, "{what}");
            }
            FileKind::Fifo | FileKind::Socket => {}
        }
    }
    assert_eq!(names, model.nodes.len() - 1 + model.links.len());
    let summary = image.check().unwrap();
    assert_eq!(summary.names, u64::try_from(names).unwrap());
    assert_eq!(summary.inodes, u64::try_from(model.nodes.len()).unwrap());
    let bytes: usize = model
        .nodes
        .values()
        .filter(|node| node.kind == FileKind::File)
        .map(|node| node.bytes.len())
        .sum();
    assert_eq!(summary.content_bytes, u64::try_from(bytes).unwrap());
    assert_eq!(image.block_size(), block_size);
}

/// The bytes of a file, from its extents.
pub(crate) fn content(image: &Image<&[u8]>, file: &Inode, device: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.size).unwrap()];
    for extent in image.extents(file).unwrap() {
        let at = usize::try_from(extent.file_offset).unwrap();
        let from = usize::try_from(extent.device_offset).unwrap();
        let length = usize::try_from(extent.length).unwrap();
        bytes[at..at + length].copy_from_slice(&device[from..from + length]);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_tree_is_read_as_it_was_built(seed: u64, count in 0u64..150, page: bool) {
        let block_size = if page { BlockSize::PAGE } else { BlockSize::TAR };
        let model = Model::random(seed, count, block_size);
        let (bytes, _) = model.image(block_size);
        let image = Image::open(bytes.as_slice()).unwrap();
        walk(&image, &model, block_size);
    }
}

#[test]
fn a_folder_of_many_names_is_searched_and_in_order() {
    let mut model = Model::new();
    for number in 0..5000 {
        model.file(format!("/{number}").as_bytes(), b"", BlockSize::TAR);
    }
    let (bytes, written) = model.image(BlockSize::TAR);
    let image = Image::open(bytes.as_slice()).unwrap();
    walk(&image, &model, BlockSize::TAR);
    // A node takes its inode, its entry and little more.
    assert!(written.size < 5001 * 90, "{}", written.size);
}

#[test]
fn the_same_tree_makes_the_same_bytes() {
    let model = Model::random(7, 300, BlockSize::TAR);
    assert_eq!(model.image(BlockSize::TAR).0, model.image(BlockSize::TAR).0);
}
