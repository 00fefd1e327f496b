//! How the digests of a tree are kept on disk.
//!
//! One byte of version, then the nodes depth first: a tag, the digests that are known, and for directories whose
//! names are known their number and each name with its node. Numbers are LEB128.

use std::collections::BTreeMap;

use oci::Digest;

use super::HashError;
use super::nodes::{DirNode, Node, Nodes, TOP};
use super::tree::State;

const VERSION: u8 = 1;

const FILE: u8 = 1;
const LINK: u8 = 2;
const DIR: u8 = 3;
const HAS_DIGEST: u8 = 0x10;
const HAS_CONTENTS: u8 = 0x20;
const HAS_CHILDREN: u8 = 0x40;

pub(super) fn encode(state: &State) -> Vec<u8> {
    let nodes = &state.nodes;
    let mut out = vec![VERSION];
    let mut todo = vec![TOP];
    while let Some(id) = todo.pop() {
        if id != TOP {
            write_bytes(nodes.name(id), &mut out);
        }
        write_node(nodes.node(id), &mut out);
        if let Some(children) = nodes.dir(id).and_then(|dir| dir.children.as_ref()) {
            todo.extend(children.values().rev());
        }
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<State, HashError> {
    let mut input = EncodedInput { bytes };
    if input.byte()? != VERSION {
        return Err(HashError::Damaged("unknown version"));
    }
    let (Node::Dir(top), count) = input.node()? else {
        return Err(HashError::Damaged("the root is no directory"));
    };
    let mut nodes = Nodes::new(top);
    // The directories that are being read, and how many names are left in each.
    let mut unread = vec![(TOP, count)];
    while let Some((dir, count)) = unread.last_mut() {
        if *count == 0 {
            unread.pop();
            continue;
        }
        *count -= 1;
        let dir = *dir;
        let name = input.name()?;
        let (node, count) = input.node()?;
        unread.push((nodes.put(dir, &name, node), count));
    }
    if !input.bytes.is_empty() {
        return Err(HashError::Damaged("trailing bytes"));
    }
    Ok(State::new(nodes))
}

/// Writes a node without its children.
fn write_node(node: &Node, out: &mut Vec<u8>) {
    match node {
        Node::File(digest) => {
            out.push(FILE | flag(digest.is_some(), HAS_DIGEST));
            write_digest(digest.as_ref(), out);
        }
        Node::Link(target, digest) => {
            out.push(LINK | flag(digest.is_some(), HAS_DIGEST));
            write_digest(digest.as_ref(), out);
            write_bytes(target, out);
        }
        Node::Dir(dir) => {
            out.push(
                DIR | flag(dir.header.is_some(), HAS_DIGEST)
                    | flag(dir.contents.is_some(), HAS_CONTENTS)
                    | flag(dir.children.is_some(), HAS_CHILDREN),
            );
            write_digest(dir.header.as_ref(), out);
            write_digest(dir.contents.as_ref(), out);
            if let Some(children) = &dir.children {
                write_number(children.len() as u64, out);
            }
        }
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn write_digest(digest: Option<&Digest>, out: &mut Vec<u8>) {
    let Some(digest) = digest else { return };
    let hex = digest.hex().as_bytes();
    out.extend(
        hex.chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, c| byte << 4 | nibble(*c))),
    );
}

fn nibble(c: u8) -> u8 {
    match c {
        b'0'..=b'9' => c - b'0',
        b'a'..=b'f' => c - b'a' + 10,
        _ => 0,
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_number(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn write_number(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push((n & 0x7f) as u8);
}

struct EncodedInput<'a> {
    bytes: &'a [u8],
}

impl EncodedInput<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8], HashError> {
        let (head, tail) = self
            .bytes
            .split_at_checked(n)
            .ok_or(HashError::Damaged("cut off"))?;
        self.bytes = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, HashError> {
        self.take(1)?
            .first()
            .copied()
            .ok_or(HashError::Damaged("cut off"))
    }

    fn number(&mut self) -> Result<usize, HashError> {
        let mut n: u64 = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // A conversion has one reason to fail, which the text names.
                return usize::try_from(n).map_err(|_| HashError::Damaged("number too large"));
            }
        }
        Err(HashError::Damaged("number too large"))
    }

    fn name(&mut self) -> Result<Box<[u8]>, HashError> {
        let n = self.number()?;
        Ok(self.take(n)?.into())
    }

    fn digest(&mut self, present: bool) -> Result<Option<Digest>, HashError> {
        if !present {
            return Ok(None);
        }
        Ok(Some(Digest::from_sha256_bytes(self.take(32)?)))
    }

    /// Reads a node; the number tells how many children follow.
    fn node(&mut self) -> Result<(Node, usize), HashError> {
        let tag = self.byte()?;
        let digest = self.digest(tag & HAS_DIGEST != 0)?;
        match tag & 0x0f {
            FILE => Ok((Node::File(digest), 0)),
            LINK => Ok((Node::Link(self.name()?, digest), 0)),
            DIR => {
                let contents = self.digest(tag & HAS_CONTENTS != 0)?;
                let (children, count) = if tag & HAS_CHILDREN != 0 {
                    (Some(BTreeMap::new()), self.number()?)
                } else {
                    (None, 0)
                };
                let dir = DirNode {
                    header: digest,
                    contents,
                    children,
                };
                Ok((Node::Dir(dir), count))
            }
            _ => Err(HashError::Damaged("unknown kind of file")),
        }
    }
}
