//! Trees as plain data, and random ones from a number.

use std::collections::BTreeMap;

use erofs::{
    Attributes, BlockSize, Content, Device, DeviceNumber, Extent, FileKind, Limits, Node, Tree,
    WriteOptions, Written, write,
};

/// A tree by path, each path's folders before it, with the bytes of its device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<Vec<u8>, ModelNode>,
    /// Further names of nodes that are no folders.
    pub(crate) links: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) device: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelNode {
    pub(crate) kind: FileKind,
    pub(crate) attributes: Attributes,
    /// Of a file its bytes, of a link its target.
    pub(crate) bytes: Vec<u8>,
    pub(crate) extents: Vec<Extent>,
    pub(crate) number: Option<DeviceNumber>,
}

impl ModelNode {
    pub(crate) fn new(kind: FileKind) -> Self {
        Self {
            kind,
            attributes: Attributes {
                permissions: 0o755,
                ..Attributes::default()
            },
            bytes: Vec::new(),
            extents: Vec::new(),
            number: None,
        }
    }
}

/// A sequence of numbers that look random: xorshift.
#[derive(Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length)
            .map(|_| u8::try_from(1 + self.below(255)).unwrap())
            .collect()
    }
}

impl Model {
    /// An empty root.
    pub(crate) fn new() -> Self {
        let mut model = Self::default();
        model
            .nodes
            .insert(Vec::new(), ModelNode::new(FileKind::Folder));
        model
    }

    /// Appends bytes to the device, at the border of a block; returns where.
    pub(crate) fn store(&mut self, bytes: &[u8], block_size: BlockSize) -> u64 {
        let unit = usize::try_from(block_size.bytes()).unwrap();
        let offset = self.device.len();
        self.device.extend_from_slice(bytes);
        // Nothing but zeros may follow: what comes after a file's end is not the file's.
        let filled = self.device.len().next_multiple_of(unit);
        self.device.resize(filled, 0xee);
        u64::try_from(offset).unwrap()
    }

    /// A file whose bytes lie in the device in one piece.
    pub(crate) fn file(
        &mut self,
        path: &[u8],
        bytes: &[u8],
        block_size: BlockSize,
    ) -> &mut ModelNode {
        let mut node = ModelNode::new(FileKind::File);
        node.bytes = bytes.to_vec();
        if !bytes.is_empty() {
            node.extents.push(Extent {
                file_offset: 0,
                length: u64::try_from(bytes.len()).unwrap(),
                device: 1,
                device_offset: self.store(bytes, block_size),
            });
        }
        self.nodes.insert(path.to_vec(), node);
        self.nodes.get_mut(path).unwrap()
    }

