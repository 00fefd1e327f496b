//! What is known of one tree, and how more of it is learned.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use oci::{Digest, Digester};

use super::HashError;
use super::file::{directory_header, of_file};
use crate::error::{Located, PathError};
use crate::root::{MAX_LINKS, Root, components};
use crate::stat::{Kind, Stat};

/// Names of a place in the tree, from the root.
pub(super) type Place = Vec<Box<[u8]>>;

/// One file or directory.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File(Option<Digest>),
    Link(Box<[u8]>, Option<Digest>),
    Dir(DirNode),
}

/// One directory. `children` is `None` until it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct DirNode {
    pub(super) header: Option<Digest>,
    pub(super) contents: Option<Digest>,
    pub(super) children: Option<BTreeMap<Box<[u8]>, Node>>,
}

/// Everything known of one tree.
#[derive(Debug)]
pub(super) struct State {
    pub(super) top: Node,
    pub(super) dirty: bool,
    // Later names of hard links by the first name, while files arrive.
    links: HashMap<Place, Vec<Place>>,
}

impl Default for State {
    fn default() -> Self {
        Self::from_top(DirNode::default())
    }
}

/// A digest to be made from disk: of a file, or of a directory's own metadata.
pub(super) struct Need {
    pub(super) place: Place,
    pub(super) header: bool,
}

impl State {
    pub(super) fn from_top(top: DirNode) -> Self {
        Self {
            top: Node::Dir(top),
            dirty: false,
            links: HashMap::new(),
        }
    }

    pub(super) fn fork(&self) -> Self {
        Self {
            top: self.top.clone(),
            dirty: true,
            links: HashMap::new(),
        }
    }

