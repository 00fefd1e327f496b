//! The digests of one tree, and how missing ones are computed.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use oci::{Digest, Digester};

use super::HashError;
use super::file::{directory_header, of_file};
use super::nodes::{DirNode, Node, NodeId, Nodes, TOP};
use crate::error::{Located, PathError};
use crate::root::{MAX_LINKS, Root, components};
use crate::stat::{Kind, Stat};

/// Names of a place in the tree, from the root.
pub(super) type Place = Vec<Box<[u8]>>;

/// The nodes of one tree and their digests.
#[derive(Debug)]
pub(super) struct State {
    pub(super) nodes: Nodes,
    pub(super) dirty: bool,
    // Later names of hard links by the first name, while files arrive.
    links: HashMap<Place, Vec<Place>>,
}

impl Default for State {
    fn default() -> Self {
        Self::new(Nodes::new(DirNode::default()))
    }
}

/// A digest to be made from disk: of a file, or of a directory's own metadata.
pub(super) struct Need {
    pub(super) node: NodeId,
    pub(super) header: bool,
}

impl State {
    pub(super) fn new(nodes: Nodes) -> Self {
        Self {
            nodes,
            dirty: false,
            links: HashMap::new(),
        }
    }

    pub(super) fn fork(&self) -> Self {
        Self {
            nodes: self.nodes.clone(),
            dirty: true,
            links: HashMap::new(),
        }
    }

    pub(super) fn insert(&mut self, stat: &Stat, digest: &Digest) {
        self.dirty = true;
        if let Some(top) = self.nodes.dir_mut(TOP) {
            // The sender never sends the root itself; its metadata counts as nothing.
            top.children.get_or_insert_default();
            top.header.get_or_insert_with(|| Digest::sha256(b""));
        }
        let place = place_of(&stat.path);
        let Some((name, parent)) = place.split_last() else {
            return;
        };
        let mut digest = digest.clone();
        if stat.is_hard_link() {
            let first = place_of(&stat.linkname);
            let first_node = self.node_at(&first).map(|id| self.nodes.node(id));
            if let Some(Node::File(Some(first_digest))) = first_node {
                digest = first_digest.clone();
            }
            self.links.entry(first).or_default().push(place.clone());
        }
        let Some(dir) = self.known_dir(parent) else {
            return;
        };
        if stat.is_dir() {
            let existing = self.nodes.child(dir, name);
            let id = match existing.filter(|id| self.nodes.dir(*id).is_some()) {
                Some(id) => id,
                None => self.nodes.put(dir, name, Node::Dir(DirNode::default())),
            };
            if let Some(dir) = self.nodes.dir_mut(id) {
                dir.header = Some(digest);
                dir.contents = None;
                dir.children.get_or_insert_default();
            }
            return;
        }
        let node = if stat.is_symlink() {
            let target = stat.linkname.as_os_str().as_bytes().into();
            Node::Link(target, Some(digest.clone()))
        } else {
            Node::File(Some(digest.clone()))
        };
        self.nodes.put(dir, name, node);
        for link in self.links.remove(&place).unwrap_or_default() {
            if let Some((name, parent)) = link.split_last()
                && let Some(dir) = self.known_dir(parent)
            {
                self.nodes.put(dir, name, Node::File(Some(digest.clone())));
            }
        }
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.dirty = true;
        let place = place_of(path);
        if let Some((name, parent)) = place.split_last()
            && self.node_at(parent).is_some()
            && let Some(dir) = self.known_dir(parent)
        {
            self.nodes.remove(dir, name);
        }
    }

    /// The digest of one path, without patterns.
    pub(super) fn checksum(
        &mut self,
        root: &Root,
        path: &str,
        follow: bool,
    ) -> Result<Digest, HashError> {
        let place = self.resolve(root, clean(path).as_bytes(), follow)?;
        let Some(node) = self.get(root, &place)? else {
            return Err(HashError::NotFound(clean(path)));
        };
        if let Some(digest) = self.nodes.digest(node) {
            return Ok(digest.clone());
        }
        self.scan(root, node)?;
        let needs = self.needs(node);
        self.learn(root, &needs)?;
        self.dirty = true;
        self.finish(node)
            .ok_or_else(|| HashError::NotFound(text(&place)))
    }

    /// Makes the digests of `needs` from disk, side by side, and keeps them.
    pub(super) fn learn(&mut self, root: &Root, needs: &[Need]) -> Result<(), HashError> {
        if needs.is_empty() {
            return Ok(());
        }
        self.dirty = true;
        let digests = hash_all(root, &self.nodes, needs)?;
        for (need, digest) in needs.iter().zip(digests) {
            match self.nodes.node_mut(need.node) {
                Node::Dir(dir) => dir.header = Some(digest),
                Node::File(slot) | Node::Link(_, slot) => *slot = Some(digest),
            }
        }
        Ok(())
    }

