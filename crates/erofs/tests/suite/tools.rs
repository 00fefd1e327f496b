//! Debian's own tools say what they see in an image of ours. They read blocks of a page only.

use std::fs;
use std::path::Path;
use std::process::Command;

use erofs::{Attributes, BlockSize, Content, Limits, Node, Tree, WriteOptions, write};

#[test]
fn fsck_of_erofs_utils_finds_nothing_wrong() {
    let program = "/usr/bin/fsck.erofs";
    if !Path::new(program).exists() {
        testkit::skip::skip(&format!("no {program} (apt-get install erofs-utils)"));
        return;
    }
    let mut tree = Tree::new(Attributes::default(), Limits::default()).unwrap();
    let mut folder = tree.root();
    let node = |content| Node {
        attributes: Attributes::default(),
        content,
    };
    for depth in 0..40 {
        for number in 0..depth * 20 {
            let target = vec![b't'; 1 + number * 5];
            let name = format!("link-{number}").into_bytes();
            tree.add(folder, &name, node(Content::Symlink(target.into())))
                .unwrap();
        }
        let fifo = tree.add(folder, b"fifo", node(Content::Fifo)).unwrap();
        tree.link(folder, b"another-name", fifo).unwrap();
        folder = tree
            .add(folder, b"folder", node(Content::folder()))
            .unwrap();
    }
    let mut image = Vec::new();
    let options = WriteOptions {
        block_size: BlockSize::PAGE,
        devices: &[],
    };
    write(&tree, options, &mut image).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &image).unwrap();
    let output = Command::new(program).arg(file.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}