    pub(super) fn insert(&mut self, stat: &Stat, digest: &Digest) {
        self.dirty = true;
        if let Node::Dir(top) = &mut self.top {
            // The sender never sends the root itself; its metadata counts as nothing.
            top.children.get_or_insert_default();
            top.header.get_or_insert_with(|| Digest::sha256(b""));
        }
        let place = place_of(&stat.path);
        let Some(name) = place.last().cloned() else {
            return;
        };
        let parent = place.get(..place.len() - 1).unwrap_or_default();
        let mut digest = digest.clone();
        if stat.is_hard_link() {
            let first = place_of(&stat.linkname);
            if let Some(Node::File(Some(known))) = self.known(&first) {
                digest = known.clone();
            }
            self.links.entry(first).or_default().push(place.clone());
        }
        let Some(dir) = self.known_dir_mut(parent) else {
            return;
        };
        let children = dir.children.get_or_insert_default();
        if stat.is_dir() {
            let slot = children
                .entry(name)
                .or_insert_with(|| Node::Dir(DirNode::default()));
            if !matches!(slot, Node::Dir(_)) {
                *slot = Node::Dir(DirNode::default());
            }
            if let Node::Dir(dir) = slot {
                dir.header = Some(digest);
                dir.contents = None;
                dir.children.get_or_insert_default();
            }
        } else {
            let node = if stat.is_symlink() {
                Node::Link(
                    stat.linkname.as_os_str().as_bytes().into(),
                    Some(digest.clone()),
                )
            } else {
                Node::File(Some(digest.clone()))
            };
            children.insert(name, node);
            for other in self.links.remove(&place).unwrap_or_default() {
                if let Some((name, parent)) = other.split_last()
                    && let Some(dir) = self.known_dir_mut(parent)
                    && let Some(children) = &mut dir.children
                {
                    children.insert(name.clone(), Node::File(Some(digest.clone())));
                }
            }
        }
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.dirty = true;
        let place = place_of(path);
        if let Some((name, parent)) = place.split_last()
            && self.known(parent).is_some()
            && let Some(dir) = self.known_dir_mut(parent)
            && let Some(children) = &mut dir.children
        {
            children.remove(name);
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
        if self.get(root, &place)?.is_none() {
            return Err(HashError::NotFound(clean(path)));
        }
        self.digest_at(root, &place)
    }

    /// The digest of an existing place, learning what is missing.
    pub(super) fn digest_at(
        &mut self,
        root: &Root,
        place: &[Box<[u8]>],
    ) -> Result<Digest, HashError> {
        let not_found = || HashError::NotFound(text(place));
        let node = self.get(root, place)?.ok_or_else(not_found)?;
        match node {
            Node::File(Some(digest)) | Node::Link(_, Some(digest)) => return Ok(digest.clone()),
            Node::Dir(DirNode {
                contents: Some(digest),
                ..
            }) => return Ok(digest.clone()),
            Node::Dir(dir) => scan(root, dir, place)?,
            Node::File(None) | Node::Link(_, None) => {}
        }
        let mut needs = Vec::new();
        collect(node, place, &mut needs);
        self.learn(root, needs)?;
        self.dirty = true;
        let node = self.get(root, place)?.ok_or_else(not_found)?;
        finish(node).ok_or_else(not_found)
    }

    /// Makes the digests of `needs` from disk, side by side, and keeps them.
    pub(super) fn learn(&mut self, root: &Root, needs: Vec<Need>) -> Result<(), HashError> {
        if needs.is_empty() {
            return Ok(());
        }
        self.dirty = true;
        let digests = hash_all(root, &needs)?;
        for (need, digest) in needs.iter().zip(digests) {
            match self.get(root, &need.place)? {
                Some(Node::Dir(dir)) if need.header => dir.header = Some(digest),
                Some(Node::File(slot) | Node::Link(_, slot)) if !need.header => {
                    *slot = Some(digest)
                }
                _ => return Err(HashError::NotFound(text(&need.place))),
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
            let Some(Node::Link(target, _)) = self.get(root, &at)? else {
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
    ) -> Result<Option<&mut Node>, HashError> {
        let mut node = &mut self.top;
        for (depth, name) in place.iter().enumerate() {
            let Node::Dir(dir) = node else {
                return Ok(None);
            };
            let children = children_of(root, dir, place.get(..depth).unwrap_or_default())?;
            match children.get_mut(name) {
                Some(next) => node = next,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    fn known(&self, place: &[Box<[u8]>]) -> Option<&Node> {
        let mut node = &self.top;
        for name in place {
            let Node::Dir(dir) = node else { return None };
            node = dir.children.as_ref()?.get(name)?;
        }
        Some(node)
    }

    // Goes down to a directory that is about to change, forgetting the digests of all contents on the way.
    fn known_dir_mut(&mut self, place: &[Box<[u8]>]) -> Option<&mut DirNode> {
        let mut node = &mut self.top;
        for name in place {
            let Node::Dir(dir) = node else { return None };
            dir.contents = None;
            let children = dir.children.get_or_insert_default();
            node = children.entry(name.clone()).or_insert_with(|| {
                Node::Dir(DirNode {
                    children: Some(BTreeMap::new()),
                    ..DirNode::default()
                })
            });
        }
        let Node::Dir(dir) = node else { return None };
        dir.contents = None;
        Some(dir)
    }
}

/// The children of a directory, read when they were not.
pub(super) fn children_of<'a>(
    root: &Root,
    dir: &'a mut DirNode,
    place: &[Box<[u8]>],
) -> Result<&'a mut BTreeMap<Box<[u8]>, Node>, HashError> {
    if dir.children.is_none() {
        let path = path(place);
        let open = root.dir(&path)?;
        let mut children = BTreeMap::new();
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
            children.insert(entry.name.as_bytes().into(), node);
        }
        dir.children = Some(children);
    }
    Ok(dir.children.get_or_insert_default())
}

/// Reads a directory and everything below.
fn scan(root: &Root, dir: &mut DirNode, place: &[Box<[u8]>]) -> Result<(), HashError> {
    let mut todo = vec![(dir, place.to_vec())];
    while let Some((dir, place)) = todo.pop() {
        if dir.contents.is_some() {
            continue;
        }
        for (name, node) in children_of(root, dir, &place)? {
            if let Node::Dir(below) = node {
                let mut place = place.clone();
                place.push(name.clone());
                todo.push((below, place));
            }
        }
    }
    Ok(())
}

fn collect(node: &Node, place: &[Box<[u8]>], needs: &mut Vec<Need>) {
    let mut todo = vec![(node, place.to_vec())];
    while let Some((node, place)) = todo.pop() {
        match node {
            Node::File(None) | Node::Link(_, None) => needs.push(Need {
                place,
                header: false,
            }),
            Node::File(Some(_))
            | Node::Link(_, Some(_))
            | Node::Dir(DirNode {
                contents: Some(_), ..
            }) => {}
            Node::Dir(dir) => {
                for (name, child) in dir.children.iter().flatten().rev() {
                    let mut place = place.clone();
                    place.push(name.clone());
                    todo.push((child, place));
                }
                if dir.header.is_none() {
                    needs.push(Need {
                        place,
                        header: true,
                    });
                }
            }
        }
    }
}

/// The digest of a node below which everything is known; `None` when something is not.
fn finish(node: &mut Node) -> Option<Digest> {
    let dir = match node {
        Node::File(digest) | Node::Link(_, digest) => return digest.clone(),
        Node::Dir(dir) => dir,
    };
    if let Some(digest) = &dir.contents {
        return Some(digest.clone());
    }
    let mut out = Digester::new();
    out.update(b"\0");
    out.update(dir.header.as_ref()?.as_str().as_bytes());
    for (name, child) in dir.children.as_mut()? {
        out.update(b"\0");
        out.update(name);
        out.update(finish(child)?.as_str().as_bytes());
        stragglers(child, name, &mut out)?;
    }
    let digest = out.finish();
    dir.contents = Some(digest.clone());
    Some(digest)
}

// BuildKit skips what is below a subdirectory by seeking to the key `name \0 \xff`, so names in it that start with
// the byte 0xff are not skipped and count in the parent too. Kept, because it decides digests.
fn stragglers(node: &mut Node, prefix: &[u8], out: &mut Digester) -> Option<()> {
    let Node::Dir(dir) = node else {
        return Some(());
    };
    let from: Box<[u8]> = Box::new([0xff]);
    for (name, child) in dir
        .children
        .as_mut()?
        .range_mut((Bound::Included(from), Bound::Unbounded))
    {
        let name = [prefix, b"\0", &**name].concat();
        out.update(b"\0");
        out.update(&name);
        out.update(finish(child)?.as_str().as_bytes());
        stragglers(child, &name, out)?;
    }
    Some(())
}

const CHUNK: usize = 32;

fn hash_all(root: &Root, needs: &[Need]) -> Result<Vec<Digest>, HashError> {
    let chunks = needs.len().div_ceil(CHUNK);
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8)
        .min(chunks);
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || -> Result<Vec<(usize, Digest)>, HashError> {
        let mut done = Vec::new();
        let mut buffer = Vec::new();
        let mut open = None;
        while !failed.load(Ordering::Relaxed) {
            let first = next.fetch_add(1, Ordering::Relaxed) * CHUNK;
            if first >= needs.len() {
                break;
            }
            for (index, need) in needs.iter().enumerate().skip(first).take(CHUNK) {
                match hash_one(root, need, &mut open, &mut buffer) {
                    Ok(digest) => done.push((index, digest)),
                    Err(e) => {
                        failed.store(true, Ordering::Relaxed);
                        return Err(e);
                    }
                }
            }
        }
        Ok(done)
    };
    let mut done = Vec::with_capacity(needs.len());
    if threads <= 1 {
        done = work()?;
    } else {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            done.extend(work()?);
            for worker in workers {
                match worker.join() {
                    Ok(part) => done.extend(part?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok::<_, HashError>(())
        })?;
    }
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, digest)| digest).collect())
}

type OpenDir = Option<(Place, crate::dir::Dir)>;

fn hash_one(
    root: &Root,
    need: &Need,
    open: &mut OpenDir,
    buffer: &mut Vec<u8>,
) -> Result<Digest, HashError> {
    if need.header {
        let at = path(&need.place);
        return Ok(directory_header(&root.dir(&at)?).at("lstat", &at)?);
    }
    let Some((name, parent)) = need.place.split_last() else {
        return Err(HashError::NotFound(String::new()));
    };
    let dir = match open {
        Some((place, dir)) if place == parent => dir,
        _ => &mut open.insert((parent.to_vec(), root.dir(path(parent))?)).1,
    };
    of_file(dir, OsStr::from_bytes(name), buffer)
        .map_err(|e| PathError::new("open", path(&need.place), e).into())
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

/// A place as an absolute path.
pub(super) fn path(place: &[Box<[u8]>]) -> PathBuf {
    let mut out = PathBuf::from("/");
    out.extend(place.iter().map(|name| OsStr::from_bytes(name)));
    out
}

fn text(place: &[Box<[u8]>]) -> String {
    path(place).to_string_lossy().into_owned()
}

/// Go's `path.Join("/", p)`, with nothing for the root.
pub(super) fn clean(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                out.pop();
            }
            name => out.push(name),
        }
    }
    out.iter().fold(String::new(), |all, name| all + "/" + name)
}
