//! EROFS images that hold metadata only: the *index* of a layer, whose files lie in other files, the *devices*.
//!
//! ```text
//!  index   superblock │ device table │ inodes, each with its xattrs, chunk places, end of its entries │ blocks of folders, long links
//!  device 1           the tar of a layer: a file's chunk names the block in which its content begins
//!  device 2 …         contents that lie elsewhere
//! ```
//!
//! The kernel mounts index and devices where they lie, as ordinary files (Linux 6.12), and so the tree that they describe is there
//! without a file having been made. A [`Tree`] is built from names, attributes and places; [`write()`] makes the image in one pass
//! forward; [`Image`] reads one.
//!
//! | layer | modules |
//! |---|---|
//! | bytes on disk | `format`, `xattr`, `directory` |
//! | what goes wrong | `error` |
//! | what is described | `tree` |
//! | both ways | `write` (with `layout`), `read` |
//!
//! The format is Linux's, `fs/erofs/erofs_fs.h`. Of what it offers we write: blocks of 512 to 4096 bytes, extended inodes, xattrs beside
//! their inode, ends of folders and targets of links beside their inode, files as chunks with places in devices. No compression, no
//! shared xattrs, no content of files in the image.
//!
//! # Invariants
//! - No tree that can be built makes an image that the kernel refuses, or that shows another tree: names, targets and xattrs are
//!   checked when they are added, places and sizes when the image is written.
//! - Nothing recurses, and a tree has no circle: only what is no folder can be linked.
//! - A reader trusts no byte: what it reads is bounded, and what contradicts itself is an error that names the inode.

mod directory;
mod error;
mod format;
mod layout;
mod read;
mod tree;
mod write;
mod xattr;

pub use error::WriteError;
pub use format::BlockSize;
pub use read::{Entry, Image, ImageSummary, Inode, InodeFault, Nid, ReadAt, ReadError};
pub use tree::{
    Attributes, Content, DeviceNumber, Extent, FileKind, Limits, Node, NodeId, Tree, TreeError,
};
pub use write::{Device, WriteOptions, Written, write};
pub use xattr::{Xattr, Xattrs};
