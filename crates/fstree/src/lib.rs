//! Trees of files under a root that paths cannot leave.
//!
//! Everything that touches a root filesystem, a build context or an unpacked layer does it through [`Root`] and
//! [`Dir`], which hold descriptors and never a path of the host. On them stand the ordered walk of a tree
//! ([`walk`]), the file actions of a build ([`action`]), BuildKit's content digests ([`hash`]) and the changes an
//! overlay layer makes ([`diff`]).

pub mod action;
pub mod depth;
pub mod descent;
pub mod diff;
pub mod dir;
pub mod error;
pub mod hash;
pub mod remove;
pub mod root;
pub mod stat;
pub mod walk;

pub use depth::{MAX_DEPTH, MAX_PATH, TooDeep};
pub use descent::Descent;
pub use dir::{Dir, Entry, Times};
pub use error::{PathError, errno_text};
pub use root::{Owner, Root};
pub use stat::{Kind, Meta, Stat};