    /// A tree of about `count` nodes of all kinds, shaped by `seed`.
    pub(crate) fn random(seed: u64, count: u64, block_size: BlockSize) -> Self {
        let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut model = Self::new();
        let mut folders: Vec<Vec<u8>> = vec![Vec::new()];
        let mut leaves: Vec<Vec<u8>> = Vec::new();
        for number in 0..count {
            let place = numbers.below(u64::try_from(folders.len()).unwrap());
            let mut path = folders[usize::try_from(place).unwrap()].clone();
            path.push(b'/');
            let length = [1, 2, 8, 30, 200][usize::try_from(numbers.below(5)).unwrap()];
            let letters = numbers.bytes(length);
            path.extend(
                letters
                    .iter()
                    .map(|byte| if *byte == b'/' { b'-' } else { *byte }),
            );
            path.extend_from_slice(number.to_string().as_bytes());
            match numbers.below(14) {
                0..=2 => {
                    model
                        .nodes
                        .insert(path.clone(), ModelNode::new(FileKind::Folder));
                    folders.push(path.clone());
                }
                3 => {
                    let mut node = ModelNode::new(FileKind::Symlink);
                    let length = [1, 40, 300, 448, 511, 512, 513, 2000, 4095];
                    let length = length[usize::try_from(numbers.below(9)).unwrap()];
                    node.bytes = numbers.bytes(length);
                    model.nodes.insert(path.clone(), node);
                }
                4 => {
                    let kinds = [
                        FileKind::CharDevice,
                        FileKind::BlockDevice,
                        FileKind::Fifo,
                        FileKind::Socket,
                    ];
                    let kind = kinds[usize::try_from(numbers.below(4)).unwrap()];
                    let mut node = ModelNode::new(kind);
                    if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) {
                        node.number = Some(DeviceNumber {
                            major: u32::try_from(numbers.below(4096)).unwrap(),
                            minor: u32::try_from(numbers.below(1 << 20)).unwrap(),
                        });
                    }
                    model.nodes.insert(path.clone(), node);
                }
                5 if !leaves.is_empty() => {
                    let place = numbers.below(u64::try_from(leaves.len()).unwrap());
                    let target = leaves[usize::try_from(place).unwrap()].clone();
                    model.links.insert(path, target);
                    continue;
                }
                6 => model.sparse_file(&path, &mut numbers, block_size),
                _ => {
                    let length = [0, 1, 511, 512, 513, 5000, 70_000];
                    let length = length[usize::try_from(numbers.below(7)).unwrap()];
                    let bytes = numbers.bytes(length);
                    model.file(&path, &bytes, block_size);
                }
            }
            let node = model.nodes.get_mut(&path).unwrap();
            if node.kind != FileKind::Folder {
                leaves.push(path);
            }
            node.attributes = random_attributes(&mut numbers, node.kind);
        }
        model
    }

    fn sparse_file(&mut self, path: &[u8], numbers: &mut Numbers, block_size: BlockSize) {
        let mut node = ModelNode::new(FileKind::File);
        let unit = block_size.bytes();
        for _ in 0..numbers.below(5) {
            let hole = numbers.below(6) * unit;
            let part = numbers.below(4) * unit;
            node.bytes
                .resize(node.bytes.len() + usize::try_from(hole).unwrap(), 0);
            let bytes = numbers.bytes(part);
            self.part(&mut node, &bytes, block_size);
        }
        let bytes = numbers.bytes(1);
        self.part(&mut node, &bytes, block_size);
        self.nodes.insert(path.to_vec(), node);
    }

    /// Appends bytes to a file.
    pub(crate) fn part(&mut self, node: &mut ModelNode, bytes: &[u8], block_size: BlockSize) {
        if bytes.is_empty() {
            return;
        }
        node.extents.push(Extent {
            file_offset: u64::try_from(node.bytes.len()).unwrap(),
            length: u64::try_from(bytes.len()).unwrap(),
            device: 1,
            device_offset: self.store(bytes, block_size),
        });
        node.bytes.extend_from_slice(bytes);
    }

    /// The tree of these nodes, for [`write`].
    pub(crate) fn tree(&self) -> Tree {
        let root = self.nodes[&Vec::new()].attributes.clone();
        let mut tree = Tree::new(root, Limits::default()).unwrap();
        let mut ids = BTreeMap::from([(Vec::new(), tree.root())]);
        for (path, node) in self.nodes.iter().skip(1) {
            let (folder, name) = split(path);
            let content = match node.kind {
                FileKind::Folder => Content::folder(),
                FileKind::File => match &*node.extents {
                    [] if node.bytes.is_empty() => Content::File {
                        size: 0,
                        device: 0,
                        device_offset: 0,
                    },
                    [whole] if whole.length == u64::try_from(node.bytes.len()).unwrap() => {
                        Content::File {
                            size: whole.length,
                            device: whole.device,
                            device_offset: whole.device_offset,
                        }
                    }
                    extents => Content::SparseFile {
                        size: u64::try_from(node.bytes.len()).unwrap(),
                        extents: extents.into(),
                    },
                },
                FileKind::Symlink => Content::Symlink(node.bytes.as_slice().into()),
                FileKind::CharDevice => Content::CharDevice(node.number.unwrap()),
                FileKind::BlockDevice => Content::BlockDevice(node.number.unwrap()),
                FileKind::Fifo => Content::Fifo,
                FileKind::Socket => Content::Socket,
            };
            let attributes = node.attributes.clone();
            let node = Node {
                attributes,
                content,
            };
            let id = tree.add(ids[folder], name, node).unwrap();
            ids.insert(path.clone(), id);
        }
        for (path, target) in &self.links {
            let (folder, name) = split(path);
            tree.link(ids[folder], name, ids[target]).unwrap();
        }
        tree
    }

    /// The image of the tree.
    pub(crate) fn image(&self, block_size: BlockSize) -> (Vec<u8>, Written) {
        let mut image = Vec::new();
        let size = u64::try_from(self.device.len()).unwrap();
        let options = WriteOptions {
            block_size,
            devices: &[Device { size }],
        };
        let written = write(&self.tree(), options, &mut image).unwrap();
        assert_eq!(written.size, u64::try_from(image.len()).unwrap());
        assert_eq!(written.inodes, u64::try_from(self.nodes.len()).unwrap());
        (image, written)
    }

    /// Names that a node has; of a folder two, and one for each folder in it.
    pub(crate) fn links_of(&self, path: &[u8]) -> u32 {
        let count = if self.nodes[path].kind == FileKind::Folder {
            let children = self.nodes.iter().skip(1);
            1 + children
                .filter(|(other, node)| node.kind == FileKind::Folder && split(other).0 == path)
                .count()
        } else {
            self.links.values().filter(|target| *target == path).count()
        };
        1 + u32::try_from(count).unwrap()
    }
}

/// A path as its folder and its last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap();
    (&path[..slash], &path[slash + 1..])
}

fn random_attributes(numbers: &mut Numbers, kind: FileKind) -> Attributes {
    let mut xattrs = Vec::new();
    // Linux lets only files and folders have attributes of users.
    if numbers.below(4) == 0 && matches!(kind, FileKind::File | FileKind::Folder) {
        for number in 0..numbers.below(4) {
            let name = format!("user.name{number}").into_bytes();
            let length = [0, 1, 7, 100, 600][usize::try_from(numbers.below(5)).unwrap()];
            xattrs.push((name.into(), numbers.bytes(length).into()));
        }
    }
    Attributes {
        permissions: u16::try_from(numbers.below(0o10000)).unwrap(),
        uid: u32::try_from(numbers.below(1 << 32)).unwrap() & 0x7fff_ffff,
        gid: u32::try_from(numbers.below(70_000)).unwrap(),
        seconds: i64::try_from(numbers.below(1 << 34)).unwrap() - (1 << 30),
        nanoseconds: u32::try_from(numbers.below(1_000_000_000)).unwrap(),
        xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
    }
}