    /// Where a path leads, following links as far as they are known or can be read. The place need not exist.
    pub(super) fn resolve(
        &mut self,
        root: &Root,
        path: &[u8],
        follow_last: bool,
    ) -> Result<Place, HashError> {
        let mut at: Place = Vec::new();
        let mut todo: Vec<Box<[u8]>> = split(path);
        todo.reverse();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if &*name == b".." {
                at.pop();
                continue;
            }
            at.push(name);
            let Some(Node::Link(target, _)) = self.get(root, &at)?.map(|id| self.nodes.node(id))
            else {
                continue;
            };
            if !follow_last && todo.is_empty() {
                break;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(HashError::TooManyLinks);
            }
            let target = target.clone();
            if target.first() == Some(&b'/') {
                at.clear();
            } else {
                at.pop();
            }
            todo.extend(split(&target).into_iter().rev());
        }
        Ok(at)
    }

    /// The node at a place, reading the directories towards it.
    pub(super) fn get(
        &mut self,
        root: &Root,
        place: &[Box<[u8]>],
    ) -> Result<Option<NodeId>, HashError> {
        let mut at = TOP;
        for name in place {
            self.read(root, at)?;
            match self.nodes.child(at, name) {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn node_at(&self, place: &[Box<[u8]>]) -> Option<NodeId> {
        place
            .iter()
            .try_fold(TOP, |at, name| self.nodes.child(at, name))
    }

    // Goes down to a directory that is about to change, forgetting the digests of all contents on the way.
    fn known_dir(&mut self, place: &[Box<[u8]>]) -> Option<NodeId> {
        let mut at = TOP;
        for name in place {
            self.nodes.dir_mut(at)?.contents = None;
            at = match self.nodes.child(at, name) {
                Some(next) => next,
                None => {
                    let dir = DirNode {
                        children: Some(BTreeMap::new()),
                        ..DirNode::default()
                    };
                    self.nodes.put(at, name, Node::Dir(dir))
                }
            };
        }
        self.nodes.dir_mut(at)?.contents = None;
        Some(at)
    }

    /// Reads the names of a directory when they are not known. Of anything else, nothing.
    pub(super) fn read(&mut self, root: &Root, id: NodeId) -> Result<(), HashError> {
        if self.nodes.dir(id).is_none_or(|dir| dir.children.is_some()) {
            return Ok(());
        }
        let path = self.nodes.path(id);
        let open = root.dir(&path)?;
        let mut read = Vec::new();
        for entry in open.entries().at("open", &path)? {
            let node = match entry.kind {
                Kind::Dir => Node::Dir(DirNode::default()),
                Kind::Symlink => {
                    let target = open
                        .readlink(&entry.name)
                        .at("readlink", path.join(&entry.name))?;
                    Node::Link(target.as_os_str().as_bytes().into(), None)
                }
                Kind::File | Kind::Block | Kind::Char | Kind::Fifo | Kind::Socket => {
                    Node::File(None)
                }
            };
            read.push((entry.name, node));
        }
        if let Some(dir) = self.nodes.dir_mut(id) {
            dir.children = Some(BTreeMap::new());
        }
        for (name, node) in read {
            self.nodes.put(id, name.as_bytes(), node);
        }
        Ok(())
    }

    /// The children of a directory that was read.
    fn children(&self, id: NodeId) -> impl DoubleEndedIterator<Item = NodeId> {
        let children = self.nodes.dir(id).and_then(|dir| dir.children.as_ref());
        children.into_iter().flat_map(|all| all.values().copied())
    }

    /// Reads a directory and everything below.
    fn scan(&mut self, root: &Root, id: NodeId) -> Result<(), HashError> {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            if self.nodes.dir(id).is_none_or(|dir| dir.contents.is_some()) {
                continue;
            }
            self.read(root, id)?;
            todo.extend(self.children(id).filter(|id| self.nodes.dir(*id).is_some()));
        }
        Ok(())
    }

    /// The digests that are missing at a node and below it, those of one directory one after another.
    fn needs(&self, id: NodeId) -> Vec<Need> {
        let mut needs = Vec::new();
        let mut todo = vec![id];
        while let Some(node) = todo.pop() {
            if self.nodes.digest(node).is_some() {
                continue;
            }
            let header = match self.nodes.dir(node) {
                None => false,
                Some(dir) => {
                    todo.extend(self.children(node).rev());
                    if dir.header.is_some() {
                        continue;
                    }
                    true
                }
            };
            needs.push(Need { node, header });
        }
        needs
    }

    /// The digest of a node below which everything is known; `None` when something is not.
    fn finish(&mut self, id: NodeId) -> Option<Digest> {
        let mut todo = vec![(id, false)];
        while let Some((id, below)) = todo.pop() {
            if self.nodes.digest(id).is_some() {
                continue;
            }
            if below {
                let digest = self.contents(id)?;
                self.nodes.dir_mut(id)?.contents = Some(digest);
            } else {
                // A file without a digest is no directory, and ends it here.
                self.nodes.dir(id)?;
                todo.push((id, true));
                todo.extend(self.children(id).map(|id| (id, false)));
            }
        }
        self.nodes.digest(id).cloned()
    }

    /// The digest of a directory's contents, from those of its children.
    fn contents(&self, id: NodeId) -> Option<Digest> {
        let dir = self.nodes.dir(id)?;
        let mut out = Digester::new();
        out.update(b"\0");
        out.update(dir.header.as_ref()?.as_str().as_bytes());
        for (name, child) in dir.children.as_ref()? {
            out.update(b"\0");
            out.update(name);
            out.update(self.nodes.digest(*child)?.as_str().as_bytes());
            self.stragglers(*child, name, &mut out)?;
        }
        Some(out.finish())
    }

    // BuildKit skips what is below a subdirectory by seeking to the key `name \0 \xff`, so names in it that start with
    // the byte 0xff are not skipped and count in the parent too. Kept, because it decides digests.
    fn stragglers(&self, id: NodeId, name: &[u8], out: &mut Digester) -> Option<()> {
        let mut todo = Vec::new();
        self.push_stragglers(id, name, &mut todo)?;
        while let Some((id, name)) = todo.pop() {
            out.update(b"\0");
            out.update(&name);
            out.update(self.nodes.digest(id)?.as_str().as_bytes());
            self.push_stragglers(id, &name, &mut todo)?;
        }
        Some(())
    }

    fn push_stragglers(
        &self,
        id: NodeId,
        prefix: &[u8],
        todo: &mut Vec<(NodeId, Vec<u8>)>,
    ) -> Option<()> {
        let Some(dir) = self.nodes.dir(id) else {
            return Some(());
        };
        let from: &[u8] = &[0xff];
        let names = (Bound::Included(from), Bound::Unbounded);
        for (name, child) in dir.children.as_ref()?.range::<[u8], _>(names).rev() {
            todo.push((*child, [prefix, b"\0", &**name].concat()));
        }
        Some(())
    }
}

const FILES_PER_CHUNK: usize = 32;

fn hash_all(root: &Root, nodes: &Nodes, needs: &[Need]) -> Result<Vec<Digest>, HashError> {
    let chunks = needs.len().div_ceil(FILES_PER_CHUNK);
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8)
        .min(chunks);
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || -> Result<Vec<(usize, Digest)>, HashError> {
        let mut digests = Vec::new();
        let mut buffer = Vec::new();
        let mut open = None;
        while !failed.load(Ordering::Relaxed) {
            let first = next.fetch_add(1, Ordering::Relaxed) * FILES_PER_CHUNK;
            if first >= needs.len() {
                break;
            }
            for (index, need) in needs.iter().enumerate().skip(first).take(FILES_PER_CHUNK) {
                match hash_one(root, nodes, need, &mut open, &mut buffer) {
                    Ok(digest) => digests.push((index, digest)),
                    Err(e) => {
                        failed.store(true, Ordering::Relaxed);
                        return Err(e);
                    }
                }
            }
        }
        Ok(digests)
    };
    let mut digests = Vec::with_capacity(needs.len());
    if threads <= 1 {
        digests = work()?;
    } else {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            digests.extend(work()?);
            for worker in workers {
                match worker.join() {
                    Ok(part) => digests.extend(part?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok::<_, HashError>(())
        })?;
    }
    digests.sort_unstable_by_key(|(index, _)| *index);
    Ok(digests.into_iter().map(|(_, digest)| digest).collect())
}

type OpenDir = Option<(NodeId, crate::dir::Dir)>;

fn hash_one(
    root: &Root,
    nodes: &Nodes,
    need: &Need,
    open: &mut OpenDir,
    buffer: &mut Vec<u8>,
) -> Result<Digest, HashError> {
    if need.header {
        let at = nodes.path(need.node);
        return Ok(directory_header(&root.dir(&at)?).at("lstat", &at)?);
    }
    let parent = nodes.parent(need.node);
    let dir = match open {
        Some((id, dir)) if *id == parent => dir,
        _ => &mut open.insert((parent, root.dir(nodes.path(parent))?)).1,
    };
    of_file(dir, OsStr::from_bytes(nodes.name(need.node)), buffer)
        .map_err(|e| PathError::new("open", nodes.path(need.node), e).into())
}

/// The names of a path; leading slashes, empty names and dots do not count, `..` does.
pub(super) fn split(path: &[u8]) -> Place {
    path.split(|b| *b == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(Into::into)
        .collect()
}

fn place_of(path: &Path) -> Place {
    let mut place = Vec::new();
    for name in components(path) {
        if name == ".." {
            place.pop();
        } else {
            place.push(name.as_bytes().into());
        }
    }
    place
}

fn text(place: &[Box<[u8]>]) -> String {
    let mut out = PathBuf::from("/");
    out.extend(place.iter().map(|name| OsStr::from_bytes(name)));
    out.to_string_lossy().into_owned()
}

/// Go's `path.Join("/", p)`, with nothing for the root.
pub(super) fn clean(path: &str) -> String {
    match gostd::path::join_root(path) {
        root if root == "/" => String::new(),
        path => path,
    }
}
