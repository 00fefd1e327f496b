//! The files and directories of one tree, by number.
//!
//! Nodes are in one list and refer to each other by their index in it. So a tree of any depth is copied and freed without a call
//! for each level, and a file on a list of work is a number and not a path.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use oci::Digest;

/// The number of a node.
pub(super) type NodeId = usize;
/// The name of a node in its directory.
pub(super) type Name = Arc<[u8]>;

/// The root directory.
pub(super) const TOP: NodeId = 0;

/// One file or directory.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File(Option<Digest>),
    Link(Box<[u8]>, Option<Digest>),
    Dir(DirNode),
}

impl Default for Node {
    fn default() -> Self {
        Self::File(None)
    }
}

/// One directory. `children` is `None` until it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct DirNode {
    pub(super) header: Option<Digest>,
    pub(super) contents: Option<Digest>,
    pub(super) children: Option<BTreeMap<Name, NodeId>>,
}

#[derive(Clone, Debug)]
struct NodeSlot {
    parent: NodeId,
    name: Name,
    node: Node,
}

/// All nodes of a tree. A number that was given stays good until its node is removed.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    slots: Vec<NodeSlot>,
    free: Vec<NodeId>,
}

impl Nodes {
    pub(super) fn new(top: DirNode) -> Self {
        Self {
            slots: vec![NodeSlot {
                parent: TOP,
                name: Name::default(),
                node: Node::Dir(top),
            }],
            free: Vec::new(),
        }
    }

    fn slot(&self, id: NodeId) -> &NodeSlot {
        self.slots
            .get(id)
            .expect("a node's number is its place in the list")
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.slot(id).node
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self
            .slots
            .get_mut(id)
            .expect("a node's number is its place in the list")
            .node
    }

    pub(super) fn name(&self, id: NodeId) -> &Name {
        &self.slot(id).name
    }

    pub(super) fn parent(&self, id: NodeId) -> NodeId {
        self.slot(id).parent
    }

    pub(super) fn dir(&self, id: NodeId) -> Option<&DirNode> {
        match self.node(id) {
            Node::Dir(dir) => Some(dir),
            Node::File(_) | Node::Link(..) => None,
        }
    }

    pub(super) fn dir_mut(&mut self, id: NodeId) -> Option<&mut DirNode> {
        match self.node_mut(id) {
            Node::Dir(dir) => Some(dir),
            Node::File(_) | Node::Link(..) => None,
        }
    }

    /// The child of that name, if `dir` is a directory that has been read and has it.
    pub(super) fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        self.dir(dir)?.children.as_ref()?.get(name).copied()
    }

    /// Puts a node into a directory, in the place of what had the name.
    pub(super) fn put(&mut self, dir: NodeId, name: &[u8], node: Node) -> NodeId {
        if let Some(replaced) = self.child(dir, name) {
            self.clear(replaced);
            *self.node_mut(replaced) = node;
            return replaced;
        }
        let name = Name::from(name);
        let slot = NodeSlot {
            parent: dir,
            name: Arc::clone(&name),
            node,
        };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(old) = self.slots.get_mut(id) {
                    *old = slot;
                }
                id
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        if let Some(dir) = self.dir_mut(dir) {
            dir.children.get_or_insert_default().insert(name, id);
        }
        id
    }

    /// Takes the child of that name out of a directory, with all below it.
    pub(super) fn remove(&mut self, dir: NodeId, name: &[u8]) {
        let children = self.dir_mut(dir).and_then(|dir| dir.children.as_mut());
        if let Some(id) = children.and_then(|children| children.remove(name)) {
            self.clear(id);
            self.free.push(id);
        }
    }

    /// Frees what is below a node, and forgets what it was.
    fn clear(&mut self, id: NodeId) {
        let mut todo = vec![std::mem::take(self.node_mut(id))];
        while let Some(node) = todo.pop() {
            let Node::Dir(dir) = node else { continue };
            for (_, id) in dir.children.into_iter().flatten() {
                todo.push(std::mem::take(self.node_mut(id)));
                self.free.push(id);
            }
        }
    }

    /// The absolute path of a node.
    pub(super) fn path(&self, id: NodeId) -> PathBuf {
        let mut names = Vec::new();
        let mut at = id;
        while at != TOP {
            names.push(self.name(at));
            at = self.parent(at);
        }
        let mut out = PathBuf::from("/");
        out.extend(names.iter().rev().map(|name| OsStr::from_bytes(name)));
        out
    }

    /// The digest of a node below which all digests are known.
    pub(super) fn digest(&self, id: NodeId) -> Option<&Digest> {
        match self.node(id) {
            Node::File(digest) | Node::Link(_, digest) => digest.as_ref(),
            Node::Dir(dir) => dir.contents.as_ref(),
        }
    }
}
