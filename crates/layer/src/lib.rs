//! Trees to layer blobs and back.
//!
//! [`create`] turns the changes of a snapshot into a layer in one streaming pass, [`apply`] turns a layer into the
//! upper directory of a snapshot, [`index`](index::index) keeps its tar and says where its files lie in it, and [`unpack_archive`] unpacks archives that `ADD` meets. Below them are our own
//! [`tar`] reader and writer, whose bytes are those of Go's `archive/tar`, and [`compress`].

mod apply;
pub mod compress;
mod create;
pub mod index;
pub mod tar;
pub mod unpack;

pub use apply::{Applied, ApplyError, ApplyOptions, Whiteouts, apply};
pub use compress::{AttributeError, Compression, CompressionAttributes, CompressionKind};
pub use create::{
    CreateError, CreateOptions, LayerInfo, convert, create, create_from_changes, write_tree,
    write_tree_to,
};
pub use unpack::{ArchiveUnpacker, UnpackOptions, is_archive, unpack_archive};
