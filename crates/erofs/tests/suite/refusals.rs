//! What no tree can hold is refused when it is added.

use erofs::{Attributes, Content, DeviceNumber, Limits, Node, Tree, TreeError};

fn tree() -> Tree {
    Tree::new(Attributes::default(), Limits::default()).unwrap()
}

fn node(content: Content) -> Node {
    Node {
        attributes: Attributes::default(),
        content,
    }
}

#[test]
fn a_name_that_no_folder_can_hold_is_refused() {
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'n'; 256]] {
        let mut tree = tree();
        let root = tree.root();
        let error = tree.add(root, name, node(Content::Fifo)).unwrap_err();
        assert_eq!(error, TreeError::Name(name.into()));
        let file = tree.add(root, b"file", node(Content::Fifo)).unwrap();
        assert_eq!(
            tree.link(root, name, file),
            Err(TreeError::Name(name.into()))
        );
    }
    let mut tree = tree();
    let root = tree.root();
    tree.add(root, &[0xff; 255], node(Content::Fifo)).unwrap();
}

#[test]
fn a_node_that_no_image_can_hold_is_refused() {
    let device = |major, minor| Content::CharDevice(DeviceNumber { major, minor });
    let cases = [
        (
            Content::Symlink(Box::from([])),
            "a symbolic link cannot have a target of 0 bytes, or one with NUL",
        ),
        (
            Content::Symlink(vec![b't'; 4096].into()),
            "a symbolic link cannot have a target of 4096 bytes, or one with NUL",
        ),
        (
            Content::Symlink(Box::from(*b"a\0b")),
            "a symbolic link cannot have a target of 3 bytes, or one with NUL",
        ),
        (device(4096, 0), "there is no device 4096:0"),
        (device(0, 1 << 20), "there is no device 0:1048576"),
    ];
    for (content, message) in cases {
        let mut tree = tree();
        let root = tree.root();
        let error = tree.add(root, b"name", node(content)).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(tree.lookup(root, b"name"), None);
    }
}

#[test]
fn attributes_out_of_their_range_are_refused() {
    let xattrs = |name: &[u8], length: usize| Attributes {
        xattrs: Some(Box::new(vec![(name.into(), vec![0; length].into())])),
        ..Attributes::default()
    };
    let many = (0..6).map(|number| {
        let name = format!("user.{number}").into_bytes();
        (name.into(), vec![0; 60_000].into())
    });
    let cases = [
        (
            Attributes {
                permissions: 0o10000,
                ..Attributes::default()
            },
            "permissions 10000 or nanoseconds 0 are out of range",
        ),
        (
            Attributes {
                nanoseconds: 1_000_000_000,
                ..Attributes::default()
            },
            "permissions 0 or nanoseconds 1000000000 are out of range",
        ),
        (
            xattrs(b"other.name", 1),
            "the extended attribute \"other.name\" with a value of 1 bytes cannot be stored",
        ),
        (
            xattrs(b"user.name", 65_536),
            "the extended attribute \"user.name\" with a value of 65536 bytes cannot be stored",
        ),
        (
            Attributes {
                xattrs: Some(Box::new(many.collect())),
                ..Attributes::default()
            },
            "extended attributes of 360048 bytes are more than a file can have",
        ),
    ];
    for (attributes, message) in cases {
        let mut tree = tree();
        let root = tree.root();
        let error = tree.set_attributes(root, attributes.clone()).unwrap_err();
        assert_eq!(error.to_string(), message);
        let content = Content::Fifo;
        let error = tree
            .add(
                root,
                b"name",
                Node {
                    attributes,
                    content,
                },
            )
            .unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn what_is_no_folder_holds_nothing_and_a_folder_has_one_name() {
    let mut tree = tree();
    let root = tree.root();
    let file = tree.add(root, b"file", node(Content::Fifo)).unwrap();
    let folder = tree.add(root, b"folder", node(Content::folder())).unwrap();
    assert_eq!(
        tree.add(file, b"name", node(Content::Fifo)),
        Err(TreeError::NotFolder(Box::from(*b"name")))
    );
    assert_eq!(
        tree.link(file, b"name", file),
        Err(TreeError::NotFolder(Box::from(*b"name")))
    );
    assert_eq!(
        tree.link(folder, b"self", folder),
        Err(TreeError::FolderLinked(Box::from(*b"self")))
    );
    assert_eq!(
        tree.link(folder, b"root", root),
        Err(TreeError::FolderLinked(Box::from(*b"root")))
    );
    let filled = tree.node(root).clone();
    assert_eq!(
        tree.add(root, b"filled", filled),
        Err(TreeError::FolderFilled(Box::from(*b"filled")))
    );
}

#[test]
fn a_tree_stops_growing_at_its_limits() {
    let limits = Limits {
        nodes: 3,
        attribute_bytes: 10,
    };
    let mut tree = Tree::new(Attributes::default(), limits).unwrap();
    let root = tree.root();
    let link = |length: usize| node(Content::Symlink(vec![b't'; length].into()));
    tree.add(root, b"a", link(6)).unwrap();
    assert_eq!(
        tree.add(root, b"b", link(6)),
        Err(TreeError::TooManyAttributes { limit: 10 })
    );
    tree.add(root, b"b", node(Content::Fifo)).unwrap();
    assert_eq!(
        tree.add(root, b"c", node(Content::Fifo)),
        Err(TreeError::TooManyNodes { limit: 3 })
    );
}

#[test]
fn the_last_of_two_with_one_name_stays_and_a_folder_keeps_what_it_holds() {
    let mut tree = tree();
    let root = tree.root();
    let folder = tree.add(root, b"name", node(Content::folder())).unwrap();
    let inner = tree.add(folder, b"inner", node(Content::Fifo)).unwrap();
    let attributes = Attributes {
        uid: 7,
        ..Attributes::default()
    };
    tree.set_attributes(folder, attributes).unwrap();
    assert_eq!(tree.lookup(folder, b"inner"), Some(inner));
    assert_eq!(tree.node(folder).attributes.uid, 7);
    let file = tree.add(root, b"name", node(Content::Socket)).unwrap();
    assert_eq!(tree.lookup(root, b"name"), Some(file));
    assert_eq!(tree.remove(root, b"name"), Some(file));
    assert_eq!(tree.lookup(root, b"name"), None);
}
